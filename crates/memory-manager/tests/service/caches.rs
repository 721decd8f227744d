//! The caches, and the cache manager's work.

use crate::house::{House, settle};
use astscope_memory_manager::{CacheKind, Class, Freed};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

fn bytes(house: &House) -> u64 {
    house.memory.accounts().by_class().of(Class::Cache)
}

#[tokio::test(start_paused = true)]
async fn each_cache_forgets_in_its_own_time_and_the_bytes_go_without_a_read() {
    let house = House::new().await;
    house.fill();
    assert_eq!(bytes(&house), 60);
    let mut left = Vec::new();
    for seconds in [59, 12, 228, 12, 288, 12] {
        sleep(Duration::from_secs(seconds)).await;
        left.push(bytes(&house));
    }
    assert_eq!(left, [60, 50, 50, 30, 30, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_read_keeps_an_entry() {
    let house = House::new().await;
    let caches = house.memory.caches();
    caches.put(CacheKind::Query, b"a", Arc::new("answer"), 6);
    for _ in 0..5 {
        sleep(Duration::from_secs(50)).await;
        let found = caches.get::<&str>(CacheKind::Query, b"a");
        assert_eq!(found.as_deref(), Some(&"answer"));
    }
    sleep(Duration::from_mins(1)).await;
    assert_eq!(caches.get::<&str>(CacheKind::Query, b"a"), None);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_and_one_entries_are_too_many() {
    let house = House::new().await;
    let caches = house.memory.caches();
    for key in 0..=1000_u32 {
        caches.put(CacheKind::Analysis, &key.to_be_bytes(), Arc::new(key), 1);
    }
    let found = |key: u32| caches.get::<u32>(CacheKind::Analysis, &key.to_be_bytes()).is_some();
    assert_eq!([0, 99, 100, 1000, 5000].map(found), [false, false, true, true, false]);
    let stats = house.memory.cache_stats().await.unwrap();
    let (kind, stats) = stats[1];
    assert_eq!(kind, CacheKind::Analysis);
    assert_eq!((stats.entries, stats.bytes, stats.evictions), (901, 901, 100));
    assert_eq!((stats.hits, stats.misses, stats.hit_ratio()), (2, 3, Some(0.4)));
}

#[tokio::test(start_paused = true)]
async fn it_empties_what_it_is_told_to() {
    let house = House::new().await;
    house.fill();
    let freed = house.memory.clear(&[CacheKind::Query, CacheKind::Cpg]).await.unwrap();
    assert_eq!((freed, &*house.filled()), (Freed { bytes: 40, items: 2 }, "analysis"));
}

#[tokio::test(start_paused = true)]
async fn its_crash_loses_nothing() {
    let house = House::new().await;
    house.fill();
    house.crash("memory_cache_manager").await;
    assert_eq!(house.filled(), "query analysis cpg");
    sleep(Duration::from_secs(70)).await;
    assert_eq!(house.filled(), "analysis cpg", "the new one sweeps");
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_is_a_miss() {
    let house = House::new().await;
    house.fill();
    assert_eq!(house.memory.caches().get::<String>(CacheKind::Query, b"key"), None);
    assert_eq!(house.memory.caches().get::<u64>(CacheKind::Query, b"key").as_deref(), Some(&10));
}

#[tokio::test(start_paused = true)]
async fn a_value_that_panics_when_it_is_dropped_costs_no_lock() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("boom");
        }
    }
    let house = House::new().await;
    house.memory.caches().put(CacheKind::Query, b"bomb", Arc::new(Bomb), 1);
    assert!(house.memory.clear(&[CacheKind::Query]).await.is_err());
    settle().await;
    assert_eq!(house.started(), ["memory_cache_manager", "memory_pressure_handler"]);
    house.fill();
    assert_eq!((&*house.filled(), bytes(&house)), ("query analysis cpg", 60));
}
