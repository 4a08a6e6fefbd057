//! Finding peers: trackers, the DHT, the local network, and the address book they all fill.

pub mod book;
