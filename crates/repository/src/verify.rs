//! Whether a snapshot is what it should be: totals, places, the index of contents, the texts.
//!
//! Memory that was overwritten, a bug of ours, a record of one file under another's name: none of
//! it can be repaired here, but all of it can be read from disk again, once somebody has noticed.

use crate::record::FileRecord;
use crate::snapshot::{PathEntry, Repository, Revision, Snapshot, Totals, shard_of};
use crate::transaction::add;
use astscope_syntax::ContentId;
use std::path::Path;
use std::sync::Arc;

/// Faults that are told one by one; the rest is counted. Whoever reads them wants to know what
/// kind of fault it is, and everything is read anew in any case.
const FAULTS_MAX: usize = 16;

/// How many texts are hashed. Everything else is always looked at: it costs some 100 ns a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Texts of about so many bytes, of another part of the files for each `turn`.
    Sample {
        /// Bytes of text.
        bytes: u64,
        /// Counts the samples, so that they cover everything in the end.
        turn: u64,
    },
    /// All of them.
    Whole,
}

/// Something that isn't as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The totals are not those of a recount.
    Totals,
    /// A record or skip that stands where nobody looks for it.
    Misplaced(Arc<Path>),
    /// A record whose content isn't found by its id, or as another file.
    Unindexed(Arc<Path>),
    /// A text that isn't what its content id says.
    Content(Arc<Path>),
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Of what.
    pub revision: Revision,
    /// Whether it came to its end.
    pub is_complete: bool,
    /// Records that were looked at.
    pub n_records: u64,
    /// Texts that were hashed.
    pub n_texts: u64,
    /// Their bytes.
    pub text_bytes: u64,
    /// Faults.
    pub n_faults: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
}

impl Verification {
    fn fault(&mut self, fault: Fault) {
        self.n_faults += 1;
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(fault);
        }
    }
}

impl Repository {
    /// Verifies the newest snapshot, until `stop` says so, which is asked for each file. Commits
    /// may go on meanwhile.
    pub fn verify(&self, depth: Depth, stop: &mut dyn FnMut() -> bool) -> Verification {
        self.sweep_contents();
        verify(self, &self.snapshot(), depth, stop)
    }
}

/// The snapshot keeps its records, and so what they hold in the index, whatever is committed.
pub(crate) fn verify(
    repository: &Repository,
    snapshot: &Snapshot,
    depth: Depth,
    stop: &mut dyn FnMut() -> bool,
) -> Verification {
    let shards = snapshot.shards();
    let (mut budget, turn) = match depth {
        Depth::Whole => (u64::MAX, 0),
        Depth::Sample { bytes, turn } => (bytes, turn),
    };
    // Another map each turn, and when all have been first, another file in each.
    let turn = usize::try_from(turn).unwrap_or(0);
    let (round, first) = (turn / shards.len().max(1), turn % shards.len().max(1));
    let mut found = Verification { revision: snapshot.revision(), ..Verification::default() };
    let mut totals = Totals::default();
    for at in (first..shards.len()).chain(0..first) {
        let mut entries: Vec<(&Arc<Path>, &PathEntry)> = shards[at].iter().collect();
        entries.sort_unstable_by_key(|(path, _)| *path);
        let skipped = round % entries.len().max(1);
        entries.rotate_left(skipped);
        for (path, entry) in entries {
            if stop() {
                return found;
            }
            if shard_of(path) != at || !is_of(path, entry) {
                found.fault(Fault::Misplaced(Arc::clone(path)));
            }
            if let Some(skip) = &entry.skip {
                *totals.skipped.entry(skip.reason.code()).or_default() += 1;
            }
            totals.kept += u64::from(entry.kept.is_some());
            for record in &entry.records {
                found.n_records += 1;
                add(&mut totals, record);
                check(repository, record, &mut budget, &mut found);
            }
        }
    }
    if totals != *snapshot.totals() {
        found.fault(Fault::Totals);
    }
    found.is_complete = true;
    found
}

/// Whether the entry is that of its path, with at most one record of a language.
fn is_of(path: &Arc<Path>, entry: &PathEntry) -> bool {
    let is_alone = |at: usize, record: &FileRecord| {
        entry.records[..at].iter().all(|other| other.language != record.language)
    };
    let mut records = entry.records.iter().enumerate();
    let is_right = |(at, record): (usize, &Arc<FileRecord>)| {
        record.path == *path && record.language == record.file.language && is_alone(at, record)
    };
    let mut marks = entry.skip.iter().chain(&entry.kept);
    records.all(is_right) && marks.all(|mark| mark.path == *path)
}

fn check(
    repository: &Repository,
    record: &Arc<FileRecord>,
    budget: &mut u64,
    found: &mut Verification,
) {
    let known = repository.by_content(record.content, record.language);
    // What was replaced since the snapshot was taken is nobody's fault any more.
    let is_newest = || {
        let newest = repository.snapshot();
        newest.record(&record.path, record.language).is_some_and(|it| Arc::ptr_eq(it, record))
    };
    if !known.is_some_and(|file| Arc::ptr_eq(&file, &record.file)) && is_newest() {
        found.fault(Fault::Unindexed(Arc::clone(&record.path)));
    }
    if *budget == 0 {
        return;
    }
    let len = record.file.text.len() as u64;
    *budget = budget.saturating_sub(len);
    found.n_texts += 1;
    found.text_bytes += len;
    if ContentId::of(record.file.text.as_bytes()) != record.content {
        found.fault(Fault::Content(Arc::clone(&record.path)));
    }
}
