//! What the kernel asks, answered from the catalog: names, attributes, listings, opens, reads. No type of fuser is named
//! here, and nothing here waits: what must wait moves into a task.

use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::sync::{Notify, watch};

use crate::catalog::{Catalog, Content, FileStatus, Groups, Kind, ReadError};
use crate::handles::{Choice, Handle, Handles, Mode};
use crate::reads::{self, Asked, Limits, Reads};
use crate::report::Reporter;
use crate::tree::{Listed, ROOT, Tree};

/// Names and attributes that cannot change are kept by the kernel for so long; names are taken back when they go.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Attributes of a file that is still growing here (`st_blocks`) are kept for so long.
const SHORT: Duration = Duration::from_secs(1);

/// The unit of `st_blocks`, fixed by stat(2).
const BLOCK: u64 = 512;

/// Whose the files are and who may read them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) umask: u16,
}

/// What stat(2) shows of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
    pub(crate) blocks: u64,
    pub(crate) modified: SystemTime,
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// How long the kernel may keep this.
    pub(crate) lifetime: Duration,
}

/// How an open(2) is answered. `Backing` stands for a file that was registered with the kernel for passthrough.
pub(crate) trait OpenAnswer<Backing>: Send + 'static {
    /// Registers a stored file with the kernel.
    fn register(&self, file: &File) -> io::Result<Backing>;
    /// It is open; through `backing` if there is one.
    fn opened(self, handle: u64, backing: Option<&Backing>);
    /// It is not.
    fn refused(self, errno: Errno);
}

/// The filesystem over one catalog.
pub(crate) struct Filesystem<C: Catalog, Backing> {
    catalog: Arc<C>,
    owner: Owner,
    limits: Limits,
    runtime: Runtime,
    tree: RwLock<Tree>,
    groups: Mutex<watch::Receiver<Groups>>,
    handles: Handles<C::Content, Backing>,
    reads: Arc<Reads>,
    reporter: Reporter,
    passthrough: Arc<AtomicBool>,
    /// Names that the kernel must forget. Bounded by the number of names that were ever shown at once.
    stale: Mutex<HashSet<(u64, OsString)>>,
    stale_grew: Notify,
}

thread_local! {
    /// Where a read that is answered at once puts its bytes. The thread that talks to the kernel is one, and a read is
    /// at most 1 MiB long.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<C: Catalog, Backing: Send + Sync + 'static> Filesystem<C, Backing> {
    pub(crate) fn new(
        catalog: Arc<C>,
        owner: Owner,
        limits: Limits,
        runtime: Runtime,
        reads: Arc<Reads>,
        passthrough: Arc<AtomicBool>,
    ) -> Self {
        let mut groups = catalog.groups();
        // So that the first look at the list, whenever that is, takes all of it in.
        groups.mark_changed();
        Filesystem {
            catalog,
            owner,
            limits,
            runtime,
            tree: RwLock::new(Tree::new()),
            groups: Mutex::new(groups),
            handles: Handles::default(),
            reads,
            reporter: Reporter::default(),
            passthrough,
            stale: Mutex::default(),
            stale_grew: Notify::new(),
        }
    }

    /// Whether files may be handed to the kernel to serve by itself.
    pub(crate) fn set_passthrough(&self, offered: bool) {
        self.passthrough.store(offered, Ordering::Relaxed);
    }

    /// Takes in a change of the catalog's list, if there is one. What was added is seen from then on; what was removed
    /// fails its reads.
    fn refresh(&self) {
        // One change at a time: the lock is held until the tree is up to date.
        let mut groups = self.groups.lock();
        if !groups.has_changed().unwrap_or(false) {
            return;
        }
        let list = groups.borrow_and_update().clone();
        let change = self.tree.write().update(&list);
        for (path, why) in change.refused {
            tracing::error!(path = %path.display(), "not shown: {why}");
        }
        if !change.removed.is_empty() {
            let removed = change.removed.into_iter().collect();
            self.handles.removed(&removed);
            self.reads.removed(&removed);
        }
        if !change.names.is_empty() {
            self.stale.lock().extend(change.names);
            self.stale_grew.notify_one();
        }
    }

    /// Follows the catalog's list until it is dropped. `forget` tells the kernel that a name in a folder means nothing any
    /// more; it may block (until the lookups in that folder are answered), so it runs where that is allowed.
    pub(crate) async fn follow(
        self: Arc<Self>,
        forget: impl Fn(u64, &OsStr) -> io::Result<()> + Clone + Send + 'static,
    ) {
        let mut groups = self.catalog.groups();
        let mut owner_lives = true;
        loop {
            self.refresh();
            let stale: Vec<(u64, OsString)> = self.stale.lock().drain().collect();
            if !stale.is_empty() {
                let forget = forget.clone();
                let told = tokio::task::spawn_blocking(move || {
                    for (folder, name) in stale {
                        if let Err(error) = forget(folder, &name) {
                            tracing::debug!(folder, name = %name.display(), %error, "the kernel keeps a removed name");
                        }
                    }
                });
                // An error means that the runtime is stopping, and so are we.
                let _ = told.await;
            }
            tokio::select! {
                changed = groups.changed(), if owner_lives => owner_lives = changed.is_ok(),
                () = self.stale_grew.notified() => {}
            }
        }
    }

    /// # Errors
    /// `ENOENT`
    pub(crate) fn lookup(&self, folder: u64, name: &OsStr) -> Result<Attributes, Errno> {
        self.refresh();
        let tree = self.tree.read();
        let inode = tree.child(folder, name).ok_or(Errno::NOENT)?;
        self.attributes_in(&tree, inode).ok_or(Errno::NOENT)
    }

    /// # Errors
    /// `ESTALE` for what is shown no more.
    pub(crate) fn attributes(&self, inode: u64) -> Result<Attributes, Errno> {
        self.refresh();
        self.attributes_in(&self.tree.read(), inode).ok_or(Errno::STALE)
    }

    fn attributes_in(&self, tree: &Tree, inode: u64) -> Option<Attributes> {
        let (kind, modified) = match tree.entry(inode) {
            Some(entry) => (entry.kind, entry.modified),
            None if inode == ROOT => (Kind::Folder, tree.modified()),
            None => return None,
        };
        let (blocks, permissions, lifetime) = match kind {
            Kind::Folder => (0, 0o555, if inode == ROOT { SHORT } else { LONG }),
            Kind::File { size } => {
                let FileStatus { bytes_here, complete } = self.catalog.status(inode).unwrap_or_default();
                // A file without blocks is a hole from end to end to `tar -S` and `cp`, which then do not read it.
                let blocks = bytes_here.min(size).div_ceil(BLOCK).max(u64::from(size > 0));
                (blocks, 0o444, if complete || size == 0 { LONG } else { SHORT })
            }
        };
        let permissions = permissions & !self.owner.umask;
        let Owner { uid, gid, .. } = self.owner;
        Some(Attributes {
            inode,
            kind,
            blocks,
            modified,
            permissions,
            uid,
            gid,
            lifetime,
        })
    }

    /// Gives `line` the listing of a folder from `from` on, with attributes, until it says that it is full.
    ///
    /// # Errors
    /// `ESTALE` for what is shown no more, `ENOTDIR`.
    pub(crate) fn list(
        &self,
        folder: u64,
        from: u64,
        mut full: impl FnMut(Listed<'_>, &dyn Fn() -> Option<Attributes>) -> bool,
    ) -> Result<(), Errno> {
        self.refresh();
        let tree = self.tree.read();
        let Some(lines) = tree.list(folder, from) else {
            return Err(if tree.entry(folder).is_some() {
                Errno::NOTDIR
            } else {
                Errno::STALE
            });
        };
        for line in lines {
            if full(line, &|| self.attributes_in(&tree, line.inode)) {
                break;
            }
        }
        Ok(())
    }

    /// Opens a file for reading. The answer comes at once, or, where the stored file may have to be opened for
    /// passthrough, from a thread that may wait for the disk.
    pub(crate) fn open<A: OpenAnswer<Backing>>(self: &Arc<Self>, inode: u64, flags: OFlags, answer: A) {
        let (handle, size) = match self.admit(inode, flags) {
            Ok(admitted) => admitted,
            Err(errno) => return answer.refused(errno),
        };
        let may_pass = || self.passthrough.load(Ordering::Relaxed) && self.is_complete(inode);
        match self.handles.choose(inode, may_pass) {
            Choice::Made(mode) => self.finish_open(handle, mode, answer),
            Choice::Open(mode) => {
                let filesystem = self.clone();
                self.runtime.spawn_blocking(move || {
                    mode.decide(|| filesystem.backing(inode, size, &answer));
                    filesystem.finish_open(handle, mode, answer);
                });
            }
        }
    }

    /// Makes the handle that an open may have.
    fn admit(&self, inode: u64, flags: OFlags) -> Result<(Handle<C::Content>, u64), Errno> {
        if flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
            return Err(Errno::ROFS);
        }
        if flags.contains(OFlags::DIRECT) {
            // A reader that waits in direct I/O cannot be killed.
            return Err(Errno::INVAL);
        }
        self.refresh();
        let kind = self.tree.read().entry(inode).map(|entry| entry.kind);
        let size = match kind {
            Some(Kind::File { size }) => size,
            Some(Kind::Folder) => return Err(Errno::ISDIR),
            None => return Err(Errno::STALE),
        };
        let refuse = |error: ReadError| {
            self.reporter.failed_open(&self.path(inode), &error);
            error.errno()
        };
        let number = self.handles.number().map_err(refuse)?;
        let content = self.catalog.open(inode).map_err(refuse)?;
        Ok((
            Handle {
                number,
                inode,
                size,
                content: Arc::new(content),
                removed: AtomicBool::new(false),
            },
            size,
        ))
    }

    fn finish_open<A: OpenAnswer<Backing>>(&self, handle: Handle<C::Content>, mode: Arc<Mode<Backing>>, answer: A) {
        let (number, inode) = (handle.number, handle.inode);
        self.reads.opened(number, inode);
        self.handles.insert(handle, mode.clone());
        if self.tree.read().entry(inode).is_none() {
            // It went while it was being opened, when the handle could not be found yet.
            self.handles.removed(&HashSet::from([inode]));
        }
        answer.opened(number, mode.backing());
    }

    fn is_complete(&self, inode: u64) -> bool {
        self.catalog.status(inode).is_some_and(|status| status.complete)
    }

    /// Hands the stored file to the kernel, if it can be; any obstacle means that we serve it ourselves.
    fn backing<A: OpenAnswer<Backing>>(&self, inode: u64, size: u64, answer: &A) -> Option<Backing> {
        let file = self.catalog.backing(inode)?;
        let stored = file.metadata().ok()?;
        if !stored.is_file() || stored.len() != size {
            return None;
        }
        match answer.register(&file) {
            Ok(backing) => Some(backing),
            Err(error) => {
                if error.kind() == io::ErrorKind::PermissionDenied {
                    // The kernel wants CAP_SYS_ADMIN for it; that will not change.
                    self.set_passthrough(false);
                }
                tracing::debug!(inode, %error, "no passthrough");
                None
            }
        }
    }

    /// Reads, and answers exactly once: at once if the bytes are in memory, else from a task when they are here or the
    /// read has failed. The answer is as long as asked or up to the end of the file, never shorter.
    pub(crate) fn read(
        self: &Arc<Self>,
        handle: u64,
        offset: u64,
        length: u32,
        thread: u32,
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let Some(file) = self.handles.get(handle) else {
            return answer(Err(Errno::BADF));
        };
        let length = u64::from(length).min(file.size.saturating_sub(offset));
        let Ok(length) = usize::try_from(length) else {
            return answer(Err(Errno::INVAL));
        };
        let asked = Asked {
            handle,
            inode: file.inode,
            offset,
            length,
            thread,
        };
        if let Err(error) = self.reads.used(handle, thread) {
            return self.fail(&asked, &error, answer);
        }
        if file.removed.load(Ordering::Relaxed) {
            return self.fail(&asked, &ReadError::Removed, answer);
        }
        if length == 0 {
            return answer(Ok(&[]));
        }
        let now = BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < length {
                buffer.resize(length, 0);
            }
            file.content
                .read_now(&mut buffer[..length], offset)
                .map(|result| result.map(|()| std::mem::take(buffer)))
        });
        match now {
            Some(Ok(buffer)) => {
                answer(Ok(&buffer[..length]));
                BUFFER.set(buffer);
            }
            Some(Err(error)) => self.fail(&asked, &ReadError::Disk(Arc::new(error)), answer),
            None => self.wait(&file, asked, answer),
        }
    }

    fn wait(
        self: &Arc<Self>,
        file: &Handle<C::Content>,
        asked: Asked,
        answer: impl FnOnce(Result<&[u8], Errno>) + Send + 'static,
    ) {
        let begun = match self.reads.begin(asked) {
            Ok(begun) => begun,
            // What failed a moment ago was reported then.
            Err(error @ ReadError::TooMany { .. }) => return self.fail(&asked, &error, answer),
            Err(error) => return answer(Err(error.errno())),
        };
        // Whatever happens to the task, a panic in the content or the end of the runtime, the read is over for the books.
        let mut ending = Ending {
            reads: self.reads.clone(),
            number: begun.number,
            asked,
            error: None,
        };
        if file.removed.load(Ordering::Relaxed) {
            // It went after `read` looked and before this read could be found among those that wait.
            drop(ending);
            return self.fail(&asked, &ReadError::Removed, answer);
        }
        let (filesystem, content) = (self.clone(), file.content.clone());
        self.runtime.spawn(async move {
            let result = reads::bytes(content, asked, filesystem.limits, begun.cancelled).await;
            ending.error = result.as_ref().err().cloned();
            // Before the answer, which makes the kernel ask again.
            drop(ending);
            match result {
                Ok(bytes) => answer(Ok(&bytes)),
                Err(error) => filesystem.fail(&asked, &error, answer),
            }
        });
    }

    fn fail(&self, asked: &Asked, error: &ReadError, answer: impl FnOnce(Result<&[u8], Errno>)) {
        self.reporter.failed_read(|| self.path(asked.inode), asked, error);
        answer(Err(error.errno()));
    }

    /// The path of an inode below the mount point, for people; empty for what is shown no more.
    fn path(&self, inode: u64) -> PathBuf {
        self.tree
            .read()
            .entry(inode)
            .map(|entry| entry.path.to_path_buf())
            .unwrap_or_default()
    }

    /// A descriptor of the handle was closed by `thread`.
    pub(crate) fn flush(&self, handle: u64, thread: u32) {
        self.reads.flushed(handle, thread);
    }

    /// The last descriptor of the handle is gone.
    pub(crate) fn release(&self, handle: u64) {
        self.reads.released(handle);
        self.handles.remove(handle);
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `ENODATA`
    pub(crate) fn attribute(&self, inode: u64, name: &OsStr) -> Result<Vec<u8>, Errno> {
        let attributes = self.catalog.attributes(inode).into_iter();
        attributes
            .filter(|(own, _)| OsStr::new(own) == name)
            .map(|(_, value)| value)
            .next()
            .ok_or(Errno::NODATA)
    }

    /// The names of the extended attributes, each ended by a NUL.
    pub(crate) fn attribute_names(&self, inode: u64) -> Vec<u8> {
        self.catalog
            .attributes(inode)
            .into_iter()
            .flat_map(|(name, _)| [name.into_bytes(), vec![0]].concat())
            .collect()
    }

    /// What statfs(2) says: bytes used and available, and how many files are shown.
    pub(crate) fn space(&self) -> (crate::catalog::Space, u64) {
        (self.catalog.space(), self.tree.read().count() as u64)
    }
}

/// Ends a waiting read in the books when it is dropped.
struct Ending {
    reads: Arc<Reads>,
    number: u64,
    asked: Asked,
    error: Option<ReadError>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.reads.end(self.number, self.asked, self.error.as_ref());
    }
}
