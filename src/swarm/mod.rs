//! The engine: which block of a torrent is asked of which peer, and when.
//!
//! - [`shape`]: pieces, blocks and sets of pieces
//! - [`wire`]: the messages of one connection and their bytes; pure
//! - [`extension`]: the payloads of the extension protocol (BEP 9, 10, 11 and 54); pure
//! - [`metadata`]: how a torrent's info dictionary is put together from several peers; pure
//! - [`peer`]: one connection

mod bencode;
pub mod extension;
pub mod metadata;
pub mod peer;
pub mod shape;
pub mod wire;
