//! What an address names: a torrent, a file in it, a part of a film. Paths are split at their slashes and then decoded,
//! once, and are names to look up from then on; nothing here or below joins them to a directory.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

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
    fn an_address_leads_back() {
        for path in ["Film.mkv", "a b/c#d?e%20f&g=h+i.mkv", "日本/é.mkv", "..", "a;b:c@d!$'()*,"] {
            let encoded = of_file(HASH, path);
            assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()), "{encoded}");
            assert!(!encoded.contains(['?', '#', '&', '"', '\'']), "{encoded}");
            assert_eq!(file(&encoded), Some((HASH.parse().unwrap(), path.to_owned())));
        }
    }
}
