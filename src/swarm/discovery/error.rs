//! What can go wrong while looking for peers.

use std::time::Duration;

/// Why an announce, or a way to find peers, failed. Its text is for the torrent's state: it names neither passwords nor
/// the queries of URLs, which may hold keys.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The tracker's URL says nothing that we could talk to.
    #[error("not a tracker we can ask: {0}")]
    Unusable(&'static str),
    /// Its name could not be looked up.
    #[error("{host} could not be looked up: {why}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// It could not be reached, or hung up.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// It did not answer in time.
    #[error("no answer in {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// It answered with an HTTP error and no word of why.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// Its answer was longer than allowed.
    #[error("the answer is longer than {0} bytes")]
    TooLarge(usize),
    /// Its answer makes no sense.
    #[error("the answer makes no sense: {0}")]
    Malformed(&'static str),
    /// It refused, in its own words.
    #[error("refused: {reason}")]
    Refused {
        /// The tracker's words, shortened and without control characters.
        reason: String,
        /// When to ask again, if it said so (BEP 31).
        retry: Retry,
    },
    /// The DHT could not be started.
    #[error("the DHT could not be started: {0}")]
    Dht(String),
    /// Local service discovery could not be started.
    #[error("local service discovery could not be started: {0}")]
    Local(String),
    /// The router could not be asked for a port.
    #[error("port mapping could not be started: {0}")]
    PortMapping(String),
}

/// When a tracker that refused may be asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// It did not say.
    #[default]
    Unsaid,
    /// Not before this long.
    After(Duration),
    /// Not at all.
    Never,
}
