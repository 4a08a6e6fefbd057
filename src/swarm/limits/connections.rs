//! How many connections there may be: in all, to one address, and half open.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// The limits of [`Connections`].
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections in all, half open ones among them.
    pub total: usize,
    /// Connections with one address, whichever side began. Does not hold on loopback, where one address is every
    /// process of the machine.
    pub per_address: usize,
    /// Dials that wait for an answer: routers and firewalls lose track of many.
    pub half_open: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 500,
            per_address: 4,
            half_open: 50,
        }
    }
}

/// Why there is no connection to be had now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many connections as allowed.
    #[error("as many connections as allowed")]
    Total,
    /// As many connections with this address as allowed.
    #[error("as many connections with this address as allowed")]
    Address,
    /// As many dials wait for an answer as allowed.
    #[error("as many dials wait for an answer as allowed")]
    HalfOpen,
}

/// Counts the connections of all torrents. Cheap to clone; every clone counts in the same place.
#[derive(Clone, Debug)]
pub struct Connections {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: ConnectionLimits,
    count: Mutex<Count>,
}

#[derive(Debug, Default)]
struct Count {
    total: usize,
    half_open: usize,
    addresses: PerAddress,
}

impl Connections {
    /// None yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                count: Mutex::default(),
            }),
        }
    }

    /// A place for a connection that we begin. Refuses at once rather than waits.
    ///
    /// # Errors
    /// The limit that is reached; the dial is to be put off, which is no fault of the peer.
    pub fn dial(&self, address: IpAddr) -> Result<Dialing, Refused> {
        let mut count = self.shared.count.lock();
        if count.half_open >= self.shared.limits.half_open {
            return Err(Refused::HalfOpen);
        }
        let connected = self.enter(&mut count, address)?;
        count.half_open += 1;
        Ok(Dialing {
            connected: Some(connected),
        })
    }

    /// A place for a connection that the other side began. Refuses at once rather than waits.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn accept(&self, address: IpAddr) -> Result<Connected, Refused> {
        let mut count = self.shared.count.lock();
        self.enter(&mut count, address)
    }

    fn enter(&self, count: &mut Count, address: IpAddr) -> Result<Connected, Refused> {
        if count.total >= self.shared.limits.total {
            return Err(Refused::Total);
        }
        if !count.addresses.enter(address, self.shared.limits.per_address) {
            return Err(Refused::Address);
        }
        count.total += 1;
        Ok(Connected {
            shared: self.shared.clone(),
            address,
        })
    }

    /// Connections now, half open ones among them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shared.count.lock().total
    }

    /// Dials that wait for an answer now.
    #[must_use]
    pub fn half_open(&self) -> usize {
        self.shared.count.lock().half_open
    }
}

/// A place held by a dial that waits for its answer. Dropping it gives the place back.
#[derive(Debug)]
pub struct Dialing {
    /// Taken only by `connected` and `drop`.
    connected: Option<Connected>,
}

impl Dialing {
    /// The other side answered: the half-open place is given back, the connection's is kept.
    #[must_use]
    pub fn connected(mut self) -> Connected {
        let connected = self.leave();
        connected.expect("only this and drop take it")
    }

    fn leave(&mut self) -> Option<Connected> {
        let connected = self.connected.take()?;
        connected.shared.count.lock().half_open -= 1;
        Some(connected)
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A place held by a connection. Dropping it gives the place back.
#[derive(Debug)]
pub struct Connected {
    shared: Arc<Shared>,
    address: IpAddr,
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut count = self.shared.count.lock();
        count.total -= 1;
        count.addresses.leave(self.address);
    }
}

/// Counts per address. IPv6 is counted by the /64, which is what one subscriber has; loopback is not counted.
#[derive(Debug, Default)]
pub(in crate::swarm) struct PerAddress {
    counts: HashMap<IpAddr, usize>,
}

impl PerAddress {
    /// One more, unless there are `limit` already.
    pub(in crate::swarm) fn enter(&mut self, address: IpAddr, limit: usize) -> bool {
        let Some(key) = Self::key(address) else {
            return true;
        };
        let count = self.counts.entry(key).or_default();
        if *count < limit {
            *count += 1;
            return true;
        }
        if *count == 0 {
            self.counts.remove(&key);
        }
        false
    }

    /// One less; for each `enter` that was granted, once.
    pub(in crate::swarm) fn leave(&mut self, address: IpAddr) {
        let Some(key) = Self::key(address) else { return };
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
    }

    /// How many there are with this address; 0 on loopback.
    pub(in crate::swarm) fn count(&self, address: IpAddr) -> usize {
        Self::key(address)
            .and_then(|key| self.counts.get(&key))
            .copied()
            .unwrap_or(0)
    }

    fn key(address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        if address.is_loopback() {
            return None;
        }
        Some(match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(n: u8) -> IpAddr {
        [203, 0, 113, n].into()
    }

    #[test]
    fn each_limit_refuses_in_its_own_words() {
        let connections = Connections::new(ConnectionLimits {
            total: 4,
            per_address: 2,
            half_open: 1,
        });
        let dialing = connections.dial(address(1)).unwrap();
        assert_eq!(connections.dial(address(2)).unwrap_err(), Refused::HalfOpen);
        let first = dialing.connected();
        assert_eq!((connections.total(), connections.half_open()), (1, 0));
        let _second = connections.accept(address(1)).unwrap();
        assert_eq!(connections.accept(address(1)).unwrap_err(), Refused::Address);
        drop(first);
        let _third = connections.accept(address(1)).unwrap();
        let _fourth = connections.accept(address(2)).unwrap();
        let _fifth = connections.accept(address(3)).unwrap();
        assert_eq!(connections.accept(address(4)).unwrap_err(), Refused::Total);
        assert_eq!(connections.dial(address(4)).unwrap_err(), Refused::Total);
        assert_eq!(connections.half_open(), 0);
    }

    #[test]
    fn one_subscriber_of_ipv6_is_one_address_and_loopback_is_none() {
        let mut addresses = PerAddress::default();
        assert!(addresses.enter("2001:db8::1".parse().unwrap(), 1));
        assert!(!addresses.enter("2001:db8::ffff:2".parse().unwrap(), 1));
        assert!(addresses.enter("2001:db8:0:1::1".parse().unwrap(), 1));
        assert!(addresses.enter("203.0.113.1".parse().unwrap(), 1));
        assert!(!addresses.enter("::ffff:203.0.113.1".parse().unwrap(), 1));
        for loopback in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!((0..100).all(|_| addresses.enter(loopback.parse().unwrap(), 1)));
        }
        assert!(!addresses.enter(address(9), 0));
        assert_eq!(addresses.counts.len(), 3);
    }

    proptest! {
        #[test]
        fn every_place_is_given_back(steps in proptest::collection::vec((0u8..4, 0u8..5, 0usize..40), 0..200)) {
            let limits = ConnectionLimits { total: 12, per_address: 3, half_open: 4 };
            let connections = Connections::new(limits);
            let (mut dialing, mut connected) = (Vec::new(), Vec::new());
            for (step, from, index) in steps {
                match step {
                    0 => dialing.extend(connections.dial(address(from))),
                    1 => connected.extend(connections.accept(address(from))),
                    2 if !dialing.is_empty() => {
                        let dial: Dialing = dialing.swap_remove(index % dialing.len());
                        if index % 2 == 0 {
                            connected.push(dial.connected());
                        }
                    }
                    3 if !connected.is_empty() => {
                        connected.swap_remove(index % connected.len());
                    }
                    _ => {}
                }
                prop_assert_eq!(connections.total(), dialing.len() + connected.len());
                prop_assert_eq!(connections.half_open(), dialing.len());
                prop_assert!(connections.total() <= limits.total && connections.half_open() <= limits.half_open);
                for n in 0..5 {
                    let count = connections.shared.count.lock().addresses.count(address(n));
                    prop_assert!(count <= limits.per_address);
                }
            }
            drop((dialing, connected));
            prop_assert_eq!((connections.total(), connections.half_open()), (0, 0));
            prop_assert!(connections.shared.count.lock().addresses.counts.is_empty());
        }
    }
}
