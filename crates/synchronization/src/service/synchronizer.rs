//! `synchronizer`: whoever wants to know what is true on the disk asks it. It crawls the root when
//! it starts, unless that was done, and runs each refresh on a thread of its own.

use super::refreshes::{self, Refresh, Wait};
use super::updater::Update;
use super::{Shared, SyncHandle};
use crate::{RefreshError, WalkSpec};
use astscope_repository::Scope;
use astscope_supervision::{
    Address, Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, SendError, Service,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tokio::sync::oneshot;

/// Whether a refresh should be given up.
pub type StopRequest = Arc<dyn Fn() -> bool + Send + Sync>;
/// Told how many files of how many are done.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// Why there is no scope.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The refresh itself failed.
    #[error(transparent)]
    Refresh(#[from] RefreshError),
    /// The synchronizer ended before the refresh did. It may be asked again.
    #[error("the part that looked at the files ended: {0}")]
    Ended(Exit),
    /// The synchronizer isn't up, and wasn't for as long as a refresh waits. It may be asked again.
    #[error("files can't be looked at at this moment: {0}")]
    Unavailable(SendError),
    /// Time was over before it was known which files there are. It may be asked again.
    #[error("the files could not be found in time, and no earlier search for them is remembered")]
    Late,
}

/// What it is asked and told.
pub(super) enum Ask {
    /// What is selected, as it is now.
    Refresh(Box<Refresh>),
    /// The whole root, as it is now; unless `anyway`, only if events haven't told all of it.
    Crawl { anyway: bool, stop: StopRequest, progress: Progress, reply: Answer<()> },
    /// Something has changed on the disk.
    Changed,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, SyncError>>;

impl SyncHandle {
    /// The files that `spec` selects, as they are now: [`Synchronizer::refresh`](crate::Synchronizer::refresh)
    /// under supervision. It is waited for as `wait` says, and then goes on without `stop`: what it
    /// finishes is there for the next one.
    ///
    /// # Errors
    /// Among others [`SyncError::Late`], not before ten seconds and `wait` are over.
    ///
    /// # Cancel safety
    /// When the future is dropped the refresh goes on until `stop` says so.
    pub async fn refresh(
        &self,
        spec: WalkSpec,
        wait: Wait,
        stop: StopRequest,
        progress: Progress,
    ) -> Result<Scope, SyncError> {
        let asked = tokio::time::Instant::now();
        let refresh = |reply| Refresh { spec, wait, asked, stop, progress, reply };
        self.ask(|reply| Ask::Refresh(Box::new(refresh(reply)))).await
    }

    /// Brings the repository up to date with the whole root.
    ///
    /// # Cancel safety
    /// When the future is dropped the crawl goes on until `stop` says so.
    pub async fn crawl(&self, stop: StopRequest, progress: Progress) -> Result<(), SyncError> {
        self.ask(|reply| Ask::Crawl { anyway: true, stop, progress, reply }).await
    }

    /// Has everything stored that was written before: what events have told, or, where they don't
    /// tell everything, what a look at the whole root shows.
    ///
    /// # Cancel safety
    /// When the future is dropped it goes on until `stop` says so.
    pub async fn flush(&self, stop: StopRequest, progress: Progress) -> Result<(), SyncError> {
        self.ask(|reply| Ask::Crawl { anyway: false, stop, progress, reply }).await
    }

    async fn ask<T>(&self, ask: impl FnOnce(Answer<T>) -> Ask) -> Result<T, SyncError> {
        let (reply, answer) = oneshot::channel();
        let within = self.shared.config.restart_within;
        self.synchronizer.send(within, ask(reply)).await.map_err(SyncError::Unavailable)?;
        answer.await.unwrap_or(Err(SyncError::Ended(Exit::Killed)))
    }
}

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    let args = Args { shared: Arc::clone(&handle.shared), updater: handle.updater.clone() };
    ChildSpec::service::<Desk>(&handle.synchronizer, args)
}

#[derive(Clone)]
struct Args {
    shared: Arc<Shared>,
    updater: Address<Update>,
}

struct Desk(Args);

impl Service for Desk {
    type Args = Args;
    type Message = Ask;

    async fn init(args: Args, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(args)))
    }

    async fn run(self, mut mailbox: Mailbox<Ask>, ctx: Ctx) -> Result<(), Exit> {
        let Args { shared, updater } = self.0;
        if shared.is_indexing() {
            let (own, shared) = (ctx.clone(), Arc::clone(&shared));
            ctx.spawn(async move {
                let crawl = move |checkpoint: &Checkpoint| first_crawl(&shared, checkpoint);
                if let Err(exit) = own.blocking(None, crawl).await {
                    tracing::error!(%exit, "the first crawl ended");
                }
            });
        }
        while let Some(ask) = mailbox.recv().await {
            let (own, shared) = (ctx.clone(), Arc::clone(&shared));
            match ask {
                Ask::Refresh(refresh) => ctx.spawn(refreshes::refresh(own, shared, *refresh)),
                Ask::Crawl { anyway, stop, progress, reply } => ctx.spawn(async move {
                    let crawl = move |checkpoint: &Checkpoint| {
                        let started = Instant::now();
                        let stop = || stop() || checkpoint.check().is_err();
                        if !anyway && shared.engine.prove(&stop).is_some() {
                            return Ok(());
                        }
                        shared.reconcile(shared.engine.pool(), &stop, &*progress)?;
                        shared.indexed_since(started);
                        Ok(())
                    };
                    answer(reply, own.blocking(None, crawl).await);
                }),
                Ask::Changed => {
                    // In vain while one waits already.
                    let _full = updater.send_now(Update);
                }
            }
        }
        Ok(())
    }
}

/// Whoever asked may have left, which is no failure of the refresh.
pub(super) fn answer<T>(reply: Answer<T>, ended: Result<Result<T, RefreshError>, Exit>) {
    let answer = match ended {
        Ok(result) => result.map_err(SyncError::Refresh),
        Err(exit) => Err(SyncError::Ended(exit)),
    };
    drop(reply.send(answer));
}

fn first_crawl(shared: &Shared, checkpoint: &Checkpoint) {
    let started = Instant::now();
    let stop = || checkpoint.check().is_err();
    let seen = |_, total| shared.files_seen.store(total as u64, Ordering::Relaxed);
    let crawled = (shared.config.crawl_threads)().and_then(|threads| {
        let crawled = shared.reconcile(&threads, &stop, &seen);
        crawled.map_err(|error| error.to_string())
    });
    let root = shared.engine.root().display();
    match crawled {
        Ok(summary) => {
            shared.indexed_since(started);
            tracing::info!(%root, files = summary.files, "indexed");
        }
        // The next incarnation begins again.
        Err(_) if stop() => {}
        Err(error) => {
            shared.indexing.store(false, Ordering::Relaxed);
            tracing::warn!(%root, error, "not indexed");
        }
    }
}
