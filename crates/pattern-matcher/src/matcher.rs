//! One pattern or kind selector, compiled for one language.

use crate::doc::CompactDoc;
use crate::lang::Lang;
use crate::matches::Match;
use crate::requirement::Requirement;
use crate::shape::Shape;
use crate::{hint, stack};
use ast_grep_config::{Fixer, Rule, parse_selector};
use ast_grep_core::matcher::MatcherExt as _;
use ast_grep_core::{MatchStrictness, Matcher as _, Pattern};
use astscope_parsing::{grammar_is_built, pattern_syntax};
use astscope_syntax::{KindSet, Language};
use bit_set::BitSet;
use std::str::FromStr as _;
use thiserror::Error;

/// Bytes that a pattern may have: far more than anybody writes.
pub const PATTERN_BYTES_MAX: usize = 256 << 10;

/// Levels that a pattern may have. Matching recurses over the pattern, on the caller's stack.
const PATTERN_DEPTH_MAX: usize = 1_000;

/// Candidates after which a search looks whether to stop: some tens of microseconds of matching.
const CANDIDATES_A_LOOK: usize = 256;

/// What to look for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MatcherSpec {
    /// Code with metavariables.
    pub pattern: Option<String>,
    /// Kind of the node inside the pattern that is the real matcher.
    pub selector: Option<String>,
    /// Name of a strictness; smart without it.
    pub strictness: Option<String>,
    /// ESQuery-style kind selector, instead of a pattern.
    pub kind: Option<String>,
}

/// Why a pattern or selector can't be compiled.
#[derive(Debug, Error)]
pub enum CompileError {
    /// Neither or both of pattern and kind.
    #[error("exactly one of a pattern and a kind must be given")]
    PatternOrKind,
    /// This build can't parse the language.
    #[error("this build has no grammar for {0}")]
    GrammarNotBuilt(Language),
    /// The pattern is absurdly long.
    #[error("the pattern has {bytes} bytes, the limit is {PATTERN_BYTES_MAX}")]
    PatternTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The pattern is absurdly nested.
    #[error("the pattern is nested more than {PATTERN_DEPTH_MAX} levels deep")]
    PatternTooDeep,
    /// The pattern does not parse into one node.
    #[error("cannot parse query as a valid pattern")]
    Pattern {
        /// What ast-grep says.
        source: Reason,
        /// Byte offset of the fault in the pattern, where it has one.
        offset: Option<usize>,
        /// What to write instead.
        help: Option<String>,
    },
    /// No such strictness.
    #[error("no strictness is called {0}: cst, smart, ast, relaxed, signature and template are")]
    Strictness(String),
    /// The kind selector is not valid.
    #[error("cannot parse kind as a valid selector")]
    Selector {
        /// What ast-grep says.
        source: Reason,
        /// Kinds that look like what was meant.
        help: Option<String>,
    },
    /// The rewrite template is not valid.
    #[error("cannot parse the rewrite")]
    Rewrite(#[source] Reason),
}

/// What ast-grep says, with metavariables spelled as they were written.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Reason(String);

impl Reason {
    /// ast-grep's messages quote the pattern as it was parsed, with another character for `$`.
    fn new(language: Language, error: &dyn std::error::Error) -> Self {
        let expando = pattern_syntax(language).expando;
        let text = error.to_string();
        Self(if expando.is_ascii() { text } else { text.replace(expando, "$") })
    }
}

/// A pattern or kind selector, ready to search trees of one language.
pub struct Matcher {
    language: Language,
    rule: Rule,
    kinds: Option<KindSet>,
    requirement: Requirement,
    shape: Shape,
    fixer: Option<Fixer>,
    hints: Vec<String>,
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher")
            .field("language", &self.language)
            .field("requirement", &self.requirement)
            .finish_non_exhaustive()
    }
}

impl Matcher {
    /// Compiles `spec`, and `rewrite` if there is one, for `language`.
    pub fn compile(
        language: Language,
        spec: &MatcherSpec,
        rewrite: Option<&str>,
    ) -> Result<Self, CompileError> {
        if !grammar_is_built(language) {
            return Err(CompileError::GrammarNotBuilt(language));
        }
        let rule = match (&spec.pattern, &spec.kind) {
            (Some(pattern), None) => Rule::Pattern(compile_pattern(language, pattern, spec)?),
            (None, Some(kind)) => parse_selector(kind, Lang(language)).map_err(|source| {
                let source = Reason::new(language, &source);
                CompileError::Selector { source, help: hint::similar_kinds(language, kind) }
            })?,
            _ => return Err(CompileError::PatternOrKind),
        };
        let fixer = rewrite
            .map(|template| Fixer::from_str(template, &Lang(language)))
            .transpose()
            .map_err(|error| CompileError::Rewrite(Reason::new(language, &error)))?;
        let hints = match &spec.pattern {
            Some(pattern) if spec.selector.is_none() => hint::misread(language, pattern, &rule),
            _ => Vec::new(),
        };
        let kinds = rule.potential_kinds().map(|kinds| kind_set(&kinds));
        let requirement = requirement(&rule, kinds.as_ref());
        let shape = match &rule {
            Rule::Pattern(pattern) => Shape::of_pattern(pattern),
            _ => Shape::default(),
        };
        Ok(Self { language, rule, kinds, requirement, shape, fixer, hints })
    }

    /// The language that it searches.
    pub fn language(&self) -> Language {
        self.language
    }

    /// What a file must contain to hold a match.
    pub fn requirement(&self) -> &Requirement {
        &self.requirement
    }

    /// Advice for who wrote the pattern; the matches are what they are.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Whether the pattern's own root is a syntax error.
    pub fn pattern_has_error(&self) -> bool {
        matches!(&self.rule, Rule::Pattern(pattern) if pattern.has_error())
    }

    /// All matches in `doc`, in the order of their nodes, at most `limit`.
    ///
    /// Does not ask [`Self::requirement`]: that is the caller's, who may know the answer.
    pub fn find_all(&self, doc: CompactDoc, limit: usize) -> Vec<Match> {
        self.find_until(doc, limit, &|| false)
    }

    /// The same until `stop` says so, which is asked every few hundred nodes.
    pub fn find_until(&self, doc: CompactDoc, limit: usize, stop: &dyn Fn() -> bool) -> Vec<Match> {
        let depth = doc.parsed().tree.depth();
        stack::sized_for(depth, || {
            let root = ast_grep_core::AstGrep::doc(doc);
            let doc = root.root().get_doc();
            let fixer = self.fixer.as_ref();
            let candidates = candidates(doc, self.kinds.as_ref()).enumerate();
            let candidates = candidates.take_while(|(n, _)| n % CANDIDATES_A_LOOK != 0 || !stop());
            let (tree, text) = (&doc.parsed().tree, &doc.file().text);
            let shaped = candidates.filter(|(_, id)| self.shape.admits(tree.node(*id), text));
            let found = shaped.filter_map(|(_, id)| self.rule.match_node(root.adopt(doc.node(id))));
            found.take(limit).map(|found| Match::new(&found, &self.rule, fixer)).collect()
        })
    }
}

/// Preorder ids of the nodes of these kinds, by a scan of the kind column alone.
fn candidates<'d>(
    doc: &'d CompactDoc,
    kinds: Option<&'d KindSet>,
) -> Box<dyn Iterator<Item = u32> + 'd> {
    let column = doc.parsed().tree.kinds();
    match kinds {
        Some(kinds) => Box::new(kinds.places_in(column)),
        None => Box::new((0..).zip(column).map(|(id, _)| id)),
    }
}

fn compile_pattern(
    language: Language,
    pattern: &str,
    spec: &MatcherSpec,
) -> Result<Pattern, CompileError> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(CompileError::PatternTooLong { bytes: pattern.len() });
    }
    let strictness = match &spec.strictness {
        None => MatchStrictness::Smart,
        Some(name) => MatchStrictness::from_str(name)
            .map_err(|_unhelpful| CompileError::Strictness(name.clone()))?,
    };
    if hint::depth(language, pattern) > PATTERN_DEPTH_MAX {
        return Err(CompileError::PatternTooDeep);
    }
    let compiled = match &spec.selector {
        Some(selector) => Pattern::contextual(pattern, selector, Lang(language)),
        None => Pattern::try_new(pattern, Lang(language)),
    };
    match compiled {
        Ok(compiled) => Ok(compiled.with_strictness(strictness)),
        Err(source) => {
            let (offset, help) = hint::for_error(language, pattern, &source);
            Err(CompileError::Pattern { source: Reason::new(language, &source), offset, help })
        }
    }
}

fn requirement(rule: &Rule, kinds: Option<&KindSet>) -> Requirement {
    let root = kinds.cloned().map_or(Requirement::Always, Requirement::Kinds);
    let Rule::Pattern(pattern) = rule else {
        return root;
    };
    // ast-grep itself passes over files that lack the longest literal of a pattern, at every
    // strictness, `signature` too, where a match could do without it. Our answers equal its.
    let fixed = Requirement::text(&pattern.fixed_string());
    Requirement::all([root, fixed, Requirement::of_pattern(pattern)])
}

/// ast-grep's bit set as ours.
pub(crate) fn kind_set(kinds: &BitSet) -> KindSet {
    kinds.iter().filter_map(|kind| u16::try_from(kind).ok()).collect()
}
