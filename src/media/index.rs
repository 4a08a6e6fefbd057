//! From the first bytes of a file to its index.

use super::read::{BLOCK, Reader};
use super::{Container, Index, Kind, MediaError, ReadAt, Track};
use super::{matroska, mp4};

/// Tracks of one file at most.
pub(super) const TRACK_LIMIT: usize = 256;

/// Reads what the container says of itself: its head, and its index at whichever end that lies. What the file is, its
/// first bytes tell, never its name. Waits for as long as the reads take; dropping it withdraws them. It reads at most
/// 64 MiB of index, in practice some hundred KiB and 1.5 KiB for a second of an MP4.
///
/// # Errors
/// Why there is no index. All but [`MediaError::Read`] are so for ever.
pub async fn index<R: ReadAt>(file: &R) -> Result<Index, MediaError> {
    let mut reader = Reader::new(file);
    let head = reader.bytes(0, BLOCK).await?;
    if matroska::recognises(&head) {
        matroska::read(&mut reader).await
    } else if mp4::recognises(&head) {
        mp4::read(&mut reader).await
    } else {
        Err(unindexed(&head))
    }
}

impl Index {
    /// One that has what it must have.
    pub(super) fn checked(container: Container, tracks: Vec<Track>) -> Result<Index, MediaError> {
        let mut videos = tracks.iter().filter_map(|track| match &track.kind {
            Kind::Video(video) => Some(video),
            _ => None,
        });
        match (videos.clone().next(), videos.any(|video| !video.keyframes.is_empty())) {
            (None, _) => Err(MediaError::NoVideo(container)),
            (Some(_), false) => Err(MediaError::NoIndex {
                container: container.name(),
                why: "its index lists no keyframe".to_owned(),
            }),
            (Some(_), true) => Ok(Index { container, tracks }),
        }
    }
}

/// What a file is that is not read here, for the words to say so.
fn unindexed(head: &[u8]) -> MediaError {
    let at = |place: usize, bytes: &[u8]| head.get(place..).is_some_and(|head| head.starts_with(bytes));
    let packets = |first: usize, length: usize| (0..5).all(|n| at(first + n * length, &[0x47]));
    let (container, why) = if at(0, b"RIFF") && at(8, b"AVI ") {
        ("AVI", "it tells no times of presentation, so it has to be transcoded")
    } else if packets(0, 188) || packets(4, 192) {
        ("MPEG-TS", "it is a broadcast stream without an index")
    } else if at(0, &[0, 0, 1, 0xba]) {
        ("MPEG-PS", "it is a stream without an index, as on DVDs")
    } else if at(0, b"FLV") {
        ("FLV", "its index, if it has one, is not read")
    } else if at(0, b"OggS") {
        ("Ogg", "it has no index")
    } else if at(0, &[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11]) {
        ("ASF", "its index is not read")
    } else if at(0, b".RMF") {
        ("RealMedia", "its index is not read")
    } else {
        return MediaError::Unrecognised;
    };
    MediaError::NoIndex {
        container,
        why: why.to_owned(),
    }
}
