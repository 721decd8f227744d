//! Which root serves what, and what `status` says of it.

use crate::support::{Daemon, open, pattern, run, status, text};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::OpenOutcome;

fn roots(daemon: &Daemon) -> Vec<String> {
    let workspaces = status(&mut daemon.client()).workspaces;
    workspaces.into_iter().map(|workspace| workspace.root).collect()
}

fn nested() -> Fixture {
    Fixture::parse("//- /a.js\nf(1)\n//- /inner/b.js\nf(2)\n//- /inner/deep/c.js\nf(3)\n")
}

#[test]
fn a_root_around_others_absorbs_them() {
    let daemon = Daemon::start();
    let tree = nested();
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.cwd = text(&tree.path("inner/deep"));
    assert_eq!(run(&mut client, &params).shown(), ["c.js:1:1 f(3)"]);
    assert_eq!(roots(&daemon), [text(&tree.path("inner/deep"))]);
    open(&mut client, &tree.root());
    assert_eq!(roots(&daemon), [text(&tree.root())]);
    assert_eq!(run(&mut client, &params).shown(), ["c.js:1:1 f(3)"]);
    params.selection.cwd = text(&tree.root());
    assert_eq!(run(&mut client, &params).summary.matches, 3);
    open(&mut client, &tree.path("inner"));
    assert_eq!(roots(&daemon), [text(&tree.root())], "an open root serves what is in it");
}

#[test]
fn a_checkout_is_one_root_from_wherever_it_is_searched() {
    let daemon = Daemon::start();
    let tree = nested();
    tree.write(".git/HEAD", "ref: refs/heads/main\n");
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.cwd = text(&tree.path("inner/deep"));
    let mut client = daemon.client();
    assert_eq!(run(&mut client, &params).shown(), ["c.js:1:1 f(3)"]);
    params.selection.paths = vec!["../b.js".to_owned(), "../../a.js".to_owned()];
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["../../a.js:1:1 f(1)", "../b.js:1:1 f(2)"]);
    assert!(found.summary.revision.is_some());
    assert_eq!(roots(&daemon), [text(&tree.root())]);
}

#[test]
fn paths_in_two_roots_are_answered_together_without_a_revision() {
    let daemon = Daemon::start();
    let (one, two) = (Fixture::parse("//- /a.js\nf(1)\n"), Fixture::parse("//- /b.js\nf(2)\n"));
    let mut params = pattern(&one, "js", "f($A)");
    params.selection.paths = vec![".".to_owned(), text(&two.root())];
    let found = run(&mut daemon.client(), &params);
    let mut shown = found.shown();
    shown.sort();
    let other = format!("{}:1:1 f(2)", text(&two.path("b.js")));
    assert_eq!(shown, [other, "a.js:1:1 f(1)".to_owned()]);
    assert_eq!(found.summary.revision, None);
    assert_eq!(roots(&daemon).len(), 2);
}

#[test]
fn the_whole_disk_is_no_root_and_is_answered_without_an_index() {
    let daemon = Daemon::start();
    let tree = Fixture::empty();
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.cwd = "/".to_owned();
    // Nothing below it, so that this takes no longer than a look.
    params.selection.globs = vec!["!*".to_owned()];
    let found = run(&mut daemon.client(), &params);
    assert_eq!((found.summary.revision, found.summary.files_selected), (None, 0));
    assert_eq!(roots(&daemon), [""; 0]);
}

#[test]
fn a_root_reached_through_a_link_is_the_same_root() {
    let daemon = Daemon::start();
    let tree = nested();
    let elsewhere = Fixture::empty();
    std::os::unix::fs::symlink(tree.root(), elsewhere.path("link")).unwrap();
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.cwd = text(&elsewhere.path("link"));
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["a.js:1:1 f(1)", "inner/b.js:1:1 f(2)", "inner/deep/c.js:1:1 f(3)"]);
    assert_eq!(roots(&daemon), [text(&tree.root())]);
}

#[test]
fn roots_named_at_the_start_are_open_and_status_counts_them() {
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.py\nf(2)\n//- /c.js\n//- /d.unknown\nx\n");
    let daemon = Daemon::start_with(|config| config.roots = vec![tree.root()]);
    let mut client = daemon.client();
    assert_eq!(roots(&daemon), [text(&tree.root())]);
    let opened = open(&mut client, &tree.root());
    assert_eq!((opened.files_parsed, opened.source_bytes), (2, 10));
    assert_eq!(opened.outcome, Some(OpenOutcome::AstLayerStarted));
    let now = status(&mut client);
    let workspace = &now.workspaces[0];
    assert_eq!((&*workspace.watcher.state, workspace.outcome), ("native", None));
    assert_eq!(workspace.watcher.directories, 1);
    let languages: Vec<_> = workspace.languages.iter().map(|(name, n)| (&**name, *n)).collect();
    assert_eq!(languages, [("JavaScript", 1), ("Python", 1)]);
    let skipped = &workspace.skipped_files;
    assert_eq!((skipped.len(), &*skipped[0].reason), (1, "empty"));
    assert_eq!(skipped[0].path, text(&tree.path("c.js")));
    assert!(workspace.nodes > 0 && workspace.tree_bytes > 0);
    assert!(workspace.revision.epoch > 0 && workspace.revision.number > 0);
    assert_eq!(now.pid, std::process::id());
    assert_eq!(now.server.version, "1.2.3");
    assert_eq!(now.idle_exit_seconds, None);
    assert_eq!(now.memory.text, 10);
    assert_eq!(now.socket, text(&daemon.socket()));
}

#[test]
fn a_root_that_was_removed_is_empty_and_back_when_it_is_back() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /project/a.js\nf(1)\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.paths = vec!["project".to_owned()];
    assert_eq!(run(&mut client, &params).shown(), ["project/a.js:1:1 f(1)"]);
    tree.remove("project");
    let found = run(&mut client, &params);
    assert_eq!((found.shown().len(), found.skipped()), (0, vec![("project", "unreadable")]));
    tree.write("project/b.js", "f(2)\n");
    assert_eq!(run(&mut client, &params).shown(), ["project/b.js:1:1 f(2)"]);
}
