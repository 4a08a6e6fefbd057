//! Torrents made up for tests, and places to store them.

use std::path::PathBuf;
use std::sync::Arc;

use sha1::{Digest, Sha1};
use tempfile::TempDir;

use super::metainfo::Metainfo;
use super::store::{Disk, Floor, FreeSpace, Store};

/// A torrent with its content.
pub(super) struct Made {
    pub(super) torrent: Vec<u8>,
    pub(super) metainfo: Arc<Metainfo>,
    /// All bytes of the torrent, padding too.
    pub(super) bytes: Vec<u8>,
}

/// Bytes that do not repeat, the same for the same seed.
pub(super) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A torrent of these files (path, length); a path that begins with `.pad/` is a padding file.
pub(super) fn make(name: &str, piece_length: usize, files: &[(&str, usize)]) -> Made {
    let mut bytes = Vec::new();
    let mut list = Vec::new();
    for (index, (path, length)) in files.iter().enumerate() {
        let padding = path.starts_with(".pad/");
        bytes.extend(if padding {
            vec![0; *length]
        } else {
            noise(*length, index as u64 + 1)
        });
        list.extend_from_slice(b"d");
        if padding {
            list.extend_from_slice(b"4:attr1:p");
        }
        list.extend_from_slice(format!("6:lengthi{length}e4:pathl").as_bytes());
        for component in path.split('/') {
            list.extend_from_slice(format!("{}:{component}", component.len()).as_bytes());
        }
        list.extend_from_slice(b"ee");
    }
    let mut torrent = b"d4:infod5:filesl".to_vec();
    torrent.extend(list);
    torrent.extend_from_slice(format!("e4:name{}:{name}12:piece lengthi{piece_length}e", name.len()).as_bytes());
    let hashes: Vec<u8> = bytes
        .chunks(piece_length)
        .flat_map(|piece| Sha1::digest(piece).to_vec())
        .collect();
    torrent.extend_from_slice(format!("6:pieces{}:", hashes.len()).as_bytes());
    torrent.extend(hashes);
    torrent.extend_from_slice(b"ee");
    let metainfo = Arc::new(Metainfo::parse(&torrent).unwrap());
    Made {
        torrent,
        metainfo,
        bytes,
    }
}

impl Made {
    /// The content of one file.
    pub(super) fn file(&self, file: usize) -> &[u8] {
        let file = &self.metainfo.files[file];
        &self.bytes[file.offset as usize..][..file.length as usize]
    }
}

/// A data directory for one torrent.
pub(super) struct Place {
    pub(super) directory: TempDir,
}

impl Place {
    pub(super) fn new(made: &Made) -> Place {
        let place = Place {
            directory: tempfile::tempdir().unwrap(),
        };
        std::fs::write(place.path("metainfo.torrent"), &made.torrent).unwrap();
        place
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where a file of the torrent is stored.
    pub(super) fn stored(&self, made: &Made, file: usize) -> PathBuf {
        made.metainfo.files[file]
            .path
            .iter()
            .fold(self.path("files"), |path, name| path.join(name))
    }

    /// One life of the torrent's store, as of a daemon of its own.
    pub(super) fn open(&self, made: &Made) -> Arc<Store> {
        self.open_on(made, &Disk::new(FreeSpace::new(self.directory.path(), Floor::Bytes(0))))
    }

    /// As [`Place::open`], on a disk that others use too, or that is full.
    pub(super) fn open_on(&self, made: &Made, disk: &Arc<Disk>) -> Arc<Store> {
        let have = self.path("have");
        Store::open(
            &self.path("files"),
            &have,
            made.metainfo.clone(),
            &self.path("metainfo.torrent"),
            disk,
        )
        .unwrap()
    }
}

/// Writes a piece as the engine does, in blocks, and says that it is complete.
pub(super) fn fill(store: &Store, made: &Made, piece: u32) {
    write_piece(store, made, piece, &made.bytes);
    store.piece_completed(piece);
}

/// Writes a piece out of `bytes`, which stand for the whole torrent.
pub(super) fn write_piece(store: &Store, made: &Made, piece: u32, bytes: &[u8]) {
    let start = u64::from(piece) * u64::from(made.metainfo.piece_length);
    let end = start + u64::from(made.metainfo.piece_size(piece));
    for (index, file) in made.metainfo.files.iter().enumerate() {
        let (from, to) = (start.max(file.offset), end.min(file.offset + file.length));
        for block in (from..to).step_by(16 << 10) {
            let block_end = to.min(block + (16 << 10));
            store
                .write(index, block - file.offset, &bytes[block as usize..block_end as usize])
                .unwrap();
        }
    }
}
