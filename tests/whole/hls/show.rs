//! A film over HLS as a client sees it: its playlists, init segments and segments.

use crate::support::torrents::Torrent;
use crate::support::web::{Answer, Web};

/// What a rendition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Video,
    Audio,
    Subtitles,
}

/// A media playlist.
#[derive(Debug, Clone)]
pub(crate) struct Rendition {
    pub(crate) kind: Kind,
    /// Its attributes in the master playlist, as they stand.
    pub(crate) attributes: String,
    /// Where its init segment is; subtitles have none.
    pub(crate) init: Option<String>,
    /// Where each segment is, and its length in seconds.
    pub(crate) segments: Vec<(String, f64)>,
    pub(crate) text: String,
}

impl Rendition {
    /// The number of the segment that holds a moment, counted from the beginning of the film.
    pub(crate) fn at(&self, seconds: f64) -> usize {
        let mut begin = 0.0;
        let ends = self.segments.iter().map(|(_, length)| {
            begin += length;
            begin
        });
        ends.take_while(|end| *end <= seconds).count()
    }
}

/// A film whose playlists have been fetched.
#[derive(Debug)]
pub(crate) struct Show {
    web: Web,
    base: String,
    pub(crate) master: String,
    pub(crate) renditions: Vec<Rendition>,
}

impl Show {
    /// Fetches the master playlist of a torrent of one file, and every playlist it names.
    #[track_caller]
    pub(crate) fn open(web: Web, torrent: &Torrent) -> Self {
        let base = format!("hls/{}/{}/", torrent.info_hash, torrent.name);
        let master = web.get(&format!("{base}master.m3u8")).ok().text();
        assert!(master.starts_with("#EXTM3U\n"), "{master}");
        let mut renditions = Vec::new();
        let mut video = None;
        let mut lines = master.lines();
        while let Some(line) = lines.next() {
            if let Some(attributes) = line.strip_prefix("#EXT-X-MEDIA:") {
                let kind = if attributes.contains("TYPE=AUDIO") {
                    Kind::Audio
                } else {
                    Kind::Subtitles
                };
                let uri = attribute(attributes, "URI").expect("where the rendition is");
                renditions.push(fetch(web, &base, &uri, kind, attributes));
            } else if let Some(attributes) = line.strip_prefix("#EXT-X-STREAM-INF:") {
                // Each group of audio has its own line, with the same video.
                let uri = lines.next().expect("where the video is");
                video.get_or_insert_with(|| fetch(web, &base, uri, Kind::Video, attributes));
            }
        }
        renditions.insert(0, video.expect("a video"));
        Self {
            web,
            base,
            master,
            renditions,
        }
    }

    pub(crate) fn video(&self) -> &Rendition {
        &self.renditions[0]
    }

    /// The renditions of a kind, in the order of the master playlist.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Rendition> {
        self.renditions.iter().filter(move |rendition| rendition.kind == kind)
    }

    /// What a URI of a rendition's playlist gives.
    #[track_caller]
    pub(crate) fn get(&self, uri: &str) -> Answer {
        self.web.get(&format!("{}{uri}", self.base))
    }
}

#[track_caller]
fn fetch(web: Web, base: &str, uri: &str, kind: Kind, attributes: &str) -> Rendition {
    let text = web.get(&format!("{base}{uri}")).ok().text();
    for line in ["#EXTM3U", "#EXT-X-PLAYLIST-TYPE:VOD", "#EXT-X-ENDLIST"] {
        assert!(text.lines().any(|other| other == line), "{uri} has no {line}\n{text}");
    }
    let init = text
        .lines()
        .find_map(|line| attribute(line.strip_prefix("#EXT-X-MAP:")?, "URI"));
    let mut lines = text.lines();
    let mut segments = Vec::new();
    while let Some(line) = lines.next() {
        if let Some(length) = line.strip_prefix("#EXTINF:") {
            let length = length.split(',').next().and_then(|length| length.parse().ok());
            segments.push((lines.next().expect("a segment").to_owned(), length.expect("its length")));
        }
    }
    Rendition {
        kind,
        attributes: attributes.to_owned(),
        init,
        segments,
        text,
    }
}

/// A quoted attribute.
pub(crate) fn attribute(attributes: &str, name: &str) -> Option<String> {
    let quoted = attributes.split(&format!("{name}=\"")).nth(1)?;
    quoted.split('"').next().map(str::to_owned)
}
