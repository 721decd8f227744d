//! What is asked, once for each side: as a request on the socket, as arguments of ast-grep, and as
//! settings of a walk.

use anyhow::Result;
use astscope_protocol::client::{CallError, Client, Event};
use astscope_protocol::messages::{
    Delivery, IgnoreKind, MatcherSpec, RuleSource, RunParams, ScanParams, Selection, SkippedFile,
    method,
};
use astscope_syntax::Language;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

/// A call with one argument, in every language that has calls.
const PATTERN: &str = "marker($A)";

/// The rule of the scans. Its language is [`RULE_LANGUAGE`].
const RULE: &str = "\
id: marked
language: js
severity: warning
message: $A is marked
rule: {pattern: 'marker($A)'}
";
const RULE_LANGUAGE: Language = Language::JavaScript;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Matcher {
    /// The pattern, in each file's own language or in one.
    Pattern(Option<Language>),
    /// The rule.
    Rule,
}

impl Matcher {
    /// The languages whose files it selects; `None` for all.
    pub(super) fn language(self) -> Option<Language> {
        match self {
            Self::Pattern(language) => language,
            Self::Rule => Some(RULE_LANGUAGE),
        }
    }
}

/// A matcher and the files that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Question {
    pub(super) matcher: Matcher,
    /// Files and directories below the root as typed; none for the root itself.
    pub(super) paths: Vec<String>,
    pub(super) globs: Vec<String>,
    /// Hidden files too.
    pub(super) hidden: bool,
    /// What git ignores too.
    pub(super) no_vcs: bool,
    pub(super) follow: bool,
    /// With the files' texts.
    pub(super) with_source: bool,
}

/// What is said of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileAnswer {
    /// As typed and found.
    pub(super) file: String,
    /// The hash of the bytes that were searched, in hex.
    pub(super) content: String,
    /// The matches as JSON, to the letter.
    pub(super) matches: Vec<String>,
}

/// A whole answer. Two that are equal say the same of every file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// In the order of their paths.
    pub(super) files: Vec<FileAnswer>,
    /// Path and reason.
    pub(super) skipped: BTreeSet<(String, String)>,
}

/// What the daemon said.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) answer: Answer,
    /// The texts of the answer's files, if they were asked for.
    pub(super) sources: Vec<String>,
    /// What it calls an answer that it doesn't promise to be exact.
    pub(super) freshness: Option<String>,
}

/// The end of an answer, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Ending {
    skipped: Vec<SkippedFile>,
    /// Absent where the answer is exact, and in daemons that know no other.
    freshness: Option<Value>,
}

impl Question {
    /// The whole root.
    pub(super) fn all(matcher: Matcher) -> Self {
        Self {
            matcher,
            paths: Vec::new(),
            globs: Vec::new(),
            hidden: false,
            no_vcs: false,
            follow: false,
            with_source: false,
        }
    }

    /// These paths.
    pub(super) fn of(matcher: Matcher, paths: Vec<String>) -> Self {
        Self { paths, ..Self::all(matcher) }
    }

    /// Asks the daemon, as somebody who is in `cwd`.
    pub(super) fn ask(&self, client: &mut Client, cwd: &Path) -> Result<Told, CallError> {
        let selection = Selection {
            cwd: cwd.to_string_lossy().into_owned(),
            paths: self.paths.clone(),
            globs: self.globs.clone(),
            no_ignore: [(self.hidden, IgnoreKind::Hidden), (self.no_vcs, IgnoreKind::Vcs)]
                .into_iter()
                .filter_map(|(is_set, kind)| is_set.then_some(kind))
                .collect(),
            follow: self.follow,
            ..Selection::default()
        };
        let delivery = Delivery { include_source: self.with_source, ..Delivery::default() };
        let mut told = Told::default();
        let on_event = |event| {
            if let Event::Item(item) = event {
                told.answer.files.push(FileAnswer {
                    matches: item.matches.iter().map(str::to_owned).collect(),
                    file: item.file,
                    content: item.content_id,
                });
                told.sources.extend(item.source);
            }
            ControlFlow::Continue(())
        };
        let ending: Ending = match self.matcher {
            Matcher::Pattern(language) => {
                let pattern = Some(PATTERN.to_owned());
                let params = RunParams {
                    selection,
                    matcher: MatcherSpec { pattern, ..MatcherSpec::default() },
                    language: language.map(|language| language.name().to_owned()),
                    delivery,
                    ..RunParams::default()
                };
                client.call_streaming(method::RUN, &params, on_event)?
            }
            Matcher::Rule => {
                let yaml = RULE.to_owned();
                let params = ScanParams {
                    project_dir: selection.cwd.clone(),
                    selection,
                    rules: vec![RuleSource { yaml, ..RuleSource::default() }],
                    delivery,
                    ..ScanParams::default()
                };
                client.call_streaming(method::SCAN, &params, on_event)?
            }
        };
        let skipped = ending.skipped.into_iter().map(|file| (file.path, file.reason));
        told.answer.skipped = skipped.collect();
        told.freshness = ending.freshness.as_ref().and_then(inexact);
        Ok(told)
    }

    /// The arguments with which ast-grep answers the same.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = match self.matcher {
            Matcher::Pattern(language) => {
                let language = language.map(|it| format!("--lang={}", it.aliases()[0]));
                ["run", "--pattern", PATTERN]
                    .map(str::to_owned)
                    .into_iter()
                    .chain(language)
                    .collect()
            }
            Matcher::Rule => ["scan", "--inline-rules", RULE].map(str::to_owned).to_vec(),
        };
        arguments.push("--json=stream".to_owned());
        arguments.extend(self.globs.iter().map(|glob| format!("--globs={glob}")));
        arguments.extend(self.hidden.then(|| "--no-ignore=hidden".to_owned()));
        arguments.extend(self.no_vcs.then(|| "--no-ignore=vcs".to_owned()));
        arguments.extend(self.follow.then(|| "--follow".to_owned()));
        arguments.extend(self.paths.iter().cloned());
        arguments
    }
}

/// What a summary calls its freshness, unless that is exact.
fn inexact(freshness: &Value) -> Option<String> {
    let named = freshness.get("state").or_else(|| freshness.get("kind")).unwrap_or(freshness);
    let name = named.as_str().map_or_else(|| named.to_string(), str::to_owned);
    (name != "exact").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_not_exact_is_named() {
        assert_eq!(inexact(&json!("exact")), None);
        assert_eq!(inexact(&json!({"state": "exact"})), None);
        assert_eq!(inexact(&json!("lagging")), Some("lagging".to_owned()));
        assert_eq!(inexact(&json!({"state": "lagging", "byMs": 7})), Some("lagging".to_owned()));
        assert_eq!(inexact(&json!({"lagging": 7})), Some(r#"{"lagging":7}"#.to_owned()));
    }

    #[test]
    fn ast_grep_is_asked_the_same() {
        let question = Question {
            globs: vec!["!*.js".to_owned()],
            hidden: true,
            ..Question::of(Matcher::Pattern(Some(Language::Python)), vec!["d".to_owned()])
        };
        let expected = ["run", "--pattern", PATTERN, "--lang=py", "--json=stream"];
        let rest = ["--globs=!*.js", "--no-ignore=hidden", "d"];
        assert_eq!(question.arguments(), [&expected[..], &rest[..]].concat());
    }
}
