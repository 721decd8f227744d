//! The chain that keeps a workspace equal to its disk: `file_watcher` notices, `synchronizer`
//! answers for what is true now, `incremental_updater` catches up in the background, and `scrubber`
//! checks that all of them were right.
//!
//! Each relies on the one before it, and is restarted with it: hints of a watcher that is gone
//! must not be waited for, and an updater without a synchronizer would update for nobody.
//!
//! A query that is asked for fresh files doesn't depend on any of them being up to date: its refresh
//! sees to that. What the chain adds is that a change is parsed before anybody asks.
//!
//! Where the watcher hears the kernel's events, a refresh takes them in itself and answers from what
//! is stored; elsewhere it looks at each file that it is about. It is as exact either way.

mod commits;
mod disk;
mod refreshes;
mod scrubber;
mod synchronizer;
mod updater;
mod watcher;

pub use crate::scrub::{Drift, DriftCause};
pub use commits::CoreCommitter;
pub use disk::GuardedDisk;
pub use refreshes::Wait;
pub use scrubber::{DriftCounts, ScrubConfig, ScrubCycle, ScrubStatus};
pub use synchronizer::{Progress, StopRequest, SyncError};
pub use watcher::{WatchConfig, WatchState, WatchStatus};

use crate::apply::Reconciled;
use crate::events::EventSource;
use crate::watches::{Uncovered, Watches};
use crate::{CrawlSummary, RefreshError, Synchronizer};
use astscope_repository::service::CoreState;
use astscope_supervision::{Address, ChildRef, ChildSpec, Pool, Strategy, SupervisorSpec};
use rayon::ThreadPool;
use refreshes::RUNNING_MAX;
use scrubber::Scrub;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use synchronizer::Ask;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::timeout;
use updater::Update;

/// How a workspace is kept equal to its disk.
#[derive(Clone)]
pub struct SyncConfig {
    /// Refreshes that wait to be taken. Each is one query's, and those are bounded by connections.
    pub mailbox: usize,
    /// How long a refresh waits for a synchronizer that is being restarted.
    pub restart_within: Duration,
    /// How the disk is watched. A change holds at once.
    pub watch: watch::Receiver<WatchConfig>,
    /// Where events come from; `None` to look at the disk from time to time instead.
    pub events: Option<Events>,
    /// How what is stored is checked. A change holds at once.
    pub scrub: watch::Receiver<ScrubConfig>,
    /// Told each file that had drifted, once that is repaired, by a thread that may block.
    pub drifted: Drifted,
    /// How many workspaces look at their disks at a time; `None` for any number.
    pub seats: Option<Pool<Infallible>>,
    /// Tells when everything that was stored was given up, and has to be read again.
    pub repository: Option<watch::Receiver<CoreState>>,
    /// Makes the threads of a crawl, which end with it: what their allocators and parsers held on
    /// to goes back to the system, which is a third of the memory of a small workspace.
    pub crawl_threads: CrawlThreads,
}

/// Where a workspace's events come from.
#[derive(Clone)]
pub struct Events {
    /// Begins to listen: one instance for each incarnation of the watcher.
    pub open: OpenEvents,
    /// A directory of this workspace alone, in the daemon's own runtime directory, for the files
    /// whose events prove that earlier ones were seen. It is made and removed as needed.
    pub cookies: PathBuf,
}

impl Events {
    /// The kernel's, if it has any that are good enough.
    pub fn of_kernel(cookies: PathBuf) -> Option<Self> {
        #[cfg(target_os = "linux")]
        {
            let open = || Ok(Box::new(crate::events::Inotify::open()?) as Box<dyn EventSource>);
            Some(Self { open: Arc::new(open), cookies })
        }
        #[cfg(not(target_os = "linux"))]
        {
            drop(cookies);
            None
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("cookies", &self.cookies).finish_non_exhaustive()
    }
}

/// Makes a source of events.
pub type OpenEvents = Arc<dyn Fn() -> io::Result<Box<dyn EventSource>> + Send + Sync>;

/// Makes threads, or says why there are none.
pub type CrawlThreads = Arc<dyn Fn() -> Result<ThreadPool, String> + Send + Sync>;

/// Told of drift.
pub type Drifted = Arc<dyn Fn(&Drift) + Send + Sync>;

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
    scrubber: Address<Infallible>,
    shared: Arc<Shared>,
}

/// What outlives the services.
struct Shared {
    engine: Synchronizer,
    config: SyncConfig,
    watching: watch::Sender<WatchStatus>,
    /// Whether somebody wants the watcher to rest.
    paused: watch::Sender<bool>,
    /// What could not be watched, when that was last tried.
    uncovered: watch::Sender<Option<Arc<InVain>>>,
    /// For the watcher: something came up that no event told it.
    nudge: Notify,
    /// A permit for each refresh, until its thread is back.
    refreshing: Arc<Semaphore>,
    scrub: Scrub,
    /// Whether the first crawl hasn't come to its end.
    indexing: AtomicBool,
    files_seen: AtomicU64,
    indexed_in_ms: OnceLock<u64>,
}

impl SyncHandle {
    /// A chain that isn't started yet.
    pub fn new(engine: Synchronizer, config: SyncConfig) -> Self {
        let WatchConfig { every_min: pause, settle, .. } = *config.watch.borrow();
        let state = WatchState::Polling("it isn't up yet".into());
        let shared = Shared {
            engine,
            watching: watch::Sender::new(WatchStatus { state, pause, settle }),
            paused: watch::Sender::new(false),
            uncovered: watch::Sender::new(None),
            nudge: Notify::new(),
            refreshing: Arc::new(Semaphore::new(RUNNING_MAX)),
            scrub: Scrub::default(),
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
            scrubber: Address::new("scrubber", 1),
            shared: Arc::new(shared),
        }
    }

    /// The subtree `synchronization`.
    pub fn supervisor(&self) -> ChildSpec {
        let tree = SupervisorSpec::new(Strategy::RestForOne)
            .intensity(5, Duration::from_secs(10))
            .child(watcher::service(self))
            .child(synchronizer::service(self))
            .child(updater::service(self))
            .child(scrubber::service(self));
        ChildSpec::supervisor("synchronization", tree)
    }

    /// `file_watcher`, to be watched.
    pub fn watcher(&self) -> ChildRef {
        self.watcher.child()
    }

    /// Its services but the scrubber, whom nobody waits for, each with those that it needs, as
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

    /// About how many bytes it takes to know what has changed: the watched directories, the files
    /// that are listed in them, and what waits to be applied.
    pub fn watching_bytes(&self) -> u64 {
        let tracker = self.shared.engine.tracker();
        let watches = tracker.watches().map_or(0, |watches| watches.bytes());
        (watches + tracker.bytes()) as u64
    }

    /// Whether the first crawl is still under way.
    pub fn is_indexing(&self) -> bool {
        self.shared.is_indexing()
    }

    /// How the root is watched; changes are told, and a restart changes nothing.
    pub fn watch_status(&self) -> watch::Receiver<WatchStatus> {
        self.shared.watching.subscribe()
    }

    /// What is known of the tree at this moment, and how refreshes were answered so far.
    pub fn awareness(&self) -> Awareness {
        let engine = &self.shared.engine;
        let (tracker, answers) = (engine.tracker(), engine.answers());
        Awareness {
            directories: tracker.watches().map_or(0, |watches| watches.n_directories()),
            events: tracker.n_events(),
            waiting: tracker.n_waiting(),
            unsteady: tracker.unsteady().map(|why| why.to_string()),
            proven: answers.proven.load(Ordering::Relaxed),
            looked: answers.looked.load(Ordering::Relaxed),
        }
    }

    /// Stops watching, or begins again and then looks at everything, and waits until that is so, for
    /// as long as a refresh waits for a service that is being restarted. Queries are as exact
    /// without: they look for themselves.
    ///
    /// # Cancel safety
    /// It comes to pass whether or not anybody waits for it.
    pub async fn set_paused(&self, paused: bool) {
        self.shared.paused.send_if_modified(|now| std::mem::replace(now, paused) != paused);
        let mut status = self.watch_status();
        let is_so = |status: &WatchStatus| (status.state == WatchState::Paused) == paused;
        // In vain when the workspace's services are gone: their successors will see it.
        let _late = timeout(self.shared.config.restart_within, status.wait_for(is_so)).await;
    }

    /// What was checked against the disk and what came of it; changes are told, and a restart
    /// changes nothing.
    pub fn scrub_status(&self) -> watch::Receiver<ScrubStatus> {
        self.shared.scrub.status()
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

/// What is known of a tree without looking at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Awareness {
    /// Directories that are watched.
    pub directories: usize,
    /// Events that were taken in.
    pub events: u64,
    /// Entries that have changed and aren't looked at yet.
    pub waiting: usize,
    /// Why nothing can be told without looking, if that is so.
    pub unsteady: Option<String>,
    /// Refreshes that were answered without a look at the disk.
    pub proven: u64,
    /// Refreshes that looked at each file that they were about.
    pub looked: u64,
}

/// A try to watch everything.
struct InVain {
    /// Whose it was: those that there are now may have come since.
    watches: Weak<Watches>,
    why: Uncovered,
}

impl Shared {
    /// Brings the repository up to date with the whole root, and has all of it watched from now on.
    fn reconcile(
        &self,
        pool: &ThreadPool,
        stop: &(dyn Fn() -> bool + Sync),
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<CrawlSummary, RefreshError> {
        let watches = self.engine.tracker().watches();
        let watches = watches.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let Reconciled { summary, uncovered } = self.engine.reconcile(pool, stop, progress)?;
        if let Some(why) = uncovered {
            self.uncovered.send_replace(Some(Arc::new(InVain { watches, why })));
        }
        // What came up meanwhile waits for the watcher.
        self.nudge.notify_one();
        Ok(summary)
    }

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
