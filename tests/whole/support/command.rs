//! Child processes with a time limit. Everything that reads from a mount is a child: a reader can then be stuck
//! without the tests being stuck.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::limit::{Held, Registration};

/// Waits at most `limit` for the end of a child, and reaps it; `None` while it runs on.
pub(super) fn ended_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    if let Ok(Some(status)) = child.try_wait() {
        return Some(status);
    }
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a child that was not reaped");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("a time limit of a test");
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Ok(_) => return child.wait().ok(),
            Err(Errno::INTR) => {}
            Err(error) => panic!("the end of a child cannot be waited for: {error}"),
        }
    }
}

/// What came of a child.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    line: String,
}

impl Outcome {
    /// Its output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// # Panics
    /// When it did not exit with 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(
            self.status.success(),
            "{} ended with {}\n{}{}",
            self.line,
            self.status,
            self.text(),
            self.stderr
        );
        self
    }

    /// # Panics
    /// When it exited with another status than `code`.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> Self {
        let line = &self.line;
        assert_eq!(
            self.status.code(),
            Some(code),
            "{line} ended so\n{}{}",
            self.text(),
            self.stderr
        );
        self
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or runs longer than `limit`: it is then killed with its process group.
#[track_caller]
pub(crate) fn run(command: &mut Command, limit: Duration) -> Outcome {
    let line = format!("{command:?}");
    Background::spawn(command)
        .outcome(limit)
        .unwrap_or_else(|| panic!("{line} is not through after {:.1} s", limit.as_secs_f64()))
}

/// A command line for `sh`, with `arguments` as `$1`, `$2`…
pub(crate) fn shell(script: &str, arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script).arg("sh").args(arguments);
    command
}

/// A child that runs beside the test. Dropping it kills it with its process group.
#[derive(Debug)]
pub(crate) struct Background {
    child: Child,
    line: String,
    started: Instant,
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
    _registration: Registration,
}

impl Background {
    /// Starts it without input, in a process group of its own.
    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let line = format!("{command:?}");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{line} cannot be started: {error}"));
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let registration = Registration::of(Held::Process(child.id()));
        Self {
            child,
            line,
            started: Instant::now(),
            stdout,
            stderr,
            _registration: registration,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process alone, not to its group.
    pub(crate) fn signal(&self, signal: Signal) {
        super::limit::kill(self.pid(), signal);
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits at most `limit` for its end.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        ended_within(&mut self.child, limit)
    }

    /// Waits for its end and takes its output; `None` when it had to be killed.
    pub(crate) fn outcome(mut self, limit: Duration) -> Option<Outcome> {
        let status = self.ended_within(limit)?;
        let took = self.started.elapsed();
        // A grandchild may hold the pipes open for longer than its parent lives.
        let stdout = self.stdout.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
        let stderr = self.stderr.recv_timeout(Duration::from_secs(2)).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        Some(Outcome {
            status,
            stdout,
            stderr,
            took,
            line: self.line.clone(),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // A reader that the kernel does not let die must not hold the test up as well.
        let _ = self.ended_within(Duration::from_secs(1));
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}
