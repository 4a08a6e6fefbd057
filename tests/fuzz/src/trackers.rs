//! The room of the same name.

#[path = "../../../src/swarm/discovery/trackers/bencode.rs"]
mod bencode;
#[path = "../../../src/swarm/discovery/trackers/reply.rs"]
mod reply;

pub use reply::{AnnounceReply, UdpReply, parse_announce_response, parse_udp_response};
