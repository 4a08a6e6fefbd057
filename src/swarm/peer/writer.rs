//! What is sent to a peer: all that waits in one write, and the blocks that it asked for.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::future::{BoxFuture, OptionFuture, join_all};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::link::{Counters, Shared};
use super::{Gone, Meter, Source, Terms};
use crate::swarm::extension::{METADATA_PART, Metadata, part_length};
use crate::swarm::wire::{Message, Span, block_header, encode};

/// After this long without a word, one is said: peers hang up after two minutes.
const KEEP_ALIVE: Duration = Duration::from_secs(100);
/// A peer that takes no byte for this long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of blocks that are read and written at once. More would hold up what we ask for behind what we send.
const BATCH_BYTES: u32 = 128 * 1024;

/// Writes one connection to its end.
pub(super) struct Writer<W> {
    io: W,
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    meters: Vec<Arc<dyn Meter>>,
    out: Outgoing,
}

/// What was read for the peer.
enum Answer {
    Blocks(Vec<io::Result<Bytes>>),
    Metadata {
        part: u32,
        total: u32,
        data: io::Result<Bytes>,
    },
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    pub(super) fn new(io: W, terms: &Terms, shared: Arc<Shared>) -> Self {
        let (source, meters) = (Arc::clone(&terms.source), terms.upload.clone());
        Self {
            io,
            shared,
            source,
            meters,
            out: Outgoing::default(),
        }
    }

    /// Writes until the owner hangs up or the connection ends.
    pub(super) async fn run(&mut self) -> Gone {
        match self.write_all().await {
            Ok(()) => Gone::Closed,
            Err(gone) => gone,
        }
    }

    async fn write_all(&mut self) -> Result<(), Gone> {
        let mut last_write = Instant::now();
        let mut answer: OptionFuture<BoxFuture<'static, Answer>> = None.into();
        let mut under_way = false;
        loop {
            {
                let mut outbox = self.shared.outbox.lock();
                if outbox.closed {
                    return Ok(());
                }
                outbox.drain(&mut self.out.small);
            }
            if self.out.has_remaining() {
                self.flush().await?;
                last_write = Instant::now();
                continue;
            }
            if !under_way && let Some(next) = self.next_answer() {
                answer = Some(next).into();
                under_way = true;
            }
            tokio::select! {
                biased;
                Some(answer) = &mut answer, if under_way => {
                    under_way = false;
                    self.put(answer);
                }
                () = self.shared.wake.notified() => {}
                () = sleep_until(last_write + KEEP_ALIVE) => encode(&Message::KeepAlive, &mut self.out.small),
            }
        }
    }

    async fn flush(&mut self) -> Result<(), Gone> {
        self.out.seal();
        while self.out.has_remaining() {
            let written = timeout(STALL_LIMIT, self.io.write_buf(&mut self.out)).await;
            match written.map_err(|_| Gone::Stalled(STALL_LIMIT.as_secs()))?? {
                0 => return Err(Gone::HungUp),
                count => Counters::add(&self.shared.counters.written, count),
            }
        }
        Ok(self.io.flush().await?)
    }

    /// Begins to read what the peer waits for next, if anything.
    fn next_answer(&self) -> Option<BoxFuture<'static, Answer>> {
        let source = Arc::clone(&self.source);
        let mut outbox = self.shared.outbox.lock();
        if let Some(part) = outbox.metadata_asked.pop_front() {
            drop(outbox);
            let total = source.info_length()?;
            let length = part_length(part, total)?;
            return Some(Box::pin(async move {
                let data = source.read_info(part * METADATA_PART, length).await;
                Answer::Metadata {
                    part,
                    total,
                    data: checked(data, length),
                }
            }));
        }
        let burst = self.meters.iter().filter_map(|meter| meter.burst()).min();
        let spans = outbox.serve(burst.unwrap_or(BATCH_BYTES).min(BATCH_BYTES));
        drop(outbox);
        if spans.is_empty() {
            return None;
        }
        let meters = self.meters.clone();
        Some(Box::pin(async move {
            let bytes = spans.iter().map(|span| span.length).sum();
            for meter in meters {
                meter.take(bytes).await;
            }
            Answer::Blocks(read_blocks(source.as_ref(), &spans).await)
        }))
    }

    fn put(&mut self, answer: Answer) {
        let mut outbox = self.shared.outbox.lock();
        match answer {
            Answer::Blocks(blocks) => {
                for (span, data) in outbox.served().into_iter().zip(blocks) {
                    let Some(span) = span else { continue };
                    match data {
                        Ok(data) => {
                            Counters::add(&self.shared.counters.uploaded, data.len());
                            self.out.block(span, data);
                        }
                        Err(_) => outbox.refuse_in_words(span),
                    }
                }
            }
            Answer::Metadata { part, total, data } => {
                let message = match data {
                    Ok(data) => Metadata::Data { part, total, data },
                    Err(_) => Metadata::Reject(part),
                };
                let number = outbox.features.metadata;
                outbox.say_extended(number, message.encode());
            }
        }
    }
}

/// Reads blocks: neighbours of one piece at once.
async fn read_blocks(source: &dyn Source, spans: &[Span]) -> Vec<io::Result<Bytes>> {
    let follows = |a: &Span, b: &Span| a.piece == b.piece && a.begin.checked_add(a.length) == Some(b.begin);
    let runs = spans.chunk_by(follows).map(|run| async move {
        let length = run.iter().map(|span| span.length).sum();
        let whole = checked(source.read(Span { length, ..run[0] }).await, length);
        match whole {
            Ok(mut data) => run.iter().map(|span| Ok(data.split_to(span.length as usize))).collect(),
            // One block of the run may be the only one that is not there.
            Err(_) if run.len() > 1 => {
                join_all(
                    run.iter()
                        .map(|span| async { checked(source.read(*span).await, span.length) }),
                )
                .await
            }
            Err(error) => vec![Err(error)],
        }
    });
    join_all(runs).await.into_iter().flatten().collect()
}

fn checked(data: io::Result<Bytes>, length: u32) -> io::Result<Bytes> {
    data.and_then(|data| {
        if data.len() == length as usize {
            Ok(data)
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    })
}

/// Bytes on their way to the socket, where they lie.
#[derive(Debug, Default)]
struct Outgoing {
    parts: VecDeque<Bytes>,
    /// What comes after the parts: small messages, copied together.
    small: BytesMut,
}

impl Outgoing {
    fn block(&mut self, span: Span, data: Bytes) {
        self.small.put_slice(&block_header(span.piece, span.begin, data.len()));
        self.seal();
        self.parts.push_back(data);
    }

    /// Puts the small messages behind the parts.
    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.parts.push_back(self.small.split().freeze());
        }
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum::<usize>() + self.small.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.small[..], |part| &part[..])
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let small = (!self.small.is_empty()).then_some(&self.small[..]);
        let parts = self.parts.iter().map(|part| &part[..]).chain(small);
        slices
            .iter_mut()
            .zip(parts)
            .map(|(slice, part)| *slice = IoSlice::new(part))
            .count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(part) = self.parts.front_mut() {
            if count < part.len() {
                part.advance(count);
                return;
            }
            count -= part.len();
            self.parts.pop_front();
        }
        self.small.advance(count);
    }
}
