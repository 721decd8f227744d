//! The repository as two services: `repository_core` writes, `repository_enhanced` counts.
//!
//! ```text
//! RepositoryHandle ── snapshot(), by_content() ─────────────▶ Arc<Repository>   never waits
//!        │                                                          ▲
//!        ├── commit(batch) ──mailbox──▶ repository_core ──Writer────┘
//!        │                                    │ CoreState (watch)
//!        └── analytics() ────mailbox──▶ repository_enhanced ──snapshots──▶ Analytics
//! ```
//!
//! - What is stored belongs to whoever makes the handle. A core that crashes loses nothing: its
//!   successor looks whether everything is as it should be, and goes on. Reads notice neither.
//! - A batch that was sent is committed once, or not at all, and its caller knows which, whatever
//!   happens to the core meanwhile (`ledger`).
//! - What isn't as it should be is given up whole: the repository is emptied into a new epoch, and
//!   [`CoreState::corruptions`] tells the owner to read the files again.
//!
//! ```
//! use astscope_repository::service::{RepositoryConfig, RepositoryHandle};
//! use astscope_repository::{Batch, Repository};
//! use astscope_supervision::{Strategy, SupervisorSpec};
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let repository = Arc::new(Repository::new(1));
//! let handle = RepositoryHandle::new(repository, RepositoryConfig::default());
//! let root = SupervisorSpec::new(Strategy::OneForOne)
//!     .intensity(5, Duration::from_secs(10))
//!     .children(handle.children())
//!     .start("repository")
//!     .await?;
//! let committed = handle.commit(Duration::from_secs(5), Batch::default()).await?;
//! assert_eq!(committed.revision, handle.snapshot().revision());
//! root.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod core;
mod enhanced;
mod handle;
mod ledger;

pub use self::core::CoreState;
pub use enhanced::EnhancedReport;
pub use handle::{CommitError, CoreStatus, RepositoryHandle};

use std::time::Duration;

/// What bounds the services of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryConfig {
    /// Batches that may wait for the core. Each holds the trees of some hundred files that nobody
    /// can read yet, so a long queue is memory without use; 64 keep the core busy while a pool of
    /// parsers fills the next.
    pub core_mailbox: usize,
    /// Changes of one batch. A crawl sends some hundred at a time; what is larger is the removal
    /// of a tree, of which a quarter of a million files are 30 MB of changes.
    pub changes_max: usize,
    /// Bytes of text that are hashed each time that a core starts: 64 MiB take about 50 ms, which
    /// is how long commits wait then.
    pub sample_bytes: u64,
    /// How long one verification may take. All texts of a budget of some gigabytes are hashed in
    /// less; what takes longer is a machine that has no time for it.
    pub verify_within: Duration,
    /// How long the core may take to commit what still waits when it is told to stop, as
    /// `ElixirScope` says: 5 s.
    pub stop_within: Duration,
    /// Requests that may wait for the tables, and callers that may wait until those have reached
    /// a revision: each is a `status` that somebody reads, and 64 readers are many.
    pub enhanced_mailbox: usize,
    /// Files in each ranking: a screenful.
    pub top: usize,
}

impl Default for RepositoryConfig {
    fn default() -> Self {
        Self {
            core_mailbox: 64,
            changes_max: 1 << 18,
            sample_bytes: 64 << 20,
            verify_within: Duration::from_secs(30),
            stop_within: Duration::from_secs(5),
            enhanced_mailbox: 64,
            top: 20,
        }
    }
}

#[cfg(test)]
mod tests;
