//! What happens by itself: torrents enter the engine and are parked, magnets resolve, whole downloads go on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use magnetfs_mount::ReadError;
use tokio::sync::{OwnedSemaphorePermit, TryAcquireError};
use tracing::{debug, info, warn};

use super::core::{Library, PLACES, blocking};
use super::torrent::{Contents, Halt, Place, Torrent};
use super::values::Seeding;
use crate::torrents::engine::{Contacts, Swarm};
use crate::torrents::metainfo::{Metainfo, MetainfoError};
use crate::torrents::source::Magnet;

/// A torrent that nobody has read from the network for so long is parked. Long enough for a paused film.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// How often idle torrents are looked for.
const IDLE_ROUND: Duration = Duration::from_secs(10);
/// How often a torrent that can wait for a place looks for one.
const PATIENT_ROUND: Duration = Duration::from_secs(1);
/// How often a torrent's peers are written down, at most.
const REMEMBER_PAUSE: Duration = Duration::from_secs(60);
/// The pause after a failed attempt; it doubles up to the second figure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long a magnet is resolved before the next one that waits has its turn.
const RESOLVE_TURN: Duration = Duration::from_secs(60);
/// Torrents in the engine, beyond which another meets its peers with its first read.
const MEETING: usize = 8;
/// How often a whole download looks whether the engine has given up on it.
const FAULT_ROUND: Duration = Duration::from_secs(5);

impl Library {
    /// Lets a torrent that will be read soon meet its peers, while few others are in the engine: until one of them serves
    /// us takes longer than a block does. Nothing is fetched; like any torrent that nobody reads it is parked later.
    pub(super) fn meet(self: &Arc<Self>, torrent: &Arc<Torrent>) {
        let present = PLACES - self.places.available_permits();
        if present >= MEETING || torrent.contents().is_none() || torrent.is_complete() {
            return;
        }
        let (library, torrent) = (self.clone(), torrent.clone());
        self.tasks.spawn(async move {
            // What keeps it out its first read will say.
            let _ = library.enter(&torrent, false).await;
        });
    }

    /// The torrent's swarm; the torrent enters the engine if it is parked. Of two callers the second waits for the
    /// first. Readers may displace torrents that nobody reads; `patient` callers wait for a free place instead.
    ///
    /// # Errors
    /// The torrent is paused, removed or stopping, or the engine refuses it.
    pub(super) async fn enter(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        patient: bool,
    ) -> Result<Arc<Swarm>, ReadError> {
        // Before the torrent is locked: neither a reader of it nor a pause has that long to wait.
        let early = if patient && torrent.swarm().is_none() {
            Some(self.free_place().await?)
        } else {
            None
        };
        let mut place = torrent.place.lock().await;
        if let Some(error) = torrent.is_halted().error() {
            return Err(error);
        }
        if let Some(present) = place.take() {
            return Ok(place.insert(present).swarm.clone());
        }
        let Some(contents) = torrent.contents() else {
            return Err(ReadError::Removed);
        };
        let permit = match early {
            Some(permit) => permit,
            None => self.place().await?,
        };
        let contacts = Contacts {
            peers: torrent.options().peers,
            remembered: self.recall(torrent).await,
            trackers: torrent.trackers(),
        };
        match self.engine.enter(contents.store.clone(), contacts, torrent.is_whole()) {
            Ok(swarm) => {
                let swarm = Arc::new(swarm);
                torrent.set_fault(None);
                torrent.set_swarm(Some(swarm.clone()));
                *place = Some(Place {
                    swarm: swarm.clone(),
                    _permit: permit,
                });
                Ok(swarm)
            }
            Err(error) => {
                warn!(torrent = torrent.name(), %error, "the engine refuses the torrent");
                torrent.set_fault(Some(error.to_string()));
                Err(ReadError::Engine(error.to_string().into()))
            }
        }
    }

    /// Takes a torrent out of the engine, if it is there, and notes whom to try first another time.
    pub(super) async fn park(self: &Arc<Self>, torrent: &Arc<Torrent>) {
        if let Some(swarm) = self.leave(torrent).await {
            self.remember(torrent, &swarm, Duration::ZERO).await;
        }
    }

    /// Takes a torrent out of the engine; gives what was its swarm there.
    pub(super) async fn leave(&self, torrent: &Torrent) -> Option<Arc<Swarm>> {
        let mut place = torrent.place.lock().await;
        torrent.set_swarm(None);
        let swarm = place.take()?.swarm;
        swarm.leave().await;
        Some(swarm)
    }

    /// Whom the shelf knows as a torrent's peers.
    async fn recall(self: &Arc<Self>, torrent: &Arc<Torrent>) -> Vec<SocketAddr> {
        let (library, info_hash) = (self.clone(), torrent.info_hash);
        // A panic there would be one of a parser.
        let peers = tokio::task::spawn_blocking(move || library.shelf.peers(info_hash));
        let peers = peers.await.unwrap_or_default();
        torrent.set_remembered(peers.clone(), None);
        peers
    }

    /// Writes down whom to try first another time, if that has changed and the last time was `pause` ago.
    pub(super) async fn remember(self: &Arc<Self>, torrent: &Arc<Torrent>, swarm: &Swarm, pause: Duration) {
        let peers = swarm.remembered();
        if !torrent.are_news(&peers, pause) {
            return;
        }
        let (library, info_hash, stored) = (self.clone(), torrent.info_hash, peers.clone());
        match blocking(move || library.shelf.set_peers(info_hash, &stored)).await {
            Ok(()) => torrent.set_remembered(peers, Some(Instant::now())),
            // It costs a slower start, no more.
            Err(error) => debug!(torrent = torrent.name(), %error, "its peers are not remembered"),
        }
    }

    /// Whether a torrent is one to be given to others for good.
    pub(super) fn seeds(&self, torrent: &Torrent) -> bool {
        self.seed == Seeding::Always && torrent.is_complete() && torrent.is_halted() == Halt::No
    }

    /// One of the engine's places, when there is one that no reader waits for.
    async fn free_place(&self) -> Result<OwnedSemaphorePermit, ReadError> {
        let _first = self.patience.lock().await;
        loop {
            match self.places.clone().try_acquire_owned() {
                Ok(permit) => return Ok(permit),
                // Who queued for it would stand before the readers that come later.
                Err(TryAcquireError::NoPermits) => tokio::time::sleep(PATIENT_ROUND).await,
                Err(TryAcquireError::Closed) => return Err(ReadError::Stopping),
            }
        }
    }

    /// One of the engine's places for a reader, if need be that of a torrent that nobody reads.
    async fn place(self: &Arc<Self>) -> Result<OwnedSemaphorePermit, ReadError> {
        if self.places.available_permits() == 0 {
            let mut idle: Vec<_> = self
                .all()
                .into_iter()
                .filter(|torrent| torrent.swarm().is_some())
                .collect();
            idle.retain(|torrent| !torrent.idle().is_zero());
            // What is still to become whole is displaced last.
            if let Some(torrent) = idle
                .into_iter()
                .max_by_key(|torrent| (!torrent.is_whole() || torrent.is_complete(), torrent.idle()))
            {
                self.park(&torrent).await;
            }
        }
        // The permits are never closed; a reader that waits here is bounded by its own deadline.
        self.places
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| ReadError::Stopping)
    }
}

/// Parks torrents that nobody reads, and sees to those that are to be given to others, until the library stops.
pub(super) async fn park_idle(library: Arc<Library>) {
    let mut round = tokio::time::interval(IDLE_ROUND);
    loop {
        tokio::select! {
            _ = round.tick() => {}
            () = library.stopping.cancelled() => return,
        }
        for torrent in library.all() {
            if library.seeds(&torrent) {
                library.tend(&torrent);
            }
            let Some(swarm) = torrent.swarm() else { continue };
            let complete = torrent.is_complete();
            let stays = match library.seed {
                Seeding::Never if complete => false,
                // Its place is a matter of its turn.
                Seeding::Always if complete => true,
                _ => torrent.idle() <= IDLE_LIMIT || (torrent.is_whole() && !complete),
            };
            if !stays {
                info!(torrent = torrent.name(), "parked: nobody reads it");
                library.park(&torrent).await;
            } else {
                library.remember(&torrent, &swarm, REMEMBER_PAUSE).await;
            }
        }
    }
}

/// Looks after one torrent until nothing is left to do by itself.
pub(super) async fn tend(library: Arc<Library>, torrent: Arc<Torrent>) {
    loop {
        let mut halt = torrent.halt();
        tokio::select! {
            () = round(&library, &torrent) => {}
            _ = halt.wait_for(|halt| matches!(halt, Halt::Removed | Halt::Stopping)) => return,
        }
        if !torrent.tend_again() {
            return;
        }
    }
}

async fn round(library: &Arc<Library>, torrent: &Arc<Torrent>) {
    if torrent.contents().is_none() {
        resolve(library, torrent).await;
    }
    let Some(contents) = torrent.contents() else { return };
    if torrent.is_whole() {
        check(torrent, contents).await;
        download(library, torrent, contents).await;
        if library.seed == Seeding::Never && torrent.is_complete() {
            library.park(torrent).await;
        }
    }
    if library.seeds(torrent) {
        give(library, torrent).await;
    }
}

/// Asks the network for a magnet's metainfo until it is here.
async fn resolve(library: &Arc<Library>, torrent: &Arc<Torrent>) {
    let mut pause = RETRY_FIRST;
    let mut halt = torrent.halt();
    loop {
        if halt.wait_for(|halt| *halt == Halt::No).await.is_err() {
            return;
        }
        let attempt = tokio::select! {
            attempt = resolve_in_turn(library, torrent) => attempt,
            () = torrent.nudge.notified() => {
                pause = RETRY_FIRST;
                torrent.set_fault(None);
                continue;
            }
            _ = halt.wait_for(|halt| *halt == Halt::Paused) => continue,
        };
        match attempt {
            Ok(()) => {
                torrent.set_fault(None);
                info!(torrent = torrent.name(), info_hash = %torrent.info_hash, "resolved");
                library.meet(torrent);
                return;
            }
            Err(error) => {
                warn!(
                    torrent = torrent.name(),
                    error = format!("{error:#}"),
                    "the magnet is not resolved yet"
                );
                torrent.set_fault(Some(format!("{error:#}")));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LONGEST),
            () = torrent.nudge.notified() => {
                pause = RETRY_FIRST;
                torrent.set_fault(None);
            }
        }
    }
}

/// One attempt after another, none of which keeps others waiting for long.
async fn resolve_in_turn(library: &Arc<Library>, torrent: &Arc<Torrent>) -> anyhow::Result<()> {
    loop {
        let _turn = library.resolving.acquire().await?;
        if let Ok(attempt) = tokio::time::timeout(RESOLVE_TURN, resolve_once(library, torrent)).await {
            return attempt;
        }
    }
}

async fn resolve_once(library: &Arc<Library>, torrent: &Arc<Torrent>) -> anyhow::Result<()> {
    let options = torrent.options();
    let magnet = match &options.magnet {
        Some(link) => Magnet::parse(link)?,
        None => Magnet::of(torrent.info_hash),
    };
    let bytes = library.engine.resolve(&magnet, &options.peers).await?;
    let metainfo = Metainfo::parse(&bytes)?;
    if metainfo.info_hash != torrent.info_hash {
        let (found, expected) = (metainfo.info_hash, torrent.info_hash);
        return Err(MetainfoError::InfoHash { found, expected }.into());
    }
    library.settle_in_turn(torrent, metainfo, bytes).await?;
    Ok(())
}

/// Compares what is stored with its hashes, as far as that has not been done.
async fn check(torrent: &Arc<Torrent>, contents: &Contents) {
    torrent.set_checking(true);
    let (checked, store) = (torrent.clone(), contents.store.clone());
    let stop = StopOnDrop(Arc::default());
    let stopped = stop.0.clone();
    let result = blocking(move || store.verify_all(|bytes| checked.set_checked(bytes), &stopped)).await;
    drop(stop);
    torrent.set_checking(false);
    if let Err(error) = result {
        warn!(torrent = torrent.name(), %error, "the stored data cannot be checked");
        torrent.set_fault(Some(error.to_string()));
    }
}

/// Ends a check that runs on a thread of its own, when the task that waits for it is dropped.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stays until all of a torrent is here.
async fn download(library: &Arc<Library>, torrent: &Arc<Torrent>, contents: &Contents) {
    let mut pause = RETRY_FIRST;
    let mut halt = torrent.halt();
    while !torrent.is_complete() && torrent.is_whole() {
        if halt.wait_for(|halt| *halt == Halt::No).await.is_err() {
            return;
        }
        if library.enter(torrent, true).await.is_err() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
            continue;
        }
        pause = RETRY_FIRST;
        tokio::select! {
            () = contents.store.wait_for(0..contents.metainfo.piece_count) => {
                info!(torrent = torrent.name(), "complete");
                torrent.touch();
            }
            () = tokio::time::sleep(FAULT_ROUND) => {}
            _ = halt.wait_for(|halt| *halt != Halt::No) => {}
        }
    }
}

/// Gives a complete torrent to others for as long as it is to be, when it has its turn.
async fn give(library: &Arc<Library>, torrent: &Arc<Torrent>) {
    let mut halt = torrent.halt();
    loop {
        let _turn = match library.seeding.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                // Until it is its turn, the place that it has from becoming complete is another's.
                library.park(torrent).await;
                let Ok(turn) = library.seeding.acquire().await else {
                    return;
                };
                turn
            }
        };
        if !library.seeds(torrent) {
            return;
        }
        match library.enter(torrent, true).await {
            Ok(swarm) => tokio::select! {
                // A reader of another torrent needed the place.
                () = swarm.left() => {}
                _ = halt.wait_for(|halt| *halt != Halt::No) => return,
            },
            Err(_) => tokio::time::sleep(FAULT_ROUND).await,
        }
    }
}
