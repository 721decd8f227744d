//! The real daemon under blows: files that kill their parser, nodes that are killed, signals.

use crate::process::program;
use crate::serve::Serving;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Output;

/// A daemon that can be hurt: nodes can be killed, and a file that says `HURT` and how hurts its
/// parser.
fn hurtful() -> Serving {
    Serving::start_with(&["--allow-debug"], |_| vec![("ASTSCOPE_PARSER_FAULTS", "HURT".into())])
}

fn ask(serving: &Serving, arguments: &[&str]) -> Output {
    program(serving.dir.path()).args(arguments).output().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn write(serving: &Serving, name: &str, text: &str) {
    let tree = serving.dir.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join(name), text).unwrap();
}

/// Files in which `f($A)` is found.
fn found(serving: &Serving) -> Vec<String> {
    let run = ["run", "-l", "js", "-p", "f($A)", "--json=stream", "tree"];
    let output = said(&ask(serving, &run));
    let file = |line: &str| {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        let path = Path::new(found["file"].as_str().unwrap()).to_owned();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    };
    output.lines().map(file).collect()
}

/// The only workspace, as `status` has it.
fn workspace(serving: &Serving) -> serde_json::Value {
    let status: serde_json::Value =
        serde_json::from_str(&said(&ask(serving, &["status", "--json"]))).unwrap();
    assert_eq!(status["workspaces"].as_array().unwrap().len(), 1, "{status}");
    status["workspaces"][0].clone()
}

#[test]
fn a_file_that_kills_its_parser_costs_itself_and_is_remembered() {
    let serving = hurtful();
    let ways = ["abort", "eat", "exit", "flood", "fpe", "garbage", "lie", "overflow"];
    for way in ways {
        write(&serving, &format!("{way}.js"), &format!("f('HURT{way}')\n"));
        write(&serving, &format!("{way}-twin.js"), &format!("f('{way}')\n"));
    }
    let twins: Vec<String> = ways.iter().map(|way| format!("{way}-twin.js")).collect();
    assert_eq!(found(&serving), twins);
    assert_eq!(workspace(&serving)["skipped"]["parser_died"], ways.len());
    let quarantine = serving.dir.path().join("state/quarantine.jsonl");
    let remembered = || std::fs::read_to_string(&quarantine).unwrap().lines().count() - 1;
    assert_eq!(remembered(), ways.len());
    // What is changed is tried again, and what isn't, not.
    write(&serving, "abort.js", "f('well again')\n");
    let mut well = twins;
    well.insert(1, "abort.js".to_owned());
    well.sort();
    let mut now = found(&serving);
    now.sort();
    assert_eq!(now, well);
    assert_eq!(remembered(), ways.len());
    assert_eq!(workspace(&serving)["skipped"]["parser_died"], ways.len() - 1);
    serving.stop();
}

#[test]
fn a_node_that_is_killed_fails_no_command() {
    let serving = hurtful();
    write(&serving, "a.js", "f(1)\n");
    assert_eq!(found(&serving), ["a.js"]);
    for path in [
        "gateway/sessions",
        "gateway/connections",
        "foundation/parsers",
        "workspaces",
        "foundation/query_execution_pool",
    ] {
        // Whoever kills the gateway may not hear of it.
        ask(&serving, &["debug", "kill", path]);
        assert_eq!(found(&serving), ["a.js"], "{path}");
    }
    let tree = said(&ask(&serving, &["tree"]));
    assert!(tree.contains("gateway  rest_for_one") && tree.contains("last exit killed"), "{tree}");
    let unknown = ask(&serving, &["debug", "kill", "gateway/nobody"]);
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
    serving.stop();
}

#[test]
fn health_is_told_by_the_exit_status() {
    let serving = hurtful();
    write(&serving, "a.js", "f(1)\n");
    assert_eq!(found(&serving), ["a.js"]);
    let health = said(&ask(&serving, &["health"]));
    for service in
        ["repository_core", "repository_enhanced", "pattern_matcher_core", "file_watcher"]
    {
        assert!(health.contains(service), "{health}");
    }
    serving.stop();
}

fn send(serving: &Serving, signal: Signal) {
    let pid = Pid::from_raw(serving.child.id().try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[test]
fn a_signal_is_a_graceful_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut serving = hurtful();
        write(&serving, "a.js", "f(1)\n");
        assert_eq!(found(&serving), ["a.js"]);
        send(&serving, signal);
        let status = serving.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{signal:?}");
        assert!(!serving.dir.path().join("daemon.sock").exists());
    }
}
