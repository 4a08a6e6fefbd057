//! The first block of each track.

use super::CLUSTER;
use super::ebml::{Header, child, unsigned, variable};
use crate::media::fields::Fields;
use crate::media::read::{ReadAt, Reader};
use crate::media::{MediaError, TRACK_LIMIT};

const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;

/// So much of each element is looked at: all headers, and as much of a picture's data as is needed of it.
const HEAD: u64 = 128;

/// Elements looked at, blocks mostly: those of some seconds.
const ELEMENT_LIMIT: usize = 1024;

/// Places where something is read that would not have been read anyhow. The first picture is the largest, and the sound
/// that goes with it comes just behind it: one place, as a rule.
const ASKED: usize = 4;

/// The first block of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    pub(super) track: u64,
    /// In ticks of the file.
    pub(super) time: i64,
    /// The beginning of its data; of laced frames, nothing that a decoder would understand.
    pub(super) data: Vec<u8>,
}

/// The first block of each track, as far as the bytes go that were read anyhow; and of the tracks that are `wanted`, as
/// far as [`ASKED`]. There is a cluster at `offset`.
pub(super) async fn first<R: ReadAt>(
    reader: &mut Reader<'_, R>,
    mut offset: u64,
    wanted: &[u64],
) -> Result<Vec<First>, MediaError> {
    let mut found: Vec<First> = Vec::new();
    let (mut cluster, mut asked) = (0, 0);
    for _ in 0..ELEMENT_LIMIT {
        let length = HEAD.min(reader.size().saturating_sub(offset));
        if (reader.known(offset, length).len() as u64) < length {
            let all = wanted
                .iter()
                .all(|track| found.iter().any(|first| first.track == *track));
            if all || asked == ASKED {
                break;
            }
            asked += 1;
        }
        let head = reader.bytes(offset, length).await?;
        let Some(header) = Header::read(&head) else { break };
        let Some(body) = head.get(header.size as usize..) else {
            break;
        };
        offset = offset.saturating_add(header.size);
        if header.id == CLUSTER {
            continue;
        }
        let Some(length) = header.length else { break };
        offset = offset.saturating_add(length);
        let content = &body[..body.len().min(usize::try_from(length).unwrap_or(usize::MAX))];
        let block = match header.id {
            TIMESTAMP => {
                cluster = unsigned(content).and_then(|time| i64::try_from(time).ok()).unwrap_or(0);
                None
            }
            SIMPLE_BLOCK => Some(content),
            BLOCK_GROUP => child(content, BLOCK),
            _ => None,
        };
        if let Some((track, relative, data)) = block.and_then(start)
            && found.len() < TRACK_LIMIT
            && !found.iter().any(|known| known.track == track)
        {
            found.push(First {
                track,
                time: cluster.saturating_add(i64::from(relative)),
                data: data.to_vec(),
            });
        }
    }
    Ok(found)
}

/// Number of the track, the time after the cluster's, and what follows.
fn start(block: &[u8]) -> Option<(u64, i16, &[u8])> {
    let mut fields = Fields(block);
    let (track, _) = variable(&mut fields)?;
    let relative = fields.u16()?.cast_signed();
    let _flags = fields.u8()?;
    Some((track?, relative, fields.0))
}
