//! What a rendition is called.

use std::fmt;
use std::str::FromStr;

/// A rendition of a film: its part of an URL is `video`, `audio-0`, `subtitles-0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RenditionId {
    /// The pictures.
    Video,
    /// By its number among the audio tracks of the plan.
    Audio(usize),
    /// By its number among the subtitles of the plan.
    Subtitles(usize),
}

impl fmt::Display for RenditionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RenditionId::Video => formatter.write_str("video"),
            RenditionId::Audio(number) => write!(formatter, "audio-{number}"),
            RenditionId::Subtitles(number) => write!(formatter, "subtitles-{number}"),
        }
    }
}

impl FromStr for RenditionId {
    type Err = ();

    fn from_str(text: &str) -> Result<RenditionId, ()> {
        let (kind, number) = text
            .split_once('-')
            .map_or((text, None), |(kind, number)| (kind, Some(number)));
        let number = number.map(str::parse::<usize>).transpose().map_err(|_| ())?;
        let id = match (kind, number) {
            ("video", None) => RenditionId::Video,
            ("audio", Some(number)) => RenditionId::Audio(number),
            ("subtitles", Some(number)) => RenditionId::Subtitles(number),
            _ => return Err(()),
        };
        // One name each: no `audio-01`.
        if id.to_string() == text { Ok(id) } else { Err(()) }
    }
}
