//! The repository: every parsed file of one workspace, in immutable snapshots.
//!
//! One writer at a time stages a batch in a [`Transaction`] and commits it whole; readers take a
//! [`Snapshot`], which is an `Arc`, and wait for nobody. A file's text and its trees live in one
//! [`FileRecord`], so that a span can't be read against another version's text.
//!
//! ```
//! use astscope_repository::Repository;
//!
//! let repository = Repository::new(1);
//! let before = repository.snapshot();
//! let mut transaction = repository.begin();
//! // transaction.put(…), .remove(…), .skip(…)
//! let after = transaction.commit();
//! assert_eq!(before.revision(), after, "a batch without changes changes nothing");
//! ```
//!
//! Storage is an array of small hash maps, each behind its own `Arc`: a commit copies the maps
//! that it touches and shares the rest, so its price follows the change, not the tree.
//!
//! What changed since a revision is remembered for a while: [`Repository::changes_since`].
//!
//! Run as a service (feature `service`, on by default) a supervised core is the only writer:
//! [`service`]. Without that feature the crate is plain functions and has no async runtime.
//!
//! Invariants: revisions strictly increase within an epoch; a commit is all of a batch or nothing;
//! a snapshot never changes; the totals equal a recount. Nothing here reads a disk or a clock.
#![forbid(unsafe_code)]

#[cfg(feature = "service")]
pub mod service;

mod analytics;
mod history;
mod record;
mod scope;
mod snapshot;
mod transaction;
mod verify;
mod writer;

pub use analytics::{Analytics, AnalyticsReport, Ranked, SyntaxErrors};
pub use history::{Changes, GoneBecause, HistoryGone};
pub use record::{FileRecord, FileStamp, FileStat, SkipRecord};
pub use scope::{Lag, Scope, ScopedFile};
pub use snapshot::{Repository, Revision, Snapshot, Totals};
pub use transaction::{NewFile, Transaction};
pub use verify::{Depth, Fault, Verification};
pub use writer::{Batch, Change, Committed, Fenced, Writer};
