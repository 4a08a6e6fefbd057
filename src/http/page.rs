//! `GET /` and `/assets/…`: the player page.

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::answers::not_found;
use super::assets;
use super::range::{Wanted, wanted};

/// `GET /`
pub(super) async fn page(asked: HeaderMap) -> Response {
    let page = assets::page();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(assets::POLICY));
    if let Ok(etag) = HeaderValue::from_str(&page.etag) {
        headers.insert(ETAG, etag);
    }
    match wanted(&asked, &page.etag, page.text.len() as u64) {
        Wanted::NotModified => (StatusCode::NOT_MODIFIED, headers).into_response(),
        // A page is short: nobody needs a part of it.
        Wanted::Whole | Wanted::Part(_) | Wanted::OutOfRange | Wanted::Mismatch => {
            (headers, Body::from(page.text.as_str())).into_response()
        }
    }
}

/// `GET /assets/<hash>/<name>`
pub(super) async fn asset(Path(path): Path<String>) -> Response {
    let Some(asset) = assets::asset(&path) else {
        return not_found();
    };
    let mut response = Response::new(Body::from(Bytes::from_static(asset.bytes)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=31536000, immutable"),
    );
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(assets::POLICY));
    response
}
