//! Reading the shelf at a start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use parking_lot::Mutex;

use super::{METAINFO, OPTIONS, Options, Shelved};
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::{METAINFO_LIMIT, Metainfo, is_plain_name};
use crate::torrents::names::NUMBER_LIMIT;

/// No options are larger, in bytes: the lists in them are limited.
const OPTIONS_LIMIT: usize = 4 << 20;
/// No list of peers is larger, in bytes.
const PEERS_FILE_LIMIT: usize = 64 << 10;
/// Parsing is quick enough that more threads would wait for the disk.
const THREADS_LIMIT: usize = 4;

/// What became of one torrent's folder.
#[derive(Debug)]
pub(super) enum Loaded {
    Sound(Box<Shelved>),
    /// What is there makes no sense.
    Broken {
        info_hash: InfoHash,
        why: String,
    },
    /// It could not be read now; that may pass.
    Unreadable {
        info_hash: InfoHash,
        error: io::Error,
    },
}

/// Reads the folders of these torrents, several at a time, and sorts out those that contradict each other. The sound
/// ones come first, by number.
pub(super) fn load_all(torrents_dir: &Path, info_hashes: &[InfoHash]) -> Vec<Loaded> {
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(THREADS_LIMIT);
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::with_capacity(info_hashes.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(info_hash) = info_hashes.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let loaded = load(&torrents_dir.join(info_hash.to_string()), *info_hash);
                    all.lock().push(loaded);
                }
            });
        }
    });
    let mut all = all.into_inner();
    all.sort_by_key(|loaded| match loaded {
        Loaded::Sound(shelved) => (shelved.options.number, shelved.info_hash),
        Loaded::Broken { info_hash, .. } | Loaded::Unreadable { info_hash, .. } => (u64::MAX, *info_hash),
    });
    let (mut numbers, mut names) = (HashSet::new(), HashSet::new());
    for loaded in &mut all {
        let Loaded::Sound(shelved) = loaded else { continue };
        let name = shelved.options.shown_name.clone();
        let name = name.or_else(|| shelved.metainfo.as_ref().map(|metainfo| metainfo.name.clone()));
        let same_name = name.is_some_and(|name| !names.insert(name));
        if !numbers.insert(shelved.options.number) || same_name {
            let why = "another torrent has its number or name".to_owned();
            *loaded = Loaded::Broken {
                info_hash: shelved.info_hash,
                why,
            };
        }
    }
    all
}

enum Failure {
    Broken(String),
    Unreadable(io::Error),
}

fn load(dir: &Path, info_hash: InfoHash) -> Loaded {
    match try_load(dir, info_hash) {
        Ok(shelved) => Loaded::Sound(Box::new(shelved)),
        Err(Failure::Broken(why)) => Loaded::Broken { info_hash, why },
        Err(Failure::Unreadable(error)) => Loaded::Unreadable { info_hash, error },
    }
}

fn try_load(dir: &Path, info_hash: InfoHash) -> Result<Shelved, Failure> {
    let options = read(&dir.join(OPTIONS), OPTIONS_LIMIT)?;
    let options = options.ok_or_else(|| Failure::Broken(format!("it has no {OPTIONS}")))?;
    let options: Options =
        serde_json::from_slice(&options).map_err(|error| Failure::Broken(format!("{OPTIONS}: {error}")))?;
    if options.number >= NUMBER_LIMIT {
        return Err(Failure::Broken(format!("{OPTIONS}: the number is out of range")));
    }
    if options.shown_name.as_ref().is_some_and(|name| !is_plain_name(name)) {
        return Err(Failure::Broken(format!("{OPTIONS}: the shown name is no file name")));
    }
    let metainfo = match read(&dir.join(METAINFO), METAINFO_LIMIT)? {
        None => None,
        Some(bytes) => Some(Metainfo::parse(&bytes).map_err(|error| Failure::Broken(format!("{METAINFO}: {error}")))?),
    };
    if let Some(found) = metainfo
        .as_ref()
        .map(|metainfo| metainfo.info_hash)
        .filter(|found| *found != info_hash)
    {
        return Err(Failure::Broken(format!(
            "{METAINFO}: it is of another torrent, {found}"
        )));
    }
    Ok(Shelved {
        info_hash,
        options,
        metainfo,
    })
}

/// A file as a whole, if it is there.
fn read(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::Unreadable(error)),
    };
    let size = file
        .metadata()
        .map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(usize::MAX));
    let mut bytes = Vec::with_capacity(size.min(limit) + 1);
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Failure::Unreadable)?;
    if bytes.len() > limit {
        return Err(Failure::Broken(format!("{path:?} is larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// The peers in a file, none if it makes no sense: they are worth a quick start and no more.
pub(super) fn read_peers(path: &Path, limit: usize) -> Vec<SocketAddr> {
    let Ok(Some(bytes)) = read(path, PEERS_FILE_LIMIT) else {
        return Vec::new();
    };
    let mut peers: Vec<SocketAddr> = serde_json::from_slice(&bytes).unwrap_or_default();
    peers.truncate(limit);
    peers
}

/// The highest number that was written down as used, plus one.
pub(super) fn read_next_number(path: &Path) -> io::Result<Option<u64>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => Ok(None),
        Err(error) => Err(error),
    }
}
