//! Node kinds and fields as values: their names per grammar, and sets of them per file.

use std::collections::BTreeMap;

/// A node kind: the grammar's own symbol id. Stable only within one grammar build.
pub type KindId = u16;

/// A field: the grammar's own field id. 0 means "no field".
pub type FieldId = u8;

/// tree-sitter's builtin symbol of an `ERROR` node.
pub const ERROR: KindId = KindId::MAX;

/// The names of one grammar's kinds and fields, and a fingerprint over them.
///
/// Filled by whoever owns the grammar, once; everybody else reads names from it and needs no
/// grammar. Two tables with equal fingerprints give every id the same meaning.
#[derive(Debug)]
pub struct KindTable {
    kinds: Vec<(Box<str>, bool)>,
    fields: Vec<Box<str>>,
    named_by_name: BTreeMap<Box<str>, KindId>,
    fingerprint: [u8; 32],
}

impl KindTable {
    /// A table of `kinds` (name, is named) by id from 0, and `fields` by id from 1.
    ///
    /// Where several ids share a name, the first named one is the one that [`Self::kind_id`] gives.
    ///
    /// # Panics
    /// With more than 255 fields or 65,534 kinds: node records could not hold them. No grammar
    /// comes near; a test in `parsing` builds the table of every language.
    pub fn new<'n>(
        kinds: impl IntoIterator<Item = (&'n str, bool)>,
        fields: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let kinds: Vec<(&str, bool)> = kinds.into_iter().collect();
        let first = |name: &str| kinds.iter().position(|(known, named)| *named && *known == name);
        let resolve = |name: &str| first(name).and_then(|at| KindId::try_from(at).ok());
        Self::with_resolver(kinds.iter().copied(), fields, resolve)
    }

    /// The same, where `resolve` says which id a name means as a named kind, if any: a grammar has
    /// supertypes, hidden kinds that no node has, and several ids of one name of which one is public.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn with_resolver<'n>(
        kinds: impl IntoIterator<Item = (&'n str, bool)>,
        fields: impl IntoIterator<Item = &'n str>,
        resolve: impl Fn(&str) -> Option<KindId>,
    ) -> Self {
        let kinds: Vec<(Box<str>, bool)> =
            kinds.into_iter().map(|(name, named)| (name.into(), named)).collect();
        let fields: Vec<Box<str>> = fields.into_iter().map(Into::into).collect();
        assert!(kinds.len() < usize::from(ERROR), "too many node kinds for a 16-bit id");
        assert!(fields.len() <= usize::from(FieldId::MAX), "too many fields for an 8-bit id");
        let mut named_by_name = BTreeMap::new();
        let mut hasher = blake3::Hasher::new();
        for (name, named) in &kinds {
            if let Some(id) = resolve(name) {
                named_by_name.insert(name.clone(), id);
            }
            hasher.update(name.as_bytes()).update(&[0, u8::from(*named)]);
        }
        hasher.update(&[1]);
        for name in &fields {
            hasher.update(name.as_bytes()).update(&[0]);
        }
        Self { kinds, fields, named_by_name, fingerprint: *hasher.finalize().as_bytes() }
    }

    /// The name of a kind. Unknown ids are `"ERROR"`, as tree-sitter's builtin one is.
    pub fn kind_name(&self, kind: KindId) -> &str {
        self.kinds.get(usize::from(kind)).map_or("ERROR", |(name, _)| name)
    }

    /// Whether nodes of this kind are named.
    pub fn is_named(&self, kind: KindId) -> bool {
        self.kinds.get(usize::from(kind)).is_none_or(|(_, named)| *named)
    }

    /// The id of the named kind `name`.
    ///
    /// Any prefix of `ERROR` means error nodes, for so tree-sitter resolves names.
    pub fn kind_id(&self, name: &str) -> Option<KindId> {
        if "ERROR".starts_with(name) { Some(ERROR) } else { self.named_by_name.get(name).copied() }
    }

    /// The id of the field `name`.
    pub fn field_id(&self, name: &str) -> Option<FieldId> {
        let at = self.fields.iter().position(|field| &**field == name)?;
        FieldId::try_from(at + 1).ok()
    }

    /// The name of a field, `None` for 0.
    pub fn field_name(&self, field: FieldId) -> Option<&str> {
        self.fields.get(usize::from(field).checked_sub(1)?).map(|name| &**name)
    }

    /// The names of all named kinds, sorted, each once.
    pub fn named_kinds(&self) -> impl Iterator<Item = &str> {
        self.named_by_name.keys().map(|name| &**name)
    }

    /// Number of kind ids.
    pub fn n_kinds(&self) -> usize {
        self.kinds.len()
    }

    /// A hash over all names in order: what the ids mean.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl PartialEq for KindTable {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for KindTable {}

/// A set of kinds, a bit each: which kinds occur in a file, or may be matched by a pattern.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KindSet {
    words: Vec<u64>,
    error: bool,
}

impl KindSet {
    /// Adds `kind`.
    pub fn insert(&mut self, kind: KindId) {
        if kind == ERROR {
            self.error = true;
            return;
        }
        let word = usize::from(kind) / 64;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (kind % 64);
    }

    /// Whether `kind` is in it.
    pub fn contains(&self, kind: KindId) -> bool {
        if kind == ERROR {
            return self.error;
        }
        self.words.get(usize::from(kind) / 64).is_some_and(|word| word & (1 << (kind % 64)) != 0)
    }

    /// Places in `column` of kinds that are in it, ascending.
    ///
    /// Looks at 64 kinds at a time without a branch: where every tenth node is of the kind, a
    /// branch for each would be mispredicted as often.
    pub fn places_in<'c>(&'c self, column: &'c [KindId]) -> impl Iterator<Item = u32> + 'c {
        let lone = self.lone();
        column.chunks(64).zip((0_u32..).step_by(64)).flat_map(move |(chunk, start)| {
            let mut left = match lone {
                Some(lone) => bits(chunk, |kind| kind == lone),
                None => bits(chunk, |kind| self.contains(kind)),
            };
            std::iter::from_fn(move || {
                let place = (left != 0).then(|| start + left.trailing_zeros())?;
                left &= left - 1;
                Some(place)
            })
        })
    }

    /// The only kind in it.
    fn lone(&self) -> Option<KindId> {
        let mut members = (0..).zip(&self.words).filter(|(_, word)| **word != 0);
        let (at, word) = members.next()?;
        let is_lone = word.is_power_of_two() && members.next().is_none() && !self.error;
        is_lone.then(|| at * 64 + KindId::try_from(word.trailing_zeros()).unwrap_or_default())
    }

    /// Whether any kind is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        (self.error && other.error) || self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        !self.error && self.words.iter().all(|&word| word == 0)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Frees spare capacity; for sets that are kept.
    pub fn shrink_to_fit(&mut self) {
        self.words.shrink_to_fit();
    }
}

/// A bit for each kind of a chunk of at most 64.
fn bits(chunk: &[KindId], is_wanted: impl Fn(KindId) -> bool) -> u64 {
    let wanted = chunk.iter().map(|kind| u64::from(is_wanted(*kind)));
    wanted.enumerate().fold(0, |bits, (at, bit)| bits | bit << at)
}

impl FromIterator<KindId> for KindSet {
    fn from_iter<I: IntoIterator<Item = KindId>>(kinds: I) -> Self {
        let mut set = Self::default();
        for kind in kinds {
            set.insert(kind);
        }
        set
    }
}

impl Extend<KindId> for KindSet {
    fn extend<I: IntoIterator<Item = KindId>>(&mut self, kinds: I) {
        for kind in kinds {
            self.insert(kind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_and_ids_are_inverse_and_fields_start_at_one() {
        let table =
            KindTable::new([("end", false), ("if", false), ("if", true), ("x", true)], ["a", "b"]);
        assert_eq!(table.kind_id("if"), Some(2), "the named one");
        assert_eq!(table.kind_id("end"), None);
        assert_eq!(table.kind_name(3), "x");
        assert_eq!(table.kind_name(ERROR), "ERROR");
        assert_eq!(table.kind_id("ERROR"), Some(ERROR));
        assert_eq!(table.field_id("b"), Some(2));
        assert_eq!(table.field_name(2), Some("b"));
        assert_eq!(table.field_name(0), None);
    }

    #[test]
    fn a_renamed_kind_or_field_changes_the_fingerprint() {
        let print = |kind, field| KindTable::new([(kind, true)], [field]).fingerprint();
        assert_eq!(print("a", "f"), print("a", "f"));
        assert_ne!(print("a", "f"), print("b", "f"));
        assert_ne!(print("a", "f"), print("a", "g"));
    }

    proptest! {
        #[test]
        fn a_kind_set_is_a_set(a in prop::collection::btree_set(prop_oneof![0u16..600, Just(ERROR)], 0..40),
                               b in prop::collection::btree_set(prop_oneof![0u16..600, Just(ERROR)], 0..40)) {
            let (sa, sb): (KindSet, KindSet) = (a.iter().copied().collect(), b.iter().copied().collect());
            prop_assert_eq!(sa.intersects(&sb), a.intersection(&b).next().is_some());
            prop_assert_eq!(sa.is_empty(), a.is_empty());
            let column: Vec<KindId> = b.iter().chain(&a).copied().cycle().take(300).collect();
            let places = (0..).zip(&column).filter(|(_, kind)| a.contains(kind));
            let places: Vec<u32> = places.map(|(place, _)| place).collect();
            prop_assert_eq!(sa.places_in(&column).collect::<Vec<_>>(), places);
            for kind in (0..700).chain([ERROR]) {
                prop_assert_eq!(sa.contains(kind), a.contains(&kind));
            }
        }
    }
}
