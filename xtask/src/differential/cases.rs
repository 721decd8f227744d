//! What is asked of both programs: read from `differential/cases.jsonl` and `differential/rules/`.
//!
//! A pattern is one line of JSON; a rule is a file of its own, whose leading comments say where it
//! is tried: `# corpora: samples crates` and, if it needs any, `# flags: --include-metadata`.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// One question, asked in each of its corpora.
#[derive(Clone, Debug)]
pub(super) struct Case {
    /// Unique; what `--only` looks into.
    pub(super) name: String,
    /// The language as typed, or `-` where the programs infer it.
    pub(super) language: String,
    /// Names of the corpora to ask in.
    pub(super) corpora: Vec<String>,
    /// Whether it counts as a rule.
    pub(super) is_rule: bool,
    /// Everything after the program's name, without paths.
    pub(super) args: Vec<String>,
    /// The labels come in no order.
    pub(super) unordered_labels: bool,
}

/// A line of `cases.jsonl`: either a pattern or a kind for `run`, or arguments for `scan`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    corpora: Vec<String>,
    /// Left out where the programs infer it.
    lang: Option<String>,
    pattern: Option<String>,
    kind: Option<String>,
    selector: Option<String>,
    strictness: Option<String>,
    rewrite: Option<String>,
    /// Arguments for `scan`, for rules that aren't one file.
    scan: Option<Vec<String>>,
    #[serde(default)]
    flags: Vec<String>,
}

/// All cases under the directory `data`, patterns first.
pub(super) fn load(data: &Path) -> Result<Vec<Case>> {
    let list = data.join("cases.jsonl");
    let text =
        fs::read_to_string(&list).with_context(|| format!("can't read {}", list.display()))?;
    let mut cases = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let line: Line =
            serde_json::from_str(line).with_context(|| format!("{}:{}", list.display(), at + 1))?;
        cases.push(Case::from_line(line, data)?);
    }
    let rules = data.join("rules");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&rules).with_context(|| format!("can't read {}", rules.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yml") {
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        cases.push(Case::from_rule(&path, data)?);
    }
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find_map(|pair| (pair[0] == pair[1]).then_some(pair[0])) {
        bail!("two cases are called {twice}");
    }
    Ok(cases)
}

impl Case {
    fn from_line(line: Line, data: &Path) -> Result<Self> {
        let questions = [line.pattern.is_some(), line.kind.is_some(), line.scan.is_some()];
        ensure!(
            questions.iter().filter(|asked| **asked).count() == 1,
            "case {} needs exactly one of pattern, kind, scan",
            line.name
        );
        let is_rule = line.scan.is_some();
        let mut args =
            vec![if is_rule { "scan" } else { "run" }.to_owned(), "--json=stream".to_owned()];
        let options = [
            ("--lang", line.lang.as_ref().filter(|_| !is_rule)),
            ("--pattern", line.pattern.as_ref()),
            ("--kind", line.kind.as_ref()),
            ("--selector", line.selector.as_ref()),
            ("--strictness", line.strictness.as_ref()),
            ("--rewrite", line.rewrite.as_ref()),
        ];
        for (flag, value) in options {
            // One word, because a value may begin with a dash.
            args.extend(value.map(|value| format!("{flag}={value}")));
        }
        args.extend(
            line.scan.into_iter().flatten().chain(line.flags).map(|arg| with_data(&arg, data)),
        );
        Ok(Self {
            name: line.name,
            language: line.lang.unwrap_or_else(|| "-".to_owned()),
            corpora: line.corpora,
            is_rule,
            args,
            unordered_labels: is_rule,
        })
    }

    fn from_rule(path: &Path, data: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        let corpora: Vec<_> = value("# corpora:").split_whitespace().map(str::to_owned).collect();
        ensure!(!corpora.is_empty(), "{} names no corpora", path.display());
        let mut args = vec!["scan".to_owned(), "--json=stream".to_owned(), "--rule".to_owned()];
        args.push(path.to_string_lossy().into_owned());
        args.extend(value("# flags:").split_whitespace().map(|flag| with_data(flag, data)));
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            name: format!("rule/{name}"),
            language: value("language:").trim().to_owned(),
            corpora,
            is_rule: true,
            args,
            unordered_labels: text.lines().any(|line| line == "labels:"),
        })
    }
}

/// `{data}` in an argument stands for the directory of the test's data.
fn with_data(arg: &str, data: &Path) -> String {
    arg.replace("{data}", &data.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::differential::data_dir;
    use std::collections::BTreeSet;

    #[test]
    fn the_committed_cases_load_and_exceed_the_minimum() {
        let cases = load(&data_dir()).unwrap();
        let languages: BTreeSet<_> = cases.iter().map(|case| case.language.as_str()).collect();
        assert!(cases.iter().filter(|case| !case.is_rule).count() >= 70);
        assert!(cases.iter().filter(|case| case.is_rule).count() >= 36);
        assert!(languages.len() >= 10, "{languages:?}");
    }

    #[test]
    fn all_strictness_levels_are_tried_several_times() {
        let cases = load(&data_dir()).unwrap();
        for level in ["cst", "smart", "ast", "relaxed", "signature", "template"] {
            let flag = format!("--strictness={level}");
            let count = cases.iter().filter(|case| case.args.contains(&flag)).count();
            assert!(count >= 3, "{level} is tried {count} times");
        }
    }

    #[test]
    fn a_line_asks_exactly_one_question() {
        let line = serde_json::from_str(
            r#"{"name": "n", "corpora": ["samples"], "pattern": "a", "kind": "b"}"#,
        )
        .unwrap();
        let error = Case::from_line(line, Path::new("data")).unwrap_err();
        assert_eq!(error.to_string(), "case n needs exactly one of pattern, kind, scan");
    }

    #[test]
    fn a_line_becomes_arguments() {
        let line = r#"{"name": "n", "corpora": ["samples"], "lang": "js", "pattern": "-$A", "flags": ["-c", "{data}/x"]}"#;
        let case = Case::from_line(serde_json::from_str(line).unwrap(), Path::new("data")).unwrap();
        assert_eq!(
            case.args,
            ["run", "--json=stream", "--lang=js", "--pattern=-$A", "-c", "data/x"]
        );
    }
}
