//! Announcing over HTTP (BEP 3, 7, 23).

use std::fmt::Write;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Url};

use super::reply::{AnnounceReply, parse_announce_response};
use super::target::{Event, Family, Request, is_local};
use crate::swarm::discovery::DiscoveryError;
use crate::swarm::web::{self, BodyError, reasons};

/// A tracker that is there answers a SYN sooner.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);
const REDIRECT_LIMIT: usize = 5;
/// Of an HTTP error's body, which may hold the reason.
const ERROR_BODY_LIMIT: usize = 16 * 1024;
/// RFC 3986's unreserved characters stay.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One client for each IP version: a tracker sees, and tells others, the address that we come from.
#[derive(Debug)]
pub(super) struct Http {
    v4: Client,
    v6: Client,
    body_limit: usize,
}

impl Http {
    pub(super) fn new(user_agent: &str, body_limit: usize) -> Result<Self, DiscoveryError> {
        let client = |family: Family| {
            Client::builder()
                .user_agent(user_agent)
                .local_address(family.unspecified().ip())
                .redirect(Policy::custom(redirect))
                .connect_timeout(CONNECT_LIMIT)
                // A tracker is asked twice an hour: a connection kept for it would only cost both sides.
                .pool_max_idle_per_host(0)
                // A proxy's address is not ours, and peers are not reached through it.
                .no_proxy()
                .build()
                .map_err(|error| DiscoveryError::Unreachable(reasons(error)))
        };
        Ok(Self {
            v4: client(Family::V4)?,
            v6: client(Family::V6)?,
            body_limit,
        })
    }

    /// One announce; the caller limits its time.
    pub(super) async fn announce(
        &self,
        url: &Url,
        family: Family,
        request: &Request,
    ) -> Result<AnnounceReply, DiscoveryError> {
        let client = match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        };
        let unreachable = |error: reqwest::Error| DiscoveryError::Unreachable(reasons(error));
        let url = announce_url(url, request);
        let response = client.get(url).send().await.map_err(unreachable)?;
        let status = response.status();
        let limit = if status.is_success() {
            self.body_limit
        } else {
            ERROR_BODY_LIMIT
        };
        let body = web::body(response, limit).await.map_err(|error| match error {
            BodyError::TooLarge => DiscoveryError::TooLarge(limit),
            BodyError::Broken(error) => unreachable(error),
        })?;
        let reply = parse_announce_response(&body);
        match &reply {
            Err(DiscoveryError::Refused { .. }) => reply,
            _ if !status.is_success() => Err(DiscoveryError::Status(status.as_u16())),
            _ => reply,
        }
    }
}

/// Follows a few redirects, but none from elsewhere into this machine or its network.
fn redirect(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let local = |url: &Url| url.host().is_some_and(|host| is_local(&host));
    if attempt.previous().len() > REDIRECT_LIMIT {
        attempt.error("too many redirects")
    } else if local(attempt.url()) && !attempt.previous().first().is_some_and(local) {
        attempt.error("a redirect to an address of this network")
    } else {
        attempt.follow()
    }
}

/// The tracker's URL with the request behind what it already asks.
fn announce_url(url: &Url, request: &Request) -> Url {
    let encoded = |bytes: &[u8]| percent_encode(bytes, ENCODED).to_string();
    let mut query = url.query().map_or_else(String::new, |query| format!("{query}&"));
    let _ = write!(
        query,
        "info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&compact=1&no_peer_id=1&numwant={}&key={:08x}",
        encoded(&request.info_hash),
        encoded(&request.peer_id),
        request.port,
        request.uploaded,
        request.downloaded,
        request.left,
        request.want,
        request.key,
    );
    let event = match request.event {
        Event::Regular => None,
        Event::Started => Some("started"),
        Event::Completed => Some("completed"),
        Event::Stopped => Some("stopped"),
    };
    if let Some(event) = event {
        let _ = write!(query, "&event={event}");
    }
    if let Some(id) = &request.tracker_id {
        let _ = write!(query, "&trackerid={}", encoded(id));
    }
    let mut url = url.clone();
    url.set_query(Some(&query));
    url.set_fragment(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_follows_what_the_url_already_asks() {
        let request = Request {
            info_hash: *b"\0\x01 /&=%abcdefghijk~-",
            peer_id: *b"-MF0100-abcdefghijkl",
            port: 6881,
            key: 0xabc,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: Event::Started,
            want: 50,
            tracker_id: Some(b"a b".to_vec()),
        };
        let url = "http://example.org/announce?passkey=x%26y#fragment".parse().unwrap();
        assert_eq!(
            announce_url(&url, &request).as_str(),
            "http://example.org/announce?passkey=x%26y&info_hash=%00%01%20%2F%26%3D%25abcdefghijk~-\
             &peer_id=-MF0100-abcdefghijkl&port=6881&uploaded=1&downloaded=2&left=3&compact=1&no_peer_id=1\
             &numwant=50&key=00000abc&event=started&trackerid=a%20b"
        );
    }
}
