//! One torrent in the engine.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use librqbit::api::TorrentIdOrHash;
use librqbit::storage::StorageFactoryExt;
use librqbit::{AddTorrent, AddTorrentOptions, AddTorrentResponse, ManagedTorrent, ManagedTorrentState, Session};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::cursors::{Board, Reader};
use super::keeper;
use super::session::{Engine, EngineError};
use super::storage::StoreFactory;
use crate::torrents::store::Store;

/// Peers of one torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerCounts {
    /// Connected, and spoken to.
    pub live: usize,
    /// Being connected to, or next in the queue for it.
    pub connecting: usize,
    /// Seen since the torrent was last connected.
    pub known: usize,
}

/// One torrent in the engine. [`Swarm::leave`] is its end; dropping it is the same, without waiting.
pub struct Swarm {
    pub(super) inner: Arc<Inner>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

/// What a swarm and its keeper share.
pub(super) struct Inner {
    pub(super) session: Arc<Session>,
    pub(super) cursors: Arc<Semaphore>,
    pub(super) store: Arc<Store>,
    pub(super) board: Arc<Board>,
    pub(super) whole: bool,
    id: usize,
    pieces_path: std::path::PathBuf,
    peers: Vec<SocketAddr>,
    trackers: Vec<String>,
    handle: RwLock<Arc<ManagedTorrent>>,
    /// Held while the torrent is taken out of librqbit, put into it, paused or unpaused.
    pub(super) changing: tokio::sync::Mutex<bool>,
    /// What connections that are over brought and took: librqbit counts from 0 after each pause.
    fetched_before: AtomicU64,
    uploaded_before: AtomicU64,
    /// How often peers were looked for anew.
    pub(super) rebuilds: AtomicU64,
    pub(super) growth: Mutex<Option<Instant>>,
    pub(super) error: Mutex<Option<String>>,
    pub(super) ended: CancellationToken,
}

impl Swarm {
    pub(super) async fn enter(
        engine: &Engine,
        store: Arc<Store>,
        peers: &[SocketAddr],
        trackers: &[String],
        whole: bool,
    ) -> Result<Swarm, EngineError> {
        let info_hash = store.metainfo().info_hash;
        let add = Add {
            session: &engine.session,
            store: &store,
            // librqbit's own numbers are given twice when two torrents are added at once, and then the second caller
            // gets the first one's torrent.
            id: engine.next_id.fetch_add(1, Ordering::Relaxed),
            pieces_path: &engine.pieces_path(info_hash),
            peers,
            trackers,
            whole,
        };
        let handle = add.run().await?;
        let inner = Arc::new(Inner {
            session: engine.session.clone(),
            cursors: engine.cursors.clone(),
            board: Board::new(store.metainfo().piece_length),
            whole,
            id: add.id,
            pieces_path: add.pieces_path.to_owned(),
            peers: peers.to_vec(),
            trackers: trackers.to_vec(),
            handle: RwLock::new(handle),
            changing: tokio::sync::Mutex::new(false),
            fetched_before: AtomicU64::new(0),
            uploaded_before: AtomicU64::new(0),
            rebuilds: AtomicU64::new(0),
            growth: Mutex::new(None),
            error: Mutex::new(None),
            ended: engine.ended.child_token(),
            store,
        });
        let keeper = tokio::spawn(keeper::keep(inner.clone()));
        Ok(Swarm {
            inner,
            keeper: Mutex::new(Some(keeper)),
        })
    }

    /// A reader of one file: demands go through it.
    pub fn reader(&self, file: usize) -> Reader {
        self.inner.board.reader(file)
    }

    /// How many peers there are.
    pub fn peers(&self) -> PeerCounts {
        self.inner.live_stats().0
    }

    /// Bytes a second received and sent.
    pub fn rates(&self) -> (u64, u64) {
        self.inner.handle().live().map_or((0, 0), |live| {
            (live.down_speed_estimator().bps(), live.up_speed_estimator().bps())
        })
    }

    /// Bytes of blocks received since it entered, those of no use too.
    pub fn fetched(&self) -> u64 {
        self.inner.fetched_before.load(Ordering::Relaxed) + self.inner.live_stats().1
    }

    /// Bytes of blocks sent since it entered.
    pub fn uploaded(&self) -> u64 {
        self.inner.uploaded_before.load(Ordering::Relaxed) + self.inner.live_stats().2
    }

    /// When a connected peer last sent a block of this torrent, to a tenth of a second, as long as somebody waits.
    pub fn last_block(&self) -> Option<Instant> {
        *self.inner.growth.lock()
    }

    /// What is wrong, if anything. The engine goes on trying while it is.
    pub fn error(&self) -> Option<String> {
        self.inner.error.lock().clone()
    }

    /// Ends all connections until [`Swarm::resume`].
    ///
    /// # Errors
    /// The engine's, which [`Swarm::leave`] ends in any case.
    pub async fn pause(&self) -> Result<(), EngineError> {
        let mut paused = self.inner.changing.lock().await;
        *paused = true;
        self.inner.disconnect().await
    }

    /// Looks for peers again.
    ///
    /// # Errors
    /// The engine's.
    pub async fn resume(&self) -> Result<(), EngineError> {
        let mut paused = self.inner.changing.lock().await;
        if std::mem::take(&mut *paused) {
            self.inner.connect().await
        } else {
            Ok(())
        }
    }

    /// Ends it. Nothing of this torrent is stored by the engine when this returns; whoever waits for
    /// [`Swarm::left`] is woken. A second call returns at once.
    pub async fn leave(&self) {
        self.inner.ended.cancel();
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.await.ok();
            let _changing = self.inner.changing.lock().await;
            self.inner.remove().await;
        }
    }

    /// Whether it was ended, by itself or with the engine.
    pub fn has_left(&self) -> bool {
        self.inner.ended.is_cancelled()
    }

    /// Waits until it is ended.
    pub async fn left(&self) {
        self.inner.ended.cancelled().await;
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.inner.ended.cancel();
        let Some(keeper) = self.keeper.get_mut().take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let inner = self.inner.clone();
            runtime.spawn(async move {
                keeper.await.ok();
                inner.remove().await;
            });
        }
    }
}

impl fmt::Debug for Swarm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Swarm")
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}

impl Inner {
    pub(super) fn handle(&self) -> Arc<ManagedTorrent> {
        self.handle.read().clone()
    }

    /// Peers, and bytes fetched and uploaded since the last pause.
    pub(super) fn live_stats(&self) -> (PeerCounts, u64, u64) {
        self.handle().live().map_or_else(Default::default, |live| {
            let stats = live.stats_snapshot();
            let peers = PeerCounts {
                live: stats.peer_stats.live as usize,
                connecting: (stats.peer_stats.connecting + stats.peer_stats.queued) as usize,
                known: stats.peer_stats.seen as usize,
            };
            (peers, stats.fetched_bytes, stats.uploaded_bytes)
        })
    }

    fn remember_stats(&self) {
        let (_, fetched, uploaded) = self.live_stats();
        self.fetched_before.fetch_add(fetched, Ordering::Relaxed);
        self.uploaded_before.fetch_add(uploaded, Ordering::Relaxed);
    }

    /// Under `changing`.
    pub(super) async fn disconnect(&self) -> Result<(), EngineError> {
        let handle = self.handle();
        // A torrent that is still being started would start all the same.
        handle.wait_until_initialized().await.map_err(EngineError::words)?;
        if handle.live().is_none() {
            return Ok(());
        }
        self.remember_stats();
        self.session.pause(&handle).await.map_err(EngineError::words)
    }

    /// Under `changing`.
    pub(super) async fn connect(&self) -> Result<(), EngineError> {
        let handle = self.handle();
        match handle.live() {
            Some(_) => Ok(()),
            None => self.session.unpause(&handle).await.map_err(EngineError::words),
        }
    }

    /// Takes the torrent out and puts it back with what the store verified, which is all that mends an error. Under
    /// `changing`, and without a cursor.
    pub(super) async fn enter_again(&self) -> Result<(), EngineError> {
        self.remove().await;
        let add = Add {
            session: &self.session,
            store: &self.store,
            id: self.id,
            pieces_path: &self.pieces_path,
            peers: &self.peers,
            trackers: &self.trackers,
            whole: self.whole,
        };
        *self.handle.write() = add.run().await?;
        Ok(())
    }

    async fn remove(&self) {
        self.remember_stats();
        if let Err(error) = self.session.delete(TorrentIdOrHash::Id(self.id), false).await {
            tracing::debug!(torrent = self.store.metainfo().name, "{error:#}");
        }
    }

    /// The error that stopped the torrent in librqbit; `Ok(true)` once it is ready for cursors.
    pub(super) fn state(&self) -> Result<bool, String> {
        self.handle().with_state(|state| match state {
            ManagedTorrentState::Initializing(_) => Ok(false),
            ManagedTorrentState::Paused(_) | ManagedTorrentState::Live(_) => Ok(true),
            ManagedTorrentState::Error(error) => Err(format!("{error:#}")),
            ManagedTorrentState::None => Err("it could not be put into the engine again".to_owned()),
        })
    }

    /// librqbit may have hashed the stored files itself and found pieces that the store does not know of. Of those it
    /// would never say that they are complete.
    pub(super) fn adopt_pieces(&self) {
        let api = librqbit::Api::new(self.session.clone(), None);
        let Ok((pieces, _)) = api.api_dump_haves(TorrentIdOrHash::Id(self.id)) else {
            return;
        };
        let unknown: Vec<u32> = pieces
            .iter_ones()
            .map(|piece| piece as u32)
            .filter(|piece| !self.store.has(*piece))
            .collect();
        for piece in unknown {
            if let Err(error) = self.store.adopt(piece) {
                tracing::warn!(torrent = self.store.metainfo().name, piece, %error, "a stored piece could not be read");
            }
        }
    }
}

/// How a torrent is given to librqbit.
struct Add<'a> {
    session: &'a Arc<Session>,
    store: &'a Arc<Store>,
    id: usize,
    pieces_path: &'a std::path::Path,
    peers: &'a [SocketAddr],
    trackers: &'a [String],
    whole: bool,
}

impl Add<'_> {
    async fn run(&self) -> Result<Arc<ManagedTorrent>, EngineError> {
        let store = self.store.clone();
        let pieces_path = self.pieces_path.to_owned();
        let prepared = tokio::task::spawn_blocking(move || {
            let pieces = store.verified_pieces().map_err(EngineError::words)?;
            std::fs::write(&pieces_path, pieces).map_err(EngineError::words)?;
            std::fs::read(store.metainfo_path()).map_err(EngineError::words)
        });
        let metainfo = prepared.await.map_err(EngineError::words)??;
        let metainfo = bytes::Bytes::from(metainfo);
        let mut response = self.add(metainfo.clone()).await?;
        if let AddTorrentResponse::AlreadyManaged(id, _) = response {
            // A swarm of the same torrent was dropped and is still on its way out.
            self.session.delete(TorrentIdOrHash::Id(id), false).await.ok();
            tokio::time::sleep(Duration::from_millis(10)).await;
            response = self.add(metainfo).await?;
        }
        match response {
            AddTorrentResponse::Added(_, handle) => Ok(handle),
            _ => Err(EngineError::words("the torrent is in the engine already")),
        }
    }

    async fn add(&self, metainfo: bytes::Bytes) -> Result<AddTorrentResponse, EngineError> {
        let options = AddTorrentOptions {
            paused: false,
            // Nothing of it is selected, so that only what lies under a cursor is fetched.
            only_files: if self.whole { None } else { Some(Vec::new()) },
            overwrite: true,
            output_folder: Some("unused".to_owned()),
            initial_peers: Some(self.peers.to_vec()),
            preferred_id: Some(self.id),
            storage_factory: Some(StoreFactory(self.store.clone()).boxed()),
            trackers: Some(self.trackers.to_vec()),
            ..AddTorrentOptions::default()
        };
        let adding = self
            .session
            .add_torrent(AddTorrent::from_bytes(metainfo), Some(options));
        adding.await.map_err(EngineError::words)
    }
}
