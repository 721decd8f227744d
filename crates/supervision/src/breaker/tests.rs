//! The breaker's cases of the conformance list by their numbers, its own edges, and the core
//! against a model that counts in plain lists.

use super::*;
use crate::event::{Recorder, TreePath};
use proptest::prelude::*;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tokio::time::{advance, sleep};

const WINDOW: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(1);

fn breaker(failures: usize, probes: usize) -> (CircuitBreaker, Arc<Recorder>) {
    let recorder = Recorder::new();
    let config = BreakerConfig { failures, window: WINDOW, open_wait: WAIT, probes };
    let observer: Arc<Recorder> = Arc::clone(&recorder);
    let emitter = Emitter::new(TreePath::root("b"), observer);
    (CircuitBreaker::new(config, emitter).unwrap(), recorder)
}

fn fail(breaker: &CircuitBreaker) {
    breaker.acquire().unwrap().fail();
}

fn state(breaker: &CircuitBreaker) -> BreakerState {
    breaker.state().state
}

#[tokio::test(start_paused = true)]
async fn case_95_the_nth_failure_opens_and_the_edge_of_the_window_is_exclusive() {
    let (breaker, recorder) = breaker(3, 1);
    fail(&breaker);
    fail(&breaker);
    breaker.acquire().unwrap().succeed();
    assert_eq!(breaker.state().failures, 2, "a success forgets nothing");
    advance(WINDOW).await;
    fail(&breaker);
    assert_eq!(breaker.state().failures, 1, "exactly as old as the window is too old");
    advance(WINDOW.checked_sub(TICK).unwrap()).await;
    fail(&breaker);
    assert_eq!(state(&breaker), BreakerState::Closed);
    fail(&breaker);
    assert_eq!(state(&breaker), BreakerState::Open);
    assert_eq!(breaker.acquire().unwrap_err(), Rejected::Open { retry_after: WAIT });
    assert_eq!(recorder.take_log(), "b opened after 3 failures\nb rejected\n");
}

#[tokio::test(start_paused = true)]
async fn a_row_of_failures_ends_with_a_success_that_says_so() {
    let (breaker, _) = breaker(3, 1);
    fail(&breaker);
    let slow = breaker.acquire().unwrap();
    fail(&breaker);
    breaker.acquire().unwrap().succeed_and_forget();
    assert_eq!(breaker.state().failures, 0);
    fail(&breaker);
    fail(&breaker);
    assert_eq!(state(&breaker), BreakerState::Closed, "two in a row");
    fail(&breaker);
    assert_eq!(state(&breaker), BreakerState::Open);
    slow.succeed_and_forget();
    assert_eq!(state(&breaker), BreakerState::Open, "it began before the opening");
    advance(WAIT).await;
    breaker.acquire().unwrap().succeed_and_forget();
    assert_eq!(state(&breaker), BreakerState::Closed);
}

#[tokio::test(start_paused = true)]
async fn case_96_failures_while_open_do_not_prolong_it_and_reset_clears() {
    let (breaker, recorder) = breaker(1, 1);
    let slow = breaker.acquire().unwrap();
    fail(&breaker);
    advance(WAIT.checked_sub(TICK).unwrap()).await;
    slow.fail();
    assert_eq!(breaker.state().half_open_in, Some(TICK));
    advance(TICK).await;
    assert_eq!(state(&breaker), BreakerState::HalfOpen);

    breaker.reset();
    let closed = BreakerStatus { state: BreakerState::Closed, failures: 0, half_open_in: None };
    assert_eq!(breaker.state(), closed);
    fail(&breaker);
    breaker.reset();
    assert_eq!(breaker.state(), closed);
    let opened_and_reset = "b opened after 1 failures\nb half-open\nb closed\n\
                            b opened after 1 failures\nb closed\n";
    assert_eq!(recorder.take_log(), opened_and_reset);
}

#[tokio::test(start_paused = true)]
async fn case_97_half_open_lets_k_probes_through_and_one_failure_opens_it_again() {
    let (breaker, recorder) = breaker(1, 2);
    fail(&breaker);
    advance(WAIT).await;
    let good = breaker.acquire().unwrap();
    let bad = breaker.acquire().unwrap();
    assert_eq!(breaker.acquire().unwrap_err(), Rejected::Probing);
    good.succeed();
    assert_eq!(breaker.acquire().unwrap_err(), Rejected::Probing, "one more would be three");
    advance(WAIT / 2).await;
    bad.fail();
    assert_eq!(breaker.state().half_open_in, Some(WAIT), "a fresh wait");

    advance(WAIT).await;
    let probes = [breaker.acquire().unwrap(), breaker.acquire().unwrap()];
    assert_eq!(state(&breaker), BreakerState::HalfOpen);
    probes.into_iter().for_each(Permit::succeed);
    assert_eq!(breaker.state().failures, 0);
    let reopened_and_closed = "b opened after 1 failures\nb half-open\nb rejected\nb rejected\n\
                               b opened after 1 failures\nb half-open\nb closed\n";
    assert_eq!(recorder.take_log(), reopened_and_closed);
}

#[tokio::test(start_paused = true)]
async fn case_100_disable_dominates_everything_and_only_enable_lifts_it() {
    let (breaker, recorder) = breaker(2, 1);
    fail(&breaker);
    let before = breaker.acquire().unwrap();
    breaker.disable();
    breaker.disable();
    before.succeed();
    breaker.reset();
    advance(WAIT * 2).await;
    assert_eq!(breaker.acquire().unwrap_err(), Rejected::Disabled);
    assert_eq!(breaker.acquire().unwrap_err().retry_after(), None);

    breaker.enable();
    breaker.enable();
    assert_eq!(breaker.state().failures, 0);
    fail(&breaker);
    assert_eq!(state(&breaker), BreakerState::Closed);
    let log = "b opened after 1 failures\nb rejected\nb rejected\nb closed\n";
    assert_eq!(recorder.take_log(), log);

    fail(&breaker);
    breaker.disable();
    assert_eq!(recorder.take_log(), "b opened after 2 failures\n", "it was open already");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_gives_its_slot_back_and_counts_as_neither() {
    let (breaker, recorder) = breaker(1, 1);
    fail(&breaker);
    advance(WAIT).await;
    tokio::select! {
        biased;
        _ = breaker.call(pending::<Result<(), ()>>()) => unreachable!("it never ends"),
        () = sleep(TICK) => {}
    }
    assert_eq!(state(&breaker), BreakerState::HalfOpen);
    drop(breaker.acquire().unwrap());
    assert_eq!(breaker.call(async { Ok::<_, ()>(7) }).await, Ok(7));
    assert_eq!(recorder.take_log(), "b opened after 1 failures\nb half-open\nb closed\n");
}

#[tokio::test(start_paused = true)]
async fn a_result_of_an_older_generation_is_ignored() {
    let (breaker, _) = breaker(1, 1);
    let [bad, good] = [breaker.acquire().unwrap(), breaker.acquire().unwrap()];
    fail(&breaker);
    advance(WAIT).await;
    let stale_probe = breaker.acquire().unwrap();
    bad.fail();
    good.succeed();
    assert_eq!(state(&breaker), BreakerState::HalfOpen);
    breaker.reset();
    stale_probe.fail();
    assert_eq!(breaker.state().failures, 0);

    let before_reset = breaker.acquire().unwrap();
    breaker.reset();
    before_reset.fail();
    assert_eq!(state(&breaker), BreakerState::Closed, "a reset of a closed one counts too");
}

#[tokio::test(start_paused = true)]
async fn only_errors_that_count_do_and_the_others_are_no_success_either() {
    let (breaker, _) = breaker(1, 1);
    let syntax = || breaker.call_counting(async { Err::<(), _>("syntax") }, |e| *e != "syntax");
    assert_eq!(syntax().await, Err(BreakerError::Failed("syntax")));
    assert_eq!(state(&breaker), BreakerState::Closed);
    let io = breaker.call_counting(async { Err::<(), _>("io") }, |error| *error != "syntax");
    assert_eq!(io.await, Err(BreakerError::Failed("io")));
    let open = Rejected::Open { retry_after: WAIT };
    assert_eq!(syntax().await, Err(BreakerError::Rejected(open)));
    advance(WAIT).await;
    assert_eq!(syntax().await, Err(BreakerError::Failed("syntax")));
    assert_eq!(state(&breaker), BreakerState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_panic_counts_and_goes_on_unwinding() {
    let (breaker, _) = breaker(2, 1);
    let call = breaker.clone();
    let task = tokio::task::JoinSet::from_iter([async move {
        let after_an_await = async {
            tokio::task::yield_now().await;
            panic!("boom")
        };
        call.call::<(), ()>(after_an_await).await
    }]);
    let error = { task }.join_next().await.unwrap().unwrap_err();
    assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "boom");
    assert_eq!(breaker.state().failures, 1);

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _permit = breaker.acquire().unwrap();
        panic!("boom");
    }));
    assert!(panicked.is_err());
    assert_eq!(state(&breaker), BreakerState::Open);
}

#[test]
fn a_call_that_somebody_elses_panic_drops_is_cancelled_and_no_failure() {
    let (breaker, _) = breaker(1, 1);
    let mut call = Box::pin(breaker.call(pending::<Result<(), ()>>()));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(call.as_mut().poll(&mut cx).is_pending());
        let _dropped_while_unwinding = call;
        panic!("boom");
    }));
    assert!(panicked.is_err());
    assert_eq!(breaker.state().failures, 0);
}

#[test]
fn an_observer_may_use_the_breaker_that_it_observes() {
    struct Asks(Mutex<Option<CircuitBreaker>>, Mutex<Vec<BreakerState>>);
    impl crate::Observer for Asks {
        fn observe(&self, _: &crate::Event) {
            let breaker = self.0.lock().unwrap().clone().unwrap();
            self.1.lock().unwrap().push(state(&breaker));
        }
    }
    let observer = Arc::new(Asks(Mutex::default(), Mutex::default()));
    let config = BreakerConfig { failures: 1, ..BreakerConfig::new(WINDOW) };
    let shared: Arc<Asks> = Arc::clone(&observer);
    let breaker = CircuitBreaker::new(config, Emitter::new(TreePath::root("b"), shared)).unwrap();
    *observer.0.lock().unwrap() = Some(breaker.clone());
    fail(&breaker);
    assert_eq!(*observer.1.lock().unwrap(), [BreakerState::Open]);
    *observer.0.lock().unwrap() = None; // or the two keep each other alive
}

#[test]
fn a_config_with_a_zero_is_refused() {
    let good = BreakerConfig::new(WINDOW);
    let cases = [
        (BreakerConfig { failures: 0, ..good }, BreakerConfigError::NoFailures),
        (BreakerConfig { window: Duration::ZERO, ..good }, BreakerConfigError::NoWindow),
        (BreakerConfig { open_wait: Duration::ZERO, ..good }, BreakerConfigError::NoOpenWait),
        (BreakerConfig { probes: 0, ..good }, BreakerConfigError::NoProbes),
    ];
    for (config, error) in cases {
        let emitter = Emitter::new(TreePath::root("b"), Recorder::new());
        assert_eq!(CircuitBreaker::new(config, emitter).unwrap_err(), error);
    }
}

#[test]
fn a_wait_and_a_window_without_end_are_fine() {
    let for_ever = Duration::MAX;
    let config = BreakerConfig { failures: 1, window: for_ever, open_wait: for_ever, probes: 1 };
    let breaker =
        CircuitBreaker::new(config, Emitter::new(TreePath::root("b"), Recorder::new())).unwrap();
    fail(&breaker);
    assert_eq!(breaker.state().failures, 1);
    assert!(breaker.acquire().unwrap_err().retry_after() > Some(for_ever / 2));
}

/// What can be done to a breaker. A call is named by its place among those under way, and around.
#[derive(Clone, Copy, Debug)]
enum Input {
    Acquire,
    Finish(usize, Outcome),
    Wait(u64),
    Reset,
    Disable,
    Enable,
}

fn inputs() -> impl Strategy<Value = Vec<Input>> {
    let outcome = prop_oneof![
        3 => Just(Outcome::Failed),
        2 => Just(Outcome::Succeeded),
        1 => Just(Outcome::Abandoned),
    ];
    let input = prop_oneof![
        8 => Just(Input::Acquire),
        8 => (0..6_usize, outcome).prop_map(|(call, outcome)| Input::Finish(call, outcome)),
        4 => (0..12_u64).prop_map(Input::Wait),
        1 => Just(Input::Reset),
        1 => Just(Input::Disable),
        1 => Just(Input::Enable),
    ];
    proptest::collection::vec(input, 0..120)
}

/// A breaker that keeps everything: each era has a list of all its calls, and nothing is counted
/// before it is asked for.
struct Model {
    now: u64,
    state: BreakerState,
    since: u64,
    /// Counts the states, and the resets of a closed one.
    era: usize,
    /// Of this era: how each call ended, if it did.
    calls: Vec<Option<Outcome>>,
    /// When, since it was last closed.
    failures: Vec<u64>,
}

impl Model {
    fn enter(&mut self, state: BreakerState) {
        self.state = state;
        self.since = self.now;
        self.era += 1;
        self.calls.clear();
        if state == BreakerState::Closed {
            self.failures.clear();
        }
    }

    fn recent(&self, config: &BreakerConfig) -> usize {
        let window = u64::try_from(config.window.as_millis()).unwrap();
        let recent = self.failures.iter().filter(|at| self.now - **at < window).count();
        recent.min(config.failures)
    }

    fn lets_through(&self, config: &BreakerConfig) -> bool {
        let abandoned = |call: &&Option<Outcome>| **call == Some(Outcome::Abandoned);
        let taken = self.calls.len() - self.calls.iter().filter(abandoned).count();
        match self.state {
            BreakerState::Closed => true,
            BreakerState::HalfOpen => taken < config.probes,
            BreakerState::Open | BreakerState::Disabled => false,
        }
    }

    fn finish(&mut self, config: &BreakerConfig, call: usize, outcome: Outcome) {
        self.calls[call] = Some(outcome);
        if outcome == Outcome::Failed {
            self.failures.push(self.now);
        }
        let n_good = self.calls.iter().filter(|call| **call == Some(Outcome::Succeeded)).count();
        let failed = outcome == Outcome::Failed;
        match self.state {
            BreakerState::Closed if failed && self.recent(config) == config.failures => {
                self.enter(BreakerState::Open);
            }
            BreakerState::HalfOpen if failed => self.enter(BreakerState::Open),
            BreakerState::HalfOpen if n_good == config.probes => self.enter(BreakerState::Closed),
            _ => {}
        }
    }
}

/// What the events say that the state is, where they are all that somebody sees.
fn told(event: Option<&EventKind>, before: BreakerState) -> BreakerState {
    match event {
        Some(EventKind::Opened { .. }) => BreakerState::Open,
        Some(EventKind::HalfOpen) => BreakerState::HalfOpen,
        Some(EventKind::Closed) => BreakerState::Closed,
        _ => before,
    }
}

proptest! {
    #[test]
    fn the_core_does_what_a_model_does(
        inputs in inputs(),
        (failures, window, open_wait, probes) in (1..4_usize, 1..20_u64, 1..20_u64, 1..4_usize),
    ) {
        let [window, open_wait] = [window, open_wait].map(Duration::from_millis);
        let config = BreakerConfig { failures, window, open_wait, probes };
        let mut core = Core::new(config);
        let start = Instant::now();
        let mut model = Model {
            now: 0,
            state: BreakerState::Closed,
            since: 0,
            era: 0,
            calls: Vec::new(),
            failures: Vec::new(),
        };
        // The calls under way: the core's generation and the model's era and number.
        let mut calls: Vec<(u64, usize, usize)> = Vec::new();
        let mut seen = BreakerState::Closed;

        for input in inputs {
            let now = start + Duration::from_millis(model.now);
            let event = match input {
                Input::Acquire => {
                    let (permit, event) = core.acquire(now);
                    prop_assert_eq!(permit.is_ok(), model.lets_through(&config));
                    prop_assert_eq!(permit.is_err(), event == Some(EventKind::Rejected));
                    if let Ok(generation) = permit {
                        calls.push((generation, model.era, model.calls.len()));
                        model.calls.push(None);
                    }
                    event
                }
                Input::Finish(call, outcome) if !calls.is_empty() => {
                    let (generation, began_in, number) = calls.swap_remove(call % calls.len());
                    if began_in == model.era {
                        model.finish(&config, number, outcome);
                    }
                    core.finish(now, generation, outcome)
                }
                Input::Finish(..) => None,
                Input::Wait(ms) => {
                    model.now += ms;
                    None
                }
                Input::Reset => {
                    if model.state == BreakerState::Disabled {
                        model.failures.clear();
                    } else {
                        model.enter(BreakerState::Closed);
                    }
                    core.reset()
                }
                Input::Disable => {
                    model.enter(BreakerState::Disabled);
                    core.disable(now)
                }
                Input::Enable => {
                    if model.state == BreakerState::Disabled {
                        model.enter(BreakerState::Closed);
                    }
                    core.enable()
                }
            };
            seen = told(event.as_ref(), seen);

            let waited = Duration::from_millis(model.now - model.since);
            if model.state == BreakerState::Open && waited >= open_wait {
                model.enter(BreakerState::HalfOpen);
            }

            let (status, event) = core.status(start + Duration::from_millis(model.now));
            seen = told(event.as_ref(), seen);
            let half_open_in = (model.state == BreakerState::Open)
                .then(|| open_wait.saturating_sub(Duration::from_millis(model.now - model.since)));
            let failures = model.recent(&config);
            let expected = BreakerStatus { state: model.state, failures, half_open_in };
            prop_assert_eq!(status, expected, "after {:?}", input);
            let disabled_looks_open = match status.state {
                BreakerState::Disabled => BreakerState::Open,
                state => state,
            };
            prop_assert_eq!(seen, disabled_looks_open);
        }
    }
}
