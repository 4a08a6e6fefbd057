//! How a connection begins, on the side that connects and on the side that is connected to.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::swarm::wire::{GREETING_LENGTH, HANDSHAKE_LENGTH, Handshake, Reserved, WireError};

/// How long both handshakes may take together.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Two peers that have named the same torrent.
#[derive(Debug)]
pub struct Connection<R, W> {
    pub(super) reader: R,
    pub(super) writer: W,
    /// What the peer said.
    pub peer: Handshake,
}

impl<R, W> Connection<R, W> {
    /// Whether the peer knows the fast extension; so do we.
    pub fn fast(&self) -> bool {
        self.peer.reserved.fast()
    }
}

/// Why two peers did not come together.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The connection broke, or the peer hung up: one that has not this torrent does.
    #[error("the connection broke during the handshake: {0}")]
    Broken(#[from] io::Error),
    /// No handshake within 10 s.
    #[error("the peer sent no handshake in time")]
    TimedOut,
    /// It is no handshake.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is for another torrent.
    #[error("the peer answered for another torrent")]
    OtherTorrent,
    /// We reached ourselves.
    #[error("the peer is this program itself")]
    Ourselves,
}

/// Greets a peer that we connected to, and waits at most 10 s for its answer. Dropping it hangs up.
///
/// # Errors
///
/// [`HandshakeError`].
pub async fn connect<R, W>(mut reader: R, mut writer: W, ours: Handshake) -> Result<Connection<R, W>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let exchange = async {
        writer.write_all(&ours.encode()).await?;
        writer.flush().await?;
        // In two steps: some peers close at once on a torrent that they do not have, and what they sent tells why.
        let mut bytes = [0; HANDSHAKE_LENGTH];
        reader.read_exact(&mut bytes[..GREETING_LENGTH]).await?;
        check_torrent(&bytes[..GREETING_LENGTH], &ours)?;
        reader.read_exact(&mut bytes[GREETING_LENGTH..]).await?;
        Ok::<_, HandshakeError>(Handshake::parse(&bytes)?)
    };
    let peer = timeout(HANDSHAKE_LIMIT, exchange)
        .await
        .map_err(|_| HandshakeError::TimedOut)??;
    finish(reader, writer, &ours, peer)
}

/// Answers a peer that connected to us, of which the listener has read the first 48 bytes. Waits at most 10 s.
/// Dropping it hangs up.
///
/// # Errors
///
/// [`HandshakeError`].
pub async fn accept<R, W>(
    mut reader: R,
    mut writer: W,
    greeting: &[u8; GREETING_LENGTH],
    ours: Handshake,
) -> Result<Connection<R, W>, HandshakeError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let reserved = check_torrent(greeting, &ours)?;
    let exchange = async {
        writer.write_all(&ours.encode()).await?;
        writer.flush().await?;
        let mut peer_id = [0; HANDSHAKE_LENGTH - GREETING_LENGTH];
        reader.read_exact(&mut peer_id).await?;
        Ok::<_, HandshakeError>(peer_id)
    };
    let peer_id = timeout(HANDSHAKE_LIMIT, exchange)
        .await
        .map_err(|_| HandshakeError::TimedOut)??;
    let peer = Handshake {
        reserved,
        info_hash: ours.info_hash,
        peer_id,
    };
    finish(reader, writer, &ours, peer)
}

fn check_torrent(greeting: &[u8], ours: &Handshake) -> Result<Reserved, HandshakeError> {
    let (reserved, info_hash) = Handshake::parse_greeting(greeting)?;
    if info_hash == ours.info_hash {
        Ok(reserved)
    } else {
        Err(HandshakeError::OtherTorrent)
    }
}

fn finish<R, W>(reader: R, writer: W, ours: &Handshake, peer: Handshake) -> Result<Connection<R, W>, HandshakeError> {
    if peer.peer_id == ours.peer_id {
        return Err(HandshakeError::Ourselves);
    }
    Ok(Connection { reader, writer, peer })
}

/// The two directions of a TCP connection, with messages sent at once rather than gathered by the kernel: a request
/// that waits for another one's acknowledgement costs a round trip.
///
/// # Errors
///
/// The socket is dead already.
pub fn tcp(stream: TcpStream) -> io::Result<(OwnedReadHalf, OwnedWriteHalf)> {
    stream.set_nodelay(true)?;
    Ok(stream.into_split())
}
