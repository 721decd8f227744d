//! How long an analysis may take: longer after one that wasn't done, back again after those that
//! were.

use std::time::Duration;
use tokio::sync::watch;

/// The limit, which outlives every service that asks for it.
#[derive(Debug)]
pub(super) struct Patience {
    least: Duration,
    most: Duration,
    limit: watch::Sender<Duration>,
}

impl Patience {
    pub(super) fn new(least: Duration, most: Duration) -> Self {
        Self { least, most: most.max(least), limit: watch::Sender::new(least) }
    }

    pub(super) fn limit(&self) -> Duration {
        *self.limit.borrow()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Duration> {
        self.limit.subscribe()
    }

    /// One wasn't done within `limit`. Of several that ran at once under the same limit, one makes
    /// it grow.
    pub(super) fn grow(&self, limit: Duration) {
        self.limit.send_if_modified(|now| {
            let grown = now.saturating_mul(2).min(self.most);
            let grows = *now == limit && grown > *now;
            if grows {
                *now = grown;
            }
            grows
        });
    }

    /// One was done in time.
    pub(super) fn shrink(&self) {
        self.limit.send_if_modified(|now| {
            let less = (*now / 2).max(self.least);
            let shrinks = less < *now;
            *now = less;
            shrinks
        });
    }
}
