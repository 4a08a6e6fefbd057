//! What happens by itself: torrents enter the engine and are parked, magnets resolve, whole downloads go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use magnetfs_mount::ReadError;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{info, warn};

use super::core::{Library, blocking};
use super::torrent::{Contents, Halt, Place, Torrent};
use crate::torrents::engine::Swarm;
use crate::torrents::metainfo::{Metainfo, MetainfoError};
use crate::torrents::source::Magnet;

/// A torrent that nobody has read from the network for so long is parked. Long enough for a paused film.
const IDLE_LIMIT: Duration = Duration::from_secs(300);
/// How often idle torrents are looked for.
const IDLE_ROUND: Duration = Duration::from_secs(10);
/// The pause after a failed attempt; it doubles up to the second figure.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long a magnet is resolved before the next one that waits has its turn.
const RESOLVE_TURN: Duration = Duration::from_secs(60);
/// How often a whole download looks whether the engine has given up on it.
const FAULT_ROUND: Duration = Duration::from_secs(5);

impl Library {
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
        let permit = self.place(patient).await?;
        let options = torrent.options();
        let (peers, trackers, whole) = (&options.peers, torrent.trackers(), torrent.is_whole());
        match self.engine.enter(contents.store.clone(), peers, &trackers, whole) {
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

    /// Takes a torrent out of the engine, if it is there.
    pub(super) async fn park(&self, torrent: &Torrent) {
        let mut place = torrent.place.lock().await;
        torrent.set_swarm(None);
        if let Some(place) = place.take() {
            place.swarm.leave().await;
        }
    }

    /// One of the engine's places.
    async fn place(&self, patient: bool) -> Result<OwnedSemaphorePermit, ReadError> {
        if !patient && self.places.available_permits() == 0 {
            let mut idle: Vec<_> = self
                .all()
                .into_iter()
                .filter(|torrent| torrent.swarm().is_some())
                .collect();
            idle.retain(|torrent| !torrent.idle().is_zero());
            // What somebody wants whole is displaced last.
            if let Some(torrent) = idle
                .into_iter()
                .max_by_key(|torrent| (!torrent.is_whole(), torrent.idle()))
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

/// Parks torrents that nobody reads, until the library stops.
pub(super) async fn park_idle(library: Arc<Library>) {
    let mut round = tokio::time::interval(IDLE_ROUND);
    loop {
        tokio::select! {
            _ = round.tick() => {}
            () = library.stopping.cancelled() => return,
        }
        for torrent in library.all() {
            if torrent.swarm().is_some() && !torrent.is_whole() && torrent.idle() > IDLE_LIMIT {
                info!(torrent = torrent.name(), "parked: nobody reads it");
                library.park(&torrent).await;
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
            }
            () = tokio::time::sleep(FAULT_ROUND) => {}
            _ = halt.wait_for(|halt| *halt != Halt::No) => {}
        }
    }
}
