//! Films made by FFmpeg, and their torrents: made once for all tests and runs, and kept below the build directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::run;
use super::torrents::{Torrent, info_hash_of, metainfo_of};

/// A container as a player meets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Film {
    /// MP4 whose index comes first.
    Mp4IndexFirst,
    /// MP4 whose index comes last.
    Mp4IndexLast,
    Matroska,
    Avi,
    WebM,
}

impl Film {
    /// The name of the file.
    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Mp4IndexFirst => "index-first.mp4",
            Self::Mp4IndexLast => "index-last.mp4",
            Self::Matroska => "film.mkv",
            Self::Avi => "film.avi",
            Self::WebM => "film.webm",
        }
    }

    /// Its length in seconds, rounded down. Noise at 20 Mbit/s makes that 300 MB; VP8 keeps below what it is told.
    pub(crate) const fn seconds(self) -> u32 {
        match self {
            Self::WebM => 110,
            _ => 120,
        }
    }

    /// Ten seconds of the film, encoded; the film is this many times over.
    fn scene(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Mp4IndexFirst | Self::Mp4IndexLast | Self::Matroska => (
                "scene.mkv",
                &[
                    "-c:v",
                    "libx264",
                    "-preset",
                    "ultrafast",
                    "-pix_fmt",
                    "yuv420p",
                    "-c:a",
                    "aac",
                ],
            ),
            Self::Avi => ("scene.avi", &["-c:v", "mpeg4", "-c:a", "mp3"]),
            Self::WebM => (
                "scene.webm",
                &[
                    "-c:v",
                    "libvpx",
                    "-deadline",
                    "realtime",
                    "-cpu-used",
                    "8",
                    "-c:a",
                    "libopus",
                ],
            ),
        }
    }
}

/// The film and its torrent, with pieces of 1 MiB, as films of this size have.
pub(crate) fn film(film: Film) -> Torrent {
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = cache();
    let path = directory.join(film.file_name());
    let (scene, encoding) = film.scene();
    made_once(&directory.join(scene), |scene| {
        let seconds = "10";
        let picture = format!("testsrc2=s=640x360:r=25:d={seconds},noise=alls=60:allf=t");
        let sound = format!("sine=440:d={seconds}");
        ffmpeg(|command| {
            command.args(["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound]);
            command
                .args(encoding)
                .args(["-b:v", "20M", "-g", "50", "-shortest"])
                .arg(scene);
        });
    });
    made_once(&path, |path| {
        ffmpeg(|command| {
            command
                .args(["-stream_loop", "11", "-i"])
                .arg(directory.join(scene))
                .args(["-c", "copy"]);
            if film == Film::Mp4IndexFirst {
                command.args(["-movflags", "+faststart"]);
            }
            command.arg(path);
        });
    });
    torrent_of(film.file_name(), 1 << 20)
}

/// The torrent of a file that is kept.
pub(crate) fn torrent_of(file_name: &str, piece_length: u64) -> Torrent {
    let directory = cache();
    let path = directory.join(file_name);
    let torrent = directory.join(format!("{file_name}.torrent"));
    made_once(&torrent, |torrent| {
        fs::write(torrent, metainfo_of(&path, piece_length).0).expect("the torrent of a film");
    });
    let info_hash = info_hash_of(&fs::read(&torrent).expect("the torrent of a film"));
    Torrent {
        path: torrent,
        directory,
        name: file_name.to_owned(),
        info_hash,
    }
}

/// Where films are kept: beside what `cargo` builds, so that `cargo clean` takes them too.
pub(crate) fn cache() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-media");
    fs::create_dir_all(&directory).expect("a directory for films");
    directory
}

/// Makes a file under another name first, so that a half-made one is never taken for it.
pub(crate) fn made_once(path: &Path, make: impl FnOnce(&Path)) {
    if path.exists() {
        return;
    }
    let name = path.file_name().expect("a file name").to_string_lossy();
    let unfinished = path.with_file_name(format!("unfinished-{name}"));
    make(&unfinished);
    fs::rename(&unfinished, path).expect("a place for what was made");
}

pub(crate) fn ffmpeg(arguments: impl FnOnce(&mut Command)) {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y"]);
    arguments(&mut command);
    run(&mut command, Duration::from_secs(120)).ok();
}
