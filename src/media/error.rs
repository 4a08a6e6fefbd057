//! Why there is no index.

use std::io;

use super::types::Container;

/// Why a file has no [`Index`](super::Index).
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// Its first bytes are those of no container that is known here.
    #[error("this is no MP4, Matroska or WebM file")]
    Unrecognised,
    /// A container that is known, but of a kind whose keyframes no index lists; nothing is scanned for them, since that
    /// would read the whole file.
    #[error("{container} file without a usable index of its keyframes: {why}")]
    NoIndex {
        /// What the container calls itself: `MP4`, `Matroska`, `AVI`, `MPEG-TS`.
        container: &'static str,
        /// In words, for the person who wants to watch it.
        why: String,
    },
    /// There is no video track; sound alone is not served.
    #[error("{} file without a video track", .0.name())]
    NoVideo(Container),
    /// It contradicts itself or its format.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// More of something than anything real has.
    #[error("the file has more {what} than the {limit} that are read")]
    TooLarge {
        /// Of what: `tracks`, `bytes of index`.
        what: &'static str,
        /// How many are read at most.
        limit: u64,
    },
    /// What [`ReadAt`](super::ReadAt) failed with; the same call may work another time.
    #[error("the file cannot be read: {0}")]
    Read(#[from] io::Error),
}
