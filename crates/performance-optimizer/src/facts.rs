//! What can be said of a parsed file without knowing its language.

use astscope_syntax::ParsedFile;
use std::iter::Sum;
use std::ops::Add;

/// Nodes between two looks whether to stop: well below a millisecond.
const STEP: usize = 1 << 14;

/// Facts of one file, or of many added up.
///
/// ```
/// use astscope_performance_optimizer::FileFacts;
///
/// let a = FileFacts { files: 1, nodes: 10, error_nodes: 0, depth: 4, lines: 3 };
/// let b = FileFacts { files: 1, nodes: 5, error_nodes: 1, depth: 2, lines: 1 };
/// let both = FileFacts { files: 2, nodes: 15, error_nodes: 1, depth: 4, lines: 4 };
/// assert_eq!([a, b].into_iter().sum::<FileFacts>(), both);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    /// Files that this is about.
    pub files: u64,
    /// Nodes in all trees.
    pub nodes: u64,
    /// Of them, text that the grammar doesn't know.
    pub error_nodes: u64,
    /// The deepest nesting.
    pub depth: u32,
    /// Lines of text; a last one without a line break counts.
    pub lines: u64,
}

impl FileFacts {
    /// The facts of a file. `None` if `stop` said so before they were complete.
    pub fn of(file: &ParsedFile, stop: &dyn Fn() -> bool) -> Option<Self> {
        let mut error_nodes = 0;
        for (_, parsed) in file.trees() {
            for (at, node) in parsed.tree.root().subtree().enumerate() {
                if at % STEP == 0 && stop() {
                    return None;
                }
                error_nodes += u64::from(node.is_error());
            }
        }
        Some(Self {
            files: 1,
            nodes: file.n_nodes() as u64,
            error_nodes,
            depth: file.depth(),
            lines: file.text.lines().count() as u64,
        })
    }
}

impl Add for FileFacts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            nodes: self.nodes + other.nodes,
            error_nodes: self.error_nodes + other.error_nodes,
            depth: self.depth.max(other.depth),
            lines: self.lines + other.lines,
        }
    }
}

impl Sum for FileFacts {
    fn sum<I: Iterator<Item = Self>>(facts: I) -> Self {
        facts.fold(Self::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_syntax::{
        KindTable, Language, NodeFlags, ParsedTree, TextRange, Tree, TreeBuilder,
    };
    use std::sync::Arc;

    /// A root over `leaves`, one of which may be an error.
    fn tree(leaves: usize, error: bool) -> Tree {
        let kinds = Arc::new(KindTable::new([("end", false), ("node", true)], []));
        let mut builder = TreeBuilder::new(kinds);
        builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 1));
        for at in 0..leaves {
            let flags = if error && at == 0 { NodeFlags::ERROR } else { NodeFlags::NAMED };
            builder.open(1, 0, flags, TextRange::new(0, 1));
            builder.close();
        }
        builder.close();
        builder.finish()
    }

    fn file(text: &str, leaves: usize) -> ParsedFile {
        ParsedFile {
            language: Language::Html,
            text: text.into(),
            tree: ParsedTree::new(tree(leaves, true)),
            injections: vec![(Language::Css, ParsedTree::new(tree(2, false)))],
        }
    }

    #[test]
    fn all_trees_of_a_file_count() {
        let facts = FileFacts::of(&file("a\nb\n\nc", 3), &|| false);
        let expected = FileFacts { files: 1, nodes: 7, error_nodes: 1, depth: 2, lines: 4 };
        assert_eq!(facts, Some(expected));
    }

    #[test]
    fn a_file_is_given_up_when_it_is_told_to() {
        assert_eq!(FileFacts::of(&file("a", 3), &|| true), None);
        let left = std::cell::Cell::new(2_usize);
        let stop = || {
            left.set(left.get().saturating_sub(1));
            left.get() == 0
        };
        assert_eq!(FileFacts::of(&file("a", 2 * STEP), &stop), None, "in the middle");
    }
}
