//! `repository_core`: the only writer.
//!
//! Takes the right to write over from the incarnation before it, looks whether what that one left
//! behind is as it should be, and commits the batches that it is sent, one after the other. All of
//! that happens on threads that may block; the service itself is never longer than a message away.

use super::handle::Shared;
use super::ledger::TicketId;
use crate::snapshot::{Repository, Revision};
use crate::verify::{Depth, Verification};
use crate::writer::{Batch, Committed, Writer};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// What the core is asked.
pub(super) enum CoreMessage {
    /// To commit a batch. Answered with the panic's text if that is what came of it.
    Commit(TicketId, Arc<Batch>, Reply<Result<Committed, Arc<str>>>),
    /// To verify what is stored, all of it or a sample.
    Verify(bool, Reply<Arc<Verification>>),
}

/// What the core says of itself, to whoever watches.
#[derive(Clone, Debug, Default)]
pub struct CoreState {
    /// Counts the cores of this repository from 1; 0 before the first.
    pub generation: u64,
    /// Whether this one has verified what it found: until then tables that are derived from it
    /// aren't to be trusted.
    pub is_verified: bool,
    /// The newest revision that a core knows of.
    pub revision: Revision,
    /// Batches that all cores together have committed.
    pub commits: u64,
    /// The last verification.
    pub verification: Option<Arc<Verification>>,
    /// How often everything was given up because something was wrong: the owner reads the files
    /// again each time that this grows.
    pub corruptions: u64,
    /// What was wrong the last time. `None` if looking at it panicked, or if nothing ever was.
    pub corruption: Option<Arc<Verification>>,
}

pub(super) struct Core {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    /// Samples so far: each looks at other texts.
    turn: u64,
}

/// A verification under way. A panic in it is an [`Exit`].
type Verifying = Pin<Box<dyn Future<Output = Result<Verification, Exit>> + Send>>;

impl Service for Core {
    type Args = Arc<Shared>;
    type Message = CoreMessage;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        let writer = Arc::new(Repository::take_over(&shared.repository));
        let revision = shared.repository.snapshot().revision();
        let turn = writer.number();
        shared.state.send_modify(|state| {
            state.generation = turn;
            state.is_verified = false;
            state.revision = revision;
            state.commits = shared.ledger.n_commits();
        });
        Ok(Init::Ready(Self { shared, writer, turn }))
    }

    async fn run(mut self, mut mailbox: Mailbox<CoreMessage>, ctx: Ctx) -> Result<(), Exit> {
        // Nothing is committed on top of what nobody has looked at.
        let found = self.verify(&ctx, false).await;
        self.conclude(&ctx, found).await?;
        self.shared.state.send_modify(|state| state.is_verified = true);
        ctx.set_ready(true);
        let mut verifying: Option<(bool, Verifying)> = None;
        let mut askers: Vec<(bool, Reply<Arc<Verification>>)> = Vec::new();
        loop {
            if verifying.is_none()
                && let Some((whole, _)) = askers.first()
            {
                verifying = Some((*whole, self.verify(&ctx, *whole)));
            }
            let verified = async {
                match &mut verifying {
                    Some((_, verifying)) => verifying.await,
                    None => pending().await,
                }
            };
            let message = tokio::select! {
                biased;
                found = verified => {
                    let was_whole = verifying.take().is_some_and(|(whole, _)| whole);
                    let found = self.conclude(&ctx, found).await?;
                    // Who wants less than what was done has it too.
                    let done = askers.extract_if(.., |(whole, _)| was_whole || !*whole);
                    done.for_each(|(_, reply)| reply.send(Arc::clone(&found)));
                    continue;
                }
                message = mailbox.recv() => message,
            };
            match message {
                Some(CoreMessage::Commit(ticket, batch, reply)) => {
                    self.commit(&ctx, ticket, batch, reply).await?;
                }
                Some(CoreMessage::Verify(whole, reply)) => {
                    askers.retain(|(_, reply)| !reply.is_abandoned());
                    // As many as may wait in the mailbox; who is one more is told that nobody
                    // answers.
                    if askers.len() < self.shared.config.core_mailbox {
                        askers.push((whole, reply));
                    }
                }
                None => break,
            }
        }
        // What was sent before the end is committed before the end.
        while let Some(message) = mailbox.try_recv() {
            if let CoreMessage::Commit(ticket, batch, reply) = message {
                self.commit(&ctx, ticket, batch, reply).await?;
            }
        }
        Ok(())
    }
}

impl Core {
    async fn commit(
        &self,
        ctx: &Ctx,
        ticket: TicketId,
        batch: Arc<Batch>,
        reply: Reply<Result<Committed, Arc<str>>>,
    ) -> Result<(), Exit> {
        let (shared, writer) = (Arc::clone(&self.shared), Arc::clone(&self.writer));
        let work = move |_: &_| shared.ledger.commit(ticket, &batch, &writer);
        match ctx.blocking(None, work).await {
            Ok(committed) => {
                // Nobody waits for what was withdrawn. A core that is fenced off is no core.
                if let Some(committed) = committed? {
                    let revision = committed.revision;
                    self.shared.state.send_modify(|state| {
                        state.revision = revision;
                        state.commits = self.shared.ledger.n_commits();
                    });
                    reply.send(Ok(committed));
                }
                Ok(())
            }
            Err(Exit::Panicked(text)) => {
                reply.send(Err(text));
                Ok(())
            }
            Err(exit) => Err(exit),
        }
    }

    fn verify(&mut self, ctx: &Ctx, whole: bool) -> Verifying {
        self.turn += 1;
        let depth = if whole { Depth::Whole } else { self.shared.sample(self.turn) };
        let deadline = Instant::now() + self.shared.config.verify_within;
        let (shared, ctx) = (Arc::clone(&self.shared), ctx.clone());
        Box::pin(async move {
            ctx.blocking(Some(deadline), move |checkpoint| {
                shared.repository.verify(depth, &mut || checkpoint.check().is_err())
            })
            .await
        })
    }

    /// Notes what was found, and gives everything up if it is wrong. That looking at it panics is
    /// wrong enough.
    async fn conclude(
        &self,
        ctx: &Ctx,
        found: Result<Verification, Exit>,
    ) -> Result<Arc<Verification>, Exit> {
        let (found, is_wrong) = match found {
            Ok(found) => (Arc::new(found), None),
            Err(Exit::Panicked(_)) => (Arc::default(), Some(None)),
            Err(exit) => return Err(exit),
        };
        let is_wrong = is_wrong.or_else(|| (found.n_faults > 0).then(|| Some(Arc::clone(&found))));
        if is_wrong.is_some() {
            let writer = Arc::clone(&self.writer);
            ctx.blocking(None, move |_| writer.recreate()).await??;
        }
        let revision = self.shared.repository.snapshot().revision();
        self.shared.state.send_modify(|state| {
            state.verification = Some(Arc::clone(&found));
            if let Some(corruption) = is_wrong {
                state.revision = revision;
                state.corruptions += 1;
                state.corruption = corruption;
            }
        });
        Ok(found)
    }
}
