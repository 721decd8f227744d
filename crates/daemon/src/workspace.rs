//! A watched root, and the services that work on it.

use crate::cpu;
use crate::daemon::Daemon;
use crate::foundation::event_bus::{DaemonEvent, EventBus};
use crate::readiness;
use crate::reclaim::Reclaimed;
use crate::records::Records;
use astscope_memory_manager::service::{MemoryConfig, MemoryDeps, MemoryHandle};
use astscope_memory_manager::{Account, Accounts, Class};
use astscope_parsing::service::{ParsingConfig, ParsingDeps, ParsingHandle};
use astscope_pattern_matcher::service::{PatternMatcherConfig, PatternMatcherHandle};
use astscope_performance_optimizer::service::{OptimizerConfig, OptimizerDeps, OptimizerHandle};
use astscope_querying::service::{CacheConfig, ExecutorConfig, ExecutorHandle, QueryCache};
use astscope_repository::service::{RepositoryConfig, RepositoryHandle};
use astscope_repository::{Batch, Committed, Repository};
use astscope_supervision::{
    BreakerConfig, ChildRef, ChildSpec, CircuitBreaker, Dependencies, DependencyError, Emitter,
    TaskSupervisor, TracingObserver, TreePath,
};
use astscope_synchronization::service::{
    CoreCommitter, Drift, Drifted, Events, GuardedDisk, SyncConfig, SyncHandle,
};
use astscope_synchronization::{Committer, RealDisk, Synchronizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    pub(crate) repository: RepositoryHandle,
    pub(crate) memory: MemoryHandle,
    pub(crate) parsing: ParsingHandle,
    pub(crate) patterns: PatternMatcherHandle,
    pub(crate) optimizer: OptimizerHandle,
    pub(crate) executor: ExecutorHandle,
    /// What its queries found.
    pub(crate) results: QueryCache<Records>,
    pub(crate) sync: SyncHandle,
    /// Whether its files are read.
    pub(crate) files: CircuitBreaker,
    /// Runs what somebody waits for once, such as an explicit crawl.
    pub(crate) tasks: TaskSupervisor,
    pub(crate) subtrees: Subtrees,
    /// What it gives back when memory is short.
    _reclaimed: Reclaimed,
    /// What it can't: it has to know what changes.
    _watching: Account,
}

/// Subtrees that are made with their handles.
#[derive(Debug)]
pub(crate) struct Subtrees {
    pub(crate) memory_manager: ChildSpec,
    pub(crate) parsing: ChildSpec,
    pub(crate) performance_optimizer: ChildSpec,
}

impl Workspace {
    /// The `number`th root of the daemon's life.
    ///
    /// # Errors
    /// A service that can't be configured as it is, which is a bug.
    pub(crate) fn new(daemon: &Daemon, number: u64, root: PathBuf) -> Result<Self, String> {
        let id = name(number, &root);
        // For what has no place in the tree of its own.
        let emitter =
            |what| Emitter::new(TreePath::root(&id).child(what), Arc::new(TracingObserver));
        // Each life of a workspace has an epoch of its own, across restarts of the daemon too.
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let stored = Arc::new(Repository::new(u64::try_from(epoch).unwrap_or(u64::MAX)));
        let repository = RepositoryHandle::new(Arc::clone(&stored), RepositoryConfig::default());

        let accounts = Accounts::new();
        let source = &daemon.settings.memory;
        let deps = MemoryDeps {
            release_free_pages: source.release_free_pages.map(|release| Arc::new(release) as _),
            ..MemoryDeps::new(accounts.clone(), Arc::clone(&source.resident))
        };
        let config = MemoryConfig {
            sample_every: source.sample_every,
            ..MemoryConfig::of_budget(source.budget_bytes)
        };
        let (memory_manager, memory) = astscope_memory_manager::service::supervisor(config, deps)
            .map_err(|error| error.to_string())?;

        let deps = ParsingDeps {
            backend: daemon.parsers.backend(),
            runtime: daemon.runtime.clone(),
            emitter: emitter("parsing"),
        };
        let (parsing_services, parsing) =
            astscope_parsing::service::subtree(ParsingConfig::default(), deps)
                .map_err(|error| error.to_string())?;
        // Five in a row and 30 s, as for parsing.
        let row = BreakerConfig::new(Duration::MAX);
        let (disk, files) =
            GuardedDisk::new(RealDisk, row, emitter("files")).map_err(|error| error.to_string())?;

        let seats = daemon.pools.query_execution.clone();
        let is_busy = move || seats.status().is_some_and(|seats| seats.checked_out > 0);
        let deps = OptimizerDeps { memory: memory.clone(), is_busy: Arc::new(is_busy), cpu: None };
        let (performance_optimizer, optimizer) =
            astscope_performance_optimizer::service::supervisor(OptimizerConfig::default(), deps)
                .map_err(|error| error.to_string())?;

        let committer = Accounting {
            events: daemon.events.clone(),
            root: root.clone(),
            core: CoreCommitter::new(repository.clone(), daemon.runtime.clone()),
            repository: repository.clone(),
            memory: memory.clone(),
            text: accounts.open("text", Class::Text),
            trees: accounts.open("trees", Class::Tree),
            indexes: accounts.open("indexes", Class::Index),
        };
        // Not those that match: a disk that hangs keeps them.
        let readers = cpu::pool("read").map_err(|error| error.to_string())?;
        let engine = Synchronizer::new(stored, root.clone(), Arc::new(readers))
            .with_disk(Box::new(disk))
            .with_backend(Arc::new(parsing.clone()))
            .with_committer(Arc::new(TellingFailures {
                events: daemon.events.clone(),
                root: root.clone(),
                committer,
            }));
        let results = QueryCache::new(CacheConfig::default());
        let config = SyncConfig {
            mailbox: REFRESHES_MAX,
            restart_within: RESTART_WITHIN,
            watch: daemon.config.watching(),
            events: daemon.settings.socket.parent().and_then(|runtime_dir| {
                Events::of_kernel(runtime_dir.join("watching").join(number.to_string()))
            }),
            scrub: daemon.config.scrubbing(),
            drifted: tell_drift(daemon.events.clone(), root.clone(), results.clone()),
            seats: Some(daemon.pools.file_watching.clone()),
            repository: Some(repository.watch()),
            crawl_threads: Arc::new(|| cpu::pool("index").map_err(|error| error.to_string())),
        };
        let analysis = Arc::new(daemon.pools.pattern_analysis.clone());
        let patterns = PatternMatcherHandle::new(PatternMatcherConfig::default(), analysis);
        let sync = SyncHandle::new(engine, config);
        Ok(Self {
            _reclaimed: Reclaimed::register(&memory, &results, &patterns, &sync),
            _watching: accounts.counted("watches", Class::Index, {
                let sync = sync.clone();
                move || sync.watching_bytes()
            }),
            patterns,
            files,
            id,
            root,
            repository,
            memory,
            parsing,
            optimizer,
            executor: ExecutorHandle::new(
                ExecutorConfig::default(),
                daemon.pools.query_execution.clone(),
            ),
            results,
            sync,
            tasks: TaskSupervisor::new("task_supervisor"),
            subtrees: Subtrees { memory_manager, parsing: parsing_services, performance_optimizer },
        })
    }

    /// The services that its health is told by, in the order in which the protocol names them.
    pub(crate) fn vital(&self) -> [ChildRef; 4] {
        let Self { repository, patterns, sync, .. } = self;
        [repository.core(), repository.enhanced(), patterns.core(), sync.watcher()]
    }

    /// Whether its services went with their supervisor.
    pub(crate) fn has_gone(&self) -> bool {
        self.executor.child().status().is_gone()
    }

    /// Which of its services needs which.
    pub(crate) fn dependencies(&self) -> Result<Dependencies, DependencyError> {
        Dependencies::new(readiness::services(self))
    }
}

/// Tells the event bus of drift. Results are known by the content that they were found in, not by
/// the tree: those that a damaged one gave are forgotten, with all others.
fn tell_drift(events: EventBus, root: PathBuf, results: QueryCache<Records>) -> Drifted {
    Arc::new(move |drift: &Drift| {
        results.forget(Duration::ZERO);
        let (path, cause) = (drift.path.to_path_buf(), drift.cause.name());
        events.publish(DaemonEvent::Drift { root: root.clone(), path, cause });
    })
}

/// Tells the event bus of what can't be committed. The files are read again by whoever needs them,
/// standing queries among them, until a walk of the root has stored them.
#[derive(Debug)]
struct TellingFailures<C> {
    events: EventBus,
    root: PathBuf,
    committer: C,
}

impl<C: Committer> Committer for TellingFailures<C> {
    fn commit(&self, batch: Batch) -> Result<Committed, String> {
        let n_changes = batch.changes.len();
        self.committer.commit(batch).inspect_err(|why| {
            let (root, why) = (self.root.clone(), why.clone());
            self.events.publish(DaemonEvent::RolledBack { root, n_changes, why });
        })
    }
}

/// Commits, and tells the memory manager and the event bus what came of it.
#[derive(Debug)]
struct Accounting {
    events: EventBus,
    root: PathBuf,
    core: CoreCommitter,
    repository: RepositoryHandle,
    memory: MemoryHandle,
    text: Account,
    trees: Account,
    indexes: Account,
}

impl Committer for Accounting {
    fn commit(&self, batch: Batch) -> Result<Committed, String> {
        let committed = self.core.commit(batch)?;
        let snapshot = self.repository.snapshot();
        let totals = snapshot.totals();
        let before = self.text.bytes() + self.trees.bytes();
        self.text.set(totals.source_bytes);
        self.trees.set(totals.tree_bytes);
        self.indexes.set(snapshot.index_bytes() + self.repository.history_bytes());
        let grown = (totals.source_bytes + totals.tree_bytes).saturating_sub(before);
        if grown > 0 {
            self.memory.inserted(grown);
        }
        self.memory.changed();
        self.events.publish(DaemonEvent::Committed {
            root: self.root.clone(),
            revision: committed.revision.number,
            n_files: committed.records.iter().flatten().count(),
        });
        Ok(committed)
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
    use astscope_repository::Change;
    use astscope_supervision::{Strategy, SupervisorSpec};

    #[derive(Debug)]
    struct Refusing;

    impl Committer for Refusing {
        fn commit(&self, _: Batch) -> Result<Committed, String> {
            Err("the core is gone".to_owned())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_not_committed_is_told() {
        let events = EventBus::new();
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(events.service());
        let tree = tree.start("root").await.unwrap();
        let mut told = events.subscribe();
        let root = PathBuf::from("/src/app");
        let telling = TellingFailures { events, root, committer: Refusing };
        let gone =
            ["/src/app/a.rs", "/src/app/b.rs"].map(|path| Change::Remove(Path::new(path).into()));
        assert!(telling.commit(gone.into_iter().collect()).is_err());
        let event = told.recv().await.unwrap().0.event;
        let told = (event.name(), event.about(), event.to_string());
        let expected =
            ("rolled_back", "/src/app".to_owned(), "2 changes: the core is gone".to_owned());
        assert_eq!(told, expected);
        tree.shutdown().await;
    }

    #[test]
    fn a_root_has_a_name_that_the_tree_takes() {
        assert_eq!(name(1, Path::new("/src/my app")), "1-my_app");
        assert_eq!(name(2, Path::new("/")), "2-");
        assert_eq!(name(3, Path::new("/ä/ü")), "3-_");
    }
}
