//! Queries that stand: what is told of each edit, to whoever reads it at once, late, or not at all.

use crate::support::{
    Daemon, LONG_ANSWER_FILES, call, everything, long_answer, open, pattern, refused, run, scan,
    status, text,
};
use astscope_daemon::IdleExit;
use astscope_fixtures::Fixture;
use astscope_protocol::client::News;
use astscope_protocol::messages::{
    ChangesParams, ErrorCode, IgnoreKind, KillParams, MatchRecord, ResyncReason, Revision,
    RuleSource, RunParams, ScanParams, SubscribeParams, SubscribeResult, TreeFormat, TreeParams,
    TreeResult, UnsubscribeParams, method,
};
use astscope_protocol::{Client, Event, SUBSCRIPTION_MATCHES_MAX, SUBSCRIPTIONS_MAX};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Each file with its content id and its matches as JSON.
type Files = BTreeMap<String, (String, Vec<String>)>;

/// A subscription, and what its client makes of what it is told.
struct Mirror {
    client: Client,
    begun: SubscribeResult,
    files: Files,
    /// What was told since this was last looked at.
    told: Vec<String>,
}

impl Mirror {
    fn subscribe(daemon: &Daemon, run: &RunParams) -> Self {
        Self::subscribe_with(daemon, run, false)
    }

    fn subscribe_with(daemon: &Daemon, run: &RunParams, no_initial: bool) -> Self {
        let run = run.clone();
        Self::begin(daemon, &SubscribeParams { run, no_initial, ..SubscribeParams::default() })
    }

    fn begin(daemon: &Daemon, params: &SubscribeParams) -> Self {
        let mut client = daemon.client();
        let begun = call(&mut client, method::SUBSCRIBE, params);
        Self { client, begun, files: Files::new(), told: Vec::new() }
    }

    /// Applies what is told.
    #[track_caller]
    fn apply(&mut self, news: News) -> Option<Revision> {
        match news {
            News::Resync(resync) => {
                self.files.clear();
                self.told.push(format!("resync {:?}", resync.reason));
            }
            News::Difference(difference) => {
                let file = difference.file;
                let (content, matches) = self.files.entry(file.clone()).or_default();
                for gone in difference.disappeared.iter() {
                    let at = matches.iter().position(|known| known == gone);
                    matches.remove(at.expect("what disappears was there"));
                    self.told.push(format!("- {file}:{}", shown(gone)));
                }
                for new in difference.appeared.iter() {
                    matches.push(new.to_owned());
                    self.told.push(format!("+ {file}:{}", shown(new)));
                }
                matches.sort_by_key(|json| start(json));
                *content = difference.content_id.unwrap_or_default();
                if matches.is_empty() {
                    self.files.remove(&file);
                }
            }
            News::Settled(settled) => return Some(settled.revision),
            News::Ended(ended) => panic!("{}", ended.error),
        }
        None
    }

    /// Reads until what was told is whole.
    #[track_caller]
    fn settle(&mut self) -> Revision {
        loop {
            let news = self.client.news().expect("the connection lasts");
            if let Some(revision) = self.apply(news) {
                return revision;
            }
        }
    }

    /// What was told until then.
    #[track_caller]
    fn told(&mut self) -> Vec<String> {
        self.settle();
        std::mem::take(&mut self.told)
    }

    /// Reads until it has these files.
    #[track_caller]
    fn until(&mut self, files: &Files) {
        while self.files != *files {
            self.settle();
        }
    }
}

fn start(json: &str) -> (u64, u64) {
    let at = serde_json::from_str::<MatchRecord>(json).unwrap().range.byte_offset;
    (at.start, u64::MAX - at.end)
}

fn shown(json: &str) -> String {
    let found: MatchRecord = serde_json::from_str(json).unwrap();
    format!("{} {}", found.range.start.line + 1, found.text.unwrap())
}

/// What `run` finds.
fn found(client: &mut Client, params: &RunParams) -> Files {
    let item = |item: &astscope_protocol::messages::Item| {
        let matches = item.matches.iter().map(str::to_owned).collect();
        (item.file.clone(), (item.content_id.clone(), matches))
    };
    run(client, params).items.iter().map(item).collect()
}

/// What `scan` finds.
fn scanned(client: &mut Client, params: &ScanParams) -> Files {
    let item = |item: &astscope_protocol::messages::Item| {
        let mut matches: Vec<String> = item.matches.iter().map(str::to_owned).collect();
        matches.sort_by_key(|json| start(json));
        (item.file.clone(), (item.content_id.clone(), matches))
    };
    scan(client, params).items.iter().map(item).collect()
}

/// Has the daemon look at the disk.
fn commit(client: &mut Client, tree: &Fixture) {
    let params = ChangesParams { path: text(&tree.root()), ..ChangesParams::default() };
    call::<Value>(client, method::CHANGES, &params);
}

/// A daemon that looks at its roots ten times a second.
fn attentive() -> Daemon {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("config.toml");
    fs::write(&file, "[watch]\nevery_min = '100ms'\nevery_max = '100ms'\n").unwrap();
    Daemon::start_in(dir, |config| config.settings.file = Some(file))
}

/// Writes a file so that nobody sees half of it.
fn replace(tree: &Fixture, name: &str, text: &str) {
    tree.write("next", text);
    fs::rename(tree.path("next"), tree.path(name)).unwrap();
}

#[test]
fn each_edit_is_told_as_what_disappeared_and_what_appeared() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.js\ng()\n");
    let params = pattern(&tree, "js", "f($A)");
    let mut other = daemon.client();
    let mut mirror = Mirror::subscribe(&daemon, &params);
    assert_eq!((mirror.begun.subscription, mirror.begun.matches), (1, 1));
    assert_eq!(mirror.told(), ["resync Initial", "+ a.js:1 f(1)"]);

    replace(&tree, "b.js", "f(2)\nf(3)\n");
    let seen = run(&mut other, &params).summary.revision.unwrap();
    let revision = mirror.settle();
    assert!(revision.epoch == seen.epoch && revision.number >= seen.number);
    assert_eq!(std::mem::take(&mut mirror.told), ["+ b.js:1 f(2)", "+ b.js:2 f(3)"]);
    for (name, text, told) in [
        ("b.js", "f(2)\nf(4)\n", &["- b.js:2 f(3)", "+ b.js:2 f(4)"][..]),
        // One that only moved is another: its range is part of it.
        ("a.js", "\nf(1)\n", &["- a.js:1 f(1)", "+ a.js:2 f(1)"]),
        // The same matches in other bytes.
        ("a.js", "\nf(1)\n// x\n", &[]),
        ("c.js", "f(5)\n", &["+ c.js:1 f(5)"]),
        ("c.js", "h(5)\n", &["- c.js:1 f(5)"]),
    ] {
        replace(&tree, name, text);
        let now = found(&mut other, &params);
        assert_eq!(mirror.told(), told);
        assert_eq!(mirror.files, now);
    }
    tree.remove("b.js");
    let now = found(&mut other, &params);
    assert_eq!(mirror.told(), ["- b.js:1 f(2)", "- b.js:2 f(4)"]);
    assert_eq!(mirror.files, now);

    let end = UnsubscribeParams { subscription: mirror.begun.subscription };
    for _ in 0..2 {
        call::<Value>(&mut mirror.client, method::UNSUBSCRIBE, &end);
    }
    replace(&tree, "a.js", "f(6)\n");
    found(&mut other, &params);
    let mut news = 0;
    let answer: Value = mirror
        .client
        .call_streaming(method::RUN, &params, |event| {
            news += u32::from(matches!(event, Event::News(_)));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((answer["matches"].as_u64(), news), (Some(1), 0));
}

#[test]
fn what_is_told_of_rules_is_what_a_scan_finds() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.js\ng()\n//- /test/c.js\nf(2)\n");
    let rules = "id: no-f\nlanguage: js\nseverity: error\nmessage: no $A\nrule: {pattern: f($A)}\nignores: ['test/**']\n\
                 ---\nid: no-g\nlanguage: js\nrule: {pattern: g($$$)}\n";
    let rules = RuleSource { source: "r.yml".into(), yaml: rules.into(), default_id: None };
    let selection = everything(&tree);
    let project_dir = selection.cwd.clone();
    let params = ScanParams { selection, rules: vec![rules], project_dir, ..ScanParams::default() };
    let subscribe = SubscribeParams { scan: Some(params.clone()), ..SubscribeParams::default() };
    let mut other = daemon.client();
    let mut mirror = Mirror::begin(&daemon, &subscribe);
    assert_eq!(mirror.begun.matches, 2);
    assert_eq!(mirror.told(), ["resync Initial", "+ a.js:1 f(1)", "+ b.js:1 g()"]);
    assert_eq!(mirror.files, scanned(&mut other, &params));
    for (name, text, told) in [
        ("b.js", "g()\nf(3)\n", &["+ b.js:2 f(3)"][..]),
        ("b.js", "f(3) // ast-grep-ignore\n", &["- b.js:1 g()", "- b.js:2 f(3)"]),
        // A rule is about some paths only.
        ("test/c.js", "f(4)\ng(1)\n", &["+ test/c.js:2 g(1)"]),
        ("a.js", "f(f(5))\n", &["- a.js:1 f(1)", "+ a.js:1 f(f(5))", "+ a.js:1 f(5)"]),
    ] {
        replace(&tree, name, text);
        let now = scanned(&mut other, &params);
        assert_eq!(mirror.told(), told);
        assert_eq!(mirror.files, now, "{name}: {text:?}");
    }
    tree.remove("a.js");
    let now = scanned(&mut other, &params);
    mirror.settle();
    assert_eq!(mirror.files, now);

    let wrong = RuleSource { yaml: "id: x\nlanguage: js\n".into(), ..params.rules[0].clone() };
    let wrong = ScanParams { rules: vec![wrong], ..params };
    let wrong = SubscribeParams { scan: Some(wrong), ..SubscribeParams::default() };
    let error = refused(&mut other, method::SUBSCRIBE, &wrong);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidRule));
}

/// Numbers that depend on the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

#[test]
fn what_was_told_is_what_run_finds_after_any_edits() {
    let daemon = attentive();
    for seed in 1..=4 {
        let tree = Fixture::parse("//- /0.js\nf(1)\n//- /lib/1.js\nf(2); g()\n//- /2.html\n<p>x\n");
        let mut params = pattern(&tree, "js", "f($A)");
        if seed % 2 == 0 {
            // A selection of which nothing is indexed.
            params.selection.globs = vec!["!3.js".to_owned()];
        }
        let mut mirror = Mirror::subscribe(&daemon, &params);
        let mut other = daemon.client();
        let mut random = Random(seed);
        let names = ["0.js", "lib/1.js", "2.html", "3.js", "lib/4.js", "5.py"];
        for step in 0..60 {
            let name = random.one_of(&names);
            match random.below(8) {
                0 | 1 => drop(fs::remove_file(tree.path(name))),
                2 => {
                    let to = random.one_of(&names);
                    drop(fs::rename(tree.path(name), tree.path(to)));
                }
                // Whoever looks in between sees half of it.
                3 => tree.write(name, format!("f({step});\nf(a)\n").repeat(3)),
                _ => {
                    let text = match random.below(4) {
                        0 => String::new(),
                        1 => format!("\ng(1)\nf({})\n", random.below(3)),
                        2 => format!("<script>f({step})</script>\n"),
                        _ => "f(1); f(1)\n".to_owned(),
                    };
                    replace(&tree, name, &text);
                }
            }
            if random.below(5) == 0 {
                mirror.until(&found(&mut other, &params));
            }
        }
        let now = found(&mut other, &params);
        mirror.until(&now);
        assert_eq!(mirror.files, now, "seed {seed}");
    }
}

#[test]
fn who_reads_late_is_told_everything_anew_and_holds_up_nobody() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut other = daemon.client();
    open(&mut other, &tree.root());
    let params = pattern(&tree, "js", "f($A)");
    let mut late = Mirror::subscribe_with(&daemon, &params, true);
    let mut reader = Mirror::subscribe(&daemon, &params);
    reader.settle();
    let (started, mut round) = (Instant::now(), 0);
    // Far more is other than what the sockets hold, and for longer than a client may take.
    while started.elapsed() < Duration::from_secs(3) {
        round += 1;
        for file in 0..LONG_ANSWER_FILES {
            let name = format!("{file:03}.js");
            let text = tree.read(&name);
            replace(&tree, &name, &format!("f({round}); {text}"));
        }
        reader.until(&found(&mut other, &params));
    }
    let now = found(&mut other, &params);
    // Of what it was told at first, nothing is of use.
    late.files = reader.files.clone();
    let n_first = std::iter::from_fn(|| Some(late.client.news().unwrap()))
        .take_while(|news| matches!(news, News::Difference(_)))
        .count();
    assert!((n_first as u64) < LONG_ANSWER_FILES, "{n_first}");
    late.files.clear();
    late.settle();
    assert!(late.files == now, "the newest");
    let told = std::mem::take(&mut late.told);
    assert!(told.iter().all(|line| line.starts_with('+')), "and nothing in between");
    replace(&tree, "000.js", "f(0)\n");
    let now = found(&mut other, &params);
    late.until(&now);
    assert!(late.told.iter().all(|line| line.contains("000.js")), "and then as ever");
}

#[test]
fn a_connection_has_so_many_subscriptions_and_each_so_many_matches() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let params = pattern(&tree, "js", "f($A)");
    let subscribe = SubscribeParams { run: params.clone(), scan: None, no_initial: true };
    let mut client = daemon.client();
    for n in 1..=u64::from(SUBSCRIPTIONS_MAX) {
        let begun: SubscribeResult = call(&mut client, method::SUBSCRIBE, &subscribe);
        assert_eq!(begun.subscription, n);
    }
    let error = refused(&mut client, method::SUBSCRIBE, &subscribe);
    assert_eq!(error.error_code(), Some(ErrorCode::Overloaded), "{error}");
    let end = UnsubscribeParams { subscription: 3 };
    call::<Value>(&mut client, method::UNSUBSCRIBE, &end);
    call::<SubscribeResult>(&mut client, method::SUBSCRIBE, &subscribe);
    drop(client);

    let mut mirror = Mirror::subscribe(&daemon, &params);
    mirror.settle();
    let n = usize::try_from(SUBSCRIPTION_MATCHES_MAX).unwrap();
    replace(&tree, "a.js", &"f(1)\n".repeat(n + 1));
    commit(&mut daemon.client(), &tree);
    let ended = match mirror.client.news().unwrap() {
        News::Ended(ended) => ended,
        other => panic!("{other:?}"),
    };
    assert_eq!(ended.subscription, mirror.begun.subscription);
    assert_eq!(ended.error.error_code(), Some(ErrorCode::TooManyMatches));
    replace(&tree, "a.js", "f(1)\n");
    let begun: SubscribeResult = call(&mut mirror.client, method::SUBSCRIBE, &subscribe);
    assert_eq!((begun.subscription, begun.matches), (2, 1), "the connection goes on");
}

#[test]
fn a_file_that_never_proves_unchanged_keeps_nobody_busy() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n//- /b.js\nf(2)\n");
    // A time stamp in the future: each look reads the file once more.
    let file = fs::File::options().write(true).open(tree.path("a.js")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_hours(1)).unwrap();
    let mut mirror = Mirror::subscribe(&daemon, &pattern(&tree, "js", "f($A)"));
    mirror.settle();
    let mut other = daemon.client();
    replace(&tree, "b.js", "f(3)\n");
    commit(&mut other, &tree);
    mirror.settle();
    let before = status(&mut other).workspaces[0].revision.number;
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(500) {
        assert!(status(&mut other).clients == 2);
    }
    let n_looks = status(&mut other).workspaces[0].revision.number - before;
    assert!(n_looks < 5, "{n_looks}");
}

type Adjust<'a> = &'a dyn Fn(&mut RunParams);

#[test]
fn what_makes_no_sense_for_a_query_that_stands_is_refused() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let elsewhere = Fixture::parse("//- /b.js\nf(1)\n");
    let mut client = daemon.client();
    let subscribe = |adjust: Adjust<'_>| {
        let mut run = pattern(&tree, "js", "f($A)");
        adjust(&mut run);
        SubscribeParams { run, scan: None, no_initial: false }
    };
    let adjustments: [(&str, Adjust<'_>, ErrorCode); 10] = [
        ("limit", &|it| it.delivery.limit = Some(1), ErrorCode::InvalidParams),
        ("noWait", &|it| it.delivery.no_wait = true, ErrorCode::InvalidParams),
        ("waitMs", &|it| it.delivery.wait_ms = Some(1), ErrorCode::InvalidParams),
        ("filesOnly", &|it| it.delivery.files_only = true, ErrorCode::InvalidParams),
        ("includeSource", &|it| it.delivery.include_source = true, ErrorCode::InvalidParams),
        ("stdin", &|it| it.selection.stdin = Some("f(1)".to_owned()), ErrorCode::InvalidParams),
        ("watched", &|it| it.selection.cwd = "/".to_owned(), ErrorCode::InvalidParams),
        (
            "one directory",
            &|it| it.selection.paths = vec![".".to_owned(), text(&elsewhere.root())],
            ErrorCode::InvalidParams,
        ),
        ("pattern", &|it| it.matcher.pattern = Some(String::new()), ErrorCode::InvalidPattern),
        ("deadline", &|it| it.delivery.deadline_ms = Some(0), ErrorCode::DeadlineExceeded),
    ];
    for (word, adjust, code) in adjustments {
        let error = refused(&mut client, method::SUBSCRIBE, &subscribe(adjust));
        assert_eq!(error.error_code(), Some(code), "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    let begun: SubscribeResult = call(&mut client, method::SUBSCRIBE, &subscribe(&|_| ()));
    assert_eq!(begun.subscription, 1, "those that were refused left nothing behind");
}

#[test]
fn a_change_is_told_although_nobody_asks_and_a_subscription_is_no_idleness() {
    let soon = Some(IdleExit::After(Duration::from_millis(50)));
    let mut daemon = Daemon::start_with(|config| config.settings.idle_exit = soon);
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut params = pattern(&tree, "js", "f($A)");
    let mut mirror = Mirror::subscribe(&daemon, &params);
    mirror.settle();
    replace(&tree, "a.js", "f(2)\n");
    while mirror.files.values().all(|(_, matches)| !matches[0].contains("f(2)")) {
        mirror.settle();
    }
    // Nor is what only this query selects overlooked.
    params.selection.no_ignore = vec![IgnoreKind::Hidden];
    let mut hidden = Mirror::subscribe(&daemon, &params);
    hidden.settle();
    tree.write(".hidden/b.js", "f(3)\n");
    while !hidden.files.contains_key(".hidden/b.js") {
        hidden.settle();
    }
    drop((mirror, hidden));
    daemon.join().expect("it leaves by itself");
}

#[test]
fn a_subscription_goes_on_when_any_part_of_the_daemon_is_killed() {
    let daemon = Daemon::start_with(|config| config.allow_debug = true);
    let tree = Fixture::parse("//- /a.js\nf(0)\n");
    let params = pattern(&tree, "js", "f($A)");
    let mut mirror = Mirror::subscribe(&daemon, &params);
    mirror.settle();
    let mut other = daemon.client();
    let shown =
        call::<TreeResult>(&mut other, method::TREE, &TreeParams { format: TreeFormat::Text });
    let shown = shown.text.unwrap();
    let node = |word: &str| {
        let line = shown.lines().find(|line| line.contains(word)).expect(word);
        line.split_whitespace().find(|part| part.contains(word)).unwrap().to_owned()
    };
    let (workspace, subscription) = (node("1-"), node("subscription_"));
    let client = subscription.trim_start_matches("subscription_").split('-').next().unwrap();
    let own = format!("gateway/connections/client_{client}/subscriptions/{subscription}");
    for (n, path) in [
        own.clone(),
        format!("workspaces/{workspace}/querying/query_executor"),
        format!("workspaces/{workspace}/synchronization/synchronizer"),
        format!("workspaces/{workspace}/repository/repository_core"),
        "workspaces".to_owned(),
        own.clone(),
    ]
    .into_iter()
    .enumerate()
    {
        mirror.told.clear();
        call::<Value>(&mut other, method::KILL, &KillParams { path: path.clone() });
        replace(&tree, "a.js", &format!("f({})\n", n + 1));
        let wanted = format!("f({})", n + 1);
        while mirror.files.values().all(|(_, matches)| !matches[0].contains(&wanted)) {
            mirror.settle();
        }
        let n_anew = mirror.told.iter().filter(|line| line.starts_with("resync")).count();
        assert_eq!(n_anew > 0, path == own, "{path}: {:?}", mirror.told);
        if path == own {
            assert!(mirror.told.contains(&format!("resync {:?}", ResyncReason::Restarted)));
        }
    }
}

#[test]
fn a_daemon_that_leaves_says_so() {
    let mut daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut mirror = Mirror::subscribe(&daemon, &pattern(&tree, "js", "f($A)"));
    mirror.settle();
    daemon.stop(true);
    let ended = match mirror.client.news().unwrap() {
        News::Ended(ended) => ended,
        other => panic!("{other:?}"),
    };
    assert_eq!(ended.error.error_code(), Some(ErrorCode::ShuttingDown));
    assert!(mirror.client.news().is_err(), "nothing is left");
    daemon.join().expect("nobody is waited for");
}

#[test]
fn a_subscription_that_is_cancelled_before_its_answer_tells_nothing() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut lines = daemon.lines();
    let run = pattern(&tree, "js", "f($A)");
    lines.ask(
        1,
        method::SUBSCRIBE,
        &SubscribeParams { run: run.clone(), scan: None, no_initial: false },
    );
    lines.cancel(1);
    if let Ok(begun) = lines.answer(1) {
        // It was there first.
        let end = json!({"subscription": begun["subscription"]});
        lines.ask(2, method::UNSUBSCRIBE, &end);
        assert!(lines.answer(2).is_ok());
    }
    lines.ask(3, method::STATUS, &json!({}));
    let status = lines.message().expect("an answer");
    assert_eq!(status["id"], 3, "{status}");
}
