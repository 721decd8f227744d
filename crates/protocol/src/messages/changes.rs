//! What is asked about a workspace that was read before: what is other now than it was then. Apart
//! from the requests that find code, which need no earlier answer.

use super::Revision;
use serde::{Deserialize, Serialize};

/// Asks which files of a workspace are not what they were at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangesParams {
    /// Absolute path of the workspace, or of anything in it.
    pub path: String,
    /// The revision to compare with; without it the answer is the current revision only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Revision>,
    /// Give up after this many milliseconds, with the error `deadline_exceeded`; at most one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The files that are not what they were. Paths are relative to `root`, sorted byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangesResult {
    /// Resolved path of the workspace.
    pub root: String,
    /// The revision that they are compared at: to be asked about the next time.
    pub revision: Revision,
    /// Files that weren't there.
    pub added: Vec<String>,
    /// Files that were there with other bytes.
    pub changed: Vec<String>,
    /// Files that are no longer there.
    pub removed: Vec<String>,
}
