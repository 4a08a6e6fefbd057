//! One address: what is known of it, and when it is to be dialled.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Ended, Source, URGENT_STRANGER};

/// The first pause after a failed dial; each further one doubles it.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
pub(super) const BACKOFF_MOST: Duration = Duration::from_secs(600);
/// A connection that lasted this long shows that the peer works: its failures are forgotten.
const STEADY: Duration = Duration::from_secs(30);
/// A peer of which nothing is wanted, or that does not keep the protocol, is left alone this long, also while a read
/// waits.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(600);
/// For want of a place for the connection: soon again, but not in a busy loop.
const PUT_OFF: Duration = Duration::from_secs(2);
/// Dials after which an address remembered from the last run is a stranger again.
const REMEMBERED_FAILURES: u32 = 3;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sources: Sources,
    pub(super) phase: Phase,
    /// It was connected in this run.
    worked: bool,
    /// Failed dials in a row, and connections that did not last.
    pub(super) failures: u32,
    /// When the last dial began, or the other side's was answered.
    pub(super) tried: Option<Instant>,
    /// When it may be dialled, if no read waits.
    pub(super) due: Instant,
    /// `due` holds also while a read waits.
    firm: bool,
    /// Not to be dialled again; dropped when its connection ends.
    pub(super) banned: bool,
    /// Breaks ties, so that not everyone dials the same peers first.
    lot: u32,
}

#[derive(Debug)]
pub(super) enum Phase {
    Idle,
    Dialing,
    Connected { since: Instant },
}

impl Entry {
    pub(super) fn new(now: Instant, source: Source, lot: u32) -> Self {
        Self {
            sources: Sources(1 << source as u8),
            phase: Phase::Idle,
            worked: false,
            failures: 0,
            tried: None,
            due: now,
            firm: false,
            banned: false,
            lot,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Known to work, or named by the user: worth trying often while a read waits.
    pub(super) fn is_known(&self) -> bool {
        self.worked
            || self.sources.contains(Source::Given)
            || (self.sources.contains(Source::Remembered) && self.failures < REMEMBERED_FAILURES)
    }

    /// The smaller, the sooner tried. One remembered from the last run that did not answer comes after strangers: the
    /// whole list may be of yesterday.
    pub(super) fn rank(&self) -> (bool, u32, Source, u32) {
        let first = self.is_known() && (self.failures == 0 || self.worked || self.sources.contains(Source::Given));
        (!first, self.failures, self.sources.best(), self.lot)
    }

    /// When it is to be dialled; with `gap`, that long after the last dial of a known peer began at the latest.
    pub(super) fn due(&self, gap: Option<Duration>) -> Instant {
        match (gap, self.tried) {
            (Some(gap), Some(tried)) if !self.firm => {
                let gap = if self.is_known() { gap } else { gap.max(URGENT_STRANGER) };
                self.due.min(tried + gap)
            }
            _ => self.due,
        }
    }

    pub(super) fn connect(&mut self, now: Instant) {
        self.phase = Phase::Connected { since: now };
        self.tried.get_or_insert(now);
        self.worked = true;
        self.firm = false;
    }

    pub(super) fn fail(&mut self, now: Instant, random: &mut SmallRng) {
        self.failures = self.failures.saturating_add(1);
        self.firm = false;
        self.due = now + self.backoff(random);
    }

    pub(super) fn put_off(&mut self, now: Instant) {
        self.due = now + PUT_OFF;
        self.firm = true;
    }

    pub(super) fn end(&mut self, now: Instant, how: Ended, random: &mut SmallRng) {
        let lasted = match self.phase {
            Phase::Connected { since } => now.saturating_duration_since(since),
            Phase::Idle | Phase::Dialing => Duration::ZERO,
        };
        self.phase = Phase::Idle;
        match how {
            Ended::Lost if lasted >= STEADY => {
                self.failures = 0;
                self.firm = false;
                self.due = now + BACKOFF_FIRST;
            }
            Ended::Lost => self.fail(now, random),
            Ended::Unneeded | Ended::Misbehaved | Ended::Ourselves => {
                self.firm = true;
                self.due = now + LEFT_ALONE;
            }
        }
    }

    /// Doubles with each failure; a quarter more or less by lot, so that a swarm that died together does not return in
    /// step.
    fn backoff(&self, random: &mut SmallRng) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
        pause.mul_f64(random.random_range(0.75..1.25)).min(BACKOFF_MOST)
    }
}

/// A set of [`Source`]s; never empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sources(u8);

impl Sources {
    pub(super) fn insert(&mut self, source: Source) {
        self.0 |= 1 << source as u8;
    }

    pub(super) fn contains(self, source: Source) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    pub(super) fn only(self, source: Source) -> bool {
        self.0 == 1 << source as u8
    }

    /// The most trusted of them.
    pub(super) fn best(self) -> Source {
        const ORDER: [Source; 7] = [
            Source::Given,
            Source::Local,
            Source::Incoming,
            Source::Remembered,
            Source::Tracker,
            Source::Dht,
            Source::Peer,
        ];
        ORDER
            .into_iter()
            .find(|source| self.contains(*source))
            .unwrap_or(Source::Peer)
    }
}

/// What a batch of newcomers may displace.
pub(super) struct Room {
    /// The most promising first.
    pub(super) victims: Vec<SocketAddr>,
    pub(super) from_peers: usize,
}

impl Room {
    pub(super) fn of(entries: &BTreeMap<SocketAddr, Entry>) -> Self {
        let mut victims: Vec<_> = entries
            .iter()
            .filter(|(_, entry)| entry.is_idle() && !entry.is_known())
            .map(|(address, entry)| (entry.failures, entry.rank(), *address))
            .collect();
        victims.sort_unstable();
        Self {
            victims: victims.into_iter().map(|(.., address)| address).collect(),
            from_peers: entries
                .values()
                .filter(|entry| entry.sources.only(Source::Peer))
                .count(),
        }
    }
}
