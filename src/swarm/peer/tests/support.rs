//! A torrent of known bytes, and an owner of one link that downloads it or serves it.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::swarm::bencode::{put_bytes, put_integer};
use crate::swarm::extension::Introduction;
use crate::swarm::metadata::{Fetcher, Progress};
use crate::swarm::peer::{Batch, Command, Connection, Event, Gone, Holdings, Link, Sink, Source, Terms, connect};
use crate::swarm::shape::{BLOCK, PeerKey, Shape};
use crate::swarm::wire::{Handshake, Message, Reserved, Span, decode, encode};

/// Nothing in these tests takes this long.
pub(super) const LIMIT: Duration = Duration::from_secs(120);
/// No single event takes this long, on a clock that may be paused.
const PATIENCE: Duration = Duration::from_secs(170);
/// Requests that a test keeps open.
const WINDOW: usize = 64;

pub(super) const KEY: PeerKey = PeerKey { slot: 0, generation: 0 };

/// A torrent of one file.
#[derive(Debug)]
pub(super) struct Torrent {
    pub(super) shape: Shape,
    pub(super) data: Bytes,
    pub(super) info: Bytes,
    pub(super) info_hash: [u8; 20],
    /// The whole .torrent file.
    pub(super) file: Vec<u8>,
}

pub(super) const NAME: &str = "film.bin";

impl Torrent {
    /// Bytes that look like no others, in pieces of this length.
    pub(super) fn new(length: usize, piece_length: u32) -> Arc<Self> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64 ^ length as u64;
        let mut data = Vec::with_capacity(length + 8);
        while data.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            data.extend_from_slice(&state.to_le_bytes());
        }
        data.truncate(length);
        let hashes: Vec<u8> = data.chunks(piece_length as usize).flat_map(Sha1::digest).collect();
        let mut info = vec![b'd'];
        put_integer("length", length as u64, &mut info);
        put_bytes(b"name", &mut info);
        put_bytes(NAME.as_bytes(), &mut info);
        put_integer("piece length", u64::from(piece_length), &mut info);
        put_bytes(b"pieces", &mut info);
        put_bytes(&hashes, &mut info);
        info.push(b'e');
        let file = [b"d4:info", &info[..], b"e"].concat();
        let shape = Shape::new(piece_length, length as u64).unwrap();
        let info_hash = Sha1::digest(&info).into();
        Arc::new(Self {
            shape,
            data: data.into(),
            info: info.into(),
            info_hash,
            file,
        })
    }

    pub(super) fn slice(&self, span: Span) -> Bytes {
        let begin = u64::from(span.piece) * u64::from(self.shape.piece_length()) + u64::from(span.begin);
        let begin = usize::try_from(begin).unwrap();
        self.data.slice(begin..begin + span.length as usize)
    }

    /// All blocks in order.
    pub(super) fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        (0..self.shape.piece_count()).flat_map(move |piece| {
            let size = self.shape.piece_size(piece);
            (0..size).step_by(BLOCK as usize).map(move |begin| {
                let length = BLOCK.min(size - begin);
                Span { piece, begin, length }
            })
        })
    }

    pub(super) fn handshake(&self, name: u8) -> Handshake {
        Handshake {
            reserved: Reserved::ours(false),
            info_hash: self.info_hash,
            peer_id: [name; 20],
        }
    }
}

/// Compares what arrives with the torrent, and serves it.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) torrent: Arc<Torrent>,
    pub(super) arrived: AtomicUsize,
    pub(super) reads: AtomicU32,
    /// Reads of the source wait for this.
    pub(super) gate: watch::Sender<bool>,
    /// The source fails.
    pub(super) fails: AtomicBool,
}

impl Store {
    pub(super) fn new(torrent: &Arc<Torrent>) -> Arc<Self> {
        Arc::new(Self {
            torrent: Arc::clone(torrent),
            arrived: AtomicUsize::new(0),
            reads: AtomicU32::new(0),
            gate: watch::Sender::new(true),
            fails: AtomicBool::new(false),
        })
    }
}

impl Sink for Store {
    fn wanted(&self, _span: Span) -> bool {
        true
    }

    fn block(&self, _from: PeerKey, piece: u32, begin: u32, data: Bytes) -> bool {
        let span = Span {
            piece,
            begin,
            length: u32::try_from(data.len()).unwrap(),
        };
        assert!(data == self.torrent.slice(span), "wrong bytes of {span:?}");
        self.arrived.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Source for Store {
    fn read(&self, span: Span) -> BoxFuture<'_, io::Result<Bytes>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let _ = self.gate.subscribe().wait_for(|open| *open).await;
            if self.fails.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(self.torrent.slice(span))
        })
    }

    fn info_length(&self) -> Option<u32> {
        u32::try_from(self.torrent.info.len()).ok()
    }

    fn read_info(&self, begin: u32, length: u32) -> BoxFuture<'_, io::Result<Bytes>> {
        let part = self.torrent.info.slice(begin as usize..(begin + length) as usize);
        Box::pin(std::future::ready(Ok(part)))
    }
}

/// One link and what comes of it.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) link: Option<Link>,
    events: mpsc::Receiver<Batch>,
    waiting: VecDeque<Event>,
    choked: bool,
    pub(super) store: Arc<Store>,
    pub(super) shape: watch::Sender<Option<Shape>>,
}

pub(super) fn terms(
    store: &Arc<Store>,
    holdings: Holdings,
) -> (Terms, mpsc::Receiver<Batch>, watch::Sender<Option<Shape>>) {
    let (events, receiver) = mpsc::channel(64);
    let shape = watch::Sender::new(Some(store.torrent.shape));
    let terms = Terms {
        key: KEY,
        shape: shape.subscribe(),
        holdings,
        introduction: Introduction {
            metadata_size: store.info_length(),
            request_limit: 512,
            pex: true,
            client: "magnetfs test".into(),
            ..Introduction::default()
        },
        dht_port: None,
        sink: Arc::clone(store) as Arc<dyn Sink>,
        source: Arc::clone(store) as Arc<dyn Source>,
        events,
        download: Vec::new(),
        upload: Vec::new(),
    };
    (terms, receiver, shape)
}

impl Owner {
    pub(super) fn start<R, W>(connection: Connection<R, W>, store: &Arc<Store>, holdings: Holdings) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (terms, events, shape) = terms(store, holdings);
        Self::with(connection, terms, events, shape, store)
    }

    pub(super) fn with<R, W>(
        connection: Connection<R, W>,
        terms: Terms,
        events: mpsc::Receiver<Batch>,
        shape: watch::Sender<Option<Shape>>,
        store: &Arc<Store>,
    ) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let link = Some(Link::start(connection, terms));
        Self {
            link,
            events,
            waiting: VecDeque::new(),
            choked: true,
            store: Arc::clone(store),
            shape,
        }
    }

    pub(super) fn send(&self, commands: impl IntoIterator<Item = Command>) {
        self.link.as_ref().unwrap().send(commands);
    }

    /// The next event; the link's last one is [`Event::Gone`].
    pub(super) async fn next(&mut self) -> Event {
        while self.waiting.is_empty() {
            let batch = timeout(PATIENCE, self.events.recv())
                .await
                .expect("an event in time")
                .expect("the link is gone");
            self.waiting.extend(batch.events);
        }
        let event = self.waiting.pop_front().unwrap();
        if let Event::Choked(choked) = event {
            self.choked = choked;
        }
        event
    }

    /// The next event of which this makes something.
    pub(super) async fn until<T>(&mut self, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            if let Event::Gone(gone) = event {
                return pick(Event::Gone(gone)).expect("the link ended");
            }
            if let Some(picked) = pick(event) {
                return picked;
            }
        }
    }

    pub(super) async fn until_gone(&mut self) -> Gone {
        self.until(|event| {
            if let Event::Gone(gone) = event {
                Some(gone)
            } else {
                None
            }
        })
        .await
    }

    pub(super) async fn until_unchoked(&mut self) {
        self.until(|event| matches!(event, Event::Choked(false)).then_some(()))
            .await;
    }

    /// Downloads everything in order, a window of requests at a time. How many blocks.
    pub(super) async fn download(&mut self) -> usize {
        self.send([Command::Interested(true)]);
        let torrent = Arc::clone(&self.store.torrent);
        let mut spans = torrent.spans();
        let mut open: Vec<Span> = Vec::new();
        let mut count = 0;
        loop {
            if !self.choked {
                let more: Vec<Span> = spans.by_ref().take(WINDOW - open.len()).collect();
                if more.is_empty() && open.is_empty() {
                    return count;
                }
                open.extend(&more);
                if !more.is_empty() {
                    self.send([Command::Request(more)]);
                }
            }
            match self.next().await {
                Event::Choked(false) => self.send([Command::Request(open.clone())]),
                Event::Arrived { span, .. } => {
                    let place = open.iter().position(|other| *other == span).expect("an open block");
                    open.swap_remove(place);
                    count += 1;
                }
                Event::Rejected(span) if !self.choked => self.send([Command::Request(vec![span])]),
                Event::Gone(gone) => panic!("the link ended after {count} blocks: {gone}"),
                _ => {}
            }
        }
    }

    /// Serves until the peer has said of every piece that it has it, or has hung up having been sent all.
    pub(super) async fn serve(&mut self) {
        let count = self.store.torrent.shape.piece_count();
        let mut has = BTreeSet::new();
        let total = self.store.torrent.shape.total();
        while has.len() < count as usize {
            match self.next().await {
                Event::Interested(true) => self.send([Command::Choke(false)]),
                Event::Have(piece) => drop(has.insert(piece)),
                Event::Gone(gone) => {
                    assert!(
                        self.link.as_ref().unwrap().counters().uploaded() >= total,
                        "the peer left: {gone}"
                    );
                    return;
                }
                _ => {}
            }
        }
    }

    /// Fetches the info dictionary.
    pub(super) async fn metadata(&mut self) -> Bytes {
        let mut fetcher = Fetcher::new(self.store.torrent.info_hash);
        loop {
            let progress = match self.next().await {
                Event::Extended(features) => {
                    if let Some(size) = features.metadata.and(features.metadata_size) {
                        fetcher.offered((), size);
                    }
                    Progress::Ignored
                }
                Event::Metadata { part, total, data } => fetcher.data(Duration::ZERO, (), part, total, &data),
                Event::Gone(gone) => panic!("the link ended: {gone}"),
                _ => Progress::Ignored,
            };
            if let Progress::Whole(assembly) = progress {
                let verdict = fetcher.checked(assembly.check());
                return verdict.info.expect("the right dictionary");
            }
            let mut requests = Vec::new();
            fetcher.decide(Duration::ZERO, &mut requests);
            self.send(requests.into_iter().map(|((), part)| Command::RequestMetadata(part)));
        }
    }
}

/// A peer made of bare messages.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) io: DuplexStream,
    buffer: BytesMut,
}

impl Bare {
    /// Meets an owner of ours that has everything, over a pipe of this many bytes.
    pub(super) async fn meet(store: &Arc<Store>, reserved: Reserved, pipe: usize) -> (Owner, Self) {
        let (terms, events, shape) = terms(store, Holdings::All);
        Self::meet_with(store, reserved, pipe, terms, events, shape).await
    }

    pub(super) async fn meet_with(
        store: &Arc<Store>,
        reserved: Reserved,
        pipe: usize,
        terms: Terms,
        events: mpsc::Receiver<Batch>,
        shape: watch::Sender<Option<Shape>>,
    ) -> (Owner, Self) {
        let (ours, mut theirs) = tokio::io::duplex(pipe);
        let (reader, writer) = tokio::io::split(ours);
        let handshake = Handshake {
            reserved,
            ..store.torrent.handshake(2)
        };
        let (connection, ()) = tokio::join!(connect(reader, writer, store.torrent.handshake(1)), async {
            theirs.write_all(&handshake.encode()).await.unwrap();
            let mut bytes = [0; 68];
            tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut bytes)
                .await
                .unwrap();
            assert_eq!(Handshake::parse(&bytes).unwrap(), store.torrent.handshake(1));
        });
        let owner = Owner::with(connection.unwrap(), terms, events, shape, store);
        (
            owner,
            Self {
                io: theirs,
                buffer: BytesMut::new(),
            },
        )
    }

    /// Sends these; whether the other side still takes them.
    pub(super) async fn say(&mut self, messages: &[Message]) -> bool {
        let mut out = BytesMut::new();
        messages.iter().for_each(|message| encode(message, &mut out));
        self.io.write_all(&out).await.is_ok()
    }

    /// The next message; `None` if the other side hung up.
    pub(super) async fn hear(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = decode(&mut self.buffer).unwrap() {
                return Some(message);
            }
            let read = tokio::io::AsyncReadExt::read_buf(&mut self.io, &mut self.buffer);
            let count = timeout(PATIENCE, read).await.expect("a message in time");
            count.ok().filter(|count| *count > 0)?;
        }
    }

    /// Messages up to and with the first that this holds for.
    pub(super) async fn hear_until(&mut self, last: impl Fn(&Message) -> bool) -> Vec<Message> {
        let mut heard = Vec::new();
        while let Some(message) = self.hear().await {
            let is_last = last(&message);
            heard.push(message);
            if is_last {
                return heard;
            }
        }
        panic!("the link ended before it; heard {heard:?}")
    }
}
