//! One simulated peer: how fast it sends, how far away it is, and in which ways it is no good.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::swarm::shape::{Block, PeerKey, PieceSet, Time};

/// What a simulated peer is like.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    /// Bytes a second.
    pub(super) rate: f64,
    /// Time that a message takes each way.
    pub(super) latency: Duration,
    /// Each block takes up to this much longer; blocks do not overtake each other.
    pub(super) jitter: Duration,
    /// Each block takes up to this share of its time longer or less long to send.
    pub(super) uneven: f64,
    /// It sends only so often, and then what its rate allows for this time: what libtorrent does under a rate limit.
    pub(super) ticks: Option<Duration>,
    /// Bytes that are in the kernel's hands once a request was read: a CANCEL does not reach them.
    pub(super) send_buffer: u32,
    pub(super) fast: bool,
    pub(super) reqq: u32,
    /// `None`: everything.
    pub(super) have: Option<PieceSet>,
    /// The share of its blocks that are false.
    pub(super) lies: f64,
    /// The share of requests that it rejects (or, without BEP 6, ignores).
    pub(super) refuses: f64,
    /// Sends what is asked in any order.
    pub(super) reorders: bool,
    /// Sends nothing in these times, and says nothing of it.
    pub(super) stalls: Vec<Range<Time>>,
    /// Not connected in these times.
    pub(super) away: Vec<Range<Time>>,
    /// Chokes us in these times.
    pub(super) chokes: Vec<Range<Time>>,
}

impl Profile {
    /// A good seeder of `rate` bytes a second.
    pub(super) fn seeder(rate: f64) -> Profile {
        Profile {
            rate,
            latency: Duration::from_micros(100),
            jitter: Duration::ZERO,
            uneven: 0.0,
            ticks: None,
            send_buffer: 256 * 1024,
            fast: true,
            reqq: 250,
            have: None,
            lies: 0.0,
            refuses: 0.0,
            reorders: false,
            stalls: Vec::new(),
            away: Vec::new(),
            chokes: Vec::new(),
        }
    }

    pub(super) fn latency(self, latency: Duration) -> Profile {
        Profile { latency, ..self }
    }

    /// Sends nothing, and says nothing of it, from `from` on.
    pub(super) fn silent_from(mut self, from: Time) -> Profile {
        self.stalls.push(from..Time::from_micros(u64::MAX));
        self
    }
}

/// A simulated peer at work.
#[derive(Debug)]
pub(super) struct Seeder {
    pub(super) profile: Profile,
    /// While connected.
    pub(super) key: Option<PeerKey>,
    /// Counts connections: what was on its way when one ended is lost.
    pub(super) connection: u32,
    pub(super) choking: bool,
    pub(super) queue: VecDeque<Block>,
    pub(super) buffered: u32,
    /// When its line is through with what is in the buffer.
    pub(super) line_free: Time,
    /// Its ticks count from here.
    connected: Time,
    /// When its last block arrives.
    pub(super) last_arrival: Time,
}

impl Seeder {
    pub(super) fn new(profile: Profile) -> Seeder {
        Seeder {
            profile,
            key: None,
            connection: 0,
            choking: true,
            queue: VecDeque::new(),
            buffered: 0,
            line_free: Time::ZERO,
            connected: Time::ZERO,
            last_arrival: Time::ZERO,
        }
    }

    pub(super) fn has(&self, piece: u32) -> bool {
        self.profile.have.as_ref().is_none_or(|have| have.get(piece))
    }

    pub(super) fn reset(&mut self, now: Time) {
        self.key = None;
        self.connection += 1;
        self.choking = true;
        self.queue.clear();
        self.buffered = 0;
        self.line_free = now;
        self.connected = now;
        self.last_arrival = now;
    }

    /// Takes the next block into the send buffer, if it has room: gives the block and when its last byte leaves.
    pub(super) fn send_next(
        &mut self,
        now: Time,
        size: impl Fn(Block) -> u32,
        random: &mut fastrand::Rng,
    ) -> Option<(Block, Time)> {
        let next = if self.profile.reorders && !self.queue.is_empty() {
            random.usize(0..self.queue.len())
        } else {
            0
        };
        let bytes = size(*self.queue.get(next)?);
        if self.buffered > 0 && self.buffered + bytes > self.profile.send_buffer {
            return None;
        }
        let next = self.queue.remove(next)?;
        let uneven = 1.0 + self.profile.uneven * (2.0 * random.f64() - 1.0);
        let block = Duration::from_secs_f64(uneven * f64::from(bytes) / self.profile.rate);
        let begins = self.line_free.max(self.last_tick(now));
        let mut leaves = begins + block;
        for stall in &self.profile.stalls {
            if stall.contains(&leaves) {
                leaves = stall.end;
            }
        }
        self.buffered += bytes;
        self.line_free = leaves;
        Some((next, self.next_tick(leaves)))
    }

    /// The last moment at which it could send.
    fn last_tick(&self, now: Time) -> Time {
        self.profile.ticks.map_or(now, |tick| {
            let tick = tick.as_micros() as u64;
            let since = (now - self.connected).as_micros() as u64;
            self.connected + Duration::from_micros(since / tick * tick)
        })
    }

    /// When what its line is through with at `leaves` is sent.
    fn next_tick(&self, leaves: Time) -> Time {
        let last = self.last_tick(leaves);
        match self.profile.ticks {
            Some(tick) if last < leaves => last + tick,
            _ => leaves,
        }
    }
}
