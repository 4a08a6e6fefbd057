//! What all films that are being opened may take together. Each claims what it likes, and a torrent can have any number
//! of them: so there are turns, for reading much and for working on it. Who has none waits for it.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::source::FilmFile;
use crate::media::ReadAt;

/// Films that are being opened at a time: each holds reads of the swarm.
const OPENING: usize = 64;

/// Who has read more than so many bytes goes on only as one of so many: the index of a Matroska or of an episode goes
/// through at once, that of an MP4 of some hours is one of four, and the largest that is read, 64 MiB, the only one. So
/// all together have read 64 MiB, 64 MiB and 64 MiB at most, and hold that twice or three times.
const LARGE: [(u64, usize); 2] = [(1 << 20, 4), (16 << 20, 1)];

/// Films whose index is worked on at a time, each by a thread, with some 100 MiB where there are a million keyframes.
const WORKED_ON: usize = 2;

/// The turns.
#[derive(Debug)]
pub(super) struct Turns {
    opening: Arc<Semaphore>,
    large: [Arc<Semaphore>; LARGE.len()],
    work: Arc<Semaphore>,
}

/// A file that is being opened.
#[derive(Debug)]
pub(super) struct Turn<C> {
    content: C,
    turns: Arc<Turns>,
    /// Shared with what works on the file, which nobody can end: as long as that is there, so are its bytes.
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug)]
struct Taken {
    bytes: u64,
    /// Of [`LARGE`], from the first on. Nobody who has one waits for an earlier one, so they are never waited for in a
    /// circle.
    large: Vec<OwnedSemaphorePermit>,
    _opening: OwnedSemaphorePermit,
}

impl Turns {
    pub(super) fn new() -> Turns {
        Turns {
            opening: Arc::new(Semaphore::new(OPENING)),
            large: LARGE.map(|(_, most)| Arc::new(Semaphore::new(most))),
            work: Arc::new(Semaphore::new(WORKED_ON)),
        }
    }

    /// Begins to open a file; none if as many are being opened as may be.
    pub(super) fn begin<C>(self: &Arc<Self>, content: C) -> Option<Turn<C>> {
        let opening = self.opening.clone().try_acquire_owned().ok()?;
        let taken = Taken {
            bytes: 0,
            large: Vec::new(),
            _opening: opening,
        };
        Some(Turn {
            content,
            turns: self.clone(),
            taken: Arc::new(Mutex::new(taken)),
        })
    }
}

impl<C> Turn<C> {
    /// The file, which is opened now.
    pub(super) fn over(self) -> C {
        self.content
    }

    async fn may_read(&self, length: u64) -> io::Result<()> {
        let mut taken = self.taken.lock().await;
        taken.bytes = taken.bytes.saturating_add(length);
        while let Some((most, _)) = LARGE.get(taken.large.len())
            && taken.bytes > *most
        {
            let next = self.turns.large[taken.large.len()].clone();
            taken.large.push(next.acquire_owned().await.map_err(io::Error::other)?);
        }
        Ok(())
    }
}

impl<C: ReadAt> ReadAt for Turn<C> {
    fn size(&self) -> u64 {
        self.content.size()
    }

    async fn read_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.may_read(length as u64).await?;
        self.content.read_at(offset, length).await
    }

    /// On a thread of its own, to its end, also when it is not waited for any more.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let turn = self
            .turns
            .work
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let taken = self.taken.clone();
        let work = move || {
            let _until_the_end = (turn, taken);
            work()
        };
        spawn_blocking(work).await.map_err(io::Error::other)
    }
}

impl<C: FilmFile> FilmFile for Turn<C> {
    /// What is fetched ahead takes no memory here.
    async fn expect(&self, bytes: Range<u64>, within: Duration) {
        self.content.expect(bytes, within).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::FutureExt;

    use super::*;

    /// A file of zeros, which counts what is read of it.
    #[derive(Debug, Default)]
    struct Zeros(Arc<AtomicU64>);

    impl ReadAt for Zeros {
        fn size(&self) -> u64 {
            1 << 40
        }

        async fn read_at(&self, _: u64, length: usize) -> io::Result<Vec<u8>> {
            self.0.fetch_add(length as u64, Ordering::Relaxed);
            Ok(vec![0; length])
        }
    }

    const INDEX: u64 = 64 << 20;
    const PART: usize = 256 << 10;

    /// Reads until it has to wait; says whether it came to the end.
    fn reads(turn: &Turn<Zeros>, up_to: u64) -> bool {
        while turn.content.0.load(Ordering::Relaxed) < up_to {
            if turn.read_at(0, PART).now_or_never().is_none() {
                return false;
            }
        }
        true
    }

    #[test]
    fn all_that_are_opened_hold_so_much_together_while_small_ones_go_on() {
        let turns = Arc::new(Turns::new());
        let opened: Vec<_> = (0..OPENING)
            .map(|_| turns.begin(Zeros::default()).expect("a turn"))
            .collect();
        assert!(turns.begin(Zeros::default()).is_none());
        let through = |up_to: u64| opened.iter().filter(|turn| reads(turn, up_to)).count();
        assert_eq!([through(1 << 20), through(16 << 20), through(INDEX)], [64, 4, 1]);
        let all: u64 = opened.iter().map(|turn| turn.content.0.load(Ordering::Relaxed)).sum();
        assert!(all <= 3 * INDEX, "{all}");
        drop(opened);
        assert!(reads(&turns.begin(Zeros::default()).expect("a turn"), INDEX));
    }

    #[tokio::test]
    async fn what_is_worked_on_keeps_its_turns_when_nobody_waits_for_it() {
        let turns = Arc::new(Turns::new());
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let turn = turns.begin(Zeros::default()).expect("a turn");
        turn.read_at(0, INDEX as usize).await.expect("its turn");
        assert!(turn.work(move || wait.recv()).now_or_never().is_none());
        drop(turn);
        let next = turns.begin(Zeros::default()).expect("a turn");
        assert!(next.read_at(0, INDEX as usize).now_or_never().is_none());
        go.send(()).expect("it works");
        next.read_at(0, INDEX as usize).await.expect("its turn");
    }
}
