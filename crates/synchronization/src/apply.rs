//! From what was noticed to what is stored: changes file by file where events say enough, a walk of
//! the root where they don't, and answers without a look at the disk where nothing is left to do.

use crate::events::EventSource;
use crate::lag::{Seen, stored};
use crate::read::stat_of;
use crate::recall::Recalled;
use crate::refresh::{Beginning, CrawlSummary, Job, Known, RefreshError, Synchronizer};
use crate::tracker::{Proof, Shake, Taken, Taking, Touch, goes_by_content, is_hidden};
use crate::walk::{Found, WalkSpec, Walked, entries, walk};
use crate::watches::{Uncovered, Watches};
use astscope_repository::{FileRecord, FileStat, Scope, Snapshot};
use astscope_syntax::Language;
use rayon::ThreadPool;
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Changed files that a query brings up to date itself before it looks at its own. With more it is
/// served sooner by looking at the files that it asks about.
const AT_ONCE_MAX: usize = 64;

/// How long it takes part in that. A file that nobody can parse must not hold up those who ask about
/// others; so many ordinary ones take a third of it.
const AT_ONCE_WITHIN: Duration = Duration::from_millis(300);

/// Walks of the root until one has found nothing that wasn't watched before. Each finds what came
/// into being during the one before.
const WALKS_MAX: usize = 8;

/// What a walk of the root under watch came to.
#[derive(Debug)]
pub(crate) struct Reconciled {
    pub(crate) summary: CrawlSummary,
    /// Why not all of it is watched.
    pub(crate) uncovered: Option<Uncovered>,
}

impl Synchronizer {
    /// Whether events can tell what `spec` selects.
    pub(crate) fn is_provable(&self, spec: &WalkSpec) -> bool {
        self.reach().is_some()
            && spec.is_plain()
            && spec.language_globs == crate::LanguageGlobs::default()
    }

    /// Takes in and applies everything that was finished before this was called. `None` when
    /// something is in the way of a proof: then only a look at the disk can tell.
    #[cfg(feature = "service")]
    pub(crate) fn prove(&self, stop: &(dyn Fn() -> bool + Sync)) -> Option<Proof> {
        if !self.hear() {
            return None;
        }
        self.apply_at_once(AT_ONCE_MAX, stop);
        self.tracker().proof()
    }

    /// Takes in everything that was finished before this was called, and says whether events can tell
    /// what that comes to.
    pub(crate) fn hear(&self) -> bool {
        let tracker = self.tracker();
        let Some(watches) = tracker.watches() else { return false };
        if let Err(error) = watches.barrier(tracker) {
            tracker.shake(Shake::Deaf(error.to_string().into()));
        }
        tracker.unsteady().is_none()
    }

    /// Applies what was taken in, if that is soon done. For single files no more is applied than
    /// there are: to look at them costs less than others' changes do.
    pub(crate) fn apply_for(&self, spec: &WalkSpec, stop: &(dyn Fn() -> bool + Sync)) {
        let n_typed = spec.typed_paths().count();
        self.apply_at_once(if spec.enters_directories() { AT_ONCE_MAX } else { n_typed }, stop);
    }

    fn apply_at_once(&self, most: usize, stop: &(dyn Fn() -> bool + Sync)) {
        let began = Instant::now();
        self.catch_up(most, &|| stop() || began.elapsed() > AT_ONCE_WITHIN);
    }

    /// Applies what was taken in, if that is no more than `most` entries, as one transaction.
    pub(crate) fn catch_up(&self, most: usize, stop: &(dyn Fn() -> bool + Sync)) {
        match self.tracker().take(most, stop) {
            Taking::Nothing | Taking::TooMuch => {}
            Taking::Taken(taken) => self.apply(taken, stop),
        }
    }

    fn apply(&self, taken: Taken<'_>, stop: &(dyn Fn() -> bool + Sync)) {
        let snapshot = self.repository().snapshot();
        let mut news = News::default();
        for (directory, names) in &taken.queue.entries {
            self.look_at(directory, names, &snapshot, &mut news);
        }
        if let Some(why) = news.shake {
            // The walk that this causes finds all of it.
            self.tracker().shake(why);
        }
        // When it is stopped, the next one begins again.
        if let Ok(is_stored) = self.bring(&news.files, stop) {
            if !is_stored {
                self.tracker().shake(Shake::Unapplied);
            }
            taken.done(news.new, &news.gone, news.is_renamed);
        }
    }

    /// Finds out what there is now under these names of one directory.
    fn look_at(
        &self,
        directory: &Arc<Path>,
        names: &BTreeMap<OsString, Touch>,
        snapshot: &Snapshot,
        news: &mut News,
    ) {
        let tracker = self.tracker();
        let mut listing: Option<Listing> = None;
        for (name, touch) in names {
            let path = directory.join(name);
            let listed = tracker.listed(&path);
            let language = Language::from_path(&path);
            // Walks of one language find hidden files of it that are listed nowhere.
            if is_hidden(name) || goes_by_content(name) {
                news.is_renamed = true;
            }
            if let (Touch::Content, Some(abs), Some(language)) = (touch, &listed, language)
                && let Some(stat) = stat_at(&path)
            {
                news.note_links(&stat, snapshot.record(abs, language));
                news.files.push(found(Arc::clone(abs), language, stat));
                continue;
            }
            let listing = listing.get_or_insert_with(|| Listing::of(directory));
            if listing.directories.contains(&path) {
                let watches = tracker.watches();
                if !watches.is_some_and(|it| it.covers([&*path].into_iter())) {
                    news.shake = Some(Shake::Directories);
                }
            } else if let Some(found) = listing.files.remove(&*path) {
                news.note_links(&found.stat, snapshot.record(&found.abs, found.language));
                if listed.is_none() {
                    news.new.push(Arc::clone(&found.abs));
                }
                news.files.push(found);
            } else if listed.is_some() || snapshot.knows(&path) {
                if listing.has_failed || stat_at(&path).is_some() {
                    // There, and not found: rules have changed, or the directory can't be read.
                    news.shake = Some(Shake::Rules);
                    continue;
                }
                let abs: Arc<Path> = path.into();
                let language = language.or_else(|| {
                    let mut all = Language::ALL.iter().copied();
                    all.find(|language| snapshot.record(&abs, *language).is_some())
                });
                if let Some(language) = language {
                    // Read, it is found to be gone.
                    news.files.push(found(Arc::clone(&abs), language, FileStat::default()));
                }
                news.gone.push(abs);
            }
        }
    }

    /// Brings these files up to date, in one transaction, and says whether they could be stored.
    fn bring(
        &self,
        files: &[Found],
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, RefreshError> {
        let Some(reach) = self.reach() else { return Ok(true) };
        let spec = WalkSpec::all_of(reach.root());
        let job = Job::new(self, &spec, files, &[true], stop).at_once();
        let (_, held) = job.run()?;
        Ok(!held.is_lost())
    }

    /// Answers from what is stored, without a look at the disk except at what isn't stored, and with
    /// `wait` unset without any. `None` when that can't be done.
    pub(crate) fn recollect(
        &self,
        spec: &WalkSpec,
        proof: Proof,
        wait: bool,
        tell: &dyn Fn(&Seen),
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Option<Scope>, RefreshError> {
        if !spec.enters_directories() {
            return self.recollect_files(spec, stop);
        }
        let Some(remembered) = self.recall().vouched(spec, proof.names) else { return Ok(None) };
        let walked = Arc::clone(&remembered.walked);
        tell(&Seen { is_told: true, walked: Some(walked), is_looked: false, is_kept: true });
        let files = &remembered.walked.files;
        let snapshot = self.repository().snapshot();
        let (mut open, mut at) = (Vec::new(), Vec::new());
        let mut known: Vec<Option<Known>> = Vec::with_capacity(files.len());
        for (index, file) in files.iter().enumerate() {
            let mut outcome = Known::proven(&snapshot, file);
            // Hidden, or skipped for a reason that may have passed.
            if outcome.is_none() && !wait {
                outcome = stored(&snapshot, file, None);
            } else if outcome.is_none() {
                let Some(stat) = stat_at(&file.abs) else { return Ok(None) };
                open.push(Found { stat, typed: 0, ..file.clone() });
                at.push(index);
            }
            known.push(outcome);
        }
        let mut revision = snapshot.revision();
        if !open.is_empty() {
            let job = Job::new(self, spec, &open, &[true], stop).telling(progress);
            let (outcomes, _) = job.run()?;
            for (index, outcome) in at.into_iter().zip(outcomes) {
                known[index] = outcome.into_inner();
            }
            revision = self.repository().snapshot().revision();
        }
        Ok(Some(self.scope(files.iter().zip(known), Vec::new(), Some(revision))))
    }

    /// The same for a selection of single files: where they lead has to be looked at, what they hold
    /// hasn't if a plain walk of the root finds them.
    fn recollect_files(
        &self,
        spec: &WalkSpec,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Scope>, RefreshError> {
        // Before the look: what is stored is then no older than the proof.
        let snapshot = self.repository().snapshot();
        let walked = walk(spec, stop)?;
        let is_listed = |file: &Found| self.tracker().listed(&file.abs).is_some();
        if walked.resolved.contains(&None) || !walked.files.iter().all(is_listed) {
            return Ok(None);
        }
        let known = walked.files.iter().map(|file| Known::proven(&snapshot, file));
        let Some(known) = known.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let outcomes = walked.files.iter().zip(known.into_iter().map(Some));
        Ok(Some(self.scope(outcomes, Vec::new(), Some(snapshot.revision()))))
    }

    /// Makes what was just walked answer until names change. `proof` is from before the walk.
    pub(crate) fn vouch(&self, recalled: &Recalled, proof: Proof) {
        let tracker = self.tracker();
        let Some(watches) = tracker.watches() else { return };
        let directories = recalled.walked.directories.iter().map(|(directory, _)| &**directory);
        // Nothing may have come or gone while it was walked: then it saw what the proof is about.
        if watches.drain(tracker).is_ok()
            && tracker.has_kept_names(proof)
            && watches.covers(directories)
        {
            recalled.vouch(proof.names);
        }
    }

    /// Walks the whole root, watches every directory of it, and brings the repository up to date.
    ///
    /// # Errors
    /// When `stop` says so.
    pub(crate) fn reconcile(
        &self,
        pool: &ThreadPool,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Reconciled, RefreshError> {
        let Some(reach) = self.reach() else {
            return Ok(Reconciled { summary: CrawlSummary::default(), uncovered: None });
        };
        let spec = WalkSpec::all_of(reach.root());
        let UnderWatch { walked, began, shaken, uncovered } = self.walk_under_watch(&spec, stop)?;
        let admitted = reach.admit(&spec, &walked, &|_| false);
        let seen = (&walked, &began);
        let (scope, held) = self.refresh_on(pool, &spec, seen, &admitted, stop, progress)?;
        if held.is_lost() {
            // What is stored isn't what was found: the next one tries again.
            self.tracker().shake(Shake::Unapplied);
        } else if uncovered.is_none() {
            self.tracker().walked(shaken);
        }
        let summary = CrawlSummary {
            files: scope.files.len() + scope.skipped.len(),
            skipped: scope.skipped.len(),
            revision: scope.revision.unwrap_or_default(),
        };
        Ok(Reconciled { summary, uncovered })
    }

    /// Walks until everything that was found was watched before it was looked at. One at a time.
    fn walk_under_watch(
        &self,
        spec: &WalkSpec,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<UnderWatch, RefreshError> {
        let tracker = self.tracker();
        let _alone = tracker.walking();
        let watches = tracker.watches();
        let mut n_walks = 0;
        let found = loop {
            let shaken = tracker.begin_walk();
            let began = self.begin_walk();
            let walked = walk(spec, stop)?;
            if stop() {
                return Err(RefreshError::Cancelled);
            }
            n_walks += 1;
            let found = UnderWatch { walked, began, shaken, uncovered: None };
            let Some(watches) = &watches else { break found };
            let directories = found.walked.directories.iter().map(|(directory, _)| &**directory);
            match watches.cover(directories) {
                Ok(0) => break found,
                Ok(_) if n_walks < WALKS_MAX => {}
                Ok(_) => {
                    // They come and go faster than they are walked: the next try is another time.
                    tracker.shake(Shake::Directories);
                    break found;
                }
                Err(why) => break UnderWatch { uncovered: Some(why), ..found },
            }
        };
        if let Some(watches) = &watches {
            let directories = found.walked.directories.iter();
            let wanted: HashSet<&Path> = directories.map(|(it, _)| &**it).collect();
            watches.retain(|directory| wanted.contains(directory));
        }
        tracker.list(found.walked.files.iter().map(|found| Arc::clone(&found.abs)).collect());
        Ok(found)
    }

    /// Hears of changes through `source` from now on. Refreshes after the next
    /// [`crawl`](Self::crawl), which sets the watches, are answered without a look at the disk
    /// wherever events tell everything. `cookies` is a directory that no other synchronizer uses; it
    /// is made here, and removed in the end.
    ///
    /// # Errors
    /// The root can't be looked at, or `cookies` can't be made or watched.
    pub fn listen(&self, source: Box<dyn EventSource>, cookies: &Path) -> io::Result<()> {
        let watches = Watches::open(self.root(), source, cookies)?;
        self.watch_through(Some(Arc::new(watches)));
        Ok(())
    }

    /// Has events come through these watches from now on, or through none.
    pub(crate) fn watch_through(&self, watches: Option<Arc<Watches>>) {
        self.tracker().watch_through(watches);
    }
}

/// A walk of the root.
struct UnderWatch {
    walked: Walked,
    began: Beginning,
    /// How often everything had been shaken when it began.
    shaken: u64,
    uncovered: Option<Uncovered>,
}

/// What is to be done about changed entries.
#[derive(Default)]
struct News {
    files: Vec<Found>,
    new: Vec<Arc<Path>>,
    gone: Vec<Arc<Path>>,
    is_renamed: bool,
    shake: Option<Shake>,
}

impl News {
    /// A file that is known by several names tells of a change under one of them only.
    fn note_links(&mut self, now: &FileStat, known: Option<&Arc<FileRecord>>) {
        if now.links > 1 && known.is_none_or(|known| known.stamp.stat.links != now.links) {
            self.shake = Some(Shake::Links);
        }
    }
}

/// What a plain walk finds directly in a directory.
struct Listing {
    files: BTreeMap<Arc<Path>, Found>,
    directories: HashSet<PathBuf>,
    has_failed: bool,
}

impl Listing {
    fn of(directory: &Path) -> Self {
        let (walked, has_failed) = match entries(directory) {
            Ok(walked) => {
                let has_failed = !walked.issues.is_empty() && directory.exists();
                (walked, has_failed)
            }
            Err(_) => (Walked::default(), true),
        };
        Self {
            files: walked.files.into_iter().map(|found| (Arc::clone(&found.abs), found)).collect(),
            directories: walked.directories.into_iter().map(|(directory, _)| directory).collect(),
            has_failed,
        }
    }
}

fn found(abs: Arc<Path>, language: Language, stat: FileStat) -> Found {
    Found { display: abs.to_string_lossy().into(), abs, language, stat, typed: 0 }
}

/// The metadata of a regular file.
fn stat_at(path: &Path) -> Option<FileStat> {
    let metadata = path.symlink_metadata().ok().filter(Metadata::is_file)?;
    Some(stat_of(&metadata))
}

#[cfg(test)]
mod tests;
