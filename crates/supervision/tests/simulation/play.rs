//! Plays the driver to a core: performs its actions, and writes the model's log.

use crate::script::{Init, OnStop, Random, Step};
use astscope_supervision::core::{
    Action, AdminError, Answer, ChildKey, ChildState, Command, Core, End, Input,
};
use astscope_supervision::{ChildPolicy, EventKind, Exit, Stop, SupervisorPolicy};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Something that the core waits for.
#[derive(Clone, Debug)]
enum Pending {
    Ready(ChildKey, u64),
    Ended(ChildKey, u64, End),
    TryAgain(ChildKey),
}

/// A live incarnation.
struct Live {
    id: String,
    incarnation: u64,
    is_up: bool,
}

pub(crate) struct Play {
    core: Core<()>,
    /// When things happen: at once, or at random later moments.
    random: Option<Random>,
    start: Instant,
    now: Instant,
    pending: VecDeque<Pending>,
    live: BTreeMap<ChildKey, Live>,
    plans: BTreeMap<String, VecDeque<Init>>,
    on_stop: BTreeMap<String, OnStop>,
    last_ticket: u64,
    open_tickets: BTreeSet<u64>,
    pub(crate) ended: bool,
    pub(crate) log: Vec<String>,
}

impl Play {
    /// A core that everything happens to at once.
    pub(crate) fn at_once(policy: SupervisorPolicy, children: &[ChildPolicy]) -> Self {
        Self::new(policy, children, None)
    }

    /// A core whose children take their time, in any order.
    pub(crate) fn at_random(
        policy: SupervisorPolicy,
        children: &[ChildPolicy],
        random: Random,
    ) -> Self {
        Self::new(policy, children, Some(random))
    }

    fn new(policy: SupervisorPolicy, children: &[ChildPolicy], random: Option<Random>) -> Self {
        let now = Instant::now();
        let children = children.iter().map(|policy| (policy.clone(), (), 0)).collect();
        let mut play = Self {
            core: Core::new(policy, children, now),
            random,
            start: now,
            now,
            pending: VecDeque::new(),
            live: BTreeMap::new(),
            plans: BTreeMap::new(),
            on_stop: BTreeMap::new(),
            last_ticket: 0,
            open_tickets: BTreeSet::new(),
            ended: false,
            log: Vec::new(),
        };
        play.input(Input::Start);
        play.settle();
        play
    }

    pub(crate) fn step(&mut self, step: &Step) {
        if self.ended {
            return;
        }
        match step {
            Step::Exit(exits) => {
                // All of them are dead before the supervisor looks at the first.
                for (id, exit) in exits {
                    let up = self.live.iter().find(|(_, live)| live.id == *id && live.is_up);
                    if let Some((key, live)) = up {
                        let (key, incarnation) = (*key, live.incarnation);
                        let end = End::Exited(exit.clone());
                        self.pending.push_back(Pending::Ended(key, incarnation, end));
                        self.live.remove(&key);
                    }
                }
            }
            Step::Plan(id, plan) => {
                self.plans.insert(id.clone(), plan.iter().copied().collect());
            }
            Step::OnStop(id, how) => {
                self.on_stop.insert(id.clone(), *how);
            }
            Step::StartChild(policy) => {
                self.command(Command::StartChild(policy.clone(), (), 0));
            }
            Step::TerminateChild(id) => self.command(Command::TerminateChild(id.as_str().into())),
            Step::RestartChild(id) => self.command(Command::RestartChild(id.as_str().into())),
            Step::DeleteChild(id) => self.command(Command::DeleteChild(id.as_str().into())),
            Step::WhichChildren => self.command(Command::WhichChildren),
            Step::CountChildren => self.command(Command::CountChildren),
            Step::Advance(time) => self.advance(*time),
            Step::Shutdown => self.input(Input::Shutdown),
        }
        self.settle();
    }

    pub(crate) fn kill(&mut self) {
        self.input(Input::Kill);
        self.settle();
    }

    /// Everything that is under way comes to its end.
    pub(crate) fn finish(&mut self) {
        self.random = None;
        self.settle();
    }

    pub(crate) fn n_live(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn n_open_tickets(&self) -> usize {
        self.open_tickets.len()
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now.duration_since(self.start)
    }

    fn command(&mut self, command: Command<()>) {
        self.last_ticket += 1;
        self.open_tickets.insert(self.last_ticket);
        self.input(Input::Command(self.last_ticket, command));
    }

    /// Lets time pass, with every deadline on the way.
    fn advance(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.core.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
        }
        self.now = end;
    }

    /// Answers what the core waits for: all of it, or, at random, some.
    fn settle(&mut self) {
        loop {
            if self.ended {
                return;
            }
            let n_pending = self.pending.len();
            let at = match &mut self.random {
                None => 0,
                Some(random) => {
                    if random.chance(30) {
                        return; // the rest takes longer
                    }
                    random.below(n_pending.max(1))
                }
            };
            let next = self.pending.remove(at);
            match next {
                Some(Pending::Ready(key, incarnation)) => {
                    if let Some(live) = self.live.get_mut(&key)
                        && live.incarnation == incarnation
                    {
                        live.is_up = true;
                        self.input(Input::Ready(key, incarnation));
                    }
                }
                Some(Pending::Ended(key, incarnation, end)) => {
                    if self.live.get(&key).is_some_and(|live| live.incarnation == incarnation) {
                        self.live.remove(&key);
                    }
                    self.input(Input::Ended(key, incarnation, end));
                }
                Some(Pending::TryAgain(key)) => self.input(Input::TryAgain(key)),
                // Nothing is left but to wait, for whoever refuses to stop.
                None => match self.core.next_deadline() {
                    Some(at) => {
                        self.now = self.now.max(at);
                        self.input(Input::Tick);
                    }
                    None => return,
                },
            }
        }
    }

    fn input(&mut self, input: Input<()>) {
        assert!(!self.ended, "an input after the end");
        let mut actions = Vec::new();
        self.core.step(self.now, input, &mut actions);
        for action in actions {
            assert!(!self.ended, "{action:?} after the end");
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action<()>) {
        match action {
            Action::Spawn(key, incarnation) => self.spawn(key, incarnation),
            Action::Stop(key) => {
                let Some(live) = self.live.get(&key) else { return };
                let (id, incarnation) = (live.id.clone(), live.incarnation);
                let (policy, ()) = self.core.payload(key).unwrap();
                let waits = policy.stop == Stop::Wait;
                self.log.push(format!("stop {id}"));
                let how = self.on_stop.get(&id).copied().unwrap_or(OnStop::Obey);
                let exit = match how {
                    OnStop::Refuse if !waits => return,
                    OnStop::Obey | OnStop::Refuse => Exit::Shutdown,
                    OnStop::EndNormally => Exit::Normal,
                    OnStop::Crash => Exit::failed("crash"),
                };
                self.pending.push_back(Pending::Ended(key, incarnation, End::Exited(exit)));
            }
            Action::Kill(key) => {
                if let Some(live) = self.live.get(&key) {
                    let end = End::Exited(Exit::Killed);
                    self.pending.push_back(Pending::Ended(key, live.incarnation, end));
                }
            }
            Action::Reply(ticket, answer) => {
                assert!(self.open_tickets.remove(&ticket), "ticket {ticket} answered twice");
                let line = format!("answer {}", words(answer));
                self.log.push(line);
            }
            Action::Emit(id, event) => self.event(id.as_deref(), &event),
            Action::TryAgain(key) => self.pending.push_back(Pending::TryAgain(key)),
            Action::Up => self.log.push("up".to_owned()),
            Action::End(exit) => {
                let why = match exit {
                    Exit::Shutdown => "shutdown".to_owned(),
                    Exit::Meltdown => "meltdown".to_owned(),
                    other => other.to_string(),
                };
                self.log.push(format!("end {why}"));
                self.ended = true;
            }
            Action::StartFailed { id, .. } => {
                self.log.push(format!("failed {id}"));
                self.ended = true;
            }
            // Its end comes too late: it counts as a zombie from here on.
            Action::Abandon(key) => drop(self.live.remove(&key)),
            Action::Publish(..) | Action::Removed(()) => {}
        }
    }

    fn spawn(&mut self, key: ChildKey, incarnation: u64) {
        let (policy, ()) = self.core.payload(key).unwrap();
        let id = policy.id.to_string();
        self.log.push(format!("init {id}"));
        let live = Live { id: id.clone(), incarnation, is_up: false };
        assert!(self.live.insert(key, live).is_none(), "two incarnations of {id}");
        let plan = self.plans.get_mut(&id).and_then(VecDeque::pop_front);
        self.pending.push_back(match plan.unwrap_or(Init::Ready) {
            Init::Ready => Pending::Ready(key, incarnation),
            Init::Fail => {
                Pending::Ended(key, incarnation, End::StartFailed(Exit::failed("planned")))
            }
            Init::Ignore => Pending::Ended(key, incarnation, End::Ignored),
        });
    }

    fn event(&mut self, id: Option<&str>, event: &EventKind) {
        let id = id.unwrap_or_default();
        let line = match event {
            EventKind::Started { .. } => format!("progress {id}"),
            EventKind::StartFailed { .. } => format!("start_error {id}"),
            EventKind::Exited { exit, .. } if event.is_report() => {
                format!("child_terminated {id} {exit}")
            }
            EventKind::StopFailed { exit } => format!("shutdown_error {id} {exit}"),
            EventKind::Meltdown { child } => format!("meltdown {child}"),
            _ => return,
        };
        self.log.push(line);
    }
}

fn words(answer: Result<Answer, AdminError>) -> String {
    match answer {
        Ok(Answer::Started(..)) => "started".to_owned(),
        Ok(Answer::Ignored) => "ignored".to_owned(),
        Ok(Answer::Done) => "ok".to_owned(),
        Ok(Answer::Children(children)) => {
            let states = children.iter().map(|child| {
                let state = match child.state {
                    ChildState::Down => "down",
                    ChildState::Restarting => "restarting",
                    ChildState::Up => "up",
                    other => panic!("a command was served while a child was {other:?}"),
                };
                format!("{}:{state}", child.id)
            });
            format!("which {}", states.collect::<Vec<_>>().join(" "))
        }
        Ok(Answer::Count(count)) => {
            let astscope_supervision::Count { specs, active, supervisors, workers } = count;
            format!("count {specs} {active} {supervisors} {workers}")
        }
        Err(AdminError::NotFound) => "not_found".to_owned(),
        Err(AdminError::Running) => "running".to_owned(),
        Err(AdminError::Restarting) => "restarting".to_owned(),
        Err(AdminError::AlreadyStarted) => "already_started".to_owned(),
        Err(AdminError::AlreadyPresent) => "already_present".to_owned(),
        Err(AdminError::MaxChildren) => "max_children".to_owned(),
        Err(AdminError::Dynamic) => "dynamic".to_owned(),
        Err(AdminError::Start(_)) => "start_failed".to_owned(),
        Err(other) => panic!("{other}"),
    }
}
