//! The grammars: the only file that names one.

use ast_grep_language::{Language as _, LanguageExt as _, SupportLang};
use astscope_syntax::{KindTable, Language, SkipReason};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use tree_sitter::{ParseOptions, Parser, Tree};

/// Where a language's grammar comes from.
enum Source {
    /// ast-grep's build of it, which decides the kind ids and how patterns are written.
    #[cfg_attr(
        not(any(feature = "lang-core", feature = "lang-extra")),
        expect(dead_code, reason = "a build without grammars")
    )]
    AstGrep(SupportLang),
    /// One of ours.
    #[cfg_attr(not(feature = "lang-core"), expect(dead_code, reason = "a build without ours"))]
    Added(tree_sitter::Language),
}

macro_rules! sources {
    ($language:expr; $($feature:literal => [$($variant:ident),*];)*) => {
        match $language {
            $($(
                #[cfg(feature = $feature)]
                Language::$variant => Some(Source::AstGrep(SupportLang::$variant)),
                #[cfg(not(feature = $feature))]
                Language::$variant => None,
            )*)*
            #[cfg(feature = "lang-core")]
            Language::Erlang => Some(Source::Added(tree_sitter_erlang::LANGUAGE.into())),
            #[cfg(feature = "lang-core")]
            Language::Heex => Some(Source::Added(tree_sitter_heex::LANGUAGE.into())),
            #[cfg(feature = "lang-core")]
            Language::Toml => Some(Source::Added(tree_sitter_toml_ng::LANGUAGE.into())),
            #[cfg(not(feature = "lang-core"))]
            Language::Erlang | Language::Heex | Language::Toml => None,
        }
    };
}

fn source(language: Language) -> Option<Source> {
    sources! { language;
        "lang-core" => [
            Bash, C, Cpp, CSharp, Css, Elixir, Go, Html, Java, JavaScript, Json, Kotlin, Lua, Markdown,
            Php, Python, Ruby, Rust, Scala, Swift, Tsx, TypeScript, Yaml
        ];
        "lang-extra" => [Dart, Haskell, Hcl, Nix, Solidity, Zig];
    }
}

fn ts_language(language: Language) -> Option<tree_sitter::Language> {
    source(language).map(|source| match source {
        Source::AstGrep(lang) => lang.get_ts_language(),
        Source::Added(grammar) => grammar,
    })
}

/// Whether this build can parse `language`.
pub fn grammar_is_built(language: Language) -> bool {
    source(language).is_some()
}

/// The names of a language's kinds and fields, made once and shared; `None` if it isn't built.
pub fn kind_table(language: Language) -> Option<Arc<KindTable>> {
    static TABLES: [OnceLock<Option<Arc<KindTable>>>; Language::ALL.len()] =
        [const { OnceLock::new() }; Language::ALL.len()];
    TABLES[language as usize].get_or_init(|| build_table(language)).clone()
}

fn build_table(language: Language) -> Option<Arc<KindTable>> {
    let grammar = ts_language(language)?;
    let n_kinds = u16::try_from(grammar.node_kind_count()).unwrap_or(u16::MAX);
    let n_fields = u16::try_from(grammar.field_count()).unwrap_or(u16::MAX);
    let kinds = (0..n_kinds).map(|id| {
        (grammar.node_kind_for_id(id).unwrap_or_default(), grammar.node_kind_is_named(id))
    });
    let fields = (1..=n_fields).map(|id| grammar.field_name_for_id(id).unwrap_or_default());
    // tree-sitter answers a name with the public id, the first one is not always that:
    // ast-grep asks it, so must we.
    let resolve = |name: &str| Some(grammar.id_for_node_kind(name, true)).filter(|&id| id != 0);
    Some(Arc::new(KindTable::with_resolver(kinds, fields, resolve)))
}

/// Names what would parse a text of this language: changes whenever the result may. In hex; `None`
/// if it isn't built.
///
/// A fixed scanner may leave all names as they were, and embedded languages have grammars of their
/// own: so this crate's version is part of it, which pins all of them.
#[cfg(feature = "service")]
pub(crate) fn grammar_version(language: Language) -> Option<String> {
    let grammar = ts_language(language)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
    hasher.update(&kind_table(language)?.fingerprint());
    hasher.update(&grammar.abi_version().to_le_bytes());
    hasher.update(&grammar.parse_state_count().to_le_bytes());
    Some(hasher.finalize().to_hex()[..32].to_owned())
}

/// How code with metavariables is written so that a language's grammar accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatternSyntax {
    language: Language,
    /// What stands for `$` while the pattern is parsed.
    pub expando: char,
}

/// The pattern syntax of a language, ast-grep's where it has one.
pub fn pattern_syntax(language: Language) -> PatternSyntax {
    let expando = match source(language) {
        Some(Source::AstGrep(lang)) => lang.expando_char(),
        // Erlang: a variable starts in a capital letter, Latin-1 ones among them. TOML's bare keys are ASCII
        // letters, digits, `_` and `-`; HEEx's names start in a letter, and text takes anything.
        Some(Source::Added(_)) | None => match language {
            Language::Erlang => 'Ø',
            Language::Toml => '_',
            Language::Heex => 'z',
            _ => '$',
        },
    };
    PatternSyntax { language, expando }
}

impl PatternSyntax {
    /// Replaces `$` by the expando character where it starts a metavariable.
    pub fn pre_process(self, pattern: &str) -> Cow<'_, str> {
        match source(self.language) {
            Some(Source::AstGrep(lang)) => lang.pre_process_pattern(pattern),
            // ast-grep's own rule, by way of a language of its that has the same expando.
            Some(Source::Added(_)) if self.expando != '$' => {
                Cow::Owned(replace_sigils(pattern, self.expando))
            }
            Some(Source::Added(_)) | None => Cow::Borrowed(pattern),
        }
    }
}

/// `$A`, `$$A`, `$$$A` and `$$$` become metavariables; any other `$` stays what it is.
fn replace_sigils(pattern: &str, expando: char) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let behind = rest[at..].trim_start_matches('$');
        let n = rest.len() - at - behind.len();
        let starts_name = behind.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
        let sigil = if starts_name || n == 3 { expando } else { '$' };
        out.extend(std::iter::repeat_n(sigil, n));
        rest = behind;
    }
    out + rest
}

thread_local! {
    /// A parser per language and thread: setting a language up again costs more than a small file.
    static PARSERS: RefCell<BTreeMap<Language, Parser>> = const { RefCell::new(BTreeMap::new()) };
}

/// tree-sitter's tree of `text`, or of the `ranges` of it.
pub(crate) fn parse_with_tree_sitter(
    text: &str,
    language: Language,
    ranges: Option<&[tree_sitter::Range]>,
    stop: &mut dyn FnMut() -> bool,
) -> Result<Tree, SkipReason> {
    PARSERS.with_borrow_mut(|parsers| {
        let parser = match parsers.entry(language) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                let grammar = ts_language(language).ok_or(SkipReason::GrammarNotBuilt)?;
                let mut parser = Parser::new();
                // Fails only for a grammar of an unknown ABI, which a test of all languages rules out.
                if parser.set_language(&grammar).is_err() {
                    return Err(SkipReason::GrammarNotBuilt);
                }
                entry.insert(parser)
            }
        };
        // A stopped parse would be resumed, with the next file's text.
        parser.reset();
        if parser.set_included_ranges(ranges.unwrap_or_default()).is_err() {
            // Overlapping or unsorted: `injection` never makes such.
            return Err(SkipReason::ParseTimeout);
        }
        let mut progress = |_: &tree_sitter::ParseState| {
            if stop() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let bytes = text.as_bytes();
        let tree = parser.parse_with_options(
            &mut |at, _| bytes.get(at..).unwrap_or_default(),
            None,
            Some(ParseOptions::new().progress_callback(&mut progress)),
        );
        tree.ok_or(SkipReason::ParseTimeout)
    })
}
