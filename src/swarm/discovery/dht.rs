//! The DHT (BEP 5), on librqbit's, with its table kept over restarts.
//!
//! The table is written by us rather than by the crate, which writes it only now and then, not when it stops, not
//! durably, and does not read the half of IPv6 back.

use std::fs::File;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use librqbit_dht::{DhtConfig, DhtState, Id20};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};

use super::book::Source;
use super::{DiscoveryError, Found, InfoHash};

/// Where a table without nodes begins. Besides the crate's two, the one that everybody knows.
pub const BOOTSTRAP: [&str; 3] = [
    "dht.transmissionbt.com:6881",
    "dht.libtorrent.org:25401",
    "router.bittorrent.com:6881",
];
/// How often the table is written.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// A table of 2 × 512 nodes is 200 KB; a file larger than this was not written by us.
const TABLE_LIMIT: u64 = 4 * 1024 * 1024;
/// Addresses handed on at once.
const BATCH: usize = 64;

/// How to run the DHT.
#[derive(Clone, Debug)]
pub struct DhtOptions {
    /// The file that the table is kept in, in a folder that exists. `None`: it is forgotten.
    pub table: Option<PathBuf>,
    /// The UDP port; 0: the one of the last run, or any. Usually that of the TCP listener.
    pub port: u16,
    /// Only on this address (for tests); otherwise on all, IPv4 and IPv6.
    pub only: Option<IpAddr>,
    /// Names and addresses with ports to begin with; usually [`BOOTSTRAP`].
    pub bootstrap: Vec<String>,
}

/// A running node of the DHT. Dropping it ends it without writing the table.
#[derive(Debug)]
pub struct Dht {
    node: Node,
    table: Option<PathBuf>,
    saver: Option<JoinHandle<()>>,
    _running: DropGuard,
}

/// The crate's node, which does not implement `Debug`.
#[derive(Clone)]
struct Node(Arc<DhtState>);

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Node").field(&self.0.stats()).finish()
    }
}

/// What is kept in the file. The crate's tables cannot be named from outside, hence the parameter.
#[derive(Serialize, Deserialize)]
struct Table<V4, V6> {
    id: String,
    port: u16,
    v4: V4,
    v6: V6,
}

impl Dht {
    /// Starts a node. Nothing waits for the network.
    ///
    /// # Errors
    /// If no UDP socket can be had, not even at another port.
    pub async fn start(options: DhtOptions) -> Result<Self, DiscoveryError> {
        let id: [u8; 20] = rand::random();
        Self::start_as(options, id).await
    }

    /// The same with an id for a table that has none: the crate's own ids begin alike, and all its nodes sit in one
    /// corner of the DHT.
    async fn start_as(options: DhtOptions, id: InfoHash) -> Result<Self, DiscoveryError> {
        let path = options.table.clone();
        let stored = tokio::task::spawn_blocking(|| load(&path?)).await.ok().flatten();
        let stored = stored.and_then(|table| Some((table.id.parse().ok()?, table)));
        let (id, port, v4, v6) = match stored {
            Some((id, table)) => (id, table.port, Some(table.v4), Some(table.v6)),
            None => (Id20::new(id), 0, None, None),
        };
        let port = if options.port == 0 { port } else { options.port };
        let token = CancellationToken::new();
        let mut failure = DiscoveryError::Dht("no address to listen at".to_owned());
        for listen in addresses(options.only, port) {
            // The crate would share a port that is taken, and one of the two would hear nothing.
            if let Err(error) = std::net::UdpSocket::bind(listen) {
                failure = DiscoveryError::Dht(format!("{listen}: {error}"));
                continue;
            }
            let config = DhtConfig {
                peer_id: Some(id),
                bootstrap_addrs: Some(options.bootstrap.clone()),
                // Tables that make no sense are left behind: a new one is filled in a minute.
                routing_table: v4.clone().and_then(|table| serde_json::from_value(table).ok()),
                routing_table_v6: v6.clone().and_then(|table| serde_json::from_value(table).ok()),
                listen_addr: Some(listen),
                peer_store: None,
                cancellation_token: Some(token.clone()),
                bind_device: None,
            };
            match DhtState::with_config(config).await {
                Ok(state) => {
                    let node = Node(state);
                    let saver = options.table.clone().map(|path| tokio::spawn(keep(node.clone(), path)));
                    return Ok(Self {
                        node,
                        table: options.table,
                        saver,
                        _running: token.drop_guard(),
                    });
                }
                Err(error) => failure = DiscoveryError::Dht(error.to_string()),
            }
        }
        Err(failure)
    }

    /// Where the node listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.node.0.listen_addr()
    }

    /// Nodes in the table, of IPv4 and IPv6.
    #[must_use]
    pub fn nodes(&self) -> usize {
        let stats = self.node.0.stats();
        stats.routing_table_size + stats.routing_table_size_v6
    }

    /// Looks for the torrent's peers, about once a minute, until the search is dropped; announces that we listen at
    /// `announce_port`, if there is one. Not for private torrents. When `found` is full, peers are passed over: they are
    /// found again.
    #[must_use]
    pub fn search(&self, info_hash: InfoHash, announce_port: Option<u16>, found: mpsc::Sender<Found>) -> Search {
        let peers = self.node.0.get_peers(Id20::new(info_hash), announce_port);
        Search {
            task: tokio::spawn(async move {
                let mut batches = peers.ready_chunks(BATCH);
                while let Some(peers) = batches.next().await {
                    let full = found.try_send(Found {
                        source: Source::Dht,
                        peers,
                    });
                    if let Err(mpsc::error::TrySendError::Closed(_)) = full {
                        return;
                    }
                }
            }),
        }
    }

    /// Writes the table and ends the node.
    ///
    /// # Errors
    /// If the table could not be written; the node has ended all the same.
    pub async fn stop(mut self) -> io::Result<()> {
        if let Some(saver) = self.saver.take() {
            saver.abort();
            // It may be in the middle of writing.
            let _ = saver.await;
        }
        match self.table.take() {
            Some(path) => save(self.node.clone(), path).await,
            None => Ok(()),
        }
    }
}

impl Drop for Dht {
    fn drop(&mut self) {
        if let Some(saver) = &self.saver {
            saver.abort();
        }
    }
}

/// A search for one torrent's peers; ends when dropped.
#[derive(Debug)]
pub struct Search {
    task: JoinHandle<()>,
}

impl Drop for Search {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where to listen, in the order to try: both families, IPv4 alone where there is no IPv6, then any port.
fn addresses(only: Option<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let ips = match only {
        Some(ip) => vec![ip],
        None => vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()],
    };
    let mut ports = vec![port, 0];
    ports.dedup();
    ports
        .into_iter()
        .flat_map(|port| ips.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect()
}

fn load(path: &Path) -> Option<Table<serde_json::Value, serde_json::Value>> {
    let file = File::open(path).ok()?;
    if file.metadata().ok()?.len() > TABLE_LIMIT {
        return None;
    }
    match serde_json::from_reader(io::BufReader::new(file)) {
        Ok(table) => Some(table),
        Err(error) => {
            debug!(%error, "the DHT's table makes no sense and is begun anew");
            None
        }
    }
}

async fn keep(node: Node, path: PathBuf) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        if let Err(error) = save(node.clone(), path.clone()).await {
            warn!(path = %path.display(), %error, "the DHT's table could not be written");
        }
    }
}

async fn save(node: Node, path: PathBuf) -> io::Result<()> {
    let written = tokio::task::spawn_blocking(move || {
        let id = node.0.stats().id.as_string();
        let port = node.0.listen_addr().port();
        let text = node
            .0
            .with_routing_tables(|v4, v6| serde_json::to_vec(&Table { id, port, v4, v6 }))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(())
    });
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    const TORRENT: InfoHash = *b"a torrent's info has";
    const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn options(bootstrap: SocketAddr, table: Option<PathBuf>) -> DhtOptions {
        DhtOptions {
            table,
            port: 0,
            only: Some(LOCALHOST),
            bootstrap: vec![bootstrap.to_string()],
        }
    }

    /// Where the nodes begin: answers every query with the one node that it knows. (The crate's nodes do not take up
    /// those who ask them, so that without it nobody would know anybody.)
    async fn signpost(id: InfoHash, node: SocketAddr) -> SocketAddr {
        let SocketAddr::V4(node) = node else {
            panic!("IPv4 only")
        };
        let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let query = &buffer[..length];
                let Some(at) = query.windows(5).position(|part| part == b"1:t2:") else {
                    continue;
                };
                let reply = [
                    b"d1:rd2:id20:a signpost of a test5:nodes26:",
                    &id[..],
                    &node.ip().octets(),
                    &node.port().to_be_bytes(),
                    b"e1:t2:",
                    &query[at + 5..at + 7],
                    b"1:y1:re",
                ]
                .concat();
                let _ = socket.send_to(&reply, from).await;
            }
        });
        address
    }

    /// A node that is near the torrent, so that it keeps its peers, and the signpost to it.
    async fn keeper() -> (Dht, SocketAddr) {
        let mut id = TORRENT;
        id[19] ^= 1;
        let keeper = Dht::start_as(options(([127, 0, 0, 1], 9).into(), None), id)
            .await
            .unwrap();
        let signpost = signpost(id, keeper.address()).await;
        (keeper, signpost)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn one_node_finds_what_another_announced() {
        let test = async {
            let (_keeper, signpost) = keeper().await;
            let announcing = Dht::start(options(signpost, None)).await.unwrap();
            let (sender, mut nobody) = mpsc::channel(4);
            let _announce = announcing.search(TORRENT, Some(7777), sender);
            let searching = Dht::start(options(signpost, None)).await.unwrap();
            let found = loop {
                // A node asks again only after seconds, and the first time may have been before the announce.
                let (sender, mut found) = mpsc::channel(4);
                let _search = searching.search(TORRENT, None, sender);
                if let Ok(found) = tokio::time::timeout(Duration::from_secs(2), found.recv()).await {
                    break found.unwrap();
                }
            };
            let peer = SocketAddr::new(LOCALHOST, 7777);
            assert_eq!(
                found,
                Found {
                    source: Source::Dht,
                    peers: vec![peer]
                }
            );
            assert_eq!(searching.nodes(), 1);
            // The one who announced is told of itself at most.
            while let Ok(found) = nobody.try_recv() {
                assert_eq!(found.peers, [peer]);
            }
        };
        tokio::time::timeout(LIMIT, test).await.expect("the test is stuck");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_table_the_id_and_the_port_are_kept() {
        let test = async {
            let folder = tempfile::tempdir().unwrap();
            let table = folder.path().join("dht.json");
            let (_keeper, signpost) = keeper().await;
            let first = Dht::start(options(signpost, Some(table.clone()))).await.unwrap();
            while first.nodes() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let (address, id) = (first.address(), first.node.0.stats().id);
            first.stop().await.unwrap();

            // The crate's task closes the socket a moment later.
            while std::net::UdpSocket::bind(address).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // Nobody is at the signpost any more.
            let nowhere = ([127, 0, 0, 1], 9).into();
            let second = Dht::start(options(nowhere, Some(table.clone()))).await.unwrap();
            assert_eq!((second.nodes(), second.node.0.stats().id), (1, id));
            assert_eq!(second.address(), address);

            // Another node at the same time takes another port.
            let third = Dht::start(options(nowhere, Some(table.clone()))).await.unwrap();
            assert_ne!(third.address(), address);
            drop((second, third));

            std::fs::write(&table, b"{\"id\":").unwrap();
            let fourth = Dht::start(options(nowhere, Some(table.clone()))).await.unwrap();
            assert_eq!(fourth.nodes(), 0);
        };
        tokio::time::timeout(LIMIT, test).await.expect("the test is stuck");
    }
}
