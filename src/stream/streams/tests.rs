mod folder;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use super::*;
use crate::ffmpeg::LauncherOptions;
use crate::stream::{FilmState, RenditionId, SourceError};

use folder::*;

/// "The same segment has the same bytes whatever was asked before it."
#[tokio::test(flavor = "multi_thread")]
async fn random_order_and_fresh_runs_give_the_bytes_of_the_sequence() {
    let mut random = fastrand::Rng::with_seed(4);
    for path in ["film.mkv", "film.mp4", "skewed.mp4"] {
        let place = Place::new();
        let streams = place.open();
        let film = limit(streams.film(&name(path))).await.unwrap();
        let sequence = all(&film).await;
        assert!(film.facts.timeline.count() >= 14);
        assert_eq!(place.folder.starts(), 1, "{path}");
        streams.stop().await;
        let mut order: Vec<_> = sequence
            .keys()
            .copied()
            .filter(|(rendition, _)| !matches!(rendition, RenditionId::Subtitles(_)))
            .collect();
        random.shuffle(&mut order);
        let place = Place::new();
        let streams = place.open();
        let film = limit(streams.film(&name(path))).await.unwrap();
        for &(rendition, number) in &order {
            let bytes = get(&film, rendition, number).await;
            assert!(bytes == sequence[&(rendition, number)], "{path} {rendition} {number}");
        }
        streams.stop().await;
        for &(rendition, number) in &order[..6] {
            let place = Place::new();
            let streams = place.open();
            let film = limit(streams.film(&name(path))).await.unwrap();
            let bytes = get(&film, rendition, number).await;
            assert!(bytes == sequence[&(rendition, number)], "{path} {rendition} {number}");
            streams.stop().await;
        }
    }
}

/// "A subtitle segment counts only from a run that began at least 30 s before it; until then it is provisional and not
/// cached."
#[tokio::test(flavor = "multi_thread")]
async fn provisional_subtitles_are_served_while_their_run_lasts_and_not_kept() {
    let place = Place::new();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    get(&film, VIDEO, 9).await;
    for _ in 0..2 {
        let provisional = get(&film, SUBTITLES, 9).await;
        assert!(provisional.starts_with(b"WEBVTT"));
    }
    assert_eq!(place.folder.starts(), 1);
    streams.stop().await;
    place.folder.absent.store(true, Ordering::Relaxed);
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    let starts = place.folder.starts();
    get(&film, VIDEO, 9).await;
    get(&film, SUBTITLES, 9).await;
    assert_eq!(place.folder.starts(), starts + 1);
    streams.stop().await;
    // With the bytes before it here, a run that is begun for subtitles begins early enough.
    let place = Place::new();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    let full = get(&film, SUBTITLES, 10).await;
    streams.stop().await;
    place.folder.broken.store(true, Ordering::Relaxed);
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    let starts = place.folder.starts();
    assert_eq!(get(&film, SUBTITLES, 10).await, full);
    assert_eq!(place.folder.starts(), starts);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_what_was_made_needs_neither_ffmpeg_nor_the_file() {
    let mut place = Place::new();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    let init = limit(film.init(&VIDEO)).await.unwrap();
    let before = get(&film, VIDEO, 3).await;
    streams.stop().await;
    place.folder.broken.store(true, Ordering::Relaxed);
    place.ffmpeg = "/nonexistent/ffmpeg".into();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    assert_eq!(limit(film.init(&VIDEO)).await.unwrap(), init);
    assert_eq!(get(&film, VIDEO, 3).await, before);
    let far = limit(film.segment(&AUDIO, 13)).await;
    assert!(
        matches!(&far, Err(StreamError::Failed { last_words }) if last_words.contains("/nonexistent")),
        "{far:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_of_a_torrent_goes_with_it() {
    let mut place = Place::new();
    let gate = place.cache.path().join("gate");
    place.script(&format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exec real",
        gate.display()
    ));
    let kept = |of: &str| -> Vec<String> {
        let entries = std::fs::read_dir(place.options.cache_dir.join(of)).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    std::fs::write(&gate, "").unwrap();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    get(&film, VIDEO, 1).await;
    limit(streams.stop()).await;
    std::fs::remove_file(&gate).unwrap();
    // Also after a restart.
    let streams = place.open();
    limit(streams.tidy()).await;
    assert!(!kept("segments").is_empty() && !kept("indexes").is_empty());
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    let waits = {
        let film = film.clone();
        tokio::spawn(async move { film.segment(&VIDEO, 0).await })
    };
    let runs = place.folder.starts() + 1;
    place.folder.until(|paces| paces.len() == runs).await;
    place.folder.gone.store(true, Ordering::Relaxed);
    limit(streams.tidy()).await;
    assert!(kept("segments").is_empty() && !kept("indexes").is_empty());
    // What is still made is given to who waits for it, and not kept.
    std::fs::write(&gate, "").unwrap();
    assert!(limit(waits).await.unwrap().is_ok());
    get(&film, VIDEO, 1).await;
    let first = kept("segments").into_iter().find(|name| name.ends_with("-0-0"));
    assert_eq!(first, None);
    assert_eq!(
        film.house.kept(&film.facts, 0, crate::stream::policy::Part::Segment(0)),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_viewers_of_the_same_half_minute_are_one_ffmpeg() {
    let place = Place::new();
    let streams = place.open();
    let mut viewers = tokio::task::JoinSet::new();
    let mut random = fastrand::Rng::with_seed(50);
    for _ in 0..50 {
        let (streams, from) = (streams.clone(), random.u32(2..8));
        viewers.spawn(async move {
            let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
            limit(film.init(&VIDEO)).await.unwrap();
            limit(film.init(&AUDIO)).await.unwrap();
            for number in from..from + 5 {
                get(&film, VIDEO, number).await;
                get(&film, AUDIO, number).await;
                assert!(streams.report(&name("film.mkv")).unwrap().runs <= 1);
            }
        });
    }
    viewers.join_all().await;
    assert!(place.folder.starts() <= 3, "{}", place.folder.starts());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_place_is_refused_until_somebody_hangs_up() {
    let mut place = Place::new();
    place.options.max_runs = 2;
    // It gives nothing.
    place.script("exec sleep 600");
    place.folder.absent.store(true, Ordering::Relaxed);
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    let ask = |number| {
        let film = film.clone();
        tokio::spawn(async move { film.segment(&VIDEO, number).await })
    };
    let (one, _two) = (ask(0), ask(14));
    place.folder.until(|paces| paces.len() == 2).await;
    let third = limit(film.segment(&AUDIO, 9)).await;
    assert!(matches!(third, Err(StreamError::Busy { .. })), "{third:?}");
    one.abort();
    place
        .folder
        .until(|paces| paces.values().any(|pace| *pace == Some(false)))
        .await;
    let _third = ask(9);
    place.folder.until(|paces| paces.len() == 3).await;
    place
        .folder
        .until(|paces| paces.values().filter(|pace| pace.is_some()).count() == 2)
        .await;
    limit(streams.stop()).await;
    assert!(place.folder.pids().is_empty());
    assert!(matches!(
        limit(film.segment(&AUDIO, 9)).await,
        Err(StreamError::Stopping)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_crashes_is_started_twice_for_a_request_and_again_for_the_next() {
    let mut place = Place::new();
    place.script("echo 'out of cheese' >&2; exit 3");
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    for starts in [2, 4] {
        let failed = limit(film.segment(&VIDEO, 5)).await;
        let words = "out of cheese".to_owned();
        assert_eq!(failed, Err(StreamError::Failed { last_words: words }));
        assert_eq!(place.folder.starts(), starts);
    }
}

/// "Every wait ends", however often somebody asks again for what an FFmpeg that hangs would make.
#[tokio::test(flavor = "multi_thread")]
async fn an_ffmpeg_that_hangs_is_replaced() {
    let mut place = Place::new();
    place.options.read_deadline = Duration::from_secs(1);
    place.script("if mkdir \"$0.hangs\" 2>/dev/null; then exec sleep 600; fi; exec real");
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    limit(async {
        while let Err(silent) = film.segment(&VIDEO, 3).await {
            assert!(matches!(silent, StreamError::Unavailable(_)), "{silent}");
        }
    })
    .await;
    assert_eq!(place.folder.starts(), 2);
}

/// FFmpeg exits with 0 after a read that failed in the middle of the file.
#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_run_whose_input_failed_is_nobodys() {
    for script in ["real; echo 'x.mp4: Input/output error' >&2", "real; exit 1"] {
        let mut place = Place::new();
        let last = {
            let streams = place.open();
            let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
            film.facts.timeline.count() - 1
        };
        place.script(script);
        let streams = place.open();
        let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
        get(&film, VIDEO, last - 1).await;
        let tail = limit(film.segment(&VIDEO, last)).await;
        assert!(
            matches!(tail, Err(StreamError::Failed { .. } | StreamError::Unavailable(_))),
            "{tail:?}"
        );
        streams.stop().await;
        place.ffmpeg = "ffmpeg".into();
        let streams = place.open();
        let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
        let before = place.folder.starts();
        get(&film, VIDEO, last).await;
        assert_eq!(place.folder.starts(), before + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_killed_at_random_under_play_changes_no_byte() {
    let place = Place::new();
    let streams = place.open();
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    let sequence = all(&film).await;
    streams.stop().await;
    let mut place = Place::new();
    place.options.ahead = Duration::from_secs(4);
    let folder = place.folder.clone();
    let killed = Arc::new(Mutex::new(0));
    let kills = killed.clone();
    let killer = tokio::spawn(async move {
        let mut random = fastrand::Rng::with_seed(1);
        let mut met = BTreeSet::new();
        loop {
            folder
                .until(|paces| paces.iter().any(|(pid, pace)| pace.is_some() && !met.contains(pid)))
                .await;
            for pid in folder.pids() {
                // Some are let live, or a slow machine would never come to an end.
                if met.insert(pid) && random.u8(..3) > 0 {
                    tokio::time::sleep(Duration::from_millis(random.u64(..150))).await;
                    if folder.pids().contains(&pid) {
                        signal(pid, Signal::KILL);
                        *kills.lock() += 1;
                    }
                }
            }
        }
    });
    for round in 0.. {
        let streams = place.open();
        let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
        for number in 0..film.facts.timeline.count() {
            for rendition in [VIDEO, AUDIO] {
                let bytes = limit(async {
                    loop {
                        match film.segment(&rendition, number).await {
                            Ok(bytes) => return bytes,
                            Err(StreamError::Failed { .. }) => {}
                            Err(error) => panic!("{error}"),
                        }
                    }
                });
                assert!(
                    bytes.await == sequence[&(rendition, number)],
                    "{round}: {rendition} {number}"
                );
            }
        }
        limit(streams.stop()).await;
        std::fs::remove_dir_all(&place.options.cache_dir).unwrap();
        if *killed.lock() >= 20 {
            break;
        }
    }
    killer.abort();
    assert!(place.folder.pids().is_empty());
}

/// "Only the run as a whole pauses": nobody reads the sound, and the pictures come all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_rendition_stops_nobody_and_a_run_ahead_of_its_viewer_pauses() {
    let mut place = Place::new();
    place.options.ahead = Duration::from_secs(8);
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    get(&film, VIDEO, 0).await;
    place
        .folder
        .until(|paces| paces.values().all(|pace| *pace == Some(false)))
        .await;
    let pid = place.folder.pids()[0];
    for number in 1..film.facts.timeline.count() - 4 {
        get(&film, VIDEO, number).await;
        // It waits at the viewer's side instead of having made the whole film.
        assert_eq!(place.folder.pids(), [pid], "{number}");
    }
    assert_eq!(place.folder.starts(), 1);
}

/// Its fragment never ends; other films hold what may be held.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_holds_more_than_is_left_for_it_ends_and_says_so() {
    let mut place = Place::new();
    place.script(r"printf '\017\000\000\000mdat' >&3; exec cat /dev/zero >&3");
    let streams = place.open();
    let others: Vec<_> = (0..2)
        .map(|_| {
            let mut other = streams.house.held.run().pipe();
            other.set(384 << 20).unwrap();
            other
        })
        .collect();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    let ended = limit(film.segment(&VIDEO, 3)).await;
    assert!(
        matches!(&ended, Err(StreamError::Failed { last_words }) if last_words.contains("other films")),
        "{ended:?}"
    );
    drop(others);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_is_told_and_ends_by_itself() {
    let mut place = Place::new();
    place.options.ahead = Duration::from_secs(4);
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    get(&film, VIDEO, 0).await;
    let pid = place.folder.pids()[0];
    signal(pid, Signal::STOP);
    let waits = {
        let film = film.clone();
        tokio::spawn(async move { film.segment(&VIDEO, 7).await })
    };
    let report = limit(async {
        loop {
            let report = streams.report(&name("film.mp4")).unwrap();
            if report.state == FilmState::Stalled {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let report = report.await;
    assert_eq!(report.waiting, 1);
    assert!(report.words.contains("0:28"), "{}", report.words);
    // Nothing is restarted that did not fail.
    let starts = place.folder.starts();
    place.folder.pids().iter().for_each(|pid| signal(*pid, Signal::CONT));
    let ended = limit(waits).await.unwrap();
    assert!(ended.is_ok(), "{ended:?}");
    assert_eq!(place.folder.starts(), starts);
    assert_eq!(streams.report(&name("film.mp4")).unwrap().state, FilmState::Completed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_which_nothing_comes_is_given_up_at_the_deadline() {
    let mut place = Place::new();
    place.options.read_deadline = Duration::from_secs(2);
    place.script("exec sleep 600");
    let streams = place.open();
    let film = limit(streams.film(&name("film.mp4"))).await.unwrap();
    let asked = Instant::now();
    let silent = limit(film.segment(&VIDEO, 3)).await;
    assert!(matches!(silent, Err(StreamError::Unavailable(_))), "{silent:?}");
    assert!(asked.elapsed() >= Duration::from_secs(2));
    // Its FFmpeg is not waited for any more, and nobody had started it again.
    place
        .folder
        .until(|paces| paces.values().all(|pace| *pace == Some(false)))
        .await;
    assert_eq!(place.folder.starts(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_waited_for_once_and_given_up_when_nothing_comes() {
    let mut place = Place::new();
    place.options.read_deadline = Duration::from_secs(2);
    place.folder.held.send_replace(true);
    let streams = place.open();
    assert_eq!(streams.report(&name("film.mp4")), None);
    let silent = limit(streams.film(&name("film.mp4"))).await.unwrap_err();
    assert!(matches!(silent, StreamError::Unavailable(_)), "{silent}");
    // Data arrives: it waits, and is told to.
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let streams = streams.clone();
            tokio::spawn(async move { streams.film(&name("film.mp4")).await.map(drop) })
        })
        .collect();
    limit(async {
        loop {
            *place.folder.progress.lock() = Some(Instant::now());
            match streams.report(&name("film.mp4")) {
                Some(report) if report.waiting == 3 && report.words.contains("3 s") => {
                    assert_eq!(report.state, FilmState::WaitingForHeader);
                    break;
                }
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    })
    .await;
    place.folder.held.send_replace(false);
    for wait in waits {
        limit(wait).await.unwrap().unwrap();
    }
    assert_eq!(place.folder.starts(), 0);
}

/// An MP4 of some hundred bytes that claims as many samples as it can.
fn endless() -> Vec<u8> {
    let number = |number: u32| number.to_be_bytes();
    let within = |kind: &[u8; 4], body: &[u8]| {
        let length = number(u32::try_from(body.len()).unwrap() + 8);
        [&length[..], kind, body].concat()
    };
    let table = |kind, fields: &[u32]| {
        within(
            kind,
            &[0].iter().chain(fields).copied().flat_map(number).collect::<Vec<_>>(),
        )
    };
    let most = u32::MAX;
    let tables = [
        table(b"stts", &[1, most, 512]),
        table(b"stsz", &[1, most]),
        table(b"stsc", &[1, 1, most, 1]),
        table(b"stco", &[1, 0]),
    ];
    let path: [&[u8; 4]; 5] = [b"stbl", b"minf", b"mdia", b"trak", b"moov"];
    let moov = path.iter().fold(tables.concat(), |body, kind| within(kind, &body));
    [within(b"ftyp", b"isom\0\0\0\0"), moov].concat()
}

/// There is one thread for all, as there may be for many.
#[tokio::test]
async fn a_film_that_takes_long_to_look_through_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("endless.mp4"), endless()).unwrap();
    std::os::unix::fs::symlink(films().join("film.mp4"), dir.path().join("film.mp4")).unwrap();
    let mut place = Place::new();
    Arc::get_mut(&mut place.folder).unwrap().root = dir.path().to_owned();
    let streams = place.open();
    let endless = {
        let streams = streams.clone();
        tokio::spawn(async move { streams.film(&name("endless.mp4")).await.map(drop) })
    };
    limit(async {
        while streams.report(&name("endless.mp4")).is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    limit(streams.film(&name("film.mp4"))).await.unwrap();
    assert!(!endless.is_finished());
    let refused = limit(endless).await.unwrap();
    assert!(matches!(refused, Err(StreamError::NotPlayable(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_film_or_no_part_of_one_is_said_so() {
    let place = Place::new();
    let streams = place.open();
    let error = async |path| limit(streams.film(&name(path))).await.unwrap_err();
    assert_eq!(error("nothing.mkv").await, StreamError::Unknown);
    for _ in 0..2 {
        assert!(matches!(error("notes.txt").await, StreamError::NotPlayable(_)));
    }
    let film = limit(streams.film(&name("film.mkv"))).await.unwrap();
    let count = film.facts.timeline.count();
    assert_eq!(limit(film.segment(&VIDEO, count)).await, Err(StreamError::Unknown));
    assert_eq!(
        limit(film.segment(&RenditionId::Audio(2), 0)).await,
        Err(StreamError::Unknown)
    );
    assert_eq!(limit(film.init(&SUBTITLES)).await, Err(StreamError::Unknown));
    assert!(film.media(&RenditionId::Audio(2)).is_none());
    assert_eq!(place.folder.starts(), 0);
}
