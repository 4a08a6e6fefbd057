//! Films as HLS: timeline, playlists, fragments made into segments, the runs of FFmpeg that feed them, and their cache.
//!
//! - [`plan`], [`timeline`], [`playlist`]: what is made of a film and where it is cut; pure
//! - [`cutter`] and its parts: FFmpeg's bytes to segments; pure
//! - [`policy`]: which run serves whom, and which begin, pause and end; pure
//! - [`run`]: one FFmpeg, drained; [`house`]: all of them, and who waits for what; [`held`]: how much they hold
//! - [`fetch`]: what is sure to be read is asked for at once
//! - [`shelf`], [`cache`], [`probes`]: what is kept
//! - [`streams`], [`film`], [`state`]: what is asked from outside; [`turns`]: what films that are opened may take;
//!   [`source`]: what is asked of outside

mod audio;
mod cache;
mod cutter;
mod error;
mod fetch;
mod film;
mod fragments;
mod held;
mod house;
mod options;
mod plan;
mod playlist;
mod policy;
mod probes;
mod run;
mod shelf;
mod source;
mod state;
mod streams;
mod subtitles;
mod timeline;
mod turns;
mod video;

pub use cutter::{Cut, CutError, Cutter};
pub use error::StreamError;
pub use film::Film;
pub use fragments::{FragmentError, LARGEST_FRAGMENT};
pub use options::StreamOptions;
pub use plan::{NoSuchRendition, NotPlayable, Plan, Rendition, RenditionId};
pub use playlist::{master, media};
pub use source::{FileName, FilmFile, Source, SourceError};
pub use state::{FilmReport, FilmState, Span, TrackReport};
pub use streams::Streams;
pub use timeline::{SEGMENT_S, SUBTITLE_LEAD_S, Timeline};

#[cfg(test)]
mod tests;
