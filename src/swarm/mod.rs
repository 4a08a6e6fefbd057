//! The engine: peers, blocks, and which of them is asked for what. Knows nothing of files as paths, FUSE or HTTP.
//!
//! - [`shape`]: pieces, blocks and sets of pieces
//! - [`picker`]: which block is asked of which peer, and when; pure
//! - [`reader`]: what an open file's reads ask for, now and next; pure
//! - [`wire`]: the messages of one connection and their bytes; pure
//! - [`extension`]: the payloads of the extension protocol (BEP 9, 10, 11 and 54); pure
//! - [`metadata`]: how a torrent's info dictionary is put together from several peers; pure
//! - [`peer`]: one connection
//! - [`discovery`], [`listener`]: where peers come from
//! - [`limits`], [`choker`]: what we allow ourselves and others
//! - [`torrent`]: one torrent: the task that owns its picker, its peers and its address book
//! - [`engine`]: what all torrents share

mod assembly;
mod bencode;
pub mod choker;
pub mod discovery;
pub mod engine;
pub mod extension;
pub mod limits;
pub mod listener;
pub mod metadata;
pub mod peer;
pub mod picker;
pub mod reader;
pub mod shape;
#[cfg(test)]
mod simulator;
pub mod torrent;
pub mod web;
pub mod wire;

pub use assembly::{Finished, Storage};
