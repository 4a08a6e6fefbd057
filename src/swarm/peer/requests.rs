//! The requests that we have open at one peer. Plain state.
//!
//! A cancelled request may still be answered, and with the fast extension always is. A request may be made anew before
//! that, so answers are counted, not only requests: a refusal first goes to what was cancelled.

use std::collections::{HashMap, VecDeque};

use bytes::BytesMut;

use crate::swarm::wire::{Message, Span, encode};

/// Requests that we may have open at one peer; the picker's limits are far below.
const OPEN_LIMIT: usize = 4_096;
/// Answers to cancelled requests that are expected, or at least forgiven.
const CANCELLED_LIMIT: usize = 4_096;

type Key = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Requests {
    cancels: Vec<Span>,
    requests: Vec<Span>,
    /// Requests that no answer will come to, for they were taken back in time.
    pub(super) never_sent: Vec<Span>,
    open: HashMap<Key, Open>,
    /// One entry for each answer that is due to a cancelled request, oldest first.
    cancelled: VecDeque<Key>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    length: u32,
    live: Live,
    /// Cancelled requests for the same bytes that are not answered.
    due: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Live {
    No,
    Waiting,
    Sent,
}

impl Requests {
    /// Asks for a block, unless it is asked for.
    pub(super) fn request(&mut self, span: Span) {
        if self.open.len() >= OPEN_LIMIT {
            self.never_sent.push(span);
            return;
        }
        let open = self.open.entry(key(span)).or_insert(Open {
            length: span.length,
            live: Live::No,
            due: 0,
        });
        if open.live == Live::No {
            *open = Open {
                length: span.length,
                live: Live::Waiting,
                due: open.due,
            };
            self.requests.push(span);
        }
    }

    /// Takes a request back.
    pub(super) fn cancel(&mut self, span: Span) {
        let Some(open) = self.open.get_mut(&key(span)) else {
            return;
        };
        match open.live {
            Live::No => {}
            Live::Waiting => {
                open.live = Live::No;
                self.requests.retain(|request| key(*request) != key(span));
                self.settle(key(span));
                self.never_sent.push(span);
            }
            Live::Sent => {
                self.cancels.push(span);
                self.expect_late(key(span));
            }
        }
    }

    /// Counts the live request as one whose answer may still come.
    fn expect_late(&mut self, key: Key) {
        if let Some(open) = self.open.get_mut(&key) {
            open.live = Live::No;
            open.due += 1;
            self.cancelled.push_back(key);
        }
        if self.cancelled.len() > CANCELLED_LIMIT
            && let Some(oldest) = self.cancelled.pop_front()
        {
            self.answer_late(oldest);
        }
    }

    fn answer_late(&mut self, key: Key) {
        if let Some(open) = self.open.get_mut(&key) {
            open.due = open.due.saturating_sub(1);
        }
        self.settle(key);
    }

    /// Forgets what nothing is expected of.
    fn settle(&mut self, key: Key) {
        if self
            .open
            .get(&key)
            .is_some_and(|open| open.live == Live::No && open.due == 0)
        {
            self.open.remove(&key);
        }
    }

    /// A block came. Whether it was asked for, at some time.
    pub(super) fn arrived(&mut self, span: Span) -> bool {
        let Some(open) = self.open.get_mut(&key(span)).filter(|open| open.length == span.length) else {
            return false;
        };
        if open.live == Live::Sent {
            open.live = Live::No;
            self.settle(key(span));
            return true;
        }
        let due = open.due > 0;
        if due {
            self.late(key(span));
        }
        due
    }

    /// A request was refused. Whether this leaves the block asked for no more.
    pub(super) fn rejected(&mut self, span: Span) -> bool {
        let Some(open) = self.open.get_mut(&key(span)).filter(|open| open.length == span.length) else {
            return false;
        };
        if open.due > 0 {
            let last = open.live == Live::No && open.due == 1;
            self.late(key(span));
            return last;
        }
        let live = open.live == Live::Sent;
        if live {
            open.live = Live::No;
            self.settle(key(span));
        }
        live
    }

    fn late(&mut self, key: Key) {
        if let Some(index) = self.cancelled.iter().position(|other| *other == key) {
            self.cancelled.remove(index);
        }
        self.answer_late(key);
    }

    /// The peer will answer nothing of what is open, though some may be on its way: it has begun or ceased to choke us,
    /// and does not know the fast extension.
    pub(super) fn void(&mut self) {
        for span in std::mem::take(&mut self.requests) {
            if let Some(open) = self.open.get_mut(&key(span)) {
                open.live = Live::No;
            }
            self.settle(key(span));
        }
        let sent: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, open)| open.live == Live::Sent)
            .map(|(key, _)| *key)
            .collect();
        sent.into_iter().for_each(|key| self.expect_late(key));
    }

    /// Appends what is to be sent: that which makes the peer stop first.
    pub(super) fn drain(&mut self, out: &mut BytesMut) {
        for span in self.cancels.drain(..) {
            encode(&Message::Cancel(span), out);
        }
        for span in self.requests.drain(..) {
            if let Some(open) = self.open.get_mut(&key(span)) {
                open.live = Live::Sent;
            }
            encode(&Message::Request(span), out);
        }
    }
}

fn key(span: Span) -> Key {
    (span.piece, span.begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::wire::decode;

    const SPAN: Span = Span {
        piece: 3,
        begin: 16_384,
        length: 16_384,
    };

    fn sent(requests: &mut Requests) -> Vec<Message> {
        let mut out = BytesMut::new();
        requests.drain(&mut out);
        std::iter::from_fn(|| decode(&mut out).unwrap()).collect()
    }

    #[test]
    fn a_request_is_sent_once_and_answered_once() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        requests.request(SPAN);
        assert!(!requests.arrived(SPAN), "nothing is sent yet");
        assert_eq!(sent(&mut requests), [Message::Request(SPAN)]);
        assert!(!requests.arrived(Span { length: 5, ..SPAN }));
        assert!(requests.arrived(SPAN));
        assert!(!requests.arrived(SPAN));
        assert!(!requests.rejected(SPAN));
    }

    #[test]
    fn what_is_cancelled_before_it_is_sent_never_is() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        requests.cancel(SPAN);
        assert_eq!(sent(&mut requests), []);
        assert_eq!(requests.never_sent, [SPAN]);
        assert!(requests.open.is_empty());
    }

    #[test]
    fn the_refusal_of_a_cancelled_request_frees_its_place() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        sent(&mut requests);
        requests.cancel(SPAN);
        assert!(requests.rejected(SPAN));
        assert!(!requests.rejected(SPAN));
    }

    #[test]
    fn the_answer_to_a_cancelled_request_is_not_taken_for_that_to_the_next() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        sent(&mut requests);
        requests.cancel(SPAN);
        requests.request(SPAN);
        assert_eq!(sent(&mut requests), [Message::Cancel(SPAN), Message::Request(SPAN)]);
        assert!(!requests.rejected(SPAN));
        assert!(requests.arrived(SPAN));
        assert!(requests.open.is_empty() && requests.cancelled.is_empty());
    }

    #[test]
    fn a_block_that_crossed_the_cancel_leaves_the_second_answer_expected() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        sent(&mut requests);
        requests.cancel(SPAN);
        requests.request(SPAN);
        sent(&mut requests);
        assert!(requests.arrived(SPAN));
        assert!(requests.arrived(SPAN), "the second request is answered too");
        assert!(!requests.arrived(SPAN));
        assert!(requests.open.is_empty() && requests.cancelled.is_empty());
    }

    #[test]
    fn a_void_request_can_be_made_anew() {
        let mut requests = Requests::default();
        requests.request(SPAN);
        sent(&mut requests);
        requests.request(Span { piece: 4, ..SPAN });
        requests.void();
        assert_eq!(sent(&mut requests), []);
        requests.request(SPAN);
        assert_eq!(sent(&mut requests), [Message::Request(SPAN)]);
        assert!(requests.arrived(SPAN));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut requests = Requests::default();
        for piece in 0..20_000 {
            requests.request(Span { piece, ..SPAN });
            sent(&mut requests);
            requests.cancel(Span { piece, ..SPAN });
        }
        assert_eq!(requests.cancelled.len(), requests.open.len());
        assert!(requests.open.len() <= OPEN_LIMIT);
    }
}
