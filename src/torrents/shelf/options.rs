//! What the user and the library decided about one torrent.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::torrents::Download;
use crate::torrents::source::Magnet;

/// What is kept about a torrent beside its metainfo, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// The base of its inode numbers, from [`Shelf::allocate_number`](super::Shelf::allocate_number).
    pub number: u64,
    /// Its name in the root of the mount; `None` while it is unresolved.
    #[serde(default)]
    pub shown_name: Option<String>,
    /// When it was added, in whole seconds.
    #[serde(with = "unix_seconds")]
    pub added: SystemTime,
    /// How much of it is fetched.
    #[serde(default)]
    pub download: Download,
    /// Stopped by the user.
    #[serde(default)]
    pub paused: bool,
    /// Announce URLs beside those of the metainfo.
    #[serde(default)]
    pub trackers: Vec<String>,
    /// Peers named when it was added.
    #[serde(default)]
    pub peers: Vec<SocketAddr>,
    /// The magnet link that it came from.
    #[serde(default)]
    pub magnet: Option<String>,
}

impl Options {
    /// What the magnet link calls the torrent.
    pub fn display_name(&self) -> Option<String> {
        Magnet::parse(self.magnet.as_deref()?).ok()?.name
    }
}

mod unix_seconds {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        // A clock before 1970 is a clock that was never set.
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        serializer.serialize_u64(since.as_secs())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let seconds = u64::deserialize(deserializer)?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_secs(seconds))
            .ok_or_else(|| serde::de::Error::custom("the time is out of range"))
    }
}
