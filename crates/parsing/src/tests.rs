//! Every language parses, and the compact tree equals tree-sitter's own, node for node.

use super::*;
use crate::grammar::parse_with_tree_sitter;
use ast_grep_language::{LanguageExt as _, SupportLang};
use astscope_fixtures::samples::SAMPLES;
use astscope_syntax::{Node, render};
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn parsed(source: &str, language: Language) -> ParsedFile {
    parse(source.into(), language, &Limits::DAEMON, &mut || false).expect("no limit is near")
}

#[test]
fn each_language_name_parses_a_sample_of_that_language() {
    // Two grammar crates that export the same C symbol would link silently and parse one
    // language by the other's tables: errors here.
    for language in Language::ALL {
        let (_, sample) = SAMPLES
            .iter()
            .find(|(name, _)| *name == language.name())
            .expect("each language has a sample");
        let file = parsed(sample, *language);
        let errors: Vec<_> = file
            .tree
            .tree
            .root()
            .subtree()
            .filter(|node| node.is_error() || node.is_missing())
            .collect();
        assert!(
            errors.is_empty(),
            "{language}: {errors:?}\n{}",
            render::sexp(file.tree.tree.root(), render::Detail::Ast)
        );
        assert!(file.n_nodes() > 10, "{language} has a tree");
    }
}

#[test]
fn names_aliases_and_extensions_are_ast_greps() {
    for theirs in SupportLang::all_langs() {
        let ours: Language =
            theirs.to_string().to_lowercase().parse().expect("we have all of its languages");
        assert_eq!(ours.name(), theirs.to_string());
        for alias in ours.aliases() {
            assert_eq!(alias.parse::<SupportLang>().ok(), Some(*theirs), "alias {alias}");
        }
        let types = theirs.file_types();
        let their_globs: BTreeSet<String> =
            types.definitions().iter().flat_map(|definition| definition.globs().to_vec()).collect();
        assert_eq!(ours.globs().collect::<BTreeSet<_>>(), their_globs, "{ours}");
        let injected: BTreeSet<Language> = theirs
            .injectable_languages()
            .unwrap_or_default()
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        assert_eq!(injected, ours.injectable().iter().copied().collect(), "{ours}");
    }
    assert_eq!(SupportLang::all_langs().len() + Language::ADDED.len(), Language::ALL.len());
}

#[test]
fn kind_and_field_names_resolve_as_tree_sitter_resolves_them() {
    for theirs in SupportLang::all_langs() {
        use ast_grep_language::Language as _;
        let ours: Language = theirs.to_string().to_lowercase().parse().expect("we have it");
        let table = kind_table(ours).expect("all grammars are built for tests");
        for id in 0..u16::try_from(table.n_kinds()).expect("kind ids are 16 bits") {
            let name = table.kind_name(id);
            assert_eq!(table.kind_id(name).unwrap_or(0), theirs.kind_to_id(name), "{ours} {name}");
        }
        for field in 1..=u8::MAX {
            let Some(name) = table.field_name(field) else { break };
            assert_eq!(
                table.field_id(name).map(u16::from),
                theirs.field_to_id(name),
                "{ours} {name}"
            );
        }
    }
}

/// Compares with tree-sitter's own tree by its node API, which shares no code with the cursor
/// that the conversion uses.
fn assert_same_as_tree_sitter(source: &str, language: Language) {
    let theirs =
        parse_with_tree_sitter(source, language, None, &mut || false).expect("not stopped");
    let ours = parsed(source, language);
    let lines = astscope_syntax::LineIndex::new(source);
    let mut pairs = vec![(theirs.root_node(), ours.tree.tree.root())];
    while let Some((theirs, ours)) = pairs.pop() {
        assert_eq!(ours.kind_id(), theirs.kind_id());
        assert_eq!(ours.kind(), theirs.kind());
        assert_eq!(ours.range().to_usize(), theirs.byte_range());
        let (row, column) = lines.byte_point(ours.range().end);
        assert_eq!(tree_sitter::Point::new(row as usize, column as usize), theirs.end_position());
        assert_eq!(
            (ours.is_named(), ours.is_missing(), ours.is_error(), ours.is_extra()),
            (theirs.is_named(), theirs.is_missing(), theirs.is_error(), theirs.is_extra())
        );
        let children: Vec<Node<'_>> = ours.children().collect();
        assert_eq!(children.len(), theirs.child_count() as usize);
        for (at, child) in children.into_iter().enumerate() {
            let at = u32::try_from(at).expect("few children");
            assert_eq!(child.field(), theirs.field_name_for_child(at));
            pairs.push((theirs.child(at).expect("counted"), child));
        }
    }
}

#[test]
fn the_compact_tree_equals_tree_sitters_on_every_sample() {
    for (name, sample) in SAMPLES {
        let language: Language = name.to_lowercase().parse().expect("samples name languages");
        assert_same_as_tree_sitter(sample, language);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Broken code, cut anywhere and glued: error recovery has the odd shapes.
    #[test]
    fn the_compact_tree_equals_tree_sitters_on_broken_code(
        which in 0..SAMPLES.len(), from in 0.0f64..1.0, to in 0.0f64..1.0, insert in "[(){}\\[\\]<>\"'a-z\n é]{0,6}"
    ) {
        let (name, sample) = SAMPLES[which];
        let at = |part: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                reason = "any place will do")]
            let at = (sample.len() as f64 * part) as usize;
            sample.floor_char_boundary(at)
        };
        let (from, to) = (at(from.min(to)), at(from.max(to)));
        let source = format!("{}{insert}{}", &sample[..from], &sample[to..]);
        let language: Language = name.to_lowercase().parse().expect("samples name languages");
        assert_same_as_tree_sitter(&source, language);
    }
}

fn check_injections(host: Language, source: &str, expected: &Expect) {
    let file = parsed(source, host);
    let shown: Vec<String> = file
        .injections
        .iter()
        .map(|(language, tree)| {
            let root = tree.tree.root();
            let tops: Vec<&str> = root.children().map(|node| node.text(source)).collect();
            format!("{language} {:?}: {tops:?}\n", root.range())
        })
        .collect();
    expected.assert_eq(&shown.concat());
}

#[test]
fn scripts_come_before_styles_and_lang_attributes_decide() {
    check_injections(
        Language::Html,
        "<style>a { b: c }</style>\n<script>f(1)</script><script lang=\"ts\">let x: T</script><script lang=cobol>y</script><style lang='scss'></style>",
        &expect![[r#"
            JavaScript TextRange { start: 34, end: 38 }: ["f(1)"]
            TypeScript TextRange { start: 65, end: 73 }: ["let x: T"]
            Css TextRange { start: 7, end: 17 }: ["a { b: c }"]
        "#]],
    );
}

#[test]
fn heex_expressions_are_elixir_and_the_halves_of_blocks_are_one_text() {
    check_injections(
        Language::Heex,
        "<%= for x <- @xs do %>\n  <b class={cls(x)}><%= x.name %></b>\n<% end %>",
        &expect![[r#"
            Elixir TextRange { start: 35, end: 41 }: ["cls(x)"]
            Elixir TextRange { start: 47, end: 53 }: ["x.name"]
            Elixir TextRange { start: 4, end: 67 }: ["for x <- @xs do %>\n  <b class={cls(x)}><%= x.name %></b>\n<% end"]
        "#]],
    );
}

#[test]
fn a_stopped_parse_leaves_no_trace_in_the_next_one() {
    let big = "f(1)\n".repeat(200_000);
    let mut asked = 0;
    let stopped = parse(big.into(), Language::Elixir, &Limits::DAEMON, &mut || {
        asked += 1;
        asked > 2
    });
    assert_eq!(stopped.err(), Some(SkipReason::ParseTimeout));
    assert_same_as_tree_sitter("g(2)", Language::Elixir);
}

/// Why a changed file is parsed whole (decision 0014). The edit is of no byte, and neither tree has an
/// error.
#[test]
fn by_tree_sitters_edit_a_text_has_other_trees_than_by_a_fresh_parse() {
    let text = "(){{}\n/**/ }";
    let mut parser = tree_sitter::Parser::new();
    parser.set_language(&SupportLang::Scala.get_ts_language()).expect("of this ABI");
    let fresh = parser.parse(text, None).expect("not stopped");
    let (end, point) = (text.len(), tree_sitter::Point::new(1, 6));
    let mut old = fresh.clone();
    old.edit(&tree_sitter::InputEdit {
        start_byte: end,
        old_end_byte: end,
        new_end_byte: end,
        start_position: point,
        old_end_position: point,
        new_end_position: point,
    });
    let edited = parser.parse(text, Some(&old)).expect("not stopped");
    let [fresh, edited] = [fresh, edited].map(|tree| {
        assert!(!tree.root_node().has_error());
        let tree = convert::compact(&tree, Language::Scala, text.len(), 100).expect("not deep");
        let node = |node: Node<'_>| format!("{} {:?}", node.kind(), &text[node.range().to_usize()]);
        tree.root().subtree().map(node).collect::<Vec<_>>()
    });
    assert_eq!(edited.len(), fresh.len());
    let pairs = edited.iter().zip(&fresh).filter(|(edited, fresh)| edited != fresh);
    let others: Vec<_> = pairs.map(|(edited, fresh)| format!("{edited}, not {fresh}")).collect();
    expect![[r#"block_comment "/**/", not block_comment "/**/ ""#]].assert_eq(&others.join("\n"));
}

#[test]
fn sixty_thousand_levels_parse_and_the_limit_reports_what_lies_above() {
    let deep = format!("{}1{}", "(".repeat(60_000), ")".repeat(60_000));
    assert!(parsed(&deep, Language::JavaScript).depth() > 60_000);
    let limits = Limits { depth_max: 1_000, ..Limits::DAEMON };
    let refused = parse(deep.into(), Language::JavaScript, &limits, &mut || false);
    assert_eq!(refused.err(), Some(SkipReason::TooDeep { limit: 1_000 }));
}

#[test]
fn memory_is_sixteen_bytes_a_node_and_little_more() {
    for (name, sample) in SAMPLES {
        let language: Language = name.to_lowercase().parse().expect("samples name languages");
        let file = parsed(&sample.repeat(50), language);
        let (bytes, nodes) = (file.tree.tree.heap_bytes(), file.tree.tree.n_nodes());
        assert!(bytes < nodes * 17, "{name}: {bytes} bytes for {nodes} nodes");
    }
}
