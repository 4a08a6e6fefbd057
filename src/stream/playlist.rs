//! Playlists as text (RFC 8216): the master of a film, and one for each of its renditions.

use std::fmt::Write;

use crate::media::{Codec, Kind};

use super::plan::{Plan, Rendition, RenditionId};
use super::timeline::Timeline;

/// Bits a second that a rendition is taken for if nothing tells: what films usually have.
const UNKNOWN_VIDEO_BITS: u64 = 5_000_000;
const UNKNOWN_AUDIO_BITS: u64 = 256_000;

/// The master playlist. Its URIs are relative: `video.m3u8`, `audio-0.m3u8`, `subtitles-0.m3u8`.
///
/// The video is there once for every group of audio, since a player drops a variant of which it lacks any codec.
pub fn master(plan: &Plan, timeline: &Timeline) -> String {
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    if independent(plan.video()) {
        text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    for rendition in plan.renditions() {
        media_tag(&mut text, rendition);
    }
    let groups = audio_groups(plan);
    if groups.is_empty() {
        variant(&mut text, plan, timeline, None);
    }
    for group in groups {
        variant(&mut text, plan, timeline, Some(group));
    }
    text
}

/// The playlist of one rendition; none if the plan does not have it. Its URIs are relative to the master's place:
/// `video/init.mp4`, `video/0.m4s`, `subtitles-0/0.vtt`.
pub fn media(plan: &Plan, timeline: &Timeline, rendition: RenditionId) -> Option<String> {
    let rendition = plan.rendition(rendition)?;
    let id = rendition.id;
    let mut text = String::from("#EXTM3U\n#EXT-X-VERSION:7\n");
    line(
        &mut text,
        format_args!("#EXT-X-TARGETDURATION:{}", timeline.target_duration_s()),
    );
    text.push_str("#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-PLAYLIST-TYPE:VOD\n");
    if independent(rendition) {
        text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    let extension = match id {
        RenditionId::Subtitles(_) => "vtt",
        RenditionId::Video | RenditionId::Audio(_) => {
            line(&mut text, format_args!("#EXT-X-MAP:URI=\"{id}/init.mp4\""));
            "m4s"
        }
    };
    for number in 0..timeline.count() {
        let us = timeline.duration_us(number);
        line(
            &mut text,
            format_args!("#EXTINF:{}.{:06},", us / 1_000_000, us % 1_000_000),
        );
        line(&mut text, format_args!("{id}/{number}.{extension}"));
    }
    text.push_str("#EXT-X-ENDLIST\n");
    Some(text)
}

/// Whether every segment can be decoded without another. The index does not tell whether groups of pictures of H.264 or
/// HEVC are open, whose first pictures need the segment before; VP9 and AV1 have no such thing.
fn independent(rendition: &Rendition) -> bool {
    match rendition.id {
        RenditionId::Video => matches!(rendition.track.codec, Codec::Vp9 | Codec::Av1),
        RenditionId::Audio(_) | RenditionId::Subtitles(_) => true,
    }
}

fn media_tag(text: &mut String, rendition: &Rendition) {
    let kind = match rendition.id {
        RenditionId::Video => return,
        RenditionId::Audio(_) => "AUDIO",
        RenditionId::Subtitles(_) => "SUBTITLES",
    };
    let yes = |yes| if yes { "YES" } else { "NO" };
    let mut tag = format!("#EXT-X-MEDIA:TYPE={kind},GROUP-ID=\"{}\"", rendition.group);
    let _ = write!(tag, ",NAME=\"{}\"", rendition.name);
    if let Some(language) = &rendition.language {
        let _ = write!(tag, ",LANGUAGE=\"{language}\"");
    }
    let _ = write!(tag, ",DEFAULT={},AUTOSELECT=YES", yes(rendition.default));
    match &rendition.track.kind {
        Kind::Audio(audio) => {
            let _ = write!(tag, ",CHANNELS=\"{}\"", audio.channels.max(1));
        }
        _ => {
            let _ = write!(tag, ",FORCED={}", yes(rendition.forced));
        }
    }
    line(text, format_args!("{tag},URI=\"{}.m3u8\"", rendition.id));
}

/// Their names, that of the film's default audio first.
fn audio_groups(plan: &Plan) -> Vec<&str> {
    let audio = || {
        plan.renditions()
            .iter()
            .filter(|rendition| matches!(rendition.id, RenditionId::Audio(_)))
    };
    let mut groups: Vec<&str> = Vec::new();
    for rendition in audio().filter(|rendition| rendition.track.default).chain(audio()) {
        if !groups.contains(&rendition.group.as_str()) {
            groups.push(&rendition.group);
        }
    }
    groups
}

fn variant(text: &mut String, plan: &Plan, timeline: &Timeline, group: Option<&str>) {
    let video = plan.video();
    let audio = || {
        plan.renditions()
            .iter()
            .filter(|rendition| group.is_some_and(|group| rendition.group == group))
    };
    let mut codecs = vec![video.codecs.as_str()];
    for rendition in audio() {
        if !codecs.contains(&rendition.codecs.as_str()) {
            codecs.push(&rendition.codecs);
        }
    }
    let sound = audio()
        .map(|rendition| rendition.track.bit_rate.unwrap_or(UNKNOWN_AUDIO_BITS))
        .max()
        .unwrap_or(0);
    let pictures = video
        .track
        .bit_rate
        .or_else(|| timeline.average_bits())
        .unwrap_or(UNKNOWN_VIDEO_BITS);
    let average = with_tables(pictures.saturating_add(sound));
    // What lies between two keyframes in the file is the video and all sound, so no segment can have more.
    let peak = timeline.peak_bits().map_or(average, with_tables).max(average);
    let mut tag = format!("#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average}");
    let _ = write!(tag, ",CODECS=\"{}\"", codecs.join(","));
    if let Kind::Video(picture) = &video.track.kind {
        if picture.width > 0 && picture.height > 0 {
            let _ = write!(tag, ",RESOLUTION={}x{}", picture.width, picture.height);
        }
        if let Some((frames, seconds)) = picture
            .frame_rate
            .filter(|(frames, seconds)| *frames > 0 && *seconds > 0)
        {
            let _ = write!(tag, ",FRAME-RATE={:.3}", f64::from(frames) / f64::from(seconds));
        }
    }
    if let Some(group) = group {
        let _ = write!(tag, ",AUDIO=\"{group}\"");
    }
    let subtitles = plan
        .renditions()
        .iter()
        .find(|rendition| matches!(rendition.id, RenditionId::Subtitles(_)));
    if let Some(subtitles) = subtitles {
        let _ = write!(tag, ",SUBTITLES=\"{}\"", subtitles.group);
    }
    line(text, format_args!("{tag}\nvideo.m3u8"));
}

/// Segments have tables of their samples, which come to less than a twentieth.
fn with_tables(bits: u64) -> u64 {
    bits.saturating_add(bits / 20).max(1)
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{words}");
}

#[cfg(test)]
mod tests {
    use m3u8_rs::{AlternativeMediaType, MasterPlaylist, MediaPlaylist, MediaPlaylistType};

    use super::*;
    use crate::media::{Codec, Container, Track};
    use crate::stream::tests::indexes::{audio, film_of, index, track, video};

    fn parse_media(text: &str) -> MediaPlaylist {
        m3u8_rs::parse_media_playlist_res(text.as_bytes()).unwrap()
    }

    fn parse_master(text: &str) -> MasterPlaylist {
        m3u8_rs::parse_master_playlist_res(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_whole_timeline_is_told_at_once() {
        let mut track = video(&[0, 4, 8, 19], 21);
        track.timescale = 999;
        let plan = Plan::of(&index(Container::Mp4, vec![track])).unwrap();
        let timeline = Timeline::of(&plan);
        let text = media(&plan, &timeline, RenditionId::Video).unwrap();
        let playlist = parse_media(&text);
        assert!(playlist.end_list && !playlist.independent_segments);
        assert_eq!(playlist.playlist_type, Some(MediaPlaylistType::Vod));
        assert_eq!(playlist.version, Some(7));
        // 4004.004 ms, 11.011 s: the target is what the longest rounds to.
        assert_eq!(playlist.target_duration, 11);
        let uris: Vec<_> = playlist.segments.iter().map(|segment| segment.uri.as_str()).collect();
        assert_eq!(uris, ["video/0.m4s", "video/1.m4s", "video/2.m4s", "video/3.m4s"]);
        assert_eq!(playlist.segments[0].map.as_ref().unwrap().uri, "video/init.mp4");
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("#EXTINF:")?.strip_suffix(','));
        let us: Vec<i64> = lines.map(|seconds| seconds.replace('.', "").parse().unwrap()).collect();
        assert_eq!(us, [4_004_004, 4_004_004, 11_011_011, 2_002_002]);
        assert_eq!(us.iter().sum::<i64>(), 21_021_021);
        assert_eq!(media(&plan, &timeline, RenditionId::Audio(0)), None);
    }

    #[test]
    fn a_player_can_choose_sound_and_subtitles() {
        let english = |track: Track| Track {
            language: Some("en".into()),
            ..track
        };
        let tracks = vec![
            Track {
                bit_rate: Some(5_000_000),
                ..video(&[0, 4, 8], 12)
            },
            Track {
                default: true,
                bit_rate: Some(640_000),
                codec_string: Some("ac-3".into()),
                ..english(audio(Codec::Ac3))
            },
            Track {
                name: Some("Kommentar \"x\"\n#EXT-X-GAP".into()),
                ..audio(Codec::Aac)
            },
            Track {
                codec_string: Some("mp4a.40.5".into()),
                ..english(audio(Codec::Aac))
            },
            Track {
                forced: true,
                default: true,
                ..english(track(Codec::SubRip, Kind::Subtitles))
            },
            track(Codec::Ass, Kind::Subtitles),
        ];
        let plan = Plan::of(&index(Container::Matroska, tracks)).unwrap();
        let text = master(&plan, &Timeline::of(&plan));
        let playlist = parse_master(&text);
        let variants = &playlist.variants;
        assert_eq!(variants.len(), 2);
        assert!(variants.iter().all(|variant| variant.uri == "video.m3u8"));
        assert!(
            variants
                .iter()
                .all(|variant| variant.subtitles.as_deref() == Some("subtitles"))
        );
        assert_eq!(variants[0].audio.as_deref(), Some("audio-ac3"));
        assert_eq!(variants[0].codecs.as_deref(), Some("avc1.640028,ac-3"));
        assert_eq!(variants[1].codecs.as_deref(), Some("avc1.640028,mp4a.40.2,mp4a.40.5"));
        assert_eq!(variants[0].average_bandwidth, Some(5_922_000));
        assert_eq!(variants[0].bandwidth, 5_922_000);
        assert_eq!(
            variants[0].resolution.map(|size| (size.width, size.height)),
            Some((1920, 800))
        );
        assert!(text.contains(",FRAME-RATE=23.976,"), "{text}");
        let others = &playlist.alternatives;
        assert_eq!(others.len(), 5);
        assert_eq!(others[1].name, "Kommentar 'x' #EXT-X-GAP");
        assert_eq!(others[2].language.as_deref(), Some("en"));
        assert!(others[0].default && others[1].default && !others[2].default);
        assert_eq!(others[3].media_type, AlternativeMediaType::Subtitles);
        assert!(others[3].default && others[3].forced && !others[4].forced && !others[4].default);
        assert!(others.iter().all(|other| other.autoselect));
        assert_eq!(others[4].uri.as_deref(), Some("subtitles-1.m3u8"));
        let subtitles = media(&plan, &Timeline::of(&plan), RenditionId::Subtitles(1)).unwrap();
        let subtitles = parse_media(&subtitles);
        assert_eq!(subtitles.segments[2].uri, "subtitles-1/2.vtt");
        assert!(subtitles.segments[0].map.is_none());
    }

    #[test]
    fn a_silent_film_of_closed_groups() {
        let vp9 = Track {
            codec: Codec::Vp9,
            codec_string: None,
            ..video(&[0, 4, 8], 12)
        };
        let plan = Plan::of(&index(Container::Webm, vec![vp9])).unwrap();
        let playlist = parse_master(&master(&plan, &Timeline::of(&plan)));
        assert!(playlist.independent_segments);
        assert_eq!(playlist.variants.len(), 1);
        assert_eq!(playlist.variants[0].audio, None);
        // Nothing tells but the file: a megabyte in each four seconds, and tables.
        assert_eq!(playlist.variants[0].bandwidth, 2_100_000);
        let (plan, timeline) = film_of(&[0, 4, 8], 12);
        assert!(!parse_master(&master(&plan, &timeline)).independent_segments);
    }
}
