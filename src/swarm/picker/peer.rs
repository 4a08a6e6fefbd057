//! What a picker keeps of one peer: what it has, what was asked of it, and when that will arrive.

use std::collections::VecDeque;
use std::time::Duration;

use super::bursts::Pattern;
use super::meter::Meter;
use super::settings::{ANOTHER_CHANCE, MAX_ALLOWED_FAST, MAX_FORGOTTEN, MAX_REFUSED, REFUSED, Settings};
use crate::swarm::shape::{BLOCK, Block, PeerKey, PieceSet, Time};

/// A block is late when it should have been here this long ago, or half of the time that it was to take.
const LATE: Duration = Duration::from_millis(50);

/// How long before its tick a peer that sends in bursts is asked for what it sends then, in seconds: the request has to
/// get there, and the block off its disk. Asked earlier, it could not be called back when a reader seeks.
const AHEAD_S: f64 = 0.150;

/// One request that was sent and neither answered nor forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) block: Block,
    pub(super) sent: Time,
    /// When it was predicted to arrive.
    pub(super) due: Time,
    /// Whether nothing else was asked of the peer when it was sent.
    pub(super) alone: bool,
    /// Whether nothing was known of the peer then: it may be far too slow for it.
    pub(super) blind: bool,
    pub(super) state: RequestState,
}

impl Request {
    /// Whether its block should have been here some time ago.
    pub(super) fn is_late(&self, now: Time) -> bool {
        now > self.due + ((self.due - self.sent) / 2).max(LATE)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestState {
    /// The block is expected.
    Live,
    /// CANCEL was sent, and the block may arrive all the same: it is asked of nobody else until the peer rejects the
    /// request or this moment comes.
    Cancelled(Time),
    /// It is too late to be waited for: others may be asked for the block, though it counts in the queue until this
    /// moment.
    GivenUp(Time),
}

/// A piece that the peer, though it announced it, refused to send.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    piece: u32,
    until: Time,
    times: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) key: PeerKey,
    /// BEP 6: it answers each request, with the block or with a reject.
    pub(super) fast: bool,
    pub(super) reqq: u32,
    /// `None` for a peer that has everything.
    have: Option<PieceSet>,
    /// Pieces that it has and we lack; for a seeder the owner knows.
    pub(super) useful: u32,
    pub(super) choking: bool,
    allowed_fast: Vec<u32>,
    /// It said what it has; until then it is taken to be interesting.
    pub(super) announced: bool,
    pub(super) interested: bool,
    pub(super) snubbed: bool,
    /// Sent a bad piece: nothing is asked of it any more.
    pub(super) banned: bool,
    pub(super) requests: VecDeque<Request>,
    /// Requests that count no more: should the block come after all, it tells how slow the peer is.
    forgotten: VecDeque<Request>,
    pub(super) meter: Meter,
    refusals: Vec<Refusal>,
    resting_until: Time,
    /// Verified pieces that it sent a part of.
    pub(super) good: u32,
    pub(super) received: u64,
    /// Waits in the list of peers that the next decision looks at.
    pub(super) marked: bool,
}

impl Peer {
    pub(super) fn new(key: PeerKey, fast: bool, reqq: u32, pieces: u32) -> Peer {
        Peer {
            key,
            fast,
            reqq: reqq.max(1),
            have: Some(PieceSet::new(pieces)),
            useful: 0,
            choking: true,
            allowed_fast: Vec::new(),
            announced: false,
            interested: false,
            snubbed: false,
            banned: false,
            requests: VecDeque::new(),
            forgotten: VecDeque::new(),
            meter: Meter::default(),
            refusals: Vec::new(),
            resting_until: Time::ZERO,
            good: 0,
            received: 0,
            marked: false,
        }
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        self.have.as_ref().is_none_or(|have| have.get(piece))
    }

    /// Its pieces; `None` for a seeder.
    pub(super) fn have(&self) -> Option<&PieceSet> {
        self.have.as_ref()
    }

    pub(super) fn have_mut(&mut self) -> &mut Option<PieceSet> {
        &mut self.have
    }

    pub(super) fn is_seeder(&self) -> bool {
        self.have.is_none()
    }

    pub(super) fn allow(&mut self, piece: u32) {
        if self.allowed_fast.len() < MAX_ALLOWED_FAST && !self.allowed_fast.contains(&piece) {
            self.allowed_fast.push(piece);
        }
    }

    pub(super) fn is_allowed(&self, piece: u32) -> bool {
        self.allowed_fast.contains(&piece)
    }

    /// Whether anything can be asked of it.
    pub(super) fn serves(&self, now: Time) -> bool {
        !self.banned && (!self.choking || !self.allowed_fast.is_empty()) && now >= self.resting_until
    }

    /// Whether `piece` can be asked of it.
    pub(super) fn offers(&self, piece: u32, now: Time) -> bool {
        self.has(piece)
            && !self.banned
            && (!self.choking || self.is_allowed(piece))
            && now >= self.resting_until
            && !self
                .refusals
                .iter()
                .any(|refusal| refusal.piece == piece && now < refusal.until)
    }

    /// It would not send a block of `piece`: the piece is left alone for a while, longer each time.
    pub(super) fn refuses(&mut self, now: Time, piece: u32) {
        if let Some(refusal) = self.refusals.iter_mut().find(|refusal| refusal.piece == piece) {
            if now >= refusal.until {
                refusal.times += 1;
            }
            refusal.until = now + REFUSED * (1 << refusal.times.min(4));
            return;
        }
        self.refusals.retain(|refusal| now < refusal.until);
        if self.refusals.len() >= MAX_REFUSED {
            self.resting_until = now + REFUSED;
            return;
        }
        self.refusals.push(Refusal {
            piece,
            until: now + REFUSED,
            times: 0,
        });
    }

    /// A block of `piece` came: it is refused no longer.
    pub(super) fn relents(&mut self, piece: u32) {
        self.refusals.retain(|refusal| refusal.piece != piece);
        self.resting_until = Time::ZERO;
    }

    /// How many more blocks may be asked of it now; `probe`: how many at most while it is unknown.
    ///
    /// A request that was cancelled to make room leaves its place to another, so a queue may be twice its window for
    /// the time that the cancelling takes.
    pub(super) fn room(&self, settings: &Settings, probe: usize) -> usize {
        if self.banned {
            return 0;
        }
        let limit = (self.reqq.min(settings.max_queue).max(1)) as usize;
        let window = if self.snubbed {
            1
        } else {
            self.meter.window().unwrap_or(probe)
        }
        .min(limit);
        let cancelled = self
            .requests
            .iter()
            .filter(|request| matches!(request.state, RequestState::Cancelled(_)));
        let limit_with_cancelled = (window + cancelled.count().min(window)).min(limit);
        limit_with_cancelled.saturating_sub(self.requests.len())
    }

    /// How it sends, if that is in bursts, and in how many seconds the first of its queue comes; negative if it should
    /// have come.
    fn bursts(&self, now: Time) -> Option<(Pattern, f64)> {
        let pattern = self.meter.bursts(now)?;
        let asked = self.requests.front().map_or(now, |head| head.sent);
        Some((pattern, pattern.tick_s(now, asked, self.meter.round_trip_s())))
    }

    /// The tick that a peer which sends in bursts has missed by half of the time to the next, with something to send: it
    /// has stopped, and nothing of its queue is expected in time.
    pub(super) fn missed(&self, now: Time) -> Option<Time> {
        let (pattern, tick_s) = self.bursts(now).filter(|_| !self.requests.is_empty())?;
        (-tick_s > pattern.period_s() / 2.0).then(|| now - Duration::from_secs_f64(-tick_s))
    }

    /// Time beyond what its next block should have taken, in seconds: it is late by this much.
    pub(super) fn overdue_s(&self, now: Time, rate: f64) -> f64 {
        if let Some((_, tick_s)) = self.bursts(now) {
            return if self.requests.is_empty() {
                0.0
            } else {
                (-tick_s).max(0.0)
            };
        }
        (self.head_s(now) - f64::from(BLOCK) / rate).max(0.0)
    }

    /// How long the oldest request has been worked on, in seconds; negative while it is on its way.
    fn head_s(&self, now: Time) -> f64 {
        let Some(head) = self.requests.front() else {
            return 0.0;
        };
        let possible = head.sent + Duration::from_secs_f64(self.meter.round_trip_s());
        let begun = self.meter.last_arrival().map_or(possible, |last| last.max(possible));
        if begun > now {
            -(begun - now).as_secs_f64()
        } else {
            (now - begun).as_secs_f64()
        }
    }

    /// When the first `blocks` of its queue will have arrived, in seconds from `now`. A peer whose next block is late
    /// by some time is believed to need that time again: the longer it is silent, the less is expected of it.
    pub(super) fn drain_s(&self, now: Time, rate: f64, blocks: usize) -> f64 {
        if blocks == 0 || self.requests.is_empty() {
            return 0.0;
        }
        if let Some((pattern, tick_s)) = self.bursts(now) {
            return pattern.arrives_s(blocks, tick_s.abs());
        }
        let block_s = f64::from(BLOCK) / rate;
        let head_s = self.head_s(now);
        let behind_s = (blocks - 1) as f64 * block_s;
        behind_s
            + if head_s <= block_s {
                block_s - head_s
            } else {
                head_s - block_s
            }
    }

    /// When it would begin to send a block that is asked for now, as seen from here, in seconds from `now`.
    fn free_s(&self, now: Time, rate: f64) -> f64 {
        self.drain_s(now, rate, self.requests.len())
            .max(self.meter.round_trip_s())
    }

    /// When a block that is asked for now would arrive, in seconds from `now`.
    pub(super) fn delivery_s(&self, now: Time, rate: f64) -> f64 {
        if let Some((pattern, tick_s)) = self.bursts(now) {
            let queued_s = pattern.arrives_s(self.requests.len() + 1, tick_s.abs());
            return queued_s.max(self.next_tick_s(now, pattern));
        }
        self.free_s(now, rate) + f64::from(BLOCK) / rate
    }

    /// In how many seconds a peer that sends in bursts begins the first that a request of `now` is in time for.
    fn next_tick_s(&self, now: Time, pattern: Pattern) -> f64 {
        pattern.tick_s(now, now, self.meter.round_trip_s())
    }

    /// Of a peer that sends in bursts, in how many seconds it is early enough to ask it for one block more, which a
    /// reader waits for or not; `None` if it may send it at once.
    pub(super) fn early_s(&self, now: Time, waiting: bool) -> Option<f64> {
        let pattern = self.meter.bursts(now)?;
        let queued = self.requests.len() as f64;
        // Whose latest burst left nothing that it was asked for may send more.
        let left = self
            .requests
            .front()
            .is_some_and(|head| pattern.is_of_before(head.sent));
        if waiting {
            // Who never answered within half of its period may as well be far away, and send whenever it is asked.
            let ticks = self
                .meter
                .answer_s()
                .is_some_and(|answer_s| answer_s < pattern.period_s() / 2.0);
            if !ticks || (!left && pattern.spare().is_none_or(|spare| spare > queued + 0.5)) {
                return None;
            }
        } else if queued > if left { pattern.next() } else { pattern.most() } {
            return Some(pattern.period_s());
        }
        Some(pattern.tick_s(now, now, 0.0) - AHEAD_S.min(pattern.period_s() / 2.0))
    }

    /// How many blocks more than it was asked for it would bring within `within_s` seconds from `now`. Of a peer that
    /// sends in bursts only what may be asked for now counts, `room` blocks, and what it has room for after its next
    /// one: asked later, a block is a tick later.
    pub(super) fn blocks_within(&self, now: Time, rate: f64, within_s: f64, room: impl Fn() -> usize) -> f64 {
        if let Some((pattern, tick_s)) = self.bursts(now) {
            if within_s < self.next_tick_s(now, pattern) {
                return 0.0;
            }
            let tick_s = tick_s.abs();
            let blocks = pattern.blocks_within(within_s, self.requests.len(), tick_s);
            return blocks.floor().min(room() as f64 + pattern.later(within_s, tick_s));
        }
        ((within_s - self.free_s(now, rate)) * rate / f64::from(BLOCK)).floor()
    }

    /// Its first block came: when the rest of its queue is due is no guess any more.
    pub(super) fn promise_anew(&mut self, now: Time) {
        let Some(rate) = self.meter.rate() else { return };
        let dues: Vec<f64> = (1..=self.requests.len())
            .map(|blocks| self.drain_s(now, rate, blocks))
            .collect();
        for (request, due_s) in self.requests.iter_mut().zip(dues) {
            request.due = request.due.max(now + Duration::from_secs_f64(due_s));
        }
    }

    /// Whether it has stopped answering, or nothing that it was asked for is expected any more.
    pub(super) fn is_stuck(&self) -> bool {
        let given_up = |request: &Request| matches!(request.state, RequestState::GivenUp(_));
        self.snubbed || (!self.requests.is_empty() && self.requests.iter().all(given_up))
    }

    /// The request was taken out of the queue without an answer.
    pub(super) fn forget(&mut self, request: Request) {
        if self.forgotten.len() >= MAX_FORGOTTEN {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(request);
    }

    /// Drops the forgotten requests that are older than any answer.
    pub(super) fn expire_forgotten(&mut self, now: Time) {
        self.forgotten.retain(|request| now < request.sent + ANOTHER_CHANCE);
    }

    /// Takes the request for `block` out, be it forgotten or not.
    pub(super) fn take(&mut self, block: Block) -> Option<Request> {
        if let Some(place) = self.position(block) {
            return self.requests.remove(place);
        }
        let place = self.forgotten.iter().position(|request| request.block == block)?;
        self.forgotten.remove(place)
    }

    pub(super) fn position(&self, block: Block) -> Option<usize> {
        self.requests.iter().position(|request| request.block == block)
    }
}
