//! OTP's supervision, case by case: the list of `docs/semantics/supervision.md`, then the rules
//! that the list leaves out, then what is ours.
//!
//! `case_NN_…` is the case NN of the list, `rule_1_N_…` a rule of section 1 without a case, and a
//! name without a number is an extension or a bug that once was. Each test is a script for a few
//! scripted workers on a paused clock, and asserts the whole log of what happened, in order.
#![expect(clippy::unwrap_used, reason = "a test may")]

mod stage;

mod conformance {
    mod play;

    mod admin;
    mod dynamic;
    mod intensity;
    mod restart_types;
    mod retry;
    mod shutdown;
    mod significant;
    mod start;
    mod strategies;

    mod deviations;
    mod firewall;
    mod kill;
    mod unkillable;

    mod address;
    mod probe;
    mod root;
    mod scope;
}
