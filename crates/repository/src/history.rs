//! What changed between two revisions, for whoever has read one of them and wants the other.
//!
//! Apart from the snapshots, because it is forgotten: a snapshot is whole for as long as somebody
//! holds it, the history only reaches back so far. Each commit leaves what it found under the
//! paths that it changed. The first such note after a revision says what a path was at that
//! revision, and the newest snapshot what it is, so that whatever came and went in between is no
//! difference.

use crate::record::SkipRecord;
use crate::snapshot::{PathEntry, Revision, Snapshot};
use astscope_syntax::ContentId;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Notes that are kept, one for each path of a commit: a checkout of another branch of a large
/// tree, several times over, in 5 MB and the paths. Who was away for longer reads everything again,
/// which costs him what so many paths would.
const NOTES_MAX: usize = 1 << 16;

/// The files that are not what they were at an earlier revision.
///
/// A file is there if its path is known, with a tree or without. It has changed if its bytes have;
/// a file without a tree (see [`SkipRecord`]), of whose bytes nothing is known, if the reason or its
/// metadata are others. The language that it was parsed as is no part of it, nor is the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The later revision, which was the newest when this was asked.
    pub revision: Revision,
    /// Commits since the earlier one that changed a file, whether or not that was taken back: none
    /// if files were only looked at.
    pub n_commits: usize,
    /// Files that weren't there, sorted.
    pub added: Vec<Arc<Path>>,
    /// Files that were there with other bytes, sorted.
    pub changed: Vec<Arc<Path>>,
    /// Files that are no longer there, sorted.
    pub removed: Vec<Arc<Path>>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// What changed since a revision isn't known. It never will be: everything is to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes since revision {}: {because}", Dotted(*.since))]
pub struct HistoryGone {
    /// The revision that was asked about.
    pub since: Revision,
    /// Why nothing is known of it.
    pub because: GoneBecause,
    /// The oldest revision that could have been asked about.
    pub oldest: Revision,
}

/// Why the changes since a revision aren't known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GoneBecause {
    /// The repository was made anew since.
    #[error("everything was read anew since then")]
    OtherEpoch,
    /// It is older than what is kept.
    #[error("the history doesn't reach back so far")]
    TooOld,
    /// There is no such revision yet.
    #[error("there is no such revision yet")]
    Future,
}

/// `epoch.number`.
struct Dotted(Revision);

impl fmt::Display for Dotted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.epoch, self.0.number)
    }
}

/// What a path was, as far as it matters whether it has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    Content(ContentId),
    /// The languages of one file were read at different times.
    Contents(Box<[ContentId]>),
    Skipped(Arc<SkipRecord>),
}

impl Held {
    fn of(entry: Option<&PathEntry>) -> Self {
        let Some(entry) = entry else { return Self::Nothing };
        let contents = entry.records.iter().map(|record| record.content);
        match (&entry.records[..], &entry.skip) {
            ([], None) => Self::Nothing,
            ([], Some(skip)) => Self::Skipped(Arc::clone(skip)),
            ([first, rest @ ..], _) if rest.iter().all(|it| it.content == first.content) => {
                Self::Content(first.content)
            }
            _ => {
                let mut contents: Vec<ContentId> = contents.collect();
                contents.sort_unstable();
                contents.dedup();
                Self::Contents(contents.into())
            }
        }
    }

    /// Whether the file is the same.
    fn is_still(&self, other: &Self) -> bool {
        match (self, other) {
            // When somebody looked is no part of the file.
            (Self::Skipped(one), Self::Skipped(other)) => {
                one.reason == other.reason && one.stamp.stat == other.stamp.stat
            }
            _ => self == other,
        }
    }
}

/// What one commit found under a path that it changed.
#[derive(Debug)]
pub(crate) struct Note {
    path: Arc<Path>,
    before: Held,
}

impl Note {
    /// `None` if the file is what it was.
    pub(crate) fn of(
        path: &Arc<Path>,
        before: Option<&PathEntry>,
        after: Option<&PathEntry>,
    ) -> Option<Self> {
        let before = Held::of(before);
        let is_changed = !before.is_still(&Held::of(after));
        is_changed.then(|| Self { path: Arc::clone(path), before })
    }
}

/// A commit that changed something.
#[derive(Clone, Debug)]
struct Commit {
    number: u64,
    notes: Arc<[Note]>,
}

/// The last commits of one epoch.
#[derive(Debug)]
pub(crate) struct History {
    commits: VecDeque<Commit>,
    n_notes: usize,
    n_notes_max: usize,
    path_bytes: usize,
    /// The number of the oldest revision that everything since is kept of.
    oldest: u64,
}

impl Default for History {
    fn default() -> Self {
        Self::of_at_most(NOTES_MAX)
    }
}

impl History {
    fn of_at_most(n_notes_max: usize) -> Self {
        Self { commits: VecDeque::new(), n_notes: 0, n_notes_max, path_bytes: 0, oldest: 0 }
    }

    /// Adds what the commit that made this revision has found.
    pub(crate) fn push(&mut self, number: u64, notes: Vec<Note>) {
        if notes.is_empty() {
            return;
        }
        let commit = Commit { number, notes: notes.into() };
        self.n_notes += commit.notes.len();
        self.path_bytes += path_bytes(&commit.notes);
        self.commits.push_back(commit);
        while self.n_notes > self.n_notes_max
            && let Some(oldest) = self.commits.pop_front()
        {
            self.n_notes -= oldest.notes.len();
            self.path_bytes -= path_bytes(&oldest.notes);
            self.oldest = oldest.number;
        }
    }

    /// Forgets everything: another epoch begins.
    pub(crate) fn clear(&mut self) {
        *self = Self::of_at_most(self.n_notes_max);
    }

    /// Bytes that it holds. Paths count, although the files that are still there share theirs.
    pub(crate) fn bytes(&self) -> u64 {
        let commits = self.commits.capacity() * size_of::<Commit>();
        (commits + self.n_notes * size_of::<Note>() + self.path_bytes) as u64
    }

    /// What [`changes`] needs: short, so that no commit waits for it.
    pub(crate) fn since(&self, since: Revision, newest: Revision) -> Result<Noted, HistoryGone> {
        let because = if since.epoch != newest.epoch {
            Some(GoneBecause::OtherEpoch)
        } else if since.number > newest.number {
            Some(GoneBecause::Future)
        } else if since.number < self.oldest {
            Some(GoneBecause::TooOld)
        } else {
            None
        };
        if let Some(because) = because {
            let oldest = Revision { number: self.oldest, ..newest };
            return Err(HistoryGone { since, because, oldest });
        }
        let first = self.commits.partition_point(|commit| commit.number <= since.number);
        Ok(Noted(self.commits.range(first..).cloned().collect()))
    }
}

fn path_bytes(notes: &[Note]) -> usize {
    notes.iter().map(|note| note.path.as_os_str().len()).sum()
}

/// The commits since some revision.
pub(crate) struct Noted(Vec<Commit>);

/// The difference between the revision before these commits and the snapshot after them.
pub(crate) fn changes(noted: &Noted, newest: &Snapshot) -> Changes {
    let mut before: BTreeMap<&Arc<Path>, &Held> = BTreeMap::new();
    for note in noted.0.iter().flat_map(|commit| &*commit.notes) {
        before.entry(&note.path).or_insert(&note.before);
    }
    let n_commits = noted.0.len();
    let mut changes = Changes { revision: newest.revision(), n_commits, ..Changes::default() };
    for (path, before) in before {
        let now = Held::of(newest.entry(path));
        if before.is_still(&now) {
            continue;
        }
        let kind = match (before, now) {
            (Held::Nothing, _) => &mut changes.added,
            (_, Held::Nothing) => &mut changes.removed,
            _ => &mut changes.changed,
        };
        kind.push(Arc::clone(path));
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(n: usize) -> Vec<Note> {
        let note = |i| Note { path: Path::new(&format!("/{i}")).into(), before: Held::Nothing };
        (0..n).map(note).collect()
    }

    fn at(number: u64) -> Revision {
        Revision { epoch: 7, number }
    }

    #[test]
    fn whole_commits_are_forgotten_and_the_oldest_revision_is_told() {
        let mut history = History::of_at_most(4);
        let ask = |history: &History, since, newest| {
            history.since(at(since), at(newest)).map(|noted| noted.0.len())
        };
        history.push(1, notes(2));
        // A commit that changed nothing leaves nothing, and its number may be asked about.
        history.push(2, notes(0));
        history.push(3, notes(2));
        assert_eq!([0, 1, 2, 3].map(|since| ask(&history, since, 3)), [Ok(2), Ok(1), Ok(1), Ok(0)]);
        history.push(4, notes(1));
        let gone = HistoryGone { since: at(0), because: GoneBecause::TooOld, oldest: at(1) };
        assert_eq!(ask(&history, 0, 4), Err(gone));
        assert_eq!([1, 3, 4].map(|since| ask(&history, since, 4)), [Ok(2), Ok(1), Ok(0)]);
        history.push(5, notes(9));
        assert_eq!(ask(&history, 4, 5).unwrap_err().oldest, at(5));
        assert_eq!((ask(&history, 5, 5), history.n_notes, history.path_bytes), (Ok(0), 0, 0));
        let future = ask(&history, 6, 5).unwrap_err();
        assert_eq!(future.because, GoneBecause::Future);
        let other = history.since(Revision { epoch: 6, number: 5 }, at(5)).map(drop);
        assert_eq!(
            other.unwrap_err().to_string(),
            "changes since revision 6.5: everything was read anew since then"
        );
    }

    #[test]
    fn what_is_held_is_counted_and_given_back() {
        let mut history = History::of_at_most(4);
        assert_eq!(history.bytes(), 0);
        history.push(1, notes(3));
        let held = history.bytes();
        assert!(held >= 3 * (size_of::<Note>() + 2) as u64);
        history.push(2, notes(3));
        assert_eq!(history.bytes(), held, "as much as before");
        history.clear();
        assert_eq!(history.bytes(), 0);
    }
}
