//! Bytes into a store, and out of it.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::io::{Errno, ReadWriteFlags};

use super::files::Access;
use super::hashes;
use super::layout::{piece_bytes, pieces_of, spans};
use super::pieces::{PIECE_LOCKS, Store, StoreError, fault};
use crate::swarm::Finished;
use crate::torrents::metainfo;

impl Store {
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

    /// Fills `buf` from the disk, or from what is held in memory. Pieces that were not compared with their hashes are,
    /// first; one that does not match becomes missing.
    ///
    /// # Errors
    /// [`StoreError::Missing`] names the first piece that is not here.
    pub fn read_blocking(&self, file: usize, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
        let Some(wanted) = self.metainfo.files.get(file) else {
            return Err(fault(Path::new(""), io::ErrorKind::NotFound.into()));
        };
        let pieces = pieces_of(&self.metainfo, wanted, offset, buf.len() as u64);
        if pieces.clone().all(|piece| !self.held.has(piece)) {
            return self.read_stored(file, buf, offset);
        }
        let start = wanted.offset + offset;
        let end = start + buf.len() as u64;
        for piece in pieces {
            let whole = piece_bytes(&self.metainfo, piece);
            let part = whole.start.max(start)..whole.end.min(end);
            let place = &mut buf[(part.start - start) as usize..(part.end - start) as usize];
            match self.held.get(piece) {
                Some(bytes) => {
                    place.copy_from_slice(
                        &bytes[(part.start - whole.start) as usize..(part.end - whole.start) as usize],
                    );
                }
                None => self.read_stored(file, place, part.start - wanted.offset)?,
            }
        }
        Ok(())
    }

    fn read_stored(&self, file: usize, buf: &mut [u8], offset: u64) -> Result<(), StoreError> {
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

    /// Verified bytes of one piece, for a peer.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if it is not here; the range is not the piece's.
    pub fn read_piece(&self, piece: u32, begin: u32, length: u32) -> Result<Vec<u8>, StoreError> {
        let whole = piece_bytes(&self.metainfo, piece);
        let start = whole.start + u64::from(begin);
        let end = start + u64::from(length);
        if piece >= self.metainfo.piece_count || end > whole.end {
            return Err(StoreError::Missing { piece });
        }
        let mut bytes = vec![0; length as usize];
        let mut done = 0;
        for part in spans(&self.metainfo, start..end) {
            let place = &mut bytes[done..done + part.length as usize];
            if !part.padding {
                self.read_blocking(part.file, place, part.offset)?;
            }
            done += part.length as usize;
        }
        Ok(bytes)
    }

    /// Compares a whole piece with its hash, and stores it if it is right. Where there is no room it is held in memory.
    /// Whoever waits for bytes of this torrent is woken.
    ///
    /// # Errors
    /// [`StoreError::File`] for a fault of the disk, [`StoreError::Closed`].
    pub fn finish(&self, piece: u32, bytes: &[u8]) -> Result<Finished, StoreError> {
        let expected = hashes::expected(&self.metainfo, &self.metainfo_path, piece)
            .map_err(|error| fault(&self.metainfo_path, error))?;
        if hashes::of(bytes) != expected {
            return Ok(Finished::Bad);
        }
        match self.store(piece, bytes) {
            Ok(()) => {}
            Err(StoreError::NoSpace) => {
                let evicted = self.held.put(piece, bytes);
                *self.progress.lock() = Some(Instant::now());
                self.changed.notify_waiters();
                return Ok(Finished::Held { evicted });
            }
            Err(error) => return Err(error),
        }
        self.store_held();
        Ok(Finished::Stored)
    }

    /// Stores what is held in memory, as far as there is room.
    pub(super) fn store_held(&self) {
        while let Some((piece, bytes)) = self.held.first() {
            if self.store(piece, &bytes).is_err() {
                return;
            }
            // Not before: at every moment it is here.
            self.held.remove(piece);
        }
    }

    /// Stores a piece whose hash was compared.
    fn store(&self, piece: u32, bytes: &[u8]) -> Result<(), StoreError> {
        let mut done = 0;
        for part in spans(&self.metainfo, piece_bytes(&self.metainfo, piece)) {
            let end = done + part.length as usize;
            let Some(bytes) = bytes.get(done..end) else {
                return Err(fault(&self.file_path(part.file), io::ErrorKind::InvalidInput.into()));
            };
            self.write(part.file, part.offset, bytes)?;
            done = end;
        }
        self.piece_completed(piece);
        Ok(())
    }

    /// Stores bytes that are not verified yet. What would fall into a piece that is stored and matches its hash is
    /// dropped: its bytes are being served.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] below the floor; [`StoreError::File`] for a fault of the disk, [`StoreError::Closed`].
    /// Whoever waits for bytes of this torrent is woken by any of them.
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
            if let Err(error) = &result {
                if let StoreError::File { path, source } = error {
                    let words = format!("{}: {source}", path.display());
                    *self.fault.lock() = Some((Instant::now(), Arc::new(io::Error::new(source.kind(), words))));
                }
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
        let closed = self.gate.read();
        if *closed {
            return;
        }
        let is_new = self.have.set(piece);
        self.verified.set(piece);
        if is_new {
            self.here.fetch_add(self.stored_bytes(piece), Ordering::Relaxed);
            if let Err(error) = self.map.record(&self.have, piece, false) {
                // It is here all the same; after a kill it would be fetched again.
                tracing::error!(torrent = self.metainfo.name, piece, %error, "a piece could not be recorded");
            }
        }
        *self.progress.lock() = Some(Instant::now());
        self.changed.notify_waiters();
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
