//! What films are asked of: bytes for the index, a path for FFmpeg, and what the swarm is doing.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sha1::{Digest, Sha1};

use crate::media::ReadAt;

/// A file of a torrent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    /// 40 lower-case hexadecimal digits.
    pub info_hash: String,
    /// In the torrent, its parts joined by `/`; of a torrent of one file that file's name. Only ever looked up, never
    /// joined to a directory.
    pub path: String,
}

impl fmt::Display for FileName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.info_hash, self.path)
    }
}

/// What all that is kept of a torrent is filed under, whatever stands for its info hash.
pub(super) fn shelf_mark(info_hash: &str) -> [u8; 20] {
    Sha1::digest(info_hash.as_bytes()).into()
}

/// Why a file cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// No torrent has such a file.
    #[error("there is no such file")]
    Unknown,
    /// It is there, but cannot be read now: paused, failed, not known yet. In words for a person.
    #[error("{0}")]
    Unavailable(String),
}

/// An open file of a source.
pub trait FilmFile: ReadAt {
    /// Asks for bytes that are sure to be read, by whomever, the first of them in the time `within`: after what is waited
    /// for, and in order, until others are expected or this is dropped. Ready as soon as they are asked for; what cannot
    /// be had is for the reads to tell.
    fn expect(&self, bytes: Range<u64>, within: Duration) -> impl Future<Output = ()> + Send;
}

/// Where the films come from: the library and the mount, or a folder in tests.
///
/// Nothing here waits, apart from reads of an opened file.
pub trait Source: Send + Sync + 'static {
    /// What the index is read through.
    type Content: FilmFile + 'static;

    /// The info hashes of all torrents there are, as in a [`FileName`], whatever state they are in.
    fn torrents(&self) -> HashSet<String>;

    /// Opens a file for the reads of its index.
    ///
    /// # Errors
    /// There is none of this name, or it cannot be read now.
    fn open(&self, file: &FileName) -> Result<Self::Content, SourceError>;

    /// The absolute path that FFmpeg reads. Nothing in this process opens it.
    ///
    /// # Errors
    /// As [`Source::open`].
    fn path(&self, file: &FileName) -> Result<PathBuf, SourceError>;

    /// Whether a viewer waits for what the process `pid` reads. Until this is said first, its reads are urgent.
    fn pace(&self, pid: u32, urgent: bool);

    /// The process is gone; its id may come to mean another.
    fn forget(&self, pid: u32);

    /// For each range of bytes, whether all of it is here. A file that is not known has nothing here.
    fn here(&self, file: &FileName, ranges: &[Range<u64>]) -> Vec<bool>;

    /// When data last arrived for this file's torrent, if any did since the start.
    fn last_progress(&self, file: &FileName) -> Option<Instant>;
}
