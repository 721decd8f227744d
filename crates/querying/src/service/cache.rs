//! `cache`: what queries found in which files, so that a query that is asked again searches only
//! the files that have changed since.
//!
//! What it holds stands above the service: a crash costs nothing, and a query waits for no mailbox.
//! A query takes what is known of it once, when it begins, and puts what it has learned back once,
//! when it ends; in between its threads share nothing with other queries. The service sweeps what
//! has expired, answers how the cache stands, and clears it.

use crate::cache::{
    CacheConfig, CacheStats, Forgotten, Known, QueryKey, Remember, Removed, Results, forgotten,
};
use crate::execute::Interrupt;
use astscope_repository::ScopedFile;
use astscope_supervision::{
    Address, CallError, ChildRef, ChildSpec, Ctx, Exit, Init, Mailbox, Reply, Service,
};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Questions that may wait for the service. Only people ask it.
const MAILBOX: usize = 16;

/// The results of queries. Cheap to clone, valid before the first start and across all restarts.
pub struct QueryCache<F> {
    shared: Arc<Shared<F>>,
    address: Address<CacheMessage>,
}

struct Shared<F> {
    origin: Instant,
    config: CacheConfig,
    results: Mutex<Results<F>>,
}

impl<F: Remember> QueryCache<F> {
    /// An empty cache, whose service isn't started yet.
    pub fn new(config: CacheConfig) -> Self {
        let results = Mutex::new(Results::new(config.clone()));
        let shared = Arc::new(Shared { origin: Instant::now(), config, results });
        Self { shared, address: Address::new("cache", MAILBOX) }
    }

    /// Begins a query.
    pub fn recall(&self, key: QueryKey) -> Recalled<F> {
        let known = self.shared.with(|results, now| results.get(now, key));
        Recalled {
            cache: self.clone(),
            key,
            known,
            learned: Mutex::default(),
            n_hits: AtomicU64::new(0),
            n_pruned: AtomicU64::new(0),
            n_misses: AtomicU64::new(0),
        }
    }

    /// How the cache stands at this moment. Waits for no service.
    pub fn stats(&self) -> CacheStats {
        self.shared.with(|results, _| results.stats())
    }

    /// How the cache stands, swept just before.
    pub async fn swept_stats(&self, within: Duration) -> Result<CacheStats, CallError> {
        self.address.call(within, CacheMessage::Stats).await
    }

    /// Empties the cache, and its counts.
    pub async fn clear(&self, within: Duration) -> Result<(), CallError> {
        self.address.call(within, CacheMessage::Clear).await
    }

    /// Gives back what nobody asked for in this long: everything, for no time at all. Waits for no
    /// service.
    pub fn forget(&self, idle: Duration) -> Forgotten {
        let removed = self.shared.with(|results, now| results.forget(now, idle));
        forgotten(removed.iter().map(|known| &**known))
    }

    /// What [`forget`](Self::forget) would give back.
    pub fn idle(&self, idle: Duration) -> Forgotten {
        self.shared.with(|results, now| results.idle(now, idle))
    }

    /// The service, to be watched.
    pub fn child(&self) -> ChildRef {
        self.address.child()
    }

    pub(super) fn service(&self) -> ChildSpec {
        ChildSpec::service::<Cache<F>>(&self.address, Arc::clone(&self.shared))
    }
}

impl<F> Clone for QueryCache<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), address: self.address.clone() }
    }
}

impl<F> fmt::Debug for QueryCache<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryCache").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl<F: Remember> Shared<F> {
    /// Does something with the results, under the lock and short.
    fn with<R>(&self, work: impl FnOnce(&mut Results<F>, Duration) -> R) -> R {
        // Nothing that can panic happens between two changes of them.
        let mut results = self.results.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut results, self.origin.elapsed())
    }
}

/// What is known of a query that runs, and what it learns.
pub struct Recalled<F: Remember> {
    cache: QueryCache<F>,
    key: QueryKey,
    known: Arc<Known<F>>,
    /// A map already, so that the query's end is short.
    learned: Mutex<Known<F>>,
    n_hits: AtomicU64,
    /// Hits in files that can't have a match.
    n_pruned: AtomicU64,
    n_misses: AtomicU64,
}

impl<F: Remember> Recalled<F> {
    /// What is found in a file, from memory if that is known. `search` gives what
    /// [`execute`](crate::execute()) asks for, at most `limit` matches; only what is certainly all
    /// that there is in the file is remembered.
    pub fn search(
        &self,
        file: &ScopedFile,
        limit: usize,
        interrupt: &dyn Fn() -> Option<Interrupt>,
        search: impl FnOnce() -> Option<F>,
    ) -> Option<F> {
        if let Some(outcome) = self.known.get(file) {
            let found = outcome.found();
            let counter = if found.is_some() { &self.n_hits } else { &self.n_pruned };
            counter.fetch_add(1, Ordering::Relaxed);
            return found;
        }
        self.n_misses.fetch_add(1, Ordering::Relaxed);
        let found = search();
        // One that was cut, or told to stop, may have left something behind.
        let n_found = found.as_ref().map_or(0, F::n_matches);
        if n_found < limit && interrupt().is_none() {
            let left = self.cache.shared.config.query_bytes_max.saturating_sub(self.known.bytes());
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.learn(file, found.as_ref(), left);
        }
        found
    }

    /// Puts back what was learned, also by a query that came to no good end: what it found in a
    /// file is all that there is. Gives how many files weren't verified since it was known what is
    /// in them.
    pub fn finish(self) -> u64 {
        let Self { cache, key, known, learned, n_hits, n_pruned, n_misses } = self;
        let n_hits = n_hits.into_inner();
        let learned = learned.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What nobody else holds is added to in place.
        drop(known);
        let removed: Removed<F> = cache.shared.with(|results, now| {
            results.count(n_hits + n_pruned.into_inner(), n_misses.into_inner());
            if learned.is_empty() { Vec::new() } else { results.put(now, key, learned) }
        });
        // Outside the lock: it may be large.
        drop(removed);
        n_hits
    }
}

impl<F: Remember> fmt::Debug for Recalled<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recalled").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What the service is asked.
enum CacheMessage {
    Stats(Reply<CacheStats>),
    /// To forget everything, the counts included.
    Clear(Reply<()>),
}

struct Cache<F>(Arc<Shared<F>>);

impl<F: Remember> Service for Cache<F> {
    type Args = Arc<Shared<F>>;
    type Message = CacheMessage;

    async fn init(shared: Arc<Shared<F>>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<CacheMessage>, _: Ctx) -> Result<(), Exit> {
        let Self(shared) = self;
        let mut next = Instant::now() + shared.config.sweep_every;
        loop {
            let removed = tokio::select! {
                message = mailbox.recv() => match message {
                    Some(CacheMessage::Stats(reply)) => {
                        let removed = shared.with(Results::sweep);
                        reply.send(shared.with(|results, _| results.stats()));
                        removed
                    }
                    Some(CacheMessage::Clear(reply)) => {
                        let removed = shared.with(|results, _| results.clear());
                        reply.send(());
                        removed
                    }
                    None => return Ok(()),
                },
                () = sleep_until(next) => {
                    next = Instant::now() + shared.config.sweep_every;
                    shared.with(Results::sweep)
                }
            };
            drop(removed);
        }
    }
}

#[cfg(test)]
mod tests;
