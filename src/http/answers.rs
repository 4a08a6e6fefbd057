//! Answers without content: what went wrong, in plain words.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::backend::Refusal;

/// Until a client asks again what could not be done now, in seconds.
const LATER_S: &str = "5";

/// An error in plain words. It is not kept: what is wrong now may be right in a moment.
pub(super) fn words(status: StatusCode, words: impl Into<String>) -> Response {
    let mut text = words.into();
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static(LATER_S));
    }
    response
}

/// There is nothing at this address.
pub(super) fn not_found() -> Response {
    words(StatusCode::NOT_FOUND, "there is nothing at this address")
}

/// The address takes other methods only, which the router names in the Allow header.
pub(super) fn not_allowed() -> Response {
    words(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that method")
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Refusal::Unknown(_) => StatusCode::NOT_FOUND,
            Refusal::Bad(_) => StatusCode::BAD_REQUEST,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        words(status, self.to_string())
    }
}
