//! Real files, made by FFmpeg and mkvmerge, against what ffprobe sees in them; and files that lie.

mod films;
mod hostile;
mod words;
mod written;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::read::BLOCK;
use super::{Index, MediaError, ReadAt, index};

/// A file on disk that counts what is read of it.
pub(super) struct OnDisk {
    file: fs::File,
    size: u64,
    pub(super) bytes: AtomicU64,
    blocks: Mutex<BTreeSet<u64>>,
}

impl OnDisk {
    pub(super) fn open(path: &Path) -> OnDisk {
        let file = fs::File::open(path).expect("the file");
        OnDisk {
            size: file.metadata().expect("its size").len(),
            file,
            bytes: AtomicU64::new(0),
            blocks: Mutex::default(),
        }
    }

    /// How many different blocks of 64 KiB were touched.
    pub(super) fn blocks(&self) -> usize {
        self.blocks.lock().expect("the set").len()
    }
}

impl ReadAt for OnDisk {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = offset + length as u64;
        assert!(length > 0 && end <= self.size, "{offset}+{length} of {}", self.size);
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.blocks
            .lock()
            .expect("the set")
            .extend(offset / BLOCK..=(end - 1) / BLOCK);
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// Bytes in memory, and as many zeros after them as one likes.
pub(super) struct InMemory {
    pub(super) head: Vec<u8>,
    pub(super) size: u64,
    pub(super) bytes: AtomicU64,
}

impl InMemory {
    pub(super) fn new(head: Vec<u8>) -> InMemory {
        InMemory {
            size: head.len() as u64,
            head,
            bytes: AtomicU64::new(0),
        }
    }
}

impl ReadAt for InMemory {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        assert!(
            length > 0 && offset + length as u64 <= self.size,
            "{offset}+{length} of {}",
            self.size
        );
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        let known = self.head.get(offset as usize..).unwrap_or_default();
        let mut bytes = known[..length.min(known.len())].to_vec();
        bytes.resize(length, 0);
        Ok(bytes)
    }
}

/// The index of a file whose reads never wait.
pub(super) fn index_of<R: ReadAt>(file: &R) -> Result<Index, MediaError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(index(file))
}
