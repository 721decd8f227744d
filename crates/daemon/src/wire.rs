//! Conversions between domain types and wire types, all of them, by hand.

use astscope_pattern_matcher as matcher;
use astscope_pattern_matcher::{CompactDoc, Fix, Match, RuleMatch, Severity, display};
use astscope_protocol::messages as wire;
use astscope_synchronization::IgnoreSource;
use astscope_syntax::{LineIndex, TextRange};
use serde_json::value::RawValue;
use std::sync::Arc;

type Lines = LineIndex<Arc<str>>;

/// A match of `run` as the JSON object that ast-grep prints.
pub(crate) fn run_record(
    doc: &CompactDoc,
    file: &str,
    found: &Match,
    context: wire::Context,
) -> Option<Box<RawValue>> {
    raw(&record(doc, file, found, context))
}

/// A match of `scan` as the JSON object that ast-grep prints.
pub(crate) fn scan_record(
    doc: &CompactDoc,
    file: &str,
    found: &RuleMatch<'_>,
    include_metadata: bool,
    all_fixes: bool,
) -> Option<Box<RawValue>> {
    let rule = found.rule;
    let lines = doc.lines();
    let text = &doc.file().text;
    let mut record = record(doc, file, &found.found, wire::Context::default());
    record.rule_id = Some(rule.id.clone());
    record.severity = Some(severity_name(&rule.severity).to_owned());
    record.note = Some(rule.note.clone());
    record.message = Some(found.message.clone());
    record.labels = found
        .labels
        .iter()
        .map(|label| wire::Label {
            text: text[label.range.to_usize()].to_owned(),
            range: range(lines, label.range),
            message: label.message.clone(),
            style: if label.is_primary { "primary" } else { "secondary" }.to_owned(),
        })
        .collect();
    if include_metadata {
        record.metadata =
            rule.metadata.as_ref().and_then(|metadata| serde_json::to_value(metadata).ok());
    }
    if all_fixes {
        record.fixes = found.found.fixes.iter().map(fix).collect();
    }
    raw(&record)
}

fn record(
    doc: &CompactDoc,
    file: &str,
    found: &Match,
    context: wire::Context,
) -> wire::MatchRecord {
    let lines = doc.lines();
    let text = &*doc.file().text;
    let excerpt = display::excerpt(text, found.range, context.before, context.after);
    let chosen = found.fixes.first();
    wire::MatchRecord {
        text: excerpt.matched.to_owned(),
        range: range(lines, found.range),
        file: file.to_owned(),
        lines: [excerpt.leading, excerpt.matched, excerpt.trailing].concat(),
        char_count: wire::CharCount {
            leading: excerpt.leading.chars().count() as u64,
            trailing: excerpt.trailing.chars().count() as u64,
        },
        replacement: chosen.map(|fix| fix.replacement.clone()),
        replacement_offsets: chosen.map(|fix| bytes(fix.range)),
        language: doc.language().name().to_owned(),
        meta_variables: found
            .captures
            .as_ref()
            .map(|captures| meta_variables(lines, text, captures)),
        rule_id: None,
        severity: None,
        note: None,
        message: None,
        labels: Vec::new(),
        metadata: None,
        fixes: Vec::new(),
    }
}

fn meta_variables(lines: &Lines, text: &str, captures: &matcher::Captures) -> wire::MetaVariables {
    let captured = |at: &TextRange| wire::Captured {
        text: text[at.to_usize()].to_owned(),
        range: range(lines, *at),
    };
    let single = captures.single.iter().map(|(name, at)| (name.clone(), captured(at)));
    let multi =
        captures.multi.iter().map(|(name, all)| (name.clone(), all.iter().map(captured).collect()));
    wire::MetaVariables {
        single: single.collect(),
        multi: multi.collect(),
        transformed: captures.transformed.iter().cloned().collect(),
    }
}

fn raw(record: &wire::MatchRecord) -> Option<Box<RawValue>> {
    // Plain structs of strings and numbers always serialise.
    serde_json::value::to_raw_value(record).ok()
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
