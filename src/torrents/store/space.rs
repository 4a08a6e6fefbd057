//! How much room the data directory has, and the floor below which nothing more is stored.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a measurement counts. Long enough that a download of 12,800 blocks a second does not ask the kernel for
/// each, short enough that room made by hand is used at once.
const FRESH: Duration = Duration::from_secs(1);

/// After the kernel itself refused a write (`ENOSPC`, or a quota, which statvfs(2) does not show), how long nothing
/// is tried.
const REFUSED: Duration = Duration::from_secs(2);

/// What must be free above the floor before storing begins again, so that it does not flicker at the floor.
const MARGIN: u64 = 16 << 20;

/// Nothing is stored while less than this is free.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Floor {
    /// Of the file system's size: 5.0 is five per cent.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
}

impl Floor {
    fn bytes(self, total: u64) -> u64 {
        match self {
            Floor::Percent(percent) => (total as f64 * (percent / 100.0).clamp(0.0, 1.0)) as u64,
            Floor::Bytes(bytes) => bytes,
        }
    }
}

/// The state of the file system that holds the data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FreeSpaceReport {
    /// Its size in bytes.
    pub total: u64,
    /// Bytes that we may still use.
    pub free: u64,
    /// The floor in bytes.
    pub floor: u64,
    /// Whether what arrives is stored.
    pub storing: bool,
}

type Probe = Box<dyn Fn() -> io::Result<(u64, u64)> + Send + Sync>;

/// The free room of one file system, measured at most once a second.
pub struct FreeSpace {
    floor: Floor,
    probe: Probe,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    measured: Option<Instant>,
    total: u64,
    free: u64,
    full: bool,
    refused: Option<Instant>,
}

impl FreeSpace {
    /// Watches the file system that holds `directory`.
    pub fn new(directory: &Path, floor: Floor) -> FreeSpace {
        let directory: PathBuf = directory.to_owned();
        FreeSpace::with_probe(
            floor,
            Box::new(move || {
                let measured = rustix::fs::statvfs(&directory)?;
                Ok((
                    measured.f_blocks * measured.f_frsize,
                    measured.f_bavail * measured.f_frsize,
                ))
            }),
        )
    }

    /// As [`FreeSpace::new`], measured by `probe`: (total, free) in bytes.
    pub(in crate::torrents) fn with_probe(floor: Floor, probe: Probe) -> FreeSpace {
        FreeSpace {
            floor,
            probe,
            state: Mutex::new(State::default()),
        }
    }

    /// How things stand, measured at most a second ago.
    pub fn report(&self) -> FreeSpaceReport {
        let state = self.fresh();
        FreeSpaceReport {
            total: state.total,
            free: state.free,
            floor: self.floor.bytes(state.total),
            storing: !state.full,
        }
    }

    /// Whether anything may be stored now.
    pub fn storing(&self) -> bool {
        !self.fresh().full
    }

    /// Accounts for bytes that are about to be stored; false where they must not be.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let mut state = self.fresh();
        if !state.full {
            state.free = state.free.saturating_sub(bytes);
            if state.free < self.floor.bytes(state.total) {
                state.measured = None;
            }
        }
        !state.full
    }

    /// The kernel refused to store more.
    pub(super) fn refused(&self) {
        let mut state = self.state.lock();
        state.refused = Some(Instant::now());
        self.set_full(&mut state, true);
    }

    fn fresh(&self) -> parking_lot::MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if state.measured.is_some_and(|measured| measured.elapsed() < FRESH) {
            return state;
        }
        state.measured = Some(Instant::now());
        match (self.probe)() {
            Ok((total, free)) => (state.total, state.free) = (total, free),
            // The write itself will say whether there is room.
            Err(error) => {
                tracing::debug!(%error, "the free space of the data directory could not be measured");
                return state;
            }
        }
        let floor = self.floor.bytes(state.total);
        let wanted = if state.full && floor > 0 {
            floor.saturating_add(MARGIN)
        } else {
            floor
        };
        let refused = state.refused.is_some_and(|refused| refused.elapsed() < REFUSED);
        let full = refused || state.free < wanted;
        self.set_full(&mut state, full);
        state
    }

    fn set_full(&self, state: &mut State, full: bool) {
        let floor = self.floor.bytes(state.total);
        match (state.full, full) {
            (false, true) => tracing::warn!(
                free = state.free,
                floor,
                "nothing more is stored and reads of what is missing fail: the data directory is below its free-space \
                 floor; free some space or lower --free-space-floor"
            ),
            (true, false) => tracing::info!(free = state.free, floor, "there is room again: what arrives is stored"),
            _ => {}
        }
        state.full = full;
    }
}

impl fmt::Debug for FreeSpace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FreeSpace")
            .field("floor", &self.floor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn stale(space: &FreeSpace) {
        space.state.lock().measured = None;
    }

    #[test]
    fn the_floor_is_reached_and_left_again_with_a_margin() {
        let free = Arc::new(AtomicU64::new(1000 << 20));
        let probed = free.clone();
        let probe = move || Ok((10_000 << 20, probed.load(Ordering::Relaxed)));
        let space = FreeSpace::with_probe(Floor::Percent(5.0), Box::new(probe));
        assert_eq!(
            space.report(),
            FreeSpaceReport {
                total: 10_000 << 20,
                free: 1000 << 20,
                floor: 500 << 20,
                storing: true
            }
        );
        free.store(499 << 20, Ordering::Relaxed);
        assert!(space.take(1), "a measurement counts for a second");
        stale(&space);
        assert!(!space.take(1));
        free.store(501 << 20, Ordering::Relaxed);
        stale(&space);
        assert!(!space.storing(), "just above the floor is not yet room");
        free.store(516 << 20, Ordering::Relaxed);
        stale(&space);
        assert!(space.storing());
    }

    #[test]
    fn a_write_that_the_kernel_refused_counts_although_the_measurement_knows_of_room() {
        let space = FreeSpace::with_probe(Floor::Bytes(0), Box::new(|| Ok((1 << 40, 1 << 39))));
        assert!(space.storing());
        space.refused();
        assert!(!space.storing());
        stale(&space);
        assert!(!space.storing());
        space.state.lock().refused = Instant::now().checked_sub(REFUSED);
        stale(&space);
        assert!(space.storing());
    }

    #[test]
    fn the_real_file_system_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let space = FreeSpace::new(directory.path(), Floor::Bytes(0));
        let report = space.report();
        assert!(report.total >= report.free && report.total > 0 && report.storing);
        assert!(!FreeSpace::new(directory.path(), Floor::Percent(100.0)).storing());
    }
}
