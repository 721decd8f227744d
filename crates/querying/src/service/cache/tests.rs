//! The cache in a small tree of its own, on a clock that the tests turn.

use super::*;
use crate::cache::tests::file;
use astscope_supervision::{Root, Strategy, SupervisorSpec};
use std::cell::Cell;
use tokio::time::advance;

type Results = QueryCache<Vec<u8>>;

fn key() -> QueryKey {
    QueryKey::of(b"a query")
}

/// Searches a file for as many matches as `found`, and says whether that was needed.
fn search(recalled: &Recalled<Vec<u8>>, file: &ScopedFile, found: usize, limit: usize) -> bool {
    let was_needed = Cell::new(false);
    let result = recalled.search(file, limit, &|| None, || {
        was_needed.set(true);
        Some(vec![0; found.min(limit)])
    });
    assert_eq!(result.unwrap().len(), if was_needed.get() { found.min(limit) } else { found });
    was_needed.get()
}

/// Asks a query about one file, and says how many files were remembered.
fn ask(cache: &Results, file: &ScopedFile) -> u64 {
    let recalled = cache.recall(key());
    search(&recalled, file, 1, usize::MAX);
    recalled.finish()
}

async fn start(cache: &Results) -> Root {
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(cache.service());
    tree.start("root").await.unwrap()
}

#[test]
fn a_query_that_is_asked_again_searches_what_has_changed() {
    let cache = Results::new(CacheConfig::default());
    let files = [file("a.js", "f(1)"), file("b.js", "f(1)")];
    let edited = file("a.js", "f(2)");
    for (files, needed) in [
        ([&files[0], &files[1]], [true, true]),
        ([&files[0], &files[1]], [false, false]),
        ([&edited, &files[1]], [true, false]),
        ([&edited, &files[1]], [false, false]),
    ] {
        let recalled = cache.recall(key());
        assert_eq!(files.map(|file| search(&recalled, file, 2, usize::MAX)), needed);
        let n_remembered = needed.iter().filter(|needed| !**needed).count();
        assert_eq!(recalled.finish(), n_remembered as u64);
    }
    let stats = cache.stats();
    assert_eq!((stats.queries, stats.entries, stats.hits, stats.misses), (1, 2, 5, 3));
    let other = cache.recall(QueryKey::of(b"another query"));
    assert!(search(&other, &edited, 0, 9), "it knows nothing of this one");
}

#[test]
fn only_what_is_certainly_all_of_a_file_is_remembered() {
    let cache = Results::new(CacheConfig::default());
    let file = file("a.js", "f(1)");
    let knows = || cache.recall(key()).known.get(&file).is_some();
    let recalled = cache.recall(key());
    assert!(search(&recalled, &file, 3, 3), "there may be a fourth");
    recalled.finish();
    assert!(!knows());
    let recalled = cache.recall(key());
    let interrupt = || Some(Interrupt::Cancelled);
    assert!(recalled.search(&file, 9, &interrupt, || Some(vec![1])).is_some());
    recalled.finish();
    assert!(!knows(), "it may have been told to stop before it was through");
    let recalled = cache.recall(key());
    assert!(search(&recalled, &file, 2, 3));
    recalled.finish();
    assert!(knows());
    // What is remembered isn't cut: who asked for less cuts it.
    let recalled = cache.recall(key());
    assert!(!search(&recalled, &file, 2, 1));
}

#[test]
fn a_query_that_is_still_under_way_neither_waits_nor_loses_what_it_knows() {
    let cache = Results::new(CacheConfig::default());
    let files = [file("a.js", "f(1)"), file("b.js", "f(1)")];
    assert_eq!(ask(&cache, &files[0]), 0);
    let slow = cache.recall(key());
    assert_eq!((ask(&cache, &files[1]), ask(&cache, &files[1])), (0, 1));
    assert!(cache.forget(Duration::ZERO).entries == 2);
    assert!(!search(&slow, &files[0], 1, 9));
    assert!(search(&slow, &files[1], 1, 9), "learned after it began");
    assert_eq!(slow.finish(), 1);
    assert_eq!(ask(&cache, &files[1]), 1);
}

#[tokio::test(start_paused = true)]
async fn the_service_sweeps_what_has_expired_although_nobody_asks() {
    let config = CacheConfig::default();
    let (ttl, sweep_every) = (config.ttl, config.sweep_every);
    let cache = Results::new(config);
    let root = start(&cache).await;
    ask(&cache, &file("a.js", "f(1)"));
    advance(ttl.saturating_sub(sweep_every)).await;
    tokio::task::yield_now().await;
    assert_eq!(cache.stats().entries, 1);
    let begun = Instant::now();
    while cache.stats().entries > 0 {
        assert!(begun.elapsed() <= 2 * sweep_every, "nobody sweeps");
        advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.stats().expired, 1);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_service_answers_how_the_cache_stands_and_clears_it() {
    let cache = Results::new(CacheConfig::default());
    let root = start(&cache).await;
    let (within, file) = (Duration::from_secs(1), file("a.js", "f(1)"));
    assert_eq!((ask(&cache, &file), ask(&cache, &file)), (0, 1));
    let stats = cache.swept_stats(within).await.unwrap();
    assert_eq!((stats.entries, stats.hits, stats.misses), (1, 1, 1));
    cache.clear(within).await.unwrap();
    assert_eq!(cache.swept_stats(within).await, Ok(CacheStats::default()));
    assert_eq!(ask(&cache, &file), 0);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_killed_costs_no_entry() {
    let cache = Results::new(CacheConfig::default());
    let root = start(&cache).await;
    let file = file("a.js", "f(1)");
    ask(&cache, &file);
    let mut monitor = cache.child().monitor();
    cache.child().kill();
    monitor.down().await;
    assert_eq!(ask(&cache, &file), 1, "it needs no service");
    let stats = cache.swept_stats(Duration::from_secs(1)).await.unwrap();
    assert_eq!((stats.entries, cache.child().status().incarnation()), (1, 2));
    root.shutdown().await;
}
