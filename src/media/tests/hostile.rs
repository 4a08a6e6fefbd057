//! Files that lie: never a panic, never more read than the limit, and an end soon.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::films::Studio;
use super::{InMemory, index_of};
use crate::media::read::INDEX_LIMIT;
use crate::media::{Kind, MediaError};

/// Looks at a file, whatever it is.
fn survive(film: InMemory) {
    let began = Instant::now();
    let result = index_of(&film);
    assert!(film.bytes.load(Ordering::Relaxed) <= INDEX_LIMIT);
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it took {:?}",
        began.elapsed()
    );
    if let Ok(index) = result {
        for track in index.tracks {
            assert!(track.timescale > 0 && track.start <= track.end, "{track:?}");
            if let Kind::Video(video) = track.kind {
                assert!(video.keyframes.is_sorted_by(|one, next| one.pts < next.pts));
            }
        }
    }
}

/// Films of two seconds, with their indexes at either end.
fn samples() -> Vec<Vec<u8>> {
    let studio = Studio::new();
    let pictures = "-f lavfi -i testsrc=s=64x36:r=24:d=2 -f lavfi -i sine=440:r=48000:d=2";
    studio.ffmpeg(&format!(
        "{pictures} -c:v libx264 -preset ultrafast -bf 2 -g 12 -c:a aac end.mp4"
    ));
    studio.ffmpeg("-ss 0.7 -i end.mp4 -c copy -movflags +faststart fast.mp4");
    studio.ffmpeg("-i end.mp4 -c copy end.mkv");
    studio.ffmpeg("-i end.mp4 -c copy -cues_to_front 1 front.mkv");
    studio.ffmpeg("-i end.mp4 -c copy -movflags +dash+frag_keyframe+global_sidx listed.mp4");
    let names = ["end.mp4", "fast.mp4", "end.mkv", "front.mkv", "listed.mp4"];
    names.map(|name| fs::read(studio.path(name)).expect("the film")).into()
}

#[test]
fn damaged_films_do_no_harm() {
    let samples = samples();
    let change = (
        any::<prop::sample::Index>(),
        prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0xff)],
        1_usize..9,
    );
    let changes = prop::collection::vec(change, 1..12);
    let cut = prop::option::weighted(0.2, any::<prop::sample::Index>());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(600));
    let film = (0..samples.len(), changes, cut, any::<bool>());
    let run = runner.run(&film, |(film, changes, cut, index_only)| {
        let mut film = samples[film].clone();
        // Where the index lies, which is what is read.
        let begin = [&b"moov"[..], b"\x1c\x53\xbb\x6b"]
            .iter()
            .find_map(|word| film.windows(4).rposition(|it| it == *word));
        let begin = begin.filter(|_| index_only).unwrap_or(0);
        for (place, value, count) in changes {
            let place = begin + place.index(film.len() - begin);
            let end = (place + count).min(film.len());
            film[place..end].fill(value);
        }
        if let Some(cut) = cut {
            film.truncate(cut.index(film.len()));
        }
        survive(InMemory::new(film));
        Ok(())
    });
    run.expect("no film does harm");
}

/// With which noise is taken for a film.
const HEADS: [&[u8]; 4] = [
    b"",
    b"\0\0\0\x08ftyp",
    b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff",
    b"\0\0\0\0moov",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn noise_does_no_harm(
        noise in prop::collection::vec(any::<u8>(), 0..4096),
        head in prop::sample::select(HEADS.to_vec()),
        more in prop::sample::select(vec![0_u64, 1 << 20, 1 << 40]),
    ) {
        let mut film = InMemory::new([head, &noise].concat());
        film.size += more;
        survive(film);
    }
}

#[test]
fn a_table_that_claims_milliards_of_samples_ends() {
    let mut film = samples().swap_remove(0);
    let mut patch = |name: &[u8], at: usize, values: &[u32]| {
        let mut places: Vec<usize> = (4..film.len() - 64)
            .filter(|place| film[*place..].starts_with(name))
            .collect();
        assert!(!places.is_empty());
        for place in places.drain(..) {
            for (n, value) in values.iter().enumerate() {
                let begin = place + 4 + at + 4 * n;
                film[begin..begin + 4].copy_from_slice(&value.to_be_bytes());
            }
        }
    };
    patch(b"stsz", 4, &[1, u32::MAX]);
    patch(b"stts", 8, &[u32::MAX, 512]);
    patch(b"stsc", 8, &[1, u32::MAX]);
    patch(b"stss", 8, &[u32::MAX]);
    let began = Instant::now();
    let result = index_of(&InMemory::new(film));
    assert!(matches!(result, Err(MediaError::TooLarge { .. })), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn an_index_larger_than_the_limit_is_not_read() {
    let mut head = b"\0\0\0\x10ftypisom\0\0\0\0".to_vec();
    head.extend(u32::try_from(INDEX_LIMIT * 2).expect("a length").to_be_bytes());
    head.extend(b"moov");
    let mut film = InMemory::new(head);
    film.size = INDEX_LIMIT * 4;
    let result = index_of(&film);
    assert!(matches!(result, Err(MediaError::TooLarge { .. })), "{result:?}");
    assert!(film.bytes.load(Ordering::Relaxed) < 1 << 20);
}
