//! The library: known torrents, their files, and their state on disk.

mod report;

pub use report::{Download, FileReport, LibraryReport, State, TorrentDetail, TorrentReport};
