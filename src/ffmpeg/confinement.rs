//! What FFmpeg may still do.

use std::ffi::OsString;
use std::path::PathBuf;

/// What a confined program is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The process that started it, and that it must not outlive.
    pub parent: u32,
    /// The one file that it may read, beside itself and its libraries.
    pub input: PathBuf,
    /// Bytes of memory.
    pub memory: u64,
    /// Open files.
    pub files: u64,
}

impl Rules {
    /// The rules as arguments of our own program.
    pub fn arguments(&self) -> Vec<OsString> {
        let mut input = OsString::from("--input=");
        input.push(&self.input);
        vec![
            "confine".into(),
            format!("--parent={}", self.parent).into(),
            format!("--memory={}", self.memory).into(),
            format!("--files={}", self.files).into(),
            input,
        ]
    }
}
