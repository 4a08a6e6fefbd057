//! One torrent's bytes on disk: sparse files and a have-map.
//!
//! A byte is given away only if its piece was compared with its hash since its file last changed. What was compared
//! is remembered over a clean stop, for the files that still look as they did then; after any other stop each piece
//! is hashed when it is first read. A piece that does not match becomes a missing one.

mod bits;
mod files;
mod hashes;
mod have;
mod held;
mod layout;
mod opening;
mod pieces;
mod space;
mod transfer;
mod verifying;

pub use files::Disk;
pub use pieces::{Store, StoreError};
pub use space::{Floor, FreeSpace, FreeSpaceReport};

#[cfg(test)]
mod tests;
