//! Indexes by hand.

use std::sync::Arc;

use crate::media::{Audio, Codec, Container, Index, Keyframe, Kind, Track, Video};
use crate::stream::{Plan, Timeline};

/// Of a codec, with nothing told of it.
pub(in crate::stream) fn track(codec: Codec, kind: Kind) -> Track {
    Track {
        stream: 0,
        codec,
        codec_string: None,
        language: None,
        name: None,
        default: false,
        forced: false,
        timescale: 1000,
        start: 0,
        end: 0,
        bit_rate: None,
        kind,
    }
}

/// H.264 with keyframes at these seconds, a megabyte apart, that ends at `end_s`.
pub(in crate::stream) fn video(keyframes_s: &[i64], end_s: i64) -> Track {
    let keyframe = |(at, seconds): (u64, &i64)| Keyframe {
        pts: seconds * 1000,
        offset: (at + 1) * 1_000_000,
    };
    let kind = Kind::Video(Video {
        width: 1920,
        height: 800,
        frame_rate: Some((24000, 1001)),
        reordered: true,
        bit_depth: Some(8),
        keyframes: (0..).zip(keyframes_s).map(keyframe).collect(),
    });
    Track {
        codec_string: Some("avc1.640028".into()),
        end: end_s * 1000,
        ..track(Codec::H264, kind)
    }
}

pub(in crate::stream) fn audio(codec: Codec) -> Track {
    let kind = Kind::Audio(Audio {
        channels: 6,
        sample_rate: 48_000,
        frame_samples: None,
        delay: 0,
    });
    track(codec, kind)
}

/// Of tracks in the order of their streams.
pub(in crate::stream) fn index(container: Container, tracks: Vec<Track>) -> Index {
    let number = |(stream, track)| Track { stream, ..track };
    Index {
        container,
        tracks: tracks.into_iter().enumerate().map(number).collect(),
    }
}

pub(in crate::stream) fn film_of(keyframes_s: &[i64], end_s: i64) -> (Plan, Arc<Timeline>) {
    let plan = Plan::of(&index(Container::Mp4, vec![video(keyframes_s, end_s)])).unwrap();
    let timeline = Arc::new(Timeline::of(&plan));
    (plan, timeline)
}
