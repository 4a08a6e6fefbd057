//! The decision: after whatever happened, what is to be sent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Duration;

use super::choose::{Choice, Round};
use super::copies::Late;
use super::demands::Band;
use super::partial::Partial;
use super::peer::{Request, RequestState};
use super::settings::{
    FEW_PEERS, FORGET, PROBE_BLOCKS, PROBE_BLOCKS_OF_FEW, PROBE_BLOCKS_OF_WAITING, PROBE_QUARTERS, STALL, STALL_FACTOR,
    TICK, TICK_WAITING,
};
use super::state::{Action, Picker};
use crate::swarm::shape::{BLOCK, Block, Time};

/// Late blocks that are noted at once.
const MAX_LATE: usize = 256;

impl Picker {
    /// Appends what is to be sent now to `actions`.
    ///
    /// Peers with room are served in the order in which they would deliver, one block at a time, so the blocks of an
    /// urgent piece go to whoever brings them first.
    pub fn decide(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.tell_interest();
        self.wakeup = None;
        if now >= self.next_check {
            self.check(now);
        }
        if !self.suspects.is_empty() {
            self.appoint(now);
        }
        if std::mem::take(&mut self.sweep) {
            self.cancel_unwanted(now);
        }
        if std::mem::take(&mut self.preempt) {
            self.cancel_for_waiting(now);
        }
        self.fill(now);
        if self.index.is_waited_for()
            || self.is_wanting()
            || self.peers.iter().any(|(_, peer)| !peer.requests.is_empty())
        {
            self.wake_at(self.next_check);
        }
        actions.append(&mut self.pending);
    }

    /// When [`decide`](Picker::decide) must be called next if nothing happens before.
    pub fn next_wakeup(&self) -> Option<Time> {
        if self.peers.len() == 0 { None } else { self.wakeup }
    }

    pub(super) fn wake_at(&mut self, time: Time) {
        self.wakeup = Some(self.wakeup.map_or(time, |wakeup| wakeup.min(time)));
    }

    /// A peer is interesting while it has anything that we lack, asked for or not: an unchoke takes a peer seconds,
    /// which a reader that seeks would wait for.
    fn tell_interest(&mut self) {
        if !std::mem::take(&mut self.interest_changed) {
            return;
        }
        let missing = !self.have.is_full();
        for (_, peer) in self.peers.iter_mut() {
            let all = peer.is_seeder() || !peer.announced;
            let interested = !peer.banned && if all { missing } else { peer.useful > 0 };
            if interested != peer.interested {
                peer.interested = interested;
                self.pending.push(Action::Interested {
                    peer: peer.key,
                    interested,
                });
            }
        }
    }

    /// Looks at every request: what is far too late is given up, and what was cancelled long ago is forgotten.
    fn check(&mut self, now: Time) {
        let waited_for = self.index.is_waited_for();
        self.next_check = now + if waited_for { TICK_WAITING } else { TICK };
        let typical = self.typical_rate();
        let (mut free, mut forgotten) = (Vec::new(), Vec::new());
        self.find_late(now);
        for (_, peer) in self.peers.iter_mut() {
            let block_s = f64::from(BLOCK) / peer.meter.rate().unwrap_or(typical);
            let patience = STALL.max(Duration::from_secs_f64(
                (STALL_FACTOR * block_s).min(FORGET.as_secs_f64()),
            ));
            let mut late = false;
            peer.requests.retain_mut(|request| match request.state {
                RequestState::Live if now > request.due + patience => {
                    late = true;
                    self.suspects.late(request.block.piece, peer.key);
                    free.push(request.block);
                    request.state = RequestState::GivenUp(now + FORGET);
                    true
                }
                RequestState::Live => true,
                RequestState::GivenUp(until) if now >= until => {
                    forgotten.push(*request);
                    false
                }
                RequestState::Cancelled(until) if now >= until => {
                    free.push(request.block);
                    request.state = RequestState::GivenUp(until);
                    forgotten.push(*request);
                    false
                }
                RequestState::GivenUp(_) | RequestState::Cancelled(_) => true,
            });
            peer.expire_forgotten(now);
            forgotten.drain(..).for_each(|request| peer.forget(request));
            let silent = peer.meter.last_arrival().is_none_or(|last| now > last + patience);
            if late && silent && !peer.snubbed {
                peer.snubbed = true;
                self.pending.push(Action::Snubbed {
                    peer: peer.key,
                    snubbed: true,
                });
            }
        }
        for block in free {
            self.unask(block);
        }
        // Who was too slow a moment ago may be the best by now.
        self.all_ready = true;
    }

    /// Notes the blocks that readers wait for and that should have been here some time ago.
    fn find_late(&mut self, now: Time) {
        self.late.clear();
        if !self.index.is_waited_for() {
            return;
        }
        let live = || {
            self.peers.iter().flat_map(|(_, peer)| {
                let missed = peer.missed(now);
                let requests = peer.requests.iter();
                let requests = requests.filter(|request| request.state == RequestState::Live);
                requests.map(move |request| (request, missed))
            })
        };
        let is_late = |(request, missed): &(&Request, Option<Time>)| missed.is_some() || request.is_late(now);
        if !live().any(|it| is_late(&it)) {
            return;
        }
        let on_time = live().filter(|it| !is_late(it));
        let on_time: HashSet<Block> = on_time.map(|(request, _)| request.block).collect();
        // One that was asked for again, and may still come in time, is not asked for once more.
        let hopeless = live().filter(|it| is_late(it) && !on_time.contains(&it.0.block));
        let waited_for = hopeless.filter_map(|(request, missed)| {
            let (band, deadline) = self.demands.urgency(request.block.piece)?;
            let late = Late {
                rank: (band, deadline, request.block.piece),
                block: request.block,
                due: missed.map_or(request.due, |tick| request.due.min(tick)),
            };
            (band == Band::Waiting).then_some(late)
        });
        self.late = waited_for.collect();
        self.late.sort_by_key(|late| (late.rank, late.block, late.due));
        self.late.dedup_by_key(|late| late.block);
        self.late.truncate(MAX_LATE);
    }

    /// Gives requests to the peers that have room, the one that would deliver first first.
    fn fill(&mut self, now: Time) {
        let slots: Vec<u32> = if std::mem::take(&mut self.all_ready) {
            self.ready.clear();
            self.peers.iter().map(|(slot, _)| slot).collect()
        } else {
            std::mem::take(&mut self.ready)
        };
        for slot in &slots {
            if let Some(peer) = self.peers.at_mut(*slot) {
                peer.marked = false;
            }
        }
        if self.index.is_empty() {
            return;
        }
        let mut round = Round::new(now, self.typical_rate(), self.probe(), self.random.fork());
        round.late = std::mem::take(&mut self.late);
        let mut heap: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::with_capacity(slots.len());
        for slot in slots {
            self.offer(&round, slot, &mut heap);
        }
        while let Some(Reverse((_, slot))) = heap.pop() {
            let Some(choice) = self.choose(&mut round, slot) else {
                continue;
            };
            self.ask(&mut round, slot, choice);
            self.offer(&round, slot, &mut heap);
        }
        self.late = std::mem::take(&mut round.late);
        if let Some(time) = round.wakeup {
            self.wake_at(time);
            // Peers that wait for their moment are looked at then.
            for slot in std::mem::take(&mut round.paced) {
                self.mark(slot);
            }
        }
    }

    /// How many blocks a peer is asked for of which nothing is known.
    fn probe(&self) -> usize {
        let (least, peers) = (PROBE_BLOCKS, self.peers.len());
        let least = if peers <= FEW_PEERS { PROBE_BLOCKS_OF_FEW } else { least };
        let first = self.index.open.first().filter(|rank| rank.0 == Band::Waiting);
        let share = first.map_or(0, |rank| {
            let blocks = self.shape.block_count(rank.2) as usize * PROBE_QUARTERS;
            blocks.div_ceil(4 * peers.max(1))
        });
        share.min(PROBE_BLOCKS_OF_WAITING).max(least)
    }

    /// Puts a peer with room on the heap, by the time at which it would deliver.
    fn offer(&self, round: &Round, slot: u32, heap: &mut BinaryHeap<Reverse<(u64, u32)>>) {
        if let Some(peer) = self.peers.at(slot)
            && peer.serves(round.now)
            && peer.room(&self.settings, round.probe) > 0
        {
            let delivery_s = peer.delivery_s(round.now, round.rate(peer));
            heap.push(Reverse(((delivery_s * 1e6) as u64, slot)));
        }
    }

    fn ask(&mut self, round: &mut Round, slot: u32, choice: Choice) {
        let (block, copy) = match choice {
            Choice::Copy(block) => (block, true),
            Choice::Free(piece) => {
                if !self.partials.contains_key(&piece) {
                    self.make_room(round.now, piece);
                    self.partials.insert(piece, Partial::new(self.shape.block_count(piece)));
                }
                let index = self.partials.get_mut(&piece).and_then(Partial::first_free);
                (
                    Block {
                        piece,
                        index: index.unwrap_or(0),
                    },
                    false,
                )
            }
        };
        let Some(peer) = self.peers.at_mut(slot) else {
            return;
        };
        let delivery = Duration::from_secs_f64(peer.delivery_s(round.now, round.rate(peer)));
        let alone = peer.requests.is_empty();
        let due = round.now + delivery + Duration::from_secs_f64(peer.meter.pause_s());
        peer.requests.push_back(Request {
            block,
            sent: round.now,
            due,
            alone,
            blind: peer.meter.window().is_none(),
            state: RequestState::Live,
        });
        self.pending.push(Action::Request { peer: peer.key, block });
        self.counters.requests += 1;
        round.asked(block, delivery.as_secs_f64());
        if let Some(partial) = self.partials.get_mut(&block.piece) {
            let free = partial.free();
            let first = partial.here() == 0 && !partial.is_asked();
            partial.ask(block.index);
            if copy {
                self.counters.duplicate_requests += 1;
                partial.duplicates += 1;
            }
            if first || (free > 0 && partial.free() == 0) {
                self.refresh(block.piece);
            }
        }
    }

    /// The rate that a peer of unknown rate is taken to have: that of the middle one of the others. (A mean would be that
    /// of one peer whose first blocks came all at once.)
    pub(super) fn typical_rate(&self) -> f64 {
        let rates = self.peers.iter().filter_map(|(_, peer)| peer.meter.rate());
        let mut rates: Vec<f64> = rates.collect();
        if rates.is_empty() {
            return f64::from(self.settings.assumed_rate.max(1));
        }
        let middle = (rates.len() - 1) / 2;
        *rates.select_nth_unstable_by(middle, f64::total_cmp).1
    }
}
