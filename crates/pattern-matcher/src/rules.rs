//! YAML rules: compiled once, then scanned over trees, all rules in one pass.

use crate::doc::CompactDoc;
use crate::lang::Lang;
use crate::matcher::kind_set;
use crate::matches::{Match, text_range};
use crate::requirement::Requirement;
use crate::stack;
use ast_grep_config::{
    CombinedScan, DeserializeEnv, GlobalRules, LabelStyle, NO_SUPPRESS_ALL_ID, RuleCollection,
    RuleConfig, SerializableGlobalRule, Severity, UNUSED_SUPPRESSION_ID, from_str,
    from_yaml_string,
};
use ast_grep_core::{AstGrep, Matcher as _, NodeMatch, Pattern};
use astscope_syntax::{KindSet, Language, ParsedFile, TextRange};
use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// A YAML text with rules.
#[derive(Clone, Debug, Default)]
pub struct RuleSource {
    /// What to call it in errors.
    pub source: String,
    /// One or more YAML documents.
    pub yaml: String,
    /// Id for rules without one; several get `-0`, `-1`, … appended.
    pub default_id: Option<String>,
}

/// Which rules run, and how severe they are.
#[derive(Clone, Debug, Default)]
pub struct SeverityOverrides {
    /// Only rules whose id matches this regex.
    pub filter: Option<String>,
    /// Only rules at least this severe.
    pub min_severity: Option<String>,
    /// For all rules that `by_id` doesn't name.
    pub default: Option<String>,
    /// By rule id.
    pub by_id: BTreeMap<String, String>,
    /// Whether these are all rules of a project: then their ids are unique, and suppressions that
    /// no rule needs are hints.
    pub all_rules: bool,
}

/// Why rules can't be compiled.
#[derive(Debug, Error)]
pub enum RuleError {
    /// A rule file is not valid.
    #[error("cannot parse rule {rule}")]
    Rule {
        /// What the file is called.
        rule: String,
        /// ast-grep's words, outermost first.
        causes: Vec<String>,
    },
    /// A utility file is not valid.
    #[error("cannot parse the global utility rules")]
    Utils {
        /// ast-grep's words, outermost first.
        causes: Vec<String>,
    },
    /// Two rules of one id.
    #[error("duplicate rule id `{0}` is found")]
    DuplicateId(String),
    /// A glob in `files` or `ignores`.
    #[error("cannot parse a glob pattern of a rule: {0}")]
    Glob(String),
    /// The filter is not a regular expression.
    #[error("the rule filter is not a valid regular expression: {0}")]
    Filter(String),
    /// The filter leaves no rule.
    #[error("no rule's id matches {0}")]
    NoRuleMatches(String),
    /// No such severity.
    #[error("no severity is called {0}: off, hint, info, warning and error are")]
    Severity(String),
}

/// Compiled rules.
pub struct RuleSet {
    rules: RuleCollection<Lang>,
    /// By rule id.
    requirements: BTreeMap<String, Requirement>,
    unused_suppression: RuleConfig<Lang>,
    no_suppress_all: RuleConfig<Lang>,
    languages: BTreeSet<Language>,
}

impl std::fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleSet").field("requirements", &self.requirements).finish_non_exhaustive()
    }
}

/// A match of a rule.
pub struct RuleMatch<'r> {
    /// The rule.
    pub rule: &'r RuleConfig<Lang>,
    /// The match.
    pub found: Match,
    /// The rule's message with metavariables filled in.
    pub message: String,
    /// What to point at.
    pub labels: Vec<Label>,
}

impl std::fmt::Debug for RuleMatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleMatch")
            .field("rule", &self.rule.id)
            .field("found", &self.found)
            .finish_non_exhaustive()
    }
}

/// A place that a report points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub range: TextRange,
    /// Its own words.
    pub message: Option<String>,
    /// The cause, rather than context.
    pub is_primary: bool,
}

impl RuleSet {
    /// Compiles `sources`, which may use `utils`.
    pub fn compile(
        sources: &[RuleSource],
        utils: &[RuleSource],
        overrides: &SeverityOverrides,
    ) -> Result<Self, RuleError> {
        let severities = Severities::new(overrides)?;
        let globals = compile_utils(utils)?;
        let mut configs = Vec::new();
        for source in sources {
            configs.extend(compile_source(source, &globals)?);
        }
        let mut ids = BTreeSet::new();
        let twice = |rule: &&RuleConfig<Lang>| !rule.id.is_empty() && !ids.insert(rule.id.clone());
        if overrides.all_rules
            && let Some(twice) = configs.iter().find(twice)
        {
            return Err(RuleError::DuplicateId(twice.id.clone()));
        }
        let configs = severities.apply(configs)?;
        let languages = configs.iter().map(|rule| rule.language.0).collect();
        let mut requirements = BTreeMap::new();
        for rule in &configs {
            // Rules given ad hoc may share an id, or have none.
            let of_id = requirements.entry(rule.id.clone()).or_insert(Requirement::Any(Vec::new()));
            *of_id = Requirement::any([std::mem::take(of_id), requirement(rule)]);
        }
        let rules =
            RuleCollection::try_new(configs).map_err(|error| RuleError::Glob(error.to_string()))?;
        let unused = if overrides.all_rules && severities.is_complete() {
            Severity::Hint
        } else {
            Severity::Off
        };
        let lang = Lang(Language::Rust);
        Ok(Self {
            rules,
            requirements,
            unused_suppression: CombinedScan::unused_config(
                severities.of_builtin(UNUSED_SUPPRESSION_ID, unused),
                lang,
            ),
            no_suppress_all: CombinedScan::no_suppress_all_config(
                severities.of_builtin(NO_SUPPRESS_ALL_ID, Severity::Off),
                lang,
            ),
            languages,
        })
    }

    /// The languages of the rules that run.
    pub fn languages(&self) -> impl Iterator<Item = Language> {
        self.languages.iter().copied()
    }

    /// Number of rules that run.
    pub fn n_rules(&self) -> usize {
        self.rules.total_rule_count()
    }

    /// Whether scanning `file` could find anything.
    pub fn admits(&self, file: &ParsedFile, path: &Path) -> bool {
        (self.reports_suppressions() && file.text.contains("ast-grep-ignore"))
            || file.trees().any(|(language, tree)| {
                let rules = self.rules.get_rule_from_lang(path, Lang(language));
                rules.iter().any(|rule| self.requirement(rule).admits(&file.text, tree))
            })
    }

    /// All matches in one tree, in the order of position, then of rule id.
    ///
    /// `path` is the file's, relative to the project, for the rules' globs. With `all_fixes`
    /// a match carries each fix of its rule, else the first only.
    pub fn scan(&self, doc: CompactDoc, path: &Path, all_fixes: bool) -> Vec<RuleMatch<'_>> {
        let (text, language) = (Arc::clone(&doc.file().text), doc.language());
        let mut rules = self.rules.get_rule_from_lang(path, Lang(language));
        // What a rule's requirement rules out has no match that a suppression could be used for.
        rules.retain(|rule| self.requirement(rule).admits(&text, doc.parsed()));
        let suppressions = self.reports_suppressions() && text.contains("ast-grep-ignore");
        if rules.is_empty() && !suppressions {
            return Vec::new();
        }
        stack::sized_for(doc.parsed().tree.depth(), || self.scan_with(&rules, doc, all_fixes))
    }

    fn scan_with<'r>(
        &'r self,
        rules: &[&'r RuleConfig<Lang>],
        doc: CompactDoc,
        all_fixes: bool,
    ) -> Vec<RuleMatch<'r>> {
        let root = AstGrep::doc(doc);
        let mut combined = CombinedScan::new(rules.to_vec());
        combined.set_unused_suppression_rule(&self.unused_suppression);
        combined.set_no_suppress_all_rule(&self.no_suppress_all);
        let scanned = combined.scan(&root, false);
        let mut matches = Vec::new();
        for (rule, found) in scanned.matches {
            // `scan` ties the rules' lifetime to its own borrow; the rule is ours all the same.
            let builtin = [&self.unused_suppression, &self.no_suppress_all];
            let owned =
                rules.iter().copied().chain(builtin).find(|known| std::ptr::eq(*known, rule));
            let Some(rule) = owned else { continue };
            let n_fixers = if all_fixes { usize::MAX } else { 1 };
            matches.extend(found.iter().map(|found| RuleMatch {
                rule,
                found: Match::new(found, &rule.matcher, rule.fixer.iter().take(n_fixers)),
                message: rule.get_message(found),
                labels: labels(rule, found),
            }));
        }
        matches.sort_by(|a, b| {
            let key = |m: &RuleMatch<'r>| (m.found.range.start, m.found.node);
            key(a).cmp(&key(b)).then_with(|| a.rule.id.cmp(&b.rule.id))
        });
        matches
    }

    /// Requirements by rule id, for `explain`.
    pub fn requirements(&self) -> &BTreeMap<String, Requirement> {
        &self.requirements
    }

    fn requirement(&self, rule: &RuleConfig<Lang>) -> &Requirement {
        self.requirements.get(&rule.id).unwrap_or(&Requirement::Always)
    }

    fn reports_suppressions(&self) -> bool {
        [&self.unused_suppression, &self.no_suppress_all]
            .iter()
            .any(|rule| rule.severity != Severity::Off)
    }
}

fn labels(rule: &RuleConfig<Lang>, found: &NodeMatch<'_, CompactDoc>) -> Vec<Label> {
    let mut labels: Vec<Label> = rule
        .get_labels(found)
        .into_iter()
        .map(|label| Label {
            range: text_range(label.range()),
            message: label.message.map(str::to_owned),
            is_primary: label.style == LabelStyle::Primary,
        })
        .collect();
    if rule.labels.is_some() {
        // They come out of a hash map.
        labels.sort_by(|a, b| {
            (a.range, &a.message, a.is_primary).cmp(&(b.range, &b.message, b.is_primary))
        });
    }
    labels
}

/// What the tree and file must contain: from the rule's kinds, and from the patterns in it that
/// can't be done without.
fn requirement(rule: &RuleConfig<Lang>) -> Requirement {
    let kinds = rule.matcher.potential_kinds().map(|kinds| kind_set(&kinds));
    let kinds: Requirement =
        kinds.map_or(Requirement::Always, |kinds: KindSet| Requirement::Kinds(kinds));
    let parts = serde_json::to_value(&rule.core.rule)
        .map_or(Requirement::Always, |value| of_rule_object(&value, rule.language));
    Requirement::all([kinds, parts])
}

/// A rule object is the conjunction of its keys. `not`, `matches`, `regex` and the rest promise
/// nothing about what a file contains.
fn of_rule_object(rule: &serde_json::Value, lang: Lang) -> Requirement {
    let Some(keys) = rule.as_object() else {
        return Requirement::Always;
    };
    Requirement::all(keys.iter().map(|(key, value)| match key.as_str() {
        "pattern" => of_pattern_value(value, lang),
        // Whoever is inside, has, precedes or follows a node needs that node in the same tree.
        "inside" | "has" | "precedes" | "follows" => of_rule_object(value, lang),
        "all" => Requirement::all(
            value.as_array().into_iter().flatten().map(|rule| of_rule_object(rule, lang)),
        ),
        "any" => Requirement::any(
            value.as_array().into_iter().flatten().map(|rule| of_rule_object(rule, lang)),
        ),
        _ => Requirement::Always,
    }))
}

fn of_pattern_value(value: &serde_json::Value, lang: Lang) -> Requirement {
    let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
    let pattern = match (value.as_str(), field("context"), field("selector")) {
        (Some(pattern), ..) => Pattern::try_new(pattern, lang),
        (None, Some(context), Some(selector)) => Pattern::contextual(context, selector, lang),
        (None, Some(context), None) => Pattern::try_new(context, lang),
        (None, None, _) => return Requirement::Always,
    };
    let strictness = field("strictness").and_then(|name| name.parse().ok());
    pattern.map_or(Requirement::Always, |pattern| {
        let pattern = match strictness {
            Some(strictness) => pattern.with_strictness(strictness),
            None => pattern,
        };
        Requirement::of_pattern(&pattern)
    })
}

fn compile_utils(utils: &[RuleSource]) -> Result<GlobalRules, RuleError> {
    let mut parsed = Vec::new();
    for util in utils {
        let rule: SerializableGlobalRule<Lang> = from_str(&util.yaml).map_err(|error| {
            let mut causes = vec![util.source.clone()];
            causes.extend(chain(&error));
            RuleError::Utils { causes }
        })?;
        parsed.push(rule);
    }
    if parsed.is_empty() {
        return Ok(GlobalRules::default());
    }
    DeserializeEnv::parse_global_utils(parsed)
        .map_err(|error| RuleError::Utils { causes: chain(&error) })
}

fn compile_source(
    source: &RuleSource,
    globals: &GlobalRules,
) -> Result<Vec<RuleConfig<Lang>>, RuleError> {
    let mut rules: Vec<RuleConfig<Lang>> = from_yaml_string(&source.yaml, globals)
        .map_err(|error| RuleError::Rule { rule: source.source.clone(), causes: chain(&error) })?;
    let several = rules.len() > 1;
    if let Some(default_id) = &source.default_id {
        for (at, rule) in rules.iter_mut().enumerate().filter(|(_, rule)| rule.id.is_empty()) {
            rule.id = if several { format!("{default_id}-{at}") } else { default_id.clone() };
        }
    }
    Ok(rules)
}

/// An error and its causes, outermost first.
fn chain(error: &dyn StdError) -> Vec<String> {
    let mut causes = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes
}

/// Overrides, parsed.
struct Severities {
    filter: Option<Regex>,
    min: Severity,
    default: Option<Severity>,
    by_id: BTreeMap<String, Severity>,
}

impl Severities {
    fn new(overrides: &SeverityOverrides) -> Result<Self, RuleError> {
        let filter = overrides.filter.as_deref().map(Regex::new).transpose();
        let by_id = overrides.by_id.iter().map(|(id, name)| Ok((id.clone(), severity(name)?)));
        Ok(Self {
            filter: filter.map_err(|error| RuleError::Filter(error.to_string()))?,
            min: overrides.min_severity.as_deref().map_or(Ok(Severity::Off), severity)?,
            default: overrides.default.as_deref().map(severity).transpose()?,
            by_id: by_id.collect::<Result<_, RuleError>>()?,
        })
    }

    fn apply(&self, rules: Vec<RuleConfig<Lang>>) -> Result<Vec<RuleConfig<Lang>>, RuleError> {
        let mut rules = rules;
        if let Some(filter) = &self.filter {
            rules.retain(|rule| filter.is_match(&rule.id));
            if rules.is_empty() {
                return Err(RuleError::NoRuleMatches(filter.to_string()));
            }
        }
        for rule in &mut rules {
            if let Some(severity) = self.by_id.get(&rule.id).or(self.default.as_ref()) {
                rule.severity = severity.clone();
            }
        }
        rules.retain(|rule| rule.severity != Severity::Off && rule.severity >= self.min);
        Ok(rules)
    }

    /// Whether no rule was left out on request.
    fn is_complete(&self) -> bool {
        let off = |severity: &Severity| *severity == Severity::Off;
        self.filter.is_none()
            && self.min == Severity::Off
            && !self.default.as_ref().is_some_and(off)
            && !self.by_id.values().any(off)
    }

    fn of_builtin(&self, id: &str, otherwise: Severity) -> Severity {
        let severity = self.by_id.get(id).or(self.default.as_ref()).cloned().unwrap_or(otherwise);
        if severity < self.min { Severity::Off } else { severity }
    }
}

fn severity(name: &str) -> Result<Severity, RuleError> {
    name.parse().map_err(|_unhelpful: String| RuleError::Severity(name.to_owned()))
}
