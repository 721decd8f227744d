//! Which batches somebody waits for, and which of those are committed.
//!
//! Who sends a batch enters it first and settles it in the end. A core publishes only what stands
//! here without a receipt, and writes the receipt under the same lock. So a caller whose core died
//! sends the batch again without fear that it is committed twice, over what others wrote in
//! between; and one whose time is over knows for certain whether it was.

use crate::writer::{Batch, Committed, Fenced, Writer};
use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names a batch that somebody waits for.
pub(super) type TicketId = u64;

/// Holds at most one entry for each caller that waits: those are bounded by whoever calls.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    last: TicketId,
    /// Batches that were committed.
    n_commits: u64,
    /// The receipt, once there is one.
    waiting: FxHashMap<TicketId, Option<Committed>>,
}

/// A batch that its caller waits for, until it is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    id: TicketId,
}

impl Ledger {
    pub(super) fn enter(self: &Arc<Self>) -> Ticket {
        let mut book = self.open();
        book.last += 1;
        let id = book.last;
        book.waiting.insert(id, None);
        Ticket { ledger: Arc::clone(self), id }
    }

    /// Commits a batch, unless it is committed or nobody waits for it any more, which is `None`.
    pub(super) fn commit(
        &self,
        id: TicketId,
        batch: &Batch,
        writer: &Writer,
    ) -> Result<Option<Committed>, Fenced> {
        loop {
            match self.open().waiting.get(&id) {
                None => return Ok(None),
                Some(Some(receipt)) => return Ok(Some(receipt.clone())),
                Some(None) => {}
            }
            let staged = writer.stage(batch);
            let mut book = self.open();
            let Some(receipt) = book.waiting.get_mut(&id) else { return Ok(None) };
            // Overtaken by who uses the repository without the service: once more.
            if let Ok(published) = staged.publish() {
                let committed = receipt.insert(published?).clone();
                book.n_commits += 1;
                return Ok(Some(committed));
            }
        }
    }

    /// Batches that were committed so far.
    pub(super) fn n_commits(&self) -> u64 {
        self.open().n_commits
    }

    fn open(&self) -> MutexGuard<'_, Book> {
        // Nothing that can panic happens between two changes of it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(super) fn id(&self) -> TicketId {
        self.id
    }

    pub(super) fn receipt(&self) -> Option<Committed> {
        self.ledger.open().waiting.get(&self.id).cloned().flatten()
    }

    /// Whether it was committed. If not, it never will be.
    pub(super) fn settle(self) -> Option<Committed> {
        self.ledger.open().waiting.remove(&self.id).flatten()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.ledger.open().waiting.remove(&self.id);
    }
}
