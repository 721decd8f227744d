//! A watched root, and the services that work on it.

use crate::cpu;
use crate::daemon::Daemon;
use astscope_querying::service::{ExecutorConfig, ExecutorHandle};
use astscope_repository::Repository;
use astscope_supervision::ChildRef;
use astscope_synchronization::Synchronizer;
use astscope_synchronization::service::{SyncConfig, SyncHandle, WatchConfig};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Refreshes that may wait to be taken by a workspace's synchronizer: each belongs to a query, and
/// those that run are far fewer.
const REFRESHES_MAX: usize = 1024;

/// How long a query waits for a service that is being restarted, before it is told so.
const RESTART_WITHIN: Duration = Duration::from_secs(10);

/// A watched root. What it holds outlives its services: they are restarted around it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// Its name in the tree.
    pub(crate) id: String,
    pub(crate) root: PathBuf,
    pub(crate) repository: Arc<Repository>,
    pub(crate) sync: SyncHandle,
    pub(crate) executor: ExecutorHandle,
    /// Set by the tree.
    pub(crate) file_watcher: OnceLock<ChildRef>,
}

impl Workspace {
    /// The `number`th root of the daemon's life.
    pub(crate) fn new(daemon: &Daemon, number: u64, root: PathBuf) -> Self {
        // Each life of a workspace has an epoch of its own, across restarts of the daemon too.
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let repository = Arc::new(Repository::new(u64::try_from(epoch).unwrap_or(u64::MAX)));
        let engine =
            Synchronizer::new(Arc::clone(&repository), root.clone(), Arc::clone(&daemon.pool))
                .with_backend(daemon.parsers.backend());
        let config = SyncConfig {
            mailbox: REFRESHES_MAX,
            restart_within: RESTART_WITHIN,
            watch: WatchConfig::default(),
            crawl_threads: Arc::new(|| cpu::pool("index").map_err(|error| error.to_string())),
        };
        Self {
            id: name(number, &root),
            root,
            repository,
            sync: SyncHandle::new(engine, config),
            executor: ExecutorHandle::new(ExecutorConfig::default(), daemon.seats.clone()),
            file_watcher: OnceLock::new(),
        }
    }

    /// The services that its health is told by.
    pub(crate) fn vital(&self) -> Vec<ChildRef> {
        self.file_watcher.get().cloned().into_iter().collect()
    }
}

/// A name for a person who looks at the tree: the directory's, as far as the tree takes it.
fn name(number: u64, root: &Path) -> String {
    let last = root.file_name().unwrap_or_default().to_string_lossy();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    format!("{number}-{}", last.chars().take(40).map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_a_name_that_the_tree_takes() {
        assert_eq!(name(1, Path::new("/src/my app")), "1-my_app");
        assert_eq!(name(2, Path::new("/")), "2-");
        assert_eq!(name(3, Path::new("/ä/ü")), "3-_");
    }
}
