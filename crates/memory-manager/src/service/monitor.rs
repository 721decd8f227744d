//! The monitor: measures, on time and when it is told, and says how near the budget is. On time it has
//! free pages given back before, so that what it measures is held.

use super::Shared;
use crate::{Level, Sample};
use astscope_supervision::{Ctx, Exit, Fenced, Init, Lease, Mailbox, Reply, Service};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

pub(super) enum Message {
    /// Measure.
    Look,
    /// Measure, and say what was found.
    Sample(Reply<Sample>),
}

pub(super) struct Monitor {
    shared: Arc<Shared>,
    history: Lease<crate::History>,
}

impl Service for Monitor {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        let history = shared.history.lease();
        Ok(Init::Ready(Self { shared, history }))
    }

    async fn run(mut self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        // The first tick is at once: after a restart as well, the level is that of now.
        let mut ticks = interval(self.shared.config.sample_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reply = tokio::select! {
                biased;
                message = mailbox.recv() => match message {
                    None => return Ok(()),
                    Some(Message::Look) => None,
                    Some(Message::Sample(reply)) => Some(reply),
                },
                _ = ticks.tick() => {
                    self.release_free_pages(&ctx).await;
                    None
                }
            };
            let sample = self.measure()?;
            if let Some(reply) = reply {
                reply.send(sample);
            }
        }
    }
}

impl Monitor {
    /// If what is held has changed since that was done last.
    async fn release_free_pages(&self, ctx: &Ctx) {
        let shared = &self.shared;
        let Some(release) = shared.deps.release_free_pages.clone() else { return };
        if !shared.has_changed.swap(false, Ordering::Relaxed) {
            return;
        }
        let begun = Instant::now();
        let deadline = begun + shared.config.action_within;
        let released = timeout_at(deadline, ctx.blocking(Some(deadline), move |_| release())).await;
        tracing::debug!(took = ?begun.elapsed(), ?released, "free pages went back");
    }

    fn measure(&mut self) -> Result<Sample, Fenced> {
        let shared = &self.shared;
        shared.inserted.store(0, Ordering::Relaxed);
        let mut sample = Sample {
            at: shared.origin.elapsed(),
            resident: (shared.deps.read_resident)(),
            accounted: shared.deps.accounts.by_class(),
            level: Level::Normal,
        };
        let before = self.history.snapshot().latest().map_or(Level::Normal, |last| last.level);
        let config = &shared.config;
        sample.level = config.thresholds.next(before, sample.used(), config.budget_bytes);
        self.history.update(|history| {
            let mut history = history.clone();
            history.push(sample);
            history
        })?;
        shared.level.send_if_modified(|level| {
            let changes = *level != sample.level;
            *level = sample.level;
            changes
        });
        Ok(sample)
    }
}
