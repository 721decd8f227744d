//! OTP's supervisor as OTP has it: a process that handles one message after the other and blocks
//! while it starts or stops a child.
//!
//! Written after the semantics in `docs/semantics/supervision.md`, section 1, and on purpose not
//! after `core.rs`: no state machine, no operations, no timers. What comes while it blocks waits
//! in its mailbox, and a child that died says so there. The few rules that are ours (start
//! timeouts, unkillable children, the exact window, dynamic children of different kinds) are
//! written in the same manner.

use super::plot::{
    Arrival, Ask, Init, KILL_GRACE, Plot, START_TIMEOUT, Step, Stopping, Trace, World,
};
use astscope_supervision::{AutoShutdown, ChildPolicy, Exit, Restart, Stop, Strategy, Structure};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Plays a plot and tells what happened.
pub(crate) fn play(plot: &Plot) -> Trace {
    let mut supervisor = Supervisor {
        plot,
        children: Vec::new(),
        mailbox: VecDeque::new(),
        arrivals: VecDeque::new(),
        world: World::default(),
        now: 0,
        restarts: Vec::new(),
        dead: BTreeMap::new(),
        last_pid: 0,
        last_ticket: 0,
        trace: Trace::default(),
    };
    let mut script = plot.script.iter().peekable();
    // How children start is known before they do.
    while script.next_if(|step| supervisor.world.takes(step)).is_some() {}
    let mut end = supervisor.init();
    for step in script {
        if end.is_some() {
            break;
        }
        if supervisor.world.takes(step) {
            continue;
        }
        match step {
            Step::Wait(time) => supervisor.now += time,
            Step::Arrive(arrivals) => end = supervisor.arrive(arrivals),
            Step::Inits(..) | Step::Stops(..) => {}
        }
    }
    supervisor.trace
}

type Pid = u64;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Undefined,
    Restarting,
    Pid(Pid),
}

#[derive(Clone)]
struct Child {
    spec: ChildPolicy,
    state: State,
    /// Times that it was started, or that this was tried.
    started: u64,
}

enum Message {
    Exit(Pid, Exit),
    TryAgain(Arc<str>),
    Call(u64, Ask),
}

enum Start {
    Pid(Pid),
    Ignored,
    Failed(Exit),
}

struct Supervisor<'a> {
    plot: &'a Plot,
    /// In start order.
    children: Vec<Child>,
    mailbox: VecDeque<Message>,
    /// What comes during the next start or stop.
    arrivals: VecDeque<Arrival>,
    world: World,
    now: u64,
    restarts: Vec<u64>,
    /// Processes that ended, and whose ends weren't handled yet.
    dead: BTreeMap<Pid, Exit>,
    last_pid: Pid,
    last_ticket: u64,
    trace: Trace,
}

/// Why the supervisor ends.
type End = Exit;

fn exit_is_its_own(stop: &Stopping, after: u64) -> bool {
    matches!(stop, Stopping::Late(time, _) if *time == after)
}

impl Supervisor<'_> {
    fn init(&mut self) -> Option<End> {
        for spec in &self.plot.children {
            self.children.push(Child { spec: spec.clone(), state: State::Undefined, started: 0 });
        }
        let ids: Vec<_> = self.ids();
        if let Err((id, exit)) = self.start_children(&ids) {
            let all = self.ids();
            self.terminate_children(&all);
            self.trace.line(format!("not started: {id} {exit}"));
            return Some(exit);
        }
        self.trace.line("up");
        None
    }

    /// Each arrival is handled at once, unless the supervisor blocks: then all others come
    /// meanwhile.
    fn arrive(&mut self, arrivals: &[Arrival]) -> Option<End> {
        self.arrivals = arrivals.iter().cloned().collect();
        while let Some(arrival) = self.arrivals.pop_front() {
            if matches!(arrival, Arrival::Shutdown) {
                return Some(self.terminate(Exit::Shutdown));
            }
            self.deliver(arrival);
            while let Some(message) = self.mailbox.pop_front() {
                if let Some(end) = self.handle(message) {
                    return Some(self.terminate(end));
                }
            }
        }
        None
    }

    fn deliver(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Exit(id, exit) => {
                let Some(child) = self.child(&id) else { return };
                if let State::Pid(pid) = child.state
                    && !self.dead.contains_key(&pid)
                {
                    self.dead.insert(pid, exit.clone());
                    self.mailbox.push_back(Message::Exit(pid, exit));
                }
            }
            Arrival::Ask(ask) => {
                self.last_ticket += 1;
                self.mailbox.push_back(Message::Call(self.last_ticket, ask));
            }
            Arrival::Shutdown => {}
        }
    }

    /// What a start or a stop takes its time for.
    fn block(&mut self) {
        while let Some(arrival) = self.arrivals.pop_front() {
            self.deliver(arrival);
        }
    }

    fn terminate(&mut self, end: End) -> End {
        let all = self.ids();
        self.terminate_children(&all);
        self.trace.line(format!("down {end}"));
        self.trace.line(format!("end {end}"));
        end
    }

    fn handle(&mut self, message: Message) -> Option<End> {
        match message {
            Message::Exit(pid, exit) => {
                self.dead.remove(&pid);
                let child = self.children.iter().find(|child| child.state == State::Pid(pid))?;
                let (id, restart) = (Arc::clone(&child.spec.id), child.spec.restart);
                self.exited(&id, restart, &exit)
            }
            Message::TryAgain(id) => {
                let child = self.child(&id)?;
                if child.state == State::Restarting { self.restart(&id) } else { None }
            }
            Message::Call(ticket, ask) => {
                let answer = self.call(ask);
                self.trace.line(format!("reply {ticket}: {answer}"));
                None
            }
        }
    }

    // ── ends ────────────────────────────────────────────────────────────────────────────────────

    fn exited(&mut self, id: &Arc<str>, restart: Restart, exit: &Exit) -> Option<End> {
        let orderly =
            matches!(exit, Exit::Normal | Exit::Shutdown | Exit::ShutdownWith(_) | Exit::Meltdown);
        let restarts = match restart {
            Restart::Permanent => true,
            Restart::Transient => !orderly,
            Restart::Temporary => false,
        };
        let started = self.child(id)?.started;
        let then = if restarts { ", restarts" } else { "" };
        self.trace.line(format!("{id} exited #{started} ({exit}){then}"));
        if restarts {
            return self.restart(id);
        }
        let significant = self.child(id)?.spec.significant;
        self.delete(id);
        let ends = significant
            && match self.plot.policy.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !self
                    .children
                    .iter()
                    .any(|child| child.spec.significant && child.state != State::Undefined),
            };
        ends.then_some(Exit::Shutdown)
    }

    fn restart(&mut self, id: &Arc<str>) -> Option<End> {
        let period = u64::try_from(self.plot.policy.period.as_millis()).unwrap();
        self.restarts.push(self.now);
        self.restarts.retain(|at| self.now - at <= period);
        if self.restarts.len() > self.plot.policy.intensity {
            self.trace.line(format!("meltdown at {id}"));
            self.delete(id);
            return Some(Exit::Meltdown);
        }
        let group = match self.plot.policy.structure {
            Structure::Dynamic { .. } | Structure::Static(Strategy::OneForOne) => {
                match self.start(id) {
                    Start::Pid(pid) => self.set(id, State::Pid(pid)),
                    Start::Ignored if self.is_dynamic() => self.delete(id),
                    Start::Ignored => self.set(id, State::Undefined),
                    Start::Failed(exit) => {
                        self.trace.line(format!("{id} start failed ({exit})"));
                        self.set(id, State::Restarting);
                        self.mailbox.push_back(Message::TryAgain(Arc::clone(id)));
                    }
                }
                return None;
            }
            Structure::Static(Strategy::OneForAll) => self.ids(),
            Structure::Static(Strategy::RestForOne) => {
                self.ids().into_iter().skip_while(|other| other != id).collect()
            }
        };
        self.set(id, State::Undefined);
        let rest = self.terminate_children(&group);
        if let Err((failed, _)) = self.start_children(&rest) {
            self.set(&failed, State::Restarting);
            self.mailbox.push_back(Message::TryAgain(failed));
        }
        None
    }

    // ── starts ──────────────────────────────────────────────────────────────────────────────────

    fn start_children(&mut self, ids: &[Arc<str>]) -> Result<(), (Arc<str>, Exit)> {
        for id in ids {
            match self.start(id) {
                Start::Pid(pid) => self.set(id, State::Pid(pid)),
                Start::Ignored => self.delete(id),
                Start::Failed(exit) => {
                    self.trace.line(format!("{id} start failed ({exit})"));
                    return Err((Arc::clone(id), exit));
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, id: &Arc<str>) -> Start {
        let child = self.children.iter_mut().find(|child| child.spec.id == *id).unwrap();
        child.started += 1;
        let n = child.started;
        self.trace.line(format!("init {id} #{n}"));
        self.block();
        match self.world.init(id) {
            Init::Ready => {}
            Init::Slow(time) if time < START_TIMEOUT => self.now += time,
            Init::Fails(exit) => return Start::Failed(exit),
            Init::Ignores => {
                self.trace.line(format!("{id} ignored"));
                return Start::Ignored;
            }
            Init::Slow(_) | Init::Hangs => {
                self.now += START_TIMEOUT;
                return Start::Failed(Exit::StartTimeout);
            }
            Init::HangsForGood => {
                self.now += START_TIMEOUT + KILL_GRACE;
                self.trace.line(format!("{id} unkillable #{n}"));
                return Start::Failed(Exit::Unkillable);
            }
        }
        self.trace.line(format!("{id} started #{n}"));
        self.last_pid += 1;
        Start::Pid(self.last_pid)
    }

    // ── stops ───────────────────────────────────────────────────────────────────────────────────

    /// Stops these children, the last first, and returns those that are still known.
    fn terminate_children(&mut self, ids: &[Arc<str>]) -> Vec<Arc<str>> {
        if self.is_dynamic() {
            self.terminate_at_once();
            return self.ids();
        }
        for id in ids.iter().rev() {
            self.shut_down(id);
            self.delete(id);
        }
        ids.iter().filter(|id| self.child(id).is_some()).cloned().collect()
    }

    /// Stops one child by its rule, and waits for it.
    fn shut_down(&mut self, id: &Arc<str>) {
        let State::Pid(pid) = self.child(id).unwrap().state else { return };
        if !self.dead.contains_key(&pid) {
            self.block();
        }
        let (time, exit) = self.ends(id, pid);
        self.now += time;
        self.stopped(id, &exit);
    }

    /// All children at once. Whoever ends earlier is told of earlier: at once the newest first,
    /// then those that died meanwhile, in that order; then by time.
    fn terminate_at_once(&mut self) {
        let begin = self.now;
        let ids = self.ids();
        let mut alive = Vec::new();
        for (at, id) in ids.iter().enumerate().rev() {
            match self.child(id).unwrap().state {
                State::Pid(pid) if !self.dead.contains_key(&pid) => {
                    alive.push((at, Arc::clone(id), pid, self.ends(id, pid).0));
                    continue;
                }
                State::Pid(pid) => {
                    let exit = self.ends(id, pid).1;
                    self.stopped(id, &exit);
                }
                State::Undefined | State::Restarting => {}
            }
            self.delete(id);
        }
        if alive.is_empty() {
            return;
        }
        self.block();
        let mut ends = Vec::new();
        for (at, id, pid, expected) in alive {
            let (time, exit) = self.ends(&id, pid);
            let died = self
                .mailbox
                .iter()
                .position(|message| matches!(message, Message::Exit(other, _) if *other == pid));
            let order = match (expected, died) {
                (0, _) => (0, ids.len() - at),
                (_, Some(position)) => (1, position),
                // By itself: in the order of being told. By a deadline: in the order of starts.
                (_, None) if exit_is_its_own(&self.world.stop(&id), time) => (2, ids.len() - at),
                (_, None) => (2, at),
            };
            ends.push((time, order, id, exit));
        }
        ends.sort_by_key(|(time, order, ..)| (*time, *order));
        for (time, _, id, exit) in ends {
            self.now = begin + time;
            self.stopped(&id, &exit);
            self.delete(&id);
        }
    }

    /// How a process that is told to stop, by its child's rule, ends, and after how long.
    fn ends(&self, id: &Arc<str>, pid: Pid) -> (u64, Exit) {
        if let Some(exit) = self.dead.get(&pid) {
            return (0, exit.clone());
        }
        let rule = self.child(id).unwrap().spec.stop;
        let limit = match rule {
            Stop::Kill => 0,
            Stop::Within(time) => u64::try_from(time.as_millis()).unwrap(),
            Stop::Wait => u64::MAX,
        };
        match self.world.stop(id) {
            Stopping::Immortal => (limit + KILL_GRACE, Exit::Unkillable),
            _ if rule == Stop::Kill => (0, Exit::Killed),
            Stopping::Prompt(exit) => (0, exit),
            Stopping::Late(time, exit) if time < limit => (time, exit),
            Stopping::Late(..) | Stopping::Never => (limit, Exit::Killed),
        }
    }

    /// Reports a child's end that its supervisor wanted.
    fn stopped(&mut self, id: &Arc<str>, exit: &Exit) {
        let child = self.child(id).unwrap();
        let (spec, started) = (child.spec.clone(), child.started);
        let is_permanent = spec.restart == Restart::Permanent;
        let as_wanted = match exit {
            Exit::Shutdown | Exit::Meltdown => true,
            Exit::Killed => spec.stop == Stop::Kill,
            Exit::Normal | Exit::ShutdownWith(_) => !is_permanent,
            _ => false,
        };
        if *exit == Exit::Unkillable {
            self.trace.line(format!("{id} unkillable #{started}"));
        }
        self.trace.line(format!("{id} stopped #{started} ({exit})"));
        if !as_wanted {
            self.trace.line(format!("{id} stop failed ({exit})"));
        }
    }

    // ── calls ───────────────────────────────────────────────────────────────────────────────────

    fn call(&mut self, ask: Ask) -> String {
        match ask {
            Ask::Start(spec) => self.start_child(spec),
            Ask::Terminate(id) => {
                if self.child(&id).is_none() {
                    return "NotFound".into();
                }
                self.shut_down(&id);
                self.delete(&id);
                "done".into()
            }
            Ask::Restart(_) | Ask::Delete(_) if self.is_dynamic() => "Dynamic".into(),
            Ask::Restart(id) => match self.child(&id).map(|child| child.state) {
                None => "NotFound".into(),
                Some(State::Restarting) => "Restarting".into(),
                Some(State::Pid(_)) => "Running".into(),
                Some(State::Undefined) => match self.start(&id) {
                    Start::Pid(pid) => {
                        self.set(&id, State::Pid(pid));
                        format!("started #{}", self.child(&id).unwrap().started)
                    }
                    Start::Ignored => "ignored".into(),
                    Start::Failed(exit) => format!("not started: {exit}"),
                },
            },
            Ask::Delete(id) => match self.child(&id).map(|child| child.state) {
                None => "NotFound".into(),
                Some(State::Restarting) => "Restarting".into(),
                Some(State::Pid(_)) => "Running".into(),
                Some(State::Undefined) => {
                    self.forget(&id);
                    "done".into()
                }
            },
            Ask::Which => {
                let word = |child: &Child| {
                    let state = match child.state {
                        State::Undefined => "Down",
                        State::Restarting => "Restarting",
                        State::Pid(_) => "Up",
                    };
                    format!("{} {state} #{}", child.spec.id, child.started)
                };
                self.children.iter().rev().map(word).collect::<Vec<_>>().join(", ")
            }
            Ask::Count => {
                let active = |child: &&Child| match child.state {
                    State::Pid(pid) => !self.dead.contains_key(&pid),
                    State::Undefined | State::Restarting => false,
                };
                let n = self.children.len();
                let specs = if self.is_dynamic() { 1 } else { n };
                format!("{specs} {} 0 {n}", self.children.iter().filter(active).count())
            }
        }
    }

    fn start_child(&mut self, spec: ChildPolicy) -> String {
        match self.child(&spec.id).map(|child| child.state) {
            Some(State::Pid(_)) => return "AlreadyStarted".into(),
            Some(_) => return "AlreadyPresent".into(),
            None => {}
        }
        if let Structure::Dynamic { max_children } = self.plot.policy.structure
            && self.children.len() >= max_children
        {
            return "MaxChildren".into();
        }
        let (id, restart) = (Arc::clone(&spec.id), spec.restart);
        self.children.push(Child { spec, state: State::Undefined, started: 0 });
        match self.start(&id) {
            Start::Pid(pid) => {
                self.set(&id, State::Pid(pid));
                "started #1".into()
            }
            Start::Ignored => {
                if restart == Restart::Temporary || self.is_dynamic() {
                    self.forget(&id);
                }
                "ignored".into()
            }
            Start::Failed(exit) => {
                self.forget(&id);
                format!("not started: {exit}")
            }
        }
    }

    // ── children ────────────────────────────────────────────────────────────────────────────────

    fn is_dynamic(&self) -> bool {
        matches!(self.plot.policy.structure, Structure::Dynamic { .. })
    }

    fn ids(&self) -> Vec<Arc<str>> {
        self.children.iter().map(|child| Arc::clone(&child.spec.id)).collect()
    }

    fn child(&self, id: &str) -> Option<&Child> {
        self.children.iter().find(|child| *child.spec.id == *id)
    }

    fn set(&mut self, id: &str, state: State) {
        if let Some(child) = self.children.iter_mut().find(|child| *child.spec.id == *id) {
            child.state = state;
        }
    }

    /// A child without a process: its spec stays, unless it is temporary or dynamic.
    fn delete(&mut self, id: &str) {
        let Some(child) = self.child(id) else { return };
        if child.spec.restart == Restart::Temporary || self.is_dynamic() {
            self.forget(id);
        } else {
            self.set(id, State::Undefined);
        }
    }

    fn forget(&mut self, id: &str) {
        let at = self.children.iter().position(|child| *child.spec.id == *id).unwrap();
        self.trace.removed.push(self.children.remove(at).spec.id);
    }
}
