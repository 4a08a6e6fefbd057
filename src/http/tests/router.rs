//! Routes, headers and statuses, without a socket.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout};

use super::fake::{Asked, FILES, HASH, byte};
use crate::http::backend::Segment;
use crate::stream::StreamError;

fn film() -> String {
    format!("{HASH}/a%20b/Film%20%231%20100%25.mkv")
}

#[tokio::test]
async fn a_file_whole_and_in_part() {
    let asked = Asked::new(None);
    let path = format!("/files/{}", film());
    let whole = asked.get(&path, &[]).await;
    assert_eq!(whole.status, StatusCode::OK);
    assert_eq!(whole.body, (0..FILES[0].1).map(byte).collect::<Vec<_>>());
    for (name, value) in [
        ("content-length", "300000"),
        ("content-type", "video/x-matroska"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("content-security-policy", "sandbox; default-src 'none'"),
        ("cache-control", "private, max-age=31536000, immutable"),
        ("content-disposition", ""),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    let etag = whole.header("etag");
    assert!(etag.starts_with('"'), "a strong tag: {etag}");

    let part = asked.get(&path, &[("range", "bytes=131000-262300")]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.header("content-range"), "bytes 131000-262300/300000");
    assert_eq!(part.header("content-length"), "131301");
    assert_eq!(part.header("etag"), etag);
    assert_eq!(part.body, (131_000..=262_300).map(byte).collect::<Vec<_>>());

    let beyond = asked.get(&path, &[("range", "bytes=300000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.header("content-range"), "bytes */300000");
    assert_eq!(beyond.header("cache-control"), "no-store");

    let several = asked.get(&path, &[("range", "bytes=0-0,5-5")]).await;
    assert_eq!((several.status, several.body.len()), (StatusCode::OK, 300_000));
    let changed = asked
        .get(&path, &[("range", "bytes=0-0"), ("if-range", "\"other\"")])
        .await;
    assert_eq!((changed.status, changed.body.len()), (StatusCode::OK, 300_000));
    let same = asked.get(&path, &[("range", "bytes=0-0"), ("if-range", etag)]).await;
    assert_eq!((same.status, &same.body[..]), (StatusCode::PARTIAL_CONTENT, &[0][..]));
    let known = asked.get(&path, &[("if-none-match", etag)]).await;
    assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(known.header("etag"), etag);
    assert_eq!(*asked.fake.open.borrow(), 0, "every handle is closed");
}

#[tokio::test]
async fn head_reads_nothing_and_says_the_length() {
    let asked = Asked::new(None);
    // Its end never comes: whoever read there would wait for ever.
    let path = format!("/files/{HASH}/dead.mp4");
    let head = asked.ask("HEAD", &path, &[("range", "bytes=-5")], Body::empty()).await;
    assert_eq!(head.status, StatusCode::OK);
    assert_eq!(head.header("content-length"), (1u64 << 40).to_string());
    assert!(head.body.is_empty());
}

#[tokio::test]
async fn what_does_not_come_is_a_status_before_the_body_and_a_break_in_it() {
    let asked = Asked::new(None);
    let path = format!("/files/{HASH}/dead.mp4");
    let dead = asked.get(&path, &[("range", "bytes=1500000-1600000")]).await;
    assert_eq!(
        (dead.status, dead.text()),
        (StatusCode::GATEWAY_TIMEOUT, "no peer has it\n")
    );
    assert_eq!(dead.header("cache-control"), "no-store");
    // `to_bytes` fails with the body, which gives nothing here.
    let broken = asked.get(&path, &[("range", "bytes=900000-1100000")]).await;
    assert_eq!((broken.status, broken.body.len()), (StatusCode::PARTIAL_CONTENT, 0));
}

#[tokio::test]
async fn an_empty_file_and_one_that_a_browser_would_run() {
    let asked = Asked::new(None);
    let empty = asked.get(&format!("/files/{HASH}/empty.txt"), &[]).await;
    assert_eq!((empty.status, empty.header("content-length")), (StatusCode::OK, "0"));
    let range = asked
        .get(&format!("/files/{HASH}/empty.txt"), &[("range", "bytes=0-")])
        .await;
    assert_eq!(range.header("content-range"), "bytes */0");
    let page = asked.get(&format!("/files/{HASH}/page.html"), &[]).await;
    assert_eq!(page.header("content-type"), "application/octet-stream");
    assert_eq!(
        page.header("content-disposition"),
        "attachment; filename*=UTF-8''page.html"
    );
}

#[tokio::test]
async fn a_path_is_looked_up_as_it_is() {
    let asked = Asked::new(None);
    for nothing in [
        format!("/files/{HASH}/a%20b/Film%20%25231%20100%2525.mkv"),
        format!("/files/{HASH}/a%20b%2FFilm%20%231%20100%25.mkv"),
        format!("/files/{HASH}/../../../etc/passwd"),
        format!("/files/{HASH}/%2e%2e/%2e%2e/etc/passwd"),
        format!("/files/{HASH}/"),
        format!("/files/{HASH}"),
        format!("/files/{}/page.html", "ab".repeat(20)),
        "/files/".to_owned(),
        "/other".to_owned(),
        "//".to_owned(),
    ] {
        let answer = asked.get(&nothing, &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{nothing}");
        assert_eq!(answer.header("cache-control"), "no-store", "{nothing}");
        assert!(answer.text().ends_with('\n'), "words: {nothing}");
    }
}

#[tokio::test]
async fn a_film_and_its_parts() {
    let asked = Asked::new(None);
    let (film, name) = (film(), format!("{HASH}/{}", FILES[0].0));
    let master = asked.get(&format!("/hls/{film}/master.m3u8"), &[]).await;
    assert_eq!((master.status, master.text()), (StatusCode::OK, "#EXTM3U\n"));
    assert_eq!(master.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(master.header("cache-control"), "public, max-age=10");
    let etag = master.header("etag").to_owned();
    let again = asked
        .get(&format!("/hls/{film}/master.m3u8"), &[("if-none-match", &etag)])
        .await;
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);

    let segment = asked.get(&format!("/hls/{film}/video/12.m4s"), &[]).await;
    assert_eq!(
        (segment.text(), segment.header("content-type")),
        ("segment", "video/mp4")
    );
    assert_eq!(segment.header("cache-control"), "public, max-age=31536000, immutable");
    let init = asked.get(&format!("/hls/{film}/audio-1/init.mp4"), &[]).await;
    assert_eq!(init.header("cache-control"), "public, max-age=31536000, immutable");
    let cues = asked.get(&format!("/hls/{film}/subtitles-0/3.vtt"), &[]).await;
    assert_eq!(cues.header("content-type"), "text/vtt; charset=utf-8");
    asked.get(&format!("/hls/{film}/audio-1.m3u8"), &[]).await;
    let done = std::mem::take(&mut *asked.fake.done.lock());
    let wanted = [
        "master {}",
        "segment {} video 12",
        "init {} audio-1",
        "segment {} subtitles-0 3",
        "media {} audio-1",
    ];
    // The second look at the master playlist asked nobody.
    assert_eq!(done, wanted.map(|what| what.replace("{}", &name)));

    *asked.fake.film.lock() = Ok(Segment {
        bytes: "some".into(),
        provisional: true,
    });
    let early = asked.get(&format!("/hls/{film}/subtitles-0/3.vtt"), &[]).await;
    assert_eq!((early.text(), early.header("cache-control")), ("some", "no-store"));
    assert_eq!(
        asked.get(&format!("/hls/{film}/video/x.m4s"), &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_film_that_is_refused_says_why_and_is_not_kept() {
    let asked = Asked::new(None);
    let film = film();
    for (error, status, retry) in [
        (StreamError::NotPlayable("DTS".into()), 422, ""),
        (StreamError::Unknown, 404, ""),
        (StreamError::Busy { retry_after_s: 7 }, 503, "7"),
        (
            StreamError::Failed {
                last_words: "oh".into(),
            },
            500,
            "",
        ),
        (StreamError::Unavailable("paused".into()), 503, "5"),
        (StreamError::Stopping, 503, "5"),
    ] {
        let words = error.to_string();
        *asked.fake.film.lock() = Err(error);
        for part in ["master.m3u8", "video.m3u8", "video/init.mp4", "video/0.m4s"] {
            let answer = asked.get(&format!("/hls/{film}/{part}"), &[]).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("retry-after")),
                (status, retry),
                "{words}"
            );
            assert_eq!(answer.text().trim_end(), words);
            assert_eq!(answer.header("cache-control"), "no-store");
        }
    }
}

#[tokio::test]
async fn the_api_shows_what_the_command_line_shows() {
    let asked = Asked::new(None);
    let list = asked.get("/api/torrents", &[]).await;
    assert_eq!(list.header("content-type"), "application/json");
    assert_eq!(
        (&list.json()[0]["name"], &list.json()[0]["path"]),
        (&"Films".into(), &"/mnt/Films".into())
    );
    let shown = asked.get(&format!("/api/torrents/{HASH}"), &[]).await.json();
    let file = &shown["contents"][0];
    assert_eq!(file["stream"], format!("hls/{}/master.m3u8", film()));
    assert_eq!(
        (&file["raw"], &file["video"]),
        (&format!("files/{}", film()).into(), &true.into())
    );
    assert_eq!(shown["contents"][1]["video"], false);
    let raw = asked
        .get(
            &format!("/{}", file["raw"].as_str().unwrap()),
            &[("range", "bytes=0-0")],
        )
        .await;
    assert_eq!(raw.status, StatusCode::PARTIAL_CONTENT, "the address leads to the file");
    assert_eq!(
        asked.get(&format!("/api/films/{}", film()), &[]).await.json()["state"],
        "streaming"
    );
    assert_eq!(
        asked.get(&format!("/api/films/{HASH}/page.html"), &[]).await.status,
        StatusCode::NOT_FOUND
    );
    for unknown in ["ab".repeat(20), HASH[1..].to_owned(), "Films".to_owned()] {
        let answer = asked.get(&format!("/api/torrents/{unknown}"), &[]).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{unknown}");
    }
    let playlist = asked.get(&format!("/m3u/{HASH}.m3u8"), &[]).await;
    assert!(
        playlist
            .text()
            .contains(&format!("\nhttp://localhost:1/files/{}\n", film())),
        "{}",
        playlist.text()
    );
    let behind_tls = asked
        .get(&format!("/m3u/{HASH}.m3u8"), &[("x-forwarded-proto", "https")])
        .await;
    assert!(
        behind_tls
            .text()
            .contains(&format!("\nhttps://localhost:1/files/{}\n", film())),
        "{}",
        behind_tls.text()
    );
}

#[tokio::test]
async fn the_api_does_what_the_command_line_does() {
    let asked = Asked::new(None);
    let json = "application/json";
    let added = asked
        .write("POST", "/api/torrents", json, r#"{"source":"magnet:?x"}"#)
        .await;
    assert_eq!(
        (added.status, &added.json()["info_hash"]),
        (StatusCode::CREATED, &HASH.into())
    );
    asked
        .write("POST", "/api/torrents", "application/x-bittorrent", "d4:infoe")
        .await;
    asked
        .write("POST", &format!("/api/torrents/{HASH}/pause"), "", "")
        .await;
    asked
        .write("POST", &format!("/api/torrents/{HASH}/resume"), "", "")
        .await;
    asked.write("DELETE", &format!("/api/torrents/{HASH}"), "", "").await;
    let removed = asked
        .write("DELETE", &format!("/api/torrents/{HASH}?data=true"), "", "")
        .await;
    assert_eq!(removed.json()["name"], "Films");
    let done = [
        "add magnet:?x",
        "add 8 bytes",
        "pause",
        "resume",
        "remove false",
        "remove true",
    ];
    assert_eq!(*asked.fake.done.lock(), done);

    for (method, target, content_type, body, status) in [
        ("POST", "/api/torrents".to_owned(), json, "{}", 400),
        (
            "POST",
            "/api/torrents".to_owned(),
            json,
            r#"{"source":"/etc/passwd"}"#,
            400,
        ),
        ("POST", "/api/torrents".to_owned(), json, "", 400),
        ("POST", format!("/api/torrents/{HASH}/stop"), "", "", 404),
        ("POST", format!("/api/torrents/{}/pause", "ab".repeat(20)), "", "", 404),
        ("DELETE", format!("/api/torrents/{HASH}?data=maybe"), "", "", 400),
        ("DELETE", "/api/torrents/0123".to_owned(), "", "", 404),
        ("PUT", "/api/torrents".to_owned(), "", "", 405),
        ("POST", format!("/files/{HASH}/page.html"), "", "", 405),
        ("DELETE", "/".to_owned(), "", "", 405),
    ] {
        let answer = asked.write(method, &target, content_type, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {target}: {}", answer.text());
    }
    assert_eq!(asked.fake.done.lock().len(), done.len(), "what is refused does nothing");
    let put = asked.write("PUT", "/api/torrents", "", "").await;
    assert_eq!(put.header("allow"), "GET,HEAD,POST");
}

#[tokio::test]
async fn an_upload_has_a_limit() {
    let asked = Asked::new(None);
    let announced = [
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/json"),
        ("content-length", "65537"),
    ];
    let answer = asked.ask("POST", "/api/torrents", &announced, Body::empty()).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let long = format!(r#"{{"source":"magnet:{}"}}"#, "a".repeat(65_536));
    let body = Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>(long)]));
    let answer = asked.write("POST", "/api/torrents", "application/json", body).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(asked.fake.done.lock().is_empty());
}

/// The page's script runs under a policy that lets it load what is served here and nothing else.
#[tokio::test]
async fn the_page_and_what_it_loads() {
    let asked = Asked::new(None);
    let page = asked.get("/", &[]).await;
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    let script = page
        .text()
        .split('"')
        .find(|part| part.ends_with("page.js"))
        .expect("a script");
    let script = asked.get(&format!("/{script}"), &[]).await;
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    assert_eq!(script.header("cache-control"), "public, max-age=31536000, immutable");
    let etag = page.header("etag");
    assert_eq!(
        asked.get("/", &[("if-none-match", etag)]).await.status,
        StatusCode::NOT_MODIFIED
    );
    assert_eq!(asked.get("/assets/x/page.js", &[]).await.status, StatusCode::NOT_FOUND);
}

/// A page is told what differs from what it was told, and else only shown now and then that we are here; all pages share
/// one look at the library.
#[tokio::test(start_paused = true)]
async fn events_are_sent_when_something_changes() {
    let asked = Asked::new(None);
    let open = async || {
        let answer = asked.open("GET", "/api/events", &[], Body::empty()).await;
        answer.into_body().into_data_stream()
    };
    let (mut one, mut other) = (open().await, open().await);
    let mut both = async || {
        let next = async { tokio::join!(one.next(), other.next()) };
        let (one, other) = timeout(Duration::from_secs(60), next).await.expect("something is sent");
        let text = |frame: Option<Result<Bytes, _>>| String::from_utf8(frame.unwrap().unwrap().into()).unwrap();
        (text(one), text(other))
    };
    let same = |(one, other): (String, String)| {
        assert_eq!(one, other);
        one
    };
    let first = same(both().await);
    assert!(
        first.starts_with("event: torrents\ndata: [{") && first.contains("\"peers\":0"),
        "{first}"
    );
    let (began, looks) = (Instant::now(), asked.fake.looks.load(Relaxed));
    assert_eq!(same(both().await), ":\n\n", "a comment, which pages do not see");
    let (seconds, looks) = (began.elapsed().as_secs(), asked.fake.looks.load(Relaxed) - looks);
    assert!((10..=30).contains(&seconds), "silent for {seconds} s");
    assert!(looks as u64 <= seconds + 1, "{looks} looks for both in {seconds} s");
    asked.fake.peers.store(7, Relaxed);
    let began = Instant::now();
    let changed = same(both().await);
    assert!(changed.contains("\"peers\":7"), "{changed}");
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(same(both().await), ":\n\n");
}

/// "Nothing listens beyond loopback unless asked to, and then not without a token; a foreign Host header is refused."
#[tokio::test]
async fn the_guard_stands_before_everything() {
    let asked = Asked::new(None);
    let targets = ["/", "/api/torrents", "/assets/x/y", "/other", "/api/events"];
    for target in targets {
        let answer = asked.get(target, &[("sec-fetch-site", "cross-site")]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{target}");
        // The second Host header makes it unclear which one is meant.
        let answer = asked.get(target, &[("host", "evil.example")]).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{target}");
    }
    let unmarked = asked
        .ask("DELETE", &format!("/api/torrents/{HASH}"), &[], Body::empty())
        .await;
    assert_eq!(unmarked.status, StatusCode::FORBIDDEN);
    assert!(asked.fake.done.lock().is_empty());

    let token = "0123456789abcdef";
    let asked = Asked::new(Some(token));
    for target in targets {
        let answer = asked.get(target, &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{target}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
    }
    let list = asked.get(&format!("/t/{token}/api/torrents"), &[]).await;
    assert_eq!(list.status, StatusCode::OK);
    assert_eq!(list.header("referrer-policy"), "no-referrer");
    let slashless = asked.get(&format!("/t/{token}"), &[]).await;
    assert_eq!(slashless.status, StatusCode::PERMANENT_REDIRECT);
    assert_eq!(slashless.header("location"), format!("{token}/"));
    let playlist = asked.get(&format!("/t/{token}/m3u/{HASH}.m3u8"), &[]).await;
    assert!(
        playlist
            .text()
            .contains(&format!("http://localhost:1/t/{token}/files/")),
        "{}",
        playlist.text()
    );
    asked
        .ask("DELETE", &format!("/t/{token}/api/torrents/{HASH}"), &[], Body::empty())
        .await;
    assert_eq!(*asked.fake.done.lock(), ["remove false"]);
}
