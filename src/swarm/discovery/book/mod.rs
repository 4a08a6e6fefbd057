//! The address book of one torrent: who may be dialled, when, and who not. Pure: the clock and the seed come in.

mod address;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::swarm::limits::PerAddress;
use address::{Bans, canonical};
use entry::{Entry, Phase, Room};

/// Addresses kept for one torrent.
const ENTRIES: usize = 2_000;
/// Of them, those known from peers alone: a flood of them must not displace what trackers say.
const ENTRIES_FROM_PEERS: usize = ENTRIES / 2;
/// Ports kept of one address: a list of one victim's ports is not a swarm.
const PORTS_PER_ADDRESS: usize = 8;
/// Addresses known to be ourselves.
const OWN: usize = 64;
/// Addresses remembered over a restart.
const REMEMBERED: usize = 200;

/// While a read waits, a peer that is known to work is dialled again this soon after the last dial began, …
const URGENT_KNOWN: Duration = Duration::from_secs(1);
/// … as long as there are not more than this many of them to try: beyond it, this many a second.
const URGENT_AT_ONCE: usize = 32;
/// While a read waits, a stranger is dialled again no later than this.
const URGENT_STRANGER: Duration = Duration::from_secs(10);
/// How long a dial may take. A lost SYN is sent again after 1 s, so an answer may take that and a round trip.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a peer known to work, while a read waits: a peer that has just come back must not be missed because the
/// last dial's SYNs, sent ever more rarely, are still in the air.
const PATIENCE_URGENT: Duration = Duration::from_secs(2);

/// Where an address came from, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The user, or the magnet link, named it.
    Given,
    /// Local service discovery: it is on this network.
    Local,
    /// It connected to us and told its port.
    Incoming,
    /// It was connected before the last stop.
    Remembered,
    /// A tracker.
    Tracker,
    /// The DHT.
    Dht,
    /// Another peer.
    Peer,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other side closed it, or it broke, or it fell silent.
    Lost,
    /// Nobody wants anything: we closed it, or it did for that reason.
    Unneeded,
    /// It does not keep the protocol. (For wrong data, [`Book::ban`] it as well.)
    Misbehaved,
    /// It is ourselves. The address is not dialled again.
    Ourselves,
}

/// An address to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Where.
    pub address: SocketAddr,
    /// How long to wait for the connection and the other side's handshake.
    pub patience: Duration,
}

/// How many addresses the book knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All, except those banned.
    pub known: usize,
    /// Being dialled now.
    pub dialing: usize,
    /// Connected now, whichever side began.
    pub connected: usize,
}

/// The address book of one torrent.
///
/// The owner asks [`next`](Self::next) whom to dial and reports what became of each: exactly one of
/// [`connected`](Self::connected) (later [`ended`](Self::ended)), [`failed`](Self::failed) or
/// [`put_off`](Self::put_off). Connections that others begin are reported by [`incoming`](Self::incoming), and `ended`.
/// An IPv4 address in IPv6 form is the same address.
#[derive(Debug)]
pub struct Book {
    private: bool,
    per_address: usize,
    entries: BTreeMap<SocketAddr, Entry>,
    /// Entries of one address.
    ports: PerAddress,
    /// Connections and dials of one address.
    active: PerAddress,
    /// Connections that the other side began, by the address they come from → the address it listens at, once known and
    /// if the entry there counts as connected through this connection. As many as the owner accepts.
    guests: HashMap<SocketAddr, Option<SocketAddr>>,
    bans: Bans,
    own: BTreeSet<SocketAddr>,
    random: SmallRng,
}

impl Book {
    /// An empty book. At most `per_address` connections at a time are begun with one address (loopback excepted). A
    /// `private` torrent (BEP 27) takes addresses from trackers and the user only.
    #[must_use]
    pub fn new(private: bool, per_address: usize, seed: u64) -> Self {
        Self {
            private,
            per_address,
            entries: BTreeMap::new(),
            ports: PerAddress::default(),
            active: PerAddress::default(),
            guests: HashMap::new(),
            bans: Bans::default(),
            own: BTreeSet::new(),
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Takes up addresses, as far as they are acceptable and there is room; says how many are new.
    pub fn add(&mut self, now: Instant, candidates: impl IntoIterator<Item = SocketAddr>, source: Source) -> usize {
        if !self.takes(source) {
            return 0;
        }
        let mut room = None;
        let mut new = 0;
        for address in candidates {
            let address = canonical(address);
            if !self.acceptable(address) {
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.sources.insert(source);
                if source == Source::Local {
                    // It has just spoken, so it is up.
                    let soonest = entry.tried.map_or(now, |tried| now.max(tried + URGENT_STRANGER));
                    entry.due = entry.due.min(soonest);
                }
                continue;
            }
            if self.make_room(&mut room, address, source) {
                self.insert(now, address, source);
                new += 1;
            }
        }
        new
    }

    fn insert(&mut self, now: Instant, address: SocketAddr, source: Source) {
        let lot = self.random.random();
        self.entries.insert(address, Entry::new(now, source, lot));
    }

    fn takes(&self, source: Source) -> bool {
        !self.private || matches!(source, Source::Given | Source::Tracker | Source::Incoming)
    }

    fn acceptable(&self, address: SocketAddr) -> bool {
        let ip_acceptable = match address.ip() {
            IpAddr::V4(ip) => !(ip.octets()[0] == 0 || ip.octets()[0] >= 224),
            IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
        };
        ip_acceptable && address.port() != 0 && !self.own.contains(&address) && !self.bans.contains(address)
    }

    /// Makes room for one address, which the ports of its IP count from then on. `room` is made once for a batch.
    fn make_room(&mut self, room: &mut Option<Room>, address: SocketAddr, source: Source) -> bool {
        if !self.ports.enter(address.ip(), PORTS_PER_ADDRESS) {
            return false;
        }
        let room = room.get_or_insert_with(|| Room::of(&self.entries));
        let from_peers = source == Source::Peer;
        let fits = !from_peers || room.from_peers < ENTRIES_FROM_PEERS;
        if fits && (self.entries.len() < ENTRIES || self.evict(room, source)) {
            room.from_peers += usize::from(from_peers);
            return true;
        }
        self.ports.leave(address.ip());
        false
    }

    /// Drops the least promising entry, if it promises less than an untried one from `source`.
    fn evict(&mut self, room: &mut Room, source: Source) -> bool {
        while let Some(victim) = room.victims.pop() {
            // Banned or taken up otherwise since the list was made.
            let Some(entry) = self.entries.get(&victim) else {
                continue;
            };
            if entry.failures == 0 && entry.sources.best() <= source {
                return false;
            }
            room.from_peers -= usize::from(entry.sources.only(Source::Peer));
            self.remove(victim);
            return true;
        }
        false
    }

    fn remove(&mut self, address: SocketAddr) -> Option<Entry> {
        let entry = self.entries.remove(&address)?;
        self.ports.leave(address.ip());
        Some(entry)
    }

    /// At most `want` addresses to dial now, best first; they count as being dialled from here on. With `urgent` (a read
    /// waits) peers known to work are tried again after about a second, and others after ten at most.
    ///
    /// Looks at every entry (2,000 at most): once for each change and each [`next_due`](Self::next_due), not for each
    /// packet.
    pub fn next(&mut self, now: Instant, want: usize, urgent: bool) -> Vec<Dial> {
        if want == 0 {
            return Vec::new();
        }
        let gap = self.urgent_gap(urgent);
        let mut ready: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_idle() && entry.due(gap) <= now)
            .map(|(address, entry)| (entry.rank(), *address))
            .collect();
        ready.sort_unstable();
        let mut dials = Vec::new();
        for (_, address) in ready {
            if dials.len() == want {
                break;
            }
            if !self.active.enter(address.ip(), self.per_address) {
                continue;
            }
            if let Some(entry) = self.entries.get_mut(&address) {
                entry.phase = Phase::Dialing;
                entry.tried = Some(now);
                let quick = urgent && entry.is_known();
                let patience = if quick { PATIENCE_URGENT } else { PATIENCE };
                dials.push(Dial { address, patience });
            }
        }
        dials
    }

    /// When [`next`](Self::next) will have an address, unless something is reported before. `None`: not by time alone.
    #[must_use]
    pub fn next_due(&self, urgent: bool) -> Option<Instant> {
        let gap = self.urgent_gap(urgent);
        self.entries
            .iter()
            .filter(|(address, entry)| entry.is_idle() && self.active.count(address.ip()) < self.per_address)
            .map(|(_, entry)| entry.due(gap))
            .min()
    }

    /// How soon a peer known to work is dialled again while a read waits.
    fn urgent_gap(&self, urgent: bool) -> Option<Duration> {
        urgent.then(|| {
            let idle = self
                .entries
                .values()
                .filter(|entry| entry.is_idle() && entry.is_known());
            let times = idle.count().div_ceil(URGENT_AT_ONCE).max(1);
            URGENT_KNOWN * u32::try_from(times).unwrap_or(u32::MAX)
        })
    }

    /// A dial became a connection: both handshakes are through.
    pub fn connected(&mut self, now: Instant, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&canonical(address))
            && matches!(entry.phase, Phase::Dialing)
        {
            entry.connect(now);
        }
    }

    /// A dial came to nothing.
    pub fn failed(&mut self, now: Instant, address: SocketAddr) {
        self.after_dial(address, |entry, random| entry.fail(now, random));
    }

    /// A dial was not made for want of a place for it: no fault of the peer.
    pub fn put_off(&mut self, now: Instant, address: SocketAddr) {
        self.after_dial(address, |entry, _| entry.put_off(now));
    }

    fn after_dial(&mut self, address: SocketAddr, then: impl FnOnce(&mut Entry, &mut SmallRng)) {
        let address = canonical(address);
        if let Some(entry) = self.entries.get_mut(&address)
            && matches!(entry.phase, Phase::Dialing)
        {
            self.active.leave(address.ip());
            entry.phase = Phase::Idle;
            then(entry, &mut self.random);
            if entry.banned {
                self.remove(address);
            }
        }
    }

    /// A connection that the other side began is up. `false`: it is banned, close it (and report nothing more of it).
    #[must_use]
    pub fn incoming(&mut self, from: SocketAddr) -> bool {
        let from = canonical(from);
        if self.bans.contains(from) {
            return false;
        }
        if self.guests.insert(from, None).is_none() {
            // It is there already, so there is nothing to refuse; dials to the address will count it.
            self.active.enter(from.ip(), usize::MAX);
        }
        true
    }

    /// The peer that connected from `from` listens at `port`: it can be dialled there once this connection has ended.
    pub fn listens(&mut self, now: Instant, from: SocketAddr, port: u16) {
        let from = canonical(from);
        let address = SocketAddr::new(from.ip(), port);
        if !self.guests.contains_key(&from) || !self.acceptable(address) {
            return;
        }
        if !self.entries.contains_key(&address) {
            if !self.make_room(&mut None, address, Source::Incoming) {
                return;
            }
            self.insert(now, address, Source::Incoming);
        }
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        entry.sources.insert(Source::Incoming);
        if entry.is_idle() {
            entry.connect(now);
            // It comes back of itself if a peer names two ports in turn: only the last one counts.
            if let Some(Some(before)) = self.guests.insert(from, Some(address)) {
                self.end(now, before, Ended::Lost);
            }
        }
    }

    /// A connection, dialled or incoming, is over.
    pub fn ended(&mut self, now: Instant, address: SocketAddr, how: Ended) {
        let address = canonical(address);
        if how == Ended::Ourselves && self.own.len() < OWN {
            self.own.insert(address);
        }
        if let Some(listens) = self.guests.remove(&address) {
            self.active.leave(address.ip());
            if let Some(listens) = listens {
                self.end(now, listens, how);
            }
            return;
        }
        if self.entries.get(&address).is_some_and(|entry| !entry.is_idle()) {
            self.active.leave(address.ip());
            self.end(now, address, how);
        }
    }

    fn end(&mut self, now: Instant, address: SocketAddr, how: Ended) {
        if how == Ended::Ourselves {
            if self.own.len() < OWN {
                self.own.insert(address);
            }
            self.remove(address);
        } else if let Some(entry) = self.entries.get_mut(&address) {
            entry.end(now, how, &mut self.random);
            if entry.banned {
                self.remove(address);
            }
        }
    }

    /// Never again: neither dialled nor let in. On loopback this means the one port, elsewhere the whole address. Its
    /// connections are the owner's to close and to report as ended.
    pub fn ban(&mut self, address: SocketAddr) {
        let address = canonical(address);
        let listens = self.guests.get(&address).copied().flatten();
        for address in [Some(address), listens].into_iter().flatten() {
            self.bans.insert(address);
        }
        let banned: Vec<SocketAddr> = self
            .entries
            .iter()
            .filter(|(address, entry)| entry.is_idle() && self.bans.contains(**address))
            .map(|(address, _)| *address)
            .collect();
        for address in banned {
            self.remove(address);
        }
        for (address, entry) in &mut self.entries {
            entry.banned |= self.bans.contains(*address);
        }
    }

    /// Whether the address is banned.
    #[must_use]
    pub fn is_banned(&self, address: SocketAddr) -> bool {
        self.bans.contains(canonical(address))
    }

    /// The metadata has come and says private: forgets everyone whom neither tracker nor user named, takes up no more of
    /// them, and says which connections must be closed for it.
    pub fn set_private(&mut self) -> Vec<SocketAddr> {
        self.private = true;
        let foreign = |entry: &Entry| {
            let allowed = [Source::Given, Source::Tracker, Source::Incoming];
            !allowed.iter().any(|source| entry.sources.contains(*source))
        };
        let (idle, busy): (Vec<_>, Vec<_>) = self
            .entries
            .iter()
            .filter(|(_, entry)| foreign(entry))
            .map(|(address, entry)| (*address, entry.is_idle()))
            .partition(|(_, idle)| *idle);
        for (address, _) in idle {
            self.remove(address);
        }
        for (address, _) in &busy {
            if let Some(entry) = self.entries.get_mut(address) {
                entry.banned = true;
            }
        }
        busy.into_iter().map(|(address, _)| address).collect()
    }

    /// The peers worth trying first after a restart, best first: those connected now, then those connected before.
    /// None of a private torrent, whose tracker alone says who belongs to it.
    #[must_use]
    pub fn remembered(&self) -> Vec<SocketAddr> {
        if self.private {
            return Vec::new();
        }
        let mut worked: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_known() && !entry.banned)
            .map(|(address, entry)| (entry.is_idle(), entry.failures, entry.rank(), *address))
            .collect();
        worked.sort_unstable();
        worked.truncate(REMEMBERED);
        worked.into_iter().map(|(.., address)| address).collect()
    }

    /// How many addresses there are.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let phase = |wanted: fn(&Phase) -> bool| self.entries.values().filter(|entry| wanted(&entry.phase)).count();
        let lodged = self.guests.values().filter(|listens| listens.is_none()).count();
        Counts {
            known: self.entries.len(),
            dialing: phase(|phase| matches!(phase, Phase::Dialing)),
            connected: phase(|phase| matches!(phase, Phase::Connected { .. })) + lodged,
        }
    }
}
