//! Who parses which file right now, so that two queries that meet a new tree share the work.

use astscope_syntax::Language;
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A waiting query looks this often whether it was given up.
const RECHECK: Duration = Duration::from_millis(20);

type Key = (Arc<Path>, Language);

/// The claimed files.
#[derive(Debug, Default)]
pub(crate) struct Claims {
    taken: Mutex<HashSet<Key>>,
    released: Condvar,
}

/// The right to parse a file and commit it. Given back by dropping.
#[derive(Debug)]
pub(crate) struct Claim<'c> {
    claims: &'c Claims,
    key: Key,
}

impl Claims {
    /// Claims a file, unless somebody else has it.
    pub(crate) fn claim(&self, path: &Arc<Path>, language: Language) -> Option<Claim<'_>> {
        let key = (Arc::clone(path), language);
        let is_new = self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        is_new.then(|| Claim { claims: self, key })
    }

    /// Claims a file as soon as nobody else has it. Whoever waits must hold no claim itself.
    /// `None` when `stop` says so.
    pub(crate) fn wait(
        &self,
        path: &Arc<Path>,
        language: Language,
        stop: &(dyn Fn() -> bool + Sync),
    ) -> Option<Claim<'_>> {
        let key = (Arc::clone(path), language);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while taken.contains(&key) {
            if stop() {
                return None;
            }
            let waited = self.released.wait_timeout(taken, RECHECK);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        taken.insert(key.clone());
        Some(Claim { claims: self, key })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.claims.taken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        self.claims.released.notify_all();
    }
}
