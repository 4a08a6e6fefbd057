//! The task that owns a torrent.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, trace, warn};

use super::meeting::{Meeter, Meeting};
use super::peers::{Peer, dialable};
use super::progress::Arrived;
use super::readers::Readers;
use super::status::Status;
use super::{Order, TorrentOptions};
use crate::swarm::assembly::{Assembly, Finished, Supply, Verdict};
use crate::swarm::choker::{Choker, slots_for};
use crate::swarm::discovery::Found;
use crate::swarm::discovery::book::{Book, Ended, Source};
use crate::swarm::discovery::trackers::Announcer;
use crate::swarm::engine::{Search, Shared};
use crate::swarm::listener::{Incoming, Route};
use crate::swarm::peer::{
    self, Batch, Command, DEFAULT_REQUEST_LIMIT, Event, Gone, HandshakeError, Holdings, Link, Terms,
};
use crate::swarm::picker::{Action, Arrival, Picker, Settings};
use crate::swarm::shape::{PeerKey, PieceSet, Shape, Time};
use crate::swarm::wire::Span;

/// Batches of events that wait for the owner; a link that finds the queue full stops reading its socket.
const EVENTS: usize = 256;
/// Batches taken in one go, so that what they cause is decided once.
const EVENTS_AT_ONCE: usize = 64;
/// Connections of one torrent.
const PEERS: usize = 80;
/// While a read waits and there are fewer, trackers are asked again as soon as they allow it.
const FEW_PEERS: usize = 4;
/// Connections of others that wait to be answered; more are closed.
const GUESTS: usize = 16;
/// How often rates, dials and the choker are looked at if nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// For so long after the start peers are dialled although nothing is asked for yet: a torrent enters the swarm because
/// somebody is about to read it.
const MEETING: Duration = Duration::from_secs(60);
/// What trackers are given to hear that we leave.
const FAREWELL: Duration = Duration::from_millis(300);
/// How often it is noted which peers are worth trying first another time.
const REMEMBER: Duration = Duration::from_secs(5);
/// Connections begun with one address.
const PER_ADDRESS: usize = 4;

pub(super) struct Owner {
    shared: Arc<Shared>,
    options: TorrentOptions,
    status: Arc<Status>,
    ended: CancellationToken,
    clock: tokio::time::Instant,
    picker: Picker,
    readers: Readers,
    assembly: Arc<Assembly>,
    supply: Arc<Supply>,
    have: PieceSet,
    /// Pieces that the assembly has room for.
    expected: HashSet<u32>,
    peers: HashMap<PeerKey, Peer>,
    book: Book,
    choker: Choker<PeerKey>,
    announcer: Option<Announcer>,
    /// Dropping them ends the search.
    _searches: Vec<Search>,
    /// Links end when nobody is left to tell them the shape; ours is known from the start and never changes.
    shape: watch::Sender<Option<Shape>>,
    orders: mpsc::UnboundedReceiver<Order>,
    events: (mpsc::Sender<Batch>, mpsc::Receiver<Batch>),
    /// Unbounded, for the picker bounds how many pieces are unfinished.
    verdicts: (mpsc::UnboundedSender<Verdict>, mpsc::UnboundedReceiver<Verdict>),
    meeter: Meeter,
    meetings: mpsc::Receiver<Meeting>,
    guests: mpsc::Receiver<Incoming>,
    _route: Route,
    found: mpsc::Receiver<Found>,
    actions: Vec<Action>,
    arrived: Arrived,
    /// Whether there was room to store more when that was last looked at.
    storing: bool,
    last_tick: (Instant, u64, u64),
    /// When it was last noted whom to try first another time.
    remembered: Instant,
    /// A read waits where none did: somebody may have to be dialled for it.
    hungry: bool,
    /// When the book has somebody to dial, as far as is known.
    dial_due: Option<Instant>,
    /// Of peers that have gone.
    uploaded: u64,
}

impl Owner {
    pub(super) fn new(
        shared: Arc<Shared>,
        options: TorrentOptions,
        orders: mpsc::UnboundedReceiver<Order>,
        status: Arc<Status>,
        ended: CancellationToken,
    ) -> Owner {
        let shape = options.shape;
        let mut have = PieceSet::new(shape.piece_count());
        for piece in (0..shape.piece_count()).filter(|piece| options.storage.has(*piece)) {
            have.set(piece);
        }
        let seed = fastrand::u64(..);
        let mut picker = Picker::new(shape, have.clone(), Settings::default(), seed);
        picker.set_whole(options.whole);
        let (found, found_here) = mpsc::channel(16);
        let (meetings, meetings_here) = mpsc::channel(PEERS);
        let ours = shared.handshake(options.info_hash);
        let (guests, guests_here) = mpsc::channel(GUESTS);
        let route = shared.routes.add(options.info_hash, guests);
        let announcer = shared.announce(
            options.info_hash,
            options.private,
            &options.trackers,
            &status.totals,
            &found,
        );
        let searches = if options.private {
            Vec::new()
        } else {
            shared.search(options.info_hash, &found)
        };
        let mut book = Book::new(options.private, PER_ADDRESS, seed);
        book.add(Instant::now(), options.peers.iter().copied(), Source::Given);
        book.add(Instant::now(), options.remembered.iter().copied(), Source::Remembered);
        Owner {
            clock: tokio::time::Instant::now(),
            assembly: Arc::new(Assembly::new(shape, options.storage.clone())),
            supply: Arc::new(Supply::new(options.storage.clone())),
            readers: Readers::new(shape),
            choker: Choker::new(slots_for(shared.upload.rate()), seed),
            shape: watch::Sender::new(Some(shape)),
            events: mpsc::channel(EVENTS),
            verdicts: mpsc::unbounded_channel(),
            meeter: Meeter {
                ours,
                meetings,
                ended: ended.clone(),
            },
            meetings: meetings_here,
            guests: guests_here,
            _route: route,
            found: found_here,
            expected: HashSet::new(),
            peers: HashMap::new(),
            actions: Vec::new(),
            arrived: Arrived::default(),
            storing: true,
            last_tick: (Instant::now(), 0, 0),
            remembered: Instant::now(),
            hungry: false,
            dial_due: None,
            uploaded: 0,
            _searches: searches,
            announcer,
            shared,
            options,
            status,
            ended,
            picker,
            have,
            book,
            orders,
        }
    }

    /// Runs until the torrent leaves.
    pub(super) async fn run(mut self) {
        let mut batches = Vec::new();
        self.tick();
        loop {
            self.decide();
            let wake = self.next_wakeup();
            let ended = self.ended.clone();
            tokio::select! {
                () = ended.cancelled() => break,
                order = self.orders.recv() => match order {
                    Some(order) => self.ordered(order),
                    None => break,
                },
                _ = self.events.1.recv_many(&mut batches, EVENTS_AT_ONCE) => {}
                Some(verdict) = self.verdicts.1.recv() => self.judged(verdict),
                Some(meeting) = self.meetings.recv() => self.met(meeting),
                Some(guest) = self.guests.recv() => self.greet(guest),
                Some(found) = self.found.recv() => {
                    self.book.add(Instant::now(), found.peers, found.source);
                    self.dial();
                }
                () = tokio::time::sleep_until(wake) => {}
            }
            batches.drain(..).for_each(|batch| self.heard(batch));
            while let Ok(order) = self.orders.try_recv() {
                self.ordered(order);
            }
            while let Ok(verdict) = self.verdicts.1.try_recv() {
                self.judged(verdict);
            }
            if self.last_tick.0.elapsed() >= TICK {
                self.tick();
            }
            if self.dial_due.is_some_and(|due| due <= Instant::now()) {
                self.dial();
            }
        }
        self.remember();
        self.peers.clear();
        if let Some(announcer) = self.announcer.take() {
            announcer.stop(FAREWELL).await;
        }
    }

    fn now(&self) -> Time {
        self.time(tokio::time::Instant::now())
    }

    fn time(&self, at: tokio::time::Instant) -> Time {
        Time::ZERO + at.saturating_duration_since(self.clock)
    }

    fn next_wakeup(&self) -> tokio::time::Instant {
        let dues = [Some(self.last_tick.0 + TICK), self.dial_due, self.arrived.due()];
        let tick = dues.into_iter().flatten().min().unwrap_or_else(Instant::now);
        let tick = tokio::time::Instant::from_std(tick);
        let wakeups = [self.picker.next_wakeup(), self.readers.next_wakeup()];
        let soonest = wakeups.into_iter().flatten().min();
        soonest.map_or(tick, |time| {
            (self.clock + Duration::from_micros(time.micros())).min(tick)
        })
    }

    /// Lets the picker decide, and says what it decided.
    fn decide(&mut self) {
        let now = self.now();
        self.readers.update(now, &mut self.picker);
        if let Some((pieces, at)) = self.arrived.take(Instant::now()) {
            self.readers.tell(&pieces, at, &self.picker);
        }
        if std::mem::take(&mut self.hungry) {
            self.dial();
        }
        self.status.waiting.store(self.readers.waiting(), Ordering::Relaxed);
        let mut actions = std::mem::take(&mut self.actions);
        self.picker.decide(now, &mut actions);
        let mut said: HashMap<PeerKey, Vec<Command>> = HashMap::new();
        for action in actions.drain(..) {
            match action {
                Action::Request { peer, block } => {
                    if self.expected.insert(block.piece) {
                        self.assembly.expect(block.piece);
                    }
                    trace!(peer = peer.slot, piece = block.piece, block = block.index, "ask");
                    let span = self.span(block);
                    match said.entry(peer).or_default().last_mut() {
                        Some(Command::Request(spans)) => spans.push(span),
                        _ => said.entry(peer).or_default().push(Command::Request(vec![span])),
                    }
                }
                Action::Cancel { peer, block } => {
                    trace!(peer = peer.slot, piece = block.piece, block = block.index, "cancel");
                    let span = self.span(block);
                    match said.entry(peer).or_default().last_mut() {
                        Some(Command::Cancel(spans)) => spans.push(span),
                        _ => said.entry(peer).or_default().push(Command::Cancel(vec![span])),
                    }
                }
                Action::Interested { peer, interested } => {
                    said.entry(peer).or_default().push(Command::Interested(interested));
                }
                Action::Forget { piece } => {
                    self.expected.remove(&piece);
                    self.assembly.forget(piece);
                }
                Action::Snubbed { peer, snubbed } => debug!(?peer, snubbed, "a peer's silence"),
            }
        }
        self.actions = actions;
        for (peer, commands) in said {
            if let Some(peer) = self.peers.get(&peer) {
                peer.link.send(commands);
            }
        }
    }

    fn span(&self, block: crate::swarm::shape::Block) -> Span {
        Span {
            piece: block.piece,
            begin: block.begin(),
            length: self.options.shape.block_size(block),
        }
    }

    fn ordered(&mut self, order: Order) {
        trace!(?order);
        let now = self.now();
        match order {
            Order::Open { reader, file } => self.readers.open(reader, file),
            Order::Close { reader } => self.readers.close(reader, &mut self.picker),
            Order::Expect { reader, bytes, within } => self.readers.expect(reader, bytes, now + within),
            Order::Passed { reader, bytes } => self.readers.passed(now, reader, bytes),
            Order::Demand {
                reader,
                demand,
                bytes,
                urgent,
                progress,
            } => {
                for piece in self.options.shape.pieces_of(bytes.clone()) {
                    self.recheck(piece);
                }
                self.hungry |= self.readers.waiting() == 0;
                self.readers.demand(now, reader, demand, bytes, urgent, progress);
            }
            Order::Urge { reader, demand, urgent } => self.readers.urge(reader, demand, urgent),
            Order::Withdraw {
                reader,
                demand,
                answered,
            } => self.readers.withdraw(reader, demand, answered),
        }
    }

    /// A piece that we believed to have, and the storage has not.
    fn recheck(&mut self, piece: u32) {
        if self.have.get(piece) && !self.options.storage.has(piece) {
            self.have.clear(piece);
            self.picker.lost(piece);
            for peer in self.peers.values() {
                peer.link.send([Command::DontHave(piece)]);
            }
        }
    }

    fn heard(&mut self, batch: Batch) {
        for event in batch.events {
            let Some(peer) = self.peers.get_mut(&batch.from) else {
                return;
            };
            let key = batch.from;
            match event {
                Event::Arrived { span, at, kept } => self.arrived(key, span, at, kept),
                Event::Extended(features) => {
                    peer.exchanges = features.pex.is_some() && !self.options.private;
                    if let Some(limit) = features.request_limit {
                        self.picker.set_request_limit(key, limit);
                    }
                    if let (true, Some(port)) = (peer.incoming, features.port) {
                        peer.dialable = Some(SocketAddr::new(peer.address.ip(), port));
                        self.book.listens(Instant::now(), peer.address, port);
                    }
                }
                Event::Choked(choked) => {
                    trace!(peer = key.slot, choked, "choke");
                    self.picker.choke(key, choked);
                }
                Event::Interested(interested) => {
                    peer.interested = interested;
                    self.choke();
                }
                Event::Have(piece) => self.picker.have(key, piece),
                Event::Holdings(Holdings::All) => self.picker.have_all(key),
                Event::Holdings(Holdings::None) => self.picker.have_none(key),
                Event::Holdings(Holdings::Some(set)) => self.picker.bitfield(key, set),
                Event::DontHave(piece) => self.picker.dont_have(key, piece),
                Event::Rejected(span) => {
                    if let Some(block) = self.options.shape.block_at(span.piece, span.begin, span.length) {
                        let now = self.now();
                        self.picker.rejected(now, key, block);
                    }
                }
                Event::AllowedFast(piece) => self.picker.allowed_fast(key, piece),
                Event::Pex(exchange) => {
                    let peers = exchange.added.into_iter().map(|met| met.address);
                    self.book.add(Instant::now(), peers, Source::Peer);
                    self.dial();
                }
                // The info dictionary is known, and not asked for; the DHT finds its nodes by itself.
                Event::Metadata { .. } | Event::MetadataRejected(_) | Event::DhtPort(_) => {}
                Event::Gone(gone) => self.gone(key, &gone),
            }
        }
    }

    fn arrived(&mut self, key: PeerKey, span: Span, at: tokio::time::Instant, kept: bool) {
        let Some(block) = self.options.shape.block_at(span.piece, span.begin, span.length) else {
            return;
        };
        // It may have been forgotten since it was kept: then it is to be asked for again.
        let kept = kept && self.assembly.holds(key, block);
        let receipt = self.picker.received(self.time(at), key, block, kept);
        self.status.fetched.fetch_add(u64::from(span.length), Ordering::Relaxed);
        trace!(peer = key.slot, piece = block.piece, block = block.index, arrival = ?receipt.arrival, "came");
        match receipt.arrival {
            Arrival::Wanted => {
                *self.status.last_block.lock() = Some(at.into_std());
                if self.readers.waiting() > 0 {
                    self.arrived.add(span.piece, at.into_std());
                }
            }
            Arrival::Duplicate | Arrival::Unasked => {
                self.status.wasted.fetch_add(u64::from(span.length), Ordering::Relaxed);
            }
        }
        if receipt.piece_complete {
            self.expected.remove(&span.piece);
            let digests = self.picker.wants_digests(span.piece);
            self.assembly.finish(span.piece, digests, self.verdicts.0.clone());
        }
    }

    fn judged(&mut self, verdict: Verdict) {
        let Verdict {
            piece,
            finished,
            digests,
            blocks,
        } = verdict;
        let now = self.now();
        let blamed = match &finished {
            Finished::Stored | Finished::Held { .. } => self.picker.verified(now, piece, &digests),
            Finished::Bad => {
                let before = self.picker.counters().failed;
                let blamed = self.picker.failed(now, piece, &digests);
                let dropped = self.picker.counters().failed - before;
                self.status.wasted.fetch_add(dropped, Ordering::Relaxed);
                if let Some(blocks) = blocks.filter(|_| self.picker.is_unfinished(piece)) {
                    self.assembly.keep(piece, blocks, |block| self.picker.holds(block));
                    self.expected.insert(piece);
                }
                blamed
            }
            Finished::Failed => {
                self.picker.verified(now, piece, &digests);
                self.picker.lost(piece);
                Vec::new()
            }
        };
        match finished {
            Finished::Stored | Finished::Held { .. } => {
                self.have.set(piece);
                self.peers
                    .values()
                    .for_each(|peer| peer.link.send([Command::Have(piece)]));
                if let Finished::Held { evicted } = finished {
                    self.look_at_room();
                    evicted.into_iter().for_each(|piece| self.recheck(piece));
                }
                if self.have.is_full()
                    && let Some(announcer) = &self.announcer
                {
                    announcer.completed();
                }
            }
            Finished::Bad => warn!(piece, "a piece does not match its hash, and is fetched again"),
            Finished::Failed => {}
        }
        for liar in blamed {
            if let Some(peer) = self.peers.get(&liar) {
                warn!(peer = %peer.address, piece, "banned: it sent false data");
                self.book.ban(peer.address);
                self.drop_peer(liar, Ended::Misbehaved);
            }
        }
    }

    /// Dials whom the book names, as far as there are places.
    fn dial(&mut self) {
        self.dial_due = None;
        // A read that has just begun is with the readers, and not yet with the picker.
        let urgent = self.readers.waiting() > 0;
        let meets = self.clock.elapsed() < MEETING;
        if self.have.is_full() || !(meets || urgent || self.picker.is_wanting()) {
            return;
        }
        let room = PEERS.saturating_sub(self.peers.len() + self.book.counts().dialing);
        for dial in self.book.next(Instant::now(), room, urgent) {
            match self.shared.connections.dial(dial.address.ip()) {
                Ok(place) => self.meeter.dial(dial, place),
                Err(_) => self.book.put_off(Instant::now(), dial.address),
            }
        }
        self.dial_due = (room > 0).then(|| self.book.next_due(urgent)).flatten();
    }

    /// Answers a peer that connected to us.
    fn greet(&mut self, guest: Incoming) {
        if self.peers.len() < PEERS && !self.book.is_banned(guest.from) {
            self.meeter.greet(guest);
        }
    }

    fn met(&mut self, meeting: Meeting) {
        let Meeting { address, incoming, met } = meeting;
        let now = Instant::now();
        let (connection, place) = match met {
            Ok(met) => met,
            Err(error) => {
                debug!(%address, error = error.as_ref().map(tracing::field::display), "no peer there");
                match error {
                    Some(HandshakeError::Ourselves) if !incoming => self.book.ended(now, address, Ended::Ourselves),
                    _ if !incoming => self.book.failed(now, address),
                    _ => {}
                }
                return;
            }
        };
        if !incoming {
            self.book.connected(now, address);
        } else if !self.book.incoming(address) {
            return;
        }
        let Some(key) = self.picker.add_peer(connection.fast(), DEFAULT_REQUEST_LIMIT) else {
            self.book.ended(now, address, Ended::Unneeded);
            return;
        };
        let terms = Terms {
            key,
            shape: self.shape.subscribe(),
            holdings: self.holdings(),
            introduction: self.shared.introduction(
                address,
                peer::Source::info_length(&*self.supply),
                self.options.private,
            ),
            dht_port: self.shared.dht_port(),
            sink: self.assembly.clone(),
            source: self.supply.clone(),
            events: self.events.0.clone(),
            download: vec![self.shared.download.clone()],
            upload: vec![self.shared.upload.clone()],
        };
        let link = Link::start(connection, terms);
        self.peers.insert(key, Peer::new(link, address, incoming, place));
        self.status.connected.store(self.peers.len(), Ordering::Relaxed);
        debug!(%address, incoming, "connected");
    }

    fn holdings(&self) -> Holdings {
        if self.have.is_full() {
            Holdings::All
        } else if self.have.count() == 0 {
            Holdings::None
        } else {
            Holdings::Some(self.have.clone())
        }
    }

    fn gone(&mut self, key: PeerKey, gone: &Gone) {
        let how = if gone.is_misconduct() {
            Ended::Misbehaved
        } else {
            Ended::Lost
        };
        self.drop_peer(key, how);
        self.dial();
    }

    fn drop_peer(&mut self, key: PeerKey, how: Ended) {
        let Some(peer) = self.peers.remove(&key) else { return };
        self.uploaded += peer.link.counters().uploaded();
        self.picker.remove_peer(key);
        // What it has sent and we have not heard of yet will not be heard of.
        self.assembly.bar(key, |block| self.picker.holds(block));
        self.book.ended(Instant::now(), peer.address, how);
        self.status.connected.store(self.peers.len(), Ordering::Relaxed);
        if peer.interested {
            self.choke();
        }
    }

    /// Once a second: rates, dials that are due, the choker's round, and news for the peers.
    fn tick(&mut self) {
        let now = Instant::now();
        let links: u64 = self.peers.values().map(|peer| peer.link.counters().uploaded()).sum();
        let (fetched, uploaded) = (self.status.fetched(), self.uploaded + links);
        let (before, fetched_before, uploaded_before) = self.last_tick;
        let seconds = (now - before).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
        self.status
            .download_rate
            .store(rate(fetched, fetched_before), Ordering::Relaxed);
        self.status
            .upload_rate
            .store(rate(uploaded, uploaded_before), Ordering::Relaxed);
        self.status.uploaded.store(uploaded, Ordering::Relaxed);
        self.last_tick = (now, fetched, uploaded);
        let counts = self.book.counts();
        self.status.known.store(counts.known, Ordering::Relaxed);
        self.status.dialing.store(counts.dialing, Ordering::Relaxed);
        if self.remembered.elapsed() >= REMEMBER {
            self.remember();
        }
        self.look_at_room();
        self.dial();
        if self.readers.waiting() > 0
            && self.peers.len() < FEW_PEERS
            && let Some(announcer) = &self.announcer
        {
            announcer.announce_now();
        }
        if self.choker.next_round().is_none_or(|due| due <= now) {
            self.choke();
        }
        if !self.options.private {
            let others = dialable(&self.peers);
            for peer in self.peers.values_mut() {
                if let Some(exchange) = peer.exchange(now, &others) {
                    peer.link.send([Command::Pex(exchange)]);
                }
            }
        }
    }

    /// Where there is no room, only what reads wait for is fetched: what comes is held in memory, and what is held too
    /// long makes way, to be fetched again and again.
    fn look_at_room(&mut self) {
        let storing = self.options.storage.storing();
        if storing != self.storing {
            self.storing = storing;
            self.readers.fetch_ahead(storing);
            self.picker.set_whole(self.options.whole && storing);
        }
    }

    /// Notes whom to try first another time.
    fn remember(&mut self) {
        *self.status.remembered.lock() = self.book.remembered();
        self.remembered = Instant::now();
    }

    fn choke(&mut self) {
        let now = Instant::now();
        let states: Vec<_> = self.peers.iter_mut().map(|(key, peer)| peer.state(*key, now)).collect();
        for (key, choke) in self.choker.decide(now, self.have.is_full(), &states) {
            if let Some(peer) = self.peers.get_mut(&key) {
                peer.choked = choke;
                peer.link.send([Command::Choke(choke)]);
            }
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        info!(
            fetched = self.status.fetched(),
            wasted = self.status.wasted(),
            "left the swarm"
        );
    }
}
