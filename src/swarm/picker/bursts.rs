//! When a peer sends that sends in bursts: a client under a rate limit sends at the ticks of its clock, and then all that
//! it may until the next one. libtorrent and what is built on it tick twice a second.

use std::time::Duration;

use crate::swarm::shape::Time;

/// After so long without a block, the next one begins another burst.
const GAP: Duration = Duration::from_millis(100);
/// What is left of a burst is expected for so long after its latest block.
const LULL: Duration = Duration::from_millis(50);
/// Ticks are no closer than this, in seconds; what comes more often is taken to flow...
const LEAST_PERIOD_S: f64 = 0.200;
/// ...and no further apart than this: what pauses longer has stalled.
const MOST_PERIOD_S: f64 = 1.200;
/// A peer of fewer blocks to a burst, on average, is a slow one that sends evenly.
const LEAST_BLOCKS: f64 = 1.5;
/// The first burst tells of ticks only if it has so many blocks.
const FIRST_BLOCKS: u32 = 4;
/// A burst takes at most this share of the time between two.
const MOST_SHARE: f64 = 0.25;
/// After more ticks than this in which nothing was asked for, when the next one should have been is not known any more.
const MOST_TICKS: f64 = 6.0;
/// A burst may have so many blocks less than expected: the last ones of a piece are not left to that.
const UNSURE: f64 = 1.0;
/// The share of the latest burst in the averages.
const DRIFT: f64 = 0.25;

/// The bursts of one peer, as far as they were seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Bursts {
    /// When the first and the last block of the latest burst came.
    latest: Option<(Time, Time)>,
    /// Its blocks, and those of the one before.
    blocks: u32,
    before: u32,
    /// Blocks that came between it and the next tick, of what it left...
    strays: u32,
    /// ...and of what was asked for meanwhile.
    more: u32,
    /// Blocks of a burst that left something, on average: the peer may send no more at a tick.
    full: Option<f64>,
    /// Blocks of a burst, on average; 0 while only one was seen.
    usual: f64,
    /// From one burst to the next, in seconds.
    period_s: Option<f64>,
}

/// How a peer sends in bursts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pattern {
    began: Time,
    period_s: f64,
    /// Blocks of a burst, on average.
    each: f64,
    /// Blocks that are still expected of the burst that is arriving.
    left: f64,
    /// Blocks of the next one.
    next: f64,
    /// Blocks that the peer may send before that, if it is known.
    spare: Option<f64>,
}

impl Bursts {
    /// A block that was asked for at `sent` arrived.
    pub(super) fn arrived(&mut self, now: Time, sent: Time) {
        let Some((began, last)) = self.latest else {
            self.latest = Some((now, now));
            self.blocks = 1;
            // Whoever says at a tick that it serves us, and is asked at once, answers at the next.
            self.period_s = Some((now - sent).as_secs_f64()).filter(|period_s| is_period(*period_s));
            return;
        };
        if now <= last + GAP {
            self.latest = Some((began, now));
            self.blocks = self.blocks.saturating_add(1);
            return;
        }
        let next_s = self.period_s.map_or(0.0, |period_s| (1.0 - MOST_SHARE) * period_s);
        if (now - began).as_secs_f64() < next_s {
            let count = if sent > began { &mut self.more } else { &mut self.strays };
            *count = count.saturating_add(1);
            return;
        }
        let short = (last - began).as_secs_f64() <= MOST_SHARE * self.period_s.unwrap_or(MOST_PERIOD_S);
        let since_s = (now - began).as_secs_f64();
        // How long nothing was asked for says nothing of the peer, but a clock is not far off after a few ticks.
        if sent <= last + GAP {
            self.period_s = self.period_found(since_s).filter(|_| short);
        } else {
            self.period_s = self.period_s.filter(|period_s| {
                let ticks = since_s / period_s;
                ticks > MOST_TICKS || (ticks - ticks.round()).abs() <= MOST_SHARE
            });
        }
        // A burst with as much behind it is none.
        if std::mem::take(&mut self.strays) >= self.blocks {
            self.period_s = None;
        }
        let blocks = f64::from(self.blocks);
        let all = blocks + f64::from(std::mem::take(&mut self.more));
        self.full = match self.full {
            Some(full) if sent < began || all > full => Some(full + DRIFT * (all - full)),
            None if sent < began => Some(all),
            full => full,
        };
        self.usual = if self.usual == 0.0 {
            blocks
        } else {
            self.usual + DRIFT * (blocks - self.usual)
        };
        self.latest = Some((now, now));
        self.before = std::mem::replace(&mut self.blocks, 1);
    }

    /// The period after a burst that began `since_s` seconds after the one before: a tick may have been left out.
    fn period_found(&self, since_s: f64) -> Option<f64> {
        let Some(period_s) = self.period_s else {
            return Some(since_s).filter(|since_s| is_period(*since_s));
        };
        let each_s = since_s / (since_s / period_s).round().max(1.0);
        let known = (each_s - period_s).abs() <= MOST_SHARE * period_s;
        if known {
            Some(period_s + DRIFT * (each_s - period_s))
        } else {
            Some(since_s).filter(|since_s| is_period(*since_s))
        }
    }

    /// How the peer sends in bursts; `None` if it sends evenly, or too little was seen of it.
    pub(super) fn pattern(&self, now: Time) -> Option<Pattern> {
        let (began, last) = self.latest?;
        let period_s = self.period_s?;
        let over = now > last + LULL;
        // How large the first burst is cannot be told before it is over.
        let many = self.usual >= LEAST_BLOCKS || (self.usual == 0.0 && self.blocks >= FIRST_BLOCKS && over);
        if !many || (last - began).as_secs_f64() > MOST_SHARE * period_s {
            return None;
        }
        let blocks = f64::from(self.blocks);
        let each = if self.usual == 0.0 { blocks } else { self.usual };
        // What one burst sends beyond its share the next one lacks, and the other way round.
        let after = |blocks: f64| (2.0 * each - blocks).clamp(each / 2.0, 1.5 * each);
        let expected = after(f64::from(self.before)).max(blocks);
        Some(Pattern {
            began,
            period_s,
            each,
            left: if over { 0.0 } else { expected - blocks },
            next: after(if over { blocks } else { expected }),
            spare: self.full.map(|full| full - blocks - f64::from(self.strays + self.more)),
        })
    }
}

fn is_period(period_s: f64) -> bool {
    (LEAST_PERIOD_S..=MOST_PERIOD_S).contains(&period_s)
}

impl Pattern {
    /// The time between two bursts, in seconds.
    pub(super) fn period_s(self) -> f64 {
        self.period_s
    }

    /// Whether the moment was before the latest burst.
    pub(super) fn is_of_before(self, moment: Time) -> bool {
        moment < self.began
    }

    /// Blocks of the next burst.
    pub(super) fn next(self) -> f64 {
        self.next
    }

    /// Blocks that the peer may send before the next burst; `None` while it never was asked for more than it sends.
    pub(super) fn spare(self) -> Option<f64> {
        self.spare
    }

    /// The most blocks that one burst has.
    pub(super) fn most(self) -> f64 {
        1.5 * self.each
    }

    /// The first tick after `asked`, which the request takes `way_s` to be in time for, in seconds from `now`: negative
    /// if it should have been.
    pub(super) fn tick_s(self, now: Time, asked: Time, way_s: f64) -> f64 {
        let reached_s = seconds(self.began, asked) + way_s.min(self.period_s / 4.0);
        let ticks = (reached_s / self.period_s).ceil().max(1.0);
        ticks * self.period_s - seconds(self.began, now)
    }

    /// When the block in the place `place` of a queue comes (1 for the first), whose first tick is in `tick_s` seconds.
    pub(super) fn arrives_s(self, place: usize, tick_s: f64) -> f64 {
        let behind = place as f64 - self.left;
        if behind <= 0.0 {
            return 0.0;
        }
        let sure = (self.next - UNSURE).max(self.next / 2.0);
        let later = ((behind - 1.0 - sure).max(-self.each) / self.each).floor() + 1.0;
        tick_s + later * self.period_s
    }

    /// How many blocks more than the `queued` ones come within `within_s` if they are asked for now. The first tick of
    /// the queue is in `tick_s` seconds.
    pub(super) fn blocks_within(self, within_s: f64, queued: usize, tick_s: f64) -> f64 {
        if within_s < tick_s {
            return 0.0;
        }
        let bursts = self.next + self.later(within_s, tick_s);
        (bursts - (queued as f64 - self.left).max(0.0)).max(0.0)
    }

    /// How many of what comes within `within_s` come in the bursts behind the next one, which is in `tick_s` seconds.
    pub(super) fn later(self, within_s: f64, tick_s: f64) -> f64 {
        ((within_s - tick_s) / self.period_s).floor().max(0.0) * self.each
    }
}

/// From `one` to `other`, in seconds; negative if `other` was before.
fn seconds(one: Time, other: Time) -> f64 {
    if other >= one {
        (other - one).as_secs_f64()
    } else {
        -(one - other).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(500);

    fn at(milliseconds: u64) -> Time {
        Time::ZERO + Duration::from_millis(milliseconds)
    }

    /// A peer that was asked for more than it sends, and at each tick sends so many blocks.
    fn ticking(ticks: &[u32]) -> (Bursts, Time) {
        let mut bursts = Bursts::default();
        let mut now = Time::ZERO;
        for blocks in ticks {
            now = now + TICK;
            for block in 0..u64::from(*blocks) {
                bursts.arrived(now + Duration::from_millis(block), now - TICK);
            }
        }
        (bursts, now)
    }

    #[test]
    fn ticks_are_known_after_the_first_burst() {
        for ticks in [&[7][..], &[7, 8, 7, 8]] {
            let (bursts, tick) = ticking(ticks);
            let now = tick + Duration::from_millis(200);
            let pattern = bursts.pattern(now).expect("a pattern");
            assert!((pattern.period_s() - 0.5).abs() < 0.01, "{pattern:?}");
            let tick_s = pattern.tick_s(now, tick, 0.0);
            assert!((tick_s - 0.3).abs() < 0.01, "{tick_s}");
            assert!((pattern.arrives_s(6, tick_s) - 0.3).abs() < 0.01, "{pattern:?}");
            assert!((pattern.arrives_s(10, tick_s) - 0.8).abs() < 0.01, "{pattern:?}");
        }
    }

    #[test]
    fn a_request_on_its_way_at_a_tick_is_answered_at_the_next() {
        let (bursts, tick) = ticking(&[7, 8, 7]);
        let now = tick + Duration::from_millis(450);
        let pattern = bursts.pattern(now).expect("a pattern");
        assert!((pattern.tick_s(now, now, 0.0) - 0.05).abs() < 0.01);
        assert!((pattern.tick_s(now, now, 0.1) - 0.55).abs() < 0.01);
        // What was asked for in time, and did not come, is late.
        let later = tick + Duration::from_millis(600);
        assert!((pattern.tick_s(later, tick, 0.0) + 0.1).abs() < 0.01);
    }

    #[test]
    fn a_large_burst_is_followed_by_a_small_one() {
        let (bursts, tick) = ticking(&[8, 8, 8, 8, 12]);
        let pattern = bursts.pattern(tick + Duration::from_millis(200)).expect("a pattern");
        assert!(pattern.next() < 5.0, "{pattern:?}");
        let (bursts, tick) = ticking(&[8, 8, 8, 8, 4]);
        let pattern = bursts.pattern(tick + Duration::from_millis(200)).expect("a pattern");
        assert!(pattern.next() > 11.0, "{pattern:?}");
    }

    #[test]
    fn what_comes_within_some_time_is_whole_bursts_without_the_queue() {
        let (bursts, tick) = ticking(&[8; 6]);
        let pattern = bursts.pattern(tick + Duration::from_millis(200)).expect("a pattern");
        assert_eq!(pattern.blocks_within(0.2, 0, 0.3), 0.0);
        assert_eq!(pattern.blocks_within(0.4, 3, 0.3), 5.0);
        assert_eq!(pattern.blocks_within(0.9, 3, 0.3), 13.0);
        assert_eq!(pattern.blocks_within(0.9, 40, 0.3), 0.0);
    }

    #[test]
    fn a_block_between_two_ticks_does_not_unsettle_the_clock() {
        let (mut bursts, tick) = ticking(&[8; 6]);
        let stray = tick + Duration::from_millis(250);
        bursts.arrived(stray, tick);
        let next = tick + TICK;
        for _ in 0..8 {
            bursts.arrived(next, tick);
        }
        let pattern = bursts.pattern(next + Duration::from_millis(100)).expect("a pattern");
        assert!((pattern.period_s() - 0.5).abs() < 0.01, "{pattern:?}");
    }

    #[test]
    fn what_comes_far_from_the_clock_after_a_short_pause_shows_that_there_is_none() {
        for (pause_ms, ticks) in [(1_010, true), (1_250, false), (10_250, true)] {
            let (mut bursts, tick) = ticking(&[8; 6]);
            let next = tick + Duration::from_millis(pause_ms);
            for _ in 0..8 {
                bursts.arrived(next, next - Duration::from_millis(100));
            }
            let pattern = bursts.pattern(next + Duration::from_millis(100));
            assert_eq!(pattern.is_some(), ticks, "after {pause_ms} ms: {pattern:?}");
        }
    }

    #[test]
    fn what_a_peer_may_send_before_its_next_tick_is_known_once_it_left_something() {
        // It was asked for no more than it sent.
        let (mut bursts, mut tick) = (Bursts::default(), Time::ZERO);
        for _ in 0..6 {
            let asked = tick;
            tick = tick + TICK;
            (0..8).for_each(|_| bursts.arrived(tick, asked));
        }
        let now = tick + Duration::from_millis(200);
        assert!(bursts.pattern(now).expect("a pattern").spare().is_none());

        let (mut bursts, tick) = ticking(&[8; 6]);
        let next = tick + TICK;
        (0..3).for_each(|_| bursts.arrived(next, tick - TICK));
        let asked = next + Duration::from_millis(150);
        let now = next + Duration::from_millis(200);
        let spare = bursts.pattern(now).and_then(Pattern::spare).expect("some");
        assert!((spare - 5.0).abs() < 0.01, "{spare}");
        // What comes of it at once is no sign that the peer sends evenly.
        (0..4).for_each(|_| bursts.arrived(now, asked));
        let spare = bursts.pattern(now).and_then(Pattern::spare).expect("some");
        assert!((spare - 1.0).abs() < 0.01, "{spare}");
        bursts.arrived(next + TICK, now);
        assert!(bursts.pattern(next + TICK).is_some());
    }

    #[test]
    fn who_sends_evenly_has_no_bursts() {
        // Fast, slow, and slow with two blocks that were read at once now and then.
        for (gap_ms, way_ms, twice) in [
            (15, 0, false),
            (65, 300, false),
            (250, 0, false),
            (250, 100, false),
            (250, 0, true),
        ] {
            let mut bursts = Bursts::default();
            for block in 1..60u64 {
                let now = at(1_000 + block * gap_ms);
                bursts.arrived(now, now - Duration::from_millis(way_ms + 2 * gap_ms));
                if twice && block % 10 == 0 {
                    bursts.arrived(now, now - Duration::from_millis(gap_ms));
                }
                let pattern = bursts.pattern(now);
                assert!(pattern.is_none(), "block {block} every {gap_ms} ms: {pattern:?}");
            }
        }
    }

    #[test]
    fn a_peer_that_begins_to_send_evenly_is_seen() {
        let (mut bursts, tick) = ticking(&[8; 6]);
        for block in 1..30u64 {
            let now = tick + Duration::from_millis(block * 40);
            bursts.arrived(now, tick);
        }
        assert!(bursts.pattern(tick + Duration::from_millis(30 * 40)).is_none());
    }

    #[test]
    fn a_pause_in_which_nothing_was_asked_for_says_nothing() {
        let (mut bursts, tick) = ticking(&[8; 6]);
        let asked = tick + Duration::from_millis(10_300);
        let next = tick + Duration::from_millis(10_500);
        for _ in 0..8 {
            bursts.arrived(next, asked);
        }
        let pattern = bursts.pattern(next + Duration::from_millis(100)).expect("a pattern");
        assert!((pattern.period_s() - 0.5).abs() < 0.01, "{pattern:?}");
    }
}
