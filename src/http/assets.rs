//! The files of the player page, built into the program.
//!
//! The page stands at the root and is asked for anew each time. What it loads has the hash of all of it in its path,
//! `assets/<hash>/page.js`, so that it may be kept for ever, and no page meets the modules of another build. Paths are
//! relative, as the page may stand below a token.

use std::sync::LazyLock;

use sha1::{Digest, Sha1};

/// What the page may do, for its Content-Security-Policy header: run and fetch what is served here, and nothing else.
/// Media Source Extensions play from a `blob:` of the page's own; `data:` is an empty track of subtitles, by which hls.js
/// makes browsers show theirs.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; media-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asset {
    /// Its name in its address.
    pub(super) name: &'static str,
    /// For its Content-Type header.
    pub(super) content_type: &'static str,
    /// What it holds.
    pub(super) bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `src/web`.
macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../web/", $name)),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("page.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("page.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("engine.js", SCRIPT),
    asset!("library.js", SCRIPT),
    asset!("memory.js", SCRIPT),
    asset!("player.js", SCRIPT),
    asset!("timeline.js", SCRIPT),
    asset!("words.js", SCRIPT),
    Asset {
        name: "hls.min.mjs",
        content_type: SCRIPT,
        bytes: include_bytes!(concat!(env!("OUT_DIR"), "/hls.min.mjs")),
    },
];

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let text = include_str!("../web/index.html");
    let mut hash = Sha1::new_with_prefix(text);
    for asset in ASSETS {
        hash.update(asset.name);
        hash.update(asset.bytes);
    }
    let hash = hex::encode(&hash.finalize()[..8]);
    Page {
        text: text.replace("\"assets/", &format!("\"assets/{hash}/")),
        etag: format!("\"{hash}\""),
        hash,
    }
});

/// The page itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// HTML, in UTF-8.
    pub(super) text: String,
    /// For its ETag header, in quotes. It changes with any file of the page.
    pub(super) etag: String,
    hash: String,
}

/// The page at the root.
pub(super) fn page() -> &'static Page {
    &PAGE
}

/// The file at a path below `assets/`, `<hash>/page.js`. It may be kept for ever. `None` where there is none, which is
/// also what a page of another build gets.
pub(super) fn asset(path: &str) -> Option<&'static Asset> {
    let (hash, name) = path.split_once('/')?;
    ASSETS.iter().find(|asset| asset.name == name && hash == PAGE.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in double quotes after this word.
    fn quoted_after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
        let parts = text.split(word).skip(1);
        parts.filter_map(|part| part.split('"').nth(1)).collect()
    }

    #[test]
    fn whatever_the_page_loads_is_there() {
        let mut addresses = quoted_after(&page().text, "src=");
        addresses.extend(quoted_after(&page().text, "href="));
        let loaded: Vec<_> = addresses
            .iter()
            .filter_map(|address| address.strip_prefix("assets/"))
            .collect();
        assert!(loaded.len() >= 3, "{addresses:?}");
        for path in &loaded {
            assert!(asset(path).is_some(), "{path}");
        }
        let mut imports = 0;
        for file in ASSETS
            .iter()
            .filter(|file| file.content_type == SCRIPT && file.name != "hls.min.mjs")
        {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for import in text.lines().filter(|line| line.starts_with("import ")) {
                let name = quoted_after(import, " from ")[0];
                let name = name
                    .strip_prefix("./")
                    .unwrap_or_else(|| panic!("{}: {import}", file.name));
                assert!(
                    asset(&format!("{}/{name}", page().hash)).is_some(),
                    "{}: {import}",
                    file.name
                );
                imports += 1;
            }
        }
        assert!(imports > 3, "only {imports} imports are seen");
    }

    #[test]
    fn a_page_of_another_build_gets_nothing() {
        assert!(asset("0000000000000000/page.js").is_none());
        assert!(asset("page.js").is_none());
        assert!(asset(&format!("{}/../page.js", page().hash)).is_none());
    }

    /// The policy would refuse it, and the page would stand still.
    #[test]
    fn nothing_is_inline() {
        for forbidden in [
            "<style",
            "style=",
            "onclick",
            "<script>",
            "javascript:",
            "http://",
            "https://",
        ] {
            assert!(!page().text.contains(forbidden), "the page has {forbidden}");
        }
    }

    /// Names come from torrents, and a torrent is anybody's.
    #[test]
    fn no_text_is_ever_read_as_html() {
        for file in ASSETS.iter().filter(|file| file.name.ends_with(".js")) {
            let text = std::str::from_utf8(file.bytes).unwrap();
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(forbidden), "{} has {forbidden}", file.name);
            }
        }
    }
}
