//! The compact tree: a whole syntax tree in three preorder columns, 16 bytes a node.
//!
//! | column | bytes | holds |
//! |---|---|---|
//! | `spans` | 12 | text start (u32), parent (u32), text length (u16), subtree size (u16) |
//! | `kinds` | 2 | the grammar's kind id; apart, because a query scans it without the rest |
//! | `marks` | 2 | field of the edge from the parent (u8), flags (u8) |
//!
//! A node whose text is 64 KiB long or whose subtree has 65,536 nodes (the root, often, and a few
//! below it) keeps an index into `wide` in place of length and size. So every read is O(1):
//! parent is stored, the next sibling is `id + size`. The previous sibling is found by climbing
//! from the node just before; where that climb is longer than `CLIMB_MAX` steps the answer is
//! stored in `far_previous`, sorted. Climbs are disjoint (each node is on one rightmost path), so
//! that table has at most one entry per `CLIMB_MAX` nodes: O(log n) in time, half a byte a node
//! at worst in space.

use crate::kind::{FieldId, KindId, KindTable};
use crate::{Node, TextRange};
use std::sync::Arc;

/// A node of one tree: its index in preorder. The root is 0.
pub type NodeId = u32;

/// Steps that finding a previous sibling may climb before the answer is stored instead.
pub(crate) const CLIMB_MAX: u32 = 16;

/// What a node is beside its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFlags(u8);

impl NodeFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A rule of the grammar, not a literal token.
    pub const NAMED: Self = Self(1);
    /// Inserted by error recovery; it has no text.
    pub const MISSING: Self = Self(2);
    /// An `ERROR` node.
    pub const ERROR: Self = Self(4);
    /// May stand anywhere, as comments do.
    pub const EXTRA: Self = Self(8);
    /// Length and size stand in the wide table. Not for builders.
    pub(crate) const WIDE: Self = Self(128);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This, if `condition` holds, else nothing.
    #[must_use]
    pub const fn when(self, condition: bool) -> Self {
        if condition { self } else { Self::NONE }
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Span {
    start: u32,
    parent: NodeId,
    len: u16,
    size: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Mark {
    field: FieldId,
    flags: NodeFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wide {
    len: u32,
    size: u32,
}

const _: () = assert!(size_of::<Span>() + size_of::<KindId>() + size_of::<Mark>() == 16);

/// A syntax tree over a text that it doesn't hold. Immutable.
///
/// Equal are trees whose every stored word is, under grammars that give the words the same
/// meaning: what a parser makes of a text is equal whenever it does so, and memory that was
/// overwritten is not.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree {
    table: Arc<KindTable>,
    kinds: Box<[KindId]>,
    spans: Box<[Span]>,
    marks: Box<[Mark]>,
    wide: Box<[Wide]>,
    far_previous: Box<[(NodeId, NodeId)]>,
    depth: u32,
}

impl Tree {
    /// The root node.
    pub fn root(&self) -> Node<'_> {
        Node::new(self, 0)
    }

    /// The node with this id.
    ///
    /// # Panics
    /// When the tree has no such node.
    pub fn node(&self, id: NodeId) -> Node<'_> {
        assert!(
            (id as usize) < self.kinds.len(),
            "a tree of {} nodes has no node {id}",
            self.kinds.len()
        );
        Node::new(self, id)
    }

    /// All kinds in preorder: what a query scans first.
    pub fn kinds(&self) -> &[KindId] {
        &self.kinds
    }

    /// The names of kinds and fields.
    pub fn table(&self) -> &Arc<KindTable> {
        &self.table
    }

    /// Number of nodes; at least one.
    pub fn n_nodes(&self) -> usize {
        self.kinds.len()
    }

    /// Levels of the deepest node; 1 for a lone root.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Bytes on the heap, the shared kind table apart.
    pub fn heap_bytes(&self) -> usize {
        self.kinds.len() * 16
            + self.wide.len() * size_of::<Wide>()
            + self.far_previous.len() * size_of::<(NodeId, NodeId)>()
    }

    pub(crate) fn kind(&self, id: NodeId) -> KindId {
        self.kinds[id as usize]
    }

    pub(crate) fn field(&self, id: NodeId) -> FieldId {
        self.marks[id as usize].field
    }

    pub(crate) fn flags(&self, id: NodeId) -> NodeFlags {
        self.marks[id as usize].flags
    }

    pub(crate) fn parent(&self, id: NodeId) -> Option<NodeId> {
        (id != 0).then(|| self.spans[id as usize].parent)
    }

    pub(crate) fn range(&self, id: NodeId) -> TextRange {
        let span = self.spans[id as usize];
        let len = self.wide(id, span).map_or(u32::from(span.len), |wide| wide.len);
        TextRange { start: span.start, end: span.start + len }
    }

    /// Nodes in the subtree, the node itself included.
    pub(crate) fn size(&self, id: NodeId) -> u32 {
        let span = self.spans[id as usize];
        self.wide(id, span).map_or(u32::from(span.size), |wide| wide.size)
    }

    /// One past the last descendant.
    pub(crate) fn subtree_end(&self, id: NodeId) -> NodeId {
        id + self.size(id)
    }

    pub(crate) fn next_sibling(&self, id: NodeId) -> Option<NodeId> {
        let next = self.subtree_end(id);
        (next < self.subtree_end(self.parent(id)?)).then_some(next)
    }

    pub(crate) fn previous_sibling(&self, id: NodeId) -> Option<NodeId> {
        let parent = self.parent(id)?;
        let mut node = id - 1;
        if node == parent {
            return None;
        }
        for _ in 0..CLIMB_MAX {
            match self.parent(node) {
                Some(above) if above != parent => node = above,
                _ => return Some(node),
            }
        }
        let at = self.far_previous.binary_search_by_key(&id, |(node, _)| *node);
        at.ok().map(|at| self.far_previous[at].1)
    }

    fn wide(&self, id: NodeId, span: Span) -> Option<Wide> {
        let is_wide = self.flags(id).contains(NodeFlags::WIDE);
        is_wide.then(|| self.wide[usize::from(span.len) | usize::from(span.size) << 16])
    }
}

/// Builds a tree from the nodes of a preorder walk.
#[derive(Debug)]
pub struct TreeBuilder {
    table: Arc<KindTable>,
    kinds: Vec<KindId>,
    spans: Vec<Span>,
    marks: Vec<Mark>,
    lens: Vec<u32>,
    wide: Vec<Wide>,
    far_previous: Vec<(NodeId, NodeId)>,
    open: Vec<Open>,
    /// Level of the node opened last.
    last_level: u32,
    depth: u32,
}

/// An open node and the child of it that was opened last.
#[derive(Debug)]
struct Open {
    id: NodeId,
    last_child: Option<NodeId>,
}

impl TreeBuilder {
    /// A builder of a tree whose kinds and fields `table` names.
    pub fn new(table: Arc<KindTable>) -> Self {
        Self {
            table,
            kinds: Vec::new(),
            spans: Vec::new(),
            marks: Vec::new(),
            lens: Vec::new(),
            wide: Vec::new(),
            far_previous: Vec::new(),
            open: Vec::new(),
            last_level: 0,
            depth: 0,
        }
    }

    /// Reserves room for `n` nodes in all.
    pub fn reserve(&mut self, n: usize) {
        self.kinds.reserve(n);
        self.spans.reserve(n);
        self.marks.reserve(n);
        self.lens.reserve(n);
    }

    /// Opens a node as the next child of the innermost open one.
    ///
    /// # Panics
    /// When a second root is opened.
    pub fn open(&mut self, kind: KindId, field: FieldId, flags: NodeFlags, range: TextRange) {
        let id = to_u32(self.kinds.len());
        let level = to_u32(self.open.len()) + 1;
        let parent = match self.open.last_mut() {
            None => {
                assert!(id == 0, "a tree has one root");
                0
            }
            Some(parent) => {
                // The climb from the node just before to the previous sibling takes the
                // difference of their levels.
                if let Some(previous) = parent.last_child
                    && self.last_level - level >= CLIMB_MAX
                {
                    self.far_previous.push((id, previous));
                }
                parent.last_child = Some(id);
                parent.id
            }
        };
        self.kinds.push(kind);
        self.spans.push(Span { start: range.start, parent, len: 0, size: 0 });
        self.marks.push(Mark { field, flags });
        self.lens.push(range.len());
        self.open.push(Open { id, last_child: None });
        self.last_level = level;
        self.depth = self.depth.max(level);
    }

    /// Closes the innermost open node.
    ///
    /// # Panics
    /// When none is open.
    pub fn close(&mut self) {
        #[expect(clippy::expect_used, reason = "the documented misuse")]
        let Open { id, .. } = self.open.pop().expect("a node is closed once after it was opened");
        let at = id as usize;
        let size = to_u32(self.kinds.len()) - id;
        let len = self.lens[at];
        if let (Ok(len), Ok(size)) = (u16::try_from(len), u16::try_from(size)) {
            self.spans[at].len = len;
            self.spans[at].size = size;
        } else {
            let index = to_u32(self.wide.len());
            self.wide.push(Wide { len, size });
            self.marks[at].flags = self.marks[at].flags.with(NodeFlags::WIDE);
            #[expect(clippy::cast_possible_truncation, reason = "the two halves of the index")]
            let (low, high) = (index as u16, (index >> 16) as u16);
            self.spans[at].len = low;
            self.spans[at].size = high;
        }
    }

    /// Nodes so far.
    pub fn n_nodes(&self) -> usize {
        self.kinds.len()
    }

    /// Levels so far.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The tree.
    ///
    /// # Panics
    /// When a node is still open or there is none.
    pub fn finish(self) -> Tree {
        assert!(
            self.open.is_empty() && !self.kinds.is_empty(),
            "a finished tree has a closed root"
        );
        Tree {
            table: self.table,
            kinds: self.kinds.into_boxed_slice(),
            spans: self.spans.into_boxed_slice(),
            marks: self.marks.into_boxed_slice(),
            wide: self.wide.into_boxed_slice(),
            far_previous: self.far_previous.into_boxed_slice(),
            depth: self.depth,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "texts, hence node counts, are capped below 4 GiB at ingest"
)]
fn to_u32(n: usize) -> u32 {
    n as u32
}
