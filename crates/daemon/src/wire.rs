//! Conversions between domain types and wire types, all of them, by hand.

use crate::errors;
use astscope_pattern_matcher as matcher;
use astscope_pattern_matcher::{CompactDoc, Fix, Match, RuleMatch, Severity, display};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages as wire;
use astscope_protocol::{DEADLINE_MS_MAX, LAGGING_PATHS_MAX};
use astscope_repository::Lag;
use astscope_synchronization::IgnoreSource;
use astscope_synchronization::service::Wait;
use astscope_syntax::{LineIndex, TextRange};
use serde::{Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;

type Lines = LineIndex<Arc<str>>;

/// A match of `run` as the JSON object that ast-grep prints.
pub(crate) fn run_record<'a>(
    doc: &'a CompactDoc,
    file: &'a str,
    found: &'a Match,
    context: wire::Context,
    brief: bool,
) -> impl Serialize + 'a {
    record(doc, file, found, context, brief)
}

/// A match of `scan` as the JSON object that ast-grep prints.
pub(crate) fn scan_record<'a>(
    doc: &'a CompactDoc,
    file: &'a str,
    found: &'a RuleMatch<'_>,
    include_metadata: bool,
    all_fixes: bool,
    brief: bool,
) -> impl Serialize + 'a {
    let rule = found.rule;
    let lines = doc.lines();
    let text = &doc.file().text;
    let mut record = record(doc, file, &found.found, wire::Context::default(), brief);
    record.rule_id = Some(&rule.id);
    record.severity = Some(severity_name(&rule.severity));
    record.note = Some(rule.note.as_deref());
    record.message = Some(&found.message);
    record.labels = found
        .labels
        .iter()
        .map(|label| Label {
            text: &text[label.range.to_usize()],
            range: range(lines, label.range),
            message: label.message.as_deref(),
            style: if label.is_primary { "primary" } else { "secondary" },
        })
        .collect();
    if include_metadata {
        record.metadata =
            rule.metadata.as_ref().and_then(|metadata| serde_json::to_value(metadata).ok());
    }
    if all_fixes {
        record.fixes = found.found.fixes.iter().map(fix).collect();
    }
    record
}

/// [`wire::MatchRecord`] with borrowed texts, because copying them first costs as much as writing
/// them out; a test sees to it that both write the same.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    range: wire::Range,
    file: &'a str,
    lines: &'a str,
    char_count: wire::CharCount,
    #[serde(skip_serializing_if = "Option::is_none")]
    replacement: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replacement_offsets: Option<wire::ByteRange>,
    language: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_variables: Option<MetaVariables<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[expect(clippy::option_option, reason = "absent in a run, null in a scan without a note")]
    note: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<Label<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixes: Vec<wire::Fix>,
}

#[derive(Serialize)]
struct MetaVariables<'a> {
    #[serde(serialize_with = "by_name")]
    single: Vec<(&'a str, Captured<'a>)>,
    #[serde(serialize_with = "by_name")]
    multi: Vec<(&'a str, Vec<Captured<'a>>)>,
    #[serde(serialize_with = "by_name")]
    transformed: &'a [(String, String)],
}

/// Pairs as an object. Captures come sorted by name.
fn by_name<S: Serializer, K: Serialize, V: Serialize>(
    pairs: impl AsRef<[(K, V)]>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.as_ref().iter().map(|(name, value)| (name, value)))
}

#[derive(Serialize)]
struct Captured<'a> {
    text: &'a str,
    range: wire::Range,
}

#[derive(Serialize)]
struct Label<'a> {
    text: &'a str,
    range: wire::Range,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    style: &'static str,
}

fn record<'a>(
    doc: &'a CompactDoc,
    file: &'a str,
    found: &'a Match,
    context: wire::Context,
    brief: bool,
) -> Record<'a> {
    let lines = doc.lines();
    let text = &*doc.file().text;
    let excerpt = display::excerpt(text, found.range, context.before, context.after);
    let shown = found.range.start as usize - excerpt.leading.len()
        ..found.range.end as usize + excerpt.trailing.len();
    let chosen = found.fixes.first();
    let captures = found.captures.as_ref().filter(|_| !brief);
    Record {
        text: (!brief).then_some(excerpt.matched),
        range: range(lines, found.range),
        file,
        lines: &text[shown],
        char_count: wire::CharCount {
            leading: excerpt.leading.chars().count() as u64,
            trailing: excerpt.trailing.chars().count() as u64,
        },
        replacement: chosen.map(|fix| &*fix.replacement),
        replacement_offsets: chosen.map(|fix| bytes(fix.range)),
        language: doc.language().name(),
        meta_variables: captures.map(|captures| meta_variables(lines, text, captures)),
        rule_id: None,
        severity: None,
        note: None,
        message: None,
        labels: Vec::new(),
        metadata: None,
        fixes: Vec::new(),
    }
}

fn meta_variables<'a>(
    lines: &Lines,
    text: &'a str,
    captures: &'a matcher::Captures,
) -> MetaVariables<'a> {
    let captured =
        |at: &TextRange| Captured { text: &text[at.to_usize()], range: range(lines, *at) };
    let multi = captures.multi.iter();
    MetaVariables {
        single: captures.single.iter().map(|(name, at)| (&**name, captured(at))).collect(),
        multi: multi.map(|(name, all)| (&**name, all.iter().map(captured).collect())).collect(),
        transformed: &captures.transformed,
    }
}

fn fix(fix: &Fix) -> wire::Fix {
    wire::Fix {
        replacement: fix.replacement.clone(),
        range: bytes(fix.range),
        title: fix.title.clone(),
    }
}

fn bytes(range: TextRange) -> wire::ByteRange {
    wire::ByteRange { start: range.start.into(), end: range.end.into() }
}

/// A range in bytes and in lines with character columns.
pub(crate) fn range(lines: &Lines, range: TextRange) -> wire::Range {
    let position = |offset| {
        let position = lines.position(offset);
        wire::Position { line: position.line, column: position.column }
    };
    wire::Range {
        byte_offset: bytes(range),
        start: position(range.start),
        end: position(range.end),
    }
}

fn severity_name(severity: &Severity) -> &'static str {
    match severity {
        Severity::Off => "off",
        Severity::Hint => "hint",
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// A pattern or kind as asked for.
pub(crate) fn matcher_spec(spec: wire::MatcherSpec) -> matcher::MatcherSpec {
    matcher::MatcherSpec {
        pattern: spec.pattern,
        selector: spec.selector,
        strictness: spec.strictness,
        kind: spec.kind,
    }
}

/// A rule file as sent.
pub(crate) fn rule_source(source: wire::RuleSource) -> matcher::RuleSource {
    matcher::RuleSource { source: source.source, yaml: source.yaml, default_id: source.default_id }
}

/// Severities as asked for.
pub(crate) fn overrides(overrides: wire::SeverityOverrides) -> matcher::SeverityOverrides {
    matcher::SeverityOverrides {
        filter: overrides.filter,
        min_severity: overrides.min_severity,
        default: overrides.default,
        by_id: overrides.by_id,
        all_rules: overrides.all_rules,
    }
}

/// A revision.
pub(crate) fn revision(revision: astscope_repository::Revision) -> wire::Revision {
    wire::Revision { epoch: revision.epoch, number: revision.number }
}

/// A revision as a client knows it.
pub(crate) fn revision_of(revision: wire::Revision) -> astscope_repository::Revision {
    astscope_repository::Revision { epoch: revision.epoch, number: revision.number }
}

/// How long a query wants files to be waited for, if it says so.
pub(crate) fn wait(delivery: &wire::Delivery) -> Result<Option<Wait>, RpcError> {
    match (delivery.no_wait, delivery.wait_ms) {
        (true, Some(ms)) if ms > 0 => {
            Err(errors::params(format!("`noWait` doesn't go with a `waitMs` of {ms}")))
        }
        (_, Some(ms)) if ms > DEADLINE_MS_MAX => {
            let message = format!("a wait of {ms} ms is over the limit of {DEADLINE_MS_MAX} ms");
            Err(errors::params(message))
        }
        (true, _) => Ok(Some(Wait::Within(Duration::ZERO))),
        (false, ms) => Ok(ms.map(|ms| Wait::Within(Duration::from_millis(ms)))),
    }
}

/// In what the files of a query are behind the disk.
pub(crate) fn freshness(lag: &Lag) -> wire::Freshness {
    wire::Freshness {
        state: "lagging".to_owned(),
        files: lag.files.len() as u64,
        ms: u64::try_from(lag.behind.as_millis()).unwrap_or(u64::MAX),
        paths: lag.files.iter().take(LAGGING_PATHS_MAX).map(ToString::to_string).collect(),
        names_unknown: lag.are_names_unknown,
    }
}

/// A file without a tree.
pub(crate) fn skipped(path: String, reason: &astscope_syntax::SkipReason) -> wire::SkippedFile {
    wire::SkippedFile { path, reason: reason.code().to_owned(), detail: reason.to_string() }
}

/// A source of ignore rules.
pub(crate) fn ignore_source(kind: wire::IgnoreKind) -> IgnoreSource {
    match kind {
        wire::IgnoreKind::Hidden => IgnoreSource::Hidden,
        wire::IgnoreKind::Dot => IgnoreSource::Dot,
        wire::IgnoreKind::Exclude => IgnoreSource::Exclude,
        wire::IgnoreKind::Global => IgnoreSource::Global,
        wire::IgnoreKind::Parent => IgnoreSource::Parent,
        wire::IgnoreKind::Vcs => IgnoreSource::Vcs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_parsing::{Limits, parse};
    use astscope_pattern_matcher::{RuleSet, RuleSource, SeverityOverrides};
    use astscope_syntax::Language;
    use std::path::Path;

    /// Whatever a record writes, the wire type reads, and writes again to the letter.
    #[test]
    fn a_borrowed_record_is_written_as_the_wire_type_is() {
        let yaml = "
id: r
language: js
severity: error
message: m $A
note: n
metadata: {k: 1}
rule: {pattern: 'f($A, $$$B)', inside: {kind: program, stopBy: end}}
transform: {U: {convert: {source: $A, toCase: upperCase}}}
labels: {A: {style: primary, message: here}}
fix: [{template: g($U), title: t}, {template: h(), title: u}]
";
        let source = RuleSource { source: "r".into(), yaml: yaml.into(), default_id: None };
        let rules = RuleSet::compile(&[source], &[], &SeverityOverrides::default()).unwrap();
        let text = "é; f(\"x\\n\", 2, 3)";
        let file = parse(text.into(), Language::JavaScript, &Limits::DAEMON, &mut || false);
        let doc = CompactDoc::host(Arc::new(file.unwrap()));
        let found = rules.scan(doc.clone(), Path::new("a.js"), true);
        let record = |brief| {
            let written = scan_record(&doc, "a.js", &found[0], true, true, brief);
            let written = serde_json::to_string(&written).unwrap();
            let read: wire::MatchRecord = serde_json::from_str(&written).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), written);
            read
        };
        let (full, brief) = (record(false), record(true));
        assert!(full.metadata.is_some() && full.fixes.len() == 2 && full.labels.len() == 1);
        assert!(full.text.is_some() && full.meta_variables.is_some());
        // What is left out is all that differs.
        assert_eq!(brief, wire::MatchRecord { text: None, meta_variables: None, ..full });
    }
}
