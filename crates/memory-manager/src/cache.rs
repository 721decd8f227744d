//! One cache: entries that live as long as they are used, at most so many of them.
//!
//! A plain value without a clock or a lock: whoever calls says what time it is. Idle time is
//! counted from the last access, so that reading keeps an entry (the time to live of a query
//! result that must not get old is its owner's business). At the limit the tenth that was unused
//! for longest goes at once, so that a full cache isn't searched at each insertion. Cache libraries
//! decide by frequency, evict when they see fit, and have clocks of their own that no test can pause.

use crate::Freed;
use rustc_hash::FxHashMap;
use std::time::Duration;

/// What share of a full cache goes at once: one in this many.
const EVICTED_SHARE: usize = 10;

/// A cache by key. A key is bytes, so that whoever has a hash or an id needs no text of it.
#[derive(Debug)]
pub struct CacheTable<V> {
    entries: FxHashMap<Box<[u8]>, Entry<V>>,
    idle_max: Duration,
    entries_max: usize,
    /// Counts accesses: two within one tick of the clock have an order too.
    clock: u64,
    stats: CacheStats,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    used_at: Duration,
    used: u64,
}

/// How a cache is doing. Counters are since its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Entries in it, expired ones too until they are swept.
    pub entries: usize,
    /// Their bytes, as their owners said.
    pub bytes: u64,
    /// Reads that found something.
    pub hits: u64,
    /// Reads that found nothing, or what had expired.
    pub misses: u64,
    /// Entries that went to make room.
    pub evictions: u64,
    /// Entries that went since they were idle.
    pub expirations: u64,
}

impl CacheStats {
    /// The share of reads that found something; `None` before the first.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no 53 bits")]
    pub fn hit_ratio(&self) -> Option<f64> {
        let reads = self.hits + self.misses;
        (reads > 0).then(|| self.hits as f64 / reads as f64)
    }
}

/// Values that left a cache. Dropping them runs their owners' code, which is the caller's to do
/// where it holds no lock.
#[derive(Debug)]
#[must_use = "values are to be dropped outside of any lock"]
pub struct Removed<V> {
    /// The values.
    pub values: Vec<V>,
    /// Their bytes and number.
    pub freed: Freed,
}

impl<V> CacheTable<V> {
    /// An empty cache of at most `entries_max` entries, at least 1, each of which may be idle for
    /// `idle_max`.
    pub fn new(entries_max: usize, idle_max: Duration) -> Self {
        Self {
            entries: FxHashMap::default(),
            idle_max,
            entries_max: entries_max.max(1),
            clock: 0,
            stats: CacheStats::default(),
        }
    }

    /// Puts a value in, in place of the one before. If there is no room, the tenth that was used
    /// longest ago goes first.
    pub fn put(&mut self, now: Duration, key: &[u8], value: V, bytes: u64) -> Removed<V> {
        let mut removed = Removed::none();
        if let Some(old) = self.entries.remove(key) {
            self.take(&mut removed, old);
        } else if self.entries.len() >= self.entries_max {
            removed = self.evict();
        }
        self.clock += 1;
        self.stats.bytes = self.stats.bytes.saturating_add(bytes);
        self.entries.insert(key.into(), Entry { value, bytes, used_at: now, used: self.clock });
        removed
    }

    /// What `pick` makes of the value behind a key. It counts as a hit, and keeps the entry alive,
    /// if that is something.
    pub fn get_with<R>(
        &mut self,
        now: Duration,
        key: &[u8],
        pick: impl FnOnce(&V) -> Option<R>,
    ) -> Option<R> {
        let idle_max = self.idle_max;
        let entry =
            self.entries.get_mut(key).filter(|entry| now.saturating_sub(entry.used_at) < idle_max);
        let found = entry.and_then(|entry| {
            let picked = pick(&entry.value)?;
            self.clock += 1;
            (entry.used_at, entry.used) = (now, self.clock);
            Some(picked)
        });
        let counter = if found.is_some() { &mut self.stats.hits } else { &mut self.stats.misses };
        *counter += 1;
        found
    }

    /// Takes out what has expired.
    pub fn sweep(&mut self, now: Duration) -> Removed<V> {
        let idle_max = self.idle_max;
        let removed = self.remove_where(|entry| now.saturating_sub(entry.used_at) >= idle_max);
        self.stats.expirations += removed.freed.items;
        removed
    }

    /// What [`sweep`](Self::sweep) would take out.
    pub fn expired(&self, now: Duration) -> Freed {
        let is_expired = |entry: &&Entry<V>| now.saturating_sub(entry.used_at) >= self.idle_max;
        self.entries.values().filter(is_expired).map(Entry::weight).sum()
    }

    /// Takes out everything. Counters go on.
    pub fn clear(&mut self) -> Removed<V> {
        self.remove_where(|_| true)
    }

    /// How it is doing.
    pub fn stats(&self) -> CacheStats {
        CacheStats { entries: self.entries.len(), ..self.stats }
    }

    fn evict(&mut self) -> Removed<V> {
        let n = (self.entries_max / EVICTED_SHARE).max(1).min(self.entries.len());
        let mut used: Vec<_> = self.entries.values().map(|entry| entry.used).collect();
        let (_, last, _) = used.select_nth_unstable(n - 1);
        let last = *last;
        let removed = self.remove_where(|entry| entry.used <= last);
        self.stats.evictions += removed.freed.items;
        removed
    }

    fn remove_where(&mut self, goes: impl Fn(&Entry<V>) -> bool) -> Removed<V> {
        let mut removed = Removed::none();
        let gone: Vec<_> = self.entries.extract_if(|_, entry| goes(entry)).collect();
        for (_, entry) in gone {
            self.take(&mut removed, entry);
        }
        removed
    }

    fn take(&mut self, removed: &mut Removed<V>, entry: Entry<V>) {
        self.stats.bytes = self.stats.bytes.saturating_sub(entry.bytes);
        removed.freed += entry.weight();
        removed.values.push(entry.value);
    }
}

impl<V> Entry<V> {
    fn weight(&self) -> Freed {
        Freed { bytes: self.bytes, items: 1 }
    }
}

impl<V> Removed<V> {
    fn none() -> Self {
        Self { values: Vec::new(), freed: Freed::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const IDLE: Duration = Duration::from_mins(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn get(cache: &mut CacheTable<u32>, now: Duration, key: u32) -> Option<u32> {
        cache.get_with(now, &key.to_be_bytes(), |value| Some(*value))
    }

    fn put(cache: &mut CacheTable<u32>, now: Duration, key: u32) -> Vec<u32> {
        let mut gone = cache.put(now, &key.to_be_bytes(), key, 10).values;
        gone.sort_unstable();
        gone
    }

    #[test]
    fn the_entry_after_the_thousandth_evicts_the_oldest_hundred() {
        let mut cache = CacheTable::new(1000, IDLE);
        (0..1000).for_each(|key| assert!(put(&mut cache, at(0), key).is_empty()));
        // Reading makes young: the hundred after these ten go.
        (0..10).for_each(|key| assert_eq!(get(&mut cache, at(0), key), Some(key)));
        assert_eq!(put(&mut cache, at(0), 1000), (10..110).collect::<Vec<_>>());
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.evictions, stats.bytes), (901, 100, 9010));
        assert_eq!(get(&mut cache, at(0), 1000), Some(1000));
        assert_eq!(get(&mut cache, at(0), 10), None);
    }

    #[test]
    fn an_entry_that_is_replaced_evicts_nobody() {
        let mut cache = CacheTable::new(2, IDLE);
        put(&mut cache, at(0), 1);
        put(&mut cache, at(0), 2);
        assert_eq!(put(&mut cache, at(0), 1), [1]);
        assert_eq!(
            (cache.stats().entries, cache.stats().bytes, cache.stats().evictions),
            (2, 20, 0)
        );
    }

    #[test]
    fn idle_entries_miss_and_read_ones_stay() {
        let mut cache = CacheTable::new(1000, IDLE);
        put(&mut cache, at(0), 1);
        put(&mut cache, at(0), 2);
        assert_eq!(get(&mut cache, at(59), 1), Some(1));
        assert_eq!(get(&mut cache, at(118), 1), Some(1), "refreshed by the read");
        assert_eq!(get(&mut cache, at(118), 2), None);
        assert_eq!(get(&mut cache, at(118), 3), None);
        assert_eq!(cache.expired(at(118)), Freed { bytes: 10, items: 1 });
        assert_eq!(cache.sweep(at(118)).values, [2]);
        let stats = cache.stats();
        let expected =
            CacheStats { entries: 1, bytes: 10, hits: 2, misses: 2, evictions: 0, expirations: 1 };
        assert_eq!((stats, stats.hit_ratio()), (expected, Some(0.5)));
    }

    #[test]
    fn clearing_frees_everything_and_keeps_the_counters() {
        let mut cache = CacheTable::new(1000, IDLE);
        (0..5).for_each(|key| drop(put(&mut cache, at(0), key)));
        get(&mut cache, at(0), 1);
        assert_eq!(cache.clear().freed, Freed { bytes: 50, items: 5 });
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.bytes, stats.hits), (0, 0, 1));
        assert_eq!(CacheStats::default().hit_ratio(), None);
    }

    #[test]
    fn what_is_not_what_was_asked_for_is_a_miss_and_grows_old() {
        let mut cache = CacheTable::new(1000, IDLE);
        put(&mut cache, at(0), 1);
        assert_eq!(cache.get_with(at(30), &1_u32.to_be_bytes(), |_| None::<()>), None);
        assert_eq!(cache.stats().misses, 1);
        assert_eq!(get(&mut cache, at(60), 1), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u64),
        Get(u8),
        Sweep,
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (any::<u8>(), 0..100_u64).prop_map(|(key, bytes)| Step::Put(key, bytes)),
            4 => any::<u8>().prop_map(Step::Get),
            1 => Just(Step::Sweep),
            2 => (1..40_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Against the plainest model: a map with the order of use.
        #[test]
        fn a_cache_is_a_map_that_forgets_the_oldest(steps in proptest::collection::vec(step(), 1..400)) {
            const MAX: usize = 20;
            let mut cache = CacheTable::new(MAX, IDLE);
            let mut model: BTreeMap<u8, (u64, u64, u64)> = BTreeMap::new(); // bytes, at, use
            let (mut now, mut uses) = (0, 0);
            for step in steps {
                uses += 1;
                match step {
                    Step::Put(key, bytes) => {
                        if !model.contains_key(&key) && model.len() == MAX {
                            let mut oldest: Vec<_> = model.iter().map(|(key, e)| (e.2, *key)).collect();
                            oldest.sort_unstable();
                            for (_, key) in &oldest[..MAX / 10] {
                                model.remove(key);
                            }
                        }
                        model.insert(key, (bytes, now, uses));
                        drop(cache.put(at(now), &[key], key, bytes));
                    }
                    Step::Get(key) => {
                        let entry = model.get_mut(&key).filter(|e| now - e.1 < IDLE.as_secs());
                        let expected = entry.map(|entry| {
                            (entry.1, entry.2) = (now, uses);
                            key
                        });
                        prop_assert_eq!(cache.get_with(at(now), &[key], |v| Some(*v)), expected);
                    }
                    Step::Sweep => {
                        model.retain(|_, entry| now - entry.1 < IDLE.as_secs());
                        drop(cache.sweep(at(now)));
                    }
                    Step::Pass(seconds) => now += seconds,
                }
                let stats = cache.stats();
                prop_assert_eq!(stats.entries, model.len());
                prop_assert_eq!(stats.bytes, model.values().map(|entry| entry.0).sum::<u64>());
                prop_assert!(stats.entries <= MAX);
            }
        }
    }
}
