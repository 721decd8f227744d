//! Random supervisors, random faults, many times over: the core beside a model of OTP, and the laws
//! that hold whatever happens and whenever.
//!
//! A failure prints its seed: `SEED=… cargo test -p astscope-supervision --test simulation` runs
//! that one again. `SIM_CASES` is how many are run without it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may")]

#[path = "simulation/model.rs"]
mod model;
#[path = "simulation/play.rs"]
mod play;
#[path = "simulation/script.rs"]
mod script;

use astscope_supervision::{ChildPolicy, Structure, SupervisorPolicy};
use model::Model;
use play::Play;
use script::{Random, Step};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// A second or two in a debug build.
const CASES: u64 = 5_000;

/// Runs a case for each seed, and says which one failed.
fn for_each_seed(case: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        return case(seed);
    }
    for seed in 0..number("SIM_CASES").unwrap_or(CASES) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(seed))) {
            // The one thing that a reader needs to see it again.
            std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("SEED={seed}\n"))
                .unwrap();
            resume_unwind(panic);
        }
    }
}

fn case(random: &mut Random) -> (SupervisorPolicy, Vec<ChildPolicy>, Vec<Step>) {
    let policy = script::supervisor(random);
    let n = match policy.structure {
        Structure::Static(_) => random.below(6),
        Structure::Dynamic { .. } => 0,
    };
    let children = ["a", "b", "c", "d", "e"][..n].iter();
    let children: Vec<_> = children.map(|id| script::child(random, &policy, id)).collect();
    policy.check(&children).unwrap();
    let n = 5 + random.below(40);
    let mut steps = script::steps(random, &policy, n);
    if let Structure::Dynamic { .. } = policy.structure {
        let first = ["a", "b", "c"].map(|id| Step::StartChild(script::child(random, &policy, id)));
        steps.splice(0..0, first);
    }
    (policy, children, steps)
}

#[test]
fn the_core_does_what_a_model_of_otp_does() {
    for_each_seed(|seed| {
        let (policy, children, steps) = case(&mut Random::new(seed));
        let mut model = Model::start(policy, &children);
        let mut play = Play::at_once(policy, &children);
        for (at, step) in steps.iter().enumerate() {
            let before = play.log.len();
            model.step(step);
            play.step(step);
            if play.ended && matches!(policy.structure, Structure::Dynamic { .. }) {
                // They are stopped all at once, so nothing is said of the order.
                play.log[before..].sort();
                model.log[before..].sort();
            }
            assert_eq!(
                play.log, model.log,
                "after step {at}, {step:?}, of {policy:?} over {children:#?}"
            );
            assert_eq!(play.ended, model.ended);
            assert_eq!(play.n_open_tickets(), 0, "a command without an answer");
            if play.ended {
                assert_eq!(play.n_live(), 0, "a child outlived its supervisor");
                return;
            }
        }
    });
}

#[test]
fn laws_hold_when_everything_takes_its_time() {
    for_each_seed(|seed| {
        let mut random = Random::new(seed ^ 0x5eed);
        let (policy, children, steps) = case(&mut random);
        let mut play = Play::at_random(policy, &children, Random::new(seed.wrapping_mul(31)));
        for step in &steps {
            play.step(step);
        }
        if random.chance(50) && !play.ended {
            play.kill();
        }
        play.finish();
        if !play.ended {
            play.step(&Step::Shutdown);
        }
        assert!(play.ended, "it doesn't end: {:#?}", play.log);
        assert_eq!(play.n_live(), 0, "a child outlived its supervisor");
        let n_meltdowns = play.log.iter().filter(|line| line.starts_with("meltdown")).count();
        assert!(n_meltdowns <= 1, "it melted down twice");
        assert!(play.elapsed().as_secs() < 3600, "it waited for too long");
    });
}
