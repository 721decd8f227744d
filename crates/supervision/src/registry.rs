//! Names, within a scope.
//!
//! There is no global registry: a [`Registry`] is a value that whoever opens a scope makes and
//! hands down, so two workspaces can use the same names and tests run in parallel.

use crate::{Ctx, TreePath};
use rustc_hash::{FxHashMap, FxHashSet};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unique names and what they stand for: an address, a handle, metadata. Cheap to clone.
///
/// An entry belongs to the incarnation that made it and is gone before that incarnation's end is
/// reported. Whoever looks it up gets a clone, which is good for as long as it says.
///
/// Keys are hashed and compared, and values cloned, under the registry's lock: none of that may
/// call the registry.
pub struct Registry<K, V> {
    names: Arc<Mutex<Names<K, V>>>,
}

struct Names<K, V> {
    entries: FxHashMap<K, Entry<V>>,
    /// What each incarnation has entered, by its serial number. One set for each, so that what is
    /// to be done at its end doesn't grow with every name that it enters and takes back.
    of: FxHashMap<u64, FxHashSet<K>>,
}

struct Entry<V> {
    value: V,
    owner: u64,
    path: TreePath,
}

impl<K, V> Registry<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + 'static,
{
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a name for as long as this incarnation lives. Refused if the name is taken; an
    /// incarnation may change the value of its own.
    pub fn register(&self, ctx: &Ctx, key: K, value: V) -> Result<(), NameTaken> {
        let owner = ctx.serial();
        let (replaced, is_first) = {
            let mut names = self.lock();
            if let Some(entry) = names.entries.get(&key)
                && entry.owner != owner
            {
                return Err(NameTaken { owner: entry.path.clone() });
            }
            let is_first = !names.of.contains_key(&owner);
            names.of.entry(owner).or_default().insert(key.clone());
            let entry = Entry { value, owner, path: ctx.path().clone() };
            (names.entries.insert(key, entry), is_first)
        };
        drop(replaced); // somebody's code, so not under the lock
        if is_first {
            let names = Arc::downgrade(&self.names);
            ctx.at_end(move || {
                if let Some(names) = names.upgrade() {
                    Self { names }.forget_all(owner);
                }
            });
        }
        Ok(())
    }

    /// Takes back a name that this incarnation has entered. `false` if it hadn't.
    pub fn unregister(&self, ctx: &Ctx, key: &K) -> bool {
        let forgotten = {
            let mut names = self.lock();
            if names.entries.get(key).is_none_or(|entry| entry.owner != ctx.serial()) {
                return false;
            }
            if let Some(own) = names.of.get_mut(&ctx.serial()) {
                own.remove(key);
            }
            names.entries.remove(key)
        };
        drop(forgotten);
        true
    }

    /// What the name stands for.
    pub fn whereis(&self, key: &K) -> Option<V> {
        self.lock().entries.get(key).map(|entry| entry.value.clone())
    }

    /// All names and what they stand for, in no order.
    pub fn entries(&self) -> Vec<(K, V)> {
        let names = self.lock();
        names.entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }

    fn forget_all(&self, owner: u64) {
        let forgotten: Vec<_> = {
            let mut names = self.lock();
            let Names { entries, of } = &mut *names;
            let own = of.remove(&owner).unwrap_or_default();
            own.iter().filter_map(|key| entries.remove(key)).collect()
        };
        drop(forgotten);
    }

    fn lock(&self) -> MutexGuard<'_, Names<K, V>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> Clone for Registry<K, V> {
    fn clone(&self) -> Self {
        Self { names: Arc::clone(&self.names) }
    }
}

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        let names = Names { entries: FxHashMap::default(), of: FxHashMap::default() };
        Self { names: Arc::new(Mutex::new(names)) }
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
