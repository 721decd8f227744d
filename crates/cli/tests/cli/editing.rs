//! `-U` and `-i`: what is written, what is asked, and what is left alone.

use crate::support::{Fake, Session};
use std::fs;
use std::path::Path;

const SOURCE: &str = "f(1)\nf(f(2))\ng()\n";

/// A rewrite of `f($A)` to `h($A)`, as ast-grep reports it: outer and inner calls alike.
fn matches(file: &str) -> String {
    let record = |text: &str, line: usize, start: usize, replacement: &str| {
        let end = start + text.len();
        let column = start - SOURCE[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let end_column = column + text.len();
        let lines = SOURCE.lines().nth(line).unwrap();
        let trailing = lines.len() - end_column;
        format!(
            r#"{{"text":"{text}","range":{{"byteOffset":{{"start":{start},"end":{end}}},"start":{{"line":{line},"column":{column}}},"end":{{"line":{line},"column":{end_column}}}}},"file":"{file}","lines":"{lines}","charCount":{{"leading":{column},"trailing":{trailing}}},"replacement":"{replacement}","replacementOffsets":{{"start":{start},"end":{end}}},"language":"JavaScript"}}"#
        )
    };
    format!(
        "[{},{},{}]",
        record("f(1)", 0, 0, "h(1)"),
        record("f(f(2))", 1, 5, "h(f(2))"),
        record("f(2)", 1, 7, "h(2)")
    )
}

fn project() -> (tempfile::TempDir, Fake) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.js"), SOURCE).unwrap();
    fs::write(dir.path().join("sgconfig.yml"), "ruleDirs: []").unwrap();
    let fake = Fake::with_matches(&matches("a.js"), dir.path());
    (dir, fake)
}

fn text(dir: &Path) -> String {
    fs::read_to_string(dir.join("a.js")).unwrap()
}

const UPDATE: [&str; 6] = ["run", "-p", "f($A)", "-r", "h($A)", "-U"];
const ASK: [&str; 6] = ["run", "-p", "f($A)", "-r", "h($A)", "-i"];

#[test]
fn update_all_writes_what_does_not_overlap() {
    let (dir, mut backend) = project();
    let output = Session::new(dir.path()).run(&mut backend, &UPDATE);
    assert_eq!((output.code, output.out.as_str()), (0, ""));
    assert_eq!(output.err, "Applied 2 changes\n");
    assert_eq!(text(dir.path()), "h(1)\nh(f(2))\ng()\n");
    assert!(!backend.run.unwrap().delivery.include_source, "the file is read from the disk");
}

#[test]
fn a_file_that_changed_is_skipped_and_reported() {
    let (dir, mut backend) = project();
    fs::write(dir.path().join("a.js"), "f(1) // mine\n").unwrap();
    let output = Session::new(dir.path()).run(&mut backend, &UPDATE);
    assert_eq!(output.code, 6);
    assert!(output.err.contains("a.js"), "{}", output.err);
    assert!(output.err.contains("changed since it was searched"), "{}", output.err);
    assert_eq!(text(dir.path()), "f(1) // mine\n");
}

#[test]
fn a_file_that_is_reached_twice_is_written_once() {
    let (dir, mut backend) = project();
    let again = Fake::with_matches(&matches("./a.js"), dir.path());
    backend.items.extend(again.items);
    let output = Session::new(dir.path()).run(&mut backend, &UPDATE);
    assert_eq!((output.code, output.err.as_str()), (0, "Applied 2 changes\n"));
}

#[test]
fn a_rewrite_of_standard_input_is_printed() {
    let (dir, mut backend) = project();
    backend.items[0].file = "STDIN".to_owned();
    let mut session = Session::new(dir.path());
    session.input = SOURCE.to_owned();
    let mut arguments = UPDATE.to_vec();
    arguments.extend(["--stdin", "-l", "js"]);
    let output = session.run(&mut backend, &arguments);
    assert_eq!((output.code, output.out.as_str()), (0, "h(1)\nh(f(2))\ng()\n\n"));
    assert_eq!(text(dir.path()), SOURCE);
}

#[test]
fn with_json_nothing_is_written() {
    let (dir, mut backend) = project();
    let mut arguments = UPDATE.to_vec();
    arguments.push("--json=stream");
    let output = Session::new(dir.path()).run(&mut backend, &arguments);
    assert_eq!((output.code, output.out.lines().count()), (0, 3));
    assert_eq!(text(dir.path()), SOURCE);
}

#[test]
fn each_edit_is_asked_about() {
    let (dir, mut backend) = project();
    let mut session = Session::new(dir.path());
    // An unknown key, no to the first; yes to the outer call, which settles the inner one.
    session.keys = "zny";
    let output = session.run(&mut backend, &ASK);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(output.err, "Unrecognized command, try again?\nApplied 1 changes\n");
    assert_eq!(output.out.matches("Accept?").count(), 3);
    assert_eq!(text(dir.path()), "f(1)\nh(f(2))\ng()\n");
}

#[test]
fn an_outer_edit_that_is_refused_leaves_the_inner_one() {
    let (dir, mut backend) = project();
    let mut session = Session::new(dir.path());
    session.keys = "nn\n";
    session.run(&mut backend, &ASK);
    assert_eq!(text(dir.path()), "f(1)\nf(h(2))\ng()\n");
}

#[test]
fn all_accepts_the_rest() {
    let (dir, mut backend) = project();
    let mut session = Session::new(dir.path());
    session.keys = "a";
    let output = session.run(&mut backend, &ASK);
    assert_eq!(output.err, "Applied 2 changes\n");
    assert_eq!(text(dir.path()), "h(1)\nh(f(2))\ng()\n");
}

#[test]
fn quitting_keeps_what_was_accepted() {
    let (dir, mut backend) = project();
    let mut session = Session::new(dir.path());
    session.keys = "yq";
    let output = session.run(&mut backend, &ASK);
    assert_eq!(output.code, 0);
    assert!(output.err.starts_with("Warning: Interactive editing exited."), "{}", output.err);
    assert_eq!(text(dir.path()), "h(1)\nf(f(2))\ng()\n");
}

#[test]
fn without_a_terminal_there_is_no_dialogue() {
    let (dir, mut backend) = project();
    let output = Session::new(dir.path()).run(&mut backend, &ASK);
    assert_eq!(output.code, 7, "{}", output.err);
    assert_eq!(text(dir.path()), SOURCE);
    assert!(output.out.ends_with("\x1b[?1049l"), "the terminal's first screen is back");
}

/// A scan's finding: an error, with or without a fix.
fn finding(fix: Option<&str>) -> String {
    let fix = fix.map_or_else(String::new, |fix| {
        format!(r#""replacement":"{fix}","replacementOffsets":{{"start":0,"end":4}},"#)
    });
    let range = r#"{"byteOffset":{"start":0,"end":4},"start":{"line":0,"column":0},"end":{"line":0,"column":4}}"#;
    format!(
        r#"[{{"text":"f(1)","range":{range},"file":"a.js","lines":"f(1)","charCount":{{"leading":0,"trailing":0}},{fix}"language":"JavaScript","ruleId":"no-f","severity":"error","note":null,"message":"no f","labels":[{{"text":"f(1)","range":{range},"style":"primary"}}]}}]"#
    )
}

#[test]
fn a_scan_applies_fixes_and_counts_only_errors_that_stay() {
    let (dir, _) = project();
    let session = Session::new(dir.path());
    let mut fixable = Fake::with_matches(&finding(Some("h(1)")), dir.path());
    let output = session.run(&mut fixable, &["scan", "-U"]);
    assert_eq!((output.code, output.err.as_str()), (0, "Applied 1 changes\n"));
    assert_eq!(text(dir.path()), "h(1)\nf(f(2))\ng()\n");

    let mut unfixable = Fake::with_matches(&finding(None), dir.path());
    let output = session.run(&mut unfixable, &["scan", "-U"]);
    assert_eq!(output.code, 1);
    assert!(output.out.contains("error[no-f]: no f"), "{}", output.out);
    assert!(output.err.contains("1 error(s) found in code."), "{}", output.err);
}

#[test]
fn tab_switches_between_the_fixes_of_a_rule() {
    let (dir, _) = project();
    let mut backend = Fake::with_matches(&finding(Some("h(1)")), dir.path());
    let found = backend.items[0].matches.iter().next().unwrap();
    let fixes = r#","fixes":[{"replacement":"h(1)","range":{"start":0,"end":4},"title":"call h"},{"replacement":"i(1)","range":{"start":0,"end":4},"title":"call i"}]}"#;
    let with_fixes = format!("[{}{fixes}]", found.strip_suffix('}').unwrap());
    backend.items[0].matches = serde_json::from_str(&with_fixes).unwrap();
    let mut session = Session::new(dir.path());
    session.keys = "\ty";
    let output = session.run(&mut backend, &["scan", "-i"]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert!(output.out.contains("⇥ call i"), "{}", output.out);
    assert!(text(dir.path()).starts_with("i(1)"));
}
