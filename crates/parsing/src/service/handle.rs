//! What others hold of a workspace's parsing: a [`Backend`] that goes through its services, and
//! asks again when one of them ends over a batch.

use super::desk::{Counts, Job, Parsed, ParsingCounts};
use super::dispatch::stopped;
use super::mapper::Mapping;
use super::subtree::ParsingConfig;
use crate::instrumentation::{MapConfig, Point};
use crate::{Backend, Limits, Source};
use astscope_supervision::{
    Address, BreakerStatus, CallError, ChildRef, CircuitBreaker, Rejected, Supervisor,
};
use astscope_syntax::{ParsedFile, SkipReason};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Time between two requests to start the batch processor: its supervisor may not have heard yet
/// that it has left.
const RETRY: Duration = Duration::from_millis(5);

/// Has texts parsed by a workspace's services. Cheap to clone.
///
/// A batch of one text goes to `parser`, one of several to `batch_processor`, which is started for
/// it where it has left. A service that is killed over a batch costs that batch some time, and none
/// of its texts: the next incarnation is sent it again.
///
/// # Panics
/// Its [`Backend`] blocks, and panics where an async runtime polls, or when the runtime that it was
/// given is gone.
#[derive(Clone)]
pub struct ParsingHandle(Arc<Services>);

/// What outlives each incarnation.
pub(super) struct Services {
    pub(super) config: ParsingConfig,
    pub(super) parser: Address<Job>,
    pub(super) mapper: Address<Mapping>,
    pub(super) batches: Address<Job>,
    /// Who starts the batch processor again.
    pub(super) supervisor: Option<Supervisor>,
    pub(super) breaker: CircuitBreaker,
    pub(super) counts: Arc<Counts>,
    pub(super) runtime: Handle,
}

type Results = Vec<Result<ParsedFile, SkipReason>>;

impl ParsingHandle {
    pub(super) fn new(services: Services) -> Self {
        Self(Arc::new(services))
    }

    /// `parser`, to be watched.
    pub fn parser(&self) -> ChildRef {
        self.0.parser.child()
    }

    /// `instrumentation_mapper`, to be watched.
    pub fn instrumentation_mapper(&self) -> ChildRef {
        self.0.mapper.child()
    }

    /// `batch_processor`, to be watched.
    pub fn batch_processor(&self) -> ChildRef {
        self.0.batches.child()
    }

    /// What was parsed so far.
    pub fn counts(&self) -> ParsingCounts {
        self.0.counts.read()
    }

    /// Whether batches are let through.
    pub fn breaker(&self) -> BreakerStatus {
        self.0.breaker.state()
    }

    /// Parses each of `batch`: as many results, in the same order. While no parser was to be had
    /// several times in a row, that is the result at once.
    ///
    /// # Cancel safety
    /// Dropping the future gives the batch up.
    pub async fn parse(&self, batch: Arc<[Source]>, limits: Limits) -> Results {
        let permit = match self.0.breaker.acquire() {
            Ok(permit) => permit,
            Err(rejected) => return all_unavailable(&batch, &refusal(rejected)),
        };
        let results = self.pass(batch, limits).await;
        let is_lost =
            |result: &Result<_, _>| matches!(result, Err(SkipReason::ParserUnavailable { .. }));
        if results.iter().any(is_lost) {
            permit.fail();
        } else {
            permit.succeed_and_forget();
        }
        results
    }

    /// The points of a file, as [`points`](crate::instrumentation::points) has them, after `within`
    /// at the latest.
    ///
    /// # Errors
    /// When the mapper panicked over this file, or there is no answer of it. Unlike a batch, a
    /// request that it was ended over isn't sent again: somebody waits for it, and may ask again.
    ///
    /// # Cancel safety
    /// Dropping the future gives the work up.
    pub async fn map(
        &self,
        within: Duration,
        file: Arc<ParsedFile>,
        config: MapConfig,
    ) -> Result<Vec<Point>, MapError> {
        let mapped = self.0.mapper.call(within, |reply| Mapping { file, config, reply }).await?;
        mapped.map_err(MapError::Panicked)
    }

    async fn pass(&self, batch: Arc<[Source]>, limits: Limits) -> Results {
        match &batch[..] {
            [] => Vec::new(),
            [_] => self.parse_one(batch, limits).await,
            _ => match self.ask(&self.0.batches, &batch, limits).await {
                Ok(Ok(results)) => results,
                // One of them may be to blame, and the others aren't.
                Ok(Err(_panic)) => {
                    let mut results = Vec::with_capacity(batch.len());
                    for source in batch.iter() {
                        results.extend(self.parse_one(Arc::new([source.clone()]), limits).await);
                    }
                    results
                }
                Err(why) => all_unavailable(&batch, &why),
            },
        }
    }

    async fn parse_one(&self, one: Arc<[Source]>, limits: Limits) -> Results {
        match self.ask(&self.0.parser, &one, limits).await {
            Ok(Ok(results)) => results,
            Ok(Err(panic)) => {
                vec![Err(SkipReason::ParserDied { why: format!("panicked: {panic}") })]
            }
            Err(why) => all_unavailable(&one, &why),
        }
    }

    /// Sends a batch to this service until an incarnation of it has answered.
    async fn ask(
        &self,
        service: &Address<Job>,
        batch: &Arc<[Source]>,
        limits: Limits,
    ) -> Result<Parsed, String> {
        let config = &self.0.config;
        for _ in 0..config.attempts_max.max(1) {
            let (reply, answer) = oneshot::channel();
            let job = Job { sources: Arc::clone(batch), limits, reply };
            let sent = tokio::select! {
                biased;
                sent = service.send(config.restart_within, job) => sent,
                never = self.keep_up(), if batch.len() > 1 => match never {},
            };
            sent.map_err(|error| error.to_string())?;
            // Nobody answers where it has ended over this batch.
            if let Ok(parsed) = answer.await {
                return Ok(parsed);
            }
        }
        Err(format!("`{}` ended each of {} times", service.id(), config.attempts_max))
    }

    /// Has the batch processor started whenever it has left.
    #[expect(clippy::infinite_loop, reason = "ends with the future")]
    async fn keep_up(&self) -> Infallible {
        let Services { batches, supervisor, config, .. } = &*self.0;
        loop {
            batches.child().monitor().down().await;
            if let Some(supervisor) = supervisor {
                // Refused while it is there, or about to be started by others: no matter.
                let supervisor = supervisor.within(config.restart_within);
                let _refused = supervisor.restart_child(batches.id()).await;
            }
            sleep(RETRY).await;
        }
    }
}

/// Why a file's points can't be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// A bug, in these words.
    #[error("finding the points of a file panicked: {0}")]
    Panicked(Arc<str>),
    /// The mapper didn't answer.
    #[error("finding the points of a file: {0}")]
    Unavailable(#[from] CallError),
}

fn refusal(rejected: Rejected) -> String {
    match rejected.retry_after() {
        Some(after) => {
            format!("it kept failing, and is tried again in {} s", after.as_millis().div_ceil(1000))
        }
        None => "it kept failing, and is being tried again".to_owned(),
    }
}

fn all_unavailable(batch: &[Source], why: &str) -> Results {
    let reason = SkipReason::ParserUnavailable { why: why.to_owned() };
    batch.iter().map(|_| Err(reason.clone())).collect()
}

impl Backend for ParsingHandle {
    fn parse_batch(&self, batch: &[Source], limits: &Limits, stop: &dyn Fn() -> bool) -> Results {
        self.0.runtime.block_on(async {
            tokio::select! {
                biased;
                results = self.parse(batch.into(), *limits) => results,
                () = stopped(stop) => {
                    batch.iter().map(|_| Err(SkipReason::ParseTimeout)).collect()
                }
            }
        })
    }
}

impl fmt::Debug for ParsingHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsingHandle").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
