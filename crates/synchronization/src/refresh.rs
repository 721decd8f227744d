//! From what a query selects to records that are true now.
//!
//! A file whose metadata proves it unchanged is answered from the repository. The others are a
//! queue, largest first, that the pool's threads empty, several small ones at a time; what they
//! finish is committed in batches.
//! A file that another refresh is parsing is left to it and looked up when it is done.

use crate::apply::Reconciled;
use crate::claims::{Claim, Claims};
use crate::commit::{Committer, Direct, apply};
use crate::lag::Seen;
use crate::reach::Reach;
use crate::read::{Content, Disk, RealDisk, read_stable};
use crate::recall::Recall;
use crate::tracker::Tracker;
use crate::walk::{Found, GlobError, WalkSpec, Walked};
use astscope_parsing::{Backend, InProcess, Limits, Source};
use astscope_repository::{
    Change, FileRecord, FileStamp, NewFile, Repository, Revision, Scope, SkipRecord, Snapshot,
};
use astscope_syntax::{ContentId, Language, ParsedFile, SkipReason};
use rayon::ThreadPool;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

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

/// Why there is no scope.
#[derive(Debug, Error)]
pub enum RefreshError {
    /// It was given up. What was committed stays.
    #[error("the refresh was cancelled")]
    Cancelled,
    /// The selection is wrong.
    #[error("cannot select files")]
    Glob(#[from] GlobError),
}

/// What a crawl came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CrawlSummary {
    /// Files of a known language.
    pub files: usize,
    /// Files without a tree.
    pub skipped: usize,
    /// The revision that holds them all.
    pub revision: Revision,
}

/// Keeps one repository equal to one root.
pub struct Synchronizer {
    pub(crate) repository: Arc<Repository>,
    pub(crate) committer: Arc<dyn Committer>,
    pool: Arc<ThreadPool>,
    pub(crate) limits: Limits,
    pub(crate) disk: Box<dyn Disk>,
    pub(crate) backend: Arc<dyn Backend>,
    /// `None` when nothing may be indexed.
    pub(crate) reach: Option<Reach>,
    pub(crate) claims: Claims,
    recall: Recall,
    tracker: Tracker,
    answers: Answers,
    /// Nothing was known before.
    pub(crate) began: Instant,
}

/// How many refreshes were answered how.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// From what is stored, because nothing has changed that isn't.
    pub(crate) proven: AtomicU64,
    /// After a look at all files that were asked about.
    pub(crate) looked: AtomicU64,
}

impl std::fmt::Debug for Synchronizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synchronizer").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Synchronizer {
    /// For the tree under `root`, an absolute path without symlinks.
    pub fn new(repository: Arc<Repository>, root: PathBuf, pool: Arc<ThreadPool>) -> Self {
        Self {
            committer: Arc::new(Direct(Arc::clone(&repository))),
            repository,
            pool,
            limits: Limits::DAEMON,
            disk: Box::new(RealDisk),
            backend: Arc::new(InProcess),
            reach: Some(Reach::new(root)),
            claims: Claims::default(),
            recall: Recall::default(),
            tracker: Tracker::default(),
            answers: Answers::default(),
            began: Instant::now(),
        }
    }

    /// For queries outside every root: each parses what it selects, and nothing is kept.
    pub fn one_shot(pool: Arc<ThreadPool>) -> Self {
        let root = PathBuf::from("/");
        Self { reach: None, ..Self::new(Arc::new(Repository::new(0)), root, pool) }
    }

    /// Reads through another disk.
    #[must_use]
    pub fn with_disk(self, disk: Box<dyn Disk>) -> Self {
        Self { disk, ..self }
    }

    /// Has files parsed elsewhere than in this process.
    #[must_use]
    pub fn with_backend(self, backend: Arc<dyn Backend>) -> Self {
        Self { backend, ..self }
    }

    /// Commits through whoever writes to the repository.
    #[must_use]
    pub fn with_committer(self, committer: Arc<dyn Committer>) -> Self {
        Self { committer, ..self }
    }

    /// With other limits per file.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Drops remembered walks that weren't used in this long, and says how many those were and
    /// about how many bytes they took; a `dry_run` only counts them. The next query that would have
    /// used one walks.
    pub fn forget_walks(&self, idle: Duration, dry_run: bool) -> (usize, usize) {
        if dry_run { self.recall.idle(idle) } else { self.recall.forget_idle(idle) }
    }

    /// The files that `spec` selects, as they are now. With `wait` unset nothing is read: files that
    /// have changed are there as they are stored, and the scope says which those are, and how many are
    /// missing.
    ///
    /// `progress` is told how many of the files that need work are done.
    ///
    /// # Errors
    /// A glob that can't be compiled, or `stop` said so.
    pub fn refresh(
        &self,
        spec: &WalkSpec,
        wait: bool,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Scope, RefreshError> {
        self.refresh_telling(spec, wait, &|_| {}, stop, progress)
    }

    /// The same, and tells on the way what it has found out.
    pub(crate) fn refresh_telling(
        &self,
        spec: &WalkSpec,
        wait: bool,
        tell: &dyn Fn(&Seen),
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Scope, RefreshError> {
        if stop() {
            return Err(RefreshError::Cancelled);
        }
        let mut seen = Seen { is_told: self.is_provable(spec) && self.hear(), ..Seen::default() };
        tell(&seen);
        if seen.is_told && wait {
            self.apply_for(spec, stop);
        }
        let proof = if seen.is_told { self.tracker.proof() } else { None };
        if let Some(proof) = proof
            && let Some(scope) = self.recollect(spec, proof, wait, tell, stop, progress)?
        {
            self.answers.proven.fetch_add(1, Ordering::Relaxed);
            return Ok(scope);
        }
        self.answers.looked.fetch_add(1, Ordering::Relaxed);
        let began = self.begin_walk();
        let walked = self.recall.walk(&self.pool, spec, began.at_ns, stop)?;
        if stop() {
            return Err(RefreshError::Cancelled);
        }
        let admitted = match &self.reach {
            Some(reach) => reach.admit(spec, &walked, &|path| {
                proof.is_some() && self.tracker.listed(path).is_some()
            }),
            None => vec![false; walked.resolved.len()],
        };
        if let Some(proof) = proof
            && !admitted.contains(&false)
        {
            self.vouch(spec, &walked, proof);
        }
        seen.is_looked = true;
        seen.is_kept = admitted.contains(&true);
        seen.walked = Some(Arc::clone(&walked));
        tell(&seen);
        if !wait {
            return Ok(self.stored_of(&walked, &seen));
        }
        let looked =
            self.refresh_on(&self.pool, spec, (&walked, &began), &admitted, stop, progress)?;
        Ok(looked.0)
    }

    pub(crate) fn refresh_on(
        &self,
        pool: &ThreadPool,
        spec: &WalkSpec,
        (walked, began): (&Walked, &Beginning),
        admitted: &[bool],
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<(Scope, Held), RefreshError> {
        if stop() {
            return Err(RefreshError::Cancelled);
        }
        let job = Job::new(self, spec, &walked.files, admitted, stop).on(pool).telling(progress);
        let (outcomes, held) = job.run()?;
        let is_indexed = admitted.contains(&true);
        if is_indexed {
            self.prune(spec, walked, admitted, &held, began);
        }
        let revision = is_indexed.then(|| self.repository.snapshot().revision());
        let outcomes = outcomes.into_iter().map(OnceLock::into_inner);
        let outcomes = walked.files.iter().zip(outcomes);
        Ok((self.scope(outcomes, walked.issues.clone(), revision), held))
    }

    /// Walks the whole root and brings the repository up to date.
    ///
    /// # Errors
    /// When `stop` says so.
    pub fn crawl(
        &self,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<CrawlSummary, RefreshError> {
        let Reconciled { summary, uncovered } = self.reconcile(&self.pool, stop, progress)?;
        if let Some(why) = uncovered {
            tracing::warn!(root = %self.root().display(), %why, "not all of it is watched");
        }
        Ok(summary)
    }

    /// To be called just before a walk.
    pub(crate) fn begin_walk(&self) -> Beginning {
        Beginning { at_ns: self.disk.now_ns(), held: self.repository.snapshot() }
    }

    pub(crate) fn reach(&self) -> Option<&Reach> {
        self.reach.as_ref()
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn recall(&self) -> &Recall {
        &self.recall
    }

    pub(crate) fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// The threads that parse for queries.
    #[cfg(feature = "service")]
    pub(crate) fn pool(&self) -> &ThreadPool {
        &self.pool
    }

    #[cfg(feature = "service")]
    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// The watched root; `/` for one that answers queries outside every root.
    pub fn root(&self) -> &Path {
        self.reach.as_ref().map_or(Path::new("/"), Reach::root)
    }

    /// Looks, by stats alone, whether the whole root is what the repository holds.
    ///
    /// # Errors
    /// When `stop` says so.
    #[cfg(feature = "service")]
    pub(crate) fn look(&self, stop: &(dyn Fn() -> bool + Sync)) -> Result<Look, RefreshError> {
        let Some(reach) = &self.reach else { return Ok(Look::default()) };
        let spec = WalkSpec::all_of(reach.root());
        let walked = self.recall.walk(&self.pool, &spec, self.disk.now_ns(), stop)?;
        if stop() {
            return Err(RefreshError::Cancelled);
        }
        let snapshot = self.repository.snapshot();
        // Whether a stat that is the same proves anything is for queries to ask.
        let is_known = |found: &&Found| {
            let stat = &found.stat;
            let record = snapshot.record(&found.abs, found.language);
            record.is_some_and(|record| record.stamp.stat == *stat)
                || snapshot.skip(&found.abs).is_some_and(|skip| skip.stamp.stat == *stat)
                || snapshot.kept(&found.abs).is_some_and(|kept| kept.stamp.stat == *stat)
        };
        let n_known = walked.files.iter().filter(is_known).count();
        let totals = snapshot.totals();
        let n_held = totals.files + totals.skipped.values().sum::<u64>();
        let n_found = walked.files.len();
        let n_all = n_found.max(usize::try_from(n_held).unwrap_or(usize::MAX));
        Ok(Look {
            differs: n_known < n_found || n_held > n_found as u64,
            n_changed: n_all - n_known,
            n_found,
            n_known,
            revision: snapshot.revision(),
        })
    }

    /// Whether the root is there and may be read.
    #[cfg(feature = "service")]
    pub(crate) fn is_readable(&self) -> std::io::Result<()> {
        self.reach.as_ref().map_or(Ok(()), |reach| self.disk.list(reach.root()))
    }

    /// Removes what a plain walk of the whole root no longer finds.
    fn prune(
        &self,
        spec: &WalkSpec,
        walked: &Walked,
        admitted: &[bool],
        held: &Held,
        began: &Beginning,
    ) {
        let Some(reach) = &self.reach else { return };
        let covers_root = walked
            .resolved
            .iter()
            .zip(admitted)
            .any(|(resolved, admitted)| *admitted && resolved.as_deref() == Some(reach.root()));
        // Below a directory that can't be read, files may well be there still.
        if !covers_root || !walked.issues.is_empty() {
            return;
        }
        let snapshot = self.repository.snapshot();
        let wanted = |language: &Language| {
            spec.languages.as_ref().is_none_or(|languages| languages.contains(language))
        };
        let totals = snapshot.totals();
        let parsed =
            totals.languages.iter().filter(|(l, _)| wanted(l)).map(|(_, n)| *n).sum::<u64>();
        let skipped = totals.skipped.values().sum::<u64>();
        if parsed == held.parsed.load(Ordering::Relaxed) as u64
            && (spec.languages.is_some() || skipped == held.skipped.load(Ordering::Relaxed) as u64)
        {
            return;
        }
        let seen: HashSet<&Path> = walked.files.iter().map(|found| &*found.abs).collect();
        let is_lost = |path: &Path, language: Option<Language>| {
            if seen.contains(path) {
                return false;
            }
            // A file that languageGlobs gave its language isn't found without them.
            !path.exists() || language.is_none_or(|is| Language::from_path(path) == Some(is))
        };
        let records = snapshot.records().filter(|record| wanted(&record.language));
        let mut lost: Vec<&Arc<Path>> = records
            .filter(|record| !began.is_after_record(record))
            .filter(|record| is_lost(&record.path, Some(record.language)))
            .map(|record| &record.path)
            .collect();
        if spec.languages.is_none() {
            let skips = snapshot.skips().filter(|skip| !began.is_after_skip(skip));
            let skips = skips.filter(|skip| is_lost(&skip.path, None));
            lost.extend(skips.map(|skip| &skip.path));
        }
        if lost.is_empty() {
            return;
        }
        let removals = lost.into_iter().map(|path| Change::Remove(Arc::clone(path)));
        if let Err(error) = self.committer.commit(removals.collect()) {
            // The next refresh of the root finds them gone again.
            held.is_lost.store(true, Ordering::Relaxed);
            tracing::warn!(error, "files that are gone are still listed");
        }
    }
}

/// When a walk began. What was read since then it may have missed.
pub(crate) struct Beginning {
    pub(crate) at_ns: i64,
    /// What was held then. The clock alone doesn't tell: when it was set back, all that was read
    /// before seems to have been read since.
    held: Snapshot,
}

impl Beginning {
    fn is_after_record(&self, record: &Arc<FileRecord>) -> bool {
        let held = self.held.record(&record.path, record.language);
        !held.is_some_and(|held| Arc::ptr_eq(held, record)) && record.stamp.read_at_ns >= self.at_ns
    }

    fn is_after_skip(&self, skip: &Arc<SkipRecord>) -> bool {
        let held = self.held.skip(&skip.path);
        !held.is_some_and(|held| Arc::ptr_eq(held, skip)) && skip.stamp.read_at_ns >= self.at_ns
    }
}

/// What a look at the whole root has shown.
#[cfg(feature = "service")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether the repository holds something else.
    pub(crate) differs: bool,
    /// Files that are new, changed or gone, at least.
    pub(crate) n_changed: usize,
    n_found: usize,
    n_known: usize,
    revision: Revision,
}

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
    parsed: AtomicUsize,
    /// Without a tree.
    skipped: AtomicUsize,
    /// Whether anything could not be stored.
    is_lost: AtomicBool,
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
