//! What queries found, by query and file: the data, without a clock or a lock of its own.
//!
//! An entry says what one query found in one file of one content. Nothing has to be invalidated,
//! because everything that decides the answer is in its key:
//! - the query ([`QueryKey`]): what is looked for, and all that says how a match is written;
//! - the file's path, which the rules' `files` and `ignores` look at, and its spelling, which
//!   stands in each match;
//! - its content and its language: texts, trees and embedded parts follow from the two. Globs that
//!   give a file another language act through that.
//!
//! What prunes decides nothing, by its own law, and other files of the scope only decide for which
//! languages a pattern is compiled. A changed file is a miss, and what is learned about it takes
//! the old entry's place.
//!
//! Bounds are on whole queries: their entries come and go together, as they are asked for together.

use crate::execute::Found;
use astscope_repository::ScopedFile;
use astscope_syntax::{ContentId, Language};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What bounds the cache of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Queries, at least 1. An agent asks some dozens in five minutes; 256 leave room for several
    /// in one workspace.
    pub queries_max: usize,
    /// Bytes of all entries: 64 MiB, which is some 300,000 files without a match. The oldest
    /// queries make room.
    pub bytes_max: usize,
    /// Bytes of one query's entries, at most half of `bytes_max`, so that one doesn't drive out all
    /// others: 32 MiB. What a query finds beyond them is not remembered. It also bounds what a
    /// query that is under way holds for later.
    pub query_bytes_max: usize,
    /// How long a query's entries live from when it was first asked, however often it is asked
    /// again: 5 minutes, as `ElixirScope` says. It bounds what is held for nobody; answers don't
    /// get old.
    pub ttl: Duration,
    /// How often expired entries are swept: every 30 s. They are never found, so this only bounds
    /// how long their bytes stay.
    pub sweep_every: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            queries_max: 256,
            bytes_max: 64 << 20,
            query_bytes_max: 32 << 20,
            ttl: Duration::from_mins(5),
            sweep_every: Duration::from_secs(30),
        }
    }
}

/// How the cache of results stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Queries.
    pub queries: usize,
    /// Entries: what one query found in one file.
    pub entries: usize,
    /// Bytes of the entries, with their paths; those are mostly shared with others.
    pub bytes: usize,
    /// Files whose result was found.
    pub hits: u64,
    /// Files whose result wasn't.
    pub misses: u64,
    /// Entries that were dropped since their time was over.
    pub expired: u64,
    /// Entries that had to make room.
    pub evicted: u64,
}

/// What was given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Entries.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Everything that decides what a query finds in a file, but for the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueryKey(ContentId);

impl QueryKey {
    /// The key of what these bytes describe: equal bytes are the same query.
    pub fn of(description: &[u8]) -> Self {
        Self(ContentId::of(description))
    }
}

/// A file's result that can be remembered. A clone of it is as good, and should be cheap; its
/// default is that of a file without a match.
pub trait Remember: Found + Clone + Default + Sync + 'static {
    /// Bytes that it holds on the heap.
    fn heap_bytes(&self) -> usize;
}

impl<M: Copy + Send + Sync + 'static> Remember for Vec<M> {
    fn heap_bytes(&self) -> usize {
        self.capacity() * size_of::<M>()
    }
}

/// What a query is known to find in a file.
#[derive(Clone, Debug)]
pub(crate) enum Outcome<F> {
    /// The file can't have a match.
    Pruned,
    /// It was verified, and has none.
    Nothing,
    Found(Arc<F>),
}

impl<F: Remember> Outcome<F> {
    fn of(found: Option<&F>) -> Self {
        match found {
            None => Self::Pruned,
            Some(found) if found.n_matches() == 0 => Self::Nothing,
            Some(found) => Self::Found(Arc::new(found.clone())),
        }
    }

    pub(crate) fn found(&self) -> Option<F> {
        match self {
            Self::Pruned => None,
            Self::Nothing => Some(F::default()),
            Self::Found(found) => Some(F::clone(found)),
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Self::Pruned | Self::Nothing => 0,
            Self::Found(found) => size_of::<F>() + found.heap_bytes(),
        }
    }
}

/// The path decides which rules apply, its spelling stands in each match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FileKey {
    abs: Arc<Path>,
    display: Arc<str>,
}

#[derive(Clone, Debug)]
struct Entry<F> {
    content: ContentId,
    language: Language,
    outcome: Outcome<F>,
}

/// All that is known of one query.
#[derive(Clone, Debug)]
pub(crate) struct Known<F> {
    files: HashMap<FileKey, Entry<F>>,
    bytes: usize,
}

impl<F> Default for Known<F> {
    fn default() -> Self {
        Self { files: HashMap::new(), bytes: 0 }
    }
}

impl<F: Remember> Known<F> {
    pub(crate) fn get(&self, file: &ScopedFile) -> Option<&Outcome<F>> {
        let entry = self.files.get(&key(file))?;
        let is_same =
            entry.content == file.record.content && entry.language == file.record.language;
        is_same.then_some(&entry.outcome)
    }

    /// Notes what was found in a file, unless there are more than `bytes_max` then.
    pub(crate) fn learn(&mut self, file: &ScopedFile, found: Option<&F>, bytes_max: usize) {
        let (content, language) = (file.record.content, file.record.language);
        let entry = Entry { content, language, outcome: Outcome::of(found) };
        let key = key(file);
        if self.bytes + bytes_of(&key, &entry) <= bytes_max {
            self.insert(key, entry);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    fn insert(&mut self, key: FileKey, entry: Entry<F>) {
        self.bytes += bytes_of(&key, &entry);
        let before = self.files.get(&key).map_or(0, |before| bytes_of(&key, before));
        self.files.insert(key, entry);
        self.bytes -= before;
    }

    fn absorb(&mut self, newer: Self) {
        newer.files.into_iter().for_each(|(key, entry)| self.insert(key, entry));
    }
}

fn key(file: &ScopedFile) -> FileKey {
    FileKey { abs: Arc::clone(&file.abs), display: Arc::clone(&file.display) }
}

fn bytes_of<F: Remember>(key: &FileKey, entry: &Entry<F>) -> usize {
    size_of::<(FileKey, Entry<F>)>()
        + key.abs.as_os_str().len()
        + key.display.len()
        + entry.outcome.heap_bytes()
}

/// What is known of each query, within bounds. Times are from any one origin.
#[derive(Debug)]
pub(crate) struct Results<F> {
    config: CacheConfig,
    queries: HashMap<QueryKey, Asked<F>>,
    stats: CacheStats,
}

#[derive(Debug)]
struct Asked<F> {
    known: Arc<Known<F>>,
    /// When it was first asked.
    first: Duration,
    /// When it was last asked.
    last: Duration,
}

/// What was taken out, to be dropped where nobody waits for it.
pub(crate) type Removed<F> = Vec<Arc<Known<F>>>;

impl<F: Remember> Results<F> {
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self { config, queries: HashMap::new(), stats: CacheStats::default() }
    }

    /// What is known of a query. Nothing, if that has expired.
    pub(crate) fn get(&mut self, now: Duration, key: QueryKey) -> Arc<Known<F>> {
        let ttl = self.config.ttl;
        let fresh = self.queries.get_mut(&key).filter(|asked| asked.first + ttl > now);
        fresh.map_or_else(Arc::default, |asked| {
            asked.last = now;
            Arc::clone(&asked.known)
        })
    }

    /// Adds what was learned of a query, and takes the oldest queries out until the bounds hold.
    pub(crate) fn put(&mut self, now: Duration, key: QueryKey, learned: Known<F>) -> Removed<F> {
        let mut removed = self.sweep(now);
        if let Some(asked) = self.queries.get_mut(&key) {
            // A copy is made only while the same query runs elsewhere.
            let known = Arc::make_mut(&mut asked.known);
            self.stats.bytes -= known.bytes;
            self.stats.entries -= known.files.len();
            known.absorb(learned);
            self.stats.bytes += known.bytes;
            self.stats.entries += known.files.len();
        } else {
            self.stats.bytes += learned.bytes;
            self.stats.entries += learned.files.len();
            let asked = Asked { known: Arc::new(learned), first: now, last: now };
            self.queries.insert(key, asked);
        }
        while self.stats.bytes > self.config.bytes_max
            || self.queries.len() > self.config.queries_max
        {
            let oldest = self.queries.iter().min_by_key(|(_, asked)| asked.first);
            let Some(oldest) = oldest.map(|(key, _)| *key) else { break };
            let evicted = self.remove(&[oldest]);
            self.stats.evicted += evicted.iter().map(|it| it.files.len() as u64).sum::<u64>();
            removed.extend(evicted);
        }
        removed
    }

    /// Counts look-ups.
    pub(crate) fn count(&mut self, hits: u64, misses: u64) {
        self.stats.hits += hits;
        self.stats.misses += misses;
    }

    /// Takes out what has expired.
    pub(crate) fn sweep(&mut self, now: Duration) -> Removed<F> {
        let ttl = self.config.ttl;
        let expired = self.keys(|asked| asked.first + ttl <= now);
        let removed = self.remove(&expired);
        self.stats.expired += removed.iter().map(|it| it.files.len() as u64).sum::<u64>();
        removed
    }

    /// Takes out what nobody asked for in this long.
    pub(crate) fn forget(&mut self, now: Duration, idle: Duration) -> Removed<F> {
        let keys = self.keys(|asked| asked.is_idle(now, idle));
        self.remove(&keys)
    }

    /// What [`forget`](Self::forget) would take out.
    pub(crate) fn idle(&self, now: Duration, idle: Duration) -> Forgotten {
        let asked = self.queries.values().filter(|asked| asked.is_idle(now, idle));
        forgotten(asked.map(|asked| &*asked.known))
    }

    /// Takes everything out, and begins to count anew.
    pub(crate) fn clear(&mut self) -> Removed<F> {
        let removed = self.queries.drain().map(|(_, asked)| asked.known).collect();
        self.stats = CacheStats::default();
        removed
    }

    pub(crate) fn stats(&self) -> CacheStats {
        CacheStats { queries: self.queries.len(), ..self.stats }
    }

    fn keys(&self, which: impl Fn(&Asked<F>) -> bool) -> Vec<QueryKey> {
        self.queries.iter().filter(|(_, asked)| which(asked)).map(|(key, _)| *key).collect()
    }

    fn remove(&mut self, keys: &[QueryKey]) -> Removed<F> {
        let removed = keys.iter().filter_map(|key| self.queries.remove(key));
        let removed: Removed<F> = removed.map(|asked| asked.known).collect();
        let forgotten = forgotten(removed.iter().map(|known| &**known));
        self.stats.bytes -= forgotten.bytes;
        self.stats.entries -= forgotten.entries;
        removed
    }
}

impl<F> Asked<F> {
    fn is_idle(&self, now: Duration, idle: Duration) -> bool {
        self.last + idle <= now
    }
}

pub(crate) fn forgotten<'k, F: 'k>(known: impl Iterator<Item = &'k Known<F>>) -> Forgotten {
    known.fold(Forgotten::default(), |sum, known| Forgotten {
        entries: sum.entries + known.files.len(),
        bytes: sum.bytes + known.bytes,
    })
}

#[cfg(test)]
pub(crate) mod tests;
