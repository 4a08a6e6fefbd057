//! How much a peer may say that costs it little and us something.

use std::time::Duration;

use tokio::time::Instant;

use super::Gone;
use crate::swarm::wire::Message;

/// The time that the limits hold for.
const PERIOD: Duration = Duration::from_secs(60);
/// Small messages, and two more for every piece of the torrent.
const MESSAGES: u64 = 4_096;
/// Requests taken back, and refusals: one that asks many peers for the same blocks does that a lot.
const CANCELS: u64 = 100_000;
/// Bitfields and their like: BEP 3 allows one at the beginning only, but aria2 sends one whenever that is shorter than
/// telling piece by piece.
const HOLDINGS: u64 = 600;

/// What one peer has said in this period.
#[derive(Debug)]
pub(super) struct Budget {
    since: Instant,
    messages: u64,
    cancels: u64,
    holdings: u64,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            messages: 0,
            cancels: 0,
            holdings: 0,
        }
    }

    /// Counts a message. Requests are bounded by the queue that they enter, and blocks by what is asked for.
    pub(super) fn charge(&mut self, message: &Message, now: Instant, pieces: u32) -> Result<(), Gone> {
        if now.duration_since(self.since) >= PERIOD {
            *self = Self::new(now);
        }
        match message {
            Message::Request(_) | Message::Block { .. } => {}
            Message::Cancel(_) | Message::Reject(_) => self.cancels += 1,
            Message::Bitfield(_) | Message::HaveAll | Message::HaveNone => self.holdings += 1,
            _ => self.messages += 1,
        }
        let within =
            self.messages <= MESSAGES + 2 * u64::from(pieces) && self.cancels <= CANCELS && self.holdings <= HOLDINGS;
        if within { Ok(()) } else { Err(Gone::Flood("messages")) }
    }
}
