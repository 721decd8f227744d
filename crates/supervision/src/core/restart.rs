//! What a supervisor does about a child that ended by itself: OTP's strategies and its budget.

use super::timers::Timer;
use super::{Action, Cause, ChildKey, ChildState, Core, Op, Then};
use crate::policy::{AutoShutdown, ChildPolicy, Restart, Strategy, Structure};
use crate::{EventKind, Exit, later};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl<P> Core<P> {
    /// A child ended by itself.
    pub(super) fn on_exit(
        &mut self,
        now: Instant,
        key: ChildKey,
        number: u64,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        if child.incarnation != number || child.state != ChildState::Up {
            return; // stopped, and perhaps started again, while this message waited
        }
        let Some(exit) = child.gone.take() else { return };
        child.last_exit = Some(exit.clone());
        let ChildPolicy { restart, significant, firewall, .. } = child.policy;
        let id = Some(Arc::clone(&child.policy.id));

        if let Some(cooldown) = firewall
            && (exit.is_abnormal() || exit == Exit::Meltdown)
        {
            return self.degrade(now, key, exit, cooldown, out);
        }
        let restarts = match restart {
            Restart::Permanent => true,
            Restart::Transient => exit.is_abnormal(),
            Restart::Temporary => false,
        };
        out.push(Action::Emit(id, EventKind::Exited { incarnation: number, exit, restarts }));
        if restarts {
            return self.restart(now, key, out);
        }
        self.put_down(now, key, out);
        if significant && self.is_last_significant() {
            self.end(now, Exit::Shutdown, out);
        }
    }

    /// Whether the end of a significant child takes the supervisor with it.
    pub(super) fn is_last_significant(&self) -> bool {
        match self.policy.auto_shutdown {
            AutoShutdown::Never => false,
            AutoShutdown::AnySignificant => true,
            AutoShutdown::AllSignificant => !self
                .children
                .values()
                .any(|child| child.policy.significant && child.state != ChildState::Down),
        }
    }

    /// Charges a restart and begins it, or melts down.
    pub(super) fn restart(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let Some(child) = self.children.get(&key) else { return };
        let id = Arc::clone(&child.policy.id);
        let backoff = child.policy.backoff;
        if !self.window.charge(now) {
            self.put_down(now, key, out);
            out.push(Action::Emit(None, EventKind::Meltdown { child: id }));
            return self.end(now, Exit::Meltdown, out);
        }
        self.set(now, key, ChildState::Restarting, out);
        let n = self.window.len();
        let wait = backoff.map_or(Duration::ZERO, |backoff| jittered(backoff.before(n), key, n));
        if wait.is_zero() {
            return self.restart_now(now, key, out);
        }
        self.timers.arm(key, later(now, wait), Timer::Due);
        out.push(Action::Emit(Some(id), EventKind::RetryScheduled { after: wait }));
    }

    /// Restarts a child by the strategy.
    pub(super) fn restart_now(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let group: Vec<_> = match self.policy.structure {
            Structure::Static(Strategy::OneForOne) | Structure::Dynamic { .. } => Vec::new(),
            Structure::Static(Strategy::OneForAll) => {
                self.children.keys().copied().filter(|other| *other != key).collect()
            }
            Structure::Static(Strategy::RestForOne) => {
                self.children.range(key..).map(|(other, _)| *other).skip(1).collect()
            }
        };
        let one_for_all = self.policy.structure == Structure::Static(Strategy::OneForAll);
        self.op =
            Some(Op::Stop { current: BTreeSet::new(), waiting: group, then: Then::Restart(key) });
        if one_for_all {
            // If another of the group fails, that one is tried again, and this one with all.
            self.set(now, key, ChildState::Down, out);
        }
        self.stop_next(now, out);
    }

    /// The group is stopped: start what belongs to it.
    pub(super) fn start_group(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        let group = match self.policy.structure {
            Structure::Static(Strategy::OneForOne) | Structure::Dynamic { .. } => [key].into(),
            Structure::Static(Strategy::OneForAll) => self.children.keys().copied().collect(),
            Structure::Static(Strategy::RestForOne) => {
                self.children.range(key..).map(|(other, _)| *other).collect()
            }
        };
        self.start_all(now, group, Cause::Restart, out);
    }

    /// A firewalled child ended, or couldn't start: nobody else notices.
    pub(super) fn degrade(
        &mut self,
        now: Instant,
        key: ChildKey,
        exit: Exit,
        cooldown: Duration,
        out: &mut Vec<Action<P>>,
    ) {
        let Some(child) = self.children.get_mut(&key) else { return };
        child.last_exit = Some(exit.clone());
        let id = Some(Arc::clone(&child.policy.id));
        self.set(now, key, ChildState::Degraded, out);
        self.timers.arm(key, later(now, cooldown), Timer::Due);
        out.push(Action::Emit(id, EventKind::Degraded { exit, cooldown }));
    }

    /// A back-off or a cooldown is over.
    pub(super) fn on_due(&mut self, now: Instant, key: ChildKey, out: &mut Vec<Action<P>>) {
        if self.timers.has(key) {
            return; // another wait has begun while this message waited
        }
        match self.state(key) {
            Some(ChildState::Restarting) => self.restart_now(now, key, out),
            Some(ChildState::Degraded) => self.start_all(now, [key].into(), Cause::Cooldown, out),
            Some(
                ChildState::Down | ChildState::Starting | ChildState::Up | ChildState::Stopping,
            )
            | None => {}
        }
    }
}

/// Takes up to a quarter off a wait, by the child and the try, so that a run can be repeated.
fn jittered(wait: Duration, key: ChildKey, n: usize) -> Duration {
    use std::hash::BuildHasher as _;
    let hash = rustc_hash::FxBuildHasher.hash_one((key, n));
    let share = u32::try_from(hash >> 48).unwrap_or(0); // 0..65536
    wait.saturating_sub((wait / 4).saturating_mul(share) / (1 << 16))
}
