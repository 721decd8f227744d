//! `watch`: what it prints of what it is told, and the real thing on a real tree.

use crate::process::program;
use crate::serve::Serving;
use crate::support::{Fake, Output, Session};
use astscope_cli::Told;
use astscope_protocol::client::News;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    Difference, ErrorCode, Matches, Resync, ResyncReason, Revision, Settled, SubscribeResult,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

fn found(line: u32, lines: &str) -> serde_json::Value {
    let at = serde_json::json!({"line": line, "column": 0});
    serde_json::json!({
        "range": {"byteOffset": {"start": 0, "end": 1}, "start": at, "end": at},
        "file": "a.js",
        "lines": lines,
    })
}

fn matches(all: &[serde_json::Value]) -> Matches {
    let mut matches = Matches::default();
    for found in all {
        matches.push(found).unwrap();
    }
    matches
}

fn resync(reason: ResyncReason) -> Told {
    Told::News(News::Resync(Resync { subscription: 1, reason }))
}

fn difference(file: &str, gone: &[serde_json::Value], new: &[serde_json::Value]) -> Told {
    Told::News(News::Difference(Difference {
        subscription: 1,
        file: file.to_owned(),
        content_id: Some("ab".to_owned()),
        disappeared: matches(gone),
        appeared: matches(new),
    }))
}

fn settled(number: u64) -> Told {
    let revision = Revision { epoch: 7, number };
    Told::News(News::Settled(Settled { subscription: 1, revision }))
}

fn begun() -> Told {
    Told::Begun(SubscribeResult { hints: vec!["mind".to_owned()], ..SubscribeResult::default() })
}

/// A daemon that tells some matches, what becomes of them, and then everything anew.
fn telling() -> Fake {
    let (one, two) = (found(0, "  f(1) // x"), found(4, "f(2)\n  .g()"));
    let told = vec![
        begun(),
        resync(ResyncReason::Initial),
        difference("a.js", &[], &[one.clone(), two.clone()]),
        settled(1),
        difference("a.js", &[one], &[found(1, "f(1)")]),
        difference("b.js", &[], &[found(0, "f(3)")]),
        settled(2),
        begun(),
        resync(ResyncReason::Slow),
        difference("a.js", &[], &[two]),
        difference("c.js", &[], &[found(8, "f(4)")]),
        settled(3),
    ];
    Fake { told, ..Fake::default() }
}

fn run(backend: &mut Fake, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("sgconfig.yml"), "ruleDirs: []").unwrap();
    Session::new(dir.path()).run(backend, arguments)
}

#[test]
fn each_match_is_a_line_and_what_is_told_anew_is_printed_once() {
    let mut backend = telling();
    let output = run(&mut backend, &["watch", "-p", "f($A)", "-l", "js", "src"]);
    let initial = "+ a.js:1: f(1) // x\n+ a.js:5: f(2)\n";
    let later = "- a.js:1: f(1) // x\n+ a.js:2: f(1)\n+ b.js:1: f(3)\n\
                 - b.js:1: f(3)\n- a.js:2: f(1)\n+ c.js:9: f(4)\n";
    assert_eq!((output.code, output.out), (0, format!("{initial}{later}")));
    assert_eq!(output.err, "Hint: mind\n");
    let asked = backend.subscribe.unwrap();
    assert_eq!(asked.run.matcher.pattern.as_deref(), Some("f($A)"));
    assert_eq!(asked.run.selection.paths, ["src"]);
    assert!(asked.run.delivery.brief && !asked.no_initial);

    let arguments = ["watch", "-p", "f($A)", "--no-initial"];
    assert_eq!(run(&mut telling(), &arguments).out, later);
    let colored = run(&mut telling(), &["watch", "-p", "f", "--color", "always"]).out;
    assert!(colored.contains("\u{1b}[38;5;35m+ a.js:1: f(1) // x\u{1b}[0m\n"), "{colored}");
}

#[test]
fn rules_are_asked_for_as_by_a_scan_and_named_before_the_text() {
    let mut backend = telling();
    let of_rule = |mut found: serde_json::Value| {
        found["ruleId"] = "no-f".into();
        found
    };
    backend.told = vec![
        begun(),
        resync(ResyncReason::Initial),
        difference("a.js", &[], &[of_rule(found(0, "  f(1) // x"))]),
        settled(1),
    ];
    let rule = "{id: no-f, language: js, rule: {pattern: f($A)}}";
    let output = run(&mut backend, &["watch", "--inline-rules", rule, "src"]);
    assert_eq!((output.code, output.out.as_str()), (0, "+ a.js:1: [no-f] f(1) // x\n"));
    let asked = backend.subscribe.unwrap().scan.unwrap();
    assert_eq!((asked.rules.len(), asked.rules[0].yaml.as_str()), (1, rule));
    assert_eq!(asked.selection.paths, ["src"]);
    assert!(asked.delivery.brief && !asked.project_dir.is_empty());
    let neither = run(&mut telling(), &["watch", "src"]);
    assert!(neither.code == 2 && neither.err.contains("--rule"), "{neither:?}");
    let both = run(&mut telling(), &["watch", "-p", "f", "--inline-rules", rule]);
    assert_eq!(both.code, 2, "{both:?}");
    let missing = run(&mut telling(), &["watch", "-r", "missing.yml"]);
    assert!(missing.code != 0 && missing.err.contains("missing.yml"), "{missing:?}");
}

#[test]
fn json_is_an_object_a_line_and_says_when_it_is_whole() {
    let output = run(&mut telling(), &["watch", "-p", "f($A)", "--json"]);
    let lines: Vec<serde_json::Value> =
        output.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    let (new, gone, whole) = ("appeared", "disappeared", "settled");
    assert_eq!(kinds, [new, new, whole, gone, new, new, whole, gone, gone, new, whole]);
    assert_eq!(lines[0]["match"], found(0, "  f(1) // x"));
    assert_eq!(lines[2]["revision"], serde_json::json!({"epoch": 7, "number": 1}));
}

#[test]
fn what_ends_it_is_told_and_standard_input_is_refused() {
    let error = RpcError::new(ErrorCode::TooManyMatches, "more than enough");
    let mut backend = Fake { error: Some(error), ..telling() };
    let output = run(&mut backend, &["watch", "-p", "f"]);
    assert_eq!(output.code, 8, "{output:?}");
    assert!(output.out.starts_with("+ a.js:1") && output.err.contains("more than enough"));
    for refused in ["--stdin", "--no-wait"] {
        let output = run(&mut telling(), &["watch", "-p", "f", refused]);
        assert_eq!((output.code, output.out.as_str()), (2, ""), "{refused}");
    }
}

/// How long a line may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program that watches, and what it prints.
struct Watching {
    child: Child,
    lines: Receiver<String>,
}

impl Watching {
    fn start(serving: &Serving) -> Self {
        let mut command = program(serving.dir.path());
        command.args(["watch", "-l", "js", "-p", "f($A)", "tree"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, lines) = sync_channel(64);
        let read = move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody listens once the test has failed.
                drop(tell.send(line));
            }
        };
        drop(std::thread::Builder::new().spawn(read).unwrap());
        Self { child, lines }
    }

    #[track_caller]
    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn edits_are_printed_as_they_come_also_after_its_connection_was_lost_until_it_is_interrupted() {
    let serving = Serving::start_with(&["--allow-debug"], |_| Vec::new());
    let tree = serving.dir.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    let write = |name: &str, text: &str| std::fs::write(tree.join(name), text).unwrap();
    write("a.js", "f(1)\n");
    let mut watching = Watching::start(&serving);
    assert_eq!(watching.line(), "+ tree/a.js:1: f(1)");
    write("b.js", "\nf(2) // x\n");
    assert_eq!(watching.line(), "+ tree/b.js:2: f(2) // x");
    // Whoever kills the gateway may not hear of it.
    program(serving.dir.path()).args(["debug", "kill", "gateway/connections"]).output().unwrap();
    std::fs::remove_file(tree.join("a.js")).unwrap();
    assert_eq!(watching.line(), "- tree/a.js:1: f(1)");
    let pid = Pid::from_raw(watching.child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert_eq!(watching.child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
    serving.stop();
}
