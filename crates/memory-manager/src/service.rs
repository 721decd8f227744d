//! The subtree: its configuration, what it is given, its handle, and the tree as one expression.
//!
//! What must survive a restart stands above the services, in what all of them share: the caches,
//! the history of samples, the level, the log of actions. So a crash loses the work in progress,
//! and nothing that was known.

mod caches;
mod cleaner;
mod monitor;
mod pressure;

pub use caches::Caches;
pub use cleaner::{CleanupError, CleanupReport, Part, PartOutcome};
pub use pressure::{ACTIONS_MAX, ActionRecord, PressureError, Relief};

use crate::{
    Accounts, CacheKind, CacheStats, Cleanup, Compression, Freed, History, Level, Reclaim, Sample,
    ThresholdError, Thresholds,
};
use astscope_supervision::{
    Address, CallError, ChildRef, ChildSpec, Restart, Stop, Strategy, Supervisor, SupervisorSpec,
    Table,
};
use caches::CacheManager;
use cleaner::{Cleaner, Job};
use monitor::Monitor;
use pressure::{Book, PressureHandler};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Messages that wait for a service. Each service has a handful of callers, and a caller beyond
/// them waits until its deadline.
const MAILBOX: usize = 16;
/// How long each of the services may take to stop: the seed's time.
const STOP: Stop = Stop::Within(Duration::from_secs(5));
/// How long a question may take that is answered from what is known.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How the memory is managed. [`of_budget`](Self::of_budget) has the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryConfig {
    /// Bytes that the process may use. At least 1 MiB: below that a sample is mostly rounding.
    pub budget_bytes: u64,
    /// Where the levels begin and end, in percent of the budget.
    pub thresholds: Thresholds,
    /// Time between two samples. 1 s to 5 min, 30 s by default: pressure comes with insertions,
    /// which are told; this is for what grows unnoticed.
    pub sample_every: Duration,
    /// Bytes of insertions after which a sample is taken at once. At least 1; a 64th of the
    /// budget by default, which is well below the margin of a level.
    pub insertion_bytes: u64,
    /// The caches.
    pub caches: CacheConfig,
    /// Time that one cleanup may take, all owners together. 10 ms to 1 min, 5 s by default: long
    /// enough for an owner to lock and walk its maps, short enough to help.
    pub cleanup_within: Duration,
    /// Time that one action against pressure may take, the wait for a cleanup that is under way
    /// included. At least `cleanup_within`, at most 5 min; 15 s by default.
    pub action_within: Duration,
}

/// How the caches are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// How long a result of a query may be idle. 10 s to 1 h, 60 s by default: the next query of
    /// somebody who looks around.
    pub query_idle: Duration,
    /// The same for what was derived from files; 5 min by default.
    pub analysis_idle: Duration,
    /// The same for code property graphs; 10 min by default, since they are dear.
    pub cpg_idle: Duration,
    /// Entries in each of them. 10 to 1,000,000; 1000 by default. At the limit a tenth goes.
    pub entries_max: usize,
    /// Time between two sweeps of what has expired. 1 s to 1 h, 10 s by default: an expired entry
    /// is never found, so this only bounds how long its bytes stay.
    pub sweep_every: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            query_idle: Duration::from_mins(1),
            analysis_idle: Duration::from_mins(5),
            cpg_idle: Duration::from_mins(10),
            entries_max: 1000,
            sweep_every: Duration::from_secs(10),
        }
    }
}

impl CacheConfig {
    fn idle_max(&self, kind: CacheKind) -> Duration {
        match kind {
            CacheKind::Query => self.query_idle,
            CacheKind::Analysis => self.analysis_idle,
            CacheKind::Cpg => self.cpg_idle,
        }
    }
}

/// A configuration that can't be used. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryConfigError {
    /// The thresholds make no sense.
    #[error("the pressure thresholds can't be used")]
    Thresholds(#[from] ThresholdError),
    /// A field is outside of what it may be.
    #[error("`{field}` is {found}, and may be {bound}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        bound: &'static str,
    },
}

impl MemoryConfig {
    /// The defaults for a budget.
    pub fn of_budget(bytes: u64) -> Self {
        Self {
            budget_bytes: bytes,
            thresholds: Thresholds::default(),
            sample_every: Duration::from_secs(30),
            insertion_bytes: (bytes / 64).max(1),
            caches: CacheConfig::default(),
            cleanup_within: Duration::from_secs(5),
            action_within: Duration::from_secs(15),
        }
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), MemoryConfigError> {
        let refuse = |field, found: String, bound| {
            Err(MemoryConfigError::OutOfRange { field, found, bound })
        };
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        self.thresholds.check()?;
        if self.budget_bytes < 1 << 20 {
            return refuse("budget_bytes", self.budget_bytes.to_string(), "at least 1 MiB");
        }
        if self.insertion_bytes == 0 {
            return refuse("insertion_bytes", "0".to_owned(), "at least 1");
        }
        let caches = self.caches;
        let idle = "10 s to 1 h";
        let durations = [
            ("sample_every", self.sample_every, s(1)..=s(300), "1 s to 5 min"),
            ("query_idle", caches.query_idle, s(10)..=s(3600), idle),
            ("analysis_idle", caches.analysis_idle, s(10)..=s(3600), idle),
            ("cpg_idle", caches.cpg_idle, s(10)..=s(3600), idle),
            ("sweep_every", caches.sweep_every, s(1)..=s(3600), "1 s to 1 h"),
            ("cleanup_within", self.cleanup_within, ms(10)..=s(60), "10 ms to 1 min"),
            (
                "action_within",
                self.action_within,
                self.cleanup_within..=s(300),
                "`cleanup_within` to 5 min",
            ),
        ];
        if let Some((field, found, _, bound)) =
            durations.iter().find(|(_, found, range, _)| !range.contains(found))
        {
            return refuse(field, format!("{found:?}"), bound);
        }
        if !(10..=1_000_000).contains(&caches.entries_max) {
            return refuse("entries_max", caches.entries_max.to_string(), "10 to 1,000,000");
        }
        Ok(())
    }
}

/// What the subtree is given by whoever embeds it.
#[derive(Clone)]
pub struct MemoryDeps {
    /// Where owners of memory keep their accounts.
    pub accounts: Accounts,
    /// The bytes that only the process itself can free: `RssAnon` on Linux. `None` where nobody
    /// says, then the accounts count. Called at each sample, on the runtime's thread: it may take
    /// microseconds.
    pub read_resident: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Has the allocator give free pages back to the system. Called on a thread where it may take
    /// its time: before a sample that is due, if what is held [has changed](MemoryHandle::changed)
    /// since the last, and as the last action of the highest level. Without it these free nothing.
    pub release_free_pages: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl MemoryDeps {
    /// Accounts and the kernel's figure, without a way to release free pages.
    pub fn new(
        accounts: Accounts,
        read_resident: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
    ) -> Self {
        Self { accounts, read_resident, release_free_pages: None }
    }
}

impl fmt::Debug for MemoryDeps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDeps").field("accounts", &self.accounts).finish_non_exhaustive()
    }
}

/// The subtree, and the handle to it. The handle works before the start (callers wait until their
/// deadlines) and across all restarts.
pub fn supervisor(
    config: MemoryConfig,
    deps: MemoryDeps,
) -> Result<(ChildSpec, MemoryHandle), MemoryConfigError> {
    config.check()?;
    let shared = Arc::new(Shared::new(config, deps));
    let args = || Arc::clone(&shared);
    let spec = SupervisorSpec::new(Strategy::RestForOne) // each works on what those before it keep
        .intensity(5, Duration::from_secs(10))
        .child(ChildSpec::service::<Monitor>(&shared.monitor, args()).stop(STOP))
        .child(ChildSpec::service::<CacheManager>(&shared.cache_manager, args()).stop(STOP))
        .child(shared.cleaner_spec(Job::none(args())))
        .child(ChildSpec::service::<PressureHandler>(&shared.handler, args()).stop(STOP));
    let child = ChildSpec::supervisor("memory_manager", spec);
    if let Some(supervisor) = child.as_supervisor() {
        // It was made a few lines above, so nobody has set it.
        let _first = shared.tree.set(supervisor);
    }
    Ok((child, MemoryHandle(shared)))
}

/// What the services share, and what outlives each of them.
struct Shared {
    config: MemoryConfig,
    deps: MemoryDeps,
    origin: Instant,
    caches: Caches,
    history: Table<History>,
    level: watch::Sender<Level>,
    /// Bytes inserted since the last sample.
    inserted: AtomicU64,
    /// Whether what is held has changed since free pages went back.
    has_changed: AtomicBool,
    owners: Mutex<Vec<(u64, Arc<dyn Reclaim>)>>,
    last_owner: AtomicU64,
    book: Table<Book>,
    monitor: Address<monitor::Message>,
    cache_manager: Address<caches::Message>,
    cleaner: Address<()>,
    handler: Address<pressure::Message>,
    /// Who starts the cleaner.
    tree: OnceLock<Supervisor>,
}

impl Shared {
    fn new(config: MemoryConfig, deps: MemoryDeps) -> Self {
        let origin = Instant::now();
        Self {
            config,
            origin,
            caches: Caches::new(&config.caches, &deps.accounts, origin),
            deps,
            history: Table::new("memory_history", History::new()),
            level: watch::Sender::new(Level::Normal),
            inserted: AtomicU64::new(0),
            has_changed: AtomicBool::new(false),
            owners: Mutex::default(),
            last_owner: AtomicU64::new(0),
            book: Table::new("memory_actions", Book::default()),
            monitor: Address::new("memory_monitor", MAILBOX),
            cache_manager: Address::new("memory_cache_manager", MAILBOX),
            cleaner: Address::new("memory_cleaner", 1),
            handler: Address::new("memory_pressure_handler", MAILBOX),
            tree: OnceLock::new(),
        }
    }

    fn cleaner_spec(&self, job: Job) -> ChildSpec {
        ChildSpec::service::<Cleaner>(&self.cleaner, job).restart(Restart::Temporary).stop(STOP)
    }

    fn owners(&self) -> Vec<Arc<dyn Reclaim>> {
        self.register().iter().map(|(_, owner)| Arc::clone(owner)).collect()
    }

    fn register(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn Reclaim>)>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a sample without waiting for it.
    fn look(&self) {
        // A full mailbox holds requests for samples; a monitor that isn't up samples when it is.
        let _sampled_anyway = self.monitor.send_now(monitor::Message::Look);
    }
}

/// The way to the memory manager. Cheap to clone.
#[derive(Clone)]
pub struct MemoryHandle(Arc<Shared>);

impl MemoryHandle {
    /// The accounts.
    pub fn accounts(&self) -> &Accounts {
        &self.0.deps.accounts
    }

    /// The three caches. Reading and writing them waits for no service.
    pub fn caches(&self) -> &Caches {
        &self.0.caches
    }

    /// The bytes that may be used.
    pub fn budget_bytes(&self) -> u64 {
        self.0.config.budget_bytes
    }

    /// The level at the last sample.
    pub fn level(&self) -> Level {
        *self.0.level.borrow()
    }

    /// The level, for who wants to know when it changes.
    pub fn watch_level(&self) -> watch::Receiver<Level> {
        self.0.level.subscribe()
    }

    /// The last samples. Waits for nobody.
    pub fn history(&self) -> Arc<History> {
        Arc::clone(self.0.history.snapshot().value())
    }

    /// How much of the budget is used, in percent, at the last sample. `None` before the first.
    pub fn percent_used(&self) -> Option<f64> {
        let history = self.history();
        history.latest().map(|sample| sample.percent_of(self.budget_bytes()))
    }

    /// Says that so many bytes came in. When they have added up to `insertion_bytes` since the
    /// last sample, one is taken at once. Never waits.
    pub fn inserted(&self, bytes: u64) {
        let limit = self.0.config.insertion_bytes;
        let before = self.0.inserted.fetch_add(bytes, Ordering::Relaxed);
        if before < limit && before.saturating_add(bytes) >= limit {
            self.0.look();
        }
    }

    /// Says that something came, went, or took another's place: what that left free between what
    /// stays goes back to the system before the next sample that is due. Never waits.
    pub fn changed(&self) {
        self.0.has_changed.store(true, Ordering::Relaxed);
    }

    /// Takes a sample now.
    pub async fn sample(&self) -> Result<Sample, CallError> {
        self.0.monitor.call(ANSWER_WITHIN, monitor::Message::Sample).await
    }

    /// Has an owner asked when memory is wanted back, until the guard is dropped.
    pub fn register(&self, owner: Arc<dyn Reclaim>) -> Registered {
        let id = self.0.last_owner.fetch_add(1, Ordering::Relaxed);
        self.0.register().push((id, owner));
        Registered { shared: Arc::clone(&self.0), id }
    }

    /// Starts the cleaner for one cleanup, and waits for its report; `within` includes the wait
    /// for one that is under way. Of several that wait, any may be next.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop a cleanup that has begun.
    pub async fn request_cleanup(
        &self,
        cleanup: Cleanup,
        within: Duration,
    ) -> Result<CleanupReport, CleanupError> {
        cleaner::request(&self.0, cleanup, within).await
    }

    /// Empties caches, and says what that freed. Owners that are part of one are asked when
    /// pressure empties it, and not by this.
    pub async fn clear(&self, kinds: &[CacheKind]) -> Result<Freed, CallError> {
        let kinds = kinds.to_vec();
        self.0.cache_manager.call(ANSWER_WITHIN, |reply| caches::Message::Clear(kinds, reply)).await
    }

    /// How each cache is doing, swept just before.
    pub async fn cache_stats(&self) -> Result<Vec<(CacheKind, CacheStats)>, CallError> {
        self.0.cache_manager.call(ANSWER_WITHIN, caches::Message::Stats).await
    }

    /// Has owners make smaller what is cold.
    pub async fn compress(&self, compression: Compression) -> Result<Relief, PressureError> {
        self.relieve_by(|reply| pressure::Message::Compress(compression, reply)).await
    }

    /// Does what a level asks for, whatever the level is.
    pub async fn relieve(&self, level: Level) -> Result<Relief, PressureError> {
        self.relieve_by(|reply| pressure::Message::Relieve(level, reply)).await
    }

    /// Does everything that there is against pressure: for whoever can't get memory.
    pub async fn emergency_cleanup(&self) -> Result<Relief, PressureError> {
        self.relieve(Level::Critical).await
    }

    /// What a level's actions would free now, as far as that can be known: what is in the caches,
    /// and what a dry run counts. What compression or free pages yield isn't known before.
    pub async fn estimate(&self, level: Level) -> Result<Freed, PressureError> {
        let within = self.0.config.action_within;
        let answer =
            self.0.handler.call(within, |reply| pressure::Message::Estimate(level, reply)).await;
        Ok(answer?)
    }

    /// The last actions against pressure, the oldest first. Waits for nobody.
    pub fn actions(&self) -> Vec<ActionRecord> {
        self.0.book.snapshot().log.iter().cloned().collect()
    }

    /// The four services, each with those that it needs, as
    /// [`Dependencies::new`](astscope_supervision::Dependencies::new) takes them. The pressure
    /// handler needs a cleaner that can be started, not one that runs: its edge goes to the cache
    /// manager, after which the cleaner stands.
    pub fn needs(&self) -> [(ChildRef, &'static [&'static str]); 4] {
        let shared = &self.0;
        [
            (shared.monitor.child(), &[]),
            (shared.cache_manager.child(), &["memory_monitor"]),
            (shared.cleaner.child(), &["memory_cache_manager"]),
            (shared.handler.child(), &["memory_cache_manager"]),
        ]
    }

    async fn relieve_by(
        &self,
        message: impl FnOnce(pressure::ReliefReply) -> pressure::Message,
    ) -> Result<Relief, PressureError> {
        let n_actions = 8; // more than any level has
        let within = self.0.config.action_within * n_actions;
        self.0.handler.call(within, message).await?
    }
}

impl fmt::Debug for MemoryHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryHandle")
            .field("level", &self.level())
            .field("latest", &self.history().latest())
            .finish_non_exhaustive()
    }
}

/// An owner's entry in the list of those who are asked. Dropping it takes the owner out.
#[must_use = "the owner is no longer asked when this is dropped"]
pub struct Registered {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut owners = self.shared.register();
        let at = owners.iter().position(|(id, _)| *id == self.id);
        let gone = at.map(|at| owners.remove(at));
        drop(owners);
        drop(gone); // a user's code, outside the lock
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("id", &self.id).finish_non_exhaustive()
    }
}
