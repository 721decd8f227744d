//! Pools as their users meet them: services, threads and processes behind a bulkhead.
//!
//! Whatever can be is on a paused clock. What can't (threads, processes) waits for events, never
//! for time to pass.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

mod cpu;
mod hands;
mod load;
#[cfg(unix)]
mod process;
mod watching;
mod workers;

use std::time::Duration;

/// Longer than anything here takes, however slow the machine.
const LONG: Duration = Duration::from_mins(2);

/// A moment.
const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lets everything that can run, run. The clock must be paused.
async fn settle() {
    tokio::time::sleep(ms(30)).await;
}
