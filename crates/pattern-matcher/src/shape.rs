//! What a node must look like to be worth handing to ast-grep.
//!
//! The problem: a pattern's root kind is often the commonest of its language (in Elixir nearly
//! everything is a `call`), and ast-grep sets up three tables of metavariables for each candidate
//! before it looks at the first child. Most candidates lack a child that the pattern names.
//!
//! **The law: a node that is not admitted is not the root of a match.** Like a
//! [`Requirement`](crate::requirement::Requirement), a shape over-approximates, and leans on the
//! same rule: a goal that the matcher can't skip meets a child of its kind and text. An unnamed
//! token can be skipped at `ast` and `relaxed`, and right behind `$$$` at every strictness.
//! `signature` and `template` are not worth a shape: they are rare and leave little to check.

use ast_grep_core::matcher::{PatternNode, kind_utils};
use ast_grep_core::meta_var::MetaVariable;
use ast_grep_core::{MatchStrictness, Pattern};
use astscope_syntax::{KindId, Node};

/// Levels of a pattern that are checked. Deeper ones seldom reject what the first ones let pass.
const LEVELS: usize = 3;

/// Conditions on a node and its descendants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `None` where any kind will do.
    kind: Option<KindId>,
    /// The text of a named leaf.
    text: Option<Box<str>>,
    /// What the first child looks like that can't be skipped.
    first: Option<Box<Shape>>,
    /// Each is met by some child.
    children: Vec<Shape>,
}

impl Shape {
    /// What the root of a match of `pattern` looks like.
    pub(crate) fn of_pattern(pattern: &Pattern) -> Self {
        match pattern.strictness {
            MatchStrictness::Signature | MatchStrictness::Template => Self::default(),
            MatchStrictness::Cst | MatchStrictness::Smart => Self::of(&pattern.node, LEVELS, true),
            MatchStrictness::Ast | MatchStrictness::Relaxed => {
                Self::of(&pattern.node, LEVELS, false)
            }
        }
    }

    fn of(goal: &PatternNode, levels: usize, tokens_count: bool) -> Self {
        let known = |kind: KindId| (!kind_utils::is_error_kind(kind)).then_some(kind);
        match goal {
            PatternNode::MetaVar { .. } => Self::default(),
            PatternNode::Terminal { text, is_named, kind_id } => Self {
                kind: known(*kind_id),
                text: is_named.then(|| text.as_str().into()),
                ..Self::default()
            },
            PatternNode::Internal { kind_id, children } => {
                let levels = levels - 1;
                let goals = if levels == 0 { &[][..] } else { children };
                let shape = |goal| {
                    let shape = Self::of(goal, levels, tokens_count);
                    (shape != Self::default()).then_some(shape)
                };
                let mut behind_ellipsis = false;
                let needed = goals.iter().filter(|goal| {
                    if goal.is_trivial() {
                        return tokens_count && !behind_ellipsis;
                    }
                    behind_ellipsis = is_ellipsis(goal);
                    true
                });
                let mut children: Vec<Self> = needed.filter_map(shape).collect();
                let leads = goals.first().filter(|goal| !goal.is_trivial()).and_then(shape);
                let first = leads.map(|_| Box::new(children.remove(0)));
                Self { kind: known(*kind_id), text: None, first, children }
            }
        }
    }

    /// Whether `node` of a file with the text `source` may be the root of a match.
    pub(crate) fn admits(&self, node: Node<'_>, source: &str) -> bool {
        self.kind.is_none_or(|kind| kind == node.kind_id())
            && self.text.as_deref().is_none_or(|text| {
                // What begins or ends within a character is ast-grep's to read.
                source.get(node.range().to_usize()).is_none_or(|found| found == text)
            })
            && self.first.as_ref().is_none_or(|first| {
                let mut admitted = node.children().map(|child| {
                    let counts = child.is_named() && !child.is_extra();
                    first.admits(child, source).then_some(true).or(counts.then_some(false))
                });
                admitted.find_map(|decided| decided).unwrap_or(false)
            })
            && self
                .children
                .iter()
                .all(|shape| node.children().any(|child| shape.admits(child, source)))
    }
}

fn is_ellipsis(goal: &PatternNode) -> bool {
    let PatternNode::MetaVar { meta_var } = goal else { return false };
    matches!(meta_var, MetaVariable::Multiple | MetaVariable::MultiCapture(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Lang;
    use astscope_parsing::{Limits, parse};
    use astscope_syntax::Language;
    use expect_test::{Expect, expect};

    const CODE: &str =
        "f(a); g(a); f(a, b); f(/* c */ a); f /* c */ (a); x.f(a); h(); a + b; a - b;";

    /// The calls and sums of `CODE` that a pattern's shape admits.
    fn check(pattern: &str, strictness: MatchStrictness, expected: &Expect) {
        let lang = Lang(Language::JavaScript);
        let pattern = Pattern::try_new(pattern, lang).expect("it is valid");
        let shape = Shape::of_pattern(&pattern.with_strictness(strictness));
        let file = parse(CODE.into(), lang.0, &Limits::DAEMON, &mut || false).expect("it is small");
        let roots = file.tree.tree.root().subtree().filter(|node| {
            ["call_expression", "binary_expression"].contains(&node.kind())
                && shape.admits(*node, CODE)
        });
        let texts: Vec<&str> = roots.map(|node| node.text(CODE)).collect();
        expected.assert_eq(&texts.join(" | "));
    }

    #[test]
    fn the_first_child_that_counts_decides() {
        let expected = expect!["f(a) | f(a, b) | f(/* c */ a) | f /* c */ (a)"];
        check("f($A)", MatchStrictness::Smart, &expected);
        check("f($$$A)", MatchStrictness::Relaxed, &expected);
        check("$F.f(a)", MatchStrictness::Smart, &expect!["x.f(a)"]);
    }

    #[test]
    fn every_child_that_is_named_must_be_there() {
        let expected = expect!["f(a) | f(a, b) | f(/* c */ a) | f /* c */ (a)"];
        check("f(a)", MatchStrictness::Cst, &expected);
        check("$F(b)", MatchStrictness::Smart, &expect!["f(a, b)"]);
    }

    #[test]
    fn a_token_must_be_there_unless_the_strictness_skips_it() {
        check("$A + $B", MatchStrictness::Smart, &expect!["a + b"]);
        check("$A + $B", MatchStrictness::Ast, &expect!["a + b | a - b"]);
    }

    #[test]
    fn texts_are_not_asked_where_they_do_not_count() {
        let all = expect![
            "f(a) | g(a) | f(a, b) | f(/* c */ a) | f /* c */ (a) | x.f(a) | h() | a + b | a - b"
        ];
        check("f(a)", MatchStrictness::Signature, &all);
        check("f(a)", MatchStrictness::Template, &all);
    }
}
