//! What the HTTP side asks of its owner.

use std::future::Future;
use std::io;

use axum::body::Bytes;

use crate::control::protocol::{AddedTorrent, Listed, Offer, Shown};
use crate::stream::{FileName, FilmReport, RenditionId, StreamError};
use crate::torrents::{InfoHash, TorrentFile};

/// The library, and the films in it. Nothing here waits for the network but what says so. A change that has begun is done
/// to its end, though its future be dropped.
pub trait Backend: Films + Send + Sync + 'static {
    /// An open file.
    type File: RawFile;

    /// All torrents.
    fn list(&self) -> Vec<Listed>;

    /// One torrent in full; `None` if there is none.
    fn show(&self, info_hash: InfoHash) -> Option<Shown>;

    /// The files of a torrent, in the order of [`Backend::show`]; `None` if there is none.
    fn files(&self, info_hash: InfoHash) -> Option<Vec<TorrentFile>>;

    /// Opens a file by its path in the torrent, which is looked up and never joined to a directory.
    ///
    /// # Errors
    /// There is no such file, or nothing can be read now.
    fn open(&self, info_hash: InfoHash, path: &str) -> Result<Self::File, Refusal>;

    /// Adds a torrent; an address is fetched before it returns, a magnet link resolves in the background.
    ///
    /// # Errors
    /// The source will not do, or it cannot be stored.
    fn add(&self, source: Offer) -> impl Future<Output = Result<AddedTorrent, Refusal>> + Send;

    /// Stops a torrent; gives its name.
    ///
    /// # Errors
    /// There is none, or the change cannot be stored.
    fn pause(&self, info_hash: InfoHash) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Starts a paused torrent; gives its name.
    ///
    /// # Errors
    /// There is none, or the change cannot be stored.
    fn resume(&self, info_hash: InfoHash) -> impl Future<Output = Result<String, Refusal>> + Send;

    /// Takes a torrent out, and its data with it where that is said; gives its name.
    ///
    /// # Errors
    /// There is none, or it cannot be removed.
    fn remove(&self, info_hash: InfoHash, delete_data: bool) -> impl Future<Output = Result<String, Refusal>> + Send;
}

/// The films of the library as HLS. Each method but the last waits for the film's bytes, for as long as that takes while
/// any still arrive; dropping it withdraws the request.
pub trait Films: Send + Sync + 'static {
    /// The master playlist.
    ///
    /// # Errors
    /// [`StreamError`].
    fn master(&self, file: &FileName) -> impl Future<Output = Result<String, StreamError>> + Send;

    /// The media playlist of a rendition.
    ///
    /// # Errors
    /// [`StreamError`].
    fn media(
        &self,
        file: &FileName,
        rendition: RenditionId,
    ) -> impl Future<Output = Result<String, StreamError>> + Send;

    /// The initialisation segment of a rendition.
    ///
    /// # Errors
    /// [`StreamError`].
    fn init(&self, file: &FileName, rendition: RenditionId) -> impl Future<Output = Result<Bytes, StreamError>> + Send;

    /// A segment, counted from 0.
    ///
    /// # Errors
    /// [`StreamError`].
    fn segment(
        &self,
        file: &FileName,
        rendition: RenditionId,
        number: u32,
    ) -> impl Future<Output = Result<Segment, StreamError>> + Send;

    /// What is to be told of a film now; `None` if nobody has asked for it yet. Never waits.
    fn film(&self, file: &FileName) -> Option<FilmReport>;
}

/// A segment of a film, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its bytes.
    pub bytes: Bytes,
    /// It may lack something that a later request has, so nobody is to keep it.
    pub provisional: bool,
}

/// One open handle of a file. Dropping it is its end.
pub trait RawFile: Send + Sync + 'static {
    /// Size in bytes; it never changes.
    fn size(&self) -> u64;

    /// Exactly these bytes, which lie in the file. It waits like a read of the mount, with the same deadline; dropping
    /// it withdraws the demand.
    ///
    /// # Errors
    /// `TimedOut` if they did not come in time, `NotFound` if the torrent was removed, and others; in words for a person.
    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + Send;
}

/// Why the owner refuses, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such torrent or file.
    #[error("{0}")]
    Unknown(String),
    /// What was sent will not do.
    #[error("{0}")]
    Bad(String),
    /// It cannot be done now.
    #[error("{0}")]
    Unavailable(String),
    /// It went wrong here.
    #[error("{0}")]
    Failed(String),
}
