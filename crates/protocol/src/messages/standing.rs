//! A query that stands: asked once, answered again and again as files change. Apart from the
//! requests that have one answer.

use super::{Matches, Revision, RunParams, ScanParams};
use crate::frame::RpcError;
use serde::{Deserialize, Serialize};

/// Asks for the matches of a `run` or a `scan`, and for what becomes of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscribeParams {
    /// The query. It can have no limit, and no `noWait`, `waitMs`, `filesOnly`, `includeSource` or text from
    /// `stdin`; its deadline is that of the answer.
    pub run: RunParams,
    /// A query with rules, under the same conditions. `run` then counts for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<ScanParams>,
    /// Don't tell the matches that are there already.
    pub no_initial: bool,
}

/// A subscription has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscribeResult {
    /// Its number in this connection.
    pub subscription: u64,
    /// The revision of the matches that are there already.
    pub revision: Revision,
    /// How many those are.
    pub matches: u64,
    /// Whether the pattern itself contains a syntax error.
    pub pattern_has_error: bool,
    /// Advice about the pattern, for a person.
    pub hints: Vec<String>,
}

/// Ends a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnsubscribeParams {
    /// Which.
    pub subscription: u64,
}

/// Whatever was told before is void: what follows, up to the next [`Settled`], is everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resync {
    /// Of which subscription.
    pub subscription: u64,
    /// Why.
    pub reason: ResyncReason,
}

/// Why everything is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResyncReason {
    /// Nothing was told before.
    Initial,
    /// The client didn't read what was told before in time.
    Slow,
    /// The part of the daemon that told it had to be started again.
    Restarted,
    /// One that a later version knows.
    #[serde(other)]
    Other,
}

/// What is other in one file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Of which subscription.
    pub subscription: u64,
    /// The path, as an item of `run` has it.
    pub file: String,
    /// Hash of the bytes that are searched now; absent if the file is no longer selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_id: Option<String>,
    /// [`MatchRecord`](super::MatchRecord)s that are no longer found, as they were told.
    pub disappeared: Matches,
    /// Those that are found now.
    pub appeared: Matches,
}

/// What was told is whole: it is the answer of a `run` at this revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settled {
    /// Of which subscription.
    pub subscription: u64,
    /// The revision.
    pub revision: Revision,
}

/// Nothing more is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Of which subscription.
    pub subscription: u64,
    /// Why, as the error of a request.
    pub error: RpcError,
}
