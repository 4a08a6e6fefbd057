//! What goes into the library and what comes out of it, as plain values.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::torrents::engine::{EngineError, EngineOptions};
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::MetainfoError;
use crate::torrents::report::Download;
use crate::torrents::shelf::ShelfError;
use crate::torrents::source::SourceError;
use crate::torrents::store::{Floor, StoreError};

/// How long a torrent is given to others once all of it is here. Before that everyone gives, or nobody would get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Seeding {
    /// Not at all: it leaves the swarm within seconds.
    Never,
    /// Until 5 minutes after it was last read from the network, or after the last of it came.
    #[default]
    InUse,
    /// For good, also after a restart: 32 torrents at most at once.
    Always,
}

/// Where the library lies, and how it behaves.
#[derive(Debug, Clone)]
pub struct LibraryOptions {
    /// Everything is kept below it; made if it is not there.
    pub data_dir: PathBuf,
    /// Told to a second daemon that wants the same data directory.
    pub mountpoint: PathBuf,
    /// Likewise.
    pub socket: PathBuf,
    /// How much is fetched of a torrent that is added without a word about it.
    pub download: Download,
    /// Whether torrents of which everything is here are given to others.
    pub seed: Seeding,
    /// Nothing is stored while less than this is free.
    pub floor: Floor,
    /// The engine's options.
    pub engine: EngineOptions,
}

/// What goes with a source that is added.
#[derive(Debug, Clone, Default)]
pub struct AddOptions {
    /// How much of it is fetched; `None` for the library's default, or for what it was of a torrent that is here.
    pub download: Option<Download>,
    /// Peers that are known to have it.
    pub peers: Vec<SocketAddr>,
    /// Nothing else is added with it: whoever adds it is about to read it, and it meets its peers.
    pub alone: bool,
}

/// What became of a source that was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// Of the torrent.
    pub info_hash: InfoHash,
    /// Its name in the root of the mount; before it is resolved, the magnet's.
    pub name: String,
    /// Whether its files are shown already.
    pub resolved: bool,
    /// Whether it was not in the library before.
    pub new: bool,
}

/// Why the library refuses.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The state on disk.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The words that name a torrent.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The torrent.
    #[error("{0}")]
    Metainfo(#[from] MetainfoError),
    /// The stored data.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// No torrent goes by that name.
    #[error("no torrent `{torrent}` in the library: `magnetfs list` shows what there is")]
    Unknown {
        /// What was asked for.
        torrent: String,
    },
    /// Several torrents go by that name.
    #[error("`{torrent}` could be any of {count} torrents: give more of its info hash")]
    Ambiguous {
        /// What was asked for.
        torrent: String,
        /// How many.
        count: usize,
    },
    /// The limit of the library.
    #[error("the library holds {limit} torrents, which is its limit: remove some")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// It went while it was waited for.
    #[error("the torrent was removed")]
    Removed,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}
