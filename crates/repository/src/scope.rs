//! The files that one query is about, pinned.

use crate::record::FileRecord;
use crate::snapshot::Revision;
use astscope_syntax::SkipReason;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a query runs on: records that can't change under it, in the order of the answer.
#[derive(Debug, Default)]
pub struct Scope {
    /// The revision of the repository; `None` when no file belongs to one.
    pub revision: Option<Revision>,
    /// The files, sorted by `display`.
    pub files: Vec<ScopedFile>,
    /// Files that are selected but not parsed yet.
    pub pending: usize,
    /// Selected files without a tree, as displayed, and why.
    pub skipped: Vec<(String, SkipReason)>,
    /// Files that couldn't be read, as displayed, and why: they are there as they were read before.
    pub kept: Vec<(String, SkipReason)>,
    /// In what it is behind the disk, or may be; `None` if it is what the disk held.
    pub lag: Option<Lag>,
}

/// In what a scope is behind the disk, or may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Files that are, or may be, there in an older version, as displayed and sorted.
    pub files: Vec<Arc<str>>,
    /// How long ago the oldest change was noticed that is missing. Where nothing told of it: how
    /// long ago it was last certain that there was none.
    pub behind: Duration,
    /// Whether files that came or went may be missing from the scope, or still be in it.
    pub are_names_unknown: bool,
}

/// A file of a scope.
#[derive(Clone, Debug)]
pub struct ScopedFile {
    /// The path in the spelling of the request.
    pub display: Arc<str>,
    /// The absolute path.
    pub abs: Arc<Path>,
    /// Its text and trees.
    pub record: Arc<FileRecord>,
}
