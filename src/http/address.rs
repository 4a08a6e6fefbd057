//! What an address names: a torrent, a file in it, a part of a film. Paths are split at their slashes and then decoded,
//! once, and are names to look up from then on; nothing here or below joins them to a directory.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::stream::{FileName, RenditionId};
use crate::torrents::InfoHash;

/// What RFC 3986 calls unreserved stays as it is.
const QUOTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The torrent and the file that `<info hash>/<path>` names, percent-encoded as in an address. `None` where no file
/// can have that name.
pub(super) fn file(encoded: &str) -> Option<(InfoHash, String)> {
    let (info_hash, path) = encoded.split_once('/')?;
    let parts: Vec<String> = path.split('/').map(decoded).collect::<Option<_>>()?;
    Some((info_hash.parse().ok()?, parts.join("/")))
}

/// What a path below `hls/` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OfFilm {
    /// `master.m3u8`
    Master,
    /// `video.m3u8`
    Media(RenditionId),
    /// `video/init.mp4`
    Init(RenditionId),
    /// `video/12.m4s`, `subtitles-0/12.vtt`
    Segment(RenditionId, u32),
}

/// The film, and what of it, that `<info hash>/<path>/master.m3u8` and its like name.
pub(super) fn of_film(encoded: &str) -> Option<(FileName, OfFilm)> {
    let (above, last) = encoded.rsplit_once('/')?;
    let rendition = |text: &str| text.parse::<RenditionId>().ok();
    if let Some(name) = last.strip_suffix(".m3u8") {
        let what = match name {
            "master" => OfFilm::Master,
            name => OfFilm::Media(rendition(name)?),
        };
        return Some((film(above)?, what));
    }
    let (above, name) = above.rsplit_once('/')?;
    let rendition = rendition(name)?;
    let is_text = matches!(rendition, RenditionId::Subtitles(_));
    let what = match last.rsplit_once('.')? {
        ("init", "mp4") if !is_text => OfFilm::Init(rendition),
        (number, ending) if ending == if is_text { "vtt" } else { "m4s" } => OfFilm::Segment(rendition, count(number)?),
        _ => return None,
    };
    Some((film(above)?, what))
}

/// The film that `<info hash>/<path>` names, percent-encoded.
pub(super) fn film(encoded: &str) -> Option<FileName> {
    let (info_hash, path) = file(encoded)?;
    Some(FileName {
        info_hash: info_hash.to_string(),
        path,
    })
}

/// A number that is written in one way only, since what names a thing twice is kept twice.
fn count(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

/// A part between two slashes. One that holds a slash once it is decoded is the name of no file.
fn decoded(part: &str) -> Option<String> {
    let text = percent_decode_str(part).decode_utf8().ok()?;
    (!text.is_empty() && !text.contains(['/', '\0'])).then(|| text.into_owned())
}

/// The address of a file below `files/` or `hls/`: its slashes stay.
pub(super) fn of_file(info_hash: &str, path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(quoted).collect();
    format!("{info_hash}/{}", parts.join("/"))
}

/// A text as one part of an address.
pub(super) fn quoted(text: &str) -> String {
    utf8_percent_encode(text, QUOTED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn a_path_is_decoded_once() {
        let path = |encoded: &str| file(&format!("{HASH}/{encoded}")).map(|(_, path)| path);
        assert_eq!(path("a%20b/c.mkv").as_deref(), Some("a b/c.mkv"));
        assert_eq!(path("100%2525.mkv").as_deref(), Some("100%25.mkv"));
        assert_eq!(path("a+b?.mkv").as_deref(), Some("a+b?.mkv"));
        assert_eq!(path("%E6%97%A5").as_deref(), Some("日"));
        // These are names like any other, of no file that there is.
        assert_eq!(path("../../etc/passwd").as_deref(), Some("../../etc/passwd"));
        for no_name in ["", "a//b", "a/", "/a", "a%2Fb", "a%00b", "%ff"] {
            assert_eq!(path(no_name), None, "{no_name}");
        }
        assert_eq!(file("0123/a"), None);
        assert_eq!(file(HASH), None);
    }

    #[test]
    fn parts_of_a_film_have_one_name_each() {
        let named = |rest: &str| of_film(&format!("{HASH}/{rest}")).map(|(film, what)| (film.path, what));
        let (video, audio) = (RenditionId::Video, RenditionId::Audio(1));
        for (rest, path, what) in [
            ("a%20b.mkv/master.m3u8", "a b.mkv", OfFilm::Master),
            ("s/a.mkv/audio-1.m3u8", "s/a.mkv", OfFilm::Media(audio)),
            ("a/video/init.mp4", "a", OfFilm::Init(video)),
            ("a/video/0.m4s", "a", OfFilm::Segment(video, 0)),
            ("video/video/7.m4s", "video", OfFilm::Segment(video, 7)),
            ("master.m3u8/master.m3u8", "master.m3u8", OfFilm::Master),
            (
                "a/subtitles-0/12.vtt",
                "a",
                OfFilm::Segment(RenditionId::Subtitles(0), 12),
            ),
        ] {
            assert_eq!(named(rest), Some((path.to_owned(), what)), "{rest}");
        }
        for nothing in [
            "master.m3u8",
            "video/0.m4s",
            "a/other.m3u8",
            "a/audio-01.m3u8",
            "a/video/00.m4s",
            "a/video/+1.m4s",
            "a/video/-1.m4s",
            "a/video/4294967296.m4s",
            "a/video/1.vtt",
            "a/subtitles-0/1.m4s",
            "a/subtitles-0/init.mp4",
            "a/video/init.m4s",
            "a/video/1",
            "a//master.m3u8",
            "a/master.m3u8/",
            "a/Master.m3u8",
            "a/%6Daster.m3u8",
        ] {
            assert_eq!(named(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn an_address_leads_back() {
        for path in [
            "Film.mkv",
            "a b/c#d?e%20f&g=h+i.mkv",
            "日本/é.mkv",
            "..",
            "a;b:c@d!$'()*,",
        ] {
            let encoded = of_file(HASH, path);
            assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()), "{encoded}");
            assert!(!encoded.contains(['?', '#', '&', '"', '\'']), "{encoded}");
            assert_eq!(file(&encoded), Some((HASH.parse().unwrap(), path.to_owned())));
        }
    }
}
