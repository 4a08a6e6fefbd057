//! How much a link costs beside a socket that is only read: printed, not judged, for machines differ.
//!
//!     cargo test --lib swarm::peer::tests::throughput -- --nocapture

use std::io::{IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::support::{KEY, Owner, Store, Torrent};
use crate::swarm::extension::Introduction;
use crate::swarm::peer::{Command, Event, Holdings, Link, Sink, Source, Terms, connect, tcp};
use crate::swarm::shape::{BLOCK, PeerKey, Shape};
use crate::swarm::wire::{
    BLOCK_HEADER_LENGTH, HANDSHAKE_LENGTH, Handshake, Message, Reserved, Span, block_header, decode, encode,
};

const PIECE_LENGTH: u32 = 1024 * 1024;
const TOTAL: u64 = 256 * 1024 * 1024;
const WINDOW: usize = 256;

/// Takes blocks as a torrent would: into the place of the piece.
struct Pieces(Mutex<Vec<u8>>);

impl Sink for Pieces {
    fn wanted(&self, _span: Span) -> bool {
        true
    }

    fn block(&self, _from: PeerKey, _piece: u32, begin: u32, data: Bytes) -> bool {
        let begin = begin as usize;
        self.0.lock()[begin..begin + data.len()].copy_from_slice(&data);
        true
    }
}

/// The time that this thread has spent on a processor, in nanoseconds.
fn thread_time() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

fn print(name: &str, bytes: u64, started: Instant, cpu: u64) {
    let mib = bytes as f64 / (1024.0 * 1024.0);
    let (wall, cpu) = (started.elapsed().as_secs_f64(), (thread_time() - cpu) as f64 / 1e6);
    println!(
        "{name:<22} {:>7.0} MiB/s  {:>6.3} ms of processor a MiB",
        mib / wall,
        cpu / mib
    );
}

/// Sends the bytes of so many blocks and nothing else.
fn send_raw(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let part = vec![1; 128 * 1024];
    for _ in 0..TOTAL / part.len() as u64 {
        stream.write_all(&part).unwrap();
    }
}

/// Answers requests with blocks as fast as a socket takes them.
fn send_blocks(listener: &TcpListener, info_hash: [u8; 20]) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut greeting = [0; HANDSHAKE_LENGTH];
    stream.read_exact(&mut greeting).unwrap();
    let ours = Handshake {
        reserved: Reserved([0, 0, 0, 0, 0, 0, 0, 4]),
        info_hash,
        peer_id: [9; 20],
    };
    stream.write_all(&ours.encode()).unwrap();
    let mut first = BytesMut::new();
    encode(&Message::HaveAll, &mut first);
    encode(&Message::Unchoke, &mut first);
    stream.write_all(&first).unwrap();
    let data = vec![1; BLOCK as usize];
    let (mut buffer, mut chunk) = (BytesMut::new(), vec![0; 64 * 1024]);
    loop {
        let count = stream.read(&mut chunk).unwrap_or(0);
        if count == 0 {
            return;
        }
        buffer.extend_from_slice(&chunk[..count]);
        while let Some(message) = decode(&mut buffer).unwrap() {
            let Message::Request(span) = message else { continue };
            let header = block_header(span.piece, span.begin, data.len());
            let sent = stream.write_vectored(&[IoSlice::new(&header), IoSlice::new(&data)]);
            match sent {
                Ok(count) if count < header.len() => panic!("a header was cut"),
                Ok(count) => stream.write_all(&data[count - header.len()..]).unwrap(),
                Err(_) => return,
            }
        }
    }
}

async fn read_raw(address: SocketAddr) -> u64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut buffer, mut place, mut sum) = (BytesMut::with_capacity(256 * 1024), vec![0; PIECE_LENGTH as usize], 0);
    loop {
        buffer.clear();
        let count = stream.read_buf(&mut buffer).await.unwrap();
        if count == 0 {
            return sum;
        }
        place[..count].copy_from_slice(&buffer);
        sum += count as u64;
    }
}

async fn read_link(address: SocketAddr, store: &Arc<Store>) -> u64 {
    let shape = Shape::new(PIECE_LENGTH, TOTAL).unwrap();
    let (events, mut receiver) = mpsc::channel(64);
    let terms = Terms {
        key: KEY,
        shape: watch::Sender::new(Some(shape)).subscribe(),
        holdings: Holdings::None,
        introduction: Introduction::default(),
        dht_port: None,
        sink: Arc::new(Pieces(Mutex::new(vec![0; PIECE_LENGTH as usize]))),
        source: Arc::clone(store) as Arc<dyn Source>,
        events,
        download: Vec::new(),
        upload: Vec::new(),
    };
    let (reader, writer) = tcp(TcpStream::connect(address).await.unwrap()).unwrap();
    let link = Link::start(
        connect(reader, writer, store.torrent.handshake(1)).await.unwrap(),
        terms,
    );
    let blocks = PIECE_LENGTH / BLOCK;
    let span = |number: u32| Span {
        piece: number / blocks,
        begin: number % blocks * BLOCK,
        length: BLOCK,
    };
    let mut spans = (0..shape.piece_count() * blocks).map(span);
    let (mut open, mut arrived) = (0, 0);
    loop {
        for event in receiver.recv().await.unwrap().events {
            match event {
                Event::Arrived { span, .. } => {
                    arrived += u64::from(span.length);
                    open -= 1;
                }
                Event::Gone(gone) => panic!("{gone}"),
                _ => {}
            }
        }
        if arrived == TOTAL {
            return link.counters().downloaded();
        }
        let more: Vec<Span> = spans.by_ref().take(WINDOW - open).collect();
        open += more.len();
        link.send([Command::Request(more)]);
    }
}

/// Asks for blocks, so many at a time, and drops them.
fn take_blocks(listener: &TcpListener, torrent: &Torrent) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&torrent.handshake(9).encode()).unwrap();
    let mut out = BytesMut::new();
    encode(&Message::Interested, &mut out);
    let mut ask = |count: u64, from: u64| {
        for number in from..from + count {
            let piece = u32::try_from(number % u64::from(torrent.shape.piece_count())).unwrap();
            encode(
                &Message::Request(Span {
                    piece,
                    begin: 0,
                    length: BLOCK,
                }),
                &mut out,
            );
        }
        out.split()
    };
    let all = TOTAL / u64::from(BLOCK);
    let mut asked = WINDOW as u64;
    stream.write_all(&ask(asked, 0)).unwrap();
    let (mut chunk, mut bytes) = (vec![0; 256 * 1024], 0);
    while bytes < TOTAL + all * BLOCK_HEADER_LENGTH as u64 {
        bytes += stream.read(&mut chunk).unwrap() as u64;
        let more = (bytes / u64::from(BLOCK) + WINDOW as u64)
            .min(all)
            .saturating_sub(asked);
        if more > 0 {
            stream.write_all(&ask(more, asked)).unwrap();
            asked += more;
        }
    }
}

async fn write_link(address: SocketAddr, store: &Arc<Store>) -> u64 {
    let (reader, writer) = tcp(TcpStream::connect(address).await.unwrap()).unwrap();
    let connection = connect(reader, writer, store.torrent.handshake(1)).await.unwrap();
    let mut owner = Owner::start(connection, store, Holdings::All);
    owner.send([Command::Choke(false)]);
    owner.until_gone().await;
    TOTAL.min(owner.link.as_ref().unwrap().counters().uploaded())
}

/// Runs a reader on one thread and the sender on another.
fn measure<F: Future<Output = u64>>(
    name: &str,
    send: impl FnOnce(&TcpListener) + Send + 'static,
    read: impl FnOnce(SocketAddr) -> F,
) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || send(&listener));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (started, cpu) = (Instant::now(), thread_time());
    let bytes = runtime.block_on(read(address));
    print(name, bytes, started, cpu);
    assert_eq!(bytes, TOTAL);
    drop(runtime);
    sender.join().unwrap();
}

#[test]
fn a_link_beside_a_bare_socket() {
    let store = Store::new(&Torrent::new(1024 * 1024, 64 * 1024));
    let info_hash = store.torrent.info_hash;
    for _ in 0..2 {
        measure("read and copied", send_raw, read_raw);
        measure(
            "through a link",
            move |listener| send_blocks(listener, info_hash),
            |address| read_link(address, &store),
        );
        let torrent = Arc::clone(&store.torrent);
        measure(
            "sent by a link",
            move |listener| take_blocks(listener, &torrent),
            |address| write_link(address, &store),
        );
    }
}
