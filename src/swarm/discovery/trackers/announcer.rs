//! One torrent's announces.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::reply::AnnounceReply;
use super::target::{Event, Request};
use super::tiers::{Tiers, Turn};
use super::{DiscoveryError, Trackers};
use crate::swarm::discovery::book::Source;
use crate::swarm::discovery::{Found, InfoHash};

/// Peers asked for in an announce. Trackers give 50 to 200 at most.
const WANT: u32 = 200;

/// A torrent's counters, as trackers are told them. The owner keeps them; an announce reads them.
#[derive(Debug, Default)]
pub struct Totals {
    /// Bytes sent to peers in this session.
    pub uploaded: AtomicU64,
    /// Bytes received from peers in this session.
    pub downloaded: AtomicU64,
    /// Bytes still missing. While the metadata is missing: anything but 0, which would mean a seed.
    pub left: AtomicU64,
}

/// What an [`Announcer`] needs to know.
#[derive(Clone, Debug)]
pub struct AnnouncerOptions {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our id in this torrent's handshakes.
    pub peer_id: [u8; 20],
    /// The port that we listen at, as others reach it.
    pub port: u16,
    /// One tracker at a time (BEP 27).
    pub private: bool,
    /// The torrent's tiers, best first.
    pub tiers: Vec<Vec<String>>,
}

/// How a tracker is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TrackerState {
    /// Not asked in this session.
    #[default]
    Unasked,
    /// Being asked.
    Asking,
    /// Its last answer was good.
    Working,
    /// Its last answer was not, or there was none: why.
    Failed(String),
}

/// One tracker, for the torrent's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackerReport {
    /// As the torrent or the user gave it. It may hold a key: not for logs.
    pub url: String,
    /// Counted from 0.
    pub tier: usize,
    /// How it is doing.
    pub state: TrackerState,
    /// Its last words to the user.
    pub warning: Option<String>,
    /// Peers in its last answer.
    pub peers: usize,
    /// Peers that have everything, by its last answer.
    pub seeders: Option<u32>,
    /// Peers that have not, by its last answer.
    pub leechers: Option<u32>,
    /// When it last answered well.
    pub answered: Option<Instant>,
}

/// Announces one torrent to its trackers, from its start to [`stop`](Self::stop). Dropping it ends it without telling the
/// trackers.
#[derive(Debug)]
pub struct Announcer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<Orders>,
    wake: Notify,
    stopping: CancellationToken,
    /// How long the last announces may take; set before `stopping`.
    stop_limit: OnceLock<Duration>,
    report: Mutex<Vec<TrackerReport>>,
}

#[derive(Debug, Default)]
struct Orders {
    wish: bool,
    complete: bool,
    tiers: Vec<Vec<String>>,
}

impl Announcer {
    /// Starts announcing: the first announce is made at once. What is found goes into `found`, which may be full for a
    /// while: the next announce waits until there is room.
    #[must_use]
    pub fn start(
        trackers: Trackers,
        options: AnnouncerOptions,
        totals: Arc<Totals>,
        found: mpsc::Sender<Found>,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let hedge = (!options.private).then_some(trackers.shared.limits.hedge);
        let mut task = Task {
            key: rand::random(),
            tiers: Tiers::new(now(), hedge, rand::random()),
            attempts: FuturesUnordered::new(),
            open: Vec::new(),
            trackers,
            options,
            totals,
            found,
            shared: shared.clone(),
        };
        let tiers = std::mem::take(&mut task.options.tiers);
        task.add(tiers);
        Self {
            shared,
            task: tokio::spawn(task.run()),
        }
    }

    /// The torrent needs peers: announces as soon as the trackers allow (30 s after the last answer, or their
    /// `min interval`). Costs nothing if it is called often.
    pub fn announce_now(&self) {
        self.order(|orders| orders.wish = true);
    }

    /// The download has become complete in this session.
    pub fn completed(&self) {
        self.order(|orders| orders.complete = true);
    }

    /// Adds tiers behind those that there are. Trackers known already are passed over.
    pub fn add(&self, tiers: Vec<Vec<String>>) {
        self.order(|orders| orders.tiers.extend(tiers));
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.shared.orders.lock());
        self.shared.wake.notify_one();
    }

    /// How the trackers are doing.
    #[must_use]
    pub fn report(&self) -> Vec<TrackerReport> {
        self.shared.report.lock().clone()
    }

    /// Tells every tracker that has us on its list that we stop; what is not done within `limit` is given up.
    pub async fn stop(mut self, limit: Duration) {
        self.shared.stop_limit.get_or_init(|| limit);
        self.shared.stopping.cancel();
        // It ends by itself within the limit; dropping `self` ends it otherwise.
        let _ = tokio::time::timeout(limit + Duration::from_millis(100), &mut self.task).await;
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Task {
    trackers: Trackers,
    options: AnnouncerOptions,
    totals: Arc<Totals>,
    found: mpsc::Sender<Found>,
    shared: Arc<Shared>,
    key: u32,
    tiers: Tiers,
    attempts: FuturesUnordered<BoxFuture<'static, Attempt>>,
    /// Announces on their way: one a tracker, over one or both IP versions.
    open: Vec<Open>,
}

struct Attempt {
    turn: Turn,
    result: Result<AnnounceReply, DiscoveryError>,
}

struct Open {
    turn: Turn,
    attempts: usize,
    answered: bool,
    /// The first IP version's failure says more than the second's, which may not be there at all.
    error: Option<DiscoveryError>,
}

impl Task {
    async fn run(mut self) {
        while !self.shared.stopping.is_cancelled() {
            self.obey();
            while let Some(turn) = self.tiers.next(now()) {
                self.begin(turn);
            }
            let wakeup = self.tiers.wakeup();
            tokio::select! {
                () = self.shared.stopping.cancelled() => {}
                () = self.shared.wake.notified() => {}
                () = sleep_until(wakeup) => {}
                Some(attempt) = self.attempts.next() => self.end(attempt).await,
            }
        }
        let limit = self.shared.stop_limit.get().copied().unwrap_or_default();
        let _ = tokio::time::timeout(limit, self.say_goodbye()).await;
    }

    fn obey(&mut self) {
        let orders = std::mem::take(&mut *self.shared.orders.lock());
        self.add(orders.tiers);
        if orders.complete {
            self.tiers.complete(now());
        }
        if orders.wish {
            self.tiers.wish(now());
        }
    }

    fn add(&mut self, tiers: Vec<Vec<String>>) {
        let unusable = self.tiers.add(now(), tiers);
        let mut report = self.shared.report.lock();
        let known = report.len();
        report.extend(self.tiers.trackers()[known..].iter().map(|tracker| TrackerReport {
            url: tracker.url.clone(),
            tier: tracker.tier,
            state: TrackerState::Unasked,
            warning: None,
            peers: 0,
            seeders: None,
            leechers: None,
            answered: None,
        }));
        for (tracker, error) in unusable {
            report[tracker].state = TrackerState::Failed(error.to_string());
        }
    }

    fn request(&self, tracker: usize, event: Event) -> Request {
        Request {
            info_hash: self.options.info_hash,
            peer_id: self.options.peer_id,
            port: self.options.port,
            key: self.key,
            uploaded: self.totals.uploaded.load(Ordering::Relaxed),
            downloaded: self.totals.downloaded.load(Ordering::Relaxed),
            left: self.totals.left.load(Ordering::Relaxed),
            event,
            want: if event == Event::Stopped { 0 } else { WANT },
            tracker_id: self.tiers.trackers()[tracker].id.clone(),
        }
    }

    fn begin(&mut self, turn: Turn) {
        let Some(target) = self.tiers.trackers()[turn.tracker].target.clone() else {
            return;
        };
        let families = target.families();
        self.open.push(Open {
            turn,
            attempts: families.len(),
            answered: false,
            error: None,
        });
        for family in families {
            let (trackers, target) = (self.trackers.clone(), target.clone());
            let request = self.request(turn.tracker, turn.event);
            self.attempts.push(Box::pin(async move {
                let result = trackers.announce(&target, family, &request).await;
                Attempt { turn, result }
            }));
        }
        self.shared.report.lock()[turn.tracker].state = TrackerState::Asking;
    }

    async fn end(&mut self, Attempt { turn, result }: Attempt) {
        let Some(index) = self.open.iter().position(|open| open.turn == turn) else {
            return;
        };
        let open = &mut self.open[index];
        open.attempts -= 1;
        let peers = match result {
            Ok(reply) => {
                let first = !std::mem::replace(&mut open.answered, true);
                self.note_answer(turn, first, &reply);
                reply.peers
            }
            Err(error) => {
                open.error.get_or_insert(error);
                Vec::new()
            }
        };
        if self.open[index].attempts == 0 {
            let open = self.open.swap_remove(index);
            if let (false, Some(error)) = (open.answered, open.error) {
                self.note_failure(turn, &error);
            }
        }
        if !peers.is_empty() {
            let found = Found {
                source: Source::Tracker,
                peers,
            };
            tokio::select! {
                // If nobody listens any more, this is about to be stopped.
                _ = self.found.send(found) => {}
                () = self.shared.stopping.cancelled() => {}
            }
        }
    }

    fn note_answer(&mut self, turn: Turn, first: bool, reply: &AnnounceReply) {
        let now = now();
        if first {
            self.tiers.answered(now, turn, reply);
        }
        let mut report = self.shared.report.lock();
        let report = &mut report[turn.tracker];
        report.state = TrackerState::Working;
        report.warning.clone_from(&reply.warning);
        report.seeders = reply.seeders.max(if first { None } else { report.seeders });
        report.leechers = reply.leechers.max(if first { None } else { report.leechers });
        report.peers = reply.peers.len() + if first { 0 } else { report.peers };
        report.answered = Some(now);
    }

    fn note_failure(&mut self, turn: Turn, error: &DiscoveryError) {
        self.tiers.failed(now(), turn, error);
        let mut report = self.shared.report.lock();
        let report = &mut report[turn.tracker];
        debug!(tier = report.tier, %error, "a tracker failed");
        report.state = TrackerState::Failed(error.to_string());
    }

    async fn say_goodbye(&mut self) {
        // One that `started` is on its way to may know us already.
        let told = |tracker: usize| self.open.iter().any(|open| open.turn.tracker == tracker);
        let mut farewells = FuturesUnordered::new();
        for (index, tracker) in self.tiers.trackers().iter().enumerate() {
            let Some(target) = tracker.target.as_ref().filter(|_| tracker.registered || told(index)) else {
                continue;
            };
            let request = self.request(index, Event::Stopped);
            for family in target.families() {
                let (trackers, request) = (self.trackers.clone(), request.clone());
                farewells.push(async move { trackers.announce(target, family, &request).await });
            }
        }
        // Those on their way are given up first, so that none arrives after its `stopped`.
        self.attempts.clear();
        while farewells.next().await.is_some() {}
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
