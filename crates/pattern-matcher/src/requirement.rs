//! What a file must contain to hold a match at all.
//!
//! The problem: verifying a pattern visits every node of a file; most files can be ruled out by
//! their text and their set of node kinds, at the price of a substring search.
//!
//! **The law: a tree that is not admitted contains no match.** The requirement over-approximates;
//! the matcher decides. It leans on how ast-grep's matcher works: every internal node of a pattern
//! must meet a node of its kind, every named leaf a node of its kind and text, and neither is ever
//! skipped, at any strictness but these: `signature` ignores the text of leaves, `template`
//! ignores kinds, and an `ERROR` in a pattern meets any kind.

use ast_grep_core::matcher::{PatternNode, kind_utils};
use ast_grep_core::{MatchStrictness, Pattern};
use astscope_syntax::{KindSet, KindTable, ParsedTree};
use memchr::memmem::Finder;
use std::fmt;

/// A condition on a tree and its file's text.
#[derive(Clone, Debug, Default)]
pub enum Requirement {
    /// Nothing is required.
    #[default]
    Always,
    /// The text occurs in the file.
    Text(Box<Finder<'static>>),
    /// A node of one of these kinds occurs in the tree.
    Kinds(KindSet),
    /// All of them.
    All(Vec<Requirement>),
    /// At least one of them.
    Any(Vec<Requirement>),
}

impl Requirement {
    /// The text `text` occurs.
    pub fn text(text: &str) -> Self {
        if text.is_empty() {
            Self::Always
        } else {
            Self::Text(Box::new(Finder::new(text).into_owned()))
        }
    }

    /// What `pattern` needs, whatever it is part of.
    pub fn of_pattern(pattern: &Pattern) -> Self {
        let mut kinds = Vec::new();
        let mut texts = Vec::new();
        collect(&pattern.node, &pattern.strictness, &mut kinds, &mut texts);
        kinds.sort_unstable();
        kinds.dedup();
        // The longest text is the rarest as a rule: it is searched first.
        texts.sort_unstable_by_key(|text| (std::cmp::Reverse(text.len()), *text));
        texts.dedup();
        let kinds = kinds.into_iter().map(|kind| Self::Kinds([kind].into_iter().collect()));
        Self::all(kinds.chain(texts.into_iter().map(Self::text)))
    }

    /// All of `parts`.
    pub fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::Always => {}
                Self::All(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        let mut kept: Vec<Self> = Vec::with_capacity(flat.len());
        for part in flat {
            if !kept.iter().any(|known| known.is_same(&part)) {
                kept.push(part);
            }
        }
        let mut flat = kept;
        match flat.len() {
            0 => Self::Always,
            1 => flat.remove(0),
            _ => Self::All(flat),
        }
    }

    /// Whether both are one plain condition, and the same.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(a), Self::Text(b)) => a.needle() == b.needle(),
            (Self::Kinds(a), Self::Kinds(b)) => a == b,
            _ => false,
        }
    }

    /// At least one of `parts`.
    pub fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut kept = Vec::new();
        for part in parts {
            match part {
                Self::Always => return Self::Always,
                Self::Any(inner) => kept.extend(inner),
                other => kept.push(other),
            }
        }
        if kept.len() == 1 { kept.remove(0) } else { Self::Any(kept) }
    }

    /// Whether a file with this text and tree may contain a match.
    pub fn admits(&self, text: &str, tree: &ParsedTree) -> bool {
        self.kinds_admit(&tree.kinds) && self.text_admits(text)
    }

    /// Whether the kinds of a tree leave a match possible.
    pub fn kinds_admit(&self, kinds: &KindSet) -> bool {
        match self {
            Self::Always | Self::Text(_) => true,
            Self::Kinds(required) => required.intersects(kinds),
            Self::All(parts) => parts.iter().all(|part| part.kinds_admit(kinds)),
            Self::Any(parts) => parts.iter().any(|part| part.kinds_admit(kinds)),
        }
    }

    /// Whether the text of a file leaves a match possible.
    pub fn text_admits(&self, text: &str) -> bool {
        match self {
            Self::Always | Self::Kinds(_) => true,
            Self::Text(finder) => finder.find(text.as_bytes()).is_some(),
            Self::All(parts) => parts.iter().all(|part| part.text_admits(text)),
            Self::Any(parts) => parts.iter().any(|part| part.text_admits(text)),
        }
    }

    /// One line per condition, for `explain`; `table` names the kinds.
    pub fn describe(&self, table: &KindTable) -> Vec<String> {
        match self {
            Self::Always => Vec::new(),
            Self::All(parts) => parts.iter().flat_map(|part| part.describe(table)).collect(),
            other => vec![Described(other, table).to_string()],
        }
    }
}

struct Described<'r>(&'r Requirement, &'r KindTable);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(requirement, table) = self;
        let join = |f: &mut fmt::Formatter<'_>, parts: &[Requirement], word: &str| {
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    write!(f, " {word} ")?;
                }
                write!(f, "({})", Described(part, table))?;
            }
            Ok(())
        };
        match requirement {
            Requirement::Always => write!(f, "anything"),
            Requirement::Text(finder) => {
                write!(f, "text {:?}", String::from_utf8_lossy(finder.needle()))
            }
            Requirement::Kinds(kinds) => {
                let known = (0..=u16::MAX).filter(|&kind| kinds.contains(kind));
                let names: Vec<&str> = known.map(|kind| table.kind_name(kind)).collect();
                write!(f, "kind {}", names.join(" or "))
            }
            Requirement::All(parts) => join(f, parts, "and"),
            Requirement::Any(parts) if parts.is_empty() => write!(f, "nothing can match"),
            Requirement::Any(parts) => join(f, parts, "or"),
        }
    }
}

fn collect<'p>(
    node: &'p PatternNode,
    strictness: &MatchStrictness,
    kinds: &mut Vec<u16>,
    texts: &mut Vec<&'p str>,
) {
    let mut need_kind = |kind: u16| {
        if !matches!(strictness, MatchStrictness::Template) && !kind_utils::is_error_kind(kind) {
            kinds.push(kind);
        }
    };
    match node {
        PatternNode::MetaVar { .. } => {}
        PatternNode::Terminal { text, is_named, kind_id } => {
            if *is_named {
                need_kind(*kind_id);
                if !matches!(strictness, MatchStrictness::Signature) {
                    texts.push(text);
                }
            }
        }
        PatternNode::Internal { kind_id, children } => {
            need_kind(*kind_id);
            for child in children {
                collect(child, strictness, kinds, texts);
            }
        }
    }
}
