//! A mount over a fake catalog, and the child processes that read from it. This process serves the mount, so it never
//! opens, nor even looks at, a path below it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use magnetfs_mount::{Mount, MountOptions};
use parking_lot::Mutex;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::fake::{Fake, FakeFile, bytes};

/// What a test that takes too long leaves behind, by the thread that its body runs on.
static LEFT_BEHIND: Mutex<Option<HashMap<ThreadId, Vec<Left>>>> = Mutex::new(None);

enum Left {
    Process(Pid),
    Mount(PathBuf),
}

fn leave(left: Left) {
    LEFT_BEHIND
        .lock()
        .get_or_insert_default()
        .entry(std::thread::current().id())
        .or_default()
        .push(left);
}

/// Runs the body of a test and fails it if it takes longer; then its children are killed and its mounts detached, so
/// that nothing is left hanging. Bodies start children and mounts from their own thread only.
pub(crate) fn limit(seconds: u64, body: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(body));
        done.send(result).expect("the test waits for its body");
    });
    match wait.recv_timeout(Duration::from_secs(seconds)) {
        Ok(Ok(())) => {}
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => {
            for left in LEFT_BEHIND
                .lock()
                .get_or_insert_default()
                .remove(&thread.thread().id())
                .into_iter()
                .flatten()
            {
                match left {
                    // Both fail for what is gone already.
                    Left::Process(process) => drop(rustix::process::kill_process(process, Signal::KILL)),
                    Left::Mount(path) => drop(rustix::mount::unmount(path, UnmountFlags::DETACH)),
                }
            }
            panic!("the test took longer than {seconds} s");
        }
    }
}

/// Waits for something that must become true soon.
#[track_caller]
pub(crate) fn soon(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(5), condition), "not within 5 s: {what}");
}

/// Watches that something stays true for a while.
#[track_caller]
pub(crate) fn stays(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    assert!(!within(time, || !condition()), "it did not stay so: {what}");
}

pub(crate) fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    while !condition() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

/// A mount point that is gone, and unmounted, when it is dropped.
pub(crate) struct MountPoint {
    pub(crate) path: PathBuf,
    /// For files beside the mount point.
    pub(crate) beside: TempDir,
}

impl MountPoint {
    pub(crate) fn new() -> MountPoint {
        let beside = tempfile::tempdir().unwrap();
        let path = beside.path().join("mount point");
        std::fs::create_dir(&path).unwrap();
        leave(Left::Mount(path.clone()));
        MountPoint { path, beside }
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        // Until there is nothing to unmount: the folder is removed afterwards by this process, which must not look into
        // a mount of its own.
        while rustix::mount::unmount(&self.path, UnmountFlags::DETACH).is_ok() {}
    }
}

/// The options that the program has by default.
pub(crate) fn options(point: &MountPoint) -> MountOptions {
    MountOptions {
        mountpoint: point.path.clone(),
        allow_other: false,
        uid: None,
        gid: None,
        umask: 0o022,
        read_deadline: Duration::from_secs(60),
        read_ceiling: Duration::from_secs(600),
    }
}

/// A served mount over a fake catalog. What is dropped first comes first.
pub(crate) struct Server {
    pub(crate) mount: Option<Mount>,
    pub(crate) point: MountPoint,
    pub(crate) fake: Arc<Fake>,
    pub(crate) runtime: Runtime,
}

impl Server {
    pub(crate) fn new() -> Server {
        Server::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut MountOptions)) -> Server {
        let point = MountPoint::new();
        let mut options = options(&point);
        change(&mut options);
        let (fake, runtime) = (Fake::new(), runtime());
        let mount = Mount::start(fake.clone(), options, runtime.handle().clone()).unwrap();
        Server {
            mount: Some(mount),
            point,
            fake,
            runtime,
        }
    }

    /// The path of a shown file. Only for children.
    pub(crate) fn path(&self, name: &str) -> String {
        self.point.path.join(name).into_os_string().into_string().unwrap()
    }

    /// A file beside the mount with the bytes that the fake file has.
    pub(crate) fn reference(&self, file: &FakeFile) -> PathBuf {
        let path = self.point.beside.path().join(format!("reference-{}", file.inode));
        std::fs::write(&path, bytes(file.inode, 0, file.size as usize)).unwrap();
        path
    }

    pub(crate) fn mount(&self) -> &Mount {
        self.mount.as_ref().unwrap()
    }
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// A child process; killed and reaped when it is dropped.
pub(crate) struct Running {
    child: Child,
    output: File,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) status: ExitStatus,
    /// What it wrote, on either stream.
    pub(crate) output: Vec<u8>,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{}: {}", self.status, self.text());
        self.text()
    }
}

/// Starts a program that ignores no signal. Tests that run in the background or under nohup(1) ignore some, and what they
/// start would inherit it.
pub(crate) fn start(program: &str, arguments: &[&str]) -> Running {
    start_command(Command::new("env").arg("--default-signal").arg(program).args(arguments))
}

pub(crate) fn start_command(command: &mut Command) -> Running {
    let output = tempfile::tempfile().unwrap();
    let child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output.try_clone().unwrap())
        .spawn()
        .unwrap();
    leave(Left::Process(Pid::from_child(&child)));
    Running { child, output }
}

/// Runs a program that must end within ten seconds.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Done {
    start(program, arguments).end_within(Duration::from_secs(10))
}

pub(crate) fn sh(script: &str, arguments: &[&str]) -> Done {
    run("sh", &[&["-c", script, "sh"], arguments].concat())
}

/// A Python of the system, which starts quicker than one behind a version manager.
pub(crate) fn start_python(script: &str, arguments: &[&str]) -> Running {
    let system = "/usr/bin/python3";
    let program = if Path::new(system).exists() { system } else { "python3" };
    start(program, &[&["-S", "-c", script], arguments].concat())
}

pub(crate) fn python(script: &str, arguments: &[&str]) -> Done {
    start_python(script, arguments).end_within(Duration::from_secs(10))
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What the kernel says of what it does: its state, its signals, and (for root) where in the kernel it is.
    fn whereabouts(&self) -> String {
        let of = |name: &str| std::fs::read_to_string(format!("/proc/{}/{name}", self.id())).unwrap_or_default();
        of("status") + &of("wchan") + "\n" + &of("stack")
    }

    pub(crate) fn output(&self) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut output = vec![0; self.output.metadata().unwrap().len() as usize];
        self.output.read_exact_at(&mut output, 0).unwrap();
        output
    }

    #[track_caller]
    pub(crate) fn end_within(mut self, time: Duration) -> Done {
        let ended = within(time, || !self.is_running());
        assert!(
            ended,
            "{} still runs after {time:?}: {}\n{}",
            self.id(),
            String::from_utf8_lossy(&self.output()),
            self.whereabouts()
        );
        Done {
            status: self.child.wait().unwrap(),
            output: self.output(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails if the child was waited for already.
        let _ = self.child.kill();
        within(Duration::from_secs(2), || !matches!(self.child.try_wait(), Ok(None)));
    }
}

/// Whether the child was ended by this signal.
pub(crate) fn ended_by(done: &Done, signal: Signal) -> bool {
    done.status.signal() == Some(signal.as_raw())
}

/// The whole of a small file of /proc or /sys.
pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let mut text = String::new();
    File::open(path).unwrap().read_to_string(&mut text).unwrap();
    text
}
