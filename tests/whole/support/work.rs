//! The directories of one test.

use std::path::{Path, PathBuf};

use super::limit::unmount;

/// A test's own directories, removed when it is dropped, with all that is mounted below.
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
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// Makes them where any user can reach what is given to him, which the build directory need not be.
    pub(crate) fn public() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(directory: &Path) -> Self {
        let named = tempfile::Builder::new().prefix("magnetfs-test-").tempdir_in(directory);
        Self {
            directory: named.expect("a directory for the test"),
            runtime: tempfile::Builder::new()
                .prefix("magnetfs-test-")
                .tempdir()
                .expect("a directory for sockets"),
        }
    }

    /// Where everything of the test lies.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What is mounted below, from the kernel's table: a crashed daemon leaves its mount.
    pub(crate) fn mounts(&self) -> Vec<PathBuf> {
        let table = std::fs::read_to_string("/proc/self/mountinfo").expect("the kernel's table of mounts");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let points = points.map(PathBuf::from);
        points.filter(|point| point.starts_with(self.path())).collect()
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

impl Drop for Work {
    fn drop(&mut self) {
        self.mounts().iter().for_each(|mount| unmount(mount));
    }
}
