//! A tree with the subtree in it, whose memory is what the test says.
#![expect(clippy::unwrap_used, clippy::panic, reason = "support of tests")]

use astscope_memory_manager::service::{
    ActionRecord, MemoryConfig, MemoryDeps, MemoryHandle, Registered, supervisor,
};
use astscope_memory_manager::{Accounts, CacheKind, Class, Cleanup, Compression, Freed, Reclaim};
use astscope_supervision::{
    ChildRef, EventKind, Fault, Point, Probe, Recorder, Root, Strategy, Supervisor, SupervisorSpec,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

/// A budget of which a percent is a round number of bytes.
pub(crate) const BUDGET: u64 = 100 << 20;

pub(crate) struct House {
    pub(crate) root: Root,
    pub(crate) memory: MemoryHandle,
    pub(crate) probe: Probe,
    pub(crate) recorder: Arc<Recorder>,
    resident: Arc<AtomicU64>,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(MemoryConfig::of_budget(BUDGET), |_| {}).await
    }

    /// One whose dependencies are changed before the start.
    pub(crate) async fn with(config: MemoryConfig, change: impl FnOnce(&mut MemoryDeps)) -> Self {
        let resident = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&resident);
        let read = Arc::new(move || Some(shown.load(Ordering::Relaxed)));
        let mut deps = MemoryDeps::new(Accounts::new(), read);
        change(&mut deps);
        let (child, memory) = supervisor(config, deps).unwrap();
        let (probe, recorder) = (Probe::new(), Recorder::new());
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .child(child)
            .probe(probe.clone())
            .observer(Arc::<Recorder>::clone(&recorder));
        let root = spec.start("root").await.unwrap();
        settle().await;
        recorder.take();
        Self { root, memory, probe, recorder, resident }
    }

    pub(crate) fn register(&self, owner: &Arc<Owner>) -> Registered {
        self.memory.register(Arc::<Owner>::clone(owner))
    }

    /// Makes the process use so much of its budget.
    pub(crate) fn use_percent(&self, percent: u64) {
        self.resident.store(BUDGET / 100 * percent, Ordering::Relaxed);
    }

    /// The same, has it measured, and waits until whatever follows is done.
    pub(crate) async fn feel(&self, percent: u64) {
        self.use_percent(percent);
        self.memory.sample().await.unwrap();
        settle().await;
    }

    /// Puts an entry of 10, 20 and 30 bytes into the three caches.
    pub(crate) fn fill(&self) {
        for (kind, bytes) in CacheKind::ALL.into_iter().zip([10, 20, 30]) {
            self.memory.caches().put(kind, b"key", Arc::new(bytes), bytes);
        }
    }

    /// The names of the caches that aren't empty.
    pub(crate) fn filled(&self) -> String {
        let filled =
            CacheKind::ALL.into_iter().filter(|kind| self.memory.caches().stats(*kind).entries > 0);
        filled.map(CacheKind::name).collect::<Vec<_>>().join(" ")
    }

    /// What was done against pressure so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        let line = |record: &ActionRecord| {
            format!("{}: {}: {}", record.level.number(), record.action, record.freed.bytes)
        };
        self.memory.actions().iter().map(line).collect()
    }

    pub(crate) async fn subtree(&self) -> Supervisor {
        self.root.supervisor().supervisor_at("memory_manager").await.unwrap()
    }

    pub(crate) async fn child(&self, id: &str) -> Option<ChildRef> {
        self.subtree().await.child_at(id).await
    }

    /// The ids of the subtree's children, oldest first.
    pub(crate) async fn children(&self) -> Vec<String> {
        let children = self.subtree().await.which_children().await.unwrap();
        children.iter().rev().map(|child| child.id.to_string()).collect()
    }

    /// Makes a service panic, and says who was started then, in order.
    pub(crate) async fn crash(&self, id: &str) -> Vec<String> {
        self.recorder.take();
        self.probe.arm(id, Point::Run, Fault::Panic, 1);
        settle().await;
        self.started()
    }

    /// Who was started since the last time.
    pub(crate) fn started(&self) -> Vec<String> {
        let events = self.recorder.take();
        let started = events.iter().filter(|e| matches!(e.kind, EventKind::Started { .. }));
        started.map(|e| e.path.as_str().rsplit('/').next().unwrap().to_owned()).collect()
    }
}

/// Lets everything that can run, run.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(30)).await;
}

/// An owner of units, each of 100 bytes and of some age.
#[derive(Default)]
pub(crate) struct Owner {
    /// Ages by name.
    pub(crate) units: Mutex<BTreeMap<&'static str, Duration>>,
    /// What it was asked.
    asked: Mutex<Vec<String>>,
    /// Which cache it is part of.
    cache: Option<CacheKind>,
    pub(crate) manner: Manner,
    pub(crate) let_go: AtomicBool,
}

/// What it does when it is asked.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Manner {
    #[default]
    Obeys,
    Panics,
    /// Goes on until it is told to stop.
    Dawdles,
    /// Goes on whatever it is told, until it is let go.
    Hangs,
    /// Can compress: 7 bytes.
    Compresses,
}

impl Owner {
    pub(crate) fn who(manner: Manner) -> Arc<Self> {
        Arc::new(Self { manner, ..Self::default() })
    }

    pub(crate) fn with(units: &[(&'static str, u64)]) -> Arc<Self> {
        let units = units.iter().map(|(name, age)| (*name, Duration::from_secs(*age)));
        Arc::new(Self { units: Mutex::new(units.collect()), ..Self::default() })
    }

    /// Part of a cache.
    pub(crate) fn of(cache: CacheKind, units: &[(&'static str, u64)]) -> Arc<Self> {
        let mut owner = Self::with(units);
        Arc::get_mut(&mut owner).unwrap().cache = Some(cache);
        owner
    }

    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn note(&self, line: String) {
        self.asked.lock().unwrap().push(line);
    }
}

impl Reclaim for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn class(&self) -> Class {
        Class::Tree
    }

    fn cache(&self) -> Option<CacheKind> {
        self.cache
    }

    fn reclaim(&self, cleanup: Cleanup, stop: &dyn Fn() -> bool) -> Freed {
        let dry = if cleanup.dry_run { " dry" } else { "" };
        self.note(format!("reclaim {}{dry}", cleanup.max_age.as_secs()));
        match self.manner {
            Manner::Panics => panic!("no units"),
            Manner::Dawdles => {
                while !stop() {
                    std::thread::yield_now();
                }
            }
            Manner::Hangs => {
                while !self.let_go.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            }
            Manner::Obeys | Manner::Compresses => {}
        }
        let mut units = self.units.lock().unwrap();
        let before = units.len();
        let mut kept = units.clone();
        kept.retain(|_, age| *age < cleanup.max_age);
        let items = (before - kept.len()) as u64;
        if !cleanup.dry_run {
            *units = kept;
        }
        Freed { bytes: items * 100, items }
    }

    fn compress(&self, compression: Compression, _: &dyn Fn() -> bool) -> Option<Freed> {
        if self.manner != Manner::Compresses {
            return None;
        }
        let (idle, accesses) = (compression.idle.as_secs(), compression.accesses_below);
        self.note(format!("compress {idle} {accesses}"));
        Some(Freed { bytes: 7, items: 1 })
    }
}
