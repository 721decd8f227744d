//! The daemon: one per user, many workspaces, many clients.
//!
//! This is the composition root, the one place where all crates meet, and it holds no logic of its
//! own: `lifecycle` starts and stops, `tree` says what runs, `connection` moves lines, `handlers`
//! calls what the request asks for, `wire` converts. Whatever runs is a child in that tree.
//!
//! Start order is the flow: the lock, the foundation, workspaces, and the gateway last; it closes
//! first.
#![forbid(unsafe_code)]

mod connection;
mod cpu;
mod daemon;
mod errors;
mod foundation;
mod gateway;
mod handlers;
mod lifecycle;
mod memory;
mod observability;
mod parsers;
mod readiness;
mod reclaim;
mod records;
mod request;
mod subscriptions;
mod telemetry;
mod tree;
mod wire;
mod workspace;
mod workspaces;

pub use astscope_parsing::service::ParserConfig;
/// What a process runs that parses for a daemon (decision 0012).
pub use astscope_parsing::worker as parser_worker;
pub use foundation::config::{IdleExit, LogFilter, SetLogFilter, SettingsSource};
pub use lifecycle::{DaemonConfig, ServeError, serve};
pub use memory::MemorySource;
