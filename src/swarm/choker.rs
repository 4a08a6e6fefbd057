//! Who may download from us. Pure: the clock and the seed of its randomness come in.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How often the slots are given out anew; shorter and rates are noise, longer and a good peer waits.
const ROUND: Duration = Duration::from_secs(10);
/// How long one peer keeps the optimistic slot: long enough for it to answer in kind.
const OPTIMISTIC: Duration = Duration::from_secs(30);
/// A peer this new has nothing to trade yet, so it is drawn for the optimistic slot more often.
const NEWCOMER: Duration = Duration::from_secs(60);
const NEWCOMER_WEIGHT: u64 = 3;
/// Slots besides the optimistic one when uploads have no limit.
const SLOTS_UNLIMITED: usize = 12;
const SLOTS_MIN: usize = 3;
const SLOTS_MAX: usize = 50;

/// What the choker knows of one peer.
#[derive(Clone, Copy, Debug)]
pub struct PeerState<K> {
    /// The owner's name for it.
    pub key: K,
    /// It wants something of us.
    pub interested: bool,
    /// We choke it.
    pub choked: bool,
    /// Bytes a second that it gives us, over the last 10 to 20 s.
    pub received_rate: u64,
    /// Bytes a second that it takes from us, over the last 10 to 20 s.
    pub sent_rate: u64,
    /// When its handshake was done.
    pub connected: Instant,
}

/// Gives out upload slots: tit for tat while we download, the fastest takers while we seed, and one slot by lot.
#[derive(Debug)]
pub struct Choker<K> {
    slots: usize,
    optimistic: Option<K>,
    optimistic_until: Option<Instant>,
    next_round: Option<Instant>,
    random: SmallRng,
}

/// How many peers to serve at once, besides the optimistic one, under a limit of `rate` bytes a second: enough to fill
/// the line, few enough that each gets something worth having. The rule is the first client's: √(0.6 × KiB/s).
#[must_use]
pub fn slots_for(rate: Option<u64>) -> usize {
    rate.map_or(SLOTS_UNLIMITED, |rate| {
        (((rate / 1024) as f64 * 0.6).sqrt() as usize).clamp(SLOTS_MIN, SLOTS_MAX)
    })
}

impl<K: Copy + Eq> Choker<K> {
    /// Serves `slots` peers at once and one more by lot.
    #[must_use]
    pub fn new(slots: usize, seed: u64) -> Self {
        Self {
            slots,
            optimistic: None,
            optimistic_until: None,
            next_round: None,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    /// Changes the number of slots, from the next call of [`decide`](Self::decide) on.
    pub fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
        self.next_round = None;
    }

    /// When [`decide`](Self::decide) is due without anything having happened.
    #[must_use]
    pub fn next_round(&self) -> Option<Instant> {
        self.next_round
    }

    /// What changes now: peers to choke (`true`) and to unchoke (`false`).
    ///
    /// Call it when [`next_round`](Self::next_round) has come, and whenever a peer comes, goes, or changes its interest:
    /// between rounds, free slots are given out and those no longer wanted are taken back, and nobody else loses one.
    pub fn decide(&mut self, now: Instant, seeding: bool, peers: &[PeerState<K>]) -> Vec<(K, bool)> {
        let round = self.next_round.is_none_or(|due| now >= due);
        if round {
            self.next_round = Some(now + ROUND);
        }
        let serves = |peer: &PeerState<K>| if seeding { peer.sent_rate } else { peer.received_rate };

        let mut ranked: Vec<&PeerState<K>> = peers.iter().filter(|peer| peer.interested).collect();
        // Equals keep what they have: a slot that changes hands for nothing is a loss to both.
        ranked.sort_by_key(|peer| {
            let keeps = !peer.choked && self.optimistic != Some(peer.key);
            let rate = std::cmp::Reverse(serves(peer));
            if round {
                (false, rate, !keeps)
            } else {
                (!keeps, rate, false)
            }
        });
        let mut served: Vec<K> = ranked.iter().take(self.slots).map(|peer| peer.key).collect();
        let rest: Vec<&PeerState<K>> = ranked.into_iter().skip(self.slots).collect();
        served.extend(self.draw(now, &rest));

        peers
            .iter()
            .filter_map(|peer| {
                let choke = !served.contains(&peer.key);
                (choke != peer.choked).then_some((peer.key, choke))
            })
            .collect()
    }

    /// The holder of the optimistic slot among those who have no other.
    fn draw(&mut self, now: Instant, rest: &[&PeerState<K>]) -> Option<K> {
        let holds = self
            .optimistic
            .is_some_and(|key| rest.iter().any(|peer| peer.key == key));
        if holds && self.optimistic_until.is_some_and(|until| now < until) {
            return self.optimistic;
        }
        let weight = |peer: &PeerState<K>| {
            if now.saturating_duration_since(peer.connected) < NEWCOMER {
                NEWCOMER_WEIGHT
            } else {
                1
            }
        };
        // The last holder had its chance; it is drawn again only if it is alone.
        let others: Vec<_> = rest.iter().filter(|peer| Some(peer.key) != self.optimistic).collect();
        let total: u64 = others.iter().map(|peer| weight(peer)).sum();
        if total > 0 {
            let mut lot = self.random.random_range(0..total);
            self.optimistic = others
                .iter()
                .find(|peer| match lot.checked_sub(weight(peer)) {
                    Some(left) => {
                        lot = left;
                        false
                    }
                    None => true,
                })
                .map(|peer| peer.key);
        } else if !holds {
            self.optimistic = None;
        }
        self.optimistic_until = Some(now + OPTIMISTIC);
        self.optimistic
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(key: u32, interested: bool, received_rate: u64, start: Instant) -> PeerState<u32> {
        PeerState {
            key,
            interested,
            choked: true,
            received_rate,
            sent_rate: 0,
            connected: start,
        }
    }

    fn apply(peers: &mut [PeerState<u32>], changes: Vec<(u32, bool)>) {
        for (key, choked) in changes {
            let peer = peers.iter_mut().find(|peer| peer.key == key).unwrap();
            assert_ne!(peer.choked, choked, "a change that changes nothing");
            peer.choked = choked;
        }
    }

    fn served(peers: &[PeerState<u32>]) -> Vec<u32> {
        peers.iter().filter(|p| !p.choked).map(|p| p.key).collect()
    }

    #[test]
    fn those_who_give_are_served_and_one_by_lot() {
        let start = Instant::now();
        let mut choker = Choker::new(3, 1);
        let mut peers: Vec<_> = (0..10).map(|n| peer(n, true, u64::from(n) * 100, start)).collect();
        apply_all(&mut choker, start, &mut peers, false);
        let now_served = served(&peers);
        assert_eq!(now_served.len(), 4);
        assert!([7, 8, 9].iter().all(|key| now_served.contains(key)), "{now_served:?}");
    }

    fn apply_all(choker: &mut Choker<u32>, now: Instant, peers: &mut [PeerState<u32>], seeding: bool) {
        let changes = choker.decide(now, seeding, peers);
        apply(peers, changes);
    }

    #[test]
    fn a_seed_serves_those_who_take_fastest() {
        let start = Instant::now();
        let mut choker = Choker::new(2, 1);
        let mut peers: Vec<_> = (0..6).map(|n| peer(n, true, 0, start)).collect();
        peers[4].sent_rate = 10;
        peers[5].sent_rate = 20;
        apply_all(&mut choker, start, &mut peers, true);
        assert!(!peers[4].choked && !peers[5].choked);
    }

    #[test]
    fn between_rounds_nobody_who_wants_it_loses_a_slot_and_free_ones_are_given() {
        let start = Instant::now();
        let mut choker = Choker::new(3, 1);
        let mut peers: Vec<_> = (0..6).map(|n| peer(n, n < 2, 10, start)).collect();
        apply_all(&mut choker, start, &mut peers, false);
        assert_eq!(served(&peers), [0, 1]);
        peers[5].interested = true;
        peers[5].received_rate = 1000;
        apply_all(&mut choker, start + SECOND, &mut peers, false);
        assert_eq!(served(&peers), [0, 1, 5]);
        for peer in &mut peers[2..5] {
            peer.interested = true;
            peer.received_rate = 2000;
        }
        apply_all(&mut choker, start + 2 * SECOND, &mut peers, false);
        assert!([0, 1, 5].iter().all(|key| served(&peers).contains(key)));
        assert_eq!(served(&peers).len(), 4);
        peers[0].interested = false;
        apply_all(&mut choker, start + 3 * SECOND, &mut peers, false);
        assert!(peers[0].choked);
        // The next round goes by rates again.
        apply_all(&mut choker, start + 11 * SECOND, &mut peers, false);
        assert!(peers[2..5].iter().all(|peer| !peer.choked));
    }

    #[test]
    fn the_optimistic_slot_reaches_everyone() {
        let start = Instant::now();
        let mut choker = Choker::new(1, 7);
        let mut peers: Vec<_> = (0..8).map(|n| peer(n, true, 0, start)).collect();
        peers[0].received_rate = 1000;
        let mut chosen = std::collections::HashSet::new();
        let mut last = None;
        for round in 0..120 {
            apply_all(&mut choker, start + round * ROUND, &mut peers, false);
            let lot = served(&peers).into_iter().find(|key| *key != 0).unwrap();
            if round % 3 != 0 {
                assert_eq!(last, Some(lot), "kept for 30 s");
            }
            last = Some(lot);
            chosen.insert(lot);
        }
        assert_eq!(chosen.len(), 7);
    }

    #[test]
    fn slots_follow_the_limit() {
        assert_eq!(slots_for(None), SLOTS_UNLIMITED);
        assert_eq!(slots_for(Some(1)), 3);
        assert_eq!(slots_for(Some(1024 * 1024)), 24);
        assert_eq!(slots_for(Some(u64::MAX)), SLOTS_MAX);
    }

    proptest! {
        #[test]
        fn slots_are_kept_full_and_never_exceeded(
            slots in 0usize..6,
            seed: u64,
            steps in proptest::collection::vec((0u64..15, any::<bool>(), 0usize..12, any::<bool>(), 0u64..5), 1..80),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut choker = Choker::new(slots, seed);
            let mut peers: Vec<_> = (0..12).map(|n| peer(n, false, 0, start)).collect();
            for (seconds, seeding, index, interested, rate) in steps {
                now += Duration::from_secs(seconds);
                peers[index].interested = interested;
                peers[index].received_rate = rate;
                peers[index].sent_rate = rate;
                let changes = choker.decide(now, seeding, &peers);
                apply(&mut peers, changes);
                let wanting = peers.iter().filter(|peer| peer.interested).count();
                prop_assert_eq!(served(&peers).len(), wanting.min(slots + 1));
                prop_assert!(peers.iter().all(|peer| peer.choked || peer.interested));
                prop_assert!(choker.next_round().is_some_and(|due| due > now));
                prop_assert!(choker.decide(now, seeding, &peers).is_empty(), "asked again, nothing changes");
            }
        }
    }
}
