//! How a workspace follows its disk, on request: what operating it by hand takes. Queries need none
//! of it to be exact.

use serde::{Deserialize, Serialize};

/// Changes how a workspace follows its disk, or makes it catch up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyncParams {
    /// Absolute path of the workspace, or of anything in it.
    pub path: String,
    /// What is to be done.
    pub action: SyncAction,
    /// Give up after this many milliseconds, with the error `deadline_exceeded`; at most one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// What is to be done about following the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncAction {
    /// What was written before is stored, as before a query.
    #[default]
    Flush,
    /// The whole root is walked, whatever events have told.
    Rescan,
    /// Watching stops; queries look at their files themselves.
    Pause,
    /// Watching begins again, and the whole root is walked.
    Resume,
}
