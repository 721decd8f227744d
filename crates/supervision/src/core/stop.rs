//! The way down: in reverse order, each child by its own rule, and never waiting for ever.

use super::timers::Timer;
use super::{Action, Answer, ChildKey, ChildState, Core, Op, Phase, Then};
use crate::policy::{ChildKind, ChildPolicy, Restart, Stop};
use crate::{EventKind, Exit, later};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

impl<P> Core<P> {
    /// Stops children, the last first; those of a dynamic supervisor all at once.
    pub(super) fn stop_all(
        &mut self,
        now: Instant,
        waiting: Vec<ChildKey>,
        then: Then,
        out: &mut Vec<Action<P>>,
    ) {
        self.op = Some(Op::Stop { current: BTreeSet::new(), waiting, then });
        self.stop_next(now, out);
    }

    /// Goes on with whoever is next, or with what follows.
    pub(super) fn stop_next(&mut self, now: Instant, out: &mut Vec<Action<P>>) {
        let parallel = self.policy.is_dynamic();
        loop {
            let Some(Op::Stop { current, waiting, .. }) = &mut self.op else { return };
            if !current.is_empty() && !parallel {
                return;
            }
            let Some(key) = waiting.pop() else { break };
            if self.stop(now, key, out)
                && let Some(Op::Stop { current, .. }) = &mut self.op
            {
                current.insert(key);
            }
        }
        if matches!(&self.op, Some(Op::Stop { current, .. }) if !current.is_empty()) {
            return;
        }
        let Some(Op::Stop { then, .. }) = self.op.take() else { return };
        match then {
            Then::Restart(key) => self.start_group(now, key, out),
            Then::Reply(ticket) => out.push(Action::Reply(ticket, Ok(Answer::Done))),
            Then::FailStart { id, exit } => {
                self.phase = Phase::Ended;
                out.push(Action::StartFailed { id, exit });
            }
            Then::End(exit) => {
                self.phase = Phase::Ended;
                out.push(Action::Emit(None, EventKind::SupervisorDown { exit: exit.clone() }));
                out.push(Action::End(exit));
            }
        }
    }

    /// Begins to stop one child. `false` if there is nothing to wait for.
    pub(super) fn stop(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) -> bool {
        let Some(child) = self.children.get_mut(&key) else { return false };
        if !child.is_alive() {
            self.put_down(now, key, out);
            return false;
        }
        if let Some(exit) = child.gone.take() {
            self.on_stopped(now, key, exit, out);
            return false;
        }
        // One whose start has timed out is being killed already.
        let stop = if child.timed_out { Stop::Kill } else { child.policy.stop };
        let incarnation = child.incarnation;
        let id = Some(Arc::clone(&child.policy.id));
        self.set(now, key, ChildState::Stopping, out);
        out.push(Action::Emit(id, EventKind::Stopping { incarnation }));
        match stop {
            Stop::Kill => self.kill_child(now, key, out),
            Stop::Within(time) => {
                self.timers.arm(key, later(now, time), Timer::StopDeadline);
                out.push(Action::Stop(key));
            }
            Stop::Wait => out.push(Action::Stop(key)),
        }
        true
    }

    pub(super) fn kill_child(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let Some(child) = self.children.get(&key) else { return };
        // A supervisor gives up its own children after their grace, so it always ends.
        if child.policy.kind == ChildKind::Worker {
            self.timers.arm(key, later(now, self.policy.kill_grace), Timer::KillGrace);
        }
        out.push(Action::Kill(key));
    }

    /// A child that was told to stop is gone.
    pub(super) fn on_stopped(
        &mut self,
        now: Instant,
        key: ChildKey,
        exit: Exit,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.last_exit = Some(exit.clone());
        let ChildPolicy { stop, restart, .. } = child.policy;
        let id = Some(Arc::clone(&child.policy.id));
        let incarnation = child.incarnation;
        let expected = match &exit {
            Exit::Shutdown | Exit::Meltdown => true,
            Exit::Killed => stop == Stop::Kill || self.killed,
            exit => !exit.is_abnormal() && restart != Restart::Permanent,
        };
        let stopped = EventKind::Stopped { incarnation, exit: exit.clone() };
        out.push(Action::Emit(id.clone(), stopped));
        if !expected {
            out.push(Action::Emit(id, EventKind::StopFailed { exit }));
        }
        self.put_down(now, key, out);
    }

    /// Stops everything and ends.
    pub(super) fn end(&mut self, now: Instant, exit: Exit, out: &mut Vec<Action<P>>) {
        if matches!(self.phase, Phase::Stopping | Phase::Ended) {
            return;
        }
        self.phase = Phase::Stopping;
        let all: Vec<_> = self.children.keys().copied().collect();
        // Whoever was told to stop already goes on doing so, and is not told again. Whoever is being
        // started is told first: nobody waits for its start any longer.
        let mut current = match self.op.take() {
            Some(Op::Stop { current, .. }) => current,
            Some(Op::Start { .. }) | None => BTreeSet::new(),
        };
        let starting =
            all.iter().copied().find(|key| self.state(*key) == Some(ChildState::Starting));
        if let Some(key) = starting
            && self.stop(now, key, out)
        {
            current.insert(key);
        }
        let waiting = all.into_iter().filter(|key| !current.contains(key)).collect();
        self.op = Some(Op::Stop { current, waiting, then: Then::End(exit) });
        self.stop_next(now, out);
    }

    /// Kills everything and ends.
    pub(super) fn kill(&mut self, now: Instant, out: &mut Vec<Action<P>>) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Stopping;
        self.killed = true;
        let mut current = BTreeSet::new();
        for key in self.children.keys().copied().collect::<Vec<_>>() {
            let Some(child) = self.children.get_mut(&key) else { continue };
            if !child.is_alive() {
                self.put_down(now, key, out);
                continue;
            }
            if let Some(exit) = child.gone.take() {
                self.on_stopped(now, key, exit, out);
                continue;
            }
            self.set(now, key, ChildState::Stopping, out);
            self.kill_child(now, key, out);
            current.insert(key);
        }
        self.op = Some(Op::Stop { current, waiting: Vec::new(), then: Then::End(Exit::Killed) });
        self.stop_next(now, out);
    }
}
