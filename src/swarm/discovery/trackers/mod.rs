//! Trackers: HTTP and UDP, in tiers (BEP 12).

mod bencode;
mod reply;

pub use reply::{AnnounceReply, UdpReply, parse_announce_response, parse_udp_response};
