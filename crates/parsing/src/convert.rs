//! From tree-sitter's tree to the compact one, in one walk.

use crate::grammar::kind_table;
use astscope_syntax::{FieldId, Language, NodeFlags, SkipReason, TextRange, Tree, TreeBuilder};
use tree_sitter::TreeCursor;

/// Converts `tree`, which was parsed from a text of `text_len` bytes.
pub(crate) fn compact(
    tree: &tree_sitter::Tree,
    language: Language,
    text_len: usize,
    depth_max: u32,
) -> Result<Tree, SkipReason> {
    let table = kind_table(language).ok_or(SkipReason::GrammarNotBuilt)?;
    let mut builder = TreeBuilder::new(table);
    // Exactly: an allocator may keep a block that was shrunk at its former size.
    builder.reserve(tree.root_node().descendant_count());
    let mut cursor = tree.walk();
    loop {
        open(&mut builder, &cursor, text_len);
        if builder.depth() > depth_max {
            return Err(SkipReason::TooDeep { limit: depth_max });
        }
        if cursor.goto_first_child() {
            continue;
        }
        builder.close();
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return Ok(builder.finish());
            }
            builder.close();
        }
    }
}

fn open(builder: &mut TreeBuilder, cursor: &TreeCursor<'_>, text_len: usize) {
    let node = cursor.node();
    let flags = NodeFlags::NAMED
        .when(node.is_named())
        .with(NodeFlags::MISSING.when(node.is_missing()))
        .with(NodeFlags::ERROR.when(node.is_error()))
        .with(NodeFlags::EXTRA.when(node.is_extra()));
    let field =
        cursor.field_id().and_then(|field| FieldId::try_from(field.get()).ok()).unwrap_or(0);
    // A node may end behind the text: some grammars append the line ending that it lacks.
    let end = node.end_byte().min(text_len);
    let range = TextRange::new(offset(node.start_byte().min(end)), offset(end));
    builder.open(node.kind_id(), field, flags, range);
}

#[expect(clippy::cast_possible_truncation, reason = "admit caps a text far below 4 GiB")]
fn offset(bytes: usize) -> u32 {
    bytes as u32
}
