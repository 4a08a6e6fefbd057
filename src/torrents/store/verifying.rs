//! Comparing pieces with their hashes, and what becomes of those that do not match.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::files::Access;
use super::hashes;
use super::layout::{Span, piece_bytes, spans};
use super::pieces::{PIECE_LOCKS, Store, StoreError, fault};

impl Store {
    /// Compares every stored piece with its hash that was not yet. `progress` is told the bytes that are done with,
    /// of the whole torrent; `stop` ends it early, which is no error.
    ///
    /// # Errors
    /// The first fault of the disk. Pieces that do not match are none.
    pub fn verify_all(&self, progress: impl Fn(u64), stop: &AtomicBool) -> Result<(), StoreError> {
        self.look_at_all()?;
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

    /// Compares a stored piece with its hash, unless that was done.
    pub(super) fn verify(&self, piece: u32) -> Result<(), StoreError> {
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

    pub(super) fn matches(&self, piece: u32) -> Result<bool, StoreError> {
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
    pub(super) fn lose(&self, pieces: Range<u32>, reason: &str) {
        let mut lost = 0;
        let mut recorded = Ok(());
        for piece in pieces.clone() {
            self.verified.clear(piece);
            if !self.have.clear(piece) {
                continue;
            }
            lost += 1;
            self.here.fetch_sub(self.stored_bytes(piece), Ordering::Relaxed);
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
}
