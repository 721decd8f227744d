//! What a match is, once it has left ast-grep's borrowed world: ranges into the file's text.

use crate::doc::CompactDoc;
use ast_grep_config::Fixer;
use ast_grep_core::meta_var::MetaVariable;
use ast_grep_core::{Matcher, NodeMatch};
use astscope_syntax::{NodeId, TextRange};
use std::ops::Range;

/// A match and what its metavariables captured. Ranges are bytes of the file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The matched node in its tree.
    pub node: NodeId,
    /// Its text.
    pub range: TextRange,
    /// What was captured; `None` when the matcher has no variables.
    pub captures: Option<Captures>,
    /// What a rewrite would do, the first choice first.
    pub fixes: Vec<Fix>,
}

/// Captured nodes and transformed texts, each sorted by the variable's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    /// `$A`.
    pub single: Vec<(String, TextRange)>,
    /// `$$$A`, and `secondary` for the nodes that relational rules met.
    pub multi: Vec<(String, Vec<TextRange>)>,
    /// Results of `transform`.
    pub transformed: Vec<(String, String)>,
}

/// A replacement of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The bytes that go.
    pub range: TextRange,
    /// The text that comes.
    pub replacement: String,
    /// The rule's name for it.
    pub title: Option<String>,
}

impl Match {
    pub(crate) fn new<'f>(
        found: &NodeMatch<'_, CompactDoc>,
        matcher: &impl Matcher,
        fixers: impl IntoIterator<Item = &'f Fixer>,
    ) -> Self {
        let edits = fixers.into_iter().map(|fixer| {
            let edit = found.make_edit(matcher, fixer);
            Fix {
                range: text_range(edit.position..edit.position + edit.deleted_length),
                replacement: String::from_utf8_lossy(&edit.inserted_text).into_owned(),
                title: fixer.title().map(str::to_owned),
            }
        });
        Self {
            node: node_id(found.node_id()),
            range: text_range(found.range()),
            captures: Captures::of(found),
            fixes: edits.collect(),
        }
    }
}

impl Captures {
    fn of(found: &NodeMatch<'_, CompactDoc>) -> Option<Self> {
        let env = found.get_env();
        let mut captures = Self::default();
        let mut any = false;
        for variable in env.get_matched_variables() {
            any = true;
            match variable {
                MetaVariable::Capture(name, _) => {
                    if let Some(node) = env.get_match(&name) {
                        let range = text_range(node.range());
                        captures.single.push((name, range));
                    } else if let Some(bytes) = env.get_transformed(&name) {
                        let text = String::from_utf8_lossy(bytes).into_owned();
                        captures.transformed.push((name, text));
                    }
                }
                MetaVariable::MultiCapture(name) => {
                    let nodes = env.get_multiple_matches(&name);
                    let ranges = nodes.iter().map(|node| text_range(node.range())).collect();
                    captures.multi.push((name, ranges));
                }
                MetaVariable::Dropped(_) | MetaVariable::Multiple => {}
            }
        }
        captures.single.sort_unstable();
        captures.single.dedup_by(|a, b| a.0 == b.0);
        captures.multi.sort_unstable();
        captures.transformed.sort_unstable();
        any.then_some(captures)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "texts are capped below 4 GiB at ingest")]
pub(crate) fn text_range(range: Range<usize>) -> TextRange {
    TextRange::new(range.start as u32, range.end as u32)
}

#[expect(clippy::cast_possible_truncation, reason = "node ids of compact trees are 32 bits wide")]
fn node_id(id: usize) -> NodeId {
    id as NodeId
}
