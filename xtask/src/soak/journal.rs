//! What was on the disk when: judges answers that were given while files changed.
//!
//! An answer that was asked for at one moment and came at another may show of each file any version
//! that was there at some time between. A deed that replaces a file at once leaves the old version
//! or the new one; one that writes in place may also leave a beginning of what it writes, or nothing.

use super::question::{Matcher, Told};
use super::truth::{Finding, Held, Text, Tree};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No answer takes longer than this: what ended before is forgotten.
const MEMORY: Duration = Duration::from_mins(1);

/// When something was asked and when the whole answer was there, or when a deed's first system call
/// began and its last one had returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) began: Instant,
    pub(super) ended: Instant,
}

impl Span {
    fn overlaps(self, other: Self) -> bool {
        self.began <= other.ended && other.began <= self.ended
    }
}

/// What a deed may have left on the disk for a moment, beside what was there before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Files that were not written at once, with whole texts that they had meanwhile.
    pub(super) torn: BTreeMap<String, Vec<Vec<u8>>>,
    /// Whether that is so of all files, and none or all of them may have been ignored, as when
    /// ignore rules change or git writes.
    pub(super) everything: bool,
    /// Whether nobody can tell what was there.
    pub(super) unknown: bool,
}

/// One version of one file.
#[derive(Clone, Debug)]
struct Version {
    held: Held,
    /// The deed that made it.
    came: Span,
    /// The deed that ended it.
    went: Option<Span>,
}

impl Version {
    fn may_be_seen(&self, asked: Span) -> bool {
        self.came.began <= asked.ended && self.went.is_none_or(|went| went.ended >= asked.began)
    }
}

/// The disk's past.
#[derive(Debug)]
pub(super) struct Journal {
    tree: Tree,
    versions: BTreeMap<String, Vec<Version>>,
    touched: Vec<(Span, Touched)>,
}

/// How an answer was judged.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What can't be, one line each.
    pub(super) wrong: Vec<String>,
    /// Files of which a version was shown that was only there while something wrote it.
    pub(super) n_torn: u64,
}

/// Knows what is found in a text.
pub(super) type Finds<'f> = dyn FnMut(Matcher, &Arc<Text>) -> Result<Arc<Finding>> + 'f;

impl Journal {
    /// Begins with a tree that has been so for ever.
    pub(super) fn new(tree: Tree) -> Self {
        let now = Instant::now();
        let came = Span { began: now, ended: now };
        let version = |held: &Held| vec![Version { held: held.clone(), came, went: None }];
        let versions = tree.iter().map(|(path, held)| (path.clone(), version(held))).collect();
        Self { tree, versions, touched: Vec::new() }
    }

    /// The tree as it is since the last deed.
    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Writes a deed down, and the tree that it left.
    pub(super) fn note(&mut self, deed: Span, touched: Touched, tree: Tree) {
        for (path, held) in &tree {
            if self.tree.get(path) != Some(held) {
                let versions = self.versions.entry(path.clone()).or_default();
                if let Some(last) = versions.last_mut().filter(|last| last.went.is_none()) {
                    last.went = Some(deed);
                }
                versions.push(Version { held: held.clone(), came: deed, went: None });
            }
        }
        for path in self.tree.keys().filter(|path| !tree.contains_key(*path)) {
            if let Some(last) = self.versions.get_mut(path).and_then(|all| all.last_mut()) {
                last.went = Some(deed);
            }
        }
        self.tree = tree;
        if touched != Touched::default() {
            self.touched.push((deed, touched));
        }
        let is_remembered = |ended: Instant| deed.ended.duration_since(ended) < MEMORY;
        self.touched.retain(|(span, _)| is_remembered(span.ended));
        self.versions.retain(|_, versions| {
            versions.retain(|it| it.went.is_none_or(|went| is_remembered(went.ended)));
            !versions.is_empty()
        });
    }

    /// Whether everything may have been otherwise at some time of an answer.
    pub(super) fn was_anything_possible(&self, asked: Span) -> bool {
        let mut during = self.during(asked);
        during.any(|touched| touched.everything || touched.unknown)
    }

    fn during(&self, asked: Span) -> impl Iterator<Item = &Touched> {
        self.touched.iter().filter(move |(deed, _)| deed.overlaps(asked)).map(|(_, it)| it)
    }

    /// Judges an answer about the root, or about the directory `below`, with its files' texts.
    pub(super) fn judge(
        &self,
        asked: Span,
        matcher: Matcher,
        below: Option<&str>,
        told: &Told,
        finds: &mut Finds<'_>,
    ) -> Result<Verdict> {
        let mut verdict = Verdict::default();
        // A directory that is ignored shows all that it has to whoever asks for it by name.
        let is_ignored = below.is_some_and(|below| {
            let mut inside = self.versions.iter().filter(|(path, _)| is_below(path, below));
            !inside.any(|(_, all)| all.iter().any(|it| it.held.is_visible && it.may_be_seen(asked)))
        });
        if is_ignored || self.during(asked).any(|touched| touched.unknown) {
            return Ok(verdict);
        }
        let anything = self.was_anything_possible(asked);
        let mut shown = BTreeSet::new();
        for (at, file) in told.answer.files.iter().enumerate() {
            let source = told.sources.get(at).map(String::as_bytes);
            let Some(source) = source else {
                verdict.wrong.push(format!("{} came without its text", file.file));
                continue;
            };
            if !shown.insert(&*file.file) {
                verdict.wrong.push(format!("{} came twice", file.file));
            }
            let all = self.versions.get(&file.file).map(Vec::as_slice).unwrap_or_default();
            let seen: Vec<_> = all.iter().filter(|version| version.may_be_seen(asked)).collect();
            let is_it = |version: &&&Version| {
                version.held.text.bytes == source && (version.held.is_visible || anything)
            };
            if let Some(version) = seen.iter().find(is_it) {
                if file.content != version.held.text.name {
                    verdict.wrong.push(format!("{}: the hash of another text", file.file));
                }
                let expected = finds(matcher, &version.held.text)?.matches_in(&file.file);
                if expected != file.matches {
                    let n = file.matches.len();
                    let line = format!("{}: {n} matches, not those of its text", file.file);
                    verdict.wrong.push(line);
                }
            } else if self.was_being_written(asked, &file.file, &seen, source) {
                verdict.n_torn += 1;
            } else {
                let is_known = all.iter().any(|version| version.held.text.bytes == source);
                let what = match (is_known, seen.is_empty()) {
                    (true, _) => "is stale, or ignored",
                    (false, true) => "wasn't there",
                    (false, false) => "never said that",
                };
                verdict.wrong.push(format!("{} {what}", file.file));
            }
        }
        if !anything {
            self.miss(asked, matcher, below, (&shown, told), finds, &mut verdict)?;
        }
        Ok(verdict)
    }

    /// Whether a file was being written, and this is what it may have been meanwhile.
    fn was_being_written(&self, asked: Span, path: &str, seen: &[&Version], source: &[u8]) -> bool {
        self.during(asked).any(|touched| {
            let extra = touched.torn.get(path);
            let mut wholes = extra.into_iter().flatten().map(Vec::as_slice);
            (extra.is_some() || touched.everything)
                && (wholes.any(|whole| whole.starts_with(source))
                    || seen.iter().any(|version| version.held.text.bytes.starts_with(source)))
        })
    }

    /// Looks for files that must be in the answer and aren't.
    fn miss(
        &self,
        asked: Span,
        matcher: Matcher,
        below: Option<&str>,
        (shown, told): (&BTreeSet<&str>, &Told),
        finds: &mut Finds<'_>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let torn: BTreeSet<&str> = self
            .during(asked)
            .flat_map(|touched| touched.torn.keys().map(String::as_str))
            .collect();
        for (path, versions) in &self.versions {
            if !below.is_none_or(|below| is_below(path, below))
                || shown.contains(&**path)
                || torn.contains(&**path)
            {
                continue;
            }
            let seen: Vec<_> = versions.iter().filter(|it| it.may_be_seen(asked)).collect();
            let (Some(first), Some(last)) = (seen.first(), seen.last()) else { continue };
            let is_always_there = seen.iter().all(|version| version.held.is_visible)
                && first.came.ended < asked.began
                && last.went.is_none_or(|went| went.began > asked.ended)
                && seen.windows(2).all(|pair| pair[0].went == Some(pair[1].came));
            if !is_always_there {
                continue;
            }
            // While it is replaced, it may look as if it were gone or unstable: that is said, then.
            let is_excused = seen.len() > 1 && told.answer.skipped.iter().any(|(it, _)| it == path);
            let mut always_found = true;
            for version in &seen {
                always_found &= !finds(matcher, &version.held.text)?.is_empty();
            }
            if always_found && !is_excused {
                verdict.wrong.push(format!("{path} is missing"));
            }
        }
        Ok(())
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
