//! What an incarnation is given to live in.
//!
//! Whatever a child starts belongs to its incarnation and is gone before the incarnation's end is
//! reported: that is what makes a restart a clean start.

use crate::address::{Pulse, Slot};
use crate::checkpoint::Checkpoint;
use crate::incarnation::{CURRENT, caught};
use crate::probe::Probe;
use crate::{ChildRef, Emitter, Exit, TreePath};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// An incarnation's own view of the tree. Cheap to clone; it may outlive the incarnation and is
/// then of no effect.
#[derive(Clone)]
pub struct Ctx(Arc<Inner>);

/// Numbers incarnations across all trees of the process.
static LAST_SERIAL: AtomicU64 = AtomicU64::new(0);

struct Inner {
    serial: u64,
    incarnation: u64,
    emitter: Emitter,
    stop: CancellationToken,
    slot: Arc<Slot>,
    pulse: Arc<Pulse>,
    scope: Mutex<Scope>,
    /// Why the incarnation has to end although its own future goes on.
    failure: watch::Sender<Option<Exit>>,
    acknowledge: Mutex<Option<oneshot::Sender<()>>>,
    acknowledged: CancellationToken,
    inherited: Inherited,
}

/// What a supervisor hands down to all that is below it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    pub(crate) probe: Probe,
    /// Of services that say nothing else.
    pub(crate) stall_after: Option<Duration>,
}

/// What belongs to the incarnation besides its own future.
#[derive(Default)]
struct Scope {
    tasks: JoinSet<()>,
    at_end: Vec<Box<dyn FnOnce() + Send>>,
    closed: bool,
}

impl Scope {
    fn forget_done(&mut self) {
        while self.tasks.try_join_next().is_some() {}
    }
}

impl Ctx {
    pub(crate) fn new(
        incarnation: u64,
        emitter: Emitter,
        slot: Arc<Slot>,
        pulse: Arc<Pulse>,
        acknowledge: oneshot::Sender<()>,
        inherited: Inherited,
    ) -> Self {
        Self(Arc::new(Inner {
            serial: LAST_SERIAL.fetch_add(1, Ordering::Relaxed) + 1,
            incarnation,
            emitter,
            stop: CancellationToken::new(),
            slot,
            pulse,
            scope: Mutex::default(),
            failure: watch::Sender::new(None),
            acknowledge: Mutex::new(Some(acknowledge)),
            acknowledged: CancellationToken::new(),
            inherited,
        }))
    }

    /// The child's name.
    pub fn id(&self) -> &Arc<str> {
        self.0.slot.id()
    }

    /// Where in the tree it is.
    pub fn path(&self) -> &TreePath {
        self.0.emitter.path()
    }

    /// Counts the child's incarnations from 1.
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// Names this incarnation among all of the process. Its path and number don't: a dynamic child
    /// may take the name of one that was given up as unkillable, and two trees may look alike.
    pub(crate) fn serial(&self) -> u64 {
        self.0.serial
    }

    /// The child itself, as others see it.
    pub fn child(&self) -> ChildRef {
        ChildRef::new(Arc::clone(&self.0.slot))
    }

    /// For events of what this child runs: a pool, a breaker.
    pub fn emitter(&self) -> &Emitter {
        &self.0.emitter
    }

    /// Waits until the child is told to stop.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn stopping(&self) {
        self.0.stop.cancelled().await;
    }

    /// Whether the child has been told to stop. It hears of that while it awaits, so a loop without
    /// an await never does; see [`blocking`](Self::blocking).
    pub fn is_stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Says that the child made progress. Receiving a message says so too: this is for work that
    /// takes long between two of them, and for children without a mailbox.
    pub fn progress(&self) {
        self.0.pulse.busy();
    }

    /// Says that the child waits for something to do, which is no lack of progress.
    pub fn idle(&self) {
        self.0.pulse.idle();
    }

    /// Says whether the child can do its work. A child whose spec says
    /// [`ready_later`](crate::ChildSpec::ready_later) is not ready until it says so itself; any
    /// other is as soon as it has started.
    pub fn set_ready(&self, ready: bool) {
        self.0.slot.set_ready(self.0.incarnation, ready);
    }

    /// Runs a task that belongs to this incarnation. It is cancelled, and waited for, before the
    /// incarnation's end is reported; if it panics, the incarnation ends with that panic. Has no
    /// effect once the incarnation is ending.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut scope = self.scope();
        if scope.closed {
            return;
        }
        scope.forget_done();
        let mut task: crate::BoxFuture<()> = Box::pin(task);
        let ctx = self.clone(); // until the scope is closed, at the latest
        let watched = CURRENT.scope(self.clone(), async move {
            if let Err(exit) = caught(&mut task).await {
                ctx.fail(exit);
            }
        });
        scope.tasks.spawn(watched.in_current_span());
    }

    /// Runs work that blocks or computes on a thread where it may. Its [`Checkpoint`] says when
    /// the child is told to stop or the deadline has passed; work that doesn't look at it can't be
    /// stopped, and the child becomes [unkillable](Exit::Unkillable).
    ///
    /// # Errors
    /// How the work ended, if not with a result: [`Exit::Panicked`], or [`Exit::Shutdown`] if the
    /// incarnation is ending already.
    ///
    /// # Cancel safety
    /// Dropping the future stops the work at its next check.
    pub async fn blocking<R: Send + 'static>(
        &self,
        deadline: Option<Instant>,
        work: impl FnOnce(&Checkpoint) -> R + Send + 'static,
    ) -> Result<R, Exit> {
        let stop = self.0.stop.child_token();
        let checkpoint = Checkpoint::new(stop.clone(), deadline);
        let (tell, told) = oneshot::channel();
        {
            let mut scope = self.scope();
            if scope.closed {
                return Err(Exit::Shutdown);
            }
            scope.forget_done();
            scope.tasks.spawn_blocking(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(&checkpoint)));
                drop(tell.send(result.map_err(|payload| Exit::panicked(&*payload))));
            });
        }
        let _stop_when_dropped = stop.drop_guard();
        let _waiting = self.0.pulse.delegated();
        told.await.unwrap_or(Err(Exit::Shutdown))
    }

    /// Runs `f` when the incarnation has ended, before its end is reported. At once, if it is
    /// ending already.
    pub(crate) fn at_end(&self, f: impl FnOnce() + Send + 'static) {
        let mut scope = self.scope();
        if scope.closed {
            drop(scope);
            return f();
        }
        scope.at_end.push(Box::new(f));
    }

    /// Ends the incarnation with this exit, whatever it is doing: what a link does.
    pub(crate) fn fail(&self, exit: Exit) {
        self.0.failure.send_if_modified(|failed| {
            let first = failed.is_none();
            if first {
                *failed = Some(exit);
            }
            first
        });
    }

    /// Waits until something that is linked to this incarnation has failed.
    pub(crate) async fn failed(&self) -> Exit {
        let mut failure = self.0.failure.subscribe();
        let exit = failure.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        match exit {
            Some(exit) => exit,
            None => std::future::pending().await, // the sender lives in here
        }
    }

    pub(crate) fn tell_to_stop(&self) {
        self.0.stop.cancel();
    }

    /// Tells the supervisor that the start is done.
    pub(crate) fn acknowledge(&self) {
        let sender = self.0.acknowledge.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.pulse.busy();
        self.0.acknowledged.cancel();
        if let Some(sender) = sender {
            // A supervisor that no longer waits has given this incarnation up.
            let _given_up = sender.send(());
        }
    }

    /// Is cancelled when the start is acknowledged.
    pub(crate) fn acknowledged(&self) -> &CancellationToken {
        &self.0.acknowledged
    }

    pub(crate) fn pulse(&self) -> &Arc<Pulse> {
        &self.0.pulse
    }

    pub(crate) fn probe(&self) -> &Probe {
        &self.0.inherited.probe
    }

    pub(crate) fn inherited(&self) -> &Inherited {
        &self.0.inherited
    }

    /// Ends whatever belongs to the incarnation, and waits for it. `Some` if a part of that
    /// panicked.
    pub(crate) async fn close(&self) -> Option<Exit> {
        self.0.stop.cancel();
        let mut tasks = {
            let mut scope = self.scope();
            scope.closed = true;
            std::mem::take(&mut scope.tasks)
        };
        tasks.shutdown().await;
        self.run_at_end()
    }

    /// Ends what can be ended of an incarnation that is no longer waited for.
    pub(crate) fn abandon(&self) {
        self.0.stop.cancel();
        {
            let mut scope = self.scope();
            scope.closed = true;
            scope.tasks.abort_all();
        }
        // Its end is reported as unkillable, and no panic changes that.
        let _panicked = self.run_at_end();
    }

    fn run_at_end(&self) -> Option<Exit> {
        let at_end = std::mem::take(&mut self.scope().at_end);
        let mut panicked = None;
        for f in at_end {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(f)) {
                panicked.get_or_insert(Exit::panicked(&*payload));
            }
        }
        panicked
    }

    fn scope(&self) -> MutexGuard<'_, Scope> {
        self.0.scope.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path();
        f.debug_struct("Ctx").field("path", path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recorder;

    #[tokio::test(start_paused = true)]
    async fn an_incarnation_forgets_the_work_that_is_done() {
        let emitter = Emitter::new(TreePath::root("a"), Recorder::new());
        let slot = Slot::anonymous("a".into());
        let ctx =
            Ctx::new(1, emitter, slot, Pulse::new(), oneshot::channel().0, Inherited::default());
        for _ in 0..100 {
            ctx.spawn(async {});
            ctx.blocking(None, |_| ()).await.unwrap();
            // Forgetting is work that tokio counts, too.
            tokio::task::yield_now().await;
        }
        assert!(ctx.scope().tasks.len() < 10, "{}", ctx.scope().tasks.len());
        assert_eq!(ctx.close().await, None);
        assert_eq!(ctx.blocking(None, |_| ()).await, Err(Exit::Shutdown));
    }
}
