//! An open file: bytes from the store, and a demand on the swarm for those that are missing.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use magnetfs_mount::{Content, ReadError};
use parking_lot::Mutex;

use super::engine::{Progress, Reader, Swarm};
use super::pace::Pace;
use super::store::{Store, StoreError};

/// How a torrent gets into the engine when somebody reads what is missing.
pub trait Activate: Send + Sync + 'static {
    /// The torrent's swarm; it enters the engine if it is not in it. Called again after [`Swarm::left`].
    ///
    /// # Errors
    /// Why nothing can be fetched now; the read fails with it.
    fn activate(&self) -> impl Future<Output = Result<Arc<Swarm>, ReadError>> + Send;
}

/// One open handle of one file.
pub struct OpenFile<A> {
    store: Arc<Store>,
    file: usize,
    /// Of the process that opened it.
    pace: Pace,
    activate: A,
    /// In the swarm that was last read from; none while everything that is read is here.
    reader: Mutex<Option<(Arc<Swarm>, Arc<Reader>)>>,
    /// Of the reads that wait for what is missing; as many as the mount lets wait.
    waiting: Mutex<Vec<Waiting>>,
}

/// A read that waits, and whether it may hope.
struct Waiting {
    offset: u64,
    length: u64,
    progress: Arc<Progress>,
}

/// What a wait for a piece ended with.
enum Waited {
    Here,
    Left,
    Failed(ReadError),
}

impl<A: Activate> OpenFile<A> {
    /// Opens nothing: the first read does. `file` is the torrent's index.
    pub fn new(store: Arc<Store>, file: usize, pace: Pace, activate: A) -> OpenFile<A> {
        OpenFile {
            store,
            file,
            pace,
            activate,
            reader: Mutex::new(None),
            waiting: Mutex::default(),
        }
    }

    /// Counts a read among those that wait until `Registered` is dropped.
    fn register(&self, offset: u64, length: u64) -> Registered<'_> {
        let progress = Arc::new(Progress::default());
        self.waiting.lock().push(Waiting {
            offset,
            length,
            progress: progress.clone(),
        });
        Registered {
            among: &self.waiting,
            progress,
        }
    }

    /// Asks for bytes that are sure to be read, by whomever, the first of them in the time `within`, until others are
    /// expected or the file is dropped. Waits only until the torrent is in the engine. That nothing can be fetched now is
    /// for the reads to tell.
    pub async fn expect(&self, offset: u64, length: u64, within: Duration) {
        if self.store.first_missing(self.file, offset, length).is_none() {
            return;
        }
        if let Ok(swarm) = self.activate.activate().await {
            self.reader_in(&swarm).expect(offset, length, within);
        }
    }

    fn passed(&self, offset: u64, length: u64) {
        if let Some((_, reader)) = &*self.reader.lock() {
            reader.passed(offset, length);
        }
    }

    fn reader_in(&self, swarm: &Arc<Swarm>) -> Arc<Reader> {
        let mut slot = self.reader.lock();
        match &*slot {
            Some((known, reader)) if Arc::ptr_eq(known, swarm) => reader.clone(),
            _ => {
                let reader = Arc::new(swarm.reader(self.file));
                *slot = Some((swarm.clone(), reader.clone()));
                reader
            }
        }
    }

    /// Waits for everything that is missing of these bytes.
    async fn fetch(&self, offset: u64, length: u64) -> Result<(), ReadError> {
        let since = Instant::now();
        let registered = self.register(offset, length);
        while self.store.first_missing(self.file, offset, length).is_some() {
            if !self.store.disk().space().storing() {
                return Err(ReadError::NoSpace);
            }
            let swarm = self.activate.activate().await?;
            if swarm.has_left() {
                // It is on its way out: the next call gives its successor, or says why there is none.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let reader = self.reader_in(&swarm);
            while let Some(piece) = self.store.first_missing(self.file, offset, length) {
                let urgent = self.pace.is_urgent();
                let demand = reader.demand(offset, length, urgent, &registered.progress);
                let waited = tokio::select! {
                    biased;
                    waited = self.store.changes(|| self.look(piece, since)) => waited,
                    () = swarm.left() => Waited::Left,
                    never = self.pace.clone().follow(urgent, |urgent| demand.urge(urgent)) => match never {},
                };
                match waited {
                    Waited::Here => demand.answered(),
                    Waited::Left => break,
                    Waited::Failed(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Where the disk has become full since the read began, its piece is held in memory when it comes.
    fn look(&self, piece: u32, since: Instant) -> Option<Waited> {
        if self.store.has(piece) {
            return Some(Waited::Here);
        }
        let fault = self.store.fault_since(since)?;
        Some(Waited::Failed(ReadError::Disk(fault)))
    }
}

impl<A: Activate> Content for OpenFile<A> {
    fn read_now(&self, buf: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        let read = self.store.read_now(self.file, buf, offset)?;
        self.passed(offset, buf.len() as u64);
        Some(read)
    }

    async fn read_at(self: Arc<Self>, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        loop {
            self.fetch(offset, length as u64).await?;
            let (store, file) = (self.store.clone(), self.file);
            let read = tokio::task::spawn_blocking(move || {
                let mut buf = vec![0; length];
                store.read_blocking(file, &mut buf, offset).map(|()| buf)
            });
            let read = read
                .await
                .map_err(|error| ReadError::Disk(Arc::new(io::Error::other(error))))?;
            match read {
                Ok(buf) => {
                    self.passed(offset, length as u64);
                    return Ok(buf);
                }
                // It did not match its hash and has to be fetched again.
                Err(StoreError::Missing { .. }) => {}
                Err(StoreError::NoSpace) => return Err(ReadError::NoSpace),
                Err(StoreError::Closed) => return Err(ReadError::Stopping),
                Err(StoreError::File { path, source }) => {
                    let source = io::Error::new(source.kind(), format!("{}: {source}", path.display()));
                    return Err(ReadError::Disk(Arc::new(source)));
                }
            }
        }
    }

    fn progress(&self, offset: u64, length: usize) -> Option<Instant> {
        let waiting = self.waiting.lock();
        let same = waiting
            .iter()
            .filter(|read| (read.offset, read.length) == (offset, length as u64));
        same.filter_map(|read| read.progress.last()).max()
    }
}

struct Registered<'a> {
    among: &'a Mutex<Vec<Waiting>>,
    progress: Arc<Progress>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.among
            .lock()
            .retain(|read| !Arc::ptr_eq(&read.progress, &self.progress));
    }
}

impl<A> fmt::Debug for OpenFile<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OpenFile { store, file, .. } = self;
        formatter
            .debug_struct("OpenFile")
            .field("store", store)
            .field("file", file)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::torrents::pace::Paces;
    use crate::torrents::store::{Disk, Floor, FreeSpace};
    use crate::torrents::testing::{Place, fill, make};

    /// A torrent that is paused, and how often it was asked for.
    struct Refuses(Arc<AtomicUsize>);

    impl Activate for Refuses {
        async fn activate(&self) -> Result<Arc<Swarm>, ReadError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(ReadError::Paused)
        }
    }

    #[tokio::test]
    async fn a_torrent_is_activated_only_for_what_is_missing() {
        let made = make("content", 1 << 14, &[("a", 100_000), ("b", 50)]);
        let place = Place::new(&made);
        let store = place.open(&made);
        (0..3).for_each(|piece| fill(&store, &made, piece));
        let asked = Arc::new(AtomicUsize::new(0));
        let opened = Arc::new(OpenFile::new(store, 0, Paces::default().of(0), Refuses(asked.clone())));
        let read = opened.clone().read_at(5, 3 * (1 << 14) - 5).await.unwrap();
        assert!(read == made.file(0)[5..3 * (1 << 14)]);
        assert!(opened.clone().read_at(100_000, 0).await.unwrap().is_empty());
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        assert!(matches!(
            opened.read_at(0, 3 * (1 << 14) + 1).await,
            Err(ReadError::Paused)
        ));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn below_the_floor_nobody_is_asked_for_what_could_not_be_stored() {
        let made = make("full", 1 << 14, &[("a", 100_000)]);
        let place = Place::new(&made);
        let disk = Disk::new(FreeSpace::with_probe(Floor::Percent(5.0), Box::new(|| Ok((1000, 49)))));
        let asked = Arc::new(AtomicUsize::new(0));
        let opened = Arc::new(OpenFile::new(
            place.open_on(&made, &disk),
            0,
            Paces::default().of(0),
            Refuses(asked.clone()),
        ));
        assert!(matches!(opened.read_at(0, 1).await, Err(ReadError::NoSpace)));
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }
}
