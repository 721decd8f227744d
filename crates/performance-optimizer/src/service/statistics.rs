//! The statistics collector: counters, and percentiles of what was timed lately.
//!
//! Whoever reports never waits: a report goes into a bounded mailbox, or is dropped and counted.
//! The ledger stands above the service, which is its only writer, so a crash loses what waits in
//! the mailbox at most.

use super::Shared;
use crate::{Percentiles, Window};
use astscope_memory_manager::{CacheKind, CacheStats};
use astscope_supervision::{Address, CallError, Ctx, Exit, Init, Mailbox, Reply, Service};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Reports that wait: a burst of a thousand queries, in 32 KiB.
const REPORTS: usize = 1024;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counter {
    /// Items of batches that were worked on.
    ItemsDone,
    /// Items of batches that weren't, for whatever reason.
    ItemsFailed,
    /// Facts that were computed.
    FactsLoaded,
    /// Facts that were known already.
    FactsAvoided,
    /// Cycles in which memory was asked back.
    Relieved,
    /// Bytes that cycles freed.
    BytesFreed,
}

impl Counter {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::ItemsDone,
        Self::ItemsFailed,
        Self::FactsLoaded,
        Self::FactsAvoided,
        Self::Relieved,
        Self::BytesFreed,
    ];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ItemsDone => "items_done",
            Self::ItemsFailed => "items_failed",
            Self::FactsLoaded => "facts_loaded",
            Self::FactsAvoided => "facts_avoided",
            Self::Relieved => "relieved",
            Self::BytesFreed => "bytes_freed",
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timing {
    /// One query, from its request to its last result. Reported by who answers queries.
    Query,
    /// One item of a batch.
    Item,
    /// One chunk of items.
    Chunk,
    /// The facts of one file.
    Facts,
    /// One look at the memory, with what followed.
    Cycle,
}

impl Timing {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Query, Self::Item, Self::Chunk, Self::Facts, Self::Cycle];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Item => "item",
            Self::Chunk => "chunk",
            Self::Facts => "facts",
            Self::Cycle => "cycle",
        }
    }
}

/// What was counted and measured so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    /// Sums since the beginning.
    pub counters: Vec<(Counter, u64)>,
    /// Percentiles of the last timings.
    pub timings: Vec<(Timing, Percentiles)>,
    /// How the memory manager's caches are doing.
    pub caches: Vec<(CacheKind, CacheStats)>,
    /// Reports that were dropped, since there was no room or nobody to take them.
    pub n_dropped: u64,
}

impl Statistics {
    /// One of the sums.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counters.iter().find_map(|(of, n)| (*of == counter).then_some(*n)).unwrap_or(0)
    }

    /// Percentiles of one kind.
    pub fn timing(&self, timing: Timing) -> Percentiles {
        let found = self.timings.iter().find_map(|(of, shown)| (*of == timing).then_some(*shown));
        found.unwrap_or_default()
    }
}

pub(super) enum Message {
    Count(Counter, u64),
    Time(Timing, Duration),
    Read(Reply<Statistics>),
}

/// Where everybody may report to. Cheap to clone; reporting never waits.
#[derive(Clone, Debug)]
pub struct Meter {
    address: Address<Message>,
    n_dropped: Arc<AtomicU64>,
}

impl Meter {
    pub(super) fn new(id: &str) -> Self {
        Self { address: Address::new(id, REPORTS), n_dropped: Arc::default() }
    }

    pub(super) fn address(&self) -> &Address<Message> {
        &self.address
    }

    /// Adds to a sum.
    pub fn count(&self, counter: Counter, n: u64) {
        self.report(Message::Count(counter, n));
    }

    /// Adds a timing.
    pub fn time(&self, timing: Timing, took: Duration) {
        self.report(Message::Time(timing, took));
    }

    /// Reports that were dropped so far.
    pub fn n_dropped(&self) -> u64 {
        self.n_dropped.load(Ordering::Relaxed)
    }

    pub(super) async fn read(&self, within: Duration) -> Result<Statistics, CallError> {
        self.address.call(within, Message::Read).await
    }

    fn report(&self, message: Message) {
        if self.address.send_now(message).is_err() {
            self.n_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was reported.
pub(super) struct Ledger(Mutex<Sums>);

struct Sums {
    counters: [u64; Counter::ALL.len()],
    windows: [Window; Timing::ALL.len()],
}

impl Ledger {
    pub(super) fn new(window: usize) -> Self {
        let windows = Timing::ALL.map(|_| Window::new(window));
        Self(Mutex::new(Sums { counters: [0; Counter::ALL.len()], windows }))
    }

    fn open(&self) -> MutexGuard<'_, Sums> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct StatisticsCollector(Arc<Shared>);

impl Service for StatisticsCollector {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
        let ledger = &self.0.ledger;
        while let Some(message) = mailbox.recv().await {
            match message {
                Message::Count(counter, n) => {
                    let sum = &mut ledger.open().counters[counter as usize];
                    *sum = sum.saturating_add(n);
                }
                Message::Time(timing, took) => ledger.open().windows[timing as usize].push(took),
                Message::Read(reply) => reply.send(self.read()),
            }
        }
        Ok(())
    }
}

impl StatisticsCollector {
    fn read(&self) -> Statistics {
        let Shared { ledger, meter, deps, .. } = &*self.0;
        let sums = ledger.open();
        let counters = Counter::ALL.map(|counter| (counter, sums.counters[counter as usize]));
        let timings =
            Timing::ALL.map(|timing| (timing, sums.windows[timing as usize].percentiles()));
        drop(sums);
        let caches = CacheKind::ALL.map(|kind| (kind, deps.memory.caches().stats(kind)));
        Statistics {
            counters: counters.into(),
            timings: timings.into(),
            caches: caches.into(),
            n_dropped: meter.n_dropped(),
        }
    }
}
