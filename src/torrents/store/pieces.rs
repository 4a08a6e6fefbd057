//! The store: which pieces are here, and reading, writing and verifying them.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::bits::Bits;
use super::files::Disk;
use super::have::{self, HaveMap, Shape};
use super::held::Held;
use super::layout::{piece_bytes, pieces_of, spans};
use crate::torrents::metainfo::Metainfo;

/// Locks that keep a piece from being written while it is hashed; pieces share them.
pub(super) const PIECE_LOCKS: u32 = 16;

/// Why bytes could not be read or stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The piece is not stored.
    #[error("piece {piece} is not here")]
    Missing {
        /// Its index.
        piece: u32,
    },
    /// The data directory is below its free-space floor, or the file system or a quota is full.
    #[error("the data directory is below its free-space floor: free some space or lower --free-space-floor")]
    NoSpace,
    /// The torrent's store was closed.
    #[error("the torrent's store is closed")]
    Closed,
    /// A file of ours could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Relative to the torrent's folder for its data, absolute for the have-map and the metainfo.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// One torrent's bytes on disk. It opens no data file before one is needed, and keeps nothing in memory but two bits
/// a piece: a library has thousands of them.
pub struct Store {
    pub(super) metainfo: Arc<Metainfo>,
    pub(super) metainfo_path: PathBuf,
    pub(super) files_dir: PathBuf,
    pub(super) disk: Arc<Disk>,
    /// This torrent's number in the table of open files.
    pub(super) number: u64,
    pub(super) have: Bits,
    /// A subset of `have`, of pieces whose hash was compared. It speaks for a file only once the file was looked at:
    /// see `looked_at`.
    pub(super) verified: Bits,
    pub(super) map: HaveMap,
    pub(super) map_path: PathBuf,
    /// Bytes of the pieces that are here, without padding.
    pub(super) here: AtomicU64,
    /// Files that were opened since the start (or the last rest) and found as recorded, or else no longer believed.
    pub(super) looked_at: Bits,
    /// Files that were written since then.
    pub(super) written: Bits,
    /// More is verified than the have-map on disk knows.
    pub(super) improved: AtomicBool,
    pub(super) opening: Mutex<()>,
    pub(super) piece_locks: [RwLock<()>; PIECE_LOCKS as usize],
    /// Held for writing while the store comes to rest; true once it is closed.
    pub(super) gate: RwLock<bool>,
    /// Right pieces for which there was no room on the disk.
    pub(super) held: Held,
    pub(super) changed: Notify,
    pub(super) progress: Mutex<Option<Instant>>,
    /// When a write last failed, for another reason than want of room, and why.
    pub(super) fault: Mutex<Option<(Instant, Arc<io::Error>)>>,
}

impl Store {
    /// Reads the have-map (makes it where there is none) and nothing else. `files_dir` need not exist.
    ///
    /// # Errors
    /// [`StoreError::File`] where the have-map can be neither read nor made.
    pub fn open(
        files_dir: &Path,
        have_path: &Path,
        metainfo: Arc<Metainfo>,
        metainfo_path: &Path,
        disk: &Arc<Disk>,
    ) -> Result<Arc<Store>, StoreError> {
        let shape = Shape {
            pieces: metainfo.piece_count,
            files: metainfo.files.len() as u32,
        };
        let loaded = have::load(have_path, shape).map_err(|error| fault(have_path, error))?;
        if loaded.broken {
            tracing::warn!(
                torrent = metainfo.name,
                path = %have_path.display(),
                "the have-map makes no sense, so what was stored is fetched again"
            );
        }
        let store = Store {
            metainfo_path: metainfo_path.to_owned(),
            files_dir: files_dir.to_owned(),
            disk: disk.clone(),
            number: disk.files.number(),
            have: loaded.have,
            verified: loaded.verified,
            map: HaveMap::new(have_path, shape),
            map_path: have_path.to_owned(),
            here: AtomicU64::new(0),
            looked_at: Bits::new(shape.files),
            written: Bits::new(shape.files),
            improved: AtomicBool::new(false),
            opening: Mutex::new(()),
            piece_locks: Default::default(),
            gate: RwLock::new(false),
            held: Held::new(shape.pieces),
            changed: Notify::new(),
            progress: Mutex::new(None),
            fault: Mutex::new(None),
            metainfo,
        };
        let here = (0..store.metainfo.files.len()).map(|file| store.bytes_here(file)).sum();
        store.here.store(here, Ordering::Relaxed);
        Ok(Arc::new(store))
    }

    /// What is stored here.
    pub fn metainfo(&self) -> &Arc<Metainfo> {
        &self.metainfo
    }

    /// The .torrent on disk.
    pub(in crate::torrents) fn metainfo_path(&self) -> &Path {
        &self.metainfo_path
    }

    /// The disk that it is stored on.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Whether the piece is here: stored, verified or not, or held in memory for want of room.
    pub fn has(&self, piece: u32) -> bool {
        self.have.get(piece) || self.held.has(piece)
    }

    /// Whether the piece is stored and was compared with its hash.
    pub fn is_verified(&self, piece: u32) -> bool {
        self.have.get(piece) && self.verified.get(piece)
    }

    /// The first piece of these bytes of a file, as far as it has them, that is not stored.
    pub fn first_missing(&self, file: usize, offset: u64, length: u64) -> Option<u32> {
        let file = self.metainfo.files.get(file)?;
        let length = length.min(file.length.saturating_sub(offset));
        pieces_of(&self.metainfo, file, offset, length).find(|piece| !self.has(*piece))
    }

    /// Stored bytes of a file; 0 for padding, which is never stored. Never waits.
    pub fn bytes_here(&self, file: usize) -> u64 {
        let Some(file) = self
            .metainfo
            .files
            .get(file)
            .filter(|file| file.length > 0 && !file.padding)
        else {
            return 0;
        };
        let pieces = pieces_of(&self.metainfo, file, 0, file.length);
        let (first, last) = (pieces.start, pieces.end - 1);
        let clipped = |piece: u32| {
            let bytes = piece_bytes(&self.metainfo, piece);
            bytes.end.min(file.offset + file.length) - bytes.start.max(file.offset)
        };
        let edge = |piece: u32| if self.have.get(piece) { clipped(piece) } else { 0 };
        if first == last {
            return edge(first);
        }
        let between = u64::from(self.have.count(first + 1..last)) * u64::from(self.metainfo.piece_length);
        edge(first) + between + edge(last)
    }

    /// Stored bytes of all files. Never waits.
    pub fn total_here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    /// Whether every piece is stored.
    pub fn is_complete(&self) -> bool {
        self.have.all(0..self.metainfo.piece_count)
    }

    /// Whether every byte of the file is stored and verified. Never waits.
    pub fn file_complete_and_verified(&self, file: usize) -> bool {
        self.metainfo.files.get(file).is_some_and(|file| {
            let pieces = pieces_of(&self.metainfo, file, 0, file.length);
            self.have.all(pieces.clone()) && self.verified.all(pieces)
        })
    }

    /// When a piece was last completed in this life.
    pub fn last_progress(&self) -> Option<Instant> {
        *self.progress.lock()
    }

    /// The fault of the disk that a write met with after `since`, if any.
    pub(in crate::torrents) fn fault_since(&self, since: Instant) -> Option<Arc<io::Error>> {
        self.fault
            .lock()
            .as_ref()
            .filter(|(at, _)| *at > since)
            .map(|(_, error)| error.clone())
    }

    /// Waits until all these pieces are stored, however long that takes.
    pub async fn wait_for(&self, pieces: Range<u32>) {
        self.changes(|| self.have.all(pieces.clone()).then_some(())).await;
    }

    /// Waits until `look` finds something. It is asked at first, whenever a piece was completed, and when something
    /// could not be stored.
    pub(in crate::torrents) async fn changes<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(found) = look() {
                return found;
            }
            changed.await;
        }
    }

    pub(super) fn stored_bytes(&self, piece: u32) -> u64 {
        let parts = spans(&self.metainfo, piece_bytes(&self.metainfo, piece));
        parts.filter(|part| !part.padding).map(|part| part.length).sum()
    }

    pub(super) fn file_path(&self, file: usize) -> PathBuf {
        self.metainfo
            .files
            .get(file)
            .into_iter()
            .flat_map(|file| file.path.iter())
            .map(|name| name.to_string())
            .collect()
    }

    pub(super) fn data_fault(&self, file: usize, source: io::Error) -> StoreError {
        fault(&self.file_path(file), source)
    }

    pub(super) fn map_fault(&self, source: io::Error) -> StoreError {
        fault(&self.map_path, source)
    }
}

pub(super) fn fault(path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        source,
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("torrent", &self.metainfo.name)
            .finish_non_exhaustive()
    }
}
