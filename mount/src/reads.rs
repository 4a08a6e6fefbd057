//! The books of the reads that wait: who waits through which handle, and who must be given up.
//!
//! A waiting read is given up because its thread is gone or has a signal to handle, because the file was removed, or
//! because the mount is stopping. How long it waits otherwise is the matter of `deadline.rs`.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::catalog::ReadError;
use crate::failed::Failed;
use crate::signals::{self, Look};

/// So many reads may wait at once. It is over `max_background`, so that what the kernel asks in the background never
/// meets it; only requests of single pages can.
pub(crate) const WAITING_LIMIT: usize = 8192;

/// A signal must be seen twice, this far apart: one that another thread of the process is about to take is pending for
/// a moment too.
const SIGNAL_SEEN_AGAIN: Duration = Duration::from_millis(40);

/// A read as the kernel asked it, cut to the file: its bytes lie wholly inside and are at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) handle: u64,
    pub(crate) inode: u64,
    pub(crate) offset: u64,
    pub(crate) length: usize,
    /// The thread that asks, as /proc names it; 0 if it lives in a pid namespace that we cannot see.
    pub(crate) thread: u32,
}

impl Asked {
    /// The offset behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length as u64
    }
}

/// All waiting reads of a mount, and the handles they came through.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    state: Mutex<State>,
    /// Word for the watcher: the first read waits, a handle was flushed, the mount ended.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    ended: bool,
    last: u64,
    waiting: HashMap<u64, Waiting>,
    handles: HashMap<u64, Handle>,
    /// The open handles of each file.
    files: HashMap<u64, Vec<u64>>,
    flushes: Vec<Flush>,
    failed: Failed,
}

#[derive(Debug)]
struct Waiting {
    asked: Asked,
    cancel: oneshot::Sender<ReadError>,
    /// The thread closed the handle after it had asked, and has not read from it since.
    left: bool,
    signal_seen: Option<Instant>,
    /// The process of the thread, once it was looked at.
    process: Option<u32>,
}

#[derive(Debug)]
struct Handle {
    inode: u64,
    /// It was flushed, and not read since. A process that ends flushes all it has open, but so does every `close` of a
    /// duplicate.
    flushed: bool,
}

/// A FLUSH that the watcher has not looked into yet.
#[derive(Debug, Clone, Copy)]
struct Flush {
    handle: u64,
    thread: u32,
    /// Reads up to this number were waiting then.
    until: u64,
}

/// A read that has begun to wait.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Its number, for [`Reads::end`].
    pub(crate) number: u64,
    /// Resolves when the read is to be given up.
    pub(crate) cancelled: oneshot::Receiver<ReadError>,
}

impl Reads {
    /// A handle was opened.
    pub(crate) fn opened(&self, handle: u64, inode: u64) {
        let mut state = self.state.lock();
        state.handles.insert(handle, Handle { inode, flushed: false });
        state.files.entry(inode).or_default().push(handle);
        state.failed.forget_file(inode);
    }

    /// The last descriptor of a handle is gone.
    pub(crate) fn released(&self, handle: u64) {
        let mut state = self.state.lock();
        let Some(Handle { inode, .. }) = state.handles.remove(&handle) else {
            return;
        };
        if let Some(handles) = state.files.get_mut(&inode) {
            handles.retain(|one| *one != handle);
            if handles.is_empty() {
                state.files.remove(&inode);
            }
        }
    }

    /// One descriptor of a handle was closed by `thread`. The watcher looks into it; nothing waits here.
    pub(crate) fn flushed(&self, handle: u64, thread: u32) {
        let mut state = self.state.lock();
        let Some(one) = state.handles.get_mut(&handle) else {
            return;
        };
        one.flushed = true;
        let inode = one.inode;
        if state.waiting.values().any(|waiting| waiting.asked.inode == inode) {
            let until = state.last;
            state.flushes.push(Flush { handle, thread, until });
            self.changed.notify_one();
        }
    }

    /// A read was asked through a handle: whatever flushed it before, it is in use.
    ///
    /// # Errors
    /// [`ReadError::Stopping`]
    pub(crate) fn used(&self, handle: u64, thread: u32) -> Result<(), ReadError> {
        let state = &mut *self.state.lock();
        if state.stopping {
            return Err(ReadError::Stopping);
        }
        if let Some(one) = state.handles.get_mut(&handle)
            && one.flushed
        {
            one.flushed = false;
            state
                .flushes
                .retain(|flush| (flush.handle, flush.thread) != (handle, thread));
            for waiting in state.waiting.values_mut() {
                if (waiting.asked.handle, waiting.asked.thread) == (handle, thread) {
                    waiting.left = false;
                }
            }
        }
        Ok(())
    }

    /// A read begins to wait.
    ///
    /// # Errors
    /// Those that it meets at once: stopping, too many, or its range failed a moment ago.
    pub(crate) fn begin(&self, mut asked: Asked) -> Result<Begun, ReadError> {
        let signalled = || signals::look(asked.thread).is_signalled();
        let mut state = self.state.lock();
        if state.stopping {
            return Err(ReadError::Stopping);
        }
        if let Some(error) = state.failed.find(&asked, Instant::now(), signalled) {
            return Err(error);
        }
        if state.waiting.len() >= WAITING_LIMIT {
            return Err(ReadError::TooMany { limit: WAITING_LIMIT });
        }
        if !signals::visible(asked.thread) {
            // That /proc does not show it later could not be told from its end.
            asked.thread = 0;
        }
        let (cancel, cancelled) = oneshot::channel();
        state.last += 1;
        let number = state.last;
        state.waiting.insert(
            number,
            Waiting {
                asked,
                cancel,
                left: false,
                signal_seen: None,
                process: None,
            },
        );
        if state.waiting.len() == 1 {
            self.changed.notify_one();
        }
        Ok(Begun { number, cancelled })
    }

    /// A read has its result and will be answered after this.
    pub(crate) fn end(&self, number: u64, asked: Asked, error: Option<&ReadError>) {
        let mut state = self.state.lock();
        state.waiting.remove(&number);
        if let Some(error) = error {
            state.failed.add(asked, error, Instant::now());
        }
    }

    /// These files are shown no more: gives up what waits for them.
    pub(crate) fn removed(&self, inodes: &HashSet<u64>) {
        self.state
            .lock()
            .cancel(|waiting| inodes.contains(&waiting.asked.inode).then_some(ReadError::Removed));
    }

    /// From now on every read fails at once, and those that wait are given up.
    pub(crate) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        state.cancel(|_| Some(ReadError::Stopping));
    }

    /// As [`Reads::stop`], and ends the watcher.
    pub(crate) fn finish(&self) {
        self.stop();
        self.state.lock().ended = true;
        self.changed.notify_one();
    }

    /// How many reads wait.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Runs the watcher until [`Reads::finish`]: looks at the threads that wait every `interval`, and at once when a
    /// handle is flushed. While nothing waits, it sleeps.
    pub(crate) fn watch(&self, interval: Duration) {
        let mut pause = interval;
        loop {
            let (threads, flushes) = {
                let mut state = self.state.lock();
                while state.waiting.is_empty() && !state.ended {
                    state.flushes.clear();
                    self.changed.wait(&mut state);
                }
                let until = Instant::now() + pause;
                while !state.ended
                    && state.flushes.is_empty()
                    && !self.changed.wait_until(&mut state, until).timed_out()
                {}
                if state.ended {
                    return;
                }
                (state.threads(), std::mem::take(&mut state.flushes))
            };
            let start = worked();
            let looks = threads
                .into_iter()
                .map(|thread| (thread, signals::look(thread)))
                .collect();
            let suspects = self.state.lock().judge(&looks, &flushes, Instant::now());
            // A look costs some 10 µs, so thousands of threads are looked at less often.
            pause = if suspects { SIGNAL_SEEN_AGAIN } else { interval }.max(worked().saturating_sub(start) * 10);
        }
    }
}

/// The processor's time that this thread has taken. The clock's would count what a busy machine let it wait as well, and
/// make the next look late by ten times that.
fn worked() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

impl State {
    fn threads(&self) -> HashSet<u32> {
        self.waiting
            .values()
            .map(|waiting| waiting.asked.thread)
            .filter(|thread| *thread != 0)
            .collect()
    }

    /// Ends what `why` gives a reason for.
    fn cancel(&mut self, mut why: impl FnMut(&Waiting) -> Option<ReadError>) {
        let chosen: Vec<(u64, ReadError)> = self
            .waiting
            .iter()
            .filter_map(|(number, waiting)| Some((*number, why(waiting)?)))
            .collect();
        for (number, error) in chosen {
            if let Some(waiting) = self.waiting.remove(&number) {
                // It fails if the read has its bytes by now: so much the better.
                let _ = waiting.cancel.send(error);
            }
        }
    }

    /// Decides, from what the threads look like and which handles were flushed, which reads end. Says whether a signal
    /// was seen that must be seen again.
    fn judge(&mut self, looks: &HashMap<u32, Look>, flushes: &[Flush], now: Instant) -> bool {
        let look = |thread: u32| looks.get(&thread).copied().unwrap_or(Look::Unknown);
        let mut suspects = false;
        let mut signalled = HashSet::new();
        for (number, waiting) in &mut self.waiting {
            let seen = look(waiting.asked.thread);
            if let Look::Alive {
                process,
                signalled: pending,
            } = seen
            {
                waiting.process = Some(process);
                match waiting.signal_seen {
                    Some(at) if pending && now >= at + SIGNAL_SEEN_AGAIN => {
                        signalled.insert(*number);
                    }
                    Some(_) if pending => suspects = true,
                    _ => waiting.signal_seen = pending.then_some(now),
                }
                suspects |= waiting.signal_seen == Some(now);
            }
            waiting.left |= flushes.iter().any(|flush| {
                (flush.handle, flush.thread) == (waiting.asked.handle, waiting.asked.thread) && *number <= flush.until
            });
        }
        let abandoned = self.abandoned(look);
        self.cancel_numbers(&signalled, &ReadError::Signalled);
        self.cancel_numbers(&abandoned, &ReadError::Abandoned);
        suspects
    }

    /// Reads for which nobody waits: their thread is gone or has closed the handle, and no other handle of the file is
    /// in use. Another reader of the same page sends no request of its own; he lives on this one.
    fn abandoned(&self, look: impl Fn(u32) -> Look) -> HashSet<u64> {
        let gone = |waiting: &Waiting| waiting.left || look(waiting.asked.thread) == Look::Gone;
        let in_use: HashSet<u64> = self
            .waiting
            .values()
            .filter(|waiting| !gone(waiting))
            .map(|waiting| waiting.asked.handle)
            .collect();
        let mut found = HashSet::new();
        for (number, waiting) in self.waiting.iter().filter(|(_, waiting)| gone(waiting)) {
            let Asked { handle, inode, .. } = waiting.asked;
            // What is only mapped is not flushed when its process dies.
            let process_gone = waiting
                .process
                .is_some_and(|process| signals::look(process) == Look::Gone);
            let own_closed = self.handles.get(&handle).is_none_or(|own| own.flushed) || process_gone;
            let mut others = self
                .files
                .get(&inode)
                .into_iter()
                .flatten()
                .filter(|other| **other != handle);
            let other_in_use = others
                .any(|other| in_use.contains(other) || self.handles.get(other).is_some_and(|handle| !handle.flushed));
            if own_closed && !other_in_use {
                found.insert(*number);
            }
        }
        found
    }

    fn cancel_numbers(&mut self, numbers: &HashSet<u64>, error: &ReadError) {
        for number in numbers {
            if let Some(waiting) = self.waiting.remove(number) {
                // As in `cancel`.
                let _ = waiting.cancel.send(error.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: fn() -> Instant = Instant::now;

    fn asked(handle: u64, thread: u32) -> Asked {
        Asked {
            handle,
            inode: 2,
            offset: 0,
            length: 4096,
            thread,
        }
    }

    /// Handles 1 and 2 of one file, and a read that waits through handle 1 for each given thread. No such thread
    /// exists, so they are put in by hand.
    fn waiting(threads: &[u32]) -> (State, Vec<oneshot::Receiver<ReadError>>) {
        let reads = Reads::default();
        reads.opened(1, 2);
        let mut state = reads.state.into_inner();
        let receivers = threads
            .iter()
            .map(|thread| wait(&mut state, asked(1, *thread)))
            .collect();
        (state, receivers)
    }

    fn wait(state: &mut State, asked: Asked) -> oneshot::Receiver<ReadError> {
        let (cancel, cancelled) = oneshot::channel();
        state.last += 1;
        let one = Waiting {
            asked,
            cancel,
            left: false,
            signal_seen: None,
            process: None,
        };
        state.waiting.insert(state.last, one);
        cancelled
    }

    fn open(state: &mut State, handle: u64) {
        state.handles.insert(
            handle,
            Handle {
                inode: 2,
                flushed: false,
            },
        );
        state.files.entry(2).or_default().push(handle);
    }

    fn flush(state: &mut State, handle: u64, thread: u32) -> Flush {
        state.handles.get_mut(&handle).unwrap().flushed = true;
        Flush {
            handle,
            thread,
            until: state.last,
        }
    }

    fn alive(signalled: bool) -> Look {
        // The process is this one, which lives.
        Look::Alive {
            process: std::process::id(),
            signalled,
        }
    }

    #[test]
    fn a_read_is_abandoned_when_its_thread_closes_the_only_handle() {
        let (mut state, mut cancelled) = waiting(&[10]);
        let flush = flush(&mut state, 1, 10);
        state.judge(&HashMap::from([(10, alive(false))]), &[flush], NOW());
        assert!(matches!(cancelled[0].try_recv(), Ok(ReadError::Abandoned)));
        assert!(state.waiting.is_empty());
    }

    #[test]
    fn a_flush_by_another_thread_ends_only_reads_of_threads_that_are_gone() {
        let (mut state, mut cancelled) = waiting(&[10, 11]);
        let flush = flush(&mut state, 1, 12);
        state.judge(&HashMap::from([(10, alive(false)), (11, Look::Gone)]), &[flush], NOW());
        assert!(cancelled[0].try_recv().is_err());
        assert!(matches!(cancelled[1].try_recv(), Ok(ReadError::Abandoned)));
    }

    #[test]
    fn while_another_handle_is_in_use_the_read_lives_on_and_ends_with_it() {
        let (mut state, mut cancelled) = waiting(&[10]);
        open(&mut state, 2);
        let first = flush(&mut state, 1, 10);
        let looks = HashMap::from([(10, Look::Gone)]);
        state.judge(&looks, &[first], NOW());
        assert!(
            cancelled[0].try_recv().is_err(),
            "who has the other handle open may wait for the same page"
        );
        let second = flush(&mut state, 2, 11);
        state.judge(&looks, &[second], NOW());
        assert!(matches!(cancelled[0].try_recv(), Ok(ReadError::Abandoned)));
    }

    #[test]
    fn a_flushed_handle_with_a_living_reader_is_in_use() {
        let (mut state, mut cancelled) = waiting(&[10]);
        open(&mut state, 2);
        let mut other = wait(&mut state, asked(2, 20));
        let flushes = [flush(&mut state, 1, 10), flush(&mut state, 2, 99)];
        let looks = HashMap::from([(10, Look::Gone), (20, alive(false))]);
        state.judge(&looks, &flushes, NOW());
        assert!(cancelled[0].try_recv().is_err() && other.try_recv().is_err());
    }

    #[test]
    fn a_thread_that_is_gone_does_not_end_what_others_may_read_from() {
        let (mut state, mut cancelled) = waiting(&[10]);
        state.judge(&HashMap::from([(10, Look::Gone)]), &[], NOW());
        assert!(cancelled[0].try_recv().is_err(), "its process may have other threads");
    }

    #[test]
    fn a_signal_must_be_seen_twice() {
        let (mut state, mut cancelled) = waiting(&[10]);
        let start = NOW();
        let signalled = HashMap::from([(10, alive(true))]);
        assert!(state.judge(&signalled, &[], start), "it asks for another look");
        assert!(state.judge(&signalled, &[], start + SIGNAL_SEEN_AGAIN / 2));
        assert!(
            !state.judge(&HashMap::from([(10, alive(false))]), &[], start + SIGNAL_SEEN_AGAIN),
            "it was handled"
        );
        assert!(
            state.judge(&signalled, &[], start + 2 * SIGNAL_SEEN_AGAIN),
            "another one"
        );
        assert!(cancelled[0].try_recv().is_err());
        state.judge(&signalled, &[], start + 3 * SIGNAL_SEEN_AGAIN);
        assert!(matches!(cancelled[0].try_recv(), Ok(ReadError::Signalled)));
    }

    #[test]
    fn a_thread_that_cannot_be_seen_is_neither_gone_nor_signalled() {
        let (mut state, mut cancelled) = waiting(&[0, 10]);
        let flush = flush(&mut state, 1, 99);
        state.judge(&HashMap::from([(10, Look::Unknown)]), &[flush], NOW());
        assert!(cancelled.iter_mut().all(|one| one.try_recv().is_err()));
        assert_eq!(state.threads(), HashSet::from([10]));
    }

    #[test]
    fn a_read_after_a_flush_puts_the_handle_back_in_use() {
        let reads = Reads::default();
        reads.opened(1, 2);
        // A thread that lives: this one.
        let begun = reads.begin(asked(1, std::process::id())).unwrap();
        reads.flushed(1, std::process::id());
        reads.used(1, std::process::id()).unwrap();
        let state = reads.state.lock();
        assert!(state.flushes.is_empty() && !state.handles[&1].flushed);
        drop((state, begun));
        reads.stop();
        assert!(matches!(reads.used(1, 1), Err(ReadError::Stopping)));
        assert!(matches!(reads.begin(asked(1, 1)), Err(ReadError::Stopping)));
    }
}
