//! Stored files: opened so that no symbolic link planted in the data directory leads out of it, and kept open within
//! a limit for all torrents together.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::space::FreeSpace;

/// Open stored files of all torrents together. Far under the usual limit of 1,024 descriptors a process, which
/// peers, the mount and the control socket need too.
const OPEN_FILES: usize = 512;

/// What all torrents share of the disk: its free room and the table of open files.
#[derive(Debug)]
pub struct Disk {
    pub(super) space: FreeSpace,
    pub(super) files: OpenFiles,
}

impl Disk {
    /// For one data directory.
    pub fn new(space: FreeSpace) -> Arc<Disk> {
        Arc::new(Disk {
            space,
            files: OpenFiles::new(OPEN_FILES),
        })
    }

    /// The room there is.
    pub fn space(&self) -> &FreeSpace {
        &self.space
    }
}

/// A file of a torrent: the number that [`OpenFiles::number`] gave the torrent, and the file's index.
pub(super) type Key = (u64, usize);

/// The least recently used file is closed when another is opened over the limit.
pub(super) struct OpenFiles {
    limit: usize,
    table: RwLock<HashMap<Key, Slot>>,
    clock: AtomicU64,
    numbers: AtomicU64,
    /// The file system does not know `RWF_NOWAIT` (tmpfs, overlayfs): asking it again for every read is in vain.
    pub(super) waits_always: AtomicBool,
}

struct Slot {
    file: Arc<File>,
    writable: bool,
    used: AtomicU64,
}

impl OpenFiles {
    pub(super) fn new(limit: usize) -> OpenFiles {
        OpenFiles {
            limit: limit.max(1),
            table: RwLock::default(),
            clock: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            waits_always: AtomicBool::new(false),
        }
    }

    /// A number for one more torrent.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The file, if it is open, and open for what is wanted.
    pub(super) fn get(&self, key: Key, access: Access) -> Option<Arc<File>> {
        let table = self.table.read();
        let slot = table.get(&key).filter(|slot| slot.writable || access == Access::Read)?;
        slot.used
            .store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(slot.file.clone())
    }

    /// Whoever still reads from a file that this closes keeps it open until done.
    pub(super) fn insert(&self, key: Key, file: Arc<File>, writable: bool) {
        let used = AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed));
        let mut table = self.table.write();
        table.insert(key, Slot { file, writable, used });
        if table.len() > self.limit
            && let Some(oldest) = table.iter().min_by_key(|(_, slot)| slot.used.load(Ordering::Relaxed))
        {
            let oldest = *oldest.0;
            table.remove(&oldest);
        }
    }

    /// Closes all files of one torrent.
    pub(super) fn forget(&self, number: u64) {
        self.table.write().retain(|key, _| key.0 != number);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.read().len()
    }
}

impl fmt::Debug for OpenFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OpenFiles")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It must be there.
    Read,
    /// It and its folders are made where they are missing.
    Write,
}

/// Opens `components` under `directory`. Of `components`, which a torrent decides, no one is followed if it is a
/// symbolic link. Only regular files are opened.
pub(super) fn open(directory: &Path, components: &[impl AsRef<str>], access: Access) -> io::Result<File> {
    let folder_flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = match rustix::fs::open(directory, folder_flags, Mode::empty()) {
        Err(Errno::NOENT) if access == Access::Write => {
            std::fs::create_dir_all(directory)?;
            rustix::fs::open(directory, folder_flags, Mode::empty())?
        }
        other => other?,
    };
    let Some((name, folders)) = components.split_last() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mut folder: OwnedFd = root;
    for name in folders {
        folder = open_folder(&folder, name.as_ref(), access)?;
    }
    // NONBLOCK: what stands there may be a named pipe.
    let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let flags = match access {
        Access::Read => flags | OFlags::RDONLY,
        Access::Write => flags | OFlags::RDWR | OFlags::CREATE,
    };
    let file = File::from(rustix::fs::openat(
        &folder,
        name.as_ref(),
        flags,
        Mode::from_raw_mode(0o644),
    )?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(Errno::INVAL.into())
    }
}

fn open_folder(parent: &impl AsFd, name: &str, access: Access) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Err(Errno::NOENT) if access == Access::Write => {
            match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
            rustix::fs::openat(parent, name, flags, Mode::empty())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_planted_link_or_pipe_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("inside"), directory.path().join("outside"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret"), b"x").unwrap();
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("secret"), inside.join("file")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inside.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        for access in [Access::Read, Access::Write] {
            assert!(open(&inside, &["folder", "secret"], access).is_err());
            assert!(open(&inside, &["file"], access).is_err());
            assert!(open(&inside, &["pipe"], access).is_err());
        }
        assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"x");
    }

    #[test]
    fn folders_are_made_for_writing_only() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("not/yet");
        let error = open(&root, &["a", "b", "c"], Access::Read).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!root.exists());
        open(&root, &["a", "b", "c"], Access::Write).unwrap();
        open(&root, &["a", "b", "c"], Access::Read).unwrap();
    }

    #[test]
    fn the_least_recently_used_file_is_closed_over_the_limit() {
        let table = OpenFiles::new(2);
        let directory = tempfile::tempdir().unwrap();
        let insert = |file: usize| {
            let opened = open(directory.path(), &[format!("{file}")], Access::Write).unwrap();
            table.insert((7, file), Arc::new(opened), file != 1);
        };
        insert(0);
        insert(1);
        assert!(table.get((7, 1), Access::Write).is_none(), "open for reading only");
        assert!(table.get((7, 0), Access::Write).is_some());
        insert(2);
        assert!(table.get((7, 1), Access::Read).is_none());
        assert!(table.get((7, 0), Access::Read).is_some());
        table.forget(7);
        assert_eq!(table.len(), 0);
    }
}
