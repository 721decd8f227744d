//! The chain that keeps a workspace equal to its disk: `file_watcher` notices, `synchronizer`
//! answers for what is true now, `incremental_updater` catches up in the background.
//!
//! Each relies on the one before it, and is restarted with it: hints of a watcher that is gone
//! must not be waited for, and an updater without a synchronizer would update for nobody.
//!
//! A query that is asked for fresh files doesn't depend on the watcher: its refresh looks itself.
//! What the chain adds is that a change is parsed before anybody asks.
//!
//! Later: `file_watcher` listens to the kernel's events instead of looking every few seconds, and
//! `incremental_updater` applies single files and what depends on them; now it crawls.

mod commits;
mod disk;
mod synchronizer;
mod updater;
mod watcher;

pub use commits::CoreCommitter;
pub use disk::GuardedDisk;
pub use synchronizer::{Progress, StopRequest, SyncError};
pub use watcher::{WatchConfig, WatchState, WatchStatus};

use crate::Synchronizer;
use astscope_repository::service::CoreState;
use astscope_supervision::{Address, ChildRef, ChildSpec, Pool, Strategy, SupervisorSpec};
use rayon::ThreadPool;
use std::convert::Infallible;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use synchronizer::Ask;
use tokio::sync::watch;
use updater::Update;

/// How a workspace is kept equal to its disk.
#[derive(Clone)]
pub struct SyncConfig {
    /// Refreshes that wait to be taken. Each is one query's, and those are bounded by connections.
    pub mailbox: usize,
    /// How long a refresh waits for a synchronizer that is being restarted.
    pub restart_within: Duration,
    /// How often the disk is looked at. A change holds at once.
    pub watch: watch::Receiver<WatchConfig>,
    /// How many workspaces look at their disks at a time; `None` for any number.
    pub seats: Option<Pool<Infallible>>,
    /// Tells when everything that was stored was given up, and has to be read again.
    pub repository: Option<watch::Receiver<CoreState>>,
    /// Makes the threads of a crawl, which end with it: what their allocators and parsers held on
    /// to goes back to the system, which is a third of the memory of a small workspace.
    pub crawl_threads: CrawlThreads,
}

/// Makes threads, or says why there are none.
pub type CrawlThreads = Arc<dyn Fn() -> Result<ThreadPool, String> + Send + Sync>;

impl fmt::Debug for SyncConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncConfig").field("watch", &*self.watch.borrow()).finish_non_exhaustive()
    }
}

/// A workspace's synchronization, whichever incarnations of its services are up.
#[derive(Clone)]
pub struct SyncHandle {
    watcher: Address<Infallible>,
    synchronizer: Address<Ask>,
    updater: Address<Update>,
    shared: Arc<Shared>,
}

/// What outlives the services.
struct Shared {
    engine: Synchronizer,
    config: SyncConfig,
    watching: watch::Sender<WatchStatus>,
    /// Whether the first crawl hasn't come to its end.
    indexing: AtomicBool,
    files_seen: AtomicU64,
    indexed_in_ms: OnceLock<u64>,
}

impl SyncHandle {
    /// A chain that isn't started yet.
    pub fn new(engine: Synchronizer, config: SyncConfig) -> Self {
        let pause = config.watch.borrow().every_min;
        let shared = Shared {
            engine,
            watching: watch::Sender::new(WatchStatus { state: WatchState::Polling, pause }),
            indexing: AtomicBool::new(true),
            files_seen: AtomicU64::new(0),
            indexed_in_ms: OnceLock::new(),
            config,
        };
        Self {
            watcher: Address::new("file_watcher", 1),
            synchronizer: Address::new("synchronizer", shared.config.mailbox),
            // A second hint while one waits says nothing new.
            updater: Address::new("incremental_updater", 1),
            shared: Arc::new(shared),
        }
    }

    /// The subtree `synchronization`.
    pub fn supervisor(&self) -> ChildSpec {
        let tree = SupervisorSpec::new(Strategy::RestForOne)
            .intensity(5, Duration::from_secs(10))
            .child(watcher::service(self))
            .child(synchronizer::service(self))
            .child(updater::service(self));
        ChildSpec::supervisor("synchronization", tree)
    }

    /// `file_watcher`, to be watched.
    pub fn watcher(&self) -> ChildRef {
        self.watcher.child()
    }

    /// The three services, each with those that it needs, as
    /// [`Dependencies::new`](astscope_supervision::Dependencies::new) takes them. The repository's
    /// are among those.
    pub fn needs(&self) -> [(ChildRef, &'static [&'static str]); 3] {
        [
            (self.watcher.child(), &[]),
            (self.synchronizer.child(), &["file_watcher", "repository_core"]),
            (self.updater.child(), &["synchronizer", "repository_enhanced"]),
        ]
    }

    /// As [`Synchronizer::forget_walks`].
    pub fn forget_walks(&self, idle: Duration, dry_run: bool) -> (usize, usize) {
        self.shared.engine.forget_walks(idle, dry_run)
    }

    /// Whether the first crawl is still under way.
    pub fn is_indexing(&self) -> bool {
        self.shared.is_indexing()
    }

    /// How the root is watched; changes are told, and a restart changes nothing.
    pub fn watch_status(&self) -> watch::Receiver<WatchStatus> {
        self.shared.watching.subscribe()
    }

    /// Files that the first crawl has found so far.
    pub fn files_seen(&self) -> u64 {
        self.shared.files_seen.load(Ordering::Relaxed)
    }

    /// How long the first crawl took, in milliseconds, once it is done.
    pub fn indexed_in_ms(&self) -> Option<u64> {
        self.shared.indexed_in_ms.get().copied()
    }
}

impl Shared {
    fn is_indexing(&self) -> bool {
        self.indexing.load(Ordering::Relaxed)
    }

    /// Notes that a crawl which began at `started` is done; the first tells how long it took.
    fn indexed_since(&self, started: Instant) {
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.indexed_in_ms.get_or_init(|| ms);
        self.indexing.store(false, Ordering::Relaxed);
    }
}

impl fmt::Debug for SyncHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncHandle").field("engine", &self.shared.engine).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
