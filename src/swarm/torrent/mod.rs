//! One torrent in the engine: a task owns its picker, its peers and its address book; everything else sends it messages.
//!
//! Block data does not pass through the task: links hand it to the assembly, and the storage tells the readers.

mod meeting;
mod owner;
mod peers;
mod progress;
mod readers;
mod resolve;
mod status;

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use progress::Progress;
pub(super) use resolve::resolve;
pub use status::Status;

use super::assembly::Storage;
use super::discovery::InfoHash;
use super::engine::Shared;
use super::shape::Shape;

/// What a torrent enters the engine with.
#[derive(Clone)]
pub struct TorrentOptions {
    /// The torrent's name on the wire.
    pub info_hash: InfoHash,
    /// How it is cut.
    pub shape: Shape,
    /// Where its pieces go and come from.
    pub storage: Arc<dyn Storage>,
    /// BEP 27: peers come from its trackers and from the user alone.
    pub private: bool,
    /// Peers that are known to have it.
    pub peers: Vec<SocketAddr>,
    /// Peers that it had when it was last here, as its [`Status`] named them.
    pub remembered: Vec<SocketAddr>,
    /// Tiers of announce URLs.
    pub trackers: Vec<Vec<String>>,
    /// Whether all of it is fetched, rarest first, below everything that is read.
    pub whole: bool,
}

impl std::fmt::Debug for TorrentOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TorrentOptions")
            .field("info_hash", &self.info_hash)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// A torrent in the engine. Dropping it hangs up on its peers; [`Torrent::leave`] also waits until that is done.
#[derive(Debug)]
pub struct Torrent {
    orders: mpsc::UnboundedSender<Order>,
    status: Arc<Status>,
    next: AtomicU64,
    ended: CancellationToken,
    owner: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

/// What the owner is told. The sender is unbounded because a withdrawal must never be lost or wait; what is sent is
/// bounded by the number of open files and of reads, which the mount limits.
#[derive(Debug)]
enum Order {
    /// A file is open; its bytes in the torrent.
    Open { reader: u64, file: Range<u64> },
    /// It is closed.
    Close { reader: u64 },
    /// These bytes are sure to be read from this time on.
    Expect {
        reader: u64,
        bytes: Range<u64>,
        within: Duration,
    },
    /// A read of these bytes was answered from what is here.
    Passed { reader: u64, bytes: Range<u64> },
    /// A read waits for these bytes; `urgent` unless its reader works ahead of its viewer.
    Demand {
        reader: u64,
        demand: u64,
        bytes: Range<u64>,
        urgent: bool,
        progress: Arc<Progress>,
    },
    /// It became urgent, or is so no more.
    Urge { reader: u64, demand: u64, urgent: bool },
    /// It waits no more.
    Withdraw { reader: u64, demand: u64, answered: bool },
}

impl Torrent {
    /// Begins: from now on peers are looked for. Nothing is fetched before something is demanded (or `whole`).
    pub(super) fn start(shared: Arc<Shared>, options: TorrentOptions) -> Torrent {
        let (orders, received) = mpsc::unbounded_channel();
        let status = Arc::new(Status::default());
        let ended = CancellationToken::new();
        let owner = owner::Owner::new(shared, options, received, status.clone(), ended.clone());
        let owner = tokio::spawn(owner.run());
        Torrent {
            orders,
            status,
            next: AtomicU64::new(0),
            ended,
            owner: parking_lot::Mutex::new(Some(owner)),
        }
    }

    /// What it is doing; the same value for as long as the torrent is in the engine.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Opens a file, named by its bytes in the torrent.
    pub fn reader(&self, file: Range<u64>) -> Reader {
        let reader = self.next.fetch_add(1, Ordering::Relaxed);
        self.order(Order::Open { reader, file });
        Reader {
            orders: self.orders.clone(),
            reader,
            next: AtomicU64::new(0),
        }
    }

    /// Hangs up on everyone, and waits until nothing of the torrent is on its way any more: some milliseconds, plus what
    /// trackers are given to hear of it.
    pub async fn leave(&self) {
        self.ended.cancel();
        let owner = self.owner.lock().take();
        if let Some(owner) = owner {
            // A panic of it was logged, and it is gone all the same.
            let _ = owner.await;
        }
    }

    /// Whether it left or is about to.
    pub fn has_left(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Waits until it leaves.
    pub async fn left(&self) {
        self.ended.cancelled().await;
    }

    fn order(&self, order: Order) {
        // An owner that is gone serves nobody, which its readers hear from `left`.
        let _ = self.orders.send(order);
    }
}

impl Drop for Torrent {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// An open file. Dropping it closes it; its demands are withdrawn by their own drop.
#[derive(Debug)]
pub struct Reader {
    orders: mpsc::UnboundedSender<Order>,
    reader: u64,
    next: AtomicU64,
}

impl Reader {
    /// Asks for these bytes of the torrent, which are sure to be read, the first of them in the time `within`: after what
    /// is waited for, in order, until others are expected or the file is closed.
    pub fn expect(&self, bytes: Range<u64>, within: Duration) {
        let _ = self.orders.send(Order::Expect {
            reader: self.reader,
            bytes,
            within,
        });
    }

    /// Notes that these bytes of the torrent were read and were here: it tells what comes next.
    pub fn passed(&self, bytes: Range<u64>) {
        let _ = self.orders.send(Order::Passed {
            reader: self.reader,
            bytes,
        });
    }

    /// Asks for these bytes of the torrent until the demand is dropped: before everything that nobody waits for, or, if
    /// it is not `urgent`, with what is fetched ahead of readers. That they arrived is told by the storage; `progress`
    /// hears on the way whether waiting makes sense.
    pub fn demand(&self, bytes: Range<u64>, urgent: bool, progress: Arc<Progress>) -> Demand {
        let demand = self.next.fetch_add(1, Ordering::Relaxed);
        let _ = self.orders.send(Order::Demand {
            reader: self.reader,
            demand,
            bytes,
            urgent,
            progress,
        });
        Demand {
            orders: self.orders.clone(),
            reader: self.reader,
            demand,
            answered: false,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Close { reader: self.reader });
    }
}

/// A read that waits. Dropping it withdraws the demand.
#[derive(Debug)]
pub struct Demand {
    orders: mpsc::UnboundedSender<Order>,
    reader: u64,
    demand: u64,
    answered: bool,
}

impl Demand {
    /// Says whether it is urgent from now on.
    pub fn urge(&self, urgent: bool) {
        let (reader, demand) = (self.reader, self.demand);
        let _ = self.orders.send(Order::Urge { reader, demand, urgent });
    }

    /// The bytes are here: what follows them is likely to be read next.
    pub fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Demand {
    fn drop(&mut self) {
        let (reader, demand, answered) = (self.reader, self.demand, self.answered);
        let _ = self.orders.send(Order::Withdraw {
            reader,
            demand,
            answered,
        });
    }
}
