//! Torrents of the library in the swarm engine.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::storage::StoreStorage;
use crate::swarm::engine::{self as swarm, EngineOptions};
use crate::swarm::shape::{Shape, ShapeError};
use crate::swarm::torrent::{Demand, Progress, Torrent, TorrentOptions};
use crate::torrents::source::Magnet;
use crate::torrents::store::Store;

/// Why the engine refuses.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It does not start.
    #[error(transparent)]
    Start(#[from] swarm::EngineError),
    /// The torrent's pieces are out of bounds.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A magnet with no peer, no tracker, and everything off that could find one.
    #[error("nothing can find a peer for it: name one with --peer, or switch on --dht, --lsd or --trackers")]
    NoSources,
}

/// How many peers a torrent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerCounts {
    /// Connected.
    pub live: usize,
    /// Being connected.
    pub connecting: usize,
    /// Known.
    pub known: usize,
}

/// Where a torrent's peers are looked for first.
#[derive(Debug, Clone, Default)]
pub struct Contacts {
    /// Peers that the user or the magnet named.
    pub peers: Vec<SocketAddr>,
    /// Peers of an earlier stay in the engine. Not taken up for a private torrent (BEP 27).
    pub remembered: Vec<SocketAddr>,
    /// Announce URLs.
    pub trackers: Vec<String>,
}

/// The network side of all torrents. Dropping it ends all connections.
#[derive(Debug)]
pub struct Engine {
    pub(super) swarm: swarm::Engine,
}

impl Engine {
    /// Starts listening, and the ways to find peers that are on.
    ///
    /// # Errors
    /// The listening address is taken; the state folder cannot be written.
    pub async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        Ok(Engine {
            swarm: swarm::Engine::start(options).await?,
        })
    }

    /// The port that peers connect to.
    pub fn listen_port(&self) -> Option<u16> {
        self.swarm.listen_port()
    }

    /// Fetches the metainfo of a magnet, as bytes of a .torrent around an info dictionary whose hash was compared. It
    /// takes as long as it takes; dropping the future gives up.
    ///
    /// # Errors
    /// [`EngineError::NoSources`]. That nobody answers is no error.
    pub async fn resolve(&self, magnet: &Magnet, extra_peers: &[SocketAddr]) -> Result<Vec<u8>, EngineError> {
        let peers: Vec<SocketAddr> = magnet.peers.iter().chain(extra_peers).copied().collect();
        if peers.is_empty() && !self.swarm.can_find_peers(!magnet.trackers.is_empty()) {
            return Err(EngineError::NoSources);
        }
        // A magnet link knows no tiers (BEP 9): each tracker is one.
        let tiers: Vec<Vec<String>> = magnet.trackers.iter().map(|tracker| vec![tracker.clone()]).collect();
        let info = self.swarm.resolve(magnet.info_hash.0, &peers, &tiers).await;
        Ok([b"d4:info", &*info, b"e"].concat())
    }

    /// Connects a torrent: from now on its peers are looked for, and what is demanded (all of it, if `whole`) is
    /// fetched into the store.
    ///
    /// # Errors
    /// The torrent's pieces are out of bounds.
    pub fn enter(&self, store: Arc<Store>, contacts: Contacts, whole: bool) -> Result<Swarm, EngineError> {
        let metainfo = store.metainfo();
        let torrent = self.swarm.enter(TorrentOptions {
            info_hash: metainfo.info_hash.0,
            shape: Shape::new(metainfo.piece_length, metainfo.total)?,
            private: metainfo.private,
            storage: Arc::new(StoreStorage(store.clone())),
            peers: contacts.peers,
            remembered: contacts.remembered,
            trackers: contacts.trackers.into_iter().map(|tracker| vec![tracker]).collect(),
            whole,
        });
        Ok(Swarm { torrent, store })
    }

    /// Ends what all torrents share; less than a second. They are to [leave](Swarm::leave) before.
    pub async fn stop(&self) {
        self.swarm.stop().await;
    }
}

/// One torrent in the engine.
#[derive(Debug)]
pub struct Swarm {
    torrent: Torrent,
    store: Arc<Store>,
}

impl Swarm {
    /// An open file, by its index in the torrent.
    pub fn reader(&self, file: usize) -> Reader {
        let metainfo = self.store.metainfo();
        let bytes = metainfo
            .files
            .get(file)
            .map_or(0..0, |file| file.offset..file.offset + file.length);
        Reader {
            start: bytes.start,
            reader: self.torrent.reader(bytes),
        }
    }

    /// How many peers there are.
    pub fn peers(&self) -> PeerCounts {
        let status = self.torrent.status();
        PeerCounts {
            live: status.connected(),
            connecting: status.dialing(),
            known: status.known(),
        }
    }

    /// Reads that wait.
    pub fn waiting(&self) -> usize {
        self.torrent.status().waiting()
    }

    /// Bytes a second, received and sent.
    pub fn rates(&self) -> (u64, u64) {
        (
            self.torrent.status().download_rate(),
            self.torrent.status().upload_rate(),
        )
    }

    /// The peers worth trying first when it enters again, best first; some seconds old. None of a private torrent.
    pub fn remembered(&self) -> Vec<SocketAddr> {
        self.torrent.status().remembered()
    }

    /// Bytes of blocks received since it entered.
    pub fn fetched(&self) -> u64 {
        self.torrent.status().fetched()
    }

    /// Bytes of blocks sent since it entered.
    pub fn uploaded(&self) -> u64 {
        self.torrent.status().uploaded()
    }

    /// When the last block arrived.
    pub fn last_block(&self) -> Option<Instant> {
        self.torrent.status().last_block()
    }

    /// Hangs up on everyone, and waits until nothing more is stored.
    pub async fn leave(&self) {
        self.torrent.leave().await;
    }

    /// Whether it left, or is about to.
    pub fn has_left(&self) -> bool {
        self.torrent.has_left()
    }

    /// Waits until it leaves.
    pub async fn left(&self) {
        self.torrent.left().await;
    }
}

/// An open file in the engine. Dropping it closes it.
#[derive(Debug)]
pub struct Reader {
    /// Where the file begins in the torrent.
    start: u64,
    reader: crate::swarm::torrent::Reader,
}

impl Reader {
    /// Asks for bytes of the file that are sure to be read, the first of them in the time `within`, until others are
    /// expected or it is closed.
    pub fn expect(&self, offset: u64, length: u64, within: Duration) {
        let start = self.start + offset;
        self.reader.expect(start..start + length, within);
    }

    /// Notes that bytes of the file were read and were here.
    pub fn passed(&self, offset: u64, length: u64) {
        let start = self.start + offset;
        self.reader.passed(start..start + length);
    }

    /// Asks for bytes of the file until the demand is dropped; `urgent` unless the reader works ahead of its viewer.
    /// `progress` hears whether waiting makes sense.
    pub fn demand(&self, offset: u64, length: u64, urgent: bool, progress: &Arc<Progress>) -> Demand {
        let start = self.start + offset;
        self.reader.demand(start..start + length, urgent, progress.clone())
    }
}
