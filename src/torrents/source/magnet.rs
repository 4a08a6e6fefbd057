//! Magnet links.

use std::fmt;
use std::net::SocketAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::SourceError;
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::add_tracker;

/// More peers than this in one link are left out: a link is pasted from anywhere.
const PEERS_LIMIT: usize = 100;
/// A longer display name, in bytes, is left out.
const NAME_LIMIT: usize = 2048;
/// What stands for itself in a link.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A magnet link (BEP 9) of a version 1 or hybrid torrent. Shown, it is a link that reads back as the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Magnet {
    /// The torrent.
    pub info_hash: InfoHash,
    /// What the link calls it; the torrent may call itself otherwise.
    pub name: Option<String>,
    /// Announce URLs.
    pub trackers: Vec<String>,
    /// Peers to begin with (`x.pe`). Host names are left out: only addresses are taken.
    pub peers: Vec<SocketAddr>,
}

impl Magnet {
    /// An info hash alone: peers come from the DHT, or from the local network.
    pub fn of(info_hash: InfoHash) -> Magnet {
        Magnet {
            info_hash,
            name: None,
            trackers: Vec::new(),
            peers: Vec::new(),
        }
    }

    /// Reads a link. What is not known is passed over.
    ///
    /// # Errors
    /// No info hash, or none of version 1.
    pub fn parse(text: &str) -> Result<Magnet, SourceError> {
        let query = text.split_once('?').map_or("", |(_, query)| query);
        let query = query.split_once('#').map_or(query, |(query, _)| query);
        let mut info_hash = None;
        let mut version_2 = false;
        let mut magnet = Magnet::of(InfoHash([0; 20]));
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            // BEP 9 allows numbered keys: xt.1=…&xt.2=…
            let key = key
                .trim_end_matches(|last: char| last.is_ascii_digit())
                .trim_end_matches('.')
                .to_lowercase();
            match key.as_str() {
                "xt" => match topic(&value)? {
                    Topic::Version1(hash) => info_hash = info_hash.or(Some(hash)),
                    Topic::Version2 => version_2 = true,
                    Topic::Other => {}
                },
                "dn" if !value.is_empty() && value.len() <= NAME_LIMIT => magnet.name = Some(value.into_owned()),
                "tr" => add_tracker(&mut magnet.trackers, &value),
                "x.pe" if magnet.peers.len() < PEERS_LIMIT => magnet.peers.extend(value.parse::<SocketAddr>()),
                _ => {}
            }
        }
        match info_hash {
            Some(hash) => Ok(Magnet {
                info_hash: hash,
                ..magnet
            }),
            None if version_2 => Err(SourceError::Version2),
            None => Err(SourceError::NoInfoHash),
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "magnet:?xt=urn:btih:{}", self.info_hash)?;
        if let Some(name) = &self.name {
            write!(formatter, "&dn={}", utf8_percent_encode(name, ESCAPED))?;
        }
        for tracker in &self.trackers {
            write!(formatter, "&tr={}", utf8_percent_encode(tracker, ESCAPED))?;
        }
        self.peers.iter().try_for_each(|peer| write!(formatter, "&x.pe={peer}"))
    }
}

enum Topic {
    Version1(InfoHash),
    Version2,
    Other,
}

fn topic(value: &str) -> Result<Topic, SourceError> {
    let lower = value.to_ascii_lowercase();
    if lower.starts_with("urn:btmh:") {
        return Ok(Topic::Version2);
    }
    let Some(digits) = lower.strip_prefix("urn:btih:") else {
        return Ok(Topic::Other);
    };
    match digits.parse().ok().or_else(|| base32(digits)) {
        Some(hash) => Ok(Topic::Version1(hash)),
        None => Err(SourceError::BadInfoHash {
            text: digits.chars().take(64).collect(),
        }),
    }
}

/// 32 digits of RFC 4648, in lower case: the older form of an info hash.
fn base32(digits: &str) -> Option<InfoHash> {
    if digits.len() != 32 {
        return None;
    }
    let mut bytes = [0; 20];
    for (group, out) in digits.as_bytes().chunks(8).zip(bytes.chunks_mut(5)) {
        let mut bits = 0u64;
        for digit in group {
            let value = match digit {
                b'a'..=b'z' => digit - b'a',
                b'2'..=b'7' => digit - b'2' + 26,
                _ => return None,
            };
            bits = bits << 5 | u64::from(value);
        }
        out.copy_from_slice(&bits.to_be_bytes()[3..]);
    }
    Some(InfoHash(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "a621779b5e3d486e127c3efbca9b6f8d135f52e5";

    #[test]
    fn a_link_is_read_in_full() {
        let link = format!(
            "magnet:?xt=urn:btih:{}&xt=urn:btmh:1220aa&dn=A+film%20%C3%A9&tr=udp%3A%2F%2Fa%3A1&tr=udp://a:1&tr.1=http://b\
             &x.pe=10.0.0.1:6881&x.pe=host:1&x.pe=[::1]:2&so=1&xl=5#x",
            HEX.to_uppercase()
        );
        let magnet = Magnet::parse(&link).unwrap();
        assert_eq!(magnet.info_hash.to_string(), HEX);
        assert_eq!(magnet.name.as_deref(), Some("A film é"));
        assert_eq!(magnet.trackers, ["udp://a:1", "http://b"]);
        assert_eq!(
            magnet.peers,
            ["10.0.0.1:6881".parse().unwrap(), "[::1]:2".parse().unwrap()]
        );
    }

    #[test]
    fn base32_is_the_same_hash() {
        // python3: base64.b32encode(bytes.fromhex(HEX))
        let base32 = "UYQXPG26HVEG4ET4H354VG3PRUJV6UXF";
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{base32}")).unwrap();
        assert_eq!(magnet.info_hash.to_string(), HEX);
    }

    #[test]
    fn a_link_of_no_version_1_torrent_is_refused_in_words() {
        let refusal = |query: &str| Magnet::parse(&format!("magnet:?{query}")).unwrap_err().to_string();
        assert!(refusal("dn=film").contains("no info hash"));
        assert!(refusal("xt=urn:sha1:abc").contains("no info hash"));
        assert!(refusal("xt=urn:btih:abc").contains("\"abc\""));
        assert!(refusal(&format!("xt=urn:btih:{}", HEX.replace('a', "é"))).contains("neither 40 hex digits"));
        assert!(refusal("xt=urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa").contains("version 2"));
    }

    #[test]
    fn lists_are_limited() {
        let trackers: String = (0..1000)
            .map(|number| format!("&tr=http://{number}&x.pe=10.0.0.1:{number}"))
            .collect();
        let magnet = Magnet::parse(&format!("magnet:?xt=urn:btih:{HEX}{trackers}")).unwrap();
        assert_eq!((magnet.trackers.len(), magnet.peers.len()), (100, 100));
    }

    proptest! {
        #[test]
        fn a_shown_link_reads_back(
            hash: [u8; 20],
            name in proptest::option::of(".{1,20}"),
            trackers in proptest::collection::btree_set(".{1,20}", 0..4),
            peers in proptest::collection::vec(any::<(std::net::IpAddr, u16)>(), 0..4),
        ) {
            let peers = peers.into_iter().map(SocketAddr::from).collect();
            let trackers = trackers.into_iter().collect();
            let magnet = Magnet { info_hash: InfoHash(hash), name, trackers, peers };
            prop_assert_eq!(Magnet::parse(&magnet.to_string()).unwrap(), magnet);
        }

        #[test]
        fn no_text_breaks_it(text in ".*") {
            let _ = super::super::Source::parse(&text);
            let _ = super::super::Source::parse(&format!("magnet:?{text}"));
            let _ = super::super::Source::parse(&format!("magnet:?xt=urn:btih:{text}"));
        }
    }
}
