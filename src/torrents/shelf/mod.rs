//! The library on disk: which torrents there are, their metainfo and options. No engine, no network.
//!
//! ```text
//! DATA/lock                     held by the daemon, and says who that is
//! DATA/next-number              no torrent has had this number or a higher one
//! DATA/torrents/<info hash>/    metainfo.torrent (not while a magnet is unresolved), options.json, have (the store's),
//!                               peers.json (whom to try first; nothing is lost with it)
//! DATA/files/<info hash>/<path> the data
//! DATA/files/<info hash>.have   the have-map of data whose torrent was removed; it waits for the torrent to come again
//! DATA/engine/                  the engine's own
//! DATA/broken/                  what made no sense at a start, for a person to look at
//! ```
//!
//! What was acknowledged survives a crash, a power cut and a full disk: a file is written beside its place, synced,
//! renamed into it, and the directory is synced before the caller hears of it. A torrent comes and goes by the rename of
//! its folder. Names that begin with a dot are on the way in or out, and are cleaned up at the next start.

mod disk;
mod error;
#[cfg(test)]
mod faults;
mod holder;
mod load;
mod options;
mod start;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::warn;

use super::info_hash::InfoHash;
use super::metainfo::{Metainfo, MetainfoError};
use super::names::NUMBER_LIMIT;
use disk::Disk;
pub use error::ShelfError;
pub use holder::Holder;
pub use options::Options;

const LOCK: &str = "lock";
const NEXT_NUMBER: &str = "next-number";
const TORRENTS: &str = "torrents";
const FILES: &str = "files";
const ENGINE: &str = "engine";
const BROKEN: &str = "broken";
const METAINFO: &str = "metainfo.torrent";
const OPTIONS: &str = "options.json";
const HAVE: &str = "have";
const PEERS: &str = "peers.json";
/// Peers remembered of one torrent.
const PEERS_LIMIT: usize = 256;
/// A torrent's folder on its way in.
const COMING: &str = ".new-";
/// A folder on its way out.
const GOING: &str = ".gone-";
/// Likewise, and the torrent's data goes with it.
const GOING_WITH_DATA: &str = ".gone-data-";

/// The state of one library on disk. Every method may wait for the disk. Dropping it gives the data directory free.
#[derive(Debug)]
pub struct Shelf {
    data_dir: PathBuf,
    disk: Disk,
    /// The next number to be given out. The lock is held over every change, so that none meets another halfway.
    next_number: Mutex<u64>,
    _lock: File,
}

/// A torrent as it was found at a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its options.
    pub options: Options,
    /// `None` while the magnet is unresolved.
    pub metainfo: Option<Metainfo>,
}

impl Shelf {
    /// Takes a data directory (made if it is not there), cleans up after a crash and reads what is in it, in the order
    /// in which it was added. A torrent's folder that makes no sense is moved to `broken`, and one that cannot be read
    /// is left alone: both are logged, and hinder no other.
    ///
    /// # Errors
    /// [`ShelfError::Held`] if another daemon has it, or it cannot be made or read.
    pub fn open(data_dir: &Path, holder: &Holder) -> Result<(Shelf, Vec<Shelved>), ShelfError> {
        start::open(data_dir, holder, Disk::default())
    }

    /// A number that no torrent of this library has had. It is used up, whatever becomes of it.
    ///
    /// # Errors
    /// It cannot be made sure, on disk, that nobody gets it again.
    pub fn allocate_number(&self) -> Result<u64, ShelfError> {
        let mut next = self.next_number.lock();
        let number = *next;
        if number >= NUMBER_LIMIT {
            return Err(ShelfError::Numbers);
        }
        let path = self.data_dir.join(NEXT_NUMBER);
        let text = format!("{}\n", number + 1);
        self.disk
            .replace(&path, text.as_bytes())
            .map_err(|error| self.error("write", &path, error))?;
        *next = number + 1;
        Ok(number)
    }

    /// Takes a torrent in, durably. `metainfo` is the whole .torrent; `None` for a magnet to be resolved.
    ///
    /// # Errors
    /// It is there already, the metainfo is bad or of another torrent, or the disk refuses.
    pub fn put(&self, info_hash: InfoHash, metainfo: Option<&[u8]>, options: &Options) -> Result<(), ShelfError> {
        metainfo.map(|bytes| check_metainfo(info_hash, bytes)).transpose()?;
        let _changes = self.next_number.lock();
        let (torrents, place) = (self.torrents_dir(), self.torrent_dir(info_hash));
        if place.exists() {
            return Err(ShelfError::Known { info_hash });
        }
        let coming = torrents.join(format!("{COMING}{info_hash}"));
        let disk = &self.disk;
        let write = || {
            disk.remove(&coming)?;
            disk.create_dir(&coming)?;
            disk.write(&coming.join(OPTIONS), &json(options)?)?;
            if let Some(bytes) = metainfo {
                disk.write(&coming.join(METAINFO), bytes)?;
            }
            disk.sync_dir(&coming)?;
            disk.rename(&coming, &place)?;
            disk.sync_dir(&torrents).inspect_err(|_| {
                // As far as anybody knows it was never there.
                let _ = disk.rename(&place, &coming).and_then(|()| disk.sync_dir(&torrents));
            })
        };
        write().map_err(|error| {
            // What is left of it is removed at the next start.
            let _ = disk.remove(&coming);
            self.error("write", &place, error)
        })?;
        let kept = self.kept_have_path(info_hash);
        // Without it the data would be fetched again, which is all that is lost if this fails.
        if kept.exists()
            && let Err(error) = disk.rename(&kept, &place.join(HAVE))
        {
            warn!(%info_hash, %error, "the map of the kept data is lost");
        }
        Ok(())
    }

    /// Stores the metainfo of a torrent that came as a magnet, durably.
    ///
    /// # Errors
    /// The torrent is not there, the metainfo is bad or of another torrent, or the disk refuses.
    pub fn set_metainfo(&self, info_hash: InfoHash, bytes: &[u8]) -> Result<(), ShelfError> {
        check_metainfo(info_hash, bytes)?;
        self.replace(info_hash, METAINFO, bytes)
    }

    /// Stores the options of a torrent, durably.
    ///
    /// # Errors
    /// The torrent is not there, or the disk refuses.
    pub fn set_options(&self, info_hash: InfoHash, options: &Options) -> Result<(), ShelfError> {
        let json = json(options).map_err(|error| self.error("write", &self.torrent_dir(info_hash), error))?;
        self.replace(info_hash, OPTIONS, &json)
    }

    /// Stores whom to try first when the torrent is read from again, durably; at most 256 of them.
    ///
    /// # Errors
    /// The torrent is not there, or the disk refuses.
    pub fn set_peers(&self, info_hash: InfoHash, peers: &[SocketAddr]) -> Result<(), ShelfError> {
        let peers = &peers[..peers.len().min(PEERS_LIMIT)];
        let json = serde_json::to_vec(peers).map_err(io::Error::from);
        let json = json.map_err(|error| self.error("write", &self.torrent_dir(info_hash), error))?;
        self.replace(info_hash, PEERS, &json)
    }

    /// Whom to try first; nobody if nothing was stored, or nothing that makes sense.
    pub fn peers(&self, info_hash: InfoHash) -> Vec<SocketAddr> {
        load::read_peers(&self.torrent_dir(info_hash).join(PEERS), PEERS_LIMIT)
    }

    /// Takes a torrent out, durably, with its data or not. Data that is kept is found again if the torrent is put back
    /// later. The data of a large torrent takes seconds to delete; what a
    /// crash or a fault leaves of it is deleted after the next start.
    ///
    /// # Errors
    /// The torrent is not there, or the disk refuses.
    pub fn remove(&self, info_hash: InfoHash, delete_data: bool) -> Result<(), ShelfError> {
        let changes = self.next_number.lock();
        let (torrents, place) = (self.torrents_dir(), self.torrent_dir(info_hash));
        if !place.exists() {
            return Err(ShelfError::Unknown { info_hash });
        }
        let mark = if delete_data { GOING_WITH_DATA } else { GOING };
        let going = unused(&torrents, &format!("{mark}{info_hash}"));
        let leave = || {
            self.disk.rename(&place, &going)?;
            self.disk.sync_dir(&torrents).inspect_err(|_| {
                // It is still there, as the caller is about to hear.
                let _ = self
                    .disk
                    .rename(&going, &place)
                    .and_then(|()| self.disk.sync_dir(&torrents));
            })
        };
        leave().map_err(|error| self.error("remove", &place, error))?;
        let data = if delete_data {
            self.detach_data(info_hash)
        } else {
            // Without it the data would be fetched again, which is all that is lost if this fails.
            let have = going.join(HAVE);
            let kept = self.files_dir(info_hash).exists() && have.exists();
            if kept && let Err(error) = self.disk.rename(&have, &self.kept_have_path(info_hash)) {
                warn!(%info_hash, %error, "the map of the kept data is lost");
            }
            Ok(None)
        };
        // From here on the torrent may come anew.
        drop(changes);
        let deleted = data.and_then(|data| data.map_or(Ok(()), |data| self.disk.remove(&data)));
        // The folder goes last: it is what a start knows the data by.
        if let Err(error) = deleted.and_then(|()| self.disk.remove(&going)) {
            warn!(%info_hash, %error, "not all of a removed torrent could be deleted; the next start tries again");
        }
        Ok(())
    }

    /// Where a torrent's metainfo, options and have-map lie.
    pub fn torrent_dir(&self, info_hash: InfoHash) -> PathBuf {
        self.torrents_dir().join(info_hash.to_string())
    }

    /// Where a torrent's data lies, once there is any.
    pub fn files_dir(&self, info_hash: InfoHash) -> PathBuf {
        self.data_dir.join(FILES).join(info_hash.to_string())
    }

    /// A torrent's .torrent, once there is one.
    pub fn metainfo_path(&self, info_hash: InfoHash) -> PathBuf {
        self.torrent_dir(info_hash).join(METAINFO)
    }

    /// A torrent's have-map, which is the store's to make and to read.
    pub fn have_path(&self, info_hash: InfoHash) -> PathBuf {
        self.torrent_dir(info_hash).join(HAVE)
    }

    fn kept_have_path(&self, info_hash: InfoHash) -> PathBuf {
        self.data_dir.join(FILES).join(format!("{info_hash}.have"))
    }

    /// A folder for the engine's own state. Nothing in it is needed to start again.
    pub fn engine_dir(&self) -> PathBuf {
        self.data_dir.join(ENGINE)
    }

    fn torrents_dir(&self) -> PathBuf {
        self.data_dir.join(TORRENTS)
    }

    fn replace(&self, info_hash: InfoHash, file: &str, bytes: &[u8]) -> Result<(), ShelfError> {
        let _changes = self.next_number.lock();
        let place = self.torrent_dir(info_hash);
        if !place.exists() {
            return Err(ShelfError::Unknown { info_hash });
        }
        let path = place.join(file);
        self.disk
            .replace(&path, bytes)
            .map_err(|error| self.error("write", &path, error))
    }

    /// Moves a torrent's data, if there is any, to where nobody takes it for a torrent's.
    fn detach_data(&self, info_hash: InfoHash) -> io::Result<Option<PathBuf>> {
        let (files, place) = (self.data_dir.join(FILES), self.files_dir(info_hash));
        if !place.exists() {
            return Ok(None);
        }
        let going = unused(&files, &format!("{GOING}{info_hash}"));
        self.disk.rename(&place, &going)?;
        self.disk.sync_dir(&files)?;
        Ok(Some(going))
    }

    fn error(&self, action: &'static str, path: &Path, source: io::Error) -> ShelfError {
        ShelfError::new(&self.data_dir, action, path, source)
    }
}

fn check_metainfo(expected: InfoHash, bytes: &[u8]) -> Result<(), MetainfoError> {
    match Metainfo::parse(bytes)?.info_hash {
        found if found == expected => Ok(()),
        found => Err(MetainfoError::InfoHash { found, expected }),
    }
}

fn json(options: &Options) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(options)?)
}

/// A path in a directory that nothing has: this name, or with a number.
fn unused(dir: &Path, name: &str) -> PathBuf {
    let numbered = (2u64..).map(|number| format!("{name}.{number}"));
    let paths = std::iter::once(name.to_owned())
        .chain(numbered)
        .map(|name| dir.join(name));
    // A directory is finite.
    paths
        .into_iter()
        .find(|path| fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| dir.join(name))
}
