//! One connection to a peer: the handshake ([`connect`], [`accept`]), then a [`Link`] on whatever carries bytes both ways.
//!
//! The owner of the torrent tells a link what to say ([`Command`]) and learns what the peer said ([`Event`]). The data
//! of blocks goes past the owner, from the socket's buffer to the [`Sink`]; what the peer asks for comes from the
//! [`Source`]. One task serves both directions of a link:
//!
//! ```text
//!  owner ── Command ─▶ outbox ─▶ Writer ─▶ socket          Source ─▶ Writer
//!  owner ◀─ Batch ───────────── Reader ◀─ socket           Sink ◀─── Reader
//! ```
//!
//! An owner that does not keep up with its events holds up the reading of its sockets, and nothing else.

mod budget;
mod handshake;
mod holdings;
mod link;
mod outbox;
mod reader;
mod requests;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use handshake::{Connection, HandshakeError, accept, connect, tcp};
pub use holdings::Holdings;
pub use link::{Counters, Link};

use super::extension::{ExtensionError, Features, Introduction, PeerExchange};
use super::shape::{PeerKey, Shape};
use super::wire::{Span, WireError};

/// Requests that a peer may have open with us; what we announce as `reqq`.
pub const REQUEST_LIMIT: u32 = 512;
/// How many bytes a peer may ask for at a time.
pub const SPAN_LIMIT: u32 = 128 * 1024;
/// How long to assume that a peer lets requests queue, if it does not say: the default of the protocol's specification.
pub const DEFAULT_REQUEST_LIMIT: u32 = 250;

/// Where the data of blocks goes.
pub trait Sink: Send + Sync + 'static {
    /// Whether the block is still of use; if not, its data is not handed over.
    fn wanted(&self, span: Span) -> bool;

    /// Takes a block that was asked of this peer. `data` is a view of a read buffer of up to 256 KiB, which lives as
    /// long as the view: copy it to keep it. Called on the link's task, so it does not wait for anything. `false`: another
    /// copy of the block came first, and this one was not kept.
    fn block(&self, from: PeerKey, piece: u32, begin: u32, data: Bytes) -> bool;
}

/// Where what peers ask for comes from.
pub trait Source: Send + Sync + 'static {
    /// Verified bytes of one piece, exactly as many as asked for. An error refuses the request.
    fn read(&self, span: Span) -> BoxFuture<'_, io::Result<Bytes>>;

    /// The size of the info dictionary, if there is one to give.
    fn info_length(&self) -> Option<u32>;

    /// Bytes of the info dictionary, exactly as many as asked for.
    fn read_info(&self, begin: u32, length: u32) -> BoxFuture<'_, io::Result<Bytes>>;
}

/// A limit on the rate of one direction, shared by many links.
pub trait Meter: Send + Sync + 'static {
    /// Waits until this many bytes may pass.
    fn take(&self, bytes: u32) -> BoxFuture<'_, ()>;

    /// The most that should pass at once, so that many links share the rate evenly; `None` while there is no limit.
    fn burst(&self) -> Option<u32>;
}

/// What a link needs of its owner.
#[derive(Clone)]
pub struct Terms {
    /// The owner's name for the link.
    pub key: PeerKey,
    /// The torrent's shape, once it is known. Until then the peer's pieces are kept back, and nothing is served.
    pub shape: watch::Receiver<Option<Shape>>,
    /// What we say to have at the beginning.
    pub holdings: Holdings,
    /// Our extension handshake.
    pub introduction: Introduction,
    /// The port of our DHT node.
    pub dht_port: Option<u16>,
    /// Where blocks go.
    pub sink: Arc<dyn Sink>,
    /// Where the peer's requests are answered from.
    pub source: Arc<dyn Source>,
    /// Where events go: one bounded queue for all links of the owner.
    pub events: mpsc::Sender<Batch>,
    /// Limits of what is read. All hold.
    pub download: Vec<Arc<dyn Meter>>,
    /// Limits of the blocks that are sent. All hold.
    pub upload: Vec<Arc<dyn Meter>>,
}

impl Debug for Terms {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Terms")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What an owner tells a link.
#[derive(Debug, Clone)]
pub enum Command {
    /// Ask for blocks. One that is open already is not asked for again.
    Request(Vec<Span>),
    /// Take requests back. One that is not sent yet never is, and comes back as [`Event::Rejected`]. Any other the peer may
    /// still answer with the block, and will answer with a refusal if it knows the fast extension.
    Cancel(Vec<Span>),
    /// Whether the peer has anything that we want.
    Interested(bool),
    /// Whether we refuse the peer's requests. Links begin choked. What it has asked for and not got is refused.
    Choke(bool),
    /// We have this piece now.
    Have(u32),
    /// We no longer have this piece. Peers without `lt_donthave` are not told.
    DontHave(u32),
    /// Ask for a part of the info dictionary. Goes to peers that offered one.
    RequestMetadata(u32),
    /// Tell of peers. At most once a minute, 50 added and 50 dropped; BEP 11.
    Pex(PeerExchange),
}

/// Events of one link, in the order in which they happened.
#[derive(Debug)]
pub struct Batch {
    /// The link.
    pub from: PeerKey,
    /// At least one.
    pub events: Vec<Event>,
}

/// What a peer said or did. Piece numbers and spans are within the torrent.
#[derive(Debug)]
pub enum Event {
    /// The peer introduced itself, or changed what it said.
    Extended(Box<Features>),
    /// Whether it refuses our requests. Peers begin choked. Without the fast extension, `true` also means that open
    /// requests will not be answered.
    Choked(bool),
    /// Whether it wants anything of us.
    Interested(bool),
    /// It has this piece.
    Have(u32),
    /// It has these pieces and no others.
    Holdings(Holdings),
    /// It no longer has this piece.
    DontHave(u32),
    /// A block that we asked for.
    Arrived {
        /// Which.
        span: Span,
        /// When it was read off the socket.
        at: Instant,
        /// Whether the sink took it.
        kept: bool,
    },
    /// It will not send this block: it refuses, or answers a cancel, or was never asked because the cancel came in time.
    Rejected(Span),
    /// It serves this piece even while it chokes us.
    AllowedFast(u32),
    /// Peers that it knows.
    Pex(Box<PeerExchange>),
    /// A part of the info dictionary that we asked for.
    Metadata {
        /// Which.
        part: u32,
        /// The size of the whole.
        total: u32,
        /// The part's bytes: a view of a read buffer.
        data: Bytes,
    },
    /// It will not send this part of the info dictionary.
    MetadataRejected(u32),
    /// The port of its DHT node.
    DhtPort(u16),
    /// The link is at its end: the last event of it. Open requests are void.
    Gone(Gone),
}

/// Why a link ended.
#[derive(Debug, Error)]
pub enum Gone {
    /// The owner dropped it.
    #[error("we hung up")]
    Closed,
    /// The peer hung up.
    #[error("the peer hung up")]
    HungUp,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// Nothing came for 150 s.
    #[error("the peer was silent for {0} s")]
    Silent(u64),
    /// It took nothing that we sent for 60 s.
    #[error("the peer took nothing for {0} s")]
    Stalled(u64),
    /// What it sent is not the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// What it sent is not what the extension says.
    #[error(transparent)]
    Extension(#[from] ExtensionError),
    /// It broke a rule of the protocol.
    #[error("the peer broke the protocol: {0}")]
    Breach(&'static str),
    /// It sent too much of something.
    #[error("the peer sent too many {0}")]
    Flood(&'static str),
}

impl Gone {
    /// Whether it ended because of what no honest client does: a reason not to meet that peer again soon.
    pub fn is_misconduct(&self) -> bool {
        match self {
            Self::Wire(_) | Self::Extension(_) | Self::Breach(_) | Self::Flood(_) => true,
            Self::Closed | Self::HungUp | Self::Broken(_) | Self::Silent(_) | Self::Stalled(_) => false,
        }
    }
}
