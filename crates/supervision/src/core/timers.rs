//! The deadlines of one supervisor's children, at most one each.
//!
//! A child's state has at most one time limit, and leaving the state ends it, so a timer is armed
//! and disarmed under the child's key and never fires for another incarnation.

use super::ChildKey;
use rustc_hash::FxHashMap;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Its init has taken too long: kill it.
    StartDeadline,
    /// It was asked to stop and is still there: kill it.
    StopDeadline,
    /// It was killed and is still there: give it up.
    KillGrace,
    /// Its back-off or its cooldown is over: start it.
    Due,
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Instant, ChildKey, Timer)>,
    armed: FxHashMap<ChildKey, (Instant, Timer)>,
}

impl Timers {
    /// Arms a child's timer in place of the one that it may have.
    pub(super) fn arm(&mut self, key: ChildKey, at: Instant, timer: Timer) {
        self.disarm(key);
        self.queue.insert((at, key, timer));
        self.armed.insert(key, (at, timer));
    }

    pub(super) fn disarm(&mut self, key: ChildKey) {
        if let Some((at, timer)) = self.armed.remove(&key) {
            self.queue.remove(&(at, key, timer));
        }
    }

    pub(super) fn has(&self, key: ChildKey) -> bool {
        self.armed.contains_key(&key)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.first().map(|(at, ..)| *at)
    }

    /// Takes a timer that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(ChildKey, Timer)> {
        let (at, key, timer) = *self.queue.first()?;
        if at > now {
            return None;
        }
        self.disarm(key);
        Some((key, timer))
    }
}
