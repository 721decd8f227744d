//! What can be said of all files together: the largest, the deepest, and those with syntax errors.
//!
//! Tables that follow the snapshots: advancing them costs what changed between two of them, and
//! the first time what there is. They hold numbers and paths, no text and no tree, except those of
//! the snapshot that they stand at.

use crate::record::FileRecord;
use crate::snapshot::{Revision, Snapshot};
use astscope_syntax::{FileId, Language};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// The files of one snapshot, ranked and counted.
#[derive(Debug, Default)]
pub struct Analytics {
    at: Option<Snapshot>,
    files: FxHashMap<FileId, Facts>,
    by_size: BTreeSet<Place>,
    by_depth: BTreeSet<Place>,
    errors: BTreeMap<Language, SyntaxErrors>,
}

/// Largest first, then by path.
type Place = (Reverse<u64>, Arc<Path>, Language);

/// What is remembered of a file, to take it out of the tables again.
#[derive(Clone, Debug)]
struct Facts {
    path: Arc<Path>,
    language: Language,
    bytes: u64,
    depth: u64,
    errors: u64,
    missing: u64,
}

/// Syntax errors in the files of one language, those of the languages embedded in them included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyntaxErrors {
    /// Files with at least one.
    pub files: u64,
    /// Nodes that stand for text which the grammar has no place for.
    pub errors: u64,
    /// Nodes that the grammar wants and the text lacks.
    pub missing: u64,
}

/// A file and the number that it is ranked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Its absolute path.
    pub path: Arc<Path>,
    /// The language that it was parsed as.
    pub language: Language,
    /// Bytes of text, or levels of the tree.
    pub value: u64,
}

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnalyticsReport {
    /// Of which revision. `None`: they aren't built yet.
    pub revision: Option<Revision>,
    /// Files with a tree.
    pub n_files: u64,
    /// Those with the longest texts.
    pub largest: Vec<Ranked>,
    /// Those with the deepest trees.
    pub deepest: Vec<Ranked>,
    /// Syntax errors by language, where there are any.
    pub syntax_errors: BTreeMap<Language, SyntaxErrors>,
}

impl Analytics {
    /// The tables at `to`. `None` when `stop` said so, which is asked for each file that changed.
    #[must_use]
    pub fn advance(mut self, to: Snapshot, stop: &mut dyn FnMut() -> bool) -> Option<Self> {
        match self.at.take() {
            None => {
                for record in to.records() {
                    if stop() {
                        return None;
                    }
                    self.add(record);
                }
            }
            Some(before) => {
                for (gone, new) in to.since(&before) {
                    for record in gone {
                        self.remove(record.id);
                    }
                    for record in new {
                        if stop() {
                            return None;
                        }
                        self.add(record);
                    }
                }
            }
        }
        self.at = Some(to);
        Some(self)
    }

    /// Where they stand.
    pub fn revision(&self) -> Option<Revision> {
        self.at.as_ref().map(Snapshot::revision)
    }

    /// What they say, with the `top` files of each ranking.
    pub fn report(&self, top: usize) -> AnalyticsReport {
        let ranked =
            |places: &BTreeSet<Place>| {
                let files = places.iter().take(top).map(|(Reverse(value), path, language)| {
                    Ranked { path: Arc::clone(path), language: *language, value: *value }
                });
                files.collect()
            };
        AnalyticsReport {
            revision: self.revision(),
            n_files: self.files.len() as u64,
            largest: ranked(&self.by_size),
            deepest: ranked(&self.by_depth),
            syntax_errors: self.errors.clone(),
        }
    }

    fn add(&mut self, record: &Arc<FileRecord>) {
        let facts = Facts::of(record);
        self.by_size.insert(facts.place(facts.bytes));
        self.by_depth.insert(facts.place(facts.depth));
        if facts.errors + facts.missing > 0 {
            let errors = self.errors.entry(facts.language).or_default();
            errors.files += 1;
            errors.errors += facts.errors;
            errors.missing += facts.missing;
        }
        self.files.insert(record.id, facts);
    }

    fn remove(&mut self, id: FileId) {
        let Some(facts) = self.files.remove(&id) else { return };
        self.by_size.remove(&facts.place(facts.bytes));
        self.by_depth.remove(&facts.place(facts.depth));
        if facts.errors + facts.missing > 0
            && let Some(errors) = self.errors.get_mut(&facts.language)
        {
            errors.files -= 1;
            errors.errors -= facts.errors;
            errors.missing -= facts.missing;
            if errors.files == 0 {
                self.errors.remove(&facts.language);
            }
        }
    }
}

impl Facts {
    fn of(record: &FileRecord) -> Self {
        let (mut errors, mut missing) = (0, 0);
        for (_, tree) in record.file.trees() {
            for node in tree.tree.root().subtree() {
                errors += u64::from(node.is_error());
                missing += u64::from(node.is_missing());
            }
        }
        Self {
            path: Arc::clone(&record.path),
            language: record.language,
            bytes: record.file.text.len() as u64,
            depth: u64::from(record.file.depth()),
            errors,
            missing,
        }
    }

    fn place(&self, value: u64) -> Place {
        (Reverse(value), Arc::clone(&self.path), self.language)
    }
}
