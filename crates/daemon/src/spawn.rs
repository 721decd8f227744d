//! The only place that starts a thread or a task: what runs in this process is listed here, so
//! that it can move under a supervision tree whole.
#![expect(clippy::disallowed_methods, reason = "this file owns the seam that the lint guards")]

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use std::fs::File;
use std::future::Future;
use std::io;
use std::sync::mpsc;
use tokio::runtime::{Builder, Runtime};

/// Requests that run at the same time, each on a thread of its own that waits for a pool or for a
/// slow client. More than this wait in line, so it is far above what a few clients that read
/// nothing can hold; a thread that waits costs a few pages.
const REQUEST_THREADS_MAX: usize = 512;

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

/// A pool of CPU threads, one for each core.
pub(crate) fn pool(name: &'static str) -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new()
        .thread_name(move |at| format!("astscope-{name}-{at}"))
        .stack_size(POOL_STACK_BYTES)
        .build()
}

/// Waits for a file's lock on a thread of its own, because the wait itself has no deadline. The
/// thread ends with the process if the lock never comes.
pub(crate) fn locked(file: File) -> mpsc::Receiver<io::Result<File>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    drop(std::thread::spawn(move || drop(sender.send(file.lock().map(|()| file)))));
    receiver
}

/// Runs a future on the runtime: a connection's reader or writer, a timer.
pub(crate) fn task(future: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(future));
}

/// Runs a request or a crawl on a thread that may block.
pub(crate) fn blocking(work: impl FnOnce() + Send + 'static) {
    drop(tokio::task::spawn_blocking(work));
}
