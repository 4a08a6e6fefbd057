//! Matroska and WebM (RFC 9559): the door, and the way to the elements that count.

mod blocks;
mod cues;
mod ebml;
mod tags;
mod tracks;

use super::codecs::vp9_frame;
use super::read::{BLOCK, KEPT_LIMIT, ReadAt, Reader};
use super::{Codec, Container, Index, Kind, MediaError, Track};
use ebml::{Elements, Header, LONGEST_HEADER, child, float, unsigned};

const EBML: u32 = 0x1a45_dfa3;
const DOCTYPE: u32 = 0x4282;
const SEGMENT: u32 = 0x1853_8067;
const SEEK_HEAD: u32 = 0x114d_9b74;
const SEEK: u32 = 0x4dbb;
const SEEK_ID: u32 = 0x53ab;
const SEEK_POSITION: u32 = 0x53ac;
const INFO: u32 = 0x1549_a966;
const TIMESTAMP_SCALE: u32 = 0x2a_d7b1;
const DURATION: u32 = 0x4489;
const TRACKS: u32 = 0x1654_ae6b;
const CUES: u32 = 0x1c53_bb6b;
const CLUSTER: u32 = 0x1f43_b675;
const TAGS: u32 = 0x1254_c367;

/// Elements looked at before the first cluster.
const ELEMENT_LIMIT: usize = 256;

/// Whether a file begins like this.
pub(super) fn recognises(head: &[u8]) -> bool {
    head.starts_with(&EBML.to_be_bytes())
}

/// Where things are, and those that were come by.
#[derive(Debug, Default)]
struct Layout {
    /// What positions count from: where the segment's body begins.
    base: u64,
    info: Option<Vec<u8>>,
    tracks: Option<Vec<u8>>,
    cues: Option<Vec<u8>>,
    /// The first cluster.
    cluster: Option<u64>,
    /// What the seek heads say: identifier and place in the file.
    places: Vec<(u32, u64)>,
}

/// How the times of the file become those of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clock {
    /// Ticks a second of the index.
    timescale: u32,
    /// Ticks of the index in one of the file.
    factor: i64,
    /// Nanoseconds in one tick of the file.
    scale: u64,
}

impl Clock {
    /// Where a second is a whole number of the file's ticks, the index has the same ticks, and else nanoseconds.
    fn of(scale: u64) -> Clock {
        const SECOND: u64 = 1_000_000_000;
        match SECOND.checked_rem(scale) {
            Some(0) => Clock {
                timescale: (SECOND / scale) as u32,
                factor: 1,
                scale,
            },
            _ => Clock {
                timescale: SECOND as u32,
                factor: i64::try_from(scale).unwrap_or(i64::MAX),
                scale,
            },
        }
    }

    fn ticks(self, time: i64) -> i64 {
        time.saturating_mul(self.factor)
    }
}

/// All that is read of a file.
#[derive(Debug)]
struct Read {
    container: Container,
    size: u64,
    layout: Layout,
    /// What was read anyhow from the tags on.
    tags: Vec<u8>,
    blocks: Vec<blocks::First>,
}

/// Reads the index of such a file.
pub(super) async fn read<R: ReadAt>(reader: &mut Reader<'_, R>) -> Result<Index, MediaError> {
    let (container, segment) = document(reader).await?;
    let mut layout = walk(reader, segment).await?;
    follow(reader, &mut layout).await?;
    let blocks = match layout.cluster {
        Some(cluster) => {
            // Of more bytes than this no tracks are, so nothing is asked for on behalf of them.
            let tracks = layout
                .tracks
                .as_deref()
                .filter(|tracks| tracks.len() as u64 <= KEPT_LIMIT);
            blocks::first(reader, cluster, &tracks::sounds(tracks.unwrap_or_default())).await?
        }
        None => Vec::new(),
    };
    let tags = layout.places.iter().find(|(id, _)| *id == TAGS);
    let tags = tags.map(|(_, place)| reader.known(*place, KEPT_LIMIT));
    let read = Read {
        container,
        size: reader.size(),
        tags: tags.unwrap_or_default(),
        blocks,
        layout,
    };
    reader.work(move || index(&read)).await?
}

/// What it says.
fn index(read: &Read) -> Result<Index, MediaError> {
    let Read { container, layout, .. } = read;
    let no_index = |why: &str| MediaError::NoIndex {
        container: container.name(),
        why: why.to_owned(),
    };
    let damaged = |what: &str| MediaError::Damaged(format!("it has no {what}"));
    let info = layout.info.as_deref().unwrap_or_default();
    let tracks = layout.tracks.as_deref().ok_or_else(|| damaged("Tracks element"))?;
    const USUAL_SCALE: u64 = 1_000_000;
    let scale = child(info, TIMESTAMP_SCALE)
        .and_then(unsigned)
        .filter(|scale| *scale > 0)
        .unwrap_or(USUAL_SCALE);
    let clock = Clock::of(scale);
    let mut entries = tracks::entries(tracks, clock)?;
    if !entries.iter().any(|entry| matches!(entry.track.kind, Kind::Video(_))) {
        return Err(MediaError::NoVideo(*container));
    }
    let Some(cues) = layout.cues.as_deref() else {
        return Err(no_index(
            "it has no Cues, as if it was recorded live or not written to its end",
        ));
    };
    for point in cues::points(cues, clock, layout.base, read.size)? {
        let of_track = |entry: &&mut tracks::Entry| entry.number == point.track;
        if let Some(entry) = entries.iter_mut().find(of_track)
            && let Kind::Video(video) = &mut entry.track.kind
        {
            video.keyframes.push(point.keyframe);
        }
    }
    let duration = child(info, DURATION).and_then(float).filter(|duration| *duration > 0.0);
    let end = duration.map(|duration| clock.ticks(duration.round() as i64));
    let statistics = tags::bit_rates(&read.tags);
    for entry in &mut entries {
        let rate = statistics
            .iter()
            .find(|(track, _)| *track == entry.uid)
            .map(|(_, rate)| *rate);
        entry.track.bit_rate = rate;
    }
    let video_start = entries
        .iter()
        .find_map(|entry| first_keyframe(&entry.track))
        .ok_or_else(|| no_index("its Cues list no keyframe of a video track"))?;
    let whole = end.filter(|end| *end > video_start);
    let mut tracks = Vec::new();
    for entry in entries {
        let block = read.blocks.iter().find(|first| first.track == entry.number);
        let first = block.map(|block| clock.ticks(block.time).saturating_sub(entry.delay));
        let mut track = entry.track;
        if track.codec == Codec::Vp9
            && let Kind::Video(video) = &mut track.kind
            && let Some(picture) = block.and_then(|block| vp9_frame(&block.data, video))
        {
            video.bit_depth = picture.bit_depth;
            track.codec_string = picture.string;
        }
        track.start = first_keyframe(&track).or(first).unwrap_or(video_start);
        let last = last_keyframe(&track);
        track.end = whole.unwrap_or(last).max(last).max(track.start);
        if let Kind::Video(_) = &track.kind
            && track.bit_rate.is_none()
        {
            let ticks = u128::from(track.end.saturating_sub(track.start).max(1).cast_unsigned());
            let rate = u128::from(read.size) * 8 * u128::from(track.timescale) / ticks;
            track.bit_rate = u64::try_from(rate).ok();
        }
        tracks.push(track);
    }
    Index::checked(*container, tracks)
}

fn first_keyframe(track: &Track) -> Option<i64> {
    match &track.kind {
        Kind::Video(video) => video.keyframes.first().map(|keyframe| keyframe.pts),
        _ => None,
    }
}

/// At least when the last keyframe's pictures end, if they are as many as those of the others: for a file that does
/// not say how long it is.
fn last_keyframe(track: &Track) -> i64 {
    let Kind::Video(video) = &track.kind else { return 0 };
    match video.keyframes[..] {
        [first, .., last] => {
            let each = last.pts.saturating_sub(first.pts) / (video.keyframes.len() as i64 - 1);
            last.pts.saturating_add(each.max(1))
        }
        [only] => only.pts.saturating_add(1),
        [] => 0,
    }
}

/// What the document is, and where the segment's body begins and ends.
async fn document<R: ReadAt>(reader: &mut Reader<'_, R>) -> Result<(Container, (u64, u64)), MediaError> {
    let head = reader.bytes(0, BLOCK).await?;
    let damaged = || MediaError::Damaged("its EBML header is not followed by a segment".to_owned());
    let header = Header::read(&head).ok_or_else(damaged)?;
    let mut offset = header.size.saturating_add(header.length.ok_or_else(damaged)?);
    let body = head.get(header.size as usize..head.len().min(usize::try_from(offset).unwrap_or(usize::MAX)));
    let container = match child(body.unwrap_or_default(), DOCTYPE) {
        Some(name) if name.starts_with(b"webm") => Container::Webm,
        _ => Container::Matroska,
    };
    for _ in 0..ELEMENT_LIMIT {
        let header = reader.bytes(offset, LONGEST_HEADER).await?;
        let header = Header::read(&header).ok_or_else(damaged)?;
        let begin = offset.saturating_add(header.size);
        let end = header.length.map_or(u64::MAX, |length| begin.saturating_add(length));
        if header.id == SEGMENT {
            return Ok((container, (begin, end.min(reader.size()))));
        }
        offset = end;
    }
    Err(damaged())
}

/// From element to element until the first cluster.
async fn walk<R: ReadAt>(reader: &mut Reader<'_, R>, (base, end): (u64, u64)) -> Result<Layout, MediaError> {
    let mut layout = Layout {
        base,
        ..Layout::default()
    };
    let mut offset = base;
    for _ in 0..ELEMENT_LIMIT {
        let head = reader.bytes(offset, LONGEST_HEADER).await?;
        let Some(header) = Header::read(&head) else { break };
        if header.id == CLUSTER {
            layout.cluster = Some(offset);
            break;
        }
        let begin = offset.saturating_add(header.size);
        let Some(whole) = header.length else { break };
        if matches!(header.id, SEEK_HEAD | INFO | TRACKS | CUES) {
            let length = whole.min(longest(header.id));
            keep(&mut layout, header.id, reader.bytes(begin, length).await?);
        } else if header.id == TAGS {
            layout.places.push((TAGS, offset));
        }
        offset = begin.saturating_add(whole);
        if offset >= end {
            break;
        }
    }
    Ok(layout)
}

/// As much is read of an element. A seek head, which is looked through at once, has some hundred bytes.
fn longest(id: u32) -> u64 {
    match id {
        SEEK_HEAD => 1 << 16,
        _ => u64::MAX,
    }
}

fn keep(layout: &mut Layout, id: u32, body: Vec<u8>) {
    let place = match id {
        SEEK_HEAD => {
            seek_head(layout, &body);
            return;
        }
        INFO => &mut layout.info,
        TRACKS => &mut layout.tracks,
        CUES => &mut layout.cues,
        _ => return,
    };
    place.get_or_insert(body);
}

fn seek_head(layout: &mut Layout, body: &[u8]) {
    for (id, seek) in Elements(body).take(ELEMENT_LIMIT) {
        let found = (id == SEEK).then(|| {
            let id = child(seek, SEEK_ID).and_then(unsigned)?;
            let position = child(seek, SEEK_POSITION).and_then(unsigned)?;
            Some((u32::try_from(id).ok()?, layout.base.checked_add(position)?))
        });
        if let Some(Some(found)) = found
            && layout.places.len() < ELEMENT_LIMIT
        {
            layout.places.push(found);
        }
    }
}

/// Reads what the walk did not come by, from where the seek heads say; a seek head may name another.
async fn follow<R: ReadAt>(reader: &mut Reader<'_, R>, layout: &mut Layout) -> Result<(), MediaError> {
    const SEEK_HEADS: usize = 4;
    let mut read = Vec::new();
    for id in [SEEK_HEAD, INFO, TRACKS, CUES] {
        let mut at = 0;
        while let Some((found, place)) = layout.places.get(at).copied() {
            at += 1;
            let missing = match id {
                SEEK_HEAD => layout.cues.is_none() && read.len() < SEEK_HEADS && !read.contains(&place),
                INFO => layout.info.is_none(),
                TRACKS => layout.tracks.is_none(),
                _ => layout.cues.is_none(),
            };
            if found != id || !missing {
                continue;
            }
            if id == SEEK_HEAD {
                read.push(place);
            }
            let head = reader.bytes(place, LONGEST_HEADER).await?;
            if let Some(header) = Header::read(&head)
                && header.id == id
                && let Some(length) = header.length
            {
                let begin = place.saturating_add(header.size);
                keep(layout, id, reader.bytes(begin, length.min(longest(id))).await?);
            }
        }
    }
    Ok(())
}
