//! Many items, a few tasks at a time: Elixir's `async_stream`.

use super::{GIVE_UP, Task, TaskError, TaskSupervisor};
use crate::{AdminError, BoxFuture, later};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// How a [`TaskStream`] runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// Tasks at the same time, at least 1. By default the number of cores.
    pub max_concurrency: usize,
    /// Whether results come in the order of the items, rather than as they are done.
    pub ordered: bool,
    /// How long each task may take, from its own start. 5 s by default.
    pub timeout: Duration,
    /// What happens to one that takes longer.
    pub on_timeout: OnTimeout,
}

/// What happens when a task of a stream takes too long. The task is killed in any case, and waited
/// for. (One that doesn't yield for 5 s more can't be, and is left alone.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// The stream gives [`TaskError::Timeout`] and ends, with all other tasks.
    EndStream,
    /// Its item gives [`TaskError::Timeout`], and the others go on.
    KillTask,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            max_concurrency: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            ordered: true,
            timeout: Duration::from_secs(5),
            on_timeout: OnTimeout::EndStream,
        }
    }
}

/// The results of many tasks.
///
/// Items are pulled only when a task can be started for them, and only while somebody waits for
/// [`next`](Self::next). An ordered stream keeps results that are done before their turn; unlike
/// Elixir's it keeps at most as many as there may be tasks, so a slow item at the head holds the
/// others back instead of filling the memory. A source that panics does so in `next`, and the
/// stream ends after the items that it gave before.
///
/// [`close`](Self::close) kills what still runs and waits for it; dropping the stream only kills.
pub struct TaskStream<T> {
    tasks: TaskSupervisor,
    /// The work that is not begun yet.
    source: Option<Box<dyn Iterator<Item = BoxFuture<T>> + Send>>,
    options: StreamOptions,
    /// The next task, on its way. In here, so that its item isn't lost with the future that asked
    /// for it.
    starting: Option<BoxFuture<Result<Task<T>, AdminError>>>,
    /// Begun, in the order of their items.
    slots: VecDeque<Slot<T>>,
    /// Killed, and to be waited for before the stream ends.
    ending: Vec<Task<T>>,
}

enum Slot<T> {
    /// Until its deadline.
    Running(Task<T>, Instant),
    /// Killed at its deadline, and given up at this one.
    TimedOut(Task<T>, Instant),
    Done(Result<T, TaskError>),
}

impl<T: Send + 'static> TaskStream<T> {
    pub(super) fn new<F>(
        tasks: TaskSupervisor,
        source: impl Iterator<Item = F> + Send + 'static,
        options: StreamOptions,
    ) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        let source = source.map(|work| -> BoxFuture<T> { Box::pin(work) });
        Self {
            tasks,
            source: Some(Box::new(source)),
            options,
            starting: None,
            slots: VecDeque::new(),
            ending: Vec::new(),
        }
    }

    /// The next result, or `None` when all have been given. A task that fails gives its exit in
    /// its item's place, and the others go on.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Result<T, TaskError>> {
        loop {
            self.fill().await;
            if self.slots.is_empty() {
                return None;
            }
            let Some(at) = self.whose_turn() else {
                self.settle_one().await;
                continue;
            };
            let is_timeout =
                matches!(self.slots.get(at), Some(Slot::Done(Err(TaskError::Timeout))));
            if is_timeout && self.options.on_timeout == OnTimeout::EndStream {
                let last = self.slots.remove(at);
                self.kill_all();
                self.slots.extend(last); // until it is given
                self.all_ended().await;
                self.slots.clear();
                return Some(Err(TaskError::Timeout));
            }
            if let Some(Slot::Done(result)) = self.slots.remove(at) {
                return Some(result);
            }
        }
    }

    /// Kills all tasks that still run, and waits until they are gone.
    pub async fn close(mut self) {
        if let Some(starting) = self.starting.take()
            && let Ok(task) = starting.await
        {
            task.kill();
            self.ending.push(task);
        }
        self.kill_all();
        self.all_ended().await;
    }

    /// Starts tasks as long as there is room.
    async fn fill(&mut self) {
        let max = self.options.max_concurrency.max(1);
        loop {
            if let Some(starting) = &mut self.starting {
                let slot = match starting.await {
                    Ok(task) => Slot::Running(task, later(Instant::now(), self.options.timeout)),
                    Err(error) => Slot::Done(Err(error.into())),
                };
                self.starting = None;
                self.slots.push_back(slot);
            }
            if self.n_running() >= max || self.slots.len() >= max.saturating_mul(2) {
                return;
            }
            // Out of its place while it works, so that one that panics or is done is gone.
            let Some(mut source) = self.source.take() else { return };
            let Some(work) = source.next() else { return };
            self.source = Some(source);
            let tasks = self.tasks.clone();
            self.starting = Some(Box::pin(async move { tasks.spawn(work).await }));
        }
    }

    fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot, Slot::Done(_))).count()
    }

    /// Where the next result is, if it is there.
    fn whose_turn(&self) -> Option<usize> {
        let candidates = if self.options.ordered { 1 } else { self.slots.len() };
        self.slots.iter().take(candidates).position(|slot| matches!(slot, Slot::Done(_)))
    }

    /// Waits until one more task is done or out of time.
    async fn settle_one(&mut self) {
        let (at, result) = {
            let mut waiting: Vec<_> = self
                .slots
                .iter_mut()
                .enumerate()
                .filter_map(|(at, slot)| match slot {
                    Slot::Running(task, deadline) | Slot::TimedOut(task, deadline) => {
                        Some((at, Box::pin(task.ended_by(*deadline))))
                    }
                    Slot::Done(_) => None,
                })
                .collect();
            poll_fn(|cx| {
                for (at, end) in &mut waiting {
                    if let Poll::Ready(result) = end.as_mut().poll(cx) {
                        return Poll::Ready((*at, result));
                    }
                }
                Poll::Pending
            })
            .await
        };
        let Some(slot) = self.slots.get_mut(at) else { return };
        let timed_out = Slot::Done(Err(TaskError::Timeout));
        *slot = match (std::mem::replace(slot, timed_out), result) {
            (Slot::Running(task, _), Err(TaskError::Timeout)) => {
                task.kill();
                Slot::TimedOut(task, later(Instant::now(), GIVE_UP))
            }
            // Late is late, whatever came of it.
            (Slot::TimedOut(..), _) => Slot::Done(Err(TaskError::Timeout)),
            (Slot::Running(..) | Slot::Done(_), result) => Slot::Done(result),
        };
    }

    /// Kills all tasks and forgets all results.
    fn kill_all(&mut self) {
        self.source = None;
        for slot in self.slots.drain(..) {
            if let Slot::Running(task, _) | Slot::TimedOut(task, _) = slot {
                task.kill();
                self.ending.push(task);
            }
        }
    }

    async fn all_ended(&mut self) {
        let deadline = later(Instant::now(), GIVE_UP);
        while let Some(task) = self.ending.last_mut() {
            // An error: it is left alone.
            let _given_up = timeout_at(deadline, task.monitor.down()).await;
            self.ending.pop();
        }
    }
}

impl<T> Drop for TaskStream<T> {
    fn drop(&mut self) {
        for slot in &self.slots {
            if let Slot::Running(task, _) = slot {
                task.kill();
            }
        }
    }
}

impl<T> fmt::Debug for TaskStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskStream").field("options", &self.options).finish_non_exhaustive()
    }
}
