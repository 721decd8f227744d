//! Parameters out of bounds, and text instead of files.

use crate::support::{Daemon, code, open, pattern, refused, run, scan, try_query};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{
    ErrorCode, OpenParams, ParseParams, ParseResult, PointsLevel, PointsParams, PointsResult,
    RuleSource, ScanParams, Selection, method,
};
use serde_json::json;

fn stdin(source: &str) -> Selection {
    Selection { stdin: Some(source.to_owned()), ..Selection::default() }
}

#[test]
fn a_deadline_that_has_passed_ends_the_request() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "rust", "f($A)");
    params.delivery.deadline_ms = Some(0);
    for method in [method::RUN, method::EXPLAIN] {
        let error = refused(&mut client, method, &params);
        assert_eq!(error.error_code(), Some(ErrorCode::DeadlineExceeded));
        assert!(error.data.is_some_and(|data| data.retryable));
    }
    params.delivery.deadline_ms = Some(60 * 60 * 1000);
    assert_eq!(run(&mut client, &params).shown(), ["a.rs:1:13 f(1)"]);
}

#[test]
fn a_deadline_over_one_hour_is_refused() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "rust", "f($A)");
    for ms in [60 * 60 * 1000 + 1, u64::MAX] {
        params.delivery.deadline_ms = Some(ms);
        let error = refused(&mut client, method::RUN, &params);
        assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams));
        assert!(error.message.contains("3600000"), "{error}");
    }
}

#[test]
fn paths_that_mean_something_else_in_each_directory_are_refused() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "rust", "f($A)");
    for cwd in ["", ".", "src"] {
        params.selection.cwd = cwd.to_owned();
        let error = refused(&mut client, method::RUN, &params);
        assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "{cwd:?}");
        assert!(error.message.contains("absolute"), "{error}");
        let open = OpenParams { path: cwd.to_owned() };
        let error = refused(&mut client, method::OPEN, &open);
        assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "{cwd:?}: {error}");
        let parse = ParseParams {
            cwd: cwd.to_owned(),
            path: Some("Cargo.toml".to_owned()),
            ..ParseParams::default()
        };
        let error = refused(&mut client, method::PARSE, &parse);
        assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "{cwd:?}: {error}");
    }
}

#[test]
fn a_root_that_does_not_exist_or_is_a_file_is_refused() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut client = daemon.client();
    for name in ["gone", "a.rs"] {
        let open = OpenParams { path: crate::support::text(&tree.path(name)) };
        let error = refused(&mut client, method::OPEN, &open);
        assert_eq!(error.error_code(), Some(ErrorCode::PathNotFound), "{error}");
        assert!(error.message.contains(name), "{error}");
    }
}

#[test]
fn an_invalid_glob_is_told() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "rust", "f($A)");
    params.selection.globs = vec!["src/{a".to_owned()];
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidGlob), "{error}");
    params.selection.globs.clear();
    params.selection.language_globs = [("rust".to_owned(), vec!["[".to_owned()])].into();
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidGlob), "{error}");
    params.selection.language_globs = [("cobol".to_owned(), vec!["*".to_owned()])].into();
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::UnknownLanguage), "{error}");
}

#[test]
fn text_from_standard_input_is_searched_without_any_file() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let tree = Fixture::empty();
    let mut params = pattern(&tree, "js", "f($A)");
    params.selection = stdin("f(1)\n  f(é); f(2)\n");
    params.rewrite = Some("g($A)".to_owned());
    let found = run(&mut client, &params);
    assert_eq!(found.shown(), ["STDIN:1:1 f(1)", "STDIN:2:3 f(é)", "STDIN:2:9 f(2)"]);
    assert_eq!(found.records()[1].replacement.as_deref(), Some("g(é)"));
    assert_eq!(found.summary.revision, None);
    params.delivery.limit = Some(2);
    let found = run(&mut client, &params);
    assert_eq!((found.summary.matches, found.summary.limit_reached), (2, true));
    params.delivery.limit = Some(3);
    assert!(!run(&mut client, &params).summary.limit_reached);
    params.selection = stdin("");
    assert_eq!(run(&mut client, &params).shown(), [""; 0]);
    params.language = None;
    let error = refused(&mut client, method::RUN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "{error}");
    params.language = Some("js".to_owned());
    let error = refused(&mut client, method::EXPLAIN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams), "{error}");
}

#[test]
fn text_from_standard_input_is_scanned_in_the_language_of_the_rule() {
    let daemon = Daemon::start();
    let yaml = "id: no-f\nlanguage: js\nseverity: error\nrule: {pattern: f($A)}\n";
    let rule = RuleSource { source: "INLINE_RULES".into(), yaml: yaml.into(), default_id: None };
    let params =
        ScanParams { selection: stdin("f(1); f(2)"), rules: vec![rule], ..ScanParams::default() };
    let mut client = daemon.client();
    let found = scan(&mut client, &params);
    assert_eq!(found.shown(), ["STDIN:1:1 f(1)", "STDIN:1:7 f(2)"]);
    assert_eq!(found.summary.error_matches, 2);
    let none = ScanParams { selection: stdin("f(1)"), ..ScanParams::default() };
    assert_eq!(scan(&mut client, &none).shown(), [""; 0]);
}

#[test]
fn parse_renders_a_text_and_its_errors() {
    let daemon = Daemon::start();
    let mut client = daemon.client();
    let mut parse = |text: &str, language: &str| {
        let params = ParseParams {
            text: Some(text.to_owned()),
            language: Some(language.to_owned()),
            ..ParseParams::default()
        };
        client.call::<_, ParseResult>(method::PARSE, &params)
    };
    let good = parse("[1]", "json").unwrap();
    assert_eq!((&*good.tree, good.errors.len()), ("(document\n  (array\n    (number)))\n", 0));
    let bad = parse("[1", "json").unwrap();
    assert_eq!(bad.errors.len(), 1);
    assert_eq!(bad.errors[0].missing.as_deref(), Some("]"));
    let unknown = parse("[1]", "cobol").unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::UnknownLanguage));
    assert_eq!(parse("", "json").unwrap_err().code(), Some(ErrorCode::FileSkipped));
}

#[test]
fn an_id_that_is_in_flight_is_refused_and_one_that_was_answered_is_not() {
    let daemon = Daemon::start();
    let tree = crate::support::long_answer();
    let mut connection = daemon.lines();
    connection.ask(4, method::RUN, &pattern(&tree, "js", "f($A)"));
    connection.ask(4, method::STATUS, &json!({}));
    // Hello and stop are answered at once and may have any id.
    let (id, outcome) = connection.response();
    assert_eq!((id, code(outcome)), (Some(4), Some(ErrorCode::MalformedRequest)));
    assert_eq!(connection.answer(4).unwrap()["matches"], crate::support::LONG_ANSWER_FILES);
    connection.ask(4, method::STATUS, &json!({}));
    assert!(connection.answer(4).is_ok());
}

#[test]
fn unknown_fields_are_ignored() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut params = serde_json::to_value(pattern(&tree, "js", "f($A)")).unwrap();
    params["later"] = json!({"x": 1});
    params["selection"]["later"] = json!([]);
    let found = try_query(&mut daemon.client(), method::RUN, &params).unwrap();
    assert_eq!(found.shown(), ["a.js:1:1 f(1)"]);
}

#[test]
fn points_are_the_same_in_a_workspace_and_outside_of_one() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.ex\ndefmodule M do\n  def init(a), do: a |> g()\nend\n");
    let mut client = daemon.client();
    let params = |level| PointsParams {
        cwd: tree.root().to_string_lossy().into_owned(),
        path: Some("a.ex".to_owned()),
        level,
        ..PointsParams::default()
    };
    let outside: PointsResult = client.call(method::POINTS, &params(PointsLevel::Debug)).unwrap();
    open(&mut client, &tree.root());
    let inside: PointsResult = client.call(method::POINTS, &params(PointsLevel::Debug)).unwrap();
    assert_eq!(inside, outside);
    let kinds: Vec<_> = inside.points.iter().map(|point| &*point.kind).collect();
    assert_eq!(kinds, ["genserver_callback", "function_exit", "pipe_operation", "call"]);
    assert_eq!((&*inside.points[0].symbol, inside.points[0].start.line), ("M.init/1", 1));
    assert_eq!((&*inside.language, inside.impact_percent), ("Elixir", 16));
    for (level, n) in [
        (PointsLevel::Minimal, 2),
        (PointsLevel::Balanced, 2),
        (PointsLevel::Comprehensive, 4),
        (PointsLevel::Debug, 4),
    ] {
        let found: PointsResult = client.call(method::POINTS, &params(level)).unwrap();
        assert_eq!(found.points.len(), n, "{level:?}");
    }
    let text = PointsParams {
        text: Some("fn f() {}".to_owned()),
        language: Some("rust".to_owned()),
        ..PointsParams::default()
    };
    let of_text: PointsResult = client.call(method::POINTS, &text).unwrap();
    assert_eq!((of_text.points.len(), of_text.impact_percent), (2, 4));
    let error = refused(&mut client, method::POINTS, &json!({"text": "", "level": "most"}));
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidParams));
}
