//! The only file that names fuser: its types to ours and back.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use fuser::{
    BackingId, Config, FileAttr, FileHandle, FileType, Filesystem as Callbacks, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, PollEvents, PollFlags, PollNotifier,
    ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek,
    ReplyOpen, ReplyPoll, ReplyStatfs, ReplyXattr, Request, Session as FuserSession, SessionACL,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::catalog::{Catalog, Kind};
use crate::files::OpenAnswer;
use crate::filesystem::{Attributes, Filesystem, LONG};

/// Requests that the kernel may have in the background, readahead above all, before it stops sending any. At fuser's
/// 16, sixteen stuck reads stop every healthy one.
const MAX_BACKGROUND: u16 = 4096;

/// An inode number never comes to mean another file, so there is one generation of each.
const GENERATION: Generation = Generation(0);

/// What the kernel offers and we use, each asked for alone: fuser refuses a whole set for one that is missing.
const WANTED: [InitFlags; 4] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    // The page cache is right for ever, also when the kernel sees attributes change.
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
];

/// A filesystem that the kernel was introduced to.
pub(crate) struct Session<C: Catalog>(FuserSession<Adapter<C>>);

impl<C: Catalog> Session<C> {
    /// Shakes hands over the connection of a fresh mount.
    pub(crate) fn new(filesystem: Arc<Filesystem<C, BackingId>>, connection: OwnedFd) -> io::Result<Session<C>> {
        let mut config = Config::default();
        // Order matters (a FLUSH must not overtake the READ before it), and nothing waits in a callback.
        config.n_threads = Some(1);
        config.clone_fd = false;
        // The kernel itself lets in whom the mount options say. fuser's own check would swallow the FLUSH of a process
        // that changed its user.
        FuserSession::from_fd(Adapter(filesystem), connection, SessionACL::All, config).map(Session)
    }

    /// Tells the kernel that a name in a folder means nothing any more. It blocks while somebody looks up or lists the
    /// folder, so it must not be called where requests are answered.
    pub(crate) fn forgetter(&self) -> impl Fn(u64, &OsStr) -> io::Result<()> + Clone + Send + use<C> {
        let notifier: Notifier = self.0.notifier();
        move |folder, name: &OsStr| notifier.inval_entry(INodeNo(folder), name)
    }

    /// Serves until the mount is gone.
    pub(crate) fn run(self) -> io::Result<()> {
        self.0.run()
    }
}

struct Adapter<C: Catalog>(Arc<Filesystem<C, BackingId>>);

impl<C: Catalog> Callbacks for Adapter<C> {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in WANTED {
            // What an older kernel lacks costs speed only.
            let _ = config.add_capabilities(wanted);
        }
        let passthrough =
            config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok() && config.set_max_stack_depth(1).is_ok();
        self.0.set_passthrough(passthrough);
        let refused = |_| io::Error::from(io::ErrorKind::InvalidInput);
        config.set_max_background(MAX_BACKGROUND).map_err(refused)?;
        // Above the threshold the kernel stops reading ahead, for healthy files too; so it is never above it.
        config.set_congestion_threshold(MAX_BACKGROUND).map_err(refused)?;
        // Readahead stays as the kernel has it (128 KiB): more made the first frame later on slow swarms.
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        calm(|| match self.0.lookup(parent.0, name) {
            Ok(found) => reply.entry_with_ttls(&found.lifetime, &LONG, &file_attr(&found), GENERATION),
            Err(errno) => reply.error(to_fuser(errno)),
        });
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        calm(|| match self.0.attributes(inode.0) {
            Ok(found) => reply.attr(&found.lifetime, &file_attr(&found)),
            Err(errno) => reply.error(to_fuser(errno)),
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        calm(|| {
            self.0.open(
                inode.0,
                OFlags::from_bits_retain(flags.0.cast_unsigned()),
                request.pid(),
                Opening(reply),
            )
        });
    }

    fn read(
        &self,
        request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        calm(|| {
            self.0
                .read(handle.0, offset, size, request.pid(), |result| match result {
                    Ok(bytes) => reply.data(bytes),
                    Err(errno) => reply.error(to_fuser(errno)),
                });
        });
    }

    fn flush(&self, request: &Request, _inode: INodeNo, handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        calm(|| {
            self.0.flush(handle.0, request.pid());
            reply.ok();
        });
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        calm(|| {
            self.0.release(handle.0);
            reply.ok();
        });
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        calm(|| {
            let listed = self.0.list(inode.0, offset, |line, _| {
                reply.add(INodeNo(line.inode), line.behind, file_type(line.kind), line.name)
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(to_fuser(errno)),
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        calm(|| {
            let listed = self.0.list(inode.0, offset, |line, attributes| {
                let Some(found) = attributes() else { return false };
                let attr = file_attr(&found);
                reply.add(
                    INodeNo(line.inode),
                    line.behind,
                    line.name,
                    &found.lifetime,
                    &attr,
                    GENERATION,
                )
            });
            match listed {
                Ok(()) => reply.ok(),
                Err(errno) => reply.error(to_fuser(errno)),
            }
        });
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        const BLOCK: u32 = 4096;
        const NAME_LIMIT: u32 = 255;
        calm(|| {
            let (space, files) = self.0.space();
            let blocks = |bytes: u64| bytes / u64::from(BLOCK);
            let (used, free) = (blocks(space.used), blocks(space.available));
            reply.statfs(
                used.saturating_add(free),
                free,
                free,
                files,
                0,
                BLOCK,
                NAME_LIMIT,
                BLOCK,
            );
        });
    }

    fn getxattr(&self, _request: &Request, inode: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        calm(|| match self.0.attribute(inode.0, name) {
            Ok(value) => answer_attribute(&value, size, reply),
            Err(errno) => reply.error(to_fuser(errno)),
        });
    }

    fn listxattr(&self, _request: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        calm(|| answer_attribute(&self.0.attribute_names(inode.0), size, reply));
    }

    // The rest is refused without the warning that fuser logs by default: programs ask it as a matter of course.

    /// Unsupported, so that the kernel shows every file without holes.
    fn lseek(&self, _: &Request, _: INodeNo, _: FileHandle, _: i64, _: i32, reply: ReplyLseek) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }
}

/// The answer to an open(2).
struct Opening(ReplyOpen);

impl OpenAnswer<BackingId> for Opening {
    fn register(&self, file: &File) -> io::Result<BackingId> {
        self.0.open_backing(file)
    }

    fn opened(self, handle: u64, backing: Option<&BackingId>) {
        match backing {
            // The kernel refuses every other flag beside passthrough.
            Some(backing) => self
                .0
                .opened_passthrough(FileHandle(handle), FopenFlags::empty(), backing),
            // Content never changes, so what is cached is right. Without this flag a second open of a file that
            // somebody waits for hangs in the kernel and cannot be killed; direct I/O cannot be killed either.
            None => self.0.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    fn refused(self, errno: Errno) {
        self.0.error(to_fuser(errno));
    }
}

/// Runs a callback so that a panic in it, or in the catalog, costs one answer (a dropped reply is `EIO`) and not the
/// mount.
fn calm(callback: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(callback)).is_err() {
        tracing::error!("a request panicked; it was answered with EIO");
    }
}

fn answer_attribute(value: &[u8], size: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(value),
        _ => reply.error(fuser::Errno::ERANGE),
    }
}

fn to_fuser(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Folder => FileType::Directory,
        Kind::File { .. } => FileType::RegularFile,
    }
}

fn file_attr(of: &Attributes) -> FileAttr {
    let size = match of.kind {
        Kind::Folder => 0,
        Kind::File { size } => size,
    };
    FileAttr {
        ino: INodeNo(of.inode),
        size,
        blocks: of.blocks,
        atime: of.modified,
        mtime: of.modified,
        ctime: of.modified,
        crtime: UNIX_EPOCH,
        kind: file_type(of.kind),
        perm: of.permissions,
        // For a folder, 1 says that its folders are not counted.
        nlink: 1,
        uid: of.uid,
        gid: of.gid,
        rdev: 0,
        // What readers that heed it, cp and cat, ask for at a time: the kernel's readahead.
        blksize: 128 * 1024,
        flags: 0,
    }
}
