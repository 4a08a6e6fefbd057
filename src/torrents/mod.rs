//! The library: known torrents, their files, and their state on disk.

mod report;
mod space;

pub use report::{Download, FileReport, LibraryReport, State, TorrentDetail, TorrentReport};
pub use space::Floor;
