//! Batches on their way to the repository's core.

use crate::commit::Committer;
use astscope_repository::service::RepositoryHandle;
use astscope_repository::{Batch, Committed};
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a batch may wait for a core that is being restarted. Far longer than that takes:
/// whoever gives up parses the files again.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);

/// Commits through `repository_core`. For threads that may block.
#[derive(Clone, Debug)]
pub struct CoreCommitter {
    repository: RepositoryHandle,
    runtime: Handle,
}

impl CoreCommitter {
    /// `runtime` is the one that the repository's services run on.
    pub fn new(repository: RepositoryHandle, runtime: Handle) -> Self {
        Self { repository, runtime }
    }
}

impl Committer for CoreCommitter {
    fn commit(&self, batch: Batch) -> Result<Committed, String> {
        let committed = self.repository.commit_blocking(&self.runtime, COMMIT_WITHIN, batch);
        committed.map_err(|error| error.to_string())
    }
}
