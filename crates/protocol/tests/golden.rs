//! The exact JSON of one sample of each message: a changed name, order or default breaks clients
//! that this repository doesn't know.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use astscope_protocol::RpcError;
use astscope_protocol::messages::{
    BreakerState, BreakerStatus, ByteRange, Cancel, ChangesParams, ChangesResult, ConfigParams,
    ConfigResult, Context, Delivery, Difference, DriftCounts, DriftRecord, Ended, ErrorCode,
    ErrorData, EventRecord, EventsParams, EventsResult, Explanation, FaultKind, FaultParams,
    FaultPoint, Fix, Freshness, HealthDetail, HealthParams, HealthResult, HealthStatus,
    HealthVerdict, HelloParams, HelloResult, IgnoreKind, Item, KillParams, MatchRecord,
    MatcherSpec, Matches, MemoryStatus, OpenOutcome, OpenParams, PROTOCOL, ParseParams,
    ParseResult, ParsersStatus, Peer, PlanStep, PointRecord, PointsLevel, PointsParams,
    PointsResult, Position, Progress, QuarantinedFile, Range, RememberedStatus, RequestCounts,
    Resync, ResyncReason, Revision, RuleSource, RunParams, ScanParams, ScrubCycle, ScrubStatus,
    Selection, ServiceHealth, SessionStatus, SettingRecord, SettingSource, SettingsError, Settled,
    SeverityOverrides, SkippedFile, StatusParams, StatusResult, StopParams, SubscribeParams,
    SubscribeResult, Summary, SyncAction, SyncParams, SyntaxError, TreeFormat, TreeParams,
    TreeResult, UnsubscribeParams, WORKSPACE_SERVICES, WatcherStatus, WorkspaceHealth,
    WorkspaceStatus,
};
use expect_test::{Expect, expect};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What ast-grep 0.51.1 prints for `run -p 'f($A)' -r 'g($A)' --json=stream`.
const RUN_MATCH: &str = r#"{"text":"f(x)","range":{"byteOffset":{"start":14,"end":18},"start":{"line":1,"column":4},"end":{"line":1,"column":8}},"file":"a.rs","lines":"    f(x);","charCount":{"leading":4,"trailing":1},"replacement":"g(x)","replacementOffsets":{"start":14,"end":18},"language":"Rust","metaVariables":{"single":{"A":{"text":"x","range":{"byteOffset":{"start":16,"end":17},"start":{"line":1,"column":6},"end":{"line":1,"column":7}}}},"multi":{},"transformed":{}}}"#;

/// What it prints for a scan with labels, metadata and a fix; the rule has no note.
const SCAN_MATCH: &str = r#"{"text":"f(x)","range":{"byteOffset":{"start":14,"end":18},"start":{"line":1,"column":4},"end":{"line":1,"column":8}},"file":"a.rs","lines":"    f(x);","charCount":{"leading":4,"trailing":1},"replacement":"g(x)","replacementOffsets":{"start":14,"end":18},"language":"Rust","metaVariables":{"single":{"A":{"text":"x","range":{"byteOffset":{"start":16,"end":17},"start":{"line":1,"column":6},"end":{"line":1,"column":7}}}},"multi":{},"transformed":{}},"ruleId":"no-f","severity":"error","note":null,"message":"no x","labels":[{"text":"x","range":{"byteOffset":{"start":16,"end":17},"start":{"line":1,"column":6},"end":{"line":1,"column":7}},"message":"here","style":"primary"}],"metadata":{"why":"x"}}"#;

/// The message is written as expected, and what was written means the same when it is read.
#[track_caller]
fn check<T: Serialize + DeserializeOwned>(message: &T, expected: &Expect) {
    let json = serde_json::to_string(message).unwrap();
    expected.assert_eq(&json);
    let again: T = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), json);
}

fn peer() -> Peer {
    Peer { name: "astscope".into(), version: "0.1.0".into() }
}

fn selection() -> Selection {
    Selection {
        cwd: "/p".into(),
        paths: vec!["src".into()],
        globs: vec!["!*.md".into()],
        no_ignore: vec![
            IgnoreKind::Hidden,
            IgnoreKind::Dot,
            IgnoreKind::Exclude,
            IgnoreKind::Global,
            IgnoreKind::Parent,
            IgnoreKind::Vcs,
        ],
        follow: true,
        language_globs: [("html".into(), vec!["*.vue".into()])].into(),
        stdin: Some("x".into()),
    }
}

fn delivery() -> Delivery {
    Delivery {
        limit: Some(10),
        deadline_ms: Some(500),
        wait_ms: Some(0),
        no_wait: true,
        files_only: false,
        include_source: true,
        brief: true,
        no_cache: true,
    }
}

fn range() -> Range {
    Range {
        byte_offset: ByteRange { start: 3, end: 4 },
        start: Position { line: 0, column: 3 },
        end: Position { line: 0, column: 4 },
    }
}

fn revision() -> Revision {
    Revision { epoch: 2, number: 9 }
}

fn skipped_file() -> SkippedFile {
    SkippedFile { path: "a".into(), reason: "empty".into(), detail: "the file is empty".into() }
}

#[test]
fn the_greeting() {
    check(
        &HelloParams { protocol: PROTOCOL, client: peer() },
        &expect![[
            r#"{"protocol":{"min":1,"max":1},"client":{"name":"astscope","version":"0.1.0"}}"#
        ]],
    );
    check(
        &HelloResult {
            protocol: 1,
            server: peer(),
            pid: 7,
            line_bytes_max: 16_777_216,
            requests_in_flight_max: 32,
        },
        &expect![[
            r#"{"protocol":1,"server":{"name":"astscope","version":"0.1.0"},"pid":7,"lineBytesMax":16777216,"requestsInFlightMax":32}"#
        ]],
    );
}

#[test]
fn run() {
    check(
        &RunParams {
            selection: selection(),
            matcher: MatcherSpec {
                pattern: Some("f($A)".into()),
                selector: Some("call_expression".into()),
                strictness: Some("smart".into()),
                kind: None,
            },
            language: Some("rust".into()),
            rewrite: Some("g($A)".into()),
            context: Context { before: 1, after: 2 },
            delivery: delivery(),
        },
        &expect![[
            r#"{"selection":{"cwd":"/p","paths":["src"],"globs":["!*.md"],"noIgnore":["hidden","dot","exclude","global","parent","vcs"],"follow":true,"languageGlobs":{"html":["*.vue"]},"stdin":"x"},"matcher":{"pattern":"f($A)","selector":"call_expression","strictness":"smart"},"language":"rust","rewrite":"g($A)","context":{"before":1,"after":2},"delivery":{"limit":10,"deadlineMs":500,"waitMs":0,"noWait":true,"filesOnly":false,"includeSource":true,"brief":true,"noCache":true}}"#
        ]],
    );
    check(
        &RunParams::default(),
        &expect![[
            r#"{"selection":{"cwd":"","paths":[],"globs":[],"noIgnore":[],"follow":false,"languageGlobs":{}},"matcher":{},"context":{"before":0,"after":0},"delivery":{"noWait":false,"filesOnly":false,"includeSource":false,"brief":false,"noCache":false}}"#
        ]],
    );
}

#[test]
fn scan() {
    check(
        &ScanParams {
            selection: Selection { cwd: "/p".into(), ..Selection::default() },
            rules: vec![RuleSource {
                source: "rules/a.yml".into(),
                yaml: "id: a".into(),
                default_id: Some("a".into()),
            }],
            utils: vec![RuleSource::default()],
            project_dir: "/p".into(),
            overrides: SeverityOverrides {
                filter: Some("^a".into()),
                min_severity: Some("warning".into()),
                default: Some("error".into()),
                by_id: [("a".into(), "off".into())].into(),
                all_rules: true,
            },
            include_metadata: true,
            all_fixes: true,
            context: Context::default(),
            delivery: Delivery::default(),
        },
        &expect![[
            r#"{"selection":{"cwd":"/p","paths":[],"globs":[],"noIgnore":[],"follow":false,"languageGlobs":{}},"rules":[{"source":"rules/a.yml","yaml":"id: a","defaultId":"a"}],"utils":[{"source":"","yaml":""}],"projectDir":"/p","overrides":{"filter":"^a","minSeverity":"warning","default":"error","byId":{"a":"off"},"allRules":true},"includeMetadata":true,"allFixes":true,"context":{"before":0,"after":0},"delivery":{"noWait":false,"filesOnly":false,"includeSource":false,"brief":false,"noCache":false}}"#
        ]],
    );
}

#[test]
fn items_and_the_summary_of_a_query() {
    let item = Item {
        id: 1,
        file: "a.rs".into(),
        content_id: "af13".into(),
        source: Some("f(x)".into()),
        matches: serde_json::from_str(&format!("[{RUN_MATCH}]")).unwrap(),
    };
    let json = serde_json::to_string(&item).unwrap();
    let expected = format!(
        r#"{{"id":1,"file":"a.rs","contentId":"af13","source":"f(x)","matches":[{RUN_MATCH}]}}"#
    );
    assert_eq!(json, expected);
    check(
        &Summary {
            revision: Some(revision()),
            matches: 1,
            files_matched: 1,
            files_verified: 2,
            files_remembered: 1,
            files_selected: 3,
            files_pending: 0,
            freshness: Some(Freshness {
                state: "lagging".into(),
                files: 1,
                ms: 40,
                paths: vec!["a".into()],
                names_unknown: true,
            }),
            skipped: vec![skipped_file()],
            files_kept: vec![skipped_file()],
            limit_reached: false,
            pattern_has_error: true,
            error_matches: 0,
            hints: vec!["try a statement".into()],
            elapsed_us: 1500,
        },
        &expect![[
            r#"{"revision":{"epoch":2,"number":9},"matches":1,"filesMatched":1,"filesVerified":2,"filesRemembered":1,"filesSelected":3,"filesPending":0,"freshness":{"state":"lagging","files":1,"ms":40,"paths":["a"],"namesUnknown":true},"skipped":[{"path":"a","reason":"empty","detail":"the file is empty"}],"filesKept":[{"path":"a","reason":"empty","detail":"the file is empty"}],"limitReached":false,"patternHasError":true,"errorMatches":0,"hints":["try a statement"],"elapsedUs":1500}"#
        ]],
    );
    check(
        &Progress { id: 1, phase: "indexing".into(), done: 3, total: 9 },
        &expect![[r#"{"id":1,"phase":"indexing","done":3,"total":9}"#]],
    );
    check(&Cancel { id: 1 }, &expect![[r#"{"id":1}"#]]);
}

#[test]
fn explain() {
    check(
        &Explanation {
            revision: Some(revision()),
            freshness: None,
            requirements: [("Rust".into(), vec!["text `f`".into()])].into(),
            steps: vec![PlanStep { step: "selected".into(), files: 3 }],
            files_verified: 2,
            files_remembered: 1,
            files_matched: 1,
            matches: 1,
            micros: [("match".into(), 12)].into(),
            hints: Vec::new(),
        },
        &expect![[
            r#"{"revision":{"epoch":2,"number":9},"requirements":{"Rust":["text `f`"]},"steps":[{"step":"selected","files":3}],"filesVerified":2,"filesRemembered":1,"filesMatched":1,"matches":1,"micros":{"match":12},"hints":[]}"#
        ]],
    );
}

#[test]
fn parse() {
    check(
        &ParseParams {
            cwd: "/p".into(),
            path: Some("a.rs".into()),
            text: None,
            language: Some("rust".into()),
            cst: true,
            json: false,
        },
        &expect![[r#"{"cwd":"/p","path":"a.rs","language":"rust","cst":true,"json":false}"#]],
    );
    check(
        &ParseResult {
            language: "Rust".into(),
            tree: "(source_file)".into(),
            nodes: 1,
            errors: vec![SyntaxError { range: range(), missing: Some(";".into()) }],
        },
        &expect![[
            r#"{"language":"Rust","tree":"(source_file)","nodes":1,"errors":[{"range":{"byteOffset":{"start":3,"end":4},"start":{"line":0,"column":3},"end":{"line":0,"column":4}},"missing":";"}]}"#
        ]],
    );
}

#[test]
fn points() {
    check(
        &PointsParams {
            cwd: "/p".into(),
            path: Some("a.rs".into()),
            text: None,
            language: None,
            level: PointsLevel::Debug,
        },
        &expect![[r#"{"cwd":"/p","path":"a.rs","level":"debug"}"#]],
    );
    let nothing: PointsParams = serde_json::from_str("{}").unwrap();
    assert_eq!(nothing.level, PointsLevel::Balanced);
    let point = PointRecord {
        id: "ab".into(),
        correlation: "corr_call_ab".into(),
        kind: "call".into(),
        strategy: "expression_trace".into(),
        priority: -5,
        language: "Rust".into(),
        symbol: "m.f/1".into(),
        name: Some("g".into()),
        arity: Some(1),
        public: true,
        pattern_matching: false,
        guards: true,
        captures: vec!["args".into()],
        start: range().start,
    };
    check(
        &PointsResult { language: "Rust".into(), impact_percent: 6, points: vec![point] },
        &expect![[
            r#"{"language":"Rust","impactPercent":6,"points":[{"id":"ab","correlation":"corr_call_ab","kind":"call","strategy":"expression_trace","priority":-5,"language":"Rust","symbol":"m.f/1","name":"g","arity":1,"public":true,"patternMatching":false,"guards":true,"captures":["args"],"start":{"line":0,"column":3}}]}"#
        ]],
    );
}

fn watcher() -> WatcherStatus {
    WatcherStatus {
        state: "unavailable".into(),
        pause_ms: 2000,
        reason: Some("gone".into()),
        settle_ms: 50,
        directories: 12,
        waiting: 1,
        unsteady: Some("ignore rules may have changed".to_owned()),
        proven: 40,
        looked: 2,
    }
}

fn scrub() -> ScrubStatus {
    ScrubStatus {
        enabled: true,
        checked: 1,
        files: 2,
        cycles: 3,
        last_cycle: Some(ScrubCycle {
            timestamp_ms: 4,
            took_ms: 5,
            files: 6,
            left_out: 7,
            drift: DriftCounts::default(),
        }),
        drift: DriftCounts { content: 1, tree: 2, missing: 3, ghost: 4 },
        last_drift: Some(DriftRecord {
            path: "/p/a".into(),
            cause: "tree".into(),
            timestamp_ms: 8,
        }),
    }
}

#[test]
fn open_status_and_stop() {
    check(&OpenParams { path: "/p".into() }, &expect![[r#"{"path":"/p"}"#]]);
    check(&StatusParams { skipped_files: true }, &expect![[r#"{"skippedFiles":true}"#]]);
    check(&StopParams { drain: true }, &expect![[r#"{"drain":true}"#]]);
    let workspace = WorkspaceStatus {
        root: "/p".into(),
        revision: revision(),
        indexing: false,
        files_seen: 3,
        files_parsed: 2,
        skipped: [("empty".into(), 1)].into(),
        skipped_files: vec![skipped_file()],
        files_kept: 1,
        kept_files: vec![skipped_file()],
        languages: [("Rust".into(), 2)].into(),
        source_bytes: 100,
        nodes: 30,
        tree_bytes: 400,
        indexed_in_ms: Some(5),
        remembered: RememberedStatus { queries: 1, results: 2, bytes: 3, hits: 4, misses: 5 },
        breakers: vec![
            BreakerStatus {
                name: "files".into(),
                state: BreakerState::HalfOpen,
                failures: 5,
                retry_in_ms: None,
            },
            BreakerStatus {
                name: "parsing".into(),
                state: BreakerState::Open,
                failures: 5,
                retry_in_ms: Some(30_000),
            },
        ],
        watcher: watcher(),
        scrub: scrub(),
        outcome: Some(OpenOutcome::AstLayerStarted),
    };
    check(
        &workspace,
        &expect![[
            r#"{"root":"/p","revision":{"epoch":2,"number":9},"indexing":false,"filesSeen":3,"filesParsed":2,"skipped":{"empty":1},"skippedFiles":[{"path":"a","reason":"empty","detail":"the file is empty"}],"filesKept":1,"keptFiles":[{"path":"a","reason":"empty","detail":"the file is empty"}],"languages":{"Rust":2},"sourceBytes":100,"nodes":30,"treeBytes":400,"indexedInMs":5,"remembered":{"queries":1,"results":2,"bytes":3,"hits":4,"misses":5},"breakers":[{"name":"files","state":"half_open","failures":5},{"name":"parsing","state":"open","failures":5,"retryInMs":30000}],"watcher":{"state":"unavailable","pauseMs":2000,"settleMs":50,"reason":"gone","directories":12,"waiting":1,"unsteady":"ignore rules may have changed","proven":40,"looked":2},"scrub":{"enabled":true,"checked":1,"files":2,"cycles":3,"lastCycle":{"timestampMs":4,"tookMs":5,"files":6,"leftOut":7,"drift":{"content":0,"tree":0,"missing":0,"ghost":0}},"drift":{"content":1,"tree":2,"missing":3,"ghost":4},"lastDrift":{"path":"/p/a","cause":"tree","timestampMs":8}},"outcome":"ast_layer_started"}"#
        ]],
    );
    check(
        &StatusResult {
            server: peer(),
            pid: 7,
            socket: "/run/user/7/astscope/daemon.sock".into(),
            uptime_seconds: 60,
            idle_exit_seconds: None,
            clients: 1,
            sessions: vec![SessionStatus { session: 4, client: "test 1.0.0".into() }],
            memory: MemoryStatus {
                text: 1,
                trees: 2,
                indexes: 3,
                caches: 4,
                resident_anon: 5,
                resident_file: 6,
            },
            settings_error: Some("line 2: no".into()),
            parsers: Some(ParsersStatus {
                processes: 2,
                lost: 1,
                restrictions: "no files".into(),
                quarantined: 1,
                forgotten_because: Some("read-only".into()),
                quarantined_files: vec![QuarantinedFile {
                    content_id: "ab".into(),
                    language: "Rust".into(),
                    detail: "hung".into(),
                    at_seconds: 9,
                }],
            }),
            workspaces: Vec::new(),
        },
        &expect![[
            r#"{"server":{"name":"astscope","version":"0.1.0"},"pid":7,"socket":"/run/user/7/astscope/daemon.sock","uptimeSeconds":60,"idleExitSeconds":null,"clients":1,"sessions":[{"session":4,"client":"test 1.0.0"}],"memory":{"text":1,"trees":2,"indexes":3,"caches":4,"residentAnon":5,"residentFile":6},"settingsError":"line 2: no","parsers":{"processes":2,"lost":1,"restrictions":"no files","quarantined":1,"forgottenBecause":"read-only","quarantinedFiles":[{"contentId":"ab","language":"Rust","detail":"hung","atSeconds":9}]},"workspaces":[]}"#
        ]],
    );
}

#[test]
fn sync() {
    check(
        &SyncParams { path: "/p".into(), action: SyncAction::Resume, deadline_ms: Some(500) },
        &expect![[r#"{"path":"/p","action":"resume","deadlineMs":500}"#]],
    );
    check(&SyncParams::default(), &expect![[r#"{"path":"","action":"flush"}"#]]);
}

#[test]
fn changes() {
    check(
        &ChangesParams { path: "/p".into(), since: Some(revision()), deadline_ms: Some(500) },
        &expect![[r#"{"path":"/p","since":{"epoch":2,"number":9},"deadlineMs":500}"#]],
    );
    check(&ChangesParams::default(), &expect![[r#"{"path":""}"#]]);
    check(
        &ChangesResult {
            root: "/p".into(),
            revision: revision(),
            added: vec!["a".into()],
            changed: vec!["src/b".into()],
            removed: vec!["c".into(), "d".into()],
        },
        &expect![[
            r#"{"root":"/p","revision":{"epoch":2,"number":9},"added":["a"],"changed":["src/b"],"removed":["c","d"]}"#
        ]],
    );
}

#[test]
fn subscriptions() {
    let params = SubscribeParams { no_initial: true, ..SubscribeParams::default() };
    let json = serde_json::to_string(&params).unwrap();
    assert!(json.starts_with(r#"{"run":{"selection":"#) && json.ends_with(r#","noInitial":true}"#));
    let nothing: SubscribeParams = serde_json::from_str("{}").unwrap();
    assert!(!nothing.no_initial && nothing.scan.is_none());
    let scan = r#"{"scan":{"projectDir":"/p"}}"#;
    let scan: SubscribeParams = serde_json::from_str(scan).unwrap();
    assert_eq!(scan.scan.unwrap().project_dir, "/p");
    let hints = vec!["h".into()];
    check(
        &SubscribeResult {
            subscription: 3,
            revision: revision(),
            matches: 1,
            pattern_has_error: false,
            hints,
        },
        &expect![[
            r#"{"subscription":3,"revision":{"epoch":2,"number":9},"matches":1,"patternHasError":false,"hints":["h"]}"#
        ]],
    );
    check(&UnsubscribeParams { subscription: 3 }, &expect![[r#"{"subscription":3}"#]]);
    for (reason, name) in [
        (ResyncReason::Initial, "initial"),
        (ResyncReason::Slow, "slow"),
        (ResyncReason::Restarted, "restarted"),
    ] {
        let json = format!(r#"{{"subscription":3,"reason":"{name}"}}"#);
        let resync = Resync { subscription: 3, reason };
        assert_eq!(serde_json::to_string(&resync).unwrap(), json);
        assert_eq!(serde_json::from_str::<Resync>(&json).unwrap(), resync);
    }
    let later = r#"{"subscription":3,"reason":"later"}"#;
    let later: Resync = serde_json::from_str(later).unwrap();
    assert_eq!(later.reason, ResyncReason::Other);
    let found: Matches = serde_json::from_str(&format!("[{RUN_MATCH}]")).unwrap();
    let difference = |content_id| Difference {
        subscription: 3,
        file: "a.rs".into(),
        content_id,
        disappeared: Matches::default(),
        appeared: found.clone(),
    };
    let json = serde_json::to_string(&difference(Some("ab".into()))).unwrap();
    let expected = format!(
        r#"{{"subscription":3,"file":"a.rs","contentId":"ab","disappeared":[],"appeared":[{RUN_MATCH}]}}"#
    );
    assert_eq!(json, expected);
    let gone = serde_json::to_string(&difference(None)).unwrap();
    assert_eq!(gone, expected.replace(r#""contentId":"ab","#, ""));
    assert_eq!(serde_json::from_str::<Difference>(&gone).unwrap().content_id, None);
    check(
        &Settled { subscription: 3, revision: revision() },
        &expect![[r#"{"subscription":3,"revision":{"epoch":2,"number":9}}"#]],
    );
    let error = RpcError::new(ErrorCode::TooManyMatches, "m");
    check(
        &Ended { subscription: 3, error },
        &expect![[
            r#"{"subscription":3,"error":{"code":-32025,"message":"m","data":{"code":"too_many_matches","retryable":false}}}"#
        ]],
    );
}

#[test]
fn tree_and_kill() {
    for (format, json) in [
        (TreeFormat::Text, r#"{"format":"text"}"#),
        (TreeFormat::Json, r#"{"format":"json"}"#),
        (TreeFormat::Mermaid, r#"{"format":"mermaid"}"#),
    ] {
        assert_eq!(serde_json::to_string(&TreeParams { format }).unwrap(), json);
        assert_eq!(serde_json::from_str::<TreeParams>(json).unwrap().format, format);
    }
    assert_eq!(serde_json::from_str::<TreeParams>("{}").unwrap().format, TreeFormat::Text);
    let tree = serde_json::value::to_raw_value(&serde_json::json!({"id":"daemon"})).unwrap();
    check(&TreeResult { tree: Some(tree), text: None }, &expect![[r#"{"tree":{"id":"daemon"}}"#]]);
    check(
        &TreeResult { tree: None, text: Some("daemon\n".into()) },
        &expect![[r#"{"text":"daemon\n"}"#]],
    );
    check(
        &KillParams { path: "gateway/listener".into() },
        &expect![[r#"{"path":"gateway/listener"}"#]],
    );
    check(
        &FaultParams { path: "gateway/listener".into(), ..FaultParams::default() },
        &expect![[r#"{"path":"gateway/listener","fault":"panic","at":"run"}"#]],
    );
    let slow = FaultParams {
        path: "foundation/signals".into(),
        fault: FaultKind::Slow,
        slow_ms: Some(50),
        at: FaultPoint::Stop,
    };
    check(
        &slow,
        &expect![[r#"{"path":"foundation/signals","fault":"slow","slowMs":50,"at":"stop"}"#]],
    );
}

#[test]
fn events() {
    check(&EventsParams { after: 3 }, &expect![[r#"{"after":3}"#]]);
    let event = EventRecord {
        number: 4,
        timestamp_ms: 5,
        kind: "restarted".into(),
        about: "daemon/gateway".into(),
        detail: Some("incarnation 2".into()),
    };
    check(
        &EventsResult { events: vec![event], missed: 1 },
        &expect![[
            r#"{"events":[{"number":4,"timestampMs":5,"kind":"restarted","about":"daemon/gateway","detail":"incarnation 2"}],"missed":1}"#
        ]],
    );
}

#[test]
fn config() {
    check(&ConfigParams {}, &expect![["{}"]]);
    let setting = |name: &str, value: &str, source| SettingRecord {
        name: name.into(),
        value: value.into(),
        source,
    };
    let config = ConfigResult {
        settings: vec![
            setting("log", "info", SettingSource::Default),
            setting("idle_timeout", "2h", SettingSource::File),
            setting("watch.every_min", "2s", SettingSource::Start),
        ],
        file: Some("/c/config.toml".into()),
        error: Some(SettingsError { line: Some(2), message: "no".into() }),
    };
    check(
        &config,
        &expect![[
            r#"{"settings":[{"name":"log","value":"info","source":"default"},{"name":"idle_timeout","value":"2h","source":"file"},{"name":"watch.every_min","value":"2s","source":"start"}],"file":"/c/config.toml","error":{"line":2,"message":"no"}}"#
        ]],
    );
}

#[test]
fn health() {
    check(&HealthParams {}, &expect![["{}"]]);
    let service = |name: &str, verdict| ServiceHealth {
        name: name.into(),
        alive: verdict != HealthVerdict::Down && verdict != HealthVerdict::Restarting,
        verdict,
        waits_for: match verdict {
            HealthVerdict::NotReady => vec!["repository_core".into()],
            _ => Vec::new(),
        },
    };
    let verdicts = [
        HealthVerdict::NotReady,
        HealthVerdict::Restarting,
        HealthVerdict::Hung,
        HealthVerdict::Down,
    ];
    let services = WORKSPACE_SERVICES.iter().zip(verdicts);
    check(
        &HealthResult {
            status: HealthStatus::Degraded,
            timestamp_ms: 1_795_271_573_392,
            workspaces: vec![WorkspaceHealth {
                root: "/p".into(),
                status: HealthStatus::Failed,
                services: services.map(|(name, verdict)| service(name, verdict)).collect(),
            }],
            details: vec![HealthDetail {
                name: "gateway".into(),
                verdict: HealthVerdict::Healthy,
                value: Some("2 clients".into()),
            }],
            requests: RequestCounts { total: 9, failed: 1, p50_us: 2, p95_us: 3, p99_us: 4 },
        },
        &expect![[
            r#"{"status":"degraded","timestampMs":1795271573392,"workspaces":[{"root":"/p","status":"failed","services":[{"name":"repository_core","alive":true,"verdict":"not_ready","waitsFor":["repository_core"]},{"name":"repository_enhanced","alive":false,"verdict":"restarting"},{"name":"pattern_matcher_core","alive":true,"verdict":"hung"},{"name":"file_watcher","alive":false,"verdict":"down"}]}],"details":[{"name":"gateway","verdict":"healthy","value":"2 clients"}],"requests":{"total":9,"failed":1,"p50Us":2,"p95Us":3,"p99Us":4}}"#
        ]],
    );
    let least: HealthResult = serde_json::from_str("{}").unwrap();
    assert_eq!((least.status, least.requests.total), (HealthStatus::Healthy, 0));
}

#[test]
fn error_data() {
    check(
        &ErrorData {
            code: ErrorCode::InvalidPattern,
            retryable: false,
            help: Some("write a statement".into()),
            causes: vec!["two nodes".into()],
            offset: Some(4),
        },
        &expect![[
            r#"{"code":"invalid_pattern","retryable":false,"help":"write a statement","causes":["two nodes"],"offset":4}"#
        ]],
    );
}

#[test]
fn a_match_is_ast_greps_object_to_the_byte() {
    for json in [RUN_MATCH, SCAN_MATCH] {
        let record: MatchRecord = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&record).unwrap(), json);
    }
}

#[test]
fn the_fixes_of_a_rule_stand_behind_what_ast_grep_prints() {
    let mut record: MatchRecord = serde_json::from_str(SCAN_MATCH).unwrap();
    let title = Some("use g".into());
    let range = ByteRange { start: 14, end: 18 };
    record.fixes = vec![Fix { replacement: "g(x)".into(), range, title }];
    let json = serde_json::to_string(&record).unwrap();
    let fixes =
        r#","fixes":[{"replacement":"g(x)","range":{"start":14,"end":18},"title":"use g"}]}"#;
    assert_eq!(json, SCAN_MATCH.strip_suffix('}').unwrap().to_owned() + fixes);
}

#[test]
fn absent_and_unknown_fields_are_fine() {
    let params: RunParams =
        serde_json::from_str(r#"{"matcher":{"pattern":"x","later":1},"later":{}}"#).unwrap();
    assert_eq!(params.matcher.pattern.as_deref(), Some("x"));
    assert_eq!(params.delivery.limit, None);
}
