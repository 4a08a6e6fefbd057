//! Indexes of films: never a panic, nothing read outside the file or beyond the limit, and what comes out is in order.
#![no_main]

use std::cell::Cell;
use std::future::{Future, ready};
use std::io;
use std::pin::pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use libfuzzer_sys::fuzz_target;
use magnetfs_fuzz::media::{Kind, MediaError, ReadAt, index};

struct Film<'a> {
    bytes: &'a [u8],
    read: Mutex<Cell<usize>>,
}

impl ReadAt for Film<'_> {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = io::Result<Vec<u8>>> + Send {
        let offset = usize::try_from(offset).expect("an offset within the file");
        let read = self.read.lock().expect("one thread");
        read.set(read.get() + length);
        ready(Ok(self.bytes[offset..offset + length].to_vec()))
    }
}

fuzz_target!(|data: &[u8]| {
    let film = Film {
        bytes: data,
        read: Mutex::default(),
    };
    let mut reading = pin!(index(&film));
    let Poll::Ready(result) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waits for something else than its reads");
    };
    assert!(film.read.lock().expect("one thread").get() <= 64 << 20);
    match result {
        Ok(index) => {
            assert!(index.tracks.len() <= 256);
            for track in &index.tracks {
                assert!(track.timescale > 0 && track.start <= track.end, "{track:?}");
                let Kind::Video(video) = &track.kind else { continue };
                assert!(video.keyframes.is_sorted_by(|one, next| one.pts < next.pts));
            }
        }
        Err(MediaError::Read(error)) => panic!("no read failed: {error}"),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
});
