//! What has changed since a revision, and revisions that nobody can go back to.

use crate::support::{Daemon, call, everything, open, pattern, refused, run, text};
use astscope_fixtures::Fixture;
use astscope_protocol::Client;
use astscope_protocol::messages::{ChangesParams, ChangesResult, ErrorCode, Revision, method};

fn ask(client: &mut Client, tree: &Fixture, since: Option<Revision>) -> ChangesResult {
    let path = text(&tree.root());
    call(client, method::CHANGES, &ChangesParams { path, since, deadline_ms: None })
}

#[test]
fn changes_are_those_of_the_bytes_on_the_disk_and_what_came_and_went_is_none() {
    let daemon = Daemon::start();
    let tree = Fixture::parse(
        "//- /a.js\nf(1)\n//- /b.js\nf(2)\n//- /lib/c.js\nf(3)\n//- /d.js\n//- /notes.txt\nx\n",
    );
    let mut client = daemon.client();
    let first = ask(&mut client, &tree, None);
    assert_eq!(first.root, text(&tree.root()));
    assert_eq!((first.added, first.changed, first.removed), (vec![], vec![], vec![]));
    let since = Some(first.revision);

    tree.write("a.js", "f(1)\n");
    tree.write("b.js", "f(4)\n");
    tree.remove("lib/c.js");
    tree.write("d.js", "f(5)\n");
    tree.write("new/e.js", "");
    tree.write("f.js", "f(6)\n");
    tree.write("notes.txt", "y\n");
    let second = ask(&mut client, &tree, since);
    assert_eq!(second.added, ["f.js", "new/e.js"], "one of them can't be parsed");
    assert_eq!(second.changed, ["b.js", "d.js"], "one of them couldn't be parsed");
    assert_eq!(second.removed, ["lib/c.js"]);
    assert!(second.revision.number > first.revision.number);

    tree.remove("f.js");
    tree.write("b.js", "f(2)\n");
    tree.write("lib/c.js", "f(7)\n");
    let third = ask(&mut client, &tree, since);
    assert_eq!((third.added, third.removed), (vec!["new/e.js".to_owned()], vec![]));
    assert_eq!(third.changed, ["d.js", "lib/c.js"]);
    let last = ask(&mut client, &tree, Some(second.revision));
    assert_eq!(last.added, ["lib/c.js"]);
    assert_eq!((last.changed, last.removed), (vec!["b.js".into()], vec!["f.js".into()]));
    // The revision of a query may be asked about as well.
    let seen = run(&mut client, &pattern(&tree, "js", "f($A)")).summary.revision;
    tree.write("a.js", "f(9)\n");
    assert_eq!(ask(&mut client, &tree, seen).changed, ["a.js"]);
}

#[test]
fn a_revision_that_nothing_is_known_of_is_refused_for_good() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut client = daemon.client();
    let Revision { epoch, number } = ask(&mut client, &tree, None).revision;
    for since in [
        // Files that were young when they were read are read, and committed, once more.
        Revision { epoch, number: number + 1000 },
        Revision { epoch: epoch - 1, number },
        Revision { epoch: epoch + 1, number: 0 },
    ] {
        let path = text(&tree.root());
        let params = ChangesParams { path, since: Some(since), deadline_ms: None };
        let error = refused(&mut client, method::CHANGES, &params);
        assert_eq!(error.error_code(), Some(ErrorCode::HistoryGone), "{error}");
        let data = error.data.unwrap();
        let oldest = format!("{epoch}.0");
        assert!(!data.retryable && data.help.is_some_and(|help| help.contains(&oldest)));
    }
}

#[test]
fn a_path_that_is_in_no_workspace_and_a_deadline_that_has_passed_are_refused() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /.git/HEAD\n\n//- /lib/a.js\nf(1)\n");
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    let mut params = ChangesParams { path: text(&tree.path("lib/a.js")), ..Default::default() };
    let inside: ChangesResult = call(&mut client, method::CHANGES, &params);
    assert_eq!(inside.root, everything(&tree).cwd);
    for (path, code) in [
        ("lib".to_owned(), ErrorCode::InvalidParams),
        (text(&tree.path("gone")), ErrorCode::PathNotFound),
        ("/".to_owned(), ErrorCode::RootRefused),
    ] {
        let error =
            refused(&mut client, method::CHANGES, &ChangesParams { path, ..params.clone() });
        assert_eq!(error.error_code(), Some(code), "{error}");
    }
    params.deadline_ms = Some(0);
    let error = refused(&mut client, method::CHANGES, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::DeadlineExceeded), "{error}");
}
