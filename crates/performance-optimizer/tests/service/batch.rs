//! The batch processor's work.

use crate::house::{House, put, settle, yield_often};
use astscope_performance_optimizer::service::{
    Counter, Full, ItemError, OptimizerConfig, Progress, Timing,
};
use astscope_performance_optimizer::{FileFacts, Priority};
use astscope_repository::Repository;
use astscope_supervision::{CpuConfig, CpuPool, Inline, Strategy, SupervisorSpec};
use astscope_syntax::Language;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, advance, sleep};

const WITHIN: Duration = Duration::from_mins(10);

#[tokio::test(start_paused = true)]
async fn a_full_chunk_runs_at_once_and_the_rest_when_it_has_waited() {
    let house = House::new().await;
    let ticket = house.optimizer.batch((0..120).collect(), |n, _| Ok(n * 2)).unwrap();
    settle().await;
    assert_eq!(ticket.progress(), Progress { total: 120, done: 100, failed: 0 });
    let begun = Instant::now();
    let results = ticket.outcome(WITHIN).await.unwrap();
    assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
    let results: Vec<i32> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (0..120).map(|n| n * 2).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_waits_runs_at_once_when_it_is_flushed() {
    let house = House::new().await;
    let ticket = house.optimizer.batch(vec![1, 2, 3], |n, _| Ok(*n)).unwrap();
    assert_eq!(ticket.progress().done, 0);
    assert_eq!(house.optimizer.flush(WITHIN).await, Ok(3));
    assert!(ticket.progress().is_complete());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_fails_or_panics_costs_itself_only() {
    let house = House::new().await;
    let ticket = house.optimizer.batch((0..60).collect(), |n: &i32, _| match *n {
        7 => Err("seven".to_owned()),
        55 => panic!("fifty-five"),
        n => Ok(n),
    });
    let results = ticket.unwrap().outcome(WITHIN).await.unwrap();
    assert_eq!(results[7], Err(ItemError::Failed("seven".to_owned())));
    assert_eq!(results[55], Err(ItemError::Panicked("fifty-five".into())));
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 58);
    let statistics = house.optimizer.statistics().await.unwrap();
    let counts = [Counter::ItemsDone, Counter::ItemsFailed].map(|of| statistics.count(of));
    assert_eq!((counts, statistics.timing(Timing::Chunk).n_seen), ([58, 2], 2));
}

#[tokio::test(start_paused = true)]
async fn an_item_has_half_a_minute() {
    let house = House::new().await;
    let ticket = house.optimizer.batch(vec![true, false], |endless, checkpoint| {
        if !*endless {
            return Ok(());
        }
        loop {
            checkpoint.check().map_err(|interrupted| interrupted.to_string())?;
            std::thread::yield_now();
        }
    });
    let ticket = ticket.unwrap();
    sleep(Duration::from_millis(900)).await;
    // The clock stands still while a thread works, so it is moved by hand.
    advance(Duration::from_millis(200)).await;
    yield_often().await;
    advance(Duration::from_secs(29)).await;
    yield_often().await;
    assert_eq!(ticket.progress(), Progress { total: 2, done: 0, failed: 0 });
    advance(Duration::from_secs(1)).await;
    let results = ticket.outcome(WITHIN).await.unwrap();
    assert_eq!(results, [Err(ItemError::Timeout), Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_batch_passes_over_what_has_not_begun() {
    let house = House::new().await;
    let ticket = house.optimizer.batch((0..80).collect(), |n: &u32, _| Ok(*n)).unwrap();
    settle().await;
    ticket.cancel();
    let results = ticket.outcome(WITHIN).await.unwrap();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 50);
    assert!(results[50..].iter().all(|result| *result == Err(ItemError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn a_crash_costs_the_chunk_in_progress_and_says_so() {
    let house = House::new().await;
    let ticket = house.optimizer.batch((0..70).collect(), |n: &u32, checkpoint| {
        while *n == 10 && checkpoint.check().is_ok() {
            std::thread::yield_now();
        }
        Ok(*n)
    });
    let ticket = ticket.unwrap();
    yield_often().await;
    while ticket.progress().done < 10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(house.crash("batch_processor").await, ["batch_processor"]);
    let results = ticket.outcome(WITHIN).await.unwrap();
    let is_lost = |result: &Result<u32, ItemError>| *result == Err(ItemError::Lost);
    assert!(results[10..50].iter().all(is_lost), "{results:?}");
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 30);
}

#[tokio::test(start_paused = true)]
async fn more_than_there_is_room_for_is_refused_whole() {
    let config = OptimizerConfig { items_max: 10, ..OptimizerConfig::default() };
    let house = House::with(config, None).await;
    let submit = |n: usize| house.optimizer.batch(vec![(); n], |(), _| Ok(()));
    let first = submit(8).unwrap();
    assert_eq!(submit(3).unwrap_err(), Full { asked: 3, free: 2 });
    let second = submit(2).unwrap();
    for ticket in [first, second] {
        assert!(ticket.outcome(WITHIN).await.unwrap().iter().all(Result::is_ok));
    }
    submit(10).unwrap();
}

#[tokio::test(start_paused = true)]
async fn as_many_run_at_a_time_as_are_allowed() {
    let config = OptimizerConfig { parallel: 3, ..OptimizerConfig::default() };
    let house = House::with(config, None).await;
    let running = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&running);
    let ticket = house.optimizer.batch(vec![(); 50], move |(), _| {
        let now = running.0.fetch_add(1, Ordering::SeqCst) + 1;
        running.1.fetch_max(now, Ordering::SeqCst);
        for _ in 0..1000 {
            std::thread::yield_now();
        }
        running.0.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    });
    ticket.unwrap().outcome(WITHIN).await.unwrap();
    let most = seen.1.load(Ordering::SeqCst);
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test(start_paused = true)]
async fn items_run_on_the_threads_that_are_given() {
    let config = CpuConfig { threads: 1, queue: 4, grace: Duration::from_millis(100) };
    let (threads, cpu) = CpuPool::new("cpu", config, Inline).unwrap();
    let root = SupervisorSpec::new(Strategy::OneForOne).child(threads);
    let _root = root.start("threads").await.unwrap();
    let house = House::with(OptimizerConfig::default(), Some(cpu)).await;
    let here = std::thread::current().id();
    let ticket = house.optimizer.batch(vec![0, 1], move |n, _| match n {
        0 => Ok(std::thread::current().id() == here),
        _ => panic!("one"),
    });
    let results = ticket.unwrap().outcome(WITHIN).await.unwrap();
    assert_eq!(results, [Ok(true), Err(ItemError::Panicked("one".into()))]);
}

#[tokio::test(start_paused = true)]
async fn a_survey_adds_up_to_the_whole() {
    let house = House::new().await;
    let repository = Repository::new(1);
    for lines in 1..=60 {
        put(&repository, &format!("{lines}.html"), Language::Html, lines);
    }
    let ticket = house.optimizer.survey(Priority::Normal, &repository.snapshot()).unwrap();
    let facts = ticket.outcome(WITHIN).await.unwrap();
    let whole: FileFacts = facts.into_iter().map(Result::unwrap).sum();
    let lines = (1..=60).sum();
    let expected = FileFacts { files: 60, nodes: lines + 60, error_nodes: 60, depth: 2, lines };
    assert_eq!(whole, expected);
    assert_eq!(whole.nodes, repository.snapshot().totals().nodes);
}

#[tokio::test(start_paused = true)]
async fn progress_can_be_watched() {
    let house = House::new().await;
    let ticket = house.optimizer.batch(vec![(); 5], |(), _| Ok(())).unwrap();
    let mut watch = ticket.watch();
    let seen = Mutex::new(Vec::new());
    while !watch.borrow_and_update().is_complete() {
        watch.changed().await.unwrap();
        seen.lock().unwrap().push(watch.borrow().done);
    }
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted() && seen.last() == Some(&5), "{seen:?}");
}
