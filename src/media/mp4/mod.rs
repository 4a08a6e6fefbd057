//! MP4 and QuickTime: the door, and the walk from box to box until `moov` is found.

mod boxes;
mod edits;
mod entry;
mod fragments;
mod movie;
mod samples;

use super::read::{ReadAt, Reader};
use super::{Container, Index, MediaError};
use boxes::Header;

/// Entries of tables and samples of all tracks looked at together; a film of ten hours has 12 million.
pub(super) const STEP_LIMIT: u64 = 32 << 20;

/// Keyframes of all tracks together: 4 hours at 60 a second.
pub(super) const KEYFRAME_LIMIT: usize = 1 << 20;

/// Boxes of the file looked at before what is sought.
const BOX_LIMIT: usize = 64;

/// Whether a file begins like this: with a box that only such a file begins with.
pub(super) fn recognises(head: &[u8]) -> bool {
    const FIRST: [&[u8; 4]; 8] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp"];
    Header::read(head).is_some_and(|header| FIRST.contains(&&header.kind))
}

/// What of these limits is left for the tracks that are still to be looked at.
#[derive(Debug)]
pub(super) struct Left {
    steps: u64,
    keyframes: usize,
}

impl Left {
    fn all() -> Left {
        Left {
            steps: STEP_LIMIT,
            keyframes: KEYFRAME_LIMIT,
        }
    }

    fn step(&mut self, steps: u64) -> Result<(), MediaError> {
        self.steps = self.steps.checked_sub(steps).ok_or(MediaError::TooLarge {
            what: "entries in tables of samples",
            limit: STEP_LIMIT,
        })?;
        Ok(())
    }

    fn keyframe(&mut self) -> Result<(), MediaError> {
        self.keyframes = self.keyframes.checked_sub(1).ok_or(MediaError::TooLarge {
            what: "keyframes",
            limit: KEYFRAME_LIMIT as u64,
        })?;
        Ok(())
    }
}

/// Reads the index of such a file.
pub(super) async fn read<R: ReadAt>(reader: &mut Reader<'_, R>) -> Result<Index, MediaError> {
    let size = reader.size();
    let mut offset = 0;
    let mut segments = Vec::new();
    let mut movie: Option<Vec<u8>> = None;
    for _ in 0..BOX_LIMIT {
        let head = reader.bytes(offset, 16).await?;
        let Some(header) = Header::read(&head) else { break };
        let length = match header.length {
            0 => size.saturating_sub(offset),
            length => length,
        };
        let end = offset.saturating_add(length);
        match &header.kind {
            b"moov" => {
                if end > size {
                    return Err(MediaError::Damaged(
                        "its moov box goes past the end of the file".to_owned(),
                    ));
                }
                let begin = offset + header.size as u64;
                let body = reader.bytes(begin, end - begin).await?;
                let index = move || match movie::fragmented(&body) {
                    true => Err(body),
                    false => Ok(movie::index(&body, size)),
                };
                match reader.work(index).await? {
                    Ok(index) => return index,
                    Err(body) => movie = Some(body),
                }
            }
            b"sidx" if segments.len() < 16 => {
                const LONGEST: u64 = 1 << 20;
                let begin = offset + header.size as u64;
                let body = reader.bytes(begin, (length - header.size as u64).min(LONGEST)).await?;
                segments.extend(fragments::segments(&body, end));
            }
            b"moof" => break,
            _ => {}
        }
        if end >= size {
            break;
        }
        offset = end;
    }
    match movie {
        Some(movie) => reader.work(move || fragments::index(&movie, &segments, size)).await?,
        None => Err(MediaError::NoIndex {
            container: Container::Mp4.name(),
            why: "it has no moov box, so it was not written to its end".to_owned(),
        }),
    }
}
