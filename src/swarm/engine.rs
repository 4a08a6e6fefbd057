//! What all torrents of the engine share: one listening port, one identity, the limits, and the ways to find peers.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::RwLock;
use tokio::sync::mpsc;
use tracing::warn;

use super::discovery::dht::{BOOTSTRAP, Dht, DhtOptions};
use super::discovery::local::Local;
use super::discovery::port_mapping::PortMapping;
use super::discovery::trackers::{Announcer, AnnouncerOptions, Totals, TrackerLimits, Trackers};
use super::discovery::{DiscoveryError, Found, InfoHash, dht, local};
use super::extension::Introduction;
use super::limits::{ConnectionLimits, Connections, RateLimit};
use super::listener::{ListenError, Listener, ListenerLimits, Routes};
use super::peer::{Meter, REQUEST_LIMIT};
use super::torrent::{Torrent, TorrentOptions, resolve};
use super::wire::{Handshake, Reserved};

/// Azureus-style: who we are and which version, then what tells two of us apart.
const PEER_ID_PREFIX: &[u8; 8] = b"-MF0100-";
/// What the table of the DHT is given to be written at the end.
const FAREWELL: Duration = Duration::from_millis(300);

/// How the engine behaves.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Where peers may connect to us; `None` for nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether peers are looked for in the distributed hash table.
    pub dht: bool,
    /// Whether peers are looked for in the local network.
    pub lsd: bool,
    /// Whether the router is asked to let peers in.
    pub upnp: bool,
    /// Whether trackers are asked for peers.
    pub trackers: bool,
    /// Bytes a second of blocks sent; `None` for no limit.
    pub upload_limit: Option<NonZeroU64>,
    /// Bytes a second received; `None` for no limit.
    pub download_limit: Option<NonZeroU64>,
    /// A folder for the table of the DHT; it is made.
    pub state_dir: PathBuf,
}

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The listening address.
    #[error("{0}: choose another with --listen ADDRESS:PORT, or none with --listen off")]
    Listen(#[from] ListenError),
    /// A way to find peers.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The folder for its state.
    #[error("cannot write {path}: {source}")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What every torrent needs of the engine.
pub(super) struct Shared {
    pub(super) peer_id: [u8; 20],
    pub(super) connections: Connections,
    pub(super) download: Arc<Limit>,
    pub(super) upload: Arc<Limit>,
    pub(super) routes: Routes,
    /// Taken out at the end, when its table is written.
    dht: RwLock<Option<Dht>>,
    listener: Option<Listener>,
    local: Option<Local>,
    trackers: Option<Trackers>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

/// A search for peers that ends when it is dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "each is kept only to be dropped")]
pub(super) enum Search {
    Dht(dht::Search),
    Local(local::Search),
}

impl Shared {
    pub(super) fn handshake(&self, info_hash: InfoHash) -> Handshake {
        Handshake {
            reserved: Reserved::ours(self.dht_port().is_some()),
            info_hash,
            peer_id: self.peer_id,
        }
    }

    /// Our extension handshake, for a peer at `address`.
    pub(super) fn introduction(&self, address: SocketAddr, info: Option<u32>, private: bool) -> Introduction {
        Introduction {
            port: self.listen_port(),
            metadata_size: info,
            request_limit: REQUEST_LIMIT,
            upload_only: false,
            pex: !private,
            peer_address: Some(address.ip()),
            client: concat!("magnetfs ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    pub(super) fn dht_port(&self) -> Option<u16> {
        self.dht.read().as_ref().map(|dht| dht.address().port())
    }

    pub(super) fn listen_port(&self) -> Option<u16> {
        self.listener.as_ref().map(Listener::port)
    }

    /// Announces a torrent to its trackers, if there are any and they may be asked.
    pub(super) fn announce(
        &self,
        info_hash: InfoHash,
        private: bool,
        tiers: &[Vec<String>],
        totals: &Arc<Totals>,
        found: &mpsc::Sender<Found>,
    ) -> Option<Announcer> {
        let trackers = self.trackers.as_ref().filter(|_| !tiers.is_empty())?;
        // A tracker wants a port; 9 is the one that discards.
        let port = self.listen_port().unwrap_or(9);
        let options = AnnouncerOptions {
            info_hash,
            peer_id: self.peer_id,
            port,
            private,
            tiers: tiers.to_vec(),
        };
        Some(Announcer::start(
            trackers.clone(),
            options,
            totals.clone(),
            found.clone(),
        ))
    }

    /// Looks for a torrent's peers in the DHT and on the local network, as far as these are on.
    pub(super) fn search(&self, info_hash: InfoHash, found: &mpsc::Sender<Found>) -> Vec<Search> {
        let port = self.listen_port();
        let dht = self
            .dht
            .read()
            .as_ref()
            .map(|dht| Search::Dht(dht.search(info_hash, port, found.clone())));
        let local = self
            .local
            .as_ref()
            .map(|local| Search::Local(local.search(info_hash, port, found.clone())));
        dht.into_iter().chain(local).collect()
    }
}

/// A rate limit as links see it.
#[derive(Debug)]
pub(super) struct Limit(RateLimit);

impl Limit {
    pub(super) fn rate(&self) -> Option<u64> {
        self.0.rate().map(NonZeroU64::get)
    }
}

impl Meter for Limit {
    fn take(&self, bytes: u32) -> BoxFuture<'_, ()> {
        self.0.take(u64::from(bytes)).boxed()
    }

    fn burst(&self) -> Option<u32> {
        // A twentieth of a second, and at least a block: links then share the rate evenly.
        self.0
            .rate()
            .map(|rate| u32::try_from(rate.get() / 20).unwrap_or(u32::MAX).max(16 * 1024))
    }
}

/// The engine. Dropping it ends all torrents in it.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    _port_mapping: Option<PortMapping>,
}

impl Engine {
    /// Starts listening, and the ways to find peers that are on. A way that cannot be had is logged and left out, except
    /// for the listening address, which somebody chose.
    ///
    /// # Errors
    /// The listening address is taken; the folder for the state cannot be written.
    pub async fn start(options: EngineOptions) -> Result<Engine, EngineError> {
        let state = options.state_dir.clone();
        std::fs::create_dir_all(&state).map_err(|source| EngineError::State {
            path: state.clone(),
            source,
        })?;
        let connections = Connections::new(ConnectionLimits::default());
        let routes = Routes::default();
        let listener = match options.listen {
            Some(address) => {
                let limits = ListenerLimits::default();
                Some(Listener::start(address, routes.clone(), connections.clone(), limits)?)
            }
            None => None,
        };
        let port = listener.as_ref().map(Listener::port);
        let dht = match options.dht {
            true => {
                let options = DhtOptions {
                    table: Some(state.join("dht")),
                    port: port.unwrap_or(0),
                    only: None,
                    bootstrap: BOOTSTRAP.map(str::to_owned).to_vec(),
                };
                found_or_left_out("DHT", Dht::start(options).await)
            }
            false => None,
        };
        let local = match options.lsd {
            true => found_or_left_out("local service discovery", Local::start().await),
            false => None,
        };
        let mapping = port.filter(|_| options.upnp).map(PortMapping::start);
        let client = concat!("magnetfs/", env!("CARGO_PKG_VERSION"));
        let trackers = match options.trackers {
            true => Some(Trackers::new(client, TrackerLimits::default())?),
            false => None,
        };
        let mut peer_id = [0; 20];
        peer_id[..8].copy_from_slice(PEER_ID_PREFIX);
        peer_id[8..].fill_with(|| fastrand::alphanumeric() as u8);
        Ok(Engine {
            shared: Arc::new(Shared {
                peer_id,
                connections,
                download: Arc::new(Limit(RateLimit::new(options.download_limit))),
                upload: Arc::new(Limit(RateLimit::new(options.upload_limit))),
                routes,
                dht: RwLock::new(dht),
                listener,
                local,
                trackers,
            }),
            _port_mapping: mapping.and_then(|mapping| found_or_left_out("UPnP", mapping)),
        })
    }

    /// The port that peers connect to.
    pub fn listen_port(&self) -> Option<u16> {
        self.shared.listen_port()
    }

    /// Whether anything is on that could find peers of a torrent that has trackers, or has none.
    pub fn can_find_peers(&self, has_trackers: bool) -> bool {
        let (dht, local) = (self.shared.dht.read().is_some(), self.shared.local.is_some());
        dht || local || (has_trackers && self.shared.trackers.is_some())
    }

    /// Connects a torrent: from now on its peers are looked for, and what is demanded is fetched.
    pub fn enter(&self, options: TorrentOptions) -> Torrent {
        Torrent::start(self.shared.clone(), options)
    }

    /// Writes the table of the DHT; less than a second. Torrents are to [leave](Torrent::leave) before.
    pub async fn stop(&self) {
        let dht = self.shared.dht.write().take();
        if let Some(dht) = dht {
            match tokio::time::timeout(FAREWELL, dht.stop()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(%error, "the table of the DHT is not written"),
                Err(_) => warn!("the table of the DHT is not written: the disk is slow"),
            }
        }
    }

    /// Asks peers for the info dictionary of a torrent. It takes as long as it takes; dropping the future gives up.
    pub async fn resolve(&self, info_hash: InfoHash, peers: &[SocketAddr], trackers: &[Vec<String>]) -> Bytes {
        resolve(&self.shared, info_hash, peers, trackers).await
    }
}

fn found_or_left_out<T>(what: &str, started: Result<T, DiscoveryError>) -> Option<T> {
    started.inspect_err(|error| warn!(%error, "{what} is left out")).ok()
}
