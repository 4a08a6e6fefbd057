//! One torrent of the library: what is known of it, and its place in the engine while it has one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use magnetfs_mount::{Group, ReadError};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};

use crate::torrents::engine::Swarm;
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::Metainfo;
use crate::torrents::report::{Download, FileReport, State, TorrentDetail, TorrentReport};
use crate::torrents::shelf::Options;
use crate::torrents::store::Store;

/// Why the reads of a torrent that wait for the network cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Halt {
    /// Nothing stands in their way.
    No,
    /// The user paused it.
    Paused,
    /// It left the library.
    Removed,
    /// The daemon is stopping.
    Stopping,
}

impl Halt {
    /// The error of a read that meets it.
    pub(super) fn error(self) -> Option<ReadError> {
        match self {
            Halt::No => None,
            Halt::Paused => Some(ReadError::Paused),
            Halt::Removed => Some(ReadError::Removed),
            Halt::Stopping => Some(ReadError::Stopping),
        }
    }
}

/// Whether a background task looks after a torrent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tended {
    No,
    Yes,
    /// Something changed since the task began its round, so it has to go round once more.
    Again,
}

/// What there is once the metainfo is known. It never changes.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) store: Arc<Store>,
    pub(super) group: Arc<Group>,
}

/// A torrent's place in the engine.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) swarm: Arc<Swarm>,
    /// One of the bounded number of places; given back when the torrent is parked.
    pub(super) _permit: OwnedSemaphorePermit,
}

/// One torrent.
#[derive(Debug)]
pub(super) struct Torrent {
    pub(super) info_hash: InfoHash,
    /// The base of its inode numbers.
    pub(super) number: u64,
    options: Mutex<Options>,
    contents: OnceLock<Contents>,
    /// Its place in the engine. The lock is held while it enters or leaves, so that it is never there twice.
    pub(super) place: tokio::sync::Mutex<Option<Place>>,
    /// The same swarm, for reports that must not wait while it enters or leaves.
    swarm: Mutex<Option<Arc<Swarm>>>,
    fault: Mutex<Option<String>>,
    halt: watch::Sender<Halt>,
    resolved: watch::Sender<bool>,
    tended: Mutex<Tended>,
    /// Peers or options changed, so what is being tried is worth trying anew.
    pub(super) nudge: Notify,
    /// Reads that wait for missing bytes now.
    waiting: AtomicUsize,
    last_used: Mutex<Instant>,
    /// Bytes compared with their hashes, while `checking`.
    checked: AtomicU64,
    checking: AtomicBool,
    /// The peers that the shelf remembers, and when this run put them there.
    remembered: Mutex<(Vec<SocketAddr>, Option<Instant>)>,
    /// Bytes received and sent in earlier stays in the engine.
    earlier: Mutex<(u64, u64)>,
}

impl Torrent {
    pub(super) fn new(info_hash: InfoHash, options: Options) -> Torrent {
        let halt = if options.paused { Halt::Paused } else { Halt::No };
        Torrent {
            info_hash,
            number: options.number,
            options: Mutex::new(options),
            contents: OnceLock::new(),
            place: tokio::sync::Mutex::new(None),
            swarm: Mutex::new(None),
            fault: Mutex::new(None),
            halt: watch::Sender::new(halt),
            resolved: watch::Sender::new(false),
            tended: Mutex::new(Tended::No),
            nudge: Notify::new(),
            waiting: AtomicUsize::new(0),
            last_used: Mutex::new(Instant::now()),
            checked: AtomicU64::new(0),
            checking: AtomicBool::new(false),
            remembered: Mutex::default(),
            earlier: Mutex::new((0, 0)),
        }
    }

    pub(super) fn options(&self) -> Options {
        self.options.lock().clone()
    }

    pub(super) fn set_options(&self, options: Options) {
        *self.options.lock() = options;
    }

    /// `None` while the magnet is unresolved.
    pub(super) fn contents(&self) -> Option<&Contents> {
        self.contents.get()
    }

    /// The metainfo is known now. A second call changes nothing.
    pub(super) fn set_contents(&self, contents: Contents) {
        // It was set before: then it is the same.
        let _ = self.contents.set(contents);
    }

    /// Its files are shown now: tells who waits for that.
    pub(super) fn tell_shown(&self) {
        self.resolved
            .send_if_modified(|resolved| !std::mem::replace(resolved, true));
    }

    /// Word of its files being shown.
    pub(super) fn resolved(&self) -> watch::Receiver<bool> {
        self.resolved.subscribe()
    }

    /// What stands in the way of reads that wait, and word of its change.
    pub(super) fn halt(&self) -> watch::Receiver<Halt> {
        self.halt.subscribe()
    }

    /// Waiting reads fail with it from now on. A daemon that is stopping goes on stopping.
    pub(super) fn set_halt(&self, halt: Halt) {
        self.halt.send_if_modified(|current| {
            let changed = *current != halt && *current != Halt::Stopping;
            if changed {
                *current = halt;
            }
            changed
        });
    }

    pub(super) fn is_halted(&self) -> Halt {
        *self.halt.borrow()
    }

    /// Whether the caller is to start the torrent's background task. If there is one, it goes round once more.
    pub(super) fn begin_tending(&self) -> bool {
        let mut tended = self.tended.lock();
        let begins = *tended == Tended::No;
        *tended = if begins { Tended::Yes } else { Tended::Again };
        begins
    }

    /// Asked by the background task at the end of a round: whether to go round once more.
    pub(super) fn tend_again(&self) -> bool {
        let mut tended = self.tended.lock();
        let again = *tended == Tended::Again;
        *tended = if again { Tended::Yes } else { Tended::No };
        again
    }

    pub(super) fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock() = fault;
    }

    /// The swarm, if the torrent is in the engine now.
    pub(super) fn swarm(&self) -> Option<Arc<Swarm>> {
        self.swarm.lock().clone()
    }

    /// Notes that it entered or left the engine; what it received and sent there stays counted.
    pub(super) fn set_swarm(&self, swarm: Option<Arc<Swarm>>) {
        let before = std::mem::replace(&mut *self.swarm.lock(), swarm);
        if let Some(before) = before {
            let mut earlier = self.earlier.lock();
            earlier.0 += before.fetched();
            earlier.1 += before.uploaded();
        }
    }

    /// What the shelf remembers now, and since when; `None` for an earlier run.
    pub(super) fn set_remembered(&self, peers: Vec<SocketAddr>, since: Option<Instant>) {
        *self.remembered.lock() = (peers, since);
    }

    /// Whether the shelf is to be told of these peers, if that was last done at least `pause` ago.
    pub(super) fn are_news(&self, peers: &[SocketAddr], pause: Duration) -> bool {
        let (known, since) = &*self.remembered.lock();
        let same = known.len() == peers.len() && peers.iter().all(|peer| known.contains(peer));
        // Of a stay in which nobody was met nothing is learnt.
        !peers.is_empty() && !same && since.is_none_or(|since| since.elapsed() >= pause)
    }

    /// A read that may have to wait for the network, for as long as the guard lives.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// It was of use just now: its idle time begins anew.
    pub(super) fn touch(&self) {
        *self.last_used.lock() = Instant::now();
    }

    /// How long nobody has read what is missing.
    pub(super) fn idle(&self) -> Duration {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            Duration::ZERO
        } else {
            self.last_used.lock().elapsed()
        }
    }

    pub(super) fn set_checking(&self, checking: bool) {
        self.checked.store(0, Ordering::Relaxed);
        self.checking.store(checking, Ordering::Relaxed);
    }

    pub(super) fn set_checked(&self, bytes: u64) {
        self.checked.store(bytes, Ordering::Relaxed);
    }

    /// Whether every byte of its files is here.
    pub(super) fn is_complete(&self) -> bool {
        self.contents()
            .is_some_and(|contents| contents.store.total_here() == contents.metainfo.total)
    }

    /// The name in the root of the mount, or the best there is before it has one.
    pub(super) fn name(&self) -> String {
        let options = self.options.lock();
        options
            .shown_name
            .clone()
            .or_else(|| options.display_name())
            .unwrap_or_else(|| self.info_hash.to_string())
    }

    fn state(&self) -> State {
        if self.fault.lock().is_some() {
            State::Error
        } else if self.is_halted() == Halt::Paused {
            State::Paused
        } else if self.contents().is_none() {
            State::Resolving
        } else if self.checking.load(Ordering::Relaxed) {
            State::Checking
        } else if self.is_complete() {
            State::Complete
        } else if self.swarm.lock().is_some() {
            State::Active
        } else {
            State::Parked
        }
    }

    /// One line about it.
    pub(super) fn report(&self) -> TorrentReport {
        let swarm = self.swarm();
        let contents = self.contents();
        let (download_rate, upload_rate) = swarm.as_ref().map_or((0, 0), |swarm| swarm.rates());
        let (fetched, uploaded) = *self.earlier.lock();
        let state = self.state();
        TorrentReport {
            info_hash: self.info_hash.to_string(),
            name: self.name(),
            state,
            size: contents.map_or(0, |contents| {
                shown(&contents.metainfo).map(|(_, file)| file.length).sum()
            }),
            bytes_here: contents.map_or(0, |contents| {
                shown(&contents.metainfo)
                    .map(|(index, _)| contents.store.bytes_here(index))
                    .sum()
            }),
            bytes_checked: (state == State::Checking).then(|| self.checked.load(Ordering::Relaxed)),
            files: contents.map_or(0, |contents| shown(&contents.metainfo).count()),
            peers: swarm.as_ref().map_or(0, |swarm| swarm.peers().live),
            download_rate,
            upload_rate,
            fetched: fetched + swarm.as_ref().map_or(0, |swarm| swarm.fetched()),
            uploaded: uploaded + swarm.as_ref().map_or(0, |swarm| swarm.uploaded()),
            download: self.options.lock().download,
            error: self.fault.lock().clone(),
        }
    }

    /// Everything about it.
    pub(super) fn detail(&self) -> TorrentDetail {
        let options = self.options();
        let contents = self.contents();
        TorrentDetail {
            report: self.report(),
            piece_length: contents.map_or(0, |contents| contents.metainfo.piece_length),
            piece_count: contents.map_or(0, |contents| contents.metainfo.piece_count),
            added: options
                .added
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            private: contents.is_some_and(|contents| contents.metainfo.private),
            trackers: self.trackers(),
            contents: contents.map_or_else(Vec::new, |contents| file_reports(&self.name(), contents)),
        }
    }

    /// The announce URLs of the magnet and of the metainfo.
    pub(super) fn trackers(&self) -> Vec<String> {
        let mut trackers = self.options.lock().trackers.clone();
        for tracker in self.contents().iter().flat_map(|contents| &contents.metainfo.trackers) {
            if !trackers.contains(tracker) {
                trackers.push(tracker.clone());
            }
        }
        trackers
    }

    /// Whether all of it is to be fetched.
    pub(super) fn is_whole(&self) -> bool {
        self.options.lock().download == Download::Whole
    }
}

/// The files that are shown, with their index in the torrent.
pub(super) fn shown(metainfo: &Metainfo) -> impl Iterator<Item = (usize, &crate::torrents::metainfo::File)> {
    metainfo.files.iter().enumerate().filter(|(_, file)| !file.padding)
}

fn file_reports(name: &str, contents: &Contents) -> Vec<FileReport> {
    shown(&contents.metainfo)
        .map(|(index, file)| FileReport {
            path: if contents.metainfo.single_file {
                name.into()
            } else {
                std::iter::once(name)
                    .chain(file.path.iter().map(|part| &**part))
                    .collect()
            },
            size: file.length,
            bytes_here: contents.store.bytes_here(index),
        })
        .collect()
}

/// A read that waits; dropping it starts the torrent's idle time.
#[derive(Debug)]
pub(super) struct Busy(Arc<Torrent>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
