//! A file's matches as JSON texts that can be told apart without reading them.
//!
//! The problem: a big answer is megabytes of JSON, and finding where each match ends by parsing
//! costs a client more than all else that it does. So the daemon writes a TAB before each match
//! and one behind the last. A raw TAB cannot occur within a JSON string, and the daemon puts none
//! between other tokens: the next match begins behind the next TAB.

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, SerializeSeq as _, Serializer};
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::sync::Arc;

/// JSON texts of matches, in order. A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// `{…},␉{…}`: each text, with no TAB of its own; a comma and a TAB between two.
    #[expect(clippy::rc_buffer, reason = "it grows in place as long as nobody shares it")]
    json: Arc<Vec<u8>>,
    len: usize,
}

/// Bytes that are reserved with the first match.
const FIRST_BYTES: usize = 2 << 10;

/// What separates two texts.
const SEPARATOR: &[u8] = b",\t";

impl Matches {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes that the texts take in memory.
    pub fn heap_bytes(&self) -> usize {
        self.json.capacity()
    }

    /// Gives back the room for more matches, which whoever keeps them doesn't need.
    pub fn shrink(&mut self) {
        Arc::make_mut(&mut self.json).shrink_to_fit();
    }

    /// Appends the JSON of `record`, an object.
    ///
    /// # Errors
    /// When it can't be written as JSON; then nothing is appended.
    pub fn push(&mut self, record: &impl Serialize) -> serde_json::Result<()> {
        let is_first = self.is_empty();
        let json = Arc::make_mut(&mut self.json);
        let end = json.len();
        // Room for the first match: a file that has one has a few as a rule.
        json.reserve(FIRST_BYTES.saturating_sub(end));
        if !is_first {
            json.extend_from_slice(SEPARATOR);
        }
        let start = json.len();
        if let Err(error) = serde_json::to_writer(&mut *json, record) {
            json.truncate(end);
            return Err(error);
        }
        // Raw values may be JSON that somebody formatted; within strings no such byte is raw.
        for byte in &mut json[start..] {
            if *byte < b' ' {
                *byte = b' ';
            }
        }
        self.len += 1;
        Ok(())
    }

    /// Appends those of another.
    pub fn append(&mut self, other: &Self) {
        other.iter().for_each(|text| self.push_text(text));
    }

    /// Keeps the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if len < self.len {
            let mut tabs = memchr::memchr_iter(b'\t', &self.json);
            let cut = len.checked_sub(1).and_then(|last| tabs.nth(last));
            // The comma before the TAB goes too.
            let end = cut.map_or(0, |tab| tab - 1);
            Arc::make_mut(&mut self.json).truncate(end);
            self.len = len;
        }
    }

    /// Those of them that `other` hasn't. One that both have several times is taken away once for
    /// each.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left: HashMap<&str, usize> = HashMap::new();
        for text in other.iter() {
            *left.entry(text).or_default() += 1;
        }
        let mut rest = Self::default();
        for text in self.iter() {
            match left.get_mut(text) {
                Some(n) if *n > 0 => *n -= 1,
                _ => rest.push_text(text),
            }
        }
        rest.shrink();
        rest
    }

    /// Each match's text.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        // JSON is UTF-8.
        self.texts().filter_map(|text| str::from_utf8(text.strip_suffix(b",").unwrap_or(text)).ok())
    }

    /// Appends a text of another one's.
    fn push_text(&mut self, text: &str) {
        let json = Arc::make_mut(&mut self.json);
        if self.len > 0 {
            json.extend_from_slice(SEPARATOR);
        }
        json.extend_from_slice(text.as_bytes());
        self.len += 1;
    }

    /// What stands between the TABs, commas included.
    fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        let ends = memchr::memchr_iter(b'\t', &self.json).chain([self.json.len()]);
        ends.take(self.len).map(move |end| &self.json[std::mem::replace(&mut start, end + 1)..end])
    }

    /// Bytes that [`Self::write`] appends, at most.
    pub(crate) fn written_bytes(&self) -> usize {
        self.json.len() + "[\t\t]".len()
    }

    /// Appends the array to `line` as the daemon writes it.
    pub(crate) fn write(&self, line: &mut Vec<u8>) {
        line.push(b'[');
        if !self.is_empty() {
            line.push(b'\t');
            line.extend_from_slice(&self.json);
            line.push(b'\t');
        }
        line.push(b']');
    }

    /// What stands between the first and the last TAB of [`Self::write`]. `None` if it isn't cut
    /// as the daemon cuts.
    pub(crate) fn from_cut(json: &str) -> Option<Self> {
        let len = memchr::memchr_iter(b'\t', json.as_bytes()).count() + 1;
        let cut = Self { json: Arc::new(json.as_bytes().to_vec()), len };
        let is_object = |text: &[u8]| text.first() == Some(&b'{') && text.last() == Some(&b'}');
        let is_ours = cut.texts().enumerate().all(|(at, text)| {
            let text = if at + 1 < len { text.strip_suffix(b",") } else { Some(text) };
            text.is_some_and(is_object)
        });
        is_ours.then_some(cut)
    }
}

impl Serialize for Matches {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut texts = to.serialize_seq(Some(self.len))?;
        for text in self.iter() {
            let raw: &RawValue = serde_json::from_str(text).map_err(serde::ser::Error::custom)?;
            texts.serialize_element(raw)?;
        }
        texts.end()
    }
}

impl<'de> Deserialize<'de> for Matches {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut matches = Self::default();
        for raw in Vec::<Box<RawValue>>::deserialize(from)? {
            matches.push(&raw).map_err(serde::de::Error::custom)?;
        }
        Ok(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(texts: &[&str]) -> Matches {
        serde_json::from_str(&format!("[{}]", texts.join(","))).unwrap()
    }

    fn written(matches: &Matches) -> String {
        let mut line = Vec::new();
        matches.write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn every_text_is_found_again_whatever_its_strings_hold() {
        let texts = [r#"{"a":"x,\t{}\u0009"}"#, "{}", "{\"b\":\"\u{7f}é\"}"];
        let matches = matches(&texts);
        assert_eq!(matches.iter().collect::<Vec<_>>(), texts);
        assert_eq!(serde_json::to_string(&matches).unwrap(), format!("[{}]", texts.join(",")));
        let array = written(&matches);
        assert_eq!(serde_json::from_str::<Matches>(&array).unwrap(), matches);
        let cut = array.strip_prefix("[\t").unwrap().strip_suffix("\t]").unwrap();
        assert_eq!(Matches::from_cut(cut).unwrap(), matches);
    }

    #[test]
    fn truncation_keeps_the_first() {
        let all = matches(&[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]);
        for (len, array) in [
            (4, "[\t{\"a\":1},\t{\"b\":2},\t{\"c\":3}\t]"),
            (3, "[\t{\"a\":1},\t{\"b\":2},\t{\"c\":3}\t]"),
            (2, "[\t{\"a\":1},\t{\"b\":2}\t]"),
            (1, "[\t{\"a\":1}\t]"),
            (0, "[]"),
        ] {
            let mut some = all.clone();
            some.truncate(len);
            assert_eq!(written(&some), array);
            assert_eq!(some.len(), len.min(3));
            some.push(&serde_json::json!({"d": 4})).unwrap();
            assert_eq!(some.iter().last(), Some(r#"{"d":4}"#));
        }
    }

    #[test]
    fn what_others_have_is_taken_away_as_often_as_they_have_it() {
        let (a, b, c) = (r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#);
        let without = |one: &[&str], other: &[&str]| matches(one).without(&matches(other));
        assert_eq!(without(&[a, b, a, c], &[a, c]), matches(&[b, a]));
        assert_eq!(without(&[a, a], &[a, b, a, a]), Matches::default());
        assert_eq!(written(&without(&[a, b], &[])), written(&matches(&[a, b])));
        let mut all = matches(&[a]);
        all.append(&matches(&[b, c]));
        assert_eq!(written(&all), written(&matches(&[a, b, c])));
    }

    #[test]
    fn a_clone_shares_its_texts_until_one_of_them_changes() {
        let all = matches(&[r#"{"a":1}"#, r#"{"b":2}"#]);
        let mut other = all.clone();
        assert!(Arc::ptr_eq(&all.json, &other.json));
        other.truncate(1);
        other.shrink();
        assert_eq!((written(&other), other.heap_bytes()), ("[\t{\"a\":1}\t]".into(), 7));
        assert_eq!(written(&all), "[\t{\"a\":1},\t{\"b\":2}\t]");
    }

    #[test]
    fn formatted_json_loses_its_tabs_and_newlines() {
        assert_eq!(written(&matches(&["{\n\t\"a\": [\r\n1]}"])), "[\t{  \"a\": [  1]}\t]");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let mut matches = matches(&["{}"]);
        matches.push(&std::collections::BTreeMap::from([((1, 2), 3)])).unwrap_err();
        assert_eq!(written(&matches), "[\t{}\t]");
    }

    #[test]
    fn other_cuts_are_not_taken() {
        for json in ["", "{}\t{}", "{},\t{},", "{},\t", "{}, \t{}", "[],\t{}", "{},\t\t{}"] {
            assert_eq!(Matches::from_cut(json), None, "{json:?}");
        }
    }
}
