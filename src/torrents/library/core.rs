//! The library: which torrents there are, and what happens to them.
//!
//! Everything that changes the list takes one lock (`changes`), does its disk work, and only then changes what is
//! shown, so that what a caller was told has already survived a crash. Reading the list takes no lock that is ever
//! held over disk or network.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use magnetfs_mount::{Group, Groups};
use parking_lot::RwLock;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::torrent::{Contents, Halt, Torrent};
use super::upkeep;
use super::values::{AddOptions, Added, LibraryError, LibraryOptions, Seeding};
use crate::torrents::engine::{Engine, EngineOptions};
use crate::torrents::info_hash::InfoHash;
use crate::torrents::metainfo::Metainfo;
use crate::torrents::names;
use crate::torrents::pace::Paces;
use crate::torrents::report::{Download, LibraryReport, TorrentDetail, TorrentReport};
use crate::torrents::shelf::{Holder, Options, Shelf, Shelved};
use crate::torrents::source::{Magnet, Source};
use crate::torrents::store::{Disk, FreeSpace, Store, StoreError};

/// Torrents in the engine at once. Each costs sockets and memory; the others are parked.
pub(super) const PLACES: usize = 64;
/// Complete torrents that are given to others for good at once; it leaves places to those that are read from.
const SEEDING: usize = PLACES / 2;
/// Magnets that are being resolved at once; the others have their turn.
const RESOLVING: usize = 64;
/// Torrents in the library. Each costs about 10 KiB of memory.
const TORRENTS_LIMIT: usize = 50_000;
/// Peers remembered from the command line and from magnets, for one torrent.
const PEERS_LIMIT: usize = 64;
/// What the whole library is given to stop in, before its data is left to be verified at the next start.
const STOP_LIMIT: Duration = Duration::from_millis(1500);

/// All torrents of one data directory, which it holds locked. It is the mount's [`magnetfs_mount::Catalog`].
#[derive(Debug)]
pub struct Library {
    /// For open files, which the mount makes from a plain reference.
    pub(super) this: Weak<Library>,
    pub(super) shelf: Shelf,
    pub(super) engine: Engine,
    pub(super) disk: Arc<Disk>,
    pub(super) places: Arc<Semaphore>,
    /// Held by the one of those that can wait for a place that comes first.
    pub(super) patience: tokio::sync::Mutex<()>,
    pub(super) resolving: Semaphore,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
    torrents: RwLock<Index>,
    groups: watch::Sender<Groups>,
    changes: tokio::sync::Mutex<()>,
    download: Download,
    pub(super) seed: Seeding,
    /// Turns at giving complete torrents to others.
    pub(super) seeding: Semaphore,
    pub(super) paces: Paces,
}

/// The torrents by the two names they go by.
#[derive(Debug, Default)]
struct Index {
    by_number: BTreeMap<u64, Arc<Torrent>>,
    by_info_hash: BTreeMap<InfoHash, Arc<Torrent>>,
}

impl Library {
    /// Takes the data directory, reads the library in it and starts the engine. Torrents that are to be downloaded
    /// whole, and magnets that are not resolved, go on in the background.
    ///
    /// # Errors
    /// Another daemon holds the data directory, it cannot be read or written, or the engine does not start.
    pub async fn open(options: LibraryOptions) -> Result<Arc<Library>, LibraryError> {
        let holder = Holder {
            pid: std::process::id(),
            mountpoint: options.mountpoint.clone(),
            socket: options.socket.clone(),
        };
        let (data_dir, floor) = (options.data_dir.clone(), options.floor);
        let (shelf, shelved, disk) = blocking(move || {
            let (shelf, shelved) = Shelf::open(&data_dir, &holder)?;
            let disk = Disk::new(FreeSpace::new(&data_dir, floor));
            let opened = shelved
                .into_iter()
                .map(|one| reopen(&shelf, &disk, one))
                .collect::<Result<Vec<_>, _>>()?;
            Ok::<_, LibraryError>((shelf, opened, disk))
        })
        .await?;
        let engine = Engine::start(EngineOptions {
            state_dir: shelf.engine_dir(),
            ..options.engine
        })
        .await?;
        let library = Arc::new_cyclic(|this| Library {
            this: this.clone(),
            shelf,
            engine,
            disk,
            places: Arc::new(Semaphore::new(PLACES)),
            patience: tokio::sync::Mutex::default(),
            resolving: Semaphore::new(RESOLVING),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            torrents: RwLock::default(),
            groups: watch::Sender::new(Arc::from([])),
            changes: tokio::sync::Mutex::new(()),
            download: options.download,
            seed: options.seed,
            seeding: Semaphore::new(SEEDING),
            paces: Paces::default(),
        });
        {
            let mut index = library.torrents.write();
            for torrent in shelved {
                index.by_info_hash.insert(torrent.info_hash, torrent.clone());
                index.by_number.insert(torrent.number, torrent);
            }
        }
        library.publish();
        library.tasks.spawn(upkeep::park_idle(library.clone()));
        for torrent in library.all() {
            if torrent.contents().is_none() || torrent.is_whole() || library.seeds(&torrent) {
                library.tend(&torrent);
            }
        }
        Ok(library)
    }

    /// Adds what a source names; on return it has survived any crash. A magnet is added at once and resolves in the
    /// background. A torrent that is here already gets the peers, the trackers and the `download` of this call.
    ///
    /// # Errors
    /// The source is bad, or it cannot be stored; then nothing has changed.
    pub async fn add(self: &Arc<Self>, source: Source, options: AddOptions) -> Result<Added, LibraryError> {
        let (magnet, bytes) = match source {
            Source::Magnet(magnet) => (Some(magnet), None),
            other => (None, Some(other.fetch().await?)),
        };
        let metainfo = bytes.as_deref().map(Metainfo::parse).transpose()?;
        let _change = self.changes.lock().await;
        if self.stopping.is_cancelled() {
            return Err(LibraryError::Stopping);
        }
        let info_hash = match (&metainfo, &magnet) {
            (Some(metainfo), _) => metainfo.info_hash,
            (None, Some(magnet)) => magnet.info_hash,
            (None, None) => return Err(LibraryError::Unknown { torrent: String::new() }),
        };
        let known = self.torrents.read().by_info_hash.get(&info_hash).cloned();
        let (torrent, new) = match known {
            Some(torrent) => (torrent, false),
            None => (
                self.put(
                    info_hash,
                    magnet.as_ref(),
                    &options,
                    bytes.as_deref(),
                    metainfo.as_ref(),
                )
                .await?,
                true,
            ),
        };
        if !new {
            self.extend(&torrent, magnet.as_ref(), &options).await?;
            if let (None, Some(metainfo), Some(bytes)) = (torrent.contents(), metainfo, bytes) {
                self.settle(&torrent, metainfo, bytes).await?;
            }
        }
        if options.alone {
            self.meet(&torrent);
        }
        self.tend(&torrent);
        Ok(Added {
            info_hash,
            name: torrent.name(),
            resolved: torrent.contents().is_some(),
            new,
        })
    }

    /// Waits until a torrent's files are shown. It waits as long as that takes; dropping it changes nothing.
    ///
    /// # Errors
    /// The torrent is unknown, or it was removed meanwhile.
    pub async fn resolved(&self, info_hash: &str) -> Result<Added, LibraryError> {
        let torrent = self.find(info_hash)?;
        let (mut resolved, mut halt) = (torrent.resolved(), torrent.halt());
        tokio::select! {
            _ = resolved.wait_for(|resolved| *resolved) => {}
            _ = halt.wait_for(|halt| *halt == Halt::Removed) => return Err(LibraryError::Removed),
            () = self.stopping.cancelled() => return Err(LibraryError::Stopping),
        }
        Ok(Added {
            info_hash: torrent.info_hash,
            name: torrent.name(),
            resolved: true,
            new: false,
        })
    }

    /// All torrents, in the order in which they were added.
    pub fn list(&self) -> Vec<TorrentReport> {
        self.all().iter().map(|torrent| torrent.report()).collect()
    }

    /// One torrent, by info hash, by a prefix of it (at least 4 digits), or by its name in the mount.
    ///
    /// # Errors
    /// None or several go by that name.
    pub fn show(&self, torrent: &str) -> Result<TorrentDetail, LibraryError> {
        Ok(self.find(torrent)?.detail())
    }

    /// The library as a whole.
    pub fn report(&self) -> LibraryReport {
        let torrents = self.all();
        let space = self.disk.space().report();
        LibraryReport {
            torrents: torrents.len(),
            active: torrents.iter().filter(|torrent| torrent.swarm().is_some()).count(),
            used: self.used(),
            free: space.free,
            floor: space.floor,
            storing: space.storing,
        }
    }

    /// Takes a torrent out; its files vanish from the mount, and reads of them fail. Gives its name.
    ///
    /// # Errors
    /// It is unknown, or what is stored of it cannot be removed.
    pub async fn remove(self: &Arc<Self>, torrent: &str, delete_data: bool) -> Result<String, LibraryError> {
        let _change = self.changes.lock().await;
        let torrent = self.find(torrent)?;
        let name = torrent.name();
        let before = torrent.is_halted();
        torrent.set_halt(Halt::Removed);
        self.park(&torrent).await;
        let (library, info_hash, closing) = (self.clone(), torrent.info_hash, torrent.clone());
        let removed = blocking(move || {
            if let Some(contents) = closing.contents().filter(|_| !delete_data)
                && let Err(error) = contents.store.rest()
            {
                warn!(%info_hash, %error, "the kept data will be verified if the torrent comes again");
            }
            library.shelf.remove(info_hash, delete_data)
        });
        if let Err(error) = removed.await {
            torrent.set_halt(before);
            return Err(error.into());
        }
        {
            let mut index = self.torrents.write();
            index.by_info_hash.remove(&torrent.info_hash);
            index.by_number.remove(&torrent.number);
        }
        self.publish();
        info!(torrent = name, info_hash = %torrent.info_hash, delete_data, "removed");
        Ok(name)
    }

    /// Stops a torrent: it leaves its peers, and reads of what is missing fail until it is resumed. Gives its name.
    ///
    /// # Errors
    /// It is unknown, or its new state cannot be stored.
    pub async fn pause(self: &Arc<Self>, torrent: &str) -> Result<String, LibraryError> {
        let _change = self.changes.lock().await;
        let torrent = self.find(torrent)?;
        self.save(
            &torrent,
            Options {
                paused: true,
                ..torrent.options()
            },
        )
        .await?;
        torrent.set_halt(Halt::Paused);
        self.park(&torrent).await;
        Ok(torrent.name())
    }

    /// Undoes [`Library::pause`], and tries again what ended in an error.
    ///
    /// # Errors
    /// It is unknown, or its new state cannot be stored.
    pub async fn resume(self: &Arc<Self>, torrent: &str) -> Result<String, LibraryError> {
        let _change = self.changes.lock().await;
        let torrent = self.find(torrent)?;
        self.save(
            &torrent,
            Options {
                paused: false,
                ..torrent.options()
            },
        )
        .await?;
        torrent.set_fault(None);
        torrent.set_halt(Halt::No);
        self.tend(&torrent);
        Ok(torrent.name())
    }

    /// Says whether somebody waits for what a process (its thread-group id, as the host names it) reads through the
    /// mount. While `urgent` is false, its reads stand with what is fetched ahead of readers, behind those of everyone
    /// else; a change takes effect at once, also for reads that wait already. Every other process is urgent. When it has
    /// ended, [`forget_pace`](Library::forget_pace) it: the number will come to mean another.
    ///
    /// A reader that waits for a page which the kernel has asked for on behalf of such a process waits with it: the
    /// kernel asks for a page once.
    pub fn pace(&self, pid: u32, urgent: bool) {
        self.paces.set(pid, urgent);
    }

    /// A process that [`pace`](Library::pace) was told of has ended.
    pub fn forget_pace(&self, pid: u32) {
        self.paces.set(pid, true);
    }

    /// Ends everything: waiting reads fail, the engine leaves its peers, and the state is written so that the next
    /// start can trust it. It takes at most about two seconds.
    pub async fn stop(self: &Arc<Self>) {
        self.stopping.cancel();
        self.tasks.close();
        let torrents = self.all();
        for torrent in &torrents {
            torrent.set_halt(Halt::Stopping);
        }
        let ended = tokio::time::timeout(STOP_LIMIT, async {
            // Each of them is given a moment to tell its trackers.
            let leaving = torrents
                .iter()
                .map(async |torrent| Some((torrent, self.leave(torrent).await?)));
            let left: Vec<_> = join_all(leaving).await.into_iter().flatten().collect();
            self.engine.stop().await;
            self.tasks.wait().await;
            let closing = torrents.clone();
            let closed = blocking(move || {
                for contents in closing.iter().filter_map(|torrent| torrent.contents()) {
                    contents.store.close()?;
                }
                Ok::<_, StoreError>(())
            });
            if let Err(error) = closed.await {
                warn!(%error, "the stored data will be verified again");
            }
            // Last, because it may be left out.
            for (torrent, swarm) in left {
                self.remember(torrent, &swarm, Duration::ZERO).await;
            }
        });
        if ended.await.is_err() {
            warn!("the engine did not stop in time: some of the stored data may be verified again");
        }
    }

    /// The torrent of a number, which is the base of its inode numbers.
    pub(super) fn numbered(&self, number: u64) -> Option<Arc<Torrent>> {
        self.torrents.read().by_number.get(&number).cloned()
    }

    /// The torrent of an info hash.
    pub(super) fn by_info_hash(&self, info_hash: InfoHash) -> Option<Arc<Torrent>> {
        self.torrents.read().by_info_hash.get(&info_hash).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Torrent>> {
        self.torrents.read().by_number.values().cloned().collect()
    }

    pub(super) fn groups_watch(&self) -> watch::Receiver<Groups> {
        self.groups.subscribe()
    }

    /// Bytes stored for all torrents together.
    pub(super) fn used(&self) -> u64 {
        self.torrents
            .read()
            .by_number
            .values()
            .filter_map(|torrent| Some(torrent.contents()?.store.total_here()))
            .sum()
    }

    /// The metainfo of a magnet arrived: its files are shown from now on, on this disk and in the mount.
    pub(super) async fn settle(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        metainfo: Metainfo,
        bytes: Vec<u8>,
    ) -> Result<(), LibraryError> {
        if torrent.contents().is_some() || torrent.is_halted() == Halt::Removed {
            return Ok(());
        }
        let name = self.free_name(&metainfo);
        let options = Options {
            shown_name: Some(name),
            ..torrent.options()
        };
        let (library, info_hash, stored) = (self.clone(), torrent.info_hash, options.clone());
        let contents = blocking(move || {
            library.shelf.set_options(info_hash, &stored)?;
            library.shelf.set_metainfo(info_hash, &bytes)?;
            open_contents(&library.shelf, &library.disk, metainfo, &stored)
        })
        .await?;
        torrent.set_options(options);
        torrent.set_contents(contents);
        self.publish();
        Ok(())
    }

    /// Settles a magnet under the lock, for its background task.
    pub(super) async fn settle_in_turn(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        metainfo: Metainfo,
        bytes: Vec<u8>,
    ) -> Result<(), LibraryError> {
        let _change = self.changes.lock().await;
        self.settle(torrent, metainfo, bytes).await
    }

    /// Stores a new torrent and shows it.
    async fn put(
        self: &Arc<Self>,
        info_hash: InfoHash,
        magnet: Option<&Magnet>,
        add: &AddOptions,
        bytes: Option<&[u8]>,
        metainfo: Option<&Metainfo>,
    ) -> Result<Arc<Torrent>, LibraryError> {
        if self.torrents.read().by_number.len() >= TORRENTS_LIMIT {
            return Err(LibraryError::Full { limit: TORRENTS_LIMIT });
        }
        let mut peers = add.peers.clone();
        peers.extend(magnet.iter().flat_map(|magnet| &magnet.peers));
        peers.truncate(PEERS_LIMIT);
        let mut options = Options {
            number: 0,
            shown_name: metainfo.map(|metainfo| self.free_name(metainfo)),
            added: SystemTime::now(),
            download: add.download.unwrap_or(self.download),
            paused: false,
            trackers: magnet.map_or_else(Vec::new, |magnet| magnet.trackers.clone()),
            peers,
            magnet: magnet.map(ToString::to_string),
        };
        let (library, bytes, metainfo) = (self.clone(), bytes.map(<[u8]>::to_vec), metainfo.cloned());
        let torrent = blocking(move || {
            options.number = library.shelf.allocate_number()?;
            library.shelf.put(info_hash, bytes.as_deref(), &options)?;
            let torrent = Arc::new(Torrent::new(info_hash, options.clone()));
            match metainfo.map(|metainfo| open_contents(&library.shelf, &library.disk, metainfo, &options)) {
                Some(Ok(contents)) => torrent.set_contents(contents),
                Some(Err(error)) => {
                    library.shelf.remove(info_hash, false)?;
                    return Err(error);
                }
                None => {}
            }
            Ok::<_, LibraryError>(torrent)
        })
        .await?;
        {
            let mut index = self.torrents.write();
            index.by_info_hash.insert(info_hash, torrent.clone());
            index.by_number.insert(torrent.number, torrent.clone());
        }
        self.publish();
        info!(torrent = torrent.name(), %info_hash, "added");
        Ok(torrent)
    }

    /// Gives a torrent that is here what a second `add` says of it.
    async fn extend(
        self: &Arc<Self>,
        torrent: &Arc<Torrent>,
        magnet: Option<&Magnet>,
        add: &AddOptions,
    ) -> Result<(), LibraryError> {
        let before = torrent.options();
        let mut after = before.clone();
        let peers = add.peers.iter().chain(magnet.iter().flat_map(|magnet| &magnet.peers));
        for peer in peers.filter(|peer| !before.peers.contains(peer)) {
            after.peers.push(*peer);
        }
        let surplus = after.peers.len().saturating_sub(PEERS_LIMIT);
        after.peers.drain(..surplus);
        for tracker in magnet.iter().flat_map(|magnet| &magnet.trackers) {
            if !after.trackers.contains(tracker) {
                after.trackers.push(tracker.clone());
            }
        }
        after.download = add.download.unwrap_or(before.download);
        if after == before {
            return Ok(());
        }
        self.save(torrent, after).await?;
        // The engine takes peers and trackers only when a torrent enters it.
        self.park(torrent).await;
        Ok(())
    }

    async fn save(self: &Arc<Self>, torrent: &Arc<Torrent>, options: Options) -> Result<(), LibraryError> {
        let (library, info_hash, stored) = (self.clone(), torrent.info_hash, options.clone());
        blocking(move || library.shelf.set_options(info_hash, &stored)).await?;
        torrent.set_options(options);
        Ok(())
    }

    /// Sees to what a torrent does by itself: resolving, checking, downloading whole, giving.
    pub(super) fn tend(self: &Arc<Self>, torrent: &Arc<Torrent>) {
        torrent.nudge.notify_one();
        if torrent.begin_tending() {
            self.tasks.spawn(upkeep::tend(self.clone(), torrent.clone()));
        }
    }

    /// A torrent by info hash, prefix or name.
    fn find(&self, wanted: &str) -> Result<Arc<Torrent>, LibraryError> {
        let index = self.torrents.read();
        // First, because nothing keeps a torrent from calling itself by the info hash of another.
        if let Some(torrent) = wanted.parse().ok().and_then(|hash| index.by_info_hash.get(&hash)) {
            return Ok(Arc::clone(torrent));
        }
        let folded = wanted.to_ascii_lowercase();
        let is_prefix = folded.len() >= 4 && folded.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut found: Vec<_> = index
            .by_number
            .values()
            .filter(|torrent| torrent.name() == wanted)
            .collect();
        if found.is_empty() && is_prefix {
            let starts = |torrent: &&Arc<Torrent>| torrent.info_hash.to_string().starts_with(&folded);
            found = index.by_number.values().filter(starts).collect();
        }
        match found.as_slice() {
            [] => Err(LibraryError::Unknown {
                torrent: wanted.to_owned(),
            }),
            [torrent] => Ok(Arc::clone(torrent)),
            several => Err(LibraryError::Ambiguous {
                torrent: wanted.to_owned(),
                count: several.len(),
            }),
        }
    }

    fn free_name(&self, metainfo: &Metainfo) -> String {
        let taken: std::collections::HashSet<String> = self
            .torrents
            .read()
            .by_number
            .values()
            .filter_map(|torrent| torrent.options().shown_name)
            .collect();
        names::shown_name(metainfo, |name| taken.contains(name))
    }

    fn publish(&self) {
        let shown: Vec<_> = self
            .all()
            .into_iter()
            .filter(|torrent| torrent.contents().is_some())
            .collect();
        let groups: Vec<Arc<Group>> = shown
            .iter()
            .filter_map(|torrent| Some(torrent.contents()?.group.clone()))
            .collect();
        self.groups.send_replace(groups.into());
        for torrent in shown {
            torrent.tell_shown();
        }
    }
}

/// A torrent as it was left at the last stop.
fn reopen(shelf: &Shelf, disk: &Arc<Disk>, shelved: Shelved) -> Result<Arc<Torrent>, LibraryError> {
    let torrent = Arc::new(Torrent::new(shelved.info_hash, shelved.options));
    if let Some(metainfo) = shelved.metainfo {
        match open_contents(shelf, disk, metainfo, &torrent.options()) {
            Ok(contents) => torrent.set_contents(contents),
            Err(error) => {
                warn!(info_hash = %shelved.info_hash, %error, "a torrent cannot be opened; the others can");
                torrent.set_fault(Some(error.to_string()));
            }
        }
    }
    Ok(torrent)
}

fn open_contents(
    shelf: &Shelf,
    disk: &Arc<Disk>,
    metainfo: Metainfo,
    options: &Options,
) -> Result<Contents, LibraryError> {
    let name = options.shown_name.clone().unwrap_or_else(|| metainfo.name.clone());
    let group = Arc::new(names::group(options.number, &name, &metainfo, options.added));
    let metainfo = Arc::new(metainfo);
    let info_hash = metainfo.info_hash;
    let store = Store::open(
        &shelf.files_dir(info_hash),
        &shelf.have_path(info_hash),
        metainfo.clone(),
        &shelf.metainfo_path(info_hash),
        disk,
    )?;
    Ok(Contents { metainfo, store, group })
}

/// Runs disk work where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
