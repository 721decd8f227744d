//! The real daemon under blows: files that kill their parser, nodes that are killed, signals.

use crate::process::program;
use crate::serve::Serving;
use astscope_protocol::Client;
use astscope_protocol::messages::{HealthParams, MatcherSpec, Peer, RunParams, Selection, method};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

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
    // Its services may still be getting ready: patterns are loaded after the first answer.
    let started = Instant::now();
    let health = loop {
        let health = ask(&serving, &["health"]);
        if health.status.success() {
            break said(&health);
        }
        assert!(started.elapsed() < PATIENCE, "{health:?}");
    };
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

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A tree that takes a while to index and whose answers are large: so many files and matches.
fn write_much(serving: &Serving) -> usize {
    let text = "f('some text that makes it longer');\n".repeat(300);
    let n_files = 40;
    for n in 0..n_files {
        write(serving, &format!("much-{n}.js"), &text);
    }
    n_files * 300
}

/// Waits until the daemon indexes, or has.
fn wait_for_workspace(serving: &Serving) {
    let started = Instant::now();
    loop {
        let status = said(&ask(serving, &["status", "--json"]));
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        if !status["workspaces"].as_array().unwrap().is_empty() {
            return;
        }
        assert!(started.elapsed() < PATIENCE);
    }
}

#[test]
fn a_signal_while_it_indexes_and_answers_cuts_no_answer_short() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut serving = hurtful();
        let n_matches = write_much(&serving);
        let query = || {
            let mut run = program(serving.dir.path());
            run.args(["run", "-l", "js", "-p", "f($$$)", "--json=stream", "tree"]);
            run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let queries: Vec<_> = (0..4).map(|_| query()).collect();
        wait_for_workspace(&serving);
        send(&serving, signal);
        for query in queries {
            let output = query.wait_with_output().unwrap();
            let lines = output.stdout.split(|byte| *byte == b'\n').count() - 1;
            match output.status.code() {
                Some(0) => assert_eq!(lines, n_matches, "{signal:?}"),
                // It came too late, and was told so: to be asked again, or nobody listens.
                Some(69 | 75) => assert_eq!(lines, 0, "{signal:?}"),
                _ => panic!("{signal:?}: {output:?}"),
            }
        }
        let status = serving.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None), "{signal:?}");
        assert!(!serving.dir.path().join("daemon.sock").exists());
        let lock = std::fs::File::open(serving.dir.path().join("daemon.lock")).unwrap();
        assert!(lock.try_lock().is_ok(), "{signal:?}: its lock went with it");
    }
}

/// A client, and the end of its connection.
fn client(serving: &Serving) -> Client {
    let socket = serving.dir.path().join("daemon.sock");
    let peer = Peer { name: "test".to_owned(), version: "0".to_owned() };
    Client::connect(&socket, peer, PATIENCE).unwrap().0
}

/// Keeps the daemon busy: asks for more than the sockets hold, and reads none of it.
fn ask_and_read_nothing(serving: &Serving) -> Client {
    let mut client = client(serving);
    let cwd = serving.dir.path().join("tree").to_str().unwrap().to_owned();
    let params = RunParams {
        selection: Selection { cwd, ..Selection::default() },
        matcher: MatcherSpec { pattern: Some("f($$$)".to_owned()), ..MatcherSpec::default() },
        language: Some("js".to_owned()),
        ..RunParams::default()
    };
    client.request(method::RUN, &params).unwrap();
    client
}

#[test]
fn the_first_signal_waits_for_answers_and_the_second_leaves_at_once() {
    let mut serving = hurtful();
    write_much(&serving);
    let _deaf = ask_and_read_nothing(&serving);
    wait_for_workspace(&serving);
    send(&serving, Signal::TERM);
    let (socket, started) = (serving.dir.path().join("daemon.sock"), Instant::now());
    while socket.exists() {
        assert!(started.elapsed() < PATIENCE);
    }
    assert!(serving.child.try_wait().unwrap().is_none(), "somebody still waits for an answer");
    send(&serving, Signal::TERM);
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_third_signal_ends_even_a_daemon_that_refuses_to_stop() {
    for hung in ["gateway/sessions", "foundation/telemetry"] {
        let mut serving = hurtful();
        write_much(&serving);
        let _deaf = ask_and_read_nothing(&serving);
        wait_for_workspace(&serving);
        let mut idle = client(&serving);
        said(&ask(&serving, &["debug", "fault", hung, "hang", "--at", "stop"]));
        send(&serving, Signal::INT);
        let (socket, started) = (serving.dir.path().join("daemon.sock"), Instant::now());
        while socket.exists() {
            assert!(started.elapsed() < PATIENCE);
        }
        send(&serving, Signal::INT);
        // Connections end before anything else does.
        let mut is_open = || {
            let asked = idle.call::<_, serde_json::Value>(method::HEALTH, &HealthParams {});
            asked.map_or_else(|error| !error.is_fatal(), |_| true)
        };
        while is_open() {
            assert!(started.elapsed() < PATIENCE);
        }
        send(&serving, Signal::INT);
        assert_eq!(serving.child.wait().unwrap().code(), Some(130), "{hung}");
    }
}

/// Writes the user's settings file.
fn write_settings(serving: &Serving, text: &str) {
    let dir = serving.dir.path().join("config/astscope");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("config.toml"), text).unwrap();
}

/// The settings, once they look like this.
fn until_settings(serving: &Serving, are: impl Fn(&serde_json::Value) -> bool) -> String {
    let started = Instant::now();
    loop {
        let json = said(&ask(serving, &["config", "--json"]));
        if are(&serde_json::from_str(&json).unwrap()) {
            return said(&ask(serving, &["config"]));
        }
        assert!(started.elapsed() < PATIENCE, "{json}");
    }
}

#[test]
fn a_hangup_changes_the_log_and_the_idle_exit() {
    let mut serving = hurtful();
    let log = serving.dir.path().join("state/daemon.log");
    // Little, since standard error has it too, which nobody reads.
    let filter = "warn,astscope::supervision=debug";
    let is_debug = || std::fs::read_to_string(&log).unwrap().contains("\"level\":\"DEBUG\"");
    write_settings(&serving, &format!("log = '{filter}'\nidle_timeout = '90s'\n"));
    assert!(!is_debug());
    send(&serving, Signal::HUP);
    let text = until_settings(&serving, |it| it["settings"][0]["value"] == filter);
    assert!(
        text.lines().any(|line| line.starts_with("idle_timeout") && line.ends_with(" file"))
            && text.contains("config.toml"),
        "{text}"
    );
    let status = said(&ask(&serving, &["status"]));
    assert!(status.contains("leaves after 1m30s idle"), "{status}");
    let started = Instant::now();
    while !is_debug() {
        said(&ask(&serving, &["status"]));
        assert!(started.elapsed() < PATIENCE);
    }
    // Nobody stops it.
    write_settings(&serving, "idle_timeout = '10ms'\n");
    send(&serving, Signal::HUP);
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_bad_file_and_a_killed_node_leave_the_settings_as_they_were() {
    let serving = hurtful();
    write_settings(&serving, "idle_timeout = '90s'\n");
    send(&serving, Signal::HUP);
    until_settings(&serving, |it| it["settings"][1]["value"] == "90s");
    write_settings(&serving, "log = 'debug'\nidle_timeout = '9x'\n");
    send(&serving, Signal::HUP);
    let text = until_settings(&serving, |it| it["error"]["line"] == 2);
    let is_kept = |line: &str| line.split_whitespace().eq(["log", "info", "default"]);
    assert!(text.lines().any(is_kept), "{text}");
    said(&ask(&serving, &["debug", "kill", "foundation/config"]));
    let kept = until_settings(&serving, |it| it["settings"][1]["value"] == "90s");
    assert_eq!(kept, text);
    let status = said(&ask(&serving, &["status"]));
    assert!(status.contains("line 2: `idle_timeout` is \"9x\""), "{status}");
    // Whoever is started in its place hears the next signal.
    write_settings(&serving, "idle_timeout = '80s'\n");
    send(&serving, Signal::HUP);
    let text = until_settings(&serving, |it| it["settings"][1]["value"] == "80s");
    assert!(!text.contains("error"), "{text}");
    let (told, _dir) = serving.stop();
    assert_eq!(told.matches(" ERROR ").count(), 1, "{told}");
}
