//! What is logged of failed reads and opens.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::catalog::ReadError;
use crate::reads::Asked;

/// So many lines may come at once, and then one for every [`PAUSE`]: a reader that asks again and again must not fill
/// the log.
const BURST: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// Logs each failure once, and counts what it leaves out.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    allowance: Mutex<Allowance>,
}

#[derive(Debug, Default)]
struct Allowance {
    spent: u32,
    earned: Option<Instant>,
    left_out: u64,
}

impl Allowance {
    /// Whether a line may be logged now, and how many were left out since the last.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let since = *self.earned.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_secs() / PAUSE.as_secs();
        if earned > 0 {
            self.spent = self.spent.saturating_sub(u32::try_from(earned).unwrap_or(u32::MAX));
            self.earned = Some(now);
        }
        if self.spent >= BURST {
            self.left_out += 1;
            return None;
        }
        self.spent += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Reporter {
    /// A read failed. `path` is asked for only if it is logged.
    pub(crate) fn failed_read(&self, path: impl FnOnce() -> PathBuf, asked: &Asked, error: &ReadError) {
        let Asked {
            offset, length, thread, ..
        } = *asked;
        if !is_fault(error) {
            tracing::debug!(path = %path().display(), offset, length, thread, %error, "read ended");
        } else if let Some(left_out) = self.allowance.lock().take(Instant::now()) {
            tracing::warn!(path = %path().display(), offset, length, thread, left_out, %error, "read failed");
        }
    }

    /// An open was refused.
    pub(crate) fn failed_open(&self, path: &Path, error: &ReadError) {
        if !is_fault(error) {
            tracing::debug!(path = %path.display(), %error, "open refused");
        } else if let Some(left_out) = self.allowance.lock().take(Instant::now()) {
            tracing::warn!(path = %path.display(), left_out, %error, "open refused");
        }
    }
}

/// Whether somebody should look into it; the rest is what readers, and those who stop the daemon, do on purpose.
fn is_fault(error: &ReadError) -> bool {
    match error {
        ReadError::Signalled | ReadError::Abandoned | ReadError::Removed | ReadError::Stopping => false,
        ReadError::NoProgress { .. }
        | ReadError::TooSlow { .. }
        | ReadError::TooMany { .. }
        | ReadError::NoSpace
        | ReadError::Paused
        | ReadError::Disk(_)
        | ReadError::Engine(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_a_burst_and_one_line_a_second() {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let burst = (0..1000).filter(|_| allowance.take(start).is_some()).count();
        assert_eq!(burst, BURST as usize);
        assert_eq!(
            allowance.take(start + PAUSE),
            Some(980),
            "the next line says how many are missing"
        );
        assert_eq!(allowance.take(start + PAUSE), None);
        let later = start + 1000 * PAUSE;
        assert_eq!(
            (0..1000).filter(|_| allowance.take(later).is_some()).count(),
            BURST as usize
        );
    }
}
