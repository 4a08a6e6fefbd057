//! What the library says of itself to people and scripts: plain values, the same over the control socket as in
//! `--json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How much of a torrent is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Download {
    /// What is read, and nothing else.
    #[default]
    OnDemand,
    /// All of it.
    Whole,
}

/// What a torrent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A magnet link whose metainfo no peer has sent yet; it shows no file.
    Resolving,
    /// At rest: listed and readable, but not connected to anyone until a byte is read that is not here.
    Parked,
    /// Connected, or looking for peers.
    Active,
    /// Stopped by the user: reads of what is missing fail.
    Paused,
    /// Stored data is being compared with its hashes.
    Checking,
    /// Every byte is here.
    Complete,
    /// Stopped by a fault, which the report names.
    Error,
}

impl State {
    /// The word of `list`, of `--json` and of the extended attribute.
    pub fn word(self) -> &'static str {
        match self {
            State::Resolving => "resolving",
            State::Parked => "parked",
            State::Active => "active",
            State::Paused => "paused",
            State::Checking => "checking",
            State::Complete => "complete",
            State::Error => "error",
        }
    }
}

/// One torrent in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TorrentReport {
    /// 40 hex digits.
    pub info_hash: String,
    /// The name in the root of the mount; for an unresolved magnet its display name or its info hash.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Size of all its files in bytes; 0 while it is unresolved.
    pub size: u64,
    /// Bytes stored here.
    pub bytes_here: u64,
    /// Bytes compared with their hashes so far, while it is being checked.
    pub bytes_checked: Option<u64>,
    /// Number of files shown.
    pub files: usize,
    /// Connected peers.
    pub peers: usize,
    /// Bytes a second, received.
    pub download_rate: u64,
    /// Bytes a second, sent.
    pub upload_rate: u64,
    /// Bytes of blocks received since the daemon started.
    pub fetched: u64,
    /// Bytes of blocks sent since the daemon started.
    pub uploaded: u64,
    /// How much of it is fetched.
    pub download: Download,
    /// What is wrong, and what mends it.
    pub error: Option<String>,
}

/// One torrent in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TorrentDetail {
    /// The line of `list`.
    #[serde(flatten)]
    pub report: TorrentReport,
    /// Bytes in a piece; 0 while it is unresolved.
    pub piece_length: u32,
    /// Number of pieces.
    pub piece_count: u32,
    /// Seconds since 1970 when it was added.
    pub added: u64,
    /// BEP 27: peers come from its trackers alone.
    pub private: bool,
    /// Announce URLs.
    pub trackers: Vec<String>,
    /// Its files, in the torrent's order, without padding.
    pub contents: Vec<FileReport>,
}

/// One file of a torrent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileReport {
    /// Relative to the root of the mount.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Bytes stored here.
    pub bytes_here: u64,
}

/// The library as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LibraryReport {
    /// Number of torrents.
    pub torrents: usize,
    /// Torrents that are connected now.
    pub active: usize,
    /// Bytes stored here.
    pub used: u64,
    /// Free bytes on the file system of the data directory.
    pub free: u64,
    /// Nothing is stored while fewer bytes than this are free.
    pub floor: u64,
    /// Whether there is room to store what arrives.
    pub storing: bool,
}
