//! Permissions that apply to a test, whoever runs it: root reads what nobody may read, unless it gives
//! that up. Capabilities belong to a thread, and those that it starts have no more.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

/// Runs `test` on a thread that may read only what its user may.
pub(crate) fn unprivileged(test: impl FnOnce() + Send) {
    let run = || {
        let mut sets = capabilities(None).unwrap();
        sets.effective -= CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        set_capabilities(None, sets).unwrap();
        test();
    };
    let ended = std::thread::scope(|scope| scope.spawn(run).join());
    ended.unwrap_or_else(|panic| resume_unwind(panic));
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Makes all directories readable again, also for whoever removes them, when this is dropped.
pub(crate) struct Reopened(pub(crate) PathBuf);

impl Drop for Reopened {
    fn drop(&mut self) {
        reopen(&self.0);
    }
}

/// Makes a directory readable again, and all below.
pub(crate) fn reopen(directory: &Path) {
    drop(fs::set_permissions(directory, Permissions::from_mode(0o755)));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            reopen(&entry.path());
        }
    }
}
