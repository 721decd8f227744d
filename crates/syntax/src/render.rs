//! Text renderings of a tree: s-expressions as tree-sitter writes them, and JSON.

use crate::Node;
use std::fmt::Write;

/// Which nodes a rendering shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Named nodes only: the abstract syntax tree.
    Ast,
    /// Anonymous tokens too: the concrete syntax tree.
    Cst,
}

/// Levels that are indented: beyond them the text would grow with the square of the depth.
const INDENT_MAX: usize = 64;

/// The s-expression of `node`, indented by two spaces a level.
///
/// `(kind …)` with `field: ` before a child that is one; tokens are quoted, missing nodes are
/// `(MISSING kind)`. Leaves show no text: use [`json`] for that.
///
/// ```text
/// (call
///   target: (identifier)
///   (arguments
///     (integer)))
/// ```
pub fn sexp(node: Node<'_>, detail: Detail) -> String {
    let mut out = String::new();
    let mut shown_levels: Vec<u32> = Vec::new();
    // Iterative: a tree may be deeper than any stack.
    for descendant in node.subtree() {
        while shown_levels.last().is_some_and(|&end| descendant.id() >= end) {
            shown_levels.pop();
            out.push(')');
        }
        if detail == Detail::Ast && !descendant.is_named() && descendant != node {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", shown_levels.len().min(INDENT_MAX)));
        }
        if let Some(field) = descendant.field().filter(|_| descendant != node) {
            out.push_str(field);
            out.push_str(": ");
        }
        if descendant.is_named() {
            out.push('(');
            if descendant.is_missing() {
                out.push_str("MISSING ");
            }
            out.push_str(descendant.kind());
            shown_levels.push(end_of(descendant));
        } else {
            push_token(&mut out, descendant);
        }
    }
    out.extend(std::iter::repeat_n(')', shown_levels.len()));
    out.push('\n');
    out
}

fn push_token(out: &mut String, node: Node<'_>) {
    if node.is_missing() {
        out.push_str("(MISSING ");
    }
    push_json_string(out, node.kind());
    if node.is_missing() {
        out.push(')');
    }
}

/// The JSON of `node`: objects of `kind`, `range` (`[start, end]`, bytes), `named`, and where they
/// say something `field`, `missing`, `error`, `extra`, `text` (of leaves) and `children`.
pub fn json(node: Node<'_>, source: &str, detail: Detail) -> String {
    let mut out = String::new();
    let mut open: Vec<u32> = Vec::new();
    for descendant in node.subtree() {
        while open.last().is_some_and(|&end| descendant.id() >= end) {
            open.pop();
            out.push_str("]}");
        }
        if detail == Detail::Ast && !descendant.is_named() && descendant != node {
            continue;
        }
        if !out.is_empty() && !out.ends_with('[') {
            out.push(',');
        }
        push_json_head(&mut out, descendant, source);
        if has_shown_child(descendant, detail) {
            out.push_str(",\"children\":[");
            open.push(end_of(descendant));
        } else {
            out.push('}');
        }
    }
    for _ in open {
        out.push_str("]}");
    }
    out
}

fn push_json_head(out: &mut String, node: Node<'_>, source: &str) {
    out.push_str("{\"kind\":");
    push_json_string(out, node.kind());
    let range = node.range();
    write_to(
        out,
        format_args!(",\"range\":[{},{}],\"named\":{}", range.start, range.end, node.is_named()),
    );
    if let Some(field) = node.field() {
        out.push_str(",\"field\":");
        push_json_string(out, field);
    }
    for (flag, name) in
        [(node.is_missing(), "missing"), (node.is_error(), "error"), (node.is_extra(), "extra")]
    {
        if flag {
            write_to(out, format_args!(",\"{name}\":true"));
        }
    }
    if node.is_leaf() {
        out.push_str(",\"text\":");
        push_json_string(out, node.text(source));
    }
}

fn has_shown_child(node: Node<'_>, detail: Detail) -> bool {
    match detail {
        Detail::Ast => !node.is_named_leaf(),
        Detail::Cst => !node.is_leaf(),
    }
}

fn end_of(node: Node<'_>) -> u32 {
    node.tree().subtree_end(node.id())
}

fn write_to(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String fails only if a Display impl of ours did.
    #[expect(clippy::expect_used, reason = "String's fmt::Write never fails")]
    out.write_fmt(arguments).expect("writing to a string");
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => write_to(out, format_args!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KindTable, NodeFlags, TextRange, Tree, TreeBuilder};
    use expect_test::expect;
    use std::sync::Arc;

    /// `f("a" x` with a missing parenthesis.
    fn call() -> (Tree, &'static str) {
        let source = "f(\"a\" x";
        let names = [
            ("end", false),
            ("call", true),
            ("identifier", true),
            ("(", false),
            (")", false),
            ("string", true),
        ];
        let mut builder = TreeBuilder::new(Arc::new(KindTable::new(names, ["callee"])));
        builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 7));
        for (kind, field, flags, start, end) in [
            (2, 1, NodeFlags::NAMED, 0, 1),
            (3, 0, NodeFlags::NONE, 1, 2),
            (5, 0, NodeFlags::NAMED, 2, 5),
            (u16::MAX, 0, NodeFlags::NAMED.with(NodeFlags::ERROR), 6, 7),
            (4, 0, NodeFlags::MISSING, 7, 7),
        ] {
            builder.open(kind, field, flags, TextRange::new(start, end));
            builder.close();
        }
        builder.close();
        (builder.finish(), source)
    }

    #[test]
    fn an_s_expression_shows_named_nodes_and_on_request_tokens() {
        let (tree, _) = call();
        expect![[r"
            (call
              callee: (identifier)
              (string)
              (ERROR))
        "]]
        .assert_eq(&sexp(tree.root(), Detail::Ast));
        expect![[r#"
            (call
              callee: (identifier)
              "("
              (string)
              (ERROR)
              (MISSING ")"))
        "#]]
        .assert_eq(&sexp(tree.root(), Detail::Cst));
    }

    #[test]
    fn json_has_ranges_flags_and_the_text_of_leaves() {
        let (tree, source) = call();
        expect![[r#"{"kind":"call","range":[0,7],"named":true,"children":[{"kind":"identifier","range":[0,1],"named":true,"field":"callee","text":"f"},{"kind":"string","range":[2,5],"named":true,"text":"\"a\""},{"kind":"ERROR","range":[6,7],"named":true,"error":true,"text":"x"}]}"#]]
            .assert_eq(&json(tree.root(), source, Detail::Ast));
    }

    #[test]
    fn nesting_deeper_than_a_stack_renders() {
        let mut builder =
            TreeBuilder::new(Arc::new(KindTable::new([("end", false), ("p", true)], [])));
        for _ in 0..100_000 {
            builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 0));
        }
        for _ in 0..100_000 {
            builder.close();
        }
        let tree = builder.finish();
        assert_eq!(sexp(tree.root(), Detail::Ast).matches('(').count(), 100_000);
        let json = json(tree.root(), "", Detail::Ast);
        assert!(json.ends_with("\"text\":\"\"}") || json.ends_with("]}"));
    }
}
