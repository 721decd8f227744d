//! Where finished batches go: the seam between whoever reads files and the one writer of what is
//! stored.

use astscope_repository::{Batch, Change, Committed, Repository};
use std::fmt;
use std::sync::Arc;

/// Commits batches.
pub trait Committer: fmt::Debug + Send + Sync {
    /// Commits a batch whole. Blocks.
    ///
    /// # Errors
    /// Why it isn't committed, and never will be, for a log.
    fn commit(&self, batch: Batch) -> Result<Committed, String>;
}

/// Writes by itself: for programs without a repository that runs as a service.
#[derive(Debug)]
pub(crate) struct Direct(pub(crate) Arc<Repository>);

impl Committer for Direct {
    fn commit(&self, batch: Batch) -> Result<Committed, String> {
        Ok(apply(&self.0, batch))
    }
}

/// Commits a batch as one transaction.
pub(crate) fn apply(repository: &Repository, batch: Batch) -> Committed {
    let mut transaction = repository.begin();
    let records = batch.changes.into_iter().map(|change| match change {
        Change::Put(new) => transaction.put(new),
        Change::Touch(record, stamp) => transaction.touch(&record, stamp),
        Change::Skip(path, stamp, reason) => {
            transaction.skip(&path, stamp, reason);
            None
        }
        Change::Keep(path, stamp, reason) => {
            transaction.keep(&path, stamp, reason);
            None
        }
        Change::Remove(path) => {
            transaction.remove(&path);
            None
        }
    });
    let records = records.collect();
    Committed { revision: transaction.commit(), records }
}
