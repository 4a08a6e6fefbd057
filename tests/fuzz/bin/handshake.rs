//! Handshakes: never a panic; what is read encodes to what it came from; and the same for the extension handshake.
#![no_main]

use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::swarm::extension::Features;
use magnetfs_fuzz::swarm::wire::{GREETING_LENGTH, HANDSHAKE_LENGTH, Handshake};

fuzz_target!(|data: &[u8]| {
    let greeting = Handshake::parse_greeting(data);
    if let Some(bytes) = data.first_chunk::<HANDSHAKE_LENGTH>() {
        match Handshake::parse(bytes) {
            Ok(handshake) => {
                assert_eq!(handshake.encode(), *bytes);
                assert_eq!(greeting, Ok((handshake.reserved, handshake.info_hash)));
            }
            Err(error) => assert_eq!(greeting, Err(error)),
        }
    } else if data.len() < GREETING_LENGTH {
        assert!(greeting.is_err());
    }
    let mut features = Features::default();
    for part in data.split(|byte| *byte == b'\n') {
        let _ = features.update(part);
        assert!(features.client.as_ref().is_none_or(|client| client.chars().count() <= 64));
        assert!(features.metadata_size.is_none_or(|size| (1..=32 << 20).contains(&size)));
    }
});
