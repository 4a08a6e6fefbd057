//! The library: known torrents, their files, and their state on disk.

mod content;
mod engine;
mod info_hash;
mod library;
mod metainfo;
pub mod names;
mod pace;
mod report;
mod shelf;
mod source;
mod store;

pub use content::{Activate, OpenFile};
pub use engine::{Contacts, Engine, EngineError, EngineOptions, PeerCounts, Reader, Seeder, Swarm};
pub use info_hash::{InfoHash, NotAnInfoHash};
pub use library::{
    AddOptions, Added, Entrance, Library, LibraryError, LibraryFile, LibraryOptions, Seeding, TorrentFile,
};
pub use metainfo::{File, METAINFO_LIMIT, Metainfo, MetainfoError, NameProblem};
pub use pace::{Pace, Paces};
pub use report::{Download, FileReport, LibraryReport, State, TorrentDetail, TorrentReport};
pub use shelf::{Holder, Options, Shelf, ShelfError, Shelved};
pub use source::{Magnet, Source, SourceError, fetch, read_file};
pub use store::{Disk, Floor, FreeSpace, FreeSpaceReport, Store, StoreError};

#[cfg(test)]
mod testing;
