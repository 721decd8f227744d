//! The cleaner: started when it is needed, for one cleanup.

use crate::house::{House, Manner, Owner, settle};
use astscope_memory_manager::service::{CleanupError, Part, PartOutcome};
use astscope_memory_manager::{CacheKind, Cleanup, Freed, Reclaim};
use astscope_supervision::{EventKind, Exit};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{advance, sleep};

const WITHIN: Duration = Duration::from_secs(15);

fn older_than(seconds: u64) -> Cleanup {
    Cleanup::older_than(Duration::from_secs(seconds))
}

const PERMANENT: [&str; 3] = ["memory_monitor", "memory_cache_manager", "memory_pressure_handler"];

#[tokio::test(start_paused = true)]
async fn check_05_it_lives_for_one_cleanup_and_its_end_restarts_nobody() {
    let house = House::new().await;
    assert_eq!(house.children().await, PERMANENT, "nobody has asked for it");
    let owner = Owner::with(&[("old", 100), ("young", 10)]);
    let _registered = house.register(&owner);
    for units in [1, 0] {
        let report = house.memory.request_cleanup(older_than(60), WITHIN).await.unwrap();
        assert_eq!(report.freed(), Freed { bytes: units * 100, items: units });
        settle().await;
        let events = house.recorder.take();
        let events: Vec<_> = events.iter().map(|event| &event.kind).collect();
        let [EventKind::Started { .. }, EventKind::Exited { exit, restarts, .. }] = *events else {
            panic!("{events:?}")
        };
        assert_eq!((exit, restarts), (&Exit::Normal, &false));
        assert_eq!(house.children().await, PERMANENT);
    }
    assert_eq!(owner.units.lock().unwrap().keys().collect::<Vec<_>>(), [&"young"]);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let house = House::new().await;
    let owner = Owner::with(&[("old", 100), ("young", 10)]);
    let _registered = house.register(&owner);
    house.fill();
    // The sweep comes every 10 s: at 65 s the query's entry is expired, and still there.
    sleep(Duration::from_millis(59_980)).await;
    house.memory.caches().put(CacheKind::Analysis, b"other", Arc::new(()), 1);
    sleep(Duration::from_secs(5)).await;
    let before = (owner.units.lock().unwrap().clone(), house.filled());
    let dry = house.memory.request_cleanup(older_than(60).dry_run(), WITHIN).await.unwrap();
    assert_eq!((owner.units.lock().unwrap().clone(), house.filled()), before);
    let wet = house.memory.request_cleanup(older_than(60), WITHIN).await.unwrap();
    assert_eq!(wet.expired, Freed { bytes: 10, items: 1 });
    assert_eq!(wet.freed(), Freed { bytes: 110, items: 2 });
    assert_eq!((dry.freed(), dry.parts), (wet.freed(), wet.parts), "it had counted right");
    assert_eq!(owner.take_asked(), ["reclaim 60 dry", "reclaim 60"]);
}

#[tokio::test(start_paused = true)]
async fn requests_at_the_same_time_are_served_one_after_the_other() {
    let house = House::new().await;
    let owner = Owner::with(&[("a", 100), ("b", 1000)]);
    let _registered = house.register(&owner);
    let request = |seconds| house.memory.request_cleanup(older_than(seconds), WITHIN);
    let (first, second, third) = tokio::join!(request(500), request(50), request(5));
    let freed = [first, second, third].map(|report| report.unwrap().freed().items);
    assert_eq!(freed.iter().sum::<u64>(), 2, "each unit once: {freed:?}");
    let mut asked = owner.take_asked();
    asked.sort_unstable();
    assert_eq!(asked, ["reclaim 5", "reclaim 50", "reclaim 500"]);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_panics_costs_its_own_part() {
    let house = House::new().await;
    let owner = Owner::with(&[("old", 100)]);
    let _first = house.register(&Owner::who(Manner::Panics));
    let _second = house.register(&owner);
    let report = house.memory.request_cleanup(older_than(60), WITHIN).await.unwrap();
    assert_eq!(report.failure().as_deref(), Some("`owner` panicked: no units"));
    assert_eq!(report.freed().items, 1);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_it_reports_what_there_is() {
    let house = House::new().await;
    let _first = house.register(&Owner::who(Manner::Dawdles));
    let late = Owner::with(&[("old", 100)]);
    let _second = house.register(&late);
    // The clock stands still while a thread works, so it is moved by hand.
    let pass = async {
        yield_often().await;
        advance(Duration::from_secs(5)).await;
    };
    let (report, ()) = tokio::join!(house.memory.request_cleanup(older_than(60), WITHIN), pass);
    let report = report.unwrap();
    let outcomes: Vec<_> = report.parts.iter().map(|part: &Part| part.outcome.clone()).collect();
    assert_eq!(outcomes, [PartOutcome::Freed(Freed::default()), PartOutcome::NotAsked]);
    assert_eq!(late.take_asked(), [""; 0]);
}

/// Lets everything run that needs no time.
async fn yield_often() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_does_not_stop_is_reported_and_holds_up_the_next_cleanup_only() {
    let house = House::new().await;
    let owner = Owner::who(Manner::Hangs);
    let _registered = house.register(&owner);
    let pass = async {
        yield_often().await;
        advance(Duration::from_millis(5200)).await;
    };
    let (report, ()) = tokio::join!(house.memory.request_cleanup(older_than(60), WITHIN), pass);
    let report = report.unwrap();
    assert_eq!(report.parts[0].outcome, PartOutcome::Late);
    assert_eq!(report.failure().as_deref(), Some("`owner` didn't come back in time"));
    assert_eq!(house.memory.sample().await.unwrap().level.number(), 0, "the others go on");
    owner.let_go.store(true, Ordering::Relaxed);
    settle().await;
    let report = house.memory.request_cleanup(older_than(60), WITHIN).await.unwrap();
    assert_eq!(report.failure(), None);
    settle().await;
    assert_eq!(house.children().await, PERMANENT);
}

#[tokio::test(start_paused = true)]
async fn whoever_asked_is_told_that_it_died() {
    let house = House::new().await;
    let _registered = house.register(&Owner::who(Manner::Dawdles));
    let kill = async {
        yield_often().await;
        house.crash("memory_cleaner").await
    };
    let (report, started) =
        tokio::join!(house.memory.request_cleanup(older_than(60), WITHIN), kill);
    assert_eq!(report, Err(CleanupError::Died));
    assert_eq!(started, [""; 0], "nobody is restarted");
    assert_eq!(house.children().await, PERMANENT);
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_gone_is_not_asked() {
    let house = House::new().await;
    let owner = Owner::with(&[("old", 100)]);
    drop(house.register(&owner));
    let report = house.memory.request_cleanup(older_than(60), WITHIN).await.unwrap();
    assert_eq!((report.parts, owner.take_asked()), (vec![], vec![]));
    assert_eq!(owner.name(), "owner");
}
