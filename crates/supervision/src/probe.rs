//! Faults on purpose: what a child's supervisor, its callers and its data go through when it
//! panics, fails, hangs or dawdles is tested by making it do so.
//!
//! A probe belongs to a supervisor and reaches the workers below it. There is no global registry,
//! so tests run in parallel. An unarmed probe costs a lock at each start and stop.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// Where in a worker's life a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before its init.
    Init,
    /// While it runs: at once if it does, else as soon as it does.
    Run,
    /// When it is told to stop.
    Stop,
    /// When what it held has been dropped.
    Drop,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It fails with an error.
    Error,
    /// It goes on for ever without doing anything. Only a kill ends it; at [`Point::Drop`] not
    /// even that.
    Hang,
    /// It does nothing for this long, then goes on.
    Slow(Duration),
    /// It keeps its thread busy for this long, in real time, then goes on.
    Busy(Duration),
}

/// Armed faults, shared by whoever arms them and the supervisors that they are for.
#[derive(Clone, Debug)]
pub struct Probe {
    armed: Arc<Mutex<Vec<Armed>>>,
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Armed {
    child: String,
    point: Point,
    fault: Fault,
    times: usize,
}

impl Probe {
    /// A probe without faults.
    pub fn new() -> Self {
        Self { armed: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Arms a fault for the next `times` times that `child` gets to this point. `child` is an id,
    /// or a path from the root.
    pub fn arm(&self, child: impl Into<String>, point: Point, fault: Fault, times: usize) {
        let armed = Armed { child: child.into(), point, fault, times };
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).push(armed);
        self.changed.send_replace(());
    }

    /// Disarms everything.
    pub fn clear(&self) {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes the fault that is armed here, if there is one.
    pub(crate) fn take(&self, id: &str, path: &str, point: Point) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap_or_else(PoisonError::into_inner);
        let at = armed
            .iter()
            .position(|armed| armed.point == point && (armed.child == id || armed.child == path))?;
        let hit = armed.get_mut(at)?;
        let fault = hit.fault;
        hit.times = hit.times.saturating_sub(1);
        if hit.times == 0 {
            armed.remove(at);
        }
        Some(fault)
    }

    /// Waits for a fault to be armed for this running child, and takes it.
    pub(crate) async fn strike(&self, id: &str, path: &str) -> Fault {
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(fault) = self.take(id, path, Point::Run) {
                return fault;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

/// Keeps the thread busy, in real time: tokio's clock may be paused, and a paused clock never gets
/// anywhere while a thread is busy.
pub(crate) fn keep_busy(time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}
