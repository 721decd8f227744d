//! The tasks of `cargo xtask`, as a library so that the tidy test can call what the command calls.
//!
//! Rust instead of shell scripts: one tool, and it runs wherever cargo does.
#![forbid(unsafe_code)]

pub mod bench;
pub mod chaos;
pub mod ci;
pub mod differential;
pub mod flags;
pub mod otp;
pub mod soak;
pub mod tidy;

use std::path::Path;

/// The root of this workspace: the directory above this package.
pub fn workspace_root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
