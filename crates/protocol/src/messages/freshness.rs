//! What an answer says of itself when it isn't exact.

use serde::{Deserialize, Serialize};

/// In what an answer is behind the disk, or may be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Freshness {
    /// `lagging`.
    pub state: String,
    /// Selected files that were, or may have been, searched in an older version.
    pub files: u64,
    /// Milliseconds since the oldest change was noticed that is missing. Where nothing told of it:
    /// since it was last certain that there was none.
    pub ms: u64,
    /// The first of those files, as displayed; at most [`LAGGING_PATHS_MAX`](crate::LAGGING_PATHS_MAX).
    pub paths: Vec<String>,
    /// Whether files that came or went may be missing, or still be there.
    pub names_unknown: bool,
}
