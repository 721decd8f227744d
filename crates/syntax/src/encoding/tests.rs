//! What is encoded comes back; what is changed comes back as a tree, or not at all.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const TEXT: &str = "f(ä) {x = [1, 2]} ß-end";

fn table() -> Arc<KindTable> {
    Arc::new(KindTable::new([("end", false), ("call", true), ("leaf", true)], ["left", "right"]))
}

fn tables(language: Language) -> Option<Arc<KindTable>> {
    (language != Language::Zig).then(table)
}

/// Nested ranges over [`TEXT`], by where characters begin.
#[derive(Clone, Debug)]
struct Plan {
    kind: KindId,
    field: u8,
    flags: u8,
    /// Parts of a thousand of what the parent has left: skipped, then covered.
    skipped: u32,
    covered: u32,
    children: Vec<Plan>,
}

fn plans() -> impl Strategy<Value = Plan> {
    let node = (0_u16..3, 0_u8..3, 0_u8..2, 0_u32..400, 0_u32..=1000);
    let leaf = node.clone().prop_map(|(kind, field, flags, skipped, covered)| Plan {
        kind,
        field,
        flags: flags * 8 + 1,
        skipped,
        covered,
        children: Vec::new(),
    });
    leaf.prop_recursive(20, 120, 5, move |inner| {
        (node.clone(), prop::collection::vec(inner, 0..5)).prop_map(
            |((kind, field, flags, skipped, covered), children)| Plan {
                kind,
                field,
                flags: flags * 8,
                skipped,
                covered,
                children,
            },
        )
    })
}

fn build(plan: &Plan, (from, to): (usize, usize), builder: &mut TreeBuilder) -> usize {
    let part = |n: usize, of: u32| n * of as usize / 1000;
    let start = TEXT.floor_char_boundary(from + part(to - from, plan.skipped)).max(from);
    let end = TEXT.floor_char_boundary(start + part(to - start, plan.covered)).max(start);
    let range = TextRange::new(to_u32(start), to_u32(end));
    builder.open(plan.kind, plan.field, NodeFlags::from_bits(plan.flags), range);
    let mut free = start;
    for child in &plan.children {
        free = build(child, (free, end), builder);
    }
    builder.close();
    end
}

fn tree(plan: &Plan) -> ParsedTree {
    let mut builder = TreeBuilder::new(table());
    build(plan, (0, TEXT.len()), &mut builder);
    ParsedTree::new(builder.finish())
}

fn file(host: &Plan, embedded: &[Plan]) -> ParsedFile {
    let injections = embedded.iter().map(|plan| (Language::Css, tree(plan))).collect();
    ParsedFile { language: Language::Html, text: TEXT.into(), tree: tree(host), injections }
}

fn encoded(file: &ParsedFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(file, &mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<ParsedFile, DecodeError> {
    decode(bytes, TEXT.into(), Language::Html, 100, &tables)
}

fn lone() -> Plan {
    Plan { kind: 1, field: 0, flags: 1, skipped: 0, covered: 1000, children: Vec::new() }
}

fn two() -> Plan {
    Plan { children: vec![Plan { kind: 2, field: 2, covered: 300, ..lone() }], ..lone() }
}

/// Asks a tree everything that it can be asked.
fn assert_sound(file: &ParsedFile) {
    for (_, parsed) in file.trees() {
        let tree = &parsed.tree;
        let kinds: BTreeSet<KindId> = tree.kinds().iter().copied().collect();
        assert!(kinds.iter().all(|kind| parsed.kinds.contains(*kind)));
        let mut deepest = 0;
        for node in tree.root().subtree() {
            deepest = deepest.max(node.ancestors().count() + 1);
            assert!(node.field_id() == 0 || node.field().is_some());
            assert_eq!(node.is_error(), node.kind() == "ERROR");
            assert_eq!(node.text(&file.text).len(), node.range().len() as usize);
            let mut free = node.range().start;
            let mut before = None;
            for child in node.children() {
                assert_eq!(child.parent(), Some(node));
                assert_eq!(child.previous_sibling(), before);
                assert!(before.is_none_or(|sibling| sibling.next_sibling() == Some(child)));
                assert!(child.range().start >= free && child.range().end <= node.range().end);
                free = child.range().end;
                before = Some(child);
            }
            assert_eq!(before.and_then(crate::Node::next_sibling), None);
        }
        assert_eq!(deepest, tree.depth() as usize);
    }
}

proptest! {
    #[test]
    fn a_file_comes_back_as_it_was(host in plans(), embedded in prop::collection::vec(plans(), 0..3)) {
        let before = file(&host, &embedded);
        let after = decoded(&encoded(&before)).unwrap();
        assert_sound(&after);
        // Equal encodings say equal nodes; the columns are what they were derived from.
        prop_assert_eq!(encoded(&after), encoded(&before));
        for ((_, before), (_, after)) in before.trees().zip(after.trees()) {
            prop_assert_eq!(format!("{:?}", before.tree), format!("{:?}", after.tree));
            prop_assert_eq!(&before.kinds, &after.kinds);
        }
    }

    #[test]
    fn a_change_is_refused_or_is_a_tree(
        host in plans(),
        embedded in prop::collection::vec(plans(), 0..2),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = encoded(&file(&host, &embedded));
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        if let Ok(file) = decoded(&bytes) {
            assert_sound(&file);
        }
    }

    #[test]
    fn noise_is_refused_or_is_a_tree(noise in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = encoded(&file(&lone(), &[]));
        bytes.truncate(34);
        bytes.extend(noise);
        if let Ok(file) = decoded(&bytes) {
            assert_sound(&file);
        }
    }
}

/// A wide node, a deep one and one with many children: the shapes that are stored otherwise.
#[test]
fn large_and_deep_trees_come_back_too() {
    let text: Arc<str> = "x".repeat(70_000).into();
    let mut builder = TreeBuilder::new(table());
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 70_000));
    for at in 0..70_000 {
        builder.open(2, 1, NodeFlags::NAMED, TextRange::new(at, at + 1));
        if at == 35_000 {
            (0..50).for_each(|_| builder.open(1, 0, NodeFlags::NONE, TextRange::new(at, at + 1)));
            (0..50).for_each(|_| builder.close());
        }
        builder.close();
    }
    builder.close();
    let tree = ParsedTree::new(builder.finish());
    let text_of = Arc::clone(&text);
    let before = ParsedFile { language: Language::Html, text, tree, injections: Vec::new() };
    let bytes = encoded(&before);
    let after = decode(&bytes, text_of, Language::Html, 100, &tables).unwrap();
    assert_eq!(format!("{:?}", after.tree.tree), format!("{:?}", before.tree.tree));
    assert!(bytes.len() < before.tree.tree.n_nodes() * 7, "{} bytes", bytes.len());
}

fn check(change: impl FnOnce(&mut Vec<u8>), expected: &DecodeError) {
    let mut bytes = encoded(&file(&two(), &[]));
    change(&mut bytes);
    assert_eq!(decoded(&bytes).err().as_ref(), Some(expected));
}

#[test]
fn each_lie_is_refused_by_its_name() {
    // version, trees, language, 32 of fingerprint, nodes; then marks, kind, start, length, size;
    // then marks, kind, field, start, length.
    const NODES: usize = 35;
    const ROOT: usize = NODES + 1;
    const CHILD: usize = ROOT + 6;
    check(|bytes| bytes[0] = 9, &DecodeError::Version(9));
    check(|bytes| bytes[1] = 0, &DecodeError::Count);
    check(|bytes| bytes[1] = 2, &DecodeError::Count);
    check(|bytes| bytes[2] = 255, &DecodeError::Language);
    check(|bytes| bytes[2] = Language::Css as u8, &DecodeError::Language);
    check(|bytes| bytes[2] = Language::Zig as u8, &DecodeError::Grammar(Language::Zig));
    check(|bytes| bytes[9] ^= 1, &DecodeError::Grammar(Language::Html));
    check(|bytes| bytes[NODES] = 0, &DecodeError::Count);
    check(|bytes| bytes[NODES] = 100, &DecodeError::Count);
    check(|bytes| bytes[NODES] = 1, &DecodeError::Size);
    check(|bytes| bytes[ROOT] |= 64, &DecodeError::Flags);
    check(|bytes| bytes[ROOT] |= 4, &DecodeError::Flags);
    check(|bytes| bytes[ROOT] |= 2, &DecodeError::Flags);
    check(|bytes| bytes[ROOT + 1] = 3, &DecodeError::Kind);
    check(|bytes| bytes[ROOT + 4] = 100, &DecodeError::Range);
    check(|bytes| bytes[ROOT + 5] = 1, &DecodeError::Size);
    check(|bytes| bytes[ROOT + 5] = 3, &DecodeError::Size);
    check(|bytes| bytes[CHILD + 3] = 0, &DecodeError::Field);
    check(|bytes| bytes[CHILD + 3] = 3, &DecodeError::Field);
    check(|bytes| bytes[CHILD + 4] = 25, &DecodeError::Range);
    check(|bytes| bytes[CHILD + 4] = 3, &DecodeError::Range);
    check(|bytes| bytes.push(0), &DecodeError::Surplus);
    check(|bytes| bytes.truncate(bytes.len() - 1), &DecodeError::Cut);
    check(Vec::clear, &DecodeError::Cut);
    let deep = (0..100).fold(lone(), |inner, _| Plan { children: vec![inner], ..lone() });
    let refused = decoded(&encoded(&file(&deep, &[])));
    assert_eq!(refused.err(), Some(DecodeError::Depth { limit: 100 }));
}

#[test]
fn a_sibling_that_reaches_back_is_refused() {
    let mut builder = TreeBuilder::new(table());
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, 2));
    for range in [TextRange::new(0, 2), TextRange::new(1, 2)] {
        builder.open(2, 0, NodeFlags::NAMED, range);
        builder.close();
    }
    builder.close();
    let overlapping = ParsedFile { tree: ParsedTree::new(builder.finish()), ..file(&lone(), &[]) };
    assert_eq!(decoded(&encoded(&overlapping)).err(), Some(DecodeError::Range));
}

#[test]
fn numbers_have_one_spelling() {
    for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
        let mut bytes = Vec::new();
        write(&mut bytes, value);
        assert_eq!(Input(&bytes).varint(), Ok(value));
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.push(0);
        assert_eq!(Input(&bytes).varint(), Err(DecodeError::Number), "{value}");
    }
    let too_large = [255, 255, 255, 255, 0x1f];
    assert_eq!(Input(&too_large).varint(), Err(DecodeError::Number));
}
