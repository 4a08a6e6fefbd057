//! What the mount asks of its owner.
//!
//! The owner knows where bytes come from; the mount knows what the kernel wants of them. The owner implements
//! [`Catalog`] and [`Content`]; nothing here waits except [`Content::read_at`].

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::io::Errno;
use tokio::sync::watch;

/// Everything shown now. Two lists that share a group show the same files for it: groups are compared by pointer.
pub type Groups = Arc<[Arc<Group>]>;

/// What one source (a torrent) shows. It never changes; it only comes and goes.
#[derive(Debug)]
pub struct Group {
    /// Folders before what they hold. No path occurs twice, here or in another group of the same list.
    pub entries: Box<[Entry]>,
}

/// One file or folder of the tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The inode number: over 1 (1 is the root), unique, and never used again for anything else.
    pub inode: u64,
    /// Relative to the root of the mount, of plain names only.
    pub path: Box<Path>,
    /// What stands there.
    pub kind: Kind,
    /// Shown as modification, change and access time; the same after a restart.
    pub modified: SystemTime,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file of so many bytes.
    File {
        /// Exact size in bytes; it never changes.
        size: u64,
    },
}

/// What changes while a file stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FileStatus {
    /// Bytes of the file that are stored here.
    pub bytes_here: u64,
    /// Every byte is here and was verified since the daemon last stopped without saying goodbye.
    pub complete: bool,
}

/// What `df` shows of the mount, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes stored here for all files together.
    pub used: u64,
    /// Bytes that may still be stored.
    pub available: u64,
}

/// The list of files, and the way to open them. No method waits for the network or the disk.
pub trait Catalog: Send + Sync + 'static {
    /// An open file.
    type Content: Content;

    /// Everything shown now, and word of every change of it.
    fn groups(&self) -> watch::Receiver<Groups>;

    /// Opens a file by inode number for a process, named as the host names it: its thread-group id, 0 if that is not
    /// known. It refuses at once or succeeds at once; what is slow (opening the stored file, say) is done at the first
    /// read.
    ///
    /// # Errors
    /// [`ReadError::Removed`] for a number that is not in the list, [`ReadError::Stopping`], [`ReadError::TooMany`].
    fn open(&self, inode: u64, process: u32) -> Result<Self::Content, ReadError>;

    /// How much of a file is here; `None` for an unknown number.
    fn status(&self, inode: u64) -> Option<FileStatus>;

    /// The stored file, open for reading, whose bytes the kernel may serve by itself (passthrough): only while the
    /// file is complete, verified and will not be given up. This may open a file; it is called from open(2) only.
    fn backing(&self, inode: u64) -> Option<File>;

    /// Extended attributes, full name and value, of a file or folder. Empty for none.
    fn attributes(&self, inode: u64) -> Vec<(String, Vec<u8>)>;

    /// What statfs(2) says.
    fn space(&self) -> Space;
}

/// One open handle of a file. It is the unit by which the owner can tell one reader's position from another's.
/// Dropping it is the end of the handle.
pub trait Content: Send + Sync + 'static {
    /// Reads if every byte asked for is here, verified, and in memory (page cache); `None` where anything would have
    /// to be waited for. `buf` lies wholly inside the file. `Some(Ok(()))` means that `buf` is full.
    fn read_now(&self, buf: &mut [u8], offset: u64) -> Option<io::Result<()>>;

    /// Fills `buf`, which lies wholly inside the file, and waits as long as that takes: the mount sets the deadline.
    /// Dropping the future withdraws the demand.
    fn read_at(self: Arc<Self>, offset: u64, length: usize) -> impl Future<Output = Result<Vec<u8>, ReadError>> + Send;

    /// When there was last progress for the bytes `offset..offset + length`: one of their blocks arrived, or any block
    /// of the torrent while a connected peer has the missing piece. `None` for never. It never waits.
    fn progress(&self, offset: u64, length: usize) -> Option<Instant>;
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Nothing arrived for it within the deadline.
    #[error("no progress for {seconds} s: no peer sent what is missing")]
    NoProgress {
        /// The deadline that passed.
        seconds: u64,
    },
    /// It trickled for longer than any read may take.
    #[error("not finished after {seconds} s")]
    TooSlow {
        /// The ceiling that passed.
        seconds: u64,
    },
    /// The thread that reads has a signal to handle.
    #[error("the reader was signalled")]
    Signalled,
    /// Nobody waits for it any more.
    #[error("the reader is gone")]
    Abandoned,
    /// The torrent is no longer in the library.
    #[error("the torrent was removed")]
    Removed,
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// More reads or handles wait than the limit allows.
    #[error("over {limit} reads or handles are open; close some")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// The data directory is below its free-space floor, so nothing more is stored.
    #[error("the data directory is below its free-space floor: free some space or lower --free-space-floor")]
    NoSpace,
    /// The torrent is paused, so what is missing is not asked for.
    #[error("the torrent is paused: `magnetfs resume` starts it again")]
    Paused,
    /// The stored data could not be read.
    #[error("the stored data could not be read: {0}")]
    Disk(Arc<io::Error>),
    /// The engine gave up on the torrent.
    #[error("the engine failed: {0}")]
    Engine(Arc<str>),
}

impl ReadError {
    /// The number that read(2) returns. A reader that gets `EINTR` asks again at once and for ever unless it has a
    /// signal to handle, so only [`ReadError::Signalled`] maps to it.
    pub fn errno(&self) -> Errno {
        match self {
            ReadError::Signalled => Errno::INTR,
            ReadError::Removed => Errno::STALE,
            ReadError::TooMany { .. } => Errno::NFILE,
            ReadError::NoProgress { .. }
            | ReadError::TooSlow { .. }
            | ReadError::Abandoned
            | ReadError::Stopping
            | ReadError::NoSpace
            | ReadError::Paused
            | ReadError::Disk(_)
            | ReadError::Engine(_) => Errno::IO,
        }
    }
}
