//! What the swarm may use: bytes a second, and connections.

mod connections;
mod rate;

pub(in crate::swarm) use connections::PerAddress;
pub use connections::{Connected, ConnectionLimits, Connections, Dialing, Refused};
pub use rate::{RateLimit, Throttle};
