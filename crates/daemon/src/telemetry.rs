//! What became of requests, in numbers.

use astscope_performance_optimizer::Window;
use astscope_protocol::messages::RequestCounts;
use astscope_supervision::{Address, Ctx, Exit, Init, Mailbox, Reply, Service};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Requests whose times are kept for the percentiles: a busy minute's.
const WINDOW: usize = 4096;

/// Messages that may wait. Whoever reports never does: a report that finds no room is lost, and the
/// numbers are news, not an account.
pub(crate) const MAILBOX: usize = 1024;

/// What `telemetry` is told and asked.
pub(crate) enum Measured {
    /// A request was answered after this time, without its own fault or with one.
    Request { took: Duration, failed: bool },
    /// The numbers so far.
    Counts(Reply<RequestCounts>),
}

/// The numbers, which outlive the service.
#[derive(Debug)]
pub(crate) struct Numbers {
    failed: u64,
    times: Window,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { failed: 0, times: Window::new(WINDOW) }
    }
}

impl Numbers {
    fn add(&mut self, took: Duration, failed: bool) {
        self.failed += u64::from(failed);
        self.times.push(took);
    }

    fn counts(&self) -> RequestCounts {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let times = self.times.percentiles();
        RequestCounts {
            total: times.n_seen,
            failed: self.failed,
            p50_us: us(times.p50),
            p95_us: us(times.p95),
            p99_us: us(times.p99),
        }
    }
}

/// Counts requests, and tells the counts.
pub(crate) struct Telemetry(Arc<Mutex<Numbers>>);

impl Service for Telemetry {
    type Args = Arc<Mutex<Numbers>>;
    type Message = Measured;

    async fn init(numbers: Self::Args, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(numbers)))
    }

    async fn run(self, mut mailbox: Mailbox<Measured>, _: Ctx) -> Result<(), Exit> {
        while let Some(message) = mailbox.recv().await {
            // Whole whenever it isn't held.
            let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match message {
                Measured::Request { took, failed } => numbers.add(took, failed),
                Measured::Counts(reply) => reply.send(numbers.counts()),
            }
        }
        Ok(())
    }
}

/// The way to it.
pub(crate) fn address() -> Address<Measured> {
    Address::new("telemetry", MAILBOX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_last_requests() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.counts(), RequestCounts::default());
        numbers.add(Duration::from_micros(7), true);
        let one = RequestCounts { total: 1, failed: 1, p50_us: 7, p95_us: 7, p99_us: 7 };
        assert_eq!(numbers.counts(), one);
        for us in 1..=WINDOW as u64 {
            numbers.add(Duration::from_micros(us), false);
        }
        let expected =
            RequestCounts { total: 4097, failed: 1, p50_us: 2048, p95_us: 3892, p99_us: 4056 };
        assert_eq!(numbers.counts(), expected);
    }
}
