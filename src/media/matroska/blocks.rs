//! The first block of each track, as far as the bytes that were read anyhow go.

use super::CLUSTER;
use super::ebml::{Header, child, unsigned, variable};
use crate::media::TRACK_LIMIT;
use crate::media::fields::Fields;

const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;

/// The first block of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First<'a> {
    pub(super) track: u64,
    /// In ticks of the file.
    pub(super) time: i64,
    /// Its data as far as it is known; of laced frames, nothing that a decoder would understand.
    pub(super) data: &'a [u8],
}

/// The first block of each track. `bytes` begin with a cluster.
pub(super) fn first(bytes: &[u8]) -> Vec<First<'_>> {
    let mut found: Vec<First<'_>> = Vec::new();
    let mut cluster = 0;
    let mut rest = bytes;
    while let Some(header) = Header::read(rest) {
        let Some(body) = rest.get(header.size as usize..) else {
            break;
        };
        if header.id == CLUSTER {
            rest = body;
            continue;
        }
        let Some(length) = header.length.and_then(|length| usize::try_from(length).ok()) else {
            break;
        };
        let content = &body[..length.min(body.len())];
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
            let time = cluster.saturating_add(i64::from(relative));
            found.push(First { track, time, data });
        }
        let Some(next) = body.get(length..) else { break };
        rest = next;
    }
    found
}

/// Number of the track, the time after the cluster's, and what follows.
fn start(block: &[u8]) -> Option<(u64, i16, &[u8])> {
    let mut fields = Fields(block);
    let (track, _) = variable(&mut fields)?;
    let relative = fields.u16()?.cast_signed();
    let _flags = fields.u8()?;
    Some((track?, relative, fields.0))
}
