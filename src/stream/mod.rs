//! Films as HLS: timeline, playlists, fragments made into segments, the runs of FFmpeg that feed them, and their cache.

mod audio;
mod cutter;
mod fragments;
mod plan;
mod playlist;
mod subtitles;
mod timeline;
mod video;

pub use cutter::{Cut, CutError, Cutter};
pub use fragments::{FragmentError, LARGEST_FRAGMENT};
pub use plan::{NoSuchRendition, NotPlayable, Plan, Rendition, RenditionId};
pub use playlist::{master, media};
pub use timeline::{SEGMENT_S, SUBTITLE_LEAD_S, Timeline};

#[cfg(test)]
mod tests;
