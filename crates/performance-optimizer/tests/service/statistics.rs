//! The statistics collector's work.

use crate::house::{House, settle};
use astscope_memory_manager::CacheKind;
use astscope_performance_optimizer::service::{
    Counter, OptimizerConfig, OptimizerConfigError, OptimizerDeps, Timing, supervisor,
};
use astscope_supervision::{Fault, Point};
use std::sync::Arc;
use std::time::Duration;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[tokio::test(start_paused = true)]
async fn it_counts_and_shows_percentiles() {
    let house = House::new().await;
    let meter = house.optimizer.meter();
    (1..=100).for_each(|n| meter.time(Timing::Query, ms(n)));
    meter.count(Counter::BytesFreed, 5);
    meter.count(Counter::BytesFreed, 7);
    house.memory.caches().put(CacheKind::Query, b"a", Arc::new(()), 9);
    let statistics = house.optimizer.statistics().await.unwrap();
    let queries = statistics.timing(Timing::Query);
    assert_eq!((queries.n_seen, queries.p50, queries.p99), (100, ms(50), ms(99)));
    assert_eq!((statistics.count(Counter::BytesFreed), statistics.n_dropped), (12, 0));
    let (kind, cache) = statistics.caches[0];
    assert_eq!((kind, cache.entries, cache.bytes), (CacheKind::Query, 1, 9));
}

#[tokio::test(start_paused = true)]
async fn whoever_reports_too_much_is_not_held_up() {
    let house = House::new().await;
    let meter = house.optimizer.meter();
    // Nobody else runs until the next await.
    (0..1030).for_each(|_| meter.time(Timing::Query, ms(1)));
    assert_eq!(meter.n_dropped(), 6);
    let statistics = house.optimizer.statistics().await.unwrap();
    assert_eq!((statistics.timing(Timing::Query).n_seen, statistics.n_dropped), (1024, 6));
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_survives_its_crash() {
    let house = House::new().await;
    let meter = house.optimizer.meter();
    meter.count(Counter::Relieved, 1);
    meter.time(Timing::Query, ms(3));
    settle().await;
    house.probe.arm("statistics_collector", Point::Init, Fault::Slow(ms(500)), 1);
    house.crash("statistics_collector").await;
    meter.count(Counter::Relieved, 1);
    assert_eq!(meter.n_dropped(), 1, "nobody was there");
    let statistics = house.optimizer.statistics().await.unwrap();
    assert_eq!(statistics.count(Counter::Relieved), 1);
    assert_eq!(statistics.timing(Timing::Query).max, ms(3));
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_makes_no_sense_is_refused() {
    let house = House::new().await;
    let check = |change: fn(&mut OptimizerConfig)| {
        let mut config = OptimizerConfig::default();
        change(&mut config);
        let memory = house.memory.clone();
        let deps = OptimizerDeps { memory, is_busy: Arc::new(|| false), cpu: None };
        supervisor(config, deps).map(drop).unwrap_err().to_string()
    };
    assert_eq!(check(|c| c.chunk_items = 0), "`chunk_items` is 0, and may be 1 to 10,000");
    assert_eq!(check(|c| c.parallel = 65), "`parallel` is 65, and may be 1 to 64");
    assert_eq!(check(|c| c.cycle = Duration::ZERO), "`cycle` is 0ns, and may be 1 s to 1 day");
    assert_eq!(check(|c| c.cleanup_above = 101), "`cleanup_above` is 101, and may be 0 to 100");
    let error = OptimizerConfigError { field: "x", found: "1".to_owned(), bound: "2" };
    assert_eq!(error.to_string(), "`x` is 1, and may be 2");
}
