//! Waking librqbit's requesters.
//!
//! When nothing is left to fetch under the cursors, each peer's requester sleeps for 5 s, and a cursor that is moved or
//! made does not wake it: copying a folder of small files would cost 5 s a file. What does wake them all at once is a
//! peer that goes while something is asked of it. So one comes, over loopback, takes the first request, and goes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::torrents::metainfo::Metainfo;

/// On loopback all of it takes a millisecond. Where no request comes, nothing waits to be asked for.
const LONGEST: Duration = Duration::from_millis(300);

/// Messages of the wire (BEP 3).
const UNCHOKE: [u8; 5] = [0, 0, 0, 1, 1];
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;

/// Wakes the requesters of one torrent of the session that listens at `listens_at`. `source` is where the visitor
/// comes from; it is the same each time, so that the session's list of peers does not grow.
pub(super) async fn wake(listens_at: SocketAddr, metainfo: &Metainfo, source: &mut Option<SocketAddr>) {
    let visited = tokio::time::timeout(LONGEST, visit(listens_at, metainfo, source)).await;
    if let Ok(Err(error)) = visited {
        tracing::debug!(torrent = metainfo.name, %error, "the engine could not be woken");
    }
}

async fn visit(listens_at: SocketAddr, metainfo: &Metainfo, source: &mut Option<SocketAddr>) -> io::Result<()> {
    let mut stream = connect(listens_at, source).await?;
    let mut greeting = b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0".to_vec();
    greeting.extend_from_slice(&metainfo.info_hash.0);
    greeting.extend_from_slice(b"-MFwake-000000000000");
    let mut pieces = vec![0xff; metainfo.piece_count.div_ceil(8) as usize];
    if let Some(last) = pieces.last_mut() {
        *last <<= (8 - metainfo.piece_count % 8) % 8;
    }
    greeting.extend_from_slice(&(pieces.len() as u32 + 1).to_be_bytes());
    greeting.push(BITFIELD);
    greeting.extend(pieces);
    greeting.extend_from_slice(&UNCHOKE);
    stream.write_all(&greeting).await?;

    stream.read_exact(&mut [0; 68]).await?;
    loop {
        let length = stream.read_u32().await?;
        if length == 0 {
            continue;
        }
        if stream.read_u8().await? == REQUEST {
            return Ok(());
        }
        tokio::io::copy(&mut (&mut stream).take(u64::from(length) - 1), &mut tokio::io::sink()).await?;
    }
}

async fn connect(listens_at: SocketAddr, source: &mut Option<SocketAddr>) -> io::Result<TcpStream> {
    let address = match listens_at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listens_at.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), listens_at.port()),
        _ => listens_at,
    };
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    // Gone without a trace, so that the same source may come again at once.
    socket.set_zero_linger()?;
    if let Some(source) = *source
        && socket.bind(source).is_err()
    {
        tracing::debug!(%source, "the source of the last visit is taken");
    }
    let stream = socket.connect(address).await?;
    *source = Some(stream.local_addr()?);
    Ok(stream)
}
