//! Every request, answer and notification, as it stands on the wire.
//!
//! Field names are camelCase on the wire. Unknown fields are ignored by both sides, so a field can
//! be added within a protocol version; a field's meaning never changes. `docs/protocol.md`
//! describes the same to somebody who writes a client in another language.

mod changes;
mod freshness;
mod matches;
mod operations;
mod points;
mod record;
mod scrub;
mod standing;
mod sync;

pub use changes::{ChangesParams, ChangesResult};
pub use freshness::Freshness;
pub use matches::Matches;
pub use operations::{
    BreakerState, BreakerStatus, ConfigParams, ConfigResult, EventRecord, EventsParams,
    EventsResult, FaultKind, FaultParams, FaultPoint, HealthDetail, HealthParams, HealthResult,
    HealthStatus, HealthVerdict, KillParams, ParsersStatus, QuarantinedFile, RequestCounts,
    ServiceHealth, SettingRecord, SettingSource, SettingsError, TreeFormat, TreeParams, TreeResult,
    WORKSPACE_SERVICES, WorkspaceHealth,
};
pub use points::{PointRecord, PointsLevel, PointsParams, PointsResult};
pub use record::{
    ByteRange, Captured, CharCount, Fix, Label, MatchRecord, MetaVariables, Position, Range,
};
pub use scrub::{DriftCounts, DriftRecord, ScrubCycle, ScrubStatus};
pub use standing::{
    Difference, Ended, Resync, ResyncReason, Settled, SubscribeParams, SubscribeResult,
    UnsubscribeParams,
};
pub use sync::{SyncAction, SyncParams};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The protocol versions that this build speaks, oldest and newest.
pub const PROTOCOL: VersionRange = VersionRange { min: 1, max: 1 };

/// Method names of requests.
pub mod method {
    /// [`HelloParams`](super::HelloParams) → [`HelloResult`](super::HelloResult); the first request of a connection.
    pub const HELLO: &str = "hello";
    /// [`RunParams`](super::RunParams) → [`Summary`](super::Summary), streams [`Item`](super::Item)s.
    pub const RUN: &str = "run";
    /// [`ScanParams`](super::ScanParams) → [`Summary`](super::Summary), streams [`Item`](super::Item)s.
    pub const SCAN: &str = "scan";
    /// [`RunParams`](super::RunParams) → [`Explanation`](super::Explanation).
    pub const EXPLAIN: &str = "explain";
    /// [`ParseParams`](super::ParseParams) → [`ParseResult`](super::ParseResult).
    pub const PARSE: &str = "parse";
    /// [`PointsParams`](super::PointsParams) → [`PointsResult`](super::PointsResult).
    pub const POINTS: &str = "points";
    /// [`OpenParams`](super::OpenParams) → [`WorkspaceStatus`](super::WorkspaceStatus), once the root is indexed.
    pub const OPEN: &str = "open";
    /// [`ChangesParams`](super::ChangesParams) → [`ChangesResult`](super::ChangesResult).
    pub const CHANGES: &str = "changes";
    /// [`SyncParams`](super::SyncParams) → [`WorkspaceStatus`](super::WorkspaceStatus), once it is done.
    pub const SYNC: &str = "sync";
    /// [`SubscribeParams`](super::SubscribeParams) → [`SubscribeResult`](super::SubscribeResult), and
    /// then notifications until the subscription ends.
    pub const SUBSCRIBE: &str = "subscribe";
    /// [`UnsubscribeParams`](super::UnsubscribeParams) → `{}`, once the subscription has ended.
    pub const UNSUBSCRIBE: &str = "unsubscribe";
    /// [`StatusParams`](super::StatusParams) → [`StatusResult`](super::StatusResult).
    pub const STATUS: &str = "status";
    /// [`TreeParams`](super::TreeParams) → [`TreeResult`](super::TreeResult).
    pub const TREE: &str = "tree";
    /// [`HealthParams`](super::HealthParams) → [`HealthResult`](super::HealthResult).
    pub const HEALTH: &str = "health";
    /// [`EventsParams`](super::EventsParams) → [`EventsResult`](super::EventsResult).
    pub const EVENTS: &str = "events";
    /// [`ConfigParams`](super::ConfigParams) → [`ConfigResult`](super::ConfigResult).
    pub const CONFIG: &str = "config";
    /// [`KillParams`](super::KillParams) → `{}`, once the node is told; only where the daemon was
    /// started for it.
    pub const KILL: &str = "debug/kill";
    /// [`FaultParams`](super::FaultParams) → `{}`, once the fault is armed; only where the daemon
    /// was started for it.
    pub const FAULT: &str = "debug/fault";
    /// [`StopParams`](super::StopParams) → `{}`, before the daemon leaves.
    pub const STOP: &str = "stop";
    /// Notification to the server: [`Cancel`](super::Cancel).
    pub const CANCEL: &str = "$/cancel";
    /// Notification to the client: [`Progress`](super::Progress).
    pub const PROGRESS: &str = "$/progress";
    /// Notification to the client: [`Item`](super::Item).
    pub const ITEM: &str = "$/item";
    /// Notification to the client: [`Resync`](super::Resync).
    pub const RESYNC: &str = "$/resync";
    /// Notification to the client: [`Difference`](super::Difference).
    pub const DIFFERENCE: &str = "$/difference";
    /// Notification to the client: [`Settled`](super::Settled).
    pub const SETTLED: &str = "$/settled";
    /// Notification to the client: [`Ended`](super::Ended).
    pub const ENDED: &str = "$/ended";
    /// Notification to the client: a piece of a line that was too long (see `frame`).
    pub const CHUNK: &str = "$/chunk";
}

/// An inclusive range of protocol versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// Oldest version spoken.
    pub min: u32,
    /// Newest version spoken.
    pub max: u32,
}

impl VersionRange {
    /// The newest version that both sides speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// Who speaks: `{"name":"astscope","version":"0.1.0"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Program name.
    pub name: String,
    /// Semantic version of the program.
    pub version: String,
}

/// Opens a connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloParams {
    /// Versions that the client speaks.
    pub protocol: VersionRange,
    /// The client program.
    pub client: Peer,
}

/// The daemon's side of the greeting.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloResult {
    /// The version that this connection speaks from now on.
    pub protocol: u32,
    /// The daemon program.
    pub server: Peer,
    /// Process id of the daemon.
    pub pid: u32,
    /// Longest line that the daemon accepts, bytes without the newline.
    pub line_bytes_max: u64,
    /// Requests that one connection may have unanswered.
    pub requests_in_flight_max: u32,
}

/// Which files a query is about: what the user typed, and where.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// Absolute path of the directory that relative paths and globs refer to.
    pub cwd: String,
    /// Files and directories as typed; empty means `.`. Answers keep this spelling.
    pub paths: Vec<String>,
    /// Include and exclude globs, gitignore syntax, later ones win, `!` excludes.
    pub globs: Vec<String>,
    /// Ignore sources to disregard.
    pub no_ignore: Vec<IgnoreKind>,
    /// Follow symbolic links.
    pub follow: bool,
    /// Extra globs per language name, as `languageGlobs` in sgconfig.yml.
    pub language_globs: BTreeMap<String, Vec<String>>,
    /// Search this text instead of files; the matches' `file` is `STDIN`. Needs a language.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
}

/// A source of ignore rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IgnoreKind {
    /// Hidden files and directories are searched.
    Hidden,
    /// `.ignore` files are disregarded.
    Dot,
    /// `.git/info/exclude` is disregarded.
    Exclude,
    /// git's `core.excludesFile` is disregarded.
    Global,
    /// Ignore files of parent directories are disregarded.
    Parent,
    /// `.gitignore` and all other git sources are disregarded.
    Vcs,
}

/// Lines of context around a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    /// Lines before.
    pub before: u16,
    /// Lines after.
    pub after: u16,
}

/// How a query is to be carried out, for `run`, `scan` and `explain` alike.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a choice by itself")]
pub struct Delivery {
    /// Stop after this many matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Give up after this many milliseconds, with the error `deadline_exceeded`; at most one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Wait at most this many milliseconds for files to be read and parsed, at most one hour; then
    /// answer from what is there, and say in what that is behind. With 0 nothing is read. Not given, it
    /// is [`WAIT_MS_DEFAULT`](crate::WAIT_MS_DEFAULT), from when the root was indexed first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// The same as 0 milliseconds of waiting.
    pub no_wait: bool,
    /// Send only file names: items come without matches.
    pub files_only: bool,
    /// Send each matched file's whole text along.
    pub include_source: bool,
    /// Send matches without `text` and `metaVariables`, which are most of their bytes: `lines` and
    /// `charCount` have what a reader sees.
    pub brief: bool,
    /// Search every file anew, and remember nothing: for measurements, since the answer is the
    /// same.
    pub no_cache: bool,
}

/// Finds (and rewrites) one pattern or kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RunParams {
    /// Which files.
    pub selection: Selection,
    /// What to find.
    pub matcher: MatcherSpec,
    /// Language name or alias; without it each file's own language is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Replacement template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// Context lines in `lines`.
    pub context: Context,
    /// How to answer.
    pub delivery: Delivery,
}

/// A pattern, or an ESQuery-style kind selector: exactly one of `pattern` and `kind`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MatcherSpec {
    /// Code with metavariables.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Kind of the node within the pattern that is the real matcher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// One of cst, smart, ast, relaxed, signature, template; smart without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strictness: Option<String>,
    /// Kind selector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

/// Scans with YAML rules.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScanParams {
    /// Which files.
    pub selection: Selection,
    /// The rules, as YAML text.
    pub rules: Vec<RuleSource>,
    /// Global utility rules, as YAML text.
    pub utils: Vec<RuleSource>,
    /// Directory that the rules' `files` and `ignores` globs refer to; absolute.
    pub project_dir: String,
    /// Changes of severity, and which rules take part.
    pub overrides: SeverityOverrides,
    /// Put the rules' metadata into the matches.
    pub include_metadata: bool,
    /// Put every fix of a rule with several into `fixes`, not just the first into `replacement`.
    pub all_fixes: bool,
    /// Context lines are not in `lines` of a scan; kept for text rendering.
    pub context: Context,
    /// How to answer.
    pub delivery: Delivery,
}

/// One YAML file or inline text, one or more documents.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleSource {
    /// What to call it in errors: the path as typed, or `INLINE_RULES`.
    pub source: String,
    /// The text.
    pub yaml: String,
    /// Id for rules without one (the file's stem); several get `-0`, `-1`, … appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_id: Option<String>,
}

/// Which rules run, and how severe they are.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SeverityOverrides {
    /// Only rules whose id matches this regex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Only rules at least this severe: off, hint, info, warning, error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_severity: Option<String>,
    /// Severity to use for every rule that `by_id` does not name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Severity by rule id.
    pub by_id: BTreeMap<String, String>,
    /// Whether all rules of a project are present, so that unused suppressions can be reported.
    pub all_rules: bool,
}

/// Renders one file's syntax tree.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParseParams {
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
    /// Anonymous nodes too.
    pub cst: bool,
    /// A JSON tree instead of an s-expression.
    pub json: bool,
}

/// A rendered syntax tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParseResult {
    /// Language name.
    pub language: String,
    /// The s-expression or the JSON text, injected trees behind the host's.
    pub tree: String,
    /// Nodes in all trees.
    pub nodes: u64,
    /// Places where the parser had to recover.
    pub errors: Vec<SyntaxError>,
}

/// An `ERROR` or missing node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SyntaxError {
    /// Where.
    pub range: Range,
    /// What was expected there, for a missing node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// Opens a workspace and waits until it is indexed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenParams {
    /// Absolute path of the directory.
    pub path: String,
}

/// Asks how the daemon does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusParams {
    /// List every skipped file instead of counting them by reason.
    pub skipped_files: bool,
}

/// The daemon and its workspaces.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusResult {
    /// The daemon program.
    pub server: Peer,
    /// Its process id.
    pub pid: u32,
    /// Socket path.
    pub socket: String,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Seconds without activity after which it leaves; `None` for never.
    pub idle_exit_seconds: Option<u64>,
    /// Open connections.
    pub clients: u32,
    /// Who is connected, in the order of coming.
    #[serde(default)]
    pub sessions: Vec<SessionStatus>,
    /// Memory, bytes.
    pub memory: MemoryStatus,
    /// Why the settings file isn't used, if so; the settings of before hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_error: Option<String>,
    /// The processes that parse; `None` where the daemon parses itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parsers: Option<ParsersStatus>,
    /// Watched roots.
    pub workspaces: Vec<WorkspaceStatus>,
}

/// A connected client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionStatus {
    /// Counts connections from 1, in the daemon's life.
    pub session: u64,
    /// What it said that it is: name and version. Empty before its `hello`.
    pub client: String,
}

/// Where the memory is, in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemoryStatus {
    /// Source text of the files of all workspaces. Files of equal content share one text, which counts
    /// once for each: where there are many, this and `trees` are more than is held.
    pub text: u64,
    /// Their compact trees, injections included.
    pub trees: u64,
    /// Per-file indexes and records.
    pub indexes: u64,
    /// What is remembered to answer sooner, and given back when memory is short.
    #[serde(default)]
    pub caches: u64,
    /// Anonymous resident memory according to the kernel.
    pub resident_anon: u64,
    /// File-backed resident memory according to the kernel.
    pub resident_file: u64,
}

/// A watched root.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkspaceStatus {
    /// Resolved path.
    pub root: String,
    /// Newest revision.
    pub revision: Revision,
    /// Whether the first indexing still runs.
    pub indexing: bool,
    /// Files seen by the last crawl that have a known language.
    pub files_seen: u64,
    /// Files whose trees are held.
    pub files_parsed: u64,
    /// Skipped files by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Each skipped file with its reason; only when asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped_files: Vec<SkippedFile>,
    /// Files that can't be read, of which the version of the last reading is held.
    pub files_kept: u64,
    /// Each of them with the reason; only when asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_files: Vec<SkippedFile>,
    /// Files by language name.
    pub languages: BTreeMap<String, u64>,
    /// Bytes of source text held.
    pub source_bytes: u64,
    /// Nodes held.
    pub nodes: u64,
    /// Bytes of trees and indexes held, text apart.
    pub tree_bytes: u64,
    /// Milliseconds that the first indexing took, once it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indexed_in_ms: Option<u64>,
    /// What its queries have found, for when they are asked again.
    pub remembered: RememberedStatus,
    /// What it stops doing when that keeps failing.
    pub breakers: Vec<BreakerStatus>,
    /// How changes are noticed.
    pub watcher: WatcherStatus,
    /// Whether what is stored is what the disk holds.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// Only in the answer to `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<OpenOutcome>,
}

/// The results of queries that are remembered. A result is what one query found in one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RememberedStatus {
    /// Queries.
    pub queries: u64,
    /// Results.
    pub results: u64,
    /// Bytes of the results.
    pub bytes: u64,
    /// Results that were there when a query asked for them.
    pub hits: u64,
    /// Results that weren't.
    pub misses: u64,
}

/// What became of opening a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenOutcome {
    /// Its services are up and have what they need.
    AstLayerStarted,
}

/// How the changes of a root are noticed, before any query looks itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WatcherStatus {
    /// `native`, `polling`, `unavailable`, `disabled` or `paused`.
    pub state: String,
    /// Milliseconds until it looks at everything again.
    pub pause_ms: u64,
    /// Milliseconds of quiet before changes are applied that nobody waits for.
    pub settle_ms: u64,
    /// Why it isn't native.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Directories whose events are heard.
    pub directories: u64,
    /// Entries that have changed and aren't looked at yet.
    pub waiting: u64,
    /// Why queries look at their files at this moment, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsteady: Option<String>,
    /// Selections that were answered without a look at the disk.
    pub proven: u64,
    /// Selections whose files were each looked at.
    pub looked: u64,
}

/// A file that was not parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkippedFile {
    /// Its path.
    pub path: String,
    /// Stable reason: `empty`, `not_utf8`, `too_large`, `too_deep`, `unreadable`, `parse_timeout`,
    /// `parser_died`, `vanished`, …
    pub reason: String,
    /// One sentence with the particulars.
    pub detail: String,
}

/// Asks the daemon to leave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StopParams {
    /// Finish requests in flight first, accept no new ones.
    pub drain: bool,
}

/// Gives up a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cancel {
    /// The request's id.
    pub id: u64,
}

/// How far a request is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The request's id.
    pub id: u64,
    /// `indexing` or `matching`.
    pub phase: String,
    /// Files done.
    pub done: u64,
    /// Files in all, as far as known.
    pub total: u64,
}

/// One file's matches; files come in the order of their paths.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The request's id.
    pub id: u64,
    /// The path as ast-grep prints it: in the spelling of the request.
    pub file: String,
    /// Hash (blake3, hex) of the bytes that the matches were found in.
    pub content_id: String,
    /// The file's text, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// [`MatchRecord`]s in the order of their positions; a client may print them unparsed. Last,
    /// because they are written and read apart from the rest.
    pub matches: Matches,
}

/// A state of a workspace: later revisions of one epoch have larger numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Changes whenever a workspace is rebuilt from nothing.
    pub epoch: u64,
    /// Commits since.
    pub number: u64,
}

/// The end of a `run` or `scan`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Summary {
    /// The revision that was searched; absent for text from stdin and for paths outside any root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// Matches sent.
    pub matches: u64,
    /// Files with matches.
    pub files_matched: u64,
    /// Files that the pattern's requirements left, each verified by the matcher.
    pub files_verified: u64,
    /// Those of them whose result was remembered, and which the matcher didn't look at again.
    pub files_remembered: u64,
    /// Files selected.
    pub files_selected: u64,
    /// Selected files that are not parsed yet; not 0 only if they weren't waited for.
    pub files_pending: u64,
    /// In what the answer is behind the disk, or may be; absent if it is exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    /// Files of the selection that were skipped, with the reason.
    pub skipped: Vec<SkippedFile>,
    /// Files that can't be read, with the reason: the version of the last reading was searched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files_kept: Vec<SkippedFile>,
    /// Whether the limit cut the answer.
    pub limit_reached: bool,
    /// Whether the pattern itself contains a syntax error.
    pub pattern_has_error: bool,
    /// Matches of rules with severity error.
    pub error_matches: u64,
    /// Advice about the pattern, for stderr.
    pub hints: Vec<String>,
    /// Microseconds in the daemon.
    pub elapsed_us: u64,
}

/// How a query would be, and was, answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// The revision that was searched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// In what the files are behind the disk, or may be; absent if they aren't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    /// Requirements by language: what a file must contain to be a candidate, one line each.
    pub requirements: BTreeMap<String, Vec<String>>,
    /// Candidates left after each step, in order.
    pub steps: Vec<PlanStep>,
    /// Files verified by the matcher.
    pub files_verified: u64,
    /// Those of them whose result was remembered, and which the matcher didn't look at again.
    pub files_remembered: u64,
    /// Files with matches.
    pub files_matched: u64,
    /// Matches.
    pub matches: u64,
    /// Microseconds spent, by stage: `refresh`, `plan`, `match`.
    pub micros: BTreeMap<String, u64>,
    /// Advice about the pattern.
    pub hints: Vec<String>,
}

/// One narrowing step of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanStep {
    /// What was required.
    pub step: String,
    /// Files left.
    pub files: u64,
}

/// What went wrong, for a program to act on. Travels in a JSON-RPC error's `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorData {
    /// Stable identifier.
    pub code: ErrorCode,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What to do instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// Byte offset in the pattern, where the fault has a place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// Stable error identifiers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON, or not a JSON-RPC request (-32700, -32600).
    MalformedRequest,
    /// No such method (-32601).
    UnknownMethod,
    /// Parameters of the wrong shape (-32602).
    InvalidParams,
    /// No common protocol version, or no `hello` yet (-32001).
    IncompatibleProtocol,
    /// The pattern does not parse or is not one node (-32010).
    InvalidPattern,
    /// The kind selector is not valid or names no kind of the language (-32011).
    InvalidSelector,
    /// A rule, utility or override is not valid (-32012).
    InvalidRule,
    /// No such language, or none given where one is needed (-32013).
    UnknownLanguage,
    /// A glob is not valid (-32014).
    InvalidGlob,
    /// A path does not exist or can't be read (-32020).
    PathNotFound,
    /// The path may not be a root (-32021).
    RootRefused,
    /// A file can't be parsed: empty, not UTF-8, too large (-32022).
    FileSkipped,
    /// The supervision tree has no node of that path (-32023).
    NodeNotFound,
    /// What changed since a revision isn't known (-32024).
    HistoryGone,
    /// A standing query has more matches than one may have (-32025).
    TooManyMatches,
    /// The client gave the request up (-32800).
    Cancelled,
    /// The deadline passed (-32801).
    DeadlineExceeded,
    /// Too many requests at once (-32802).
    Overloaded,
    /// The daemon is leaving (-32803).
    ShuttingDown,
    /// The part of the daemon that ran the request ended before its answer (-32804).
    Restarting,
    /// The daemon wasn't started for that (-32805).
    NotAllowed,
    /// What everything stands on isn't up, so nothing was started (-32806).
    FoundationNotReady,
    /// A workspace's services didn't start, or not all of what they need (-32807).
    StartupFailed,
    /// A bug of ours (-32603).
    Internal,
}

impl ErrorCode {
    /// The JSON-RPC error number.
    pub fn number(self) -> i32 {
        match self {
            Self::MalformedRequest => -32600,
            Self::UnknownMethod => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::IncompatibleProtocol => -32001,
            Self::InvalidPattern => -32010,
            Self::InvalidSelector => -32011,
            Self::InvalidRule => -32012,
            Self::UnknownLanguage => -32013,
            Self::InvalidGlob => -32014,
            Self::PathNotFound => -32020,
            Self::RootRefused => -32021,
            Self::FileSkipped => -32022,
            Self::NodeNotFound => -32023,
            Self::HistoryGone => -32024,
            Self::TooManyMatches => -32025,
            Self::Cancelled => -32800,
            Self::DeadlineExceeded => -32801,
            Self::Overloaded => -32802,
            Self::ShuttingDown => -32803,
            Self::Restarting => -32804,
            Self::NotAllowed => -32805,
            Self::FoundationNotReady => -32806,
            Self::StartupFailed => -32807,
        }
    }

    /// Whether the same request may succeed later without a change.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded
                | Self::Overloaded
                | Self::ShuttingDown
                | Self::Restarting
                | Self::FoundationNotReady
                | Self::StartupFailed
        )
    }
}
