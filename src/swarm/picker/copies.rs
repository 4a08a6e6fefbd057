//! Which block is asked of one peer though it is asked of another already.

use super::choose::Round;
use super::index::Rank;
use super::peer::{Peer, Request, RequestState};
use super::settings::{DUPLICATE_SHARE, LEAST_GAIN_S, MAX_COPIES};
use super::state::Picker;
use crate::swarm::shape::{Block, Time};

/// How many waited-for pieces whose blocks are all asked for are looked at for blocks to ask for again.
const MAX_TAILS: usize = 8;
/// A block that was asked of an unknown peer is misplaced there if it comes this many seconds later than in one and a
/// half times what another peer takes for it.
const MISPLACED_S: f64 = 0.050;

/// A copy is asked of a peer that sends in bursts only if that gains so much of the time between two of them.
const BURSTS: f64 = 0.75;

/// A block that a reader waits for and that is asked of somebody.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) block: Block,
    /// When the best of those asked would deliver it, in seconds from now.
    pub(super) delivery_s: f64,
    pub(super) late: bool,
    /// Asked of a peer before anything was known of it.
    blind: bool,
}

/// A block that a reader waits for and that should have been here some time ago.
#[derive(Debug, Clone, Copy)]
pub(super) struct Late {
    pub(super) rank: Rank,
    pub(super) block: Block,
    pub(super) due: Time,
}

impl Picker {
    /// A block that is late, of a piece that comes before everything that is not asked for yet: with readers that
    /// always want something new, it would else never have its turn.
    pub(super) fn choose_late(&self, round: &mut Round, peer: &Peer, delivery_s: f64) -> Option<Block> {
        if round.late.is_empty() {
            return None;
        }
        let first = self.index.open.first();
        let mut before = round
            .late
            .iter()
            .take_while(|late| first.is_none_or(|first| late.rank < *first));
        let place = before.position(|late| {
            let Late { block, due, .. } = *late;
            let wanted = || {
                self.partials.get(&block.piece).is_some_and(|partial| {
                    !partial.is_here(block.index) && (1..MAX_COPIES).contains(&partial.copies(block.index))
                })
            };
            (round.now - due).as_secs_f64() > delivery_s
                && wanted()
                && self.may_ask(round.now, peer, block.piece)
                && peer.position(block).is_none()
        })?;
        Some(round.late.remove(place).block)
    }

    /// A block that a reader waits for and that this peer would bring clearly sooner than those asked.
    pub(super) fn choose_copy(&self, round: &mut Round, peer: &Peer, delivery_s: f64) -> Option<Block> {
        if self.index.tails.is_empty() {
            return None;
        }
        if round.asked.is_none() {
            round.asked = Some(self.asked_blocks(round));
        }
        // Which of its bursts brings a block is known no better than to one.
        let burst_s = peer
            .meter
            .bursts(round.now)
            .map_or(0.0, |pattern| BURSTS * pattern.period_s());
        let least_gain_s = LEAST_GAIN_S.max(delivery_s / 4.0).max(burst_s);
        let sooner = round.asked.iter().flatten().filter(|asked| {
            let jitter_s = if asked.late { 0.0 } else { 2.0 * peer.meter.jitter_s() };
            asked.delivery_s > delivery_s + least_gain_s + jitter_s
        });
        let possible = sooner.filter(|asked| {
            let Some(partial) = self.partials.get(&asked.block.piece) else {
                return false;
            };
            let copies = partial.copies(asked.block.index);
            let budget = (partial.block_count() / DUPLICATE_SHARE).max(2);
            // A peer that turns out to be slow was asked for far too much.
            let misplaced = asked.blind && asked.delivery_s > 1.5 * delivery_s + MISPLACED_S;
            let affordable = if asked.late || misplaced {
                copies < MAX_COPIES
            } else {
                copies < 2 && partial.duplicates < budget
            };
            affordable && self.may_ask(round.now, peer, asked.block.piece) && peer.position(asked.block).is_none()
        });
        possible
            .max_by(|one, other| one.delivery_s.total_cmp(&other.delivery_s))
            .map(|asked| asked.block)
    }

    /// Every block asked for of the pieces that readers wait for and that have no free blocks.
    fn asked_blocks(&self, round: &Round) -> Vec<Asked> {
        let pieces: Vec<u32> = self.index.tails.iter().take(MAX_TAILS).map(|rank| rank.2).collect();
        let mut asked: Vec<Asked> = Vec::new();
        let answers = self.peers.iter().filter_map(|(_, peer)| peer.meter.answer_s());
        let (sum, count) = answers.fold((0.0, 0.0), |(sum, count), answer_s| (sum + answer_s, count + 1.0));
        let answer_s = (count > 0.0).then(|| sum / count);
        for (_, peer) in self.peers.iter() {
            let rate = round.rate(peer);
            // What a peer promised of which nothing is known says nothing; but others have answered meanwhile.
            let silent = answer_s.filter(|_| peer.meter.window().is_none()).map(|answer_s| {
                let waited = |request: &Request| (round.now - request.sent).as_secs_f64();
                peer.requests
                    .front()
                    .is_some_and(|head| waited(head) > 2.0 * answer_s + 0.050)
            });
            let missed = peer.missed(round.now).is_some();
            for (place, request) in peer.requests.iter().enumerate() {
                if !pieces.contains(&request.block.piece) {
                    continue;
                }
                let delivery_s = match request.state {
                    RequestState::Live => peer.drain_s(round.now, rate, place + 1),
                    RequestState::Cancelled(until) => (until - round.now).as_secs_f64(),
                    RequestState::GivenUp(_) => continue,
                };
                let late = silent.unwrap_or_else(|| missed || request.is_late(round.now));
                asked.push(Asked {
                    block: request.block,
                    delivery_s,
                    late,
                    blind: request.blind,
                });
            }
        }
        asked.retain(|asked| {
            !self
                .partials
                .get(&asked.block.piece)
                .is_none_or(|it| it.is_here(asked.block.index))
        });
        asked.sort_by(|one, other| {
            one.block
                .cmp(&other.block)
                .then(one.delivery_s.total_cmp(&other.delivery_s))
        });
        asked.dedup_by_key(|asked| asked.block);
        asked
    }
}
