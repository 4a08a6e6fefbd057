//! Files written here, byte by byte, for what no muxer at hand writes.

use super::{InMemory, index_of};
use crate::media::read::BLOCK;
use crate::media::{Container, Index, Keyframe, Kind, MediaError};

/// An element: identifier, eight bytes of length, body.
fn element(id: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = id.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    bytes.extend((body.len() as u64 | 1 << 56).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// One whose end is not told.
fn endless(id: u32, body: &[u8]) -> Vec<u8> {
    [
        &id.to_be_bytes()[..],
        &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        body,
    ]
    .concat()
}

fn number(id: u32, value: u64) -> Vec<u8> {
    element(id, &value.to_be_bytes())
}

fn head(doctype: &[u8]) -> Vec<u8> {
    element(0x1a45_dfa3, &element(0x4282, doctype))
}

fn info(scale: u64, duration: f64) -> Vec<u8> {
    let body = [number(0x2a_d7b1, scale), element(0x4489, &duration.to_be_bytes())].concat();
    element(0x1549_a966, &body)
}

fn track(number_: u64, kind: u64, codec: &[u8]) -> Vec<u8> {
    let picture = [number(0xb0, 320), number(0xba, 180)].concat();
    let body = [
        number(0xd7, number_),
        number(0x83, kind),
        element(0x86, codec),
        element(0xe0, &picture),
    ]
    .concat();
    element(0xae, &body)
}

fn tracks() -> Vec<u8> {
    // Track type 18 is one that FFmpeg makes no stream of.
    let body = [
        track(9, 18, b"B_VOBBTN"),
        track(2, 2, b"A_VORBIS"),
        track(1, 1, b"V_VP8"),
    ]
    .concat();
    element(0x1654_ae6b, &body)
}

fn cues(times: &[(u64, u64)]) -> Vec<u8> {
    let point = |(time, cluster): &(u64, u64)| {
        let position = |track| element(0xb7, &[number(0xf7, track), number(0xf1, *cluster)].concat());
        element(0xbb, &[number(0xb3, *time), position(1), position(2)].concat())
    };
    element(0x1c53_bb6b, &times.iter().flat_map(point).collect::<Vec<u8>>())
}

fn seek(id: u32, position: u64) -> Vec<u8> {
    let entry = [element(0x53ab, &id.to_be_bytes()), number(0x53ac, position)].concat();
    element(0x114d_9b74, &element(0x4dbb, &entry))
}

fn void(length: usize) -> Vec<u8> {
    element(0xec, &vec![0; length])
}

fn cluster(time: u64) -> Vec<u8> {
    // Of track 2 at -3, of track 1 at 0.
    let blocks = [
        element(0xa3, &[0x82, 0xff, 0xfd, 0, 1]),
        element(0xa3, &[0x81, 0, 0, 0x80, 1]),
    ]
    .concat();
    endless(0x1f43_b675, &[number(0xe7, time), blocks, void(2000)].concat())
}

fn keyframes(index: &Index) -> &[Keyframe] {
    let mut videos = index.tracks.iter().filter_map(|track| match &track.kind {
        Kind::Video(video) => Some(&video.keyframes[..]),
        _ => None,
    });
    videos.next().expect("a video")
}

#[test]
fn cues_behind_clusters_without_an_end_are_found_over_two_seek_heads() {
    let document = head(b"webm");
    let first = [info(1_000_000, 9_000.0), void(3 * BLOCK as usize), tracks()].concat();
    let clusters = [cluster(50), cluster(4_000)].concat();
    // The head's seek head names one at the end, which names the Cues.
    let seek_length = seek(0, 0).len() as u64;
    let before = seek_length + first.len() as u64;
    let second_at = before + clusters.len() as u64;
    let cues_at = second_at + seek_length;
    let places = [(50, before), (4_000, before + clusters.len() as u64 / 2)];
    let body = [
        seek(0x114d_9b74, second_at),
        first,
        clusters,
        seek(0x1c53_bb6b, cues_at),
        cues(&places),
    ];
    let film = [document.clone(), endless(0x1853_8067, &body.concat())].concat();
    let index = index_of(&InMemory::new(film.clone())).expect("an index");
    assert_eq!(index.container, Container::Webm);
    let streams: Vec<_> = index
        .tracks
        .iter()
        .map(|track| (track.stream, track.start, track.end))
        .collect();
    assert_eq!(streams, [(0, 47, 9_000), (1, 50, 9_000)]);
    let found = keyframes(&index);
    assert_eq!(
        found.iter().map(|keyframe| keyframe.pts).collect::<Vec<_>>(),
        [50, 4_000]
    );
    for keyframe in found {
        assert_eq!(film[keyframe.offset as usize..][..4], 0x1f43_b675_u32.to_be_bytes());
    }
    // Cut off before the Cues.
    let cut = film[..film.len() - cues(&places).len()].to_vec();
    let result = index_of(&InMemory::new(cut));
    assert!(matches!(result, Err(MediaError::NoIndex { .. })), "{result:?}");
}

#[test]
fn a_tick_may_be_any_number_of_nanoseconds() {
    let film = |scale| {
        let body = [info(scale, 20_000.0), tracks(), cues(&[(0, 0), (7_000, 0)])].concat();
        [head(b"matroska"), element(0x1853_8067, &body)].concat()
    };
    let times = |scale| {
        let index = index_of(&InMemory::new(film(scale))).expect("an index");
        (index.tracks[1].timescale, keyframes(&index)[1].pts, index.tracks[1].end)
    };
    assert_eq!(times(100_000), (10_000, 7_000, 20_000));
    // 1/44100 s does not go into a second of nanoseconds.
    assert_eq!(times(22_675), (1_000_000_000, 7_000 * 22_675, 20_000 * 22_675));
    assert_eq!(times(u64::MAX).0, 1_000_000_000);
}

#[test]
fn a_film_without_pictures_says_so() {
    let sound = element(0x1654_ae6b, &track(1, 2, b"A_OPUS"));
    let film = [
        head(b"webm"),
        element(0x1853_8067, &[info(1_000_000, 5.0), sound].concat()),
    ]
    .concat();
    let result = index_of(&InMemory::new(film));
    assert!(
        matches!(result, Err(MediaError::NoVideo(Container::Webm))),
        "{result:?}"
    );
}
