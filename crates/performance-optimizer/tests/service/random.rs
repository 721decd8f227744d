//! Whatever dies while batches and jobs come and go: every item is settled, once, and none is lost
//! unless something died.

use crate::house::House;
use astscope_performance_optimizer::Priority;
use astscope_performance_optimizer::service::{ItemError, OptimizerConfig};
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::sleep;

#[derive(Clone, Debug)]
enum Step {
    Batch(usize),
    Job(usize),
    Busy(bool),
    Flush,
    Pass(u64),
    Die(&'static str),
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![
        3 => Just("batch_processor"),
        2 => Just("optimization_scheduler"),
        1 => Just("statistics_collector"),
    ];
    prop_oneof![
        4 => (0..120_usize).prop_map(Step::Batch),
        4 => (0..120_usize).prop_map(Step::Job),
        2 => any::<bool>().prop_map(Step::Busy),
        1 => Just(Step::Flush),
        2 => (0..1500_u64).prop_map(Step::Pass),
        2 => who.prop_map(Step::Die),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_item_is_settled_once(
        steps in proptest::collection::vec(step(), 1..20),
        parallel in 1..4_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let config = OptimizerConfig { parallel, ..OptimizerConfig::default() };
            let house = House::with(config, None).await;
            let (mut tickets, mut died) = (Vec::new(), false);
            let work = |n: &usize| if n % 7 == 3 { Err("three".to_owned()) } else { Ok(*n) };
            for step in steps {
                match step {
                    Step::Batch(n) => {
                        tickets.push((n, house.optimizer.batch((0..n).collect(), move |n, _| work(n)).unwrap()));
                    }
                    Step::Job(n) => {
                        let job = house.optimizer.schedule(Priority::Low, (0..n).collect(), move |n, _| work(n));
                        tickets.push((n, job.unwrap()));
                    }
                    Step::Busy(busy) => house.busy(busy),
                    Step::Flush => drop(house.optimizer.flush(Duration::from_mins(1)).await),
                    Step::Pass(time) => sleep(Duration::from_millis(time)).await,
                    Step::Die(who) => {
                        died = true;
                        house.crash(who).await;
                        // Never more than five deaths in ten seconds.
                        sleep(Duration::from_secs(2)).await;
                    }
                }
            }
            house.busy(false);
            for (n, ticket) in tickets {
                let results = ticket.outcome(Duration::from_mins(1)).await.unwrap();
                assert_eq!(results.len(), n);
                let progress = ticket.progress();
                assert_eq!((progress.total, progress.done + progress.failed), (n, n));
                for (at, result) in results.into_iter().enumerate() {
                    let expected = work(&at).map_err(ItemError::Failed);
                    assert!(result == expected || died && result == Err(ItemError::Lost), "{at}: {result:?}");
                }
            }
        });
    }
}
