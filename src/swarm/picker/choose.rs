//! Which block one peer is asked for next.

use super::bursts::Pattern;
use super::copies::{Asked, Late};
use super::demands::Band;
use super::index::Rank;
use super::partial::Partial;
use super::peer::Peer;
use super::settings::{MAX_WALK, RARITY_TRIES};
use super::state::Picker;
use crate::swarm::shape::{BLOCK, Block, Time};

/// A peer that takes longer than this for a block is asked for a second one only when the first is nearly here, unless
/// a reader waits: two such blocks would hold up a seek.
const SLOW_BLOCK_S: f64 = 0.100;
/// A block may come later than the best possible moment by this share of the time...
const FINISH_TOLERANCE: f64 = 0.02;
/// ...and this many seconds: rates are not known better.
const FINISH_TOLERANCE_S: f64 = 0.002;

/// What to ask a peer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The next free block of this piece.
    Free(u32),
    /// This block, which is asked of another peer already.
    Copy(Block),
}

/// What some peers can do together.
#[derive(Debug, Clone, Copy, Default)]
struct Capacity {
    /// Bytes a second.
    rate: f64,
    /// Bytes they were asked for already.
    queued: f64,
    /// Sum of rate × round trip, or × the time between two bursts.
    in_flight: f64,
    peers: f64,
}

impl Capacity {
    fn add(&mut self, peer: &Peer, now: Time, rate: f64) {
        // The longer a peer is late, the less is expected of it.
        let block_s = f64::from(BLOCK) / rate;
        let rate = rate * block_s / (block_s + peer.overdue_s(now, rate));
        self.rate += rate;
        self.queued += peer.requests.len() as f64 * f64::from(BLOCK);
        let tick_s = peer.meter.bursts(now).map_or(0.0, Pattern::period_s);
        self.in_flight += rate * peer.meter.round_trip_s().max(tick_s);
        self.peers += 1.0;
    }

    /// When they would be through with what they were asked for and `ahead` bytes more, and a block's time on top: a
    /// peer that delivers by then delays nothing.
    fn done_s(&self, ahead: f64) -> f64 {
        (self.queued + self.in_flight + ahead + self.peers * f64::from(BLOCK)) / self.rate.max(1.0)
    }
}

/// What one decision computes once, when it is first needed.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) now: Time,
    typical: f64,
    /// Blocks that a peer of which nothing is known may be asked for at once.
    pub(super) probe: usize,
    line: Option<Capacity>,
    pub(super) asked: Option<Vec<Asked>>,
    /// Blocks that are late and were not asked for again since that was seen, the most urgent first.
    pub(super) late: Vec<Late>,
    full: [bool; 4],
    random: fastrand::Rng,
    pub(super) wakeup: Option<Time>,
    /// Peers that are to be looked at again at `wakeup`.
    pub(super) paced: Vec<u32>,
}

impl Round {
    pub(super) fn new(now: Time, typical: f64, probe: usize, random: fastrand::Rng) -> Round {
        Round {
            now,
            typical,
            probe,
            line: None,
            asked: None,
            late: Vec::new(),
            full: [false; 4],
            random,
            wakeup: None,
            paced: Vec::new(),
        }
    }

    /// Puts the peer in `slot` off for so many seconds.
    fn pace(&mut self, slot: u32, seconds: f64) {
        let time = self.now + std::time::Duration::from_secs_f64(seconds);
        self.wakeup = Some(self.wakeup.map_or(time, |wakeup| wakeup.min(time)));
        self.paced.push(slot);
    }

    pub(super) fn rate(&self, peer: &Peer) -> f64 {
        peer.meter.rate().unwrap_or(self.typical)
    }

    /// A block was asked of a peer that will deliver it in `delivery_s`.
    pub(super) fn asked(&mut self, block: Block, delivery_s: f64) {
        if let Some(line) = &mut self.line {
            line.queued += f64::from(BLOCK);
        }
        let same = self.asked.iter_mut().flatten().find(|asked| asked.block == block);
        match same {
            Some(asked) => {
                asked.delivery_s = asked.delivery_s.min(delivery_s);
                asked.late = false;
            }
            None => self.asked = None,
        }
    }
}

impl Picker {
    /// What to ask the peer in `slot` for, which has room for a block; `None` if nothing is worth asking of it.
    pub(super) fn choose(&self, round: &mut Round, slot: u32) -> Option<Choice> {
        let peer = self.peers.at(slot)?;
        let delivery_s = peer.delivery_s(round.now, round.rate(peer));
        if let Some(block) = self.choose_late(round, peer, delivery_s) {
            return Some(Choice::Copy(block));
        }
        // Asked earlier, it could not be called back when the reader seeks.
        if let Some(early_s) = peer.early_s(round.now, true).filter(|early_s| *early_s > 0.0) {
            round.pace(slot, early_s);
            return None;
        }
        let mut ahead = 0.0;
        let mut waiting = true;
        let mut sooner = None;
        for rank in self.index.open.iter().take(MAX_WALK) {
            let (band, _, piece) = *rank;
            if waiting && band != Band::Waiting {
                waiting = false;
                if let Some(block) = self.choose_copy(round, peer, delivery_s) {
                    return Some(Choice::Copy(block));
                }
                if !self.may_take_less_urgent(round, peer, slot) {
                    return None;
                }
            }
            ahead += f64::from(self.free_blocks(piece)) * f64::from(BLOCK);
            if self.may_ask(round.now, peer, piece)
                && self.is_in_time(round, &mut sooner, rank, delivery_s, ahead)
                && self.may_start(round, band, piece)
            {
                return Some(Choice::Free(piece));
            }
        }
        if waiting {
            if let Some(block) = self.choose_copy(round, peer, delivery_s) {
                return Some(Choice::Copy(block));
            }
            if !self.may_take_less_urgent(round, peer, slot) {
                return None;
            }
        }
        self.choose_whole(round, peer).map(Choice::Free)
    }

    pub(super) fn may_ask(&self, now: Time, peer: &Peer, piece: u32) -> bool {
        peer.offers(piece, now) && self.admits(piece, peer)
    }

    pub(super) fn free_blocks(&self, piece: u32) -> u32 {
        self.partials
            .get(&piece)
            .map_or_else(|| self.shape.block_count(piece), Partial::free)
    }

    /// Whether a block of the piece at `rank` that arrives in `delivery_s` would come before its deadline, or no later
    /// than the last of all that is to be fetched up to its piece (`ahead` bytes) would come at best. `sooner` is kept
    /// for the other pieces that the same peer may be asked for.
    fn is_in_time<'a>(
        &'a self,
        round: &mut Round,
        sooner: &mut Option<Vec<(&'a Peer, f64)>>,
        rank: &Rank,
        delivery_s: f64,
        ahead: f64,
    ) -> bool {
        let (band, deadline, piece) = *rank;
        if (deadline - round.now).as_secs_f64() > delivery_s {
            return true;
        }
        match band {
            Band::Waiting => {
                let blocks = (ahead / f64::from(BLOCK)).max(1.0);
                let earlier_s = (delivery_s - FINISH_TOLERANCE_S) / (1.0 + FINISH_TOLERANCE);
                let sooner = sooner.get_or_insert_with(|| self.sooner(round, earlier_s));
                let able = sooner.iter().filter(|(peer, _)| self.may_ask(round.now, peer, piece));
                able.map(|(_, blocks)| blocks).sum::<f64>() < blocks
            }
            Band::Soon => self.line_capacity(round).done_s(ahead) >= delivery_s,
            Band::Edge | Band::Whole => true,
        }
    }

    /// The peers that would bring blocks before `delivery_s` seconds from now, and how many each.
    fn sooner(&self, round: &Round, delivery_s: f64) -> Vec<(&Peer, f64)> {
        let blocks = |peer: &Peer| {
            let room = || peer.room(&self.settings, round.probe);
            peer.blocks_within(round.now, round.rate(peer), delivery_s, room)
        };
        let all = self.peers.iter().map(|(_, peer)| (peer, blocks(peer)));
        all.filter(|(_, blocks)| *blocks > 0.0).collect()
    }

    fn line_capacity(&self, round: &mut Round) -> Capacity {
        if let Some(capacity) = round.line {
            return capacity;
        }
        let mut capacity = Capacity::default();
        for (_, peer) in self.peers.iter().filter(|(_, peer)| !peer.choking && !peer.banned) {
            capacity.add(peer, round.now, round.rate(peer));
        }
        round.line = Some(capacity);
        capacity
    }

    /// Whether a slow peer, or one that sends in bursts, has so little left to send that it may be asked for something
    /// that no reader waits for.
    fn may_take_less_urgent(&self, round: &mut Round, peer: &Peer, slot: u32) -> bool {
        let rate = round.rate(peer);
        let block_s = f64::from(BLOCK) / rate;
        if let Some(early_s) = peer.early_s(round.now, false) {
            if early_s > 0.0 {
                round.pace(slot, early_s);
            }
            return early_s <= 0.0;
        }
        if block_s < SLOW_BLOCK_S || peer.requests.is_empty() {
            return true;
        }
        // One whose blocks come evenly is asked at the last moment.
        let uneven_s = peer.meter.jitter_s().min(block_s / 4.0);
        let enough_s = peer.meter.round_trip_s() + self.settings.queue_delay.as_secs_f64() + uneven_s;
        let left_s = peer.drain_s(round.now, rate, peer.requests.len());
        if left_s <= enough_s {
            return true;
        }
        round.pace(slot, left_s - enough_s);
        false
    }

    /// Started pieces first, which bounds the memory that they take; then one of the rarest.
    fn choose_whole(&self, round: &mut Round, peer: &Peer) -> Option<u32> {
        let now = round.now;
        let started = self.index.started.iter().take(MAX_WALK).copied();
        if let Some(piece) = started.into_iter().find(|piece| self.may_ask(now, peer, *piece)) {
            return Some(piece);
        }
        let rarity = &self.index.rarity;
        let rarest = rarity.rarest();
        if rarest.is_empty() || !self.may_start(round, Band::Whole, rarest[0]) {
            return None;
        }
        let first = round.random.usize(0..rarest.len());
        let found = (0..rarest.len().min(RARITY_TRIES))
            .map(|step| rarest[(first + step) % rarest.len()])
            .chain(rarity.order()[rarest.len()..].iter().copied().take(RARITY_TRIES))
            .find(|piece| self.may_ask(now, peer, *piece));
        found.or_else(|| self.search_bits(round, peer))
    }

    /// The rarest of some pieces that the peer has and that can be started, found in its bits: for peers that have
    /// little.
    fn search_bits(&self, round: &mut Round, peer: &Peer) -> Option<u32> {
        let have = peer.have()?.words();
        let here = self.have.words();
        let from = round.random.usize(0..have.len().max(1));
        let places = (from..have.len()).chain(0..from);
        let useful = places
            .map(|place| (place, have[place] & !here[place]))
            .filter(|(_, word)| *word != 0);
        let pieces = useful.flat_map(|(place, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| place as u32 * 64 + bit)
        });
        let rarity = &self.index.rarity;
        pieces
            .filter(|piece| rarity.contains(*piece) && self.may_ask(round.now, peer, *piece))
            .take(RARITY_TRIES)
            .min_by_key(|piece| rarity.count(*piece))
    }

    /// Whether there is memory for one more unfinished piece of `band`.
    fn may_start(&self, round: &mut Round, band: Band, piece: u32) -> bool {
        if self.partials.contains_key(&piece) || self.partials.len() < self.partial_limit() {
            return true;
        }
        if round.full[band as usize] {
            return false;
        }
        let beyond = band == Band::Waiting && self.partials.len() < 4 * self.partial_limit();
        let can = beyond || self.least_partial(band).is_some();
        round.full[band as usize] = !can;
        can
    }
}
