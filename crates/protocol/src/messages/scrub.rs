//! What the scrub of a workspace has found: whether what is stored is what the disk holds. Apart
//! from the rest of `status`, because whoever watches a daemon reads this alone.

use serde::{Deserialize, Serialize};

/// The scrub of a workspace: in the background files are read and parsed again, and compared with
/// what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScrubStatus {
    /// Whether it runs, as the settings say.
    pub enabled: bool,
    /// Files that the cycle under way has checked.
    pub checked: u64,
    /// Files of the cycle under way; 0 before the first.
    pub files: u64,
    /// Cycles that came to their end.
    pub cycles: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_cycle: Option<ScrubCycle>,
    /// Files that differed, since the workspace was opened. All of these should be 0.
    pub drift: DriftCounts,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_drift: Option<DriftRecord>,
}

/// A cycle of the scrub: each file was checked once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScrubCycle {
    /// When it ended: milliseconds since 1970, UTC.
    pub timestamp_ms: u64,
    /// Milliseconds that it took.
    pub took_ms: u64,
    /// Files in it.
    pub files: u64,
    /// Those of them that could not be compared: changing, unreadable, not parsed in time.
    pub left_out: u64,
    /// Files that differed.
    pub drift: DriftCounts,
}

/// Files whose stored state was not that of the disk, by cause. They are repaired when they are
/// found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DriftCounts {
    /// Other bytes, and nothing had told of that.
    pub content: u64,
    /// The same bytes, and another text or tree.
    pub tree: u64,
    /// On the disk and selected, but not stored.
    pub missing: u64,
    /// Stored, but not on the disk, or no longer selected.
    pub ghost: u64,
}

impl DriftCounts {
    /// All causes.
    pub fn total(&self) -> u64 {
        self.content + self.tree + self.missing + self.ghost
    }
}

/// A file that differed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DriftRecord {
    /// Its path.
    pub path: String,
    /// `content`, `tree`, `missing` or `ghost`.
    pub cause: String,
    /// When it was found: milliseconds since 1970, UTC.
    pub timestamp_ms: u64,
}
