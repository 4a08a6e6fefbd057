//! What runs hold of segments that are not whole yet, or not handed out: so much each, and so much together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fragments::LARGEST_FRAGMENT;

/// The most bytes of one run: a segment of video and the fragment after it at their largest, and half of one for all
/// the other tracks.
const RUN_LIMIT: u64 = 2 * LARGEST_FRAGMENT + LARGEST_FRAGMENT / 2;

/// The most bytes of all runs together, but for what [`SHARE`] leaves to each. A film of 100 Mbit/s with a keyframe every
/// 10 s holds two groups of pictures, 250 MB: three such films fit. A usual one of 10 Mbit/s holds some 10 MB.
const ALL_LIMIT: u64 = 768 << 20;

/// A run that holds no more than this goes on whatever the others hold, so that a stranger's film ends itself and nobody
/// else's: 20 Mbit/s with a keyframe every 10 s. So all together hold at most [`ALL_LIMIT`] and this for each run.
const SHARE: u64 = 64 << 20;

/// What all runs hold. A clone counts together with it.
#[derive(Debug, Clone, Default)]
pub(super) struct AllHeld(Arc<AtomicU64>);

/// What one run holds; nothing any more once it is dropped.
#[derive(Debug)]
pub(super) struct RunHeld {
    run: AtomicU64,
    all: AllHeld,
}

/// What one pipe of a run holds.
#[derive(Debug)]
pub(super) struct PipeHeld {
    pipe: u64,
    run: Arc<RunHeld>,
}

impl AllHeld {
    pub(super) fn run(&self) -> Arc<RunHeld> {
        Arc::new(RunHeld {
            run: AtomicU64::new(0),
            all: self.clone(),
        })
    }
}

impl RunHeld {
    pub(super) fn pipe(self: &Arc<Self>) -> PipeHeld {
        PipeHeld {
            pipe: 0,
            run: self.clone(),
        }
    }
}

impl PipeHeld {
    /// The pipe holds so much from now on.
    ///
    /// # Errors
    /// That is too much, in words; the run is to end.
    pub(super) fn set(&mut self, bytes: u64) -> Result<(), String> {
        // Modulo 2^64, so that less is more too; the sum of what all hold is far below that.
        let more = bytes.wrapping_sub(self.pipe);
        self.pipe = bytes;
        let add = |held: &AtomicU64| held.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
        let (run, all) = (add(&self.run.run), add(&self.run.all.0));
        if run > RUN_LIMIT {
            Err(format!(
                "its tracks have {run} bytes between two cuts, and {RUN_LIMIT} are held at most"
            ))
        } else if run > SHARE && all > ALL_LIMIT {
            Err(format!(
                "its tracks have {run} bytes between two cuts, and with those of the other films that are played now \
                 {all}; {ALL_LIMIT} are held at most"
            ))
        } else {
            Ok(())
        }
    }
}

impl Drop for RunHeld {
    fn drop(&mut self) {
        let run = self.run.load(Ordering::Relaxed);
        self.all.0.fetch_sub(run, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_that_takes_more_than_its_share_of_what_is_full() {
        let all = AllHeld::default();
        let (one, two, three) = (all.run(), all.run(), all.run());
        let (mut video, mut audio) = (one.pipe(), one.pipe());
        assert!(video.set(2 * LARGEST_FRAGMENT).is_ok());
        assert!(audio.set(LARGEST_FRAGMENT / 2 + 1).is_err());
        assert!(audio.set(0).is_ok());
        let (mut other, mut usual) = (two.pipe(), three.pipe());
        assert!(other.set(LARGEST_FRAGMENT).is_ok());
        // It is full now; that is the others' doing.
        assert!(usual.set(SHARE).is_ok());
        let told = other.set(LARGEST_FRAGMENT + 1).unwrap_err();
        assert!(told.contains("other films"), "{told}");
        assert!(usual.set(SHARE + 1).is_err());
        // What a run held is free with its end.
        drop((video, audio, one));
        assert!(usual.set(SHARE + 1).is_ok());
        drop((other, usual, two, three));
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }

    /// "An ordinary film never meets it", nor do three of the largest of them.
    #[test]
    fn three_films_of_100_mbit_with_long_groups_of_pictures_fit() {
        let all = AllHeld::default();
        let films = [all.run(), all.run(), all.run()];
        let mut pipes = films.each_ref().map(RunHeld::pipe);
        let group = 10 * 100_000_000 / 8;
        assert!(pipes.iter_mut().all(|pipe| pipe.set(2 * group).is_ok()));
    }
}
