//! What a torrent is doing, for whoever asks, at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::swarm::discovery::trackers::Totals;

/// Counters of one stay in the engine.
#[derive(Debug, Default)]
pub struct Status {
    /// What trackers are told.
    pub(super) totals: Arc<Totals>,
    pub(super) connected: AtomicUsize,
    pub(super) dialing: AtomicUsize,
    pub(super) known: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) fetched: AtomicU64,
    pub(super) wasted: AtomicU64,
    pub(super) uploaded: AtomicU64,
    pub(super) download_rate: AtomicU64,
    pub(super) upload_rate: AtomicU64,
    pub(super) last_block: Mutex<Option<Instant>>,
    pub(super) remembered: Mutex<Vec<SocketAddr>>,
}

impl Status {
    /// Peers that are connected.
    pub fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    /// Peers that are being dialled.
    pub fn dialing(&self) -> usize {
        self.dialing.load(Ordering::Relaxed)
    }

    /// Addresses known.
    pub fn known(&self) -> usize {
        self.known.load(Ordering::Relaxed)
    }

    /// Reads that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Bytes of blocks received.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Bytes received that were of no use: second copies, and bad pieces.
    pub fn wasted(&self) -> u64 {
        self.wasted.load(Ordering::Relaxed)
    }

    /// Bytes of blocks sent.
    pub fn uploaded(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }

    /// Bytes a second, received over the last second.
    pub fn download_rate(&self) -> u64 {
        self.download_rate.load(Ordering::Relaxed)
    }

    /// Bytes a second, sent over the last second.
    pub fn upload_rate(&self) -> u64 {
        self.upload_rate.load(Ordering::Relaxed)
    }

    /// The peers worth trying first when it enters again, best first; as of some seconds ago, or of its end. None of a
    /// private torrent.
    pub fn remembered(&self) -> Vec<SocketAddr> {
        self.remembered.lock().clone()
    }

    /// When the last block arrived.
    pub fn last_block(&self) -> Option<Instant> {
        *self.last_block.lock()
    }
}
