//! What others hold of the repository: reads that never wait, and the way to its services.

use super::RepositoryConfig;
use super::core::{Core, CoreMessage, CoreState};
use super::enhanced::{Enhanced, EnhancedMessage, EnhancedReport};
use super::ledger::Ledger;
use crate::history::{Changes, HistoryGone};
use crate::snapshot::{Repository, Revision, Snapshot, Totals};
use crate::verify::{Depth, Verification};
use crate::writer::{Batch, Committed};
use astscope_supervision::{Address, CallError, ChildRef, ChildSpec, Stop};
use astscope_syntax::{ContentId, Language, ParsedFile};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::Instant;

/// The repository and its services. Cheap to clone, valid before the first start and across all
/// restarts.
#[derive(Clone, Debug)]
pub struct RepositoryHandle(pub(super) Arc<Shared>);

/// What outlives each incarnation.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) repository: Arc<Repository>,
    pub(super) config: RepositoryConfig,
    pub(super) ledger: Arc<Ledger>,
    /// Written by the incarnation of the core that is up, read by everybody.
    pub(super) state: watch::Sender<CoreState>,
    core: Address<CoreMessage>,
    enhanced: Address<EnhancedMessage>,
}

/// Why a batch isn't committed. It never will be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// It has too many changes.
    #[error("committing {n} changes at once: {max} are allowed")]
    TooLarge {
        /// How many.
        n: usize,
        /// How many it may have.
        max: usize,
    },
    /// Applying it panicked, which is a bug. The core goes on.
    #[error("committing a batch panicked: {0}")]
    Panicked(Arc<str>),
    /// The core didn't get to it by the deadline.
    #[error("committing a batch: {0}")]
    Unavailable(#[source] CallError),
}

/// How the repository and its core stand.
#[derive(Clone, Debug)]
pub struct CoreStatus {
    /// The newest revision.
    pub revision: Revision,
    /// What it holds.
    pub totals: Totals,
    /// How the core is doing.
    pub core: CoreState,
    /// Whether a core is up that has verified what it found.
    pub is_ready: bool,
}

impl RepositoryHandle {
    /// Services for this repository, not started yet. From their start on nobody else writes to
    /// it.
    pub fn new(repository: Arc<Repository>, config: RepositoryConfig) -> Self {
        Self(Arc::new(Shared {
            core: Address::new("repository_core", config.core_mailbox),
            enhanced: Address::new("repository_enhanced", config.enhanced_mailbox),
            repository,
            config,
            ledger: Arc::default(),
            state: watch::Sender::new(CoreState::default()),
        }))
    }

    /// `repository_core` and `repository_enhanced`, in start order, for a `one_for_one` supervisor
    /// that tolerates 5 restarts in 10 s.
    pub fn children(&self) -> [ChildSpec; 2] {
        let Shared { core, enhanced, config, .. } = &*self.0;
        [
            ChildSpec::service::<Core>(core, Arc::clone(&self.0))
                .stop(Stop::Within(config.stop_within))
                .ready_later(),
            ChildSpec::service::<Enhanced>(enhanced, Arc::clone(&self.0)).ready_later(),
        ]
    }

    /// `repository_core`, to be watched.
    pub fn core(&self) -> ChildRef {
        self.0.core.child()
    }

    /// `repository_enhanced`, to be watched.
    pub fn enhanced(&self) -> ChildRef {
        self.0.enhanced.child()
    }

    /// The newest state. Never waits, whatever becomes of the services.
    pub fn snapshot(&self) -> Snapshot {
        self.0.repository.snapshot()
    }

    /// Which files are not what they were at the revision `since`, as
    /// [`Repository::changes_since`]. Waits for no service.
    ///
    /// # Errors
    /// When that isn't known: then everything is to be read again.
    pub fn changes_since(&self, since: Revision) -> Result<Changes, HistoryGone> {
        self.0.repository.changes_since(since)
    }

    /// As [`Repository::history_bytes`].
    pub fn history_bytes(&self) -> u64 {
        self.0.repository.history_bytes()
    }

    /// A parsed file of this content that some record holds. Never waits.
    pub fn by_content(&self, content: ContentId, language: Language) -> Option<Arc<ParsedFile>> {
        self.0.repository.by_content(content, language)
    }

    /// Commits a batch as one revision: all of it or nothing, and never twice. While the core is
    /// being restarted this waits, and sends the batch again if it was lost. After an error the
    /// batch isn't committed and never will be.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the batch, unless it is committed already.
    pub async fn commit(&self, within: Duration, batch: Batch) -> Result<Committed, CommitError> {
        let (n, max) = (batch.changes.len(), self.0.config.changes_max);
        if n > max {
            return Err(CommitError::TooLarge { n, max });
        }
        let start = Instant::now();
        let batch = Arc::new(batch);
        let ticket = self.0.ledger.enter();
        loop {
            let left = within.saturating_sub(start.elapsed());
            let request = |reply| CoreMessage::Commit(ticket.id(), Arc::clone(&batch), reply);
            let error = match self.0.core.call(left, request).await {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(panicked)) => return Err(CommitError::Panicked(panicked)),
                Err(error) => error,
            };
            let is_lost = error == CallError::Died && start.elapsed() < within;
            if !is_lost || ticket.receipt().is_some() {
                return ticket.settle().ok_or(CommitError::Unavailable(error));
            }
        }
    }

    /// The same for a thread that computes. `runtime` is the one that the services run on.
    ///
    /// # Panics
    /// On a thread of a runtime: there [`commit`](Self::commit) is awaited.
    pub fn commit_blocking(
        &self,
        runtime: &runtime::Handle,
        within: Duration,
        batch: Batch,
    ) -> Result<Committed, CommitError> {
        runtime.block_on(self.commit(within, batch))
    }

    /// Verifies what is stored: [`Depth::Whole`], or a sample as at a start. Commits go on
    /// meanwhile. If something is wrong the repository is emptied before this returns.
    pub async fn verify(
        &self,
        within: Duration,
        whole: bool,
    ) -> Result<Arc<Verification>, CallError> {
        self.0.core.call(within, |reply| CoreMessage::Verify(whole, reply)).await
    }

    /// How the repository stands. Never waits.
    pub fn status(&self) -> CoreStatus {
        let snapshot = self.snapshot();
        CoreStatus {
            revision: snapshot.revision(),
            totals: snapshot.totals().clone(),
            core: self.0.state.borrow().clone(),
            is_ready: self.core().status().is_ready(),
        }
    }

    /// Tells of each commit, each new core, and each corruption.
    pub fn watch(&self) -> watch::Receiver<CoreState> {
        self.0.state.subscribe()
    }

    /// What the tables say; with a revision, once they have reached it.
    pub async fn analytics(
        &self,
        within: Duration,
        at_least: Option<Revision>,
    ) -> Result<EnhancedReport, CallError> {
        self.0.enhanced.call(within, |reply| EnhancedMessage::Report(at_least, reply)).await
    }
}

impl Shared {
    /// How deep the core looks at this time of its life.
    pub(super) fn sample(&self, turn: u64) -> Depth {
        Depth::Sample { bytes: self.config.sample_bytes, turn }
    }
}
