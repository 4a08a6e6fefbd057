//! Addresses as such: their one form, and the banned ones.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Bans kept; the oldest go first.
const BANS: usize = 10_000;

/// Who is not to be talked to: an IP, or on loopback one port of it.
#[derive(Debug, Default)]
pub(super) struct Bans {
    set: BTreeSet<(IpAddr, Option<u16>)>,
    order: VecDeque<(IpAddr, Option<u16>)>,
}

impl Bans {
    fn key(address: SocketAddr) -> (IpAddr, Option<u16>) {
        let ip = address.ip();
        (ip, ip.is_loopback().then(|| address.port()))
    }

    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.set.contains(&Self::key(address))
    }

    pub(super) fn insert(&mut self, address: SocketAddr) {
        let key = Self::key(address);
        if self.set.insert(key) {
            self.order.push_back(key);
            if self.order.len() > BANS
                && let Some(oldest) = self.order.pop_front()
            {
                self.set.remove(&oldest);
            }
        }
    }
}

/// The one form of an address: IPv4 as IPv4, and no flow label. The scope is kept: a link-local address needs it.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match (address.ip().to_canonical(), address) {
        (IpAddr::V6(ip), SocketAddr::V6(v6)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, v6.port(), 0, v6.scope_id()).into()
        }
        (ip, _) => SocketAddr::new(ip, address.port()),
    }
}
