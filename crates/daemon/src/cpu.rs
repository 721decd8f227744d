//! Threads that compute: one a core, for what many queries share.

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Stack of a thread that may parse or match. Deep trees get a stack of their own
/// (`pattern-matcher`); this is for what parsers and matchers use otherwise.
pub(crate) const STACK_BYTES: usize = 8 << 20;

/// A pool of CPU threads, one for each core. They end with it, and with nothing else: what runs on
/// them belongs to the request or the crawl that waits for it.
pub(crate) fn pool(name: &'static str) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .thread_name(move |at| format!("astscope-{name}-{at}"))
        .stack_size(STACK_BYTES)
        .build()
}
