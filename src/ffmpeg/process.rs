//! One FFmpeg that runs: its outputs, its last words, its end.
//!
//! Two small threads belong to each, and to nobody's runtime: one always drains stderr, one waits for the end and reaps.
//! So no run stays behind as a zombie, whatever becomes of the tasks that started it.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::launcher::Thread;

/// So much of what it said last is kept.
const LAST_WORDS: usize = 4096;

/// Both threads do little.
const STACK: usize = 128 << 10;

/// A process that ended has nothing more to say; one that left a child behind which holds stderr is not waited for.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It exited with 0. That is no promise that it read the whole file: after an input error in the middle FFmpeg
    /// exits with 0 too, and its last fragment is cut short. [`Run::last_words`] may tell.
    Finished,
    /// It exited with another status, or was ended by a signal that is not from here.
    Failed {
        /// The status or the signal.
        status: ExitStatus,
        /// The end of what it wrote to stderr, printable, at most 4 KiB.
        last_words: String,
    },
    /// [`Run::kill`] ended it.
    Killed,
}

/// A running FFmpeg. Dropping it kills its whole process group; it is reaped, whoever waits, as soon as the kernel lets
/// it go. A reader that is blocked in a mount is let go at once, see the mount's rules.
#[derive(Debug)]
pub struct Run {
    /// The process that opens the input: the confinement becomes FFmpeg, it does not start it. The number means another
    /// process, or none, once the run has ended.
    pub pid: u32,
    /// One for each of the job's outputs, in their order. An output that is not read stops all of them, once its pipe
    /// (64 KiB) is full: that is how a run is held back.
    pub outputs: Vec<pipe::Receiver>,
    leash: Leash,
    ended: watch::Receiver<Option<Ended>>,
    /// Its parent, as the kernel sees it.
    _starter: Thread,
}

/// What is shared by a run and the threads that look after its process.
#[derive(Debug)]
struct Handle {
    /// The process, which leads its group; `None` once it is reaped and the number may mean another. The lock is held
    /// while it is signalled and while it is reaped, never while anybody waits.
    group: Mutex<Option<Pid>>,
    killed: AtomicBool,
    last_words: Mutex<LastWords>,
}

impl Run {
    pub(super) fn new(started: Started, outputs: Vec<pipe::Receiver>, starter: Thread) -> Run {
        let Started { pid, leash, ended } = started;
        Run {
            pid,
            outputs,
            leash,
            ended,
            _starter: starter,
        }
    }

    /// Waits for its end, however long that takes; nobody but [`Run::kill`] hurries it. The outputs still hold what was
    /// written before. May be called again, and dropped.
    pub async fn ended(&mut self) -> Ended {
        match self.ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(ended)) => ended.clone(),
            // The thread that waits always says what came of it, unless it panicked: then nothing can be known.
            _ => Ended::Killed,
        }
    }

    /// Sends SIGKILL to its process group; after its end nothing. Does not wait.
    pub fn kill(&self) {
        self.leash.0.kill();
    }

    /// The end of what it wrote to stderr so far, printable, at most 4 KiB; empty if it had nothing to say.
    pub fn last_words(&self) -> String {
        self.leash.0.last_words.lock().text()
    }
}

/// Kills at the end of whoever holds it.
#[derive(Debug)]
struct Leash(Arc<Handle>);

impl Drop for Leash {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Handle {
    fn kill(&self) {
        if let Some(group) = *self.group.lock() {
            self.killed.store(true, Ordering::Relaxed);
            // It may have ended and only not be reaped yet.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A process that is looked after, before it has its outputs. Dropping it kills, like dropping a [`Run`].
#[derive(Debug)]
pub(super) struct Started {
    pid: u32,
    leash: Leash,
    ended: watch::Receiver<Option<Ended>>,
}

/// Looks after a child that leads its own process group and whose stderr is a pipe.
///
/// # Errors
/// When the system has no thread left; the child is then killed and reaped.
pub(super) fn look_after(mut child: Child) -> io::Result<Started> {
    let pid = child.id();
    let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let handle = Arc::new(Handle {
        group: Mutex::new(group),
        killed: AtomicBool::new(false),
        last_words: Mutex::new(LastWords::default()),
    });
    let (sender, ended) = watch::channel(None);
    let stderr = child.stderr.take();
    // A child in a slot: a thread that cannot be started does not take it along.
    let slot = Arc::new(Mutex::new(Some(child)));
    let threads = || -> io::Result<()> {
        let (silent, drained) = mpsc::sync_channel(1);
        let listener = handle.clone();
        thread("ffmpeg-stderr").spawn(move || {
            if let Some(stderr) = stderr {
                listen(stderr, &listener.last_words);
            }
            // Nobody listens any more if the grace is over.
            let _ = silent.send(());
        })?;
        let (waiter, taken) = (handle.clone(), slot.clone());
        thread("ffmpeg-wait").spawn(move || {
            let Some(child) = taken.lock().take() else { return };
            let status = wait(child, &waiter.group);
            let _ = drained.recv_timeout(STDERR_GRACE);
            sender.send_replace(Some(waiter.verdict(status)));
        })?;
        Ok(())
    };
    if let Err(error) = threads() {
        if let Some(mut child) = slot.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        return Err(error);
    }
    Ok(Started {
        pid,
        leash: Leash(handle),
        ended,
    })
}

fn thread(name: &str) -> thread::Builder {
    thread::Builder::new().name(name.to_owned()).stack_size(STACK)
}

/// Waits for the end, then clears what it may have left in its group, then reaps it: until that its number is its own.
fn wait(mut child: Child, group: &Mutex<Option<Pid>>) -> io::Result<ExitStatus> {
    let pid = *group.lock();
    let ended = pid.is_some_and(|pid| {
        loop {
            match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(Errno::INTR) => {}
                // Somebody else has reaped it: the number may be another's by now.
                waited => break waited.is_ok(),
            }
        }
    });
    let mut group = group.lock();
    if let Some(pid) = group.take().filter(|_| ended) {
        let _ = kill_process_group(pid, Signal::KILL);
    }
    child.wait()
}

impl Handle {
    fn verdict(&self, status: io::Result<ExitStatus>) -> Ended {
        match status {
            Ok(status) if status.success() => Ended::Finished,
            Ok(status) if self.killed.load(Ordering::Relaxed) && status.signal() == Some(Signal::KILL.as_raw()) => {
                Ended::Killed
            }
            Ok(status) => Ended::Failed {
                status,
                last_words: self.last_words.lock().text(),
            },
            // Somebody else reaped it, which nobody here does.
            Err(_) => Ended::Killed,
        }
    }
}

/// Reads to the end, whatever is said, so that its writer never waits.
pub(super) fn listen(mut stderr: ChildStderr, words: &Mutex<LastWords>) {
    let mut buffer = [0; 4096];
    loop {
        match stderr.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => words.lock().hear(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The end of a text of any length.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    bytes: VecDeque<u8>,
    /// Whether something was said before them.
    cut: bool,
}

impl LastWords {
    fn hear(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(LAST_WORDS);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// Whole lines, without what a terminal would take for a command: names in a file are a stranger's.
    pub(super) fn text(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = match text.split_once('\n') {
            Some((_, rest)) if self.cut && !rest.trim().is_empty() => rest,
            _ => &text,
        };
        let printable = |character: char| {
            if character.is_control() && character != '\n' {
                ' '
            } else {
                character
            }
        };
        whole.trim().chars().map(printable).collect()
    }
}

#[cfg(test)]
mod tests;
