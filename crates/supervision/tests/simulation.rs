//! Seeded random runs of the core against a small model of OTP, and of whole trees against what
//! must always hold.
//!
//! A run that fails prints its seed: `SEED=17 cargo test -p astscope-supervision --test simulation`
//! plays it again, alone. `SIM_CASES`, or else `PROPTEST_CASES`, says how many runs there are.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

mod stage;

mod simulation {
    pub(crate) mod chaos;
    pub(crate) mod model;
    pub(crate) mod plot;
    pub(crate) mod random;
    pub(crate) mod replay;
    pub(crate) mod trees;
}

use simulation::{chaos, model, plot::Plot, random, replay, trees};

/// With a driver that answers at once, the core does what a supervisor that blocks does.
#[test]
fn the_core_does_what_otp_does() {
    random::runs("the_core_does_what_otp_does", 3000, |random| {
        let plot = Plot::random(random);
        let fails = |plot: &Plot| model::play(plot) != replay::play(plot);
        if fails(&plot) {
            let plot = plot.smaller_while(fails);
            let (otp, ours) = (model::play(&plot), replay::play(&plot));
            panic!("OTP on the left, ours on the right\n{}\n{plot:#?}", otp.beside(&ours));
        }
    });
}

/// With a driver that answers when it likes, and in any order.
#[test]
fn the_core_keeps_its_promises_whatever_the_driver_does() {
    random::runs("the_core_keeps_its_promises_whatever_the_driver_does", 3000, |random| {
        chaos::play(random);
    });
}

/// Whole trees of workers with faults, on tokio.
#[test]
fn trees_keep_their_promises() {
    random::runs("trees_keep_their_promises", 200, trees::play);
}
