//! One refresh at work: what is known of each selected file, and reading and parsing the others.
//!
//! They are a queue, largest first, that the pool's threads empty, several small ones at a time;
//! what they finish is committed in batches. A file that another refresh is parsing is left to it
//! and looked up when it is done.

use super::{RefreshError, Synchronizer};
use crate::claims::Claim;
use crate::commit::apply;
use crate::read::{Content, read_stable};
use crate::walk::{Found, WalkSpec};
use astscope_parsing::Source;
use astscope_repository::{Change, FileRecord, FileStamp, NewFile, Repository, Snapshot};
use astscope_syntax::{ContentId, Language, ParsedFile, SkipReason};
use rayon::ThreadPool;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Files after which a batch is committed.
const BATCH_FILES: usize = 128;
/// Time after which a batch is committed, so that others see what is ready.
const BATCH_TIME: Duration = Duration::from_millis(50);
/// Bytes that a thread takes from the queue at a time, in several files if they are small: then the
/// way to a parser of another process and back is less than a hundredth of what parsing them takes.
const TAKE_BYTES: u64 = 256 << 10;
/// As many files at most: nobody sees them, nor the files that they are claimed from, before all are
/// done.
const TAKE_FILES: usize = 128;
/// Towards the queue's end a thread takes no more than one part of so many of what each thread would
/// get, so that none is left with much to do when the others are done.
const TAKE_PARTS: u64 = 4;

/// What became of one selected file.
pub(crate) enum Known {
    Parsed(Arc<FileRecord>),
    /// Of an earlier reading: the file may be another by now.
    Older(Arc<FileRecord>),
    /// The same, because the file couldn't be read since.
    Kept(Arc<FileRecord>, SkipReason),
    Skipped(SkipReason),
}

/// One refresh at work.
pub(crate) struct Job<'j> {
    synchronizer: &'j Synchronizer,
    pool: &'j ThreadPool,
    spec: &'j WalkSpec,
    files: &'j [Found],
    admitted: &'j [bool],
    /// Whether nothing is committed before all is done.
    is_at_once: bool,
    /// One for each file; empty while it is pending.
    outcomes: Vec<OnceLock<Known>>,
    ready: Mutex<Ready<'j>>,
    /// Holds, for as long as the refresh, what may not be indexed.
    one_shot: Repository,
    stop: &'j (dyn Fn() -> bool + Sync),
    progress: &'j (dyn Fn(usize, usize) + Sync),
    n_done: AtomicUsize,
    n_held: Held,
}

/// Selected files that the repository holds. Where that is as many as it holds at all, none of
/// its files can be lost, and nobody has to look for them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// With a tree, of the languages asked for.
    pub(super) parsed: AtomicUsize,
    /// Without a tree.
    pub(super) skipped: AtomicUsize,
    /// Whether anything could not be stored.
    pub(super) is_lost: AtomicBool,
}

impl Held {
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }
}

struct Ready<'j> {
    batch: Vec<Done<'j>>,
    committed_at: Instant,
}

/// A file that was read, and its claim until it is committed.
struct Done<'j> {
    index: usize,
    news: News,
    claim: Option<Claim<'j>>,
}

enum News {
    Parsed(FileStamp, ContentId, Arc<ParsedFile>),
    Skipped(Option<FileStamp>, SkipReason),
    /// Somebody else committed it first.
    Known(Known),
}

/// Files that wait for a thread, largest first: none begins a long one when the others are done.
struct Queue {
    files: std::vec::IntoIter<usize>,
    bytes_left: u64,
    n_threads: u64,
}

impl Queue {
    fn new(mut queue: Vec<usize>, files: &[Found], n_threads: usize) -> Self {
        let size = |index: &usize| files[*index].stat.size;
        queue.sort_by_key(|index| std::cmp::Reverse(size(index)));
        let bytes_left = queue.iter().map(size).sum();
        Self { files: queue.into_iter(), bytes_left, n_threads: n_threads as u64 }
    }

    /// One file, or several that are small.
    fn take(&mut self, files: &[Found]) -> Vec<usize> {
        let share = self.bytes_left / (self.n_threads * TAKE_PARTS).max(1);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some(&index) = self.files.as_slice().first() {
            let size = files[index].stat.size;
            let is_enough = bytes + size > share.min(TAKE_BYTES) || taken.len() >= TAKE_FILES;
            if is_enough && !taken.is_empty() {
                break;
            }
            bytes += size;
            taken.extend(self.files.next());
        }
        self.bytes_left -= bytes;
        taken
    }
}

impl Known {
    /// What is stored of a file whose changes are all told; those of a file with several names
    /// aren't, if they are made under another one.
    pub(crate) fn proven(snapshot: &Snapshot, found: &Found) -> Option<Self> {
        if let Some(record) = snapshot.record(&found.abs, found.language) {
            // What couldn't be read is tried again.
            let is_told = record.stamp.stat.links <= 1 && snapshot.kept(&found.abs).is_none();
            return is_told.then(|| Self::Parsed(Arc::clone(record)));
        }
        let skip = snapshot.skip(&found.abs)?;
        // Why it was skipped may depend on its language, which languageGlobs may change.
        let is_true = lasts(&skip.reason)
            && skip.stamp.stat.links <= 1
            && Language::from_path(&found.abs) == Some(found.language);
        is_true.then(|| Self::Skipped(skip.reason.clone()))
    }
}

impl<'j> Job<'j> {
    /// For these files, of which those may be stored whose typed path is admitted.
    pub(crate) fn new(
        synchronizer: &'j Synchronizer,
        spec: &'j WalkSpec,
        files: &'j [Found],
        admitted: &'j [bool],
        stop: &'j (dyn Fn() -> bool + Sync),
    ) -> Self {
        Self {
            synchronizer,
            pool: &synchronizer.pool,
            spec,
            files,
            admitted,
            is_at_once: false,
            outcomes: files.iter().map(|_| OnceLock::new()).collect(),
            ready: Mutex::new(Ready { batch: Vec::new(), committed_at: Instant::now() }),
            one_shot: Repository::new(0),
            stop,
            progress: &|_, _| {},
            n_done: AtomicUsize::new(0),
            n_held: Held::default(),
        }
    }

    pub(crate) fn on(self, pool: &'j ThreadPool) -> Self {
        Self { pool, ..self }
    }

    pub(crate) fn telling(self, progress: &'j (dyn Fn(usize, usize) + Sync)) -> Self {
        Self { progress, ..self }
    }

    /// All in one transaction, but for what somebody else is parsing.
    pub(crate) fn at_once(self) -> Self {
        Self { is_at_once: true, ..self }
    }

    pub(crate) fn run(self) -> Result<(Vec<OnceLock<Known>>, Held), RefreshError> {
        let snapshot = self.synchronizer.repository.snapshot();
        let mut queue = Vec::new();
        for (index, found) in self.files.iter().enumerate() {
            match Self::look_up(&snapshot, found) {
                Some(outcome) => self.conclude(index, outcome, true),
                None => queue.push(index),
            }
        }
        if !queue.is_empty() {
            self.catch_up(&snapshot, queue)?;
        }
        Ok((self.outcomes, self.n_held))
    }

    /// Reads and parses the files of `queue`.
    fn catch_up(&self, snapshot: &Snapshot, queue: Vec<usize>) -> Result<(), RefreshError> {
        let total = queue.len();
        let n_threads = self.pool.current_num_threads().min(total);
        let queue = Mutex::new(Queue::new(queue, self.files, n_threads));
        let others = Mutex::new(Vec::new());
        let work = || {
            while !(self.stop)() {
                let taken = lock(&queue).take(self.files);
                if taken.is_empty() {
                    break;
                }
                let mut claimed = Vec::with_capacity(taken.len());
                for index in taken {
                    let found = &self.files[index];
                    let claim = self
                        .is_indexed(snapshot, found)
                        .then(|| self.synchronizer.claims.claim(&found.abs, found.language));
                    match claim {
                        Some(None) => lock(&others).push(index),
                        claim => claimed.push((index, claim.flatten())),
                    }
                }
                self.process(claimed, total);
            }
        };
        self.pool.scope(|scope| {
            for _ in 0..n_threads {
                scope.spawn(|_| work());
            }
        });
        self.commit_ready();
        // No claim is held now, so waiting for others can't be a circle.
        for index in others.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let found = &self.files[index];
            let claim = self.synchronizer.claims.wait(&found.abs, found.language, self.stop);
            if claim.is_none() {
                break;
            }
            self.process(vec![(index, claim)], total);
            self.commit_ready();
        }
        if (self.stop)() { Err(RefreshError::Cancelled) } else { Ok(()) }
    }

    /// What is known already and certainly still true.
    pub(crate) fn look_up(snapshot: &Snapshot, found: &Found) -> Option<Known> {
        if let Some(record) = snapshot.record(&found.abs, found.language) {
            let is_unchanged =
                record.stamp.proves_unchanged(&found.stat) && snapshot.kept(&found.abs).is_none();
            return is_unchanged.then(|| Known::Parsed(Arc::clone(record)));
        }
        let skip = snapshot.skip(&found.abs)?;
        // Why it was skipped may depend on its language, which languageGlobs may change.
        let is_true = lasts(&skip.reason)
            && skip.stamp.proves_unchanged(&found.stat)
            && Language::from_path(&found.abs) == Some(found.language);
        is_true.then(|| Known::Skipped(skip.reason.clone()))
    }

    /// Whether a file may be committed.
    fn is_indexed(&self, snapshot: &Snapshot, found: &Found) -> bool {
        if !self.admitted[found.typed] {
            return false;
        }
        // With a language given, ast-grep finds hidden files of it that a plain walk doesn't.
        let name = found.abs.file_name().unwrap_or_default();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        !is_hidden
            || self.spec.languages.is_none()
            || snapshot.record(&found.abs, found.language).is_some()
    }

    /// Reads these files, parses them together, and has them committed.
    fn process(&self, batch: Vec<(usize, Option<Claim<'j>>)>, total: usize) {
        let Synchronizer { repository, backend, limits, .. } = self.synchronizer;
        let (mut sources, mut readings) = (Vec::new(), Vec::new());
        for (index, claim) in batch {
            if (self.stop)() {
                return;
            }
            let found = &self.files[index];
            let known = claim.as_ref().and_then(|_| Self::look_up(&repository.snapshot(), found));
            let read = match known {
                Some(outcome) => Err(News::Known(outcome)),
                None => self.read(found),
            };
            match read {
                Ok((stamp, source)) => {
                    sources.push(source);
                    readings.push((index, claim, stamp));
                }
                Err(news) => self.finish(Done { index, news, claim }, total),
            }
        }
        if sources.is_empty() {
            return;
        }
        let parsed = backend.parse_batch(&sources, limits, &|| (self.stop)());
        for (((index, claim, stamp), source), parsed) in
            readings.into_iter().zip(sources).zip(parsed)
        {
            let news = match parsed {
                Ok(file) => News::Parsed(stamp, source.content, Arc::new(file)),
                // No news: it was stopped.
                Err(SkipReason::ParseTimeout) if (self.stop)() => continue,
                Err(reason) => News::Skipped(Some(stamp), reason),
            };
            self.finish(Done { index, news, claim }, total);
        }
    }

    /// A text to be parsed, or news without that.
    fn read(&self, found: &Found) -> Result<(FileStamp, Source), News> {
        let Synchronizer { disk, limits, repository, .. } = self.synchronizer;
        let Content { stamp, bytes } = read_stable(&**disk, &found.abs, limits.bytes_max)
            .map_err(|unread| News::Skipped(unread.stamp, unread.reason))?;
        let content = ContentId::of(&bytes);
        // The same content as before, or as that of another file: it is parsed already.
        if let Some(file) = repository.by_content(content, found.language) {
            return Err(News::Parsed(stamp, content, file));
        }
        match astscope_parsing::admit(bytes, limits) {
            Ok(text) => Ok((stamp, Source { text, content, language: found.language })),
            Err(reason) => Err(News::Skipped(Some(stamp), reason)),
        }
    }

    /// Has it committed with others, or with what is ready now if that is due.
    fn finish(&self, done: Done<'j>, total: usize) {
        let is_due = {
            let mut ready = lock(&self.ready);
            ready.batch.push(done);
            !self.is_at_once
                && (ready.batch.len() >= BATCH_FILES || ready.committed_at.elapsed() >= BATCH_TIME)
        };
        if is_due {
            self.commit_ready();
        }
        (self.progress)(self.n_done.fetch_add(1, Ordering::Relaxed) + 1, total);
    }

    /// Commits what is ready and gives the claims back.
    fn commit_ready(&self) {
        let batch = {
            let mut ready = lock(&self.ready);
            ready.committed_at = Instant::now();
            std::mem::take(&mut ready.batch)
        };
        let (indexed, one_shot): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|done| done.claim.is_some());
        self.commit(false, one_shot);
        self.commit(true, indexed);
    }

    fn commit(&self, is_held: bool, batch: Vec<Done<'j>>) {
        if batch.is_empty() {
            return;
        }
        let repository = if is_held { &self.synchronizer.repository } else { &self.one_shot };
        let before = repository.snapshot();
        let mut changes = Vec::with_capacity(batch.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut claims = Vec::with_capacity(batch.len());
        for Done { index, news, claim } in batch {
            let path = &self.files[index].abs;
            let outcome = match news {
                News::Known(outcome) => Some(outcome),
                News::Parsed(stamp, content, file) => {
                    let path = Arc::clone(path);
                    changes.push((index, Change::Put(NewFile { path, stamp, content, file })));
                    None
                }
                News::Skipped(_, SkipReason::Vanished) => {
                    // When the root is gone its files are not given up: it may come back.
                    if !is_held || self.synchronizer.root().is_dir() {
                        changes.push((index, Change::Remove(Arc::clone(path))));
                    }
                    Some(Known::Skipped(SkipReason::Vanished))
                }
                News::Skipped(stamp, reason) => {
                    if let Some((record, mark)) = self.last_good(index, &reason) {
                        changes.extend(mark.filter(|_| is_held).map(|mark| (index, mark)));
                        outcomes.push((index, Known::Kept(record, reason)));
                        claims.push(claim);
                        continue;
                    }
                    let stamp = stamp.unwrap_or_default();
                    // What can't be read is tried by every query, and is no news each time.
                    let is_new = before.skip(path).is_none_or(|known| {
                        known.stamp.stat != stamp.stat || known.reason != reason
                    });
                    if is_new || (stamp.proves_unchanged(&stamp.stat) && lasts(&reason)) {
                        let path = Arc::clone(path);
                        changes.push((index, Change::Skip(path, stamp, reason.clone())));
                    }
                    Some(Known::Skipped(reason))
                }
            };
            if let Some(outcome) = outcome {
                outcomes.push((index, outcome));
            }
            claims.push(claim);
        }
        let (indexes, changes): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let puts: Vec<_> = changes.iter().map(|it| matches!(it, Change::Put(_))).collect();
        let records = if changes.is_empty() { Vec::new() } else { self.write(is_held, changes) };
        for ((index, is_put), record) in indexes.into_iter().zip(puts).zip(records) {
            if is_put {
                // `None` when all ids of this life are used up.
                let outcome = record.map_or(Known::Skipped(SkipReason::Unstable), Known::Parsed);
                outcomes.push((index, outcome));
            }
        }
        for (index, outcome) in outcomes {
            self.conclude(index, outcome, is_held);
        }
        drop(claims);
    }

    /// What is held of a file that couldn't be read, and the mark of that if it is news.
    fn last_good(
        &self,
        index: usize,
        reason: &SkipReason,
    ) -> Option<(Arc<FileRecord>, Option<Change>)> {
        if !matches!(reason, SkipReason::Unreadable { .. } | SkipReason::Unstable) {
            return None;
        }
        let Found { abs, language, stat, .. } = &self.files[index];
        let snapshot = self.synchronizer.repository.snapshot();
        let record = Arc::clone(snapshot.record(abs, *language)?);
        let is_marked = snapshot
            .kept(abs)
            .is_some_and(|known| known.stamp.stat == *stat && known.reason == *reason);
        let stamp = FileStamp { stat: *stat, read_at_ns: self.synchronizer.disk.now_ns() };
        let mark = || Change::Keep(Arc::clone(abs), stamp, reason.clone());
        Some((record, (!is_marked).then(mark)))
    }

    /// Commits to the repository, or keeps for as long as the refresh what may not be there, or
    /// can't get there. The records that were made, one for each change.
    fn write(&self, is_held: bool, changes: Vec<Change>) -> Vec<Option<Arc<FileRecord>>> {
        if is_held {
            match self.synchronizer.committer.commit(changes.iter().cloned().collect()) {
                Ok(committed) => return committed.records,
                Err(error) => {
                    self.n_held.is_lost.store(true, Ordering::Relaxed);
                    tracing::warn!(error, "files are parsed, and not stored");
                }
            }
        }
        apply(&self.one_shot, changes.into_iter().collect()).records
    }

    fn conclude(&self, index: usize, outcome: Known, is_held: bool) {
        if is_held {
            let language = &self.files[index].language;
            match &outcome {
                Known::Parsed(_) | Known::Kept(..)
                    if self.spec.languages.as_ref().is_none_or(|all| all.contains(language)) =>
                {
                    self.n_held.parsed.fetch_add(1, Ordering::Relaxed);
                }
                Known::Skipped(reason) if *reason != SkipReason::Vanished => {
                    self.n_held.skipped.fetch_add(1, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        let is_first = self.outcomes[index].set(outcome).is_ok();
        debug_assert!(is_first, "each file is processed once");
    }
}

/// Whether a file is skipped until it changes. Other reasons may be gone at the next try.
fn lasts(reason: &SkipReason) -> bool {
    match reason {
        SkipReason::Empty
        | SkipReason::NotUtf8 { .. }
        | SkipReason::TooLarge { .. }
        | SkipReason::OverSizeLimit { .. }
        | SkipReason::TooDeep { .. }
        | SkipReason::ParseTimeout
        | SkipReason::GrammarNotBuilt
        | SkipReason::ParserDied { .. } => true,
        SkipReason::ParserUnavailable { .. }
        | SkipReason::Unreadable { .. }
        | SkipReason::Unstable
        | SkipReason::Vanished => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
