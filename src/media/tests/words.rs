//! What is said of files that have no index.

use super::{InMemory, index_of};
use crate::media::MediaError;

fn said(head: &[u8]) -> String {
    index_of(&InMemory::new(head.to_vec()))
        .expect_err("no index")
        .to_string()
}

#[test]
fn a_container_that_is_not_read_is_named() {
    let mut ts = vec![0; 188 * 5];
    ts.iter_mut().step_by(188).for_each(|byte| *byte = 0x47);
    let words = [
        (&b"RIFF\0\0\0\0AVI LIST"[..], "AVI"),
        (&ts, "MPEG-TS"),
        (b"\0\0\x01\xba\x44", "MPEG-PS"),
        (b"FLV\x01\x05", "FLV"),
        (b"OggS\0\x02", "Ogg"),
        (&[0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11], "ASF"),
    ];
    for (head, name) in words {
        assert!(said(head).starts_with(name), "{}", said(head));
    }
}

#[test]
fn what_is_no_film_is_not_recognised() {
    let playlists = [
        &b"#EXTM3U\nfile:///etc/passwd\n"[..],
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ];
    for head in [&b""[..], b"\0", b"\x1a\x45", b"PK\x03\x04", playlists[0], playlists[1]] {
        let result = index_of(&InMemory::new(head.to_vec()));
        assert!(matches!(result, Err(MediaError::Unrecognised)), "{result:?}");
    }
}

#[test]
fn an_mp4_that_was_cut_off_says_so() {
    let head = b"\0\0\0\x10ftypisom\0\0\0\0\0\x10\0\0mdat";
    assert!(said(head).contains("no moov"), "{}", said(head));
}
