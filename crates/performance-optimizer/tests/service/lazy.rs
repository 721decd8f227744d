//! The lazy loader's work.

use crate::house::{House, put};
use astscope_performance_optimizer::FileFacts;
use astscope_performance_optimizer::service::{Counter, LazyCounts, Timing};
use astscope_repository::Repository;
use astscope_syntax::Language;
use std::time::Duration;
use tokio::time::sleep;

fn counts(house: &House) -> (u64, u64) {
    let LazyCounts { loaded, avoided } = house.optimizer.lazy_counts();
    (loaded, avoided)
}

#[tokio::test(start_paused = true)]
async fn facts_are_computed_once_for_a_content() {
    let (house, repository) = (House::new().await, Repository::new(1));
    let first = put(&repository, "a.html", Language::Html, 3);
    let copy = put(&repository, "copy.html", Language::Html, 3);
    let other = put(&repository, "other.html", Language::Html, 4);
    let foreign = put(&repository, "a.css", Language::Css, 3);
    let expected = FileFacts { files: 1, nodes: 4, error_nodes: 1, depth: 2, lines: 3 };
    assert_eq!(*house.optimizer.facts(&first).await.unwrap(), expected);
    assert_eq!(counts(&house), (1, 0));
    assert_eq!(*house.optimizer.facts(&first).await.unwrap(), expected);
    assert_eq!(*house.optimizer.facts(&copy).await.unwrap(), expected);
    assert_eq!(counts(&house), (1, 2), "a copy has the same content");
    assert_eq!(house.optimizer.facts(&other).await.unwrap().lines, 4);
    house.optimizer.facts(&foreign).await.unwrap();
    assert_eq!(counts(&house), (3, 2), "another language has another tree");
    let statistics = house.optimizer.statistics().await.unwrap();
    let reported =
        (statistics.count(Counter::FactsLoaded), statistics.count(Counter::FactsAvoided));
    assert_eq!((reported, statistics.timing(Timing::Facts).n_seen), ((3, 2), 3));
}

#[tokio::test(start_paused = true)]
async fn facts_that_nobody_wants_for_five_minutes_are_forgotten() {
    let (house, repository) = (House::new().await, Repository::new(1));
    let record = put(&repository, "a.html", Language::Html, 3);
    for (seconds, expected) in [(0, (1, 0)), (299, (1, 1)), (299, (1, 2)), (300, (2, 2))] {
        sleep(Duration::from_secs(seconds)).await;
        house.optimizer.facts(&record).await.unwrap();
        assert_eq!(counts(&house), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_at_the_same_time_shares_the_work() {
    let (house, repository) = (House::new().await, Repository::new(1));
    let record = put(&repository, "a.html", Language::Html, 3);
    let ask = || house.optimizer.facts(&record);
    let answers = tokio::join!(ask(), ask(), ask());
    assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok());
    assert_eq!(counts(&house), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn its_crash_forgets_nothing() {
    let (house, repository) = (House::new().await, Repository::new(1));
    let record = put(&repository, "a.html", Language::Html, 3);
    house.optimizer.facts(&record).await.unwrap();
    house.crash("lazy_loader").await;
    house.optimizer.facts(&record).await.unwrap();
    assert_eq!(counts(&house), (1, 1));
    let other = put(&repository, "b.html", Language::Html, 4);
    house.optimizer.facts(&other).await.unwrap();
    assert_eq!(counts(&house), (2, 1));
}
