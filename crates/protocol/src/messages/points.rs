//! What is asked about observing code at run time: apart from the requests that find code, since
//! only tools that insert probes, or place a running program's events, have a use for it.

use super::Position;
use serde::{Deserialize, Serialize};

/// Asks where one file's code could be observed at run time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PointsParams {
    /// Absolute path of the directory that `path` refers to.
    pub cwd: String,
    /// The file; not needed with `text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Source text instead of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Language name or alias; by the path without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How much is to be observed.
    pub level: PointsLevel,
}

/// How much of a file is to be observed. Each level has all points of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PointsLevel {
    /// Functions only.
    Minimal,
    /// And calls that a service's life consists of.
    #[default]
    Balanced,
    /// And all other calls, pipelines, branches, handlers of errors, and attributes.
    Comprehensive,
    /// And what is assigned to variables.
    Debug,
}

/// Where one file's code could be observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PointsResult {
    /// The file's language.
    pub language: String,
    /// How much observing all points would slow a program down, estimated: from 0 to 100.
    pub impact_percent: u32,
    /// The points, those of the greatest priority first.
    pub points: Vec<PointRecord>,
}

/// A place where code could be observed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PointRecord {
    /// Its identity, which edits elsewhere in the file don't change.
    pub id: String,
    /// What an event of a running program names it by.
    pub correlation: String,
    /// What stands there, such as `function_entry` or `pipe_operation`.
    pub kind: String,
    /// How it is observed, such as `function_boundary`.
    pub strategy: String,
    /// The greater, the more it is worth to be observed.
    pub priority: i32,
    /// The language that it is written in, which may be embedded in the file's.
    pub language: String,
    /// The symbols that it stands in, such as `M.f/1`.
    pub symbol: String,
    /// What is defined or called, where that has a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Parameters of what is defined.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arity: Option<u32>,
    /// Whether others may call what is defined.
    pub public: bool,
    /// Whether its parameters are taken apart by patterns.
    pub pattern_matching: bool,
    /// Whether it has guards.
    pub guards: bool,
    /// What is captured there.
    pub captures: Vec<String>,
    /// Where it begins.
    pub start: Position,
}
