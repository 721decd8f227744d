//! What queries found is remembered, and no answer shows it but for how soon it comes.

use crate::support::{Daemon, call, everything, open, pattern, run, scan, status, try_query};
use astscope_fixtures::Fixture;
use astscope_protocol::Client;
use astscope_protocol::messages::{
    Delivery, Explanation, RuleSource, RunParams, ScanParams, Summary, method,
};

/// Files with a match, with something like one, and with none of what a match needs.
fn tree() -> Fixture {
    Fixture::parse(
        "//- /a.js\nf(1)\n//- /b.js\nf(2); f(3)\n//- /c.js\nf = g(4)\n//- /d.js\nh\n//- /e.html\n\
         <script>f(5)</script>\n",
    )
}

/// Items as JSON, and the summary's counts.
fn answer(client: &mut Client, params: &RunParams) -> (Vec<String>, Summary) {
    let found = run(client, params);
    let items = found.items.into_iter().map(|item| serde_json::to_string(&item).unwrap());
    // Request ids differ.
    let items = items.map(|item| item.split_once(',').unwrap().1.to_owned());
    (items.collect(), found.summary)
}

#[test]
fn a_query_that_is_asked_again_verifies_only_the_file_that_was_edited() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    let params = pattern(&tree, "js", "f($A)");
    let anew = RunParams {
        delivery: Delivery { no_cache: true, ..Delivery::default() },
        ..params.clone()
    };
    let (_, summary) = answer(&mut client, &anew);
    assert_eq!(summary.files_remembered, 0);
    assert_eq!(status(&mut client).workspaces[0].remembered.results, 0, "nothing was remembered");

    let n_candidates = summary.files_verified;
    assert_eq!(n_candidates, 4, "all but the one without a call");
    for (edit, n_remembered) in [
        (None, 0),
        (None, n_candidates),
        (Some("f(1); f(7)\n"), n_candidates - 1),
        (None, n_candidates),
        // A content that was there before isn't remembered any more.
        (Some("f(1)\n"), n_candidates - 1),
    ] {
        if let Some(text) = edit {
            tree.write("a.js", text);
        }
        let (items, summary) = answer(&mut client, &params);
        assert_eq!(summary.files_remembered, n_remembered, "{edit:?}");
        let (expected, other) = answer(&mut client, &anew);
        assert_eq!(items, expected, "{edit:?}");
        assert_eq!(
            (
                summary.matches,
                summary.files_matched,
                summary.files_verified,
                other.files_remembered
            ),
            (other.matches, other.files_matched, n_candidates, 0)
        );
    }
    let status = status(&mut client);
    let remembered = status.workspaces[0].remembered;
    assert_eq!((remembered.queries, remembered.results), (1, n_candidates));
    assert_eq!((remembered.hits, remembered.misses), (2 * n_candidates + 6, n_candidates + 2));
    assert!(status.memory.caches >= remembered.bytes && remembered.bytes > 0);
}

#[test]
fn whatever_decides_an_answer_is_told_apart() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    let plain = pattern(&tree, "js", "f($A)");
    let changes: [fn(&mut RunParams); 8] = [
        |_| (),
        |params| params.matcher.pattern = Some("f(1)".to_owned()),
        |params| params.matcher.strictness = Some("cst".to_owned()),
        |params| params.rewrite = Some("g($A)".to_owned()),
        |params| params.context.after = 1,
        |params| params.language = None,
        |params| params.delivery.files_only = true,
        |params| params.selection.paths = vec![format!("{}/b.js", params.selection.cwd)],
    ];
    for change in changes {
        let mut params = plain.clone();
        change(&mut params);
        let (first, summary) = answer(&mut client, &params);
        assert_eq!(summary.files_remembered, 0, "{params:?}");
        let (second, summary) = answer(&mut client, &params);
        assert_eq!((first, summary.files_remembered), (second, summary.files_verified));
    }
    // What is only about how an answer comes doesn't ask another question.
    let changes: [fn(&mut RunParams); 4] = [
        |params| params.delivery.include_source = true,
        |params| params.delivery.deadline_ms = Some(60_000),
        |params| params.delivery.limit = Some(2),
        |params| params.selection.globs = vec!["*.js".to_owned()],
    ];
    for change in changes {
        let mut params = plain.clone();
        change(&mut params);
        let (items, summary) = answer(&mut client, &params);
        assert!(summary.files_remembered > 0, "{params:?}");
        params.delivery.no_cache = true;
        assert_eq!(items, answer(&mut client, &params).0);
    }
}

#[test]
fn a_query_that_was_cut_remembers_what_it_has_seen_whole() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.delivery.limit = Some(1);
    assert!(run(&mut client, &params).summary.limit_reached);
    params.delivery.limit = None;
    let found = run(&mut client, &params);
    // Of b.js it has seen the first match only.
    assert_eq!(
        found.shown(),
        ["a.js:1:1 f(1)", "b.js:1:1 f(2)", "b.js:1:7 f(3)", "e.html:1:9 f(5)"]
    );
    assert_eq!(found.summary.files_remembered, 1);
}

#[test]
fn a_scan_remembers_by_rules_paths_and_severities() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    let rule = "id: r\nlanguage: js\nseverity: error\nrule: {pattern: f($A)}\nfiles: ['**/a.js']\n";
    let source = RuleSource { source: "r.yml".into(), yaml: rule.into(), default_id: None };
    let params = ScanParams {
        selection: everything(&tree),
        rules: vec![source],
        project_dir: everything(&tree).cwd,
        ..ScanParams::default()
    };
    let first = scan(&mut client, &params);
    assert_eq!((first.shown(), first.summary.files_remembered), (vec!["a.js:1:1 f(1)".into()], 0));
    let again = scan(&mut client, &params);
    assert_eq!((again.records(), again.summary.error_matches), (first.records(), 1));
    assert_eq!(again.summary.files_remembered, again.summary.files_verified);
    // The same text under another name is another file to the rule.
    tree.write("z.js", "f(1)\n");
    tree.write("sub/a.js", "f(1)\n");
    let found = scan(&mut client, &params);
    assert_eq!(found.shown(), ["a.js:1:1 f(1)", "sub/a.js:1:1 f(1)"]);
    let mut milder = params;
    milder.overrides.default = Some("hint".to_owned());
    let found = scan(&mut client, &milder);
    assert_eq!((found.summary.error_matches, found.summary.files_remembered), (0, 0));
}

#[test]
fn the_directory_of_a_project_is_the_one_that_its_path_leads_to_now() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /one/src/a.js\nf(1)\n//- /two/a.js\n");
    let mut client = daemon.client();
    let rule = "id: r\nlanguage: js\nrule: {pattern: f($A)}\nfiles: ['src/**']\n";
    let source = RuleSource { source: "r.yml".into(), yaml: rule.into(), default_id: None };
    let link = tree.root().join("project");
    let mut shown = |to: &str| {
        drop(std::fs::remove_file(&link));
        std::os::unix::fs::symlink(tree.path(to), &link).unwrap();
        let params = ScanParams {
            selection: everything(&tree),
            rules: vec![source.clone()],
            project_dir: link.to_str().unwrap().to_owned(),
            ..ScanParams::default()
        };
        scan(&mut client, &params).shown()
    };
    assert_eq!(shown("one"), ["one/src/a.js:1:1 f(1)"]);
    assert!(shown("two").is_empty());
    assert_eq!(shown("one"), ["one/src/a.js:1:1 f(1)"]);
}

#[test]
fn explain_answers_from_the_same_memory_and_says_so() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    let params = pattern(&tree, "js", "f($A)");
    let first: Explanation = call(&mut client, method::EXPLAIN, &params);
    assert_eq!((first.files_verified, first.files_remembered, first.matches), (4, 0, 4));
    let summary = run(&mut client, &params).summary;
    assert_eq!(summary.files_remembered, 4, "the run is what was explained");
    let again: Explanation = call(&mut client, method::EXPLAIN, &params);
    assert_eq!((again.files_verified, again.files_remembered, again.matches), (4, 4, 4));
    assert_eq!(again.steps, first.steps);
}

#[test]
fn an_error_is_not_remembered() {
    let (daemon, tree) = (Daemon::start(), tree());
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.delivery.deadline_ms = Some(0);
    assert!(try_query(&mut client, method::RUN, &params).is_err());
    params.delivery.deadline_ms = None;
    assert_eq!(run(&mut client, &params).records().len(), 4);
}
