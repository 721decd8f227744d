//! `repository_enhanced`: tables over all files, as of the newest revision.
//!
//! It follows the core's announcements: a new revision advances the tables by what changed, a new
//! core has them built anew and compared, since what happened to the old one nobody knows. Until
//! that is done the service isn't ready, and what it answers is marked.
//!
//! The tables are sizes, depths and syntax errors. Metrics of functions and the symbols that refer
//! to each other are of the same kind, derived from snapshots file by file, and belong here.

use super::core::CoreState;
use super::handle::Shared;
use crate::analytics::{Analytics, AnalyticsReport};
use crate::snapshot::Revision;
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

/// What it is asked.
pub(super) enum EnhancedMessage {
    /// What the tables say; with a revision, once they have reached it.
    Report(Option<Revision>, Reply<EnhancedReport>),
}

/// What the tables say, and what that is worth.
#[derive(Clone, Debug, Default)]
pub struct EnhancedReport {
    /// The tables, as of their revision.
    pub analytics: Arc<AnalyticsReport>,
    /// Whether they are still being built for the core that is up: what they say may be old.
    pub is_degraded: bool,
    /// The core that they were built for.
    pub generation: u64,
    /// How often this incarnation has built them from nothing.
    pub rebuilds: u64,
    /// How often that gave another result than what was there before, at the same revision.
    pub drifts: u64,
}

pub(super) struct Enhanced {
    shared: Arc<Shared>,
    tables: Option<Analytics>,
    report: EnhancedReport,
    /// Callers that wait for a revision.
    waiting: Vec<(Revision, Reply<EnhancedReport>)>,
}

/// Tables under way, and the core that they are built for if that is from nothing.
struct Work {
    rebuild_for: Option<u64>,
    tables: Pin<Box<dyn Future<Output = Result<Option<Analytics>, Exit>> + Send>>,
}

impl Service for Enhanced {
    type Args = Arc<Shared>;
    type Message = EnhancedMessage;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        let report = EnhancedReport { is_degraded: true, ..EnhancedReport::default() };
        Ok(Init::Ready(Self { shared, tables: None, report, waiting: Vec::new() }))
    }

    async fn run(mut self, mut mailbox: Mailbox<EnhancedMessage>, ctx: Ctx) -> Result<(), Exit> {
        let mut core = self.shared.state.subscribe();
        let mut work: Option<Work> = None;
        loop {
            let state = core.borrow_and_update().clone();
            if state.generation != self.report.generation && !self.report.is_degraded {
                self.report.is_degraded = true;
                ctx.set_ready(false);
            }
            if work.is_none() {
                work = self.next_work(&ctx, &state);
            }
            let done = async {
                match &mut work {
                    Some(work) => (&mut work.tables).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                done = done => {
                    let rebuilt_for = work.take().and_then(|work| work.rebuild_for);
                    // `None`: it is being told to stop, which the mailbox says next.
                    if let Some(tables) = done? {
                        self.take(&ctx, tables, rebuilt_for);
                    }
                }
                changed = core.changed() => changed?,
                message = mailbox.recv() => match message {
                    Some(EnhancedMessage::Report(at_least, reply)) => self.answer(at_least, reply),
                    None => return Ok(()),
                },
            }
        }
    }
}

impl Enhanced {
    /// What there is to do, if the core that is up has verified what it found.
    fn next_work(&mut self, ctx: &Ctx, state: &CoreState) -> Option<Work> {
        if !state.is_verified {
            return None;
        }
        let is_new = state.generation != self.report.generation;
        let to = self.shared.repository.snapshot();
        if !is_new && self.report.analytics.revision == Some(to.revision()) {
            return None;
        }
        // The old tables stay, to be compared with.
        let from =
            if is_new { Analytics::default() } else { self.tables.take().unwrap_or_default() };
        let ctx = ctx.clone();
        let tables = Box::pin(async move {
            ctx.blocking(None, move |checkpoint| {
                from.advance(to, &mut || checkpoint.check().is_err())
            })
            .await
        });
        Some(Work { rebuild_for: is_new.then_some(state.generation), tables })
    }

    fn take(&mut self, ctx: &Ctx, tables: Analytics, rebuilt_for: Option<u64>) {
        let analytics = tables.report(self.shared.config.top);
        if let Some(generation) = rebuilt_for {
            let before = &self.report.analytics;
            if before.revision == analytics.revision && **before != analytics {
                self.report.drifts += 1;
            }
            self.report.rebuilds += 1;
            self.report.generation = generation;
            self.report.is_degraded = self.shared.state.borrow().generation != generation;
            ctx.set_ready(!self.report.is_degraded);
        }
        self.report.analytics = Arc::new(analytics);
        self.tables = Some(tables);
        for (at_least, reply) in std::mem::take(&mut self.waiting) {
            self.answer(Some(at_least), reply);
        }
    }

    fn answer(&mut self, at_least: Option<Revision>, reply: Reply<EnhancedReport>) {
        match at_least {
            Some(revision) if self.report.analytics.revision < Some(revision) => {
                self.waiting.retain(|(_, reply)| !reply.is_abandoned());
                // Who is one more than may wait is told that nobody answers.
                if self.waiting.len() < self.shared.config.enhanced_mailbox {
                    self.waiting.push((revision, reply));
                }
            }
            _ => reply.send(self.report.clone()),
        }
    }
}
