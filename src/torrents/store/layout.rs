//! Where the bytes of a torrent lie in its files. Pure.

use std::ops::Range;

use crate::torrents::metainfo::{File, Metainfo};

/// A stretch of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// The file's index in the torrent.
    pub(super) file: usize,
    /// Where it begins in the file.
    pub(super) offset: u64,
    pub(super) length: u64,
    /// It is all zeros and stored nowhere (BEP 47).
    pub(super) padding: bool,
}

/// The stretches of files that hold these bytes of the torrent, in order; none is empty.
pub(super) fn spans(metainfo: &Metainfo, bytes: Range<u64>) -> impl Iterator<Item = Span> {
    let first = metainfo
        .files
        .partition_point(|file| file.offset + file.length <= bytes.start);
    metainfo.files[first..]
        .iter()
        .enumerate()
        .take_while({
            let end = bytes.end;
            move |(_, file)| file.offset < end
        })
        .filter(|(_, file)| file.length > 0)
        .map(move |(index, file)| {
            let start = file.offset.max(bytes.start);
            let end = (file.offset + file.length).min(bytes.end);
            Span {
                file: first + index,
                offset: start - file.offset,
                length: end - start,
                padding: file.padding,
            }
        })
}

/// The bytes of the torrent that a piece holds.
pub(super) fn piece_bytes(metainfo: &Metainfo, piece: u32) -> Range<u64> {
    let start = u64::from(piece) * u64::from(metainfo.piece_length);
    start..start + u64::from(metainfo.piece_size(piece))
}

/// The pieces that hold these bytes of a file; none for no bytes.
pub(super) fn pieces_of(metainfo: &Metainfo, file: &File, offset: u64, length: u64) -> Range<u32> {
    if length == 0 {
        return 0..0;
    }
    let start = file.offset + offset;
    metainfo.pieces_of(start..start + length)
}
