//! Exit codes, what a request says, and what stands on standard error.

use crate::support::{Fake, Output, Session};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    ChangesParams, ChangesResult, ConfigResult, ErrorCode, EventRecord, EventsResult, Explanation,
    FaultKind, FaultParams, FaultPoint, HealthDetail, HealthResult, HealthStatus, HealthVerdict,
    IgnoreKind, ParseResult, PlanStep, PointRecord, PointsLevel, PointsResult, Position,
    RequestCounts, Revision, ServiceHealth, SettingRecord, SettingSource, SettingsError,
    SkippedFile, StatusResult, Summary, SyncAction, SyncParams, TreeFormat, TreeResult,
    WORKSPACE_SERVICES, WorkspaceHealth, WorkspaceStatus,
};
use expect_test::{Expect, expect};
use std::collections::BTreeMap;
use std::fs;

fn run_with(backend: &mut Fake, arguments: &[&str]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    // A configuration of its own, so that none above the temporary directory is found.
    fs::write(dir.path().join("sgconfig.yml"), "ruleDirs: []").unwrap();
    Session::new(dir.path()).run(backend, arguments)
}

#[expect(clippy::needless_pass_by_value, reason = "an expectation is written at the call")]
#[track_caller]
fn check_error(output: &Output, code: u8, expected: Expect) {
    assert_eq!((output.code, output.out.as_str()), (code, ""), "{}", output.err);
    expected.assert_eq(&output.err);
}

#[test]
fn every_error_of_the_daemon_has_its_exit_code() {
    for (error, code) in [
        (ErrorCode::InvalidPattern, 8),
        (ErrorCode::InvalidSelector, 8),
        (ErrorCode::InvalidRule, 8),
        (ErrorCode::InvalidGlob, 9),
        (ErrorCode::UnknownLanguage, 33),
        (ErrorCode::PathNotFound, 6),
        (ErrorCode::RootRefused, 6),
        (ErrorCode::FileSkipped, 6),
        (ErrorCode::HistoryGone, 65),
        (ErrorCode::Cancelled, 130),
        (ErrorCode::DeadlineExceeded, 75),
        (ErrorCode::Overloaded, 75),
        (ErrorCode::ShuttingDown, 75),
        (ErrorCode::Restarting, 75),
        (ErrorCode::NodeNotFound, 2),
        (ErrorCode::NotAllowed, 77),
        (ErrorCode::IncompatibleProtocol, 76),
        (ErrorCode::Internal, 70),
        (ErrorCode::InvalidParams, 70),
        (ErrorCode::UnknownMethod, 76),
        (ErrorCode::MalformedRequest, 70),
    ] {
        let mut backend = Fake::failing(RpcError::new(error, "the particulars"));
        let output = run_with(&mut backend, &["run", "-p", "a"]);
        assert_eq!(output.code, code, "{error:?}");
        assert!(output.err.starts_with("Error: "), "{}", output.err);
        assert!(output.err.contains("he particulars"), "{}", output.err);
    }
}

#[test]
fn run_without_matches_exits_with_1() {
    let output = run_with(&mut Fake::default(), &["-p", "a"]);
    assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (1, "", ""));
}

#[test]
fn a_pattern_with_a_syntax_error_that_finds_nothing_is_a_warning() {
    let summary = Summary { pattern_has_error: true, ..Summary::default() };
    let mut backend = Fake { summary, ..Fake::default() };
    let output = run_with(&mut backend, &["run", "-p", "f(", "-l", "js"]);
    check_error(
        &output,
        0,
        expect![[r"
            Warning: Pattern contains an ERROR node and may cause unexpected results.
            Help: The pattern was parsed but it matched nothing in this run. `astscope parse --stdin` shows how code is parsed.
            See also: https://ast-grep.github.io/playground.html

        "]],
    );
    // Without a language ast-grep doesn't warn.
    assert_eq!(run_with(&mut backend, &["run", "-p", "f("]).code, 1);
}

#[test]
fn a_workspace_is_paused_and_shown() {
    let mut backend = Fake::default();
    let output = run_with(&mut backend, &["sync", "pause", "/p", "--deadline", "2s"]);
    assert_eq!(output.code, 0, "{}", output.err);
    let (path, deadline_ms) = ("/p".to_owned(), Some(2000));
    let asked = SyncParams { path, action: SyncAction::Pause, deadline_ms };
    assert_eq!(backend.asked_sync, Some(asked));
    let output = run_with(&mut backend, &["sync", "rescan", "--json"]);
    assert!(serde_json::from_str::<WorkspaceStatus>(&output.out).is_ok(), "{}", output.out);
    assert_eq!(run_with(&mut Fake::default(), &["sync", "stop"]).code, 2);
}

#[test]
fn changes_are_listed_by_path_and_the_revision_comes_last() {
    let changes = ChangesResult {
        root: "/p".into(),
        revision: Revision { epoch: 17, number: 4 },
        added: vec!["b".into(), "z z".into()],
        changed: vec!["a/x".into(), "c".into()],
        removed: vec!["a".into()],
    };
    let mut backend = Fake { changes: changes.clone(), ..Fake::default() };
    let output = run_with(&mut backend, &["changes", "--since", "17.3", "/p", "--deadline", "2s"]);
    let lines = ["D a", "M a/x", "A b", "M c", "A z z", "# 17.4", ""];
    assert_eq!((output.code, output.out), (0, lines.join("\n")));
    let since = Some(Revision { epoch: 17, number: 3 });
    let asked = ChangesParams { path: "/p".into(), since, deadline_ms: Some(2000) };
    assert_eq!(backend.asked_changes, Some(asked));
    let output = run_with(&mut backend, &["changes", "--json"]);
    assert_eq!(serde_json::from_str::<ChangesResult>(&output.out).unwrap(), changes);
    assert_eq!(backend.asked_changes.unwrap().since, None);
    for since in ["", "17", "17.", "17.x", "a.1", "-1.2"] {
        let since = format!("--since={since}");
        assert_eq!(run_with(&mut Fake::default(), &["changes", &since]).code, 2, "{since}");
    }
}

#[test]
fn standard_input_needs_a_language_and_no_dialogue() {
    let output = run_with(&mut Fake::default(), &["run", "-p", "a", "--stdin"]);
    assert_eq!(output.code, 3);
    let output = run_with(&mut Fake::default(), &["run", "-p", "a", "--stdin", "-i", "-l", "js"]);
    assert_eq!(output.code, 7);
    let output = run_with(&mut Fake::default(), &["scan", "--stdin"]);
    assert_eq!(output.code, 3);
    let output = run_with(&mut Fake::default(), &["parse", "--stdin"]);
    assert_eq!(output.code, 3);
}

#[test]
fn standard_input_is_sent_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut session = Session::new(dir.path());
    session.input = "let é = 1\r\n".to_owned();
    let mut backend = Fake::default();
    session.run(&mut backend, &["run", "-p", "a", "--stdin", "-l", "js"]);
    let selection = backend.run.unwrap().selection;
    assert_eq!(selection.stdin.as_deref(), Some("let é = 1\r\n"));
}

#[test]
fn a_request_says_what_was_typed() {
    let mut backend = Fake::default();
    let line = "run -p f($A) --selector call --strictness ast -l py -r g($A) -C 2 --globs *.py \
                --globs !x --follow --no-ignore hidden --max-results 7 --deadline 2s --no-wait \
                --json=stream src ../other";
    run_with(&mut backend, &line.split_whitespace().collect::<Vec<_>>());
    let params = backend.run.unwrap();
    assert_eq!(params.matcher.pattern.as_deref(), Some("f($A)"));
    assert_eq!(params.matcher.selector.as_deref(), Some("call"));
    assert_eq!(params.matcher.strictness.as_deref(), Some("ast"));
    assert_eq!(
        (params.language.as_deref(), params.rewrite.as_deref()),
        (Some("py"), Some("g($A)"))
    );
    assert_eq!((params.context.before, params.context.after), (2, 2));
    assert_eq!(params.selection.paths, ["src", "../other"]);
    assert_eq!(params.selection.globs, ["*.py", "!x"]);
    assert_eq!(params.selection.no_ignore, [IgnoreKind::Hidden]);
    assert!(params.selection.follow && params.selection.cwd.starts_with('/'));
    assert_eq!((params.delivery.limit, params.delivery.deadline_ms), (Some(7), Some(2000)));
    assert!(params.delivery.no_wait && !params.delivery.include_source);
}

#[test]
fn matches_come_whole_only_where_they_are_printed_whole() {
    let is_brief = |line: &str| {
        let mut backend = Fake::default();
        run_with(&mut backend, &line.split_whitespace().collect::<Vec<_>>());
        let run = backend.run.map(|params| params.delivery);
        run.or(backend.scan.map(|params| params.delivery)).unwrap().brief
    };
    let scan = "scan --inline-rules {id:a,language:js,rule:{pattern:f}}";
    assert!(is_brief("run -p f -l js") && is_brief("run -p f -r g -l js") && is_brief(scan));
    assert!(is_brief(&format!("{scan} --format github")));
    assert!(!is_brief("run -p f -l js --json=stream") && !is_brief(&format!("{scan} --json")));
    assert!(!is_brief(&format!("{scan} --format sarif")));
}

#[test]
fn the_projects_ignore_list_is_a_default() {
    let dir = tempfile::tempdir().unwrap();
    let config = "noIgnore: [vcs]\nlanguageGlobs: {py: ['*.pyx']}";
    fs::write(dir.path().join("sgconfig.yml"), config).unwrap();
    let session = Session::new(dir.path());
    let mut backend = Fake::default();
    session.run(&mut backend, &["-p", "a"]);
    let selection = backend.run.take().unwrap().selection;
    assert_eq!(selection.no_ignore, [IgnoreKind::Vcs]);
    assert_eq!(selection.language_globs["py"], ["*.pyx"]);
    session.run(&mut backend, &["-p", "a", "--no-ignore", "dot"]);
    assert_eq!(backend.run.unwrap().selection.no_ignore, [IgnoreKind::Dot]);
}

#[test]
fn a_scan_sends_the_projects_rules_and_overrides() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sgconfig.yml"), "ruleDirs: [r]\nutilDirs: [u]").unwrap();
    for (name, text) in [("r/one.yml", "rule: one"), ("u/util.yml", "util: one")] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut backend = Fake::default();
    let line = "scan --error --off=a --hint=b --min-severity warning --filter x";
    let session = Session::new(dir.path());
    assert_eq!(session.run(&mut backend, &line.split(' ').collect::<Vec<_>>()).code, 0);
    let params = backend.scan.take().unwrap();
    assert_eq!(params.rules.len(), 1);
    assert_eq!(params.rules[0].default_id.as_deref(), Some("one"));
    assert_eq!(params.utils[0].yaml, "util: one");
    assert_eq!(params.project_dir, dir.path().canonicalize().unwrap().to_str().unwrap());
    let overrides = params.overrides;
    assert_eq!(overrides.default.as_deref(), Some("error"));
    assert_eq!((overrides.by_id["a"].as_str(), overrides.by_id["b"].as_str()), ("off", "hint"));
    assert_eq!(overrides.filter.as_deref(), Some("x"));
    assert!(!overrides.all_rules);
    session.run(&mut backend, &["scan"]);
    assert!(backend.scan.unwrap().overrides.all_rules);
}

#[test]
fn inline_rules_use_the_projects_utilities() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("sgconfig.yml"), "utilDirs: [u]").unwrap();
    fs::create_dir(dir.path().join("u")).unwrap();
    fs::write(dir.path().join("u/util.yml"), "id: u").unwrap();
    let mut backend = Fake::default();
    Session::new(dir.path()).run(&mut backend, &["scan", "--inline-rules", "id: x"]);
    let params = backend.scan.unwrap();
    assert_eq!(params.rules[0].source, "INLINE_RULES");
    assert_eq!(params.rules[0].default_id, None);
    assert_eq!(params.utils.len(), 1);
}

#[test]
fn a_scan_without_rules_is_refused() {
    let output = run_with(&mut Fake::default(), &["scan", "-r", "nope.yml"]);
    check_error(
        &output,
        6,
        expect![[r"
            Error: Cannot read rule nope.yml
            Help: The rule file either does not exist or cannot be opened.
            See also: https://ast-grep.github.io/guide/rule-config.html

            ✖ Caused by
            ╰▻ No such file or directory (os error 2)

        "]],
    );
    let output = run_with(&mut Fake::default(), &["scan", "-c", "nope.yml"]);
    assert_eq!(output.code, 6);
}

#[test]
fn errors_in_the_code_fail_a_scan() {
    let summary = Summary { error_matches: 2, ..Summary::default() };
    let output = run_with(&mut Fake { summary, ..Fake::default() }, &["scan"]);
    check_error(
        &output,
        1,
        expect![[r"
            Error: 2 error(s) found in code.
            Help: Scan succeeded and found error level diagnostics in the codebase.

        "]],
    );
}

#[test]
fn what_one_should_know_about_an_answer_stands_on_standard_error() {
    let skipped = SkippedFile {
        path: "bad.py".to_owned(),
        reason: "not_utf8".to_owned(),
        detail: "byte 3 is not UTF-8".to_owned(),
    };
    let summary = Summary {
        matches: 10,
        files_selected: 8,
        files_pending: 3,
        limit_reached: true,
        skipped: vec![skipped],
        hints: vec!["write `f($$$A);`".to_owned()],
        ..Summary::default()
    };
    let output = run_with(&mut Fake { summary, ..Fake::default() }, &["-p", "a"]);
    check_error(
        &output,
        1,
        expect![[r"
            Hint: write `f($$$A);`
            Skipped: bad.py: byte 3 is not UTF-8
            Limit: 10 matches, the limit; there may be more (see --max-results)
            Partial: answered from 5 of 8 files; the others are still being parsed
        "]],
    );
}

#[test]
fn parse_prints_the_tree() {
    let tree = ParseResult {
        language: "Rust".to_owned(),
        tree: "(source_file)\n".to_owned(),
        nodes: 1,
        errors: Vec::new(),
    };
    let mut backend = Fake { tree: Some(tree), ..Fake::default() };
    let output = run_with(&mut backend, &["parse", "a.rs", "--cst"]);
    assert_eq!((output.code, output.out.as_str()), (0, "(source_file)\n"));
    let params = backend.parse.unwrap();
    assert_eq!((params.path.as_deref(), params.cst, params.json), (Some("a.rs"), true, false));
}

#[test]
fn explain_prints_the_plan() {
    let explanation = Explanation {
        requirements: BTreeMap::from([("Rust".to_owned(), vec!["text `unwrap`".to_owned()])]),
        steps: vec![PlanStep { step: "text `unwrap`".to_owned(), files: 12 }],
        files_verified: 12,
        files_remembered: 11,
        files_matched: 9,
        matches: 30,
        micros: BTreeMap::from([("match".to_owned(), 1234), ("refresh".to_owned(), 90)]),
        ..Explanation::default()
    };
    let mut backend = Fake { explanation, ..Fake::default() };
    let output = run_with(&mut backend, &["explain", "-p", "$A.unwrap()"]);
    expect![[r"
        A file can match only if it contains
          Rust         text `unwrap`
        Files left after each step
                12  text `unwrap`
        Result
                12  files verified by the matcher
                11  of them remembered from before
                 9  files with matches
                30  matches
        Time
              0.09  ms refresh
              1.23  ms match
    "]]
    .assert_eq(&output.out);
    let output = run_with(&mut backend, &["explain", "-p", "a", "--json"]);
    assert!(serde_json::from_str::<Explanation>(&output.out).is_ok(), "{}", output.out);
}

#[test]
fn points_are_printed_as_text_and_json() {
    let point = |kind: &str, symbol: &str, name: &str, priority, line| PointRecord {
        kind: kind.into(),
        strategy: if priority == 100 { "function_boundary" } else { "expression_trace" }.into(),
        priority,
        symbol: symbol.into(),
        name: Some(name.into()).filter(|name: &String| !name.is_empty()),
        start: Position { line, column: 2 },
        ..PointRecord::default()
    };
    let points = vec![
        point("genserver_callback", "M.init/1", "init", 100, 0),
        point("call", "M.init/1", "g", 60, 10),
        point("pipe_operation", "", "", 60, 11),
    ];
    let points = PointsResult { language: "Elixir".into(), impact_percent: 8, points };
    let mut backend = Fake { points, ..Fake::default() };
    let output = run_with(&mut backend, &["points", "lib/a.ex", "--level", "debug"]);
    expect![[r"
        lib/a.ex:1:3   100  genserver_callback  M.init/1
        lib/a.ex:11:3   60  call                M.init/1  g
        lib/a.ex:12:3   60  pipe_operation      -
    "]]
    .assert_eq(&output.out);
    assert_eq!(output.err, "Note: 3 point(s), estimated impact 8 %\n");
    let asked = backend.asked_points.take().unwrap();
    assert_eq!((asked.path.as_deref(), asked.level), (Some("lib/a.ex"), PointsLevel::Debug));
    let output = run_with(&mut backend, &["points", "a.ex", "--json"]);
    assert_eq!(serde_json::from_str::<PointsResult>(&output.out).unwrap(), backend.points);
    assert_eq!(backend.asked_points.unwrap().level, PointsLevel::Balanced);
    let output = run_with(&mut Fake::default(), &["points", "a.css"]);
    assert_eq!((output.code, &*output.out), (0, ""));
    assert!(output.err.contains("no points"), "{}", output.err);
}

#[test]
fn status_and_stop_start_no_daemon() {
    let output = run_with(&mut Fake::default(), &["status"]);
    assert_eq!(output.code, 69);
    let output = run_with(&mut Fake::default(), &["stop"]);
    assert_eq!((output.code, output.err.as_str()), (0, "No daemon is running.\n"));
}

#[test]
fn status_is_printed_as_text_and_json() {
    let json = r#"{"server":{"name":"astscope","version":"0.1.0"},"pid":7,"socket":"/run/s",
        "uptimeSeconds":61,"idleExitSeconds":3600,"clients":1,
        "memory":{"text":1024,"trees":2048,"indexes":0,"allocated":0,"residentAnon":4096,"residentFile":0},
        "parsers":{"processes":4,"lost":1,"restrictions":"no files","quarantined":1,
        "quarantinedFiles":[{"contentId":"ab","language":"Rust","detail":"hung","atSeconds":9}]},
        "workspaces":[{"root":"/src","revision":{"epoch":1,"number":2},"filesSeen":3,"filesParsed":2,
        "skipped":{"not_utf8":1},"languages":{"Rust":2},"sourceBytes":1024,"nodes":99,"treeBytes":2048,
        "indexedInMs":12,"remembered":{"queries":2,"results":9,"bytes":2048,"hits":3,"misses":1},"breakers":[{"name":"files"},
        {"name":"parsing","state":"open","failures":5,"retryInMs":28001}],
        "scrub":{"enabled":true,"checked":1,"files":2,"cycles":1,"lastCycle":{"tookMs":61001,"files":3,"leftOut":1},
        "drift":{"tree":2},"lastDrift":{"path":"/src/a.rs","cause":"tree"}}}]}"#;
    let status: StatusResult = serde_json::from_str(json).unwrap();
    let mut backend = Fake { status: Some(status), ..Fake::default() };
    let output = run_with(&mut backend, &["status"]);
    expect![[r"
        astscope 0.1.0, pid 7, up 1m01s, 1 client(s), leaves after 1h00m idle
        socket   /run/s
        memory   4.0 KiB resident: 1.0 KiB text, 2.0 KiB trees, 0 B indexes, 0 B caches
        parsers  4 up, 1 lost so far, 1 file(s) quarantined
          restricted: no files
            Rust ab: its parser hung

        /src
          revision 1.2, indexed in 12 ms
          3 files seen, 2 parsed, 1 skipped
          1.0 KiB of source, 99 nodes, 2.0 KiB of trees and indexes
          9 results of 2 queries remembered in 2.0 KiB, 75 % of those asked for
          Rust 2
          parsing: left alone after 5 failures, 29s left
          DRIFT: 2 file(s) were held other than the disk has them, and are repaired: content 0, tree 2, missing 0, ghost 0
            the last is /src/a.rs: tree
          checked against the disk: 3 files in 1m02s, 1 left out, drift 0; now 1 of 2
          skipped 1 not_utf8
    "]]
    .assert_eq(&output.out);
    let output = run_with(&mut backend, &["status", "--json"]);
    let status: StatusResult = serde_json::from_str(&output.out).unwrap();
    assert_eq!(status.pid, 7);
}

#[test]
fn what_is_about_the_daemon_starts_none() {
    for line in
        [&["tree"][..], &["health"], &["events"], &["config"], &["debug", "kill", "gateway"]]
    {
        let output = run_with(&mut Fake::default(), line);
        assert_eq!((output.code, output.out.as_str()), (69, ""), "{line:?}");
        assert!(output.err.contains("No daemon is running."), "{}", output.err);
    }
}

#[test]
fn the_tree_is_printed_in_the_form_that_is_asked_for() {
    let json = serde_json::value::RawValue::from_string(r#"{"id":"daemon","children":[]}"#.into());
    let tree = TreeResult { tree: Some(json.unwrap()), text: None };
    let text = |text: &str| TreeResult { tree: None, text: Some(text.to_owned()) };
    for (flag, answer, format, printed) in [
        ("--json", tree, TreeFormat::Json, "{\n  \"id\": \"daemon\",\n  \"children\": []\n}\n"),
        ("--mermaid", text("graph TD\n"), TreeFormat::Mermaid, "graph TD\n"),
        ("--color=never", text("daemon  up\n"), TreeFormat::Text, "daemon  up\n"),
    ] {
        let mut backend = Fake { shown: Some(answer), ..Fake::default() };
        let output = run_with(&mut backend, &["tree", flag]);
        assert_eq!((output.code, output.out.as_str(), output.err.as_str()), (0, printed, ""));
        assert_eq!(backend.tree_format, Some(format));
    }
    let mut backend = Fake { shown: Some(TreeResult::default()), ..Fake::default() };
    assert_eq!(run_with(&mut backend, &["tree"]).code, 70);
}

#[test]
fn events_are_a_line_each_with_their_age() {
    let event = |number, kind: &str, about: &str, detail: Option<&str>| EventRecord {
        number,
        // By a clock that is ahead: no age is negative.
        timestamp_ms: u64::MAX,
        kind: kind.to_owned(),
        about: about.to_owned(),
        detail: detail.map(str::to_owned),
    };
    let events = vec![
        event(8, "opened", "/src/app", None),
        event(9, "restarted", "daemon/gateway", Some("incarnation 2")),
    ];
    let mut fake = Fake { events: Some(EventsResult { events, missed: 3 }), ..Fake::default() };
    let output = run_with(&mut fake, &["events"]);
    expect![[r"
        8  0s ago  opened     /src/app
        9  0s ago  restarted  daemon/gateway  incarnation 2
        3 more came too fast to be kept
    "]]
    .assert_eq(&output.out);
    let output = run_with(&mut fake, &["events", "--json"]);
    let json: EventsResult = serde_json::from_str(&output.out).unwrap();
    assert_eq!(json.events.len(), 2);
}

#[test]
fn settings_are_a_line_each_with_who_said_so() {
    let setting = |name: &str, value: &str, source| SettingRecord {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    };
    let settings = vec![
        setting("log", "debug", SettingSource::File),
        setting("idle_timeout", "2h", SettingSource::Start),
        setting("watch.every_min", "2s", SettingSource::Default),
    ];
    let file = Some("/me/.config/astscope/config.toml".to_owned());
    let error = Some(SettingsError { line: Some(3), message: "unknown field `a`".to_owned() });
    let config = Some(ConfigResult { settings, file, error });
    let mut fake = Fake { config: config.clone(), ..Fake::default() };
    let output = run_with(&mut fake, &["config"]);
    expect![[r"
        log                   debug  file
        idle_timeout          2h     start
        watch.every_min       2s     default

        file   /me/.config/astscope/config.toml
        error  line 3: unknown field `a`
    "]]
    .assert_eq(&output.out);
    let output = run_with(&mut fake, &["config", "--json"]);
    assert_eq!(serde_json::from_str::<ConfigResult>(&output.out).ok(), config);
}

fn health(status: HealthStatus) -> HealthResult {
    let services = |verdicts: [HealthVerdict; 4]| {
        let named = WORKSPACE_SERVICES.into_iter().zip(verdicts);
        named.map(|(name, verdict)| ServiceHealth {
            name: name.to_owned(),
            alive: true,
            verdict,
            waits_for: match verdict {
                HealthVerdict::NotReady => vec!["repository_core".to_owned()],
                _ => Vec::new(),
            },
        })
    };
    let up = HealthVerdict::Healthy;
    let workspace = |root: &str, status, verdicts| WorkspaceHealth {
        root: root.to_owned(),
        status,
        services: services(verdicts).collect(),
    };
    let detail = |name: &str, verdict, value: Option<&str>| HealthDetail {
        name: name.to_owned(),
        verdict,
        value: value.map(str::to_owned),
    };
    HealthResult {
        status,
        timestamp_ms: 1_795_271_573_392,
        workspaces: vec![
            workspace("/src/app", HealthStatus::Healthy, [up; 4]),
            workspace(
                "/src/lib",
                status,
                [up, HealthVerdict::NotReady, HealthVerdict::Restarting, HealthVerdict::Hung],
            ),
        ],
        details: vec![
            detail("gateway", up, Some("2 clients")),
            detail("telemetry", HealthVerdict::Down, None),
        ],
        requests: RequestCounts {
            total: 120,
            failed: 1,
            p50_us: 850,
            p95_us: 3210,
            p99_us: 90_001,
        },
    }
}

#[test]
fn health_is_a_line_for_each_service_and_an_exit_code() {
    let health_of = |status, arguments: &[&str]| {
        run_with(&mut Fake { health: Some(health(status)), ..Fake::default() }, arguments)
    };
    let output = health_of(HealthStatus::Degraded, &["health"]);
    expect![[r#"
        degraded, 120 requests, 1 failed, half within 0.85 ms, 95 % within 3.21 ms, 99 % within 90.00 ms

        /src/app  healthy
          repository_core       healthy
          repository_enhanced   healthy
          pattern_matcher_core  healthy
          file_watcher          healthy

        /src/lib  degraded
          repository_core       healthy
          repository_enhanced   not ready, waits for repository_core
          pattern_matcher_core  restarting
          file_watcher          hung

        daemon
          gateway               healthy, 2 clients
          telemetry             down
    "#]]
    .assert_eq(&output.out);
    assert_eq!((output.code, output.err.as_str()), (1, ""));
    assert_eq!(health_of(HealthStatus::Healthy, &["health"]).code, 0);
    assert_eq!(health_of(HealthStatus::Failed, &["health"]).code, 1);

    let colored = health_of(HealthStatus::Failed, &["health", "--color", "always"]).out;
    for painted in ["\x1b[31mfailed\x1b[0m", "\x1b[32mhealthy\x1b[0m", "\x1b[33mnot ready\x1b[0m"] {
        assert!(colored.contains(painted), "{colored}");
    }

    let output = health_of(HealthStatus::Degraded, &["health", "--json"]);
    let read: HealthResult = serde_json::from_str(&output.out).unwrap();
    assert_eq!((output.code, read), (1, health(HealthStatus::Degraded)));
}

#[test]
fn a_node_is_killed_by_its_path() {
    let mut backend = Fake { runs: true, ..Fake::default() };
    let output = run_with(&mut backend, &["debug", "kill", "gateway/listener"]);
    assert_eq!((output.code, output.out.as_str()), (0, ""));
    assert!(output.err.starts_with("gateway/listener was told to end"), "{}", output.err);
    assert_eq!(backend.killed.as_deref(), Some("gateway/listener"));

    let error = RpcError::new(ErrorCode::NotAllowed, "started without `--allow-debug`");
    let output = run_with(&mut Fake::failing(error), &["debug", "kill", "gateway"]);
    assert_eq!(output.code, 77);
    assert!(output.err.contains("astscope serve --allow-debug"), "{}", output.err);
}

#[test]
fn a_fault_is_armed_by_its_path_and_its_point() {
    for (line, fault, slow_ms, at) in [
        (&["panic"][..], FaultKind::Panic, None, FaultPoint::Run),
        (&["error", "--at", "init"], FaultKind::Error, None, FaultPoint::Init),
        (&["hang", "--at", "stop"], FaultKind::Hang, None, FaultPoint::Stop),
        (&["slow=250", "--at=run"], FaultKind::Slow, Some(250), FaultPoint::Run),
    ] {
        let mut backend = Fake { runs: true, ..Fake::default() };
        let output =
            run_with(&mut backend, &[&["debug", "fault", "gateway/listener"], line].concat());
        assert_eq!((output.code, output.out.as_str()), (0, ""), "{}", output.err);
        let path = "gateway/listener".to_owned();
        assert_eq!(backend.fault, Some(FaultParams { path, fault, slow_ms, at }));
    }
    for wrong in ["slow", "slow=soon", "explode"] {
        let output = run_with(&mut Fake::default(), &["debug", "fault", "gateway", wrong]);
        assert_eq!(output.code, 2, "{wrong}");
        assert!(output.err.contains("slow=MILLISECONDS"), "{}", output.err);
    }
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run_with(&mut Fake::default(), &["completions", shell]);
        assert_eq!(output.code, 0);
        assert!(output.out.contains("astscope"), "{shell}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for flag in ["--help", "-h", "--version"] {
        let output = run_with(&mut Fake::default(), &[flag]);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{flag}");
        assert!(output.out.contains("astscope"), "{flag}");
    }
    assert_eq!(run_with(&mut Fake::default(), &["frobnicate"]).code, 2);
}
