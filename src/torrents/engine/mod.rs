//! The engine: peers, through librqbit's `Session`. A stepping stone, and the only folder that names librqbit.
//!
//! Its traps are stepped round: few cursors and a large pool for blocking work
//! (each cursor holds a slot of it), short request queues, long timeouts, nothing of its resume data believed but what
//! the store verified, and a visitor who wakes requesters that sleep. What is not stepped round: that takes a listening
//! address, and without one a demand may wait for 5 s; a piece comes from one peer alone; it fetches 32 MiB ahead of a
//! cursor, always.

mod cursors;
mod keeper;
mod seeder;
mod session;
mod storage;
mod swarm;
mod waker;

pub use cursors::{Demand, Reader};
pub use seeder::Seeder;
pub use session::{Engine, EngineError, EngineOptions};
pub use swarm::{PeerCounts, Swarm};

#[cfg(test)]
mod tests;
