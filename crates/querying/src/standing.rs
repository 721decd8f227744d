//! A query that stands: what it has found in each file, so that after a change only the files that
//! are other are searched, and only what is other is told.
//!
//! It compares states and follows no history, so that whoever skips some of them misses nothing:
//! the difference to the newest is all that he needs.

use astscope_repository::ScopedFile;
use astscope_syntax::{ContentId, Language};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a query has found, file by file. `F` is what is found in one file, cheap to clone.
#[derive(Clone, Debug)]
pub struct Standing<F> {
    /// Sorted by `file`, each of which is there once.
    files: Vec<KnownFile<F>>,
}

#[derive(Clone, Debug)]
struct KnownFile<F> {
    file: Arc<str>,
    /// Where that leads: rules may be about some paths only.
    path: Arc<Path>,
    content: ContentId,
    language: Language,
    /// `None` without a match.
    found: Option<F>,
}

/// What is other in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDifference<F> {
    /// The path as it is displayed.
    pub file: Arc<str>,
    /// Its bytes now; `None` if it is no longer selected.
    pub content: Option<ContentId>,
    /// What was found.
    pub before: Option<F>,
    /// What is found now; the same as before if only the bytes around it are others.
    pub after: Option<F>,
}

impl<F> Default for Standing<F> {
    fn default() -> Self {
        Self { files: Vec::new() }
    }
}

impl<F> KnownFile<F> {
    fn is(&self, other: &ScopedFile) -> bool {
        let record = &other.record;
        (self.content, self.language) == (record.content, record.language) && self.path == other.abs
    }
}

impl<F: Clone + PartialEq> Standing<F> {
    /// Those of `files`, sorted as a scope's are, that have to be searched: they are new, or other
    /// than when they were searched.
    pub fn unsearched(&self, files: &[ScopedFile]) -> Vec<ScopedFile> {
        let mut known = self.files.iter().peekable();
        let mut is_known = |file: &ScopedFile| {
            while known.next_if(|known| known.file < file.display).is_some() {}
            known.peek().is_some_and(|known| known.file == file.display && known.is(file))
        };
        files.iter().filter(|file| !is_known(file)).cloned().collect()
    }

    /// What is found in `files`, and how that differs from what was: `found` is what there is in the
    /// [`unsearched`](Self::unsearched) ones that have a match.
    #[must_use]
    pub fn advance(
        &self,
        files: &[ScopedFile],
        found: &BTreeMap<Arc<str>, F>,
    ) -> (Self, Vec<FileDifference<F>>) {
        let mut known = self.files.iter().peekable();
        let now = files.iter().map(|file| {
            while known.next_if(|known| known.file < file.display).is_some() {}
            let same = known.peek().filter(|known| known.file == file.display && known.is(file));
            KnownFile {
                file: Arc::clone(&file.display),
                path: Arc::clone(&file.abs),
                content: file.record.content,
                language: file.record.language,
                found: match same {
                    Some(same) => same.found.clone(),
                    None => found.get(&file.display).cloned(),
                },
            }
        });
        let mut now: Vec<_> = now.collect();
        // A path that was typed twice is selected twice.
        now.sort_by(|a, b| a.file.cmp(&b.file));
        now.dedup_by(|a, b| a.file == b.file);
        let now = Self { files: now };
        let differences = self.differences(&now);
        (now, differences)
    }

    /// What is found, for whoever knows nothing of it.
    pub fn everything(&self) -> Vec<FileDifference<F>> {
        Self::default().differences(self)
    }

    /// What is found, in the order of the files.
    pub fn found(&self) -> impl Iterator<Item = &F> {
        self.files.iter().filter_map(|known| known.found.as_ref())
    }

    fn differences(&self, now: &Self) -> Vec<FileDifference<F>> {
        let (mut old, mut new) = (self.files.iter().peekable(), now.files.iter().peekable());
        let mut differences = Vec::new();
        loop {
            let order = match (old.peek(), new.peek()) {
                (Some(old), Some(new)) => old.file.cmp(&new.file),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return differences,
            };
            let before = if order.is_le() { old.next() } else { None };
            let after = if order.is_ge() { new.next() } else { None };
            differences.extend(difference(before, after));
        }
    }
}

/// The difference in one file, if there is any in what is told of it.
fn difference<F: Clone + PartialEq>(
    before: Option<&KnownFile<F>>,
    after: Option<&KnownFile<F>>,
) -> Option<FileDifference<F>> {
    let file = &before.or(after)?.file;
    let content = |known: Option<&KnownFile<F>>| known.map(|known| known.content);
    let found = |known: Option<&KnownFile<F>>| known.and_then(|known| known.found.clone());
    let (old, new) = (found(before), found(after));
    let is_same = old == new && (old.is_none() || content(before) == content(after));
    (!is_same).then(|| FileDifference {
        file: Arc::clone(file),
        content: content(after),
        before: old,
        after: new,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_repository::{FileRecord, FileStamp};
    use astscope_syntax::{
        FileId, KindTable, NodeFlags, ParsedFile, ParsedTree, TextRange, TreeBuilder,
    };

    /// Files of a name and a text, which is also what is found there, if it isn't empty.
    fn files(texts: &[(&str, &str)]) -> Vec<ScopedFile> {
        let file = |(name, text): &(&str, &str)| {
            let mut tree = TreeBuilder::new(Arc::new(KindTable::new([("end", false)], [])));
            tree.open(0, 0, NodeFlags::NAMED, TextRange::new(0, 0));
            tree.close();
            let language = Language::Rust;
            let tree = ParsedTree::new(tree.finish());
            let parsed =
                ParsedFile { language, text: (*text).into(), tree, injections: Vec::new() };
            let path: Arc<Path> = Path::new(name).into();
            let record = FileRecord {
                id: FileId::from_index(1).unwrap(),
                path: Arc::clone(&path),
                language,
                stamp: FileStamp::default(),
                content: ContentId::of(text.as_bytes()),
                file: Arc::new(parsed),
            };
            ScopedFile { display: (*name).into(), abs: path, record: Arc::new(record) }
        };
        texts.iter().map(file).collect()
    }

    /// The next state, what was searched for it, and each difference as `file before after`.
    fn look(
        standing: &Standing<String>,
        texts: &[(&str, &str)],
    ) -> (Standing<String>, Vec<String>, Vec<String>) {
        let files = files(texts);
        let searched = standing.unsearched(&files);
        // What follows a space is around what is found.
        let found = |file: &ScopedFile| {
            let found = file.record.file.text.split(' ').next().unwrap_or_default().to_owned();
            (!found.is_empty()).then(|| (Arc::clone(&file.display), found))
        };
        let (next, differences) =
            standing.advance(&files, &searched.iter().filter_map(found).collect());
        let shown = |it: &FileDifference<String>| {
            let part = |found: &Option<String>| found.clone().unwrap_or_else(|| "-".to_owned());
            let gone = if it.content.is_none() { " gone" } else { "" };
            format!("{} {} {}{gone}", it.file, part(&it.before), part(&it.after))
        };
        let searched = searched.iter().map(|file| file.display.to_string()).collect();
        (next, searched, differences.iter().map(shown).collect())
    }

    #[test]
    fn only_what_is_other_is_searched_and_told() {
        let (first, searched, told) =
            look(&Standing::default(), &[("a", "x"), ("b", ""), ("d", "y"), ("e", "z 1")]);
        assert_eq!(searched, ["a", "b", "d", "e"]);
        assert_eq!(told, ["a - x", "d - y", "e - z"]);
        assert_eq!(first.found().collect::<Vec<_>>(), ["x", "y", "z"]);
        let everything = first.everything();
        assert!(everything.iter().all(|it| it.before.is_none()) && everything.len() == 3);
        let same = [("a", "x"), ("b", ""), ("d", "y"), ("e", "z 1")];
        let (_, searched, told) = look(&first, &same);
        assert_eq!((searched.len(), told.len()), (0, 0));
        // Gone, come, changed; without a match before, after and both; and with the same match in
        // other bytes, of which whoever rewrites has to know.
        let (next, searched, told) =
            look(&first, &[("b", " 2"), ("c", "v"), ("d", "w"), ("e", "z 2"), ("f", "")]);
        assert_eq!(searched, ["b", "c", "d", "e", "f"]);
        assert_eq!(told, ["a x - gone", "c - v", "d y w", "e z z"]);
        let (_, searched, told) = look(&next, &[("b", "u"), ("d", " 3")]);
        assert_eq!(searched, ["b", "d"]);
        assert_eq!(told, ["b - u", "c v - gone", "d w -", "e z - gone"]);
    }

    #[test]
    fn a_file_that_is_selected_twice_is_told_once() {
        let (standing, _, told) = look(&Standing::default(), &[("a", "x"), ("a", "x")]);
        assert_eq!(told, ["a - x"]);
        assert_eq!(look(&standing, &[("a", "y"), ("a", "y")]).2, ["a x y"]);
        assert_eq!(look(&standing, &[]).2, ["a x - gone"]);
    }
}
