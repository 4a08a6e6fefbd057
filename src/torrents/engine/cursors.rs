//! Where the readers of one torrent stand, and from that, where the engine's cursors should stand. The places are
//! derived anew each time from those who wait and those who read a moment ago; nothing is left over from an event.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Cursors of one torrent. Each costs the engine a slot of its pool for blocking work (1,024 for all torrents) and a
/// turn whenever a peer is asked for something, so they are few; who gets none has to wait for a turn.
pub(super) const CURSORS: usize = 16;

/// How long a cursor stays where a reader that does not wait has been, so that what it reads next is fetched ahead.
const WARM: Duration = Duration::from_secs(10);

/// What the engine fetches ahead of a cursor; a position within it of another cursor needs none of its own.
pub(super) const LOOK_AHEAD: u64 = 32 << 20;

/// A byte of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Position {
    pub(super) file: usize,
    pub(super) offset: u64,
}

/// The readers of one torrent.
#[derive(Debug)]
pub(super) struct Board {
    born: Instant,
    piece_length: u64,
    state: Mutex<State>,
    /// Rung when somebody begins to wait, or leaves a place to somebody else.
    pub(super) rung: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    readers: HashMap<u64, Arc<Spot>>,
    demands: BTreeMap<u64, Position>,
}

#[derive(Debug)]
struct Spot {
    file: usize,
    offset: AtomicU64,
    /// Milliseconds of the board's life, plus one; 0 for never.
    touched: AtomicU64,
}

/// Where cursors should stand now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// At most [`CURSORS`], the most urgent first.
    pub(super) cursors: Vec<Position>,
    /// How many of them somebody waits at.
    pub(super) waited_for: usize,
    /// Whether somebody waits who has no cursor.
    pub(super) crowded: bool,
}

impl Board {
    pub(super) fn new(piece_length: u32) -> Arc<Board> {
        Arc::new(Board {
            born: Instant::now(),
            piece_length: u64::from(piece_length.max(1)),
            state: Mutex::default(),
            rung: Notify::new(),
        })
    }

    pub(super) fn reader(self: &Arc<Board>, file: usize) -> Reader {
        let spot = Arc::new(Spot {
            file,
            offset: AtomicU64::new(0),
            touched: AtomicU64::new(0),
        });
        let mut state = self.state.lock();
        state.next += 1;
        let number = state.next;
        state.readers.insert(number, spot.clone());
        Reader {
            board: self.clone(),
            number,
            spot,
        }
    }

    /// Whether somebody waits.
    pub(super) fn waited_for(&self) -> bool {
        !self.state.lock().demands.is_empty()
    }

    /// The number of the youngest demand; it grows with each.
    pub(super) fn youngest(&self) -> Option<u64> {
        self.state.lock().demands.last_key_value().map(|(number, _)| *number)
    }

    #[cfg(test)]
    pub(super) fn demands(&self) -> usize {
        self.state.lock().demands.len()
    }

    /// Where cursors should stand. `turn` shifts who gets one when there are too few.
    pub(super) fn plan(&self, turn: usize) -> Plan {
        let state = self.state.lock();
        let now = self.now();
        let mut warm: Vec<(u64, Position)> = state
            .readers
            .values()
            .map(|spot| {
                let position = Position {
                    file: spot.file,
                    offset: spot.offset.load(Ordering::Relaxed),
                };
                (spot.touched.load(Ordering::Relaxed), position)
            })
            .filter(|(touched, _)| *touched > 0 && now.saturating_sub(*touched) < WARM.as_millis() as u64)
            .collect();
        warm.sort_unstable_by_key(|(touched, _)| std::cmp::Reverse(*touched));
        let waiting: Vec<Position> = state.demands.values().copied().collect();
        let warm: Vec<Position> = warm.into_iter().map(|(_, position)| position).collect();
        plan(&waiting, &warm, self.piece_length, turn)
    }

    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64 + 1
    }
}

fn plan(waiting: &[Position], warm: &[Position], piece_length: u64, turn: usize) -> Plan {
    // Readers that wait for the same piece share a cursor. A piece is told by its offset in the file, which is off by
    // less than a piece.
    let mut distinct: Vec<Position> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for position in waiting {
        if seen.insert((position.file, position.offset / piece_length)) {
            distinct.push(*position);
        }
    }
    let crowded = distinct.len() > CURSORS;
    if crowded {
        let shift = (turn * CURSORS) % distinct.len();
        distinct.rotate_left(shift);
        distinct.truncate(CURSORS);
    }
    let waited_for = distinct.len();
    let mut cursors = distinct;
    for position in warm {
        let covered = |cursor: &Position| {
            cursor.file == position.file && (cursor.offset..cursor.offset + LOOK_AHEAD / 2).contains(&position.offset)
        };
        if cursors.len() < CURSORS && !cursors.iter().any(covered) {
            cursors.push(*position);
        }
    }
    Plan {
        cursors,
        waited_for,
        crowded,
    }
}

/// One open handle, as the engine knows it. Dropping it takes its cursor away.
#[derive(Debug)]
pub struct Reader {
    board: Arc<Board>,
    number: u64,
    spot: Arc<Spot>,
}

impl Reader {
    /// Says that everything before `offset` was read, so that what follows is fetched ahead. Costs next to nothing.
    pub fn reached(&self, offset: u64) {
        self.spot.offset.store(offset, Ordering::Relaxed);
        self.spot.touched.store(self.board.now(), Ordering::Relaxed);
    }

    /// Asks for the piece at `offset`, until the demand is dropped.
    pub fn demand(&self, offset: u64) -> Demand {
        self.reached(offset);
        let mut state = self.board.state.lock();
        state.next += 1;
        let number = state.next;
        state.demands.insert(
            number,
            Position {
                file: self.spot.file,
                offset,
            },
        );
        drop(state);
        self.board.rung.notify_one();
        Demand {
            board: self.board.clone(),
            number,
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.board.state.lock().readers.remove(&self.number);
    }
}

/// Somebody waits for a byte. Dropping it withdraws the demand; its cursor stays for ten seconds, for the next read.
#[derive(Debug)]
pub struct Demand {
    board: Arc<Board>,
    number: u64,
}

impl Drop for Demand {
    fn drop(&mut self) {
        let mut state = self.board.state.lock();
        state.demands.remove(&self.number);
        // Whoever may have had no cursor gets this one now, before peers find that they have nothing to do.
        if state.demands.len() >= CURSORS {
            self.board.rung.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 1 << 20;

    fn at(file: usize, piece: u64) -> Position {
        Position {
            file,
            offset: piece * PIECE,
        }
    }

    #[test]
    fn those_who_wait_come_before_those_who_may_read_on() {
        let plan = plan(&[at(0, 5), at(1, 7)], &[at(0, 9), at(0, 99), at(1, 6)], PIECE, 0);
        assert_eq!(plan.cursors, [at(0, 5), at(1, 7), at(0, 99), at(1, 6)]);
        assert_eq!((plan.waited_for, plan.crowded), (2, false));
    }

    #[test]
    fn readers_of_one_piece_share_a_cursor() {
        let waiting: Vec<Position> = (0..200)
            .map(|index| Position {
                file: 0,
                offset: 3 * PIECE + index,
            })
            .collect();
        assert_eq!(plan(&waiting, &[], PIECE, 0).cursors.len(), 1);
    }

    #[test]
    fn when_cursors_are_too_few_everyone_gets_a_turn() {
        let waiting: Vec<Position> = (0..200).map(|piece| at(0, piece)).collect();
        let mut served = std::collections::BTreeSet::new();
        for turn in 0..200usize.div_ceil(CURSORS) {
            let plan = plan(&waiting, &[at(1, 0)], PIECE, turn);
            assert_eq!(
                (plan.cursors.len(), plan.waited_for, plan.crowded),
                (CURSORS, CURSORS, true)
            );
            served.extend(plan.cursors);
        }
        assert_eq!(served.len(), 200);
    }

    #[test]
    fn a_demand_lasts_until_it_is_dropped_and_stays_warm_then() {
        let board = Board::new(PIECE as u32);
        let reader = board.reader(3);
        assert_eq!(board.plan(0), Plan::default());
        let demand = reader.demand(42);
        assert!(board.waited_for());
        assert_eq!(board.plan(0).waited_for, 1);
        drop(demand);
        let plan = board.plan(0);
        assert_eq!(
            (plan.waited_for, plan.cursors),
            (0, vec![Position { file: 3, offset: 42 }])
        );
        drop(reader);
        assert_eq!(board.plan(0), Plan::default());
        assert!(board.state.lock().readers.is_empty() && board.state.lock().demands.is_empty());
    }
}
