//! One FFmpeg: its arguments, its confinement, its life and its end. Knows nothing of the other rooms.
//!
//! - [`command`]: what FFmpeg is told; pure
//! - [`launcher`]: the one thread that starts them all
//! - [`process`]: one that runs
//! - [`confinement`]: what it may still do once it parses a stranger's file

pub mod command;
pub mod confinement;
mod error;
pub mod launcher;
pub mod process;

pub use command::{Encoding, Job, Output, Start, arguments};
pub use error::FfmpegError;
pub use launcher::{Confinement, Launcher, LauncherOptions, Limits};
pub use process::{Ended, Run};

#[cfg(test)]
mod tests;
