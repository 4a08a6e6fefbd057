//! `GET /files/<info hash>/<path>`: the raw file, whole or in part, for players that seek by themselves.
//!
//! One request is one open handle, read in pieces through the process, never through the mount. The first piece is
//! waited for before the answer begins, so that a torrent that is paused or that nobody has gets a status with words
//! rather than an answer that breaks off.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, ETAG,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use super::address;
use super::answers::{not_found, words};
use super::backend::{Backend, RawFile};
use super::kinds;
use super::range::{Wanted, wanted};
use super::routes::App;

/// As much as the kernel asks of the mount at once: the engine's readahead is measured with it.
const PIECE: usize = 128 << 10;

/// Nothing in a file of anybody's may run or load anything, whatever a browser takes it for.
const POLICY: &str = "sandbox; default-src 'none'";

/// The handler.
pub(super) async fn raw<B: Backend>(State(app): State<Arc<App<B>>>, request: Request) -> Response {
    let encoded = request.uri().path().strip_prefix("/files/").unwrap_or_default();
    let Some((info_hash, path)) = address::file(encoded) else {
        return not_found();
    };
    let file = match app.backend.open(info_hash, &path) {
        Ok(file) => file,
        Err(refusal) => return refusal.into_response(),
    };
    let size = file.size();
    let etag = etag(&info_hash.to_string(), &path);
    let headers = described(&path, &etag);
    let is_head = request.method() == Method::HEAD;
    // RFC 9110, 14.2: ranges are a matter of GET alone.
    let mut asked = request.headers().clone();
    if is_head {
        asked.remove(axum::http::header::RANGE);
    }
    match wanted(&asked, &etag, size) {
        Wanted::Whole => give(file, headers, StatusCode::OK, 0..size, is_head).await,
        Wanted::Part(part) => {
            let mut headers = headers;
            let said = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            headers.insert(CONTENT_RANGE, value(&said));
            give(file, headers, StatusCode::PARTIAL_CONTENT, part, is_head).await
        }
        Wanted::OutOfRange => {
            let mut response = words(StatusCode::RANGE_NOT_SATISFIABLE, format!("the file has {size} bytes"));
            response
                .headers_mut()
                .insert(CONTENT_RANGE, value(&format!("bytes */{size}")));
            response
        }
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, headers).into_response(),
        Wanted::Mismatch => words(StatusCode::PRECONDITION_FAILED, "it is another file"),
    }
}

/// The bytes are named by the info hash, so they are the same for ever: the tag is strong and made of names alone.
fn etag(info_hash: &str, path: &str) -> String {
    use sha1::{Digest, Sha1};
    let digest = Sha1::new_with_prefix(info_hash).chain_update(path).finalize();
    format!("\"{}\"", hex::encode(&digest[..12]))
}

fn described(path: &str, etag: &str) -> HeaderMap {
    let kind = kinds::of(path);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind.content_type));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, value(etag));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=31536000, immutable"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    if !kind.inline {
        let name = path.rsplit('/').next().unwrap_or(path);
        let disposition = format!("attachment; filename*=UTF-8''{}", address::quoted(name));
        headers.insert(CONTENT_DISPOSITION, value(&disposition));
    }
    headers
}

/// Our own texts are printable ASCII, which every header takes.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

async fn give<F: RawFile>(
    file: F,
    mut headers: HeaderMap,
    status: StatusCode,
    part: Range<u64>,
    is_head: bool,
) -> Response {
    let length = part.end - part.start;
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if is_head || length == 0 {
        return (status, headers, Body::empty()).into_response();
    }
    let (first, rest) = match piece(&file, part).await {
        Ok(read) => read,
        Err(error) => return failed(&error),
    };
    let rest = stream::try_unfold((file, rest), |(file, part)| async move {
        if part.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        // A body that fails breaks the connection off: no client takes it for the whole.
        match piece(&file, part).await {
            Ok((bytes, rest)) => Ok(Some((bytes, (file, rest)))),
            Err(error) => {
                tracing::debug!(%error, "a download was broken off");
                Err(error)
            }
        }
    });
    let body = stream::iter([Ok(first)]).chain(rest);
    (status, headers, Body::from_stream(body)).into_response()
}

/// The first piece of a part, and what is left of it.
async fn piece<F: RawFile>(file: &F, part: Range<u64>) -> io::Result<(Bytes, Range<u64>)> {
    let length = usize::try_from(part.end - part.start).unwrap_or(PIECE).min(PIECE);
    let bytes = file.read_at(part.start, length).await?;
    Ok((Bytes::from(bytes), part.start + length as u64..part.end))
}

fn failed(error: &io::Error) -> Response {
    let status = match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NOT_FOUND,
        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    words(status, error.to_string())
}
