//! The library's files for the HTTP side and for films: the bytes that the mount serves, without the way round through
//! the kernel.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use magnetfs_mount::{Catalog, Limits, ReadError};

use crate::http::RawFile;
use crate::media::ReadAt;
use crate::stream::{FileName, FilmFile, Source, SourceError};
use crate::torrents::{InfoHash, Library, LibraryFile, TorrentFile};

/// The process of a reader that comes from no other one: its reads are as urgent as can be.
const NOBODY: u32 = 0;

/// The library, its place in the file system, and how long a read may wait.
#[derive(Debug, Clone)]
pub(super) struct LibrarySource {
    pub(super) library: Arc<Library>,
    pub(super) mountpoint: PathBuf,
    pub(super) limits: Limits,
}

/// One open handle of a file.
#[derive(Debug)]
pub(super) struct OpenFile {
    content: Arc<LibraryFile>,
    size: u64,
    limits: Limits,
}

impl LibrarySource {
    /// Opens a file by its torrent and its path in it.
    ///
    /// # Errors
    /// [`ReadError::Removed`] where there is none.
    pub(super) fn open_file(&self, info_hash: InfoHash, path: &str) -> Result<OpenFile, ReadError> {
        let file = self.library.file(info_hash, path).ok_or(ReadError::Removed)?;
        Ok(OpenFile {
            content: Arc::new(Catalog::open(&*self.library, file.inode, NOBODY)?),
            size: file.size,
            limits: self.limits,
        })
    }

    /// A file that the library has now.
    pub(super) fn find(&self, file: &FileName) -> Option<TorrentFile> {
        self.library.file(file.info_hash.parse().ok()?, &file.path)
    }
}

impl Source for LibrarySource {
    type Content = OpenFile;

    fn torrents(&self) -> HashSet<String> {
        let torrents = self.library.list().into_iter();
        torrents.map(|torrent| torrent.info_hash).collect()
    }

    fn open(&self, file: &FileName) -> Result<OpenFile, SourceError> {
        let info_hash = file.info_hash.parse().map_err(|_| SourceError::Unknown)?;
        self.open_file(info_hash, &file.path)
            .map_err(|error| match kind(&error) {
                io::ErrorKind::NotFound => SourceError::Unknown,
                _ => SourceError::Unavailable(error.to_string()),
            })
    }

    fn path(&self, file: &FileName) -> Result<PathBuf, SourceError> {
        let found = self.find(file).ok_or(SourceError::Unknown)?;
        Ok(self.mountpoint.join(found.shown))
    }

    fn pace(&self, pid: u32, urgent: bool) {
        self.library.pace(pid, urgent);
    }

    fn forget(&self, pid: u32) {
        self.library.forget_pace(pid);
    }

    fn here(&self, file: &FileName, ranges: &[Range<u64>]) -> Vec<bool> {
        match self.find(file) {
            Some(found) => self.library.here(found.inode, ranges),
            None => vec![false; ranges.len()],
        }
    }

    fn last_progress(&self, file: &FileName) -> Option<Instant> {
        self.library.last_progress(self.find(file)?.inode)
    }
}

impl OpenFile {
    async fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        magnetfs_mount::read(self.content.clone(), offset, length, self.limits)
            .await
            .map_err(|error| io::Error::new(kind(&error), error.to_string()))
    }
}

impl ReadAt for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.read(offset, length).await
    }
}

impl FilmFile for OpenFile {
    async fn expect(&self, bytes: Range<u64>, within: Duration) {
        let bytes = bytes.start..bytes.end.min(self.size);
        let length = bytes.end.saturating_sub(bytes.start);
        if length > 0 {
            self.content.expect(bytes.start, length, within).await;
        }
    }
}

impl RawFile for OpenFile {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.read(offset, length).await
    }
}

/// What a caller can act on; the words say the rest.
pub(super) fn kind(error: &ReadError) -> io::ErrorKind {
    match error {
        ReadError::NoProgress { .. } | ReadError::TooSlow { .. } => io::ErrorKind::TimedOut,
        ReadError::Removed => io::ErrorKind::NotFound,
        ReadError::Signalled
        | ReadError::Abandoned
        | ReadError::Stopping
        | ReadError::TooMany { .. }
        | ReadError::NoSpace
        | ReadError::Paused
        | ReadError::Disk(_)
        | ReadError::Engine(_) => io::ErrorKind::Other,
    }
}
