//! Bytes a second, as a token bucket that its users wait at in order.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What may pass at once after a pause, as a time at the full rate: short, so that a limit is kept within every
/// second, and long enough that the scheduler's own delays cost no throughput.
const BURST: Duration = Duration::from_millis(100);
/// The longest single sleep: a wait that a very low rate makes longer is taken in steps, so that no sum overflows.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// A limit in bytes a second that can be changed while others wait at it.
///
/// Takers are served in the order of their calls, whatever they ask for. A take larger than the burst passes as one and
/// is paid back by those behind it, so the mean holds for takes of any size.
#[derive(Debug)]
pub struct RateLimit {
    bucket: Mutex<Bucket>,
    /// Held by the taker whose turn it is; tokio's mutex hands over in the order of arrival.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    rate: Option<NonZeroU64>,
    /// Bytes that may pass now; below zero after a take larger than what was there.
    balance: f64,
    filled: Instant,
}

impl Bucket {
    fn burst(rate: NonZeroU64) -> f64 {
        rate.get() as f64 * BURST.as_secs_f64()
    }

    fn fill(&mut self, now: Instant) {
        if let Some(rate) = self.rate {
            let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
            self.balance = (self.balance + elapsed * rate.get() as f64).min(Self::burst(rate));
        }
        self.filled = now;
    }

    /// Takes `bytes`, or says how long until they can be taken.
    fn take(&mut self, now: Instant, bytes: u64) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        self.fill(now);
        let lacking = (bytes as f64).min(Self::burst(rate)) - self.balance;
        // Less than a thousandth of a byte is rounding, not debt.
        if lacking <= 0.001 {
            self.balance -= bytes as f64;
            return Ok(());
        }
        let wait = lacking / rate.get() as f64;
        // At least a millisecond: the timer knows nothing finer.
        Err(Duration::from_secs_f64(wait.clamp(0.001, LONGEST_SLEEP.as_secs_f64())))
    }
}

impl RateLimit {
    /// A limit of `rate` bytes a second; `None` is no limit.
    #[must_use]
    pub fn new(rate: Option<NonZeroU64>) -> Self {
        Self {
            bucket: Mutex::new(Bucket {
                rate,
                balance: rate.map_or(0.0, Bucket::burst),
                filled: Instant::now(),
            }),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        }
    }

    /// Changes the limit for everyone, those who wait now included.
    pub fn set(&self, rate: Option<NonZeroU64>) {
        let mut bucket = self.bucket.lock();
        bucket.fill(Instant::now());
        bucket.balance = match (bucket.rate, rate) {
            // What passed without a limit is not owed.
            (None, _) | (_, None) => 0.0,
            (Some(_), Some(rate)) => bucket.balance.min(Bucket::burst(rate)),
        };
        bucket.rate = rate;
        drop(bucket);
        self.changed.notify_one();
    }

    /// The limit in bytes a second.
    #[must_use]
    pub fn rate(&self) -> Option<NonZeroU64> {
        self.bucket.lock().rate
    }

    /// Waits until `bytes` may pass, behind everyone who asked before. Without a limit it returns at once. Dropping the
    /// future takes nothing and leaves the queue.
    pub async fn take(&self, bytes: u64) {
        if bytes == 0 || self.rate().is_none() {
            return;
        }
        let _turn = self.turn.lock().await;
        loop {
            let Err(wait) = self.bucket.lock().take(Instant::now(), bytes) else {
                return;
            };
            // A change since the lock was given up has left a permit in `changed`, so none is missed.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

/// The two limits that hold for one torrent's traffic in one direction.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// This torrent's own.
    pub torrent: Arc<RateLimit>,
    /// The one that all torrents share.
    pub all: Arc<RateLimit>,
}

impl Throttle {
    /// Waits at both. The torrent's own comes first, so that a slow torrent does not stand in the queue of the others.
    pub async fn take(&self, bytes: u64) {
        self.torrent.take(bytes).await;
        self.all.take(bytes).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    fn rate(bytes_per_second: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes_per_second)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn no_limit_never_waits() {
        run(async {
            let limit = RateLimit::new(None);
            let start = Instant::now();
            for _ in 0..1000 {
                limit.take(u64::MAX).await;
            }
            assert_eq!(start.elapsed(), Duration::ZERO);
        });
    }

    #[test]
    fn a_take_larger_than_the_burst_passes_and_is_paid_back() {
        run(async {
            let limit = RateLimit::new(rate(16 * KIB));
            let start = Instant::now();
            limit.take(16 * KIB).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            limit.take(16 * KIB).await;
            let elapsed = start.elapsed();
            assert!(
                elapsed >= Duration::from_millis(990) && elapsed <= Duration::from_millis(1010),
                "{elapsed:?}"
            );
        });
    }

    #[test]
    fn takers_are_served_in_order() {
        run(async {
            let limit = Arc::new(RateLimit::new(rate(KIB)));
            let served = Arc::new(Mutex::new(Vec::new()));
            let mut takers = Vec::new();
            for taker in 0..20u64 {
                let (limit, served) = (limit.clone(), served.clone());
                takers.push(tokio::spawn(async move {
                    // The later ones ask for less: they must not slip past.
                    limit.take(KIB * (20 - taker)).await;
                    served.lock().push(taker);
                }));
                tokio::task::yield_now().await;
            }
            for taker in takers {
                taker.await.unwrap();
            }
            assert_eq!(*served.lock(), (0..20).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_change_reaches_those_who_wait() {
        run(async {
            let limit = Arc::new(RateLimit::new(rate(1)));
            limit.take(KIB).await;
            let start = Instant::now();
            let waiting = tokio::spawn({
                let limit = limit.clone();
                async move {
                    limit.take(KIB).await;
                    Instant::now()
                }
            });
            tokio::time::advance(Duration::from_secs(1)).await;
            limit.set(None);
            assert!(waiting.await.unwrap() - start < Duration::from_secs(2));
        });
    }

    #[test]
    fn a_taker_that_gives_up_takes_nothing() {
        run(async {
            let limit = RateLimit::new(rate(KIB));
            limit.take(KIB).await;
            let gave_up = tokio::time::timeout(Duration::from_millis(10), limit.take(1000 * KIB)).await;
            assert!(gave_up.is_err());
            let start = Instant::now();
            limit.take(1).await;
            assert!(start.elapsed() < Duration::from_secs(2));
        });
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_mean_holds_for_any_takes(
            bytes_per_second in 1_000u64..10_000_000,
            takes in proptest::collection::vec(1u64..200_000, 1..60),
        ) {
            let elapsed = run(async {
                let limit = RateLimit::new(rate(bytes_per_second));
                let start = Instant::now();
                for bytes in &takes {
                    limit.take(*bytes).await;
                }
                start.elapsed().as_secs_f64()
            });
            let burst = bytes_per_second as f64 * BURST.as_secs_f64();
            let (sum, last) = (takes.iter().sum::<u64>() as f64, *takes.last().unwrap() as f64);
            // Every take waits for what was before it, less the burst; the last may leave a debt of its own size.
            let earliest = (sum - last - burst) / bytes_per_second as f64;
            let latest = sum / bytes_per_second as f64 + 0.002 * takes.len() as f64;
            prop_assert!(elapsed + 0.001 >= earliest, "{elapsed} < {earliest}");
            prop_assert!(elapsed <= latest, "{elapsed} > {latest}");
        }
    }
}
