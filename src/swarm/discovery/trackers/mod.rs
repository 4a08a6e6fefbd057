//! Trackers: HTTP and UDP, in tiers (BEP 12).

mod announcer;
mod bencode;
mod http;
mod reply;
mod target;
#[cfg(test)]
mod tests;
mod tiers;
mod udp;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::DiscoveryError;
use http::Http;
use target::{Family, Request, Target};
use udp::Udp;

pub use announcer::{Announcer, AnnouncerOptions, Totals, TrackerReport, TrackerState};
pub use reply::{AnnounceReply, UdpReply, parse_announce_response, parse_udp_response};

/// What trackers may take of us.
#[derive(Clone, Copy, Debug)]
pub struct TrackerLimits {
    /// One announce, from the look-up of the name to the last byte.
    pub announce: Duration,
    /// An HTTP answer in bytes.
    pub body: usize,
    /// A UDP request without an answer is sent again after this, then after twice as long each time.
    pub resend: Duration,
    /// A tracker that is silent for this long is no longer waited for alone: the next one is asked beside it. Not for
    /// private torrents, which talk to one tracker at a time (BEP 27).
    pub hedge: Duration,
    /// Announces at once, of all torrents.
    pub at_once: usize,
}

impl Default for TrackerLimits {
    fn default() -> Self {
        Self {
            announce: Duration::from_secs(15),
            body: 1024 * 1024,
            // 0, 2 and 6 s: three tries within the limit.
            resend: Duration::from_secs(2),
            hedge: Duration::from_secs(3),
            at_once: 64,
        }
    }
}

/// What all torrents share to talk to trackers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trackers {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    http: Http,
    udp: Udp,
    places: Semaphore,
    limits: TrackerLimits,
}

impl Trackers {
    /// Talks to nobody yet.
    ///
    /// # Errors
    /// If there is no TLS to be had.
    pub fn new(user_agent: &str, limits: TrackerLimits) -> Result<Self, DiscoveryError> {
        Ok(Self {
            shared: Arc::new(Shared {
                http: Http::new(user_agent, limits.body)?,
                udp: Udp::new(limits.resend),
                places: Semaphore::new(limits.at_once),
                limits,
            }),
        })
    }

    /// One announce, behind those that have no place yet, and within the limit once it has one.
    async fn announce(
        &self,
        target: &Target,
        family: Family,
        request: &Request,
    ) -> Result<AnnounceReply, DiscoveryError> {
        let shared = &self.shared;
        let _place = shared.places.acquire().await;
        let limit = shared.limits.announce;
        let announce = async {
            match target {
                Target::Http(url) => shared.http.announce(url, family, request).await,
                Target::Udp { host, port, path } => shared.udp.announce((host, *port, path), family, request).await,
            }
        };
        tokio::time::timeout(limit, announce)
            .await
            .unwrap_or(Err(DiscoveryError::Slow(limit)))
    }
}
