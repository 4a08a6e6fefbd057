//! `GET /hls/<info hash>/<path>/…`: a film as HLS, and `GET /api/films/<info hash>/<path>`: how it does.
//!
//! ```text
//! master.m3u8                  which renditions there are
//! video.m3u8, audio-0.m3u8     the segments of one
//! video/init.mp4               its initialisation segment
//! video/12.m4s                 a segment, counted from 0
//! subtitles-0/12.vtt
//! ```
//!
//! A segment is the same for ever, since the info hash names the film's bytes. A request waits while the swarm is slow;
//! a client that hangs up withdraws it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use moka::sync::Cache;
use sha1::{Digest, Sha1};

use super::address::{self, OfFilm};
use super::answers::{not_found, words};
use super::api::json_text;
use super::backend::{Backend, Segment};
use super::range::{Wanted, wanted};
use super::routes::App;
use crate::stream::{RenditionId, StreamError};

/// Bytes of playlists that are kept: one of a long film has some 100 KiB.
const PLAYLISTS: u64 = 16 << 20;

/// A playlist is kept for so long by us and by clients. It never changes; a torrent may be removed.
const BRIEF: Duration = Duration::from_secs(10);
const BRIEFLY: &str = "public, max-age=10";

const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// Playlists that were asked for a moment ago, by their address: players ask for them again and again, all at once.
#[derive(Debug)]
pub(super) struct Playlists(Cache<String, (Bytes, HeaderValue)>);

impl Playlists {
    pub(super) fn new() -> Playlists {
        let weight = |address: &String, (text, _): &(Bytes, HeaderValue)| {
            u32::try_from(address.len() + text.len()).unwrap_or(u32::MAX)
        };
        Playlists(
            Cache::builder()
                .max_capacity(PLAYLISTS)
                .weigher(weight)
                .time_to_live(BRIEF)
                .build(),
        )
    }

    fn keep(&self, address: &str, text: String) -> (Bytes, HeaderValue) {
        let etag = format!("\"{}\"", hex::encode(&Sha1::digest(&text)[..12]));
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
        let kept = (Bytes::from(text), etag);
        self.0.insert(address.to_owned(), kept.clone());
        kept
    }
}

/// The handler of everything below `hls/`.
pub(super) async fn part<B: Backend>(State(app): State<Arc<App<B>>>, request: Request) -> Response {
    let encoded = request.uri().path().strip_prefix("/hls/").unwrap_or_default();
    if let Some(kept) = app.playlists.0.get(encoded) {
        return playlist(request.headers(), kept);
    }
    let Some((film, what)) = address::of_film(encoded) else {
        return not_found();
    };
    let given = match what {
        OfFilm::Master => app.backend.master(&film).await.map(Given::Playlist),
        OfFilm::Media(rendition) => app.backend.media(&film, rendition).await.map(Given::Playlist),
        OfFilm::Init(rendition) => app.backend.init(&film, rendition).await.map(Given::Init),
        OfFilm::Segment(rendition, number) => app
            .backend
            .segment(&film, rendition, number)
            .await
            .map(|segment| Given::Segment(rendition, segment)),
    };
    match given {
        Ok(Given::Playlist(text)) => playlist(request.headers(), app.playlists.keep(encoded, text)),
        Ok(Given::Init(bytes)) => whole(bytes, "video/mp4", FOR_EVER),
        Ok(Given::Segment(rendition, Segment { bytes, provisional })) => {
            let content_type = match rendition {
                RenditionId::Video => "video/mp4",
                RenditionId::Audio(_) => "audio/mp4",
                RenditionId::Subtitles(_) => "text/vtt; charset=utf-8",
            };
            whole(bytes, content_type, if provisional { "no-store" } else { FOR_EVER })
        }
        Err(error) => refused(&error),
    }
}

/// What the film side gave.
enum Given {
    Playlist(String),
    Init(Bytes),
    Segment(RenditionId, Segment),
}

fn playlist(asked: &HeaderMap, (text, etag): (Bytes, HeaderValue)) -> Response {
    let tag = etag.to_str().unwrap_or_default();
    let mut response = match wanted(asked, tag, text.len() as u64) {
        Wanted::NotModified => StatusCode::NOT_MODIFIED.into_response(),
        // A playlist is short: nobody needs a part of it.
        Wanted::Whole | Wanted::Part(_) | Wanted::OutOfRange | Wanted::Mismatch => Response::new(Body::from(text)),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.apple.mpegurl"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(BRIEFLY));
    headers.insert(ETAG, etag);
    response
}

fn whole(bytes: Bytes, content_type: &'static str, cache: &'static str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

fn refused(error: &StreamError) -> Response {
    let status = match error {
        StreamError::NotPlayable(_) => StatusCode::UNPROCESSABLE_ENTITY,
        StreamError::Unknown => StatusCode::NOT_FOUND,
        StreamError::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        StreamError::Busy { .. } | StreamError::Unavailable(_) | StreamError::Stopping => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    };
    let mut response = words(status, error.to_string());
    if let StreamError::Busy { retry_after_s } = error {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(*retry_after_s));
    }
    response
}

/// The handler of `/api/films/…`.
pub(super) async fn report<B: Backend>(State(app): State<Arc<App<B>>>, request: Request) -> Response {
    let encoded = request.uri().path().strip_prefix("/api/films/").unwrap_or_default();
    let Some(film) = address::film(encoded) else {
        return not_found();
    };
    match app.film(&film) {
        Some(report) => json_text(StatusCode::OK, report),
        None => words(StatusCode::NOT_FOUND, "nobody has asked for that film since the start"),
    }
}
