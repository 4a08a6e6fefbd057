//! The address space, and the guard before it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, HeaderName, LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use axum::routing::{get, post};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::ServiceExt;

use super::answers::{not_allowed, not_found, words};
use super::backend::Backend;
use super::guard::{Denied, Guard};
use super::hls::Playlists;
use super::{api, events, files, hls, page, playlists};
use crate::stream::FileName;

/// Torrents held in memory at once while they are sent to us.
const UPLOADS: usize = 2;

/// All pages share one look at the library within this time.
const LOOK: Duration = Duration::from_millis(500);

/// What the handlers share.
pub(super) struct App<B> {
    pub(super) backend: Arc<B>,
    pub(super) uploads: Semaphore,
    pub(super) events: Arc<Semaphore>,
    pub(super) playlists: Playlists,
    /// The last look at the library, as JSON.
    look: Mutex<Option<(Instant, Bytes)>>,
}

impl<B: Backend> App<B> {
    pub(super) fn new(backend: Arc<B>) -> App<B> {
        App {
            backend,
            uploads: Semaphore::new(UPLOADS),
            events: Arc::new(Semaphore::new(events::STREAMS)),
            playlists: Playlists::new(),
            look: Mutex::new(None),
        }
    }

    /// What is to be told of a film, as JSON.
    pub(super) fn film(&self, name: &FileName) -> Option<Bytes> {
        let report = self.backend.film(name)?;
        Some(serde_json::to_vec(&report).unwrap_or_default().into())
    }

    /// All torrents as JSON, a moment old at most.
    pub(super) fn torrents(&self) -> Bytes {
        let mut look = self.look.lock();
        match &*look {
            Some((at, json)) if at.elapsed() < LOOK => json.clone(),
            _ => {
                let json = Bytes::from(serde_json::to_vec(&self.backend.list()).unwrap_or_default());
                *look = Some((Instant::now(), json.clone()));
                json
            }
        }
    }
}

/// Where the page's root is for the client that asks: `http://host:port/`, and the token where there is one; `https` where
/// a proxy says so.
#[derive(Debug, Clone)]
pub(super) struct Root(pub(super) String);

/// Everything below the token.
pub(super) fn router<B: Backend>(app: Arc<App<B>>) -> Router {
    Router::new()
        .route("/", get(page::page))
        .route("/assets/{*path}", get(page::asset))
        .route("/files/{*path}", get(files::raw::<B>))
        .route("/hls/{*path}", get(hls::part::<B>))
        .route("/api/films/{*path}", get(hls::report::<B>))
        .route("/m3u/{name}", get(playlists::videos::<B>))
        .route("/api/torrents", get(api::list::<B>).post(api::add::<B>))
        .route(
            "/api/torrents/{info_hash}",
            get(api::show::<B>).delete(api::remove::<B>),
        )
        .route("/api/torrents/{info_hash}/{order}", post(api::order::<B>))
        .route("/api/events", get(events::follow::<B>))
        .fallback(async || not_found())
        .method_not_allowed_fallback(async || not_allowed())
        .with_state(app)
}

/// Answers one request that came to our address `local`: judges it, takes the token off its address, and adds what
/// every answer has.
pub(super) async fn answer(router: Router, guard: &Guard, local: IpAddr, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut response = match guard.admit(&parts, local) {
        Ok(admitted) => {
            // From here on the address has no token, so whoever logs it gives nothing away.
            tracing::debug!(method = %parts.method, target = %admitted.target, "asked");
            parts.uri = admitted.target;
            parts.extensions.insert(Root(admitted.root));
            let Ok(response) = router.oneshot(Request::from_parts(parts, body)).await;
            response
        }
        Err(denied) => {
            tracing::debug!(method = %parts.method, %denied, "refused");
            refused(denied, parts.uri.path())
        }
    };
    let status = response.status();
    let headers = response.headers_mut();
    // An address may hold the token, and no page that is linked to needs to know ours.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    if status.is_client_error() || status.is_server_error() {
        // The resource may be there later: nothing may pin the error.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

fn refused(denied: Denied, path: &str) -> Response {
    let mut response = words(denied.status(), denied.to_string());
    if denied == Denied::NoSlash {
        // Relative, because only the client knows the name that it calls us by. The last part is the token itself.
        let last = path.rsplit('/').next().unwrap_or_default();
        if let Ok(location) = HeaderValue::from_str(&format!("{last}/")) {
            response.headers_mut().insert(LOCATION, location);
        }
    }
    response
}
