//! A match as the text printers need it. The protocol's `MatchRecord` has everything; this one
//! borrows its texts and has no metavariables.

use astscope_protocol::messages::{ByteRange, CharCount, Fix, Item, Label, Range};
use serde::Deserialize;
use std::borrow::Cow;

/// The parts of a `MatchRecord` that are printed as text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record<'a> {
    /// Absent where matches are brief.
    #[serde(borrow)]
    pub(crate) text: Option<Cow<'a, str>>,
    pub(crate) range: Range,
    #[serde(borrow)]
    pub(crate) lines: Cow<'a, str>,
    pub(crate) char_count: CharCount,
    pub(crate) replacement: Option<String>,
    pub(crate) replacement_offsets: Option<ByteRange>,
    #[serde(borrow)]
    pub(crate) language: Cow<'a, str>,
    #[serde(default)]
    pub(crate) rule_id: String,
    #[serde(default)]
    pub(crate) severity: String,
    pub(crate) note: Option<String>,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default)]
    pub(crate) labels: Vec<Label>,
    #[serde(default)]
    pub(crate) fixes: Vec<Fix>,
}

impl Record<'_> {
    /// Bytes of the match.
    pub(crate) fn bytes(&self) -> std::ops::Range<usize> {
        let range = self.range.byte_offset;
        at(range.start)..at(range.end)
    }

    /// What to put in place of which bytes; the first fix where a rule has several.
    pub(crate) fn fix(&self) -> Option<Fix> {
        let replacement = self.replacement.clone()?;
        let range = self.replacement_offsets.unwrap_or(self.range.byte_offset);
        let title = self.fixes.first().and_then(|fix| fix.title.clone());
        Some(Fix { replacement, range, title })
    }

    /// All fixes, for choosing between them.
    pub(crate) fn all_fixes(&self) -> Vec<Fix> {
        if self.fixes.is_empty() { self.fix().into_iter().collect() } else { self.fixes.clone() }
    }

    /// `lines` before, within and behind the match.
    pub(crate) fn split(&self) -> (&str, &str, &str) {
        let lines: &str = &self.lines;
        let start =
            lines.char_indices().nth(at(self.char_count.leading)).map_or(lines.len(), |c| c.0);
        let end = match at(self.char_count.trailing) {
            0 => lines.len(),
            n_chars => lines.char_indices().rev().nth(n_chars - 1).map_or(0, |c| c.0),
        };
        let end = end.max(start);
        (&lines[..start], &lines[start..end], &lines[end..])
    }
}

/// A wire number as an index. Nothing that fits into memory is cut.
pub(crate) fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// An item's matches.
pub(crate) fn records(item: &Item) -> Result<Vec<Record<'_>>, serde_json::Error> {
    item.matches.iter().map(serde_json::from_str).collect()
}

/// The matches by language, in order of first appearance: ast-grep searches a file and each
/// language injected into it one after the other, and prints them apart.
pub(crate) fn by_language<'a>(records: Vec<Record<'a>>) -> Vec<Vec<Record<'a>>> {
    let mut groups: Vec<Vec<Record<'a>>> = Vec::new();
    for record in records {
        match groups.iter_mut().find(|group| group[0].language == record.language) {
            Some(group) => group.push(record),
            None => groups.push(vec![record]),
        }
    }
    groups
}
