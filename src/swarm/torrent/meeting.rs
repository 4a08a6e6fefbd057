//! How peers are met: dials and guests, each in a task of its own until both handshakes are through.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::swarm::discovery::book::Dial;
use crate::swarm::limits::{Connected, Dialing};
use crate::swarm::listener::Incoming;
use crate::swarm::peer::{self, Connection, HandshakeError};
use crate::swarm::wire::Handshake;

/// A TCP connection whose handshakes are through.
pub(super) type Met = Connection<OwnedReadHalf, OwnedWriteHalf>;

/// A peer that we have met, or failed to.
pub(super) struct Meeting {
    pub(super) address: SocketAddr,
    /// It connected to us.
    pub(super) incoming: bool,
    /// `None` for an error: it took too long.
    pub(super) met: Result<(Met, Connected), Option<HandshakeError>>,
}

/// Meets peers on behalf of one torrent's owner. Whoever is on the way when `ended` is cancelled is hung up on.
pub(super) struct Meeter {
    pub(super) ours: Handshake,
    pub(super) meetings: mpsc::Sender<Meeting>,
    pub(super) ended: CancellationToken,
}

impl Meeter {
    /// Dials; what comes of it is sent to the owner.
    pub(super) fn dial(&self, dial: Dial, place: Dialing) {
        let ours = self.ours;
        let meet = async move {
            let stream = TcpStream::connect(dial.address).await.map_err(HandshakeError::from)?;
            let (reader, writer) = peer::tcp(stream)?;
            peer::connect(reader, writer, ours).await
        };
        let met = async move {
            match tokio::time::timeout(dial.patience, meet).await {
                Ok(Ok(connection)) => Ok((connection, place.connected())),
                Ok(Err(error)) => Err(Some(error)),
                Err(_) => Err(None),
            }
        };
        self.tell(dial.address, false, met);
    }

    /// Answers a peer that connected to us.
    pub(super) fn greet(&self, guest: Incoming) {
        let ours = self.ours;
        let Incoming {
            stream,
            from: address,
            preface: greeting,
            place,
        } = guest;
        let met = async move {
            let meet = async {
                let (reader, writer) = peer::tcp(stream)?;
                peer::accept(reader, writer, &greeting, ours).await
            };
            meet.await.map(|connection| (connection, place)).map_err(Some)
        };
        self.tell(address, true, met);
    }

    fn tell(
        &self,
        address: SocketAddr,
        incoming: bool,
        met: impl Future<Output = Result<(Met, Connected), Option<HandshakeError>>> + Send + 'static,
    ) {
        let (meetings, ended) = (self.meetings.clone(), self.ended.clone());
        tokio::spawn(async move {
            tokio::select! {
                // An owner that is gone meets nobody.
                met = met => { let _ = meetings.send(Meeting { address, incoming, met }).await; }
                () = ended.cancelled() => {}
            }
        });
    }
}
