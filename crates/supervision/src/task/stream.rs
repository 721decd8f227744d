//! Many items, a few tasks at a time: Elixir's `async_stream`.

use super::{Task, TaskError, TaskSupervisor};
use crate::BoxFuture;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::num::NonZeroUsize;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

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

/// What happens when a task of a stream takes too long. The task is killed in any case.
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
/// others back instead of filling the memory.
///
/// [`close`](Self::close) kills what still runs and waits for it; dropping the stream only kills.
pub struct TaskStream<T> {
    tasks: TaskSupervisor,
    /// The work that is not begun yet.
    source: Option<Box<dyn Iterator<Item = BoxFuture<T>> + Send>>,
    options: StreamOptions,
    /// Begun, in the order of their items.
    slots: VecDeque<Slot<T>>,
}

enum Slot<T> {
    Running(Task<T>, Instant),
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
        Self { tasks, source: Some(Box::new(source)), options, slots: VecDeque::new() }
    }

    /// The next result, or `None` when all have been given. A task that fails gives its exit in
    /// its item's place, and the others go on.
    ///
    /// # Cancel safety
    /// No result is lost when the future is dropped, unless that is while a task is being started:
    /// that task's item is then skipped.
    pub async fn next(&mut self) -> Option<Result<T, TaskError>> {
        loop {
            self.fill().await;
            let Some(result) = self.take_done()? else {
                self.settle_one().await;
                continue;
            };
            if matches!(result, Err(TaskError::Timeout))
                && self.options.on_timeout == OnTimeout::EndStream
            {
                self.close_running().await;
            }
            return Some(result);
        }
    }

    /// Kills all tasks that still run, and waits until they are gone.
    pub async fn close(mut self) {
        self.close_running().await;
    }

    /// Starts tasks as long as there is room.
    async fn fill(&mut self) {
        let max = self.options.max_concurrency.max(1);
        while self.n_running() < max && self.slots.len() < 2 * max {
            let Some(work) = self.source.as_mut().and_then(Iterator::next) else {
                self.source = None;
                return;
            };
            let slot = match self.tasks.spawn(work).await {
                Ok(task) => Slot::Running(task, Instant::now() + self.options.timeout),
                Err(error) => Slot::Done(Err(error.into())),
            };
            self.slots.push_back(slot);
        }
    }

    fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| matches!(slot, Slot::Running(..))).count()
    }

    /// A result whose turn it is: `None` if there will be no more, `Some(None)` if none is there
    /// yet.
    #[expect(clippy::option_option, reason = "the two absences differ, and only `next` sees them")]
    fn take_done(&mut self) -> Option<Option<Result<T, TaskError>>> {
        let at = if self.options.ordered {
            self.slots.front().map(|slot| matches!(slot, Slot::Done(_)))?.then_some(0)
        } else {
            let done = self.slots.iter().position(|slot| matches!(slot, Slot::Done(_)));
            self.slots.front()?;
            done
        };
        match at.and_then(|at| self.slots.remove(at)) {
            Some(Slot::Done(result)) => Some(Some(result)),
            Some(running @ Slot::Running(..)) => {
                self.slots.push_front(running);
                Some(None)
            }
            None => Some(None),
        }
    }

    /// Waits until one more task is done or out of time.
    async fn settle_one(&mut self) {
        let (at, result) = {
            let mut waiting: Vec<_> = self
                .slots
                .iter_mut()
                .enumerate()
                .filter_map(|(at, slot)| match slot {
                    Slot::Running(task, deadline) => {
                        Some((at, Box::pin(task.poll_join(*deadline))))
                    }
                    Slot::Done(_) => None,
                })
                .collect();
            poll_fn(|cx| {
                for (at, join) in &mut waiting {
                    if let Poll::Ready(result) = join.as_mut().poll(cx) {
                        return Poll::Ready((*at, result));
                    }
                }
                Poll::Pending
            })
            .await
        };
        if let Some(slot) = self.slots.get_mut(at) {
            if let (Slot::Running(task, _), Err(TaskError::Timeout)) = (&mut *slot, &result) {
                task.kill();
                task.gone().await;
            }
            *slot = Slot::Done(result);
        }
    }

    async fn close_running(&mut self) {
        self.source = None;
        let mut slots = std::mem::take(&mut self.slots);
        for slot in &slots {
            if let Slot::Running(task, _) = slot {
                task.kill();
            }
        }
        for slot in &mut slots {
            if let Slot::Running(task, _) = slot {
                task.gone().await;
            }
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
