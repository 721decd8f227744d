//! The caches, and the service that keeps them tidy.
//!
//! A read or a write takes a lock for as long as a map needs, and no message is sent. The tables
//! belong to the handle, above the service: when the cache manager crashes nothing is lost, and
//! until the next one is up, what has expired only keeps its bytes a little longer.

use super::{CacheConfig, Shared};
use crate::{Account, Accounts, CacheKind, CacheStats, CacheTable, Class, Freed, Removed};
use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

type Value = Arc<dyn Any + Send + Sync>;

/// Three caches of values of any type, by bytes that name them. Cheap to clone.
///
/// Whoever puts something in says how many bytes it has; they stand in an account for each cache.
#[derive(Clone)]
pub struct Caches(Arc<Inner>);

struct Inner {
    origin: Instant,
    query: Shelf,
    analysis: Shelf,
    cpg: Shelf,
}

struct Shelf {
    table: Mutex<CacheTable<Value>>,
    account: Account,
}

impl Caches {
    pub(super) fn new(config: &CacheConfig, accounts: &Accounts, origin: Instant) -> Self {
        let shelf = |kind: CacheKind| Shelf {
            table: Mutex::new(CacheTable::new(config.entries_max, config.idle_max(kind))),
            account: accounts.open(format!("{} cache", kind.name()), Class::Cache),
        };
        Self(Arc::new(Inner {
            origin,
            query: shelf(CacheKind::Query),
            analysis: shelf(CacheKind::Analysis),
            cpg: shelf(CacheKind::Cpg),
        }))
    }

    /// Puts a value of so many bytes in, in place of the one before.
    pub fn put(&self, kind: CacheKind, key: &[u8], value: Arc<impl Any + Send + Sync>, bytes: u64) {
        self.remove(kind, |table, now| table.put(now, key, value, bytes));
    }

    /// The value behind a key, which then counts as used. `None` if there is none, if it was idle
    /// for too long, or if it is of another type.
    pub fn get<T: Any + Send + Sync>(&self, kind: CacheKind, key: &[u8]) -> Option<Arc<T>> {
        let now = self.now();
        self.shelf(kind)
            .with(|table| table.get_with(now, key, |value| Arc::clone(value).downcast::<T>().ok()))
    }

    /// How a cache is doing.
    pub fn stats(&self, kind: CacheKind) -> CacheStats {
        self.shelf(kind).with(|table| table.stats())
    }

    /// Empties a cache.
    pub(super) fn clear(&self, kind: CacheKind) -> Freed {
        self.remove(kind, |table, _| table.clear())
    }

    /// Takes out what has expired.
    pub(super) fn sweep(&self) -> Freed {
        CacheKind::ALL.map(|kind| self.remove(kind, CacheTable::sweep)).into_iter().sum()
    }

    /// What [`sweep`](Self::sweep) would free.
    pub(super) fn expired(&self) -> Freed {
        let now = self.now();
        CacheKind::ALL
            .map(|kind| self.shelf(kind).with(|table| table.expired(now)))
            .into_iter()
            .sum()
    }

    /// Does what takes values out, and drops them when the lock is free again.
    fn remove(
        &self,
        kind: CacheKind,
        work: impl FnOnce(&mut CacheTable<Value>, Duration) -> Removed<Value>,
    ) -> Freed {
        let now = self.now();
        let shelf = self.shelf(kind);
        let removed = shelf.with(|table| {
            let removed = work(table, now);
            shelf.account.set(table.stats().bytes);
            removed
        });
        removed.freed
    }

    fn now(&self) -> Duration {
        self.0.origin.elapsed()
    }

    fn shelf(&self, kind: CacheKind) -> &Shelf {
        match kind {
            CacheKind::Query => &self.0.query,
            CacheKind::Analysis => &self.0.analysis,
            CacheKind::Cpg => &self.0.cpg,
        }
    }
}

impl Shelf {
    fn with<R>(&self, work: impl FnOnce(&mut CacheTable<Value>) -> R) -> R {
        work(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(CacheKind::ALL.map(|kind| (kind.name(), self.stats(kind)))).finish()
    }
}

pub(super) enum Message {
    /// Empty these, and say what that freed.
    Clear(Vec<CacheKind>, Reply<Freed>),
    /// Sweep, and say how each is doing.
    Stats(Reply<Vec<(CacheKind, CacheStats)>>),
}

pub(super) struct CacheManager(Arc<Shared>);

impl Service for CacheManager {
    type Args = Arc<Shared>;
    type Message = Message;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
        let caches = &self.0.caches;
        let mut ticks = interval(self.0.config.caches.sweep_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                message = mailbox.recv() => match message {
                    None => return Ok(()),
                    Some(Message::Clear(kinds, reply)) => {
                        reply.send(kinds.into_iter().map(|kind| caches.clear(kind)).sum());
                    }
                    Some(Message::Stats(reply)) => {
                        caches.sweep();
                        reply.send(CacheKind::ALL.map(|kind| (kind, caches.stats(kind))).into());
                    }
                },
                _ = ticks.tick() => {
                    caches.sweep();
                }
            }
        }
    }
}
