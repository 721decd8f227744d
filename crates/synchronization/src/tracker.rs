//! What is known to be true of the tree without looking, and what is known to have changed since.
//!
//! Events are noticed ([`Watches`]), queue up here, and are applied to the repository by whoever
//! needs them first, a query or the updater. When nothing is left and every directory is watched,
//! that is a [`Proof`]: the repository holds the tree as it was at the last barrier, and no look at
//! the disk could say otherwise.
//!
//! Names and contents are told apart. A change of content concerns its file; a change of names makes
//! remembered walks wrong, and they carry the number of the names that they were made under. What
//! events can't follow, directories that move and ignore rules that change, shakes everything:
//! there is no proof until the whole root was walked again under watch.

use crate::events::RawKind;
use crate::watches::Watches;
use astscope_syntax::Language;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Entries that may wait to be looked at. A walk of the tree costs less than more of them.
const QUEUE_MAX: usize = 8192;

/// About what one of them takes: its place in a map, and a name of some thirty bytes.
#[cfg(feature = "service")]
const ENTRY_BYTES: usize = 64;

/// Who waits for another to apply looks this often whether it was given up.
const RECHECK: Duration = Duration::from_millis(20);

/// Why only a walk of the whole root can tell what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shake {
    /// Nothing was watched until now.
    Began,
    /// Directories came, went or moved.
    Directories,
    /// Ignore rules may be other ones.
    Rules,
    /// A file has got another name: a change is told under the one that was used.
    Links,
    /// The kernel lost events, or more came than are kept.
    Overflow,
    /// The root isn't what was watched any more.
    RootGone,
    /// What happened can't be read any more, in the operating system's words.
    Deaf(Arc<str>),
    /// What had changed could not be stored.
    Unapplied,
    /// Something had changed and no event told of it.
    #[cfg(feature = "service")]
    Untold,
}

impl fmt::Display for Shake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Began => "nothing was watched until now",
            Self::Directories => "directories came, went or moved",
            Self::Rules => "ignore rules may have changed",
            Self::Links => "a file has several names",
            Self::Overflow => "more happened than could be followed",
            Self::RootGone => "the root is gone",
            Self::Deaf(why) => return write!(f, "events can't be read: {why}"),
            Self::Unapplied => "changes could not be stored",
            #[cfg(feature = "service")]
            Self::Untold => "something had changed that no event told of",
        })
    }
}

/// What may be other about an entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Touch {
    /// Its content or metadata.
    Content,
    /// Whether it is there.
    Name,
}

/// Entries to be looked at, by directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    pub(crate) entries: BTreeMap<Arc<Path>, BTreeMap<OsString, Touch>>,
    pub(crate) n_entries: usize,
}

impl Queue {
    fn add(&mut self, directory: &Arc<Path>, name: OsString, touch: Touch) {
        let names = self.entries.entry(Arc::clone(directory)).or_default();
        if let Some(known) = names.get_mut(&name) {
            *known = touch.max(*known);
        } else {
            names.insert(name, touch);
            self.n_entries += 1;
        }
    }

    fn paths(&self) -> impl Iterator<Item = PathBuf> {
        let entries = self.entries.iter();
        entries.flat_map(|(directory, names)| names.keys().map(|name| directory.join(name)))
    }

    fn add_all(&mut self, other: Self) {
        for (directory, names) in other.entries {
            for (name, touch) in names {
                self.add(&directory, name, touch);
            }
        }
    }
}

/// That the repository holds the tree as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Which names there are; never 0.
    pub(crate) names: u64,
    namings: u64,
}

/// What has become of the tree since it was walked.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    inner: Mutex<Inner>,
    applied: Condvar,
    /// Held by whoever walks the root.
    walking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Inner {
    watches: Option<Arc<Watches>>,
    queue: Queue,
    /// What is being applied at this moment.
    applying: Option<Arc<Queue>>,
    /// Since when something that was noticed isn't stored.
    behind: Option<Instant>,
    /// Times that everything was shaken, and the last reason.
    shaken: u64,
    why: Option<Shake>,
    /// How often it had been when the last walk began that found everything watched.
    walked: Option<u64>,
    /// The number of the names.
    names: u64,
    /// Events that said anything about names, whatever came of them.
    namings: u64,
    /// The files that a plain walk of the root finds.
    listed: HashSet<Arc<Path>>,
    /// Entries that were touched since the walk began that is under way: it may have missed them.
    since_walk: Option<Queue>,
    n_events: u64,
}

impl Inner {
    fn shake(&mut self, why: Shake) {
        self.shaken += 1;
        self.names += 1;
        self.namings += 1;
        self.why = Some(why);
        self.note_settled();
    }

    fn is_steady(&self) -> bool {
        self.watches.is_some() && self.walked == Some(self.shaken)
    }

    fn is_settled(&self) -> bool {
        self.is_steady() && self.queue.n_entries == 0 && self.applying.is_none()
    }

    /// To be called whenever that may have changed.
    fn note_settled(&mut self) {
        if self.is_settled() {
            self.behind = None;
        } else {
            self.behind.get_or_insert_with(Instant::now);
        }
    }
}

impl Tracker {
    /// Who watches from now on. Whatever happened before is unknown.
    pub(crate) fn watch_through(&self, watches: Option<Arc<Watches>>) {
        let mut inner = self.lock();
        inner.watches = watches;
        inner.walked = None;
        inner.shake(Shake::Began);
    }

    pub(crate) fn watches(&self) -> Option<Arc<Watches>> {
        self.lock().watches.clone()
    }

    /// Only a walk can tell.
    pub(crate) fn shake(&self, why: Shake) {
        self.lock().shake(why);
    }

    /// Why there can't be a proof before the next walk of the root, if that is so.
    pub(crate) fn unsteady(&self) -> Option<Shake> {
        let inner = self.lock();
        if inner.is_steady() { None } else { Some(inner.why.clone().unwrap_or(Shake::Began)) }
    }

    /// Whether anything waits to be applied or walked.
    #[cfg(feature = "service")]
    pub(crate) fn is_behind(&self) -> bool {
        let inner = self.lock();
        !inner.is_steady() || inner.queue.n_entries > 0
    }

    /// Entries that wait to be applied.
    #[cfg(feature = "service")]
    pub(crate) fn n_waiting(&self) -> usize {
        let inner = self.lock();
        inner.queue.n_entries + inner.applying.as_ref().map_or(0, |applying| applying.n_entries)
    }

    /// About how many bytes that takes, but for the watches. The listed paths belong to the records.
    #[cfg(feature = "service")]
    pub(crate) fn bytes(&self) -> usize {
        let inner = self.lock();
        let queues = [Some(&inner.queue), inner.applying.as_deref(), inner.since_walk.as_ref()];
        let n_entries: usize = queues.into_iter().flatten().map(|queue| queue.n_entries).sum();
        inner.listed.capacity() * size_of::<Arc<Path>>() + n_entries * ENTRY_BYTES
    }

    /// Events that were taken in so far.
    #[cfg(feature = "service")]
    pub(crate) fn n_events(&self) -> u64 {
        self.lock().n_events
    }

    /// The proof, if nothing is in its way.
    pub(crate) fn proof(&self) -> Option<Proof> {
        let inner = self.lock();
        inner.is_settled().then_some(Proof { names: inner.names, namings: inner.namings })
    }

    /// What was noticed and isn't stored yet: everything else is stored as it was when that was taken
    /// in. `None` if only a walk can tell.
    pub(crate) fn unapplied(&self) -> Option<HashSet<PathBuf>> {
        let inner = self.lock();
        let applying = inner.applying.iter().flat_map(|queue| queue.paths());
        inner.is_steady().then(|| inner.queue.paths().chain(applying).collect())
    }

    /// Since when something that was noticed isn't stored; `None` if there is nothing, or nobody who
    /// would notice.
    pub(crate) fn behind_since(&self) -> Option<Instant> {
        let inner = self.lock();
        inner.behind.filter(|_| inner.watches.is_some())
    }

    /// Whether nothing was said about names since `proof`, though perhaps about contents.
    pub(crate) fn has_kept_names(&self, proof: Proof) -> bool {
        let inner = self.lock();
        inner.is_steady() && inner.namings == proof.namings && inner.names == proof.names
    }

    /// Whether a plain walk of the root finds this file, as far as is known.
    pub(crate) fn listed(&self, path: &Path) -> Option<Arc<Path>> {
        self.lock().listed.get(path).cloned()
    }

    /// The right to walk the root, as soon as nobody else does.
    pub(crate) fn walking(&self) -> Walking<'_> {
        let alone = self.walking.lock().unwrap_or_else(PoisonError::into_inner);
        Walking { tracker: self, _alone: alone }
    }

    /// Notes that a walk of the root begins, and gives how often everything was shaken before. One
    /// at a time.
    pub(crate) fn begin_walk(&self) -> u64 {
        let mut inner = self.lock();
        inner.since_walk = Some(Queue::default());
        inner.shaken
    }

    /// Notes what that walk has found.
    pub(crate) fn list(&self, listed: HashSet<Arc<Path>>) {
        let mut inner = self.lock();
        if inner.listed != listed {
            inner.listed = listed;
            inner.names += 1;
        }
        if let Some(touched) = inner.since_walk.take() {
            inner.queue.add_all(touched);
        }
        inner.note_settled();
    }

    /// Notes that all of it was watched and is stored.
    pub(crate) fn walked(&self, shaken: u64) {
        let mut inner = self.lock();
        inner.walked = Some(shaken);
        inner.note_settled();
    }

    /// Takes in an event. `directory` is the watched one.
    pub(crate) fn notice(&self, directory: &Arc<Path>, name: OsString, event: Noticed) {
        let mut inner = self.lock();
        inner.n_events += 1;
        match event {
            Noticed::Nothing => {}
            Noticed::Shake(why) => inner.shake(why),
            Noticed::Touch(touch) => {
                inner.namings += u64::from(touch == Touch::Name);
                if let Some(touched) = &mut inner.since_walk {
                    touched.add(directory, name.clone(), Touch::Name);
                }
                inner.queue.add(directory, name, touch);
                let n_touched = inner.since_walk.as_ref().map_or(0, |touched| touched.n_entries);
                if inner.queue.n_entries.max(n_touched) > QUEUE_MAX {
                    // The walk that this causes finds all of it, and the one under way counts for
                    // nothing.
                    inner.queue = Queue::default();
                    if let Some(touched) = &mut inner.since_walk {
                        *touched = Queue::default();
                    }
                    inner.shake(Shake::Overflow);
                }
                inner.note_settled();
            }
        }
    }

    /// Takes what waits to be applied, if that is no more than `most`. Waits for whoever applies
    /// something now, if that is no more either, until `stop` says so.
    pub(crate) fn take(&self, most: usize, stop: &(dyn Fn() -> bool + Sync)) -> Taking<'_> {
        let mut inner = self.lock();
        loop {
            match &inner.applying {
                Some(applying) if applying.n_entries > most || stop() => return Taking::TooMuch,
                Some(_) => {
                    let waited = self.applied.wait_timeout(inner, RECHECK);
                    inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                None => break,
            }
        }
        match inner.queue.n_entries {
            0 => Taking::Nothing,
            n if n > most => Taking::TooMuch,
            _ => {
                let queue = Arc::new(std::mem::take(&mut inner.queue));
                inner.applying = Some(Arc::clone(&queue));
                Taking::Taken(Taken { tracker: self, queue })
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to walk the root. A walk that was given up leaves nothing behind.
pub(crate) struct Walking<'t> {
    tracker: &'t Tracker,
    _alone: MutexGuard<'t, ()>,
}

impl Drop for Walking<'_> {
    fn drop(&mut self) {
        self.tracker.lock().since_walk = None;
    }
}

/// What there was to be taken.
pub(crate) enum Taking<'t> {
    Nothing,
    /// More than was asked for.
    TooMuch,
    Taken(Taken<'t>),
}

/// What one applies. Dropping it puts it back.
#[derive(Debug)]
pub(crate) struct Taken<'t> {
    tracker: &'t Tracker,
    pub(crate) queue: Arc<Queue>,
}

impl Taken<'_> {
    /// It is applied: these files are listed that were not, and those are no more. `is_renamed`
    /// says that remembered walks may find something else though neither is so.
    pub(crate) fn done(mut self, new: Vec<Arc<Path>>, gone: &[Arc<Path>], is_renamed: bool) {
        self.queue = Arc::default();
        let mut inner = self.tracker.lock();
        let n_gone = gone.iter().filter(|path| inner.listed.remove(*path)).count();
        let n_new = new.into_iter().filter(|path| inner.listed.insert(Arc::clone(path))).count();
        if n_gone > 0 || n_new > 0 || is_renamed {
            inner.names += 1;
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut inner = self.tracker.lock();
        inner.applying = None;
        inner.queue.add_all(Arc::unwrap_or_clone(std::mem::take(&mut self.queue)));
        inner.note_settled();
        drop(inner);
        self.tracker.applied.notify_all();
    }
}

/// What an event comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    Nothing,
    Touch(Touch),
    Shake(Shake),
}

impl Noticed {
    /// Reduces what happened to the entry `name`, which is a directory or not, and a watched one or
    /// not.
    pub(crate) fn of(kind: RawKind, name: &OsStr, is_dir: bool, is_watched: bool) -> Self {
        match kind {
            RawKind::Overflow => return Self::Shake(Shake::Overflow),
            // Of an entry it is told by its directory too.
            RawKind::SelfGone | RawKind::Ended => return Self::Nothing,
            RawKind::Written | RawKind::Attributes | RawKind::Appeared | RawKind::Disappeared => {}
        }
        if is_rule(name) {
            return Self::Shake(Shake::Rules);
        }
        let is_new = kind == RawKind::Appeared;
        match (is_dir, is_watched) {
            (true, true) => Self::Shake(Shake::Directories),
            // One that nobody walked into is gone.
            (true, false) if kind == RawKind::Disappeared => Self::Nothing,
            // It may be ignored, or could not be read and now perhaps can.
            (true, false) => Self::Touch(Touch::Name),
            (false, _) if !is_of_interest(name) => Self::Nothing,
            (false, _) if is_new || kind == RawKind::Disappeared => Self::Touch(Touch::Name),
            (false, _) => Self::Touch(Touch::Content),
        }
    }
}

/// Whether an entry of this name says what else is ignored.
fn is_rule(name: &OsStr) -> bool {
    [".gitignore", ".ignore", ".git", ".jj"].iter().any(|rule| name == *rule)
}

pub(crate) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Whether a file of this name may be in a language by what it says in its first line.
pub(crate) fn goes_by_content(name: &OsStr) -> bool {
    Path::new(name).extension().is_none() && !is_hidden(name)
}

fn is_of_interest(name: &OsStr) -> bool {
    Language::from_path(Path::new(name)).is_some() || goes_by_content(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_during_a_walk_is_kept_for_its_end_and_not_for_longer() {
        let tracker = Tracker::default();
        let root: Arc<Path> = Path::new("/r").into();
        let touch = |name: String| tracker.notice(&root, name.into(), Noticed::Touch(Touch::Name));
        let n_kept = || tracker.lock().since_walk.as_ref().map(|touched| touched.n_entries);
        {
            let _given_up = tracker.walking();
            tracker.begin_walk();
            touch("a.rs".to_owned());
            assert_eq!(n_kept(), Some(1));
        }
        touch("b.rs".to_owned());
        assert_eq!(n_kept(), None);
        let _walking = tracker.walking();
        let shaken = tracker.begin_walk();
        for n in 0..=QUEUE_MAX {
            touch(format!("{n}.rs"));
        }
        assert!(n_kept().is_some_and(|n| n < QUEUE_MAX), "{:?}", n_kept());
        tracker.list(HashSet::new());
        tracker.walked(shaken);
        let inner = tracker.lock();
        assert_ne!(inner.walked, Some(inner.shaken), "that walk proves nothing");
    }
}
