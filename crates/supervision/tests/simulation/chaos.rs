//! Plays the core with a driver that answers when it likes, and asserts what must always hold.
//!
//! The driver keeps a book of its own about every incarnation, and each action of the core and each
//! silence is checked against it.

use super::plot;
use super::random::Random;
use astscope_supervision::core::{Action, Command, Core, End, Input, Ticket};
use astscope_supervision::{
    AutoShutdown, Backoff, ChildKey, ChildKind, ChildPolicy, ChildState, EventKind, Exit, Restart,
    Stop, Structure, SupervisorPolicy,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub(crate) fn play(random: &mut Random) {
    let mut policy = plot::policy(random);
    policy.kill_grace = random.ms(100);
    let mut children = plot::children(random, &policy);
    for child in &mut children {
        vary(random, child, &policy);
    }
    let now = Instant::now();
    let given = children.into_iter().map(|child| {
        let id = Arc::clone(&child.id);
        (child, id, 0)
    });
    let mut chaos = Chaos {
        core: Core::new(policy, given.collect(), now),
        policy,
        now,
        processes: BTreeMap::new(),
        zombies: Vec::new(),
        last: BTreeMap::new(),
        keys: BTreeMap::new(),
        retries: VecDeque::new(),
        due: BTreeMap::new(),
        asked: BTreeSet::new(),
        last_ticket: 0,
        charges: Vec::new(),
        phase: Phase::Starting,
        was_up: false,
        told_since_end: Vec::new(),
        killed: false,
        log: Vec::new(),
    };
    chaos.feed(Input::Start);
    for _ in 0..random.below(120) {
        if chaos.phase == Phase::Ended {
            break;
        }
        chaos.act(random);
    }
    if random.percent(50) {
        chaos.calm_down(random);
    }
    chaos.finish(random);
}

/// What plots don't have: back-off, firewalls, supervisors, waits without limit.
fn vary(random: &mut Random, child: &mut ChildPolicy, policy: &SupervisorPolicy) {
    if random.percent(20) {
        child.stop = Stop::Wait;
    }
    if random.percent(20) {
        child.start_timeout = None;
    }
    let longest = Duration::from_millis(20);
    if random.percent(30) && longest * u32::try_from(policy.intensity).unwrap() <= policy.period {
        child.backoff = Some(Backoff { first: longest / 2, max: longest });
    }
    if random.percent(20) {
        child.kind = ChildKind::Supervisor;
        if random.percent(50) && child.restart != Restart::Temporary {
            child.firewall = Some(random.ms(100));
        }
    }
}

/// An incarnation that was spawned, and neither ended nor was given up.
#[derive(Clone, Debug)]
struct Process {
    policy: ChildPolicy,
    incarnation: u64,
    spawned: Instant,
    ready: bool,
    stopped: Option<Instant>,
    killed: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Up,
    /// It was told to end, or said that it does.
    Ending,
    Ended,
}

struct Chaos {
    core: Core<Arc<str>>,
    policy: SupervisorPolicy,
    now: Instant,
    processes: BTreeMap<ChildKey, Process>,
    /// Incarnations that were given up.
    zombies: Vec<(ChildKey, u64)>,
    /// The last incarnation of each child.
    last: BTreeMap<ChildKey, u64>,
    keys: BTreeMap<Arc<str>, ChildKey>,
    retries: VecDeque<ChildKey>,
    /// Until when a back-off or a cooldown lasts.
    due: BTreeMap<ChildKey, Instant>,
    asked: BTreeSet<Ticket>,
    last_ticket: Ticket,
    /// Restarts after an exit.
    charges: Vec<Instant>,
    phase: Phase,
    was_up: bool,
    told_since_end: Vec<ChildKey>,
    killed: bool,
    log: Vec<String>,
}

impl Chaos {
    // ── what happens ────────────────────────────────────────────────────────────────────────────

    fn act(&mut self, random: &mut Random) {
        match random.below(100) {
            0..45 => self.answer(random),
            45..60 => {
                if let Some(key) = self.retries.pop_front() {
                    self.feed(Input::TryAgain(key));
                }
            }
            60..72 => {
                self.now += random.ms(60);
                self.feed(Input::Tick);
            }
            72..88 => self.ask(random),
            88..96 => self.say_what_is_stale(random),
            96..98 => self.feed(Input::Shutdown),
            98 => self.feed(Input::Kill),
            _ => self.feed(Input::Tick),
        }
    }

    /// One of the incarnations says something.
    fn answer(&mut self, random: &mut Random) {
        if self.processes.is_empty() {
            return;
        }
        let at = random.below(self.processes.len());
        let (key, process) = self.processes.iter_mut().nth(at).unwrap();
        let (key, incarnation) = (*key, process.incarnation);
        let is_told = process.stopped.is_some() || process.killed.is_some();
        if !process.ready && random.percent(if is_told { 20 } else { 60 }) {
            process.ready = true;
            return self.feed(Input::Ready(key, incarnation));
        }
        let end = match (process.ready, process.killed.is_some()) {
            (_, true) if random.percent(70) => End::Exited(Exit::Killed),
            (false, _) => match random.below(3) {
                0 => End::Ignored,
                1 => End::StartFailed(Exit::failed("boom")),
                _ => End::Exited(plot::exit(random)),
            },
            (true, _) => End::Exited(plot::exit(random)),
        };
        self.processes.remove(&key);
        self.feed(Input::Ended(key, incarnation, end));
    }

    fn ask(&mut self, random: &mut Random) {
        let id: Arc<str> = random.of(&["a", "b", "c", "d", "e", "f"]).into();
        let command = match random.below(8) {
            0 | 1 => {
                let mut child = plot::child(random, Arc::clone(&id), self.policy.auto_shutdown);
                vary(random, &mut child, &self.policy);
                Command::StartChild(child, id, 0)
            }
            2 | 3 => Command::TerminateChild(id),
            4 | 5 => Command::RestartChild(id),
            6 => Command::DeleteChild(id),
            _ if random.percent(50) => Command::WhichChildren,
            _ => Command::CountChildren,
        };
        self.last_ticket += 1;
        self.asked.insert(self.last_ticket);
        self.feed(Input::Command(self.last_ticket, command));
    }

    /// Somebody who isn't any more says something. Nobody listens.
    fn say_what_is_stale(&mut self, random: &mut Random) {
        let mut gone: Vec<_> = self.zombies.clone();
        for (key, last) in &self.last {
            let first_gone = last - u64::from(self.processes.contains_key(key));
            gone.extend((0..first_gone).map(|back| (*key, first_gone - back)));
        }
        if gone.is_empty() {
            return;
        }
        let (key, incarnation) = random.of(&gone);
        let input = match random.below(4) {
            0 => Input::Ready(key, incarnation),
            1 => Input::Ended(key, incarnation, End::Ignored),
            2 => Input::Ended(key, incarnation, End::StartFailed(plot::exit(random))),
            _ => Input::Ended(key, incarnation, End::Exited(plot::exit(random))),
        };
        let mut actions = Vec::new();
        self.log.push(format!("stale {input:?}"));
        self.core.step(self.now, input, &mut actions);
        self.expect(actions.is_empty(), &format!("a stale word led to {actions:?}"));
    }

    // ── ways to an end ──────────────────────────────────────────────────────────────────────────

    /// All that is under way comes to its end: then nothing waits.
    fn calm_down(&mut self, random: &mut Random) {
        for _ in 0..10_000 {
            if self.phase == Phase::Ended {
                return;
            }
            if let Some(key) = self.retries.pop_front() {
                self.feed(Input::TryAgain(key));
                continue;
            }
            let busy = self.processes.iter_mut().find(|(_, process)| {
                !process.ready || process.stopped.is_some() || process.killed.is_some()
            });
            let Some((key, process)) = busy else { break };
            let (key, incarnation) = (*key, process.incarnation);
            if process.stopped.is_none() && process.killed.is_none() {
                process.ready = true;
                self.feed(Input::Ready(key, incarnation));
            } else {
                self.processes.remove(&key);
                self.feed(Input::Ended(key, incarnation, End::Exited(plot::exit(random))));
            }
        }
        self.expect(self.phase == Phase::Up, "it is calm, and neither up nor ended");
        self.expect(self.core.commands_waiting() == 0, "a command waits for nothing");
        self.expect(self.asked.is_empty(), "a command was never answered");
    }

    /// It is told to end, and does, even if some of its children never do.
    fn finish(&mut self, random: &mut Random) {
        if self.phase == Phase::Ended {
            return;
        }
        self.feed(if random.percent(80) { Input::Shutdown } else { Input::Kill });
        for _ in 0..10_000 {
            if self.phase == Phase::Ended {
                return self.nothing_follows(random);
            }
            let told = self
                .processes
                .iter()
                .find(|(_, process)| process.stopped.is_some() || process.killed.is_some());
            let Some((key, process)) = told else {
                self.expect(false, "nobody is waited for, and it doesn't end");
                return;
            };
            let (key, incarnation) = (*key, process.incarnation);
            if random.percent(30)
                && let Some(deadline) = self.core.next_deadline()
            {
                self.now = self.now.max(deadline);
                self.feed(Input::Tick);
            } else {
                self.processes.remove(&key);
                self.feed(Input::Ended(key, incarnation, End::Exited(plot::exit(random))));
            }
        }
        self.expect(false, "it doesn't end");
    }

    fn nothing_follows(&mut self, random: &mut Random) {
        for _ in 0..5 {
            self.now += random.ms(1000);
            let input = match random.below(4) {
                0 => Input::Tick,
                1 => Input::Shutdown,
                2 => Input::Kill,
                _ => Input::Command(0, Command::WhichChildren),
            };
            let mut actions = Vec::new();
            self.core.step(self.now, input, &mut actions);
            self.expect(actions.is_empty(), &format!("after the end came {actions:?}"));
        }
    }

    // ── what must hold ──────────────────────────────────────────────────────────────────────────

    #[track_caller]
    fn expect(&self, holds: bool, what: &str) {
        assert!(holds, "{what}\n{}\n{:#?}", self.log.join("\n"), self.policy);
    }

    fn feed(&mut self, input: Input<Arc<str>>) {
        if self.phase == Phase::Ended {
            return;
        }
        let is_tick = matches!(input, Input::Tick);
        match &input {
            Input::Shutdown => self.phase = Phase::Ending,
            Input::Kill => {
                self.phase = Phase::Ending;
                self.killed = true;
            }
            _ => {}
        }
        self.log.push(format!("{input:?}"));
        let mut actions = Vec::new();
        self.core.step(self.now, input, &mut actions);
        let melts = actions
            .iter()
            .any(|action| matches!(action, Action::Emit(_, EventKind::Meltdown { .. })));
        for action in actions {
            self.log.push(format!("    {action:?}"));
            self.perform(action, melts);
        }
        if is_tick {
            let next = self.core.next_deadline();
            let is_over = self.phase == Phase::Ended || next.is_none_or(|next| next > self.now);
            self.expect(is_over, "a deadline has passed, and stays");
        }
        self.check_deadlines();
        self.check_children();
    }

    fn perform(&mut self, action: Action<Arc<str>>, melts: bool) {
        self.expect(self.phase != Phase::Ended, "something after the end");
        match action {
            Action::Spawn(key, incarnation) => self.spawn(key, incarnation),
            Action::Stop(key) => {
                self.tell(key);
                let now = self.now;
                let first =
                    self.processes.get_mut(&key).map(|process| process.stopped.replace(now));
                self.expect(first == Some(None), "nobody there to be stopped, or told already");
            }
            Action::Kill(key) => {
                self.tell(key);
                let now = self.now;
                let first = self.processes.get_mut(&key).map(|process| process.killed.replace(now));
                self.expect(first.is_some(), "nobody there to be killed");
            }
            Action::Abandon(key) => {
                let process = self.processes.remove(&key);
                let given_up = process.filter(|process| process.killed.is_some());
                self.expect(given_up.is_some(), "given up without having been killed");
                self.zombies.push((key, given_up.unwrap().incarnation));
            }
            Action::TryAgain(key) => self.retries.push_back(key),
            Action::Reply(ticket, _) => {
                let waited = self.asked.remove(&ticket);
                self.expect(waited, "an answer to nobody, or a second one");
            }
            Action::Up => {
                self.expect(self.phase == Phase::Starting, "up twice");
                self.phase = Phase::Up;
                self.was_up = true;
            }
            Action::StartFailed { .. } => {
                self.expect(!self.was_up, "a failed start after the start");
                self.expect(self.processes.is_empty(), "somebody outlives the failed start");
                self.phase = Phase::Ended;
            }
            Action::End(_) => {
                self.expect(self.processes.is_empty(), "somebody outlives the end");
                self.phase = Phase::Ended;
            }
            Action::Emit(id, event) => self.observe(id, &event, melts),
            Action::Publish(..) | Action::Removed(_) => {}
        }
    }

    fn spawn(&mut self, key: ChildKey, incarnation: u64) {
        let (policy, id) = self.core.payload(key).unwrap();
        let (policy, id) = (policy.clone(), Arc::clone(id));
        let told = |process: &Process| process.stopped.is_some() || process.killed.is_some();
        self.expect(!self.processes.contains_key(&key), "two incarnations of one child");
        self.expect(self.processes.values().all(|process| process.ready), "two starts at once");
        self.expect(!self.processes.values().any(told), "a start during a stop");
        self.expect(self.phase != Phase::Ending, "a start on the way to the end");
        let last = self.last.insert(key, incarnation).unwrap_or(0);
        self.expect(incarnation == last + 1, "incarnations are not counted one by one");
        let again = policy.restart == Restart::Temporary && incarnation > 1;
        self.expect(!again, "a temporary child is started again");
        if self.phase == Phase::Starting {
            let in_order = self.processes.keys().all(|started| *started < key);
            self.expect(in_order, "the first start is not in order");
        }
        self.due.remove(&key);
        self.keys.insert(id, key);
        let spawned = self.now;
        let process =
            Process { policy, incarnation, spawned, ready: false, stopped: None, killed: None };
        self.processes.insert(key, process);
    }

    /// A child is told to stop or killed: one after the other, unless all at once.
    fn tell(&mut self, key: ChildKey) {
        let others = self.processes.iter().filter(|(other, process)| {
            **other != key && (process.stopped.is_some() || process.killed.is_some())
        });
        let at_once = self.killed || matches!(self.policy.structure, Structure::Dynamic { .. });
        self.expect(at_once || others.count() == 0, "two stops at once");
        let Some(process) = self.processes.get(&key) else { return };
        let is_told = process.stopped.is_some() || process.killed.is_some();
        if self.phase == Phase::Ending && !self.killed && process.ready && !is_told {
            let in_order = self.told_since_end.iter().all(|told| *told > key);
            self.expect(in_order, "the stop is not in reverse order");
            self.told_since_end.push(key);
        }
    }

    fn observe(&mut self, id: Option<Arc<str>>, event: &EventKind, melts: bool) {
        let key = id.and_then(|id| self.keys.get(&id).copied());
        match event {
            EventKind::Exited { restarts: true, .. } => {
                let period = self.policy.period;
                self.charges.push(self.now);
                self.charges.retain(|at| self.now.duration_since(*at) <= period);
                let may = self.charges.len() <= self.policy.intensity;
                self.expect(may || melts, "more restarts than may be");
            }
            EventKind::Meltdown { .. } => self.phase = Phase::Ending,
            EventKind::SupervisorDown { .. } => {
                self.expect(self.processes.is_empty(), "down, with children");
                if self.phase == Phase::Up {
                    let may = self.policy.auto_shutdown != AutoShutdown::Never;
                    self.expect(may, "it ends without a reason");
                }
            }
            EventKind::RetryScheduled { after } | EventKind::Degraded { cooldown: after, .. } => {
                self.due.insert(key.unwrap(), self.now + *after);
            }
            EventKind::Started { incarnation } => {
                let process = &self.processes[&key.unwrap()];
                self.expect(process.ready && process.incarnation == *incarnation, "not started");
            }
            EventKind::Exited { incarnation, .. }
            | EventKind::Stopped { incarnation, .. }
            | EventKind::Unkillable { incarnation } => {
                let last = self.last[&key.unwrap()];
                self.expect(last == *incarnation, "the end of another incarnation");
            }
            _ => {}
        }
    }

    /// Whatever is limited in time has a deadline.
    fn check_deadlines(&mut self) {
        if self.phase == Phase::Ended {
            return;
        }
        let children = self.core.inspect();
        self.due.retain(|key, at| {
            let state = children.iter().find(|child| child.key == *key).map(|child| child.state);
            *at > self.now && matches!(state, Some(ChildState::Restarting | ChildState::Degraded))
        });
        let mut wanted: Vec<Instant> = self.due.values().copied().collect();
        for process in self.processes.values() {
            let Process { policy, spawned, stopped, killed, .. } = process;
            wanted.extend(match (killed, stopped, policy.stop, policy.start_timeout) {
                (Some(at), ..) => {
                    (policy.kind == ChildKind::Worker).then_some(*at + self.policy.kill_grace)
                }
                (None, Some(at), Stop::Within(time), _) => Some(*at + time),
                (None, None, _, Some(time)) if !process.ready => Some(*spawned + time),
                _ => None,
            });
        }
        if let Some(wanted) = wanted.into_iter().min() {
            let next = self.core.next_deadline();
            let in_time = next.is_some_and(|next| next <= wanted);
            self.expect(in_time, &format!("no deadline at {wanted:?}, but {next:?}"));
        }
    }

    /// The core's book and the driver's say the same.
    fn check_children(&self) {
        if self.phase == Phase::Ended {
            return;
        }
        let children = self.core.inspect();
        for child in &children {
            let process = self.processes.get(&child.key);
            let is_there = process.is_some_and(|process| process.incarnation == child.incarnation);
            let agrees = match child.state {
                ChildState::Starting | ChildState::Stopping => is_there,
                ChildState::Up => true, // its end may wait for an operation
                ChildState::Down | ChildState::Restarting | ChildState::Degraded => !is_there,
            };
            self.expect(agrees, &format!("is it there? {is_there}: {child:?}"));
        }
        for key in self.processes.keys() {
            let known = children.iter().any(|child| child.key == *key);
            self.expect(known, "an incarnation that nobody knows");
        }
    }
}
