//! The few changes that the shelf makes to the disk. Each is a step after which a crash may come; a test can make any
//! of them the last, or make any of them fail.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Default)]
pub(super) struct Disk {
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

impl Disk {
    /// Makes a file of these bytes, or makes it anew. The bytes are durable, its name is not.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        #[cfg(test)]
        self.faults.created(path);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        self.step()?;
        file.write_all(bytes)?;
        self.step()?;
        file.sync_all()
    }

    /// Renames within one file system; what stood there is replaced. Not durable before both directories are synced.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        #[cfg(test)]
        self.faults.renamed(from, to);
        fs::rename(from, to)
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        File::open(dir)?.sync_all()?;
        #[cfg(test)]
        self.faults.synced(dir);
        Ok(())
    }

    /// Makes a directory, for its owner alone.
    pub(super) fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.step()?;
        #[cfg(test)]
        self.faults.created(dir);
        DirBuilder::new().mode(0o700).create(dir)
    }

    /// Removes a file or a folder with all that it holds. Nothing there is fine too.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        let removed = match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces a file as a whole: after a crash it is the old or the new one. If this fails, it is the old one, unless
    /// power fails too.
    pub(super) fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (new, dir) = (half_written(path), path.parent().unwrap_or(path));
        let replace = || {
            let old = match fs::read(path) {
                Ok(old) => Some(old),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            self.write(&new, bytes)?;
            self.rename(&new, path)?;
            self.sync_dir(dir).inspect_err(|_| {
                let restored = match old {
                    Some(old) => self.write(&new, &old).and_then(|()| self.rename(&new, path)),
                    None => self.remove(path),
                };
                let _ = restored.and_then(|()| self.sync_dir(dir));
            })
        };
        replace().inspect_err(|_| {
            // What is left of it is removed at the next start.
            let _ = self.remove(&new);
        })
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.faults.step()
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests make a step fail")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The file that is about to replace this one.
pub(super) fn half_written(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
