//! What a container's own index says: tracks, codecs, keyframes. Pure over its own trait for reading.

mod codecs;
mod error;
mod fields;
mod index;
mod matroska;
mod mp4;
mod read;
mod types;

pub use error::MediaError;
pub use index::index;
pub use read::ReadAt;
pub use types::{Audio, Codec, Container, Index, Keyframe, Kind, Track, Video};

use index::TRACK_LIMIT;

#[cfg(test)]
mod tests;
