//! Why a torrent is refused, in one line each.

use crate::torrents::info_hash::InfoHash;

/// Why a .torrent is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetainfoError {
    /// Nothing like bencode.
    #[error("not a torrent: {why}")]
    NotATorrent {
        /// What is there instead.
        why: &'static str,
    },
    /// It ends in the middle.
    #[error("the torrent is truncated: it ends at byte {at} in the middle of {what}")]
    Truncated {
        /// Its length.
        at: usize,
        /// What was being read.
        what: &'static str,
    },
    /// It begins like bencode and goes wrong.
    #[error("the torrent is damaged at byte {at}: {what}")]
    Malformed {
        /// Where.
        at: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// A field that every torrent has is not there.
    #[error("the torrent has no `{field}`")]
    Missing {
        /// Its name in the file.
        field: &'static str,
    },
    /// A field is of the wrong kind or out of range.
    #[error("the torrent's `{field}` is not {expected}")]
    Field {
        /// Its name in the file.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// BitTorrent version 2 alone.
    #[error("the torrent is of BitTorrent version 2 alone, which is not supported: use a hybrid or version 1 torrent")]
    Version2,
    /// A file that is no plain file.
    #[error("the torrent holds a symbolic link, `{path}`, which is not supported")]
    Symlink {
        /// Its path in the torrent.
        path: String,
    },
    /// Zero, or past the limit.
    #[error("the torrent's piece length is {length} bytes; it must be 1 to {limit}")]
    PieceLength {
        /// What it says.
        length: i64,
        /// The limit.
        limit: u32,
    },
    /// The files have another number of pieces than there are hashes.
    #[error("the torrent has {found} piece hashes for {expected} pieces")]
    PieceCount {
        /// Hashes there.
        found: u64,
        /// Pieces by its sizes.
        expected: u64,
    },
    /// More of something than anyone needs.
    #[error("the torrent has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// Nothing to show.
    #[error("the torrent holds no file")]
    NoFile,
    /// A name that cannot stand in a file system, or would leave the torrent's folder.
    #[error("the torrent names a file {name:?}: {problem}")]
    Name {
        /// The name or path, shortened.
        name: String,
        /// What is wrong with it.
        problem: NameProblem,
    },
    /// Two files of one path, or a file where another needs a folder.
    #[error("the torrent's files {first:?} and {second:?} cannot stand beside each other")]
    Clash {
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// It is not the torrent that was asked for.
    #[error("the torrent's info hash is {found}, not {expected}")]
    InfoHash {
        /// What it has.
        found: InfoHash,
        /// What was asked for.
        expected: InfoHash,
    },
    /// Sound to us, but not to the engine.
    #[error("the engine refuses the torrent: {0}")]
    Engine(String),
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Nothing is left of it.
    #[error("it is empty")]
    Empty,
    /// `.` or `..`.
    #[error("`.` and `..` are not names")]
    Dots,
    /// `/` or `\`.
    #[error("a name has no slash or backslash")]
    Slash,
    /// NUL.
    #[error("a name has no NUL")]
    Nul,
    /// Over 255 bytes.
    #[error("it is longer than 255 bytes")]
    Long,
    /// A path over the limit.
    #[error("the path is too long or too deep")]
    Path,
}
