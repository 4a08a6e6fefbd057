//! The peers of one torrent, as its owner knows them.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::swarm::choker::PeerState;
use crate::swarm::extension::{MetPeer, PeerExchange};
use crate::swarm::limits::Connected;
use crate::swarm::peer::Link;
use crate::swarm::shape::PeerKey;

/// How often a peer is told of others; BEP 11.
const EXCHANGE: Duration = Duration::from_secs(60);
/// Peers named in one exchange, added and dropped each; BEP 11.
const EXCHANGED: usize = 50;

/// BEP 11's flag for an address that was reached.
const REACHABLE: u8 = 0x10;

/// One connected peer. Dropping it hangs up.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: Link,
    pub(super) address: SocketAddr,
    /// It connected to us, so `address` is not where it listens.
    pub(super) incoming: bool,
    /// Where it can be dialled, if that is known.
    pub(super) dialable: Option<SocketAddr>,
    pub(super) interested: bool,
    pub(super) choked: bool,
    pub(super) exchanges: bool,
    pub(super) connected: Instant,
    received: Rate,
    sent: Rate,
    told: BTreeSet<SocketAddr>,
    told_at: Option<Instant>,
    pub(super) _place: Connected,
}

/// Bytes a second over the last ten to twenty seconds.
#[derive(Debug, Default)]
struct Rate {
    marks: [(u64, Option<Instant>); 2],
}

impl Rate {
    fn at(&mut self, now: Instant, total: u64) -> u64 {
        let [older, newer] = self.marks;
        if newer.1.is_none_or(|mark| now - mark >= Duration::from_secs(10)) {
            self.marks = [newer, (total, Some(now))];
        }
        match older.1.or(newer.1) {
            Some(mark) if now > mark => {
                let base = if older.1.is_some() { older.0 } else { newer.0 };
                ((total - base) as f64 / (now - mark).as_secs_f64()) as u64
            }
            _ => 0,
        }
    }
}

impl Peer {
    pub(super) fn new(link: Link, address: SocketAddr, incoming: bool, place: Connected) -> Peer {
        Peer {
            link,
            address,
            incoming,
            dialable: (!incoming).then_some(address),
            interested: false,
            choked: true,
            exchanges: false,
            connected: Instant::now(),
            received: Rate::default(),
            sent: Rate::default(),
            told: BTreeSet::new(),
            told_at: None,
            _place: place,
        }
    }

    /// What the choker wants to know.
    pub(super) fn state(&mut self, key: PeerKey, now: Instant) -> PeerState<PeerKey> {
        PeerState {
            key,
            interested: self.interested,
            choked: self.choked,
            received_rate: self.received.at(now, self.link.counters().downloaded()),
            sent_rate: self.sent.at(now, self.link.counters().uploaded()),
            connected: self.connected,
        }
    }

    /// What it is to be told of the others now, if anything.
    pub(super) fn exchange(&mut self, now: Instant, others: &BTreeSet<SocketAddr>) -> Option<PeerExchange> {
        if !self.exchanges || self.told_at.is_some_and(|told| now - told < EXCHANGE) {
            return None;
        }
        let fresh = |address: &&SocketAddr| !self.told.contains(*address) && Some(**address) != self.dialable;
        let added: Vec<SocketAddr> = others.iter().filter(fresh).take(EXCHANGED).copied().collect();
        let gone = |address: &&SocketAddr| !others.contains(*address);
        let dropped: Vec<SocketAddr> = self.told.iter().filter(gone).take(EXCHANGED).copied().collect();
        if added.is_empty() && dropped.is_empty() {
            return None;
        }
        self.told_at = Some(now);
        self.told.extend(&added);
        dropped.iter().for_each(|address| {
            self.told.remove(address);
        });
        Some(PeerExchange {
            added: added
                .into_iter()
                .map(|address| MetPeer {
                    address,
                    flags: REACHABLE,
                })
                .collect(),
            dropped,
        })
    }
}

/// Where the others can be dialled.
pub(super) fn dialable(peers: &HashMap<PeerKey, Peer>) -> BTreeSet<SocketAddr> {
    peers.values().filter_map(|peer| peer.dialable).collect()
}
