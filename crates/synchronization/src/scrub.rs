//! The scrub: whether what is stored is what the disk holds, found out by looking at both.
//!
//! Everything else trusts something: that a file with the same metadata holds the same bytes, that
//! an event which was raised arrives, that memory keeps what was written to it. The scrub trusts
//! none of that. It reads a file again, parses it again, and compares every byte and every node
//! with what is stored; and it walks the root and compares the paths.
//!
//! A difference may be news that is on its way, so it is no finding before all earlier writes had
//! their chance ([`Settle`]). What differs then is *drift*, of which there should be none: it is
//! repaired, logged, and counted by its cause. One writer of a file at a time, here too: a repair
//! holds the file's claim from its last look to its commit.
//!
//! What can't be compared is left out: a file that can't be read or keeps changing, also where its
//! last good version is held, and one without
//! a tree for a reason that may be gone by now, such as a parser that took too long.

use crate::claims::Claim;
use crate::read::{Content, Unread, read_stable, stat_of};
use crate::refresh::Synchronizer;
use crate::tracker::Shake;
use crate::walk::{Found, WalkSpec, Walked, walk};
use astscope_parsing::Source;
use astscope_repository::{Change, FileRecord, FileStamp, NewFile, SkipRecord, Snapshot};
use astscope_syntax::{ContentId, Language, ParsedFile, SkipReason};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

/// How what is stored differs from the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DriftCause {
    /// The file holds other bytes than those that were read, and nothing told of that.
    Content,
    /// The same bytes have another text or tree.
    Tree,
    /// On the disk and selected, but not stored.
    Missing,
    /// Stored, but not on the disk, or no longer selected.
    Ghost,
}

impl DriftCause {
    /// The stable identifier that the protocol and the log show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Tree => "tree",
            Self::Missing => "missing",
            Self::Ghost => "ghost",
        }
    }

    /// What it tells whoever reads the log.
    fn evidence(self) -> &'static str {
        match self {
            Self::Content => {
                "the file had changed without its metadata or an event, or memory is damaged"
            }
            Self::Tree => {
                "what was stored is not what this text is parsed to, so memory may be damaged"
            }
            Self::Missing => "a file was not stored",
            Self::Ghost => "a file was stored that is not selected",
        }
    }
}

/// A file that had drifted. It is repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Its absolute path.
    pub path: Arc<Path>,
    /// How it differed.
    pub cause: DriftCause,
    /// When it was found, in nanoseconds since 1970.
    pub at_ns: i64,
}

/// Waits until what was written before is stored, as far as anybody can tell of it, and says how
/// far that is. To be called without a claim.
pub(crate) type Settle<'s> = &'s dyn Fn() -> Settled;

/// How much of what was written earlier is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settled {
    /// All of it: queries believe what is stored without a look at any metadata.
    Applied,
    /// Whatever a walk and the metadata show. What they show later is for queries to see, each of
    /// which looks at them.
    Looked,
    /// The same, but something could not be looked at, and so nothing was removed.
    LookedInPart,
    /// Nobody knows.
    Unknown,
}

/// A file to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) path: Arc<Path>,
    pub(crate) language: Language,
}

/// What a look at the whole root came to.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// All that is stored and can be checked, in no order.
    pub(crate) targets: Vec<Target>,
    /// Paths that only one of the two had.
    pub(crate) drifts: Vec<Drift>,
}

/// What a check of one file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// What is stored is what the disk holds.
    Sound,
    /// It can't be told at this moment, or there is news.
    Open,
    /// It had drifted, and so had others with the same content.
    Drifted(Vec<Drift>),
}

impl Synchronizer {
    /// Settles as queries do: by what events have told, or by a look at the whole root.
    pub(crate) fn settle(&self, stop: &(dyn Fn() -> bool + Sync)) -> Settled {
        if self.prove(stop).is_some() { Settled::Applied } else { self.settle_by_looking(stop) }
    }

    /// Settles by a look at the whole root.
    pub(crate) fn settle_by_looking(&self, stop: &(dyn Fn() -> bool + Sync)) -> Settled {
        let spec = WalkSpec::all_of(self.root());
        let Ok(scope) = self.refresh(&spec, true, stop, &|_, _| {}) else {
            return Settled::Unknown;
        };
        let is_unread = |reason: &SkipReason| matches!(reason, SkipReason::Unreadable { .. });
        if !scope.kept.is_empty() || scope.skipped.iter().any(|(_, reason)| is_unread(reason)) {
            return Settled::LookedInPart;
        }
        Settled::Looked
    }

    /// Compares all paths: those that a plain walk of the root finds, and those that are stored.
    /// Repairs what differs, and lists what is to be checked. `None` when `stop` says so, or when
    /// there is no root at this moment.
    pub(crate) fn survey(
        &self,
        settle: Settle<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<Survey> {
        let reach = self.reach.as_ref()?;
        let spec = WalkSpec::all_of(reach.root());
        // Anew, not from memory: that a remembered walk still holds is part of what is checked.
        let look = || {
            let walked = walk(&spec, stop).ok().filter(|_| !stop())?;
            (walked.resolved[0].as_deref() == Some(reach.root())).then_some(walked)
        };
        let started_ns = self.disk.now_ns();
        let snapshot = self.repository.snapshot();
        let walked = look()?;
        let were_missing: HashSet<Arc<Path>> =
            missing(&walked, &snapshot).map(|found| Arc::clone(&found.abs)).collect();
        let were_ghosts: HashSet<Arc<Path>> =
            ghosts(&walked, &snapshot, started_ns).map(Arc::clone).collect();
        if were_missing.is_empty() && were_ghosts.is_empty() {
            return Some(Survey { targets: targets(&walked, &snapshot), drifts: Vec::new() });
        }
        let settled = settle();
        // The snapshot first: what both walks have seen, in a directory that nothing came to or went
        // from meanwhile, was so when it was taken.
        let snapshot = self.repository.snapshot();
        let walked = look()?;
        let mut drifts = Vec::new();
        if settled != Settled::Unknown {
            for found in missing(&walked, &snapshot) {
                if were_missing.contains(&found.abs) && stood_still(&found.abs, started_ns) {
                    drifts.extend(self.restore(found, stop));
                }
            }
        }
        if matches!(settled, Settled::Applied | Settled::Looked) {
            for path in ghosts(&walked, &snapshot, started_ns) {
                if were_ghosts.contains(path) && stood_still(path, started_ns) {
                    drifts.extend(self.dispel(path, started_ns));
                }
            }
        }
        Some(Survey { targets: targets(&walked, &self.repository.snapshot()), drifts })
    }

    /// Reads and parses a file again, and compares it with what is stored. Repairs what has drifted.
    pub(crate) fn check(
        &self,
        target: &Target,
        settle: Settle<'_>,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let first = match self.compare(target, stop) {
            Comparison::Equal => return Verdict::Sound,
            Comparison::Untold => return Verdict::Open,
            Comparison::Differs(difference) => difference,
        };
        let settled = settle();
        // Who has the claim is about to commit what it has read.
        let claim = match self.claims.claim(&target.path, target.language) {
            Some(claim) if settled != Settled::Unknown => claim,
            _ => return Verdict::Open,
        };
        let now = match self.compare(target, stop) {
            Comparison::Equal => return Verdict::Sound,
            Comparison::Untold => return Verdict::Open,
            Comparison::Differs(difference) => difference,
        };
        // No news explains that, whenever the file was written.
        let is_tree = now.cause == DriftCause::Tree;
        // No query would read the file again.
        let is_believed = now.stored.stamp().proves_unchanged(&now.fresh.stamp.stat);
        // The file was in this state all the time while everything earlier was stored.
        let stood = first.fresh.stamp.proves_unchanged(&now.fresh.stamp.stat);
        // Nobody believes what is stored of a file with several names.
        let is_told = now.stored.stamp().stat.links <= 1;
        let is_drift = is_tree || is_believed || (settled == Settled::Applied && stood && is_told);
        if !is_drift {
            return Verdict::Open;
        }
        match self.repair(target, *now, claim) {
            drifts if drifts.is_empty() => Verdict::Open,
            drifts => Verdict::Drifted(drifts),
        }
    }

    fn compare(&self, target: &Target, stop: &(dyn Fn() -> bool + Sync)) -> Comparison {
        // Before the file is read: what is stored later may be of a later state of it.
        let snapshot = self.repository.snapshot();
        let record = snapshot.record(&target.path, target.language);
        if snapshot.kept(&target.path).is_some() {
            // Known to be old: the next query reads it if it can be read.
            return Comparison::Untold;
        }
        let stored = match (record, snapshot.skip(&target.path)) {
            (Some(record), _) => Stored::Parsed(Arc::clone(record)),
            (None, Some(skip)) if depends_on_file(&skip.reason) => {
                Stored::Skipped(Arc::clone(skip))
            }
            _ => return Comparison::Untold,
        };
        let Some(fresh) = self.read_anew(target, stop) else { return Comparison::Untold };
        match cause_of(&stored, &fresh) {
            None => Comparison::Equal,
            Some(cause) => Comparison::Differs(Box::new(Difference { stored, fresh, cause })),
        }
    }

    /// What the file is now, by its own bytes and a parser alone; `None` if that can't be told.
    fn read_anew(&self, target: &Target, stop: &(dyn Fn() -> bool + Sync)) -> Option<Fresh> {
        let Target { path, language } = target;
        let (stamp, bytes) = match read_stable(&*self.disk, path, self.limits.bytes_max) {
            Ok(Content { stamp, bytes }) => (stamp, bytes),
            Err(Unread { stamp, reason }) => {
                let (stamp, reason) = stamp.zip(Some(reason).filter(depends_on_file))?;
                return Some(Fresh { stamp, content: None, parsed: Err(reason) });
            }
        };
        let content = ContentId::of(&bytes);
        let parsed = match astscope_parsing::admit(bytes, &self.limits) {
            Ok(text) => {
                let source = Source { text, content, language: *language };
                self.backend.parse_batch(&[source], &self.limits, &|| stop()).pop()?
            }
            Err(reason) => Err(reason),
        };
        let parsed = match parsed {
            Ok(file) => Ok(Arc::new(file)),
            Err(reason) => Err(Some(reason).filter(depends_on_file)?),
        };
        Some(Fresh { stamp, content: Some(content), parsed })
    }

    /// Stores what the file is, and gives its tree to all records of the same content: they share
    /// one, and the next file with this content would be given the damaged one.
    fn repair(&self, target: &Target, difference: Difference, claim: Claim<'_>) -> Vec<Drift> {
        let Target { path, language } = target;
        let Difference { fresh, cause, .. } = difference;
        let mut found = vec![(Arc::clone(path), cause)];
        let (mut claims, mut changes) = (vec![claim], Vec::new());
        if let (Some(content), Ok(file)) = (fresh.content, &fresh.parsed) {
            let alike = |record: &&Arc<FileRecord>| {
                record.content == content && record.language == *language && record.path != *path
            };
            for record in self.repository.snapshot().records().filter(alike) {
                let Some(claim) = self.claims.claim(&record.path, *language) else { continue };
                claims.push(claim);
                let newest = self.repository.snapshot();
                let Some(record) = newest.record(&record.path, *language).filter(alike) else {
                    continue;
                };
                if *record.file != **file {
                    found.push((Arc::clone(&record.path), DriftCause::Tree));
                }
                let (path, stamp) = (Arc::clone(&record.path), record.stamp);
                changes.push(Change::Put(NewFile { path, stamp, content, file: Arc::clone(file) }));
            }
        }
        changes.push(change(path, fresh));
        if self.store(changes) { self.found(found) } else { Vec::new() }
    }

    /// Stores a file that wasn't.
    fn restore(&self, found: &Found, stop: &(dyn Fn() -> bool + Sync)) -> Option<Drift> {
        let target = Target { path: Arc::clone(&found.abs), language: found.language };
        let _claim = self.claims.claim(&target.path, target.language)?;
        if is_stored(&self.repository.snapshot(), found) {
            return None;
        }
        let fresh = self.read_anew(&target, stop)?;
        let is_stored = self.store(vec![change(&target.path, fresh)]);
        let drifts = is_stored.then(|| self.found(vec![(target.path, DriftCause::Missing)]));
        drifts?.pop()
    }

    /// Removes what isn't there, unless it was stored after `before_ns`.
    fn dispel(&self, path: &Arc<Path>, before_ns: i64) -> Option<Drift> {
        // In all languages: then nobody is about to store it.
        let claims = Language::ALL.iter().map(|language| self.claims.claim(path, *language));
        let _claims = claims.collect::<Option<Vec<_>>>()?;
        let snapshot = self.repository.snapshot();
        let records = Language::ALL.iter().filter_map(|language| snapshot.record(path, *language));
        let stamps = records.map(|record| &record.stamp);
        let mut stamps = stamps.chain(snapshot.skip(path).map(|skip| &skip.stamp)).peekable();
        if stamps.peek().is_none() || stamps.any(|stamp| stamp.read_at_ns >= before_ns) {
            return None;
        }
        let is_gone = self.store(vec![Change::Remove(Arc::clone(path))]);
        let drifts = is_gone.then(|| self.found(vec![(Arc::clone(path), DriftCause::Ghost)]));
        drifts?.pop()
    }

    fn store(&self, changes: Vec<Change>) -> bool {
        let stored = self.committer.commit(changes.into_iter().collect());
        if let Err(error) = &stored {
            // It isn't counted yet: the next cycle finds it again.
            tracing::warn!(error, "what has drifted isn't repaired");
        }
        stored.is_ok()
    }

    fn found(&self, found: Vec<(Arc<Path>, DriftCause)>) -> Vec<Drift> {
        let at_ns = self.disk.now_ns();
        if found.iter().any(|(_, cause)| *cause != DriftCause::Tree) {
            // What else the events didn't tell, a walk of the root finds.
            self.tracker().shake(Shake::Untold);
        }
        let drift = |(path, cause): (Arc<Path>, DriftCause)| {
            let (path_shown, cause_shown) = (path.display(), cause.name());
            tracing::warn!(path = %path_shown, cause = cause_shown, "drift: {}", cause.evidence());
            Drift { path, cause, at_ns }
        };
        found.into_iter().map(drift).collect()
    }
}

enum Comparison {
    Equal,
    /// There is nothing to compare.
    Untold,
    Differs(Box<Difference>),
}

struct Difference {
    stored: Stored,
    fresh: Fresh,
    cause: DriftCause,
}

/// What is stored of one file.
enum Stored {
    Parsed(Arc<FileRecord>),
    Skipped(Arc<SkipRecord>),
}

impl Stored {
    fn stamp(&self) -> &FileStamp {
        match self {
            Self::Parsed(record) => &record.stamp,
            Self::Skipped(skip) => &skip.stamp,
        }
    }
}

/// What one file is.
struct Fresh {
    stamp: FileStamp,
    /// `None` if it is too large to be read.
    content: Option<ContentId>,
    parsed: Result<Arc<ParsedFile>, SkipReason>,
}

fn cause_of(stored: &Stored, fresh: &Fresh) -> Option<DriftCause> {
    match (stored, &fresh.parsed) {
        (Stored::Parsed(record), parsed) if fresh.content == Some(record.content) => {
            let is_equal = parsed.as_ref().is_ok_and(|file| record.file == *file);
            (!is_equal).then_some(DriftCause::Tree)
        }
        (Stored::Skipped(skip), Err(reason)) if skip.reason == *reason => None,
        _ => Some(DriftCause::Content),
    }
}

/// The change that makes what is stored what the file is.
fn change(path: &Arc<Path>, fresh: Fresh) -> Change {
    let (path, stamp) = (Arc::clone(path), fresh.stamp);
    match fresh.parsed {
        Ok(file) => {
            let content = fresh.content.unwrap_or_else(|| ContentId::of(file.text.as_bytes()));
            Change::Put(NewFile { path, stamp, content, file })
        }
        Err(reason) => Change::Skip(path, stamp, reason),
    }
}

/// Whether a file is skipped for what is in it, whoever looks and whenever: only that can be
/// compared.
fn depends_on_file(reason: &SkipReason) -> bool {
    match reason {
        SkipReason::Empty
        | SkipReason::NotUtf8 { .. }
        | SkipReason::TooLarge { .. }
        | SkipReason::OverSizeLimit { .. }
        | SkipReason::TooDeep { .. }
        | SkipReason::GrammarNotBuilt => true,
        SkipReason::ParseTimeout
        | SkipReason::ParserDied { .. }
        | SkipReason::ParserUnavailable { .. }
        | SkipReason::Unreadable { .. }
        | SkipReason::Unstable
        | SkipReason::Vanished => false,
    }
}

fn is_stored(snapshot: &Snapshot, found: &Found) -> bool {
    snapshot.record(&found.abs, found.language).is_some() || snapshot.skip(&found.abs).is_some()
}

fn missing<'w>(walked: &'w Walked, snapshot: &Snapshot) -> impl Iterator<Item = &'w Found> {
    walked.files.iter().filter(|found| !is_stored(snapshot, found))
}

/// What is stored and wasn't found, by the rule by which a refresh of the root removes it.
fn ghosts<'s>(
    walked: &Walked,
    snapshot: &'s Snapshot,
    started_ns: i64,
) -> impl Iterator<Item = &'s Arc<Path>> {
    let seen: HashSet<&Path> = walked.files.iter().map(|found| &*found.abs).collect();
    // Below a directory that can't be read, files may well be there still.
    let is_whole = walked.issues.is_empty();
    let is_ghost = move |path: &Path, stamp: &FileStamp, language: Option<Language>| {
        let is_unseen = is_whole && !seen.contains(path) && stamp.read_at_ns < started_ns;
        // A file that languageGlobs gave its language isn't found without them.
        is_unseen
            && (!path.exists() || language.is_none_or(|is| Language::from_path(path) == Some(is)))
    };
    let records = snapshot.records().map(|it| (&it.path, &it.stamp, Some(it.language)));
    let skips = snapshot.skips().map(|it| (&it.path, &it.stamp, None));
    records
        .chain(skips)
        .filter(move |(path, stamp, language)| is_ghost(path, stamp, *language))
        .map(|(path, ..)| path)
}

/// Whether nothing came to, or went from, the place where a path is or would be, since then. A file
/// that is removed and made again between two looks is seen by neither.
fn stood_still(path: &Path, since_ns: i64) -> bool {
    let place = path.ancestors().skip(1).find_map(|directory| directory.metadata().ok());
    place.is_some_and(|metadata| {
        let stat = stat_of(&metadata);
        FileStamp { stat, read_at_ns: since_ns }.proves_unchanged(&stat)
    })
}

/// Each record, and each file without a tree of which the walk says what it would be.
fn targets(walked: &Walked, snapshot: &Snapshot) -> Vec<Target> {
    let records = snapshot.records().map(|record| (&record.path, record.language));
    let skips = walked.files.iter().filter_map(|found| {
        let is_named = Language::from_path(&found.abs) == Some(found.language);
        let skip = snapshot.skip(&found.abs).filter(|_| is_named)?;
        Some((&skip.path, found.language))
    });
    let target = |(path, language)| Target { path: Arc::clone(path), language };
    records.chain(skips).map(target).collect()
}

#[cfg(test)]
mod tests;
