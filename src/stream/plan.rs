//! What is made of each track: which are copied, in which groups, under which names; and of what is left out, why.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use crate::ffmpeg::command::MOST_OUTPUTS;
use crate::ffmpeg::{Encoding, Output};
use crate::media::{Codec, Container, Index, Kind, Track};

/// Names in playlists are cut to this many characters; a torrent's may be of any length.
const LONGEST_NAME: usize = 80;

/// Why a film cannot be served, in words for the person who wants to watch it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotPlayable(pub String);

/// One of the streams that a film is served as. Its text is also its part of the URL: `video`, `audio-0`,
/// `subtitles-0`; the number counts the plan's renditions of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RenditionId {
    /// The pictures.
    Video,
    /// One audio track.
    Audio(usize),
    /// One track of text subtitles.
    Subtitles(usize),
}

impl fmt::Display for RenditionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RenditionId::Video => f.write_str("video"),
            RenditionId::Audio(number) => write!(f, "audio-{number}"),
            RenditionId::Subtitles(number) => write!(f, "subtitles-{number}"),
        }
    }
}

/// The text is no [`RenditionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such rendition")]
pub struct NoSuchRendition;

impl FromStr for RenditionId {
    type Err = NoSuchRendition;

    /// Only the text that `Display` writes: `audio-00` is not `audio-0`, so that one thing has one URL.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = match text.split_once('-') {
            None => RenditionId::Video,
            Some(("audio", number)) => RenditionId::Audio(number.parse().map_err(|_| NoSuchRendition)?),
            Some(("subtitles", number)) => RenditionId::Subtitles(number.parse().map_err(|_| NoSuchRendition)?),
            Some(_) => return Err(NoSuchRendition),
        };
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NoSuchRendition)
        }
    }
}

/// A track that is served, and how it is shown in playlists.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    /// Which one it is.
    pub id: RenditionId,
    /// The track that it is made of.
    pub track: Track,
    /// What is made of it.
    pub encoding: Encoding,
    /// For `CODECS` (RFC 6381); empty for subtitles.
    pub codecs: String,
    /// The group of renditions of which a player chooses one (`GROUP-ID`); empty for the video. Audio is grouped by
    /// codec, since a browser drops a variant when it lacks any of its codecs.
    pub group: String,
    /// Printable, without quotes, and no other's of its kind.
    pub name: String,
    /// Only letters, digits and `-`.
    pub language: Option<String>,
    /// Played unless the viewer chooses another; at most one of its group.
    pub default: bool,
    /// Subtitles that are shown also to those who want none.
    pub forced: bool,
}

/// What is served of one file. Made from its index alone, so the same file always has the same plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    container: Container,
    renditions: Vec<Rendition>,
    left_out: Vec<String>,
}

impl Plan {
    /// What can be served of a file with this index.
    ///
    /// # Errors
    /// There is no video that can be copied, in words. Sound and subtitles that cannot be copied are only
    /// [left out](Plan::left_out): a silent film in another language is still a film.
    pub fn of(index: &Index) -> Result<Plan, NotPlayable> {
        let mut plan = Plan {
            container: index.container,
            renditions: vec![video(index)?],
            left_out: Vec::new(),
        };
        let film = plan.renditions[0].track.stream;
        for track in index.tracks.iter().filter(|track| track.stream != film) {
            match &track.kind {
                Kind::Audio(_) | Kind::Subtitles if plan.renditions.len() >= MOST_OUTPUTS => {
                    plan.leave_out(track, &format!("only {MOST_OUTPUTS} tracks of a film are served"));
                }
                Kind::Audio(_) => plan.add_audio(track),
                Kind::Subtitles => plan.add_subtitles(track),
                Kind::Video(_) => plan.leave_out(track, "only one video track is served"),
                Kind::Other => {}
            }
        }
        name_all(&mut plan.renditions);
        choose_defaults(&mut plan.renditions);
        Ok(plan)
    }

    /// The container that the film comes in.
    pub fn container(&self) -> Container {
        self.container
    }

    /// All that is served: the video first, then audio and subtitles in the order of the file.
    pub fn renditions(&self) -> &[Rendition] {
        &self.renditions
    }

    /// The pictures.
    pub fn video(&self) -> &Rendition {
        &self.renditions[0]
    }

    /// The rendition of that name, if the plan has it.
    pub fn rendition(&self, id: RenditionId) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| rendition.id == id)
    }

    /// What a run of FFmpeg has to give: one pipe for each of [`renditions`](Plan::renditions), in that order.
    pub fn outputs(&self) -> Vec<Output> {
        let output = |rendition: &Rendition| Output {
            stream: rendition.track.stream,
            encoding: rendition.encoding,
        };
        self.renditions.iter().map(output).collect()
    }

    /// The same without its keyframes: a [`Timeline`](super::Timeline) that was made of it has what is needed of them.
    pub(super) fn without_keyframes(mut self) -> Plan {
        for rendition in &mut self.renditions {
            if let Kind::Video(video) = &mut rendition.track.kind {
                video.keyframes = Vec::new();
            }
        }
        self
    }

    /// Which tracks are not served and why, one sentence each, for people.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    fn count(&self, of: fn(&RenditionId) -> bool) -> usize {
        self.renditions.iter().filter(|rendition| of(&rendition.id)).count()
    }

    fn add_audio(&mut self, track: &Track) {
        let (group, codecs) = match track.codec {
            Codec::Aac => ("aac", "mp4a.40.2"),
            Codec::Opus => ("opus", "opus"),
            Codec::Flac => ("flac", "fLaC"),
            Codec::Ac3 => ("ac3", "ac-3"),
            Codec::Eac3 => ("eac3", "ec-3"),
            _ => return self.leave_out(track, "only AAC, Opus, FLAC, AC-3 and E-AC-3 can be copied for players"),
        };
        let codecs = codec_string(track).unwrap_or_else(|| codecs.into());
        // Browsers play AAC-LC and HE-AAC wherever they play AAC, and no other kind of it everywhere.
        let usual = group != "aac" || ["mp4a.40.2", "mp4a.40.5", "mp4a.40.29"].contains(&codecs.as_str());
        let number = self.count(|id| matches!(id, RenditionId::Audio(_)));
        let group = if usual {
            format!("audio-{group}")
        } else {
            format!("audio-{group}-other")
        };
        self.renditions.push(Rendition {
            codecs,
            ..rendition(RenditionId::Audio(number), track, Encoding::CopyAudio, group)
        });
    }

    fn add_subtitles(&mut self, track: &Track) {
        match track.codec {
            Codec::SubRip | Codec::Ass | Codec::WebVtt | Codec::MovText => {
                let number = self.count(|id| matches!(id, RenditionId::Subtitles(_)));
                let id = RenditionId::Subtitles(number);
                let subtitles = rendition(id, track, Encoding::WebVtt, "subtitles".into());
                self.renditions.push(subtitles);
            }
            _ => self.leave_out(track, "only subtitles of text are served"),
        }
    }

    fn leave_out(&mut self, track: &Track, why: &str) {
        let kind = match track.kind {
            Kind::Video(_) => "Video",
            Kind::Audio(_) => "Audio",
            Kind::Subtitles | Kind::Other => "Subtitles",
        };
        let name = track.name.as_deref().map(printable).filter(|name| !name.is_empty());
        let name = name
            .or_else(|| language(track))
            .map(|name| format!(" \u{201c}{name}\u{201d}"));
        self.left_out.push(format!(
            "{kind} track {}{} is left out: it is {}, and {why}.",
            track.stream,
            name.unwrap_or_default(),
            track.codec
        ));
    }
}

fn video(index: &Index) -> Result<Rendition, NotPlayable> {
    let mut why = None;
    for track in &index.tracks {
        let Kind::Video(video) = &track.kind else { continue };
        let refused = match (&track.codec, codec_string(track)) {
            (Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9, _) if video.keyframes.is_empty() => {
                "The index of this file lists no keyframe of its video, so it cannot be cut into segments.".into()
            }
            // Files made before VP9 had a configuration record lack it, and say no more than that it is VP9.
            (Codec::Vp9, None) => return Ok(copied(track, "vp09.00.41.08".into())),
            (Codec::H264 | Codec::Hevc | Codec::Av1 | Codec::Vp9, Some(codecs)) => return Ok(copied(track, codecs)),
            (Codec::H264 | Codec::Hevc | Codec::Av1, None) => format!(
                "The header of this file lacks the configuration of its {} video, so no player can be told what it is.",
                track.codec
            ),
            (codec, _) => format!(
                "The video of this file is {codec}. Only H.264, HEVC, AV1 and VP9 can be copied for players; this \
                 one would have to be encoded anew, which is not done yet."
            ),
        };
        why.get_or_insert(refused);
    }
    Err(NotPlayable(
        why.unwrap_or_else(|| "This file has no video track.".into()),
    ))
}

fn copied(track: &Track, codecs: String) -> Rendition {
    // Apple's players refuse `hev1`, which is what FFmpeg would write.
    let tag = (track.codec == Codec::Hevc).then_some("hvc1");
    Rendition {
        codecs,
        ..rendition(RenditionId::Video, track, Encoding::CopyVideo { tag }, String::new())
    }
}

fn rendition(id: RenditionId, track: &Track, encoding: Encoding, group: String) -> Rendition {
    Rendition {
        id,
        track: track.clone(),
        encoding,
        codecs: String::new(),
        group,
        name: String::new(),
        language: language(track),
        default: track.default,
        forced: track.forced && matches!(id, RenditionId::Subtitles(_)),
    }
}

/// As the index has it, unless it could break out of a quoted attribute or make two codecs of one.
fn codec_string(track: &Track) -> Option<String> {
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let string = track.codec_string.as_ref()?;
    (!string.is_empty() && string.len() <= 64 && string.chars().all(harmless)).then(|| string.clone())
}

fn language(track: &Track) -> Option<String> {
    let language = track.language.as_ref()?;
    let harmless = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (!language.is_empty() && language.len() <= 35 && language.chars().all(harmless)).then(|| language.clone())
}

/// Without what ends an attribute or a line, or turns the direction of the text after it.
fn printable(name: &str) -> String {
    let mut text = String::new();
    for word in name.split(|c: char| c.is_whitespace() || c.is_control()) {
        let turns = |c: &char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let word = word
            .chars()
            .filter(|c| !turns(c))
            .map(|c| if c == '"' { '\'' } else { c });
        let word: String = word.collect();
        if !word.is_empty() && !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&word);
    }
    text.chars()
        .take(LONGEST_NAME)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

fn name_all(renditions: &mut [Rendition]) {
    let mut taken = HashSet::new();
    for rendition in renditions {
        let (kind, number) = match rendition.id {
            RenditionId::Video => continue,
            RenditionId::Audio(number) => ("Audio", number),
            RenditionId::Subtitles(number) => ("Subtitles", number),
        };
        let own = rendition
            .track
            .name
            .as_deref()
            .map(printable)
            .filter(|name| !name.is_empty());
        let wanted = own.or_else(|| rendition.language.clone());
        let wanted = wanted.unwrap_or_else(|| format!("{kind} {}", number + 1));
        let mut name = wanted.clone();
        let mut copy = 1;
        while !taken.insert((kind, name.clone())) {
            copy += 1;
            name = format!("{wanted} ({copy})");
        }
        rendition.name = name;
    }
}

/// One default in every group of audio; in subtitles at most one, and none if no track asks for it.
fn choose_defaults(renditions: &mut [Rendition]) {
    let mut chosen = HashSet::new();
    for rendition in renditions.iter_mut() {
        rendition.default = rendition.default && chosen.insert(rendition.group.clone());
    }
    for rendition in renditions.iter_mut() {
        if matches!(rendition.id, RenditionId::Audio(_)) && chosen.insert(rendition.group.clone()) {
            rendition.default = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::tests::indexes::{audio, index, track, video};

    fn named(track: Track, name: &str) -> Track {
        Track {
            name: Some(name.into()),
            ..track
        }
    }

    fn plan(tracks: Vec<Track>) -> Plan {
        Plan::of(&index(Container::Matroska, tracks)).unwrap()
    }

    #[test]
    fn a_rendition_has_one_name() {
        for id in [
            RenditionId::Video,
            RenditionId::Audio(0),
            RenditionId::Audio(17),
            RenditionId::Subtitles(3),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in [
            "", "Video", "video-", "video-0", "audio", "audio-", "audio-00", "audio-+1", "audio--1", "sub-1",
            "audio-1/",
        ] {
            assert_eq!(text.parse::<RenditionId>(), Err(NoSuchRendition), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_copied_is_said_in_words() {
        let xvid = Track {
            codec: Codec::Mpeg4,
            ..video(&[0, 4], 8)
        };
        let told = Plan::of(&index(Container::Mp4, vec![xvid])).unwrap_err().to_string();
        assert!(told.contains("MPEG-4 part 2") && told.contains("H.264"), "{told}");
        let unknown = Track {
            codec_string: None,
            ..video(&[0, 4], 8)
        };
        assert!(Plan::of(&index(Container::Mp4, vec![unknown])).is_err());
        let no_keyframes = Plan::of(&index(Container::Mp4, vec![video(&[], 8)])).unwrap_err();
        assert!(no_keyframes.to_string().contains("keyframe"), "{no_keyframes}");
        assert!(Plan::of(&index(Container::Mp4, vec![audio(Codec::Aac)])).is_err());
        let hostile = Track {
            codec_string: Some("avc1\",URI=\"x".into()),
            ..video(&[0, 4], 8)
        };
        assert!(Plan::of(&index(Container::Mp4, vec![hostile])).is_err());
        let vp9 = Track {
            codec: Codec::Vp9,
            codec_string: None,
            ..video(&[0, 4], 8)
        };
        assert!(Plan::of(&index(Container::Webm, vec![vp9])).is_ok());
    }

    #[test]
    fn a_film_plays_without_the_tracks_that_cannot_be_copied() {
        let plan = plan(vec![
            audio(Codec::Dts),
            video(&[0, 4], 8),
            audio(Codec::Mp3),
            track(Codec::Pgs, Kind::Subtitles),
            track(Codec::Other("ttf\n".into()), Kind::Other),
        ]);
        assert_eq!(plan.renditions().len(), 1);
        assert_eq!(plan.left_out().len(), 3);
        assert!(plan.left_out()[0].contains("DTS"), "{:?}", plan.left_out());
        assert_eq!(
            plan.outputs(),
            [Output {
                stream: 1,
                encoding: Encoding::CopyVideo { tag: None }
            }]
        );
    }

    #[test]
    fn hevc_is_called_what_all_players_take() {
        let hevc = Track {
            codec: Codec::Hevc,
            codec_string: Some("hvc1.1.6.L93.B0".into()),
            ..video(&[0, 4], 8)
        };
        assert_eq!(
            plan(vec![hevc]).video().encoding,
            Encoding::CopyVideo { tag: Some("hvc1") }
        );
    }

    #[test]
    fn sound_is_grouped_by_codec_with_one_default_each() {
        let plan = plan(vec![
            video(&[0, 4], 8),
            audio(Codec::Ac3),
            Track {
                default: true,
                ..audio(Codec::Aac)
            },
            Track {
                default: true,
                ..audio(Codec::Aac)
            },
            Track {
                codec_string: Some("mp4a.40.42".into()),
                ..audio(Codec::Aac)
            },
        ]);
        let groups: Vec<_> = plan.renditions()[1..]
            .iter()
            .map(|it| (it.group.as_str(), it.default))
            .collect();
        let expected = [
            ("audio-ac3", true),
            ("audio-aac", true),
            ("audio-aac", false),
            ("audio-aac-other", true),
        ];
        assert_eq!(groups, expected);
    }

    /// Names come from strangers and go into quoted attributes of a format of lines.
    #[test]
    fn names_are_printable_and_none_is_twice() {
        let subtitles = || track(Codec::SubRip, Kind::Subtitles);
        let plan = plan(vec![
            video(&[0, 4], 8),
            named(audio(Codec::Aac), " a\"b\r\n#EXT-X-ENDLIST\u{202e}\u{0}\u{85}c "),
            named(audio(Codec::Aac), "\n\n"),
            Track {
                language: Some("en\",X=\"".into()),
                ..audio(Codec::Ac3)
            },
            named(subtitles(), "Same"),
            named(
                Track {
                    language: Some("pt-BR".into()),
                    ..subtitles()
                },
                "Same",
            ),
            named(subtitles(), &"\u{e9}".repeat(5000)),
            Track {
                language: Some("pt-BR".into()),
                ..subtitles()
            },
        ]);
        let names: Vec<_> = plan.renditions()[1..].iter().map(|it| it.name.clone()).collect();
        let long = "\u{e9}".repeat(LONGEST_NAME);
        let expected = [
            "a'b #EXT-X-ENDLIST c",
            "Audio 2",
            "Audio 3",
            "Same",
            "Same (2)",
            &long,
            "pt-BR",
        ];
        assert_eq!(names, expected);
        assert_eq!(plan.renditions()[3].language, None);
        assert_eq!(plan.renditions()[5].language.as_deref(), Some("pt-BR"));
    }

    #[test]
    fn a_second_video_is_left_out() {
        let plan = plan(vec![video(&[0, 4], 8), video(&[0, 4], 8)]);
        assert_eq!((plan.renditions().len(), plan.left_out().len()), (1, 1));
        let second = Plan::of(&index(Container::Mp4, vec![video(&[], 8), video(&[0, 4], 8)])).unwrap();
        assert_eq!(second.video().track.stream, 1);
    }

    #[test]
    fn more_tracks_than_ffmpeg_is_given_are_left_out() {
        let mut tracks = vec![video(&[0, 4], 8)];
        tracks.extend((0..MOST_OUTPUTS + 9).map(|_| track(Codec::SubRip, Kind::Subtitles)));
        let plan = plan(tracks);
        assert_eq!((plan.outputs().len(), plan.left_out().len()), (MOST_OUTPUTS, 10));
        assert!(plan.left_out()[9].contains("only 128 tracks"), "{:?}", plan.left_out());
    }
}
