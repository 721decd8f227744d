//! Navigation against a naive tree, and on the shapes that make naive navigation quadratic.

use super::*;
use crate::TreeBuilder;
use crate::kind::KindTable;
use proptest::prelude::*;
use std::sync::Arc;

fn table() -> Arc<KindTable> {
    Arc::new(KindTable::new([("end", false), ("node", true), (",", false)], ["left", "right"]))
}

/// A tree as nested lists, to compare with.
#[derive(Clone, Debug)]
struct Naive(Vec<Naive>);

fn build(naive: &Naive, builder: &mut TreeBuilder, at: &mut u32) {
    let start = *at;
    let size = count(naive);
    builder.open(
        1,
        u8::from(start.is_multiple_of(3)),
        NodeFlags::NAMED,
        TextRange::new(start, start + size),
    );
    *at += 1;
    for child in &naive.0 {
        build(child, builder, at);
    }
    builder.close();
}

fn count(naive: &Naive) -> u32 {
    1 + naive.0.iter().map(count).sum::<u32>()
}

fn tree_of(naive: &Naive) -> Tree {
    let mut builder = TreeBuilder::new(table());
    build(naive, &mut builder, &mut 0);
    builder.finish()
}

fn assert_same(node: Node<'_>, naive: &Naive) {
    let children: Vec<_> = node.children().collect();
    assert_eq!(children.len(), naive.0.len());
    assert_eq!(node.is_leaf(), naive.0.is_empty());
    assert_eq!(node.subtree().len(), count(naive) as usize);
    assert_eq!(node.range(), TextRange::new(node.id(), node.id() + count(naive)));
    for (at, (child, naive_child)) in children.iter().zip(&naive.0).enumerate() {
        assert_eq!(child.parent(), Some(node));
        assert_eq!(child.next_sibling(), children.get(at + 1).copied());
        assert_eq!(child.previous_sibling(), at.checked_sub(1).map(|before| children[before]));
        assert_same(*child, naive_child);
    }
}

fn naive_trees() -> impl Strategy<Value = Naive> {
    let leaf = Just(Naive(Vec::new()));
    leaf.prop_recursive(40, 300, 6, |inner| prop::collection::vec(inner, 0..6).prop_map(Naive))
}

proptest! {
    #[test]
    fn navigation_equals_the_naive_tree(naive in naive_trees(), below in 0usize..60) {
        // Behind a chain of single children the previous sibling is as many steps up as it is long.
        let chain = (0..below).fold(naive.clone(), |inner, _| Naive(vec![inner]));
        let comb = Naive(vec![chain.clone(), Naive(Vec::new()), chain, naive]);
        assert_same(tree_of(&comb).root(), &comb);
    }
}

#[test]
fn a_million_children_are_walked_in_linear_time_both_ways() {
    const N: u32 = 1_000_000;
    let mut builder = TreeBuilder::new(table());
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, N));
    for at in 0..N {
        builder.open(2, 0, NodeFlags::NONE, TextRange::new(at, at + 1));
        builder.close();
    }
    builder.close();
    let tree = builder.finish();
    // A quadratic step would be 10^12 of them: the test would not end.
    let forward = std::iter::successors(tree.root().children().next(), |node| node.next_sibling());
    assert_eq!(forward.map(|node| u64::from(node.parent().map_or(1, Node::id))).sum::<u64>(), 0);
    let last = tree.node(N);
    assert_eq!(
        std::iter::successors(Some(last), |node| node.previous_sibling()).count(),
        N as usize
    );
    assert!(tree.heap_bytes() <= tree.n_nodes() * 16 + 16);
}

#[test]
fn a_deep_comb_finds_previous_siblings_without_climbing_it() {
    const LEVELS: u32 = 60_000;
    let mut builder = TreeBuilder::new(table());
    for level in 0..LEVELS {
        builder.open(1, 0, NodeFlags::NAMED, TextRange::new(level, 2 * LEVELS - level));
    }
    for level in (0..LEVELS).rev() {
        builder.close();
        if level > 0 {
            builder.open(
                2,
                0,
                NodeFlags::NONE,
                TextRange::new(2 * LEVELS - level, 2 * LEVELS - level),
            );
            builder.close();
        }
    }
    let tree = builder.finish();
    assert_eq!(tree.depth(), LEVELS);
    for level in 1..LEVELS {
        // The leaf behind the chain at `level` follows the chain's node of that level.
        let leaf = tree.node(2 * LEVELS - 1 - level);
        assert_eq!(leaf.previous_sibling().map(Node::id), Some(level));
    }
    assert!(tree.heap_bytes() <= tree.n_nodes() * 24, "wide nodes cost eight bytes more");
}

#[test]
fn fields_and_flags_are_kept() {
    let mut builder = TreeBuilder::new(table());
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 2));
    builder.open(2, 2, NodeFlags::MISSING.with(NodeFlags::EXTRA), TextRange::new(1, 1));
    builder.close();
    builder.open(u16::MAX, 0, NodeFlags::NAMED.with(NodeFlags::ERROR), TextRange::new(1, 2));
    builder.close();
    builder.close();
    let tree = builder.finish();
    let comma = tree.root().child_by_field("right").expect("it was given that field");
    assert!(comma.is_missing() && comma.is_extra() && !comma.is_named() && !comma.is_error());
    assert_eq!(comma.field(), Some("right"));
    let error = comma.next_sibling().expect("two children");
    assert!(error.is_error());
    assert_eq!(error.kind(), "ERROR");
    assert!(!tree.root().is_named_leaf() && comma.is_named_leaf());
}
