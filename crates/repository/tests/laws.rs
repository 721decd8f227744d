//! The repository against a map: what is committed is what is read, and nothing else.
#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]

use astscope_repository::{
    Changes, FileStamp, FileStat, NewFile, Repository, Revision, Snapshot, Totals,
};
use astscope_syntax::{
    ContentId, KindTable, Language, NodeFlags, ParsedFile, ParsedTree, SkipReason, TextRange,
    TreeBuilder,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn file(text: &str, language: Language) -> Arc<ParsedFile> {
    let mut builder = TreeBuilder::new(Arc::new(KindTable::new([("end", false), ("x", true)], [])));
    let len = u32::try_from(text.len()).unwrap();
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, len));
    builder.close();
    let tree = ParsedTree::new(builder.finish());
    Arc::new(ParsedFile { language, text: text.into(), tree, injections: Vec::new() })
}

fn stamp(at: i64) -> FileStamp {
    FileStamp { stat: FileStat { mtime_ns: at, ..FileStat::default() }, read_at_ns: at }
}

fn new(path: &str, text: &str, at: i64) -> NewFile {
    let file = file(text, Language::Rust);
    NewFile {
        path: Path::new(path).into(),
        stamp: stamp(at),
        content: ContentId::of(text.as_bytes()),
        file,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u8),
    Touch(u8),
    Skip(u8),
    Remove(u8),
    Commit,
    Abandon,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..20, any::<u8>()).prop_map(|(path, text)| Step::Put(path, text % 8)),
        1 => (0u8..20).prop_map(Step::Touch),
        1 => (0u8..20).prop_map(Step::Skip),
        2 => (0u8..20).prop_map(Step::Remove),
        3 => Just(Step::Commit),
        1 => Just(Step::Abandon),
    ];
    prop::collection::vec(step, 0..60)
}

/// What the model knows of a path: its text, or nothing for a skipped file.
type Model = BTreeMap<PathBuf, Option<String>>;

fn shown(snapshot: &Snapshot) -> Model {
    let records = snapshot.records().map(|r| (r.path.to_path_buf(), Some(r.file.text.to_string())));
    records.chain(snapshot.skips().map(|skip| (skip.path.to_path_buf(), None))).collect()
}

fn recount(snapshot: &Snapshot) -> Totals {
    let mut totals = Totals::default();
    for record in snapshot.records() {
        totals.files += 1;
        totals.nodes += record.file.n_nodes() as u64;
        totals.source_bytes += record.file.text.len() as u64;
        totals.tree_bytes += record.file.tree_bytes() as u64;
        *totals.languages.entry(record.language).or_default() += 1;
    }
    for skip in snapshot.skips() {
        *totals.skipped.entry(skip.reason.code()).or_default() += 1;
    }
    totals
}

/// What a file is at a revision: its text, or when it was skipped.
fn files(snapshot: &Snapshot) -> BTreeMap<Arc<Path>, (Option<String>, Option<i64>)> {
    let records = snapshot.records().map(|r| (&r.path, (Some(r.file.text.to_string()), None)));
    let skips = snapshot.skips().map(|s| (&s.path, (None, Some(s.stamp.stat.mtime_ns))));
    records.chain(skips).map(|(path, what)| (Arc::clone(path), what)).collect()
}

/// The difference of two snapshots, file by file.
fn difference(old: &Snapshot, new: &Snapshot) -> Changes {
    let (before, after) = (files(old), files(new));
    let only = |one: &BTreeMap<Arc<Path>, _>, other: &BTreeMap<Arc<Path>, _>| {
        one.keys().filter(|path| !other.contains_key(*path)).cloned().collect()
    };
    let is_other =
        |(path, what): &(&Arc<Path>, &_)| before.get(*path).is_some_and(|was| was != *what);
    Changes {
        revision: new.revision(),
        n_commits: 0,
        added: only(&after, &before),
        changed: after.iter().filter(is_other).map(|(path, _)| Arc::clone(path)).collect(),
        removed: only(&before, &after),
    }
}

proptest! {
    #[test]
    fn committed_batches_equal_a_map_and_old_snapshots_stay(steps in steps()) {
        let repository = Repository::new(7);
        let mut committed = Model::new();
        let mut kept: Vec<(Snapshot, Model)> = Vec::new();
        let mut rest = steps.as_slice();
        while !rest.is_empty() {
            let end = rest.iter().position(|step| matches!(step, Step::Commit | Step::Abandon));
            let (batch, later) = rest.split_at(end.unwrap_or(rest.len()));
            let mut staged = committed.clone();
            let before = repository.snapshot();
            let mut transaction = repository.begin();
            for (at, step) in (0..).zip(batch) {
                let name = |path: &u8| format!("/r/{path}");
                match step {
                    Step::Put(path, text) => {
                        transaction.put(new(&name(path), &"x".repeat((*text).into()), at)).unwrap();
                        staged.insert(name(path).into(), Some("x".repeat((*text).into())));
                    }
                    Step::Touch(path) => {
                        let path = name(path);
                        if let Some(record) = before.record(Path::new(&path), Language::Rust)
                            && staged.get(Path::new(&path)) == committed.get(Path::new(&path)) {
                            let touched = transaction.touch(record, stamp(at)).unwrap();
                            prop_assert_eq!(touched.id, record.id);
                        }
                    }
                    Step::Skip(path) => {
                        transaction.skip(&Path::new(&name(path)).into(), stamp(at), SkipReason::Empty);
                        staged.insert(name(path).into(), None);
                    }
                    Step::Remove(path) => {
                        transaction.remove(Path::new(&name(path)));
                        staged.remove(Path::new(&name(path)));
                    }
                    Step::Commit | Step::Abandon => {}
                }
            }
            if matches!(later.first(), Some(Step::Abandon)) {
                drop(transaction);
                prop_assert_eq!(repository.snapshot().revision(), before.revision());
            } else {
                let revision = transaction.commit();
                prop_assert_eq!(revision, repository.snapshot().revision());
                prop_assert!(revision >= before.revision());
                prop_assert!(revision > before.revision() || staged == committed);
                committed = staged;
            }
            let now = repository.snapshot();
            prop_assert_eq!(&shown(&now), &committed);
            prop_assert_eq!(&recount(&now), now.totals());
            kept.push((now, committed.clone()));
            rest = later.get(1..).unwrap_or_default();
        }
        let newest = repository.snapshot();
        let differs = kept.windows(2).map(|pair| !difference(&pair[0].0, &pair[1].0).is_empty());
        let differs: Vec<bool> = differs.collect();
        for (at, (snapshot, model)) in kept.iter().enumerate() {
            prop_assert_eq!(&shown(snapshot), model);
            let changes = repository.changes_since(snapshot.revision()).unwrap();
            let (n_commits, expected) = (changes.n_commits, difference(snapshot, &newest));
            prop_assert_eq!(Changes { n_commits: 0, ..changes }, expected);
            prop_assert_eq!(n_commits, differs[at..].iter().filter(|differs| **differs).count());
        }
        let everything = repository.changes_since(Revision { epoch: 7, number: 0 }).unwrap();
        let everything = Changes { n_commits: 0, ..everything };
        prop_assert_eq!(everything, difference(&Repository::new(7).snapshot(), &newest));
    }
}

#[test]
fn readers_see_whole_batches_while_a_writer_commits() {
    let repository = Repository::new(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = repository.snapshot().revision();
                while !done.load(Ordering::Relaxed) {
                    let snapshot = repository.snapshot();
                    assert!(snapshot.revision() >= last);
                    last = snapshot.revision();
                    // Each batch writes the same text into all ten files.
                    let texts: std::collections::BTreeSet<&str> =
                        snapshot.records().map(|record| &*record.file.text).collect();
                    assert!(texts.len() <= 1, "half a batch: {texts:?}");
                }
            });
        }
        for round in 0..300 {
            let mut transaction = repository.begin();
            for path in 0..10 {
                transaction
                    .put(new(&format!("/r/{path}"), &format!("round {round}"), round))
                    .unwrap();
            }
            transaction.commit();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(repository.snapshot().revision().number, 300);
}

#[test]
fn equal_contents_are_found_while_a_record_holds_them_and_forgotten_after() {
    let repository = Repository::new(1);
    let mut transaction = repository.begin();
    let record = transaction.put(new("/r/a", "same", 0)).unwrap();
    transaction.commit();
    let content = ContentId::of(b"same");
    let found = repository.by_content(content, Language::Rust).expect("a record holds it");
    assert!(Arc::ptr_eq(&found, &record.file));
    assert!(repository.by_content(content, Language::Python).is_none());
    drop((found, record));
    let mut transaction = repository.begin();
    transaction.remove(Path::new("/r/a"));
    transaction.commit();
    assert!(repository.by_content(content, Language::Rust).is_none());
}

#[test]
fn one_path_may_be_parsed_as_two_languages() {
    let repository = Repository::new(1);
    let mut transaction = repository.begin();
    let rust = new("/r/a", "x", 0);
    let python = NewFile { file: file("x", Language::Python), ..rust.clone() };
    transaction.put(rust).unwrap();
    transaction.put(python).unwrap();
    transaction.commit();
    let snapshot = repository.snapshot();
    assert!(snapshot.record(Path::new("/r/a"), Language::Rust).is_some());
    assert!(snapshot.record(Path::new("/r/a"), Language::Python).is_some());
    assert_eq!(snapshot.totals().files, 2);
    // Another language is another look at the same file; other bytes under one of them are not.
    let since = snapshot.revision();
    let commit = |text, language| {
        let mut transaction = repository.begin();
        let file = NewFile { file: file(text, language), ..new("/r/a", text, 1) };
        transaction.put(file).unwrap();
        transaction.commit();
        let changes = repository.changes_since(since).unwrap();
        assert_eq!((changes.added.len(), changes.removed.len()), (0, 0));
        changes.changed.len()
    };
    assert_eq!(commit("x", Language::Java), 0);
    assert_eq!(commit("y", Language::Rust), 1);
    assert_eq!(commit("y", Language::Python), 1);
    assert_eq!(commit("x", Language::Rust), 1);
    assert_eq!((commit("x", Language::Python), commit("x", Language::Java)), (0, 0));
}
