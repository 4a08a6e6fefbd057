//! The first block of each track, as far as the bytes that were read anyhow go.

use super::CLUSTER;
use super::ebml::{Header, child, unsigned, variable};
use crate::media::TRACK_LIMIT;
use crate::media::fields::Fields;

const TIMESTAMP: u32 = 0xe7;
const SIMPLE_BLOCK: u32 = 0xa3;
const BLOCK_GROUP: u32 = 0xa0;
const BLOCK: u32 = 0xa1;

/// Number of a track and the time of its first block, in ticks of the file. `bytes` begin with a cluster.
pub(super) fn first(bytes: &[u8]) -> Vec<(u64, i64)> {
    let mut found: Vec<(u64, i64)> = Vec::new();
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
        if let Some((track, relative)) = block.and_then(start)
            && found.len() < TRACK_LIMIT
            && !found.iter().any(|(known, _)| *known == track)
        {
            found.push((track, cluster.saturating_add(i64::from(relative))));
        }
        let Some(next) = body.get(length..) else { break };
        rest = next;
    }
    found
}

/// Number of the track, and the time after the cluster's.
fn start(block: &[u8]) -> Option<(u64, i16)> {
    let mut fields = Fields(block);
    let (track, _) = variable(&mut fields)?;
    Some((track?, fields.u16()?.cast_signed()))
}
