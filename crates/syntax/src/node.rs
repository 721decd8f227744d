//! Walking a compact tree: a node is a tree and an index, and costs nothing to copy.

use crate::TextRange;
use crate::kind::{FieldId, KindId};
use crate::tree::{NodeFlags, NodeId, Tree};
use std::fmt;

/// A node of a [`Tree`].
#[derive(Clone, Copy)]
pub struct Node<'t> {
    tree: &'t Tree,
    id: NodeId,
}

impl<'t> Node<'t> {
    pub(crate) fn new(tree: &'t Tree, id: NodeId) -> Self {
        Self { tree, id }
    }

    /// Its preorder index.
    pub fn id(self) -> NodeId {
        self.id
    }

    /// The tree that it belongs to.
    pub fn tree(self) -> &'t Tree {
        self.tree
    }

    /// Its kind.
    pub fn kind_id(self) -> KindId {
        self.tree.kind(self.id)
    }

    /// The name of its kind.
    pub fn kind(self) -> &'t str {
        self.tree.table().kind_name(self.kind_id())
    }

    /// The field that it is of its parent, 0 for none.
    pub fn field_id(self) -> FieldId {
        self.tree.field(self.id)
    }

    /// The name of the field that it is of its parent.
    pub fn field(self) -> Option<&'t str> {
        self.tree.table().field_name(self.field_id())
    }

    /// The bytes that it covers.
    pub fn range(self) -> TextRange {
        self.tree.range(self.id)
    }

    /// A rule of the grammar rather than a literal token.
    pub fn is_named(self) -> bool {
        self.tree.flags(self.id).contains(NodeFlags::NAMED)
    }

    /// Inserted by error recovery.
    pub fn is_missing(self) -> bool {
        self.tree.flags(self.id).contains(NodeFlags::MISSING)
    }

    /// An `ERROR` node.
    pub fn is_error(self) -> bool {
        self.tree.flags(self.id).contains(NodeFlags::ERROR)
    }

    /// Allowed anywhere, as comments are.
    pub fn is_extra(self) -> bool {
        self.tree.flags(self.id).contains(NodeFlags::EXTRA)
    }

    /// Whether it has no child.
    pub fn is_leaf(self) -> bool {
        self.tree.size(self.id) == 1
    }

    /// Whether it has no named child.
    pub fn is_named_leaf(self) -> bool {
        !self.children().any(Self::is_named)
    }

    /// Its parent. O(1).
    pub fn parent(self) -> Option<Self> {
        self.tree.parent(self.id).map(|id| Self { id, ..self })
    }

    /// The sibling behind it. O(1).
    pub fn next_sibling(self) -> Option<Self> {
        self.tree.next_sibling(self.id).map(|id| Self { id, ..self })
    }

    /// The sibling before it. O(log n).
    pub fn previous_sibling(self) -> Option<Self> {
        self.tree.previous_sibling(self.id).map(|id| Self { id, ..self })
    }

    /// Its ancestors, parent first.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), |node| node.parent())
    }

    /// Its children in order.
    pub fn children(self) -> Children<'t> {
        Children { tree: self.tree, next: self.id + 1, end: self.tree.subtree_end(self.id) }
    }

    /// Itself and all descendants in preorder.
    pub fn subtree(self) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator {
        let tree = self.tree;
        (self.id..tree.subtree_end(self.id)).map(move |id| Self { tree, id })
    }

    /// The first child that is this field.
    pub fn child_by_field_id(self, field: FieldId) -> Option<Self> {
        self.children().find(|child| child.field_id() == field)
    }

    /// The first child that is the field of this name.
    pub fn child_by_field(self, name: &str) -> Option<Self> {
        self.child_by_field_id(self.tree.table().field_id(name)?)
    }

    /// Its text within the text that the tree was made from.
    pub fn text(self, source: &str) -> &str {
        &source[self.range().to_usize()]
    }
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && std::ptr::eq(self.tree, other.tree)
    }
}

impl Eq for Node<'_> {}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let range = self.range();
        write!(f, "{}#{} {}..{}", self.kind(), self.id, range.start, range.end)
    }
}

/// The children of a node, by hopping over their subtrees.
#[derive(Clone, Debug)]
pub struct Children<'t> {
    tree: &'t Tree,
    next: NodeId,
    end: NodeId,
}

impl<'t> Iterator for Children<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        if self.next >= self.end {
            return None;
        }
        let node = Node::new(self.tree, self.next);
        self.next = self.tree.subtree_end(self.next);
        Some(node)
    }

    /// Exact, and O(children): counted when somebody asks, not before.
    fn size_hint(&self) -> (usize, Option<usize>) {
        let mut at = self.next;
        let mut count = 0;
        while at < self.end {
            at = self.tree.subtree_end(at);
            count += 1;
        }
        (count, Some(count))
    }
}

impl ExactSizeIterator for Children<'_> {}

#[cfg(test)]
mod tests;
