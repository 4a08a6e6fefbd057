//! The store: which pieces are here, and reading, writing and verifying them.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use rustix::io::{Errno, ReadWriteFlags};
use tokio::sync::Notify;

use super::bits::Bits;
use super::files::{Access, Disk, open};
use super::hashes;
use super::have::{self, HaveMap, Shape, Stamp};
use super::layout::{Span, piece_bytes, pieces_of, spans};
use crate::torrents::metainfo::{self, Metainfo};

/// Locks that keep a piece from being written while it is hashed; pieces share them.
const PIECE_LOCKS: u32 = 16;

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
    metainfo: Arc<Metainfo>,
    metainfo_path: PathBuf,
    files_dir: PathBuf,
    disk: Arc<Disk>,
    /// This torrent's number in the table of open files.
    number: u64,
    have: Bits,
    /// A subset of `have`, of pieces whose hash was compared. It speaks for a file only once the file was looked at:
    /// see `looked_at`.
    verified: Bits,
    map: HaveMap,
    map_path: PathBuf,
    /// Bytes of the pieces that are here, without padding.
    here: AtomicU64,
    /// Files that were opened since the start (or the last rest) and found as recorded, or else no longer believed.
    looked_at: Bits,
    /// Files that were written since then.
    written: Bits,
    /// More is verified than the have-map on disk knows.
    improved: AtomicBool,
    opening: Mutex<()>,
    piece_locks: [RwLock<()>; PIECE_LOCKS as usize],
    /// Held for writing while the store comes to rest; true once it is closed.
    gate: RwLock<bool>,
    changed: Notify,
    progress: Mutex<Option<Instant>>,
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
            changed: Notify::new(),
            progress: Mutex::new(None),
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

    /// Where a piece begins in a file; 0 where it begins before the file.
    pub(in crate::torrents) fn offset_in_file(&self, file: usize, piece: u32) -> u64 {
        let file_offset = self.metainfo.files.get(file).map_or(0, |file| file.offset);
        piece_bytes(&self.metainfo, piece).start.saturating_sub(file_offset)
    }

    /// The disk that it is stored on.
    pub fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// Whether the piece is stored, verified or not.
    pub fn has(&self, piece: u32) -> bool {
        self.have.get(piece)
    }

    /// Whether the piece is stored and was compared with its hash.
    pub fn is_verified(&self, piece: u32) -> bool {
        self.have.get(piece) && self.verified.get(piece)
    }

    /// The first piece of these bytes of a file that is not stored.
    pub fn first_missing(&self, file: usize, offset: u64, length: u64) -> Option<u32> {
        let file = self.metainfo.files.get(file)?;
        pieces_of(&self.metainfo, file, offset, length).find(|piece| !self.have.get(*piece))
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

    /// Fills `buf` if every byte of it is stored, verified, and in the page cache; `None` otherwise. Never waits for
    /// the disk, and is cheap when the answer is no.
    pub fn read_now(&self, file: usize, buf: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        let wanted = self.metainfo.files.get(file)?;
        let length = buf.len() as u64;
        if buf.is_empty() {
            return Some(Ok(()));
        }
        if offset.checked_add(length)? > wanted.length || self.disk.files.waits_always.load(Ordering::Relaxed) {
            return None;
        }
        let pieces = pieces_of(&self.metainfo, wanted, offset, length);
        if !self.verified.all(pieces.clone()) || !self.have.all(pieces) {
            return None;
        }
        // In the table it is only after it was looked at, so `verified` speaks for it.
        let opened = self.disk.files.get((self.number, file), Access::Read)?;
        let length = buf.len();
        let mut slices = [io::IoSliceMut::new(buf)];
        match rustix::io::preadv2(&opened, &mut slices, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == length => Some(Ok(())),
            Err(Errno::OPNOTSUPP) => {
                self.disk.files.waits_always.store(true, Ordering::Relaxed);
                None
            }
            // A fault of the disk is told by the read that may wait.
            Ok(_) | Err(_) => None,
        }
    }

    /// Fills `buf` from the disk. Pieces that were not compared with their hashes are, first; one that does not match
    /// becomes missing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] names the first piece that is not stored.
    pub fn read_blocking(&self, file: usize, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let Some(wanted) = self.metainfo.files.get(file) else {
            return Err(fault(Path::new(""), io::ErrorKind::NotFound.into()));
        };
        let pieces = pieces_of(&self.metainfo, wanted, offset, buf.len() as u64);
        if pieces.is_empty() {
            return Ok(());
        }
        if let Some(piece) = pieces.clone().find(|piece| !self.have.get(*piece)) {
            return Err(StoreError::Missing { piece });
        }
        let opened = self.opened(file, Access::Read)?;
        for piece in pieces.clone() {
            self.verify(piece)?;
        }
        match opened.read_exact_at(buf, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.lose(pieces.clone(), "its file was cut short");
                Err(StoreError::Missing { piece: pieces.start })
            }
            result => result.map_err(|error| self.data_fault(file, error)),
        }
    }

    /// Reads what is stored, verified or not: for the engine, which hashes it, or serves pieces that it saw verified.
    pub(in crate::torrents) fn read_raw(&self, file: usize, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        if buf.is_empty() {
            return Ok(());
        }
        self.opened(file, Access::Read)?
            .read_exact_at(buf, offset)
            .map_err(|error| self.data_fault(file, error))
    }

    /// Stores bytes that are not verified yet. What would fall into a piece that is stored and matches its hash is
    /// dropped: its bytes are being served.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] below the floor; whoever waits for bytes of this torrent is woken by it.
    pub fn write(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let length = bytes.len() as u64;
        let inside = |file: &&metainfo::File| offset.checked_add(length).is_some_and(|end| end <= file.length);
        let Some(wanted) = self.metainfo.files.get(file).filter(inside) else {
            return Err(fault(&self.file_path(file), io::ErrorKind::InvalidInput.into()));
        };
        if bytes.is_empty() || wanted.padding {
            return Ok(());
        }
        let closed = self.gate.read();
        if *closed {
            return Err(StoreError::Closed);
        }
        for piece in pieces_of(&self.metainfo, wanted, offset, length) {
            let piece_range = piece_bytes(&self.metainfo, piece);
            let start = piece_range.start.max(wanted.offset + offset) - wanted.offset;
            let end = piece_range.end.min(wanted.offset + offset + length) - wanted.offset;
            let part = &bytes[(start - offset) as usize..(end - offset) as usize];
            let result = self.write_part(piece, file, start, part);
            if matches!(result, Err(StoreError::NoSpace)) {
                self.changed.notify_waiters();
            }
            result?;
        }
        Ok(())
    }

    fn write_part(&self, piece: u32, file: usize, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let lock = &self.piece_locks[(piece % PIECE_LOCKS) as usize];
        let mut guard = lock.read();
        while self.have.get(piece) {
            if self.verified.get(piece) {
                return Ok(());
            }
            // The engine fetches it because nobody knows whether the stored piece is good. Now it has to be known.
            drop(guard);
            match self.verify(piece) {
                Ok(()) => return Ok(()),
                Err(StoreError::Missing { .. }) => {}
                Err(_) => self.lose(piece..piece + 1, "it could not be read"),
            }
            guard = lock.read();
        }
        if !self.disk.space.take(bytes.len() as u64) {
            return Err(StoreError::NoSpace);
        }
        self.map.unmark().map_err(|error| self.map_fault(error))?;
        self.written.set(file as u32);
        let written = self.opened(file, Access::Write).and_then(|opened| {
            let result = opened.write_all_at(bytes, offset);
            result.map_err(|error| self.data_fault(file, error))
        });
        drop(guard);
        match written {
            Err(StoreError::File { source, .. }) if is_full(&source) => {
                self.disk.space.refused();
                Err(StoreError::NoSpace)
            }
            result => result,
        }
    }

    /// The engine's word that every byte of the piece was written and that its hash matched.
    pub fn piece_completed(&self, piece: u32) {
        let is_new = self.have.set(piece);
        self.verified.set(piece);
        if is_new {
            self.here.fetch_add(self.stored_bytes(piece), Ordering::Relaxed);
            let recorded = self
                .map
                .unmark()
                .and_then(|()| self.map.record(&self.have, piece, false));
            if let Err(error) = recorded {
                // It is here all the same; after a kill it would be fetched again.
                tracing::error!(torrent = self.metainfo.name, piece, %error, "a piece could not be recorded");
            }
        }
        *self.progress.lock() = Some(Instant::now());
        self.changed.notify_waiters();
    }

    /// Takes a piece for stored that nobody said is complete, if it matches its hash.
    pub(in crate::torrents) fn adopt(&self, piece: u32) -> Result<(), StoreError> {
        let no_writes = self.piece_locks[(piece % PIECE_LOCKS) as usize].write();
        if !self.have.get(piece) && self.matches(piece)? {
            drop(no_writes);
            self.piece_completed(piece);
        }
        Ok(())
    }

    /// Compares every stored piece with its hash that was not yet. `progress` is told the bytes that are done with,
    /// of the whole torrent; `stop` ends it early, which is no error.
    ///
    /// # Errors
    /// The first fault of the disk. Pieces that do not match are none.
    pub fn verify_all(&self, progress: impl Fn(u64), stop: &AtomicBool) -> Result<(), StoreError> {
        for file in 0..self.metainfo.files.len() {
            if self.bytes_here(file) > 0 {
                self.look_at(file)?;
            }
        }
        for piece in 0..self.metainfo.piece_count {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.have.get(piece) {
                match self.verify(piece) {
                    Ok(()) | Err(StoreError::Missing { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            progress(piece_bytes(&self.metainfo, piece).end);
        }
        Ok(())
    }

    /// The pieces that are stored and verified, as a `bitfield` of the wire. It looks at every file that has any, so
    /// it may wait for the disk.
    pub(in crate::torrents) fn verified_pieces(&self) -> Result<Vec<u8>, StoreError> {
        for file in 0..self.metainfo.files.len() {
            if self.bytes_here(file) > 0 {
                self.look_at(file)?;
            }
        }
        let (have, verified) = (self.have.bytes(), self.verified.bytes());
        Ok(have
            .iter()
            .zip(verified)
            .map(|(have, verified)| have & verified)
            .collect())
    }

    /// The file, open for reading, while it is complete and verified. It may wait for the disk.
    pub fn open_complete_file(&self, file: usize) -> Option<File> {
        if !self.file_complete_and_verified(file) || self.metainfo.files.get(file)?.length == 0 {
            return None;
        }
        let looked_at = self.opened(file, Access::Read).ok()?;
        let opened = open(&self.files_dir, &self.metainfo.files[file].path, Access::Read).ok()?;
        let same = Stamp::of(&looked_at).ok()? == Stamp::of(&opened).ok()?;
        (same && self.file_complete_and_verified(file)).then_some(opened)
    }

    /// A clean stop of this torrent: waits until everything is on disk, and records it, so that the next start need
    /// not hash again. The store stays usable: what is written next undoes the record first.
    ///
    /// # Errors
    /// Where something could not be made durable; the next start then hashes what it reads.
    pub fn rest(&self) -> Result<(), StoreError> {
        let mut gate = self.gate.write();
        self.come_to_rest(&mut gate)
    }

    /// As [`Store::rest`], and refuses every write from now on.
    ///
    /// # Errors
    /// As [`Store::rest`].
    pub fn close(&self) -> Result<(), StoreError> {
        let mut gate = self.gate.write();
        *gate = true;
        self.come_to_rest(&mut gate)
    }

    fn come_to_rest(&self, _gate: &mut bool) -> Result<(), StoreError> {
        for file in 0..self.metainfo.files.len() {
            if !self.written.get(file as u32) {
                continue;
            }
            let sync = |opened: Arc<File>| {
                opened.sync_data()?;
                self.map.stamp(file as u32, Stamp::of(&opened)?)
            };
            match self.opened(file, Access::Read) {
                Ok(opened) => sync(opened).map_err(|error| self.data_fault(file, error))?,
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            self.written.clear(file as u32);
        }
        if self.improved.swap(false, Ordering::Relaxed) {
            self.map.unmark().map_err(|error| self.map_fault(error))?;
        }
        self.map
            .mark(&self.have, &self.verified)
            .map_err(|error| self.map_fault(error))?;
        self.disk.files.forget(self.number);
        // Whoever changes a file while the torrent rests is found out when it is opened again.
        for file in 0..self.metainfo.files.len() {
            self.looked_at.clear(file as u32);
        }
        Ok(())
    }

    /// Compares a stored piece with its hash, unless that was done.
    fn verify(&self, piece: u32) -> Result<(), StoreError> {
        if self.is_verified(piece) {
            return Ok(());
        }
        let _no_writes = self.piece_locks[(piece % PIECE_LOCKS) as usize].write();
        if !self.have.get(piece) {
            return Err(StoreError::Missing { piece });
        }
        if self.verified.get(piece) {
            return Ok(());
        }
        match self.matches(piece)? {
            true => {
                self.verified.set(piece);
                self.improved.store(true, Ordering::Relaxed);
                Ok(())
            }
            false => {
                self.lose(piece..piece + 1, "it does not match its hash");
                Err(StoreError::Missing { piece })
            }
        }
    }

    fn matches(&self, piece: u32) -> Result<bool, StoreError> {
        let parts: Vec<Span> = spans(&self.metainfo, piece_bytes(&self.metainfo, piece)).collect();
        // All of them are looked at before one is read, for looking may say that none of this is to be believed.
        let mut files = Vec::with_capacity(parts.len());
        for part in &parts {
            if part.padding {
                files.push(None);
                continue;
            }
            files.push(match self.opened(part.file, Access::Read) {
                Ok(opened) => Some(opened),
                Err(StoreError::Missing { .. }) => return Ok(false),
                Err(error) => return Err(error),
            });
        }
        let expected = hashes::expected(&self.metainfo, &self.metainfo_path, piece)
            .map_err(|error| fault(&self.metainfo_path, error))?;
        let mut hash = hashes::Hash::new();
        for (part, opened) in parts.iter().zip(&files) {
            match opened {
                None => hash.zeros(part.length),
                Some(opened) => match hash.file(opened, part.offset, part.length) {
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
                    result => result.map_err(|error| self.data_fault(part.file, error))?,
                },
            }
        }
        Ok(hash.finish() == expected)
    }

    /// These pieces are no longer here, durably.
    fn lose(&self, pieces: Range<u32>, reason: &str) {
        let mut lost = 0;
        let mut recorded = Ok(());
        for piece in pieces.clone() {
            self.verified.clear(piece);
            if !self.have.clear(piece) {
                continue;
            }
            lost += 1;
            self.here.fetch_sub(self.stored_bytes(piece), Ordering::Relaxed);
            recorded = recorded.and_then(|()| self.map.unmark());
            recorded = recorded.and_then(|()| self.map.record(&self.have, piece, false));
        }
        if lost == 0 {
            return;
        }
        recorded = recorded.and_then(|()| self.map.record(&self.have, pieces.start, true));
        tracing::warn!(
            torrent = self.metainfo.name,
            first = pieces.start,
            lost,
            reason,
            "stored pieces are bad and will be fetched again"
        );
        if let Err(error) = recorded {
            tracing::error!(torrent = self.metainfo.name, %error, "the loss could not be recorded");
        }
    }

    /// The file, opened where it is not. Before a file is given out for the first time, it is looked at.
    fn opened(&self, file: usize, access: Access) -> Result<Arc<File>, StoreError> {
        let key = (self.number, file);
        if let Some(opened) = self.disk.files.get(key, access) {
            return Ok(opened);
        }
        let _opening = self.opening.lock();
        if let Some(opened) = self.disk.files.get(key, access) {
            return Ok(opened);
        }
        let wanted = &self.metainfo.files[file];
        let found = match open(&self.files_dir, &wanted.path, Access::Read) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.data_fault(file, error)),
        };
        self.compare_with_record(file, found.as_ref())?;
        let opened = match (found, access) {
            (Some(found), Access::Read) => found,
            (None, Access::Read) => {
                let piece = pieces_of(&self.metainfo, wanted, 0, wanted.length).start;
                return Err(StoreError::Missing { piece });
            }
            (_, Access::Write) => {
                let made = open(&self.files_dir, &wanted.path, Access::Write);
                let made = made.map_err(|error| self.data_fault(file, error))?;
                let length = made.metadata().map_err(|error| self.data_fault(file, error))?.len();
                if length != wanted.length {
                    made.set_len(wanted.length)
                        .map_err(|error| self.data_fault(file, error))?;
                }
                made
            }
        };
        let opened = Arc::new(opened);
        self.disk.files.insert(key, opened.clone(), access == Access::Write);
        Ok(opened)
    }

    fn look_at(&self, file: usize) -> Result<(), StoreError> {
        match self.opened(file, Access::Read) {
            Ok(_) | Err(StoreError::Missing { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The first time that a file is opened: if it does not look as recorded, nothing of it is believed.
    fn compare_with_record(&self, file: usize, found: Option<&File>) -> Result<(), StoreError> {
        let wanted = &self.metainfo.files[file];
        let pieces = pieces_of(&self.metainfo, wanted, 0, wanted.length);
        let Some(found) = found else {
            self.lose(pieces, "its file is gone");
            self.looked_at.set(file as u32);
            return Ok(());
        };
        if self.looked_at.get(file as u32) {
            return Ok(());
        }
        let stamp = Stamp::of(found).map_err(|error| self.data_fault(file, error))?;
        let recorded = self
            .map
            .is_stamped(file as u32, stamp)
            .map_err(|error| self.map_fault(error))?;
        if !recorded {
            self.map.unmark().map_err(|error| self.map_fault(error))?;
            for piece in pieces {
                self.verified.clear(piece);
            }
            self.map
                .stamp(file as u32, stamp)
                .map_err(|error| self.map_fault(error))?;
        }
        self.looked_at.set(file as u32);
        Ok(())
    }

    fn stored_bytes(&self, piece: u32) -> u64 {
        let parts = spans(&self.metainfo, piece_bytes(&self.metainfo, piece));
        parts.filter(|part| !part.padding).map(|part| part.length).sum()
    }

    fn file_path(&self, file: usize) -> PathBuf {
        self.metainfo
            .files
            .get(file)
            .into_iter()
            .flat_map(|file| file.path.iter())
            .map(|name| name.to_string())
            .collect()
    }

    fn data_fault(&self, file: usize, source: io::Error) -> StoreError {
        fault(&self.file_path(file), source)
    }

    fn map_fault(&self, source: io::Error) -> StoreError {
        fault(&self.map_path, source)
    }
}

fn fault(path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        path: path.to_owned(),
        source,
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("torrent", &self.metainfo.name)
            .finish_non_exhaustive()
    }
}
