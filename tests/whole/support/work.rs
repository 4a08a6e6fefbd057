//! The directories of one test.

use std::path::{Path, PathBuf};

/// A test's own directories, removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    directory: tempfile::TempDir,
    /// Unix sockets live in short paths only.
    runtime: tempfile::TempDir,
}

impl Work {
    /// Makes them: on the disk of the build directory, since data there can be large, and the sockets where
    /// temporary files go.
    pub(crate) fn new() -> Self {
        let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
        Self {
            directory: tempfile::Builder::new().prefix("work-").tempdir_in(disk).expect("a directory for the test"),
            runtime: tempfile::Builder::new().prefix("magnetfs-test-").tempdir().expect("a directory for sockets"),
        }
    }

    /// Where everything of the test lies.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A directory in it, made when it is not there.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(&path).expect("a directory in the test's own");
        path
    }

    /// A short path for a socket.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.runtime.path().join(name)
    }
}
