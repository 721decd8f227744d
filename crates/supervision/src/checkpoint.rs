//! How work that no await interrupts is asked to end.
//!
//! A thread can't be killed, and a loop without an await can't be either: whoever runs one calls
//! [`Checkpoint::check`] every so many steps and gives up when it says so.

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Asked in loops: goes on or gives up. Cheap to clone and to check.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    stop: CancellationToken,
    deadline: Option<Instant>,
}

impl Checkpoint {
    /// Gives up when `stop` is cancelled or the deadline has passed.
    pub fn new(stop: CancellationToken, deadline: Option<Instant>) -> Self {
        Self { stop, deadline }
    }

    /// Whether the work may go on. To be asked about every millisecond of work: it reads the clock.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.stop.is_cancelled() {
            return Err(Interrupted::Stopped);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(Interrupted::DeadlinePassed),
            Some(_) | None => Ok(()),
        }
    }

    /// When the work has to be done.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// Why work gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Whoever runs it was told to stop, or nobody waits for its result.
    #[error("stopped")]
    Stopped,
    /// Its time is over.
    #[error("out of time")]
    DeadlinePassed,
}
