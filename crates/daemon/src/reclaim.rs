//! What a workspace gives back when memory is short: whatever it remembers only to answer sooner.
//!
//! Here and not beside what is remembered, because none of those crates knows the memory manager.

use crate::records::Records;
use astscope_memory_manager::service::{MemoryHandle, Registered};
use astscope_memory_manager::{Account, CacheKind, Class, Cleanup, Freed, Reclaim};
use astscope_pattern_matcher::service::PatternMatcherHandle;
use astscope_querying::service::QueryCache;
use astscope_synchronization::service::SyncHandle;
use std::sync::Arc;
use std::time::Duration;

/// Caches that are accounted for and asked back, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Reclaimed {
    _held: [(Account, Registered); 3],
}

impl Reclaimed {
    pub(crate) fn register(
        memory: &MemoryHandle,
        results: &QueryCache<Records>,
        patterns: &PatternMatcherHandle,
        sync: &SyncHandle,
    ) -> Self {
        let (results, patterns, sync) = (results.clone(), patterns.clone(), sync.clone());
        let results = Cache {
            name: "query results",
            kind: CacheKind::Query,
            forget: move |idle, dry_run| {
                let gone = if dry_run { results.idle(idle) } else { results.forget(idle) };
                (gone.entries, gone.bytes)
            },
        };
        let patterns = Cache {
            name: "compiled patterns",
            kind: CacheKind::Analysis,
            forget: move |idle, dry_run| patterns.forget_compiled(idle, dry_run),
        };
        let walks = Cache {
            name: "remembered walks",
            kind: CacheKind::Analysis,
            forget: move |idle, dry_run| sync.forget_walks(idle, dry_run),
        };
        Self { _held: [enter(memory, results), enter(memory, patterns), enter(memory, walks)] }
    }
}

fn enter(memory: &MemoryHandle, owner: impl Reclaim + 'static) -> (Account, Registered) {
    let owner = Arc::new(owner);
    let counted = Arc::clone(&owner);
    let everything = Cleanup::older_than(Duration::ZERO).dry_run();
    let count = move || counted.reclaim(everything, &|| false).bytes;
    (memory.accounts().counted(owner.name(), Class::Cache, count), memory.register(owner))
}

/// A cache, whole under a lock that is held shortly: it needs no chance to stop.
struct Cache<F> {
    name: &'static str,
    kind: CacheKind,
    /// Drops what wasn't used in this long, or only counts it: entries, and their bytes.
    forget: F,
}

impl<F: Fn(Duration, bool) -> (usize, usize) + Send + Sync> Reclaim for Cache<F> {
    fn name(&self) -> &str {
        self.name
    }

    fn class(&self) -> Class {
        Class::Cache
    }

    fn cache(&self) -> Option<CacheKind> {
        Some(self.kind)
    }

    fn reclaim(&self, cleanup: Cleanup, _: &dyn Fn() -> bool) -> Freed {
        let (items, bytes) = (self.forget)(cleanup.max_age, cleanup.dry_run);
        Freed { bytes: bytes as u64, items: items as u64 }
    }
}
