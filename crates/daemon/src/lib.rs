//! The daemon: one per user, many workspaces, many clients.
//!
//! This is the composition root, the one place where all crates meet, and it holds no logic of its
//! own: `lifecycle` starts and stops, `connection` moves lines, `handlers` calls what the request
//! asks for, `wire` converts. What runs is started in `spawn` and nowhere else.
//!
//! Start order is the flow: the lock, pools, workspaces, and the socket last; it closes first.
#![forbid(unsafe_code)]

mod connection;
mod errors;
mod handlers;
mod lifecycle;
mod memory;
mod request;
mod spawn;
mod wire;
mod workspaces;

pub use lifecycle::{DaemonConfig, ServeError, serve};
