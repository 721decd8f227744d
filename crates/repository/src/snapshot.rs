//! The state of the repository at one revision, and the cell that holds the newest.

use crate::history::{Changes, History, HistoryGone, Note, changes};
use crate::record::{FileRecord, SkipRecord};
use crate::transaction::Transaction;
use arc_swap::ArcSwap;
use astscope_syntax::{ContentId, FileId, Language, ParsedFile};
use rustc_hash::{FxBuildHasher, FxHashMap};
use std::collections::BTreeMap;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Maps in a snapshot. A commit copies those that it touches: with 40,000 files 160 pointers each.
const SHARDS: usize = 256;

/// A state: later revisions of one epoch have larger numbers; a rebuild opens a new epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision {
    /// Which life of the repository.
    pub epoch: u64,
    /// Commits since it began.
    pub number: u64,
}

/// What a snapshot holds, in numbers. Texts and trees that several files share count once for
/// each file in `nodes` and `source_bytes`, as they do for a query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files with a tree.
    pub files: u64,
    /// Their nodes.
    pub nodes: u64,
    /// Bytes of their texts.
    pub source_bytes: u64,
    /// Bytes of their trees.
    pub tree_bytes: u64,
    /// Files by language.
    pub languages: BTreeMap<Language, u64>,
    /// Skipped files by the reason's code.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Files with a tree of an earlier reading, which couldn't be read since.
    pub kept: u64,
}

/// What is known about one path.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathEntry {
    /// A record for each language that the file was parsed as: one, but for `languageGlobs`.
    pub(crate) records: Vec<Arc<FileRecord>>,
    /// Why it has no tree.
    pub(crate) skip: Option<Arc<SkipRecord>>,
    /// Why it couldn't be read since its records were made.
    pub(crate) kept: Option<Arc<SkipRecord>>,
}

pub(crate) type Shard = FxHashMap<Arc<Path>, PathEntry>;

/// The repository at one revision. Cheap to clone, never changes.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<State>);

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    pub(crate) shards: Vec<Arc<Shard>>,
    pub(crate) totals: Totals,
}

impl State {
    pub(crate) fn empty(epoch: u64) -> Self {
        Self {
            revision: Revision { epoch, number: 0 },
            shards: vec![Arc::default(); SHARDS],
            totals: Totals::default(),
        }
    }
}

impl Snapshot {
    /// Its revision.
    pub fn revision(&self) -> Revision {
        self.0.revision
    }

    /// What it holds, in numbers.
    pub fn totals(&self) -> &Totals {
        &self.0.totals
    }

    /// The record of the file at `path`, parsed as `language`.
    pub fn record(&self, path: &Path, language: Language) -> Option<&Arc<FileRecord>> {
        let records = &self.entry(path)?.records;
        records.iter().find(|record| record.language == language)
    }

    /// Why the file at `path` has no tree, if it was looked at and has none.
    pub fn skip(&self, path: &Path) -> Option<&Arc<SkipRecord>> {
        self.entry(path)?.skip.as_ref()
    }

    /// Why the file at `path` couldn't be read since its records were made, if that is so, and when that
    /// was found first.
    pub fn kept(&self, path: &Path) -> Option<&Arc<SkipRecord>> {
        // Nearly always: then a query needn't look for each of its files.
        if self.0.totals.kept == 0 {
            return None;
        }
        self.entry(path)?.kept.as_ref()
    }

    /// All records, in no order.
    pub fn records(&self) -> impl Iterator<Item = &Arc<FileRecord>> {
        self.0.shards.iter().flat_map(|shard| shard.values()).flat_map(|entry| &entry.records)
    }

    /// All skipped files, in no order.
    pub fn skips(&self) -> impl Iterator<Item = &Arc<SkipRecord>> {
        self.0
            .shards
            .iter()
            .flat_map(|shard| shard.values())
            .filter_map(|entry| entry.skip.as_ref())
    }

    /// Why the files that are [kept](Self::kept) are, in no order.
    pub fn all_kept(&self) -> impl Iterator<Item = &Arc<SkipRecord>> {
        let entries = self.0.shards.iter().flat_map(|shard| shard.values());
        entries.filter_map(|entry| entry.kept.as_ref())
    }

    /// All paths that anything is known about, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.0.shards.iter().flat_map(|shard| shard.keys())
    }

    /// Bytes of the maps and records, texts and trees apart.
    pub fn index_bytes(&self) -> u64 {
        let entry = size_of::<(Arc<Path>, PathEntry)>() + 1;
        let maps: usize = self.0.shards.iter().map(|shard| shard.capacity() * entry).sum();
        let record = size_of::<FileRecord>() + size_of::<ParsedFile>() + 2 * size_of::<usize>();
        let records: usize =
            self.records().map(|known| record + known.path.as_os_str().len()).sum();
        (maps + records) as u64
    }

    /// Whether anything is known about `path`.
    pub fn knows(&self, path: &Path) -> bool {
        self.entry(path).is_some()
    }

    /// Records of `before` that are not in this one, then those of this one that were not in
    /// `before`, in no order. Costs what changed, and a look at each map, not at each file.
    pub(crate) fn since<'s>(
        &'s self,
        before: &'s Self,
    ) -> impl Iterator<Item = (Vec<&'s Arc<FileRecord>>, Vec<&'s Arc<FileRecord>>)> {
        let maps = before.0.shards.iter().zip(&self.0.shards);
        maps.filter(|(old, new)| !Arc::ptr_eq(old, new))
            .map(|(old, new)| (only_in(old, new), only_in(new, old)))
    }

    pub(crate) fn shards(&self) -> &[Arc<Shard>] {
        &self.0.shards
    }

    pub(crate) fn state(&self) -> State {
        State::clone(&self.0)
    }

    pub(crate) fn entry(&self, path: &Path) -> Option<&PathEntry> {
        self.0.shards[shard_of(path)].get(path)
    }
}

/// Records of the one map that the other doesn't hold.
fn only_in<'s>(one: &'s Shard, other: &Shard) -> Vec<&'s Arc<FileRecord>> {
    let is_held = |record: &Arc<FileRecord>| {
        let held = other.get(&record.path).map(|entry| entry.records.as_slice());
        held.unwrap_or_default().iter().any(|known| Arc::ptr_eq(known, record))
    };
    let records = one.values().flat_map(|entry| &entry.records);
    records.filter(|record| !is_held(record)).collect()
}

pub(crate) fn shard_of(path: &Path) -> usize {
    // The upper bits: the maps inside the shards use the lower ones.
    (FxBuildHasher.hash_one(path) >> 40) as usize % SHARDS
}

/// The newest snapshot, and the right to make the next.
#[derive(Debug)]
pub struct Repository {
    newest: ArcSwap<State>,
    /// How it came to be. Held for no longer than a commit takes to be added or looked up.
    history: Mutex<History>,
    /// Held to publish. In it the number of the newest [`Writer`](crate::Writer); 0 before the
    /// first.
    writing: Mutex<u64>,
    last_id: AtomicU32,
    /// Parsed files by content, while some record holds them: a copy or a renamed file is not
    /// parsed again.
    by_content: Mutex<FxHashMap<(ContentId, Language), Weak<ParsedFile>>>,
}

impl Repository {
    /// An empty repository. `epoch` tells its revisions from those of earlier lives.
    pub fn new(epoch: u64) -> Self {
        Self {
            newest: ArcSwap::from_pointee(State::empty(epoch)),
            history: Mutex::default(),
            writing: Mutex::new(0),
            last_id: AtomicU32::new(0),
            by_content: Mutex::default(),
        }
    }

    /// The newest state. Never waits.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.newest.load_full())
    }

    /// Which files are not what they were at the revision `since`. Costs what was committed since
    /// then, and holds up no commit.
    ///
    /// ```
    /// use astscope_repository::{GoneBecause, Repository, Revision};
    ///
    /// let repository = Repository::new(1);
    /// let now = repository.snapshot().revision();
    /// assert!(repository.changes_since(now)?.changed.is_empty());
    /// let of_another_life = repository.changes_since(Revision { epoch: 9, ..now });
    /// assert_eq!(of_another_life.unwrap_err().because, GoneBecause::OtherEpoch);
    /// # Ok::<(), astscope_repository::HistoryGone>(())
    /// ```
    ///
    /// # Errors
    /// When that isn't known: then everything is to be read again.
    pub fn changes_since(&self, since: Revision) -> Result<Changes, HistoryGone> {
        let (noted, newest) = {
            // Commits are published under this lock, so the two belong together.
            let history = lock(&self.history);
            let newest = self.snapshot();
            (history.since(since, newest.revision())?, newest)
        };
        Ok(changes(&noted, &newest))
    }

    /// Bytes that remembering what has changed takes, beside the snapshots.
    pub fn history_bytes(&self) -> u64 {
        lock(&self.history).bytes()
    }

    /// Begins a batch; waits while another is being committed.
    ///
    /// For embedders and tests. Where the repository runs as a service its core is the only
    /// writer, and a batch is sent to it.
    pub fn begin(&self) -> Transaction<'_> {
        let guard = self.lock();
        Transaction::new(self, Some(guard), self.snapshot())
    }

    /// Who may publish: the newest writer's number.
    pub(crate) fn lock(&self) -> MutexGuard<'_, u64> {
        // A writer that panicked has published nothing.
        lock(&self.writing)
    }

    /// In place of everything, an empty state of the next epoch.
    pub(crate) fn start_over(&self) -> Revision {
        let state = State::empty(self.newest.load().revision.epoch + 1);
        let revision = state.revision;
        let mut history = lock(&self.history);
        history.clear();
        self.newest.store(Arc::new(state));
        drop(history);
        lock(&self.by_content).clear();
        revision
    }

    /// A parsed file of this content that some record holds.
    pub fn by_content(&self, content: ContentId, language: Language) -> Option<Arc<ParsedFile>> {
        lock(&self.by_content).get(&(content, language))?.upgrade()
    }

    /// The parsed file of this content that records share: the one that is known, else this. Where
    /// they aren't equal one of them is damaged, and as this one was just made, it is the other.
    pub(crate) fn shared(&self, content: ContentId, file: Arc<ParsedFile>) -> Arc<ParsedFile> {
        let key = (content, file.language);
        let mut known = lock(&self.by_content);
        let held = known.get(&key).and_then(Weak::upgrade);
        match held {
            Some(held) if Arc::ptr_eq(&held, &file) || *held == *file => held,
            _ => {
                known.insert(key, Arc::downgrade(&file));
                file
            }
        }
    }

    /// Forgets contents that no record holds any more, wherever they were left.
    pub(crate) fn sweep_contents(&self) {
        lock(&self.by_content).retain(|_, file| file.strong_count() > 0);
    }

    /// Forgets contents that no record holds any more.
    pub(crate) fn forget_unheld(&self, contents: &[(ContentId, Language)]) {
        let mut known = lock(&self.by_content);
        for key in contents {
            if known.get(key).is_some_and(|file| file.strong_count() == 0) {
                known.remove(key);
            }
        }
    }

    pub(crate) fn publish(&self, state: State, notes: Vec<Note>) {
        let mut history = lock(&self.history);
        history.push(state.revision.number, notes);
        self.newest.store(Arc::new(state));
    }

    pub(crate) fn next_id(&self) -> Option<FileId> {
        FileId::from_index(self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
