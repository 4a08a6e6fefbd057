//! Taking a data directory: what a crash left is cleaned up, what makes no sense is set aside.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

use parking_lot::Mutex;
use tracing::{error, warn};

use super::disk::{Disk, half_written};
use super::load::{Loaded, load_all, read_next_number};
use super::{
    BROKEN, COMING, ENGINE, FILES, GOING, GOING_WITH_DATA, Holder, LOCK, METAINFO, NEXT_NUMBER, OPTIONS, PEERS, Shelf,
    ShelfError, Shelved, TORRENTS, holder, unused,
};
use crate::torrents::info_hash::InfoHash;

pub(super) fn open(data_dir: &Path, holder: &Holder, disk: Disk) -> Result<(Shelf, Vec<Shelved>), ShelfError> {
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| ShelfError::new(data_dir, action, &path, source)
    };
    // For its owner alone: what somebody watches is nobody else's business.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(failed("make", data_dir))?;
    let lock = holder::lock(data_dir, &data_dir.join(LOCK), holder)?;
    let folders = [TORRENTS, FILES, ENGINE].map(|name| data_dir.join(name));
    let missing: Vec<_> = folders.iter().filter(|folder| !folder.is_dir()).collect();
    for folder in &missing {
        disk.create_dir(folder).map_err(failed("make", folder))?;
    }
    if !missing.is_empty() {
        disk.sync_dir(data_dir).map_err(failed("write", data_dir))?;
    }

    let torrents = data_dir.join(TORRENTS);
    let mut shelf = Shelf {
        data_dir: data_dir.to_owned(),
        disk,
        next_number: Mutex::new(0),
        _lock: lock,
    };
    let names = names_in(&torrents).map_err(failed("read", &torrents))?;
    shelf.clean_up(&names);
    let info_hashes: Vec<InfoHash> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let mut next_number = shelf.next_number(&data_dir.join(NEXT_NUMBER))?;
    let mut sound = Vec::with_capacity(info_hashes.len());
    for loaded in load_all(&torrents, &info_hashes) {
        match loaded {
            Loaded::Sound(shelved) => {
                next_number = next_number.max(shelved.options.number + 1);
                sound.push(*shelved);
            }
            Loaded::Broken { info_hash, why } => shelf.set_aside(info_hash, &why),
            Loaded::Unreadable { info_hash, error } => {
                error!(%info_hash, %error, "a torrent cannot be read; it is not shown until a start that can");
            }
        }
    }
    *shelf.next_number.get_mut() = next_number;
    Ok((shelf, sound))
}

fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    // A name that is not UTF-8 is none of ours.
    fs::read_dir(dir)?
        .filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose())
        .collect()
}

impl Shelf {
    fn next_number(&self, path: &Path) -> Result<u64, ShelfError> {
        match read_next_number(path) {
            Ok(Some(number)) => Ok(number),
            Ok(None) => {
                if path.exists() {
                    warn!(path = %path.display(), "makes no sense: numbering goes on after the highest that is in use");
                }
                Ok(0)
            }
            // To go on without it could give a file's inode number to another.
            Err(error) => Err(self.error("read", path, error)),
        }
    }

    /// Ends what a crash interrupted. Nothing here is worth failing for: what cannot be removed is tried again at the
    /// next start, and never shown.
    fn clean_up(&self, names: &[String]) {
        for name in names {
            let path = self.torrents_dir().join(name);
            let cleaned = if let Some(rest) = name.strip_prefix(GOING_WITH_DATA) {
                self.finish_removal(rest).and_then(|()| self.disk.remove(&path))
            } else if name.starts_with(COMING) || name.starts_with(GOING) {
                self.disk.remove(&path)
            } else if name.parse::<InfoHash>().is_ok() {
                let left = [METAINFO, OPTIONS, PEERS].map(|file| half_written(&path.join(file)));
                left.iter()
                    .filter(|path| path.exists())
                    .try_for_each(|path| self.disk.remove(path))
            } else {
                warn!(path = %path.display(), "is none of ours");
                Ok(())
            };
            if let Err(error) = cleaned {
                warn!(path = %path.display(), %error, "cannot be cleaned up");
            }
        }
        let files = self.data_dir.join(FILES);
        let going = names_in(&files)
            .unwrap_or_default()
            .into_iter()
            .filter(|name| name.starts_with(GOING));
        let going: Vec<PathBuf> = going.map(|name| files.join(name)).collect();
        if going.is_empty() {
            return;
        }
        // Deleting a large torrent takes seconds, and nobody waits for it: it ends with the process at the latest, and
        // then the next start goes on.
        let deleting = thread::Builder::new().name("delete-data".to_owned()).spawn(move || {
            for path in going {
                if let Err(error) = fs::remove_dir_all(&path) {
                    warn!(path = %path.display(), %error, "cannot be deleted");
                }
            }
        });
        if let Err(error) = deleting {
            warn!(%error, "deleted data stays until the next start");
        }
    }

    /// Detaches the data of a torrent that was removed with it, unless the torrent has come again since: then its data
    /// had been detached before, and this is new.
    fn finish_removal(&self, name: &str) -> io::Result<()> {
        let Some(info_hash) = name.get(..40).and_then(|hash| hash.parse::<InfoHash>().ok()) else {
            return Ok(());
        };
        if !self.torrent_dir(info_hash).exists() {
            self.detach_data(info_hash)?;
        }
        Ok(())
    }

    fn set_aside(&self, info_hash: InfoHash, why: &str) {
        let (from, broken) = (self.torrent_dir(info_hash), self.data_dir.join(BROKEN));
        let to = unused(&broken, &info_hash.to_string());
        let make = || {
            if broken.is_dir() {
                Ok(())
            } else {
                self.disk.create_dir(&broken)
            }
        };
        match make().and_then(|()| self.disk.rename(&from, &to)) {
            Ok(()) => error!(%info_hash, why, moved_to = %to.display(), "a torrent's folder makes no sense"),
            Err(error) => error!(%info_hash, why, %error, "a torrent's folder makes no sense and cannot be moved"),
        }
    }
}
