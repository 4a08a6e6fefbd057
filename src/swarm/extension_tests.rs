use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), 1u16..).prop_map(SocketAddr::from)
}

proptest! {
    #[test]
    fn peer_exchange_survives_the_wire(added in vec((any_address(), any::<u8>()), 0..50), dropped in vec(any_address(), 0..50)) {
        let met = |(address, flags)| MetPeer { address, flags };
        let mut exchange = PeerExchange { added: added.into_iter().map(met).collect(), dropped };
        let back = PeerExchange::parse(&exchange.encode()).unwrap();
        exchange.added.sort_by_key(|peer| peer.address.is_ipv6());
        exchange.dropped.sort_by_key(SocketAddr::is_ipv6);
        prop_assert_eq!(back, exchange);
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _ = PeerExchange::parse(&bytes);
        let _ = Features::default().update(&bytes);
        let _ = Metadata::parse(bytes.into());
    }

    #[test]
    fn every_cut_and_every_flip_of_a_message_is_read_or_refused(at in any::<prop::sample::Index>(), flip in any::<u8>()) {
        let introduction = Introduction { port: Some(1), metadata_size: Some(2), pex: true, ..Introduction::default() };
        let data = Metadata::Data { part: 0, total: 5, data: "abcde".into() };
        for mut bytes in [introduction.encode(), data.encode(), PeerExchange::default().encode()] {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            for end in 0..=bytes.len() {
                let _ = PeerExchange::parse(&bytes[..end]);
                let _ = Features::default().update(&bytes[..end]);
                let _ = Metadata::parse(Bytes::copy_from_slice(&bytes[..end]));
            }
        }
    }
}

#[test]
fn an_introduction_is_understood() {
    let introduction = Introduction {
        port: Some(6881),
        metadata_size: Some(31_235),
        request_limit: 512,
        upload_only: true,
        pex: true,
        peer_address: Some("::ffff:10.1.2.3".parse().unwrap()),
        client: "magnetfs 0.1".into(),
    };
    let expected = b"d1:md11:lt_donthavei3e11:ut_metadatai2e6:ut_pexi1ee13:metadata_sizei31235e1:pi6881e4:reqqi512e\
        11:upload_onlyi1e1:v12:magnetfs 0.16:yourip4:\x0a\x01\x02\x03e";
    assert_eq!(introduction.encode(), expected);
    let mut features = Features::default();
    features.update(expected).unwrap();
    let right = Features {
        metadata: Some(METADATA),
        pex: Some(PEX),
        dont_have: Some(DONT_HAVE),
        metadata_size: Some(31_235),
        client: Some("magnetfs 0.1".into()),
        port: Some(6881),
        request_limit: Some(512),
        upload_only: true,
        our_address: Some("10.1.2.3".parse().unwrap()),
    };
    assert_eq!(features, right);
}

#[test]
fn a_later_introduction_changes_only_what_it_names() {
    let mut features = Features::default();
    features
        .update(b"d1:md11:ut_metadatai3e6:ut_pexi1ee4:reqqi200ee")
        .unwrap();
    features.update(b"d1:md6:ut_pexi0eee").unwrap();
    assert_eq!(
        features,
        Features {
            metadata: Some(3),
            request_limit: Some(200),
            ..Features::default()
        }
    );
}

#[test]
fn values_that_make_no_sense_are_as_if_not_there() {
    let mut features = Features::default();
    let absurd = b"d1:ml1:ae13:metadata_sizei99999999e1:p3:abc4:reqqi-1e1:vi5e6:yourip3:abce";
    features.update(absurd).unwrap();
    assert_eq!(features, Features::default());
    features.update(b"d1:md11:ut_metadatai256ee1:v70:\x00\x1b[31mxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxe").unwrap();
    assert_eq!(features.metadata, None);
    assert!(features.client.unwrap().starts_with("[31mx"));
    assert!(Features::default().update(b"le").is_err() && Features::default().update(b"").is_err());
}

#[test]
fn metadata_parts_have_the_length_that_their_total_says() {
    assert_eq!(Metadata::Request(7).encode(), b"d8:msg_typei0e5:piecei7ee");
    let parse = |bytes: &[u8]| Metadata::parse(Bytes::copy_from_slice(bytes));
    assert_eq!(parse(b"d8:msg_typei2e5:piecei7ee"), Ok(Metadata::Reject(7)));
    assert_eq!(parse(b"d8:msg_typei9e5:piecei7ee"), Ok(Metadata::Unknown));
    let data = Metadata::Data {
        part: 1,
        total: METADATA_PART + 3,
        data: "abc".into(),
    };
    assert_eq!(parse(&data.encode()), Ok(data));
    for bad in [
        &b"d8:msg_typei1e5:piecei0e10:total_sizei3eeab"[..],
        b"d8:msg_typei1e5:piecei0e10:total_sizei3eeabcd",
        b"d8:msg_typei1e5:piecei1e10:total_sizei3ee",
        b"d8:msg_typei1e5:piecei0e10:total_sizei0ee",
        b"d8:msg_typei1e5:piecei0e10:total_sizei99999999eeabc",
        b"d8:msg_typei1e5:piecei-1e10:total_sizei3eeabc",
        b"d8:msg_typei0ee",
        b"d5:piecei0ee",
        b"",
    ] {
        assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
    assert_eq!(part_length(u32::MAX, METADATA_LIMIT), None);
}

#[test]
fn floods_of_peers_are_refused() {
    let peers = |count: usize| {
        let mut bytes = format!("d5:added{}:", count * 6).into_bytes();
        bytes.extend(std::iter::repeat_n(1, count * 6));
        bytes.push(b'e');
        PeerExchange::parse(&bytes)
    };
    assert_eq!(peers(200).unwrap().added.len(), 200);
    assert_eq!(peers(201), Err(ExtensionError::TooManyPeers(201)));
    assert!(PeerExchange::parse(b"d5:added5:abcdee").is_err());
    assert_eq!(
        PeerExchange::parse(b"d5:added6:\x01\x02\x03\x04\0\0e"),
        Ok(PeerExchange::default())
    );
}

#[test]
fn a_piece_that_is_no_longer_there_is_four_bytes() {
    assert_eq!(parse_dont_have(&[0, 0, 1, 0]), Ok(256));
    assert!(parse_dont_have(&[0; 5]).is_err());
}
