//! The only place that starts a thread or a task: what runs in this process is listed here, so
//! that it can move under a supervision tree whole.
#![expect(clippy::disallowed_methods, reason = "this file owns the seam that the lint guards")]

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::future::Future;
use std::io;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// Requests that run at the same time, each on a thread of its own that waits for a pool or for a
/// slow client. More than this wait in line.
const REQUEST_THREADS_MAX: usize = 64;

/// Stack of a pool's threads. Deep trees get a stack of their own (`pattern-matcher`); this is for
/// what parsers and matchers use otherwise.
const POOL_STACK_BYTES: usize = 8 << 20;

/// The runtime of sockets, timers and request threads.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(REQUEST_THREADS_MAX)
        .thread_name("astscope-io")
        .enable_all()
        .build()
}

/// The CPU pools: indexing apart from queries, so that a query never waits behind a crawl.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    /// Reads, parses and commits.
    pub(crate) indexing: Arc<ThreadPool>,
    /// Prunes and matches.
    pub(crate) matching: Arc<ThreadPool>,
}

impl Pools {
    pub(crate) fn new() -> Result<Self, ThreadPoolBuildError> {
        let pool = |name: &'static str| {
            ThreadPoolBuilder::new()
                .thread_name(move |at| format!("astscope-{name}-{at}"))
                .stack_size(POOL_STACK_BYTES)
                .build()
                .map(Arc::new)
        };
        Ok(Self { indexing: pool("index")?, matching: pool("match")? })
    }
}

/// Runs a future on the runtime: a connection's reader or writer, a timer.
pub(crate) fn task(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

/// Runs a request or a crawl on a thread that may block.
pub(crate) fn blocking(work: impl FnOnce() + Send + 'static) {
    drop(tokio::task::spawn_blocking(work));
}
