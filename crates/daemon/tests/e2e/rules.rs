//! Scans with YAML rules: what they report, and rules that are not valid.

use crate::support::{Daemon, everything, refused, scan};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{ErrorCode, MatchRecord, RuleSource, ScanParams, method};
use expect_test::{Expect, expect};

fn source(yaml: &str) -> RuleSource {
    RuleSource { source: "rules/a.yml".into(), yaml: yaml.into(), default_id: None }
}

fn params(tree: &Fixture, yaml: &[&str]) -> ScanParams {
    ScanParams {
        selection: everything(tree),
        rules: yaml.iter().map(|yaml| source(yaml)).collect(),
        project_dir: everything(tree).cwd,
        ..ScanParams::default()
    }
}

fn tree() -> Fixture {
    Fixture::parse(
        "//- /a.js\nf(1)\nf(2) // ast-grep-ignore\n// ast-grep-ignore: no-g\ng(3)\ng(4)\n",
    )
}

const NO_F: &str =
    "id: no-f\nlanguage: js\nseverity: error\nmessage: no $A\nrule: {pattern: f($A)}\n";
const NO_G: &str = "id: no-g\nlanguage: js\nseverity: hint\nnote: why\nrule: {pattern: g($A)}\n";

fn shown(records: &[MatchRecord]) -> Vec<String> {
    let show = |record: &MatchRecord| {
        let rule = record.rule_id.as_deref().unwrap();
        format!(
            "{rule} {} {}",
            record.severity.as_deref().unwrap(),
            record.text.as_deref().unwrap()
        )
    };
    let mut shown: Vec<_> = records.iter().map(show).collect();
    shown.sort();
    shown
}

#[test]
fn rules_report_their_matches_but_not_suppressed_ones() {
    let daemon = Daemon::start();
    let found = scan(&mut daemon.client(), &params(&tree(), &[NO_F, NO_G]));
    let records = found.records();
    assert_eq!(shown(&records), ["no-f error f(1)", "no-g hint g(4)"]);
    assert_eq!((found.summary.matches, found.summary.error_matches), (2, 1));
    let no_f = records.iter().find(|record| record.rule_id.as_deref() == Some("no-f")).unwrap();
    assert_eq!((no_f.message.as_deref(), &no_f.note), (Some("no 1"), &Some(None)));
}

#[test]
fn severities_can_be_overridden_and_rules_filtered() {
    let daemon = Daemon::start();
    let tree = tree();
    let mut client = daemon.client();
    let mut check = |adjust: &dyn Fn(&mut ScanParams), expected: &[&str], n_errors: u64| {
        let mut params = params(&tree, &[NO_F, NO_G]);
        adjust(&mut params);
        let found = scan(&mut client, &params);
        assert_eq!(shown(&found.records()), expected);
        assert_eq!(found.summary.error_matches, n_errors);
    };
    let by_id = |id: &str, severity: &str| [(id.to_owned(), severity.to_owned())].into();
    check(
        &|params| params.overrides.by_id = by_id("no-g", "error"),
        &["no-f error f(1)", "no-g error g(4)"],
        2,
    );
    check(&|params| params.overrides.by_id = by_id("no-f", "off"), &["no-g hint g(4)"], 0);
    check(
        &|params| params.overrides.default = Some("warning".to_owned()),
        // ast-grep's own rule against bare suppressions is off by default, and this turns it on.
        &["no-f warning f(1)", "no-g warning g(4)", "no-suppress-all warning // ast-grep-ignore"],
        0,
    );
    check(&|params| params.overrides.filter = Some("^no-g".to_owned()), &["no-g hint g(4)"], 0);
    check(
        &|params| params.overrides.min_severity = Some("warning".to_owned()),
        &["no-f error f(1)"],
        1,
    );
}

#[test]
fn a_suppression_that_suppresses_nothing_is_reported_when_all_rules_run() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\n// ast-grep-ignore: no-f\nh()\n");
    let mut params = params(&tree, &[NO_F]);
    params.overrides.all_rules = true;
    let found = scan(&mut daemon.client(), &params);
    assert_eq!(shown(&found.records()), ["unused-suppression hint // ast-grep-ignore: no-f"]);
}

#[test]
fn fixes_labels_and_metadata_come_with_the_match() {
    let daemon = Daemon::start();
    let yaml = "id: r\nlanguage: js\nmetadata: {team: x}\nrule: {pattern: f($A)}\n\
                labels: {A: {style: primary, message: here}}\n\
                fix:\n- {template: g($A), title: use g}\n- {template: h($A), title: use h}\n";
    let tree = Fixture::parse("//- /a.js\nf(1)\n");
    let mut params = params(&tree, &[yaml]);
    params.all_fixes = true;
    params.include_metadata = true;
    let found = scan(&mut daemon.client(), &params);
    expect![[r#"{"text":"f(1)","range":{"byteOffset":{"start":0,"end":4},"start":{"line":0,"column":0},"end":{"line":0,"column":4}},"file":"a.js","lines":"f(1)","charCount":{"leading":0,"trailing":0},"replacement":"g(1)","replacementOffsets":{"start":0,"end":4},"language":"JavaScript","metaVariables":{"single":{"A":{"text":"1","range":{"byteOffset":{"start":2,"end":3},"start":{"line":0,"column":2},"end":{"line":0,"column":3}}}},"multi":{},"transformed":{}},"ruleId":"r","severity":"hint","note":null,"message":"","labels":[{"text":"1","range":{"byteOffset":{"start":2,"end":3},"start":{"line":0,"column":2},"end":{"line":0,"column":3}},"message":"here","style":"primary"}],"metadata":{"team":"x"},"fixes":[{"replacement":"g(1)","range":{"start":0,"end":4},"title":"use g"},{"replacement":"h(1)","range":{"start":0,"end":4},"title":"use h"}]}"#]].assert_eq(found.items[0].matches.iter().next().unwrap());
    params.all_fixes = false;
    params.include_metadata = false;
    let records = scan(&mut daemon.client(), &params).records();
    assert_eq!(records[0].replacement.as_deref(), Some("g(1)"));
    assert_eq!((records[0].fixes.len(), &records[0].metadata), (0, &None));
}

#[test]
fn a_limit_holds_over_all_rules() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1); g(1)\n//- /b.js\nf(2); g(2)\n");
    let mut client = daemon.client();
    for limit in 0..=5 {
        let mut params = params(&tree, &[NO_F, NO_G]);
        params.delivery.limit = Some(limit);
        let summary = scan(&mut client, &params).summary;
        assert_eq!((summary.matches, summary.limit_reached), (limit.min(4), limit < 4), "{limit}");
    }
}

/// How invalid rules are refused.
#[track_caller]
fn check_refused(adjust: impl FnOnce(&mut ScanParams), expected: &Expect) {
    let daemon = Daemon::start();
    let tree = tree();
    let mut params = params(&tree, &[NO_F]);
    adjust(&mut params);
    let mut client = daemon.client();
    let error = refused(&mut client, method::SCAN, &params);
    assert_eq!(error.error_code(), Some(ErrorCode::InvalidRule), "{error}");
    let causes = error.data.clone().map(|data| data.causes).unwrap_or_default();
    expected.assert_eq(&format!("{error}\n{}", causes.join("\n")));
    let good = scan(&mut client, &self::params(&tree, &[NO_F]));
    assert_eq!(good.summary.matches, 1, "the connection goes on");
}

#[test]
fn invalid_yaml_is_told_with_its_place() {
    check_refused(
        |params| params.rules.push(source("id: x\n  rule: [")),
        &expect![[r#"
        cannot parse rule rules/a.yml
        Fail to parse yaml as RuleConfig
        error: line 2 column 7: mapping values are not allowed in this context
         --> <input>:2:7
          |
        1 | id: x
        2 |   rule: [
          |       ^ mapping values are not allowed in this context
        mapping values are not allowed in this context at line 2, column 7"#]],
    );
}

#[test]
fn a_rule_without_a_rule_in_it_is_told() {
    check_refused(
        |params| params.rules.push(source("id: x\nlanguage: js\n")),
        &expect![[r#"
        cannot parse rule rules/a.yml
        Fail to parse yaml as RuleConfig
        error: line 2 column 1: missing field `rule`
         --> <input>:2:1
          |
        1 | id: x
        2 | language: js
          | ^ missing field `rule`
        missing field `rule` at line 2, column 1"#]],
    );
}

#[test]
fn a_rule_in_an_unknown_language_is_told() {
    check_refused(
        |params| params.rules.push(source("id: x\nlanguage: cobol\nrule: {kind: x}\n")),
        &expect![[r#"
            cannot parse rule rules/a.yml
            Fail to parse yaml as RuleConfig
            error: line 2 column 11: cobol is not supported!
             --> <input>:2:11
              |
            1 | id: x
            2 | language: cobol
              |           ^ cobol is not supported!
            3 | rule: {kind: x}
              |
            cobol is not supported! at line 2, column 11"#]],
    );
}

#[test]
fn a_rule_with_an_unknown_kind_or_an_undefined_utility_is_told() {
    check_refused(
        |params| params.rules.push(source("id: x\nlanguage: js\nrule: {kind: nothing}\n")),
        &expect![[r#"
            cannot parse rule rules/a.yml
            Fail to parse yaml as Rule.
            `rule` is not configured correctly.
            Rule contains invalid kind matcher.
            Invalid Kind
            Kind `nothing` is invalid."#]],
    );
    check_refused(
        |params| params.rules.push(source("id: x\nlanguage: js\nrule: {matches: nothing}\n")),
        &expect![[r#"
            cannot parse rule rules/a.yml
            Fail to parse yaml as Rule.
            `rule` is not configured correctly.
            Rule contains invalid matches reference.
            Rule `nothing` is not defined."#]],
    );
}

#[test]
fn an_id_used_twice_is_told_where_all_rules_of_a_project_are_present() {
    let twice = |params: &mut ScanParams| {
        params.rules.push(source(NO_F));
        params.overrides.all_rules = true;
    };
    check_refused(
        twice,
        &expect![[r#"
        duplicate rule id `no-f` is found
    "#]],
    );
}

#[test]
fn invalid_overrides_are_told() {
    check_refused(
        |params| params.overrides.filter = Some("(".to_owned()),
        &expect![[r#"
        the rule filter is not a valid regular expression: regex parse error:
            (
            ^
        error: unclosed group
    "#]],
    );
    check_refused(
        |params| params.overrides.filter = Some("nothing".to_owned()),
        &expect![[r#"
        no rule's id matches nothing
    "#]],
    );
    check_refused(
        |params| params.overrides.default = Some("fatal".to_owned()),
        &expect![[r#"
        no severity is called fatal: off, hint, info, warning and error are
    "#]],
    );
}

#[test]
fn an_invalid_utility_is_told() {
    check_refused(
        |params| params.utils.push(source("id: u\nlanguage: js\nrule: {kind: nothing}\n")),
        &expect![[r#"
            cannot parse the global utility rules
            `rule` is not configured correctly.
            Rule contains invalid kind matcher.
            Invalid Kind
            Kind `nothing` is invalid."#]],
    );
}
