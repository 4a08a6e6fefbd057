//! Open handles, and whether the kernel serves a file by itself.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};

use crate::catalog::ReadError;

/// So many handles may be open at once.
const LIMIT: usize = 65_536;

/// One open(2) of a file.
#[derive(Debug)]
pub(crate) struct Handle<Content> {
    pub(crate) number: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) content: Arc<Content>,
    /// The file is shown no more.
    pub(crate) removed: AtomicBool,
}

/// How the open handles of one file are served: all through one backing file by the kernel, or all by us. The kernel
/// refuses a mixture, and a second backing of the same file.
#[derive(Debug)]
pub(crate) struct Mode<Backing> {
    decided: OnceLock<Option<Backing>>,
}

impl<Backing> Mode<Backing> {
    /// Decides once; whoever comes while another decides waits for him.
    pub(crate) fn decide(&self, how: impl FnOnce() -> Option<Backing>) {
        self.decided.get_or_init(how);
    }

    /// The backing file, if it was decided that the kernel serves the file.
    pub(crate) fn backing(&self) -> Option<&Backing> {
        self.decided.get()?.as_ref()
    }
}

/// What [`Handles::choose`] found.
#[derive(Debug)]
pub(crate) enum Choice<Backing> {
    /// It is known how the file is served.
    Made(Arc<Mode<Backing>>),
    /// It is still to be decided, with [`Mode::decide`], which may wait.
    Open(Arc<Mode<Backing>>),
}

type Opened<Content, Backing> = (Arc<Handle<Content>>, Arc<Mode<Backing>>);

/// All open handles of a mount.
#[derive(Debug)]
pub(crate) struct Handles<Content, Backing> {
    last: AtomicU64,
    open: RwLock<HashMap<u64, Opened<Content, Backing>>>,
    /// A mode lives as long as a handle has it, so that it is chosen anew when all are closed.
    modes: Mutex<HashMap<u64, Weak<Mode<Backing>>>>,
}

impl<Content, Backing> Default for Handles<Content, Backing> {
    fn default() -> Self {
        Handles {
            last: AtomicU64::new(0),
            open: RwLock::default(),
            modes: Mutex::default(),
        }
    }
}

impl<Content, Backing> Handles<Content, Backing> {
    /// A number for a new handle, never given before.
    ///
    /// # Errors
    /// [`ReadError::TooMany`]
    pub(crate) fn number(&self) -> Result<u64, ReadError> {
        if self.open.read().len() >= LIMIT {
            return Err(ReadError::TooMany { limit: LIMIT });
        }
        Ok(self.last.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// How a file that is being opened is served: as its open handles are; if there is none, by us unless `may_pass`.
    pub(crate) fn choose(&self, inode: u64, may_pass: impl FnOnce() -> bool) -> Choice<Backing> {
        let mut modes = self.modes.lock();
        if let Some(mode) = modes.get(&inode).and_then(Weak::upgrade) {
            return if mode.decided.get().is_some() {
                Choice::Made(mode)
            } else {
                Choice::Open(mode)
            };
        }
        let mode = Arc::new(Mode {
            decided: OnceLock::new(),
        });
        modes.insert(inode, Arc::downgrade(&mode));
        if may_pass() {
            return Choice::Open(mode);
        }
        mode.decide(|| None);
        Choice::Made(mode)
    }

    pub(crate) fn insert(&self, handle: Handle<Content>, mode: Arc<Mode<Backing>>) {
        self.open.write().insert(handle.number, (Arc::new(handle), mode));
    }

    /// Calls `with` with the backing file of an open handle. The mode is held by nobody else meanwhile, so that it ends
    /// with the handle; `with` must not come back here.
    pub(crate) fn with_backing(&self, number: u64, with: impl FnOnce(Option<&Backing>)) {
        let open = self.open.read();
        with(open.get(&number).and_then(|(_, mode)| mode.backing()));
    }

    pub(crate) fn get(&self, number: u64) -> Option<Arc<Handle<Content>>> {
        self.open.read().get(&number).map(|(handle, _)| handle.clone())
    }

    pub(crate) fn remove(&self, number: u64) {
        let removed = self.open.write().remove(&number);
        let Some((handle, mode)) = removed else { return };
        drop(mode);
        let mut modes = self.modes.lock();
        if modes.get(&handle.inode).is_some_and(|mode| mode.strong_count() == 0) {
            modes.remove(&handle.inode);
        }
    }

    /// These files are shown no more.
    pub(crate) fn removed(&self, inodes: &HashSet<u64>) {
        for (handle, _) in self
            .open
            .read()
            .values()
            .filter(|(handle, _)| inodes.contains(&handle.inode))
        {
            handle.removed.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handle(handles: &Handles<(), u32>, inode: u64) -> Handle<()> {
        let number = handles.number().unwrap();
        Handle {
            number,
            inode,
            size: 1,
            content: Arc::new(()),
            removed: AtomicBool::new(false),
        }
    }

    fn open(handles: &Handles<(), u32>, inode: u64, offered: Option<u32>) -> (u64, Option<u32>) {
        let mode = match handles.choose(inode, || offered.is_some()) {
            Choice::Made(mode) => mode,
            Choice::Open(mode) => {
                mode.decide(|| offered);
                mode
            }
        };
        let opened = handle(handles, inode);
        let (number, backing) = (opened.number, mode.backing().copied());
        handles.insert(opened, mode);
        (number, backing)
    }

    #[test]
    fn all_handles_of_a_file_share_one_backing_until_the_last_is_closed() {
        let handles = Handles::default();
        let (first, backing) = open(&handles, 2, Some(7));
        assert_eq!(backing, Some(7));
        let (second, backing) = open(&handles, 2, Some(8));
        assert_eq!(backing, Some(7), "one shared backing");
        assert_eq!(open(&handles, 3, None).1, None, "another file is its own matter");
        handles.remove(first);
        assert_eq!(open(&handles, 2, None).1, Some(7), "and while one is open");
        handles.remove(second);
        handles.remove(second);
        handles.remove(4);
        assert_eq!(open(&handles, 2, Some(9)).1, Some(9), "chosen anew");
    }

    #[test]
    fn a_file_opened_through_us_stays_so_while_it_is_open() {
        let handles = Handles::default();
        let (first, _) = open(&handles, 2, None);
        let (second, backing) = open(&handles, 2, Some(7));
        assert_eq!(backing, None);
        handles.remove(first);
        handles.remove(second);
        assert!(handles.modes.lock().is_empty());
        assert_eq!(open(&handles, 2, Some(7)).1, Some(7));
    }
}
