//! The parts of the program that read what strangers send, taken in as they are.

#[path = "../../../src/media/mod.rs"]
pub mod media;
pub mod swarm;
#[allow(dead_code, unused_imports, reason = "the rest of the room uses them")]
pub mod torrents;
