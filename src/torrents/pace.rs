//! Which processes work ahead of their viewer: what they wait for nobody waits for yet.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;

/// Processes that may be known to work ahead at once, far more than there are FFmpegs; others count as urgent.
const LIMIT: usize = 1024;

/// The processes that work ahead now. A process that is not in it is urgent, and so is one too many.
#[derive(Debug, Default)]
pub struct Paces(watch::Sender<Arc<HashSet<u32>>>);

impl Paces {
    /// Sets whether a viewer waits for what a process reads. Reads of it that wait are told at once.
    pub fn set(&self, process: u32, urgent: bool) {
        self.0.send_if_modified(|ahead| {
            let known = ahead.contains(&process);
            if known != urgent || (!urgent && ahead.len() >= LIMIT) {
                return false;
            }
            let ahead = Arc::make_mut(ahead);
            if urgent {
                ahead.remove(&process)
            } else {
                ahead.insert(process)
            }
        });
    }

    /// The pace of a process, now and whenever it changes. 0 stands for a process that is not known.
    pub fn of(&self, process: u32) -> Pace {
        Pace {
            process,
            ahead: self.0.subscribe(),
        }
    }
}

/// Whether one process is urgent.
#[derive(Debug, Clone)]
pub struct Pace {
    process: u32,
    ahead: watch::Receiver<Arc<HashSet<u32>>>,
}

impl Pace {
    /// Whether somebody waits for what the process reads.
    pub fn is_urgent(&self) -> bool {
        !self.ahead.borrow().contains(&self.process)
    }

    /// Tells of every change from `told` on. It never ends; dropping it does.
    pub async fn follow(mut self, mut told: bool, mut tell: impl FnMut(bool)) -> Infallible {
        loop {
            let urgent = !self.ahead.borrow_and_update().contains(&self.process);
            if urgent != told {
                told = urgent;
                tell(urgent);
            }
            if self.ahead.changed().await.is_err() {
                // The library is gone: nothing changes any more.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn who_is_not_known_is_urgent_and_the_table_is_bounded() {
        let paces = Paces::default();
        assert!(paces.of(7).is_urgent());
        for process in 1..=LIMIT as u32 + 1 {
            paces.set(process, false);
            paces.set(process, false);
        }
        assert!(!paces.of(7).is_urgent());
        assert!(paces.of(LIMIT as u32 + 1).is_urgent(), "one too many");
        paces.set(7, true);
        paces.set(7, true);
        assert!(paces.of(7).is_urgent());
        paces.set(LIMIT as u32 + 1, false);
        assert!(!paces.of(LIMIT as u32 + 1).is_urgent());
    }

    #[test]
    fn a_change_is_told_also_if_it_came_before_anyone_listened() {
        let paces = Paces::default();
        let pace = paces.of(7);
        let before = pace.is_urgent();
        paces.set(7, false);
        let mut told = Vec::new();
        let mut following = Box::pin(pace.follow(before, |urgent| told.push(urgent)));
        assert!((&mut following).now_or_never().is_none());
        paces.set(8, false);
        assert!((&mut following).now_or_never().is_none());
        paces.set(7, true);
        assert!((&mut following).now_or_never().is_none());
        drop(following);
        assert_eq!(told, [false, true]);
    }
}
