//! How many clients are connected, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Connections at once. Each costs a descriptor and some tens of KiB.
pub(super) const TOTAL: usize = 512;

/// Connections at once from one address. A page uses six; behind one address there may be a household, and behind
/// loopback every player of this machine.
pub(super) const EACH: usize = 192;

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Crowd(Mutex<HashMap<IpAddr, usize>>);

/// A connection's place; dropping it makes room.
#[derive(Debug)]
pub(super) struct Entered {
    crowd: Arc<Crowd>,
    client: IpAddr,
}

impl Crowd {
    /// A place for one more connection from there; `None` where there is none.
    pub(super) fn enter(self: &Arc<Self>, client: IpAddr) -> Option<Entered> {
        let client = household(client);
        let mut counts = self.0.lock();
        let total: usize = counts.values().sum();
        let own = counts.entry(client).or_default();
        if total >= TOTAL || *own >= EACH {
            if *own == 0 {
                counts.remove(&client);
            }
            return None;
        }
        *own += 1;
        Some(Entered {
            crowd: self.clone(),
            client,
        })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock();
        if let Some(own) = counts.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// One machine has a whole network of 64 bits of IPv6 to itself.
fn household(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_all_places() {
        let crowd = Arc::new(Crowd::default());
        let client = |text: &str| text.parse::<IpAddr>().unwrap();
        let first: Vec<_> = (0..EACH).map(|_| crowd.enter(client("192.0.2.1")).unwrap()).collect();
        assert!(crowd.enter(client("192.0.2.1")).is_none());
        assert!(crowd.enter(client("::ffff:192.0.2.1")).is_none());
        let others: Vec<_> = (0..TOTAL - EACH)
            .map(|number| {
                crowd
                    .enter(client(&format!("2001:db8:0:{:x}::{number:x}", number % 4)))
                    .unwrap()
            })
            .collect();
        assert!(crowd.enter(client("192.0.2.2")).is_none(), "all places are taken");
        drop(first);
        assert!(crowd.enter(client("192.0.2.1")).is_some());
        drop(others);
        assert!(crowd.0.lock().is_empty());
    }

    #[test]
    fn one_machine_has_many_addresses_of_ipv6() {
        let crowd = Arc::new(Crowd::default());
        let from = |number: usize| format!("2001:db8::{number:x}").parse::<IpAddr>().unwrap();
        let places: Vec<_> = (0..EACH).map(|number| crowd.enter(from(number)).unwrap()).collect();
        assert!(crowd.enter(from(EACH)).is_none());
        drop(places);
    }
}
