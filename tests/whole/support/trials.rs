//! Short films in every way of making one that the sidecar has to copy exactly: made once, kept below the build
//! directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::media::{cache, ffmpeg, made_once, torrent_of};
use super::run;
use super::torrents::Torrent;

/// Seconds of picture in every one of them.
pub(crate) const SECONDS: u32 = 60;

/// A way of making a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trial {
    Mp4IndexFirst,
    Mp4IndexLast,
    /// Cut out of another film between two keyframes: it has an edit list, and pictures before its beginning.
    Mp4EditList,
    Matroska,
    MatroskaByMkvmerge,
    /// Its first picture is at 1.358 s.
    MatroskaLateStart,
    Vp9Opus,
    Av1,
    Hevc,
    /// Pictures that come before a keyframe, but after it in the file.
    OpenGop,
    /// A keyframe every 10 s.
    LongGop,
    /// Pictures are missing here and there.
    VariableFrameRate,
    /// Two audio tracks and three of subtitles.
    ManyTracks,
    /// [`CROWD`] audio tracks, and twice as many of subtitles.
    Crowd,
    /// AAC of 44.1 kHz, whose frames are no whole milliseconds.
    Aac44100,
    /// AC-3 beside AAC.
    Ac3,
    /// Vorbis beside AAC, which no player of HLS takes.
    Vorbis,
}

impl Trial {
    fn file_name(self) -> &'static str {
        match self {
            Self::Mp4IndexFirst => "trial-index-first.mp4",
            Self::Mp4IndexLast => "trial-index-last.mp4",
            Self::Mp4EditList => "trial-edit-list.mp4",
            Self::Matroska => "trial-matroska.mkv",
            Self::MatroskaByMkvmerge => "trial-mkvmerge.mkv",
            Self::MatroskaLateStart => "trial-late-start.mkv",
            Self::Vp9Opus => "trial-vp9.webm",
            Self::Av1 => "trial-av1.mkv",
            Self::Hevc => "trial-hevc.mp4",
            Self::OpenGop => "trial-open-gop.mkv",
            Self::LongGop => "trial-long-gop.mp4",
            Self::VariableFrameRate => "trial-variable.mkv",
            Self::ManyTracks => "trial-tracks.mkv",
            Self::Crowd => "trial-crowd.mkv",
            Self::Aac44100 => "trial-44100.mkv",
            Self::Ac3 => "trial-ac3.mkv",
            Self::Vorbis => "trial-vorbis.mkv",
        }
    }

    /// The film and its torrent, with pieces of 256 KiB.
    pub(crate) fn torrent(self) -> Torrent {
        static MAKING: Mutex<()> = Mutex::new(());
        let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = cache().join(self.file_name());
        made_once(&path, |path| self.make(path));
        torrent_of(self.file_name(), 256 << 10)
    }

    fn make(self, path: &Path) {
        match self {
            Self::Mp4IndexFirst => encode(path, 48_000, "", &[H264, AAC, &["-movflags", "+faststart"]]),
            Self::Mp4IndexLast | Self::Matroska => encode(path, 48_000, "", &[H264, AAC]),
            Self::Mp4EditList => {
                let whole = material();
                ffmpeg(|command| {
                    command
                        .args(["-ss", "3.7", "-i"])
                        .arg(whole)
                        .args(["-c", "copy"])
                        .arg(path);
                });
            }
            Self::MatroskaByMkvmerge => mkvmerge(path, &material()),
            Self::MatroskaLateStart => {
                let whole = material();
                ffmpeg(|command| {
                    command
                        .arg("-i")
                        .arg(whole)
                        .args(["-c", "copy", "-output_ts_offset", "1.358"])
                        .arg(path);
                });
            }
            Self::Vp9Opus => encode(path, 48_000, "", &[VP9, OPUS]),
            Self::Av1 => encode(path, 48_000, "", &[AV1, OPUS]),
            Self::Hevc => encode(path, 48_000, "", &[HEVC, AAC]),
            Self::OpenGop => encode(
                path,
                48_000,
                "",
                &[
                    H264,
                    &[
                        "-x264-params",
                        "open-gop=1:keyint=50:min-keyint=50:bframes=3:scenecut=0",
                    ],
                    AAC,
                ],
            ),
            Self::LongGop => encode(path, 48_000, "", &[H264, &["-g", "250"], AAC]),
            Self::VariableFrameRate => encode(
                path,
                48_000,
                ",select='not(between(mod(n\\,7)\\,3\\,4))'",
                &[H264, &["-fps_mode", "vfr"], AAC],
            ),
            Self::ManyTracks => many_tracks(path),
            Self::Crowd => crowd(path),
            Self::Aac44100 => encode(path, 44_100, "", &[H264, AAC]),
            Self::Ac3 => second_sound(path, &["ac3", "-b:a:1", "192k"]),
            Self::Vorbis => second_sound(path, &["libvorbis", "-metadata:s:a:1", "title=Kommentar"]),
        }
    }
}

/// Eight minutes at 5 Mbit/s: a film as it is watched over a line of 8.
pub(crate) fn watched(index_last: bool) -> Torrent {
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = cache().join("watched-scene.mkv");
    made_once(&scene, |scene| {
        let picture = "testsrc2=s=640x360:r=25:d=20,noise=alls=40:allf=t";
        ffmpeg(|command| {
            command.args(["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", "sine=440:d=20"]);
            command.args([
                "-c:v",
                "libx264",
                "-preset",
                "ultrafast",
                "-pix_fmt",
                "yuv420p",
                "-g",
                "50",
            ]);
            command
                .args(["-b:v", "5M", "-maxrate", "5M", "-bufsize", "5M", "-c:a", "aac"])
                .arg(scene);
        });
    });
    let name = if index_last { "watched.mp4" } else { "watched.mkv" };
    made_once(&cache().join(name), |path| {
        ffmpeg(|command| {
            command
                .args(["-stream_loop", "23", "-i"])
                .arg(&scene)
                .args(["-c", "copy"])
                .arg(path);
        });
    });
    torrent_of(name, 256 << 10)
}

const H264: &[&str] = &[
    "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-b:v", "300k", "-g", "50", "-bf", "2",
];
const HEVC: &[&str] = &[
    "-c:v",
    "libx265",
    "-preset",
    "ultrafast",
    "-x265-params",
    "log-level=error:keyint=50:min-keyint=50",
    "-tag:v",
    "hvc1",
];
const VP9: &[&str] = &[
    "-c:v",
    "libvpx-vp9",
    "-deadline",
    "realtime",
    "-cpu-used",
    "8",
    "-b:v",
    "300k",
    "-g",
    "50",
];
const AV1: &[&str] = &["-c:v", "libsvtav1", "-preset", "12", "-g", "50"];
const AAC: &[&str] = &["-c:a", "aac", "-b:a", "96k"];
const OPUS: &[&str] = &["-c:a", "libopus", "-b:a", "64k"];

/// What others are cut and copied from.
fn material() -> PathBuf {
    let path = cache().join("trial-material.mp4");
    made_once(&path, |path| encode(path, 48_000, "", &[H264, AAC]));
    path
}

/// A picture that is never the same twice, and a tone.
fn encode(path: &Path, sample_rate: u32, filter: &str, encoding: &[&[&str]]) {
    let picture = format!("testsrc2=s=320x180:r=25:d={SECONDS}{filter}");
    let sound = format!("sine=440:d={SECONDS}:r={sample_rate}");
    ffmpeg(|command| {
        command.args(["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &sound]);
        command.args(encoding.concat()).arg(path);
    });
}

/// The same sound twice: as it is, and encoded so.
fn second_sound(path: &Path, encoding: &[&str]) {
    let whole = material();
    ffmpeg(|command| {
        command
            .arg("-i")
            .arg(whole)
            .args(["-map", "0:v", "-map", "0:a", "-map", "0:a"]);
        command
            .args(["-c:v", "copy", "-c:a:0", "copy", "-c:a:1"])
            .args(encoding)
            .arg(path);
    });
}

fn mkvmerge(path: &Path, source: &Path) {
    let mut command = Command::new("mkvmerge");
    command.arg("--quiet").arg("-o").arg(path).arg(source);
    run(&mut command, Duration::from_secs(60)).ok();
}

/// The text of cue `number` of the subtitles of a language.
pub(crate) fn cue(language: &str, number: u32) -> String {
    format!("{language} {number}")
}

/// Begin and end of cue `number`, in seconds. The third is long: it spans several segments.
pub(crate) fn cue_times(number: u32) -> (u32, u32) {
    let begin = 2 + number * 5;
    (begin, begin + if number == 3 { 16 } else { 3 })
}

/// Cues in each track of subtitles.
pub(crate) const CUES: u32 = 11;

/// The languages of the subtitles, in the order of their tracks.
pub(crate) const SUBTITLES: [&str; 3] = ["eng", "ger", "fre"];

/// Audio tracks of [`Trial::Crowd`].
pub(crate) const CROWD: usize = 30;

fn crowd(path: &Path) {
    let (whole, text) = (material(), text(SUBTITLES[0]));
    ffmpeg(|command| {
        command.arg("-i").arg(whole).arg("-i").arg(text).args(["-map", "0:v"]);
        (0..CROWD).for_each(|_| {
            command.args(["-map", "0:a"]);
        });
        (0..2 * CROWD).for_each(|_| {
            command.args(["-map", "1"]);
        });
        command.args(["-c", "copy", "-c:s", "srt"]).arg(path);
    });
}

fn text(language: &str) -> PathBuf {
    let path = cache().join(format!("trial-{language}.srt"));
    made_once(&path, |path| {
        let cues = (0..CUES).map(|number| {
            let (begin, end) = cue_times(number);
            let time = |seconds: u32| format!("00:{:02}:{:02},000", seconds / 60, seconds % 60);
            format!(
                "{}\n{} --> {}\n{}\n\n",
                number + 1,
                time(begin),
                time(end),
                cue(language, number)
            )
        });
        std::fs::write(path, cues.collect::<String>()).expect("subtitles");
    });
    path
}

fn many_tracks(path: &Path) {
    let whole = material();
    let texts = SUBTITLES.map(text);
    let sound = format!("sine=880:d={SECONDS}:r=48000");
    ffmpeg(|command| {
        command.arg("-i").arg(whole).args(["-f", "lavfi", "-i", &sound]);
        texts.iter().for_each(|text| {
            command.arg("-i").arg(text);
        });
        command.args([
            "-map", "0:v", "-map", "0:a", "-map", "1:a", "-map", "2", "-map", "3", "-map", "4",
        ]);
        command.args(["-c:v", "copy", "-c:a:0", "copy", "-c:a:1", "aac", "-c:s", "srt"]);
        command.args(["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger"]);
        command.args(["-metadata:s:a:1", "title=Kommentar \"des\" Regisseurs"]);
        for (place, language) in SUBTITLES.iter().enumerate() {
            command.args([&format!("-metadata:s:s:{place}"), &format!("language={language}")]);
        }
        command.arg(path);
    });
}
