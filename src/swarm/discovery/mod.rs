//! Finding peers: trackers, the DHT, the local network, and the address book they all fill.

pub mod book;
pub mod dht;
mod error;
pub mod local;
pub mod port_mapping;
pub mod trackers;

use std::net::SocketAddr;

pub use error::DiscoveryError;

/// A torrent's 20 byte name: the SHA-1 of its info dictionary.
pub type InfoHash = [u8; 20];

/// Addresses that were found, for the [`Book`](book::Book).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who said so.
    pub source: book::Source,
    /// They are not checked in any way; at most [`FOUND_MOST`].
    pub peers: Vec<SocketAddr>,
}

/// Addresses in one [`Found`] at most.
pub const FOUND_MOST: usize = 1_000;
