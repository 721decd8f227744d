//! The optimization scheduler's work.
#![expect(clippy::unwrap_used, reason = "tests with functions of their own")]

use crate::house::{House, Owner, settle};
use astscope_memory_manager::Freed;
use astscope_performance_optimizer::Priority;
use astscope_performance_optimizer::service::{
    Counter, CycleReport, Full, OptimizerConfig, Ticket, Timing,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::sleep;

const WITHIN: Duration = Duration::from_mins(10);

/// At so many percent of the budget, each cycle asks an owner for this.
async fn check(percent: u64, asked: &[&str]) {
    let house = House::new().await;
    let owner = Arc::new(Owner::default());
    let _registered = house.memory.register(Arc::<Owner>::clone(&owner));
    house.use_percent(percent);
    sleep(Duration::from_secs(599)).await;
    assert_eq!(owner.take_asked(), [""; 0], "{percent} %: before the cycle");
    for _ in 0..2 {
        sleep(Duration::from_secs(2)).await;
        assert_eq!(owner.take_asked(), asked, "{percent} %");
        sleep(Duration::from_secs(598)).await;
    }
    let statistics = house.optimizer.statistics().await.unwrap();
    assert!(statistics.timing(Timing::Cycle).n_seen >= 2);
}

#[tokio::test(start_paused = true)]
async fn at_60_percent_a_cycle_asks_for_nothing() {
    check(60, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn above_60_percent_each_cycle_asks_for_compression() {
    check(61, &["compress 1800 5"]).await;
}

#[tokio::test(start_paused = true)]
async fn above_70_percent_each_cycle_has_what_is_an_hour_old_dropped_too() {
    check(71, &["reclaim 3600", "compress 1800 5"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cycle_says_what_it_did() {
    let house = House::new().await;
    let owner = Arc::new(Owner::default());
    let _registered = house.memory.register(Arc::<Owner>::clone(&owner));
    let nothing = CycleReport { percent: Some(0.0), cleanup: None, compression: None };
    assert_eq!(house.optimizer.cycle(WITHIN).await.unwrap(), nothing);
    house.use_percent(75);
    let report = house.optimizer.cycle(WITHIN).await.unwrap();
    assert_eq!(report.percent, Some(75.0));
    assert_eq!(report.cleanup, Some(Ok(Freed { bytes: 100, items: 1 })));
    assert_eq!(report.compression, Some(Ok(Freed { bytes: 7, items: 1 })));
    owner.panics.store(true, Ordering::Relaxed);
    let report = house.optimizer.cycle(WITHIN).await.unwrap();
    assert_eq!(report.cleanup, Some(Err("`owner` panicked: no units".to_owned())));
    settle().await;
    let statistics = house.optimizer.statistics().await.unwrap();
    let counts = [Counter::Relieved, Counter::BytesFreed].map(|of| statistics.count(of));
    assert_eq!(counts, [2, 114]);
}

/// A job of so many items, each of which writes its name down.
fn job(house: &House, log: &Log, name: &'static str, priority: Priority, n: usize) -> Ticket<()> {
    let log = Arc::clone(log);
    let work = move |(): &(), _: &_| {
        log.lock().unwrap().push(name);
        Ok(())
    };
    house.optimizer.schedule(priority, vec![(); n], work).unwrap()
}

type Log = Arc<Mutex<Vec<&'static str>>>;

#[tokio::test(start_paused = true)]
async fn jobs_wait_for_queries_and_the_urgent_goes_first() {
    let (house, log) = (House::new().await, Log::default());
    house.busy(true);
    let tickets = [
        job(&house, &log, "low", Priority::Low, 1),
        job(&house, &log, "first", Priority::Normal, 1),
        job(&house, &log, "second", Priority::Normal, 1),
        job(&house, &log, "high", Priority::High, 1),
    ];
    sleep(Duration::from_mins(5)).await;
    assert_eq!(*log.lock().unwrap(), [""; 0]);
    house.busy(false);
    for ticket in &tickets {
        ticket.outcome(Duration::from_secs(1)).await.unwrap();
    }
    assert_eq!(*log.lock().unwrap(), ["high", "first", "second", "low"]);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_begins_waits_for_one_chunk_at_most() {
    let (house, log) = (Arc::new(House::new().await), Log::default());
    let (begins, seen) = (Arc::clone(&house), Arc::clone(&log));
    let ticket =
        house.optimizer.schedule(Priority::Normal, (0..200).collect(), move |n: &u32, _| {
            seen.lock().unwrap().push("item");
            begins.busy(*n >= 60); // a query begins in the second chunk
            Ok(())
        });
    let ticket = ticket.unwrap();
    sleep(Duration::from_mins(1)).await;
    assert_eq!((ticket.progress().done, log.lock().unwrap().len()), (100, 100));
    house.busy(false);
    sleep(Duration::from_millis(260)).await;
    assert_eq!(ticket.progress().done, 150, "the next chunk, in which another query begins");
    ticket.cancel();
    house.busy(false);
    let results = ticket.outcome(Duration::from_secs(1)).await.unwrap();
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 50);
}

#[tokio::test(start_paused = true)]
async fn jobs_survive_its_crash() {
    let (house, log) = (House::new().await, Log::default());
    house.busy(true);
    let ticket = job(&house, &log, "job", Priority::Normal, 3);
    settle().await;
    assert_eq!(house.crash("optimization_scheduler").await, ["optimization_scheduler"]);
    house.busy(false);
    let results = ticket.outcome(Duration::from_secs(1)).await.unwrap();
    assert!(results.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn more_jobs_than_may_wait_are_refused() {
    let config = OptimizerConfig { jobs_max: 2, ..OptimizerConfig::default() };
    let house = House::with(config, None).await;
    house.busy(true);
    let schedule = || house.optimizer.schedule(Priority::High, vec![()], |(), _| Ok(()));
    let _waiting = [schedule().unwrap(), schedule().unwrap()];
    assert_eq!(schedule().unwrap_err(), Full { asked: 1, free: 0 });
}
