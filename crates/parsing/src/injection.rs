//! Which parts of a file are written in another language.
//!
//! HTML as ast-grep finds them: the raw text of each `script` element (JavaScript unless its
//! `lang` attribute names another language), then of each `style` element (CSS likewise).
//! HEEx as its own Elixir tooling does: each complete expression by itself, and the halves of
//! blocks (`<%= for … do %> … <% end %>`) together as one text.

use astscope_syntax::{Language, LineIndex, Node, TextRange, Tree};
use tree_sitter::{Point, Range};

/// A part of a file in another language.
pub(crate) struct Injection {
    pub(crate) language: Language,
    /// Sorted and disjoint; several are parsed as one text.
    pub(crate) ranges: Vec<Range>,
}

/// The injections in a file of `host`, in ast-grep's order.
pub(crate) fn find(host: Language, tree: &Tree, text: &str) -> Vec<Injection> {
    match host {
        Language::Html => in_html(tree, text),
        Language::Heex => in_heex(tree, text),
        _ => Vec::new(),
    }
}

fn in_html(tree: &Tree, text: &str) -> Vec<Injection> {
    let lines = LineIndex::new(text);
    let elements =
        |kind: &'static str| tree.root().subtree().filter(move |node| node.kind() == kind);
    let embedded = |element: Node<'_>, default: Language| {
        let content = element.children().find(|child| child.kind() == "raw_text")?;
        let language = match lang_attribute(element, text) {
            Some(name) => injected_language(name)?,
            None => default,
        };
        Some(Injection { language, ranges: vec![ts_range(&lines, content.range())] })
    };
    let scripts =
        elements("script_element").filter_map(|node| embedded(node, Language::JavaScript));
    let styles = elements("style_element").filter_map(|node| embedded(node, Language::Css));
    scripts.chain(styles).collect()
}

/// The value of the first `lang` attribute below `element` that has one.
fn lang_attribute<'t>(element: Node<'_>, text: &'t str) -> Option<&'t str> {
    let first =
        |node: Node<'_>, kind| node.subtree().find(|inner| inner.kind() == kind).map(Node::range);
    let attributes = element.subtree().filter(|node| node.kind() == "attribute");
    attributes
        .filter(|attribute| {
            first(*attribute, "attribute_name").is_some_and(|name| &text[name.to_usize()] == "lang")
        })
        .find_map(|attribute| first(attribute, "attribute_value"))
        .map(|value| &text[value.to_usize()])
}

/// Any language of ast-grep's may be named. Ours can't be: ast-grep would not search it either.
fn injected_language(name: &str) -> Option<Language> {
    name.parse().ok().filter(|language| !Language::ADDED.contains(language))
}

fn in_heex(tree: &Tree, text: &str) -> Vec<Injection> {
    let lines = LineIndex::new(text);
    let mut injections = Vec::new();
    let mut halves = Vec::new();
    for node in tree.root().subtree() {
        let range = node.range();
        if range.is_empty() {
            continue;
        }
        match node.kind() {
            "expression_value" => injections.push(Injection {
                language: Language::Elixir,
                ranges: vec![ts_range(&lines, range)],
            }),
            "partial_expression_value" | "ending_expression_value" => {
                halves.push(ts_range(&lines, range));
            }
            _ => {}
        }
    }
    if !halves.is_empty() {
        injections.push(Injection { language: Language::Elixir, ranges: halves });
    }
    injections
}

fn ts_range(lines: &LineIndex<&str>, range: TextRange) -> Range {
    let point = |offset| {
        let (row, column) = lines.byte_point(offset);
        Point::new(row as usize, column as usize)
    };
    Range {
        start_byte: range.start as usize,
        end_byte: range.end as usize,
        start_point: point(range.start),
        end_point: point(range.end),
    }
}
