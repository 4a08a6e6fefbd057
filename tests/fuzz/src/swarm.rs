//! The room of the same name.

#[path = "../../../src/swarm/bencode.rs"]
mod bencode;
#[path = "discovery.rs"]
pub mod discovery;
#[path = "../../../src/swarm/extension.rs"]
pub mod extension;
#[path = "../../../src/swarm/metadata.rs"]
pub mod metadata;
#[path = "../../../src/swarm/wire.rs"]
pub mod wire;
