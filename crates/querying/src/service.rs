//! Who runs queries, and how many at a time.
//!
//! A query runs on a thread of its own, as a temporary child of `worker_pool`: when that is killed
//! or panics, its query fails and nobody else's. `query_executor` admits: it waits for a seat of
//! the daemon's pool, starts the worker, and watches it; queries that it has taken are given up
//! when it ends, and whoever asked is told so. Results don't come through here: a worker sends its
//! own. `cache` remembers what was found in which file.
//!
//! Later: a query language, whose plans `query_executor` makes; now a query is code that its caller
//! has compiled.

mod cache;
mod executor;
mod turn;

pub use crate::cache::{CacheConfig, CacheStats, Forgotten};
pub use cache::{QueryCache, Recalled};
pub use executor::{ExecuteError, ExecutorConfig, ExecutorHandle};
pub use turn::{Seats, Turn};

use crate::cache::Remember;
use astscope_supervision::{ChildSpec, Strategy, SupervisorSpec};
use std::time::Duration;

/// The subtree `querying`.
pub fn supervisor<F: Remember>(executor: &ExecutorHandle, cache: &QueryCache<F>) -> ChildSpec {
    // Each can do without the others: an executor that comes back finds the workers of before.
    let tree = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(5, Duration::from_secs(10))
        .child(executor.service())
        .child(cache.service())
        .child(executor.workers());
    ChildSpec::supervisor("querying", tree)
}
