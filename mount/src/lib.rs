//! The kernel side of magnetfs: shows a [`Catalog`] of files through FUSE, so that no reader, dead torrent or slow
//! disk can hang the mount. It knows nothing of torrents, HTTP or the command line.

mod attach;
mod catalog;
mod deadline;
mod failed;
mod files;
mod filesystem;
mod fuse;
mod handles;
mod mount;
mod mountpoint;
mod reads;
mod report;
mod signals;
mod tree;

/// The fake catalog of the tests against the kernel, for the tests without one.
#[cfg(test)]
#[path = "../tests/kernel/fake.rs"]
#[expect(dead_code, reason = "some of it is of use with a kernel only")]
mod fake;
#[cfg(test)]
mod reference;

#[cfg(test)]
extern crate self as magnetfs_mount;

pub use catalog::{Catalog, Content, Entry, FileStatus, Group, Groups, Kind, ReadError, Space};
pub use deadline::{Limits, read};
pub use mount::{Mount, MountOptions};
pub use mountpoint::{MountError, all_mounts, clear_dead_mount, detach, is_mounted};
