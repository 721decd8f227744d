//! The pressure handler: does what a level asks for when the level is entered, and on request.
//!
//! It acts when the level changes, not as long as it lasts: what could be dropped was, and doing
//! it again each time would only keep the caches empty. Which level it acted on last stands above
//! it, so that a crash in the middle of an action is made up for, and a finished one isn't
//! repeated.

use super::cleaner::{Part, ask_each, failure, freed};
use super::{ANSWER_WITHIN, Shared, caches, cleaner};
use crate::{Action, CacheKind, Cleanup, Compression, Freed, Level, actions_of};
use astscope_supervision::{CallError, Ctx, Exit, Fenced, Init, Lease, Mailbox, Reply, Service};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Actions that the log keeps: some twenty changes of the level.
pub const ACTIONS_MAX: usize = 100;

/// An action that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRecord {
    /// When it began, from the same origin as the samples.
    pub at: Duration,
    /// The level whose action it is. Normal for one that was asked for by itself.
    pub level: Level,
    /// What was done.
    pub action: Action,
    /// What that freed.
    pub freed: Freed,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if something did. It may still have freed something.
    pub error: Option<Arc<str>>,
}

/// What a request was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relief {
    /// The level that was asked for. Normal for a single action.
    pub level: Level,
    /// What was done, in order.
    pub actions: Vec<ActionRecord>,
}

impl Relief {
    /// What was freed in all.
    pub fn freed(&self) -> Freed {
        self.actions.iter().map(|record| record.freed).sum()
    }
}

/// Why pressure wasn't relieved as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PressureError {
    /// An action went wrong. The level's other actions were done.
    #[error("handling memory pressure of level {level}: {action}: {reason}")]
    HandlingFailed {
        /// The level.
        level: Level,
        /// The first action that went wrong.
        action: Action,
        /// How.
        reason: Arc<str>,
        /// What was freed all the same.
        freed: Freed,
    },
    /// The pressure handler didn't answer.
    #[error("asking the pressure handler")]
    Unavailable(#[from] CallError),
}

impl PressureError {
    /// Its stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::HandlingFailed { .. } => "pressure_handling_failed",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

pub(super) type ReliefReply = Reply<Result<Relief, PressureError>>;

pub(super) enum Message {
    /// Do what this level asks for.
    Relieve(Level, ReliefReply),
    /// Have owners make smaller what is cold.
    Compress(Compression, ReliefReply),
    /// Say what this level's actions would free.
    Estimate(Level, Reply<Freed>),
}

/// What must outlive the service.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    /// The level that was acted on last.
    acted_on: Level,
    /// The last actions, the oldest first.
    pub(super) log: VecDeque<ActionRecord>,
}

pub(super) struct PressureHandler {
    shared: Arc<Shared>,
    book: Lease<Book>,
}

impl Service for PressureHandler {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        let book = shared.book.lease();
        Ok(Init::Ready(Self { shared, book }))
    }

    async fn run(mut self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        let mut levels = self.shared.level.subscribe();
        loop {
            let level = *levels.borrow_and_update();
            if level != self.book.snapshot().acted_on {
                tokio::select! {
                    biased;
                    () = ctx.stopping() => return Ok(()),
                    entered = self.enter(level, &ctx) => entered?,
                }
            }
            let message = tokio::select! {
                biased;
                message = mailbox.recv() => match message {
                    None => return Ok(()),
                    Some(message) => message,
                },
                changed = levels.changed() => {
                    changed?;
                    continue;
                }
            };
            tokio::select! {
                biased;
                () = ctx.stopping() => return Ok(()),
                answered = self.answer(message, &ctx) => answered?,
            }
        }
    }
}

impl PressureHandler {
    /// Acts on a level that has just been entered.
    async fn enter(&mut self, level: Level, ctx: &Ctx) -> Result<(), Fenced> {
        if let Err(error) = self.perform(level, actions_of(level), ctx).await? {
            tracing::warn!(%level, %error, "memory pressure");
        }
        self.book.update(|book| Book { acted_on: level, ..book.clone() })?;
        if level != Level::Normal {
            self.shared.look(); // whether it helped
        }
        Ok(())
    }

    async fn answer(&mut self, message: Message, ctx: &Ctx) -> Result<(), Fenced> {
        match message {
            Message::Relieve(level, reply) => {
                reply.send(self.perform(level, actions_of(level), ctx).await?);
                self.shared.look();
            }
            Message::Compress(compression, reply) => {
                let action = [Action::Compress(compression)];
                reply.send(self.perform(Level::Normal, &action, ctx).await?);
            }
            Message::Estimate(level, reply) => reply.send(self.estimate(level, ctx).await),
        }
        Ok(())
    }

    /// Performs actions in order, all of them even if one goes wrong, and writes them down.
    async fn perform(
        &mut self,
        level: Level,
        actions: &[Action],
        ctx: &Ctx,
    ) -> Result<Result<Relief, PressureError>, Fenced> {
        let mut relief = Relief { level, actions: Vec::with_capacity(actions.len()) };
        for action in actions {
            let (begun, at) = (Instant::now(), self.shared.origin.elapsed());
            let (freed, error) = self.act(*action, ctx).await;
            let (action, took, error) = (*action, begun.elapsed(), error.map(Arc::from));
            let record = ActionRecord { at, level, action, freed, took, error };
            relief.actions.push(record.clone());
            self.book.update(|book| {
                let mut book = book.clone();
                if book.log.len() == ACTIONS_MAX {
                    book.log.pop_front();
                }
                book.log.push_back(record);
                book
            })?;
        }
        let failed =
            relief.actions.iter().find_map(|done| Some((done.action, done.error.clone()?)));
        Ok(match failed {
            None => Ok(relief),
            Some((action, reason)) => {
                Err(PressureError::HandlingFailed { level, action, reason, freed: relief.freed() })
            }
        })
    }

    /// What an action freed, and what went wrong.
    async fn act(&self, action: Action, ctx: &Ctx) -> (Freed, Option<String>) {
        let shared = &self.shared;
        let within = shared.config.action_within;
        match action {
            Action::Clear(kind) => {
                let clear = |reply| caches::Message::Clear(vec![kind], reply);
                // A cache manager that died on it, or isn't there, is no reason to keep the bytes:
                // the caches stand above it.
                let cleared = shared.cache_manager.call(ANSWER_WITHIN, clear).await;
                let cleared = cleared.unwrap_or_else(|_| shared.caches.clear(kind));
                let parts = self.ask_owners(kind, Cleanup::older_than(Duration::ZERO), ctx).await;
                (cleared + freed(&parts), failure(&parts))
            }
            Action::Compress(compression) => {
                let deadline = Instant::now() + shared.config.cleanup_within;
                let parts = ask_each(ctx, shared.owners(), deadline, move |owner, stop| {
                    owner.compress(compression, stop)
                });
                let parts = parts.await;
                (freed(&parts), failure(&parts))
            }
            Action::Cleanup(cleanup) => match cleaner::request(shared, cleanup, within).await {
                Ok(report) => (report.freed(), report.failure()),
                Err(error) => (Freed::default(), Some(error.to_string())),
            },
            Action::ReleaseFreePages => self.release(Instant::now() + within, ctx).await,
        }
    }

    /// Asks the owners that are part of a cache.
    async fn ask_owners(&self, kind: CacheKind, cleanup: Cleanup, ctx: &Ctx) -> Vec<Part> {
        let mut owners = self.shared.owners();
        owners.retain(|owner| owner.cache() == Some(kind));
        let deadline = Instant::now() + self.shared.config.cleanup_within;
        ask_each(ctx, owners, deadline, move |owner, stop| Some(owner.reclaim(cleanup, stop))).await
    }

    /// Freed is what the kernel says is gone.
    async fn release(&self, deadline: Instant, ctx: &Ctx) -> (Freed, Option<String>) {
        let deps = &self.shared.deps;
        let Some(release) = deps.release_free_pages.clone() else {
            return (Freed::default(), None);
        };
        let read_resident = Arc::clone(&deps.read_resident);
        let work = ctx.blocking(Some(deadline), move |_| {
            let before = read_resident();
            release();
            before.zip(read_resident()).map_or(0, |(before, after)| before.saturating_sub(after))
        });
        match timeout_at(deadline, work).await {
            Ok(Ok(bytes)) => (Freed { bytes, items: 0 }, None),
            Ok(Err(exit)) => (Freed::default(), Some(exit.to_string())),
            Err(_) => (Freed::default(), Some("it didn't come back in time".to_owned())),
        }
    }

    async fn estimate(&self, level: Level, ctx: &Ctx) -> Freed {
        let mut sum = Freed::default();
        for action in actions_of(level) {
            match action {
                Action::Clear(kind) => {
                    let stats = self.shared.caches.stats(*kind);
                    sum += Freed { bytes: stats.bytes, items: stats.entries as u64 };
                    let all = Cleanup::older_than(Duration::ZERO).dry_run();
                    sum += freed(&self.ask_owners(*kind, all, ctx).await);
                }
                Action::Cleanup(cleanup) => {
                    let dry = cleanup.dry_run();
                    let deadline = Instant::now() + self.shared.config.cleanup_within;
                    let ask = move |owner: &dyn crate::Reclaim, stop: &dyn Fn() -> bool| {
                        Some(owner.reclaim(dry, stop))
                    };
                    sum += freed(&ask_each(ctx, self.shared.owners(), deadline, ask).await);
                }
                Action::Compress(_) | Action::ReleaseFreePages => {}
            }
        }
        sum
    }
}
