//! What the kernel asks of open files: open, read, flush, release. What must wait moves into a task.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::catalog::{Catalog, Content, Kind, ReadError};
use crate::deadline;
use crate::filesystem::Filesystem;
use crate::handles::{Choice, Handle, Mode};
use crate::reads::{Asked, Reads};
use crate::signals;

/// How an open(2) is answered. `Backing` stands for a file that was registered with the kernel for passthrough.
pub(crate) trait OpenAnswer<Backing>: Send + 'static {
    /// Registers a stored file with the kernel.
    fn register(&self, file: &File) -> io::Result<Backing>;
    /// It is open; through `backing` if there is one.
    fn opened(self, handle: u64, backing: Option<&Backing>);
    /// It is not.
    fn refused(self, errno: Errno);
}

thread_local! {
    /// Where a read that is answered at once puts its bytes. The thread that talks to the kernel is one, and a read is
    /// at most 1 MiB long.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<C: Catalog, Backing: Send + Sync + 'static> Filesystem<C, Backing> {
    /// Opens a file for reading, for `thread`. The answer comes at once, or, where the stored file may have to be opened
    /// for passthrough, from a thread that may wait for the disk.
    pub(crate) fn open<A: OpenAnswer<Backing>>(self: &Arc<Self>, inode: u64, flags: OFlags, thread: u32, answer: A) {
        let (handle, size) = match self.admit(inode, flags, thread) {
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
    fn admit(&self, inode: u64, flags: OFlags, thread: u32) -> Result<(Handle<C::Content>, u64), Errno> {
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
        let content = self.catalog.open(inode, signals::process(thread)).map_err(refuse)?;
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
        self.handles.insert(handle, mode);
        if self.tree.read().entry(inode).is_none() {
            // It went while it was being opened, when the handle could not be found yet.
            self.handles.removed(&HashSet::from([inode]));
        }
        self.handles
            .with_backing(number, |backing| answer.opened(number, backing));
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
        // Whatever happens to the task, a panic in the content or the end of the runtime, the read is over for the
        // books.
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
            // The sending half is dropped unused only together with the whole mount.
            let cancelled = async { begun.cancelled.await.unwrap_or(ReadError::Stopping) };
            let result = deadline::bytes(content, asked.offset, asked.length, filesystem.limits, cancelled).await;
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

    /// A descriptor of the handle was closed by `thread`.
    pub(crate) fn flush(&self, handle: u64, thread: u32) {
        self.reads.flushed(handle, thread);
    }

    /// The last descriptor of the handle is gone.
    pub(crate) fn release(&self, handle: u64) {
        self.reads.released(handle);
        self.handles.remove(handle);
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
