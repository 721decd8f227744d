//! Answers that don't wait: from what is stored, with what is known of how old that is.
//!
//! A refresh tells what it has found out as it goes. Whoever doesn't wait for its end answers from
//! that and from memory alone: the disk may be what doesn't answer.

use crate::refresh::{Job, Known, Synchronizer};
#[cfg(feature = "service")]
use crate::walk::WalkSpec;
use crate::walk::{Found, Issue, Walked};
use astscope_repository::{Lag, Revision, Scope, ScopedFile, Snapshot};
use astscope_syntax::SkipReason;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a refresh has found out so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Whether everything that had happened before is noticed, if not applied.
    pub(crate) is_told: bool,
    /// Which files are selected.
    pub(crate) walked: Option<Arc<Walked>>,
    /// Whether their metadata are those of now.
    pub(crate) is_looked: bool,
    /// Whether what is read is stored.
    pub(crate) is_kept: bool,
}

impl Synchronizer {
    /// What is stored of the files that `spec` selects, after a refresh that has `seen` so much: those
    /// of the last walk if it hasn't come to its own. Looks at nothing but memory. `None` if nobody
    /// knows which files those are.
    #[cfg(feature = "service")]
    pub(crate) fn as_stored(&self, spec: &WalkSpec, seen: &Seen) -> Option<Scope> {
        if let Some(walked) = &seen.walked {
            return Some(self.stored_of(walked, seen));
        }
        let walked = self.recall().last(spec)?;
        let is_kept = self.reach().is_some() && spec.is_plain();
        let mut scope = self.stored_of(&walked, &Seen { is_kept, ..seen.clone() });
        let lag = scope.lag.get_or_insert_with(|| self.lag(Vec::new(), None));
        lag.are_names_unknown = true;
        Some(scope)
    }

    /// What is stored of these files.
    pub(crate) fn stored_of(&self, walked: &Walked, seen: &Seen) -> Scope {
        // What was noticed and isn't stored, if that is all that has happened. Before the snapshot:
        // what is stored in between counts as old, and not the old version as new.
        let unapplied = seen.is_told.then(|| self.tracker().unapplied()).flatten();
        let snapshot = self.repository().snapshot();
        let known = walked.files.iter().map(|found| {
            let looked_up = seen.is_looked.then(|| Job::look_up(&snapshot, found)).flatten();
            (found, looked_up.or_else(|| stored(&snapshot, found, unapplied.as_ref())))
        });
        let revision = seen.is_kept.then(|| snapshot.revision());
        self.scope(known, walked.issues.clone(), revision)
    }

    /// What the walk found and what became of it, as a query wants it.
    pub(crate) fn scope<'f>(
        &self,
        files: impl ExactSizeIterator<Item = (&'f Found, Option<Known>)>,
        issues: Vec<Issue>,
        revision: Option<Revision>,
    ) -> Scope {
        let mut scope = Scope { revision, ..Scope::default() };
        let (mut older, mut oldest) = (Vec::new(), None::<i64>);
        scope.files.reserve(files.len());
        for (Found { display, abs, .. }, outcome) in files {
            let (display, abs) = (Arc::clone(display), Arc::clone(abs));
            if let Some(Known::Kept(_, reason)) = &outcome {
                scope.kept.push((display.to_string(), reason.clone()));
            }
            let record = match outcome {
                Some(Known::Parsed(record)) => record,
                Some(Known::Older(record) | Known::Kept(record, _)) => {
                    older.push(Arc::clone(&display));
                    let read_at = record.stamp.read_at_ns;
                    oldest = Some(oldest.map_or(read_at, |oldest| oldest.min(read_at)));
                    record
                }
                Some(Known::Skipped(reason)) => {
                    scope.skipped.push((display.to_string(), reason));
                    continue;
                }
                None => {
                    scope.pending += 1;
                    continue;
                }
            };
            scope.files.push(ScopedFile { display, abs, record });
        }
        let issues = issues.into_iter();
        let unread = |issue: Issue| (issue.display, SkipReason::Unreadable { error: issue.error });
        scope.skipped.extend(issues.map(unread));
        scope.skipped.sort_by(|a, b| a.0.cmp(&b.0));
        if !older.is_empty() || scope.pending > 0 {
            scope.lag = Some(self.lag(older, oldest));
        }
        scope
    }

    /// That these files are older, the oldest of which was read then; nothing is known of when others
    /// were.
    fn lag(&self, files: Vec<Arc<str>>, oldest_ns: Option<i64>) -> Lag {
        let behind = match (self.tracker().behind_since(), oldest_ns) {
            (Some(since), _) => since.elapsed(),
            (None, Some(oldest_ns)) => {
                let ns = self.disk.now_ns().saturating_sub(oldest_ns);
                Duration::from_nanos(u64::try_from(ns).unwrap_or_default())
            }
            // Nothing was known before.
            (None, None) => self.began.elapsed(),
        };
        Lag { files, behind, are_names_unknown: false }
    }
}

/// What is stored of a file, which is as it is if its changes are told and applied.
pub(crate) fn stored(
    snapshot: &Snapshot,
    found: &Found,
    unapplied: Option<&HashSet<PathBuf>>,
) -> Option<Known> {
    let is_told = unapplied.is_some_and(|unapplied| !unapplied.contains(&*found.abs));
    let proven = is_told.then(|| Known::proven(snapshot, found)).flatten();
    proven.or_else(|| {
        let record = snapshot.record(&found.abs, found.language)?;
        let record = Arc::clone(record);
        Some(match snapshot.kept(&found.abs) {
            Some(kept) => Known::Kept(record, kept.reason.clone()),
            None => Known::Older(record),
        })
    })
}
