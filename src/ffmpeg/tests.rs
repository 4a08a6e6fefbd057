//! Real FFmpegs, without confinement: that one is tried with the whole program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::*;

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// A film of 60 s with two audio tracks of noise and subtitles, each audio track more than a pipe and FFmpeg's buffers
/// can hold.
fn film(folder: &TempDir) -> PathBuf {
    static FILM: OnceLock<Vec<u8>> = OnceLock::new();
    let path = folder.path().join("Film.mkv");
    let bytes = FILM.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let (cues, made) = (place.path().join("cues.srt"), place.path().join("film.mkv"));
        std::fs::write(&cues, "1\n00:00:01,000 --> 00:00:02,000\nA cue.\n").unwrap();
        let made_by = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin"])
            .args(["-f", "lavfi", "-i", "testsrc=size=320x180:rate=24:duration=60"])
            .args(["-f", "lavfi", "-i", "anoisesrc=duration=60:sample_rate=48000"])
            .arg("-i")
            .arg(&cues)
            .args(["-map", "0", "-map", "1", "-map", "1", "-map", "2"])
            .args([
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-g",
                "48",
                "-c:a",
                "aac",
                "-b:a",
                "320k",
            ])
            .arg(&made)
            .status()
            .unwrap();
        assert!(made_by.success());
        std::fs::read(made).unwrap()
    });
    std::fs::write(&path, bytes).unwrap();
    path
}

fn output(stream: usize, encoding: Encoding) -> Output {
    Output { stream, encoding }
}

fn job(input: &Path) -> Job {
    Job {
        input: input.to_owned(),
        demuxer: "matroska",
        start: None,
        outputs: vec![
            output(0, Encoding::CopyVideo { tag: None }),
            output(1, Encoding::CopyAudio),
            output(2, Encoding::CopyAudio),
            output(3, Encoding::WebVtt),
        ],
    }
}

fn launcher() -> Launcher {
    Launcher::start(LauncherOptions::unconfined()).unwrap()
}

/// Reads all outputs at once, to their ends.
async fn read_all(run: &mut Run) -> Vec<Vec<u8>> {
    let reads = std::mem::take(&mut run.outputs).into_iter().map(|mut pipe| async move {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    futures_util::future::join_all(reads).await
}

fn fifo(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("fifo.mkv");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// Whether this is a child of this process, dead or alive.
fn is_child(pid: u32) -> bool {
    let own = format!("PPid:\t{}\n", std::process::id());
    std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&own))
}

async fn until_gone(pid: u32) {
    while is_child(pid) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The processor time that it has used, in ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path))
}

async fn limited<T>(body: impl Future<Output = T>) -> T {
    timeout(LIMIT, body).await.expect("this test ends in time")
}

#[tokio::test]
async fn a_run_gives_every_track_and_ends_by_itself() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = launcher().run(&job(&film(&folder))).await.unwrap();
        let outputs = read_all(&mut run).await;
        assert_eq!(run.ended().await, Ended::Finished);
        assert_eq!(run.ended().await, Ended::Finished);
        assert_eq!(run.last_words(), "");
        for fragments in &outputs[..3] {
            assert_eq!(&fragments[4..8], b"ftyp");
            assert!(fragments.len() > 1 << 20, "{}", fragments.len());
        }
        let cues = String::from_utf8(outputs[3].clone()).unwrap();
        assert!(cues.starts_with("WEBVTT") && cues.contains("A cue."), "{cues}");
        assert!(!is_child(run.pid));
        run.kill();
    })
    .await;
}

#[tokio::test]
async fn a_run_that_begins_later_gives_the_same_fragment_there() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let path = film(&folder);
        let video = |start| Job {
            start,
            outputs: vec![output(0, Encoding::CopyVideo { tag: None })],
            ..job(&path)
        };
        let launcher = launcher();
        let mut whole = launcher.run(&video(None)).await.unwrap();
        let mut late = launcher.run(&video(Some(Start { at_us: 40_001_000 }))).await.unwrap();
        let (whole, late) = (
            read_all(&mut whole).await.remove(0),
            read_all(&mut late).await.remove(0),
        );
        // The samples of the last keyframe's fragment.
        fn last(bytes: &[u8]) -> &[u8] {
            let name = bytes.windows(4).rposition(|name| name == b"mdat").unwrap();
            let length = u32::from_be_bytes(bytes[name - 4..name].try_into().unwrap()) as usize;
            &bytes[name - 4..name - 4 + length]
        }
        assert!(last(&whole) == last(&late));
        assert!(late.len() < whole.len() / 2);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_fails_says_why() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("noise.mkv");
        std::fs::write(&path, [7; 4096]).unwrap();
        let mut run = launcher().run(&job(&path)).await.unwrap();
        let Ended::Failed { status, last_words } = run.ended().await else {
            panic!("it did not fail")
        };
        assert_eq!(status.code(), Some(1));
        assert!(last_words.contains("Invalid data"), "{last_words}");
        assert_eq!(run.last_words(), last_words);
    })
    .await;
}

#[tokio::test]
async fn a_run_is_killed_while_it_opens_what_never_answers() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = launcher().run(&job(&fifo(&folder))).await.unwrap();
        assert!(timeout(Duration::from_millis(200), run.ended()).await.is_err());
        run.kill();
        let ended = timeout(Duration::from_secs(1), run.ended())
            .await
            .expect("it dies within 1 s");
        assert_eq!(ended, Ended::Killed);
        assert!(!is_child(run.pid));
    })
    .await;
}

/// One output that nobody reads stops all of them, and costs no processor time; reading it goes on where it was.
#[tokio::test]
async fn an_unread_output_holds_the_run_back() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let path = film(&folder);
        let mut run = launcher().run(&job(&path)).await.unwrap();
        let mut outputs = std::mem::take(&mut run.outputs);
        let mut video = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        // Held back: nothing comes for half a second, and nothing was calculated in it.
        loop {
            let before = ticks(run.pid);
            match timeout(Duration::from_millis(500), outputs[0].read(&mut buffer)).await {
                Ok(read) => match read.unwrap() {
                    0 => panic!("the video came to its end while an audio track was not read"),
                    length => video.extend_from_slice(&buffer[..length]),
                },
                Err(_) if ticks(run.pid) == before => break,
                Err(_) => {}
            }
        }
        assert!(has_open(run.pid, &path), "the pid is not the one that reads");
        assert!(timeout(Duration::from_millis(50), run.ended()).await.is_err());
        run.outputs = outputs;
        let rest = read_all(&mut run).await;
        assert_eq!(run.ended().await, Ended::Finished);
        video.extend_from_slice(&rest[0]);
        let mut unhindered = launcher().run(&job(&path)).await.unwrap();
        assert!(read_all(&mut unhindered).await[0] == video);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_nobody_reads_is_killed() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let mut run = launcher().run(&job(&film(&folder))).await.unwrap();
        let mut first = [0; 8];
        run.outputs[0].read_exact(&mut first).await.unwrap();
        run.kill();
        assert_eq!(run.ended().await, Ended::Killed);
    })
    .await;
}

#[tokio::test]
async fn dropping_kills_and_reaps() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let launcher = launcher();
        let run = launcher.run(&job(&fifo(&folder))).await.unwrap();
        let pid = run.pid;
        drop(launcher);
        assert!(is_child(pid));
        drop(run);
        until_gone(pid).await;
    })
    .await;
}

/// However they end, and also when nobody waits for them.
#[tokio::test]
async fn nothing_is_left_of_two_hundred_runs() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let (short, stuck) = (folder.path().join("none.mkv"), fifo(&folder));
        let launcher = Launcher::start(LauncherOptions {
            ffmpeg: "/bin/true".into(),
            ..LauncherOptions::unconfined()
        })
        .unwrap();
        let mut pids = Vec::new();
        for number in 0..180 {
            let mut run = launcher.run(&job(&short)).await.unwrap();
            pids.push(run.pid);
            match number % 3 {
                0 => assert_eq!(run.ended().await, Ended::Finished),
                1 => run.kill(),
                _ => {}
            }
        }
        let real = self::launcher();
        for _ in 0..20 {
            pids.push(real.run(&job(&stuck)).await.unwrap().pid);
        }
        // A start that nobody waits for any more.
        for _ in 0..20 {
            let waiting = job(&stuck);
            let start = real.run(&waiting);
            let _ = timeout(Duration::from_micros(100), start).await;
        }
        for pid in pids {
            until_gone(pid).await;
        }
        let stuck = format!("file:{}", stuck.display());
        while let Some(pid) = running_with(&stuck) {
            until_gone(pid).await;
        }
    })
    .await;
}

/// A process that has this among its arguments.
fn running_with(argument: &str) -> Option<u32> {
    std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        line.split(|byte| *byte == 0)
            .any(|word| word == argument.as_bytes())
            .then_some(pid)
    })
}

/// A process that says more than anybody wants to know does not wait for a reader.
#[tokio::test]
async fn stderr_is_always_drained() {
    limited(async {
        let folder = tempfile::tempdir().unwrap();
        let launcher = Launcher::start(LauncherOptions {
            // It says that it does not know `-v`, a little less than FFmpeg would.
            ffmpeg: "/bin/mkdir".into(),
            ..LauncherOptions::unconfined()
        })
        .unwrap();
        let long = folder.path().join("x".repeat(200)).join("y".repeat(200));
        let mut run = launcher.run(&job(&long)).await.unwrap();
        assert!(matches!(run.ended().await, Ended::Failed { last_words, .. } if !last_words.is_empty()));
        let mut child = Command::new("sh")
            .args([
                "-c",
                "i=0; while [ $i -lt 20000 ]; do echo line $i >&2; i=$((i+1)); done; exit 3",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let words = parking_lot::Mutex::default();
        super::process::listen(child.stderr.take().unwrap(), &words);
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(words.lock().text().ends_with("line 19999"));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_started_is_said() {
    let launcher = |ffmpeg: &str| {
        Launcher::start(LauncherOptions {
            ffmpeg: ffmpeg.into(),
            ..LauncherOptions::unconfined()
        })
        .unwrap()
    };
    let input = Path::new("/nowhere/Film.mkv");
    for nowhere in ["no-such-ffmpeg", "/nowhere/ffmpeg"] {
        let error = launcher(nowhere).run(&job(input)).await.unwrap_err().to_string();
        assert!(
            error.contains("Debian package `ffmpeg`") && error.contains(nowhere),
            "{error}"
        );
    }
    let launcher = launcher("ffmpeg");
    let relative = launcher.run(&job(Path::new("Film.mkv"))).await;
    assert!(matches!(relative, Err(FfmpegError::Relative(_))));
    for outputs in [vec![], vec![output(0, Encoding::CopyAudio); command::MOST_OUTPUTS + 1]] {
        let refused = launcher.run(&Job { outputs, ..job(input) }).await;
        assert!(matches!(refused, Err(FfmpegError::Outputs(_))));
    }
}
