//! What a peer sends: read in large pieces, checked, and handed on: blocks to the sink, the rest to the owner.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::budget::Budget;
use super::holdings::{Holdings, Unchecked};
use super::link::{Counters, Shared};
use super::{Batch, Event, Gone, SPAN_LIMIT, Terms};
use crate::swarm::extension::{self, ExtensionError, Features, Metadata, PeerExchange};
use crate::swarm::shape::Shape;
use crate::swarm::wire::{Message, Reserved, Span, decode, missing};

/// A peer that sent nothing for this long is dead: clients send at least a keep-alive every two minutes.
const SILENCE_LIMIT: Duration = Duration::from_secs(150);
/// How often silence is looked for, and an idle buffer given back.
const TICK: Duration = Duration::from_secs(10);
/// What a read asks of the socket: little from a peer that is idle, and twice as much after each read that was full.
const CHUNK_LEAST: usize = 4 * 1024;
const CHUNK_MOST: usize = 256 * 1024;
/// After so many bytes the writer, which is served by the same task, has its turn.
const YIELD_AFTER: usize = 1024 * 1024;
/// Events that are handed over at once.
const BATCH_LIMIT: usize = 1_024;
/// Blocks that were not asked for: so many, and one for every so many that were.
const UNASKED_LIMIT: u64 = 64;
const UNASKED_SHARE: u64 = 16;
/// Time between two peer exchange messages that are heeded: a minute by BEP 11, less what a clock may be off.
const PEX_PERIOD: Duration = Duration::from_secs(50);
/// Extension handshakes that are heeded on one link.
const INTRODUCTION_LIMIT: u32 = 32;

/// Reads one connection to its end.
#[derive(Debug)]
pub(super) struct Reader<R> {
    io: R,
    reserved: Reserved,
    terms: Terms,
    shared: Arc<Shared>,
    shape: Option<Shape>,
    /// While the shape is unknown.
    unchecked: Unchecked,
    chokes_us: bool,
    features: Features,
    introductions: u32,
    last_pex: Option<Instant>,
    arrived: u64,
    unasked: u64,
    budget: Budget,
    /// The peer's messages want an answer.
    wake: bool,
    events: Vec<Event>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(io: R, reserved: Reserved, terms: Terms, shared: Arc<Shared>) -> Self {
        let shape = *terms.shape.borrow();
        Self {
            io,
            reserved,
            terms,
            shared,
            shape,
            unchecked: Unchecked::default(),
            chokes_us: true,
            features: Features::default(),
            introductions: 0,
            last_pex: None,
            arrived: 0,
            unasked: 0,
            budget: Budget::new(Instant::now()),
            wake: false,
            events: Vec::new(),
        }
    }

    /// Hangs up; what is left to be told to the owner.
    pub(super) fn into_events(self) -> Vec<Event> {
        self.events
    }

    /// Reads until the connection ends. What the owner has not been told by then is kept for
    /// [`Reader::into_events`], also when this is dropped midway.
    pub(super) async fn run(&mut self) -> Gone {
        match self.read_all().await {
            Ok(never) => match never {},
            Err(gone) => gone,
        }
    }

    async fn read_all(&mut self) -> Result<std::convert::Infallible, Gone> {
        let mut buffer = BytesMut::new();
        let mut chunk = CHUNK_LEAST;
        let mut last_read = Instant::now();
        let mut since_yield = 0;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let burst = self.terms.download.iter().filter_map(|meter| meter.burst()).min();
            let most = burst.map_or(CHUNK_MOST, |burst| (burst as usize).clamp(CHUNK_LEAST, CHUNK_MOST));
            let wanted = chunk.min(most).max(missing(&buffer).min(most));
            if buffer.capacity() - buffer.len() < wanted {
                buffer.reserve(wanted);
            }
            tokio::select! {
                biased;
                // These first: from a fast peer there is always something to read.
                changed = self.terms.shape.changed(), if self.shape.is_none() => {
                    changed.map_err(|_| Gone::Closed)?;
                    self.shape = *self.terms.shape.borrow_and_update();
                    self.check_holdings()?;
                    self.tell().await?;
                }
                () = self.shared.never_sent.notified() => {
                    let never_sent = std::mem::take(&mut self.shared.outbox.lock().requests.never_sent);
                    self.events.extend(never_sent.into_iter().map(Event::Rejected));
                    self.tell().await?;
                }
                count = read(&mut self.io, &mut buffer, most) => {
                    let count = count?;
                    if count == 0 {
                        return Err(Gone::HungUp);
                    }
                    last_read = Instant::now();
                    Counters::add(&self.shared.counters.read, count);
                    chunk = if count >= chunk { (chunk * 2).min(CHUNK_MOST) } else if count < chunk / 8 {
                        (chunk / 2).max(CHUNK_LEAST)
                    } else {
                        chunk
                    };
                    self.take_all(&mut buffer, last_read).await?;
                    since_yield += count;
                    if since_yield >= YIELD_AFTER {
                        since_yield = 0;
                        tokio::task::yield_now().await;
                    }
                    for meter in &self.terms.download {
                        meter.take(u32::try_from(count).unwrap_or(u32::MAX)).await;
                    }
                }
                _ = tick.tick() => {
                    let silence = last_read.elapsed();
                    if silence >= SILENCE_LIMIT {
                        return Err(Gone::Silent(silence.as_secs()));
                    }
                    if silence >= TICK && buffer.is_empty() {
                        buffer = BytesMut::new();
                        chunk = CHUNK_LEAST;
                    }
                }
            }
        }
    }

    /// Takes in every whole message of the buffer.
    async fn take_all(&mut self, buffer: &mut BytesMut, now: Instant) -> Result<(), Gone> {
        while let Some(message) = decode(buffer)? {
            let taken = self.take(message, now);
            if std::mem::take(&mut self.wake) {
                self.shared.wake.notify_one();
            }
            taken?;
            if self.events.len() >= BATCH_LIMIT {
                self.tell().await?;
            }
        }
        self.tell().await
    }

    async fn tell(&mut self) -> Result<(), Gone> {
        if self.events.is_empty() {
            return Ok(());
        }
        // The events leave this only once there is a place for them: dropping this loses none.
        let place = self.terms.events.reserve().await.map_err(|_| Gone::Closed)?;
        place.send(Batch {
            from: self.terms.key,
            events: std::mem::take(&mut self.events),
        });
        Ok(())
    }

    fn take(&mut self, message: Message, now: Instant) -> Result<(), Gone> {
        if let Message::Block { piece, begin, data } = message {
            return self.block(piece, begin, data, now);
        }
        self.budget
            .charge(&message, now, self.shape.map_or(0, |shape| shape.piece_count()))?;
        match message {
            Message::KeepAlive | Message::Unknown(_) | Message::Block { .. } => {}
            Message::Choke => self.choke(true),
            Message::Unchoke => self.choke(false),
            Message::Interested => self.events.push(Event::Interested(true)),
            Message::NotInterested => self.events.push(Event::Interested(false)),
            Message::Have(piece) => self.have(piece)?,
            Message::Bitfield(_) => self.holdings(message)?,
            Message::HaveAll | Message::HaveNone => {
                self.only_fast()?;
                self.holdings(message)?;
            }
            Message::Request(span) => self.request(span)?,
            Message::Cancel(span) => {
                self.shared.outbox.lock().take_back(span)?;
                self.wake = true;
            }
            Message::Port(0) => {}
            Message::Port(port) => self.events.push(Event::DhtPort(port)),
            Message::Suggest(_) => self.only_fast()?,
            Message::Reject(span) => {
                self.only_fast()?;
                if self.shared.outbox.lock().requests.rejected(span) {
                    self.events.push(Event::Rejected(span));
                }
            }
            Message::AllowedFast(piece) => {
                self.only_fast()?;
                // Before the shape is known nothing is asked for, and clients send these at the beginning only.
                if let Some(shape) = self.shape {
                    check_piece(piece, &shape)?;
                    self.events.push(Event::AllowedFast(piece));
                }
            }
            Message::Extended { id, payload } => self.extended(id, payload, now)?,
        }
        Ok(())
    }

    fn only_fast(&self) -> Result<(), Gone> {
        if self.reserved.fast() {
            Ok(())
        } else {
            Err(Gone::Breach("a message of an extension it does not have"))
        }
    }

    fn block(&mut self, piece: u32, begin: u32, data: Bytes, now: Instant) -> Result<(), Gone> {
        // The decoder's limit is far below 4 GiB.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let span = Span { piece, begin, length };
        if !self.shared.outbox.lock().requests.arrived(span) {
            self.unasked += 1;
            Counters::add(&self.shared.counters.unasked, data.len());
            if self.unasked > UNASKED_LIMIT + self.arrived / UNASKED_SHARE {
                return Err(Gone::Flood("blocks that nobody asked for"));
            }
            return Ok(());
        }
        self.arrived += 1;
        Counters::add(&self.shared.counters.downloaded, data.len());
        let sink = &self.terms.sink;
        let kept = sink.wanted(span) && sink.block(self.terms.key, piece, begin, data);
        self.events.push(Event::Arrived { span, at: now, kept });
        Ok(())
    }

    fn choke(&mut self, chokes: bool) {
        if self.chokes_us != chokes {
            self.chokes_us = chokes;
            if !self.reserved.fast() {
                self.shared.outbox.lock().requests.void();
            }
            self.events.push(Event::Choked(chokes));
        }
    }

    fn have(&mut self, piece: u32) -> Result<(), Gone> {
        match self.shape {
            Some(shape) => {
                check_piece(piece, &shape)?;
                self.events.push(Event::Have(piece));
                Ok(())
            }
            None => self.unchecked.have(piece),
        }
    }

    fn holdings(&mut self, message: Message) -> Result<(), Gone> {
        match self.shape {
            Some(shape) => self.events.push(Event::Holdings(Holdings::of(&message, &shape)?)),
            None => self.unchecked.say(message),
        }
        Ok(())
    }

    /// The shape has become known.
    fn check_holdings(&mut self) -> Result<(), Gone> {
        let Some(shape) = self.shape else { return Ok(()) };
        if let Some(holdings) = std::mem::take(&mut self.unchecked).check(&shape)? {
            self.events.push(Event::Holdings(holdings));
        }
        Ok(())
    }

    fn request(&mut self, span: Span) -> Result<(), Gone> {
        if let Some(shape) = self.shape {
            check_piece(span.piece, &shape)?;
            let end = span.begin.checked_add(span.length);
            let fits = end.is_some_and(|end| end <= shape.piece_size(span.piece));
            if !fits || span.length == 0 || span.length > SPAN_LIMIT {
                return Err(Gone::Breach("a request that is out of range"));
            }
        }
        self.wake = true;
        self.shared.outbox.lock().ask(span, self.shape.is_some())
    }

    fn extended(&mut self, id: u8, payload: Bytes, now: Instant) -> Result<(), Gone> {
        if !self.reserved.extension() {
            return Err(Gone::Breach("a message of an extension it does not have"));
        }
        match id {
            extension::HANDSHAKE => {
                self.introductions += 1;
                if self.introductions > INTRODUCTION_LIMIT {
                    return Ok(());
                }
                self.features.update(&payload)?;
                self.shared.outbox.lock().features = self.features.clone();
                self.events.push(Event::Extended(Box::new(self.features.clone())));
            }
            extension::PEX => self.pex(&payload, now)?,
            extension::METADATA => self.metadata(payload)?,
            extension::DONT_HAVE => {
                let piece = extension::parse_dont_have(&payload)?;
                // Before the shape is known a peer that takes a piece back is rather asked once in vain.
                if let Some(shape) = self.shape {
                    check_piece(piece, &shape)?;
                    self.events.push(Event::DontHave(piece));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn pex(&mut self, payload: &[u8], now: Instant) -> Result<(), Gone> {
        let early = self.last_pex.is_some_and(|last| now.duration_since(last) < PEX_PERIOD);
        if early || !self.terms.introduction.pex {
            return Ok(());
        }
        self.last_pex = Some(now);
        match PeerExchange::parse(payload) {
            Ok(exchange) => self.events.push(Event::Pex(Box::new(exchange))),
            Err(ExtensionError::TooManyPeers(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn metadata(&mut self, payload: Bytes) -> Result<(), Gone> {
        match Metadata::parse(payload)? {
            Metadata::Request(part) => {
                self.shared
                    .outbox
                    .lock()
                    .ask_metadata(part, self.terms.source.info_length());
                self.wake = true;
            }
            Metadata::Data { part, total, data } => {
                if self.shared.outbox.lock().metadata_answered(part) {
                    self.events.push(Event::Metadata { part, total, data });
                }
            }
            Metadata::Reject(part) => {
                if self.shared.outbox.lock().metadata_answered(part) {
                    self.events.push(Event::MetadataRejected(part));
                }
            }
            Metadata::Unknown => {}
        }
        Ok(())
    }
}

fn check_piece(piece: u32, shape: &Shape) -> Result<(), Gone> {
    if piece < shape.piece_count() {
        Ok(())
    } else {
        Err(Gone::Breach("a piece that the torrent does not have"))
    }
}

/// Reads at most `most` bytes to the end of the buffer. Dropping it loses none.
async fn read<R: AsyncRead + Unpin>(io: &mut R, buffer: &mut BytesMut, most: usize) -> std::io::Result<usize> {
    io.read_buf(&mut buffer.limit(most)).await
}
