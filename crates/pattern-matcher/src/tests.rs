//! Compiling: what is refused, and what is said about it; and the depths that matching survives.

use super::*;
use astscope_parsing::{Limits, parse};
use astscope_syntax::{Language, ParsedFile};
use expect_test::{Expect, expect};
use std::error::Error as _;
use std::sync::Arc;

fn file(source: &str, language: Language) -> Arc<ParsedFile> {
    Arc::new(
        parse(source.into(), language, &Limits::DAEMON, &mut || false).expect("no limit is near"),
    )
}

fn spec(pattern: &str) -> MatcherSpec {
    MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() }
}

fn check_error(language: Language, spec: &MatcherSpec, expected: &Expect) {
    let error = Matcher::compile(language, spec, None).expect_err("it is refused");
    let cause = error.source().map(|source| format!("\n{source}")).unwrap_or_default();
    let advice = match &error {
        CompileError::Pattern { offset, help, .. } => {
            format!("\n{offset:?} {}", help.as_deref().unwrap_or_default())
        }
        CompileError::Selector { help, .. } => format!("\n{}", help.as_deref().unwrap_or_default()),
        _ => String::new(),
    };
    expected.assert_eq(&format!("{error}{cause}{advice}"));
}

#[test]
fn a_pattern_of_several_nodes_is_refused_with_the_place_of_the_second() {
    check_error(
        Language::JavaScript,
        &spec("$A = 1; $B = 2"),
        &expect![[r#"
        cannot parse query as a valid pattern
        Multiple AST nodes are detected. Please check the pattern source `$A = 1; $B = 2`.
        Some(8) A pattern is one node; this parses as 2 (expression_statement, expression_statement), the second from byte 8 on. Put it into its surroundings and choose the part with `--selector KIND`."#]],
    );
    check_error(
        Language::Elixir,
        &spec("µ $A\n$B"),
        &expect![[r#"
            cannot parse query as a valid pattern
            Multiple AST nodes are detected. Please check the pattern source `$ $A
            $B`.
            Some(6) A pattern is one node; this parses as 2 (call, identifier), the second from byte 6 on. Put it into its surroundings and choose the part with `--selector KIND`."#]],
    );
}

#[test]
fn an_empty_pattern_and_a_lone_ellipsis_are_refused() {
    check_error(
        Language::Rust,
        &spec(""),
        &expect![[r#"
        cannot parse query as a valid pattern
        No AST root is detected. Please check the pattern source ``.
        Some(0) The pattern is empty for Rust: write the code to look for."#]],
    );
    check_error(
        Language::Rust,
        &spec("$$$ARGS"),
        &expect![[r#"
            cannot parse query as a valid pattern
            Standalone multi meta variable `$$$ARGS` is invalid. Use `$VAR` or wrap `$$$VAR` in a larger pattern.
            Some(0) `$$$` stands for several nodes, a pattern is one: write `$A`, or put it into its surroundings, as in `f($$$ARGS)`."#]],
    );
}

#[test]
fn unknown_kinds_are_answered_with_those_that_look_alike() {
    let kind = |kind: &str| MatcherSpec { kind: Some(kind.to_owned()), ..MatcherSpec::default() };
    check_error(
        Language::Rust,
        &kind("call_expresion"),
        &expect![[r#"
        cannot parse kind as a valid selector
        Invalid Kind
        Rust has no kind `call_expresion`; did you mean call_expression, _expression, await_expression, field_expression, for_expression?"#]],
    );
    check_error(
        Language::Rust,
        &kind("zzz > call_expression"),
        &expect![[r#"
        cannot parse kind as a valid selector
        Invalid Kind
        Rust has no kind `zzz`; `astscope parse FILE` shows the kinds of a file."#]],
    );
    let selector = MatcherSpec { selector: Some("call".into()), ..spec("f($A)") };
    check_error(
        Language::Rust,
        &selector,
        &expect![[r#"
            cannot parse query as a valid pattern
            Kind `call` is invalid.
            None Rust has no kind `call`; did you mean call_expression?"#]],
    );
    let absent = MatcherSpec { selector: Some("match_expression".into()), ..spec("f($A)") };
    check_error(
        Language::Rust,
        &absent,
        &expect![[r#"
            cannot parse query as a valid pattern
            Fails to create Contextual pattern: selector `match_expression` matches no node in the context `f($A)`.
            None The pattern has no `match_expression`; it has arguments, call_expression, identifier, source_file. It does not parse cleanly either."#]],
    );
}

#[test]
fn nonsense_in_the_rest_of_a_query_is_refused_by_name() {
    let strictness = MatcherSpec { strictness: Some("lax".into()), ..spec("f($A)") };
    check_error(
        Language::Rust,
        &strictness,
        &expect![
            "no strictness is called lax: cst, smart, ast, relaxed, signature and template are"
        ],
    );
    check_error(
        Language::Rust,
        &MatcherSpec::default(),
        &expect!["exactly one of a pattern and a kind must be given"],
    );
    check_error(
        Language::Rust,
        &spec(&"(".repeat(PATTERN_BYTES_MAX + 1)),
        &expect!["the pattern has 262145 bytes, the limit is 262144"],
    );
    let deep = format!("{}1{}", "(".repeat(5_000), ")".repeat(5_000));
    check_error(
        Language::Rust,
        &spec(&deep),
        &expect!["the pattern is nested more than 1000 levels deep"],
    );
}

#[test]
fn a_c_call_that_parses_as_a_type_gets_a_hint_and_its_statement_form_none() {
    let hints = |pattern: &str| {
        Matcher::compile(Language::C, &spec(pattern), None).expect("it is valid").hints().join("\n")
    };
    expect!["in C the pattern `kmem_cache_create($$$A)` parses as macro_type_specifier, not as a call; to find calls, write the statement and select the call: -p 'kmem_cache_create($$$A);' --selector call_expression"].assert_eq(&hints("kmem_cache_create($$$A)"));
    assert_eq!(hints("f(x);"), "");
    assert_eq!(hints("$A + 1"), "");
}

#[test]
fn sixty_thousand_levels_overflow_nothing() {
    // Two equal subtrees, so deep that comparing them by recursion takes megabytes.
    let deep = format!("{}1{}", "(".repeat(60_000), ")".repeat(60_000));
    let file = file(&format!("f({deep}, {deep})"), Language::JavaScript);
    let count = |spec: &MatcherSpec| {
        let matcher = Matcher::compile(Language::JavaScript, spec, None).expect("it is valid");
        assert!(matcher.requirement().admits(&file.text, &file.tree));
        matcher.find_all(CompactDoc::host(Arc::clone(&file)), usize::MAX).len()
    };
    assert_eq!(count(&spec("f($A, $A)")), 1);
    assert_eq!(count(&spec("($A)")), 120_000);
    let kind =
        MatcherSpec { kind: Some("call_expression number".into()), ..MatcherSpec::default() };
    assert_eq!(count(&kind), 2);
}

#[test]
fn a_limit_cuts_after_as_many_matches() {
    let file = file("f(1, 2, 3)", Language::JavaScript);
    let spec = MatcherSpec { kind: Some("number".into()), ..MatcherSpec::default() };
    let matcher = Matcher::compile(Language::JavaScript, &spec, None).expect("it is valid");
    let starts = |limit| -> Vec<u32> {
        let found = matcher.find_all(CompactDoc::host(Arc::clone(&file)), limit);
        found.iter().map(|found| found.range.start).collect()
    };
    assert_eq!(starts(2), [2, 5]);
    assert_eq!(starts(usize::MAX), [2, 5, 8]);
}

#[test]
fn a_search_within_one_file_ends_when_told() {
    let file = file(&"f(1);".repeat(10_000), Language::JavaScript);
    let matcher = Matcher::compile(Language::JavaScript, &spec("$A"), None).expect("it is valid");
    let looks = std::cell::Cell::new(0);
    let stop = || looks.replace(looks.get() + 1) == 3;
    let found = matcher.find_until(CompactDoc::host(file), usize::MAX, &stop);
    assert_eq!(looks.get(), 4);
    assert!(found.len() < 1_000, "{} of more than 30,000", found.len());
}

#[test]
fn the_added_languages_match_patterns() {
    let count = |language, source: &str, pattern: &str| {
        let matcher = Matcher::compile(language, &spec(pattern), None).expect("it is valid");
        matcher.find_all(CompactDoc::host(file(source, language)), usize::MAX).len()
    };
    let erlang = "f(X) -> lists:map(fun g/1, X), lists:map(X, X).\n";
    assert_eq!(count(Language::Erlang, erlang, "lists:map($F, $L)"), 2);
    assert_eq!(count(Language::Erlang, erlang, "lists:map($A, $A)"), 1);
    assert_eq!(count(Language::Toml, "a = 1\nb = 2\n[t]\nc = 1\n", "$K = 1"), 2);
    assert_eq!(count(Language::Heex, "<p><b>x</b></p>", "<b>$X</b>"), 1);
}

#[test]
fn rules_that_are_not_valid_say_which_and_why() {
    let source = |yaml: &str| RuleSource {
        source: "rules/a.yml".into(),
        yaml: yaml.into(),
        default_id: None,
    };
    let error = |yaml: &str, overrides: SeverityOverrides| match RuleSet::compile(
        &[source(yaml)],
        &[],
        &overrides,
    )
    .expect_err("it is refused")
    {
        RuleError::Rule { rule, causes } => format!("{rule}: {}\n", causes.join(" <- ")),
        other => format!("{other}\n"),
    };
    let valid = "{id: a, language: rust, rule: {pattern: f($A)}}";
    let shown = [
        error("nonsense", SeverityOverrides::default()),
        error("{id: a, language: cobol, rule: {kind: x}}", SeverityOverrides::default()),
        error("{id: a, language: rust, rule: {regex: x}}", SeverityOverrides::default()),
        error("{id: a, language: rust, rule: {kind: zzz}}", SeverityOverrides::default()),
        error(
            "{id: a, language: rust, rule: {kind: block}, surprise: 1}",
            SeverityOverrides::default(),
        ),
        error(valid, SeverityOverrides { filter: Some("(".into()), ..Default::default() }),
        error(valid, SeverityOverrides { filter: Some("b".into()), ..Default::default() }),
        error(valid, SeverityOverrides { default: Some("loud".into()), ..Default::default() }),
        error(
            &format!("{valid}\n---\n{valid}"),
            SeverityOverrides { all_rules: true, ..Default::default() },
        ),
    ];
    expect![[r#"
        rules/a.yml: Fail to parse yaml as RuleConfig <- error: line 1 column 1: expected mapping start
         --> <input>:1:1
          |
        1 | nonsense
          | ^ expected mapping start <- expected mapping start at line 1, column 1
        rules/a.yml: Fail to parse yaml as RuleConfig <- error: line 1 column 19: cobol is not supported!
         --> <input>:1:19
          |
        1 | {id: a, language: cobol, rule: {kind: x}}
          |                   ^ cobol is not supported! <- cobol is not supported! at line 1, column 19
        rules/a.yml: Rule must specify a set of AST kinds to match. Try adding `kind` rule.
        rules/a.yml: Fail to parse yaml as Rule. <- `rule` is not configured correctly. <- Rule contains invalid kind matcher. <- Invalid Kind <- Kind `zzz` is invalid.
        rules/a.yml: Fail to parse yaml as RuleConfig <- error: line 1 column 46: unknown field `surprise`, expected one of id, language, rule, constraints, utils, transform, fix, rewriters, message, note, severity, labels, files, ignores, url, metadata
         --> <input>:1:46
          |
        1 | {id: a, language: rust, rule: {kind: block}, surprise: 1}
          |                                              ^ unknown field `surprise`, expected one of id, language, rule, constraints, utils, transform, fix, rewriters, message, note, severity, labels, files, ignores, url, metadata <- unknown field `surprise`, expected one of id, language, rule, constraints, utils, transform, fix, rewriters, message, note, severity, labels, files, ignores, url, metadata at line 1, column 46
        the rule filter is not a valid regular expression: regex parse error:
            (
            ^
        error: unclosed group
        no rule's id matches b
        no severity is called loud: off, hint, info, warning and error are
        duplicate rule id `a` is found
    "#]].assert_eq(&shown.concat());
}
