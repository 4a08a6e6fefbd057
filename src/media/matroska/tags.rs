//! The statistics that mkvmerge writes as tags.

use super::TAGS;
use super::ebml::{Elements, Header, child, unsigned};
use crate::media::TRACK_LIMIT;

const TAG: u32 = 0x7373;
const TARGETS: u32 = 0x63c0;
const TAG_TRACK_UID: u32 = 0x63c5;
const SIMPLE_TAG: u32 = 0x67c8;
const TAG_NAME: u32 = 0x45a3;
const TAG_STRING: u32 = 0x4487;

/// Unique number of a track, and its bits a second. `bytes` begin with the element, and may end within it.
pub(super) fn bit_rates(bytes: &[u8]) -> Vec<(u64, u64)> {
    let Some(header) = Header::read(bytes).filter(|header| header.id == TAGS) else {
        return Vec::new();
    };
    let length = header
        .length
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(usize::MAX);
    let body = bytes.get(header.size as usize..).unwrap_or_default();
    let body = &body[..length.min(body.len())];
    let tags = Elements(body).filter(|(id, _)| *id == TAG);
    tags.filter_map(|(_, tag)| bit_rate(tag)).take(TRACK_LIMIT).collect()
}

fn bit_rate(tag: &[u8]) -> Option<(u64, u64)> {
    let track = child(child(tag, TARGETS)?, TAG_TRACK_UID).and_then(unsigned)?;
    let rates = Elements(tag).filter(|(id, simple)| *id == SIMPLE_TAG && child(simple, TAG_NAME) == Some(b"BPS"));
    let mut rates = rates.filter_map(|(_, simple)| str::from_utf8(child(simple, TAG_STRING)?).ok()?.parse().ok());
    Some((track, rates.next()?))
}
