//! Peers that do what no honest one does: each link ends, for the right reason, or takes no harm.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::support::{Bare, Owner, Store, Torrent};
use crate::swarm::extension::{METADATA, Metadata, PEX};
use crate::swarm::peer::{Command, Gone};
use crate::swarm::shape::BLOCK;
use crate::swarm::wire::{Message, Reserved, Span};

const FAST: Reserved = Reserved([0, 0, 0, 0, 0, 0x10, 0, 0x04]);
const PLAIN: Reserved = Reserved([0; 8]);
const SPAN: Span = Span {
    piece: 0,
    begin: 0,
    length: BLOCK,
};

async fn meet(reserved: Reserved) -> (Owner, Bare) {
    let store = Store::new(&Torrent::new(1024 * 1024, 64 * 1024));
    Bare::meet(&store, reserved, 1024 * 1024).await
}

/// How a link ends that is told this, over and over.
async fn told(reserved: Reserved, messages: &[Message], times: usize) -> Gone {
    let (mut owner, mut bare) = meet(reserved).await;
    owner.send([Command::Choke(false)]);
    let (mut reader, mut writer) = tokio::io::split(std::mem::replace(&mut bare.io, tokio::io::duplex(1).0));
    // What the link answers is taken, so that it is not given up for that.
    let drain = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
    let mut out = bytes::BytesMut::new();
    messages
        .iter()
        .for_each(|message| crate::swarm::wire::encode(message, &mut out));
    let talk = tokio::spawn(async move {
        for _ in 0..times {
            if tokio::io::AsyncWriteExt::write_all(&mut writer, &out).await.is_err() {
                return;
            }
        }
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut writer).await;
    });
    let gone = owner.until_gone().await;
    talk.abort();
    drain.abort();
    gone
}

#[tokio::test]
async fn breaches_end_the_link() {
    let all = Message::HaveAll;
    let extended = |id, payload: &'static str| Message::Extended {
        id,
        payload: payload.into(),
    };
    let cases: [(&str, Reserved, Vec<Message>); 14] = [
        (
            "bitfield too short",
            PLAIN,
            vec![Message::Bitfield(Bytes::from(vec![0xFF]))],
        ),
        (
            "bitfield too long",
            PLAIN,
            vec![Message::Bitfield(Bytes::from(vec![0xFF; 3]))],
        ),
        ("have out of range", PLAIN, vec![Message::Have(16)]),
        ("allowed-fast out of range", FAST, vec![Message::AllowedFast(u32::MAX)]),
        ("have-all without the fast extension", PLAIN, vec![all]),
        ("reject without the fast extension", PLAIN, vec![Message::Reject(SPAN)]),
        (
            "extended without the extension protocol",
            PLAIN,
            vec![extended(0, "de")],
        ),
        (
            "request beyond the torrent",
            FAST,
            vec![Message::Request(Span { piece: 16, ..SPAN })],
        ),
        (
            "request beyond the piece",
            FAST,
            vec![Message::Request(Span { begin: 60_000, ..SPAN })],
        ),
        (
            "request that overflows",
            FAST,
            vec![Message::Request(Span {
                begin: u32::MAX,
                ..SPAN
            })],
        ),
        (
            "request of nothing",
            FAST,
            vec![Message::Request(Span { length: 0, ..SPAN })],
        ),
        ("introduction that is none", FAST, vec![extended(0, "i5e")]),
        (
            "metadata that is none",
            FAST,
            vec![extended(METADATA, "d8:msg_typei1ee")],
        ),
        ("lt_donthave that is none", FAST, vec![extended(3, "abc")]),
    ];
    for (name, reserved, messages) in cases {
        let gone = told(reserved, &messages, 1).await;
        assert!(gone.is_misconduct(), "{name}: {gone}");
    }
}

#[tokio::test]
async fn floods_end_the_link() {
    let have = Message::Have(1);
    let bits = Message::Bitfield(Bytes::from(vec![0xFF, 0xFF]));
    let data = Bytes::from(vec![0; BLOCK as usize]);
    let metadata = Metadata::Request(0).encode().into();
    let introduction = Message::Extended {
        id: 0,
        payload: "d1:md11:ut_metadatai1eee".into(),
    };
    let exchange = Message::Extended {
        id: PEX,
        payload: "d5:added6:\x01\x02\x03\x04\x05\x06e".into(),
    };
    let cases: [(&str, Reserved, Vec<Message>); 10] = [
        ("keep-alives", FAST, vec![Message::KeepAlive]),
        ("haves", FAST, vec![have]),
        ("bitfields", FAST, vec![bits]),
        ("interest", FAST, vec![Message::Interested, Message::NotInterested]),
        (
            "unasked blocks",
            FAST,
            vec![Message::Block {
                piece: 0,
                begin: 0,
                data,
            }],
        ),
        (
            "requests without the fast extension",
            PLAIN,
            vec![Message::Request(SPAN); 600],
        ),
        ("introductions", FAST, vec![introduction]),
        ("exchanges of peers", FAST, vec![exchange]),
        ("requests taken back", FAST, vec![Message::Cancel(SPAN); 6]),
        (
            "metadata requests",
            FAST,
            vec![Message::Extended {
                id: METADATA,
                payload: metadata,
            }],
        ),
    ];
    for (name, reserved, messages) in cases {
        let gone = told(reserved, &messages, 20_000).await;
        assert!(matches!(gone, Gone::Flood(_)), "{name}: {gone}");
    }
}

#[tokio::test]
async fn oversized_messages_end_the_link_at_once() {
    let (mut owner, mut bare) = meet(FAST).await;
    tokio::io::AsyncWriteExt::write_all(&mut bare.io, b"\xff\xff\xff\xff\x07")
        .await
        .unwrap();
    assert!(matches!(owner.until_gone().await, Gone::Wire(_)));
}

#[tokio::test]
async fn requests_over_the_limit_are_refused_and_the_rest_is_served() {
    let (owner, mut bare) = meet(FAST).await;
    owner.store.gate.send_replace(false);
    owner.send([Command::Choke(false)]);
    bare.hear_until(|message| *message == Message::Unchoke).await;
    let asked: Vec<Message> = (0..700)
        .map(|index| {
            Message::Request(Span {
                piece: index % 16,
                ..SPAN
            })
        })
        .collect();
    bare.say(&asked).await;
    let mut refused = 0;
    // Eight are being read and 512 wait.
    while refused < 700 - 512 - 8 {
        refused += usize::from(matches!(bare.hear().await.unwrap(), Message::Reject(_)));
    }
    owner.store.gate.send_replace(true);
    let mut served = 0;
    while served + refused < 700 {
        match bare.hear().await.unwrap() {
            Message::Block { .. } => served += 1,
            Message::Reject(_) => refused += 1,
            _ => {}
        }
    }
    assert!((512..=520).contains(&served), "{served}");
}

#[tokio::test]
async fn metadata_is_given_twice_and_then_refused() {
    let (_owner, mut bare) = meet(FAST).await;
    let introduction = Message::Extended {
        id: 0,
        payload: "d1:md11:ut_metadatai5eee".into(),
    };
    let request = Message::Extended {
        id: METADATA,
        payload: Metadata::Request(0).encode().into(),
    };
    let mut messages = vec![introduction];
    messages.extend(vec![request; 30]);
    bare.say(&messages).await;
    let (mut given, mut refused) = (0, 0);
    while given + refused < 30 {
        if let Some(Message::Extended { id: 5, payload }) = bare.hear().await {
            match Metadata::parse(payload).unwrap() {
                Metadata::Data { .. } => given += 1,
                Metadata::Reject(0) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(given, 2 + 16);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes, the link ends by itself: its task does not panic, and the last event is told.
    #[test]
    fn noise_in_the_shape_of_messages_never_panics(
        fast in any::<bool>(),
        knows_shape in any::<bool>(),
        messages in vec((prop_oneof![0u8..=20, any::<u8>()], vec(prop_oneof![0u8..20, any::<u8>()], 0..40)), 0..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut owner, mut bare) = meet(if fast { FAST } else { PLAIN }).await;
            if !knows_shape {
                owner.shape.send_replace(None);
            }
            owner.send([Command::Choke(false), Command::Request(vec![SPAN]), Command::RequestMetadata(0)]);
            let mut out = Vec::new();
            for (id, payload) in messages {
                out.extend(u32::try_from(payload.len() + 1).unwrap().to_be_bytes());
                out.push(id);
                out.extend(payload);
            }
            let _ = tokio::io::AsyncWriteExt::write_all(&mut bare.io, &out).await;
            owner.shape.send_replace(Some(owner.store.torrent.shape));
            drop(bare);
            owner.until_gone().await;
        });
    }
}
