//! Parsing: bytes and a language in, a [`ParsedFile`] out.
//!
//! tree-sitter does the parsing; its tree is converted into the compact one of `astscope-syntax`
//! and dropped, because keeping it would cost 20 to 30 bytes per byte of source. Grammars live
//! only here: whoever needs a kind's name gets a [`KindTable`] with every tree.
//!
//! ```
//! use astscope_parsing::{Limits, admit, parse};
//! use astscope_syntax::{Language, render};
//!
//! let text = admit(b"IO.puts(:hello)\n".to_vec(), &Limits::DAEMON).expect("UTF-8 and not empty");
//! let file = parse(text, Language::Elixir, &Limits::DAEMON, &mut || false).expect("within all limits");
//! assert_eq!(file.tree.tree.root().kind(), "source");
//! assert!(render::sexp(file.tree.tree.root(), render::Detail::Ast).contains("(call"));
//! ```
//!
//! Invariants: no IO, no clock, no async. Broken code is a tree with error nodes, never a failure.
//! What gives no tree gives a [`SkipReason`]. The result is a function of the arguments, unless
//! `stop` says so. A parser that was stopped is reset before it is used again.
//!
//! The price of running foreign C: a grammar's scanner that loops without reading a byte can't be
//! stopped from here, for tree-sitter asks `stop` only between its own steps.
#![forbid(unsafe_code)]

mod admit;
mod backend;
mod convert;
mod grammar;
mod injection;
pub mod instrumentation;
#[cfg(feature = "service")]
pub mod service;
#[cfg(feature = "service")]
mod wire;
#[cfg(feature = "service")]
pub mod worker;

pub use admit::{Limits, admit};
pub use backend::{Backend, InProcess, Source};
pub use grammar::{PatternSyntax, grammar_is_built, kind_table, pattern_syntax};

use astscope_syntax::{Language, ParsedFile, ParsedTree, SkipReason};
use std::sync::Arc;

#[cfg(doc)]
use astscope_syntax::KindTable;

/// Parses `text` and what is embedded in it.
///
/// `stop` is asked now and then; once it answers `true` the file counts as
/// [`SkipReason::ParseTimeout`].
///
/// # Errors
/// Only for what has no tree: too deep, stopped, or a language that isn't part of this build.
pub fn parse(
    text: Arc<str>,
    language: Language,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Result<ParsedFile, SkipReason> {
    let tree = parse_tree(&text, language, None, limits, stop)?;
    let mut injections = Vec::new();
    for injection in injection::find(language, &tree.tree, &text) {
        // A grammar that is not built embeds nothing, as a language that ast-grep lacks doesn't.
        if !grammar_is_built(injection.language) {
            continue;
        }
        let embedded =
            parse_tree(&text, injection.language, Some(&injection.ranges), limits, stop)?;
        injections.push((injection.language, embedded));
    }
    Ok(ParsedFile { language, text, tree, injections })
}

fn parse_tree(
    text: &str,
    language: Language,
    ranges: Option<&[tree_sitter::Range]>,
    limits: &Limits,
    stop: &mut dyn FnMut() -> bool,
) -> Result<ParsedTree, SkipReason> {
    let tree = grammar::parse_with_tree_sitter(text, language, ranges, stop)?;
    convert::compact(&tree, language, text.len(), limits.depth_max).map(ParsedTree::new)
}

#[cfg(test)]
mod tests;
