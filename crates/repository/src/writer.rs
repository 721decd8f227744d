//! The one writer of a repository that is run as a service: batches as data, and a fence.
//!
//! A thread can't be killed, so an incarnation that was given up may still run. Whoever takes over
//! gets a new [`Writer`], and from there on the old one can't publish. A writer stages without a
//! lock and takes it only to publish: one that hangs holds nobody up.

use crate::record::{FileRecord, FileStamp};
use crate::snapshot::{Repository, Revision};
use crate::transaction::{NewFile, Overtaken, Transaction};
use astscope_syntax::SkipReason;
use std::path::Path;
use std::sync::Arc;

/// One change of a [`Batch`].
#[derive(Clone, Debug)]
pub enum Change {
    /// A parsed file, in place of what is known about its path and language.
    Put(NewFile),
    /// A new stamp for a file whose content is what it was.
    Touch(Arc<FileRecord>, FileStamp),
    /// A file has no tree, and why; what was known about its path goes.
    Skip(Arc<Path>, FileStamp, SkipReason),
    /// A file can't be read, and why; what is known of an earlier reading stays.
    Keep(Arc<Path>, FileStamp, SkipReason),
    /// Nothing is known about a path any more.
    Remove(Arc<Path>),
}

/// Changes that are committed together, in this order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
}

impl FromIterator<Change> for Batch {
    fn from_iter<I: IntoIterator<Item = Change>>(changes: I) -> Self {
        Self { changes: changes.into_iter().collect() }
    }
}

/// What became of a batch.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The revision that has it.
    pub revision: Revision,
    /// One for each change: the record that a put or a touch made. `None` for the others, and when
    /// all ids of this repository are used up.
    pub records: Vec<Option<Arc<FileRecord>>>,
}

/// A write of who isn't the writer any more. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("writing to the repository: writer {held} was followed by writer {current}")]
pub struct Fenced {
    /// The number of the writer that was used.
    pub held: u64,
    /// That of the newest.
    pub current: u64,
}

/// The right to write, until somebody else takes it.
///
/// ```
/// use astscope_repository::{Batch, Repository};
/// use std::sync::Arc;
///
/// let repository = Arc::new(Repository::new(1));
/// let old = Repository::take_over(&repository);
/// let new = Repository::take_over(&repository);
/// assert!(old.commit(&Batch::default()).is_err(), "fenced off");
/// assert!(new.commit(&Batch::default()).is_ok());
/// ```
#[derive(Debug)]
pub struct Writer {
    repository: Arc<Repository>,
    number: u64,
}

impl Repository {
    /// A writer; all earlier ones are fenced off.
    pub fn take_over(repository: &Arc<Self>) -> Writer {
        let mut newest = repository.lock();
        *newest += 1;
        Writer { repository: Arc::clone(repository), number: *newest }
    }
}

impl Writer {
    /// Counts the writers of a repository from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Publishes a batch as one new revision; without changes the revision stays.
    pub fn commit(&self, batch: &Batch) -> Result<Committed, Fenced> {
        loop {
            // Overtaken by who uses the repository without the service.
            if let Ok(published) = self.stage(batch).publish() {
                return published;
            }
        }
    }

    /// Forgets everything and opens a new epoch.
    pub fn recreate(&self) -> Result<Revision, Fenced> {
        let newest = self.repository.lock();
        self.check(*newest)?;
        Ok(self.repository.start_over())
    }

    /// A batch that is ready to be published.
    pub(crate) fn stage(&self, batch: &Batch) -> Staged<'_> {
        let mut transaction = Transaction::new(&self.repository, None, self.repository.snapshot());
        let records = batch.changes.iter().map(|change| match change {
            Change::Put(new) => transaction.put(new.clone()),
            Change::Touch(record, stamp) => transaction.touch(record, *stamp),
            Change::Skip(path, stamp, reason) => {
                transaction.skip(path, *stamp, reason.clone());
                None
            }
            Change::Keep(path, stamp, reason) => {
                transaction.keep(path, *stamp, reason.clone());
                None
            }
            Change::Remove(path) => {
                transaction.remove(path);
                None
            }
        });
        let records = records.collect();
        Staged { writer: self, transaction, records }
    }

    fn check(&self, current: u64) -> Result<(), Fenced> {
        if current == self.number {
            return Ok(());
        }
        Err(Fenced { held: self.number, current })
    }
}

/// A batch that nobody sees yet.
#[derive(Debug)]
pub(crate) struct Staged<'w> {
    writer: &'w Writer,
    transaction: Transaction<'w>,
    records: Vec<Option<Arc<FileRecord>>>,
}

impl Staged<'_> {
    pub(crate) fn publish(self) -> Result<Result<Committed, Fenced>, Overtaken> {
        let newest = self.writer.repository.lock();
        if let Err(fenced) = self.writer.check(*newest) {
            return Ok(Err(fenced));
        }
        let revision = self.transaction.commit_on_base(newest)?;
        Ok(Ok(Committed { revision, records: self.records }))
    }
}
