//! A store as the engine sees it: whole pieces in, parts of pieces out.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tracing::error;

use crate::swarm::{Finished, Storage};
use crate::torrents::metainfo;
use crate::torrents::store::{Store, StoreError};

/// A torrent's store.
pub(super) struct StoreStorage(pub(super) Arc<Store>);

impl Storage for StoreStorage {
    fn has(&self, piece: u32) -> bool {
        self.0.has(piece)
    }

    fn storing(&self) -> bool {
        self.0.disk().space().storing()
    }

    fn finish(&self, piece: u32, bytes: &[u8]) -> Finished {
        match self.0.finish(piece, bytes) {
            Ok(finished) => finished,
            // The daemon is stopping, or the torrent left.
            Err(StoreError::Closed) => Finished::Failed,
            Err(error) => {
                error!(torrent = self.0.metainfo().name, piece, %error, "a piece could not be stored");
                Finished::Failed
            }
        }
    }

    fn read(&self, piece: u32, begin: u32, length: u32) -> io::Result<Bytes> {
        self.0
            .read_piece(piece, begin, length)
            .map(Bytes::from)
            .map_err(io::Error::other)
    }

    fn info(&self) -> io::Result<Bytes> {
        let bytes = std::fs::read(self.0.metainfo_path())?;
        let info = metainfo::info_of(&bytes).map_err(io::Error::other)?;
        Ok(Bytes::copy_from_slice(info))
    }
}
