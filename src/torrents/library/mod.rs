//! The library: which torrents there are, and what happens to them.

mod core;
mod found;
mod shown;
mod torrent;
mod upkeep;
mod values;

#[cfg(test)]
mod tests;

pub use core::Library;
pub use found::TorrentFile;
pub use shown::{Entrance, LibraryFile};
pub use values::{AddOptions, Added, LibraryError, LibraryOptions, Seeding};
