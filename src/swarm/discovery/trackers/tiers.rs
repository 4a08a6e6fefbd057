//! Which tracker is asked when (BEP 12). Pure: the clock and the seed come in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::reply::AnnounceReply;
use super::target::{Event, Target};
use crate::swarm::discovery::DiscoveryError;
use crate::swarm::discovery::error::Retry;

/// Trackers of one torrent; more are passed over.
const TRACKERS: usize = 100;
/// A tracker's interval is kept within these; without one, the middle.
const INTERVAL_LEAST: Duration = Duration::from_secs(60);
const INTERVAL_USUAL: Duration = Duration::from_secs(1800);
const INTERVAL_MOST: Duration = Duration::from_secs(3 * 3600);
/// Announces that the torrent asks for keep this distance from the last answer, and the tracker's `min interval`, …
const GAP_LEAST: Duration = Duration::from_secs(30);
/// … of which no more than this is believed.
const GAP_MOST: Duration = Duration::from_secs(1800);
/// When every tracker failed: the first pause, doubled each time, and what it may grow to.
const BACKOFF_FIRST: Duration = Duration::from_secs(5);
const BACKOFF_MOST: Duration = Duration::from_secs(1800);

/// One tracker of a torrent.
#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) url: String,
    pub(super) tier: usize,
    pub(super) target: Option<Target>,
    /// It has us on its list, so it is told when we stop.
    pub(super) registered: bool,
    pub(super) id: Option<Vec<u8>>,
    /// By its own word it is not to be asked before this.
    earliest: Option<Instant>,
    never: bool,
}

/// The order in which trackers are asked, and when the next round begins.
#[derive(Debug)]
pub(super) struct Tiers {
    trackers: Vec<Tracker>,
    /// Each tier's trackers, in the order to try them.
    order: Vec<Vec<usize>>,
    phase: Phase,
    round: u64,
    /// How long a tracker may be silent before the next is asked beside it; `None`: until it fails.
    hedge: Option<Duration>,
    failed_rounds: u32,
    /// The trackers are still to be told that the download is complete.
    completed: bool,
    random: SmallRng,
}

#[derive(Debug)]
enum Phase {
    Resting {
        until: Instant,
        /// The torrent's wish for an earlier round is granted from here on.
        earliest: Instant,
    },
    Trying {
        queue: VecDeque<usize>,
        /// Asked in this round and neither answered nor failed.
        open: usize,
        hedge: Instant,
    },
}

/// An announce to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) tracker: usize,
    pub(super) event: Event,
    round: u64,
}

impl Tiers {
    pub(super) fn new(now: Instant, hedge: Option<Duration>, seed: u64) -> Self {
        Self {
            trackers: Vec::new(),
            order: Vec::new(),
            phase: Phase::Resting {
                until: now,
                earliest: now,
            },
            round: 0,
            hedge,
            failed_rounds: 0,
            completed: false,
            random: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn trackers(&self) -> &[Tracker] {
        &self.trackers
    }

    /// Adds tiers behind those that there are, each in an order of its own; trackers known already are passed over. The
    /// new ones are asked soon. Gives back why some cannot be asked.
    pub(super) fn add(&mut self, now: Instant, tiers: Vec<Vec<String>>) -> Vec<(usize, DiscoveryError)> {
        let mut unusable = Vec::new();
        let before = self.trackers.len();
        for urls in tiers {
            let mut tier = Vec::new();
            for url in urls {
                let url = url.trim();
                let known = self.trackers.iter().any(|tracker| tracker.url == url);
                if url.is_empty() || known || self.trackers.len() == TRACKERS {
                    continue;
                }
                let tracker = self.trackers.len();
                let target = Target::parse(url).map_err(|error| unusable.push((tracker, error))).ok();
                tier.push(tracker);
                self.trackers.push(Tracker {
                    url: url.to_owned(),
                    tier: self.order.len(),
                    never: target.is_none(),
                    target,
                    registered: false,
                    id: None,
                    earliest: None,
                });
            }
            tier.shuffle(&mut self.random);
            if !tier.is_empty() {
                self.order.push(tier);
            }
        }
        if self.trackers.len() > before {
            self.wish(now);
        }
        unusable
    }

    /// The torrent needs peers: a round begins as soon as the trackers allow.
    pub(super) fn wish(&mut self, now: Instant) {
        if let Phase::Resting { until, earliest } = &mut self.phase {
            *until = (*until).min(now.max(*earliest));
        }
    }

    /// The download is complete: the trackers are told at once.
    pub(super) fn complete(&mut self, now: Instant) {
        self.completed = true;
        if let Phase::Resting { until, .. } = &mut self.phase {
            *until = now;
        }
    }

    /// Whom to ask now, if anybody. Call it until it gives `None`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Turn> {
        if let Phase::Resting { until, .. } = self.phase {
            if now < until || self.trackers.is_empty() {
                return None;
            }
            self.round += 1;
            self.phase = Phase::Trying {
                queue: self.order.iter().flatten().copied().collect(),
                open: 0,
                hedge: now,
            };
        }
        let Phase::Trying { queue, open, hedge } = &mut self.phase else {
            return None;
        };
        if *open > 0 && (self.hedge.is_none() || now < *hedge) {
            return None;
        }
        while let Some(index) = queue.pop_front() {
            let tracker = &self.trackers[index];
            if tracker.never || tracker.earliest.is_some_and(|earliest| now < earliest) {
                continue;
            }
            *open += 1;
            *hedge = now + self.hedge.unwrap_or_default();
            let event = match (tracker.registered, self.completed) {
                (false, _) => Event::Started,
                (true, true) => Event::Completed,
                (true, false) => Event::Regular,
            };
            return Some(Turn {
                tracker: index,
                event,
                round: self.round,
            });
        }
        if *open == 0 {
            self.rest_after_failure(now);
        }
        None
    }

    /// When [`next`](Self::next) is due if nothing is reported before.
    pub(super) fn wakeup(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Resting { until, .. } => (!self.trackers.is_empty()).then_some(*until),
            Phase::Trying { queue, hedge, .. } => (self.hedge.is_some() && !queue.is_empty()).then_some(*hedge),
        }
    }

    /// A tracker answered.
    pub(super) fn answered(&mut self, now: Instant, turn: Turn, reply: &AnnounceReply) {
        let gap = reply.min_interval.unwrap_or_default().clamp(GAP_LEAST, GAP_MOST);
        let interval = reply.interval.unwrap_or(INTERVAL_USUAL);
        let interval = interval.clamp(INTERVAL_LEAST.max(gap), INTERVAL_MOST);
        let tracker = &mut self.trackers[turn.tracker];
        tracker.registered = true;
        if reply.tracker_id.is_some() {
            tracker.id.clone_from(&reply.tracker_id);
        }
        if turn.event == Event::Completed {
            self.completed = false;
        }
        if turn.round != self.round || matches!(self.phase, Phase::Resting { .. }) {
            return;
        }
        self.failed_rounds = 0;
        // What works is asked first from now on.
        if let Some(order) = self.order.get_mut(tracker.tier)
            && let Some(place) = order.iter().position(|index| *index == turn.tracker)
        {
            order[..=place].rotate_right(1);
        }
        let untold = self.completed && turn.event != Event::Completed;
        self.phase = Phase::Resting {
            until: if untold { now } else { now + interval },
            earliest: now + gap,
        };
    }

    /// A tracker did not answer, or refused.
    pub(super) fn failed(&mut self, now: Instant, turn: Turn, error: &DiscoveryError) {
        let tracker = &mut self.trackers[turn.tracker];
        match error {
            DiscoveryError::Refused {
                retry: Retry::Never, ..
            } => tracker.never = true,
            DiscoveryError::Refused {
                retry: Retry::After(pause),
                ..
            } => {
                tracker.earliest = Some(now + (*pause).min(INTERVAL_MOST));
            }
            _ => {}
        }
        if turn.round == self.round
            && let Phase::Trying { open, .. } = &mut self.phase
        {
            *open = open.saturating_sub(1);
        }
    }

    fn rest_after_failure(&mut self, now: Instant) {
        let doublings = self.failed_rounds.min(16);
        self.failed_rounds += 1;
        let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
        // Not in step with everyone else who lost this tracker at the same time.
        let pause = pause.mul_f64(self.random.random_range(0.9..1.1));
        self.phase = Phase::Resting {
            until: now + pause,
            earliest: now + BACKOFF_FIRST.min(pause),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn url(n: usize) -> String {
        format!("udp://t{n}.example.org:1")
    }

    fn tiers(now: Instant, hedge: Option<Duration>, sizes: &[usize], seed: u64) -> Tiers {
        let mut tiers = Tiers::new(now, hedge, seed);
        let mut n = 0..;
        let urls = sizes
            .iter()
            .map(|size| n.by_ref().take(*size).map(url).collect())
            .collect();
        assert!(tiers.add(now, urls).is_empty());
        tiers
    }

    fn reply(interval_s: u64, min_interval_s: u64) -> AnnounceReply {
        AnnounceReply {
            interval: Some(seconds(interval_s)),
            min_interval: Some(seconds(min_interval_s)),
            ..AnnounceReply::default()
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn fail(tiers: &mut Tiers, now: Instant) -> usize {
        let turn = tiers.next(now).unwrap();
        tiers.failed(now, turn, &DiscoveryError::Status(500));
        turn.tracker
    }

    #[test]
    fn a_tier_is_shuffled_and_the_next_asked_only_when_it_has_failed() {
        let now = Instant::now();
        let mut first = std::collections::HashSet::new();
        for seed in 0..50 {
            let mut tiers = tiers(now, None, &[3, 2], seed);
            let mut asked: Vec<_> = (0..3).map(|_| fail(&mut tiers, now)).collect();
            first.insert(asked[0]);
            asked.sort_unstable();
            assert_eq!(asked, [0, 1, 2]);
            let turn = tiers.next(now).unwrap();
            assert!(turn.tracker >= 3);
            assert_eq!(tiers.next(now), None, "one at a time");
            assert_eq!(tiers.wakeup(), None);
        }
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn what_works_is_asked_first_in_its_tier() {
        let mut now = Instant::now();
        let mut tiers = tiers(now, None, &[4], 1);
        let skipped = [fail(&mut tiers, now), fail(&mut tiers, now)];
        let turn = tiers.next(now).unwrap();
        assert_eq!(turn.event, Event::Started);
        tiers.answered(now, turn, &reply(900, 0));
        assert_eq!(tiers.wakeup(), Some(now + 900 * SECOND));
        assert_eq!(tiers.next(now + 899 * SECOND), None);
        now += 900 * SECOND;
        let again = tiers.next(now).unwrap();
        assert_eq!((again.tracker, again.event), (turn.tracker, Event::Regular));
        tiers.failed(now, again, &DiscoveryError::Status(500));
        assert_eq!([fail(&mut tiers, now), fail(&mut tiers, now)], skipped);
    }

    #[test]
    fn a_silent_tracker_holds_nobody_up_for_long() {
        let now = Instant::now();
        let mut tiers = tiers(now, Some(3 * SECOND), &[1, 1], 1);
        let silent = tiers.next(now).unwrap();
        assert_eq!(tiers.wakeup(), Some(now + 3 * SECOND));
        assert_eq!(tiers.next(now + SECOND), None);
        let beside = tiers.next(now + 3 * SECOND).unwrap();
        assert_eq!((silent.tracker, beside.tracker), (0, 1));
        tiers.answered(now + 4 * SECOND, beside, &reply(900, 0));
        assert_eq!(tiers.wakeup(), Some(now + 904 * SECOND));
        // The first one's answer comes late: it counts as told, and changes nothing else.
        tiers.answered(now + 5 * SECOND, silent, &reply(60, 0));
        assert_eq!(tiers.wakeup(), Some(now + 904 * SECOND));
        assert!(tiers.trackers().iter().all(|tracker| tracker.registered));
    }

    #[test]
    fn intervals_are_clamped_and_wishes_granted_when_the_tracker_allows() {
        let now = Instant::now();
        for (interval, min, rests, granted) in [
            (0, 0, 60, 30),
            (1800, 0, 1800, 30),
            (1800, 300, 1800, 300),
            (u64::MAX / 4, u64::MAX / 4, 3 * 3600, 1800),
            (60, 600, 600, 600),
        ] {
            let mut tiers = tiers(now, None, &[1], 1);
            let turn = tiers.next(now).unwrap();
            tiers.answered(now, turn, &reply(interval, min));
            assert_eq!(tiers.wakeup(), Some(now + seconds(rests)));
            tiers.wish(now + SECOND);
            assert_eq!(tiers.wakeup(), Some(now + seconds(granted)), "{interval} {min}");
        }
    }

    #[test]
    fn when_all_fail_the_pauses_grow_and_wishes_are_granted_after_five_seconds() {
        let mut now = Instant::now();
        let mut tiers = tiers(now, None, &[1, 1], 1);
        let mut middle = 5.0_f64;
        for _ in 0..12 {
            fail(&mut tiers, now);
            fail(&mut tiers, now);
            assert_eq!(tiers.next(now), None);
            let until = tiers.wakeup().unwrap();
            let pause = (until - now).as_secs_f64();
            assert!((0.89..1.11).contains(&(pause / middle)), "{pause}");
            middle = (middle * 2.0).min(1800.0);
            tiers.wish(now);
            assert!(tiers.wakeup().unwrap() <= now + 5 * SECOND);
            now = until;
        }
    }

    #[test]
    fn completion_is_told_once_and_at_once() {
        let now = Instant::now();
        let mut tiers = tiers(now, None, &[1], 1);
        let started = tiers.next(now).unwrap();
        // It completes while `started` is on its way: both are told, one after the other.
        tiers.complete(now);
        tiers.answered(now, started, &reply(1800, 1800));
        let completed = tiers.next(now).unwrap();
        assert_eq!((started.event, completed.event), (Event::Started, Event::Completed));
        tiers.answered(now, completed, &reply(1800, 0));
        assert_eq!(tiers.next(now), None);
        assert_eq!(tiers.next(now + 1800 * SECOND).unwrap().event, Event::Regular);
    }

    #[test]
    fn a_tracker_that_names_a_time_is_left_alone_until_then() {
        let now = Instant::now();
        let mut tiers = tiers(now, None, &[1, 1, 1], 1);
        let refusal = |retry| DiscoveryError::Refused {
            reason: String::new(),
            retry,
        };
        for retry in [Retry::Never, Retry::After(60 * SECOND), Retry::Unsaid] {
            let turn = tiers.next(now).unwrap();
            tiers.failed(now, turn, &refusal(retry));
        }
        assert_eq!(tiers.next(now), None);
        let soon = tiers.wakeup().unwrap();
        assert_eq!(fail(&mut tiers, soon), 2, "the only one left");
        assert_eq!(tiers.next(soon), None);
        let later = now + 100 * SECOND;
        assert_eq!([fail(&mut tiers, later), fail(&mut tiers, later)], [1, 2]);
    }

    #[test]
    fn unusable_and_too_many_trackers_are_passed_over() {
        let now = Instant::now();
        let mut tiers = Tiers::new(now, None, 1);
        let unusable = tiers.add(
            now,
            vec![
                vec!["wss://example.org".to_owned()],
                vec![],
                vec![url(1), url(1), String::new()],
            ],
        );
        assert_eq!(unusable.len(), 1);
        assert_eq!(tiers.trackers().len(), 2);
        assert_eq!(tiers.next(now).unwrap().tracker, 1);
        tiers.add(now, (0..1000).map(|n| vec![url(n)]).collect());
        assert_eq!(tiers.trackers().len(), TRACKERS);
    }
}
