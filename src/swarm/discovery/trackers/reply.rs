//! What a tracker answers, over HTTP (BEP 3, 7, 23, 31) and over UDP (BEP 15). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::bencode::{Items, Value};
use crate::swarm::discovery::error::Retry;
use crate::swarm::discovery::{DiscoveryError, FOUND_MOST};

/// A tracker's words are cut to this many characters.
const WORDS_LIMIT: usize = 200;
/// A tracker id longer than this is not sent back.
const TRACKER_ID_LIMIT: usize = 256;
/// Times longer than this are as good as this.
const LONGEST: u64 = 365 * 24 * 3600;

/// A tracker's answer to an announce, as it gave it: times are not clamped, addresses not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceReply {
    /// When it wants to hear from us again.
    pub interval: Option<Duration>,
    /// It does not want to hear from us sooner than that, whatever the need.
    pub min_interval: Option<Duration>,
    /// At most [`FOUND_MOST`].
    pub peers: Vec<SocketAddr>,
    /// Peers that have everything.
    pub seeders: Option<u32>,
    /// Peers that have not.
    pub leechers: Option<u32>,
    /// Its words to the user, shortened and without control characters.
    pub warning: Option<String>,
    /// To be sent back with each further announce.
    pub tracker_id: Option<Vec<u8>>,
}

/// Reads the body of an HTTP tracker's answer. Unknown keys, values of the wrong type, and what follows the dictionary
/// are passed over; a list of peers that is cut short gives the whole ones.
///
/// # Errors
/// `Refused` if the tracker says so, `Malformed` if this is not a tracker's answer.
pub fn parse_announce_response(bytes: &[u8]) -> Result<AnnounceReply, DiscoveryError> {
    let Some(Value::Dict(answer)) = Value::first(bytes) else {
        return Err(DiscoveryError::Malformed("not a bencoded dictionary"));
    };
    let mut reply = AnnounceReply::default();
    let (mut failure, mut retry, mut known) = (None, Retry::Unsaid, false);
    for (key, value) in answer.pairs() {
        known = true;
        match (key, value) {
            (b"failure reason", Value::Bytes(text)) => failure = Some(words(text)),
            (b"retry in", value) => retry = retry_of(value),
            (b"warning message", Value::Bytes(text)) => reply.warning = Some(words(text)),
            (b"interval", Value::Integer(seconds)) => reply.interval = duration(seconds),
            (b"min interval", Value::Integer(seconds)) => reply.min_interval = duration(seconds),
            (b"complete", Value::Integer(count)) => reply.seeders = u32::try_from(count).ok(),
            (b"incomplete", Value::Integer(count)) => reply.leechers = u32::try_from(count).ok(),
            (b"tracker id", Value::Bytes(id)) if id.len() <= TRACKER_ID_LIMIT => {
                reply.tracker_id = Some(id.to_vec());
            }
            (b"peers", Value::Bytes(compact)) => extend(&mut reply.peers, compact_v4(compact)),
            (b"peers", Value::List(list)) => extend(&mut reply.peers, dictionaries(list)),
            (b"peers6", Value::Bytes(compact)) => extend(&mut reply.peers, compact_v6(compact)),
            _ => {}
        }
    }
    match failure {
        Some(reason) => Err(DiscoveryError::Refused { reason, retry }),
        None if known => Ok(reply),
        None => Err(DiscoveryError::Malformed("an empty dictionary")),
    }
}

/// What a UDP tracker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UdpReply {
    /// The answer to connect: an id that serves for a minute.
    Connected(u64),
    /// The answer to announce.
    Announced(AnnounceReply),
    /// An error, in the tracker's words.
    Error(String),
}

/// Reads a datagram that answers `transaction`; its addresses are of IPv6 if it came over IPv6. `None`: it is not an
/// answer to this, or none at all.
#[must_use]
pub fn parse_udp_response(bytes: &[u8], transaction: u32, v6: bool) -> Option<UdpReply> {
    let (action, rest) = take_u32(bytes)?;
    let (echoed, rest) = take_u32(rest)?;
    if echoed != transaction {
        return None;
    }
    match action {
        0 => Some(UdpReply::Connected(u64::from_be_bytes(*rest.first_chunk()?))),
        1 => {
            let (interval, rest) = take_u32(rest)?;
            let (leechers, rest) = take_u32(rest)?;
            let (seeders, rest) = take_u32(rest)?;
            let mut reply = AnnounceReply {
                interval: duration(i64::from(interval)),
                seeders: Some(seeders),
                leechers: Some(leechers),
                ..AnnounceReply::default()
            };
            if v6 {
                extend(&mut reply.peers, compact_v6(rest));
            } else {
                extend(&mut reply.peers, compact_v4(rest));
            }
            Some(UdpReply::Announced(reply))
        }
        3 => Some(UdpReply::Error(words(rest))),
        _ => None,
    }
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn extend(peers: &mut Vec<SocketAddr>, more: impl Iterator<Item = SocketAddr>) {
    let room = FOUND_MOST.saturating_sub(peers.len());
    peers.extend(more.take(room));
}

fn compact_v4(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    let (peers, _) = bytes.as_chunks::<6>();
    peers.iter().map(|[a, b, c, d, high, low]| {
        let port = u16::from_be_bytes([*high, *low]);
        SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port)
    })
}

fn compact_v6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    let (peers, _) = bytes.as_chunks::<18>();
    peers.iter().filter_map(|peer| {
        let (ip, port) = peer.split_first_chunk::<16>()?;
        let port = u16::from_be_bytes(*port.first_chunk()?);
        Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), port))
    })
}

/// Peers as dictionaries. Names instead of addresses are passed over: a peer has no name.
fn dictionaries(list: Items<'_>) -> impl Iterator<Item = SocketAddr> {
    list.filter_map(|peer| {
        let Value::Dict(peer) = peer else { return None };
        let (mut ip, mut port) = (None::<IpAddr>, None);
        for (key, value) in peer.pairs() {
            match key {
                b"ip" => ip = std::str::from_utf8(value.bytes()?).ok()?.parse().ok(),
                b"port" => port = value.integer().and_then(|port| u16::try_from(port).ok()),
                _ => {}
            }
        }
        Some(SocketAddr::new(ip?, port?))
    })
}

fn duration(seconds: i64) -> Option<Duration> {
    let seconds = u64::try_from(seconds).ok()?;
    Some(Duration::from_secs(seconds.min(LONGEST)))
}

/// `never`, or minutes as text or number.
fn retry_of(value: Value<'_>) -> Retry {
    let minutes = match value {
        Value::Bytes(b"never") => return Retry::Never,
        Value::Bytes(text) => std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
        value => value.integer(),
    };
    minutes
        .and_then(|minutes| duration(minutes.saturating_mul(60)))
        .map_or(Retry::Unsaid, Retry::After)
}

/// A tracker's text, fit to be shown.
fn words(text: &[u8]) -> String {
    let text = &text[..text.len().min(4 * WORDS_LIMIT)];
    let text = String::from_utf8_lossy(text);
    let printable = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').chars();
    printable
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(WORDS_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn compact_peers_of_both_families_and_all_the_rest() {
        let mut body = b"d8:completei3e10:incompletei4e8:intervali1800e12:min intervali60e5:peers12:".to_vec();
        body.extend([192, 0, 2, 1, 0x1a, 0xe1, 192, 0, 2, 2, 0, 80]);
        body.extend(b"6:peers618:");
        body.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe1]);
        body.extend(b"10:tracker id2:ab15:warning message8:slow\x07 ok");
        body.extend(b"7:unknownld1:ai-1eeee");
        let reply = parse_announce_response(&body).unwrap();
        assert_eq!(
            reply,
            AnnounceReply {
                interval: Some(Duration::from_secs(1800)),
                min_interval: Some(Duration::from_secs(60)),
                peers: vec![
                    address("192.0.2.1:6881"),
                    address("192.0.2.2:80"),
                    address("[2001:db8::1]:6881")
                ],
                seeders: Some(3),
                leechers: Some(4),
                warning: Some("slow  ok".to_owned()),
                tracker_id: Some(b"ab".to_vec()),
            }
        );
    }

    #[test]
    fn peers_as_dictionaries() {
        let body = b"d5:peersl\
            d2:ip9:192.0.2.17:peer id20:aaaaaaaaaaaaaaaaaaaa4:porti6881ee\
            d2:ip11:2001:db8::14:porti80ee\
            d2:ip11:example.org4:porti80eed2:ip9:192.0.2.24:porti65536eed4:porti1eei7ee\
            e";
        let reply = parse_announce_response(body).unwrap();
        assert_eq!(reply.peers, [address("192.0.2.1:6881"), address("[2001:db8::1]:80")]);
    }

    #[test]
    fn a_refusal_is_told_in_the_trackers_words() {
        for (body, words, when) in [
            (
                &b"d14:failure reason12:unregistered8:retry in5:nevere"[..],
                "unregistered",
                Retry::Never,
            ),
            (
                b"d14:failure reason1:x8:retry in1:5e",
                "x",
                Retry::After(Duration::from_secs(300)),
            ),
            (
                b"d14:failure reason1:x8:retry ini5ee",
                "x",
                Retry::After(Duration::from_secs(300)),
            ),
            (b"d14:failure reason1:x8:retry in2:-5e", "x", Retry::Unsaid),
            (b"d14:failure reason0:e", "", Retry::Unsaid),
        ] {
            match parse_announce_response(body) {
                Err(DiscoveryError::Refused { reason, retry }) => {
                    assert_eq!((reason.as_str(), retry), (words, when));
                }
                other => panic!("{other:?}"),
            }
        }
        let long = format!("d14:failure reason5000:{}e", "ä".repeat(2500));
        let Err(DiscoveryError::Refused { reason, .. }) = parse_announce_response(long.as_bytes()) else {
            panic!("not refused");
        };
        assert_eq!(reason.chars().count(), WORDS_LIMIT);
    }

    #[test]
    fn what_is_cut_short_or_nonsense_gives_what_it_can() {
        let reply = parse_announce_response(b"d5:peers8:\x7f\0\0\x01\0\x50xxe").unwrap();
        assert_eq!(reply.peers, [address("127.0.0.1:80")]);
        for body in [
            &b""[..],
            b"<html>",
            b"de",
            b"le",
            b"i5e",
            b"d",
            b"d5:peers900:abce",
            b"d5:peers99999999999999999999:abce",
            b"d8:intervali99999999999999999999eee",
            b"d5:peersl",
        ] {
            let result = parse_announce_response(body);
            assert!(
                matches!(result, Err(DiscoveryError::Malformed(_))),
                "{body:?}: {result:?}"
            );
        }
        let reply = parse_announce_response(b"d8:intervali-5e12:min interval3:abc5:peersi5ee").unwrap();
        assert_eq!(reply, AnnounceReply::default());
        let mut deep = b"d5:peers".to_vec();
        deep.extend(vec![b'l'; 500_000]);
        assert!(parse_announce_response(&deep).is_err());
        deep.extend(vec![b'e'; 500_001]);
        assert_eq!(parse_announce_response(&deep).unwrap(), AnnounceReply::default());
    }

    #[test]
    fn no_more_peers_than_allowed() {
        let mut body = b"d5:peers600000:".to_vec();
        body.extend([1; 600_000]);
        body.push(b'e');
        assert_eq!(parse_announce_response(&body).unwrap().peers.len(), FOUND_MOST);
    }

    #[test]
    fn datagrams() {
        let connected = [&[0, 0, 0, 0, 0, 0, 0, 9][..], &[1; 8]].concat();
        assert_eq!(
            parse_udp_response(&connected, 9, false),
            Some(UdpReply::Connected(0x0101_0101_0101_0101))
        );
        assert_eq!(parse_udp_response(&connected, 8, false), None, "another transaction");
        assert_eq!(parse_udp_response(&connected[..15], 9, false), None);
        let announced = [
            &[0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 7, 8, 0, 0, 0, 2, 0, 0, 0, 3][..],
            &[192, 0, 2, 1, 0, 80, 1, 2, 3],
        ]
        .concat();
        let Some(UdpReply::Announced(reply)) = parse_udp_response(&announced, 9, false) else {
            panic!("not an announce");
        };
        assert_eq!(reply.peers, [address("192.0.2.1:80")]);
        assert_eq!((reply.seeders, reply.leechers), (Some(3), Some(2)));
        assert_eq!(reply.interval, Some(Duration::from_secs(1800)));
        assert_eq!(
            parse_udp_response(b"\0\0\0\x03\0\0\0\x09no torrent\0", 9, true),
            Some(UdpReply::Error("no torrent".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), v6: bool, transaction: u32) {
            let _ = parse_announce_response(&bytes);
            let _ = parse_udp_response(&bytes, transaction, v6);
        }

        #[test]
        fn nothing_that_looks_like_bencode_panics(text in "d?([ilde:0-9-]|5:peers|6:peers6|2:ip|4:port|8:interval){0,60}") {
            let _ = parse_announce_response(text.as_bytes());
        }
    }
}
