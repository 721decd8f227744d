//! Querying: one query on one scope of files, in order, within bounds.
//!
//! A query is compiled for the languages of its scope ([`PatternQuery`], [`RuleQuery`]) and then
//! executed ([`execute()`]): files that its requirements rule out are passed over, the rest is
//! verified by ast-grep's matcher, in parallel, and delivered in the scope's order while later
//! files are still being searched. What a match becomes (JSON, a count) is the caller's choice and
//! happens on the worker too.
//!
//! Invariants: a query sees one scope, whose records are immutable: text and spans belong
//! together. Every answer is bounded, and says so when the bound cut it. Nothing here can wait for
//! the disk, for nothing here can see it.
#![forbid(unsafe_code)]

#[cfg(feature = "service")]
mod cache;
pub mod execute;
pub mod explain;
pub mod pattern;
pub mod rule;
#[cfg(feature = "service")]
pub mod service;
pub mod standing;

#[cfg(feature = "service")]
pub use cache::{QueryKey, Remember};
pub use execute::{Bounds, Found, Gone, Interrupt, QueryError, Totals, execute};
pub use explain::{Plan, explain};
pub use pattern::{Compile, PatternQuery, TreeMatches};
pub use rule::RuleQuery;
pub use standing::{FileDifference, Standing};
