//! What everything in the tree shares: handles, counters and the phase, no running thing.

use crate::foundation::config::Config;
use crate::foundation::event_bus::EventBus;
use crate::gateway::Gateway;
use crate::memory::MemorySource;
use crate::observability::EventLog;
use crate::parsers::Parsers;
use crate::readiness::Foundation;
use crate::records::Records;
use crate::telemetry::{self, Measured};
use crate::tree::Pools;
use crate::workspaces::Workspaces;
use astscope_protocol::messages::{Peer, StopParams};
use astscope_querying::service::{CacheConfig, ExecutorConfig, ExecutorHandle, QueryCache};
use astscope_supervision::{Address, Probe, Supervisor};
use rayon::ThreadPool;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What the daemon is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes requests.
    Running,
    /// Finishes the requests in flight, takes no more.
    Draining,
    /// Leaves.
    Stopping,
}

/// What was settled before anything ran.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) socket: PathBuf,
    pub(crate) version: String,
    pub(crate) memory: MemorySource,
    /// Whether clients may end nodes of the tree.
    pub(crate) allow_debug: bool,
}

/// What a daemon is made of.
pub(crate) struct Parts {
    pub(crate) settings: Settings,
    pub(crate) config: Config,
    pub(crate) gateway: Gateway,
    pub(crate) pool: ThreadPool,
    pub(crate) parsers: Parsers,
    pub(crate) pools: Pools,
}

/// Everything that the services share.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) settings: Settings,
    /// What may change while it runs.
    pub(crate) config: Config,
    pub(crate) workspaces: Workspaces,
    pub(crate) gateway: Gateway,
    pub(crate) foundation: Foundation,
    pub(crate) events: EventBus,
    pub(crate) log: EventLog,
    pub(crate) telemetry: Address<Measured>,
    pub(crate) parsers: Parsers,
    pub(crate) pools: Pools,
    /// Runs queries that no workspace serves.
    pub(crate) one_shot: ExecutorHandle,
    /// What they found.
    pub(crate) one_shot_results: QueryCache<Records>,
    /// Prunes and matches. What is read and parsed for a query has threads of its workspace's, so that
    /// a disk that hangs stops nothing but itself, and crawls have their own, so that no query waits
    /// behind one.
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) started: Instant,
    /// Open connections.
    pub(crate) clients: watch::Sender<u32>,
    /// For threads that wait for a service.
    pub(crate) runtime: Handle,
    /// Signals so far that told it to leave: they count across restarts of whoever hears them.
    pub(crate) signals: AtomicU32,
    /// Where faults of the tree's workers are armed.
    pub(crate) probe: Probe,
    /// The root of the tree, once that runs.
    pub(crate) root: OnceLock<Supervisor>,
    /// Requests and crawls under way.
    busy: watch::Sender<u32>,
    /// Milliseconds after `started` of the last sign of life.
    last_activity_ms: AtomicU64,
}

/// A request or crawl under way, while it lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Daemon>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

/// A connected client, while it lives.
#[derive(Debug)]
pub(crate) struct Connected(Arc<Daemon>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.clients.send_modify(|clients| *clients -= 1);
        self.0.touch();
    }
}

impl Daemon {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { settings, config, gateway, pool, parsers, pools } = parts;
        let one_shot =
            ExecutorHandle::new(ExecutorConfig::default(), pools.query_execution.clone());
        let events = EventBus::new();
        Self {
            settings,
            config,
            workspaces: Workspaces::default(),
            gateway,
            foundation: Foundation::default(),
            log: EventLog::new(&events),
            events,
            telemetry: telemetry::address(),
            parsers,
            one_shot,
            one_shot_results: QueryCache::new(CacheConfig::default()),
            pools,
            pool: Arc::new(pool),
            phase: watch::Sender::new(Phase::Running),
            started: Instant::now(),
            clients: watch::Sender::new(0),
            runtime: Handle::current(),
            signals: AtomicU32::new(0),
            probe: Probe::new(),
            root: OnceLock::new(),
            busy: watch::Sender::new(0),
            last_activity_ms: AtomicU64::new(0),
        }
    }

    /// Who answers.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: "astscope".to_owned(), version: self.settings.version.clone() }
    }

    /// Notes a sign of life, for the idle exit.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_activity_ms.fetch_max(now, Ordering::Relaxed);
    }

    /// Counts a piece of work until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.touch();
        self.busy.send_modify(|busy| *busy += 1);
        Busy(Arc::clone(self))
    }

    /// Counts a client until the guard is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.clients.send_modify(|clients| *clients += 1);
        self.touch();
        Connected(Arc::clone(self))
    }

    /// Begins to leave.
    pub(crate) fn stop(&self, params: &StopParams) {
        let phase = if params.drain { Phase::Draining } else { Phase::Stopping };
        self.phase.send_if_modified(|now| {
            let later = *now < phase;
            *now = phase.max(*now);
            later
        });
    }

    /// Whether it stops what runs, rather than a part of it being restarted.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.phase.borrow() == Phase::Stopping
    }

    /// Waits until it has begun to leave.
    pub(crate) async fn leaving(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives in here, so this ends with the phase only.
        let _left = phase.wait_for(|phase| *phase != Phase::Running).await;
    }

    /// Waits until nothing is in flight any more, or nothing is to be waited for.
    pub(crate) async fn drained(&self) {
        let (mut phase, mut busy) = (self.phase.subscribe(), self.busy.subscribe());
        tokio::select! {
            _ = busy.wait_for(|busy| *busy == 0) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
        }
    }

    /// How long there has been no sign of life.
    pub(crate) fn idle_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_activity_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    /// Whether nobody is connected and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        *self.clients.borrow() == 0 && *self.busy.borrow() == 0
    }
}
