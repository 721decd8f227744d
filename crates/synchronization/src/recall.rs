//! Walks remembered: a stat of each directory proves that the next walk would find the same.
//!
//! The problem: listing every directory anew, and matching every name against ignore rules, takes
//! most of the time of a small query, and finds the same as a second ago.
//!
//! What a walk finds depends on the entries of the directories that it enters, on the contents of
//! ignore files in them and above them, on git's configuration, and on the first lines of scripts
//! that have no extension. Each of these is a *witness*: it has time stamps, and the rule that
//! proves a file unchanged (git's racy rule, see [`FileStamp`]) proves them unchanged too, because
//! adding, removing and renaming an entry changes its directory's times. If one witness fails, the
//! whole tree is walked. The files found are stat'ed for each query, here as there.
//!
//! Where the directories are watched a walk needs no witness inside: it is *vouched* for, with the
//! number of the names that it was made under, and true as long as a proof has the same
//! (`tracker`). Only what lies outside the watched directories is looked at then.
//!
//! What goes unseen: an ignore file above the walked tree that appears and vanishes again within
//! one walk, and a script written through a hard link elsewhere that vanishes within it. What is not
//! remembered: walks through symlinks, walks that met errors, trees with a linked git directory
//! (worktrees, submodules), whose rules lie elsewhere.

use crate::read::stat_of;
use crate::walk::{Found, GlobError, WalkSpec, Walked, join, walk};
use astscope_repository::FileStamp;
use ignore::gitignore::gitconfig_excludes_path;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::collections::VecDeque;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Walks that are remembered: what an editor, a terminal and an agent ask about in turn.
const REMEMBERED_MAX: usize = 4;

/// Stats that one thread makes in a row: a tenth of a millisecond.
const STATS_A_TASK: usize = 64;

/// The last walks, newest first.
#[derive(Debug, Default)]
pub(crate) struct Recall(Mutex<VecDeque<Slot>>);

#[derive(Debug)]
struct Slot {
    walk: Arc<Remembered>,
    used: Instant,
}

#[derive(Debug)]
pub(crate) struct Remembered {
    spec: WalkSpec,
    pub(crate) walked: Arc<Walked>,
    /// Of what lies above the walked directories, and in git's own.
    outside: Vec<Witness>,
    /// Of what was walked; `None` if that can't be told by time stamps.
    inside: Option<Vec<Witness>>,
    /// The names that it is vouched for with; 0 for none.
    names: AtomicU64,
    /// Which file git's configuration named.
    excludes: Option<PathBuf>,
    /// About how many it takes.
    bytes: usize,
}

/// What a walk found, and the memory of just this one, if there is any: meanwhile another that took
/// longer, and knows less, may have come in its place.
#[derive(Debug)]
pub(crate) struct Recalled {
    pub(crate) walked: Arc<Walked>,
    remembered: Option<Arc<Remembered>>,
}

impl Recalled {
    /// It is true as long as there are these names.
    pub(crate) fn vouch(&self, names: u64) {
        if let Some(remembered) = &self.remembered {
            remembered.names.store(names, Ordering::Relaxed);
        }
    }
}

impl Recall {
    /// What [`walk`] gives, from memory where that is certainly the same.
    ///
    /// `now_ns` is the time, read just before; `stop` is asked as by `walk`.
    pub(crate) fn walk(
        &self,
        pool: &ThreadPool,
        spec: &WalkSpec,
        now_ns: i64,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Result<Recalled, GlobError> {
        if let Some(known) = self.known(spec) {
            if let Some(walked) = pool.install(|| known.walk_again()) {
                return Ok(Recalled { walked: Arc::new(walked), remembered: Some(known) });
            }
            self.forget(&known);
        }
        if !spec.enters_directories() {
            return Ok(Recalled { walked: Arc::new(walk(spec, stop)?), remembered: None });
        }
        // These lie outside the directories whose times would tell of a change during the walk.
        let excludes = gitconfig_excludes_path();
        let above = Witness::above(spec, excludes.as_deref(), now_ns);
        let walked = Arc::new(walk(spec, stop)?);
        let mut remembered = None;
        if let Some(mut outside) = above
            && !stop()
            && is_whole(spec, &walked)
            && let Some(untold) = pool.install(|| Witness::untold(&walked, now_ns))
        {
            outside.extend(untold);
            let inside = pool.install(|| Witness::within(&walked, now_ns));
            let (spec, walked) = (spec.clone(), Arc::clone(&walked));
            let witnesses = outside.iter().chain(inside.iter().flatten());
            let bytes = walked.bytes() + witnesses.map(Witness::bytes).sum::<usize>();
            let names = AtomicU64::new(0);
            let new = Remembered { spec, walked, outside, inside, names, excludes, bytes };
            remembered = Some(self.remember(new));
        }
        Ok(Recalled { walked, remembered })
    }

    /// The walk that is true while there are these names, without a look at what was walked. Its
    /// files' metadata are those of then.
    pub(crate) fn vouched(&self, spec: &WalkSpec, names: u64) -> Option<Arc<Remembered>> {
        let known = self.known(spec)?;
        let is_vouched = known.names.load(Ordering::Relaxed) == names;
        (is_vouched && known.holds_outside()).then_some(known)
    }

    /// What the last walk for this found, whatever has become of that.
    #[cfg(feature = "service")]
    pub(crate) fn last(&self, spec: &WalkSpec) -> Option<Arc<Walked>> {
        self.known(spec).map(|known| Arc::clone(&known.walked))
    }

    /// How many walks weren't used in this long, and about how many bytes they take.
    pub(crate) fn idle(&self, idle: Duration) -> (usize, usize) {
        let walks = self.lock();
        bytes_of(walks.iter().filter(|slot| slot.used.elapsed() >= idle))
    }

    /// Drops them.
    pub(crate) fn forget_idle(&self, idle: Duration) -> (usize, usize) {
        let gone: VecDeque<Slot> = {
            let mut walks = self.lock();
            let all = std::mem::take(&mut *walks).into_iter();
            let (gone, kept) = all.partition(|slot| slot.used.elapsed() >= idle);
            *walks = kept;
            gone
        };
        // Outside the lock: a list of files is long.
        bytes_of(gone.iter())
    }

    fn known(&self, spec: &WalkSpec) -> Option<Arc<Remembered>> {
        let mut walks = self.lock();
        let slot = walks.iter_mut().find(|slot| slot.walk.spec == *spec)?;
        slot.used = Instant::now();
        Some(Arc::clone(&slot.walk))
    }

    fn forget(&self, stale: &Arc<Remembered>) {
        self.lock().retain(|slot| !Arc::ptr_eq(&slot.walk, stale));
    }

    fn remember(&self, new: Remembered) -> Arc<Remembered> {
        let walk = Arc::new(new);
        let mut walks = self.lock();
        walks.retain(|slot| slot.walk.spec != walk.spec);
        walks.push_front(Slot { walk: Arc::clone(&walk), used: Instant::now() });
        walks.truncate(REMEMBERED_MAX);
        walk
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Slot>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bytes_of<'s>(slots: impl Iterator<Item = &'s Slot>) -> (usize, usize) {
    slots.fold((0, 0), |(n, bytes), slot| (n + 1, bytes + slot.walk.bytes))
}

impl Remembered {
    /// The same walk with the files' metadata as they are now; `None` if it may find other files.
    fn walk_again(&self) -> Option<Walked> {
        let inside = self.inside.as_ref()?.par_iter().with_min_len(STATS_A_TASK);
        if !self.holds_outside() || !inside.all(Witness::holds) {
            return None;
        }
        let files = self.walked.files.par_iter().with_min_len(STATS_A_TASK).map(|found| {
            let metadata = found.abs.symlink_metadata().ok().filter(Metadata::is_file)?;
            Some(Found { stat: stat_of(&metadata), ..found.clone() })
        });
        Some(Walked { files: files.collect::<Option<_>>()?, ..Walked::clone(&self.walked) })
    }

    /// Whether the typed paths lead where they led, and the rules from elsewhere are what they were.
    fn holds_outside(&self) -> bool {
        let roots = self.spec.typed_paths().map(|typed| join(&self.spec.cwd, typed));
        let mut resolved = roots.zip(&self.walked.resolved);
        resolved.all(|(path, resolved)| path.canonicalize().ok() == *resolved)
            && gitconfig_excludes_path() == self.excludes
            && self.outside.iter().all(Witness::holds)
    }
}

/// Whether all of it was walked, and through directories alone.
fn is_whole(spec: &WalkSpec, walked: &Walked) -> bool {
    let entered = |typed: usize| walked.directories.iter().any(|(_, from)| *from == typed);
    !spec.follow && walked.issues.is_empty() && (0..walked.resolved.len()).all(entered)
}

/// Something that a walk depended on.
#[derive(Debug)]
enum Witness {
    /// Nothing is there.
    Absent(PathBuf),
    /// A directory is there, whatever is in it.
    Directory(PathBuf),
    /// The file's content, or the directory's list of entries, is as it was.
    Unchanged(PathBuf, FileStamp),
}

impl Witness {
    /// `None` if what is there is so new that a later change might not show.
    fn of(path: PathBuf, read_at_ns: i64) -> Option<Self> {
        match path.metadata() {
            Ok(metadata) => {
                let stat = stat_of(&metadata);
                let stamp = FileStamp { stat, read_at_ns };
                stamp.proves_unchanged(&stat).then_some(Self::Unchanged(path, stamp))
            }
            Err(error) => is_absence(&error).then_some(Self::Absent(path)),
        }
    }

    /// A directory that only has to be there, or not.
    fn of_presence(path: PathBuf) -> Option<Self> {
        match path.metadata() {
            Ok(metadata) => metadata.is_dir().then_some(Self::Directory(path)),
            Err(error) => is_absence(&error).then_some(Self::Absent(path)),
        }
    }

    fn bytes(&self) -> usize {
        let (Self::Absent(path) | Self::Directory(path) | Self::Unchanged(path, _)) = self;
        size_of::<Self>() + path.as_os_str().len()
    }

    fn holds(&self) -> bool {
        match self {
            Self::Absent(path) => path.metadata().is_err_and(|error| is_absence(&error)),
            Self::Directory(path) => path.is_dir(),
            Self::Unchanged(path, stamp) => {
                path.metadata().is_ok_and(|now| stamp.proves_unchanged(&stat_of(&now)))
            }
        }
    }

    /// What the rules above the walked directories depend on.
    fn above(spec: &WalkSpec, excludes: Option<&Path>, now_ns: i64) -> Option<Vec<Self>> {
        let mut witnesses = Vec::new();
        if let Some(excludes) = excludes {
            witnesses.push(Self::of(excludes.to_path_buf(), now_ns)?);
        }
        for typed in spec.typed_paths() {
            let root = join(&spec.cwd, typed).canonicalize().ok()?;
            for directory in root.ancestors().skip(1) {
                witnesses.push(Self::of(directory.join(".gitignore"), now_ns)?);
                witnesses.push(Self::of(directory.join(".ignore"), now_ns)?);
                witnesses.push(Self::of(directory.join(".git/info/exclude"), now_ns)?);
                witnesses.push(Self::of_presence(directory.join(".git"))?);
                witnesses.push(Self::of_presence(directory.join(".jj"))?);
            }
        }
        Some(witnesses)
    }

    /// What the walk read and directories that are watched don't tell of: git's own, which it doesn't
    /// enter, and scripts that have another name.
    fn untold(walked: &Walked, now_ns: i64) -> Option<Vec<Self>> {
        let directories = walked.directories.par_iter().with_min_len(STATS_A_TASK);
        let witnesses = directories.map(|(directory, _)| {
            Some(match Self::of_presence(directory.join(".git"))? {
                Self::Directory(git) => Some(Self::of_exclude(&git, now_ns)?),
                _ => None,
            })
        });
        let witnesses: Option<Vec<_>> = witnesses.collect();
        let mut witnesses: Vec<Self> = witnesses?.into_iter().flatten().collect();
        for script in &walked.by_content {
            if script.metadata().is_ok_and(|it| it.nlink() > 1) {
                witnesses.push(Self::of(script.clone(), now_ns)?);
            }
        }
        Some(witnesses)
    }

    /// The exclude file of a git directory that was walked past. Where there is none now the walk
    /// may have read one, unless the directory that would have held it is old.
    fn of_exclude(git: &Path, now_ns: i64) -> Option<Self> {
        let witness = Self::of(git.join("info/exclude"), now_ns)?;
        if matches!(witness, Self::Absent(_))
            && matches!(Self::of(git.join("info"), now_ns)?, Self::Absent(_))
        {
            Self::of(git.to_path_buf(), now_ns)?;
        }
        Some(witness)
    }

    /// What the walk read below. `None` if that can't all be told.
    fn within(walked: &Walked, now_ns: i64) -> Option<Vec<Self>> {
        let directories = walked.directories.par_iter().with_min_len(STATS_A_TASK / 4);
        let witnesses = directories.map(|(directory, _)| {
            let mut witnesses = vec![Self::of(directory.clone(), now_ns)?];
            for file in [".gitignore", ".ignore"] {
                // That there is none, the directory itself bears witness.
                let witness = Self::of(directory.join(file), now_ns)?;
                witnesses.extend((!matches!(witness, Self::Absent(_))).then_some(witness));
            }
            Some(witnesses)
        });
        let mut witnesses: Vec<Self> =
            witnesses.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        for script in &walked.by_content {
            witnesses.push(Self::of(script.clone(), now_ns)?);
        }
        Some(witnesses)
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
