//! What the HTTP side asks for, done by the library and the films.

use std::future::Future;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::service::Service;
use super::source::{LibrarySource, OpenFile, kind};
use crate::control::protocol::{AddedTorrent, Listed, Offer, Shown};
use crate::control::server::Service as _;
use crate::http::{Backend, Films, Refusal, Segment};
use crate::stream::{FileName, Film, FilmReport, RenditionId, StreamError, Streams};
use crate::torrents::{AddOptions, InfoHash, LibraryError, Source, StoreError, TorrentFile};

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
        // What was made of a film may be there for a moment longer than its torrent.
        if self.source.find(file).is_none() {
            return Err(StreamError::Unknown);
        }
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
        self.source
            .open_file(info_hash, path)
            .map_err(|error| match kind(&error) {
                io::ErrorKind::NotFound => Refusal::Unknown("there is no such file in the library".to_owned()),
                _ => Refusal::Unavailable(error.to_string()),
            })
    }

    async fn add(&self, source: Offer) -> Result<AddedTorrent, Refusal> {
        let source = match self.service.source(source).map_err(Refusal::Bad)? {
            // What another server has to send yet changes nothing: it is given up with the request.
            Source::Url(url) => {
                let fetched = Source::Url(url).fetch().await;
                Source::Bytes(fetched.map_err(|error| refusal(error.into()))?)
            }
            other => other,
        };
        let library = self.source.library.clone();
        let options = AddOptions {
            alone: true,
            ..AddOptions::default()
        };
        let added = to_its_end(async move { library.add(source, options).await }).await?;
        Ok(self.service.added(added))
    }

    async fn pause(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        let library = self.source.library.clone();
        to_its_end(async move { library.pause(&info_hash.to_string()).await }).await
    }

    async fn resume(&self, info_hash: InfoHash) -> Result<String, Refusal> {
        let library = self.source.library.clone();
        to_its_end(async move { library.resume(&info_hash.to_string()).await }).await
    }

    async fn remove(&self, info_hash: InfoHash, delete_data: bool) -> Result<String, Refusal> {
        let library = self.source.library.clone();
        to_its_end(async move { library.remove(&info_hash.to_string(), delete_data).await }).await
    }
}

/// Does a change of the library to its end, also when who asked for it hangs up, as a page does that is closed: half of
/// one would leave what is on disk, what is shown and what is remembered at odds until the next start.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, LibraryError>> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::spawn(change).await {
        Ok(done) => done.map_err(refusal),
        Err(error) => Err(Refusal::Failed(error.to_string())),
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
