//! Announcing over UDP (BEP 15, 41).

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::reply::{AnnounceReply, UdpReply, parse_udp_response};
use super::target::{Event, Family, Request};
use crate::swarm::discovery::DiscoveryError;
use crate::swarm::discovery::error::Retry;

const PROTOCOL: u64 = 0x0417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
/// How long a tracker accepts its connection id, by BEP 15.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Connection ids kept; when there are more, those outdated go, and then all.
const CONNECTIONS: usize = 1024;
/// An announce with 1,000 peers of IPv6 is 18 KB; what is longer is cut, and its whole peers count.
const DATAGRAM_LIMIT: usize = 20 * 1024;
/// What a URL may add to a datagram, so that it is not fragmented.
const PATH_LIMIT: usize = 1000;

/// Speaks to UDP trackers; one socket an announce, so that the kernel passes on only what the tracker itself sends, and
/// says at once if nobody listens there.
#[derive(Debug)]
pub(super) struct Udp {
    /// A datagram without an answer is sent again after this, and then after twice as long each time. BEP 15 has 15 s;
    /// the torrent's first peers wait for this.
    resend: Duration,
    connections: Mutex<HashMap<SocketAddr, (u64, Instant)>>,
}

impl Udp {
    pub(super) fn new(resend: Duration) -> Self {
        Self {
            resend,
            connections: Mutex::default(),
        }
    }

    /// One announce; the caller limits its time.
    pub(super) async fn announce(
        &self,
        (host, port, path): (&str, u16, &str),
        family: Family,
        request: &Request,
    ) -> Result<AnnounceReply, DiscoveryError> {
        let failed = |error: io::Error| DiscoveryError::Lookup {
            host: host.to_owned(),
            why: error.to_string(),
        };
        let address = tokio::net::lookup_host((host, port))
            .await
            .map_err(failed)?
            .find(|address| Family::of(address.ip()) == family)
            .ok_or_else(|| failed(io::Error::other("no address of this IP version")))?;
        let socket = UdpSocket::bind(family.unspecified()).await.map_err(unreachable)?;
        socket.connect(address).await.map_err(unreachable)?;

        let known = self.connection(address);
        let fresh = known.is_none();
        let connection = match known {
            Some(connection) => connection,
            None => self.connect(&socket, address).await?,
        };
        match self.ask(&socket, family, announce(connection, request, path)).await? {
            UdpReply::Announced(reply) => Ok(reply),
            // The id may have been given for another port of ours, or the tracker has restarted.
            UdpReply::Error(_) if !fresh => {
                self.connections.lock().remove(&address);
                let connection = self.connect(&socket, address).await?;
                match self.ask(&socket, family, announce(connection, request, path)).await? {
                    UdpReply::Announced(reply) => Ok(reply),
                    other => Err(refused(other)),
                }
            }
            other => Err(refused(other)),
        }
    }

    fn connection(&self, address: SocketAddr) -> Option<u64> {
        let connections = self.connections.lock();
        let (connection, since) = connections.get(&address)?;
        (since.elapsed() < CONNECTION_LIFE).then_some(*connection)
    }

    async fn connect(&self, socket: &UdpSocket, address: SocketAddr) -> Result<u64, DiscoveryError> {
        let mut datagram = Vec::with_capacity(16);
        datagram.extend(PROTOCOL.to_be_bytes());
        datagram.extend(CONNECT.to_be_bytes());
        match self.ask(socket, Family::of(address.ip()), datagram).await? {
            UdpReply::Connected(connection) => {
                let mut connections = self.connections.lock();
                if connections.len() >= CONNECTIONS {
                    connections.retain(|_, (_, since)| since.elapsed() < CONNECTION_LIFE);
                }
                if connections.len() >= CONNECTIONS {
                    connections.clear();
                }
                connections.insert(address, (connection, Instant::now()));
                Ok(connection)
            }
            other => Err(refused(other)),
        }
    }

    /// Sends the request, to which the transaction is added, until it is answered.
    async fn ask(&self, socket: &UdpSocket, family: Family, mut datagram: Vec<u8>) -> Result<UdpReply, DiscoveryError> {
        let transaction: u32 = rand::random();
        // Behind the connection id and the action, in every request.
        let rest = datagram.split_off(12);
        datagram.extend(transaction.to_be_bytes());
        datagram.extend(rest);
        let mut buffer = vec![0; DATAGRAM_LIMIT];
        let mut pause = self.resend;
        loop {
            socket.send(&datagram).await.map_err(unreachable)?;
            let again = Instant::now() + pause;
            while let Ok(length) = tokio::time::timeout_at(again, socket.recv(&mut buffer)).await {
                let length = length.map_err(unreachable)?;
                let reply = parse_udp_response(&buffer[..length], transaction, family == Family::V6);
                if let Some(reply) = reply {
                    return Ok(reply);
                }
            }
            pause = pause.saturating_mul(2);
        }
    }
}

/// Without the transaction, which `ask` adds.
fn announce(connection: u64, request: &Request, path: &str) -> Vec<u8> {
    let event: u32 = match request.event {
        Event::Regular => 0,
        Event::Completed => 1,
        Event::Started => 2,
        Event::Stopped => 3,
    };
    let mut datagram = Vec::with_capacity(128 + path.len());
    datagram.extend(connection.to_be_bytes());
    datagram.extend(ANNOUNCE.to_be_bytes());
    datagram.extend(request.info_hash);
    datagram.extend(request.peer_id);
    datagram.extend(request.downloaded.to_be_bytes());
    datagram.extend(request.left.to_be_bytes());
    datagram.extend(request.uploaded.to_be_bytes());
    datagram.extend(event.to_be_bytes());
    // Our address: the one that the datagram comes from.
    datagram.extend([0; 4]);
    datagram.extend(request.key.to_be_bytes());
    datagram.extend(request.want.to_be_bytes());
    datagram.extend(request.port.to_be_bytes());
    if path.len() <= PATH_LIMIT {
        for part in path.as_bytes().chunks(255) {
            // Option 2 of BEP 41, URL data; a part has at most 255 bytes.
            datagram.extend([2, part.len() as u8]);
            datagram.extend(part);
        }
    }
    datagram
}

fn unreachable(error: io::Error) -> DiscoveryError {
    DiscoveryError::Unreachable(error.to_string())
}

fn refused(reply: UdpReply) -> DiscoveryError {
    match reply {
        UdpReply::Error(reason) => DiscoveryError::Refused {
            reason,
            retry: Retry::Unsaid,
        },
        UdpReply::Connected(_) | UdpReply::Announced(_) => DiscoveryError::Malformed("an answer to something else"),
    }
}
