//! The owner's handle of one connection, and the task behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;

use super::handshake::Connection;
use super::outbox::Outbox;
use super::reader::Reader;
use super::writer::Writer;
use super::{Batch, Command, Event, Terms};
use crate::swarm::extension;
use crate::swarm::wire::{Message, encode};

/// A connection to a peer. Dropping it hangs up; the last event, [`Event::Gone`], comes in any case, so that the owner
/// learns of each block that reached the sink.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

/// What the owner's handle, the reader and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Mutex<Outbox>,
    /// Something was left for the writer.
    pub(super) wake: Notify,
    /// Requests were taken back before they were sent, which the reader tells the owner.
    pub(super) never_sent: Notify,
    pub(super) counters: Counters,
}

/// What has passed over a link since it began.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) downloaded: AtomicU64,
    pub(super) uploaded: AtomicU64,
    pub(super) unasked: AtomicU64,
}

impl Counters {
    /// Bytes read off the socket.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes written to it.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that were asked for and came.
    pub fn downloaded(&self) -> u64 {
        self.downloaded.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that were sent.
    pub fn uploaded(&self) -> u64 {
        self.uploaded.load(Ordering::Relaxed)
    }

    /// Bytes of blocks that came and were not asked for.
    pub fn unasked(&self) -> u64 {
        self.unasked.load(Ordering::Relaxed)
    }

    pub(super) fn add(counter: &AtomicU64, amount: usize) {
        counter.fetch_add(amount as u64, Ordering::Relaxed);
    }
}

impl Link {
    /// Begins to speak with a peer: what we have, our extension handshake, and then what the owner says. The task runs
    /// on the runtime that this is called on.
    pub fn start<R, W>(connection: Connection<R, W>, terms: Terms) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let fast = connection.fast();
        let outbox = Outbox::new(fast, opening(&connection, &terms));
        let counters = Counters::default();
        let shared = Arc::new(Shared {
            outbox: Mutex::new(outbox),
            wake: Notify::new(),
            never_sent: Notify::new(),
            counters,
        });
        shared.wake.notify_one();
        tokio::spawn(run(connection, terms, Arc::clone(&shared)));
        Self { shared }
    }

    /// Says all of these. Never waits; what is said reaches the socket in one write.
    pub fn send(&self, commands: impl IntoIterator<Item = Command>) {
        let mut outbox = self.shared.outbox.lock();
        commands.into_iter().for_each(|command| outbox.command(command));
        if !outbox.requests.never_sent.is_empty() {
            self.shared.never_sent.notify_one();
        }
        drop(outbox);
        self.shared.wake.notify_one();
    }

    /// What has passed.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.outbox.lock().closed = true;
        self.shared.wake.notify_one();
    }
}

/// What is said first.
fn opening<R, W>(connection: &Connection<R, W>, terms: &Terms) -> BytesMut {
    let mut first = BytesMut::new();
    let reserved = connection.peer.reserved;
    let shape = *terms.shape.borrow();
    if let Some(message) = terms.holdings.message(reserved.fast(), shape.as_ref()) {
        encode(&message, &mut first);
    }
    if reserved.extension() {
        let payload = terms.introduction.encode().into();
        encode(
            &Message::Extended {
                id: extension::HANDSHAKE,
                payload,
            },
            &mut first,
        );
    }
    if let Some(port) = terms.dht_port.filter(|_| reserved.dht()) {
        encode(&Message::Port(port), &mut first);
    }
    first
}

async fn run<R, W>(connection: Connection<R, W>, terms: Terms, shared: Arc<Shared>)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (key, events) = (terms.key, terms.events.clone());
    let mut writer = Writer::new(connection.writer, &terms, Arc::clone(&shared));
    let mut reader = Reader::new(connection.reader, connection.peer.reserved, terms, shared);
    let gone = tokio::select! {
        gone = reader.run() => gone,
        gone = writer.run() => gone,
    };
    tracing::debug!(peer = ?key, reason = %gone, "link ended");
    let mut last = reader.into_events();
    // Both halves of the socket are closed before the owner is waited for.
    drop(writer);
    last.push(Event::Gone(gone));
    // An owner that is gone itself has no use for it.
    let _ = events
        .send(Batch {
            from: key,
            events: last,
        })
        .await;
}
