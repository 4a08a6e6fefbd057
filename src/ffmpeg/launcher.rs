//! The one thread that starts every FFmpeg.
//!
//! The kernel kills a child at the end of the *thread* that started it (`PR_SET_PDEATHSIG`), so that thread has to live
//! as long as the daemon; those of a runtime come and go.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::command::{self, FIRST_PIPE, Job, MOST_OUTPUTS};
use super::confinement::Rules;
use super::error::FfmpegError;
use super::process::{Run, Started, look_after};

/// So many starts may wait for the thread; further ones wait to wait.
const WAITING: usize = 16;

/// How runs are started.
#[derive(Debug, Clone)]
pub struct LauncherOptions {
    /// A path, or a name that is looked for in `PATH` at each start, so that it may be installed later.
    pub ffmpeg: PathBuf,
    /// What keeps it in.
    pub confinement: Confinement,
    /// What it may use.
    pub limits: Limits,
}

/// What stands between FFmpeg and the rest of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Confinement {
    /// The path of our own program, which is started as `magnetfs confine …`, gives everything up and becomes FFmpeg.
    Program(PathBuf),
    /// Nothing, not even the end with the daemon: for tests of other rooms, whose process is not our program.
    None,
}

/// What one run may use of the machine; with more than eight outputs, some more for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory. A copying run needs some 60 MB, and more for a large index.
    pub memory: u64,
    /// Open files.
    pub files: u64,
}

/// As many outputs as the usual limits are meant for.
const FEW_OUTPUTS: usize = 8;

/// What each further output may take: the stacks of its decoder, encoder and muxer, of 8 MiB each, which newer FFmpegs
/// run as a thread each.
const OUTPUT_MEMORY: u64 = 32 << 20;

/// Its pipe, and the copy of it that newer FFmpegs make.
const OUTPUT_FILES: u64 = 2;

impl Default for LauncherOptions {
    /// FFmpeg from `PATH`, kept in by the very program that runs now, also when its file has been replaced since.
    fn default() -> Self {
        LauncherOptions {
            ffmpeg: "ffmpeg".into(),
            confinement: Confinement::Program("/proc/self/exe".into()),
            limits: Limits::default(),
        }
    }
}

impl LauncherOptions {
    /// Without confinement: for tests, see [`Confinement::None`].
    pub fn unconfined() -> Self {
        LauncherOptions {
            confinement: Confinement::None,
            ..LauncherOptions::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 512 << 20,
            files: 64,
        }
    }
}

/// Starts FFmpegs. Clones share the thread; it lives as long as any of them, and as any run: a confined run would end
/// with it.
#[derive(Debug, Clone)]
pub struct Launcher {
    options: LauncherOptions,
    orders: Thread,
}

/// Keeps the thread alive.
pub(super) type Thread = mpsc::Sender<Order>;

/// A command to start, and who waits for it.
#[derive(Debug)]
pub(super) struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Started>>,
}

impl Launcher {
    /// Starts the thread; no FFmpeg yet.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(options: LauncherOptions) -> io::Result<Launcher> {
        let (orders, mut received) = mpsc::channel::<Order>(WAITING);
        std::thread::Builder::new()
            .name("ffmpeg-start".to_owned())
            .spawn(move || {
                while let Some(Order { mut command, reply }) = received.blocking_recv() {
                    let started = command.spawn().and_then(look_after);
                    // Its ends of the pipes are closed here, or nobody would ever see the end of an output.
                    drop(command);
                    // Who does not wait any more drops it, which kills it.
                    let _ = reply.send(started);
                }
            })?;
        Ok(Launcher { options, orders })
    }

    /// Starts FFmpeg on a job. Ready within some milliseconds; that FFmpeg cannot open the input is told by its end.
    /// Dropping the future starts nothing, or kills what was started. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// See [`FfmpegError`]; nothing runs then.
    pub async fn run(&self, job: &Job) -> Result<Run, FfmpegError> {
        if !job.input.is_absolute() {
            return Err(FfmpegError::Relative(job.input.clone()));
        }
        if job.outputs.is_empty() || job.outputs.len() > MOST_OUTPUTS {
            return Err(FfmpegError::Outputs(job.outputs.len()));
        }
        let (command, outputs) = self.prepare(job)?;
        let (reply, started) = oneshot::channel();
        let order = Order { command, reply };
        self.orders.send(order).await.map_err(|_| FfmpegError::Stopped)?;
        let started = started.await.map_err(|_| FfmpegError::Stopped)?;
        let started = started.map_err(FfmpegError::Start)?;
        Ok(Run::new(started, outputs, self.orders.clone()))
    }

    fn prepare(&self, job: &Job) -> Result<(Command, Vec<pipe::Receiver>), FfmpegError> {
        let ffmpeg = find(&self.options.ffmpeg).ok_or_else(|| FfmpegError::Missing {
            program: self.options.ffmpeg.clone(),
        })?;
        let mut command = match &self.options.confinement {
            Confinement::Program(program) => {
                let further = job.outputs.len().saturating_sub(FEW_OUTPUTS) as u64;
                let Limits { memory, files } = self.options.limits;
                let rules = Rules {
                    parent: std::process::id(),
                    input: job.input.clone(),
                    memory: memory.saturating_add(further * OUTPUT_MEMORY),
                    files: files.saturating_add(further * OUTPUT_FILES),
                };
                let mut command = Command::new(program);
                command.args(rules.arguments()).arg("--").arg(&ffmpeg);
                command
            }
            Confinement::None => Command::new(&ffmpeg),
        };
        let mut outputs = Vec::with_capacity(job.outputs.len());
        let mut mappings = Vec::with_capacity(job.outputs.len());
        for child_fd in (FIRST_PIPE..).take(job.outputs.len()) {
            let (reader, writer) = io::pipe().map_err(FfmpegError::Start)?;
            outputs.push(pipe::Receiver::from_owned_fd(reader.into()).map_err(FfmpegError::Start)?);
            mappings.push(FdMapping {
                parent_fd: writer.into(),
                child_fd,
            });
        }
        command
            .args(command::arguments(job))
            .current_dir("/")
            .env_clear()
            // Messages in a language that can be searched for, and without colours.
            .env("LC_ALL", "C")
            .env("AV_LOG_FORCE_NOCOLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .fd_mappings(mappings)
            .map_err(|error| FfmpegError::Start(io::Error::other(error)))?;
        Ok((command, outputs))
    }
}

/// Where a program is: itself if it has a slash, else by the search path.
fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
