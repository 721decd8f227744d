//! Value types of code: what every other crate means by a language, a file, a range and a tree.
//!
//! The crate exists so that nobody has to compile thirty grammars to name a text range.
//! It does no IO, holds no interner and no global state; a [`Tree`] is a plain value that any
//! thread may read.
//!
//! The heart is the compact tree ([`tree`]): tree-sitter's own trees cost 100 to 120 bytes a node,
//! so a parsed file is converted once into preorder arrays of 16 bytes a node and the original is
//! dropped. A node's id is its preorder index, its descendants are the run of indices behind it.
//!
//! ```
//! use astscope_syntax::{KindTable, NodeFlags, TextRange, TreeBuilder};
//! use std::sync::Arc;
//!
//! // What the `parsing` crate does for real, by hand: `f(x)` as a call with two children.
//! let kinds = Arc::new(KindTable::new([("end", false), ("call", true), ("identifier", true)], ["callee"]));
//! let mut builder = TreeBuilder::new(kinds);
//! builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 4));
//! builder.open(2, 1, NodeFlags::NAMED, TextRange::new(0, 1));
//! builder.close();
//! builder.open(2, 0, NodeFlags::NAMED, TextRange::new(2, 3));
//! builder.close();
//! builder.close();
//! let tree = builder.finish();
//!
//! let call = tree.root();
//! assert_eq!(call.kind(), "call");
//! assert_eq!(call.children().map(|n| n.range().start).collect::<Vec<_>>(), [0, 2]);
//! assert_eq!(call.child_by_field_id(1).map(|n| n.kind()), Some("identifier"));
//! ```
//!
//! Invariants: offsets are `u32` bytes into UTF-8 text; lines and columns exist only at the edge,
//! through [`LineIndex`]; from a [`FileId`] no path can be got back here.
#![forbid(unsafe_code)]

pub mod encoding;
pub mod kind;
pub mod language;
pub mod node;
pub mod parsed;
pub mod render;
pub mod text;
pub mod tree;

mod id;

pub use id::{ContentId, FileId};
pub use kind::{FieldId, KindId, KindSet, KindTable};
pub use language::{Language, UnknownLanguage};
pub use node::Node;
pub use parsed::{ParsedFile, ParsedTree, SkipReason};
pub use text::{LineIndex, Position, TextRange};
pub use tree::{NodeFlags, NodeId, Tree, TreeBuilder};
