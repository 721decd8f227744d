//! Answers are never stale: every way in which a tree can change under a repository.
#![expect(clippy::unwrap_used, reason = "test helpers that stop on failure")]

mod support;

use astscope_fixtures::Fixture;
use astscope_parsing::{Backend, InProcess, Limits, Source};
use astscope_synchronization::{RefreshError, WalkSpec};
use astscope_syntax::{Language, ParsedFile, SkipReason};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use support::{Event, Watched, watch};

fn small() -> Watched {
    let fixture = Fixture::parse("//- /top/a.json\n1\n//- /top/lib/b.json\n2\n");
    watch(fixture, 2, Limits::DAEMON)
}

/// `n` different files.
fn many(n: usize, n_threads: usize) -> Watched {
    let fixture = Fixture::empty();
    for i in 0..n {
        fixture.write(format!("top/{}/{i}.json", i % 7), format!("[{i}]"));
    }
    watch(fixture, n_threads, Limits::DAEMON)
}

fn set_mtime(path: &Path, seconds: i64) {
    let at = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: at, last_modification: at };
    utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
}

/// Rewrites a file until the kernel's coarse clock has ticked since its last change.
fn rewrite(path: &Path, text: &str, mtime: i64) {
    let ctime = |meta: fs::Metadata| (meta.ctime(), meta.ctime_nsec());
    let before = ctime(fs::metadata(path).unwrap());
    loop {
        fs::write(path, text).unwrap();
        set_mtime(path, mtime);
        if ctime(fs::metadata(path).unwrap()) != before {
            return;
        }
    }
}

#[test]
fn what_is_proven_unchanged_is_not_read_again() {
    let watched = small();
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
    assert_eq!(watched.opened(), ["top/a.json", "top/lib/b.json"]);
    let revision = watched.repository.snapshot().revision();
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
    assert_eq!(watched.see(&["lib"]), ["lib/b.json=2"]);
    assert_eq!(watched.opened(), [""; 0]);
    assert_eq!(watched.repository.snapshot().revision(), revision);
}

#[test]
fn an_edit_within_the_racy_window_is_seen_though_size_and_times_are_the_same() {
    let watched = small();
    watched.control.ahead_ns.store(0, Ordering::Relaxed);
    let path = watched.fixture.path("top/a.json");
    set_mtime(&path, 1_000_000);
    assert_eq!(watched.see(&["a.json"]), ["a.json=1"]);
    for text in ["3", "4", "5", "6"] {
        fs::write(&path, format!("{text}\n")).unwrap();
        set_mtime(&path, 1_000_000);
        assert_eq!(watched.see(&["a.json"]), [format!("a.json={text}")]);
    }
}

#[test]
fn a_young_file_is_read_again_but_not_parsed_again() {
    let watched = small();
    watched.control.ahead_ns.store(0, Ordering::Relaxed);
    let spec = watched.spec(&["."]);
    let before = watched.refresh(&spec).unwrap();
    watched.control.ahead_ns.store(1_000_000_000, Ordering::Relaxed);
    let after = watched.refresh(&spec).unwrap();
    for (before, after) in before.files.iter().zip(&after.files) {
        assert!(Arc::ptr_eq(&before.record.file, &after.record.file), "parsed once");
        assert_eq!(before.record.id, after.record.id);
    }
    watched.opened();
    assert_eq!(watched.see(&["."]).len(), 2);
    assert_eq!(watched.opened(), [""; 0], "its new stamp is trusted");
}

#[test]
fn an_edit_whose_old_time_was_restored_is_seen() {
    let watched = small();
    let path = watched.fixture.path("top/a.json");
    set_mtime(&path, 1_000_000);
    assert_eq!(watched.see(&["a.json"]), ["a.json=1"]);
    rewrite(&path, "7\n", 1_000_000);
    assert_eq!(watched.see(&["a.json"]), ["a.json=7"]);
}

#[test]
fn a_file_that_replaces_another_is_seen() {
    let watched = small();
    assert_eq!(watched.see(&["a.json"]), ["a.json=1"]);
    watched.fixture.write("top/new", "8\n");
    fs::rename(watched.fixture.path("top/new"), watched.fixture.path("top/a.json")).unwrap();
    assert_eq!(watched.see(&["a.json"]), ["a.json=8"]);
}

#[test]
fn what_is_deleted_goes_from_the_answer_and_then_from_the_repository() {
    let watched = small();
    assert_eq!(watched.see(&["."]).len(), 2);
    watched.fixture.remove("top/lib");
    assert_eq!(watched.see(&["."]), ["a.json=1"]);
    assert_eq!(watched.held(), ["top/a.json"]);
    watched.fixture.remove("top/a.json");
    watched.synchronizer.crawl(&|| false, &|_, _| {}).unwrap();
    assert_eq!(watched.held(), [""; 0]);
}

#[test]
fn a_file_that_comes_to_be_ignored_goes_too() {
    let watched = small();
    assert_eq!(watched.see(&["."]).len(), 2);
    watched.fixture.write("top/.ignore", "lib/\n");
    assert_eq!(watched.see(&["."]), ["a.json=1"]);
    assert_eq!(watched.held(), ["top/a.json"]);
}

#[test]
fn a_language_prunes_only_its_own_files() {
    let watched = small();
    watched.fixture.write("top/c.html", "<p>");
    assert_eq!(watched.see(&["."]).len(), 3);
    watched.fixture.remove("top/c.html");
    watched.fixture.remove("top/a.json");
    let spec = WalkSpec { languages: Some(vec![Language::Json]), ..watched.spec(&["."]) };
    assert_eq!(watched.refresh(&spec).unwrap().files.len(), 1);
    assert_eq!(watched.held(), ["top/c.html", "top/lib/b.json"]);
}

#[test]
fn a_file_that_vanishes_between_walk_and_read_is_skipped_and_forgotten() {
    let watched = small();
    assert_eq!(watched.see(&["."]).len(), 2);
    rewrite(&watched.fixture.path("top/a.json"), "9\n", 1);
    watched.inject(|path, _| path.ends_with("a.json").then_some(Event::Fails(ErrorKind::NotFound)));
    assert_eq!(watched.see(&["."]), ["lib/b.json=2", "a.json:vanished"]);
    assert_eq!(watched.held(), ["top/lib/b.json"]);
}

#[test]
fn an_unreadable_file_is_reported_and_tried_again() {
    let watched = small();
    watched.inject(|path, n| {
        let denied = path.ends_with("a.json") && n < 2;
        denied.then_some(Event::Fails(ErrorKind::PermissionDenied))
    });
    assert_eq!(watched.see(&["."]), ["lib/b.json=2", "a.json:unreadable"]);
    let revision = watched.repository.snapshot().revision();
    assert_eq!(watched.see(&["."]), ["lib/b.json=2", "a.json:unreadable"]);
    assert_eq!(watched.repository.snapshot().revision(), revision, "no news");
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
    assert!(watched.repository.snapshot().totals().skipped.is_empty());
}

#[test]
fn a_file_that_can_no_longer_be_read_keeps_its_last_good_version_marked() {
    let watched = small();
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
    let since = watched.repository.snapshot().revision();
    for event in [|| Event::Fails(ErrorKind::PermissionDenied), || Event::ChangesWhileRead] {
        rewrite(&watched.fixture.path("top/a.json"), "9\n", 1);
        watched.inject(move |path, _| path.ends_with("a.json").then(event));
        let first = watched.refresh(&watched.spec(&["."])).unwrap();
        assert_eq!((first.files.len(), first.kept.len(), first.skipped.len()), (2, 1, 0));
        assert_eq!((&*first.kept[0].0, &*first.files[0].record.file.text), ("a.json", "1\n"));
        assert_eq!(first.lag.unwrap().files, ["a.json".into()]);
        // It is tried by each query, and is news once.
        let marked = watched.repository.snapshot().revision();
        watched.opened();
        assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
        assert!(watched.opened().contains(&"top/a.json".to_owned()));
        assert_eq!(watched.repository.snapshot().revision(), marked);
        assert_eq!(watched.repository.snapshot().totals().kept, 1);
        assert!(watched.repository.changes_since(since).unwrap().is_empty());
        let all = astscope_repository::Depth::Whole;
        assert_eq!(watched.repository.verify(all, &mut || false).n_faults, 0);
    }
    watched.inject(|_, _| None);
    let read = watched.refresh(&watched.spec(&["."])).unwrap();
    assert_eq!((read.kept.len(), read.lag), (0, None));
    assert_eq!(&*read.files[0].record.file.text, "9\n");
    assert_eq!(watched.repository.snapshot().totals().kept, 0);
}

#[test]
fn a_kept_file_that_vanishes_goes() {
    let watched = small();
    assert_eq!(watched.see(&["."]).len(), 2);
    rewrite(&watched.fixture.path("top/a.json"), "9\n", 1);
    watched.inject(|path, _| {
        path.ends_with("a.json").then_some(Event::Fails(ErrorKind::PermissionDenied))
    });
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json=2"]);
    watched.fixture.remove("top/a.json");
    assert_eq!(watched.see(&["."]), ["lib/b.json=2"]);
    assert_eq!(watched.held(), ["top/lib/b.json"]);
    assert_eq!(watched.repository.snapshot().totals().kept, 0);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_read_again_and_given_up_in_the_end() {
    let watched = small();
    watched.inject(|path, n| {
        let changes = path.ends_with("a.json") && n < 2 || path.ends_with("b.json");
        changes.then_some(Event::ChangesWhileRead)
    });
    assert_eq!(watched.see(&["."]), ["a.json=1", "lib/b.json:unstable"]);
    assert_eq!(watched.opened(), [["top/a.json"; 3], ["top/lib/b.json"; 3]].concat());
}

#[test]
fn skipped_files_say_why_and_are_not_read_again() {
    let limits = Limits { bytes_max: 10, ..Limits::DAEMON };
    let watched = watch(Fixture::parse("//- /top/empty.json\n"), 2, limits);
    watched.fixture.write("top/bad.json", b"\"\xff\"");
    watched.fixture.write("top/big.json", "[1, 2, 3, 4]");
    let expected = ["bad.json:not_utf8", "big.json:over_size_limit", "empty.json:empty"];
    assert_eq!(watched.see(&["."]), expected);
    assert_eq!(watched.opened().len(), 3);
    assert_eq!(watched.see(&["."]), expected);
    assert_eq!(watched.opened(), [""; 0]);
    rewrite(&watched.fixture.path("top/empty.json"), "1", 1);
    assert_eq!(watched.see(&["."]), ["empty.json=1", expected[0], expected[1]]);
    assert_eq!(watched.repository.snapshot().totals().skipped.len(), 2);
}

#[test]
fn equal_content_is_parsed_once() {
    let watched = small();
    assert_eq!(watched.see(&["."]).len(), 2);
    watched.fixture.write("top/copy.json", "1\n");
    let scope = watched.refresh(&watched.spec(&["a.json", "copy.json"])).unwrap();
    assert!(Arc::ptr_eq(&scope.files[0].record.file, &scope.files[1].record.file));
}

#[test]
fn what_lies_outside_the_root_or_is_ignored_is_answered_but_not_kept() {
    let fixture = Fixture::parse(
        "//- /outside/o.json\n1\n//- /top/.ignore\nign/\n//- /top/ign/deep/i.json\n2\n\
         //- /top/.hidden/h.json\n3\n//- /top/a.json\n4\n",
    );
    symlink("../outside", fixture.path("top/out")).unwrap();
    symlink("a.json", fixture.path("top/link.json")).unwrap();
    let watched = watch(fixture, 2, Limits::DAEMON);
    assert_eq!(watched.see(&["ign"]), ["ign/deep/i.json=2"]);
    assert_eq!(watched.see(&["ign/deep/i.json"]), ["ign/deep/i.json=2"]);
    assert_eq!(watched.see(&[".hidden"]), [".hidden/h.json=3"]);
    assert_eq!(watched.see(&["out", "../outside"]), ["../outside/o.json=1", "out/o.json=1"]);
    assert_eq!(watched.held(), [""; 0]);
    let follow = WalkSpec { follow: true, ..watched.spec(&["."]) };
    assert_eq!(watched.refresh(&follow).unwrap().files.len(), 3, "a, link and out/o");
    let globs = WalkSpec { globs: vec!["*.json".to_owned()], ..watched.spec(&["."]) };
    let scope = watched.refresh(&globs).unwrap();
    assert_eq!((scope.files.len(), scope.revision), (1, None), "nothing comes from the root");
    assert_eq!(watched.held(), [""; 0]);
    assert_eq!(watched.see(&["link.json"]), ["link.json=4"]);
    assert_eq!(watched.held(), ["top/a.json"], "a symlink's target has its own place");
}

#[test]
fn directories_made_after_the_crawl_are_indexed() {
    let watched = small();
    watched.synchronizer.crawl(&|| false, &|_, _| {}).unwrap();
    watched.fixture.write("top/lib/new/er/c.json", "3\n");
    watched.fixture.write("top/lib/d.json", "4\n");
    assert_eq!(watched.see(&["lib/new/er"]), ["lib/new/er/c.json=3"]);
    assert_eq!(watched.see(&["lib/d.json"]), ["lib/d.json=4"]);
    let expected = ["top/a.json", "top/lib/b.json", "top/lib/d.json", "top/lib/new/er/c.json"];
    assert_eq!(watched.held(), expected);
}

#[test]
fn a_root_with_a_symlink_loop_is_crawled() {
    let watched = small();
    symlink("..", watched.fixture.path("top/lib/up")).unwrap();
    let summary = watched.synchronizer.crawl(&|| false, &|_, _| {}).unwrap();
    assert_eq!((summary.files, summary.skipped), (2, 0));
    let follow = WalkSpec { follow: true, ..watched.spec(&["."]) };
    let scope = watched.refresh(&follow).unwrap();
    assert_eq!(scope.files.len(), 2);
    assert!(
        matches!(&scope.skipped[..], [(path, SkipReason::Unreadable { .. })] if path == "lib/up")
    );
}

#[test]
fn whoever_does_not_wait_learns_how_much_is_missing() {
    let watched = small();
    assert_eq!(watched.see(&["lib"]).len(), 1);
    let spec = watched.spec(&["."]);
    let scope = watched.synchronizer.refresh(&spec, false, &|| false, &|_, _| {}).unwrap();
    assert_eq!((scope.files.len(), scope.pending), (1, 1));
}

#[test]
fn two_refreshes_of_one_tree_read_each_file_once() {
    let watched = many(400, 2);
    let spec = watched.spec(&["."]);
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                start.wait();
                let seen = watched.refresh(&spec).unwrap();
                assert_eq!((seen.files.len(), seen.pending), (400, 0));
            });
        }
    });
    let opened = watched.opened();
    assert_eq!(opened.len(), 400, "each once");
    assert_eq!(opened, watched.held());
}

#[test]
fn what_was_committed_before_a_cancellation_stays() {
    let watched = many(300, 1);
    let n_done = AtomicUsize::new(0);
    let stop = || n_done.load(Ordering::Relaxed) >= 200;
    let progress = |done, _| n_done.store(done, Ordering::Relaxed);
    let cancelled = watched.synchronizer.refresh(&watched.spec(&["."]), true, &stop, &progress);
    assert!(matches!(cancelled, Err(RefreshError::Cancelled)), "{cancelled:?}");
    // What was parsed together with the 200th was done by then.
    let n_held = watched.held().len();
    assert!((200..300).contains(&n_held), "{n_held}");
    watched.opened();
    assert_eq!(watched.see(&["."]).len(), 300);
    assert_eq!(watched.opened().len(), 300 - n_held, "the rest");
}

#[test]
fn batches_are_visible_while_the_rest_is_parsed() {
    let watched = many(300, 1);
    let visible = Mutex::new(Vec::new());
    let progress = |done, total| {
        let files = watched.repository.snapshot().totals().files;
        visible.lock().unwrap().push((done, total, files));
    };
    watched.synchronizer.crawl(&|| false, &progress).unwrap();
    let visible = visible.into_inner().unwrap();
    assert_eq!(
        visible.iter().map(|(done, ..)| *done).collect::<Vec<_>>(),
        (1..=300).collect::<Vec<_>>()
    );
    assert!(visible.iter().all(|(_, total, _)| *total == 300));
    let (_, _, files) = visible[199];
    assert!((128..=200).contains(&files), "{files} at the 200th");
}

#[test]
fn nothing_is_kept_where_there_is_no_root() {
    let fixture = Fixture::parse("//- /a.json\n1\n");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let synchronizer = astscope_synchronization::Synchronizer::one_shot(Arc::new(pool));
    let spec = WalkSpec::all_of(&fixture.root());
    let scope = synchronizer.refresh(&spec, true, &|| false, &|_, _| {}).unwrap();
    assert_eq!((scope.files.len(), scope.revision), (1, None));
}

/// Parses as in this process, and writes down what it was given together.
#[derive(Debug, Default)]
struct Recording(Mutex<Vec<Vec<usize>>>);

impl Backend for Recording {
    fn parse_batch(
        &self,
        batch: &[Source],
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> Vec<Result<ParsedFile, SkipReason>> {
        self.0.lock().unwrap().push(batch.iter().map(|source| source.text.len()).collect());
        InProcess.parse_batch(batch, limits, stop)
    }
}

#[test]
fn large_files_go_alone_and_small_ones_together_but_fewer_towards_the_end() {
    let fixture = Fixture::empty();
    let number = |n: usize| format!("{n:>7}\n").into_bytes();
    for i in 0..3 {
        fixture.write(format!("top/large{i}.json"), number(i).repeat(50_000));
    }
    for i in 0..200 {
        fixture.write(format!("top/{i}.json"), number(i).repeat(1000));
    }
    let backend = Arc::new(Recording::default());
    let watched = watch(fixture, 1, Limits::DAEMON);
    let watched = Watched {
        synchronizer: watched.synchronizer.with_backend(Arc::clone(&backend) as Arc<dyn Backend>),
        ..watched
    };
    assert_eq!(watched.see(&["."]).len(), 203);
    let batches = std::mem::take(&mut *backend.0.lock().unwrap());
    assert_eq!(batches.iter().flatten().count(), 203);
    assert_eq!(batches[..3], [[400_000], [400_000], [400_000]]);
    let sums: Vec<usize> = batches[3..].iter().map(|batch| batch.iter().sum()).collect();
    assert_eq!(sums[0], 256_000, "not above 256 KiB");
    assert!(sums.is_sorted_by(|a, b| a >= b), "{sums:?}");
    assert_eq!(sums.last(), Some(&8_000));
}

#[test]
fn a_file_whose_parser_died_is_skipped_until_it_changes_and_one_without_a_parser_is_tried_again() {
    #[derive(Debug)]
    struct Failing;
    impl Backend for Failing {
        fn parse_batch(
            &self,
            batch: &[Source],
            _: &Limits,
            _: &dyn Fn() -> bool,
        ) -> Vec<Result<ParsedFile, SkipReason>> {
            let why = "a test".to_owned();
            let fail = |source: &Source| match source.text.trim() {
                "1" => Err(SkipReason::ParserDied { why: why.clone() }),
                _ => Err(SkipReason::ParserUnavailable { why: why.clone() }),
            };
            batch.iter().map(fail).collect()
        }
    }
    let watched = small();
    let watched =
        Watched { synchronizer: watched.synchronizer.with_backend(Arc::new(Failing)), ..watched };
    let seen = ["a.json:parser_died", "lib/b.json:parser_unavailable"];
    assert_eq!(watched.see(&["."]), seen);
    assert_eq!(watched.opened(), ["top/a.json", "top/lib/b.json"]);
    assert_eq!(watched.see(&["."]), seen);
    assert_eq!(watched.opened(), ["top/lib/b.json"]);
    rewrite(&watched.fixture.path("top/a.json"), "3\n", 1_000_000);
    assert_eq!(watched.see(&["a.json"]), ["a.json:parser_unavailable"]);
}
