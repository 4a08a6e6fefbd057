//! Hashing pieces, and the hashes they are compared with, which stay in the metainfo file on disk: those of 2,000
//! torrents are too many for memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use sha1::{Digest, Sha1};

use crate::torrents::metainfo::Metainfo;

const LENGTH: usize = 20;
const BUFFER: u64 = 256 << 10;

/// The hash that the metainfo file gives for a piece.
pub(super) fn expected(metainfo: &Metainfo, metainfo_path: &Path, piece: u32) -> io::Result<[u8; LENGTH]> {
    let mut hash = [0; LENGTH];
    let offset = metainfo.hashes.start + piece as usize * LENGTH;
    if offset + LENGTH > metainfo.hashes.end {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    File::open(metainfo_path)?.read_exact_at(&mut hash, offset as u64)?;
    Ok(hash)
}

/// The hash of a piece that is in memory.
pub(super) fn of(bytes: &[u8]) -> [u8; LENGTH] {
    Sha1::digest(bytes).into()
}

/// The hash of a piece that is fed in parts.
pub(super) struct Hash {
    hash: Sha1,
    buffer: Vec<u8>,
}

impl Hash {
    pub(super) fn new() -> Hash {
        Hash {
            hash: Sha1::new(),
            buffer: Vec::new(),
        }
    }

    pub(super) fn file(&mut self, file: &File, offset: u64, length: u64) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let step = (length - done).min(BUFFER);
            self.buffer.resize(step as usize, 0);
            file.read_exact_at(&mut self.buffer, offset + done)?;
            self.hash.update(&self.buffer);
            done += step;
        }
        Ok(())
    }

    pub(super) fn zeros(&mut self, length: u64) {
        self.buffer.clear();
        self.buffer.resize(length.min(BUFFER) as usize, 0);
        let mut left = length;
        while left > 0 {
            let step = left.min(BUFFER);
            self.hash.update(&self.buffer[..step as usize]);
            left -= step;
        }
    }

    pub(super) fn finish(self) -> [u8; LENGTH] {
        self.hash.finalize().into()
    }
}
