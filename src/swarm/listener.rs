//! Where others connect to us: one port for all torrents, and the way from a handshake's first bytes to its torrent.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::debug;

use super::discovery::InfoHash;
use super::limits::{Connected, Connections, PerAddress};

/// What a handshake begins with, up to and including the info hash.
pub const PREFACE: usize = 48;
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
/// Connections that the kernel keeps until we accept them.
const BACKLOG: u32 = 256;
/// When no connection can be accepted, mostly for want of descriptors: tried again after this.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Ports tried until one is free for both IPv4 and IPv6.
const PORT_TRIES: usize = 16;

/// What those who connect may take of us before they have named a torrent.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits {
    /// Connections that have not yet said the first [`PREFACE`] bytes.
    pub pending: usize,
    /// Of them, from one address (loopback excepted).
    pub pending_per_address: usize,
    /// How long they may take.
    pub handshake: Duration,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            pending: 64,
            pending_per_address: 4,
            handshake: Duration::from_secs(10),
        }
    }
}

/// Why we cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address}: {source}; choose another address or port to listen at")]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// What the kernel says.
    pub source: io::Error,
}

/// A connection that named a torrent of ours.
#[derive(Debug)]
pub struct Incoming {
    /// The connection; the bytes in `preface` have been read from it.
    pub stream: TcpStream,
    /// Where it comes from; IPv4 in its own form.
    pub from: SocketAddr,
    /// The protocol's name, the reserved bytes, and the info hash.
    pub preface: [u8; PREFACE],
    /// Its place among the connections; to be kept as long as it lasts.
    pub place: Connected,
}

/// Which torrent takes which connections. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    torrents: Arc<RwLock<HashMap<InfoHash, Entry>>>,
    next: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    sender: mpsc::Sender<Incoming>,
}

/// Connections go to this torrent as long as this is kept.
#[derive(Debug)]
pub struct Route {
    routes: Routes,
    info_hash: InfoHash,
    id: u64,
}

impl Drop for Route {
    fn drop(&mut self) {
        let mut torrents = self.routes.torrents.write();
        // Another may have taken its place.
        if torrents.get(&self.info_hash).is_some_and(|entry| entry.id == self.id) {
            torrents.remove(&self.info_hash);
        }
    }
}

impl Routes {
    /// Sends connections for this torrent to `sender`, instead of to whom they went before, until the route is dropped.
    /// While `sender` is full, connections are closed: the torrent has enough to do.
    #[must_use]
    pub fn add(&self, info_hash: InfoHash, sender: mpsc::Sender<Incoming>) -> Route {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.torrents.write().insert(info_hash, Entry { id, sender });
        Route {
            routes: self.clone(),
            info_hash,
            id,
        }
    }

    fn pass(&self, info_hash: &InfoHash, incoming: Incoming) -> bool {
        let torrents = self.torrents.read();
        let entry = torrents.get(info_hash);
        entry.is_some_and(|entry| entry.sender.try_send(incoming).is_ok())
    }
}

/// The listening sockets. Dropping it closes them, and the connections that have not named a torrent yet.
#[derive(Debug)]
pub struct Listener {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Listener {
    /// Listens at `address`; at 0.0.0.0 or `[::]` on IPv4 and IPv6 both, at the same port, as far as there is IPv6.
    /// With port 0 the kernel chooses.
    ///
    /// # Errors
    /// Names the address that is not to be had.
    pub fn start(
        address: SocketAddr,
        routes: Routes,
        connections: Connections,
        limits: ListenerLimits,
    ) -> Result<Self, ListenError> {
        let sockets = bind(address)?;
        let port = match sockets.first().map(TcpListener::local_addr) {
            Some(Ok(address)) => address.port(),
            _ => address.port(),
        };
        let door = Arc::new(Door {
            routes,
            connections,
            limits,
            pending: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for socket in sockets {
            tasks.spawn(accept(socket, door.clone()));
        }
        Ok(Self { port, _tasks: tasks })
    }

    /// The port that it listens at.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn bind(address: SocketAddr) -> Result<Vec<TcpListener>, ListenError> {
    if !address.ip().is_unspecified() {
        return Ok(vec![bind_one(address)?]);
    }
    let everywhere = |ip: IpAddr, port| bind_one(SocketAddr::new(ip, port));
    let mut tries = 0;
    loop {
        tries += 1;
        let v4 = everywhere(Ipv4Addr::UNSPECIFIED.into(), address.port())?;
        let port = v4.local_addr().map_or(address.port(), |address| address.port());
        match everywhere(Ipv6Addr::UNSPECIFIED.into(), port) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(error) if error.source.kind() == io::ErrorKind::AddrInUse => {
                if address.port() != 0 || tries == PORT_TRIES {
                    return Err(error);
                }
            }
            Err(error) => {
                debug!(%error, "listening on IPv4 only");
                return Ok(vec![v4]);
            }
        }
    }
}

fn bind_one(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => {
                let socket = TcpSocket::new_v6()?;
                // IPv4 has a socket of its own, whose addresses need no conversion.
                rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
                socket
            }
        };
        // The port of a daemon that has just ended still has connections in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| ListenError { address, source })
}

#[derive(Debug)]
struct Door {
    routes: Routes,
    connections: Connections,
    limits: ListenerLimits,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    total: usize,
    addresses: PerAddress,
}

impl Door {
    /// A place among those who have not named a torrent yet.
    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Pass> {
        let mut pending = self.pending.lock();
        if pending.total >= self.limits.pending || !pending.addresses.enter(from, self.limits.pending_per_address) {
            return None;
        }
        pending.total += 1;
        Some(Pass {
            door: self.clone(),
            from,
        })
    }
}

/// Gives the place back when dropped.
struct Pass {
    door: Arc<Door>,
    from: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut pending = self.door.pending.lock();
        pending.total -= 1;
        pending.addresses.leave(self.from);
    }
}

/// Accepts until it is dropped, and the handshakes with it.
async fn accept(socket: TcpListener, door: Arc<Door>) {
    let mut handshakes = JoinSet::new();
    loop {
        // Those that are done are cleared away as they end, so that there are never more than `pending` of them.
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(pass) = door.enter(from.ip()) else { continue };
        let Ok(place) = door.connections.accept(from.ip()) else {
            continue;
        };
        handshakes.spawn(admit(stream, from, place, pass));
    }
}

/// Reads the beginning of the handshake and hands the connection to its torrent, or closes it.
async fn admit(mut stream: TcpStream, from: SocketAddr, place: Connected, pass: Pass) {
    let mut preface = [0; PREFACE];
    let read = read_preface(&mut stream, &mut preface);
    let Ok(Some(info_hash)) = tokio::time::timeout(pass.door.limits.handshake, read).await else {
        return;
    };
    // Small messages, each of which somebody waits for.
    let _ = stream.set_nodelay(true);
    let incoming = Incoming {
        stream,
        from: SocketAddr::new(from.ip().to_canonical(), from.port()),
        preface,
        place,
    };
    if !pass.door.routes.pass(&info_hash, incoming) {
        debug!(%from, "a connection for a torrent that does not take any");
    }
}

/// The torrent that the other side names; `None` as soon as it is clear that it speaks something else.
async fn read_preface(stream: &mut TcpStream, preface: &mut [u8; PREFACE]) -> Option<InfoHash> {
    let (protocol, rest) = preface.split_at_mut(PROTOCOL.len());
    stream.read_exact(protocol).await.ok()?;
    if protocol != PROTOCOL {
        return None;
    }
    stream.read_exact(rest).await.ok()?;
    preface.last_chunk().copied()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::swarm::limits::ConnectionLimits;

    const LIMIT: Duration = Duration::from_secs(20);
    const TORRENT: InfoHash = *b"a torrent's info has";

    fn connections(total: usize) -> Connections {
        Connections::new(ConnectionLimits {
            total,
            ..ConnectionLimits::default()
        })
    }

    fn preface(info_hash: InfoHash) -> Vec<u8> {
        [&PROTOCOL[..], &[0, 0, 0, 0, 0, 0x10, 0, 0x05], &info_hash].concat()
    }

    fn localhost() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    async fn connect(listener: &Listener) -> TcpStream {
        TcpStream::connect(("127.0.0.1", listener.port())).await.unwrap()
    }

    /// Whether the other side closes the connection, rather than says something.
    async fn closed(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0]).await.map_or(true, |length| length == 0)
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime
            .block_on(async { tokio::time::timeout(LIMIT, test).await })
            .expect("the test is stuck");
    }

    #[test]
    fn a_connection_goes_to_the_torrent_that_it_names_and_nothing_is_read_past_it() {
        run(async {
            let (routes, connections) = (Routes::default(), connections(10));
            let limits = ListenerLimits::default();
            let listener = Listener::start(localhost(), routes.clone(), connections.clone(), limits).unwrap();
            let (sender, mut torrent) = mpsc::channel(4);
            let route = routes.add(TORRENT, sender);
            let mut stream = connect(&listener).await;
            // In pieces, and with the beginning of what follows.
            let bytes = [preface(TORRENT), b"peer id".to_vec()].concat();
            for part in bytes.chunks(5) {
                stream.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            let mut incoming = torrent.recv().await.unwrap();
            assert_eq!(incoming.from, stream.local_addr().unwrap());
            assert_eq!(incoming.preface[..], preface(TORRENT));
            let mut rest = [0; 7];
            incoming.stream.read_exact(&mut rest).await.unwrap();
            assert_eq!(&rest, b"peer id");
            assert_eq!(connections.total(), 1);
            drop(incoming);
            assert_eq!(connections.total(), 0);

            drop(route);
            let mut stream = connect(&listener).await;
            stream.write_all(&preface(TORRENT)).await.unwrap();
            assert!(closed(&mut stream).await, "the torrent is gone");
        });
    }

    #[test]
    fn what_is_no_handshake_is_closed_at_once_and_silence_in_time() {
        run(async {
            let limits = ListenerLimits {
                handshake: Duration::from_millis(200),
                ..ListenerLimits::default()
            };
            let connections = connections(10);
            let listener = Listener::start(localhost(), Routes::default(), connections.clone(), limits).unwrap();
            for bytes in [
                &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
                b"",
                &PROTOCOL[..],
                &preface([7; 20]),
            ] {
                let mut stream = connect(&listener).await;
                stream.write_all(bytes).await.unwrap();
                assert!(closed(&mut stream).await, "{bytes:?}");
            }
            while connections.total() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }

    #[test]
    fn who_comes_when_all_places_are_taken_is_sent_away() {
        run(async {
            let limits = ListenerLimits {
                pending: 3,
                ..ListenerLimits::default()
            };
            let (routes, connections) = (Routes::default(), connections(4));
            let (sender, mut torrent) = mpsc::channel(4);
            let _route = routes.add(TORRENT, sender);
            let listener = Listener::start(localhost(), routes, connections.clone(), limits).unwrap();
            let mut silent = Vec::new();
            for _ in 0..3 {
                silent.push(connect(&listener).await);
            }
            assert!(closed(&mut connect(&listener).await).await, "three have not spoken yet");
            let mut kept = Vec::new();
            for stream in &mut silent {
                stream.write_all(&preface(TORRENT)).await.unwrap();
                kept.push(torrent.recv().await.unwrap());
            }
            let mut fourth = connect(&listener).await;
            fourth.write_all(&preface(TORRENT)).await.unwrap();
            kept.push(torrent.recv().await.unwrap());
            assert!(
                closed(&mut connect(&listener).await).await,
                "four connections are all there may be"
            );
        });
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let door = Arc::new(Door {
            routes: Routes::default(),
            connections: connections(10),
            limits: ListenerLimits::default(),
            pending: Mutex::default(),
        });
        let from = |n| IpAddr::from([203, 0, 113, n]);
        let passes: Vec<_> = (0..10).filter_map(|_| door.enter(from(1))).collect();
        assert_eq!(passes.len(), 4);
        assert!(door.enter(from(2)).is_some());
        drop(passes);
        assert!(door.enter(from(1)).is_some());
        assert_eq!(door.pending.lock().total, 0);
    }

    #[test]
    fn a_torrent_that_is_busy_or_came_back_under_the_same_name() {
        run(async {
            let routes = Routes::default();
            let (first, mut first_incoming) = mpsc::channel(1);
            let (second, mut second_incoming) = mpsc::channel(1);
            let first = routes.add(TORRENT, first);
            let _second = routes.add(TORRENT, second);
            drop(first);
            assert!(routes.torrents.read().contains_key(&TORRENT), "the later one stays");
            let connections = connections(10);
            let listener = Listener::start(localhost(), routes, connections, ListenerLimits::default()).unwrap();
            let mut streams = Vec::new();
            for _ in 0..2 {
                let mut stream = connect(&listener).await;
                stream.write_all(&preface(TORRENT)).await.unwrap();
                streams.push(stream);
                // The first fills the torrent's queue.
                while second_incoming.is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            assert!(closed(&mut streams[1]).await);
            assert!(second_incoming.recv().await.is_some());
            assert!(first_incoming.recv().await.is_none());
        });
    }

    #[test]
    fn both_families_at_one_port_and_a_clear_word_if_it_is_taken() {
        run(async {
            let everywhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let start =
                |address| Listener::start(address, Routes::default(), connections(10), ListenerLimits::default());
            let listener = start(everywhere).unwrap();
            connect(&listener).await;
            if std::net::UdpSocket::bind("[::1]:0").is_ok() {
                TcpStream::connect(("::1", listener.port())).await.unwrap();
            }
            let taken = SocketAddr::new(everywhere.ip(), listener.port());
            let error = start(taken).unwrap_err().to_string();
            assert!(
                error.contains(&taken.to_string()) && error.contains("choose another"),
                "{error}"
            );
            drop(listener);
            while start(taken).is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
}
