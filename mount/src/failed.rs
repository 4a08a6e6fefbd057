//! Ranges that failed a moment ago. Pure; the clock comes in.
//!
//! After an error the kernel asks again for each page alone, in a request that nobody can kill. If that waited too, the
//! reader could not be killed for another deadline; so it fails at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::catalog::ReadError;
use crate::reads::Asked;

/// How long a failed range is failed at once. The kernel's second request comes within a millisecond.
const KEPT: Duration = Duration::from_secs(1);

/// So many are kept, the newest.
const LIMIT: usize = 1024;

/// The failed ranges, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    ranges: VecDeque<Range>,
}

#[derive(Debug)]
struct Range {
    until: Instant,
    asked: Asked,
    error: ReadError,
}

impl Range {
    /// A signal is the matter of one thread; that nothing comes is the matter of all.
    fn concerns(&self, asked: &Asked) -> bool {
        let same_thread = self.asked.thread == asked.thread || !matches!(self.error, ReadError::Signalled);
        same_thread
            && self.asked.inode == asked.inode
            && self.asked.offset <= asked.offset
            && asked.end() <= self.asked.end()
    }
}

impl Failed {
    /// Remembers a failed read, if its error is one that the same request would meet again.
    pub(crate) fn add(&mut self, asked: Asked, error: &ReadError, now: Instant) {
        match error {
            // Those who are gone ask nothing; who shared the page with them must not be failed.
            ReadError::Abandoned => return,
            // These are refused by themselves, at once, for as long as they hold.
            ReadError::Removed | ReadError::Stopping | ReadError::TooMany { .. } => return,
            ReadError::Signalled
            | ReadError::NoProgress { .. }
            | ReadError::TooSlow { .. }
            | ReadError::NoSpace
            | ReadError::Paused
            | ReadError::Disk(_)
            | ReadError::Engine(_) => {}
        }
        self.forget_old(now);
        if self.ranges.len() == LIMIT {
            self.ranges.pop_front();
        }
        self.ranges.push_back(Range {
            until: now + KEPT,
            asked,
            error: error.clone(),
        });
    }

    /// Why this read fails at once, if it does. `signalled` says whether its thread still has a signal to handle: once
    /// it has handled it, it may wait again.
    pub(crate) fn find(&mut self, asked: &Asked, now: Instant, signalled: impl FnOnce() -> bool) -> Option<ReadError> {
        self.forget_old(now);
        let found = self.ranges.iter().rev().find(|range| range.concerns(asked))?;
        let error = found.error.clone();
        if matches!(error, ReadError::Signalled) && !signalled() {
            self.ranges
                .retain(|range| !(matches!(range.error, ReadError::Signalled) && range.asked.thread == asked.thread));
            return None;
        }
        Some(error)
    }

    /// Somebody opened the file anew, perhaps because he changed something: let him try.
    pub(crate) fn forget_file(&mut self, inode: u64) {
        self.ranges.retain(|range| range.asked.inode != inode);
    }

    fn forget_old(&mut self, now: Instant) {
        while self.ranges.front().is_some_and(|range| range.until <= now) {
            self.ranges.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(inode: u64, offset: u64, length: usize, thread: u32) -> Asked {
        Asked {
            handle: 7,
            inode,
            offset,
            length,
            thread,
        }
    }

    const NONE: ReadError = ReadError::NoProgress { seconds: 60 };

    #[test]
    fn a_range_without_progress_fails_for_everybody_for_a_second() {
        let (mut failed, now) = (Failed::default(), Instant::now());
        failed.add(asked(2, 4096, 131_072, 10), &NONE, now);
        let found = |failed: &mut Failed, asked: Asked, now| failed.find(&asked, now, || false).is_some();
        assert!(found(&mut failed, asked(2, 4096, 4096, 10), now));
        assert!(found(&mut failed, asked(2, 131_072, 4096, 11), now));
        assert!(!found(&mut failed, asked(2, 0, 4096, 10), now), "before the range");
        assert!(!found(&mut failed, asked(2, 131_072, 8192, 10), now), "over its end");
        assert!(!found(&mut failed, asked(3, 4096, 4096, 10), now), "another file");
        assert!(!found(&mut failed, asked(2, 4096, 4096, 10), now + KEPT), "later");
    }

    #[test]
    fn a_signal_fails_its_own_thread_until_it_is_handled() {
        let (mut failed, now) = (Failed::default(), Instant::now());
        failed.add(asked(2, 0, 131_072, 10), &ReadError::Signalled, now);
        assert!(
            failed.find(&asked(2, 0, 4096, 11), now, || true).is_none(),
            "an innocent reader of the same page"
        );
        assert!(failed.find(&asked(2, 0, 4096, 10), now, || true).is_some());
        assert!(failed.find(&asked(2, 0, 4096, 10), now, || false).is_none());
        assert!(
            failed.find(&asked(2, 0, 4096, 10), now, || true).is_none(),
            "handled is handled"
        );
    }

    #[test]
    fn a_new_open_clears_the_file_and_the_table_is_bounded() {
        let (mut failed, now) = (Failed::default(), Instant::now());
        failed.add(asked(2, 0, 4096, 1), &NONE, now);
        failed.forget_file(2);
        assert!(failed.find(&asked(2, 0, 4096, 1), now, || false).is_none());
        for at in 0..2 * LIMIT as u64 {
            failed.add(asked(3, at * 4096, 4096, 1), &NONE, now);
        }
        assert_eq!(failed.ranges.len(), LIMIT);
        assert!(
            failed
                .find(&asked(3, (2 * LIMIT as u64 - 1) * 4096, 4096, 1), now, || false)
                .is_some()
        );
    }

    #[test]
    fn who_is_gone_leaves_nothing_behind() {
        let (mut failed, now) = (Failed::default(), Instant::now());
        for error in [ReadError::Abandoned, ReadError::Removed, ReadError::Stopping] {
            failed.add(asked(2, 0, 4096, 1), &error, now);
        }
        assert!(failed.ranges.is_empty());
    }
}
