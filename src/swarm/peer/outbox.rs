//! What the owner and the reader of a link leave for its writer, and the requests that are open both ways. Plain state
//! under one lock, which is held for moments only.

use std::collections::VecDeque;

use bytes::BytesMut;

use super::requests::Requests;
use super::{Command, Gone, REQUEST_LIMIT};
use crate::swarm::extension::{Features, Metadata};
use crate::swarm::metadata::Allowance;
use crate::swarm::wire::{Message, Span, encode};

/// Refusals that wait to be sent.
const REFUSAL_LIMIT: usize = 1_024;
/// Parts of the info dictionary that one peer may have asked for and not got yet.
const METADATA_QUEUE_LIMIT: usize = 2_048;
/// Parts of the info dictionary that we may have open at one peer.
const METADATA_OPEN_LIMIT: usize = 64;
/// Bytes of small messages that wait for a peer that takes nothing.
const BACKLOG_LIMIT: usize = 1024 * 1024;

/// Not a handle: shared behind a lock by the owner's handle, the reader and the writer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) fast: bool,
    /// The owner dropped its handle.
    pub(super) closed: bool,
    /// What the peer said in its extension handshake.
    pub(super) features: Features,
    /// Messages that are never taken back, encoded.
    pub(super) messages: BytesMut,
    interested: Toggle,
    choke: Toggle,
    /// What we wait for.
    pub(super) requests: Requests,
    metadata_open: Vec<u32>,
    /// What the peer waits for.
    pub(super) asked: VecDeque<Span>,
    /// What is being read for the peer; `None` once it is taken back.
    serving: Vec<Option<Span>>,
    refusals: Vec<Span>,
    pub(super) metadata_asked: VecDeque<u32>,
    allowance: Allowance,
}

/// A state that is told to the peer only when it changed since it was last told.
#[derive(Debug, Default)]
struct Toggle {
    wanted: bool,
    told: bool,
}

impl Toggle {
    fn change(&mut self) -> Option<bool> {
        let changed = self.wanted != self.told;
        self.told = self.wanted;
        changed.then_some(self.wanted)
    }
}

impl Outbox {
    /// For a peer that knows the fast extension or not; `first` are the messages that open the link.
    pub(super) fn new(fast: bool, first: BytesMut) -> Self {
        let choke = Toggle {
            wanted: true,
            told: true,
        };
        Self {
            fast,
            messages: first,
            choke,
            ..Self::default()
        }
    }

    /// Takes in a command of the owner.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Request(spans) => spans.into_iter().for_each(|span| self.requests.request(span)),
            Command::Cancel(spans) => spans.into_iter().for_each(|span| self.requests.cancel(span)),
            Command::Interested(interested) => self.interested.wanted = interested,
            Command::Choke(choke) => self.choke(choke),
            Command::Have(piece) => self.say(&Message::Have(piece)),
            Command::DontHave(piece) => self.say_extended(self.features.dont_have, piece.to_be_bytes().to_vec()),
            Command::RequestMetadata(part) => {
                if self.features.metadata.is_some() && self.metadata_open.len() < METADATA_OPEN_LIMIT {
                    self.metadata_open.push(part);
                    self.say_extended(self.features.metadata, Metadata::Request(part).encode());
                }
            }
            Command::Pex(exchange) => self.say_extended(self.features.pex, exchange.encode()),
        }
    }

    /// Leaves a message for the writer. A peer that takes nothing for so long that the backlog is full is about to be
    /// given up, so what is left out then is never missed.
    pub(super) fn say(&mut self, message: &Message) {
        if self.messages.len() < BACKLOG_LIMIT {
            encode(message, &mut self.messages);
        }
    }

    /// Leaves a message of an extension, if the peer has a number for it.
    pub(super) fn say_extended(&mut self, number: Option<u8>, payload: Vec<u8>) {
        if let Some(id) = number {
            self.say(&Message::Extended {
                id,
                payload: payload.into(),
            });
        }
    }

    /// A part of the info dictionary came or was refused. Whether it was asked for.
    pub(super) fn metadata_answered(&mut self, part: u32) -> bool {
        let index = self.metadata_open.iter().position(|open| *open == part);
        index.map(|index| self.metadata_open.swap_remove(index)).is_some()
    }

    fn choke(&mut self, choke: bool) {
        self.choke.wanted = choke;
        if choke {
            let taken: Vec<Span> = self
                .asked
                .drain(..)
                .chain(self.serving.iter_mut().filter_map(Option::take))
                .collect();
            taken.into_iter().for_each(|span| self.refuse_in_words(span));
        }
    }

    /// Refuses a request that was let into the queues, which bound how many these are.
    pub(super) fn refuse_in_words(&mut self, span: Span) {
        if self.fast {
            self.refusals.push(span);
        }
    }

    /// The peer asks for a block that exists.
    pub(super) fn ask(&mut self, span: Span, servable: bool) -> Result<(), Gone> {
        if self.choke.wanted || !servable {
            return self.refuse(span);
        }
        if self.asked.len() < REQUEST_LIMIT as usize {
            self.asked.push_back(span);
            Ok(())
        } else if self.fast {
            self.refuse(span)
        } else {
            Err(Gone::Flood("requests"))
        }
    }

    /// Refuses a request, in words if the peer knows them.
    pub(super) fn refuse(&mut self, span: Span) -> Result<(), Gone> {
        if self.refusals.len() >= REFUSAL_LIMIT {
            return Err(Gone::Flood("requests"));
        }
        self.refuse_in_words(span);
        Ok(())
    }

    /// The peer takes a request back.
    pub(super) fn take_back(&mut self, span: Span) -> Result<(), Gone> {
        if let Some(index) = self.asked.iter().position(|asked| *asked == span) {
            self.asked.remove(index);
            return self.refuse(span);
        }
        match self.serving.iter_mut().find(|serving| **serving == Some(span)) {
            Some(serving) => {
                *serving = None;
                self.refuse(span)
            }
            None => Ok(()),
        }
    }

    /// The peer asks for a part of the info dictionary, of which there are `total` bytes.
    pub(super) fn ask_metadata(&mut self, part: u32, total: Option<u32>) {
        let gets = self.metadata_asked.len() < METADATA_QUEUE_LIMIT
            && total.is_some_and(|total| self.allowance.take(part, total));
        if gets {
            self.metadata_asked.push_back(part);
        } else {
            self.say_extended(self.features.metadata, Metadata::Reject(part).encode());
        }
    }

    /// Takes requests of the peer off the queue, at least one if there is one, up to this many bytes; what is taken
    /// counts as being read until [`Outbox::served`].
    pub(super) fn serve(&mut self, bytes: u32) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut sum = 0;
        while let Some(span) = self.asked.front().copied() {
            sum += span.length;
            if sum > bytes && !spans.is_empty() {
                break;
            }
            self.asked.pop_front();
            spans.push(span);
        }
        self.serving = spans.iter().copied().map(Some).collect();
        spans
    }

    /// What was being read is there: for each, whether the peer still waits for it.
    pub(super) fn served(&mut self) -> Vec<Option<Span>> {
        std::mem::take(&mut self.serving)
    }

    /// Appends all that waits to be said. What opens the link comes first: a peer takes a bitfield only then.
    pub(super) fn drain(&mut self, out: &mut BytesMut) {
        out.extend_from_slice(&self.messages);
        self.messages.clear();
        if let Some(interested) = self.interested.change() {
            encode(
                if interested {
                    &Message::Interested
                } else {
                    &Message::NotInterested
                },
                out,
            );
        }
        if let Some(choke) = self.choke.change() {
            encode(if choke { &Message::Choke } else { &Message::Unchoke }, out);
        }
        for span in self.refusals.drain(..) {
            encode(&Message::Reject(span), out);
        }
        self.requests.drain(out);
    }
}
