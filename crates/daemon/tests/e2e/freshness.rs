//! No answer is stale: each query sees what was written before it was asked.

use crate::support::{Daemon, call, open, pattern, refused, run, text};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{ErrorCode, SyncAction, SyncParams, WorkspaceStatus, method};
use std::fs;

#[test]
fn an_edit_of_the_same_length_is_seen_at_once() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(0)\n//- /b.js\ng()\n");
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    let mut revision = None;
    for i in 0..100 {
        tree.write("a.js", format!("f({})\n", i % 10));
        let found = run(&mut client, &pattern(&tree, "js", "f($A)"));
        assert_eq!(found.shown(), [format!("a.js:1:1 f({})", i % 10)]);
        let now = found.summary.revision.map(|revision| revision.number);
        assert!(now >= revision, "revisions only grow");
        revision = now;
    }
}

#[test]
fn a_file_that_was_deleted_is_gone_and_a_new_one_is_found() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /lib/b.js\nf(2)\n");
    let mut client = daemon.client();
    let mut shown = || run(&mut client, &pattern(&tree, "js", "f($A)")).shown();
    assert_eq!(shown(), ["a.js:1:1 f(1)", "lib/b.js:1:1 f(2)"]);
    tree.remove("a.js");
    assert_eq!(shown(), ["lib/b.js:1:1 f(2)"]);
    tree.write("new/c.js", "f(3)\n");
    assert_eq!(shown(), ["lib/b.js:1:1 f(2)", "new/c.js:1:1 f(3)"]);
    tree.remove("lib");
    assert_eq!(shown(), ["new/c.js:1:1 f(3)"]);
    tree.write("a.js", "f(4)\n");
    assert_eq!(shown(), ["a.js:1:1 f(4)", "new/c.js:1:1 f(3)"]);
}

#[test]
fn a_renamed_file_and_a_replaced_one_are_found_under_their_new_names() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.js\nf(2)\n");
    let mut client = daemon.client();
    let mut shown = || run(&mut client, &pattern(&tree, "js", "f($A)")).shown();
    assert_eq!(shown(), ["a.js:1:1 f(1)", "b.js:1:1 f(2)"]);
    fs::rename(tree.path("a.js"), tree.path("c.js")).unwrap();
    assert_eq!(shown(), ["b.js:1:1 f(2)", "c.js:1:1 f(1)"]);
    fs::rename(tree.path("c.js"), tree.path("b.js")).unwrap();
    assert_eq!(shown(), ["b.js:1:1 f(1)"]);
    fs::rename(tree.path("b.js"), tree.path("b.py")).unwrap();
    assert_eq!(shown(), [""; 0]);
    let found = run(&mut client, &pattern(&tree, "py", "f($A)"));
    assert_eq!(found.shown(), ["b.py:1:1 f(1)"]);
}

#[test]
fn ignore_rules_apply_as_they_are_now() {
    let daemon = Daemon::start();
    let tree = Fixture::parse(
        "//- /.git/HEAD\nref: refs/heads/main\n//- /.gitignore\n/out\n//- /a.js\nf(1)\n",
    );
    let mut client = daemon.client();
    let mut shown = || run(&mut client, &pattern(&tree, "js", "f($A)")).shown();
    assert_eq!(shown(), ["a.js:1:1 f(1)"]);
    tree.write("out/b.js", "f(2)\n");
    tree.write(".hidden/c.js", "f(3)\n");
    assert_eq!(shown(), ["a.js:1:1 f(1)"], "new files, but ignored ones");
    tree.write(".gitignore", "/a.js\n");
    assert_eq!(shown(), ["out/b.js:1:1 f(2)"]);
    tree.remove(".gitignore");
    assert_eq!(shown(), ["a.js:1:1 f(1)", "out/b.js:1:1 f(2)"]);
}

#[test]
fn a_file_that_could_not_be_parsed_is_matched_once_it_can() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\n");
    let mut client = daemon.client();
    let params = pattern(&tree, "js", "f($A)");
    assert_eq!(run(&mut client, &params).skipped(), [("a.js", "empty")]);
    tree.write("a.js", b"f(1)\xff");
    assert_eq!(run(&mut client, &params).skipped(), [("a.js", "not_utf8")]);
    tree.write("a.js", "f(1)!");
    let found = run(&mut client, &params);
    assert_eq!((found.shown(), found.skipped()), (vec!["a.js:1:1 f(1)".to_owned()], vec![]));
}

#[test]
fn text_and_matches_of_one_item_are_of_one_version() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(0)\n");
    let path = tree.path("a.js");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.delivery.include_source = true;
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        scope.spawn(move || {
            let mut i = 0_u32;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                i += 1;
                // By rename, so that each version is complete.
                let next = path.with_extension("next");
                fs::write(&next, format!("{}f({i})\n", " ".repeat(i as usize % 50))).unwrap();
                fs::rename(&next, &path).unwrap();
            }
        });
        let mut n_items = 0;
        for _ in 0..100 {
            let found = run(&mut client, &params);
            for (item, record) in found.items.iter().zip(found.records()) {
                let source = item.source.as_deref().unwrap();
                let at = record.range.byte_offset;
                let range = usize::try_from(at.start).unwrap()..usize::try_from(at.end).unwrap();
                assert_eq!(Some(&source[range]), record.text.as_deref());
                assert_eq!(Some(source.trim()), record.text.as_deref());
                n_items += 1;
            }
        }
        drop(stop);
        assert!(n_items > 0);
    });
}

#[test]
fn who_does_not_wait_gets_the_old_version_and_is_told_so() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    // Nobody reads it unasked.
    let pause =
        SyncParams { path: text(&tree.root()), action: SyncAction::Pause, deadline_ms: None };
    let _paused: WorkspaceStatus = call(&mut client, method::SYNC, &pause);
    tree.write("a.js", "f(20)\n");
    tree.write("b.js", "f(3)\n");
    let mut params = pattern(&tree, "js", "f($A)");
    for (no_wait, wait_ms) in [(true, None), (false, Some(0)), (true, Some(0))] {
        (params.delivery.no_wait, params.delivery.wait_ms) = (no_wait, wait_ms);
        let found = run(&mut client, &params);
        assert_eq!(found.shown(), ["a.js:1:1 f(1)"]);
        assert_eq!((found.summary.files_selected, found.summary.files_pending), (2, 1));
        let freshness = found.summary.freshness.unwrap();
        assert_eq!((&*freshness.state, freshness.files), ("lagging", 1));
        assert_eq!((freshness.paths, freshness.names_unknown), (vec!["a.js".to_owned()], false));
    }
    (params.delivery.no_wait, params.delivery.wait_ms) = (false, Some(60_000));
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["a.js:1:1 f(20)", "b.js:1:1 f(3)"]);
    assert_eq!(found.summary.freshness, None);
    params.delivery.no_wait = true;
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "both, and they differ");
    (params.delivery.no_wait, params.delivery.wait_ms) = (false, Some(3_600_001));
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams));
}
