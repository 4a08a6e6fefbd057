//! The kernel side of magnetfs: shows a [`Catalog`] of files through FUSE, so that no reader, dead torrent or slow
//! disk can hang the mount. It knows nothing of torrents, HTTP or the command line.

mod catalog;

pub use catalog::{Catalog, Content, Entry, FileStatus, Group, Groups, Kind, ReadError, Space};
