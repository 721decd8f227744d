//! Every kind of change that alters what a walk finds must make the memory of it useless.

use super::*;
use crate::aged::aged;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::SystemTime;

/// A tree below a directory that may get ignore files of its own.
struct Tree {
    above: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().canonicalize().unwrap().join("root");
        for dir in ["src/deep", "lib", ".git/info"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (file, text) in [
            ("a.rs", ""),
            ("src/b.rs", ""),
            ("src/deep/c.rs", ""),
            ("lib/d.ex", ""),
            ("lib/script", "#!/usr/bin/env escript\n"),
            (".gitignore", "nothing\n"),
            (".git/info/exclude", "nothing\n"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        Self { above, root }
    }

    fn spec(&self) -> WalkSpec {
        WalkSpec { cwd: self.root.clone(), ..WalkSpec::default() }
    }

    /// Waits until the file system's clock has moved on: a change from now on shows.
    fn tick(&self) {
        let probe = self.above.path().join("probe");
        let stamp = || {
            fs::write(&probe, "").unwrap();
            probe.metadata().unwrap().modified().unwrap()
        };
        let first = stamp();
        while stamp() == first {}
    }
}

/// A time so late that everything in the tree is old.
fn later_ns() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap() + 3_600_000_000_000
}

fn pool() -> ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn shown(walked: &Walked) -> Vec<String> {
    let files = walked.files.iter();
    files.map(|found| format!("{} {} {:?}", found.display, found.language, found.stat)).collect()
}

fn is_remembered(recall: &Recall, spec: &WalkSpec) -> bool {
    recall.known(spec).is_some_and(|known| known.walk_again().is_some())
}

/// Walks, remembers, changes, walks again: must equal a walk that knows nothing.
#[track_caller]
fn check(change: impl FnOnce(&Tree), is_noticed: bool) {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let spec = tree.spec();
    let first = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap().walked;
    assert_eq!(first.files.len(), 4);
    assert!(is_remembered(&recall, &spec));
    tree.tick();
    change(&tree);
    assert_eq!(is_remembered(&recall, &spec), !is_noticed);
    let again = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap().walked;
    assert_eq!(shown(&again), shown(&walk(&spec, &|| false).unwrap()));
}

#[test]
fn entries_that_come_and_go_are_noticed() {
    check(|tree| fs::write(tree.root.join("src/deep/new.rs"), "").unwrap(), true);
    check(|tree| fs::remove_file(tree.root.join("src/b.rs")).unwrap(), true);
    check(|tree| fs::rename(tree.root.join("a.rs"), tree.root.join("lib/z.rs")).unwrap(), true);
    check(|tree| fs::rename(tree.root.join("src"), tree.root.join("source")).unwrap(), true);
    check(|tree| fs::remove_dir_all(tree.root.join("src/deep")).unwrap(), true);
    check(
        |tree| {
            fs::remove_file(tree.root.join("a.rs")).unwrap();
            fs::create_dir(tree.root.join("a.rs")).unwrap();
        },
        true,
    );
    check(
        |tree| {
            fs::rename(tree.root.join("lib"), tree.above.path().join("lib")).unwrap();
            symlink(tree.above.path().join("lib"), tree.root.join("lib")).unwrap();
        },
        true,
    );
    check(
        |tree| {
            fs::rename(&tree.root, tree.above.path().join("old")).unwrap();
            fs::create_dir(&tree.root).unwrap();
        },
        true,
    );
}

#[test]
fn rules_that_change_are_noticed_wherever_they_lie() {
    let rule =
        |file: &'static str| move |tree: &Tree| fs::write(tree.root.join(file), "b.rs\n").unwrap();
    check(rule(".gitignore"), true);
    check(rule(".ignore"), true);
    check(rule("src/.gitignore"), true);
    check(rule(".git/info/exclude"), true);
    check(rule("../.ignore"), true);
    check(rule("../.gitignore"), true);
    check(|tree| fs::remove_dir_all(tree.root.join(".git")).unwrap(), true);
    check(|tree| fs::create_dir(tree.above.path().join(".git")).unwrap(), true);
}

#[test]
fn scripts_are_noticed_by_their_mode_and_first_line() {
    let script = |tree: &Tree| tree.root.join("lib/script");
    let runnable = fs::Permissions::from_mode(0o755);
    check(|tree| fs::set_permissions(script(tree), runnable).unwrap(), true);
    check(|tree| fs::write(script(tree), "#!/bin/sh\n").unwrap(), true);
}

#[test]
fn new_contents_need_no_walk_and_come_with_new_metadata() {
    check(|tree| fs::write(tree.root.join("a.rs"), "fn a() {}").unwrap(), false);
    check(|tree| fs::write(tree.root.join(".git/index.lock"), "").unwrap(), false);
    check(|tree| fs::write(tree.above.path().join("beside"), "").unwrap(), false);
}

#[test]
fn what_changed_just_before_a_walk_is_not_trusted() {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let spec = tree.spec();
    let now_ns = later_ns() - 3_600_000_000_000;
    recall.walk(&pool, &spec, now_ns, &|| false).unwrap();
    assert!(recall.known(&spec).is_none());
}

/// Makes a change whenever a walk asks whether to stop, and once when it doesn't come to that.
#[track_caller]
fn check_during(change: impl Fn(&Tree) + Sync) {
    for moment in 0.. {
        let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
        fs::write(tree.root.join(".git/info/exclude"), "b.rs\n").unwrap();
        let (spec, now_ns) = (tree.spec(), aged(&tree.root));
        let n_asked = AtomicU64::new(0);
        let stop = || {
            if n_asked.fetch_add(1, Ordering::Relaxed) == moment {
                change(&tree);
            }
            false
        };
        recall.walk(&pool, &spec, now_ns, &stop).unwrap();
        let again = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap().walked;
        assert_eq!(shown(&again), shown(&walk(&spec, &|| false).unwrap()), "at {moment}");
        if n_asked.into_inner() <= moment {
            return;
        }
    }
}

#[test]
fn rules_that_change_during_the_walk_are_noticed() {
    let exclude = |tree: &Tree| tree.root.join(".git/info/exclude");
    check_during(|tree| fs::remove_file(exclude(tree)).unwrap());
    check_during(|tree| fs::write(exclude(tree), "a.rs\n").unwrap());
    check_during(|tree| fs::remove_dir_all(tree.root.join(".git/info")).unwrap());
    check_during(|tree| fs::remove_dir_all(tree.root.join(".git")).unwrap());
    check_during(|tree| fs::write(tree.root.join("src/.ignore"), "c.rs\n").unwrap());
    check_during(|tree| fs::remove_file(tree.root.join(".gitignore")).unwrap());
}

/// A walk that took long is remembered after a younger one, before that one is vouched for.
#[test]
fn who_vouches_for_a_walk_means_that_one() {
    for moment in 0.. {
        let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
        let (spec, now_ns) = (tree.spec(), aged(&tree.root));
        let (n_asked, younger) = (AtomicU64::new(0), Mutex::new(None));
        let stop = || {
            if n_asked.fetch_add(1, Ordering::Relaxed) == moment {
                fs::write(tree.root.join("src/new.rs"), "").unwrap();
                let walked = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap();
                *younger.lock().unwrap() = Some(walked);
            }
            false
        };
        recall.walk(&pool, &spec, now_ns, &stop).unwrap();
        let Some(younger) = younger.into_inner().unwrap() else { return };
        younger.vouch(7);
        if let Some(vouched) = recall.vouched(&spec, 7) {
            assert_eq!(shown(&vouched.walked), shown(&younger.walked), "at {moment}");
        }
    }
}

#[test]
fn what_was_walked_and_vouched_for_is_remembered_with_its_names() {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let spec = tree.spec();
    for names in [7, 8] {
        let recalled = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap();
        assert!(recall.vouched(&spec, names).is_none());
        recalled.vouch(names);
        assert!(recall.vouched(&spec, names).is_some(), "{names}");
    }
}

#[test]
fn walks_that_no_stat_can_prove_are_not_remembered() {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let plain = tree.spec();
    let follow = WalkSpec { follow: true, ..plain.clone() };
    let file = WalkSpec { paths: vec!["a.rs".to_owned()], ..plain.clone() };
    let missing = WalkSpec { paths: vec![".".to_owned(), "none".to_owned()], ..plain.clone() };
    for spec in [&follow, &file, &missing] {
        recall.walk(&pool, spec, later_ns(), &|| false).unwrap();
        assert!(recall.known(spec).is_none(), "{spec:?}");
    }
    fs::remove_dir_all(tree.root.join(".git")).unwrap();
    fs::write(tree.root.join(".git"), "gitdir: /somewhere\n").unwrap();
    recall.walk(&pool, &plain, later_ns(), &|| false).unwrap();
    assert!(recall.known(&plain).is_none());
}

#[test]
fn the_last_walks_are_remembered_each_by_all_that_was_asked() {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let globs = |glob: &str| WalkSpec { globs: vec![glob.to_owned()], ..tree.spec() };
    let specs: Vec<WalkSpec> = ["*.rs", "*.ex", "!*.rs", "lib", "src"].map(globs).into();
    for spec in &specs {
        let fresh = walk(spec, &|| false).unwrap();
        for _ in 0..2 {
            let walked = recall.walk(&pool, spec, later_ns(), &|| false).unwrap().walked;
            assert_eq!(shown(&walked), shown(&fresh));
        }
    }
    let remembered: Vec<bool> = specs.iter().map(|spec| is_remembered(&recall, spec)).collect();
    assert_eq!(remembered, [false, true, true, true, true]);
}

#[test]
fn walks_can_be_given_back_and_counted_before() {
    let (tree, recall, pool) = (Tree::new(), Recall::default(), pool());
    let spec = tree.spec();
    let first = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap().walked;
    let (n, bytes) = recall.idle(Duration::ZERO);
    assert!(n == 1 && bytes > first.files.len() * size_of::<Found>(), "{n} {bytes}");
    let hour = Duration::from_hours(1);
    assert_eq!((recall.idle(hour), recall.forget_idle(hour)), ((0, 0), (0, 0)));
    assert!(is_remembered(&recall, &spec));
    assert_eq!(recall.forget_idle(Duration::ZERO), (n, bytes));
    assert!(!is_remembered(&recall, &spec));
    let again = recall.walk(&pool, &spec, later_ns(), &|| false).unwrap().walked;
    assert_eq!(shown(&again), shown(&first));
    assert!(is_remembered(&recall, &spec));
}
