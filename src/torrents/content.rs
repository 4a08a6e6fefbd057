//! An open file: bytes from the store, and a demand on the swarm for those that are missing.

use std::fmt;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use magnetfs_mount::{Content, ReadError};
use parking_lot::Mutex;

use super::engine::{Reader, Swarm};
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
    activate: A,
    /// In the swarm that was last read from; none while everything that is read is here.
    reader: Mutex<Option<(Arc<Swarm>, Arc<Reader>)>>,
}

/// What a wait for a piece ended with.
enum Waited {
    Here,
    Left,
    NoSpace,
}

impl<A: Activate> OpenFile<A> {
    /// Opens nothing: the first read does. `file` is the torrent's index.
    pub fn new(store: Arc<Store>, file: usize, activate: A) -> OpenFile<A> {
        OpenFile {
            store,
            file,
            activate,
            reader: Mutex::new(None),
        }
    }

    fn reached(&self, offset: u64) {
        if let Some((_, reader)) = &*self.reader.lock() {
            reader.reached(offset);
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
        while self.store.first_missing(self.file, offset, length).is_some() {
            if !self.store.disk().space().storing() {
                return Err(ReadError::NoSpace);
            }
            let swarm = self.activate.activate().await?;
            if swarm.has_left() {
                // It is on its way out: the next call gives its successor, or says why there is none.
                tokio::task::yield_now().await;
                continue;
            }
            let reader = self.reader_in(&swarm);
            while let Some(piece) = self.store.first_missing(self.file, offset, length) {
                let _demand = reader.demand(self.store.offset_in_file(self.file, piece).max(offset));
                let waited = tokio::select! {
                    biased;
                    waited = self.store.changes(|| self.look(piece)) => waited,
                    () = swarm.left() => Waited::Left,
                };
                match waited {
                    Waited::Here => {}
                    Waited::Left => break,
                    Waited::NoSpace => return Err(ReadError::NoSpace),
                }
            }
        }
        Ok(())
    }

    fn look(&self, piece: u32) -> Option<Waited> {
        if self.store.has(piece) {
            Some(Waited::Here)
        } else if !self.store.disk().space().storing() {
            Some(Waited::NoSpace)
        } else {
            None
        }
    }
}

impl<A: Activate> Content for OpenFile<A> {
    fn read_now(&self, buf: &mut [u8], offset: u64) -> Option<io::Result<()>> {
        let read = self.store.read_now(self.file, buf, offset)?;
        self.reached(offset + buf.len() as u64);
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
                    self.reached(offset + length as u64);
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

    fn progress(&self, _offset: u64, _length: usize) -> Option<Instant> {
        // Neither librqbit nor the have-map tells whether a block that arrived helps this very read: any block of the
        // torrent from a connected peer counts.
        let block = self.reader.lock().as_ref().and_then(|(swarm, _)| swarm.last_block());
        block.max(self.store.last_progress())
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
