//! What goes over the control socket.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::torrents::{Download, LibraryReport, TorrentDetail, TorrentReport};

/// The longest request: a torrent of 64 MiB in base64, and what is around it.
pub const REQUEST_LIMIT: usize = 100_000_000;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Puts a torrent into the library. A magnet link is answered at once and resolved in the background.
    Add {
        /// What to add.
        source: Offer,
        /// How much of it is fetched; the daemon's own setting where nothing is said.
        #[serde(default)]
        download: Option<Download>,
        /// Peers to try besides those that are found.
        #[serde(default)]
        peers: Vec<SocketAddr>,
        /// Nothing else is added with it: it will be read soon, and meets its peers.
        #[serde(default)]
        alone: bool,
    },
    /// All torrents.
    List,
    /// One torrent in full.
    Show {
        /// Info hash, a prefix of it, or shown name.
        torrent: String,
    },
    /// Reports of one torrent until it is so far.
    Follow {
        /// Info hash, a prefix of it, or shown name.
        torrent: String,
        /// When to end.
        until: Until,
    },
    /// Takes a torrent out of the library.
    Remove {
        /// Info hash, a prefix of it, or shown name.
        torrent: String,
        /// Whether its stored data goes too.
        #[serde(default)]
        delete_data: bool,
    },
    /// Stops a torrent.
    Pause {
        /// Info hash, a prefix of it, or shown name.
        torrent: String,
    },
    /// Starts a paused torrent.
    Resume {
        /// Info hash, a prefix of it, or shown name.
        torrent: String,
    },
    /// Ends the daemon and its mount. The connection closes when both are gone.
    Unmount,
    /// How the daemon does.
    Status,
}

/// A torrent as a client hands it over. Files are read by the client: a relative path is relative to the caller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offer {
    /// A magnet link, an info hash, or an http(s) address.
    Text(String),
    /// The content of a .torrent file, in base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    Metainfo(Vec<u8>),
}

/// How far a torrent is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Until {
    /// Its files are shown.
    Resolved,
    /// Every byte is here.
    Complete,
}

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// More follows.
    Progress(Box<Listed>),
    /// The result, and the last line.
    Done(serde_json::Value),
    /// What is wrong and what mends it, and the last line.
    Error(String),
}

/// A torrent that was added.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AddedTorrent {
    /// 40 hex digits.
    pub info_hash: String,
    /// The name in the root of the mount, or of the magnet link until it is resolved.
    pub name: String,
    /// Whether its files are shown.
    pub resolved: bool,
    /// Whether it was not in the library before.
    pub new: bool,
    /// Where to find it; `None` until it is resolved.
    pub path: Option<String>,
}

/// A torrent in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// What the library says.
    #[serde(flatten)]
    pub report: TorrentReport,
    /// Where to find it; `None` until it is resolved.
    pub path: Option<String>,
}

/// A torrent in full.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shown {
    /// What the library says.
    #[serde(flatten)]
    pub detail: TorrentDetail,
    /// Where to find it; `None` until it is resolved.
    pub path: Option<String>,
}

/// How the daemon does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Where the files are shown.
    pub mountpoint: String,
    /// Where they are stored.
    pub data_dir: String,
    /// The control socket.
    pub socket: String,
    /// Where HTTP is served, `ADDRESS:PORT`; `None` for nowhere.
    #[serde(default)]
    pub http: Option<String>,
    /// The address of the player page, with the token where there is one.
    #[serde(default)]
    pub page: Option<String>,
    /// What the library says.
    #[serde(flatten)]
    pub library: LibraryReport,
    /// Reads that wait for the network.
    pub waiting_reads: usize,
    /// Whether the kernel reads complete files by itself.
    pub passthrough: bool,
    /// The daemon's process.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Its version.
    pub version: String,
}

/// What was named, after it was removed, paused or resumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Named {
    /// Its shown name.
    pub name: String,
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_they_are_written() {
        let cases = [
            (Request::List, r#"{"command":"list"}"#),
            (
                Request::Show { torrent: "ab".into() },
                r#"{"command":"show","torrent":"ab"}"#,
            ),
            (
                Request::Add {
                    source: Offer::Metainfo(b"d4:infoe".to_vec()),
                    download: None,
                    peers: vec![],
                    alone: true,
                },
                r#"{"command":"add","source":{"metainfo":"ZDQ6aW5mb2U="},"download":null,"peers":[],"alone":true}"#,
            ),
            (
                Request::Follow {
                    torrent: "ab".into(),
                    until: Until::Complete,
                },
                r#"{"command":"follow","torrent":"ab","until":"complete"}"#,
            ),
        ];
        for (request, text) in cases {
            assert_eq!(serde_json::to_string(&request).unwrap(), text);
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
        }
        // What may be left out, may.
        let short = r#"{"command":"add","source":{"text":"x"}}"#;
        assert!(serde_json::from_str::<Request>(short).is_ok());
        assert!(serde_json::from_str::<Request>(r#"{"command":"dance"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"command":"add","source":{"metainfo":"%"}}"#).is_err());
    }

    #[test]
    fn the_largest_torrent_fits_a_request() {
        const { assert!(crate::torrents::METAINFO_LIMIT / 3 * 4 + 1_000_000 < REQUEST_LIMIT) };
    }
}
