//! OTP's rules as a pure state machine: `step(now, input) -> actions`.
//!
//! OTP's supervisor is a process that blocks: while it starts or stops a child, everything else
//! waits in its mailbox, in order. Here the blocking call is an *operation* (`Op`) and the
//! mailbox a queue: inputs that belong to the operation move it forward, all others wait until
//! there is none. The order in which things happen is therefore OTP's, while a shutdown, which OTP
//! would leave in the mailbox too, is honoured at once.
//!
//! No task, no channel and no clock is named in here: the driver performs the actions and reports
//! back. `P` is what the driver keeps with each child; the core only carries it.

mod admin;
mod restart;
mod start;
mod stop;
mod timers;
mod window;

pub use admin::{AdminError, Answer, ChildInfo, ChildState, Command, Count};

use crate::policy::{ChildPolicy, Restart, SupervisorPolicy};
use crate::{EventKind, Exit};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use timers::{Timer, Timers};
use tokio::time::Instant;
pub(crate) use window::Window;

/// Names a child within its supervisor. Never given twice, and later children have larger keys, so
/// that the order of keys is the order of starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildKey(u64);

/// Names a caller that waits for an answer.
pub type Ticket = u64;

/// What the core is told.
#[derive(Debug)]
pub enum Input<P> {
    /// Start all children. The first input.
    Start,
    /// An incarnation acknowledged its start.
    Ready(ChildKey, u64),
    /// An incarnation is gone, with all that belonged to it.
    Ended(ChildKey, u64, End),
    /// Somebody asks for something.
    Command(Ticket, Command<P>),
    /// The answer to [`Action::TryAgain`], after all that was waiting by then.
    TryAgain(ChildKey),
    /// Time passed: see [`Core::next_deadline`].
    Tick,
    /// The parent wants this supervisor to stop, children first.
    Shutdown,
    /// The parent wants this supervisor dead: its children are killed, all at once.
    Kill,
}

/// How an incarnation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its init chose not to run.
    Ignored,
    /// Its init failed.
    StartFailed(Exit),
    /// It ended after it had acknowledged its start.
    Exited(Exit),
}

/// What the core wants done. Actions are to be performed in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<P> {
    /// Begin this incarnation. Answered by [`Input::Ready`], [`Input::Ended`] or both.
    Spawn(ChildKey, u64),
    /// Ask the child to stop. Answered by [`Input::Ended`].
    Stop(ChildKey),
    /// Kill the child. Answered by [`Input::Ended`], or by nothing if it can't be killed.
    Kill(ChildKey),
    /// Don't wait for this incarnation any longer.
    Abandon(ChildKey),
    /// Whoever calls this child sees this from now on.
    Publish(ChildKey, ChildState),
    /// The child is gone for good.
    Removed(P),
    /// Answer a caller.
    Reply(Ticket, Result<Answer, AdminError>),
    /// Tell the observer. `None` is the supervisor itself.
    Emit(Option<Arc<str>>, EventKind),
    /// Let everything that waits go first, then come back with [`Input::TryAgain`].
    TryAgain(ChildKey),
    /// All children are up: acknowledge the supervisor's own start.
    Up,
    /// The first start failed, and what had been started is stopped again. The last action.
    StartFailed {
        /// The child that didn't start.
        id: Arc<str>,
        /// Why.
        exit: Exit,
    },
    /// All children are gone. The last action.
    End(Exit),
}

/// A child, and the payload that the driver keeps with it.
#[derive(Debug)]
struct Child<P> {
    policy: ChildPolicy,
    payload: P,
    state: ChildState,
    /// Of the current incarnation, or the last one. Counts from 1.
    incarnation: u64,
    /// The incarnation is gone, but the message that says so still waits in the inbox.
    gone: Option<Exit>,
    /// Its start timed out, and it was killed for it.
    timed_out: bool,
    /// Starts after its own end, its siblings' or a cooldown.
    restarts: u64,
    last_exit: Option<Exit>,
    /// When its state last changed.
    since: Instant,
}

impl<P> Child<P> {
    /// Whether an incarnation is there to be stopped.
    fn is_alive(&self) -> bool {
        matches!(self.state, ChildState::Starting | ChildState::Up | ChildState::Stopping)
    }
}

/// What the supervisor is in the middle of: OTP's blocking call.
#[derive(Debug)]
enum Op {
    /// The one that is being started is in the state `Starting`; `waiting` begins with the next.
    Start { waiting: VecDeque<ChildKey>, cause: Cause },
    /// `waiting` ends with the next.
    Stop { current: BTreeSet<ChildKey>, waiting: Vec<ChildKey>, then: Then },
}

/// Why children are started, which decides what a failure means.
#[derive(Clone, Copy, Debug)]
enum Cause {
    /// The supervisor's own start.
    Init,
    /// One child's restart, or a group's.
    Restart,
    /// A cooldown is over.
    Cooldown,
    /// `start_child`.
    StartChild(Ticket),
    /// `restart_child`.
    RestartChild(Ticket),
}

/// What follows when the children are stopped.
#[derive(Debug)]
enum Then {
    /// Start this child again and, by the strategy, others.
    Restart(ChildKey),
    /// Answer `terminate_child`.
    Reply(Ticket),
    /// Undo a first start that failed at this child.
    FailStart { id: Arc<str>, exit: Exit },
    /// End.
    End(Exit),
}

/// What waits while an operation runs.
#[derive(Debug)]
enum Message<P> {
    Exited(ChildKey, u64),
    Command(Ticket, Command<P>),
    TryAgain(ChildKey),
    /// A back-off or a cooldown is over.
    Due(ChildKey),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Running,
    Stopping,
    Ended,
}

/// The state machine of one supervisor.
#[derive(Debug)]
pub struct Core<P> {
    policy: SupervisorPolicy,
    phase: Phase,
    children: BTreeMap<ChildKey, Child<P>>,
    keys: FxHashMap<Arc<str>, ChildKey>,
    last_key: u64,
    op: Option<Op>,
    inbox: VecDeque<Message<P>>,
    commands_waiting: usize,
    timers: Timers,
    window: Window,
    /// Children that it was made with, whose keys are the first.
    n_specs: u64,
    /// Its own parent killed it, and it its children.
    killed: bool,
}

impl<P> Core<P> {
    /// A supervisor of these children, in start order, each with the number of incarnations that it
    /// has had already. The policies must have passed [`SupervisorPolicy::check`].
    pub fn new(
        policy: SupervisorPolicy,
        children: Vec<(ChildPolicy, P, u64)>,
        now: Instant,
    ) -> Self {
        let mut core = Self {
            policy,
            phase: Phase::Starting,
            children: BTreeMap::new(),
            keys: FxHashMap::default(),
            last_key: 0,
            op: None,
            inbox: VecDeque::new(),
            commands_waiting: 0,
            timers: Timers::default(),
            window: Window::new(policy.intensity, policy.period),
            n_specs: 0,
            killed: false,
        };
        for (policy, payload, incarnation) in children {
            core.insert(policy, payload, incarnation, now);
        }
        core.n_specs = core.last_key;
        core
    }

    /// Takes one input and appends what is to be done about it.
    pub fn step(&mut self, now: Instant, input: Input<P>, out: &mut Vec<Action<P>>) {
        match input {
            Input::Start => {
                let all: VecDeque<_> = self.children.keys().copied().collect();
                self.start_all(now, all, Cause::Init, out);
            }
            Input::Ready(key, incarnation) => self.on_ready(now, key, incarnation, out),
            Input::Ended(key, incarnation, end) => self.on_ended(now, key, incarnation, end, out),
            Input::Command(ticket, command) => {
                self.commands_waiting += 1;
                self.inbox.push_back(Message::Command(ticket, command));
            }
            Input::TryAgain(key) => self.inbox.push_back(Message::TryAgain(key)),
            Input::Tick => self.on_tick(now, out),
            Input::Shutdown => self.end(now, Exit::Shutdown, out),
            Input::Kill => self.kill(now, out),
        }
        self.serve(now, out);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Commands that wait for the current operation to end.
    pub fn commands_waiting(&self) -> usize {
        self.commands_waiting
    }

    /// What the supervisor knows of itself.
    pub fn policy(&self) -> &SupervisorPolicy {
        &self.policy
    }

    /// What the driver keeps with the children that were added after the start.
    pub fn added(&self) -> impl Iterator<Item = &P> {
        self.children.range(ChildKey(self.n_specs + 1)..).map(|(_, child)| &child.payload)
    }

    /// What the driver keeps with a child.
    pub fn payload(&mut self, key: ChildKey) -> Option<(&ChildPolicy, &mut P)> {
        self.children.get_mut(&key).map(|child| (&child.policy, &mut child.payload))
    }

    /// Handles what waits, as long as nothing blocks.
    fn serve(&mut self, now: Instant, out: &mut Vec<Action<P>>) {
        while self.op.is_none() && self.phase == Phase::Running {
            let Some(message) = self.inbox.pop_front() else { break };
            match message {
                Message::Exited(key, incarnation) => self.on_exit(now, key, incarnation, out),
                Message::Command(ticket, command) => {
                    self.commands_waiting -= 1;
                    self.on_command(now, ticket, command, out);
                }
                Message::TryAgain(key) => {
                    // A back-off has its own timer; whoever was terminated meanwhile stays down.
                    if self.state(key) == Some(ChildState::Restarting) && !self.timers.has(key) {
                        self.restart(now, key, out);
                    }
                }
                Message::Due(key) => self.on_due(now, key, out),
            }
        }
    }

    fn on_ended(
        &mut self,
        now: Instant,
        key: ChildKey,
        number: u64,
        end: End,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.incarnation != number {
            return;
        }
        if child.is_alive() && end == End::Exited(Exit::Unkillable) {
            // It ended by itself, but not all that it had started.
            let id = Some(Arc::clone(&child.policy.id));
            out.push(Action::Emit(id, EventKind::Unkillable { incarnation: number }));
        }
        match (child.state, end) {
            (ChildState::Starting, _) if child.timed_out => {
                self.on_start_failed(now, key, Exit::StartTimeout, out);
            }
            (ChildState::Starting, End::Ignored) => self.on_ignored(now, key, out),
            (ChildState::Starting, End::StartFailed(exit) | End::Exited(exit)) => {
                self.on_start_failed(now, key, exit, out);
            }
            (ChildState::Up, End::Exited(exit) | End::StartFailed(exit)) => {
                child.gone = Some(exit);
                self.inbox.push_back(Message::Exited(key, number));
            }
            (ChildState::Stopping, end) => {
                let exit = match end {
                    // It never ran, and won't: as good as a shutdown.
                    End::Ignored => Exit::Shutdown,
                    End::StartFailed(exit) | End::Exited(exit) => exit,
                };
                self.stopped(now, key, exit, out);
            }
            // Given up as unkillable, and now it ended after all.
            (ChildState::Up, End::Ignored)
            | (ChildState::Down | ChildState::Restarting | ChildState::Degraded, _) => {}
        }
    }

    /// One of those that are being stopped is gone: go on.
    fn stopped(&mut self, now: Instant, key: ChildKey, exit: Exit, out: &mut Vec<Action<P>>) {
        self.on_stopped(now, key, exit, out);
        if let Some(Op::Stop { current, .. }) = &mut self.op {
            current.remove(&key);
            self.stop_next(now, out);
        }
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<Action<P>>) {
        while let Some((key, timer)) = self.timers.pop_due(now) {
            match timer {
                Timer::StartDeadline => {
                    if let Some(child) = self.children.get_mut(&key) {
                        child.timed_out = true;
                    }
                    self.kill_child(now, key, out);
                }
                Timer::StopDeadline => self.kill_child(now, key, out),
                Timer::KillGrace => self.on_unkillable(now, key, out),
                Timer::Due => self.inbox.push_back(Message::Due(key)),
            }
        }
    }

    /// A child was killed and is still there. It is no longer waited for.
    fn on_unkillable(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let Some(child) = self.children.get(&key) else { return };
        let (state, incarnation) = (child.state, child.incarnation);
        let id = Some(Arc::clone(&child.policy.id));
        out.push(Action::Emit(id, EventKind::Unkillable { incarnation }));
        out.push(Action::Abandon(key));
        if state == ChildState::Starting {
            self.on_start_failed(now, key, Exit::Unkillable, out);
        } else {
            self.stopped(now, key, Exit::Unkillable, out);
        }
    }

    fn state(&self, key: ChildKey) -> Option<ChildState> {
        self.children.get(&key).map(|child| child.state)
    }

    /// Changes a child's state; whatever timer it had is void.
    fn set(&mut self, now: Instant, key: ChildKey, state: ChildState, out: &mut Vec<Action<P>>) {
        self.timers.disarm(key);
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.state != state {
            child.state = state;
            child.since = now;
            // Whoever is down in the middle of a group's restart, or of its supervisor's end, is
            // about to come back, as far as a caller can know. What the end means for those below
            // is published by the parent.
            let returns =
                matches!(self.op, Some(Op::Stop { then: Then::Restart(_) | Then::End(_), .. }));
            let public = match state {
                ChildState::Down if returns => ChildState::Restarting,
                state => state,
            };
            out.push(Action::Publish(key, public));
        }
    }

    /// A child without an incarnation: its spec stays, unless it is temporary or dynamic.
    fn put_down(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let Some(child) = self.children.get(&key) else { return };
        if child.policy.restart == Restart::Temporary || self.policy.is_dynamic() {
            self.remove(key, out);
        } else {
            self.set(now, key, ChildState::Down, out);
        }
    }

    fn insert(
        &mut self,
        policy: ChildPolicy,
        payload: P,
        incarnation: u64,
        now: Instant,
    ) -> ChildKey {
        self.last_key += 1;
        let key = ChildKey(self.last_key);
        self.keys.insert(Arc::clone(&policy.id), key);
        let child = Child {
            policy,
            payload,
            state: ChildState::Down,
            incarnation,
            gone: None,
            timed_out: false,
            restarts: 0,
            last_exit: None,
            since: now,
        };
        self.children.insert(key, child);
        key
    }

    fn remove(&mut self, key: ChildKey, out: &mut Vec<Action<P>>) {
        self.timers.disarm(key);
        if let Some(child) = self.children.remove(&key) {
            self.keys.remove(&child.policy.id);
            out.push(Action::Removed(child.payload));
        }
    }
}
