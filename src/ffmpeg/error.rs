//! Why no FFmpeg could be started.

use std::io;
use std::path::PathBuf;

/// Why a run was not started. How one that was started ended is said by [`Ended`](super::Ended).
#[derive(Debug, thiserror::Error)]
pub enum FfmpegError {
    /// There is no FFmpeg.
    #[error("{} is not there: install the Debian package `ffmpeg` (sudo apt-get install ffmpeg)", program.display())]
    Missing {
        /// What was looked for.
        program: PathBuf,
    },
    /// The input is no absolute path; FFmpeg could take it for an address or an option.
    #[error("FFmpeg is only given absolute paths, not {}", .0.display())]
    Relative(PathBuf),
    /// A run must have outputs, and not more than [`MOST_OUTPUTS`](super::command::MOST_OUTPUTS).
    #[error("a run of FFmpeg cannot have {0} outputs")]
    Outputs(usize),
    /// The system refused a process, a pipe or a thread.
    #[error("FFmpeg could not be started: {0}")]
    Start(#[source] io::Error),
    /// The thread that starts runs has ended.
    #[error("FFmpeg is not started any more")]
    Stopped,
}
