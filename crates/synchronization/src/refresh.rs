//! From what a query selects to records that are true now.
//!
//! A file whose metadata proves it unchanged is answered from the repository. The others are read
//! and parsed (`refresh/job.rs`).

mod job;

pub(crate) use job::{Held, Job, Known};

use crate::apply::Reconciled;
use crate::claims::Claims;
use crate::commit::{Committer, Direct};
use crate::lag::Seen;
use crate::reach::Reach;
use crate::read::{Disk, RealDisk};
use crate::recall::Recall;
use crate::tracker::Tracker;
#[cfg(feature = "service")]
use crate::walk::Found;
use crate::walk::{GlobError, WalkSpec, Walked};
use astscope_parsing::{Backend, InProcess, Limits};
use astscope_repository::{Change, FileRecord, Repository, Revision, Scope, SkipRecord, Snapshot};
use astscope_syntax::Language;
use rayon::ThreadPool;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use thiserror::Error;

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
        let recalled = self.recall.walk(&self.pool, spec, began.at_ns, stop)?;
        let walked = &recalled.walked;
        if stop() {
            return Err(RefreshError::Cancelled);
        }
        let admitted = match &self.reach {
            Some(reach) => reach.admit(spec, walked, &|path| {
                proof.is_some() && self.tracker.listed(path).is_some()
            }),
            None => vec![false; walked.resolved.len()],
        };
        if let Some(proof) = proof
            && !admitted.contains(&false)
        {
            self.vouch(&recalled, proof);
        }
        seen.is_looked = true;
        seen.is_kept = admitted.contains(&true);
        seen.walked = Some(Arc::clone(walked));
        tell(&seen);
        if !wait {
            return Ok(self.stored_of(walked, &seen));
        }
        let looked =
            self.refresh_on(&self.pool, spec, (walked, &began), &admitted, stop, progress)?;
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
        let walked = self.recall.walk(&self.pool, &spec, self.disk.now_ns(), stop)?.walked;
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
