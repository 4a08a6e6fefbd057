//! What is measured of one peer: its rate, its round trip, and the queue that follows from them.

use std::time::Duration;

use super::bursts::{Bursts, Pattern};
use super::settings::{GROWTH_BLOCKS, LEAST_BLOCKS};
use crate::swarm::shape::{BLOCK, Time};

/// The rate is that of the last so many seconds of work...
const MEMORY_S: f64 = 0.5;
/// ...but of no fewer blocks than this: a slow peer's rate is not the accident of one block.
const MEMORY_BYTES: f64 = 16.0 * BLOCK as f64;
/// No peer is taken for faster than this (bytes a second): two blocks read at once seem to take no time at all.
const MAX_RATE: f64 = 1024.0 * 1024.0 * 1024.0;
/// The share of a new latency in the least latency when a request met an empty queue: a path that became longer is
/// seen.
const DRIFT: f64 = 0.125;
/// The queue is longer by so many times the jitter.
const JITTERS: f64 = 2.0;
/// What the first block took is a guess, which counts until so much work was measured: a peer that sends in bursts, as
/// one under a rate limit does, is not taken for as fast as one burst.
const GUESS_S: f64 = 0.030;
/// A pause between two blocks of a queue is expected again, the less with each block since...
const PAUSE_KEPT: f64 = 0.98;
/// ...but no longer one than this: what pauses longer has stalled. Clients under a rate limit send every half second.
const LONGEST_PAUSE_S: f64 = 0.600;
/// A queue grows no further than what arrived of late, by the clock, would fill so many times over: a burst that takes
/// no time at all says nothing of what comes after it.
const TIMES_LATELY: f64 = 4.0;
/// What arrived of late arrived within about so many seconds in which something was asked for.
const LATELY_S: f64 = 0.250;

/// What is known of one peer's speed. Times are in seconds.
///
/// A block's *work* is the time from the later of (the block before it arrived, its request can have reached the peer)
/// to its own arrival: at a peer with a queue the work of a block is the time its bytes took, whatever the round trip.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    bytes: f64,
    work_s: f64,
    /// The least time from request to arrival: round trip and the block's own bytes.
    least_s: Option<f64>,
    /// How far arrivals are off the work predicted, on average.
    jitter_s: f64,
    /// The longest that a block of late took beyond its own bytes' time.
    pause_s: f64,
    /// Blocks that arrived of late, the older the less.
    lately: f64,
    window: usize,
    samples: u32,
    /// Bytes and work of the first block, as long as they count.
    guess: Option<(f64, f64)>,
    last_arrival: Option<Time>,
    bursts: Bursts,
    /// What follows from the above, which is looked at far more often than it changes.
    rate: Option<f64>,
    round_trip_s: f64,
}

impl Meter {
    /// A block of `size` bytes, asked for at `sent`, arrived; `alone` if nothing else was asked for when it was.
    pub(super) fn arrived(&mut self, now: Time, sent: Time, size: u32, alone: bool, queue_delay: Duration) {
        let latency = (now - sent).as_secs_f64();
        self.least_s = Some(match self.least_s {
            Some(least) if latency > least && alone => least + (latency - least) * DRIFT,
            Some(least) => least.min(latency),
            None => latency,
        });
        let possible = sent + Duration::from_secs_f64(self.round_trip_found());
        let begun = self.last_arrival.map_or(possible, |last| last.max(possible));
        let work = if self.samples == 0 {
            // How much of it is the way there and back is not known yet.
            latency
        } else {
            (now - begun).as_secs_f64()
        };
        if self.samples == 0 {
            self.guess = Some((f64::from(size), work));
        } else if let Some((bytes, guess_s)) = self.guess
            && self.work_s - guess_s + work >= GUESS_S
        {
            self.guess = None;
            // What was measured beside it was measured while the queue grew: it counts, but not for long.
            self.bytes = (self.bytes - bytes) / 4.0;
            self.work_s = (self.work_s - guess_s) / 4.0;
        }
        if self.samples > 1 {
            let off = work - f64::from(size) / self.rate_found().unwrap_or(MAX_RATE);
            self.jitter_s += (off.abs() - self.jitter_s) / 8.0;
            self.pause_s = (self.pause_s * PAUSE_KEPT).max(off.min(LONGEST_PAUSE_S));
        }
        self.samples = self.samples.saturating_add(1);
        let asked = self.last_arrival.map_or(sent, |last| last.max(sent));
        self.lately = 1.0 + self.lately * (-(now - asked).as_secs_f64() / LATELY_S).exp();
        self.last_arrival = Some(now);
        self.bursts.arrived(now, sent);
        self.bytes += f64::from(size);
        self.work_s += work;
        if self.guess.is_none() && self.work_s > MEMORY_S && self.bytes > MEMORY_BYTES {
            let keep = (MEMORY_S / self.work_s).max(MEMORY_BYTES / self.bytes);
            self.bytes *= keep;
            self.work_s *= keep;
        }
        self.rate = self.rate_found();
        self.round_trip_s = self.round_trip_found();
        let reached = self.window.max(LEAST_BLOCKS);
        let grown = (reached + GROWTH_BLOCKS).min(self.proven(queue_delay).max(reached));
        self.window = self.target(queue_delay).min(grown);
    }

    /// Bytes a second while the peer has something to send; `None` before the first block.
    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// The time from a request to the first byte of its answer.
    pub(super) fn round_trip_s(&self) -> f64 {
        self.round_trip_s
    }

    fn rate_found(&self) -> Option<f64> {
        (self.samples > 0).then(|| (self.bytes / self.work_s.max(1e-9)).clamp(1.0, MAX_RATE))
    }

    fn round_trip_found(&self) -> f64 {
        // A guess that has all of the first answer's time for work would leave none for the way.
        let (bytes, guess_s) = self.guess.filter(|_| self.samples > 1).unwrap_or_default();
        let rate = self
            .rate_found()
            .map(|_| (self.bytes - bytes) / (self.work_s - guess_s).max(1e-9));
        match (self.least_s, rate) {
            (Some(least), Some(rate)) => (least - f64::from(BLOCK) / rate.clamp(1.0, MAX_RATE)).max(0.0),
            (Some(least), None) => least,
            _ => 0.0,
        }
    }

    /// The least time in which it answered a request, in seconds.
    pub(super) fn answer_s(&self) -> Option<f64> {
        self.least_s
    }

    /// How it sends, if that is in bursts.
    pub(super) fn bursts(&self, now: Time) -> Option<Pattern> {
        self.bursts.pattern(now)
    }

    /// How much later than its rate tells a block may come of a peer that sends in bursts.
    pub(super) fn pause_s(&self) -> f64 {
        self.pause_s
    }

    pub(super) fn jitter_s(&self) -> f64 {
        self.jitter_s
    }

    pub(super) fn last_arrival(&self) -> Option<Time> {
        self.last_arrival
    }

    /// Blocks that fill the time of one answer and `queue_delay`: the answer's own block as well, or a peer whose queue
    /// runs dry seems to be as slow as its queue is short, and stays so.
    fn target(&self, queue_delay: Duration) -> usize {
        let rate = self.rate().unwrap_or(0.0);
        let delay_s = queue_delay.as_secs_f64();
        // A peer whose blocks come unevenly needs more in its queue not to run dry.
        let delay_s = (delay_s + JITTERS * self.jitter_s).min(8.0 * delay_s);
        let bytes = rate * (self.least_s.unwrap_or(0.0) + delay_s);
        let burst = self
            .last_arrival
            .and_then(|last| self.bursts(last))
            .map_or(0.0, Pattern::most);
        ((bytes / f64::from(BLOCK)).max(burst).ceil() as usize).max(LEAST_BLOCKS)
    }

    /// The longest queue that what arrived of late lets grow.
    fn proven(&self, queue_delay: Duration) -> usize {
        let filled_s = self.least_s.unwrap_or(0.0) + queue_delay.as_secs_f64();
        LEAST_BLOCKS + (TIMES_LATELY * self.lately / LATELY_S * filled_s) as usize
    }

    /// Blocks to keep asked of the peer, as many as its rate and round trip need; `None` while it is unknown.
    pub(super) fn window(&self) -> Option<usize> {
        (self.samples > 0).then_some(self.window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(50);

    /// Drives a meter against a peer of `rate` and `round_trip`, keeping its window full; gives rate, round trip,
    /// window.
    fn settle(rate: f64, round_trip: Duration, blocks: usize) -> (f64, f64, usize) {
        let mut meter = Meter::default();
        let (mut now, mut free) = (Time::ZERO, Time::ZERO);
        let mut queue = std::collections::VecDeque::new();
        for _ in 0..blocks {
            while queue.len() < meter.window().unwrap_or(LEAST_BLOCKS) {
                let alone = queue.is_empty();
                free = (now + round_trip).max(free) + Duration::from_secs_f64(f64::from(BLOCK) / rate);
                queue.push_back((now, free, alone));
            }
            let (sent, arrives, alone) = queue.pop_front().unwrap();
            now = arrives;
            meter.arrived(now, sent, BLOCK, alone, DELAY);
        }
        (meter.rate().unwrap(), meter.round_trip_s(), meter.window().unwrap())
    }

    #[test]
    fn the_window_settles_at_rate_times_round_trip_and_delay() {
        for (rate, round_trip_ms, expected) in [
            (256.0 * 1024.0, 0, 2..=2),
            (256.0 * 1024.0, 100, 4..=4),
            (20_000.0, 0, 2..=2),
            (10_485_760.0, 0, 33..=34),
            (10_485_760.0, 100, 96..=99),
        ] {
            let (measured, trip, window) = settle(rate, Duration::from_millis(round_trip_ms), 400);
            assert!((measured / rate - 1.0).abs() < 0.05, "{measured} is not {rate}");
            assert!(
                (trip * 1e3 - round_trip_ms as f64).abs() < 3.0,
                "{trip} is not {round_trip_ms} ms"
            );
            assert!(
                expected.contains(&window),
                "{rate} at {round_trip_ms} ms has a window of {window}"
            );
        }
    }

    #[test]
    fn a_fast_peer_is_known_after_a_few_round_trips() {
        let (_, _, window) = settle(10_485_760.0, Duration::from_millis(100), 100);
        assert!(window > 60, "{window}");
    }

    #[test]
    fn a_burst_is_not_taken_for_a_rate() {
        for first_us in [500, 5_000] {
            let mut meter = Meter::default();
            let first = Time::from_micros(first_us);
            meter.arrived(first, Time::ZERO, BLOCK, true, DELAY);
            for _ in 0..40 {
                meter.arrived(first, Time::ZERO, BLOCK, false, DELAY);
            }
            let window = meter.window().unwrap();
            assert!(window <= 40, "{window} after a first answer of {first_us} µs");
        }
    }

    #[test]
    fn a_queue_that_has_grown_stays_while_little_is_asked_for() {
        let mut meter = Meter::default();
        let trip = Duration::from_millis(100);
        let block = Duration::from_secs_f64(f64::from(BLOCK) / 10_485_760.0);
        let mut now = Time::ZERO;
        for _ in 0..10 {
            let sent = now;
            now = sent + trip;
            for place in 0..64 {
                now = now + block;
                meter.arrived(now, sent, BLOCK, place == 0, DELAY);
            }
        }
        let grown = meter.window().unwrap();
        assert!(grown > 60, "{grown}");
        for _ in 0..20 {
            let sent = now + Duration::from_secs(1);
            now = sent + trip + block;
            meter.arrived(now, sent, BLOCK, true, DELAY);
        }
        let window = meter.window().unwrap();
        assert!(window > grown / 2, "{window} of {grown}");
    }
}
