//! Two of ours, and one of ours against bare messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Bare, LIMIT, Owner, Store, Torrent, terms};
use crate::swarm::extension::{self, Features, Metadata, PeerExchange};
use crate::swarm::peer::{Command, Event, Gone, HandshakeError, Holdings, Meter, accept, connect};
use crate::swarm::shape::{BLOCK, PieceSet};
use crate::swarm::wire::{GREETING_LENGTH, Message, Reserved, Span};

const FAST: Reserved = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0x04]);
const PLAIN: Reserved = Reserved([0; 8]);
const MIB: usize = 1024 * 1024;

fn block(piece: u32, index: u32) -> Span {
    Span {
        piece,
        begin: index * BLOCK,
        length: BLOCK,
    }
}

/// Both sides of a connection over a pipe.
async fn pair(store: &Arc<Store>, theirs: Holdings) -> (Owner, Owner) {
    let (left, right) = tokio::io::duplex(64 * 1024);
    let torrent = &store.torrent;
    let (left_reader, left_writer) = tokio::io::split(left);
    let (mut right_reader, right_writer) = tokio::io::split(right);
    let (left, right) = tokio::join!(connect(left_reader, left_writer, torrent.handshake(1)), async {
        let mut greeting = [0; GREETING_LENGTH];
        right_reader.read_exact(&mut greeting).await.unwrap();
        accept(right_reader, right_writer, &greeting, torrent.handshake(2)).await
    });
    let seeder = Store::new(torrent);
    (
        Owner::start(left.unwrap(), store, Holdings::None),
        Owner::start(right.unwrap(), &seeder, theirs),
    )
}

#[tokio::test]
async fn a_whole_torrent_goes_from_one_to_the_other() {
    let torrent = Torrent::new(3 * MIB + 12_345, 256 * 1024);
    let store = Store::new(&torrent);
    let (mut leecher, mut seeder) = pair(&store, Holdings::All).await;
    let serving = tokio::spawn(async move {
        seeder
            .until(|event| matches!(event, Event::Interested(true)).then_some(()))
            .await;
        seeder.send([Command::Choke(false)]);
        seeder.until_gone().await
    });
    let count = tokio::time::timeout(LIMIT, leecher.download()).await.unwrap();
    assert_eq!(count, torrent.spans().count());
    assert_eq!(store.arrived.load(Ordering::Relaxed), count);
    let counters = leecher.link.as_ref().unwrap().counters();
    assert_eq!(counters.downloaded(), torrent.shape.total());
    assert_eq!(counters.unasked(), 0);
    drop(leecher.link.take());
    assert!(matches!(leecher.until_gone().await, Gone::Closed));
    assert!(matches!(serving.await.unwrap(), Gone::HungUp | Gone::Broken(_)));
}

#[tokio::test]
async fn the_info_dictionary_goes_from_one_to_the_other_before_the_shape_is_known() {
    let torrent = Torrent::new(40 * MIB, 16 * 1024);
    assert!(torrent.info.len() > 3 * 16 * 1024);
    let store = Store::new(&torrent);
    let mut has = PieceSet::new(torrent.shape.piece_count());
    has.set(5);
    let (mut leecher, mut seeder) = pair(&store, Holdings::Some(has.clone())).await;
    leecher.shape.send_replace(None);
    tokio::spawn(async move { seeder.until_gone().await });
    assert_eq!(leecher.metadata().await, torrent.info);
    leecher.shape.send_replace(Some(torrent.shape));
    let holdings = leecher.until(|event| {
        if let Event::Holdings(holdings) = event {
            Some(holdings)
        } else {
            None
        }
    });
    assert_eq!(holdings.await, Holdings::Some(has));
}

#[tokio::test]
async fn handshakes_refuse_other_torrents_and_ourselves() {
    let (torrent, other) = (Torrent::new(MIB, 16 * 1024), Torrent::new(2 * MIB, 16 * 1024));
    let ours = torrent.handshake(1);
    for (theirs, of_another) in [(other.handshake(2), true), (ours, false)] {
        let (left, mut right) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(left);
        right.write_all(&theirs.encode()).await.unwrap();
        let error = connect(reader, writer, ours).await.unwrap_err();
        assert_eq!(matches!(error, HandshakeError::OtherTorrent), of_another, "{error}");
        assert_eq!(matches!(error, HandshakeError::Ourselves), !of_another, "{error}");

        let (left, mut right) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(left);
        let bytes = theirs.encode();
        right.write_all(&bytes[GREETING_LENGTH..]).await.unwrap();
        let error = accept(reader, writer, bytes.first_chunk().unwrap(), ours)
            .await
            .unwrap_err();
        assert_eq!(matches!(error, HandshakeError::OtherTorrent), of_another, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let torrent = Torrent::new(MIB, 16 * 1024);
    let (left, _right) = tokio::io::duplex(1024);
    let (reader, writer) = tokio::io::split(left);
    let started = tokio::time::Instant::now();
    let error = connect(reader, writer, torrent.handshake(1)).await.unwrap_err();
    assert!(matches!(error, HandshakeError::TimedOut));
    assert_eq!(started.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_link_says_that_it_lives_and_gives_up_what_does_not() {
    let store = Store::new(&Torrent::new(MIB, 16 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    let started = tokio::time::Instant::now();
    bare.hear_until(|message| *message == Message::KeepAlive).await;
    assert_eq!(started.elapsed().as_secs(), 100);
    assert!(matches!(owner.until_gone().await, Gone::Silent(_)));
    assert!((150..161).contains(&started.elapsed().as_secs()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_is_given_up() {
    let store = Store::new(&Torrent::new(MIB, 16 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, FAST, 4 * 1024).await;
    owner.send([Command::Choke(false)]);
    bare.say(&[Message::Request(block(0, 0)), Message::Request(block(1, 0))])
        .await;
    assert!(matches!(owner.until_gone().await, Gone::Stalled(60)));
}

#[tokio::test]
async fn it_opens_with_what_it_has_and_who_it_is() {
    let store = Store::new(&Torrent::new(MIB, 16 * 1024));
    let (_owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    assert_eq!(bare.hear().await, Some(Message::HaveAll));
    let Some(Message::Extended { id: 0, payload }) = bare.hear().await else {
        panic!("an introduction")
    };
    let mut features = Features::default();
    features.update(&payload).unwrap();
    assert_eq!(features.metadata_size, u32::try_from(store.torrent.info.len()).ok());
    let (_owner, mut plain) = Bare::meet(&store, PLAIN, 64 * 1024).await;
    assert_eq!(plain.hear().await, Some(Message::Bitfield(Bytes::from(vec![0xFF; 8]))));
}

#[tokio::test]
async fn choked_requests_are_refused_in_words_or_in_silence() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    bare.say(&[Message::Request(block(0, 0))]).await;
    bare.hear_until(|message| *message == Message::Reject(block(0, 0)))
        .await;
    owner.send([Command::Choke(false)]);
    bare.hear_until(|message| *message == Message::Unchoke).await;
    bare.say(&[Message::Request(block(0, 1))]).await;
    let heard = bare
        .hear_until(|message| matches!(message, Message::Block { .. }))
        .await;
    let data = store.torrent.slice(block(0, 1));
    assert_eq!(
        heard,
        [Message::Block {
            piece: 0,
            begin: BLOCK,
            data
        }]
    );

    let (owner, mut plain) = Bare::meet(&store, PLAIN, 64 * 1024).await;
    plain.say(&[Message::Request(block(0, 0)), Message::Interested]).await;
    let mut owner = owner;
    owner
        .until(|event| matches!(event, Event::Interested(true)).then_some(()))
        .await;
    owner.send([Command::Choke(false)]);
    plain.hear_until(|message| *message == Message::Unchoke).await;
    plain.say(&[Message::Request(block(0, 1))]).await;
    let heard = plain
        .hear_until(|message| matches!(message, Message::Block { .. }))
        .await;
    assert_eq!(heard.len(), 1, "the choked request was passed over");
}

#[tokio::test]
async fn what_is_taken_back_or_choked_while_it_is_read_is_refused_and_not_sent() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    store.gate.send_replace(false);
    let (owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    owner.send([Command::Choke(false)]);
    let asked: Vec<Span> = (0..12).map(|index| block(index / 4, index % 4)).collect();
    bare.say(&asked.iter().map(|span| Message::Request(*span)).collect::<Vec<_>>())
        .await;
    bare.say(&[Message::Cancel(asked[1]), Message::Cancel(asked[11])]).await;
    bare.hear_until(|message| *message == Message::Reject(asked[11])).await;
    owner.send([Command::Choke(true)]);
    let heard = bare.hear_until(|message| *message == Message::Reject(asked[7])).await;
    assert!(heard.contains(&Message::Choke));
    store.gate.send_replace(true);
    owner.send([Command::Have(1)]);
    let rest = bare.hear_until(|message| *message == Message::Have(1)).await;
    let blocks = heard
        .iter()
        .chain(&rest)
        .filter(|message| matches!(message, Message::Block { .. }));
    assert_eq!(blocks.count(), 0);
}

#[tokio::test]
async fn neighbouring_blocks_are_read_at_once() {
    let store = Store::new(&Torrent::new(MIB, 128 * 1024));
    store.gate.send_replace(false);
    let (owner, mut bare) = Bare::meet(&store, FAST, 1024 * 1024).await;
    owner.send([Command::Choke(false)]);
    bare.hear_until(|message| *message == Message::Unchoke).await;
    bare.say(
        &(0..8)
            .map(|index| Message::Request(block(3, index)))
            .collect::<Vec<_>>(),
    )
    .await;
    store.gate.send_replace(true);
    bare.hear_until(|message| matches!(message, Message::Block { begin, .. } if *begin == 7 * BLOCK))
        .await;
    assert!(store.reads.load(Ordering::Relaxed) <= 2, "{store:?}");
    store.fails.store(true, Ordering::Relaxed);
    bare.say(&[Message::Request(block(2, 0)), Message::Request(block(2, 1))])
        .await;
    bare.hear_until(|message| *message == Message::Reject(block(2, 1)))
        .await;
}

#[tokio::test]
async fn cancelled_requests_come_back_and_late_blocks_are_not_held_against_the_peer() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    owner.send([Command::Request(vec![block(0, 0)]), Command::Cancel(vec![block(0, 0)])]);
    let rejected = owner.until(|event| {
        if let Event::Rejected(span) = event {
            Some(span)
        } else {
            None
        }
    });
    assert_eq!(rejected.await, block(0, 0), "it was never sent");
    owner.send([Command::Request(vec![block(0, 1)])]);
    bare.hear_until(|message| *message == Message::Request(block(0, 1)))
        .await;
    owner.send([Command::Cancel(vec![block(0, 1)])]);
    bare.hear_until(|message| *message == Message::Cancel(block(0, 1)))
        .await;
    let data = store.torrent.slice(block(0, 1));
    bare.say(&[Message::Block {
        piece: 0,
        begin: BLOCK,
        data,
    }])
    .await;
    owner
        .until(|event| matches!(event, Event::Arrived { kept: true, .. }).then_some(()))
        .await;
    assert_eq!(owner.link.as_ref().unwrap().counters().unasked(), 0);
}

#[tokio::test]
async fn what_a_choke_voids_can_be_asked_anew() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, PLAIN, 64 * 1024).await;
    bare.say(&[Message::Unchoke]).await;
    owner.until_unchoked().await;
    owner.send([Command::Request(vec![block(0, 0)])]);
    bare.hear_until(|message| *message == Message::Request(block(0, 0)))
        .await;
    bare.say(&[Message::Choke, Message::Unchoke]).await;
    owner.until_unchoked().await;
    owner.send([Command::Request(vec![block(0, 0)])]);
    bare.hear_until(|message| *message == Message::Request(block(0, 0)))
        .await;
}

#[tokio::test(start_paused = true)]
async fn peers_are_exchanged_once_a_minute() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    let exchange = |port: u16| {
        let dropped = vec![([10, 0, 0, 1], port).into()];
        let payload = PeerExchange {
            added: Vec::new(),
            dropped,
        }
        .encode()
        .into();
        Message::Extended {
            id: extension::PEX,
            payload,
        }
    };
    bare.say(&[exchange(1), exchange(2), Message::Interested]).await;
    let mut told = Vec::new();
    for (message, last) in [(None, true), (Some(exchange(3)), false)] {
        if let Some(message) = message {
            tokio::time::advance(Duration::from_secs(60)).await;
            bare.say(&[message, Message::NotInterested]).await;
        }
        owner
            .until(|event| {
                if let Event::Pex(exchange) = &event {
                    told.push(exchange.dropped[0].port());
                }
                matches!(event, Event::Interested(interested) if interested == last).then_some(())
            })
            .await;
    }
    assert_eq!(told, [1, 3]);
    let introduction = Bytes::from_static(b"d1:md6:ut_pexi9e11:lt_donthavei7eee");
    bare.say(&[Message::Extended {
        id: 0,
        payload: introduction,
    }])
    .await;
    owner
        .until(|event| matches!(event, Event::Extended(_)).then_some(()))
        .await;
    owner.send([Command::Pex(PeerExchange::default()), Command::DontHave(3)]);
    bare.hear_until(|message| matches!(message, Message::Extended { id: 9, .. }))
        .await;
    bare.hear_until(|message| matches!(message, Message::Extended { id: 7, payload } if payload[..] == [0, 0, 0, 3]))
        .await;
}

#[tokio::test]
async fn metadata_that_was_not_asked_for_is_passed_over() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (mut owner, mut bare) = Bare::meet(&store, FAST, 64 * 1024).await;
    let data = Metadata::Data {
        part: 0,
        total: 3,
        data: "abc".into(),
    }
    .encode()
    .into();
    bare.say(&[
        Message::Extended {
            id: extension::METADATA,
            payload: data,
        },
        Message::Interested,
    ])
    .await;
    let first = owner.until(|event| match event {
        Event::Metadata { .. } => Some(true),
        Event::Interested(true) => Some(false),
        _ => None,
    });
    assert!(!first.await);
}

#[tokio::test]
async fn an_owner_that_does_not_listen_holds_up_the_socket_and_loses_nothing() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (terms, events, shape) = terms(&store, Holdings::All);
    let (mut owner, mut bare) = Bare::meet_with(&store, FAST, 1024, terms, events, shape).await;
    const COUNT: u32 = 4_000;
    let talk = tokio::spawn(async move {
        for index in 0..COUNT {
            assert!(bare.say(&[Message::Have(index % 16)]).await);
        }
        bare
    });
    for index in 0..COUNT {
        let piece = owner
            .until(|event| {
                if let Event::Have(piece) = event {
                    Some(piece)
                } else {
                    None
                }
            })
            .await;
        assert_eq!(piece, index % 16);
    }
    drop(talk.await.unwrap());
    assert!(matches!(owner.until_gone().await, Gone::HungUp));
}

/// Counts what passes, and lets it.
#[derive(Debug, Default)]
struct Scale(AtomicU64);

impl Meter for Scale {
    fn take(&self, bytes: u32) -> BoxFuture<'_, ()> {
        self.0.fetch_add(u64::from(bytes), Ordering::Relaxed);
        Box::pin(std::future::ready(()))
    }

    fn burst(&self) -> Option<u32> {
        Some(20_000)
    }
}

#[tokio::test]
async fn every_limit_is_asked_for_what_passes() {
    let store = Store::new(&Torrent::new(MIB, 64 * 1024));
    let (mut terms, events, shape) = terms(&store, Holdings::All);
    let scales: [Arc<Scale>; 2] = Default::default();
    terms.download = scales.iter().map(|scale| Arc::clone(scale) as Arc<dyn Meter>).collect();
    let up = Arc::new(Scale::default());
    terms.upload = vec![Arc::clone(&up) as Arc<dyn Meter>];
    let (mut owner, mut bare) = Bare::meet_with(&store, FAST, MIB, terms, events, shape).await;
    owner.send([Command::Choke(false), Command::Request(vec![block(0, 0)])]);
    bare.hear_until(|message| *message == Message::Request(block(0, 0)))
        .await;
    bare.say(&[Message::Block {
        piece: 0,
        begin: 0,
        data: store.torrent.slice(block(0, 0)),
    }])
    .await;
    owner
        .until(|event| matches!(event, Event::Arrived { .. }).then_some(()))
        .await;
    bare.say(&[Message::Request(block(3, 0)), Message::Request(block(3, 1))])
        .await;
    bare.hear_until(|message| matches!(message, Message::Block { begin: BLOCK, .. }))
        .await;
    assert_eq!(store.reads.load(Ordering::Relaxed), 2, "no more at once than the burst");
    assert_eq!(up.0.load(Ordering::Relaxed), 2 * u64::from(BLOCK));
    drop(bare);
    owner.until_gone().await;
    let read = owner.link.as_ref().unwrap().counters().read();
    assert!(read > u64::from(BLOCK));
    assert!(scales.iter().all(|scale| scale.0.load(Ordering::Relaxed) == read));
}
