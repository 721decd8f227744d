//! Where a [`CpuPool`](super::CpuPool)'s jobs run: the only place that starts a thread.
//!
//! A seam, because threads race a paused clock: a test lets its jobs run [`Inline`], or keeps them
//! until it wants them to run.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::sync_channel;

/// What a lane runs. It does its own reporting; it may panic only where a value of the caller's
/// does while it is dropped.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs the jobs that it is given one after the other, without making the caller wait. It is given
/// the next job when the one before has reported its end, and ends itself when it is dropped and
/// its last job is done.
pub type Lane = Box<dyn Fn(Job) + Send + Sync>;

/// Makes lanes.
pub trait Executor: Send + Sync + 'static {
    /// A new lane, known by this name.
    fn lane(&self, name: &str) -> io::Result<Lane>;
}

/// A thread of its own for each lane: the production executor.
///
/// The threads are not tokio's: a job that blocks or never ends takes nothing from anybody else,
/// and holds up neither the runtime's end nor the process's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Bytes of stack for each. `None`: Rust's default, 2 MiB. A job that overflows it ends the
    /// whole process, so recursive work needs enough.
    pub stack_bytes: Option<usize>,
}

impl Executor for Threads {
    fn lane(&self, name: &str) -> io::Result<Lane> {
        let mut builder = std::thread::Builder::new().name(name.to_owned());
        if let Some(bytes) = self.stack_bytes {
            builder = builder.stack_size(bytes);
        }
        // One place: a job is sent when the one before is done but for its last few instructions.
        let (sender, receiver) = sync_channel::<Job>(1);
        builder.spawn(move || {
            for job in receiver {
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(
                        target: "astscope::supervision",
                        "a job's result panicked while it was dropped"
                    );
                }
            }
        })?;
        // A job that can't be sent is dropped, which tells its caller.
        Ok(Box::new(move |job| drop(sender.try_send(job))))
    }
}

/// No thread at all: each job runs to its end where its caller is polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inline;

impl Executor for Inline {
    fn lane(&self, _: &str) -> io::Result<Lane> {
        Ok(Box::new(|job| job()))
    }
}
