//! The room of the same name.

#[path = "../../../src/swarm/discovery/error.rs"]
mod error;
#[path = "trackers.rs"]
pub mod trackers;

pub use error::DiscoveryError;

/// As in the room.
pub const FOUND_MOST: usize = 1_000;
