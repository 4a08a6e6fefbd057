//! `magnetfs mount` in the foreground, started, watched and taken away.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::command::ended_within;
use super::limit::{Held, Registration, kill, unmount};
use super::torrents::Torrent;
use super::{Outcome, Work, eventually, run};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_magnetfs");

/// "SIGTERM of the daemon leaves no mount and no process within 3 s."
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(3);

/// How a daemon is to be started. Nothing leaves the machine: no discovery and no listening port unless asked for.
#[derive(Debug, Clone)]
pub(crate) struct DaemonOptions {
    data_dir: PathBuf,
    mountpoint: PathBuf,
    socket: PathBuf,
    home: PathBuf,
    log: PathBuf,
    switches: Vec<(String, String)>,
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
}

impl DaemonOptions {
    /// A daemon in the test's own directories.
    pub(crate) fn new(work: &Work) -> Self {
        let off = ["--dht", "--lsd", "--upnp", "--trackers", "--listen"].map(|name| (name, "off"));
        // Tests run side by side: each daemon has a port of its own.
        let switches = off.into_iter().chain([("--http", "127.0.0.1:0")]);
        Self {
            data_dir: work.path().join("data"),
            mountpoint: work.directory("mount"),
            socket: work.socket("control"),
            home: work.directory("home"),
            log: work.path().join("daemon.log"),
            switches: switches
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            arguments: Vec::new(),
            variables: Vec::new(),
        }
    }

    /// Sets an option with a value, in place of one of the same name.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.switches.retain(|(other, _)| other != name);
        self.switches.push((name.to_owned(), value.to_owned()));
        self
    }

    /// An argument as it stands.
    pub(crate) fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// A torrent on the command line.
    pub(crate) fn torrent(self, torrent: &Torrent) -> Self {
        let path = torrent.path.clone();
        self.argument(path)
    }

    /// A peer for what is on the command line.
    pub(crate) fn peer(self, peer: SocketAddr) -> Self {
        self.argument("--peer").argument(peer.to_string())
    }

    /// A variable in its environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Another data directory.
    pub(crate) fn data_dir(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.data_dir);
        self
    }

    /// Another mount point.
    pub(crate) fn mountpoint(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.mountpoint);
        self
    }

    /// Another control socket.
    pub(crate) fn socket(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.socket);
        self
    }

    /// The command, not started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        self.environment(&mut command);
        command.arg("mount").args(self.mount_arguments());
        command
    }

    /// What comes after `magnetfs mount`.
    pub(crate) fn mount_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec![self.mountpoint.clone().into()];
        arguments.extend(["--data-dir".into(), self.data_dir.clone().into()]);
        arguments.extend(["--socket".into(), self.socket.clone().into()]);
        arguments.extend(
            self.switches
                .iter()
                .flat_map(|(name, value)| [name.into(), value.into()]),
        );
        arguments.extend(self.arguments.iter().cloned());
        arguments
    }

    fn environment(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MAGNETFS_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.home.join("config"));
        command
            .env("XDG_DATA_HOME", self.home.join("data"))
            .env("XDG_RUNTIME_DIR", self.home.join("runtime"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Starts it and waits until it says that it has mounted.
    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.mounted_within(Duration::from_secs(10));
        daemon
    }

    /// Starts it.
    #[track_caller]
    pub(crate) fn spawn(&self) -> Daemon {
        self.spawn_as(self.command())
    }

    /// Starts it by another command, which becomes it.
    #[track_caller]
    pub(crate) fn spawn_as(&self, mut command: Command) -> Daemon {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .expect("a log file");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let process = Registration::of(Held::Process(child.id()));
        let mount = Registration::of(Held::Mount(self.mountpoint.clone()));
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let started = Instant::now();
        Daemon {
            child,
            lines,
            started,
            options: self.clone(),
            _registrations: [process, mount],
        }
    }

    /// Runs another command of the program against the daemon of these options, in the test's directory.
    pub(crate) fn control(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        self.environment(&mut command);
        command
            .args(arguments)
            .arg("--socket")
            .arg(&self.socket)
            .arg("--data-dir")
            .arg(&self.data_dir);
        command
    }
}

/// A running daemon. Dropping it kills it, takes its mount away, and shows its log when the test has failed.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    lines: mpsc::Receiver<String>,
    started: Instant,
    options: DaemonOptions,
    _registrations: [Registration; 2],
}

impl Daemon {
    /// Waits for the line that says that it has mounted, and gives the time it took from the start.
    #[track_caller]
    pub(crate) fn mounted_within(&mut self, limit: Duration) -> Duration {
        match self.lines.recv_timeout(limit) {
            Ok(line) => assert_eq!(line, format!("mounted {}", self.options.mountpoint.display())),
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("not mounted after {:.1} s", limit.as_secs_f64()),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                panic!("it ended before it had mounted: {:?}", self.child.wait())
            }
        }
        self.started.elapsed()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn mountpoint(&self) -> &Path {
        &self.options.mountpoint
    }

    /// A path in the mount.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.options.mountpoint.join(name)
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Where it serves HTTP.
    #[track_caller]
    pub(crate) fn http(&self) -> SocketAddr {
        let status = self.json(&["status"]);
        let address = status["http"].as_str().and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("it serves no HTTP: {status}"))
    }

    /// The address of its page, which everything else is relative to: `http://127.0.0.1:1234/`.
    #[track_caller]
    pub(crate) fn page(&self) -> String {
        let status = self.json(&["status"]);
        let page = status["page"].as_str().map(str::to_owned);
        page.unwrap_or_else(|| panic!("it serves no HTTP: {status}"))
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.options.log).unwrap_or_default()
    }

    /// Runs a command of the program against this daemon.
    #[track_caller]
    pub(crate) fn control(&self, arguments: &[&str]) -> Outcome {
        run(&mut self.options.control(arguments), Duration::from_secs(30))
    }

    /// Adds a torrent, with a peer that has it.
    #[track_caller]
    pub(crate) fn add(&self, torrent: &Torrent, peer: Option<SocketAddr>) {
        let path = torrent.path.to_string_lossy();
        let peer = peer.map(|peer| peer.to_string());
        let mut arguments = vec!["add", &path];
        if let Some(peer) = &peer {
            arguments.extend(["--peer", peer]);
        }
        self.control(&arguments).ok();
    }

    /// What a command prints with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        let text = self.control(&all).ok().text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} prints no JSON: {error}\n{text}"))
    }

    /// The line of `list` for a torrent by its shown name.
    #[track_caller]
    pub(crate) fn listed(&self, name: &str) -> Option<Value> {
        let list = self.json(&["list"]);
        list.as_array()
            .expect("list is an array")
            .iter()
            .find(|entry| entry["name"] == name)
            .cloned()
    }

    /// A field of VmRSS, VmHWM… in KiB.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let line = status
            .lines()
            .find(|line| line.starts_with(field))
            .expect("a field of its status");
        line.split_whitespace()
            .nth(1)
            .and_then(|number| number.parse().ok())
            .expect("a number of KiB")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
    }

    /// Ends it as `systemctl stop` does: within 3 s, with status 0 and no mount left.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.signal(Signal::TERM);
        let status = self.ended_within(STOP_LIMIT);
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "SIGTERM ended it with {status:?}"
        );
        assert!(!is_mounted(self.mountpoint()), "the mount is still there");
        began.elapsed()
    }

    /// Waits for its end.
    pub(crate) fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        ended_within(&mut self.child, limit)
    }

    /// Ends it as a crash would; the dead mount stays.
    pub(crate) fn crash(mut self) {
        self.signal(Signal::KILL);
        eventually("SIGKILL ends the daemon", Duration::from_secs(5), || {
            self.child.try_wait().ok().flatten()
        });
        // Dropping it as usual would take away the dead mount that the next start has to meet.
        self.options.mountpoint = PathBuf::new();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        unmount(&self.options.mountpoint);
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the daemon's log:");
            lines
                .iter()
                .skip(lines.len().saturating_sub(60))
                .for_each(|line| eprintln!("  {line}"));
        }
    }
}

/// Whether something is mounted on a path, from the kernel's table: asking the path itself could wait.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let table = fs::read("/proc/self/mountinfo").expect("the kernel's table of mounts");
    table.split(|byte| *byte == b'\n').any(|line| {
        line.split(|byte| *byte == b' ')
            .nth(4)
            .is_some_and(|field| Path::new(&unescaped(field)) == path)
    })
}

/// The table writes space, tab, newline and backslash as octal.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::new();
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = std::str::from_utf8(tail.get(..3).unwrap_or_default()).ok();
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}
