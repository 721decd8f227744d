//! Names, within a scope.
//!
//! There is no global registry: a [`Registry`] is a value that whoever opens a scope makes and
//! hands down, so two workspaces can use the same names and tests run in parallel.

use crate::{Ctx, TreePath};
use rustc_hash::FxHashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unique names and what they stand for: an address, a handle, metadata. Cheap to clone.
///
/// An entry belongs to the incarnation that made it and is gone before that incarnation's end is
/// reported. Whoever looks it up gets a clone, which is good for as long as it says.
pub struct Registry<K, V> {
    entries: Arc<Mutex<FxHashMap<K, Entry<V>>>>,
}

struct Entry<V> {
    value: V,
    owner: TreePath,
    incarnation: u64,
}

impl<K, V> Registry<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// An empty one.
    pub fn new() -> Self {
        Self { entries: Arc::default() }
    }

    /// Enters a name for as long as this incarnation lives. Refused if the name is taken; an
    /// incarnation may change the value of its own.
    pub fn register(&self, ctx: &Ctx, key: K, value: V) -> Result<(), NameTaken> {
        let (owner, incarnation) = (ctx.path().clone(), ctx.incarnation());
        {
            let mut entries = self.lock();
            if let Some(entry) = entries.get(&key)
                && (entry.owner != owner || entry.incarnation != incarnation)
            {
                return Err(NameTaken { owner: entry.owner.clone() });
            }
            let entry = Entry { value, owner: owner.clone(), incarnation };
            entries.insert(key.clone(), entry);
        }
        let entries = Arc::downgrade(&self.entries);
        ctx.at_end(move || {
            if let Some(entries) = entries.upgrade() {
                let registry = Self { entries };
                registry.forget(&key, &owner, incarnation);
            }
        });
        Ok(())
    }

    /// Takes back a name that this incarnation has entered. `false` if it hadn't.
    pub fn unregister(&self, ctx: &Ctx, key: &K) -> bool {
        self.forget(key, ctx.path(), ctx.incarnation())
    }

    /// What the name stands for.
    pub fn whereis(&self, key: &K) -> Option<V> {
        self.lock().get(key).map(|entry| entry.value.clone())
    }

    /// All names and what they stand for, in no order.
    pub fn entries(&self) -> Vec<(K, V)> {
        let entries = self.lock();
        entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }

    fn forget(&self, key: &K, owner: &TreePath, incarnation: u64) -> bool {
        let mut entries = self.lock();
        let own = entries
            .get(key)
            .is_some_and(|entry| entry.owner == *owner && entry.incarnation == incarnation);
        let _forgotten = own.then(|| entries.remove(key));
        own
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<K, Entry<V>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for Registry<K, V> {
    fn clone(&self) -> Self {
        Self { entries: Arc::clone(&self.entries) }
    }
}

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self { entries: Arc::default() }
    }
}

impl<K, V> fmt::Debug for Registry<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

/// A name that another incarnation has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name is taken by {owner}")]
pub struct NameTaken {
    /// Whose it is.
    pub owner: TreePath,
}
