//! FFmpeg, kept in by the program itself: what it may do, what a stranger's file makes of it, and that it never outlives
//! who started it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use magnetfs::ffmpeg::confinement::Rules;
use magnetfs::ffmpeg::{Confinement, Encoding, Ended, Job, Launcher, LauncherOptions, Limits, Output, Run};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use crate::support::daemon::PROGRAM;
use crate::support::limit::{Held, Registration, kill};
use crate::support::{Work, eventually, limited};

const LIMIT: Duration = Duration::from_secs(120);

/// Tells the test binary, started again as a daemon of its own, which file to launch an FFmpeg on.
const LAUNCH: &str = "MAGNETFS_TEST_LAUNCH";

fn confined() -> LauncherOptions {
    LauncherOptions {
        confinement: Confinement::Program(PROGRAM.into()),
        ..LauncherOptions::default()
    }
}

fn launcher(options: LauncherOptions) -> Launcher {
    Launcher::start(options).expect("a thread")
}

fn within_limit(body: impl Future<Output = ()>) {
    limited(LIMIT, || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(body);
    });
}

/// Runs FFmpeg to make something.
fn make(arguments: &[&str], input: Option<&Path>, output: &Path) {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]);
    if let Some(input) = input {
        command.arg("-i").arg(input);
    }
    let made = command.args(arguments).arg(output).status().expect("ffmpeg");
    assert!(made.success(), "{arguments:?}");
}

/// A film of some seconds: video, audio, subtitles and chapters.
fn film(work: &Work, name: &str) -> PathBuf {
    let path = work.path().join(name);
    let notes = work.path().join("notes.txt");
    let chapters = ";FFMETADATA1\ntitle=Secret title\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=5\ntitle=First\n";
    fs::write(&notes, chapters).expect("chapters");
    let cues = work.path().join("cues.srt");
    fs::write(&cues, "1\n00:00:01,000 --> 00:00:02,000\nA cue.\n").expect("cues");
    let (notes, cues) = (notes.to_string_lossy(), cues.to_string_lossy());
    let source = "testsrc=size=320x180:rate=24:duration=10";
    let tone = "sine=duration=10:sample_rate=48000";
    #[rustfmt::skip]
    let arguments = [
        "-f", "lavfi", "-i", source, "-f", "lavfi", "-i", tone, "-i", &cues, "-i", &notes,
        "-map", "0", "-map", "1", "-map", "2", "-map_metadata", "3", "-map_chapters", "3",
        "-c:v", "libx264", "-preset", "ultrafast", "-g", "48", "-c:a", "aac",
    ];
    make(&arguments, None, &path);
    path
}

fn job(input: &Path, demuxer: &'static str, encodings: &[Encoding]) -> Job {
    let outputs = encodings.iter().enumerate();
    Job {
        input: input.to_owned(),
        demuxer,
        start: None,
        outputs: outputs
            .map(|(stream, encoding)| Output {
                stream,
                encoding: *encoding,
            })
            .collect(),
    }
}

const VIDEO: Encoding = Encoding::CopyVideo { tag: None };
const ALL: [Encoding; 3] = [VIDEO, Encoding::CopyAudio, Encoding::WebVtt];

async fn read_all(run: &mut Run) -> Vec<Vec<u8>> {
    let reads = std::mem::take(&mut run.outputs).into_iter().map(|mut pipe| async move {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).await.expect("an output");
        bytes
    });
    futures_util::future::join_all(reads).await
}

/// All that comes of a job: its outputs, its end and its last words.
async fn outcome(options: &LauncherOptions, job: &Job) -> (Vec<Vec<u8>>, Ended, String) {
    let mut run = launcher(options.clone()).run(job).await.expect("a run");
    let outputs = read_all(&mut run).await;
    let ended = run.ended().await;
    (outputs, ended, run.last_words())
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn fifo(work: &Work) -> PathBuf {
    let path = work.path().join("fifo.mkv");
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    path
}

fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whether this process has that file open for all that it starts.
fn is_inherited(number: u32) -> bool {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    number > 5 && flags.is_some_and(|flags| flags & 0o2_000_000 == 0)
}

/// A field of `/proc/<pid>/status`.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

#[test]
fn a_confined_ffmpeg_does_its_work_as_a_free_one_does() {
    within_limit(async {
        let work = Work::new();
        for (name, demuxer) in [("Film.mkv", "matroska"), ("Film.mp4", "mov")] {
            let path = film(&work, "made.mkv");
            let path = if demuxer == "mov" {
                let mp4 = work.path().join(name);
                make(&["-map", "0", "-c", "copy", "-c:s", "mov_text"], Some(&path), &mp4);
                mp4
            } else {
                path
            };
            let job = job(&path, demuxer, &ALL);
            let kept_in = outcome(&confined(), &job).await;
            let free = outcome(&LauncherOptions::unconfined(), &job).await;
            assert_eq!((&kept_in.1, kept_in.2.as_str()), (&Ended::Finished, ""));
            assert!(kept_in == free, "{name}: other bytes");
            assert!(contains(&kept_in.0[2], b"A cue."));
            // A track of chapters would be a second one, and a title a stranger's text.
            let video = &kept_in.0[0];
            assert_eq!(video.windows(4).filter(|name| name == b"trak").count(), 1, "{name}");
            assert!(!contains(video, b"Secret title"));
        }
    });
}

#[test]
fn a_confined_ffmpeg_has_its_input_its_pipes_and_nothing_else() {
    within_limit(async {
        let work = Work::new();
        let path = fifo(&work);
        let run = launcher(confined())
            .run(&job(&path, "matroska", &ALL))
            .await
            .expect("a run");
        let pid = run.pid;
        let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        eventually("it becomes FFmpeg", Duration::from_secs(20), || {
            (comm() == "ffmpeg\n" && status(pid, "Seccomp") == "2").then_some(())
        });
        // A writer lets it open the pipe, and gives it nothing to read.
        let writer = fs::OpenOptions::new().write(true).open(&path).expect("it reads it");
        let files = || -> Vec<(u32, PathBuf)> {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("its files").flatten();
            let named = entries.filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                Some((number, fs::read_link(entry.path()).ok()?))
            });
            named.collect()
        };
        eventually(
            "the pid is the one that opens the input",
            Duration::from_secs(20),
            || files().iter().any(|(_, target)| *target == path).then_some(()),
        );
        let mut files = files();
        // What whoever started the tests has left open for everything below it.
        files.retain(|(number, _)| !is_inherited(*number));
        files.sort();
        for (number, target) in &files {
            let expected = match number {
                0 | 1 => target == Path::new("/dev/null"),
                2..=5 => target.to_string_lossy().starts_with("pipe:"),
                _ => *target == path,
            };
            assert!(expected, "{files:?}");
        }
        assert_eq!(files.len(), 7, "{files:?}");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        // At most the right to read what belongs to others.
        let capabilities = u64::from_str_radix(&status(pid, "CapPrm"), 16).expect("a number");
        assert_eq!(capabilities & !(1 << 2), 0, "{capabilities:x}");
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
        let group = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(2));
        assert_eq!(group, Some(pid.to_string().as_str()));
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let limit = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().nth(1)).map(str::to_owned)
        };
        assert_eq!(limit("Max core file size").as_deref(), Some("0"));
        assert_eq!(limit("Max file size").as_deref(), Some("0"));
        assert_eq!(limit("Max open files").as_deref(), Some("64"));
        assert_eq!(limit("Max data size"), Some(Limits::default().memory.to_string()));
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("an environment");
        assert!(!contains(&environment, b"HOME") && !contains(&environment, b"PATH"));
        drop(writer);
    });
}

#[test]
fn a_confined_run_fails_with_words_and_is_killed_while_it_waits() {
    within_limit(async {
        let work = Work::new();
        let noise = work.path().join("noise.mkv");
        fs::write(&noise, [7; 4096]).expect("noise");
        let failed = |ended: Ended, part: &str| {
            let Ended::Failed { last_words, .. } = ended else {
                panic!("{ended:?}")
            };
            assert!(last_words.contains(part), "{last_words}");
        };
        failed(
            outcome(&confined(), &job(&noise, "matroska", &[VIDEO])).await.1,
            "Invalid data",
        );
        let nowhere = job(Path::new("/nowhere/Film.mkv"), "matroska", &[VIDEO]);
        failed(outcome(&confined(), &nowhere).await.1, "No such file");
        let starved = LauncherOptions {
            limits: Limits {
                memory: 1 << 20,
                ..Limits::default()
            },
            ..confined()
        };
        let fine = film(&work, "Film.mkv");
        let ended = outcome(&starved, &job(&fine, "matroska", &[VIDEO])).await.1;
        assert!(matches!(ended, Ended::Failed { .. }), "{ended:?}");
        let mut run = launcher(confined())
            .run(&job(&fifo(&work), "matroska", &[VIDEO]))
            .await
            .expect("a run");
        let stuck = tokio::time::timeout(Duration::from_millis(300), run.ended()).await;
        assert!(stuck.is_err(), "{stuck:?}");
        run.kill();
        let ended = tokio::time::timeout(Duration::from_secs(1), run.ended()).await;
        assert_eq!(ended, Ok(Ended::Killed));
    });
}

/// What holds does not hang on FFmpeg's own refusals: a program that opens whatever it is told gets nothing either.
#[test]
fn a_confined_program_reads_its_input_and_no_other_file() {
    limited(LIMIT, || {
        let work = Work::new();
        let (input, secret) = (work.path().join("input"), work.path().join("secret"));
        fs::write(&input, "the input\n").expect("a file");
        fs::write(&secret, "the secret\n").expect("a file");
        let rules = Rules {
            parent: std::process::id(),
            input: input.clone(),
            memory: 512 << 20,
            files: 64,
        };
        let confine = |rules: &Rules, line: &[&str]| {
            let mut command = Command::new(PROGRAM);
            command.args(rules.arguments()).arg("--").args(line);
            command.stdin(Stdio::null()).output().expect("our program")
        };
        let [input, secret] = [&input, &secret].map(|path| path.to_str().expect("a plain name"));
        let read = confine(
            &rules,
            &["/bin/cat", input, secret, "/etc/passwd", "/proc/self/environ"],
        );
        assert_eq!(String::from_utf8_lossy(&read.stdout), "the input\n");
        let complaints = String::from_utf8_lossy(&read.stderr).into_owned();
        assert_eq!(complaints.matches("Permission denied").count(), 3, "{complaints}");
        // It starts no other program: the shell is let in, `cat` and `ls` are not.
        let shell = confine(
            &rules,
            &["/bin/sh", "-c", "echo begun; /bin/cat \"$0\"; exec /bin/ls /", input],
        );
        assert_eq!(String::from_utf8_lossy(&shell.stdout), "begun\n");
        let orphan = Rules {
            parent: 1,
            ..rules.clone()
        };
        let refused = confine(&orphan, &["/bin/cat", input]);
        assert!(!refused.status.success() && refused.stdout.is_empty());
        let missing = confine(&rules, &["/nowhere/ffmpeg"]);
        assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/ffmpeg cannot be confined"));
    });
}

/// "A playlist or an MP4 that names other files copies nothing of them."
#[test]
fn a_playlist_in_disguise_copies_nothing_of_another_file() {
    within_limit(async {
        let work = Work::new();
        let secret = work.path().join("secret.ts");
        make(
            &["-map", "0:v", "-c", "copy", "-t", "5"],
            Some(&film(&work, "made.mkv")),
            &secret,
        );
        let list = format!(
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:6\n#EXTINF:5.0,\n{}\n#EXT-X-ENDLIST\n",
            secret.display()
        );
        let script = "ffconcat version 1.0\nfile secret.ts\n".to_owned();
        for (name, text) in [("list.mkv", list), ("script.mkv", script)] {
            let disguised = work.path().join(name);
            fs::write(&disguised, text).expect("a file");
            // Left to itself, FFmpeg does copy: else this would show nothing.
            let copied = work.path().join("copied.mkv");
            make(&["-map", "0:v", "-c", "copy"], Some(&disguised), &copied);
            assert!(fs::metadata(&copied).expect("a copy").len() > 10_000, "{name}");
            for options in [confined(), LauncherOptions::unconfined()] {
                for demuxer in ["matroska", "mov"] {
                    let (outputs, ended, _) = outcome(&options, &job(&disguised, demuxer, &[VIDEO])).await;
                    assert!(outputs[0].is_empty(), "{name} as {demuxer}: {options:?}");
                    assert!(matches!(ended, Ended::Failed { .. }), "{name}: {ended:?}");
                }
            }
        }
    });
}

/// "An MP4 with external references copies nothing of another file."
#[test]
fn external_references_of_an_mp4_are_not_followed() {
    within_limit(async {
        let work = Work::new();
        let made = film(&work, "made.mkv");
        let plain = work.path().join("plain.mp4");
        // Of AAC FFmpeg copies any samples, whatever is in them.
        make(&["-map", "0:a", "-c", "copy"], Some(&made), &plain);
        let mut plain = fs::read(plain).expect("a film");
        // The other file has a secret wherever the samples would be.
        let secret = b"SECRET! ".repeat(plain.len() / 8 + 1);
        let other = work.path().join("other.bin");
        fs::write(&other, &secret).expect("a secret");
        // And in the film itself there are none.
        let samples = find(&plain, b"mdat") + 4;
        let end = samples - 8 + size(&plain, samples - 8);
        plain[samples..end].fill(0);
        let other = other.to_str().expect("a plain name");
        let references = [
            ("url.mp4", url_entry(&format!("file://{other}"))),
            ("alias.mp4", alias_entry(other)),
        ];
        for (name, entry) in references {
            let path = work.path().join(name);
            fs::write(&path, with_reference(&plain, &entry)).expect("a file");
            if name == "alias.mp4" {
                // Told to follow it, FFmpeg does: else this would show nothing.
                let followed = Command::new("ffmpeg")
                    .args([
                        "-v",
                        "error",
                        "-nostdin",
                        "-enable_drefs",
                        "1",
                        "-use_absolute_path",
                        "1",
                        "-i",
                    ])
                    .arg(&path)
                    .args(["-c", "copy", "-f", "matroska", "pipe:1"])
                    .output()
                    .expect("ffmpeg");
                assert!(contains(&followed.stdout, b"SECRET!"));
            }
            for options in [confined(), LauncherOptions::unconfined()] {
                let (outputs, ended, words) = outcome(&options, &job(&path, "mov", &[Encoding::CopyAudio])).await;
                assert!(!contains(&outputs[0], b"SECRET!"), "{name}: {options:?}");
                assert!(ended != Ended::Killed, "{words}");
            }
        }
    });
}

fn find(bytes: &[u8], name: &[u8; 4]) -> usize {
    bytes.windows(4).position(|window| window == name).expect("a box")
}

/// The size of the box that begins here.
fn size(bytes: &[u8], start: usize) -> usize {
    u32::from_be_bytes(bytes[start..start + 4].try_into().expect("four bytes")) as usize
}

fn entry(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(12 + payload.len()).expect("a small entry");
    [&length.to_be_bytes(), &kind[..], &[0; 4], payload].concat()
}

/// ISO/IEC 14496-12, 8.7.2: a URL, not "in this file".
fn url_entry(url: &str) -> Vec<u8> {
    entry(b"url ", format!("{url}\0").as_bytes())
}

/// QuickTime's alias record, with the absolute path as FFmpeg reads it.
fn alias_entry(path: &str) -> Vec<u8> {
    let mut record = vec![0; 10];
    record.push(0);
    record.extend([0; 27 + 12]);
    let name = b"other.bin";
    record.push(name.len() as u8);
    record.extend(name);
    record.resize(record.len() + 63 - name.len() + 16, 0);
    record.extend([0, 1, 0, 1]);
    record.extend([0; 16]);
    let path = path.as_bytes();
    record.extend([0, 2, 0, u8::try_from(path.len()).expect("a short path")]);
    record.extend(path);
    if path.len() % 2 == 1 {
        record.push(0);
    }
    record.extend([0xff, 0xff, 0, 0]);
    entry(b"alis", &record)
}

/// The film with this data reference in place of its only one. Its index comes last, so no sample moves.
fn with_reference(film: &[u8], entry: &[u8]) -> Vec<u8> {
    assert!(find(film, b"mdat") < find(film, b"moov"));
    let mut film = film.to_vec();
    let first = find(&film, b"dref") + 12;
    assert_eq!(&film[first + 4..first + 8], b"url ");
    let before = size(&film, first);
    film.splice(first..first + before, entry.iter().copied());
    for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"] {
        let start = find(&film, name) - 4;
        let grown = u32::try_from(size(&film, start) + entry.len() - before).expect("a small box");
        film[start..start + 4].copy_from_slice(&grown.to_be_bytes());
    }
    film
}

/// Not a test: what the next one starts as a process of its own.
#[test]
fn launches_when_it_is_told_to() {
    let Some(path) = std::env::var_os(LAUNCH) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut run = launcher(confined())
            .run(&job(Path::new(&path), "matroska", &[VIDEO]))
            .await
            .expect("a run");
        println!("\nlaunched {}", run.pid);
        run.ended().await;
    });
}

#[test]
fn kill_9_of_who_launched_leaves_no_ffmpeg() {
    limited(LIMIT, || {
        let work = Work::new();
        let mut daemon = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "containment::launches_when_it_is_told_to", "--nocapture"])
            .env(LAUNCH, fifo(&work))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a daemon");
        let _registration = Registration::of(Held::Process(daemon.id()));
        let lines = BufReader::new(daemon.stdout.take().expect("its stdout")).lines();
        let pid: u32 = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("launched ")?.parse().ok())
            .expect("it launches");
        let comm = || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        eventually("it becomes FFmpeg", Duration::from_secs(20), || {
            (comm() == "ffmpeg\n").then_some(())
        });
        kill(daemon.id(), Signal::KILL);
        daemon.wait().expect("it ends");
        eventually("FFmpeg ends", Duration::from_secs(2), || {
            (!is_running(pid)).then_some(())
        });
    });
}
