//! One session of librqbit for all torrents, and magnets.

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use librqbit::limits::LimitsConfig;
use librqbit::{
    AddTorrent, AddTorrentOptions, AddTorrentResponse, ConnectionOptions, DhtSessionConfig, ListenerMode,
    ListenerOptions, PeerConnectionOptions, Session, SessionOptions, SessionPersistenceConfig,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::swarm::Swarm;
use crate::torrents::info_hash::InfoHash;
use crate::torrents::source::Magnet;
use crate::torrents::store::Store;

/// Slots of librqbit's pool for blocking work. Every cursor and every write takes one: when cursors take all of them,
/// nothing is written any more.
const BLOCKING_SLOTS: usize = 1024;

/// Cursors of all torrents together: half of the slots.
const CURSORS: usize = BLOCKING_SLOTS / 2;

/// Requests on their way to a peer. A seek waits until they are answered; at 16, a peer with a round trip of 100 ms
/// still sends 2.5 MiB/s.
const REQUEST_WINDOW: usize = 16;

/// Peers of one torrent that are connected at once.
const PEERS: usize = 128;

/// Without a message from a peer for so long, it is dropped. At librqbit's own 10 s idle healthy peers are.
const PEER_TIMEOUT: Duration = Duration::from_secs(150);

/// librqbit fails every request when its limit is less than a block.
const LEAST_LIMIT: u32 = 16 << 10;

/// Magnets that are asked for at once; the others wait for their turn.
const RESOLVING: usize = 32;

/// How long the first attempts to resolve a magnet last. A peer that once failed is asked again in the next attempt
/// only, so they are short.
const ATTEMPTS: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(30)];

/// How long each attempt after these lasts; then it is another magnet's turn.
const LATER_ATTEMPTS: Duration = Duration::from_secs(60);

/// How to talk to the network.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where peers may connect to us; `None` to connect only outwards.
    pub listen: Option<SocketAddr>,
    /// Look for peers in the distributed hash table.
    pub dht: bool,
    /// Look for peers on the local network by multicast.
    pub lsd: bool,
    /// Ask the router to forward the listening port.
    pub upnp: bool,
    /// Ask trackers for peers, those of magnets too.
    pub trackers: bool,
    /// Bytes a second sent, of all torrents together; less than 16 KiB/s counts as 16 KiB/s.
    pub upload_limit: Option<NonZeroU32>,
    /// Bytes a second received, likewise.
    pub download_limit: Option<NonZeroU32>,
    /// A folder of the engine's own. All that it holds of torrents is deleted at each start.
    pub state_dir: PathBuf,
}

/// Why the engine could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EngineError {
    /// The listening address is taken, or not ours.
    #[error("{address}: {reason}; choose another address with --listen ADDR:PORT, or --listen off")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        reason: Arc<str>,
    },
    /// A magnet with no peer, no tracker, and everything off that could find one.
    #[error("nothing can find a peer for it: name one with --peer, or switch on --dht, --lsd or --trackers")]
    NoSources,
    /// Anything else, in the engine's own words.
    #[error("the BitTorrent engine failed: {0}")]
    Engine(Arc<str>),
}

impl EngineError {
    pub(super) fn words(error: impl fmt::Display) -> EngineError {
        EngineError::Engine(format!("{error:#}").into())
    }
}

/// The network side of all torrents. Dropping it ends all connections.
pub struct Engine {
    pub(super) session: Arc<Session>,
    options: EngineOptions,
    resolving: Arc<Semaphore>,
    waiting_to_resolve: AtomicUsize,
    pub(super) cursors: Arc<Semaphore>,
    pub(super) next_id: AtomicUsize,
    /// Every swarm ends with it.
    pub(super) ended: CancellationToken,
}

impl Engine {
    /// Starts listening, and the ways to find peers that are on. It must be called in a runtime of many threads.
    ///
    /// # Errors
    /// The listening address is taken; the state folder cannot be written.
    pub async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        if let Some(address) = options.listen {
            // librqbit's own words do not say what is wrong with the address.
            TcpListener::bind(address).map_err(|error| EngineError::Listen {
                address,
                reason: error.to_string().into(),
            })?;
        }
        // What is known of torrents is in the library; anything here is left over from a kill.
        let resume = options.state_dir.join("session");
        match std::fs::remove_dir_all(&resume) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(EngineError::words(error)),
            _ => std::fs::create_dir_all(&resume).map_err(EngineError::words)?,
        }
        let session = Session::new_with_opts(options.state_dir.join("unused"), session_options(&options, resume));
        let session = session.await.map_err(EngineError::words)?;
        Ok(Engine {
            session,
            options,
            resolving: Arc::new(Semaphore::new(RESOLVING)),
            waiting_to_resolve: AtomicUsize::new(0),
            cursors: Arc::new(Semaphore::new(CURSORS)),
            next_id: AtomicUsize::new(0),
            ended: CancellationToken::new(),
        })
    }

    /// Where peers connect to us.
    pub fn listens_at(&self) -> Option<SocketAddr> {
        self.session.listen_addr()
    }

    /// Fetches the metainfo of a magnet, as bytes of a .torrent that nobody has checked yet. It takes as long as it
    /// takes; dropping the future gives up.
    ///
    /// # Errors
    /// [`EngineError::NoSources`]. That nobody answers is no error.
    pub async fn resolve(&self, magnet: &Magnet, extra_peers: &[SocketAddr]) -> Result<Vec<u8>, EngineError> {
        let trackers: &[String] = if self.options.trackers { &magnet.trackers } else { &[] };
        let peers: Vec<SocketAddr> = magnet.peers.iter().chain(extra_peers).copied().collect();
        if peers.is_empty() && trackers.is_empty() && !self.options.dht && !self.options.lsd {
            return Err(EngineError::NoSources);
        }
        let mut link = format!("magnet:?xt=urn:btih:{}", magnet.info_hash);
        for tracker in trackers {
            link.push_str("&tr=");
            link.extend(url::form_urlencoded::byte_serialize(tracker.as_bytes()));
        }
        let mut attempts = ATTEMPTS.into_iter();
        loop {
            let waiting = Counted::one_more(&self.waiting_to_resolve);
            let turn = self.resolving.acquire().await.map_err(EngineError::words)?;
            drop(waiting);
            let longest = attempts.next().unwrap_or(LATER_ATTEMPTS);
            match tokio::time::timeout(longest, self.resolve_once(link.clone(), peers.clone())).await {
                Ok(Ok(metainfo)) => return Ok(metainfo),
                Ok(Err(error)) => tracing::debug!(torrent = %magnet.info_hash, %error, "not resolved yet"),
                Err(_) => tracing::debug!(torrent = %magnet.info_hash, "not resolved yet"),
            }
            drop(turn);
            // Where all peers refused at once, they are not asked again at once.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }

    /// Magnets that wait for their turn to be resolved.
    pub fn waiting_to_resolve(&self) -> usize {
        self.waiting_to_resolve.load(Ordering::Relaxed)
    }

    async fn resolve_once(&self, link: String, peers: Vec<SocketAddr>) -> Result<Vec<u8>, EngineError> {
        let options = AddTorrentOptions {
            list_only: true,
            initial_peers: Some(peers),
            peer_opts: Some(PeerConnectionOptions {
                read_write_timeout: Some(Duration::from_secs(10)),
                ..peer_options()
            }),
            ..AddTorrentOptions::default()
        };
        let adding = self.session.add_torrent(AddTorrent::from_url(link), Some(options));
        // What a peer sends is parsed there, and librqbit panics on a piece length of 0.
        match AssertUnwindSafe(adding).catch_unwind().await {
            Ok(Ok(AddTorrentResponse::ListOnly(listed))) => Ok(listed.torrent_bytes.to_vec()),
            Ok(Ok(_)) => Err(EngineError::words("it was added instead of listed")),
            Ok(Err(error)) => Err(EngineError::words(error)),
            Err(_) => Err(EngineError::words("it panicked on the metainfo")),
        }
    }

    /// Connects a torrent: from now on its peers are looked for, and what is demanded (all of it, if `whole`) is
    /// fetched into the store. The engine is told only of pieces that the store verified. The store's metainfo must
    /// have been read by [`crate::torrents::Metainfo::parse`], for librqbit panics on some that it refuses.
    ///
    /// # Errors
    /// The state folder cannot be written, or the stored files cannot be read.
    pub async fn enter(
        &self,
        store: Arc<Store>,
        peers: &[SocketAddr],
        trackers: &[String],
        whole: bool,
    ) -> Result<Swarm, EngineError> {
        Swarm::enter(self, store, peers, trackers, whole).await
    }

    /// Ends all swarms and connections, at most 100 ms later. What is then still on its way to a store is refused
    /// there, once that is closed.
    pub async fn stop(&self) {
        self.ended.cancel();
        // All that matters is done before librqbit's stop() sleeps its fixed second.
        tokio::time::timeout(Duration::from_millis(100), self.session.stop())
            .await
            .ok();
    }

    /// Where librqbit looks for the pieces that are here, when a torrent is added.
    pub(super) fn pieces_path(&self, info_hash: InfoHash) -> PathBuf {
        self.options.state_dir.join("session").join(format!("{info_hash}.bitv"))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ended.cancel();
        self.session.cancellation_token().cancel();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Engine")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// One more in a counter, while it lives.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn one_more(counter: &AtomicUsize) -> Counted<'_> {
        counter.fetch_add(1, Ordering::Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn peer_options() -> PeerConnectionOptions {
    PeerConnectionOptions {
        connect_timeout: Some(Duration::from_secs(10)),
        read_write_timeout: Some(PEER_TIMEOUT),
        keep_alive_interval: Some(Duration::from_secs(110)),
        max_request_window: Some(REQUEST_WINDOW),
    }
}

fn session_options(options: &EngineOptions, resume: PathBuf) -> SessionOptions {
    let limit = |limit: Option<NonZeroU32>| limit.and_then(|limit| NonZeroU32::new(limit.get().max(LEAST_LIMIT)));
    SessionOptions {
        dht: options.dht.then(|| DhtSessionConfig {
            bootstrap_addrs: None,
            port: None,
            persistence: Some(librqbit::dht::DhtPersistenceConfig {
                dump_interval: None,
                config_filename: Some(options.state_dir.join("dht.json")),
            }),
        }),
        bind_device_name: None,
        disable_trackers: !options.trackers,
        // Not to be believed, but without it every torrent is hashed whole before its first byte is fetched.
        fastresume: true,
        persistence: Some(SessionPersistenceConfig::Json { folder: Some(resume) }),
        peer_id: None,
        listen: options.listen.map(|address| ListenerOptions {
            mode: ListenerMode::TcpOnly,
            listen_addr: address,
            enable_upnp_port_forwarding: options.upnp,
            ipv4_only: address.is_ipv4(),
            ..ListenerOptions::default()
        }),
        connect: Some(ConnectionOptions {
            proxy_url: None,
            enable_tcp: true,
            peer_opts: Some(peer_options()),
        }),
        default_storage_factory: None,
        cancellation_token: None,
        concurrent_init_limit: Some(16),
        runtime_worker_threads: Some(BLOCKING_SLOTS),
        root_span: None,
        ratelimits: LimitsConfig {
            upload_bps: limit(options.upload_limit),
            download_bps: limit(options.download_limit),
        },
        blocklist_url: None,
        allowlist_url: None,
        trackers: Default::default(),
        peer_limit: Some(PEERS),
        disable_local_service_discovery: !options.lsd,
        ipv4_only: false,
        client_name_and_version: Some(concat!("magnetfs ", env!("CARGO_PKG_VERSION")).to_owned()),
    }
}
