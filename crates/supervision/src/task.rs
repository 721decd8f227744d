//! Work that is done once, for somebody who may wait for it: Elixir's `Task.Supervisor`.

mod stream;

pub use stream::{OnTimeout, StreamOptions, TaskStream};

use crate::address::{ChildRef, Monitor};
use crate::policy::Stop;
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::supervisor::Supervisor;
use crate::{AdminError, Ctx, Exit, later};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a task that was told to end is waited for, as Elixir waits before it kills. It ends at
/// its next await, so only one that doesn't yield uses this up; nothing can kill that.
const GIVE_UP: Duration = Duration::from_secs(5);

/// A dynamic supervisor of temporary tasks. Cheap to clone, valid across restarts.
///
/// A task ends with its future. When it is told to stop, its future is dropped at the next await:
/// what has to be tidied up belongs in a service. One task's failure is nobody else's business,
/// unless it is [linked](Self::spawn_linked).
///
/// ```
/// # use astscope_supervision::{Strategy, SupervisorSpec, TaskSupervisor};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tasks = TaskSupervisor::new("tasks");
/// let root = SupervisorSpec::new(Strategy::OneForOne)
///     .child(tasks.spec(SupervisorSpec::dynamic(1000)))
///     .start("daemon")
///     .await?;
/// let task = tasks.spawn(async { 6 * 7 }).await?;
/// assert_eq!(task.join(Duration::from_secs(5)).await, Ok(42));
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TaskSupervisor {
    supervisor: Supervisor,
    last: Arc<AtomicU64>,
}

impl TaskSupervisor {
    /// A task supervisor of this name, not started yet.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self { supervisor: Supervisor::new(id), last: Arc::default() }
    }

    /// The place in the tree where it runs. `spec` should be a [`SupervisorSpec::dynamic`], whose
    /// bound is the bound on tasks.
    pub fn spec(&self, spec: SupervisorSpec) -> ChildSpec {
        ChildSpec::supervisor_at(&self.supervisor, spec)
    }

    /// The supervisor, to be asked.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Starts a task that nobody is linked to: if it fails, whoever joins it learns of it.
    ///
    /// # Cancel safety
    /// Dropped before it is done, the task may or may not start; if it does, it ends at once.
    pub async fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Task<T>, AdminError> {
        let (give, result) = oneshot::channel();
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        // Until the caller has the task in his hands.
        let cancel_unless_given = cancel.clone().drop_guard();
        let id = format!("task#{}", self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let spec = ChildSpec::once(id, move |ctx| async move {
            if give.is_closed() {
                return Err(Exit::ShutdownWith("nobody waits for it".into()));
            }
            tokio::select! {
                biased;
                () = ctx.stopping() => Err(Exit::Shutdown),
                () = cancelled.cancelled() => Err(Exit::Shutdown),
                value = work => {
                    // Nobody may be interested any more.
                    drop(give.send(value));
                    Ok(())
                }
            }
        });
        match self.supervisor.start_child(spec.stop(Stop::Within(Duration::from_secs(5)))).await? {
            Some(child) => {
                drop(cancel_unless_given.disarm());
                Ok(Task { monitor: child.monitor(), child, result, cancel })
            }
            None => Err(AdminError::Start(Exit::Normal)), // a task has no init that could refuse
        }
    }

    /// Starts a task whose fate is its caller's: if the task fails, the caller's incarnation ends
    /// with the same exit, and when that incarnation ends, the task is told to end. (An OTP caller
    /// that ends normally leaves its tasks alone; ours never leaves any behind.)
    ///
    /// # Cancel safety
    /// As of [`spawn`](Self::spawn).
    pub async fn spawn_linked<T: Send + 'static>(
        &self,
        caller: &Ctx,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<Task<T>, AdminError> {
        let task = self.spawn(work).await?;
        let (caller_ctx, mut monitor) = (caller.clone(), task.monitor.clone());
        let cancel_with_caller = task.cancel.clone().drop_guard();
        caller.spawn(async move {
            let exit = monitor.down().await;
            drop(cancel_with_caller.disarm());
            if exit.is_abnormal() {
                caller_ctx.fail(exit);
            }
        });
        Ok(task)
    }

    /// Runs `work` on each item, so many at a time, and gives the results as they are asked for.
    /// Both `work` and the future that it makes run in the item's task. See [`TaskStream`].
    pub fn stream<I, F, T>(
        &self,
        items: I,
        options: StreamOptions,
        work: impl Fn(I::Item) -> F + Send + Sync + 'static,
    ) -> TaskStream<T>
    where
        I: IntoIterator,
        I::IntoIter: Send + 'static,
        I::Item: Send + 'static,
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let work = Arc::new(work);
        let source = items.into_iter().map(move |item| {
            let work = Arc::clone(&work);
            async move { work(item).await }
        });
        TaskStream::new(self.clone(), source, options)
    }
}

impl fmt::Debug for TaskSupervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TaskSupervisor").field(self.supervisor.id()).finish()
    }
}

/// A task that was started. Dropping it lets the task go on; its result is then discarded.
#[derive(Debug)]
pub struct Task<T> {
    child: ChildRef,
    monitor: Monitor,
    result: oneshot::Receiver<T>,
    cancel: CancellationToken,
}

/// Why a task has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// It ended without one.
    #[error("the task ended: {0}")]
    Exited(Exit),
    /// It isn't done yet.
    #[error("the task isn't done in time")]
    Timeout,
    /// It wasn't started.
    #[error("the task wasn't started")]
    NotStarted(#[from] AdminError),
}

impl<T> Task<T> {
    /// The task, for who wants to watch it.
    pub fn child(&self) -> &ChildRef {
        &self.child
    }

    /// Waits for the result. After a timeout the task goes on, and its result is discarded.
    ///
    /// # Cancel safety
    /// Dropping the future lets the task go on, and discards its result.
    pub async fn join(mut self, within: Duration) -> Result<T, TaskError> {
        self.ended_by(later(Instant::now(), within)).await
    }

    /// Stops the task: its future is dropped at its next await. Returns its result if that was
    /// there already, `None` if it was stopped, the exit if it ended otherwise. That is
    /// [`Exit::Unkillable`] if it doesn't yield for 5 s: then it still runs. Whoever is linked to
    /// it goes on.
    pub async fn shutdown(mut self) -> Result<Option<T>, Exit> {
        self.kill();
        match self.ended_by(later(Instant::now(), GIVE_UP)).await {
            Ok(value) => Ok(Some(value)),
            Err(TaskError::Exited(Exit::Shutdown | Exit::Killed)) => Ok(None),
            Err(TaskError::Exited(exit)) => Err(exit),
            Err(TaskError::Timeout | TaskError::NotStarted(_)) => Err(Exit::Unkillable),
        }
    }

    /// Waits for its end, not only for its result: who has that finds the task's place free.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    async fn ended_by(&mut self, deadline: Instant) -> Result<T, TaskError> {
        let end = timeout_at(deadline, self.monitor.down()).await;
        match (self.result.try_recv(), end) {
            (Ok(value), _) => Ok(value),
            (Err(_), Ok(exit)) => Err(TaskError::Exited(exit)),
            (Err(_), Err(_)) => Err(TaskError::Timeout),
        }
    }

    /// Makes it end at its next await, without waiting for that.
    fn kill(&self) {
        self.cancel.cancel();
    }
}
