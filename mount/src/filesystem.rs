//! What the kernel asks of names, answered from the catalog: lookups, attributes, listings. No type of fuser is named
//! here or in `files.rs`, which does the same for open files, and nothing waits.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;

use crate::catalog::{Catalog, FileStatus, Groups, Kind};
use crate::deadline::Limits;
use crate::handles::Handles;
use crate::reads::Reads;
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

/// The filesystem over one catalog.
pub(crate) struct Filesystem<C: Catalog, Backing> {
    pub(crate) catalog: Arc<C>,
    owner: Owner,
    pub(crate) limits: Limits,
    pub(crate) runtime: Runtime,
    pub(crate) tree: RwLock<Tree>,
    groups: Mutex<watch::Receiver<Groups>>,
    pub(crate) handles: Handles<C::Content, Backing>,
    pub(crate) reads: Arc<Reads>,
    pub(crate) reporter: Reporter,
    pub(crate) passthrough: Arc<AtomicBool>,
    /// Names that the kernel must forget. Bounded by the number of names that were ever shown at once.
    stale: Mutex<HashSet<(u64, OsString)>>,
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
        }
    }

    /// Whether files may be handed to the kernel to serve by itself.
    pub(crate) fn set_passthrough(&self, offered: bool) {
        self.passthrough.store(offered, Ordering::Relaxed);
    }

    /// Takes in a change of the catalog's list, if there is one. What was added is seen from then on; what was removed
    /// fails its reads.
    pub(crate) fn refresh(&self) {
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
        }
    }

    /// Follows the catalog's list until it is dropped. `forget` tells the kernel that a name in a folder means nothing
    /// any more; it may block (until the lookups in that folder are answered), so it runs where that is allowed.
    pub(crate) async fn follow(
        self: Arc<Self>,
        forget: impl Fn(u64, &OsStr) -> io::Result<()> + Clone + Send + 'static,
    ) {
        let mut groups = self.catalog.groups();
        loop {
            // A change that a lookup took in already has left its stale names here as well.
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
            if groups.changed().await.is_err() {
                return;
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

    /// The path of an inode below the mount point, for people; empty for what is shown no more.
    pub(crate) fn path(&self, inode: u64) -> PathBuf {
        self.tree
            .read()
            .entry(inode)
            .map(|entry| entry.path.to_path_buf())
            .unwrap_or_default()
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
