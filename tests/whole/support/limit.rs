//! Every test ends: by itself, or by the limit, with everything that it started.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What must not outlive the tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// A child process.
    Process(u32),
    /// A mount point.
    Mount(PathBuf),
}

static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<Held>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps `Held` in the list of what the limit clears away; dropping it takes it off.
#[derive(Debug)]
pub(crate) struct Registration(Held);

impl Registration {
    pub(crate) fn of(held_thing: Held) -> Self {
        held().push(held_thing.clone());
        Self(held_thing)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = held();
        if let Some(place) = list.iter().position(|other| *other == self.0) {
            list.swap_remove(place);
        }
    }
}

/// Runs a test's body; when it is not through after `limit`, kills and unmounts all that the tests hold and aborts,
/// with the name of the test.
pub(crate) fn limited(limit: Duration, body: impl FnOnce()) {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let (running, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            report(&format!(
                "{name} is not through after {} s: this is a bug; ending all tests",
                limit.as_secs()
            ));
            clear_away();
            std::process::abort();
        }
    });
    // Dropped when the body returns and when it panics: the watch ends either way.
    let _running = running;
    let started = Instant::now();
    body();
    let name = thread::current().name().unwrap_or("a test").to_owned();
    report(&format!("{name}: {:.1} s", started.elapsed().as_secs_f64()));
}

fn clear_away() {
    let list = held().clone();
    for held_thing in &list {
        if let Held::Process(pid) = held_thing {
            kill(*pid, Signal::KILL);
        }
    }
    for held_thing in &list {
        if let Held::Mount(path) = held_thing {
            unmount(path);
        }
    }
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Takes a mount away whatever state it is in; nothing mounted there is fine.
pub(crate) fn unmount(path: &Path) {
    if super::is_mounted(path) && rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH).is_err() {
        let _ = std::process::Command::new("fusermount3").arg("-uz").arg(path).status();
    }
}

/// Waits until `happened` gives a value, asking every 10 ms.
///
/// # Panics
/// With `what`, when that takes longer than `limit`.
pub(crate) fn eventually<T>(what: &str, limit: Duration, mut happened: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = happened() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {:.1} s for this: {what}",
            limit.as_secs_f64()
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// Prints a line that is seen also when the test passes.
pub(crate) fn report(line: &str) {
    // Not `eprintln!`, which the test harness holds back.
    let _ = writeln!(std::io::stderr(), "    {line}");
}
