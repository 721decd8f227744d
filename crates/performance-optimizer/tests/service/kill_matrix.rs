//! Each service dies alone, and the tree is the seed's.

use crate::house::House;
use astscope_supervision::{Exit, Outcome};
use std::time::Duration;
use tokio::time::Instant;

const CHILDREN: [&str; 4] =
    ["batch_processor", "lazy_loader", "optimization_scheduler", "statistics_collector"];

#[tokio::test(start_paused = true)]
async fn the_subtree_is_the_seeds() {
    let house = House::new().await;
    let tree = house.root.supervisor().tree().await;
    let node = tree.children.iter().find(|node| node.id == "performance_optimizer").unwrap();
    let policy = node.supervisor.as_ref().unwrap();
    assert_eq!((&*policy.strategy, policy.intensity, policy.period_ms), ("one_for_one", 5, 10_000));
    assert_eq!(node.children.len(), CHILDREN.len());
    for (child, id) in node.children.iter().zip(CHILDREN) {
        let policy = child.child.as_ref().unwrap();
        let row = (&*child.id, &*policy.restart, &*policy.stop);
        assert_eq!(row, (id, "permanent", "within 5000 ms"));
    }
}

#[tokio::test(start_paused = true)]
async fn each_is_restarted_alone() {
    let house = House::new().await;
    for killed in CHILDREN {
        assert_eq!(house.crash(killed).await, [killed]);
    }
    for id in CHILDREN {
        let child = house.child(id).await;
        child.await_ready(Duration::from_secs(1)).await.unwrap();
        assert_eq!(child.status().incarnation(), 2, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_stops_at_once_in_the_middle_of_work() {
    let house = House::new().await;
    let ticket = house.optimizer.batch(vec![(); 3], |(), checkpoint| {
        while checkpoint.check().is_ok() {
            std::thread::yield_now();
        }
        Ok(())
    });
    let ticket = ticket.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    crate::house::yield_often().await;
    let asked = Instant::now();
    let outcome = house.root.shutdown().await;
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    assert_eq!(asked.elapsed(), Duration::ZERO);
    let progress = ticket.progress();
    assert_eq!((progress.total, progress.done, progress.failed), (3, 0, 3), "none is forgotten");
}
