//! A running mount: start and stop, in order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use crate::attach::{Attached, attach};
use crate::catalog::Catalog;
use crate::deadline::Limits;
use crate::filesystem::{Filesystem, Owner};
use crate::fuse::Session;
use crate::mountpoint::{self, MountError};
use crate::reads::Reads;

/// How often the threads of waiting reads are looked at: an interrupted reader ends within half a second.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// How long [`Mount::stop`] waits for the session to end, and when in it the connection is aborted.
const STOP_LIMIT: Duration = Duration::from_secs(2);
const ABORT_AFTER: Duration = Duration::from_millis(300);

/// How to mount.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// An empty directory.
    pub mountpoint: PathBuf,
    /// Let users in who are neither root nor the one who mounts. The files' permissions still hold.
    pub allow_other: bool,
    /// Whose the files are shown to be; by default the user's who mounts.
    pub uid: Option<u32>,
    /// The group that the files are shown to belong to; by default that of the user who mounts.
    pub gid: Option<u32>,
    /// Permissions taken away from the files (0444) and folders (0555).
    pub umask: u16,
    /// A read for which nothing arrived for so long fails with `EIO`.
    pub read_deadline: Duration,
    /// A read that is not finished after so long fails with `EIO`, whatever arrived.
    pub read_ceiling: Duration,
}

/// A running mount. Dropping it unmounts, without waiting for the end; [`Mount::stop`] is the orderly way.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    device: String,
    reads: Arc<Reads>,
    passthrough: Arc<AtomicBool>,
    ended: Arc<Ended>,
    end: watch::Receiver<bool>,
    following: Option<tokio::task::AbortHandle>,
    unmounted: bool,
}

/// Word that the session ended, for those who await it and those who block.
#[derive(Debug)]
struct Ended {
    how: Mutex<Option<End>>,
    changed: Condvar,
    word: watch::Sender<bool>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The kernel ended it: it was unmounted, or the connection was cut.
    ByKernel,
    /// We could not go on; the mount is still there.
    ByError,
}

impl Ended {
    fn set(&self, how: End) {
        *self.how.lock() = Some(how);
        self.changed.notify_all();
        self.word.send_replace(true);
    }

    fn wait_until(&self, until: Instant) -> bool {
        let mut how = self.how.lock();
        while how.is_none() && !self.changed.wait_until(&mut how, until).timed_out() {}
        how.is_some()
    }
}

impl Mount {
    /// Clears a dead magnetfs mount at the mount point, checks it, mounts, and serves. It blocks for some milliseconds,
    /// or up to 2 s if a mount is there that does not answer. Waiting reads run on `runtime`, which must outlive the
    /// mount: reads that wait when it is shut down get `EIO`.
    ///
    /// # Errors
    /// Each names what is wrong and what helps; nothing is mounted then.
    pub fn start<C: Catalog>(
        catalog: Arc<C>,
        options: MountOptions,
        runtime: tokio::runtime::Handle,
    ) -> Result<Mount, MountError> {
        let path = mountpoint::resolve(&options.mountpoint);
        mountpoint::clear_dead_mount(&path)?;
        mountpoint::check(&path, options.allow_other)?;
        let Attached { connection, device } = attach(&path, options.allow_other)?;
        // From here on the mount is taken away if anything fails: by `Drop`.
        let reads = Arc::new(Reads::default());
        let passthrough = Arc::new(AtomicBool::new(false));
        let (word, end) = watch::channel(false);
        let ended = Arc::new(Ended {
            how: Mutex::new(None),
            changed: Condvar::new(),
            word,
        });
        let mut mount = Mount {
            path: path.clone(),
            device,
            reads: reads.clone(),
            passthrough: passthrough.clone(),
            ended: ended.clone(),
            end,
            following: None,
            unmounted: false,
        };
        let owner = Owner {
            uid: options.uid.unwrap_or_else(|| rustix::process::geteuid().as_raw()),
            gid: options.gid.unwrap_or_else(|| rustix::process::getegid().as_raw()),
            umask: options.umask,
        };
        let limits = Limits::new(options.read_deadline, options.read_ceiling);
        let filesystem = Arc::new(Filesystem::new(
            catalog,
            owner,
            limits,
            runtime.clone(),
            reads.clone(),
            passthrough,
        ));
        let kernel = |source| MountError::Kernel {
            path: path.clone(),
            source,
        };
        let session = Session::new(filesystem.clone(), connection).map_err(kernel)?;
        let following = runtime.spawn(filesystem.follow(session.forgetter())).abort_handle();
        mount.following = Some(following.clone());

        let watched = reads.clone();
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        named("magnetfs-watch")
            .spawn(move || watched.watch(WATCH_INTERVAL))
            .map_err(kernel)?;
        let serve = move || {
            let how = match session.run() {
                Ok(()) => End::ByKernel,
                Err(error) => {
                    tracing::error!(%error, "the FUSE session ended by an error");
                    End::ByError
                }
            };
            reads.finish();
            following.abort();
            ended.set(how);
        };
        named("magnetfs-fuse").spawn(serve).map_err(kernel)?;
        Ok(mount)
    }

    /// From now on every read, waiting or new, fails with `EIO` at once. Everything is still served, so that programs
    /// that have files open can end.
    pub fn fail_reads(&self) {
        self.reads.stop();
    }

    /// Waits until the session has ended: unmounted from outside or by us. Dropping the future changes nothing.
    pub async fn ended(&mut self) {
        // An error would mean that the sender is gone, which `self.ended` prevents.
        let _ = self.end.wait_for(|ended| *ended).await;
    }

    /// Fails all reads, unmounts (from a tree that somebody still uses, too), and waits up to 2 s for the session to
    /// end.
    ///
    /// # Errors
    /// If the mount could not be taken away.
    pub fn stop(mut self) -> Result<(), MountError> {
        let until = Instant::now() + STOP_LIMIT;
        self.unmount()?;
        if !self.ended.wait_until(Instant::now() + ABORT_AFTER) {
            // Somebody has a file of the detached mount open.
            mountpoint::abort(&self.device);
            if !self.ended.wait_until(until) {
                tracing::info!(path = %self.path.display(), "unmounted, but some program still has files of it open");
            }
        }
        Ok(())
    }

    /// Whether complete files are handed to the kernel to serve by itself: it offers that, and did not refuse it yet.
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// How many reads wait for bytes now.
    pub fn waiting_reads(&self) -> usize {
        self.reads.waiting()
    }

    fn unmount(&mut self) -> Result<(), MountError> {
        self.unmounted = true;
        self.reads.stop();
        let how = *self.ended.how.lock();
        match how {
            // Its device number may belong to another mount by now, at the same place even.
            Some(End::ByKernel) => mountpoint::clear_dead_mount(&self.path).map(drop),
            Some(End::ByError) | None => mountpoint::unmount(&self.path, &self.device),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if !self.unmounted
            && let Err(error) = self.unmount()
        {
            tracing::error!(%error, "the mount stays");
        }
        self.reads.finish();
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}
