//! What a container's own index says: tracks, codecs, keyframes. Pure over its own trait for reading.

mod error;
mod index;
mod read;
mod types;

pub use error::MediaError;
pub use index::index;
pub use read::ReadAt;
pub use types::{Audio, Codec, Container, Index, Keyframe, Kind, Track, Video};
