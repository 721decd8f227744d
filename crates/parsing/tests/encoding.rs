//! Every language's trees go through their encoding unchanged, those of broken code too; a lie is
//! refused or is a tree.
#![expect(clippy::unwrap_used, reason = "test helpers that stop on failure")]

use astscope_fixtures::samples::SAMPLES;
use astscope_parsing::{Limits, kind_table, parse};
use astscope_syntax::encoding::{DecodeError, decode, encode};
use astscope_syntax::{Language, Node, ParsedFile};
use proptest::prelude::*;
use std::sync::Arc;

fn parsed(source: &str, language: Language) -> ParsedFile {
    parse(source.into(), language, &Limits::DAEMON, &mut || false).unwrap()
}

fn encoded(file: &ParsedFile) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(file, &mut bytes);
    bytes
}

fn decoded(bytes: &[u8], of: &ParsedFile) -> Result<ParsedFile, DecodeError> {
    decode(bytes, Arc::clone(&of.text), of.language, Limits::DAEMON.depth_max, &kind_table)
}

fn assert_same(a: &ParsedFile, b: &ParsedFile) {
    assert_eq!(a.injections.len(), b.injections.len());
    for ((a_language, a), (b_language, b)) in a.trees().zip(b.trees()) {
        assert_eq!((a_language, &a.kinds), (b_language, &b.kinds));
        assert_eq!(format!("{:?}", a.tree), format!("{:?}", b.tree));
    }
}

/// Looks at all of each tree, from each node in each direction, and at its text.
fn assert_sound(file: &ParsedFile) {
    for (_, parsed) in file.trees() {
        for node in parsed.tree.root().subtree() {
            assert!(parsed.kinds.contains(node.kind_id()));
            assert_eq!(node.text(&file.text).len(), node.range().len() as usize);
            let children: Vec<Node<'_>> = node.children().collect();
            for (at, child) in children.iter().enumerate() {
                assert_eq!(child.parent(), Some(node));
                let (before, behind) = (child.previous_sibling(), child.next_sibling());
                assert_eq!(before, at.checked_sub(1).map(|at| children[at]));
                assert_eq!(behind, children.get(at + 1).copied());
                let floor = before.map_or(node.range().start, |before| before.range().end);
                assert!(child.range().start >= floor && child.range().end <= node.range().end);
            }
        }
    }
}

#[test]
fn every_sample_comes_back_as_it_was() {
    for (name, sample) in SAMPLES {
        let file = parsed(sample, name.to_lowercase().parse().unwrap());
        let bytes = encoded(&file);
        let again = decoded(&bytes, &file).unwrap();
        assert_same(&file, &again);
        assert_sound(&again);
        let n_bytes = bytes.len();
        assert!(n_bytes < file.n_nodes() * 8 + 64, "{name}: {n_bytes} for {}", file.n_nodes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// What error recovery makes of code that was cut anywhere and glued is within all that
    /// decoding asks of a tree.
    #[test]
    fn trees_of_broken_code_come_back(
        which in 0..SAMPLES.len(), from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(),
        insert in "[(){}\\[\\]<>\"'%=a-z\n é𐀀\0]{0,6}"
    ) {
        let (name, sample) = SAMPLES[which];
        let at = |index: prop::sample::Index| sample.floor_char_boundary(index.index(sample.len()));
        let (from, to) = (at(from).min(at(to)), at(from).max(at(to)));
        let source = format!("{}{insert}{}", &sample[..from], &sample[to..]);
        prop_assume!(!source.is_empty());
        let file = parsed(&source, name.to_lowercase().parse().unwrap());
        assert_same(&file, &decoded(&encoded(&file), &file).unwrap());
    }

    #[test]
    fn a_lie_is_refused_or_is_a_tree(
        which in 0..SAMPLES.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (name, sample) = SAMPLES[which];
        let file = parsed(sample, name.to_lowercase().parse().unwrap());
        let mut bytes = encoded(&file);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
        if let Ok(lie) = decoded(&bytes, &file) {
            assert_sound(&lie);
        }
    }
}
