//! Metadata, peer exchange and `lt_donthave` payloads: never a panic; what is read survives being written and read.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::swarm::extension::{METADATA_PART, Metadata, PEX_LIMIT, PeerExchange, parse_dont_have};

fuzz_target!(|data: &[u8]| {
    if let Ok(metadata) = Metadata::parse(Bytes::copy_from_slice(data)) {
        if let Metadata::Data { data, .. } = &metadata {
            assert!(data.len() <= METADATA_PART as usize);
        }
        if metadata != Metadata::Unknown {
            assert_eq!(Metadata::parse(metadata.encode().into()), Ok(metadata));
        }
    }
    if let Ok(exchange) = PeerExchange::parse(data) {
        assert!(exchange.added.len() + exchange.dropped.len() <= PEX_LIMIT);
        assert_eq!(PeerExchange::parse(&exchange.encode()), Ok(exchange));
    }
    let _ = parse_dont_have(data);
});
