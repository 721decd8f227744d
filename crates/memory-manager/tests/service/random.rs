//! Whatever dies while the memory comes and goes: the level follows the rule from sample to sample,
//! across all incarnations, and what it asks for is done.

use crate::house::{BUDGET, House};
use astscope_memory_manager::{Level, Thresholds};
use astscope_supervision::{Dependencies, Fault, Point};
use proptest::prelude::*;
use std::time::Duration;
use tokio::time::sleep;

/// Long enough between two deaths that nobody's intensity is exceeded, each death costing three
/// restarts at most.
const PAUSE: Duration = Duration::from_secs(11);

#[derive(Clone, Debug)]
struct Step {
    percent: u64,
    /// Who dies, and how, if somebody does.
    death: Option<(&'static str, Point, Fault)>,
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![
        Just("memory_monitor"),
        Just("memory_cache_manager"),
        Just("memory_pressure_handler"),
    ];
    let how = prop_oneof![
        Just((Point::Run, Fault::Panic)),
        Just((Point::Run, Fault::Error)),
        Just((Point::Run, Fault::Slow(Duration::from_secs(2)))),
        Just((Point::Init, Fault::Slow(Duration::from_secs(2)))),
    ];
    let death = proptest::option::of((who, how).prop_map(|(who, (at, fault))| (who, at, fault)));
    (60..105_u64, death).prop_map(|(percent, death)| Step { percent, death })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_level_is_right_and_acted_on(steps in proptest::collection::vec(step(), 1..25)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let house = House::new().await;
            let mut last = 0;
            for Step { percent, death } in steps {
                house.fill();
                house.use_percent(percent);
                last = percent;
                if let Some((who, point, fault)) = death {
                    house.probe.arm(who, point, fault, 1);
                    house.memory.inserted(BUDGET);
                }
                sleep(PAUSE).await;
            }
            house.probe.clear();
            house.memory.sample().await.unwrap();
            sleep(PAUSE).await;

            let history = house.memory.history();
            let mut before = Level::Normal;
            for sample in history.samples() {
                let expected = Thresholds::default().next(before, sample.used(), BUDGET);
                assert_eq!(sample.level, expected, "{sample:?} after {before}");
                before = sample.level;
            }
            assert_eq!((history.latest().unwrap().used(), house.memory.level()), (BUDGET / 100 * last, before));
            if before != Level::Normal {
                assert_eq!(house.memory.actions().last().unwrap().level, before);
            }
            for record in house.memory.actions() {
                assert_eq!(record.error, None, "{record:?}");
            }
            let needs = Dependencies::new(house.memory.needs()).unwrap();
            assert!(needs.check("memory_pressure_handler"), "everybody is back");
        });
    }
}
