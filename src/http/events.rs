//! `GET /api/events`: what changes, as it changes, in one stream (Server-Sent Events). A browser opens six connections
//! to a server, and the film needs them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answers::words;
use super::backend::Backend;
use super::routes::App;
use crate::stream::FileName;
use crate::torrents::InfoHash;

/// Streams at once; each is a page that is open somewhere.
pub(super) const STREAMS: usize = 64;

/// How often something may be said.
const TICK: Duration = Duration::from_secs(1);

/// A comment is sent so often, so that a client that went away unseen is noticed.
const ALIVE: Duration = Duration::from_secs(15);

/// What is asked for besides the torrents.
#[derive(Debug, Deserialize)]
pub(super) struct Followed {
    /// `<info hash>/<path>` of a film, decoded by the query already.
    film: Option<String>,
}

/// The handler.
pub(super) async fn follow<B: Backend>(
    State(app): State<Arc<App<B>>>,
    followed: Result<Query<Followed>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Ok(Query(followed)) = followed else {
        return words(StatusCode::BAD_REQUEST, "film is <info hash>/<path>");
    };
    // It is text already, so nothing is decoded here.
    let film = match followed.film.as_deref().map(|film| film.split_once('/')) {
        None => None,
        Some(Some((info_hash, path))) if info_hash.parse::<InfoHash>().is_ok() => Some(FileName {
            info_hash: info_hash.to_ascii_lowercase(),
            path: path.to_owned(),
        }),
        Some(_) => return words(StatusCode::BAD_REQUEST, "film is <info hash>/<path>"),
    };
    let Ok(permit) = app.events.clone().try_acquire_owned() else {
        return words(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{STREAMS} pages are open already"),
        );
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let following = Following {
        app,
        film,
        ticks,
        told: Told::default(),
        _permit: permit,
    };
    let events = following.events().map(Ok::<Event, Infallible>);
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(ALIVE))
        .into_response();
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// One page's stream.
struct Following<B> {
    app: Arc<App<B>>,
    film: Option<FileName>,
    ticks: Interval,
    told: Told,
    _permit: OwnedSemaphorePermit,
}

/// What was said last, so that only what changed is said.
#[derive(Default)]
struct Told {
    torrents: Bytes,
    film: Bytes,
}

impl<B: Backend> Following<B> {
    /// It has no end of its own.
    fn events(self) -> impl Stream<Item = Event> {
        stream::unfold(self, |mut following| async move {
            loop {
                following.ticks.tick().await;
                let changed = following.changed();
                if !changed.is_empty() {
                    return Some((stream::iter(changed), following));
                }
            }
        })
        .flatten()
    }

    fn changed(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let torrents = self.app.torrents();
        if torrents != self.told.torrents {
            events.extend(event("torrents", &torrents));
            self.told.torrents = torrents;
        }
        if let Some(film) = self.film.as_ref().and_then(|film| self.app.film(film))
            && film != self.told.film
        {
            events.extend(event("film", &film));
            self.told.film = film;
        }
        events
    }
}

/// JSON has no line breaks, so it is one line of data.
fn event(name: &str, json: &Bytes) -> Option<Event> {
    Some(Event::default().event(name).data(std::str::from_utf8(json).ok()?))
}
