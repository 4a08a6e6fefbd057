//! Files found by what names them for ever: the info hash and the path in the torrent.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use super::core::Library;
use super::torrent::{Contents, Torrent, shown};
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::File;
use crate::torrents::names;

/// A file of the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorrentFile {
    /// Its number in the mount, which [`magnetfs_mount::Catalog::open`] takes.
    pub inode: u64,
    /// In the torrent, its parts joined by `/`; of a torrent of one file that file's name.
    pub path: String,
    /// Relative to the root of the mount.
    pub shown: PathBuf,
    /// Size in bytes.
    pub size: u64,
}

impl Library {
    /// The files of a torrent, in its order, without padding; none while it is unresolved. `None` if it is unknown.
    pub fn files(&self, info_hash: InfoHash) -> Option<Vec<TorrentFile>> {
        let torrent = self.by_info_hash(info_hash)?;
        let Some(contents) = torrent.contents() else {
            return Some(Vec::new());
        };
        let files = shown(&contents.metainfo).map(|(index, file)| found(&torrent, contents, index, file));
        Some(files.collect())
    }

    /// A file by its torrent and its path in it, which is compared and never joined to a directory. `None` where there
    /// is none.
    pub fn file(&self, info_hash: InfoHash, path: &str) -> Option<TorrentFile> {
        let torrent = self.by_info_hash(info_hash)?;
        let contents = torrent.contents()?;
        let (index, file) =
            shown(&contents.metainfo).find(|(_, file)| file.path.iter().map(String::as_str).eq(path.split('/')))?;
        Some(found(&torrent, contents, index, file))
    }

    /// For each range of bytes of a file, whether all of it is stored here. A file that is not known has nothing.
    pub fn here(&self, inode: u64, ranges: &[Range<u64>]) -> Vec<bool> {
        let (number, file) = names::file_of(inode);
        let torrent = self.numbered(number);
        let contents = torrent.as_ref().and_then(|torrent| torrent.contents());
        let Some(contents) = contents.filter(|contents| file < contents.metainfo.files.len()) else {
            return vec![false; ranges.len()];
        };
        let is_here = |range: &Range<u64>| {
            let length = range.end.saturating_sub(range.start);
            contents.store.first_missing(file, range.start, length).is_none()
        };
        ranges.iter().map(is_here).collect()
    }

    /// When something last arrived for the torrent of a file; `None` for never in this life.
    pub fn last_progress(&self, inode: u64) -> Option<Instant> {
        let (number, _) = names::file_of(inode);
        let torrent = self.numbered(number)?;
        let block = torrent.swarm().and_then(|swarm| swarm.last_block());
        block.max(torrent.contents().and_then(|contents| contents.store.last_progress()))
    }
}

fn found(torrent: &Torrent, contents: &Contents, index: usize, file: &File) -> TorrentFile {
    let mut shown = PathBuf::from(torrent.name());
    if !contents.metainfo.single_file {
        shown.extend(file.path.iter());
    }
    TorrentFile {
        inode: names::inode_of(torrent.number, index),
        path: file.path.join("/"),
        shown,
        size: file.length,
    }
}
