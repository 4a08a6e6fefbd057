//! The store, as librqbit wants to see it.

use std::any::TypeId;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use librqbit::storage::filesystem::FilesystemStorageFactory;
use librqbit::storage::{BoxStorageFactory, StorageFactory, StorageFactoryExt, TorrentStorage};
use librqbit::{ManagedTorrentShared, TorrentMetadata};
use librqbit_core::lengths::ValidPieceIndex;

use crate::torrents::store::Store;

#[derive(Clone)]
pub(super) struct StoreFactory(pub(super) Arc<Store>);

impl StorageFactory for StoreFactory {
    type Storage = Storage;

    fn create(&self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<Storage> {
        Ok(Storage {
            store: self.0.clone(),
            taken: AtomicBool::new(false),
        })
    }

    /// librqbit keeps resume data only for what it takes for its own storage of files.
    fn is_type_id(&self, type_id: TypeId) -> bool {
        type_id == TypeId::of::<FilesystemStorageFactory>()
    }

    fn clone_box(&self) -> BoxStorageFactory {
        self.clone().boxed()
    }
}

pub(super) struct Storage {
    store: Arc<Store>,
    /// Another took its place: a straggler of a torrent that was paused must not write between those of its successor.
    taken: AtomicBool,
}

impl TorrentStorage for Storage {
    fn init(&mut self, _: &ManagedTorrentShared, _: &TorrentMetadata) -> anyhow::Result<()> {
        Ok(())
    }

    fn pread_exact(&self, file: usize, offset: u64, buf: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.store.read_raw(file, buf, offset)?)
    }

    fn pwrite_all(&self, file: usize, offset: u64, buf: &[u8]) -> anyhow::Result<()> {
        anyhow::ensure!(!self.taken.load(Ordering::Acquire), "the torrent was paused meanwhile");
        Ok(self.store.write(file, offset, buf)?)
    }

    /// Files are the library's to delete, by [`super::Swarm`] nothing ever is.
    fn remove_file(&self, _: usize, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    fn remove_directory_if_empty(&self, _: &Path) -> anyhow::Result<()> {
        Ok(())
    }

    /// The store does so when it first writes a file.
    fn ensure_file_length(&self, _: usize, _: u64) -> anyhow::Result<()> {
        Ok(())
    }

    fn take(&self) -> anyhow::Result<Box<dyn TorrentStorage>> {
        self.taken.store(true, Ordering::Release);
        Ok(Box::new(Storage {
            store: self.store.clone(),
            taken: AtomicBool::new(false),
        }))
    }

    fn on_piece_completed(&self, piece: ValidPieceIndex) -> anyhow::Result<()> {
        self.store.piece_completed(piece.get());
        Ok(())
    }
}
