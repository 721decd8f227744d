//! What is asked about the daemon itself by whoever operates it: its supervision tree, its
//! health, and the end of one of its parts. Apart from the requests about code, which is what
//! nearly all clients are for.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The services that each workspace's health names, in this order.
pub const WORKSPACE_SERVICES: [&str; 4] =
    ["repository_core", "repository_enhanced", "pattern_matcher_core", "file_watcher"];

/// Asks for the supervision tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TreeParams {
    /// How to write it.
    pub format: TreeFormat,
}

/// How the supervision tree is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TreeFormat {
    /// A line for each node.
    #[default]
    Text,
    /// An object for each node.
    Json,
    /// A Mermaid flow chart.
    Mermaid,
}

/// The supervision tree, in one of two forms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TreeResult {
    /// The root's object, for the format `json`. Raw: a client passes it on, and the daemon's
    /// crates may add to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Box<RawValue>>,
    /// The text, for the other formats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Asks for the daemon's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthParams {}

/// How well the daemon can do its work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthResult {
    /// The daemon's as a whole.
    pub status: HealthStatus,
    /// When it was looked at: milliseconds since 1970, UTC.
    pub timestamp_ms: u64,
    /// Each workspace's.
    pub workspaces: Vec<WorkspaceHealth>,
    /// Of parts that belong to no workspace.
    pub details: Vec<HealthDetail>,
    /// What became of the requests so far.
    pub requests: RequestCounts,
}

/// A verdict on a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Every part does its work.
    #[default]
    Healthy,
    /// Some part doesn't, and requests may fail or wait.
    Degraded,
    /// No request can be answered.
    Failed,
}

/// A verdict on one part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthVerdict {
    /// It does its work.
    #[default]
    Healthy,
    /// It runs and can't do its work yet.
    NotReady,
    /// It ended and is being started again.
    Restarting,
    /// It runs and has made no progress for too long.
    Hung,
    /// It doesn't run.
    Down,
}

/// The health of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceHealth {
    /// Resolved path.
    pub root: String,
    /// The workspace's as a whole.
    pub status: HealthStatus,
    /// Of its services, by [`WORKSPACE_SERVICES`].
    pub services: Vec<ServiceHealth>,
}

/// The health of a service of a workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceHealth {
    /// One of [`WORKSPACE_SERVICES`].
    pub name: String,
    /// Whether it runs.
    pub alive: bool,
    /// Whether it does its work.
    pub verdict: HealthVerdict,
    /// Services that it needs and that can't do their work at this moment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<String>,
}

/// The health of a part that belongs to no workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HealthDetail {
    /// The part's name.
    pub name: String,
    /// Whether it does its work.
    pub verdict: HealthVerdict,
    /// What it says of itself, in a few words for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What became of the requests since the daemon started, and how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestCounts {
    /// Answered in all.
    pub total: u64,
    /// Answered with an error that isn't the request's own fault.
    pub failed: u64,
    /// Microseconds within which half of them were answered.
    pub p50_us: u64,
    /// The same for 95 of 100.
    pub p95_us: u64,
    /// The same for 99 of 100.
    pub p99_us: u64,
}

/// The processes that parse.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParsersStatus {
    /// Processes that are up.
    pub processes: u32,
    /// Processes that were lost with a file, since the daemon started.
    pub lost: u64,
    /// What the newest process has taken from itself, in words; empty before the first.
    pub restrictions: String,
    /// Files that aren't tried again, for they cost a process.
    pub quarantined: u64,
    /// Why those are forgotten when the daemon leaves, if they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forgotten_because: Option<String>,
    /// Each of them; only when asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined_files: Vec<QuarantinedFile>,
}

/// A file that cost a parser. It is known by what is in it, wherever it lies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QuarantinedFile {
    /// Hash (blake3, hex) of its bytes.
    pub content_id: String,
    /// The language's name.
    pub language: String,
    /// What it did to its parser.
    pub detail: String,
    /// When: seconds since 1970, UTC.
    pub at_seconds: u64,
}

/// What a workspace stops doing for a while when it keeps failing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BreakerStatus {
    /// `parsing` or `files`.
    pub name: String,
    /// Whether it is done.
    pub state: BreakerState,
    /// Failures in a row.
    pub failures: u64,
    /// Milliseconds until it is tried again, where it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_in_ms: Option<u64>,
}

/// Whether something is done that may have kept failing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is.
    #[default]
    Closed,
    /// It isn't, for a while.
    Open,
    /// It is tried.
    HalfOpen,
}

/// Asks what has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventsParams {
    /// Only events with larger numbers.
    pub after: u64,
}

/// The last events of the daemon, at most 1,000.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventsResult {
    /// The oldest first.
    pub events: Vec<EventRecord>,
    /// Events that came too fast to be kept, since the daemon started.
    pub missed: u64,
}

/// Something that happened in the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EventRecord {
    /// Counts from 1, in the daemon's life.
    pub number: u64,
    /// When: milliseconds since 1970, UTC.
    pub timestamp_ms: u64,
    /// `opened`, `closed`, `committed`, `rolled_back`, `memory_level`, `restarted`, `failed`,
    /// `degraded`, `recovered`, `drift`, …
    pub kind: String,
    /// The root, or the path in the supervision tree, that it is about.
    pub about: String,
    /// The particulars, in a few words for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Asks for the settings that may change while the daemon runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigParams {}

/// The settings that may change while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigResult {
    /// Each of them, as it holds at this moment.
    pub settings: Vec<SettingRecord>,
    /// Path of the settings file, whether there is one or not; `None` where it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Why that file, as it was last read, isn't used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SettingsError>,
}

/// A setting.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SettingRecord {
    /// Its key in the file, with the names of the tables around it.
    pub name: String,
    /// Its value, as the file would have it.
    pub value: String,
    /// Who said so.
    pub source: SettingSource,
}

/// Who said what a setting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// Nobody.
    #[default]
    Default,
    /// The settings file.
    File,
    /// Whoever started the daemon: an option, or a variable of its environment.
    Start,
}

/// Why a settings file isn't used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SettingsError {
    /// The line, from 1, where it is one's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is wrong, in words.
    pub message: String,
}

/// Ends one node of the supervision tree, to see what becomes of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KillParams {
    /// The names of the nodes from below the root down to it, joined by `/`.
    pub path: String,
}

/// Makes one worker of the supervision tree fail, to see what becomes of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultParams {
    /// The names of the nodes from below the root down to it, joined by `/`.
    pub path: String,
    /// What happens to it.
    pub fault: FaultKind,
    /// How long it does nothing, in milliseconds, if it is slow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_ms: Option<u64>,
    /// When.
    pub at: FaultPoint,
}

/// What happens to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultKind {
    /// It panics.
    #[default]
    Panic,
    /// It ends with an error.
    Error,
    /// It does nothing for ever, until its supervisor finds that.
    Hang,
    /// It does nothing for a while, then goes on.
    Slow,
}

/// When it happens to a worker. Once, at the next time that it gets there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultPoint {
    /// While it runs: at once if it does.
    #[default]
    Run,
    /// When it is started.
    Init,
    /// When it is told to stop.
    Stop,
}
