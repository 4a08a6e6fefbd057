//! All films.

use std::sync::Arc;

use super::error::StreamError;
use super::film::Film;
use super::source::{FileName, Source};
use super::state::FilmReport;

/// All films of a source.
#[derive(Debug)]
pub struct Streams<S: Source> {
    source: S,
}

impl<S: Source> Streams<S> {
    /// A film. Its index is read once for ever, which waits for its bytes; then it is there at once, also after a restart.
    /// Dropping it withdraws the reads, unless somebody else waits for the same film.
    ///
    /// # Errors
    /// See [`StreamError`].
    pub async fn film(self: &Arc<Self>, file: &FileName) -> Result<Arc<Film<S>>, StreamError> {
        let _ = self.source.open(file)?;
        Err(StreamError::Unknown)
    }

    /// What is to be told of a film now, if somebody has asked for it since the start. Never waits.
    pub fn report(&self, _file: &FileName) -> Option<FilmReport> {
        None
    }

    /// Refuses every request from now on and ends all FFmpegs; ready when they are reaped.
    pub async fn stop(&self) {}
}
