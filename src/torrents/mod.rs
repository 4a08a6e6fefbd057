//! The library: known torrents, their files, and their state on disk.

mod info_hash;
mod metainfo;
pub mod names;
mod report;
mod shelf;
mod source;

pub use info_hash::{InfoHash, NotAnInfoHash};
pub use metainfo::{File, METAINFO_LIMIT, Metainfo, MetainfoError, NameProblem};
pub use report::{Download, FileReport, LibraryReport, State, TorrentDetail, TorrentReport};
pub use shelf::{Holder, Options, Shelf, ShelfError, Shelved};
pub use source::{Magnet, Source, SourceError, fetch, read_file};
