//! What goes wrong with the disk itself, one fault at a time: each answer stays that of a look, and
//! what is behind the fault is found again once it is over.

use super::*;
use crate::LanguageGlobs;
use crate::commit::{Committer, Direct};
use crate::unprivileged::set_mode;
use astscope_repository::{Batch, Committed};
use astscope_syntax::SkipReason;
use std::io::{Seek, Write};

impl World {
    /// The files that can't be read now, in an answer about everything.
    fn unreadable(&self) -> Vec<String> {
        let spec = self.spec(&[], None);
        let scope = self.engine.refresh(&spec, true, &|| false, &|_, _| {}).unwrap();
        let skipped = scope.skipped.into_iter();
        let unreadable = skipped.filter(|(_, why)| matches!(why, SkipReason::Unreadable { .. }));
        unreadable.map(|(path, _)| path).collect()
    }

    /// Whether two answers about these paths need no look, the first after a walk.
    #[track_caller]
    fn check_proven(&self, paths: &[&str], when: &str) {
        let spec = self.spec(paths, None);
        self.check(&spec, when);
        let (proven, looked) = self.answers();
        self.check(&spec, when);
        assert_eq!(self.answers(), (proven + 1, looked), "{when}: {paths:?} is looked for");
    }
}

#[test]
fn a_directory_that_may_not_be_read_is_told_and_the_rest_stays_proven() {
    unprivileged(|| {
        for mode in [0o000, 0o311, 0o444] {
            let world = World::new();
            world.check_all("at first");
            let lib = world.root.join("lib");
            let mut late = fs::File::options().write(true).open(lib.join("d.json")).unwrap();
            let when = |what: &str| format!("{mode:o}, {what}");
            set_mode(&lib, mode);
            world.check_all(&when("closed"));
            assert!(world.reconcile().uncovered.is_none());
            assert_eq!(world.engine.tracker().unsteady(), None);
            world.check_all(&when("after a walk"));
            let told = world.unreadable();
            let told: Vec<&str> = told.iter().map(String::as_str).collect();
            // Its entries can be listed, and not looked at.
            let expected = if mode == 0o444 { "lib/d.json" } else { "lib" };
            assert_eq!(told, [expected]);
            world.check_proven(&["src"], &when("the rest"));
            world.write("src/b.json", "2\n");
            world.check_proven(&["src"], &when("the rest, changed"));
            // Who had opened it before goes on writing.
            late.write_all(b"2\n").unwrap();
            world.check_all(&when("changed behind it"));
            // A watcher that began afterwards never saw what is in there.
            world.listen();
            world.reconcile();
            world.check_all(&when("anew"));
            late.rewind().unwrap();
            late.write_all(b"3\n").unwrap();
            world.check_all(&when("anew, changed behind it"));
            set_mode(&lib, 0o755);
            world.check_all(&when("open again"));
            assert_eq!(world.unreadable(), [""; 0]);
            assert!(world.reconcile().uncovered.is_none());
            world.check_proven(&[], &when("open again, after a walk"));
            world.write("lib/d.json", "4\n");
            world.check_proven(&[], &when("open again, changed"));
        }
    });
}

#[test]
fn a_root_that_may_not_be_read_is_told_and_found_again_once_it_may() {
    unprivileged(|| {
        for mode in [0o000, 0o311, 0o444] {
            let world = World::new();
            world.check_all("at first");
            let when = |what: &str| format!("{mode:o}, {what}");
            set_mode(&world.root, mode);
            world.check_all(&when("closed"));
            let uncovered = world.reconcile().uncovered;
            let why = uncovered.map(|why| why.to_string());
            // One that can only be listed can be watched, too.
            let expected = format!("cannot watch {}", world.root.display());
            assert_eq!(why, (mode != 0o444).then_some(expected));
            world.check_all(&when("after a walk"));
            assert!(!world.unreadable().is_empty());
            let held = world.engine.repository().snapshot().totals().files;
            assert_eq!(held, 4, "nothing is given up");
            set_mode(&world.root, 0o755);
            world.check_all(&when("open again"));
            assert!(world.reconcile().uncovered.is_none());
            world.check_proven(&[], &when("open again, after a walk"));
        }
    });
}

#[test]
fn a_clock_that_is_set_back_costs_readings_and_no_answer() {
    let world = World::new();
    // What a look has to read, as nothing proves it unchanged. With a language's globs there is always a look.
    let globs = [(Language::Json, vec!["*.other".to_owned()])];
    let language_globs = LanguageGlobs::compile(globs).unwrap();
    let files = WalkSpec { language_globs, ..world.spec(&[], None) };
    let n_read = |when: &str| {
        let before = world.disk.n_opens.load(Ordering::Relaxed);
        world.check(&files, when);
        world.disk.n_opens.load(Ordering::Relaxed) - before
    };
    let until_trusted = || {
        let deadline = std::time::Instant::now() + Duration::from_mins(1);
        while n_read("while it is young") > 0 {
            assert!(std::time::Instant::now() < deadline, "files are never old enough");
        }
    };
    until_trusted();
    world.disk.back_secs.store(3600, Ordering::Relaxed);
    assert_eq!(n_read("after the clock was set back"), 0, "what was read before stays proven");
    world.write("a.json", "2\n");
    fs::remove_file(world.root.join("src/b.json")).unwrap();
    fs::remove_dir_all(world.root.join("lib")).unwrap();
    // Events that were lost: only the walk tells what is gone.
    world.faults.overflowing.store(true, Ordering::Relaxed);
    world.check_all("after changes");
    assert!(world.reconcile().uncovered.is_none());
    let snapshot = world.engine.repository().snapshot();
    for gone in ["src/b.json", "lib/d.json"] {
        assert!(!snapshot.knows(&world.root.join(gone)), "{gone} is still stored");
    }
    for n in 3..6 {
        assert_eq!(n_read("in the meantime"), 1, "one file is of the future");
        world.write("a.json", &format!("{n}\n"));
        world.check_all("in the meantime");
    }
    world.disk.back_secs.store(0, Ordering::Relaxed);
    until_trusted();
    world.check_all("once the clock has caught up");
}

#[test]
fn nothing_in_a_tree_is_written_so_one_that_is_read_only_is_answered_as_ever() {
    unprivileged(|| {
        let world = World::new();
        let all = || {
            let mut below = vec![world.root.clone()];
            let mut found = Vec::new();
            while let Some(path) = below.pop() {
                let metadata = path.symlink_metadata().unwrap();
                if metadata.is_dir() {
                    below.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                }
                found.push((path, stat_of(&metadata)));
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            found
        };
        for (path, _) in all() {
            set_mode(&path, if path.is_dir() { 0o555 } else { 0o444 });
        }
        let before = all();
        assert!(fs::write(world.root.join("n.json"), "1\n").is_err(), "it is read-only");
        world.listen();
        assert!(world.reconcile().uncovered.is_none());
        world.check_all("read-only");
        world.check_proven(&[], "read-only");
        assert_eq!(all(), before);
    });
}

/// A query may still ask who listened before.
#[test]
fn whoever_listens_anew_has_cookies_of_its_own() {
    let world = World::new();
    let before = world.engine.tracker().watches().unwrap();
    world.listen();
    before.barrier(world.engine.tracker()).unwrap();
    drop(before);
    world.reconcile();
    world.check_proven(&[], "after it is gone");
    let left = fs::read_dir(world.above.path().join("cookies")).unwrap();
    assert_eq!(left.count(), 1);
}

/// Commits nothing while it is told so.
#[derive(Debug)]
struct Refusing {
    committer: Direct,
    is_refusing: Arc<AtomicBool>,
}

impl Committer for Refusing {
    fn commit(&self, batch: Batch) -> Result<Committed, String> {
        if self.is_refusing.load(Ordering::Relaxed) {
            return Err("it is refused".to_owned());
        }
        self.committer.commit(batch)
    }
}

#[test]
fn a_batch_that_cannot_be_stored_is_not_stored_in_part_and_answers_stay_right() {
    let is_refusing = Arc::new(AtomicBool::new(false));
    let refusing = Arc::clone(&is_refusing);
    let world = World::with(|engine| {
        let committer = Direct(Arc::clone(&engine.repository));
        engine.with_committer(Arc::new(Refusing { committer, is_refusing: refusing }))
    });
    world.check_all("at first");
    let before = world.engine.repository().snapshot().revision();
    is_refusing.store(true, Ordering::Relaxed);
    for n in 2..5 {
        world.write("a.json", &format!("{n}\n"));
        world.write(&format!("src/{n}.json"), "1\n");
        drop(fs::remove_file(world.root.join("src/b.json")));
        for when in ["not stored", "not stored, again"] {
            world.check_all(when);
            assert_eq!(world.engine.tracker().unsteady(), Some(Shake::Unapplied), "{when}");
        }
        // As the updater does.
        world.reconcile();
        for when in ["not stored by a walk", "not stored by a walk, again"] {
            world.check_all(when);
        }
        assert_eq!(world.engine.tracker().unsteady(), Some(Shake::Unapplied));
        assert_eq!(world.engine.repository().snapshot().revision(), before, "nothing of it");
    }
    is_refusing.store(false, Ordering::Relaxed);
    assert!(world.reconcile().uncovered.is_none());
    assert_eq!(world.engine.tracker().unsteady(), None);
    world.check_proven(&[], "stored after all");
    let snapshot = world.engine.repository().snapshot();
    assert_eq!(snapshot.totals().files, 6);
    assert!(!snapshot.knows(&world.root.join("src/b.json")));
}
