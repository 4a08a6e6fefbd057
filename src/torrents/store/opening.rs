//! A store's files: opening them, and what a stop records of them.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::files::{Access, open};
use super::have::Stamp;
use super::layout::pieces_of;
use super::pieces::{Store, StoreError};

/// The coarsest clock that stamps files. So long after the last write, whatever changes the file changes its stamp too.
const TICK: Duration = Duration::from_millis(11);

impl Store {
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
        self.store_held();
        let mut gate = self.gate.write();
        self.come_to_rest(&mut gate)
    }

    /// As [`Store::rest`], and refuses every write from now on.
    ///
    /// # Errors
    /// As [`Store::rest`].
    pub fn close(&self) -> Result<(), StoreError> {
        self.store_held();
        let mut gate = self.gate.write();
        *gate = true;
        self.come_to_rest(&mut gate)
    }

    pub(super) fn come_to_rest(&self, _gate: &mut bool) -> Result<(), StoreError> {
        let written: Vec<usize> = (0..self.metainfo.files.len())
            .filter(|file| self.written.get(*file as u32))
            .collect();
        let mut synced = Vec::with_capacity(written.len());
        for file in written {
            match self.opened(file, Access::Read) {
                Ok(opened) => opened.sync_data().map_err(|error| self.data_fault(file, error))?,
                Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
            synced.push(file);
        }
        if !synced.is_empty() {
            std::thread::sleep(TICK);
        }
        for file in synced {
            let opened = match self.opened(file, Access::Read) {
                Err(StoreError::Missing { .. }) => continue,
                opened => opened?,
            };
            let stamped = Stamp::of(&opened).and_then(|stamp| self.map.stamp(file as u32, stamp));
            stamped.map_err(|error| self.data_fault(file, error))?;
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

    /// The file, opened where it is not. Before a file is given out for the first time, it is looked at.
    pub(super) fn opened(&self, file: usize, access: Access) -> Result<Arc<File>, StoreError> {
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

    /// Looks at every file of which something is stored.
    pub(super) fn look_at_all(&self) -> Result<(), StoreError> {
        for file in (0..self.metainfo.files.len()).filter(|file| self.bytes_here(*file) > 0) {
            match self.opened(file, Access::Read) {
                Ok(_) | Err(StoreError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The first time that a file is opened: if it does not look as recorded, nothing of it is believed.
    pub(super) fn compare_with_record(&self, file: usize, found: Option<&File>) -> Result<(), StoreError> {
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
}
