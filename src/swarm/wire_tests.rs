use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_span() -> impl Strategy<Value = Span> {
    any::<(u32, u32, u32)>().prop_map(|(piece, begin, length)| Span { piece, begin, length })
}

fn any_bytes(most: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..most).prop_map(Bytes::from)
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::KeepAlive),
        Just(Message::Choke),
        Just(Message::Unchoke),
        Just(Message::Interested),
        Just(Message::NotInterested),
        any::<u32>().prop_map(Message::Have),
        any_bytes(300).prop_map(Message::Bitfield),
        any_span().prop_map(Message::Request),
        (any::<u32>(), any::<u32>(), any_bytes(20_000)).prop_map(|(piece, begin, data)| Message::Block {
            piece,
            begin,
            data
        }),
        any_span().prop_map(Message::Cancel),
        any::<u16>().prop_map(Message::Port),
        any::<u32>().prop_map(Message::Suggest),
        Just(Message::HaveAll),
        Just(Message::HaveNone),
        any_span().prop_map(Message::Reject),
        any::<u32>().prop_map(Message::AllowedFast),
        (any::<u8>(), any_bytes(300)).prop_map(|(id, payload)| Message::Extended { id, payload }),
    ]
}

fn encoded(messages: &[Message]) -> BytesMut {
    let mut out = BytesMut::new();
    messages.iter().for_each(|message| encode(message, &mut out));
    out
}

fn decoded(buffer: &mut BytesMut) -> (Vec<Message>, Option<WireError>) {
    let mut messages = Vec::new();
    loop {
        match decode(buffer) {
            Ok(Some(message)) => messages.push(message),
            Ok(None) => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
}

fn decoded_in_chunks(bytes: &[u8], chunk: usize) -> (Vec<Message>, Option<WireError>) {
    let (mut buffer, mut messages) = (BytesMut::new(), Vec::new());
    for part in bytes.chunks(chunk) {
        buffer.extend_from_slice(part);
        let (some, error) = decoded(&mut buffer);
        messages.extend(some);
        if error.is_some() {
            return (messages, error);
        }
    }
    (messages, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn messages_survive_the_wire(messages in vec(any_message(), 0..20), chunk in 1usize..40_000) {
        let bytes = encoded(&messages);
        prop_assert_eq!(decoded_in_chunks(&bytes, chunk), (messages, None));
    }

    #[test]
    fn byte_by_byte_is_the_same_as_at_once(messages in vec(any_message(), 1..6), at in any::<prop::sample::Index>(),
                                           flip in 1u8..) {
        let mut bytes = encoded(&messages).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert_eq!(decoded_in_chunks(&bytes, 1), decoded(&mut BytesMut::from(&bytes[..])));
    }

    #[test]
    fn a_cut_message_is_waited_for(message in any_message(), at in any::<prop::sample::Index>()) {
        let mut bytes = encoded(std::slice::from_ref(&message));
        let length = bytes.len();
        bytes.truncate(at.index(length));
        let had = bytes.len();
        prop_assert_eq!(decode(&mut bytes), Ok(None));
        prop_assert_eq!(bytes.len(), had);
        if had >= 4 {
            prop_assert_eq!(missing(&bytes), length - had);
        }
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..2_000)) {
        let _ = decoded(&mut BytesMut::from(&bytes[..]));
        let _ = missing(&bytes);
        let _ = Handshake::parse_greeting(&bytes);
    }

    #[test]
    fn handshakes_survive_the_wire(reserved in any::<[u8; 8]>(), info_hash in any::<[u8; 20]>(), peer_id in any::<[u8; 20]>()) {
        let handshake = Handshake { reserved: Reserved(reserved), info_hash, peer_id };
        let mut bytes = handshake.encode();
        prop_assert_eq!(Handshake::parse(&bytes), Ok(handshake));
        prop_assert_eq!(Handshake::parse_greeting(&bytes[..GREETING_LENGTH]), Ok((handshake.reserved, info_hash)));
        bytes[7] ^= 1;
        prop_assert_eq!(Handshake::parse(&bytes), Err(WireError::OtherProtocol));
    }
}

#[test]
fn the_bytes_are_those_of_the_specification() {
    let span = Span {
        piece: 1,
        begin: 0x4000,
        length: 0x4000,
    };
    let cases: [(Message, &[u8]); 8] = [
        (Message::KeepAlive, b"\0\0\0\0"),
        (Message::Unchoke, b"\0\0\0\x01\x01"),
        (Message::Have(258), b"\0\0\0\x05\x04\0\0\x01\x02"),
        (Message::Request(span), b"\0\0\0\x0d\x06\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
        (
            Message::Block {
                piece: 2,
                begin: 3,
                data: "ab".into(),
            },
            b"\0\0\0\x0b\x07\0\0\0\x02\0\0\0\x03ab",
        ),
        (Message::HaveAll, b"\0\0\0\x01\x0e"),
        (Message::Reject(span), b"\0\0\0\x0d\x10\0\0\0\x01\0\0\x40\0\0\0\x40\0"),
        (
            Message::Extended {
                id: 0,
                payload: "de".into(),
            },
            b"\0\0\0\x04\x14\0de",
        ),
    ];
    for (message, bytes) in cases {
        assert_eq!(encoded(std::slice::from_ref(&message)), bytes, "{message:?}");
    }
    let ours = Reserved::ours(true);
    assert_eq!(ours.0, [0, 0, 0, 0, 0, 0x10, 0, 0x05]);
    assert!(ours.fast() && ours.extension() && ours.dht() && !Reserved::ours(false).dht());
}

#[test]
fn lengths_beyond_the_limits_are_refused_at_the_fifth_byte() {
    let refused = |length: u32, id: u8| {
        let mut bytes = BytesMut::new();
        bytes.put_u32(length);
        assert_eq!(decode(&mut bytes), Ok(None));
        bytes.put_u8(id);
        decode(&mut bytes).err()
    };
    assert_eq!(
        refused(u32::MAX, id::BLOCK),
        Some(WireError::TooLong {
            id: id::BLOCK,
            length: u32::MAX as usize
        })
    );
    assert!(refused(128 * 1024 + 10, id::BITFIELD).is_some());
    assert_eq!(refused(128 * 1024 + 9, id::BLOCK), None);
    assert_eq!(refused(1024 * 1024, id::EXTENDED), None);
    assert!(refused(1024 * 1024 + 1, id::EXTENDED).is_some());
    assert!(refused(128 * 1024 + 10, 99).is_some());
    for (id, right) in [
        (id::CHOKE, 1),
        (id::HAVE, 5),
        (id::REQUEST, 13),
        (id::PORT, 3),
        (id::REJECT, 13),
    ] {
        assert_eq!(refused(right, id), None);
        assert_eq!(
            refused(right + 1, id),
            Some(WireError::WrongLength {
                id,
                length: right as usize + 1
            })
        );
    }
    assert!(refused(8, id::BLOCK).is_some() && refused(1, id::EXTENDED).is_some());
}

#[test]
fn what_is_unknown_is_passed_over() {
    let mut bytes = BytesMut::from(&b"\0\0\0\x03\xf0ab\0\0\0\x01\x02"[..]);
    assert_eq!(
        decoded(&mut bytes),
        (vec![Message::Unknown(0xf0), Message::Interested], None)
    );
}
