//! The library on disk: which torrents there are, their metainfo and options.
mod options;
pub use options::Options;
