//! Patterns and kinds that can't be compiled, or that can't mean what somebody thinks.

use crate::support::{Daemon, open, pattern, refused, run};
use astscope_fixtures::Fixture;
use astscope_protocol::RpcError;
use astscope_protocol::messages::{MatcherSpec, RunParams, method};
use expect_test::{Expect, expect};

fn shown(error: &RpcError) -> String {
    serde_json::to_string_pretty(error).unwrap()
}

/// The error of a request over a tree of one file.
fn check(adjust: impl FnOnce(&mut RunParams), expected: &Expect) {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut params = pattern(&tree, "rust", "f($A)");
    adjust(&mut params);
    let mut client = daemon.client();
    let error = refused(&mut client, method::RUN, &params);
    expected.assert_eq(&shown(&error));
    let same = refused(&mut client, method::EXPLAIN, &params);
    assert_eq!(shown(&same), shown(&error), "explain refuses what run refuses");
    let found = run(&mut client, &pattern(&tree, "rust", "f($A)"));
    assert_eq!(found.shown(), ["a.rs:1:13 f(1)"], "the connection goes on");
}

#[test]
fn an_unknown_language_is_told_with_the_known_ones() {
    check(
        |params| params.language = Some("cobol".to_owned()),
        &expect![[r#"
        {
          "code": -32013,
          "message": "language `cobol` is not supported",
          "data": {
            "code": "unknown_language",
            "retryable": false,
            "help": "Known languages: bash, c, cc, cs, css, dart, ex, go, hs, hcl, html, java, javascript, json, kotlin, lua, markdown, nix, php, py, rb, rs, scala, sol, swift, tsx, ts, yaml, zig, erl, heex, toml."
          }
        }"#]],
    );
}

#[test]
fn an_unknown_kind_is_told_with_similar_ones() {
    check(
        |params| {
            params.matcher =
                MatcherSpec { kind: Some("call_expresion".to_owned()), ..Default::default() };
        },
        &expect![[r#"
            {
              "code": -32011,
              "message": "cannot parse kind as a valid selector",
              "data": {
                "code": "invalid_selector",
                "retryable": false,
                "help": "Rust has no kind `call_expresion`; did you mean call_expression, _expression, await_expression, field_expression, for_expression?",
                "causes": [
                  "Invalid Kind"
                ]
              }
            }"#]],
    );
}

#[test]
fn an_invalid_kind_selector_is_told() {
    check(
        |params| {
            params.matcher = MatcherSpec { kind: Some("a >".to_owned()), ..Default::default() }
        },
        &expect![[r#"
            {
              "code": -32011,
              "message": "cannot parse kind as a valid selector",
              "data": {
                "code": "invalid_selector",
                "retryable": false,
                "help": "Rust has no kind `a`; `astscope parse FILE` shows the kinds of a file.",
                "causes": [
                  "Invalid Kind"
                ]
              }
            }"#]],
    );
}

#[test]
fn a_pattern_of_several_nodes_is_told_with_the_place_of_the_second() {
    check(
        |params| params.matcher.pattern = Some("f($É); g()".to_owned()),
        &expect![[r#"
        {
          "code": -32010,
          "message": "cannot parse query as a valid pattern",
          "data": {
            "code": "invalid_pattern",
            "retryable": false,
            "help": "A pattern is one node; this parses as 2 (expression_statement, expression_statement), the second from byte 8 on. Put it into its surroundings and choose the part with `--selector KIND`.",
            "causes": [
              "Multiple AST nodes are detected. Please check the pattern source `f($É); g()`."
            ],
            "offset": 8
          }
        }"#]],
    );
}

#[test]
fn an_empty_pattern_is_told() {
    check(
        |params| params.matcher.pattern = Some(String::new()),
        &expect![[r#"
        {
          "code": -32010,
          "message": "cannot parse query as a valid pattern",
          "data": {
            "code": "invalid_pattern",
            "retryable": false,
            "help": "The pattern is empty for Rust: write the code to look for.",
            "causes": [
              "No AST root is detected. Please check the pattern source ``."
            ],
            "offset": 0
          }
        }"#]],
    );
}

#[test]
fn a_selector_that_the_pattern_does_not_have_is_told_with_those_it_has() {
    check(
        |params| params.matcher.selector = Some("struct_item".to_owned()),
        &expect![[r#"
        {
          "code": -32010,
          "message": "cannot parse query as a valid pattern",
          "data": {
            "code": "invalid_pattern",
            "retryable": false,
            "help": "The pattern has no `struct_item`; it has arguments, call_expression, identifier, source_file. It does not parse cleanly either.",
            "causes": [
              "Fails to create Contextual pattern: selector `struct_item` matches no node in the context `f($A)`."
            ]
          }
        }"#]],
    );
}

#[test]
fn an_unknown_strictness_is_told_with_the_known_ones() {
    check(
        |params| params.matcher.strictness = Some("strict".to_owned()),
        &expect![[r#"
        {
          "code": -32602,
          "message": "no strictness is called strict: cst, smart, ast, relaxed, signature and template are",
          "data": {
            "code": "invalid_params",
            "retryable": false
          }
        }"#]],
    );
}

#[test]
fn neither_pattern_nor_kind_and_both_are_refused() {
    check(
        |params| params.matcher = MatcherSpec::default(),
        &expect![[r#"
        {
          "code": -32602,
          "message": "exactly one of a pattern and a kind must be given",
          "data": {
            "code": "invalid_params",
            "retryable": false
          }
        }"#]],
    );
    check(
        |params| params.matcher.kind = Some("call_expression".to_owned()),
        &expect![[r#"
        {
          "code": -32602,
          "message": "exactly one of a pattern and a kind must be given",
          "data": {
            "code": "invalid_params",
            "retryable": false
          }
        }"#]],
    );
}

#[test]
fn a_pattern_that_is_too_long_or_too_deep_is_refused() {
    check(
        |params| params.matcher.pattern = Some(format!("f({})", "1".repeat(300_000))),
        &expect![[r#"
            {
              "code": -32010,
              "message": "the pattern has 300003 bytes, the limit is 262144",
              "data": {
                "code": "invalid_pattern",
                "retryable": false
              }
            }"#]],
    );
    let deep = format!("{}1{}", "(".repeat(3000), ")".repeat(3000));
    check(
        |params| params.matcher.pattern = Some(deep),
        &expect![[r#"
        {
          "code": -32010,
          "message": "the pattern is nested more than 1000 levels deep",
          "data": {
            "code": "invalid_pattern",
            "retryable": false
          }
        }"#]],
    );
}

#[test]
fn a_call_in_c_gets_a_hint_and_the_matches_that_ast_grep_gives() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.c\nint main(void) { f(1); return f(2); }\n");
    let mut client = daemon.client();
    let found = run(&mut client, &pattern(&tree, "c", "f($A)"));
    assert_eq!(found.shown(), [""; 0]);
    expect!["in C the pattern `f($A)` parses as macro_type_specifier, not as a call; to find calls, write the statement and select the call: -p 'f($A);' --selector call_expression"].assert_eq(&found.summary.hints.join("\n"));
    let mut statement = pattern(&tree, "c", "f($A);");
    statement.matcher.selector = Some("call_expression".to_owned());
    let found = run(&mut client, &statement);
    assert_eq!(found.shown(), ["a.c:1:18 f(1)", "a.c:1:31 f(2)"]);
    assert_eq!(found.summary.hints, [""; 0]);
}

#[test]
fn a_pattern_with_a_syntax_error_is_answered_and_flagged() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nfoo(\n//- /b.js\nok()\n");
    let mut client = daemon.client();
    let found = run(&mut client, &pattern(&tree, "js", "a b )"));
    assert!(found.summary.pattern_has_error);
    assert!(!run(&mut client, &pattern(&tree, "js", "ok()")).summary.pattern_has_error);
}

#[test]
fn a_pattern_that_no_language_of_the_tree_accepts_is_explained_in_hints() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.rs\nfn main() { f(1) }\n");
    let mut params = pattern(&tree, "rust", "f(); g()");
    params.language = None;
    let found = run(&mut daemon.client(), &params);
    assert_eq!(found.shown(), [""; 0]);
    expect!["the pattern is not valid as Rust: cannot parse query as a valid pattern: Multiple AST nodes are detected. Please check the pattern source `f(); g()`."].assert_eq(&found.summary.hints.join("\n"));
}

#[test]
fn strange_patterns_are_matched_or_refused_but_never_break_the_daemon() {
    let daemon = Daemon::start();
    let tree = Fixture::parse(
        "//- /a.rs\nfn main() { f(1) }\n//- /b.html\n<script>f(1)</script>\n//- /c.py\nf(1)\n//- /d.md\n# x\n",
    );
    let mut client = daemon.client();
    open(&mut client, &tree.root());
    let strange = [
        "",
        " ",
        "$",
        "$$",
        "$$$",
        "$A",
        "$$$A",
        "$_",
        "$$A",
        "µ",
        "𐀀𐀀",
        "\0",
        "\u{feff}",
        "\r\n",
        "(((",
        "\"",
        "$A$B",
        "$A.$B($$$C)",
        "f(\0)",
        "'''",
        "/*",
        "#",
        "$lower",
        "$1",
        "ERROR",
        "\u{202e}",
    ];
    let mut n_answered = 0;
    for pattern_text in strange {
        for language in
            [None, Some("rust"), Some("python"), Some("html"), Some("markdown"), Some("yaml")]
        {
            let mut params = pattern(&tree, "rust", pattern_text);
            params.language = language.map(str::to_owned);
            params.rewrite = Some("$A$$$B\0".to_owned());
            match client.call::<_, serde_json::Value>(method::RUN, &params) {
                Ok(_) => n_answered += 1,
                Err(error) => {
                    let code = error.code();
                    assert_eq!(
                        code,
                        Some(astscope_protocol::messages::ErrorCode::InvalidPattern),
                        "{pattern_text:?} in {language:?}: {error}"
                    );
                }
            }
        }
    }
    assert!(n_answered > strange.len());
}
