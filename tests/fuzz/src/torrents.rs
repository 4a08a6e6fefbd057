//! The room of the same name.

#[path = "../../../src/torrents/info_hash.rs"]
pub mod info_hash;
#[path = "../../../src/torrents/metainfo/mod.rs"]
pub mod metainfo;
