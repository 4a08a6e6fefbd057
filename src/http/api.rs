//! `/api/torrents…`: what the command line shows and does, as JSON. Errors are plain words.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::address;
use super::answers::{not_found, words};
use super::backend::{Backend, Refusal};
use super::kinds;
use super::routes::App;
use crate::control::protocol::{Named, Offer};
use crate::torrents::{InfoHash, METAINFO_LIMIT};

/// A body must have come whole by then.
const UPLOAD_LIMIT: Duration = Duration::from_secs(60);

/// The longest `{"source": …}`: a magnet link has its own, lower limit.
const TEXT_LIMIT: usize = 64 << 10;

/// JSON, which changes with every look.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => json_text(status, text.into()),
        Err(error) => words(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// JSON that is text already.
pub(super) fn json_text(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /api/torrents`
pub(super) async fn list<B: Backend>(State(app): State<Arc<App<B>>>) -> Response {
    json(StatusCode::OK, &app.backend.list())
}

/// `GET /api/torrents/<info hash>`
pub(super) async fn show<B: Backend>(State(app): State<Arc<App<B>>>, Path(info_hash): Path<String>) -> Response {
    let Ok(info_hash) = info_hash.parse::<InfoHash>() else {
        return not_found();
    };
    let (Some(shown), Some(files)) = (app.backend.show(info_hash), app.backend.files(info_hash)) else {
        return unknown(info_hash);
    };
    let mut value = match serde_json::to_value(&shown) {
        Ok(value) => value,
        Err(error) => return words(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let contents = value.get_mut("contents").and_then(Value::as_array_mut);
    for (entry, file) in contents.into_iter().flatten().zip(&files) {
        let address = address::of_file(&info_hash.to_string(), &file.path);
        if let Value::Object(entry) = entry {
            entry.insert("stream".to_owned(), format!("hls/{address}/master.m3u8").into());
            entry.insert("raw".to_owned(), format!("files/{address}").into());
            entry.insert("video".to_owned(), kinds::is_video(&file.path).into());
        }
    }
    json(StatusCode::OK, &value)
}

/// What `POST /api/torrents` takes if it is no .torrent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wished {
    source: String,
}

/// `POST /api/torrents`: `{"source": "magnet:…"}` as JSON, or else a .torrent.
pub(super) async fn add<B: Backend>(State(app): State<Arc<App<B>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let is_text = is_json(&parts.headers);
    let limit = if is_text { TEXT_LIMIT } else { METAINFO_LIMIT };
    let too_long = || {
        words(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("at most {limit} bytes can be taken"),
        )
    };
    let announced = parts
        .headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        return too_long();
    }
    // A torrent may have 64 MiB, so few are held at once, until they are added; who is one too many waits no longer than
    // an upload may take.
    let upload = async {
        let turn = match is_text {
            true => None,
            false => app.uploads.acquire().await.ok(),
        };
        to_bytes(body, limit).await.map(|bytes| (bytes, turn))
    };
    let (bytes, _turn) = match timeout(UPLOAD_LIMIT, upload).await {
        Ok(Ok(uploaded)) => uploaded,
        // The library's error does not say which it was, but one that announces its length was judged above.
        Ok(Err(_)) if announced.is_none() => return too_long(),
        Ok(Err(_)) => return words(StatusCode::BAD_REQUEST, "the request broke off"),
        Err(_) => return words(StatusCode::REQUEST_TIMEOUT, "the request did not come whole in time"),
    };
    let offer = if is_text {
        match serde_json::from_slice::<Wished>(&bytes) {
            Ok(wished) => Offer::Text(wished.source),
            Err(error) => {
                return words(
                    StatusCode::BAD_REQUEST,
                    format!("{{\"source\": \"…\"}} was expected: {error}"),
                );
            }
        }
    } else {
        Offer::Metainfo(bytes.into())
    };
    match app.backend.add(offer).await {
        Ok(added) => {
            let status = if added.new { StatusCode::CREATED } else { StatusCode::OK };
            json(status, &added)
        }
        Err(refusal) => refusal.into_response(),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|it| {
        it.split(';')
            .next()
            .unwrap_or("")
            .trim()
            .eq_ignore_ascii_case("application/json")
    })
}

/// `POST /api/torrents/<info hash>/pause` and `…/resume`
pub(super) async fn order<B: Backend>(
    State(app): State<Arc<App<B>>>,
    Path((info_hash, order)): Path<(String, String)>,
) -> Response {
    let Ok(info_hash) = info_hash.parse::<InfoHash>() else {
        return not_found();
    };
    match order.as_str() {
        "pause" => named(app.backend.pause(info_hash).await),
        "resume" => named(app.backend.resume(info_hash).await),
        _ => not_found(),
    }
}

/// Of `DELETE /api/torrents/<info hash>`.
#[derive(Debug, Deserialize)]
pub(super) struct Removal {
    #[serde(default)]
    data: bool,
}

/// `DELETE /api/torrents/<info hash>[?data=true]`
pub(super) async fn remove<B: Backend>(
    State(app): State<Arc<App<B>>>,
    Path(info_hash): Path<String>,
    removal: Result<Query<Removal>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(info_hash) = info_hash.parse::<InfoHash>() else {
        return not_found();
    };
    // What cannot be understood must delete nothing.
    let Ok(Query(removal)) = removal else {
        return words(StatusCode::BAD_REQUEST, "data is true or false");
    };
    named(app.backend.remove(info_hash, removal.data).await)
}

fn named(result: Result<String, Refusal>) -> Response {
    match result {
        Ok(name) => json(StatusCode::OK, &Named { name }),
        Err(refusal) => refusal.into_response(),
    }
}

pub(super) fn unknown(info_hash: InfoHash) -> Response {
    words(StatusCode::NOT_FOUND, format!("no torrent {info_hash} in the library"))
}
