//! Films as HLS: timeline, playlists, fragments made into segments, the runs of FFmpeg that feed them, and their cache.

mod cache;
mod error;
mod film;
mod options;
mod policy;
mod rendition;
mod shelf;
mod source;
mod state;
mod streams;

pub use error::StreamError;
pub use film::Film;
pub use options::StreamOptions;
pub use rendition::RenditionId;
pub use source::{FileName, Source, SourceError};
pub use state::{FilmReport, FilmState, Span, TrackReport};
pub use streams::Streams;
