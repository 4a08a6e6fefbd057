//! Reads that wait: who waits, how long, and what ends it.
//!
//! A waiting read ends by its bytes, its deadline, its ceiling, or by being cancelled: because its thread is gone or has
//! a signal to handle, because the file was removed, or because the mount is stopping. Nothing here knows the kernel.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::catalog::{Content, ReadError};
use crate::failed::Failed;
use crate::signals::{self, Look};

/// So many reads may wait at once. It is over `max_background`, so that what the kernel asks in the background never
/// meets it; only requests of single pages can.
pub(crate) const WAITING_LIMIT: usize = 8192;

/// A signal must be seen twice, this far apart: one that another thread of the process is about to take is pending for a
/// moment too.
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

/// How long a read may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    deadline: Duration,
    ceiling: Duration,
}

impl Limits {
    /// `deadline` without progress, `ceiling` in all. Both are kept under a year, so that they can be added to any time.
    pub(crate) fn new(deadline: Duration, ceiling: Duration) -> Limits {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        Limits {
            deadline: deadline.min(YEAR),
            ceiling: ceiling.min(YEAR),
        }
    }
}

/// Waits for the bytes of one read. Dropping it withdraws the demand.
pub(crate) async fn bytes<C: Content>(
    content: Arc<C>,
    asked: Asked,
    limits: Limits,
    cancelled: oneshot::Receiver<ReadError>,
) -> Result<Vec<u8>, ReadError> {
    let start = Instant::now();
    let last_moment = start + limits.ceiling;
    let mut due = (start + limits.deadline).min(last_moment);
    let mut reading = pin!(content.clone().read_at(asked.offset, asked.length));
    let mut cancelled = pin!(cancelled);
    loop {
        tokio::select! {
            biased;
            result = &mut reading => return result.and_then(|bytes| whole(bytes, asked.length)),
            // The sending half is dropped unused only together with the whole mount.
            why = &mut cancelled => return Err(why.unwrap_or(ReadError::Stopping)),
            () = tokio::time::sleep_until(due.into()) => {
                let now = Instant::now();
                if now >= last_moment {
                    return Err(ReadError::TooSlow { seconds: limits.ceiling.as_secs() });
                }
                let progress = content.progress(asked.offset, asked.length);
                let last = progress.map_or(start, |at| at.max(start));
                if now >= last + limits.deadline {
                    return Err(ReadError::NoProgress { seconds: limits.deadline.as_secs() });
                }
                due = (last + limits.deadline).min(last_moment);
            }
        }
    }
}

/// The kernel takes a short answer for the end of the file and cuts the file off there.
fn whole(bytes: Vec<u8>, length: usize) -> Result<Vec<u8>, ReadError> {
    if bytes.len() == length {
        return Ok(bytes);
    }
    Err(ReadError::Engine(
        format!("it gave {} bytes where {length} were asked", bytes.len()).into(),
    ))
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
            let start = Instant::now();
            let looks = threads
                .into_iter()
                .map(|thread| (thread, signals::look(thread)))
                .collect();
            let suspects = self.state.lock().judge(&looks, &flushes, Instant::now());
            // A look costs some 10 µs, so thousands of threads are looked at less often.
            pause = if suspects { SIGNAL_SEEN_AGAIN } else { interval }.max(start.elapsed() * 10);
        }
    }
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

    /// Reads for which nobody waits: their thread is gone or has closed the handle, and no other handle of the file is in
    /// use. Another reader of the same page sends no request of its own; he lives on this one.
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
