//! Messages: never a panic; what is decoded encodes to the bytes it came from; cut anywhere, it comes to the same.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::swarm::wire::{Message, WireError, decode, encode, missing};

fn drain(buffer: &mut BytesMut, messages: &mut Vec<Message>) -> Result<(), WireError> {
    while let Some(message) = decode(buffer)? {
        messages.push(message);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let mut whole = BytesMut::from(data);
    let mut messages = Vec::new();
    let outcome = drain(&mut whole, &mut messages);

    let mut encoded = BytesMut::new();
    let known = messages.iter().all(|message| !matches!(message, Message::Unknown(_)));
    messages.iter().for_each(|message| encode(message, &mut encoded));
    if known {
        assert_eq!(encoded, data[..encoded.len()]);
        assert_eq!(encoded.len() + whole.len(), data.len());
    }

    let mut pieces = Vec::new();
    let mut buffer = BytesMut::new();
    let mut piecewise = Ok(());
    for chunk in data.chunks(usize::from(cut).max(1)) {
        buffer.extend_from_slice(chunk);
        piecewise = drain(&mut buffer, &mut pieces);
        if piecewise.is_err() {
            break;
        }
    }
    assert_eq!(piecewise, outcome);
    assert_eq!(pieces, messages);
    if outcome.is_ok() {
        assert!(buffer.is_empty() || buffer.len() < 4 || missing(&buffer) > 0);
    }
});
