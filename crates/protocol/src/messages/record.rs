//! A match as ast-grep prints it: apart from the requests, because its keys and their order are
//! ast-grep's affair and not the protocol's.

use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// A match: ast-grep's JSON object, key for key and in its order. The last six keys but `fixes`
/// are those of a scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MatchRecord {
    /// The matched text; absent when the matches are to be brief.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Where it is.
    pub range: Range,
    /// The path as ast-grep prints it.
    pub file: String,
    /// The whole lines of the match, with the context asked for.
    pub lines: String,
    /// How much of `lines` lies before and behind the match.
    pub char_count: CharCount,
    /// The text that replaces `replacementOffsets`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Byte range that a rewrite replaces; often the match's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replacement_offsets: Option<ByteRange>,
    /// Language name.
    pub language: String,
    /// What the metavariables matched; absent when none did, or when the matches are to be brief.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_variables: Option<MetaVariables>,
    /// Id of the rule. This key and those below are present in a scan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// off, hint, info, warning or error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// The rule's note: in a scan the key is always there, `null` without one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub note: Option<Option<String>>,
    /// The rule's message, metavariables filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What to point at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Label>,
    /// The rule's metadata, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Every fix of the rule, when asked for with `allFixes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
}

/// Tells a key that is `null` from one that is absent; serde alone takes both for `None`.
fn present<'de, D, T>(from: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(from).map(Some)
}

/// A replacement of bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// The new text.
    pub replacement: String,
    /// The bytes that it replaces.
    pub range: ByteRange,
    /// The rule's title for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// Bytes `start..end` of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// Zero-based line and character column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Line.
    pub line: u32,
    /// Column in characters.
    pub column: u32,
}

/// A range, in bytes and in lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Range {
    /// In bytes.
    pub byte_offset: ByteRange,
    /// First position.
    pub start: Position,
    /// Position behind the last character.
    pub end: Position,
}

/// Characters of `lines` outside the match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharCount {
    /// Before it.
    pub leading: u64,
    /// Behind it.
    pub trailing: u64,
}

/// Captured nodes and transformed texts, by metavariable name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MetaVariables {
    /// `$A`.
    pub single: BTreeMap<String, Captured>,
    /// `$$$A`, and `secondary` for the nodes that relational rules met.
    pub multi: BTreeMap<String, Vec<Captured>>,
    /// Results of `transform`.
    pub transformed: BTreeMap<String, String>,
}

/// A captured node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Captured {
    /// Its text.
    pub text: String,
    /// Where it is.
    pub range: Range,
}

/// A place that a rule's report points at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Label {
    /// The text there.
    pub text: String,
    /// Where it is.
    pub range: Range,
    /// The rule's words for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `primary` or `secondary`.
    pub style: String,
}
