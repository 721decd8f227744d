//! Synchronization: keeps the repository equal to the disk.
//!
//! A query asks for a [`Scope`](astscope_repository::Scope) and gets files as they are *now*: a
//! [`Synchronizer`] walks what the query selects exactly as ast-grep would ([`walk`]), compares
//! each file's metadata with the repository, and reads and parses what is not proven unchanged
//! ([`read`]). What it learns it commits in batches, so that other queries profit while it runs.
//!
//! The price is the metadata of every selected file and of every directory for each query: a walk
//! that was made before is made again only where that shows a change (`recall`). In return an
//! answer can't be stale, with or without a watcher.
//!
//! Invariants: the only reader of the watched tree and the only committer. A file is committed
//! only if it lies under the root after all symlinks are resolved, and a plain walk of the root
//! would find it; any other file is parsed for the one query. Two refreshes never parse the same
//! file at the same time. Nothing in the tree is ever written or executed.
#![forbid(unsafe_code)]

pub mod events;
pub mod read;
pub mod roots;
#[cfg(feature = "service")]
pub mod service;
pub mod walk;

#[cfg(test)]
mod aged;
mod apply;
mod claims;
mod commit;
mod lag;
mod reach;
mod recall;
mod refresh;
#[cfg(feature = "service")]
mod scrub;
mod tracker;
#[cfg(test)]
mod unprivileged;
mod watches;

pub use commit::Committer;
pub use read::{Disk, RealDisk, read_file};
pub use refresh::{CrawlSummary, RefreshError, Synchronizer};
pub use roots::{RootDecision, RootError, RootId};
pub use walk::{GlobError, IgnoreSource, LanguageGlobs, WalkSpec};
