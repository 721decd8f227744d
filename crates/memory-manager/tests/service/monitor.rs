//! The monitor's work.

use crate::house::{BUDGET, House, settle};
use astscope_memory_manager::Class;
use astscope_memory_manager::service::MemoryConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{advance, sleep};

fn times(house: &House) -> Vec<u64> {
    house.memory.history().samples().map(|sample| sample.at.as_secs()).collect()
}

#[tokio::test(start_paused = true)]
async fn it_measures_at_its_start_and_every_half_minute() {
    let house = House::new().await;
    assert_eq!(times(&house), [0]);
    sleep(Duration::from_secs(95)).await;
    assert_eq!(times(&house), [0, 30, 60, 90]);
}

#[tokio::test(start_paused = true)]
async fn it_measures_at_once_when_enough_has_come_in() {
    let house = House::new().await;
    let limit = BUDGET / 64;
    sleep(Duration::from_secs(7)).await;
    house.use_percent(85);
    house.memory.inserted(limit - 1);
    settle().await;
    assert_eq!((times(&house), house.memory.level().number()), (vec![0], 0));
    house.memory.inserted(1);
    settle().await;
    assert_eq!((times(&house)[1], house.memory.level().number()), (7, 1));
    // It looked again after the relief, and counts from there on.
    let n_samples = times(&house).len();
    house.memory.inserted(limit - 1);
    settle().await;
    assert_eq!(times(&house).len(), n_samples);
    house.memory.inserted(limit);
    settle().await;
    assert_eq!(times(&house).len(), n_samples + 1);
}

#[tokio::test(start_paused = true)]
async fn free_pages_go_back_before_a_sample_if_something_has_changed() {
    let n_released = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&n_released);
    let house = House::with(MemoryConfig::of_budget(BUDGET), |deps| {
        deps.release_free_pages = Some(Arc::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
    });
    let house = house.await;
    let released = || n_released.load(Ordering::Relaxed);
    sleep(Duration::from_secs(95)).await;
    assert_eq!(released(), 0, "nothing has changed");
    house.memory.changed();
    house.memory.changed();
    house.memory.sample().await.unwrap();
    assert_eq!(released(), 0, "that sample was asked for, and wasn't due");
    sleep(Duration::from_secs(30)).await;
    assert_eq!((released(), times(&house)), (1, vec![0, 30, 60, 90, 95, 120]));
    sleep(Duration::from_mins(1)).await;
    assert_eq!(released(), 1);
}

#[tokio::test(start_paused = true)]
async fn its_level_can_be_watched() {
    let house = House::new().await;
    let mut level = house.memory.watch_level();
    house.use_percent(92);
    house.memory.sample().await.unwrap();
    level.changed().await.unwrap();
    assert_eq!(level.borrow_and_update().number(), 2);
    house.memory.sample().await.unwrap();
    assert!(!level.has_changed().unwrap(), "the same level is no news");
}

#[tokio::test(start_paused = true)]
async fn a_new_incarnation_goes_on_where_the_old_one_was() {
    let house = House::new().await;
    house.feel(92).await;
    house.use_percent(86);
    let n_samples = times(&house).len();
    house.crash("memory_monitor").await;
    assert_eq!(times(&house).len(), n_samples + 1, "it measures when it starts");
    assert_eq!(house.memory.level().number(), 2, "86 % is too much to leave 90 %");
    house.feel(84).await;
    assert_eq!(house.memory.level().number(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_knows_whose_the_memory_is_and_how_fast_it_grows() {
    let house = House::new().await;
    let trees = house.memory.accounts().open("trees", Class::Tree);
    trees.add(3 << 20);
    house.use_percent(4);
    sleep(Duration::from_secs(30)).await;
    let history = house.memory.history();
    let latest = history.latest().unwrap();
    assert_eq!((latest.accounted.of(Class::Tree), latest.residue()), (3 << 20, 1 << 20));
    assert_eq!(
        history.growth_per_second().map(f64::round),
        Some((f64::from(4 << 20) / 30.0).round())
    );
    assert_eq!(house.memory.percent_used(), Some(4.0));
}

#[tokio::test(start_paused = true)]
async fn where_the_kernel_says_nothing_the_accounts_count() {
    let config = MemoryConfig::of_budget(BUDGET);
    let house = House::with(config, |deps| deps.read_resident = Arc::new(|| None)).await;
    let texts = house.memory.accounts().open("texts", Class::Text);
    texts.add(BUDGET / 100 * 96);
    house.memory.sample().await.unwrap();
    assert_eq!(house.memory.level().number(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_panics_costs_one_incarnation() {
    let failing = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fails = Arc::clone(&failing);
    let read = move || {
        assert!(!fails.swap(false, std::sync::atomic::Ordering::Relaxed), "unreadable");
        Some(BUDGET / 2)
    };
    let config = MemoryConfig::of_budget(BUDGET);
    let house = House::with(config, |deps| deps.read_resident = Arc::new(read)).await;
    failing.store(true, std::sync::atomic::Ordering::Relaxed);
    advance(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(house.started()[0], "memory_monitor");
    assert_eq!(house.memory.sample().await.unwrap().used(), BUDGET / 2);
}
