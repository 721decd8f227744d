//! Files that are not what a parser hopes for: each is matched as ast-grep 0.51.1 matches it, or
//! skipped with the reason. The expected positions are those that it printed.

use crate::support::{Daemon, everything, open, pattern, refused, run, status};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{ErrorCode, ParseParams, method};
use std::os::unix::fs::{PermissionsExt, symlink};

/// Matches of `f($A)` in one file, and how it was skipped if it was.
#[track_caller]
fn check(name: &str, content: &[u8], matches: &[&str], skipped: Option<&str>) {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /good.js\nf(0)\n");
    tree.write(name, content);
    let mut client = daemon.client();
    // Twice: what was skipped once is known then.
    for _ in 0..2 {
        let found = run(&mut client, &pattern(&tree, "js", "f($A)"));
        let expected: Vec<_> = matches.iter().copied().chain(["good.js:1:1 f(0)"]).collect();
        assert_eq!(found.shown(), expected);
        let expected: Vec<_> = skipped.iter().map(|reason| (name, *reason)).collect();
        assert_eq!(found.skipped(), expected);
        assert_eq!(found.summary.files_selected, 2 - expected.len() as u64);
    }
    open(&mut client, &tree.root());
    let workspaces = status(&mut client).workspaces;
    let counted: Vec<_> = workspaces[0].skipped.iter().map(|(code, n)| (&**code, *n)).collect();
    let expected: Vec<_> = skipped.iter().map(|reason| (*reason, 1)).collect();
    assert_eq!(counted, expected);
    assert_eq!(workspaces[0].skipped_files.len(), expected.len());
    assert_eq!(workspaces[0].files_seen, 2);
}

#[test]
fn a_file_that_is_not_utf8_is_skipped() {
    check("a.js", b"f(5) // caf\xe9\n", &[], Some("not_utf8"));
    check("a.js", b"\xff\xfef\0(\x001\0)\0", &[], Some("not_utf8"));
}

#[test]
fn an_empty_file_is_skipped() {
    check("a.js", b"", &[], Some("empty"));
}

#[test]
fn blank_lines_alone_are_a_file_without_matches() {
    check("a.js", b"\n\n", &[], None);
}

#[test]
fn nul_bytes_are_text_like_any_other() {
    check(
        "a.js",
        b"f(6);\n\"a\0b\";\nf(7); f(8)\n",
        &["a.js:1:1 f(6)", "a.js:3:1 f(7)", "a.js:3:7 f(8)"],
        None,
    );
    check("a.js", b"\0\0", &[], None);
}

#[test]
fn a_byte_order_mark_is_one_column() {
    check("a.js", b"\xef\xbb\xbff(1);\nf(2)\n", &["a.js:1:2 f(1)", "a.js:2:1 f(2)"], None);
}

#[test]
fn crlf_belongs_to_its_line() {
    check("a.js", b"let a = 1;\r\n  f(3);\r\nf(4)\r\n", &["a.js:2:3 f(3)", "a.js:3:1 f(4)"], None);
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nlet a = 1;\r\n  f(3);\r\nf(4)\r\n");
    let records = run(&mut daemon.client(), &pattern(&tree, "js", "f($A)")).records();
    assert_eq!(records[0].lines, "  f(3);\r");
    assert_eq!((records[0].char_count.leading, records[0].char_count.trailing), (2, 2));
    assert_eq!((records[1].range.byte_offset.start, records[1].range.byte_offset.end), (21, 25));
}

#[test]
fn columns_in_a_minified_file_are_characters() {
    let source = format!("\"é𝄞\";{}f(9);{}", "g(0);".repeat(1000), "g(0);".repeat(10));
    check("a.js", source.as_bytes(), &["a.js:1:5006 f(9)"], None);
    let daemon = Daemon::start();
    let tree = Fixture::empty();
    tree.write("a.js", &source);
    let records = run(&mut daemon.client(), &pattern(&tree, "js", "f($A)")).records();
    assert_eq!(records[0].range.byte_offset.start, 5009);
    assert_eq!(records[0].lines, source);
    assert_eq!((records[0].char_count.leading, records[0].char_count.trailing), (5005, 51));
}

#[test]
fn a_line_of_30_mib_is_searched_and_arrives_whole() {
    let daemon = Daemon::start();
    let tree = Fixture::empty();
    let source = format!("{{\"a\": 1, \"pad\": \"é{}\", \"b\": 1}}", "x".repeat(30 << 20));
    tree.write("a.json", &source);
    let mut client = daemon.client();
    let mut params = pattern(&tree, "json", "1");
    params.delivery.files_only = true;
    let found = run(&mut client, &params);
    assert_eq!((found.summary.matches, found.files()), (1, vec!["a.json"]));
    assert_eq!(found.skipped(), []);
    // A record holds the whole line, which is more than one line of the protocol can be.
    let mut params = pattern(&tree, "json", "\"b\": 1");
    params.matcher.selector = Some("pair".to_owned());
    params.matcher.pattern = Some("{\"b\": 1}".to_owned());
    let found = run(&mut client, &params);
    let records = found.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].lines, source);
    let n_chars = source.chars().count();
    assert_eq!(records[0].range.start.column as usize, n_chars - 7);
    assert_eq!(records[0].char_count.leading, n_chars as u64 - 7);
}

#[test]
fn a_file_beyond_ast_greps_size_is_skipped_and_one_of_long_lines_is_not() {
    let many_lines = "f(1)      //  \n".repeat(200_100);
    check("a.js", many_lines.as_bytes(), &[], Some("too_large"));
    let comment = format!("/*{}*/ f(2)\n", "x".repeat(3_100_000));
    check("a.js", comment.as_bytes(), &["a.js:1:3100006 f(2)"], None);
}

#[test]
fn a_file_that_may_not_be_read_is_reported() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /closed.js\nf(2)\n");
    let closed = tree.path("closed.js");
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    let found = run(&mut daemon.client(), &pattern(&tree, "js", "f($A)"));
    if std::fs::read(&closed).is_ok() {
        // The superuser may read everything.
        assert_eq!(found.shown(), ["a.js:1:1 f(1)", "closed.js:1:1 f(2)"]);
    } else {
        assert_eq!(found.shown(), ["a.js:1:1 f(1)"]);
        assert_eq!(found.skipped(), [("closed.js", "unreadable")]);
    }
}

#[test]
fn a_link_to_itself_and_a_link_to_nothing_are_reported_when_named() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    symlink(tree.path("loop.js"), tree.path("loop.js")).unwrap();
    symlink(tree.path("nothing.js"), tree.path("gone.js")).unwrap();
    let mut client = daemon.client();
    let found = run(&mut client, &pattern(&tree, "js", "f($A)"));
    assert_eq!(found.shown(), ["a.js:1:1 f(1)"], "a walk passes links by");
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.paths = ["loop.js", "a.js", "gone.js"].map(str::to_owned).to_vec();
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["a.js:1:1 f(1)"]);
    assert_eq!(found.skipped(), [("gone.js", "unreadable"), ("loop.js", "unreadable")]);
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /dir.js/b.js\nf(2)\n");
    let made = std::process::Command::new("mkfifo").arg(tree.path("fifo.js")).status();
    assert!(made.is_ok_and(|status| status.success()), "coreutils are there");
    let found = run(&mut daemon.client(), &pattern(&tree, "js", "f($A)"));
    assert_eq!(found.shown(), ["a.js:1:1 f(1)", "dir.js/b.js:1:1 f(2)"]);
}

#[test]
fn a_path_that_does_not_exist_is_reported_beside_the_matches_of_the_others() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /lib/a.js\nf(1)\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection.paths = ["gone", "lib", "lib/gone.js"].map(str::to_owned).to_vec();
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["lib/a.js:1:1 f(1)"]);
    assert_eq!(found.skipped(), [("gone", "unreadable"), ("lib/gone.js", "unreadable")]);
    assert!(found.summary.skipped[0].detail.contains("No such file"), "{:?}", found.summary);
}

#[test]
fn parse_says_why_a_file_has_no_tree() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /empty.js\n//- /notes.unknown\nx\n");
    tree.write("latin.js", b"caf\xe9");
    let mut client = daemon.client();
    let mut parse = |path: &str| {
        let params = ParseParams {
            cwd: everything(&tree).cwd,
            path: Some(path.to_owned()),
            ..ParseParams::default()
        };
        let error = refused(&mut client, method::PARSE, &params);
        (error.error_code().unwrap(), error.message)
    };
    let file_skipped = |message: &str| (ErrorCode::FileSkipped, message.to_owned());
    assert_eq!(parse("empty.js"), file_skipped("cannot parse empty.js: the file is empty"));
    assert_eq!(parse("latin.js"), file_skipped("cannot parse latin.js: not UTF-8 from byte 3"));
    assert_eq!(parse("gone.js").0, ErrorCode::PathNotFound);
    assert_eq!(parse("notes.unknown").0, ErrorCode::InvalidParams);
}
