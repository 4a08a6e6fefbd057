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

/// Whether every segment can be decoded without another. The index does not tell whether groups of pictures of H.264 or HEVC
/// are open, whose first pictures need the segment before; VP9 and AV1 have no such thing.
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
