//! Answers of trackers, over HTTP and over UDP: never a panic, never more addresses than the limit, no control characters.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::swarm::discovery::FOUND_MOST;
use magnetfs_fuzz::swarm::discovery::trackers::{
    AnnounceReply, UdpReply, parse_announce_response, parse_udp_response,
};

fn check(reply: &AnnounceReply) {
    assert!(reply.peers.len() <= FOUND_MOST);
    let words = reply.warning.as_deref().unwrap_or_default();
    assert!(!words.chars().any(char::is_control));
    assert!(reply.tracker_id.as_ref().is_none_or(|id| id.len() <= 256));
}

fuzz_target!(|data: &[u8]| {
    if let Ok(reply) = parse_announce_response(data) {
        check(&reply);
    }
    let transaction = data.get(4..8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
    for v6 in [false, true] {
        match parse_udp_response(data, transaction, v6) {
            Some(UdpReply::Announced(reply)) => check(&reply),
            Some(UdpReply::Error(words)) => assert!(!words.chars().any(char::is_control)),
            Some(UdpReply::Connected(_)) | None => {}
        }
        assert!(parse_udp_response(data, transaction.wrapping_add(1), v6).is_none());
    }
});
