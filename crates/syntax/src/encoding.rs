//! Trees as bytes, to be handed from one process to another, and back, from a process that may lie.
//!
//! A file is its trees, the host's first; the text isn't part of it, because whoever decodes has it.
//! All numbers are little-endian; a *varint* has seven bits a byte, the lowest first.
//!
//! | of | bytes |
//! |---|---|
//! | a file | version (1), trees (varint), each tree |
//! | a tree | language (1), the kind table's fingerprint (32), nodes (varint), each node in preorder |
//! | a node | marks (1), kind (2), field (1, if marked), start behind the node before (varint), length (varint), nodes in the subtree (varint, unless it is marked a leaf) |
//!
//! Six bytes a node, as a rule. What a tree holds beside this is derived, by the same
//! [`TreeBuilder`] that a parser's own tree goes through: there is no parent or sibling that an
//! encoding could state wrongly.
//!
//! [`decode`] trusts nothing. What it returns is a tree as a parser could have made it: each kind
//! and field is of the grammar, each range is on characters of the text, inside its parent's and
//! behind its previous sibling's. It takes memory for what has come, never for what is announced.

use crate::kind::{ERROR, KindId, KindTable};
use crate::{Language, NodeFlags, ParsedFile, ParsedTree, TextRange, Tree, TreeBuilder};
use std::fmt;
use std::sync::Arc;

/// Changes with the format. Both ends are of one build, as a rule; this is for when they aren't.
const VERSION: u8 = 1;

/// A field id follows.
const FIELD: u8 = 16;
/// No child, so no size follows.
const LEAF: u8 = 32;
/// The marks that are a node's flags.
const FLAGS: u8 = 15;

/// Fewer bytes than any node takes: an announced number of nodes is checked against what has come.
const NODE_BYTES_MIN: usize = 5;
/// The same of a tree.
const TREE_BYTES_MIN: usize = 1 + 32 + 1 + NODE_BYTES_MIN;

/// Appends the trees of `file` to `out`.
pub fn encode(file: &ParsedFile, out: &mut Vec<u8>) {
    out.reserve(file.n_nodes() * 8 + TREE_BYTES_MIN);
    out.push(VERSION);
    write(out, to_u32(file.injections.len() + 1));
    for (language, parsed) in file.trees() {
        out.push(language as u8);
        out.extend(parsed.tree.table().fingerprint());
        encode_tree(&parsed.tree, out);
    }
}

fn encode_tree(tree: &Tree, out: &mut Vec<u8>) {
    write(out, to_u32(tree.n_nodes()));
    let mut before = 0;
    for node in tree.root().subtree() {
        let (range, field, size) = (node.range(), node.field_id(), tree.size(node.id()));
        let marks = tree.flags(node.id()).bits() & FLAGS
            | if field == 0 { 0 } else { FIELD }
            | if size == 1 { LEAF } else { 0 };
        let [low, high] = node.kind_id().to_le_bytes();
        out.extend([marks, low, high]);
        if field != 0 {
            out.push(field);
        }
        // Preorder is the order of starts. Were it not, decoding would say so.
        write(out, range.start.wrapping_sub(before));
        write(out, range.len());
        if size != 1 {
            write(out, size);
        }
        before = range.start;
    }
}

/// Reads the trees of a file of this `text` and `language`. Kinds and fields are judged by
/// `tables`, the caller's own.
///
/// # Errors
/// For whatever [`encode`] would not have written for a tree of at most `depth_max` levels.
pub fn decode(
    bytes: &[u8],
    text: Arc<str>,
    language: Language,
    depth_max: u32,
    tables: &dyn Fn(Language) -> Option<Arc<KindTable>>,
) -> Result<ParsedFile, DecodeError> {
    let mut input = Input(bytes);
    match input.byte()? {
        VERSION => {}
        other => return Err(DecodeError::Version(other)),
    }
    let n_trees = input.varint()? as usize;
    if n_trees == 0 || n_trees > input.0.len() / TREE_BYTES_MIN {
        return Err(DecodeError::Count);
    }
    let mut next = || {
        let language = input.byte()?;
        let language = Language::ALL.get(usize::from(language)).copied();
        let language = language.ok_or(DecodeError::Language)?;
        let table = tables(language).ok_or(DecodeError::Grammar(language))?;
        if input.take(32)? != table.fingerprint() {
            return Err(DecodeError::Grammar(language));
        }
        let tree = decode_tree(&mut input, &text, &table, depth_max)?;
        Ok((language, ParsedTree::new(tree)))
    };
    let (host, tree) = next()?;
    if host != language {
        return Err(DecodeError::Language);
    }
    let mut injections = Vec::with_capacity(n_trees - 1);
    for _ in 1..n_trees {
        injections.push(next()?);
    }
    if !input.0.is_empty() {
        return Err(DecodeError::Surplus);
    }
    Ok(ParsedFile { language, text, tree, injections })
}

/// A node whose subtree isn't complete.
struct Open {
    /// One past its last descendant.
    end: u32,
    /// Its text's end.
    text_end: u32,
    /// Where its next child may begin.
    free: u32,
}

fn decode_tree(
    input: &mut Input<'_>,
    text: &str,
    table: &Arc<KindTable>,
    depth_max: u32,
) -> Result<Tree, DecodeError> {
    let n_nodes = input.varint()?;
    if n_nodes == 0 || n_nodes as usize > input.0.len() / NODE_BYTES_MIN {
        return Err(DecodeError::Count);
    }
    let n_kinds = table.n_kinds();
    let mut builder = TreeBuilder::new(Arc::clone(table));
    builder.reserve(n_nodes as usize);
    // Stands above the root, so that each node has a place that it must fit into.
    let mut above = vec![Open { end: n_nodes, text_end: to_u32(text.len()), free: 0 }];
    let mut start: u32 = 0;
    for id in 0..n_nodes {
        let [marks, low, high] = input.array()?;
        if marks & !(FLAGS | FIELD | LEAF) != 0 {
            return Err(DecodeError::Flags);
        }
        let kind = KindId::from_le_bytes([low, high]);
        let is_error = kind == ERROR;
        if usize::from(kind) >= n_kinds && !is_error {
            return Err(DecodeError::Kind);
        }
        let flags = NodeFlags::from_bits(marks & FLAGS);
        if flags.contains(NodeFlags::ERROR) != is_error {
            return Err(DecodeError::Flags);
        }
        let field = if marks & FIELD == 0 { 0 } else { input.byte()? };
        if (marks & FIELD != 0 || field != 0) && table.field_name(field).is_none() {
            return Err(DecodeError::Field);
        }
        start = start.checked_add(input.varint()?).ok_or(DecodeError::Range)?;
        let text_end = start.checked_add(input.varint()?).ok_or(DecodeError::Range)?;
        let is_leaf = marks & LEAF != 0;
        let size = if is_leaf { 1 } else { input.varint()? };
        // The root of all can't be closed before its last node: `place` is there.
        let level = above.len();
        let Some(place) = above.last_mut() else { return Err(DecodeError::Size) };
        let end = id.checked_add(size).ok_or(DecodeError::Size)?;
        if end > place.end || (size < 2) != is_leaf || (id == 0 && end != n_nodes) {
            return Err(DecodeError::Size);
        }
        if flags.contains(NodeFlags::MISSING) && start != text_end {
            return Err(DecodeError::Flags);
        }
        if start < place.free || text_end > place.text_end || !on_chars(text, start, text_end) {
            return Err(DecodeError::Range);
        }
        if level > depth_max as usize {
            return Err(DecodeError::Depth { limit: depth_max });
        }
        place.free = text_end;
        builder.open(kind, field, flags, TextRange { start, end: text_end });
        if is_leaf {
            builder.close();
            // Never the place above the root, which is no node: a lone root leaves it alone.
            while above.len() > 1 && above.last().is_some_and(|open| open.end == end) {
                above.pop();
                builder.close();
            }
        } else {
            above.push(Open { end, text_end, free: start });
        }
    }
    // Each subtree ends with a leaf, so all are closed by now.
    if above.len() == 1 { Ok(builder.finish()) } else { Err(DecodeError::Size) }
}

fn on_chars(text: &str, start: u32, end: u32) -> bool {
    text.is_char_boundary(start as usize) && text.is_char_boundary(end as usize)
}

/// What is left to read.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Cut)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn varint(&mut self) -> Result<u32, DecodeError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u32::from(first));
        }
        let mut value = u32::from(first & 0x7f);
        for shift in [7, 14, 21, 28] {
            let byte = self.byte()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0xf {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                // One way to write each number: the last byte isn't there for nothing.
                return if byte == 0 { Err(DecodeError::Number) } else { Ok(value) };
            }
        }
        Err(DecodeError::Number)
    }
}

fn write(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

#[expect(clippy::cast_possible_truncation, reason = "the low byte is what is asked for")]
fn low_byte(value: u32) -> u8 {
    value as u8
}

#[expect(clippy::cast_possible_truncation, reason = "texts, hence nodes, are capped below 4 GiB")]
fn to_u32(n: usize) -> u32 {
    n as u32
}

/// Why bytes are no encoding of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Of another version of the format.
    Version(u8),
    /// The bytes end in the middle.
    Cut,
    /// Bytes are left over.
    Surplus,
    /// A number that isn't written as [`encode`] writes it.
    Number,
    /// More trees or nodes than the bytes can hold, or none.
    Count,
    /// No language, or a host of another one.
    Language,
    /// The language's grammar isn't built here, or is another one.
    Grammar(Language),
    /// A kind that the grammar lacks.
    Kind,
    /// A field that the grammar lacks.
    Field,
    /// Flags that no node has.
    Flags,
    /// A range outside the text, the parent, or characters, or over the sibling before.
    Range,
    /// A subtree that doesn't fit into its parent's.
    Size,
    /// Deeper than is allowed.
    Depth {
        /// The limit, in levels.
        limit: u32,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => {
                write!(f, "trees of format {version} can't be read, only of {VERSION}")
            }
            Self::Cut => write!(f, "the trees end in the middle"),
            Self::Surplus => write!(f, "bytes follow the trees"),
            Self::Number => write!(f, "a number of the trees is malformed"),
            Self::Count => write!(f, "more trees or nodes are announced than there can be"),
            Self::Language => write!(f, "a tree is of another language"),
            Self::Grammar(language) => write!(f, "a tree is of another {language} grammar"),
            Self::Kind => write!(f, "a node has a kind that its grammar lacks"),
            Self::Field => write!(f, "a node has a field that its grammar lacks"),
            Self::Flags => write!(f, "a node has flags that no node has"),
            Self::Range => write!(f, "a node has a range where none can be"),
            Self::Size => write!(f, "a subtree doesn't fit into its parent's"),
            Self::Depth { limit } => write!(f, "a tree is deeper than {limit} levels"),
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests;
