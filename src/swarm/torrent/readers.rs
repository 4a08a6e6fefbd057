//! The open files of one torrent, and what their reads ask the picker for.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::swarm::picker::Picker;
use crate::swarm::reader::{ReadKey, Reader};
use crate::swarm::shape::{Shape, Time};

/// How often a handle's window is looked at while nothing happens to it: a boost ends, a sequence grows old.
const ROUND: Duration = Duration::from_secs(1);

/// One open file.
struct Open {
    reader: Reader,
    /// Reads that wait, by the names that their demands have outside.
    waiting: HashMap<u64, Waiting>,
    changed: bool,
}

/// A read that waits.
struct Waiting {
    /// `None` where the handle had too many.
    key: Option<ReadKey>,
    pieces: Range<u32>,
    progress: Arc<Progress>,
}

/// All open files of a torrent.
pub(super) struct Readers {
    shape: Shape,
    open: HashMap<u64, Open>,
    /// Reads that wait, of all of them.
    waiting: usize,
    changed: bool,
    ahead: bool,
    round: Time,
}

impl Readers {
    pub(super) fn new(shape: Shape) -> Readers {
        Readers {
            shape,
            open: HashMap::new(),
            waiting: 0,
            changed: false,
            ahead: true,
            round: Time::ZERO,
        }
    }

    /// A file is open; `file` are its bytes in the torrent.
    pub(super) fn open(&mut self, reader: u64, file: Range<u64>) {
        let mut handle = Reader::new(self.shape, file);
        handle.fetch_ahead(self.ahead);
        let open = Open {
            reader: handle,
            waiting: HashMap::new(),
            changed: false,
        };
        self.open.insert(reader, open);
    }

    /// A file is closed. What it asks for ahead is withdrawn; reads of it that still wait go on waiting in vain, which
    /// their own end tells.
    pub(super) fn close(&mut self, reader: u64, picker: &mut Picker) {
        if let Some(open) = self.open.remove(&reader) {
            self.waiting -= open.waiting.len();
            open.reader.close(picker);
        }
    }

    /// These bytes are sure to be read from `due` on.
    pub(super) fn expect(&mut self, reader: u64, bytes: Range<u64>, due: Time) {
        if let Some(open) = self.open.get_mut(&reader) {
            open.reader.expect(bytes, due);
            open.changed = true;
            self.changed = true;
        }
    }

    /// A read of `bytes` was answered at once.
    pub(super) fn passed(&mut self, now: Time, reader: u64, bytes: Range<u64>) {
        let Some(open) = self.open.get_mut(&reader) else { return };
        if let Some(key) = open.reader.begin(now, bytes) {
            open.reader.end(key, true);
            open.changed = true;
            self.changed = true;
        }
    }

    /// A read of `bytes` waits.
    pub(super) fn demand(
        &mut self,
        now: Time,
        reader: u64,
        demand: u64,
        bytes: Range<u64>,
        urgent: bool,
        progress: Arc<Progress>,
    ) {
        let pieces = self.shape.pieces_of(bytes.clone());
        let Some(open) = self.open.get_mut(&reader) else { return };
        let key = open.reader.begin(now, bytes);
        if let Some(key) = key {
            open.reader.set_urgent(key, urgent);
        }
        let waiting = Waiting { key, pieces, progress };
        if open.waiting.insert(demand, waiting).is_none() {
            self.waiting += 1;
        }
        open.changed = true;
        self.changed = true;
    }

    /// It is urgent from now on, or no more.
    pub(super) fn urge(&mut self, reader: u64, demand: u64, urgent: bool) {
        let Some(open) = self.open.get_mut(&reader) else { return };
        if let Some(key) = open.waiting.get(&demand).and_then(|waiting| waiting.key) {
            open.reader.set_urgent(key, urgent);
            open.changed = true;
            self.changed = true;
        }
    }

    /// It waits no more: answered, or given up.
    pub(super) fn withdraw(&mut self, reader: u64, demand: u64, answered: bool) {
        let Some(open) = self.open.get_mut(&reader) else { return };
        let Some(waiting) = open.waiting.remove(&demand) else {
            return;
        };
        self.waiting -= 1;
        if let Some(key) = waiting.key {
            open.reader.end(key, answered);
            open.changed = true;
            self.changed = true;
        }
    }

    /// Whether more is asked for than what reads wait for.
    pub(super) fn fetch_ahead(&mut self, ahead: bool) {
        self.ahead = ahead;
        self.changed = true;
        for open in self.open.values_mut() {
            open.reader.fetch_ahead(ahead);
            open.changed = true;
        }
    }

    /// Tells reads of blocks that arrived: those whose blocks they are, and those that lack only what somebody has.
    pub(super) fn tell(&self, arrived: &HashSet<u32>, at: Instant, picker: &Picker) {
        for waiting in self.open.values().flat_map(|open| open.waiting.values()) {
            let mut lacking = waiting.pieces.clone().filter(|piece| !picker.has(*piece));
            let own = waiting.pieces.clone().any(|piece| arrived.contains(&piece));
            if own || lacking.all(|piece| picker.availability(piece) > 0) {
                waiting.progress.note(at);
            }
        }
    }

    /// Reads that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// When [`update`](Readers::update) is due if nothing happens before.
    pub(super) fn next_wakeup(&self) -> Option<Time> {
        (!self.open.is_empty()).then_some(self.round + ROUND)
    }

    /// Brings the picker's demands in line with the reads.
    pub(super) fn update(&mut self, now: Time, picker: &mut Picker) {
        let round = now - self.round >= ROUND;
        if !round && !self.changed {
            return;
        }
        for open in self.open.values_mut().filter(|open| round || open.changed) {
            open.reader.update(now, picker);
            open.changed = false;
        }
        self.changed = false;
        if round {
            self.round = now;
        }
    }
}
