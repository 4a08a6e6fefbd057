//! `magnetfs demo`: the main job, shown on a film that it makes and seeds itself.
//!
//! Everything lies in one temporary folder. The mount is the real program in a process of its own, so this process may
//! look at paths below the mount point only through other programs, as a person would.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::daemon::Signals;
use crate::torrents::Seeder;

/// One clip is encoded and repeated, since encoding four minutes would be most of the demo.
const CLIP_SECONDS: u32 = 12;
const CLIPS: u32 = 20;
const PIECE_LENGTH: u32 = 256 * 1024;
/// 16 Mbit/s, an ordinary slow line, for a film of about 5 Mbit/s.
const LINE_BYTES_PER_SECOND: u32 = 2_000_000;
/// How long one part of the demo may take before it is called a fault.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// What the daemon is given to unmount before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Runs the demo: until Ctrl-C, SIGTERM or SIGHUP, or with `once` until it has shown everything. All that it made is
/// removed.
///
/// # Errors
/// ffmpeg is missing, or a step failed; the message says which.
pub async fn run(once: bool) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new()
        .prefix("magnetfs-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let mut signals = Signals::new().context("Ctrl-C cannot be watched")?;
    let mut mount = None;
    let shown = tokio::select! {
        shown = show(&folder, &mut mount, once) => shown,
        _ = signals.first() => Ok(()),
    };
    if let Some(mount) = mount {
        say("", "Unmounting, and removing everything that this demo made.");
        mount.stop().await?;
    }
    folder.close().context("the demo's folder could not be removed")?;
    shown
}

async fn show(folder: &TempDir, mount: &mut Option<Daemon>, once: bool) -> anyhow::Result<()> {
    let film = folder.path().join("seeder/Film.mkv");
    let length_s = CLIP_SECONDS * CLIPS;
    say(
        "1.",
        &format!("Making a film of {} minutes with FFmpeg.", length_s / 60),
    );
    let size = make_film(folder.path(), &film).await?;
    note(&format!(
        "{}, {:.1} Mbit/s",
        human(size),
        size as f64 * 8.0 / 1e6 / f64::from(length_s)
    ));

    say(
        "2.",
        "Seeding it from a second BitTorrent client, which sends no more than 16 Mbit/s.",
    );
    let rate = NonZeroU32::new(LINE_BYTES_PER_SECOND).context("the line has no rate")?;
    let seeder = Seeder::start(&film, PIECE_LENGTH, rate).await?;
    let torrent = folder.path().join("Film.torrent");
    tokio::fs::write(&torrent, seeder.metainfo())
        .await
        .context("the .torrent file cannot be written")?;
    note(&format!(
        "at this rate the whole film takes {} s",
        size / u64::from(LINE_BYTES_PER_SECOND)
    ));

    say("3.", "Mounting the torrent. Nothing is downloaded yet.");
    let mountpoint = folder.path().join("mount");
    tokio::fs::create_dir(&mountpoint)
        .await
        .context("the mount point cannot be made")?;
    let daemon = mount.insert(Daemon::start(folder.path(), &mountpoint, &torrent, &seeder)?);
    daemon.mounted().await?;
    let path = mountpoint.join("Film.mkv");
    output(Command::new("ls").arg("-lh").arg(&mountpoint)).await?;

    say("4.", "Playing the first 4 seconds from the path, with stock FFmpeg.");
    play(&path, 0, &seeder, size).await?;
    let middle = length_s / 2;
    say(
        "5.",
        &format!("Seeking to minute {} and playing 4 seconds there.", middle / 60),
    );
    play(&path, middle, &seeder, size).await?;

    say(
        "6.",
        "The same film over HTTP, for a browser or a TV: the whole timeline at once, each segment when it is asked for.",
    );
    let page = daemon.page().await?;
    note(&format!("the page: {page}"));
    watch(&page, &daemon.info_hash().await?, middle + 60, &seeder, size).await?;

    say("7.", "What the library says:");
    output(daemon.client().arg("list")).await?;
    output(Command::new("du").arg("-h").arg("--apparent-size").arg(&path)).await?;
    output(Command::new("du").arg("-h").arg(&path)).await?;
    note("the first is the file's size, the second what is really here");

    if !once {
        say("", "The mount stays up until Ctrl-C. In another terminal, try:");
        note(&format!("mpv {}", path.display()));
        note(&format!("ffplay -ss 200 {}", path.display()));
        note(&format!("a browser on {page}"));
        daemon.process.wait().await.context("the mount cannot be waited for")?;
        say("", "The mount ended.");
    }
    seeder.stop().await;
    Ok(())
}

/// Encodes a clip, with noise so that it has the rate of a real film, and repeats it. Gives the film's bytes.
async fn make_film(folder: &Path, film: &Path) -> anyhow::Result<u64> {
    let clip = folder.join("clip.mkv");
    let seconds = CLIP_SECONDS.to_string();
    let picture = format!("testsrc2=size=1280x720:rate=24:duration={seconds},noise=alls=12:allf=t");
    let tone = format!("sine=frequency=440:sample_rate=48000:duration={seconds}");
    if let Some(parent) = film.parent() {
        tokio::fs::create_dir(parent)
            .await
            .context("the seeder's folder cannot be made")?;
    }
    quiet(
        Command::new("ffmpeg")
            .args([
                "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone,
            ])
            .args([
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-g",
                "48",
                "-pix_fmt",
                "yuv420p",
            ])
            .args([
                "-b:v",
                "5M",
                "-maxrate",
                "5M",
                "-bufsize",
                "5M",
                "-c:a",
                "aac",
                "-shortest",
            ])
            .arg(&clip),
    )
    .await?;
    quiet(
        Command::new("ffmpeg")
            .args([
                "-v",
                "error",
                "-nostdin",
                "-y",
                "-stream_loop",
                &(CLIPS - 1).to_string(),
                "-i",
            ])
            .arg(&clip)
            .args(["-c", "copy"])
            .arg(film),
    )
    .await?;
    tokio::fs::remove_file(&clip)
        .await
        .context("the clip cannot be removed")?;
    Ok(tokio::fs::metadata(film).await.context("FFmpeg made no film")?.len())
}

/// Copies four seconds from `at_s` on, and says how long that took and what it cost.
async fn play(path: &Path, at_s: u32, seeder: &Seeder, size: u64) -> anyhow::Result<()> {
    let before = seeder.uploaded();
    let start = Instant::now();
    let position = at_s.to_string();
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]);
    if at_s > 0 {
        command.args(["-ss", &position]);
    }
    command
        .arg("-i")
        .arg(path)
        .args(["-t", "4", "-c", "copy", "-f", "null", "-"]);
    echo(&command);
    quiet(&mut command).await?;
    let took_s = start.elapsed().as_secs_f64();
    let fetched = seeder.uploaded() - before;
    let share = seeder.uploaded() as f64 * 100.0 / size as f64;
    note(&format!(
        "{took_s:.1} s, {} downloaded for it; {share:.0} % of the film so far",
        human(fetched)
    ));
    Ok(())
}

/// Fetches what a player fetches first, and a segment after a seek, and says what each took and cost.
async fn watch(page: &str, info_hash: &str, seek_s: u32, seeder: &Seeder, size: u64) -> anyhow::Result<()> {
    let client = reqwest::Client::builder()
        .timeout(STEP_LIMIT)
        .build()
        .context("no HTTP client")?;
    let base = format!("{page}hls/{info_hash}/Film.mkv/");
    let master = fetch(&client, &base, "master.m3u8", seeder, size).await?;
    let media = fetch(&client, &base, uri(&master)?, seeder, size).await?;
    let segments = segments(&media);
    let length_s = segments.last().map_or(0.0, |(end_s, _)| *end_s);
    note(&format!(
        "{} segments, {length_s:.0} s: all of the film",
        segments.len()
    ));
    for at_s in [0.0, f64::from(seek_s)] {
        let Some((_, segment)) = segments.iter().find(|(end_s, _)| *end_s > at_s) else {
            bail!("the playlist ends before {at_s} s");
        };
        fetch(&client, &base, segment, seeder, size).await?;
    }
    Ok(())
}

/// The first URI of a playlist.
fn uri(playlist: &str) -> anyhow::Result<&str> {
    let uri = playlist.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
    uri.context("a playlist names nothing")
}

/// When each segment of a media playlist ends, in seconds, and its URI.
fn segments(playlist: &str) -> Vec<(f64, &str)> {
    let mut end_s = 0.0;
    let mut segments = Vec::new();
    for line in playlist.lines() {
        if let Some(length) = line.strip_prefix("#EXTINF:") {
            end_s += length.trim_end_matches(',').parse().unwrap_or(0.0);
        } else if !line.is_empty() && !line.starts_with('#') {
            segments.push((end_s, line));
        }
    }
    segments
}

async fn fetch(client: &reqwest::Client, base: &str, name: &str, seeder: &Seeder, size: u64) -> anyhow::Result<String> {
    let before = seeder.uploaded();
    let start = Instant::now();
    let answer = client.get(format!("{base}{name}")).send().await?.error_for_status()?;
    let body = answer.bytes().await?;
    let took_s = start.elapsed().as_secs_f64();
    let share = seeder.uploaded() as f64 * 100.0 / size as f64;
    note(&format!(
        "GET {name}: {} in {took_s:.1} s, {} downloaded for it; {share:.0} % of the film so far",
        human(body.len() as u64),
        human(seeder.uploaded() - before)
    ));
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// The mount, in a process of its own.
struct Daemon {
    process: Child,
    program: PathBuf,
    data: PathBuf,
    socket: PathBuf,
}

impl Daemon {
    /// Starts it; whoever has this can stop it in order from now on.
    fn start(folder: &Path, mountpoint: &Path, torrent: &Path, seeder: &Seeder) -> anyhow::Result<Daemon> {
        let program = std::env::current_exe().context("this program's own path is unknown")?;
        let data = folder.join("data");
        let socket = folder.join("socket");
        let mut command = Command::new(&program);
        command.arg("mount").arg(mountpoint).arg(torrent);
        command.arg("--peer").arg(seeder.address().to_string());
        command.args([
            "--listen",
            "off",
            "--dht",
            "off",
            "--lsd",
            "off",
            "--upnp",
            "off",
            "--trackers",
            "off",
        ]);
        command.arg("--data-dir").arg(&data).arg("--socket").arg(&socket);
        command.args(["--http", "127.0.0.1:0", "--log-level", "warn"]);
        echo(&command);
        // A group of its own: Ctrl-C on the terminal is for the demo, which then stops the mount in order.
        command
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Ok(Daemon {
            process: command.spawn().context("the mount does not start")?,
            program,
            data,
            socket,
        })
    }

    /// Waits for its word that it is mounted.
    async fn mounted(&mut self) -> anyhow::Result<()> {
        let output = self.process.stdout.take().context("the mount has no output")?;
        let mut lines = BufReader::new(output).lines();
        match tokio::time::timeout(STEP_LIMIT, lines.next_line()).await {
            Ok(Ok(Some(line))) if line.starts_with("mounted") => Ok(()),
            _ => bail!("the mount did not come up: `magnetfs doctor` says what is missing"),
        }
    }

    /// The client's side of the program, for this mount.
    fn client(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--socket")
            .arg(&self.socket);
        command
    }

    /// Where its page is.
    async fn page(&self) -> anyhow::Result<String> {
        let status = self.json("status").await?;
        let address = status["http"].as_str().context("the mount serves no HTTP")?;
        Ok(format!("http://{address}/"))
    }

    /// The film's info hash.
    async fn info_hash(&self) -> anyhow::Result<String> {
        let list = self.json("list").await?;
        let info_hash = list[0]["info_hash"].as_str().context("the mount lists no film")?;
        Ok(info_hash.to_owned())
    }

    async fn json(&self, command: &str) -> anyhow::Result<serde_json::Value> {
        let text = finish(self.client().args([command, "--json"]).stdin(Stdio::null())).await?;
        serde_json::from_str(&text).with_context(|| format!("`magnetfs {command} --json` prints no JSON"))
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        let Some(id) = self
            .process
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        else {
            return Ok(());
        };
        // It may have ended by itself just now; then there is nothing to end.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        if tokio::time::timeout(STOP_LIMIT, self.process.wait()).await.is_err() {
            self.process.kill().await.context("the mount cannot be killed")?;
            bail!(
                "the mount did not stop within {} s and was killed",
                STOP_LIMIT.as_secs()
            );
        }
        Ok(())
    }
}

/// Runs a program, shows the command and what it prints.
async fn output(command: &mut Command) -> anyhow::Result<()> {
    echo(command);
    let output = finish(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .await?;
    for line in output.lines() {
        note(line);
    }
    Ok(())
}

/// Runs a program for its effect.
async fn quiet(command: &mut Command) -> anyhow::Result<()> {
    finish(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    )
    .await
    .map(drop)
}

async fn finish(command: &mut Command) -> anyhow::Result<String> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let running = command.kill_on_drop(true).output();
    let output = match tokio::time::timeout(STEP_LIMIT, running).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("{name} is not installed; on Debian: apt-get install ffmpeg coreutils")
        }
        Ok(Err(error)) => return Err(error).with_context(|| format!("{name} does not start")),
        Err(_) => bail!("{name} took over {} s", STEP_LIMIT.as_secs()),
    };
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn echo(command: &Command) {
    let command = command.as_std();
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program());
    let mut line = format!("$ {}", program.to_string_lossy());
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    note(&line);
}

fn say(number: &str, text: &str) {
    let line = if number.is_empty() {
        format!("\n{text}\n")
    } else {
        format!("\n{number} {text}\n")
    };
    print(&line);
}

fn note(text: &str) {
    print(&format!("   {text}\n"));
}

/// A reader of the output that went away is no reason to leave the mount behind.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn human(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
