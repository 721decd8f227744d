//! The files that one query is about, pinned.

use crate::record::FileRecord;
use crate::snapshot::Revision;
use astscope_syntax::SkipReason;
use std::path::Path;
use std::sync::Arc;

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
