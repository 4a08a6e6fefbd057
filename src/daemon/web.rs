//! What the HTTP side asks for, done by the library and the films.

use std::sync::Arc;

use bytes::Bytes;
use magnetfs_mount::ReadError;

use super::service::Service;
use super::source::{LibrarySource, OpenFile};
use crate::control::protocol::{AddedTorrent, Listed, Offer, Shown};
use crate::control::server::Service as _;
use crate::http::{Backend, Films, Refusal, Segment};
use crate::stream::{FileName, Film, FilmReport, RenditionId, StreamError, Streams};
use crate::torrents::{AddOptions, InfoHash, LibraryError, StoreError, TorrentFile};

/// A running daemon, as browsers and players see it.
#[derive(Debug)]
pub(super) struct Web {
    /// The same commands as those of the control socket.
    pub(super) service: Arc<Service>,
    pub(super) source: LibrarySource,
    /// Or why there are no films: no FFmpeg, say. All else is served all the same.
    pub(super) streams: Result<Arc<Streams<LibrarySource>>, String>,
}

impl Web {
    async fn open_film(&self, file: &FileName) -> Result<Arc<Film<LibrarySource>>, StreamError> {
        match &self.streams {
            Ok(streams) => streams.film(file).await,
            Err(why) => Err(StreamError::Unavailable(why.clone())),
        }
    }
}

impl Films for Web {
    async fn master(&self, file: &FileName) -> Result<String, StreamError> {
        Ok(self.open_film(file).await?.master())
    }

    async fn media(&self, file: &FileName, rendition: RenditionId) -> Result<String, StreamError> {
        let film = self.open_film(file).await?;
        film.media(&rendition).ok_or(StreamError::Unknown)
    }

    async fn init(&self, file: &FileName, rendition: RenditionId) -> Result<Bytes, StreamError> {
        self.open_film(file).await?.init(&rendition).await
    }

    async fn segment(&self, file: &FileName, rendition: RenditionId, number: u32) -> Result<Segment, StreamError> {
        let film = self.open_film(file).await?;
        let bytes = film.segment(&rendition, number).await?;
        let provisional = film.is_provisional(&rendition, number, &bytes);
        Ok(Segment { bytes, provisional })
    }

    fn film(&self, file: &FileName) -> Option<FilmReport> {
        self.streams.as_ref().ok()?.report(file)
    }
}

impl Backend for Web {
    type File = OpenFile;

    fn list(&self) -> Vec<Listed> {
        self.service.list()
    }

    fn show(&self, info_hash: InfoHash) -> Option<Shown> {
        self.service.show(&info_hash.to_string()).ok()
    }

    fn files(&self, info_hash: InfoHash) -> Option<Vec<TorrentFile>> {
        self.source.library.files(info_hash)
    }

    fn open(&self, info_hash: InfoHash, path: &str) -> Result<OpenFile, Refusal> {
        self.source.open_file(info_hash, path).map_err(|error| match error {
            ReadError::Removed => Refusal::Unknown("there is no such file in the library".to_owned()),
            ReadError::NoProgress { .. }
            | ReadError::TooSlow { .. }
            | ReadError::Signalled
            | ReadError::Abandoned
            | ReadError::Stopping
            | ReadError::TooMany { .. }
            | ReadError::NoSpace
            | ReadError::Paused
            | ReadError::Disk(_)
            | ReadError::Engine(_) => Refusal::Unavailable(error.to_string()),
        })
    }

    async fn add(&self, source: Offer) -> Result<AddedTorrent, Refusal> {
        let source = self.service.source(source).map_err(Refusal::Bad)?;
        let added = self.source.library.add(source, AddOptions::default()).await;
        Ok(self.service.added(added.map_err(refusal)?))
    }

    async fn pause(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        self.source.library.pause(&info_hash.to_string()).await.map_err(refusal)
    }

    async fn resume(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        self.source
            .library
            .resume(&info_hash.to_string())
            .await
            .map_err(refusal)
    }

    async fn remove(&self, info_hash: InfoHash, delete_data: bool) -> Result<String, Refusal> {
        let library = &self.source.library;
        library
            .remove(&info_hash.to_string(), delete_data)
            .await
            .map_err(refusal)
    }
}

fn refusal(error: LibraryError) -> Refusal {
    let words = error.to_string();
    match error {
        LibraryError::Unknown { .. } | LibraryError::Ambiguous { .. } | LibraryError::Removed => {
            Refusal::Unknown(words)
        }
        LibraryError::Source(_) | LibraryError::Metainfo(_) => Refusal::Bad(words),
        LibraryError::Full { .. } | LibraryError::Stopping | LibraryError::Store(StoreError::NoSpace) => {
            Refusal::Unavailable(words)
        }
        LibraryError::Shelf(_) | LibraryError::Store(_) | LibraryError::Engine(_) => Refusal::Failed(words),
    }
}
