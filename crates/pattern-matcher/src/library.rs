//! Named patterns as data: what they are called, what they look for, and a source that proves it.
//!
//! A pattern is only as good as its examples, so it carries them: [`LibraryPattern::validate`]
//! compiles it for each of its languages and tries it on a source that it must match and on one
//! that it mustn't.

use crate::doc::CompactDoc;
use crate::matcher::{CompileError, Matcher, MatcherSpec};
use crate::rules::{RuleError, RuleSet, RuleSource, SeverityOverrides};
use astscope_parsing::{Limits, grammar_is_built, parse};
use astscope_syntax::{Language, ParsedFile};
use std::path::Path;
use std::sync::Arc;
use thiserror::Error;

/// A pattern with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryPattern {
    /// What it is asked for by: `rust/unwrap`.
    pub id: Arc<str>,
    /// A few words for a list.
    pub name: String,
    /// What is wrong with what it finds, or why somebody looks for it.
    pub description: String,
    /// The languages that it is meant for.
    pub languages: Vec<Language>,
    /// What it looks for.
    pub body: PatternBody,
    /// A later definition has a larger one.
    pub version: u32,
    /// Sources that it is tried on.
    pub samples: Vec<Sample>,
}

/// What a named pattern looks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternBody {
    /// Code with metavariables, or a kind.
    Pattern(MatcherSpec),
    /// A YAML rule, which names its language itself.
    Rule(String),
}

/// Two sources in one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Their language.
    pub language: Language,
    /// One that has a match.
    pub matches: String,
    /// One that has none.
    pub misses: String,
}

/// A named pattern that is ready for one language.
#[derive(Clone, Debug)]
pub enum Compiled {
    /// From a pattern or a kind.
    Matcher(Arc<Matcher>),
    /// From a YAML rule.
    Rules(Arc<RuleSet>),
}

/// What is wrong with a named pattern.
#[derive(Debug, Error)]
pub enum LibraryError {
    /// It doesn't compile.
    #[error("compiling a named pattern")]
    Compile(#[from] CompileError),
    /// Its rule doesn't compile.
    #[error("compiling the rule of a named pattern")]
    Rule(#[from] RuleError),
    /// It isn't meant for this language.
    #[error("{id} isn't meant for {language}")]
    Language {
        /// Which pattern.
        id: Arc<str>,
        /// Which language.
        language: Language,
    },
    /// It has neither an id nor a language.
    #[error("a named pattern needs an id and a language")]
    Incomplete,
    /// It doesn't do on a sample what it promises.
    #[error("{id} does not tell its samples in {language} apart")]
    Sample {
        /// Which pattern.
        id: Arc<str>,
        /// Which language.
        language: Language,
    },
}

impl LibraryPattern {
    /// Compiles it for one of its languages.
    pub fn compile(&self, language: Language) -> Result<Compiled, LibraryError> {
        let refused = || LibraryError::Language { id: Arc::clone(&self.id), language };
        if !self.languages.contains(&language) {
            return Err(refused());
        }
        match &self.body {
            PatternBody::Pattern(spec) => {
                Ok(Compiled::Matcher(Arc::new(Matcher::compile(language, spec, None)?)))
            }
            PatternBody::Rule(yaml) => {
                let source = RuleSource {
                    source: self.id.to_string(),
                    yaml: yaml.clone(),
                    default_id: None,
                };
                let rules = RuleSet::compile(&[source], &[], &SeverityOverrides::default())?;
                if rules.languages().any(|its| its == language) {
                    return Ok(Compiled::Rules(Arc::new(rules)));
                }
                Err(refused())
            }
        }
    }

    /// Whether it compiles, for each of its languages that this build knows, and does on its
    /// samples what it promises.
    pub fn validate(&self) -> Result<(), LibraryError> {
        if self.id.is_empty() || self.languages.is_empty() {
            return Err(LibraryError::Incomplete);
        }
        for language in self.languages.iter().filter(|language| grammar_is_built(**language)) {
            let compiled = self.compile(*language)?;
            let found = |text: &str| {
                let parsed = parse(text.into(), *language, &Limits::DAEMON, &mut || false);
                parsed.is_ok_and(|file| compiled.occurs_in(&Arc::new(file)))
            };
            let mut samples = self.samples.iter().filter(|sample| sample.language == *language);
            if samples.any(|sample| !found(&sample.matches) || found(&sample.misses)) {
                let id = Arc::clone(&self.id);
                return Err(LibraryError::Sample { id, language: *language });
            }
        }
        Ok(())
    }
}

impl Compiled {
    /// Whether it has a match in the file.
    pub fn occurs_in(&self, file: &Arc<ParsedFile>) -> bool {
        CompactDoc::all(file).any(|doc| match self {
            Self::Matcher(matcher) => {
                matcher.language() == doc.language() && !matcher.find_all(doc, 1).is_empty()
            }
            Self::Rules(rules) => !rules.scan(doc, Path::new(""), false).is_empty(),
        })
    }
}

/// The patterns that everybody has: each is a known source of trouble in its language.
pub fn builtin() -> Vec<LibraryPattern> {
    use Language::{Elixir, Rust};
    let spec = |pattern: &str| {
        PatternBody::Pattern(MatcherSpec {
            pattern: Some(pattern.to_owned()),
            ..MatcherSpec::default()
        })
    };
    let kind = |kind: &str| {
        PatternBody::Pattern(MatcherSpec { kind: Some(kind.to_owned()), ..MatcherSpec::default() })
    };
    let entry = |id: &str, name: &str, description: &str, body, samples: &[_]| {
        let samples = samples.iter().map(|(language, matches, misses): &(_, &str, &str)| Sample {
            language: *language,
            matches: (*matches).to_owned(),
            misses: (*misses).to_owned(),
        });
        let samples: Vec<_> = samples.collect();
        LibraryPattern {
            id: id.into(),
            name: name.to_owned(),
            description: description.to_owned(),
            languages: samples.iter().map(|sample| sample.language).collect(),
            body,
            version: 1,
            samples,
        }
    };
    vec![
        entry(
            "common/self-comparison",
            "comparison with itself",
            "Both sides are the same expression: one of them was meant to be another.",
            spec("$A == $A"),
            &[
                (Elixir, "def f(a), do: a == a", "def f(a, b), do: a == b"),
                (Rust, "fn f() { g(a == a) }", "fn f() { g(a == b) }"),
            ],
        ),
        entry(
            "elixir/dynamic-atom",
            "atom from a string",
            "Atoms are never collected: whoever chooses the string can fill the table.",
            spec("String.to_atom($NAME)"),
            &[(Elixir, "String.to_atom(name)", "String.to_existing_atom(name)")],
        ),
        entry(
            "elixir/genserver-call",
            "synchronous call of a server",
            "The caller waits for the server, and dies with it.",
            spec("GenServer.call($$$ARGS)"),
            &[(Elixir, "GenServer.call(pid, :get)", "GenServer.cast(pid, :get)")],
        ),
        entry(
            "elixir/map-then-join",
            "map and join in two passes",
            "`Enum.map_join` does both in one, without the list between them.",
            spec("Enum.join(Enum.map($ALL, $EACH), $BETWEEN)"),
            &[(
                Elixir,
                r#"Enum.join(Enum.map(all, &f/1), ", ")"#,
                r#"Enum.map_join(all, ", ", &f/1)"#,
            )],
        ),
        entry(
            "elixir/unsupervised-process",
            "process without a supervisor",
            "Nobody notices when it dies, and nobody stops it.",
            spec("spawn($$$ARGS)"),
            &[(Elixir, "spawn(fn -> work() end)", "Task.Supervisor.start_child(s, f)")],
        ),
        entry(
            "rust/clone-in-loop",
            "clone in a loop",
            "Copies once for each turn; a reference or an `Rc` is often enough.",
            PatternBody::Rule(
                "id: clone-in-loop\nlanguage: rust\nrule:\n  pattern: $VALUE.clone()\n  inside:\n    kind: for_expression\n    stopBy: end\n"
                    .to_owned(),
            ),
            &[(
                Rust,
                "fn f() { for x in all { g(name.clone()); } }",
                "fn f() { g(name.clone()); for x in all { g(&name); } }",
            )],
        ),
        entry(
            "rust/unsafe-block",
            "unsafe block",
            "What the compiler can't check, somebody has to.",
            kind("unsafe_block"),
            &[(Rust, "fn f() { unsafe { g() } }", "fn f() { g() }")],
        ),
        entry(
            "rust/unwrap",
            "unwrap",
            "Panics on an error that the caller could have been told.",
            spec("$VALUE.unwrap()"),
            &[(Rust, "fn f() { g().unwrap(); }", "fn f() { g().unwrap_or_default(); }")],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_builtin_pattern_tells_its_samples_apart_in_each_of_its_languages() {
        let all = builtin();
        for pattern in &all {
            assert!(!pattern.samples.is_empty(), "{}", pattern.id);
            if let Err(error) = pattern.validate() {
                panic!("{}: {error:?}", pattern.id);
            }
        }
        assert!(all.is_sorted_by(|a, b| a.id < b.id), "in order, and each once");
    }

    #[test]
    fn a_pattern_that_breaks_its_promise_is_refused() {
        let good = || builtin().into_iter().find(|pattern| &*pattern.id == "rust/unwrap").unwrap();
        let mut wrong = good();
        wrong.samples[0].misses = "fn f() { g().unwrap(); }".to_owned();
        assert!(matches!(wrong.validate(), Err(LibraryError::Sample { .. })));
        let mut elsewhere = good();
        elsewhere.body =
            PatternBody::Rule("id: a\nlanguage: elixir\nrule: { pattern: foo }\n".to_owned());
        assert!(matches!(elsewhere.validate(), Err(LibraryError::Language { .. })));
        let nobodys = LibraryPattern { languages: Vec::new(), ..good() };
        assert!(matches!(nobodys.validate(), Err(LibraryError::Incomplete)));
        assert!(matches!(good().compile(Language::Python), Err(LibraryError::Language { .. })));
    }
}
