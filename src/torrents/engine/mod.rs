//! The engine: peers, through librqbit's `Session`. A stepping stone, and the only folder that names librqbit.
//!
//! Its traps are stepped round as `notes/librqbit.md` measured them: few cursors and a large pool for blocking work
//! (each cursor holds a slot of it), short request queues, long timeouts, nothing of its resume data believed but what
//! the store verified. What is not stepped round: when nothing is left to fetch its requesters sleep up to 5 s before
//! they notice a new demand; a piece comes from one peer alone; it fetches 32 MiB ahead of a cursor, always.

mod cursors;
mod keeper;
mod session;
mod storage;
mod swarm;

pub use cursors::{Demand, Reader};
pub use session::{Engine, EngineError, EngineOptions};
pub use swarm::{PeerCounts, Swarm};

#[cfg(test)]
mod tests;
