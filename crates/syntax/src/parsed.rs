//! A parsed file: text and trees together, so that a span can never meet another version's text.

use crate::{KindSet, Language, Tree};
use std::fmt;
use std::sync::Arc;

/// What parsing makes of one file: its text, its tree, and the trees of the languages embedded in it.
///
/// Immutable and meant to be shared behind an `Arc`.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedFile {
    /// The file's language.
    pub language: Language,
    /// Its whole text. All ranges of all trees refer to it.
    pub text: Arc<str>,
    /// The tree of the whole file.
    pub tree: ParsedTree,
    /// Trees of embedded languages (scripts and styles in HTML, expressions in HEEx), in the order
    /// in which ast-grep searches them. Their ranges refer to the host's text.
    pub injections: Vec<(Language, ParsedTree)>,
}

/// A tree and the set of node kinds in it.
#[derive(Debug, PartialEq, Eq)]
pub struct ParsedTree {
    /// The nodes.
    pub tree: Tree,
    /// Every kind that occurs.
    pub kinds: KindSet,
}

impl ParsedTree {
    /// Collects the kinds of `tree`.
    pub fn new(tree: Tree) -> Self {
        let mut kinds: KindSet = tree.kinds().iter().copied().collect();
        kinds.shrink_to_fit();
        Self { tree, kinds }
    }
}

impl ParsedFile {
    /// The host tree and the injected ones, each with its language.
    pub fn trees(&self) -> impl Iterator<Item = (Language, &ParsedTree)> {
        let injected = self.injections.iter().map(|(language, tree)| (*language, tree));
        std::iter::once((self.language, &self.tree)).chain(injected)
    }

    /// Nodes in all trees.
    pub fn n_nodes(&self) -> usize {
        self.trees().map(|(_, tree)| tree.tree.n_nodes()).sum()
    }

    /// Heap bytes of trees and kind sets, the text apart.
    pub fn tree_bytes(&self) -> usize {
        let injected = self.injections.capacity() * size_of::<(Language, ParsedTree)>();
        self.trees()
            .map(|(_, tree)| tree.tree.heap_bytes() + tree.kinds.heap_bytes())
            .sum::<usize>()
            + injected
    }

    /// The deepest nesting of any tree: what a recursion over this file has to survive.
    pub fn depth(&self) -> u32 {
        self.trees().map(|(_, tree)| tree.tree.depth()).max().unwrap_or(0)
    }
}

/// Why a file has no tree. Each is reported; none is an error of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// No byte in it.
    Empty,
    /// Not UTF-8: the first bad byte stands at this offset.
    NotUtf8 {
        /// Offset of the first byte that is not UTF-8.
        valid_up_to: usize,
    },
    /// Larger than ast-grep reads: more than 3,000,000 bytes and more than 200,000 lines.
    TooLarge {
        /// Bytes in the file.
        bytes: u64,
    },
    /// Larger than this daemon holds at all.
    OverSizeLimit {
        /// Bytes in the file.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Nested more deeply than any stack here is sized for.
    TooDeep {
        /// The limit, in levels.
        limit: u32,
    },
    /// The parser did not finish within its budget.
    ParseTimeout,
    /// It can't be opened or read.
    Unreadable {
        /// The operating system's words.
        error: String,
    },
    /// It kept changing while it was read.
    Unstable,
    /// It went away between the walk and the read.
    Vanished,
    /// This build lacks the language's grammar.
    GrammarNotBuilt,
    /// Its parser crashed, hung, took too much memory, or returned nonsense. It isn't tried again
    /// until the file or the grammar changes.
    ParserDied {
        /// What it did, such as `ended: signal: 6 (SIGABRT)`.
        why: String,
    },
    /// No parser was to be had. It is tried again.
    ParserUnavailable {
        /// What stood in the way.
        why: String,
    },
}

impl SkipReason {
    /// The stable identifier that the protocol and `status` show.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::NotUtf8 { .. } => "not_utf8",
            Self::TooLarge { .. } => "too_large",
            Self::OverSizeLimit { .. } => "over_size_limit",
            Self::TooDeep { .. } => "too_deep",
            Self::ParseTimeout => "parse_timeout",
            Self::Unreadable { .. } => "unreadable",
            Self::Unstable => "unstable",
            Self::Vanished => "vanished",
            Self::GrammarNotBuilt => "grammar_not_built",
            Self::ParserDied { .. } => "parser_died",
            Self::ParserUnavailable { .. } => "parser_unavailable",
        }
    }
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "the file is empty"),
            Self::NotUtf8 { valid_up_to } => write!(f, "not UTF-8 from byte {valid_up_to}"),
            Self::TooLarge { bytes } => {
                write!(
                    f,
                    "{bytes} bytes in more than 200,000 lines: ast-grep skips such files, so does this"
                )
            }
            Self::OverSizeLimit { bytes, limit } => {
                write!(f, "{bytes} bytes, the limit is {limit}")
            }
            Self::TooDeep { limit } => write!(f, "nested more than {limit} levels deep"),
            Self::ParseTimeout => write!(f, "the parser did not finish within its time budget"),
            Self::Unreadable { error } => write!(f, "cannot be read: {error}"),
            Self::Unstable => write!(f, "it kept changing while it was read"),
            Self::Vanished => write!(f, "there is no such file (any more)"),
            Self::GrammarNotBuilt => write!(f, "this build lacks the language's grammar"),
            Self::ParserDied { why } => write!(f, "its parser {why}"),
            Self::ParserUnavailable { why } => write!(f, "no parser was to be had: {why}"),
        }
    }
}
