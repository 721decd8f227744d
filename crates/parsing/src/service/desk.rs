//! `parser` and `batch_processor`: each takes what it is sent and has it parsed, on a thread that
//! ends with it.

use crate::{Backend, Limits, Source};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Service};
use astscope_syntax::{ParsedFile, SkipReason};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What became of each text; or the words of a panic, which may be any text's.
pub(super) type Parsed = Result<Vec<Result<ParsedFile, SkipReason>>, Arc<str>>;

/// Texts to be parsed. Who drops the other end of `reply` has left.
pub(super) struct Job {
    pub(super) sources: Arc<[Source]>,
    pub(super) limits: Limits,
    pub(super) reply: oneshot::Sender<Parsed>,
}

/// What both services are made from.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) counts: Arc<Counts>,
    pub(super) idle: Duration,
}

/// What was parsed so far. Outlives the services.
#[derive(Debug, Default)]
pub(super) struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
}

/// What a workspace has had parsed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParsingCounts {
    /// Texts that have a tree.
    pub n_done: u64,
    /// Texts that have none, for whatever reason.
    pub n_failed: u64,
    /// Batches whose caller left before they were done.
    pub n_given_up: u64,
}

impl Counts {
    pub(super) fn read(&self) -> ParsingCounts {
        ParsingCounts {
            n_done: self.done.load(Ordering::Relaxed),
            n_failed: self.failed.load(Ordering::Relaxed),
            n_given_up: self.given_up.load(Ordering::Relaxed),
        }
    }

    fn note(&self, results: &[Result<ParsedFile, SkipReason>]) {
        let n_done = results.iter().filter(|result| result.is_ok()).count();
        self.done.fetch_add(n_done as u64, Ordering::Relaxed);
        self.failed.fetch_add((results.len() - n_done) as u64, Ordering::Relaxed);
    }
}

impl Desk {
    /// Has these parsed, and answers, unless it is stopped over it: then its caller asks again, for
    /// what a backend that was stopped says isn't what there is to say of a text.
    async fn work(self, ctx: Ctx, job: Job) {
        let Job { sources, limits, mut reply } = job;
        let backend = self.backend;
        let parsed = tokio::select! {
            biased;
            () = reply.closed() => {
                // The work ends with its future.
                self.counts.given_up.fetch_add(1, Ordering::Relaxed);
                return;
            }
            parsed = ctx.blocking(None, move |checkpoint| {
                backend.parse_batch(&sources, &limits, &|| checkpoint.check().is_err())
            }) => parsed,
        };
        let answer = match parsed {
            _ if ctx.is_stopping() => return,
            Ok(results) => {
                self.counts.note(&results);
                Ok(results)
            }
            Err(Exit::Panicked(text)) => Err(text),
            Err(_) => return,
        };
        // Who has left just now doesn't want it.
        drop(reply.send(answer));
    }
}

/// Parses single texts.
#[derive(Debug)]
pub(super) struct Parser(Desk);

impl Service for Parser {
    type Args = Desk;
    type Message = Job;

    async fn init(desk: Desk, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(desk)))
    }

    async fn run(self, mut mailbox: Mailbox<Job>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(job) = mailbox.recv().await {
            ctx.spawn(self.0.clone().work(ctx.clone(), job));
        }
        Ok(())
    }
}

/// Parses batches, and leaves when there has been none for a while.
#[derive(Debug)]
pub(super) struct BatchProcessor(Desk);

impl Service for BatchProcessor {
    type Args = Desk;
    type Message = Job;

    async fn init(desk: Desk, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(desk)))
    }

    async fn run(self, mut mailbox: Mailbox<Job>, ctx: Ctx) -> Result<(), Exit> {
        // Held once by each batch that is at work.
        let at_work = Arc::new(());
        loop {
            match timeout(self.0.idle, mailbox.recv()).await {
                Ok(Some(job)) => {
                    let (desk, own, at_work) = (self.0.clone(), ctx.clone(), Arc::clone(&at_work));
                    ctx.spawn(async move {
                        desk.work(own, job).await;
                        drop(at_work);
                    });
                }
                Ok(None) => return Ok(()),
                // What comes after this look is dropped with the mailbox, and sent again.
                Err(_idle) if Arc::strong_count(&at_work) == 1 && mailbox.is_empty() => {
                    return Ok(());
                }
                Err(_idle) => {}
            }
        }
    }
}
