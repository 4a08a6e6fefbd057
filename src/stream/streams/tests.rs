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

const VIDEO: RenditionId = RenditionId::Video;
const AUDIO: RenditionId = RenditionId::Audio(0);
const SUBTITLES: RenditionId = RenditionId::Subtitles(0);

/// Films of one minute, about 15 segments of 4 s. Made once, beside the program of the tests.
fn films() -> &'static Path {
    static FILMS: OnceLock<PathBuf> = OnceLock::new();
    FILMS.get_or_init(|| {
        let program = std::env::current_exe().unwrap();
        let beside = program.parent().unwrap();
        // Another number when other films are wanted.
        let films = beside.join("stream-films-1");
        if !films.exists() {
            let dir = tempfile::tempdir_in(beside).unwrap();
            make_films(dir.path());
            // Another program may have made them meanwhile.
            let _ = std::fs::rename(dir.path(), &films);
        }
        films
    })
}

fn make_films(dir: &Path) {
    let cues = (0..30).map(|number| {
        let (from, to) = (number * 2, number * 2 + 3);
        format!(
            "{number}\n00:00:{from:02},000 --> 00:{:02}:{:02},500\ncue {number}\n\n",
            to / 60,
            to % 60
        )
    });
    std::fs::write(dir.join("cues.srt"), cues.collect::<String>()).unwrap();
    std::fs::write(dir.join("notes.txt"), "no film").unwrap();
    for line in [
        "-f lavfi -i testsrc2=s=320x180:r=25:d=60 -f lavfi -i sine=d=60 -f lavfi -i sine=f=200:d=60 -i cues.srt \
         -map 0 -map 1 -map 2 -map 3 -c:v libx264 -preset ultrafast -threads 1 -bf 2 -g 50 -sc_threshold 0 \
         -c:a aac -c:s srt film.mkv",
        "-i film.mkv -map 0:v -map 0:a -c copy film.mp4",
        // The sound of each moment lies 30 s of film behind its pictures.
        "-i film.mp4 -itsoffset 30 -i film.mp4 -map 0:v -map 1:a:0 -c copy late.mp4",
        "-copyts -i late.mp4 -map 0 -c copy -bsf:a setts=ts=TS-30/TB -max_interleave_delta 1 skewed.mp4",
    ] {
        let done = Command::new("ffmpeg")
            .current_dir(dir)
            .args("-v error -nostdin -y -bitexact".split(' '))
            .args(line.split_whitespace())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

/// A folder of films whose reads can be held up, and which remembers what it was told.
struct Folder {
    root: PathBuf,
    held: watch::Sender<bool>,
    broken: AtomicBool,
    absent: AtomicBool,
    /// Its torrent has been removed; who has the file open reads it still.
    gone: AtomicBool,
    /// Every process that was told of, and whether it is urgent now; none once it is forgotten.
    paces: Mutex<BTreeMap<u32, Option<bool>>>,
    told: watch::Sender<u32>,
    progress: Mutex<Option<Instant>>,
    /// What was expected, in the order in which it was.
    expected: Mutex<Vec<Range<u64>>>,
}

impl Folder {
    fn new() -> Arc<Folder> {
        Arc::new(Folder {
            root: films().to_owned(),
            held: watch::Sender::new(false),
            broken: AtomicBool::new(false),
            absent: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            paces: Mutex::default(),
            told: watch::Sender::new(0),
            progress: Mutex::new(None),
            expected: Mutex::default(),
        })
    }

    /// How often FFmpeg was started.
    fn starts(&self) -> usize {
        self.paces.lock().len()
    }

    /// Processes that live now.
    fn pids(&self) -> Vec<u32> {
        let paces = self.paces.lock();
        paces
            .iter()
            .filter(|(_, pace)| pace.is_some())
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Waits until what was told fits.
    async fn until(&self, fits: impl Fn(&BTreeMap<u32, Option<bool>>) -> bool) {
        let mut told = self.told.subscribe();
        limit(async {
            while !fits(&self.paces.lock()) {
                told.changed().await.unwrap();
            }
        })
        .await;
    }
}

struct Opened {
    folder: Arc<Folder>,
    file: std::fs::File,
}

impl ReadAt for Opened {
    fn size(&self) -> u64 {
        self.file.metadata().unwrap().len()
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if self.folder.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody is to read this"));
        }
        let mut held = self.folder.held.subscribe();
        held.wait_for(|held| !held).await.map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl FilmFile for Opened {
    async fn expect(&self, bytes: Range<u64>, _: Duration) {
        self.folder.expected.lock().push(bytes);
    }
}

impl Source for Arc<Folder> {
    type Content = Opened;

    fn torrents(&self) -> HashSet<String> {
        let here = !self.gone.load(Ordering::Relaxed);
        here.then(|| name("").info_hash).into_iter().collect()
    }

    fn open(&self, file: &FileName) -> Result<Opened, SourceError> {
        let file = std::fs::File::open(self.path(file)?).map_err(|_| SourceError::Unknown)?;
        Ok(Opened {
            folder: self.clone(),
            file,
        })
    }

    fn path(&self, file: &FileName) -> Result<PathBuf, SourceError> {
        if self.gone.load(Ordering::Relaxed) {
            return Err(SourceError::Unknown);
        }
        Ok(self.root.join(&file.path))
    }

    fn pace(&self, pid: u32, urgent: bool) {
        self.paces.lock().insert(pid, Some(urgent));
        self.told.send_modify(|told| *told += 1);
    }

    fn forget(&self, pid: u32) {
        self.paces.lock().insert(pid, None);
        self.told.send_modify(|told| *told += 1);
    }

    fn here(&self, _: &FileName, ranges: &[Range<u64>]) -> Vec<bool> {
        vec![!self.absent.load(Ordering::Relaxed); ranges.len()]
    }

    fn last_progress(&self, _: &FileName) -> Option<Instant> {
        *self.progress.lock()
    }
}

struct Place {
    cache: tempfile::TempDir,
    folder: Arc<Folder>,
    options: StreamOptions,
    ffmpeg: PathBuf,
}

impl Place {
    fn new() -> Place {
        let cache = tempfile::tempdir().unwrap();
        Place {
            options: StreamOptions::new(cache.path().join("cache")),
            cache,
            folder: Folder::new(),
            ffmpeg: "ffmpeg".into(),
        }
    }

    fn open(&self) -> Arc<Streams<Arc<Folder>>> {
        let options = LauncherOptions {
            ffmpeg: self.ffmpeg.clone(),
            ..LauncherOptions::unconfined()
        };
        let launcher = Launcher::start(options).unwrap();
        Streams::new(self.options.clone(), self.folder.clone(), launcher).unwrap()
    }

    /// A program in FFmpeg's place; `real` is FFmpeg with its arguments.
    fn script(&mut self, text: &str) {
        let path = self.cache.path().join("script");
        let text = text.replace("real", "/usr/bin/ffmpeg \"$@\"");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.ffmpeg = path;
    }
}

fn name(path: &str) -> FileName {
    FileName {
        info_hash: "12".repeat(20),
        path: path.to_owned(),
    }
}

/// No test waits longer for anything.
async fn limit<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(120), future)
        .await
        .expect("it takes too long")
}

type Parts = BTreeMap<(RenditionId, u32), Bytes>;

async fn get(film: &Arc<Film<Arc<Folder>>>, rendition: RenditionId, number: u32) -> Bytes {
    limit(film.segment(&rendition, number)).await.unwrap()
}

/// Every segment of every rendition in order, as a player asks for them.
async fn all(film: &Arc<Film<Arc<Folder>>>) -> Parts {
    let mut parts = Parts::new();
    for number in 0..film.facts.timeline.count() {
        for rendition in film.facts.plan.renditions() {
            parts.insert((rendition.id, number), get(film, rendition.id, number).await);
        }
    }
    parts
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = kill_process(pid, signal);
}

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
