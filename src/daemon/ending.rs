//! What ends a mount, and what makes sure that it ends.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A stop takes at most 3 s. What takes longer hangs, and is ended.
const WATCHDOG_LIMIT: Duration = Duration::from_secs(5);

/// A person does not press Ctrl-C twice so quickly.
const ECHO: Duration = Duration::from_millis(300);

/// What ended a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// SIGTERM, from a service manager or `kill`.
    Terminated,
    /// SIGINT, Ctrl-C.
    Interrupted,
    /// SIGHUP, the terminal is gone.
    HungUp,
    /// `magnetfs unmount`.
    Asked,
    /// Unmounted from outside, or broken.
    Ended,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Terminated => "SIGTERM",
            Reason::Interrupted => "SIGINT",
            Reason::HungUp => "SIGHUP",
            Reason::Asked => "asked to unmount",
            Reason::Ended => "unmounted from outside",
        })
    }
}

/// The signals that end a mount. From the making of this on they no longer kill the process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// `None` under nohup(1): what was started to outlive its terminal does.
    hang_up: Option<Signal>,
}

impl Signals {
    /// Begins to watch, inside a runtime.
    pub(crate) fn new() -> io::Result<Signals> {
        let hang_up = SignalKind::hangup();
        Ok(Signals {
            hang_up: if is_ignored(hang_up) {
                None
            } else {
                Some(signal(hang_up)?)
            },
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for any of them.
    pub(crate) async fn first(&mut self) -> Reason {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Reason::Terminated,
            _ = self.interrupt.recv() => Reason::Interrupted,
            _ = hang_up => Reason::HungUp,
        }
    }

    /// Waits for Ctrl-C once more: service managers and terminals that go send several of the others for one end, and
    /// some programs (timeout(1)) send even this one twice at once, to the process and to its group.
    pub(super) async fn second_interrupt() {
        tokio::time::sleep(ECHO).await;
        match signal(SignalKind::interrupt()) {
            // This one sees only what comes from now on.
            Ok(mut interrupt) => {
                interrupt.recv().await;
            }
            Err(error) => {
                tracing::warn!(%error, "a second Ctrl-C is not watched for");
                std::future::pending().await
            }
        }
    }
}

/// Whether this process ignores a signal, as whoever started it may have wished.
fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    ignored.is_some_and(|signals| signals >> (signal.as_raw_value() - 1) & 1 == 1)
}

/// Ends the process if a stop hangs. Dropping it is the sign that everything has ended.
pub(super) struct Watchdog {
    started: mpsc::Sender<()>,
    thread: Mutex<Option<(PathBuf, mpsc::Receiver<()>)>>,
}

impl Watchdog {
    /// For a mount at this place; it does nothing before it is started.
    pub(super) fn new(mountpoint: PathBuf) -> Watchdog {
        let (started, ended) = mpsc::channel();
        Watchdog {
            started,
            thread: Mutex::new(Some((mountpoint, ended))),
        }
    }

    /// Begins to count, on a thread of its own: the runtime itself may be what hangs.
    pub(super) fn start(&self) {
        let Some((mountpoint, ended)) = self.thread.lock().take() else {
            return;
        };
        let watch = move || {
            if ended.recv_timeout(WATCHDOG_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                tracing::error!(seconds = WATCHDOG_LIMIT.as_secs(), "the stop hangs: ending without it");
                detach(&mountpoint);
                // Whatever hangs would hang a return from `main` as well.
                std::process::exit(1);
            }
        };
        if let Err(error) = std::thread::Builder::new()
            .name("magnetfs-watchdog".to_owned())
            .spawn(watch)
        {
            tracing::warn!(%error, "nobody watches over the stop");
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // A thread that has not been started is not there to hear it.
        let _ = self.started.send(());
    }
}

/// Takes our mount out of the tree at once, whoever uses it.
pub(super) fn detach(mountpoint: &Path) {
    if magnetfs_mount::is_mounted(mountpoint).is_some_and(|kind| kind == "fuse.magnetfs")
        && let Err(error) = magnetfs_mount::detach(mountpoint)
    {
        tracing::error!(%error, "the mount stays");
    }
}
