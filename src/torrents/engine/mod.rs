//! The library's side of the engine: files and stores on this side, pieces and peers on the other.

mod adapter;
mod seeder;
mod storage;

pub use adapter::{Engine, EngineError, EngineOptions, PeerCounts, Reader, Swarm};
pub use seeder::Seeder;

#[cfg(test)]
mod tests;
