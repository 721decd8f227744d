//! Who is restarted with whom, and that the tree is the seed's.

use crate::house::{BUDGET, House, settle};
use astscope_memory_manager::Accounts;
use astscope_memory_manager::service::{MemoryConfig, MemoryDeps, supervisor};
use astscope_supervision::{
    Dependencies, Exit, Fault, LintRule, Outcome, Point, Strategy, SupervisorSpec,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[test]
fn the_subtree_is_the_seeds() {
    let deps = MemoryDeps::new(Accounts::new(), Arc::new(|| None));
    let (child, _) = supervisor(MemoryConfig::of_budget(BUDGET), deps).unwrap();
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(child);
    let root = tree.outline("root");
    let [memory] = root.children.as_slice() else { panic!("{root:?}") };
    let policy = memory.child.as_ref().unwrap();
    assert_eq!(
        (&*memory.id, &*policy.restart, &*policy.stop),
        ("memory_manager", "permanent", "wait")
    );
    let policy = memory.supervisor.as_ref().unwrap();
    assert_eq!(
        (&*policy.strategy, policy.intensity, policy.period_ms),
        ("rest_for_one", 5, 10_000)
    );
    let children: Vec<_> = memory
        .children
        .iter()
        .map(|node| {
            let policy = node.child.as_ref().unwrap();
            (&*node.id, &*policy.restart, &*policy.stop)
        })
        .collect();
    let stop = "within 5000 ms";
    assert_eq!(
        children,
        [
            ("memory_monitor", "permanent", stop),
            ("memory_cache_manager", "permanent", stop),
            ("memory_cleaner", "temporary", stop),
            ("memory_pressure_handler", "permanent", stop),
        ]
    );
    let lints: Vec<_> = tree.lint("root").iter().map(|finding| finding.rule).collect();
    assert_eq!(lints, [LintRule::TemporaryInGroup], "the seed's cleaner");
}

#[tokio::test(start_paused = true)]
async fn check_03_each_death_takes_along_those_that_come_after() {
    let house = House::new().await;
    let rows: [(&str, &[&str]); 3] = [
        ("memory_monitor", &["memory_monitor", "memory_cache_manager", "memory_pressure_handler"]),
        ("memory_cache_manager", &["memory_cache_manager", "memory_pressure_handler"]),
        ("memory_pressure_handler", &["memory_pressure_handler"]),
    ];
    for (killed, started) in rows {
        assert_eq!(house.crash(killed).await, started, "{killed}");
        let child = house.child(killed).await.unwrap();
        child.await_ready(Duration::from_secs(1)).await.unwrap();
    }
    let incarnations = [2, 3, 4];
    for ((id, _), incarnation) in rows.iter().zip(incarnations) {
        assert_eq!(house.child(id).await.unwrap().status().incarnation(), incarnation, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_than_five_deaths_in_ten_seconds_are_the_parents_business() {
    let house = House::new().await;
    for _ in 0..5 {
        assert_eq!(house.crash("memory_pressure_handler").await, ["memory_pressure_handler"]);
    }
    // The whole subtree comes back as it is written.
    assert_eq!(
        house.crash("memory_pressure_handler").await,
        ["memory_monitor", "memory_cache_manager", "memory_pressure_handler", "memory_manager"]
    );
    house.memory.sample().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn everybody_has_whom_he_needs_although_no_cleaner_runs() {
    let house = House::new().await;
    let needs = Dependencies::new(house.memory.needs()).unwrap();
    assert!(needs.check("memory_pressure_handler"));
    house.probe.arm("memory_cache_manager", Point::Init, Fault::Slow(Duration::from_secs(1)), 1);
    house.crash("memory_cache_manager").await;
    assert!(!needs.check("memory_pressure_handler"));
    needs.await_for("memory_pressure_handler", Duration::from_secs(5)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_once_when_it_is_told_to() {
    let house = House::new().await;
    house.feel(99).await;
    settle().await;
    let asked = Instant::now();
    let outcome = house.root.shutdown().await;
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    assert_eq!(asked.elapsed(), Duration::ZERO);
}
