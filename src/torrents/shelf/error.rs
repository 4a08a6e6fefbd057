//! Why the shelf refuses.

use std::io;
use std::path::{Path, PathBuf};

use super::Holder;
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::MetainfoError;

/// Why the library's state on disk could not be read or changed. After an error of a change, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// Another daemon has the data directory.
    #[error("{}", held(.data_dir, .holder.as_ref()))]
    Held {
        /// The data directory.
        data_dir: PathBuf,
        /// Who has it; `None` if it does not say.
        holder: Option<Holder>,
    },
    /// No room, or no quota left.
    #[error("the data directory {data_dir:?} is full ({source}): free some space there")]
    Full {
        /// The data directory.
        data_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Anything else that goes wrong with files.
    #[error("cannot {action} {path:?} in the data directory {data_dir:?}: {source}")]
    Disk {
        /// What was tried.
        action: &'static str,
        /// With what, relative to the data directory.
        path: PathBuf,
        /// The data directory.
        data_dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The torrent is there already.
    #[error("the torrent {info_hash} is in the library already")]
    Known {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// The torrent is not there.
    #[error("the torrent {info_hash} is not in the library")]
    Unknown {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// What should be stored as metainfo is none.
    #[error(transparent)]
    Metainfo(#[from] MetainfoError),
    /// 2^40 torrents were added.
    #[error("the library has used up its inode numbers: begin another data directory")]
    Numbers,
}

impl ShelfError {
    pub(super) fn new(data_dir: &Path, action: &'static str, path: &Path, source: io::Error) -> ShelfError {
        let data_dir = data_dir.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ShelfError::Full { data_dir, source },
            _ => {
                let path = path.strip_prefix(&data_dir).unwrap_or(path).to_owned();
                ShelfError::Disk {
                    action,
                    path,
                    data_dir,
                    source,
                }
            }
        }
    }
}

fn held(data_dir: &Path, holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder {
            pid,
            mountpoint,
            socket,
        }) => format!(
            "the data directory {data_dir:?} is mounted at {mountpoint:?} already (process {pid}): \
             `magnetfs add --socket '{}' SOURCE` adds to it, or name another --data-dir",
            socket.display()
        ),
        None => format!(
            "the data directory {data_dir:?} is in use by another magnetfs: `magnetfs add SOURCE` adds to it, or name \
             another --data-dir"
        ),
    }
}
