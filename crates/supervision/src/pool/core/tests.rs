//! poolboy's rules, by the numbers of our conformance list.

use super::*;
use std::time::Duration;

fn config(size: usize, max_overflow: usize) -> PoolConfig {
    PoolConfig { size, max_overflow, queue: 8, order: Order::Lifo, deaths: None }
}

/// What has become of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Starting,
    Free,
    Out,
    Stopping,
}

/// A pool whose world is kept account of, without looking into the core, and checked.
pub(super) struct World {
    pub(super) core: Core,
    now: Instant,
    pub(super) workers: BTreeMap<WorkerKey, Is>,
    /// Who waits, and who has what.
    pub(super) waiting: BTreeSet<Ticket>,
    pub(super) out: BTreeMap<Ticket, WorkerKey>,
    pub(super) last_ticket: Ticket,
    /// What the callers were told: `None` is full.
    pub(super) told: Vec<(Ticket, Option<WorkerKey>)>,
    events: Vec<EventKind>,
    /// Starts and stops take no time.
    instant: bool,
    failed: bool,
}

impl World {
    pub(super) fn new(config: PoolConfig, instant: bool) -> Self {
        let mut world = Self {
            core: Core::new(config),
            now: Instant::now(),
            workers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            out: BTreeMap::new(),
            last_ticket: 0,
            told: Vec::new(),
            events: Vec::new(),
            instant,
            failed: false,
        };
        world.step(Input::Open);
        world
    }

    #[track_caller]
    pub(super) fn step(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.core.step(self.now, input, &mut actions);
        let mut done = Vec::new();
        for action in actions {
            match action {
                Action::Start(key) => {
                    assert_eq!(self.workers.insert(key, Is::Starting), None, "{key:?} again");
                    done.push(Input::Started(key));
                }
                Action::Stop(key) => {
                    self.turn(key, Is::Free, Is::Stopping);
                    done.push(Input::Ended(key, Exit::Shutdown));
                }
                Action::Grant(ticket, key) => {
                    self.turn(key, Is::Free, Is::Out);
                    assert_eq!(self.waiting.pop_first(), Some(ticket), "not the oldest");
                    self.out.insert(ticket, key);
                    self.told.push((ticket, Some(key)));
                }
                Action::Refuse(ticket) => {
                    assert_eq!(self.waiting.pop_last(), Some(ticket), "it waited already");
                    self.told.push((ticket, None));
                }
                Action::Emit(event) => self.events.push(event),
                Action::Fail => self.failed = true,
            }
        }
        self.check();
        if self.instant {
            for input in done {
                self.answer(input);
            }
        }
    }

    /// A start or a stop is done.
    #[track_caller]
    pub(super) fn answer(&mut self, input: Input) {
        match input {
            Input::Started(key) => self.turn(key, Is::Starting, Is::Free),
            Input::Ended(key, _) => assert_eq!(self.workers.remove(&key), Some(Is::Stopping)),
            _ => {}
        }
        self.step(input);
    }

    #[track_caller]
    fn turn(&mut self, key: WorkerKey, from: Is, to: Is) {
        assert_eq!(self.workers.insert(key, to), Some(from), "{key:?}");
    }

    pub(super) fn count(&self, what: Is) -> usize {
        self.workers.values().filter(|is| **is == what).count()
    }

    /// What is true after every step.
    #[track_caller]
    fn check(&self) {
        let PoolConfig { size, max_overflow, .. } = self.core.config;
        assert!(self.workers.len() <= size + max_overflow, "too many: {:?}", self.workers);
        let status = self.core.status();
        assert_eq!(status.idle, self.count(Is::Free));
        assert_eq!(status.checked_out, self.count(Is::Out));
        assert_eq!(status.checked_out, self.out.len());
        assert_eq!(status.stopping, self.count(Is::Stopping));
        assert_eq!(status.waiting, self.waiting.len());
        assert!(status.starting >= self.count(Is::Starting));
        assert_eq!(
            status.idle + status.checked_out + status.starting,
            size + status.overflow,
            "{status:?}"
        );
        assert!(status.overflow <= max_overflow);
        assert!(status.idle == 0 || status.waiting == 0, "somebody waits for nothing");
        assert!(status.idle == 0 || status.overflow == 0, "one too many is kept");
        let owed = status.starting - self.count(Is::Starting);
        assert!(owed == 0 || self.workers.len() == size + max_overflow, "there is room for {owed}");
    }

    #[track_caller]
    pub(super) fn checkout(&mut self, queues: bool) -> Ticket {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.waiting.insert(ticket);
        self.step(Input::Checkout { ticket, queues });
        ticket
    }

    /// Checks out, and expects to get something at once.
    #[track_caller]
    fn take(&mut self) -> WorkerKey {
        let ticket = self.checkout(false);
        self.out[&ticket]
    }

    #[track_caller]
    pub(super) fn check_in(&mut self, key: WorkerKey) {
        self.turn(key, Is::Out, Is::Free);
        self.out.retain(|_, out| *out != key);
        self.step(Input::CheckIn(key));
    }

    #[track_caller]
    pub(super) fn die(&mut self, key: WorkerKey) {
        self.workers.remove(&key);
        self.out.retain(|_, out| *out != key);
        self.step(Input::Ended(key, Exit::failed("x")));
    }

    #[track_caller]
    pub(super) fn leave(&mut self, ticket: Ticket, input: Input) {
        self.waiting.remove(&ticket);
        self.step(input);
    }

    #[track_caller]
    pub(super) fn check_status(
        &self,
        state: PoolState,
        idle: usize,
        overflow: usize,
        checked_out: usize,
    ) {
        let status = self.core.status();
        let actual = (status.state, status.idle, status.overflow, status.checked_out);
        assert_eq!(actual, (state, idle, overflow, checked_out));
    }
}

#[test]
fn case_87_it_grows_when_asked_and_shrinks_when_given_back() {
    let mut world = World::new(config(5, 5), true);
    let out: Vec<_> = (0..7).map(|_| world.take()).collect();
    assert_eq!(world.workers.len(), 7);
    world.check_status(PoolState::Overflow, 0, 2, 7);
    for key in &out[..2] {
        world.check_in(*key);
    }
    world.check_status(PoolState::Overflow, 0, 0, 5);
    assert_eq!(world.workers.len(), 5);
    for key in &out[2..] {
        world.check_in(*key);
    }
    world.check_status(PoolState::Ready, 5, 0, 0);
}

#[test]
fn case_88_full_and_out_of_time_change_nothing() {
    let mut world = World::new(config(1, 1), true);
    let out = [world.take(), world.take()];
    let before = world.core.status();
    let refused = world.checkout(false);
    assert_eq!(world.told.last(), Some(&(refused, None)));
    assert_eq!(world.core.status(), before);
    let hasty = world.checkout(true);
    world.leave(hasty, Input::Expire(hasty));
    assert_eq!(world.core.status(), before);
    assert_eq!(world.events.last(), Some(&EventKind::CheckoutTimeout));
    for key in out {
        world.check_in(key);
    }
    world.check_status(PoolState::Ready, 1, 0, 0);
}

#[test]
fn case_89_lifo_lends_the_last_and_fifo_the_first_one_back() {
    for (order, expected) in [(Order::Lifo, [1, 3, 2]), (Order::Fifo, [2, 3, 1])] {
        let mut world = World::new(PoolConfig { order, ..config(3, 0) }, true);
        let mut out: Vec<_> = (0..3).map(|_| world.take()).collect();
        out.sort();
        for at in [1, 2, 0] {
            world.check_in(out[at]);
        }
        assert_eq!([(); 3].map(|()| world.take().0), expected, "{order:?}");
        // Callers are served in order under either.
        let callers = [world.checkout(true), world.checkout(true)];
        for key in [out[2], out[0]] {
            world.check_in(key);
        }
        assert_eq!(world.told[6..], [(callers[0], Some(out[2])), (callers[1], Some(out[0]))]);
    }
}

#[test]
fn case_90_a_worker_that_dies_while_it_is_out() {
    // Nobody waits, no overflow: another takes its place.
    let mut world = World::new(config(1, 1), true);
    let key = world.take();
    world.die(key);
    world.check_status(PoolState::Ready, 1, 0, 0);
    let replaced = EventKind::WorkerReplaced { exit: Exit::failed("x") };
    assert_eq!(world.events.last(), Some(&replaced));
    // Over the size: none does.
    let [first, second] = [world.take(), world.take()];
    world.die(second);
    world.check_status(PoolState::Overflow, 0, 0, 1);
    // Somebody waits, who gets a fresh one; the overflow stays.
    world.take();
    let waits = world.checkout(true);
    world.die(first);
    world.check_status(PoolState::Full, 0, 1, 2);
    assert!(world.out[&waits] > second);
    assert_eq!(world.events[world.events.len() - 2], replaced);
}

#[test]
fn an_idle_worker_that_dies_is_replaced_at_once() {
    let mut world = World::new(config(2, 0), true);
    let key = world.take();
    world.check_in(key);
    world.die(key);
    world.check_status(PoolState::Ready, 2, 0, 0);
}

#[test]
fn case_91_a_caller_that_leaves_the_queue_is_forgotten() {
    let mut world = World::new(config(1, 0), true);
    let key = world.take();
    let [leaves, stays] = [world.checkout(true), world.checkout(true)];
    world.leave(leaves, Input::Cancel(leaves));
    assert_eq!(world.core.status().waiting, 1);
    world.check_in(key);
    assert_eq!(world.out.get(&stays), Some(&key));
    // What is told twice, or too late, is of no effect.
    world.step(Input::Cancel(stays));
    world.step(Input::Expire(stays));
    assert!(!world.events.contains(&EventKind::CheckoutTimeout));
    world.check_in(key);
    world.step(Input::CheckIn(key));
    world.check_status(PoolState::Ready, 1, 0, 0);
}

#[test]
fn case_93_the_status_over_four_shapes() {
    let mut world = World::new(config(2, 0), true);
    world.check_status(PoolState::Ready, 2, 0, 0);
    let out = [world.take(), world.take()];
    world.check_status(PoolState::Full, 0, 0, 2);
    world.check_in(out[0]);
    world.check_status(PoolState::Ready, 1, 0, 1);

    let mut world = World::new(config(1, 1), true);
    world.check_status(PoolState::Ready, 1, 0, 0);
    world.take();
    world.check_status(PoolState::Overflow, 0, 0, 1);
    world.take();
    world.check_status(PoolState::Full, 0, 1, 2);

    let mut world = World::new(config(0, 2), true);
    world.check_status(PoolState::Overflow, 0, 0, 0);
    world.take();
    world.check_status(PoolState::Overflow, 0, 1, 1);
    let key = world.take();
    world.check_status(PoolState::Full, 0, 2, 2);
    world.check_in(key);
    world.check_status(PoolState::Overflow, 0, 1, 1);

    let mut world = World::new(config(0, 0), true);
    world.check_status(PoolState::Full, 0, 0, 0);
    world.checkout(false);
    assert_eq!(world.told, [(1, None)]);
}

#[test]
fn only_a_full_queue_refuses_who_waits() {
    let mut world = World::new(PoolConfig { queue: 1, ..config(1, 0) }, true);
    world.take();
    world.checkout(true);
    assert!(!world.events.contains(&EventKind::Full));
    let refused = world.checkout(true);
    assert_eq!(world.told.last(), Some(&(refused, None)));
    assert_eq!(world.events.last(), Some(&EventKind::Full));
}

#[test]
fn who_waits_for_a_worker_that_is_coming_is_not_in_the_queue() {
    let mut world = World::new(PoolConfig { queue: 1, ..config(0, 1) }, false);
    let covered = world.checkout(false);
    let queues = world.checkout(true);
    assert_eq!(world.told, []);
    let refused = world.checkout(true);
    assert_eq!(world.told, [(refused, None)]);
    world.answer(Input::Started(WorkerKey(1)));
    world.check_in(WorkerKey(1));
    let told = [(refused, None), (covered, Some(WorkerKey(1))), (queues, Some(WorkerKey(1)))];
    assert_eq!(world.told, told);
}

#[test]
fn a_worker_that_is_stopping_keeps_its_place() {
    let mut world = World::new(config(1, 1), false);
    world.answer(Input::Started(WorkerKey(1)));
    world.take();
    let ticket = world.checkout(false);
    world.answer(Input::Started(WorkerKey(2)));
    assert_eq!(world.out[&ticket], WorkerKey(2));
    world.check_in(WorkerKey(1)); // dismissed
    assert_eq!(world.count(Is::Stopping), 1);
    let ticket = world.checkout(false); // one that has to wait for room
    assert_eq!(world.count(Is::Starting), 0);
    world.answer(Input::Ended(WorkerKey(1), Exit::Shutdown));
    world.answer(Input::Started(WorkerKey(3)));
    assert_eq!(world.out[&ticket], WorkerKey(3));
}

#[test]
fn what_is_owed_to_who_has_left_is_not_started() {
    let mut world = World::new(config(1, 1), false);
    world.answer(Input::Started(WorkerKey(1)));
    world.take();
    world.checkout(false);
    world.answer(Input::Started(WorkerKey(2)));
    world.check_in(WorkerKey(1));
    let ticket = world.checkout(false);
    assert_eq!(world.core.status().overflow, 1);
    world.leave(ticket, Input::Cancel(ticket));
    assert_eq!(world.core.status().overflow, 0);
    world.answer(Input::Ended(WorkerKey(1), Exit::Shutdown));
    world.check_status(PoolState::Overflow, 0, 0, 1);
}

#[test]
fn whoever_waits_longest_gets_what_is_free_first() {
    let mut world = World::new(config(1, 1), false);
    world.answer(Input::Started(WorkerKey(1)));
    let key = world.take();
    let first = world.checkout(true); // for whom a worker is being started
    world.check_in(key);
    assert_eq!(world.out[&first], key);
    // And the one that was started for it is dismissed.
    world.answer(Input::Started(WorkerKey(2)));
    assert_eq!(world.count(Is::Stopping), 1);
}

#[test]
fn more_deaths_than_it_tolerates_are_its_own_failure() {
    let deaths = Some((1, Duration::from_secs(5)));
    let mut world = World::new(PoolConfig { deaths, ..config(1, 0) }, true);
    for fails in [false, true] {
        let key = world.take();
        world.die(key);
        world.step(Input::Ended(key, Exit::failed("x"))); // nobody dies twice
        assert_eq!(world.failed, fails);
    }
}
