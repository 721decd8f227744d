//! From a caller's thread to a process and back: sends batches, judges answers, places the blame.
//!
//! A caller is a thread that may block, and it has work of its own to do with each answer, decoding
//! it: so it waits for the runtime with [`Handle::block_on`] rather than being called from there.
//! That needs no queue and no thread in between, and a wait can have a deadline, which a blocking
//! receive of a channel can't.

use super::process::{Batch, Fault, Message, Report};
use super::quarantine::{Quarantine, Quarantined};
use super::{ParserConfig, ParserStatus};
use crate::worker::Restrictions;
use crate::{Backend, Limits, Source, kind_table};
use astscope_supervision::{Pool, PoolError, Worker};
use astscope_syntax::{ParsedFile, SkipReason, encoding};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

/// How often a caller is asked whether it still wants an answer.
const ASK_EVERY: Duration = Duration::from_millis(10);
/// Processes that may be lost in a row without a file to blame before the rest of a batch is given
/// up: the batch is tried again once.
const FUTILE_MAX: u32 = 2;
/// Processes that may be gone before they have the batch. Each was lent when it had just been lost
/// with somebody else's; more than a few are a pool that is being stopped.
const MISSED_MAX: u32 = 16;
/// Characters of a reason: a sentence, and what a process wrote before it died.
const WHY_CHARS_MAX: usize = 400;

/// What the handle and the processes both know.
#[derive(Debug)]
pub(super) struct Shared {
    quarantine: Quarantine,
    queue_time_max: Duration,
    n_lost: AtomicU64,
    /// Of the process that was greeted last; [`NOBODY`] before that.
    restrictions: AtomicU16,
}

/// No restrictions are known.
const NOBODY: u16 = u16::MAX;

impl Shared {
    pub(super) fn new(config: &ParserConfig) -> Self {
        Self {
            quarantine: Quarantine::open(config.quarantine_dir.as_deref(), config.quarantine_max),
            queue_time_max: config.queue_time_max,
            n_lost: AtomicU64::new(0),
            restrictions: AtomicU16::new(NOBODY),
        }
    }

    pub(super) fn greeted(&self, restrictions: Restrictions) {
        self.restrictions.store(restrictions.bits().into(), Ordering::Relaxed);
    }
}

/// Parses in processes of their own. Cheap to clone.
///
/// # Panics
/// Its [`Backend`] blocks, and panics where an async runtime polls, or when the runtime that it was
/// given is gone: whoever parses ends before that does.
#[derive(Clone)]
pub struct ParserHandle {
    pool: Pool<Message>,
    shared: Arc<Shared>,
    runtime: Handle,
}

impl ParserHandle {
    pub(super) fn new(pool: Pool<Message>, shared: Arc<Shared>, runtime: Handle) -> Self {
        Self { pool, shared, runtime }
    }

    /// The parsers at this moment.
    pub fn status(&self) -> ParserStatus {
        let restrictions = u8::try_from(self.shared.restrictions.load(Ordering::Relaxed)).ok();
        ParserStatus {
            pool: self.pool.status(),
            restrictions: restrictions.map(Restrictions::from_bits),
            n_lost: self.shared.n_lost.load(Ordering::Relaxed),
            quarantine: self.shared.quarantine.status(),
        }
    }

    /// The files that aren't tried again, the oldest first.
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.shared.quarantine.list()
    }
}

impl fmt::Debug for ParserHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParserHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Backend for ParserHandle {
    fn parse_batch(
        &self,
        batch: &[Source],
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> Vec<Result<ParsedFile, SkipReason>> {
        let mut run = Run {
            handle: self,
            limits,
            stop,
            batch,
            results: batch.iter().map(|_| None).collect(),
            suspect: None,
            n_futile: 0,
            n_missed: 0,
            lost: None,
        };
        while let Some(sent) = run.next() {
            let ending = self.runtime.block_on(run.attempt(&sent));
            run.conclude(&sent, ending);
        }
        let stopped = || Err(SkipReason::ParseTimeout);
        run.results.into_iter().map(|result| result.unwrap_or_else(stopped)).collect()
    }
}

/// A batch on its way.
struct Run<'r> {
    handle: &'r ParserHandle,
    limits: &'r Limits,
    stop: &'r dyn Fn() -> bool,
    batch: &'r [Source],
    results: Vec<Option<Result<ParsedFile, SkipReason>>>,
    /// A process was killed at this text, and nobody knows why: it is sent once more, alone.
    suspect: Option<usize>,
    /// Processes lost in a row for nothing.
    n_futile: u32,
    /// Processes that were gone before they had anything.
    n_missed: u32,
    /// The worker whose process was lost last. Given back when another is lent: the pool might not
    /// have heard of its end, and lend it again.
    lost: Option<Worker<Message>>,
}

/// How an attempt ended.
enum Ending {
    /// Everything has a result.
    Complete,
    /// The caller has left, and what isn't done never will be.
    Stopped,
    /// The process was gone before it had the batch.
    Missed,
    /// There is no process to be had.
    Unavailable(String),
    /// The text at this place of what was sent is to blame for the end of its process, or may be.
    Blamed(usize, Fault, String),
    /// A process was lost, and no text is to blame.
    Futile(String),
}

impl Run<'_> {
    /// What is to be sent next: places in the batch.
    fn next(&mut self) -> Option<Vec<usize>> {
        if (self.stop)() {
            return None;
        }
        let mut waiting = Vec::new();
        for (at, source) in self.batch.iter().enumerate() {
            if self.results[at].is_some() {
                continue;
            }
            match self.handle.shared.quarantine.why(source) {
                Some(why) => self.results[at] = Some(Err(SkipReason::ParserDied { why })),
                None => waiting.push(at),
            }
        }
        let alone = self.suspect.filter(|suspect| waiting.contains(suspect));
        let next = alone.map_or(waiting, |suspect| vec![suspect]);
        (!next.is_empty()).then_some(next)
    }

    /// Sends these to a process, and takes what comes back.
    async fn attempt(&mut self, sent: &[usize]) -> Ending {
        let mut stopped = pin!(stopped(self.stop));
        let within = self.handle.shared.queue_time_max;
        let worker = tokio::select! {
            biased;
            worker = self.handle.pool.checkout(within) => match worker {
                Ok(worker) => worker,
                Err(error) => return unavailable(error),
            },
            () = &mut stopped => return Ending::Stopped,
        };
        self.lost = None;
        let ending = tokio::select! {
            biased;
            ending = self.converse(&worker, sent) => ending,
            () = &mut stopped => return Ending::Stopped,
        };
        if !matches!(ending, Ending::Complete) {
            self.lost = Some(worker);
        }
        ending
    }

    /// Has these parsed by the process of `worker`.
    async fn converse(&mut self, worker: &Worker<Message>, sent: &[usize]) -> Ending {
        let (reports, mut reported) = mpsc::channel(sent.len() + 2);
        let sources = sent.iter().map(|at| self.batch[*at].clone()).collect();
        let batch = Message::Parse(Batch { sources, limits: *self.limits, reports });
        let within = self.handle.shared.queue_time_max;
        if worker.address().send(within, batch).await.is_err() {
            return Ending::Missed;
        }
        let mut n_done = 0;
        let mut is_taken = false;
        loop {
            match reported.recv().await {
                Some(Report::Taken) => is_taken = true,
                Some(Report::Done(done)) => {
                    for (done, at) in done.into_iter().zip(&sent[n_done..]) {
                        let result = match done.map(|trees| self.decode(&self.batch[*at], &trees)) {
                            Ok(Ok(file)) => Ok(file),
                            Ok(Err(error)) => {
                                // In vain if it is at more: then it sees that nobody waits.
                                let _unheard = worker.address().send_now(Message::Condemn);
                                let why = format!("returned trees that are none: {error}");
                                return Ending::Blamed(n_done, Fault::Parser, why);
                            }
                            Err(reason) => Err(reason),
                        };
                        self.results[*at] = Some(result);
                        self.n_futile = 0;
                        n_done += 1;
                    }
                    if n_done == sent.len() {
                        return Ending::Complete;
                    }
                }
                Some(Report::Lost { is_begun: true, fault, why }) if fault != Fault::Outside => {
                    return Ending::Blamed(n_done, fault, why);
                }
                Some(Report::Lost { why, .. }) => return Ending::Futile(why),
                None if is_taken => return Ending::Futile("it was stopped".to_owned()),
                None => return Ending::Missed,
            }
        }
    }

    fn decode(&self, source: &Source, trees: &[u8]) -> Result<ParsedFile, encoding::DecodeError> {
        let text = Arc::clone(&source.text);
        encoding::decode(trees, text, source.language, self.limits.depth_max, &kind_table)
    }

    /// Draws the consequences.
    fn conclude(&mut self, sent: &[usize], ending: Ending) {
        match ending {
            // A stop is seen by whoever asks for the next.
            Ending::Complete | Ending::Stopped => {}
            Ending::Missed => {
                self.n_missed += 1;
                if self.n_missed >= MISSED_MAX {
                    self.give_up("each was gone when it was to be asked");
                }
            }
            Ending::Unavailable(why) => self.give_up(&why),
            Ending::Futile(why) => {
                self.n_futile += 1;
                if self.n_futile >= FUTILE_MAX {
                    self.give_up(&format!("two in a row were lost: {}", in_short(&why)));
                }
            }
            Ending::Blamed(n, fault, why) => {
                let at = sent[n];
                if fault == Fault::Unclear && self.suspect != Some(at) {
                    self.suspect = Some(at);
                    return;
                }
                let (shared, why) = (&self.handle.shared, in_short(&why));
                shared.n_lost.fetch_add(1, Ordering::Relaxed);
                shared.quarantine.insert(&self.batch[at], &why);
                self.results[at] = Some(Err(SkipReason::ParserDied { why }));
                self.n_futile = 0;
            }
        }
    }

    fn give_up(&mut self, why: &str) {
        for result in self.results.iter_mut().filter(|result| result.is_none()) {
            *result = Some(Err(SkipReason::ParserUnavailable { why: why.to_owned() }));
        }
    }
}

/// Waits until a caller no longer wants an answer.
pub(super) async fn stopped(stop: &dyn Fn() -> bool) {
    let mut ticks = interval(ASK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if stop() {
            return;
        }
    }
}

fn unavailable(error: PoolError) -> Ending {
    Ending::Unavailable(error.to_string())
}

/// One line, and not a long one.
fn in_short(why: &str) -> String {
    let line = why.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(WHY_CHARS_MAX).collect()
}
