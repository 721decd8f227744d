//! One child after the other: acknowledged starts, and what a failed one means.

use super::timers::Timer;
use super::{Action, AdminError, Answer, Cause, ChildKey, ChildState, Core, Op, Phase, Then};
use crate::{EventKind, Exit, later};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::time::Instant;

impl<P> Core<P> {
    /// Starts children one after the other.
    pub(super) fn start_all(
        &mut self,
        now: Instant,
        mut waiting: VecDeque<ChildKey>,
        cause: Cause,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(current) = waiting.pop_front() else {
            self.op = None;
            if matches!(cause, Cause::Init) {
                self.phase = Phase::Running;
                out.push(Action::Emit(None, EventKind::SupervisorUp));
                out.push(Action::Up);
            }
            return;
        };
        self.op = Some(Op::Start { waiting, cause });
        let Some(child) = self.children.get_mut(&current) else { return };
        child.incarnation += 1;
        child.timed_out = false;
        child.gone = None;
        if matches!(cause, Cause::Restart | Cause::Cooldown) {
            child.restarts += 1;
        }
        let (incarnation, timeout) = (child.incarnation, child.policy.start_timeout);
        self.set(now, current, ChildState::Starting, out);
        if let Some(timeout) = timeout {
            self.timers.arm(current, later(now, timeout), Timer::StartDeadline);
        }
        out.push(Action::Spawn(current, incarnation));
    }

    pub(super) fn on_ready(
        &mut self,
        now: Instant,
        key: ChildKey,
        number: u64,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(child) = self.children.get(&key) else { return };
        if child.incarnation != number || child.state != ChildState::Starting || child.timed_out {
            return;
        }
        let id = Some(Arc::clone(&child.policy.id));
        self.set(now, key, ChildState::Up, out);
        out.push(Action::Emit(id, EventKind::Started { incarnation: number }));
        let Some((waiting, cause)) = self.take_start() else { return };
        if let Cause::StartChild(ticket) | Cause::RestartChild(ticket) = cause {
            out.push(Action::Reply(ticket, Ok(Answer::Started(key, number))));
        }
        self.start_all(now, waiting, cause, out);
    }

    /// The start that is under way. Whatever else is under way goes on.
    fn take_start(&mut self) -> Option<(VecDeque<ChildKey>, Cause)> {
        match self.op.take() {
            Some(Op::Start { waiting, cause }) => Some((waiting, cause)),
            op => {
                self.op = op;
                None
            }
        }
    }

    /// The child that is being started chose not to run.
    pub(super) fn on_ignored(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let Some((waiting, cause)) = self.take_start() else { return self.put_down(now, key, out) };
        let Some(child) = self.children.get(&key) else { return };
        out.push(Action::Emit(Some(Arc::clone(&child.policy.id)), EventKind::Ignored));
        self.put_down(now, key, out);
        if let Cause::StartChild(ticket) | Cause::RestartChild(ticket) = cause {
            out.push(Action::Reply(ticket, Ok(Answer::Ignored)));
        }
        self.start_all(now, waiting, cause, out);
    }

    /// The child that is being started failed to.
    pub(super) fn on_start_failed(
        &mut self,
        now: Instant,
        key: ChildKey,
        exit: Exit,
        out: &mut Vec<Action<P>>,
    ) {
        let Some((waiting, cause)) = self.take_start() else { return self.put_down(now, key, out) };
        let Some(child) = self.children.get_mut(&key) else { return };
        child.last_exit = Some(exit.clone());
        let id = Arc::clone(&child.policy.id);
        if let Some(cooldown) = child.policy.firewall
            && !matches!(cause, Cause::StartChild(_))
        {
            if let Cause::RestartChild(ticket) = cause {
                out.push(Action::Reply(ticket, Err(AdminError::Start(exit.clone()))));
            }
            self.degrade(now, key, exit, cooldown, out);
            return self.start_all(now, waiting, cause, out);
        }
        if matches!(cause, Cause::Init | Cause::Restart | Cause::Cooldown) {
            let failed = EventKind::StartFailed { exit: exit.clone() };
            out.push(Action::Emit(Some(Arc::clone(&id)), failed));
        } // else the answer says it, as in OTP
        match cause {
            Cause::Init => {
                self.set(now, key, ChildState::Down, out);
                let all = self.children.keys().copied().collect();
                self.phase = Phase::Stopping;
                self.stop_all(now, all, Then::FailStart { id, exit }, out);
            }
            Cause::Restart | Cause::Cooldown => {
                self.set(now, key, ChildState::Restarting, out);
                out.push(Action::TryAgain(key));
            }
            Cause::StartChild(ticket) => {
                self.remove(key, out);
                out.push(Action::Reply(ticket, Err(AdminError::Start(exit))));
            }
            Cause::RestartChild(ticket) => {
                self.put_down(now, key, out);
                out.push(Action::Reply(ticket, Err(AdminError::Start(exit))));
            }
        }
    }
}
