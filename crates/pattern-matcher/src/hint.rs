//! What to tell somebody whose pattern can't be compiled, or can't mean what they think.

use crate::lang::Lang;
use ast_grep_config::Rule;
use ast_grep_core::Language as _;
use ast_grep_core::matcher::{KindMatcherError, PatternError, PatternNode};
use astscope_parsing::{Limits, kind_table, parse};
use astscope_syntax::{Language, Node, ParsedFile};

/// How a pattern is parsed, as source, before it becomes a pattern.
fn parse_pattern(language: Language, pattern: &str) -> Option<ParsedFile> {
    let source = Lang(language).pre_process_pattern(pattern);
    parse((&*source).into(), language, &Limits::DAEMON, &mut || false).ok()
}

/// Levels of the tree of `pattern`'s source.
pub(crate) fn depth(language: Language, pattern: &str) -> usize {
    parse_pattern(language, pattern).map_or(0, |file| file.tree.tree.depth() as usize)
}

/// Where a pattern that was refused is at fault, and what to write instead.
pub(crate) fn for_error(
    language: Language,
    pattern: &str,
    error: &PatternError,
) -> (Option<usize>, Option<String>) {
    match error {
        PatternError::MultipleNode(_) => several_nodes(language, pattern),
        PatternError::NoContent(_) => {
            (Some(0), Some(format!("The pattern is empty for {language}: write the code to look for.")))
        }
        PatternError::RootMultiMetaVar(_) => (
            Some(0),
            Some("`$$$` stands for several nodes, a pattern is one: write `$A`, or put it into its surroundings, as in `f($$$ARGS)`.".to_owned()),
        ),
        PatternError::NoSelectorInContext { selector, .. } => (None, kinds_inside(language, pattern, selector)),
        PatternError::InvalidKind(KindMatcherError::InvalidKindName(kind)) => (None, similar_kinds(language, kind)),
        PatternError::Parse(_) => (None, None),
    }
}

/// A pattern of several nodes: says where the second begins.
fn several_nodes(language: Language, pattern: &str) -> (Option<usize>, Option<String>) {
    let Some(file) = parse_pattern(language, pattern) else {
        return (None, None);
    };
    let mut node = file.tree.tree.root();
    // As ast-grep unwraps it: down while there is one child.
    while node.children().len() == 1
        && let Some(only) = node.children().next()
    {
        node = only;
    }
    let parts: Vec<Node<'_>> = node.children().collect();
    let Some(second) = parts.get(1) else {
        return (None, None);
    };
    // The expando may be longer than the `$` that it replaces: count characters, not bytes.
    let source = Lang(language).pre_process_pattern(pattern);
    let chars = source[..second.range().start as usize].chars().count();
    let offset = pattern.char_indices().nth(chars).map_or(pattern.len(), |(at, _)| at);
    let kinds: Vec<&str> = parts.iter().map(|part| part.kind()).collect();
    let help = format!(
        "A pattern is one node; this parses as {} ({}), the second from byte {offset} on. \
         Put it into its surroundings and choose the part with `--selector KIND`.",
        parts.len(),
        kinds.join(", ")
    );
    (Some(offset), Some(help))
}

fn kinds_inside(language: Language, pattern: &str, selector: &str) -> Option<String> {
    let file = parse_pattern(language, pattern)?;
    let mut kinds: Vec<&str> =
        file.tree.tree.root().subtree().filter(|node| node.is_named()).map(Node::kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let broken = if kinds.contains(&"ERROR") { " It does not parse cleanly either." } else { "" };
    kinds.retain(|kind| *kind != "ERROR");
    Some(format!("The pattern has no `{selector}`; it has {}.{broken}", kinds.join(", ")))
}

/// Kinds of the language whose names are close to one in `selector` that it lacks.
pub(crate) fn similar_kinds(language: Language, selector: &str) -> Option<String> {
    let table = kind_table(language)?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let unknown = selector
        .split(|c: char| !is_name(c))
        .find(|word| !word.is_empty() && !word.starts_with('-') && table.kind_id(word).is_none())?;
    let mut close: Vec<(usize, &str)> = table
        .named_kinds()
        .map(|kind| (distance(unknown, kind), kind))
        .filter(|(distance, kind)| {
            *distance <= unknown.len() / 3 + 1 || (unknown.len() > 3 && kind.contains(unknown))
        })
        .collect();
    close.sort_unstable();
    let names: Vec<&str> = close.iter().take(5).map(|(_, kind)| *kind).collect();
    Some(if names.is_empty() {
        format!(
            "{language} has no kind `{unknown}`; `astscope parse FILE` shows the kinds of a file."
        )
    } else {
        format!("{language} has no kind `{unknown}`; did you mean {}?", names.join(", "))
    })
}

/// Levenshtein's distance, over bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Hints for a pattern that compiles into something that its writer can't have meant.
pub(crate) fn misread(language: Language, pattern: &str, rule: &Rule) -> Vec<String> {
    let Rule::Pattern(compiled) = rule else {
        return Vec::new();
    };
    let mut hints = Vec::new();
    let root_kind = match &compiled.node {
        PatternNode::Internal { kind_id, .. } | PatternNode::Terminal { kind_id, .. } => {
            kind_table(language).map(|table| table.kind_name(*kind_id).to_owned())
        }
        PatternNode::MetaVar { .. } => None,
    };
    let looks_like_a_call =
        pattern.trim_end().ends_with(')') && !pattern.trim_start().starts_with('(');
    // C and C++ read a lone `f(x)` as a macro in place of a type, or as a declaration.
    if matches!(language, Language::C | Language::Cpp)
        && looks_like_a_call
        && let Some(kind) = root_kind
        && kind != "call_expression"
    {
        hints.push(format!(
            "in {language} the pattern `{pattern}` parses as {kind}, not as a call; to find calls, \
             write the statement and select the call: -p '{};' --selector call_expression",
            pattern.trim_end()
        ));
    }
    hints
}
