//! A swarm in simulated time, and what the picker promises in it.

mod churn;
mod client;
mod cost;
mod properties;
mod scenarios;
mod seeder;
mod streams;
mod world;

use std::time::Duration;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many seeds a test runs: `short`, or that many times the number in the environment variable `SOAK`.
fn soak(short: u64) -> u64 {
    let factor = std::env::var("SOAK")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1);
    short * factor
}
