//! The library's side of the engine: files and stores on this side, pieces and peers on the other.

mod adapter;
mod seeder;
mod storage;

pub use adapter::{Contacts, Engine, EngineError, PeerCounts, Reader, Swarm};
pub use seeder::Seeder;

pub use crate::swarm::engine::EngineOptions;
pub(in crate::torrents) use crate::swarm::torrent::Progress;

#[cfg(test)]
mod tests;
