//! What a .torrent says, checked.
//!
//! Everything here came from a stranger: [`Metainfo::parse`] is the door, and behind it no name leaves its folder, no
//! size overflows and no two files share a path. Whatever it accepts, the engine accepts too.

mod bencode;
mod error;
mod names;
mod parse;
mod raw;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::time::SystemTime;

pub use error::{MetainfoError, NameProblem};
pub(super) use parse::info_of;

pub(crate) use names::{NAME_LIMIT, is_plain_name};

use super::info_hash::InfoHash;

/// No .torrent is larger, in bytes.
pub const METAINFO_LIMIT: usize = 64 << 20;
/// More trackers of a torrent are left out, and longer URLs, in bytes.
const TRACKER_LIMIT: usize = 100;
const TRACKER_LENGTH_LIMIT: usize = 2048;

/// A checked torrent (version 1, or the version 1 side of a hybrid), without its piece hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metainfo {
    /// SHA-1 of the info dictionary as it stands.
    pub info_hash: InfoHash,
    /// The name it gives itself: one plain path component of at most 255 bytes. Of a torrent that gives none, the info
    /// hash.
    pub name: String,
    /// Bytes in a piece, 1 ..= 256 MiB.
    pub piece_length: u32,
    /// Size of all its files in bytes, padding included.
    pub total: u64,
    /// Number of pieces: `total / piece_length`, rounded up.
    pub piece_count: u32,
    /// In the torrent's order, so that an index here means the same file to peers and engine.
    pub files: Vec<File>,
    /// One file beside others, rather than a folder of files.
    pub single_file: bool,
    /// BEP 27: peers come from its trackers alone.
    pub private: bool,
    /// Announce URLs, in order, without repetition.
    pub trackers: Vec<String>,
    /// When it was made, by its own account.
    pub created: Option<SystemTime>,
    /// Where the piece hashes, 20 bytes each, lie in the .torrent. They stay on disk: a thousand torrents' hashes would
    /// fill the memory for nothing.
    pub(crate) hashes: Range<usize>,
}

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Below the torrent's folder; of a single-file torrent, its name alone. Plain components of at most 255 bytes.
    pub path: Box<[String]>,
    /// Where it begins, in bytes of the torrent.
    pub offset: u64,
    /// Size in bytes.
    pub length: u64,
    /// BEP 47: zeros between two files. It is never shown, and its path may not be unique.
    pub padding: bool,
}

impl Metainfo {
    /// Bytes in a piece: `piece_length`, or less for the last one. 0 for a piece that does not exist.
    pub fn piece_size(&self, piece: u32) -> u32 {
        let start = u64::from(piece) * u64::from(self.piece_length);
        let rest = self.total.saturating_sub(start);
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// The pieces that hold the given bytes of the torrent, as far as they exist. None for an empty range.
    pub fn pieces_of(&self, range: Range<u64>) -> Range<u32> {
        let end = range.end.min(self.total);
        if range.start >= end {
            return 0..0;
        }
        let piece_length = u64::from(self.piece_length);
        let piece_of = |offset: u64| u32::try_from(offset / piece_length).unwrap_or(u32::MAX);
        piece_of(range.start)..piece_of(end - 1).saturating_add(1)
    }
}

/// Adds an announce URL of a torrent or magnet link, unless it is there or there are enough.
pub(crate) fn add_tracker(trackers: &mut Vec<String>, url: &str) {
    let fits = !url.is_empty() && url.len() <= TRACKER_LENGTH_LIMIT && trackers.len() < TRACKER_LIMIT;
    if fits && !trackers.iter().any(|known| known == url) {
        trackers.push(url.to_owned());
    }
}
