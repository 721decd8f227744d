//! The recorded traces of a real OTP, replayed: same tree, same script, same trace.
//!
//! `otp/harness.erl` explains the language of the traces and recorded them; `cargo xtask otp`
//! records them again. Time is virtual here, so that 30 ms of settling mean what they meant there:
//! whatever can run has run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may, and its callers stand outside the tree"
)]

mod stage;

use astscope_supervision::{
    AdminError, AutoShutdown, ChildKind, ChildSpec, ChildState, Exit, Restart, Root, StartError,
    Stop, Strategy, Supervisor, SupervisorSpec,
};
use stage::{Stage, reason, settle};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Fewer than this, and traces were lost.
const TRACES_MIN: usize = 128;

/// Lines of OTP's traces that ours don't have, on purpose: `docs/semantics/supervision.md`.
const DEVIATIONS: &[(&str, &str)] = &[
    // OTP's supervisor is blocked by the init that it waits for; ours hears the stop.
    ("restarting-then-stopped.trace", "report root start_error b"),
];

#[tokio::test(start_paused = true)]
async fn every_recorded_trace_is_ours() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otp/traces");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= TRACES_MIN, "only {} traces", paths.len());
    let mut report = String::new();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let [tree, script, expected] = text.split("---\n").collect::<Vec<_>>()[..] else {
            panic!("{} has no three parts", path.display());
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_ours = |line: &&str| !line.is_empty() && !DEVIATIONS.contains(&(name, line));
        let mut expected: Vec<_> = expected.lines().filter(is_ours).collect();
        let mut actual = replay(tree, script).await;
        // OTP's supervisor traces an answer where it gives it. Here whoever asked traces it, and
        // runs when the supervisor has gone on: what comes after what is then known of the answers
        // and of the rest, not between them.
        if script.contains("async ") {
            expected.sort_by_key(|line| line.starts_with("answer "));
            actual.sort_by_key(|line| line.starts_with("answer "));
        }
        if actual != expected {
            writeln!(report, "── {name}").unwrap();
            for at in 0..actual.len().max(expected.len()) {
                let ours = actual.get(at).map_or("", String::as_str);
                let otp = expected.get(at).copied().unwrap_or_default();
                let mark = if ours == otp { ' ' } else { '!' };
                writeln!(report, "{mark} {otp:50} | {ours}").unwrap();
            }
        }
    }
    assert!(report.is_empty(), "OTP on the left, ours on the right\n{report}");
}

/// A running trace.
struct Replay {
    stage: Stage,
    spec: Option<SupervisorSpec>,
    root: Arc<Mutex<Option<Root>>>,
    /// The root, for who still asks it when it is gone.
    asked: Arc<Mutex<Option<Supervisor>>>,
    supervisors: BTreeMap<String, Supervisor>,
}

async fn replay(tree: &str, script: &str) -> Vec<String> {
    let stage = Stage::new();
    let mut supervisors = BTreeMap::new();
    let lines: Vec<_> =
        tree.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    let spec = supervisor(&stage, &lines, &mut supervisors);
    let mut replay = Replay {
        stage,
        spec: Some(spec),
        root: Arc::default(),
        asked: Arc::default(),
        supervisors,
    };
    if !script.lines().any(|line| line == "start") {
        replay.start();
        settle().await;
    }
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        replay.command(line).await;
        settle().await;
        replay.look_for_the_end();
    }
    replay.stage.take_log()
}

/// The supervisor of the first line, with the children of those that are indented further.
fn supervisor(
    stage: &Stage,
    lines: &[&str],
    supervisors: &mut BTreeMap<String, Supervisor>,
) -> SupervisorSpec {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (first, rest) = lines.split_first().unwrap();
    let words: Vec<_> = first.split_whitespace().collect();
    let after = |word: &str| {
        words.iter().position(|at| *at == word).and_then(|at| words.get(at + 1)).copied()
    };
    let strategy = match words[2] {
        "one_for_one" => Strategy::OneForOne,
        "one_for_all" => Strategy::OneForAll,
        "rest_for_one" => Strategy::RestForOne,
        other => panic!("no strategy: {other}"),
    };
    let period = Duration::from_secs(after("period").unwrap().parse().unwrap());
    let mut spec = SupervisorSpec::new(strategy)
        .intensity(after("intensity").unwrap().parse().unwrap(), period)
        .auto_shutdown(match after("auto_shutdown") {
            None => AutoShutdown::Never,
            Some("any") => AutoShutdown::AnySignificant,
            Some("all") => AutoShutdown::AllSignificant,
            Some(other) => panic!("no auto shutdown: {other}"),
        });
    let mut at = 0;
    while at < rest.len() {
        let depth = indent(rest[at]);
        let n_below = rest[at + 1..].iter().take_while(|line| indent(line) > depth).count();
        let words: Vec<_> = rest[at].split_whitespace().collect();
        let child = if words[0] == "sup" {
            let below = supervisor(stage, &rest[at..=at + n_below], supervisors);
            let child = ChildSpec::supervisor(words[1], below);
            supervisors.insert(words[1].to_owned(), child.as_supervisor().unwrap());
            child
        } else {
            stage.worker(words[1])
        };
        spec = spec.child(with_policy(child, &words));
        at += 1 + n_below;
    }
    spec
}

/// The restart type, the stop rule and significance, wherever they stand in the line.
fn with_policy(mut child: ChildSpec, words: &[&str]) -> ChildSpec {
    for (at, word) in words.iter().enumerate().skip(2) {
        child = match *word {
            "permanent" => child.restart(Restart::Permanent),
            "transient" => child.restart(Restart::Transient),
            "temporary" => child.restart(Restart::Temporary),
            "kill" => child.stop(Stop::Kill),
            "wait" => child.stop(Stop::Wait),
            "within" => {
                child.stop(Stop::Within(Duration::from_millis(words[at + 1].parse().unwrap())))
            }
            "significant" => child.significant(),
            _ => child,
        };
    }
    child
}

fn exit(word: &str) -> Exit {
    match word {
        "normal" => Exit::Normal,
        "shutdown" => Exit::Shutdown,
        "shutdown_with" => Exit::ShutdownWith("x".into()),
        "crash" => Exit::failed("boom"),
        "kill" => Exit::Killed,
        other => panic!("no reason: {other}"),
    }
}

impl Replay {
    /// Starts the root without waiting for it, because a script may hold an init.
    fn start(&mut self) {
        let (stage, spec) = (self.stage.clone(), self.spec.take().unwrap());
        let (running, asked) = (Arc::clone(&self.root), Arc::clone(&self.asked));
        drop(tokio::spawn(async move {
            match stage.try_start(spec).await {
                Ok(root) => {
                    stage.line("root started");
                    *asked.lock().unwrap() = Some(root.supervisor().clone());
                    *running.lock().unwrap() = Some(root);
                }
                Err(StartError::Child { id, .. }) => stage.line(format!("root failed {id}")),
                Err(other) => stage.line(format!("root failed: {other}")),
            }
        }));
    }

    fn supervisor(&self, id: &str) -> Supervisor {
        match id {
            "root" => self.asked.lock().unwrap().clone().unwrap(),
            below => self.supervisors[below].clone(),
        }
    }

    async fn command(&mut self, line: &str) {
        let stage = &self.stage;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["start"] => self.start(),
            ["exit", id, why] => stage.exit_now(id, exit(why)),
            ["exit_together", ..] => {
                for pair in line.trim_start_matches("exit_together").split(',') {
                    let (id, why) = pair.trim().split_once(' ').unwrap();
                    stage.exit_now(id, exit(why));
                }
            }
            ["fail", id, n] => stage.fail(id, n.parse().unwrap()),
            ["raise", id, n] => stage.raise(id, n.parse().unwrap()),
            ["ignore", id, n] => stage.ignore(id, n.parse().unwrap()),
            ["hold", id] => stage.hold(id),
            ["release", id] => stage.release(id),
            ["stubborn", id] => stage.stubborn(id),
            ["on_stop", id, why] => stage.on_stop(id, exit(why)),
            ["wait", ms] => tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await,
            ["call", supervisor, ..] => {
                let answer = call(&self.supervisor(supervisor), stage, &words[2..]).await;
                stage.line(format!("answer {answer}"));
            }
            ["async", label, supervisor, ..] => {
                let (supervisor, stage) = (self.supervisor(supervisor), stage.clone());
                let label = label.to_owned();
                let words: Vec<_> = words[3..].iter().map(|word| (*word).to_owned()).collect();
                drop(tokio::spawn(async move {
                    let words: Vec<_> = words.iter().map(String::as_str).collect();
                    let answer = call(&supervisor, &stage, &words).await;
                    stage.line(format!("answer {label} {answer}"));
                }));
            }
            ["begin_stop"] => {
                if let Some(root) = &*self.root.lock().unwrap() {
                    root.begin_shutdown();
                }
            }
            ["stop"] => {
                let root = self.root.lock().unwrap().take();
                if let Some(root) = root {
                    let exit = root.shutdown().await.exit;
                    stage.line(format!("root exit {}", reason(&exit)));
                }
            }
            _ => panic!("no command: {line}"),
        }
    }

    /// Traces the root's end, once.
    fn look_for_the_end(&mut self) {
        let mut running = self.root.lock().unwrap();
        let Some(root) = &*running else { return };
        if let Some(exit) = root.supervisor().child().monitor().exit() {
            self.stage.line(format!("root exit {}", reason(&exit)));
            *running = None;
        }
    }
}

async fn call(supervisor: &Supervisor, stage: &Stage, words: &[&str]) -> String {
    let answer = match *words {
        ["start_child", "worker", id, ..] => {
            let spec = with_policy(stage.worker(id), &words[1..]);
            supervisor.start_child(spec).await.map(|child| match child {
                Some(_) => "started".to_owned(),
                None => "ignored".to_owned(),
            })
        }
        ["terminate_child", id] => supervisor.terminate_child(id).await.map(|()| "ok".to_owned()),
        ["restart_child", id] => supervisor
            .restart_child(id)
            .await
            .map(|started| if started { "started" } else { "ignored" }.to_owned()),
        ["delete_child", id] => supervisor.delete_child(id).await.map(|()| "ok".to_owned()),
        ["which_children"] => supervisor.which_children().await.map(|children| {
            let words = children.iter().map(|child| {
                let state = match child.state {
                    ChildState::Up => "up",
                    ChildState::Down => "down",
                    ChildState::Restarting => "restarting",
                    other => panic!("OTP knows no {other:?}"),
                };
                assert!(matches!(child.kind, ChildKind::Worker | ChildKind::Supervisor));
                format!("{}:{state}", child.id)
            });
            let words = words.collect::<Vec<_>>().join(" ");
            if words.is_empty() { "none".to_owned() } else { words }
        }),
        ["count_children"] => supervisor.count_children().await.map(|count| {
            format!(
                "specs {} active {} supervisors {} workers {}",
                count.specs, count.active, count.supervisors, count.workers
            )
        }),
        _ => panic!("no call: {words:?}"),
    };
    answer.unwrap_or_else(|error| match error {
        AdminError::NotFound => "not_found".to_owned(),
        AdminError::Running => "running".to_owned(),
        AdminError::Restarting => "restarting".to_owned(),
        AdminError::AlreadyStarted => "already_started".to_owned(),
        AdminError::AlreadyPresent => "already_present".to_owned(),
        AdminError::Start(_) => "start_failed".to_owned(),
        AdminError::Spec(_) => "invalid".to_owned(),
        AdminError::Gone => "gone".to_owned(),
        other => format!("{other:?}"),
    })
}
