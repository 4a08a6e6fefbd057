//! From an info hash to the info dictionary, which peers have (BEP 9).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::meeting::{Meeter, Meeting};
use crate::swarm::discovery::InfoHash;
use crate::swarm::discovery::book::{Book, Ended, Source};
use crate::swarm::engine::Shared;
use crate::swarm::limits::Connected;
use crate::swarm::metadata::{Fetcher, Progress};
use crate::swarm::peer::{self, Batch, Command, Event, Holdings, Link, Sink, Terms};
use crate::swarm::shape::PeerKey;
use crate::swarm::wire::Span;

/// Peers that are asked at once: the dictionary is small, and most of them have it.
const PEERS: usize = 32;
const TICK: Duration = Duration::from_secs(1);
const PER_ADDRESS: usize = 4;

/// Nothing is fetched and nothing served before the torrent's shape is known.
struct Nothing;

impl Sink for Nothing {
    fn wanted(&self, _: Span) -> bool {
        false
    }

    fn block(&self, _: PeerKey, _: u32, _: u32, _: Bytes) -> bool {
        false
    }
}

impl peer::Source for Nothing {
    fn read(&self, _: Span) -> BoxFuture<'_, std::io::Result<Bytes>> {
        async { Err(std::io::ErrorKind::NotFound.into()) }.boxed()
    }

    fn info_length(&self) -> Option<u32> {
        None
    }

    fn read_info(&self, _: u32, _: u32) -> BoxFuture<'_, std::io::Result<Bytes>> {
        async { Err(std::io::ErrorKind::NotFound.into()) }.boxed()
    }
}

struct Known {
    link: Link,
    address: SocketAddr,
    _place: Connected,
}

/// Asks peers for the info dictionary of a torrent until one has been put together whose hash is right. It takes as long
/// as it takes; dropping the future hangs up on everyone.
pub(in crate::swarm) async fn resolve(
    shared: &Arc<Shared>,
    info_hash: InfoHash,
    peers: &[SocketAddr],
    trackers: &[Vec<String>],
) -> Bytes {
    let ended = CancellationToken::new();
    let _hang_up = ended.clone().drop_guard();
    let (found, mut found_here) = mpsc::channel(16);
    let (meetings, mut meetings_here) = mpsc::channel::<Meeting>(PEERS);
    let (events, mut events_here) = mpsc::channel::<Batch>(PEERS);
    let meeter = Meeter {
        ours: shared.handshake(info_hash),
        meetings,
        ended,
    };
    let totals = Arc::default();
    let _announcer = shared.announce(info_hash, false, trackers, &totals, &found);
    let _searches = shared.search(info_hash, &found);
    let mut book = Book::new(false, PER_ADDRESS, fastrand::u64(..));
    book.add(Instant::now(), peers.iter().copied(), Source::Given);
    // Links end when nobody is left to tell them the shape.
    let (_shape_unknown, shape) = watch::channel(None);
    let sink = Arc::new(Nothing);
    let mut links: HashMap<PeerKey, Known> = HashMap::new();
    let mut fetcher: Fetcher<PeerKey> = Fetcher::new(info_hash);
    let mut next = 0;
    let begun = Instant::now();
    let mut requests = Vec::new();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let room = PEERS.saturating_sub(links.len() + book.counts().dialing);
        for dial in book.next(Instant::now(), room, true) {
            match shared.connections.dial(dial.address.ip()) {
                Ok(place) => meeter.dial(dial, place),
                Err(_) => book.put_off(Instant::now(), dial.address),
            }
        }
        fetcher.decide(begun.elapsed(), &mut requests);
        for (key, part) in requests.drain(..) {
            if let Some(known) = links.get(&key) {
                known.link.send([Command::RequestMetadata(part)]);
            }
        }
        tokio::select! {
            _ = tick.tick() => {}
            Some(found) = found_here.recv() => {
                book.add(Instant::now(), found.peers, found.source);
            }
            Some(Meeting { address, met, .. }) = meetings_here.recv() => match met {
                Ok((connection, place)) => {
                    book.connected(Instant::now(), address);
                    let key = PeerKey { slot: next, generation: 0 };
                    next += 1;
                    let terms = Terms {
                        key,
                        shape: shape.clone(),
                        holdings: Holdings::None,
                        introduction: shared.introduction(address, None, false),
                        dht_port: shared.dht_port(),
                        sink: sink.clone(),
                        source: sink.clone(),
                        events: events.clone(),
                        download: vec![shared.download.clone()],
                        upload: vec![shared.upload.clone()],
                    };
                    let link = Link::start(connection, terms);
                    links.insert(key, Known { link, address, _place: place });
                }
                Err(error) => {
                    debug!(%address, error = error.as_ref().map(tracing::field::display), "no peer there");
                    book.failed(Instant::now(), address);
                }
            },
            Some(batch) = events_here.recv() => {
                let key = batch.from;
                for event in batch.events {
                    match event {
                        Event::Extended(features) => {
                            if let Some(size) = features.metadata_size {
                                fetcher.offered(key, size);
                            }
                        }
                        Event::Metadata { part, total, data } => {
                            let progress = fetcher.data(begun.elapsed(), key, part, total, &data);
                            let Progress::Whole(whole) = progress else { continue };
                            // A panic there would be one of a hash function.
                            let Ok(checked) = tokio::task::spawn_blocking(|| whole.check()).await else { continue };
                            let verdict = fetcher.checked(checked);
                            if let Some(info) = verdict.info {
                                return info;
                            }
                            for liar in verdict.liars {
                                if let Some(known) = links.remove(&liar) {
                                    book.ban(known.address);
                                    book.ended(Instant::now(), known.address, Ended::Misbehaved);
                                }
                            }
                        }
                        Event::MetadataRejected(part) => fetcher.refused(begun.elapsed(), key, part),
                        Event::Pex(exchange) => {
                            let peers = exchange.added.into_iter().map(|met| met.address);
                            book.add(Instant::now(), peers, Source::Peer);
                        }
                        Event::Gone(gone) => {
                            fetcher.gone(key);
                            if let Some(known) = links.remove(&key) {
                                let how = if gone.is_misconduct() { Ended::Misbehaved } else { Ended::Lost };
                                book.ended(Instant::now(), known.address, how);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
