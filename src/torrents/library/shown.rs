//! The library as the mount sees it.

use std::fs::File;
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use magnetfs_mount::{Catalog, Content, FileStatus, Groups, ReadError, Space};
use tokio::sync::watch;

use super::core::Library;
use super::torrent::{Halt, Torrent};
use crate::torrents::content::{Activate, OpenFile};
use crate::torrents::engine::Swarm;
use crate::torrents::names;

impl Catalog for Library {
    type Content = LibraryFile;

    fn groups(&self) -> watch::Receiver<Groups> {
        self.groups_watch()
    }

    fn open(&self, inode: u64, process: u32) -> Result<LibraryFile, ReadError> {
        let (number, ordinal) = names::file_of(inode);
        let torrent = self.numbered(number).ok_or(ReadError::Removed)?;
        let contents = torrent.contents().ok_or(ReadError::Removed)?;
        if ordinal >= contents.metainfo.files.len() {
            return Err(ReadError::Removed);
        }
        match torrent.is_halted() {
            Halt::No | Halt::Paused => {}
            Halt::Removed => return Err(ReadError::Removed),
            Halt::Stopping => return Err(ReadError::Stopping),
        }
        let entrance = Entrance {
            library: self.this.clone(),
            torrent: torrent.clone(),
        };
        let file = Arc::new(OpenFile::new(
            contents.store.clone(),
            ordinal,
            self.paces.of(process),
            entrance,
        ));
        Ok(LibraryFile { torrent, file })
    }

    fn status(&self, inode: u64) -> Option<FileStatus> {
        let (number, ordinal) = names::file_of(inode);
        let torrent = self.numbered(number)?;
        let contents = torrent.contents()?;
        if ordinal >= contents.metainfo.files.len() {
            return None;
        }
        Some(FileStatus {
            bytes_here: contents.store.bytes_here(ordinal),
            complete: contents.store.file_complete_and_verified(ordinal),
        })
    }

    fn backing(&self, inode: u64) -> Option<File> {
        let (number, ordinal) = names::file_of(inode);
        let torrent = self.numbered(number)?;
        let contents = torrent.contents()?;
        (ordinal < contents.metainfo.files.len())
            .then(|| contents.store.open_complete_file(ordinal))
            .flatten()
    }

    fn attributes(&self, inode: u64) -> Vec<(String, Vec<u8>)> {
        let (number, ordinal) = names::file_of(inode);
        let Some(torrent) = self.numbered(number) else {
            return Vec::new();
        };
        let Some(contents) = torrent.contents() else {
            return Vec::new();
        };
        let report = torrent.report();
        let (size, here) = match contents.metainfo.files.get(ordinal) {
            Some(file) => (file.length, contents.store.bytes_here(ordinal)),
            None => (report.size, report.bytes_here),
        };
        let progress = if size == 0 { 1.0 } else { here as f64 / size as f64 };
        [
            ("info_hash", report.info_hash),
            // Rounded down: only a complete file shows 1.
            ("progress", format!("{:.4}", (progress * 10_000.0).floor() / 10_000.0)),
            ("bytes_here", here.to_string()),
            ("piece_length", contents.metainfo.piece_length.to_string()),
            ("state", report.state.word().to_owned()),
        ]
        .map(|(name, value)| (format!("user.magnetfs.{name}"), value.into_bytes()))
        .into()
    }

    fn space(&self) -> Space {
        let space = self.disk.space().report();
        Space {
            used: self.used(),
            available: space.free.saturating_sub(space.floor),
        }
    }
}

/// An open file of the mount. Reads of it that wait end when the torrent is paused or removed, or the daemon stops.
#[derive(Debug)]
pub struct LibraryFile {
    torrent: Arc<Torrent>,
    file: Arc<OpenFile<Entrance>>,
}

impl LibraryFile {
    /// Asks for bytes that are sure to be read, by whomever, the first of them in the time `within`, until others are
    /// expected or the file is dropped: after what reads wait for, in order. Waits only until the torrent is in the
    /// engine, and fails in silence: the reads that follow tell.
    pub async fn expect(&self, offset: u64, length: u64, within: Duration) {
        if self.torrent.is_halted() == Halt::No {
            self.file.expect(offset, length, within).await;
        }
    }
}

impl Content for LibraryFile {
    fn read_now(&self, buf: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        if self.torrent.is_halted() == Halt::Removed {
            None
        } else {
            self.file.read_now(buf, offset)
        }
    }

    async fn read_at(self: Arc<Self>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut halt = self.torrent.halt();
        let at_first = *halt.borrow_and_update();
        if let (Halt::Removed | Halt::Stopping, Some(error)) = (at_first, at_first.error()) {
            return Err(error);
        }
        let _busy = self.torrent.busy();
        tokio::select! {
            read = self.file.clone().read_at(offset, length) => read,
            // A paused torrent is still read where its bytes are here: only what waited as it was paused fails.
            halt = halt.wait_for(|halt| *halt != Halt::No && *halt != at_first) => {
                Err(halt.ok().and_then(|halt| halt.error()).unwrap_or(ReadError::Removed))
            }
        }
    }

    fn progress(&self, offset: u64, length: usize) -> Option<Instant> {
        self.file.progress(offset, length)
    }
}

/// How a read that meets a missing byte gets its torrent into the engine.
#[derive(Debug)]
pub struct Entrance {
    library: Weak<Library>,
    torrent: Arc<Torrent>,
}

impl Activate for Entrance {
    async fn activate(&self) -> Result<Arc<Swarm>, ReadError> {
        let library = self.library.upgrade().ok_or(ReadError::Stopping)?;
        library.enter(&self.torrent, false).await
    }
}
