//! The pressure handler's work.

use crate::house::{BUDGET, House, Manner, Owner, settle};
use astscope_memory_manager::service::{
    ACTIONS_MAX, MemoryConfig, MemoryConfigError, MemoryDeps, PressureError, supervisor,
};
use astscope_memory_manager::{
    Accounts, Action, CacheKind, Compression, Freed, Level, ThresholdError, Thresholds,
};
use astscope_supervision::{Fault, Point};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// At so many percent of the budget: the level's number, its actions with the bytes that each
/// frees, which caches are left, and what an owner was asked.
async fn check(percent: u64, level: u8, actions: &[&str], left: &str, asked: &[&str]) {
    let house = House::new().await;
    let owner = Owner::who(Manner::Compresses);
    let _registered = house.register(&owner);
    house.fill();
    house.feel(percent).await;
    assert_eq!(house.memory.level().number(), level, "{percent} %");
    assert_eq!(house.actions(), actions, "{percent} %");
    assert_eq!(house.filled(), left, "{percent} %");
    assert_eq!(owner.take_asked(), asked, "{percent} %");
}

#[tokio::test(start_paused = true)]
async fn at_75_percent_nothing_is_done() {
    check(75, 0, &[], "query analysis cpg", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn at_85_percent_the_query_cache_goes() {
    check(85, 1, &["1: clear query cache: 10"], "analysis cpg", &[]).await;
}

#[tokio::test(start_paused = true)]
async fn at_92_percent_what_is_cold_is_compressed_too() {
    let actions = [
        "2: clear query cache: 10",
        "2: compress what had fewer than 3 accesses and none for 900 s: 7",
    ];
    check(92, 2, &actions, "analysis cpg", &["compress 900 3"]).await;
}

#[tokio::test(start_paused = true)]
async fn at_96_percent_analyses_go_and_what_is_half_an_hour_old() {
    let actions = [
        "3: clear query cache: 10",
        "3: clear analysis cache: 20",
        "3: clean up what is older than 1800 s: 0",
    ];
    check(96, 3, &actions, "cpg", &["reclaim 1800"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_part_of_a_cache_goes_with_it_whole() {
    let house = House::new().await;
    let queries = Owner::of(CacheKind::Query, &[("new", 0), ("old", 5000)]);
    let analyses = Owner::of(CacheKind::Analysis, &[("new", 0)]);
    let _registered = [house.register(&queries), house.register(&analyses)];
    assert_eq!(house.memory.estimate(Level::Low).await.unwrap(), Freed { bytes: 200, items: 2 });
    house.feel(85).await;
    assert_eq!(house.actions(), ["1: clear query cache: 200"]);
    assert_eq!(queries.take_asked(), ["reclaim 0 dry", "reclaim 0"]);
    assert!(analyses.take_asked().is_empty());
    house.feel(96).await;
    assert_eq!(house.actions()[2], "3: clear analysis cache: 100");
}

#[tokio::test(start_paused = true)]
async fn at_99_percent_everything_goes() {
    let actions = [
        "4: clear query cache: 10",
        "4: clear analysis cache: 20",
        "4: clear cpg cache: 30",
        "4: clean up what is older than 900 s: 0",
        "4: release free pages: 0",
    ];
    check(99, 4, &actions, "", &["reclaim 900"]).await;
}

#[tokio::test(start_paused = true)]
async fn it_acts_when_the_level_changes_and_not_as_long_as_it_lasts() {
    let house = House::new().await;
    house.feel(85).await;
    house.feel(86).await;
    house.feel(82).await;
    assert_eq!(house.actions().len(), 1);
    house.feel(70).await;
    assert_eq!((house.memory.level(), house.actions().len()), (Level::Normal, 1));
    house.feel(85).await;
    assert_eq!(house.actions().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_looks_whether_that_helped() {
    let house = House::new().await;
    let n_samples = house.memory.history().samples().len();
    house.feel(85).await;
    assert_eq!(house.memory.history().samples().len(), n_samples + 2);
}

#[tokio::test(start_paused = true)]
async fn at_the_highest_level_what_was_used_lately_stays() {
    let house = House::new().await;
    let owner = Owner::with(&[("now", 0), ("lately", 899), ("old", 900), ("older", 9000)]);
    let _registered = house.register(&owner);
    house.feel(99).await;
    assert_eq!(owner.units.lock().unwrap().keys().collect::<Vec<_>>(), [&"lately", &"now"]);
}

#[tokio::test(start_paused = true)]
async fn an_action_that_fails_is_told_and_the_others_are_done() {
    let house = House::new().await;
    house.fill();
    let _registered = house.register(&Owner::who(Manner::Panics));
    let error = house.memory.relieve(Level::Critical).await.unwrap_err();
    assert_eq!(error.code(), "pressure_handling_failed");
    let PressureError::HandlingFailed { level, action: Action::Cleanup(_), reason, freed } = error
    else {
        panic!("{error}")
    };
    assert_eq!((level, &*reason), (Level::Critical, "`owner` panicked: no units"));
    assert_eq!((freed.bytes, house.actions().len()), (60, 5));
    let errors: Vec<_> =
        house.memory.actions().iter().filter_map(|record| record.error.clone()).collect();
    assert_eq!(errors, [reason]);
    let handler = house.child("memory_pressure_handler").await.unwrap();
    assert_eq!(handler.status().incarnation(), 1, "it stays up");
    house.feel(99).await;
    assert_eq!((handler.status().incarnation(), house.actions().len()), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn an_emergency_gives_free_pages_back() {
    let resident = Arc::new(AtomicU64::new(BUDGET / 2));
    let (read, release) = (Arc::clone(&resident), Arc::clone(&resident));
    let house = House::with(MemoryConfig::of_budget(BUDGET), |deps| {
        deps.read_resident = Arc::new(move || Some(read.load(Ordering::Relaxed)));
        deps.release_free_pages = Some(Arc::new(move || {
            release.fetch_sub(1000, Ordering::Relaxed);
        }));
    });
    let house = house.await;
    house.fill();
    let relief = house.memory.emergency_cleanup().await.unwrap();
    assert_eq!(relief.freed(), Freed { bytes: 1060, items: 3 });
    assert_eq!((relief.actions.len(), &*house.filled()), (5, ""));
}

#[tokio::test(start_paused = true)]
async fn an_estimate_says_what_a_level_would_free_and_frees_nothing() {
    let house = House::new().await;
    let owner = Owner::with(&[("old", 2000), ("young", 10)]);
    let _registered = house.register(&owner);
    house.fill();
    for level in Level::ALL {
        let expected = house.memory.estimate(level).await.unwrap();
        let again = house.memory.estimate(level).await.unwrap();
        assert_eq!(expected, again);
        let freed = house.memory.relieve(level).await.unwrap().freed();
        assert_eq!(freed, expected, "{level}");
        house.fill();
        owner.units.lock().unwrap().insert("old", Duration::from_secs(2000));
    }
}

#[tokio::test(start_paused = true)]
async fn owners_that_can_are_asked_to_compress() {
    let house = House::new().await;
    let (can, can_not) = (Owner::who(Manner::Compresses), Owner::who(Manner::Obeys));
    let _registered = [house.register(&can), house.register(&can_not)];
    let cold = Compression { idle: Duration::from_mins(30), accesses_below: 5 };
    let relief = house.memory.compress(cold).await.unwrap();
    assert_eq!((relief.freed().bytes, can.take_asked()), (7, vec!["compress 1800 5".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_level_is_acted_on_once_across_restarts() {
    let house = House::new().await;
    house.feel(85).await;
    assert_eq!(house.crash("memory_pressure_handler").await, ["memory_pressure_handler"]);
    assert_eq!(house.actions().len(), 1, "done before the crash");
    house.probe.arm("memory_pressure_handler", Point::Init, Fault::Slow(Duration::from_secs(1)), 1);
    house.crash("memory_pressure_handler").await;
    house.feel(92).await;
    assert_eq!(house.actions().len(), 1, "nobody is there");
    tokio::time::sleep(Duration::from_secs(1)).await;
    settle().await;
    assert_eq!(house.actions().len(), 3, "made up for");
}

#[tokio::test(start_paused = true)]
async fn the_log_keeps_the_last_hundred() {
    let house = House::new().await;
    for _ in 0..=ACTIONS_MAX {
        house.memory.relieve(Level::Low).await.unwrap();
    }
    house.memory.relieve(Level::Medium).await.unwrap();
    let log = house.memory.actions();
    assert_eq!((log.len(), log[ACTIONS_MAX - 1].level), (ACTIONS_MAX, Level::Medium));
    assert!(log.iter().all(|record| record.error.is_none()));
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    let check = |change: fn(&mut MemoryConfig)| {
        let mut config = MemoryConfig::of_budget(BUDGET);
        change(&mut config);
        let deps = MemoryDeps::new(Accounts::new(), Arc::new(|| None));
        supervisor(config, deps).map(drop).unwrap_err()
    };
    let descending = check(|config| config.thresholds.enter = [80, 95, 90, 98]);
    let expected = ThresholdError::NotAscending(95, 90);
    assert_eq!(descending, MemoryConfigError::Thresholds(expected));
    let check = |change| check(change).to_string();
    assert_eq!(
        check(|config| config.sample_every = Duration::ZERO),
        "`sample_every` is 0ns, and may be 1 s to 5 min"
    );
    assert_eq!(check(|c| c.budget_bytes = 7), "`budget_bytes` is 7, and may be at least 1 MiB");
    assert_eq!(check(|c| c.insertion_bytes = 0), "`insertion_bytes` is 0, and may be at least 1");
    assert_eq!(
        check(|config| config.caches.entries_max = 9),
        "`entries_max` is 9, and may be 10 to 1,000,000"
    );
    assert_eq!(
        check(|config| config.action_within = Duration::from_secs(1)),
        "`action_within` is 1s, and may be `cleanup_within` to 5 min"
    );
    assert_eq!(Thresholds::default().check(), Ok(()));
}
