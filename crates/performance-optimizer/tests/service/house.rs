//! A tree with the subtree and the memory manager in it.
#![expect(clippy::unwrap_used, reason = "support of tests")]

use astscope_memory_manager::service::{self as memory, MemoryConfig, MemoryDeps, MemoryHandle};
use astscope_memory_manager::{Accounts, Class, Cleanup, Compression, Freed, Reclaim};
use astscope_performance_optimizer::service::{
    OptimizerConfig, OptimizerDeps, OptimizerHandle, supervisor,
};
use astscope_repository::{FileRecord, FileStamp, NewFile, Repository};
use astscope_supervision::{
    ChildRef, CpuPool, EventKind, Fault, Point, Probe, Recorder, Root, Strategy, SupervisorSpec,
};
use astscope_syntax::{
    ContentId, KindTable, Language, NodeFlags, ParsedFile, ParsedTree, TextRange, TreeBuilder,
};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

const BUDGET: u64 = 100 << 20;

pub(crate) struct House {
    pub(crate) root: Root,
    pub(crate) memory: MemoryHandle,
    pub(crate) optimizer: OptimizerHandle,
    pub(crate) probe: Probe,
    recorder: Arc<Recorder>,
    resident: Arc<AtomicU64>,
    busy: Arc<AtomicBool>,
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(OptimizerConfig::default(), None).await
    }

    pub(crate) async fn with(config: OptimizerConfig, cpu: Option<CpuPool>) -> Self {
        let resident = Arc::new(AtomicU64::new(0));
        let shown = Arc::clone(&resident);
        let read = Arc::new(move || Some(shown.load(Ordering::Relaxed)));
        let deps = MemoryDeps::new(Accounts::new(), read);
        let (first, memory) = memory::supervisor(MemoryConfig::of_budget(BUDGET), deps).unwrap();
        let busy = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&busy);
        let is_busy = Arc::new(move || asked.load(Ordering::Relaxed));
        let deps = OptimizerDeps { memory: memory.clone(), is_busy, cpu };
        let (second, optimizer) = supervisor(config, deps).unwrap();
        let (probe, recorder) = (Probe::new(), Recorder::new());
        let spec = SupervisorSpec::new(Strategy::OneForOne)
            .children([first, second])
            .probe(probe.clone())
            .observer(Arc::<Recorder>::clone(&recorder));
        let root = spec.start("root").await.unwrap();
        settle().await;
        recorder.take();
        Self { root, memory, optimizer, probe, recorder, resident, busy }
    }

    pub(crate) fn use_percent(&self, percent: u64) {
        self.resident.store(BUDGET / 100 * percent, Ordering::Relaxed);
    }

    /// Says whether a query runs.
    pub(crate) fn busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    pub(crate) async fn child(&self, id: &str) -> ChildRef {
        let path = format!("performance_optimizer/{id}");
        self.root.supervisor().child_at(&path).await.unwrap()
    }

    /// Makes a service panic, and says who was started then.
    pub(crate) async fn crash(&self, id: &str) -> Vec<String> {
        self.recorder.take();
        self.probe.arm(id, Point::Run, Fault::Panic, 1);
        settle().await;
        let events = self.recorder.take();
        let started = events.iter().filter(|e| matches!(e.kind, EventKind::Started { .. }));
        started.map(|e| e.path.as_str().rsplit('/').next().unwrap().to_owned()).collect()
    }
}

/// Lets everything that can run, run.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(30)).await;
}

/// Lets everything run that needs no time: what is left to do when a thread is at work, which
/// stops the clock.
pub(crate) async fn yield_often() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// A file of `lines` lines whose tree has a root and a leaf for each of them, the first of which
/// is an error.
pub(crate) fn put(
    repository: &Repository,
    path: &str,
    language: Language,
    lines: u32,
) -> Arc<FileRecord> {
    let kinds = Arc::new(KindTable::new([("end", false), ("node", true)], []));
    let mut builder = TreeBuilder::new(kinds);
    builder.open(1, 0, NodeFlags::NAMED, TextRange::new(0, lines));
    for at in 0..lines {
        let flags = if at == 0 { NodeFlags::ERROR } else { NodeFlags::NAMED };
        builder.open(1, 0, flags, TextRange::new(at, at + 1));
        builder.close();
    }
    builder.close();
    let text = "\n".repeat(lines as usize);
    let content = ContentId::of(text.as_bytes());
    let tree = ParsedTree::new(builder.finish());
    let file = ParsedFile { language, text: text.into(), tree, injections: Vec::new() };
    let mut transaction = repository.begin();
    let path: Arc<Path> = Path::new(path).into();
    let stamp = FileStamp::default();
    let record = transaction.put(NewFile { path, stamp, content, file: Arc::new(file) }).unwrap();
    transaction.commit();
    record
}

/// An owner of memory that writes down what it is asked.
#[derive(Default)]
pub(crate) struct Owner {
    asked: Mutex<Vec<String>>,
    pub(crate) panics: AtomicBool,
}

impl Owner {
    pub(crate) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Reclaim for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn class(&self) -> Class {
        Class::Tree
    }

    fn reclaim(&self, cleanup: Cleanup, _: &dyn Fn() -> bool) -> Freed {
        self.asked.lock().unwrap().push(format!("reclaim {}", cleanup.max_age.as_secs()));
        assert!(!self.panics.load(Ordering::Relaxed), "no units");
        Freed { bytes: 100, items: 1 }
    }

    fn compress(&self, compression: Compression, _: &dyn Fn() -> bool) -> Option<Freed> {
        let (idle, accesses) = (compression.idle.as_secs(), compression.accesses_below);
        self.asked.lock().unwrap().push(format!("compress {idle} {accesses}"));
        Some(Freed { bytes: 7, items: 1 })
    }
}
