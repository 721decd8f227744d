//! A batch of changes: staged on a copy that shares what it doesn't touch, then published whole.

use crate::history::Note;
use crate::record::{FileRecord, FileStamp, SkipRecord};
use crate::snapshot::{PathEntry, Repository, Revision, Shard, Snapshot, State, Totals, shard_of};
use astscope_syntax::{ContentId, FileId, Language, ParsedFile, SkipReason};
use rustc_hash::FxHashSet;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

/// A parsed file to be put into the repository.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// Absolute path.
    pub path: Arc<Path>,
    /// When it was read, and as what.
    pub stamp: FileStamp,
    /// Its bytes.
    pub content: ContentId,
    /// Its text and trees.
    pub file: Arc<ParsedFile>,
}

/// A batch. Dropping it changes nothing.
#[derive(Debug)]
pub struct Transaction<'r> {
    repository: &'r Repository,
    /// `None` for a [`Writer`](crate::Writer), which takes it only to publish.
    writing: Option<MutexGuard<'r, u64>>,
    state: State,
    /// What it was made from.
    base: Snapshot,
    /// Paths of which something else may be known now.
    touched: FxHashSet<Arc<Path>>,
    /// Contents whose last holder may go with this batch.
    dropped: Vec<(ContentId, Language)>,
}

impl<'r> Transaction<'r> {
    pub(crate) fn new(
        repository: &'r Repository,
        writing: Option<MutexGuard<'r, u64>>,
        base: Snapshot,
    ) -> Self {
        let (state, touched, dropped) = (base.state(), FxHashSet::default(), Vec::new());
        Self { repository, writing, state, base, touched, dropped }
    }

    /// Stages a parsed file, in place of what is known about its path and language. A path that
    /// is known keeps its id.
    pub fn put(&mut self, new: NewFile) -> Option<Arc<FileRecord>> {
        let language = new.file.language;
        let entry = self.entry(&new.path);
        let at = entry.records.iter().position(|record| record.language == language);
        let old = at.map(|at| entry.records.swap_remove(at));
        let (skip, kept) = (entry.skip.take(), entry.kept.take());
        let known_id: Option<FileId> = old.as_ref().map(|record| record.id);
        let id = match known_id {
            Some(id) => id,
            None => self.repository.next_id()?,
        };
        let record = Arc::new(FileRecord {
            id,
            path: new.path,
            language,
            stamp: new.stamp,
            content: new.content,
            file: self.repository.shared(new.content, new.file),
        });
        self.forget_record(old.as_deref());
        self.forget_skip(skip.as_deref());
        self.state.totals.kept -= u64::from(kept.is_some());
        add(&mut self.state.totals, &record);
        let path = Arc::clone(&record.path);
        self.entry(&path).records.push(Arc::clone(&record));
        Some(record)
    }

    /// Stages a new stamp for a file whose content is what it was.
    pub fn touch(&mut self, record: &FileRecord, stamp: FileStamp) -> Option<Arc<FileRecord>> {
        self.put(NewFile {
            path: Arc::clone(&record.path),
            stamp,
            content: record.content,
            file: Arc::clone(&record.file),
        })
    }

    /// Stages that a file has no tree, and why; what was known about its path goes.
    pub fn skip(&mut self, path: &Arc<Path>, stamp: FileStamp, reason: SkipReason) {
        self.remove(path);
        *self.state.totals.skipped.entry(reason.code()).or_default() += 1;
        let record = SkipRecord { path: Arc::clone(path), stamp, reason };
        self.entry(path).skip = Some(Arc::new(record));
    }

    /// Stages that a file can't be read, and why; what is known of an earlier reading stays. Without
    /// that nothing is staged.
    pub fn keep(&mut self, path: &Arc<Path>, stamp: FileStamp, reason: SkipReason) {
        let known = self.state.shards[shard_of(path)].get(path);
        if known.is_none_or(|entry| entry.records.is_empty()) {
            return;
        }
        let record = SkipRecord { path: Arc::clone(path), stamp, reason };
        let before = self.entry(path).kept.replace(Arc::new(record));
        self.state.totals.kept += u64::from(before.is_none());
    }

    /// Stages that nothing is known about a path any more.
    pub fn remove(&mut self, path: &Path) {
        let shard = shard_of(path);
        if !self.state.shards[shard].contains_key(path) {
            return;
        }
        let removed = Arc::make_mut(&mut self.state.shards[shard]).remove_entry(path);
        let Some((path, entry)) = removed else { return };
        self.touched.insert(path);
        for record in &entry.records {
            self.forget_record(Some(record));
        }
        self.forget_skip(entry.skip.as_deref());
        self.state.totals.kept -= u64::from(entry.kept.is_some());
    }

    /// Publishes the batch as one new revision; without changes the revision stays.
    pub fn commit(mut self) -> Revision {
        if self.touched.is_empty() {
            return self.state.revision;
        }
        self.state.revision.number += 1;
        let revision = self.state.revision;
        let note = |path| {
            Note::of(path, self.base.entry(path), self.state.shards[shard_of(path)].get(path))
        };
        let notes = self.touched.iter().filter_map(note).collect();
        self.repository.publish(self.state, notes);
        drop(self.writing);
        // It may be the last to hold what is to be forgotten.
        drop(self.base);
        self.repository.forget_unheld(&self.dropped);
        revision
    }

    /// The same under the writer's lock, if nobody else has published since this was made.
    pub(crate) fn commit_on_base(
        mut self,
        writing: MutexGuard<'r, u64>,
    ) -> Result<Revision, Overtaken> {
        if self.repository.snapshot().revision() != self.base.revision() {
            return Err(Overtaken);
        }
        self.writing = Some(writing);
        Ok(self.commit())
    }

    fn entry(&mut self, path: &Arc<Path>) -> &mut PathEntry {
        self.touched.insert(Arc::clone(path));
        let shard: &mut Shard = Arc::make_mut(&mut self.state.shards[shard_of(path)]);
        shard.entry(Arc::clone(path)).or_default()
    }

    fn forget_record(&mut self, record: Option<&FileRecord>) {
        if let Some(record) = record {
            subtract(&mut self.state.totals, record);
            self.dropped.push((record.content, record.language));
        }
    }

    fn forget_skip(&mut self, skip: Option<&SkipRecord>) {
        if let Some(skip) = skip {
            decrement(&mut self.state.totals.skipped, &skip.reason.code());
        }
    }
}

/// Somebody else has published meanwhile: what was staged is to be staged again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overtaken;

pub(crate) fn add(totals: &mut Totals, record: &FileRecord) {
    totals.files += 1;
    totals.nodes += record.file.n_nodes() as u64;
    totals.source_bytes += record.file.text.len() as u64;
    totals.tree_bytes += record.file.tree_bytes() as u64;
    *totals.languages.entry(record.language).or_default() += 1;
}

fn subtract(totals: &mut Totals, record: &FileRecord) {
    totals.files -= 1;
    totals.nodes -= record.file.n_nodes() as u64;
    totals.source_bytes -= record.file.text.len() as u64;
    totals.tree_bytes -= record.file.tree_bytes() as u64;
    decrement(&mut totals.languages, &record.language);
}

fn decrement<K: Ord>(counts: &mut std::collections::BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
