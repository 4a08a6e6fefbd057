//! Indexes that were read once, kept on disk for ever: a film is then there at once, without a byte of it, also when its
//! torrent was removed and comes back.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};

use super::shelf::{Bounds, Shelf};
use super::source::{FileName, shelf_mark};
use crate::media::Index;

/// Of what an index holds; another number and what is kept is read anew.
const VERSION: u32 = 2;

/// The indexes on disk; the least recently used go first when their bytes exceed the limit. All calls may wait for the
/// disk, and for nothing else.
#[derive(Debug)]
pub(super) struct Probes {
    shelf: Shelf,
}

#[derive(Serialize, Deserialize)]
struct Probe {
    version: u32,
    info_hash: String,
    path: String,
    size: u64,
    index: Index,
}

impl Probes {
    /// # Errors
    /// The directory cannot be made or listed.
    pub(super) fn open(dir: &Path, limit: u64) -> io::Result<Probes> {
        let bounds = Bounds {
            bytes: limit,
            age: None,
        };
        Ok(Probes {
            shelf: Shelf::open(dir, bounds)?,
        })
    }

    /// The index of a file of this size, if it is known. Of one of the longest it takes a second.
    pub(super) fn get(&self, file: &FileName, size: u64) -> Option<Index> {
        let name = name(file);
        let json = self.shelf.get(&name)?;
        let probe = serde_json::from_slice::<Probe>(&json).ok();
        let probe = probe.filter(|probe| {
            let same = probe.info_hash == file.info_hash && probe.path == file.path && probe.size == size;
            same && probe.version == VERSION
        });
        if probe.is_none() {
            self.shelf.discard(&name);
        }
        probe.map(|probe| probe.index)
    }

    /// Keeps an index. If that fails it is read again next time.
    pub(super) fn put(&self, file: &FileName, size: u64, index: Index) {
        let probe = Probe {
            version: VERSION,
            info_hash: file.info_hash.clone(),
            path: file.path.clone(),
            size,
            index,
        };
        let json = serde_json::to_vec(&probe).map_err(io::Error::other);
        if let Err(error) = json.and_then(|json| self.shelf.put(&name(file), &json)) {
            tracing::warn!(%error, "cannot keep the index of a film");
        }
    }
}

/// Paths are of any length and have slashes.
fn name(file: &FileName) -> String {
    let path = Sha1::digest(file.path.as_bytes());
    format!("{}-{}", hex::encode(shelf_mark(&file.info_hash)), hex::encode(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::Container;

    fn file(path: &str) -> FileName {
        FileName {
            info_hash: "ab".repeat(20),
            path: path.to_owned(),
        }
    }

    #[test]
    fn an_index_is_kept_over_restarts_and_one_of_another_kind_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Probes::open(dir.path(), 1 << 20).unwrap();
        let index = Index {
            container: Container::Mp4,
            tracks: Vec::new(),
        };
        let probes = open();
        probes.put(&file("a/../b"), 10, index.clone());
        assert_eq!(open().get(&file("a/../b"), 10), Some(index.clone()));
        assert_eq!(open().get(&file("a"), 10), None);
        let probes = open();
        for wrong in ["{\"version\":1}", "no JSON", ""] {
            let name = name(&file("a"));
            probes.shelf.put(&name, wrong.as_bytes()).unwrap();
            assert_eq!(probes.get(&file("a"), 10), None);
            assert!(!probes.shelf.has(&name));
        }
        let json = serde_json::to_string(&serde_json::json!({
            "version": VERSION + 1, "info_hash": file("a").info_hash, "path": "a", "size": 10, "index": index,
        }));
        probes.shelf.put(&name(&file("a")), json.unwrap().as_bytes()).unwrap();
        assert_eq!(probes.get(&file("a"), 10), None);
        // The file that the index was of had another size.
        assert_eq!(probes.get(&file("a/../b"), 11), None);
    }
}
