//! The keeper: one task a torrent, which puts cursors where readers stand and gets a torrent going again that stands
//! still while somebody waits.

use std::io::SeekFrom;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::AsyncSeek;
use tokio::sync::OwnedSemaphorePermit;

use super::cursors::{CURSORS, LOOK_AHEAD, Position};
use super::session::EngineError;
use super::swarm::{Inner, PeerCounts};

/// How often the keeper looks while somebody waits.
const WAITED_FOR: Duration = Duration::from_millis(100);

/// How often it moves the cursors of readers that do not wait.
const READ: Duration = Duration::from_secs(1);

/// How often it looks for an error otherwise.
const IDLE: Duration = Duration::from_secs(10);

/// While readers outnumber cursors, how long each group of them has its turn.
const TURN: Duration = Duration::from_secs(2);

/// So long after the last peer went, or the last attempt, peers are looked for anew: librqbit asks a peer that went
/// again only after 10 s, then 60 s and up to an hour. Attempts in vain come more slowly, for each asks the trackers.
const REBUILD: Duration = Duration::from_secs(3);
const SLOWEST_REBUILD: Duration = Duration::from_secs(15);

/// Peers are connected, or are being connected to, but no block came for so long: they are looked for anew too.
const STUCK: Duration = Duration::from_secs(20);

/// No block came for so long although somebody waits and peers are connected: their requesters may be asleep. They are
/// woken, and once more if that did not help.
const ASLEEP: Duration = Duration::from_millis(100);
const STILL_ASLEEP: Duration = Duration::from_secs(1);

/// How long after an error the torrent is put into the engine again.
const AFTER_ERROR: Duration = Duration::from_secs(2);

/// A place from which librqbit fetches. It is moved, never read from: bytes come from the store.
struct Cursor {
    position: Position,
    stream: Pin<Box<dyn AsyncSeek + Send>>,
    _permit: OwnedSemaphorePermit,
}

struct Keeper {
    inner: Arc<Inner>,
    cursors: Vec<Cursor>,
    turn: usize,
    turned: Instant,
    adopted: bool,
    fetched: u64,
    /// Since when somebody has waited without interruption.
    waited_for_since: Option<Instant>,
    /// Where the visitor comes from who wakes requesters, when he last came, and how often since the last block.
    visitor: Option<SocketAddr>,
    visited: Instant,
    visits: u32,
    /// At the last look little or nothing was left to fetch, so that whoever could fetch sleeps, most likely. Waking
    /// who is awake does no harm.
    asleep: bool,
    /// The youngest demand that was seen, and when.
    youngest: (Option<u64>, Instant),
    alone_since: Option<Instant>,
    rebuilt: Instant,
    rebuilds: u32,
    erred: Option<Instant>,
}

/// Runs until the swarm is ended.
pub(super) async fn keep(inner: Arc<Inner>) {
    let now = Instant::now();
    let mut keeper = Keeper {
        inner: inner.clone(),
        cursors: Vec::new(),
        turn: 0,
        turned: now,
        adopted: false,
        fetched: 0,
        waited_for_since: None,
        visitor: None,
        visited: now,
        visits: 0,
        asleep: false,
        youngest: (None, now),
        alone_since: None,
        rebuilt: now,
        rebuilds: 0,
        erred: None,
    };
    loop {
        let pace = keeper.pace();
        tokio::select! {
            biased;
            () = inner.ended.cancelled() => break,
            () = inner.board.rung.notified() => {}
            () = tokio::time::sleep(pace) => {}
        }
        let paused = inner.changing.lock().await;
        keeper.step(*paused).await;
    }
}

impl Keeper {
    fn pace(&self) -> Duration {
        match self.inner.state() {
            // Its pieces are being looked at, which takes milliseconds.
            Ok(false) => Duration::from_millis(20),
            _ if self.inner.board.waited_for() => WAITED_FOR,
            Err(_) => AFTER_ERROR,
            Ok(true) if !self.cursors.is_empty() => READ,
            Ok(true) => IDLE,
        }
    }

    async fn step(&mut self, paused: bool) {
        let waited_for = self.inner.board.waited_for();
        let since = self.waited_for_since.unwrap_or_else(Instant::now);
        self.waited_for_since = waited_for.then_some(since);
        let youngest = self.inner.board.youngest();
        if youngest > self.youngest.0 {
            self.youngest = (youngest, Instant::now());
            self.visits = 0;
        }
        match self.inner.state() {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => return self.mend(error, waited_for && !paused).await,
        }
        if !std::mem::replace(&mut self.adopted, true) {
            let inner = self.inner.clone();
            tokio::task::spawn_blocking(move || inner.adopt_pieces()).await.ok();
        }
        *self.inner.error.lock() = None;
        let peers = self.count_blocks();
        self.place_cursors().await;
        if waited_for && peers.live + peers.connecting == 0 && peers.known > 0 {
            self.call_back().await;
        }
        if !paused && waited_for && peers.live > 0 {
            self.wake().await;
        }
        if !paused && waited_for && self.stands_still(peers) {
            self.rebuild(peers).await;
        }
    }

    /// Takes note of what arrived since the last look. librqbit does not tell which peer has which piece, so any block
    /// from a connected peer counts for everyone who waits.
    fn count_blocks(&mut self) -> PeerCounts {
        let (peers, fetched, _) = self.inner.live_stats();
        if fetched > self.fetched {
            *self.inner.growth.lock() = Some(Instant::now());
            self.rebuilds = 0;
            self.visits = 0;
        }
        self.fetched = fetched;
        peers
    }

    async fn place_cursors(&mut self) {
        let plan = self.inner.board.plan(self.turn);
        if plan.crowded && self.turned.elapsed() >= TURN {
            self.turn = self.turn.wrapping_add(1);
            self.turned = Instant::now();
        }
        let store = &self.inner.store;
        self.asleep = self.cursors.iter().all(|Cursor { position, .. }| {
            store
                .first_missing(position.file, position.offset, LOOK_AHEAD / 2)
                .is_none()
        });
        let (kept, mut free): (Vec<Cursor>, Vec<Cursor>) = self
            .cursors
            .drain(..)
            .partition(|cursor| plan.cursors.contains(&cursor.position));
        self.cursors = kept;
        let missing: Vec<Position> = plan
            .cursors
            .iter()
            .copied()
            .filter(|wanted| !self.cursors.iter().any(|cursor| cursor.position == *wanted))
            .collect();
        for wanted in missing {
            let near = free
                .iter()
                .enumerate()
                .filter(|(_, cursor)| cursor.position.file == wanted.file)
                .min_by_key(|(_, cursor)| cursor.position.offset.abs_diff(wanted.offset))
                .map(|(index, _)| index);
            let placed = match near {
                Some(index) => Some(free.swap_remove(index)),
                None => {
                    if self.cursors.len() + free.len() >= CURSORS {
                        free.pop();
                    }
                    new_cursor(&self.inner, wanted.file).await
                }
            };
            let Some(mut cursor) = placed else {
                continue;
            };
            if let Err(error) = cursor.stream.as_mut().start_seek(SeekFrom::Start(wanted.offset)) {
                tracing::debug!(%error, "a cursor could not be moved");
                continue;
            }
            cursor.position = wanted;
            self.cursors.push(cursor);
        }
    }

    /// Peers that were sent away because nobody wanted anything are called back by a new cursor, and by that alone. One
    /// that came while they were on their way out did not.
    async fn call_back(&mut self) {
        if let Some(file) = self.cursors.first().map(|cursor| cursor.position.file) {
            drop(new_cursor(&self.inner, file).await);
        }
    }

    async fn wake(&mut self) {
        let Some(listens_at) = self.inner.session.listen_addr() else {
            return;
        };
        let last = (*self.inner.growth.lock()).max(Some(self.youngest.1));
        let idle = last.map_or(Duration::ZERO, |last| last.elapsed());
        let due = match self.visits {
            0 => self.asleep || idle >= ASLEEP,
            1 => idle >= STILL_ASLEEP && self.visited.elapsed() >= STILL_ASLEEP,
            _ => false,
        };
        if due {
            self.visits += 1;
            self.visited = Instant::now();
            super::waker::wake(listens_at, self.inner.store.metainfo(), &mut self.visitor).await;
        }
    }

    /// Whether somebody waits in vain, and it is time to look for peers anew.
    fn stands_still(&mut self, peers: PeerCounts) -> bool {
        let slow = self.rebuilt.elapsed() >= STUCK;
        if peers.live > 0 {
            self.alone_since = None;
            let last = (*self.inner.growth.lock()).max(self.waited_for_since);
            return slow && last.is_some_and(|last| last.elapsed() >= STUCK);
        }
        let alone = self.alone_since.get_or_insert_with(Instant::now).elapsed();
        let patience = (REBUILD * (1 + self.rebuilds / 3)).min(SLOWEST_REBUILD);
        // Whoever is being connected to now may be the one.
        let patience = if peers.connecting > 0 { STUCK } else { patience };
        alone >= REBUILD && self.rebuilt.elapsed() >= patience
    }

    async fn rebuild(&mut self, peers: PeerCounts) {
        tracing::debug!(
            torrent = self.inner.store.metainfo().name,
            ?peers,
            "peers are looked for anew"
        );
        self.rebuilt = Instant::now();
        self.rebuilds += 1;
        self.inner.rebuilds.fetch_add(1, Ordering::Relaxed);
        self.fetched = 0;
        let rebuilt = async {
            self.inner.disconnect().await?;
            self.inner.connect().await
        };
        if let Err(error) = rebuilt.await {
            tracing::debug!(torrent = self.inner.store.metainfo().name, %error, "looking for peers anew failed");
        }
    }

    /// The torrent stopped, because what arrived could not be stored most often. When there is room and somebody
    /// wants it, it starts anew.
    async fn mend(&mut self, error: String, wanted: bool) {
        // They belong to a state of librqbit's that is no more.
        self.cursors.clear();
        if self.erred.is_none() {
            tracing::warn!(
                torrent = self.inner.store.metainfo().name,
                error,
                "the engine stopped the torrent"
            );
            self.erred = Some(Instant::now());
        }
        *self.inner.error.lock() = Some(error);
        let rested = self.erred.is_none_or(|erred| erred.elapsed() >= AFTER_ERROR);
        if !(wanted || self.inner.whole) || !rested || !self.inner.store.disk().space().storing() {
            return;
        }
        match self.inner.enter_again().await {
            Ok(()) => {
                self.erred = None;
                self.adopted = false;
                self.fetched = 0;
            }
            Err(error @ EngineError::Engine(_)) => {
                *self.inner.error.lock() = Some(error.to_string());
                self.erred = Some(Instant::now());
            }
            Err(_) => {}
        }
    }
}

async fn new_cursor(inner: &Inner, file: usize) -> Option<Cursor> {
    // All torrents' cursors are in use: the next look tries again.
    let permit = inner.cursors.clone().try_acquire_owned().ok()?;
    match inner.handle().stream(file).await {
        Ok(stream) => Some(Cursor {
            position: Position { file, offset: 0 },
            stream: Box::pin(stream),
            _permit: permit,
        }),
        Err(error) => {
            tracing::debug!("no cursor: {error:#}");
            None
        }
    }
}
