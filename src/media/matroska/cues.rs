//! Cues (RFC 9559 5.1.5): times, and the clusters that they are in.

use super::Clock;
use super::ebml::{Elements, child, unsigned};
use crate::media::{Keyframe, MediaError};

const CUE_POINT: u32 = 0xbb;
const CUE_TIME: u32 = 0xb3;
const CUE_TRACK_POSITIONS: u32 = 0xb7;
const CUE_TRACK: u32 = 0xf7;
const CUE_CLUSTER_POSITION: u32 = 0xf1;

/// Of all tracks together.
const POINT_LIMIT: usize = 1 << 20;

/// One entry for one track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) track: u64,
    pub(super) keyframe: Keyframe,
}

/// All entries in order of time, and of each track none twice. Those that point out of the file are left out: it has
/// been cut off.
pub(super) fn points(cues: &[u8], clock: Clock, base: u64, size: u64) -> Result<Vec<Point>, MediaError> {
    let mut points = Vec::new();
    for (id, cue) in Elements(cues) {
        let Some(time) = child(cue, CUE_TIME).and_then(unsigned).filter(|_| id == CUE_POINT) else {
            continue;
        };
        let pts = clock.ticks(i64::try_from(time).unwrap_or(i64::MAX));
        for (id, position) in Elements(cue) {
            if id != CUE_TRACK_POSITIONS {
                continue;
            }
            let track = child(position, CUE_TRACK).and_then(unsigned);
            let cluster = child(position, CUE_CLUSTER_POSITION).and_then(unsigned);
            let (Some(track), Some(cluster)) = (track, cluster) else {
                continue;
            };
            let Some(offset) = base.checked_add(cluster).filter(|offset| *offset < size) else {
                continue;
            };
            if points.len() >= POINT_LIMIT {
                return Err(MediaError::TooLarge {
                    what: "keyframes",
                    limit: POINT_LIMIT as u64,
                });
            }
            points.push(Point {
                track,
                keyframe: Keyframe { pts, offset },
            });
        }
    }
    points.sort_by_key(|point| (point.track, point.keyframe.pts));
    points.dedup_by_key(|point| (point.track, point.keyframe.pts));
    Ok(points)
}
