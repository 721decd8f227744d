//! The daemon as its clients meet it: each test starts one of its own on a real socket.
//!
//! One crate of many modules, so that the grammars are linked once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests, where a panic is the report"
)]

mod changes;
mod clients;
mod files;
mod framing;
mod freshness;
mod lifecycle;
mod memory;
mod patterns;
mod remembered;
mod requests;
mod rules;
mod selection;
mod streams;
mod subscriptions;
mod supervision;
mod support;
mod transcript;
mod workspaces;
