//! What a file is, by the ending of its name, and whether a browser may show it.

/// How a raw file is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// For the Content-Type header.
    pub(super) content_type: &'static str,
    /// A browser may show it. What a browser would run, or read as a page, is only ever saved: it comes from anybody.
    pub(super) inline: bool,
}

/// What may be a film. What is really in it, only its bytes say.
pub(super) fn is_video(path: &str) -> bool {
    of(path).content_type.starts_with("video/")
}

/// The kind of a file.
pub(super) fn of(path: &str) -> Kind {
    let name = path.rsplit('/').next().unwrap_or(path);
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    let content_type = match ending.as_deref().unwrap_or("") {
        "mkv" | "mk3d" => "video/x-matroska",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        "mov" | "qt" => "video/quicktime",
        "avi" | "divx" => "video/x-msvideo",
        "ts" | "m2ts" | "mts" => "video/mp2t",
        "mpg" | "mpeg" | "vob" | "m2v" => "video/mpeg",
        "wmv" | "asf" => "video/x-ms-wmv",
        "flv" => "video/x-flv",
        "ogv" | "ogm" => "video/ogg",
        "3gp" => "video/3gpp",
        "mka" => "audio/x-matroska",
        "mp3" => "audio/mpeg",
        "m4a" | "m4b" => "audio/mp4",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "wav" => "audio/wav",
        "ac3" => "audio/ac3",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "vtt" => "text/vtt",
        "txt" | "nfo" | "srt" | "ass" | "ssa" | "sub" | "md" | "log" | "cue" | "m3u" | "m3u8" | "sfv" => "text/plain",
        "pdf" => return saved("application/pdf"),
        "zip" => return saved("application/zip"),
        _ => return saved("application/octet-stream"),
    };
    Kind {
        content_type,
        inline: true,
    }
}

fn saved(content_type: &'static str) -> Kind {
    Kind {
        content_type,
        inline: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_run_is_saved() {
        for active in [
            "a.html", "a.HTM", "a.xhtml", "a.svg", "a.xml", "a.js", "a.mjs", "a.swf", "a.wasm", "a", "html",
        ] {
            let kind = of(active);
            assert_eq!(
                (kind.content_type, kind.inline),
                ("application/octet-stream", false),
                "{active}"
            );
        }
        assert!(!of("a.pdf").inline);
    }

    #[test]
    fn the_ending_of_the_last_part_counts() {
        assert_eq!(of("Film.MKV").content_type, "video/x-matroska");
        assert_eq!(of("a.mp4/b.srt").content_type, "text/plain");
        assert_eq!(of("a.mp4/b").content_type, "application/octet-stream");
        assert!(is_video("s/e.webm") && !is_video("s/e.mp3"));
    }
}
