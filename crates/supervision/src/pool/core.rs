//! poolboy's rules as a pure state machine: `step(now, input) -> actions`.
//!
//! poolboy is a process that blocks while it starts or stops a worker, so that its rules never see
//! one in between. Nobody blocks here, and the rules are extended to workers on the way such that
//! they are poolboy's own whenever starts and stops take no time:
//!
//! - A worker that is *coming* (starting, or owed because there is no room yet) will serve one
//!   caller. Callers stand in one line, and whichever worker is free first goes to the oldest of
//!   them. A caller for whom a worker is coming doesn't count against the bound of the queue.
//! - A worker that is *stopping* keeps its place until it is gone: there are never more than
//!   `size + max_overflow` workers, and a start may have to wait for room.
//!
//! As in poolboy, overflow is a count, not a property of a worker: any worker that comes back
//! while the pool is over its size may be the one that is dismissed.

use super::{Order, PoolConfig, PoolState, PoolStatus};
use crate::core::Window;
use crate::{EventKind, Exit};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tokio::time::Instant;

/// Names a worker. Never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WorkerKey(pub(super) u64);

/// Names a request. Later ones have larger numbers.
pub(super) type Ticket = u64;

/// What the core is told.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// Start as many workers as the pool's size says. The first input.
    Open,
    /// A caller wants a worker. One that doesn't queue is refused rather than made to wait for a
    /// worker that somebody else has to return.
    Checkout { ticket: Ticket, queues: bool },
    /// A caller no longer wants what it asked for. Of no effect on one that was answered.
    Cancel(Ticket),
    /// A caller's deadline has passed. Of no effect on one that was answered.
    Expire(Ticket),
    /// A borrower has no more use for its worker.
    CheckIn(WorkerKey),
    /// A worker is up.
    Started(WorkerKey),
    /// A worker is gone, with all that belonged to it.
    Ended(WorkerKey, Exit),
}

/// What the core wants done. Actions are to be performed in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start a worker. Answered by [`Input::Started`].
    Start(WorkerKey),
    /// Stop a worker. Answered by [`Input::Ended`].
    Stop(WorkerKey),
    /// Lend the worker to the caller.
    Grant(Ticket, WorkerKey),
    /// Tell the caller that the pool is full.
    Refuse(Ticket),
    /// Tell the observer.
    Emit(EventKind),
    /// More workers died than the pool tolerates: it has failed.
    Fail,
}

/// The state machine of one pool.
///
/// Between two steps: `idle + out + coming = size + overflow`; a worker is idle only if there is
/// no overflow and nobody waits; and all workers together are at most `size + max_overflow`.
#[derive(Debug)]
pub(super) struct Core {
    config: PoolConfig,
    /// The one that came back last is the last.
    idle: VecDeque<WorkerKey>,
    out: BTreeSet<WorkerKey>,
    /// With why the one died whose place it takes.
    starting: BTreeMap<WorkerKey, Option<Exit>>,
    stopping: BTreeSet<WorkerKey>,
    /// Starts that wait for room.
    owed: VecDeque<Option<Exit>>,
    /// Workers, coming ones included, beyond the size. Those that are stopping don't count.
    overflow: usize,
    /// Who waits, and since when, the oldest first.
    waiting: BTreeMap<Ticket, Instant>,
    deaths: Option<Window>,
    last_key: u64,
}

impl Core {
    pub(super) fn new(config: PoolConfig) -> Self {
        Self {
            config,
            idle: VecDeque::new(),
            out: BTreeSet::new(),
            starting: BTreeMap::new(),
            stopping: BTreeSet::new(),
            owed: VecDeque::new(),
            overflow: 0,
            waiting: BTreeMap::new(),
            deaths: config.deaths.map(|(n, period)| Window::new(n, period)),
            last_key: 0,
        }
    }

    /// Takes one input and appends what is to be done about it.
    pub(super) fn step(&mut self, now: Instant, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Open => self.owed.extend((0..self.config.size).map(|_| None)),
            Input::Checkout { ticket, queues } => self.checkout(now, ticket, queues, actions),
            Input::Cancel(ticket) => drop(self.waiting.remove(&ticket)),
            Input::Expire(ticket) => {
                if self.waiting.remove(&ticket).is_some() {
                    actions.push(Action::Emit(EventKind::CheckoutTimeout));
                }
            }
            Input::CheckIn(key) => {
                // One that died meanwhile, or was never out, is nobody's to return.
                if self.out.remove(&key) {
                    self.free(now, key, actions);
                }
            }
            Input::Started(key) => {
                let Some(replaces) = self.starting.remove(&key) else { return };
                if let Some(exit) = replaces {
                    actions.push(Action::Emit(EventKind::WorkerReplaced { exit }));
                }
                self.free(now, key, actions);
            }
            Input::Ended(key, exit) => self.on_ended(now, key, exit, actions),
        }
        self.start_owed(actions);
    }

    /// The pool at this moment, in poolboy's words.
    pub(super) fn status(&self) -> PoolStatus {
        let PoolConfig { max_overflow, .. } = self.config;
        let state = match self.overflow {
            0 if !self.idle.is_empty() => PoolState::Ready,
            0 if max_overflow == 0 => PoolState::Full,
            0 => PoolState::Overflow,
            n if n == max_overflow => PoolState::Full,
            _ => PoolState::Overflow,
        };
        PoolStatus {
            state,
            idle: self.idle.len(),
            checked_out: self.out.len(),
            overflow: self.overflow,
            starting: self.coming(),
            stopping: self.stopping.len(),
            waiting: self.waiting.len(),
        }
    }

    fn checkout(&mut self, now: Instant, ticket: Ticket, queues: bool, actions: &mut Vec<Action>) {
        let idle = match self.config.order {
            Order::Lifo => self.idle.pop_back(),
            Order::Fifo => self.idle.pop_front(),
        };
        if let Some(key) = idle {
            return self.grant(now, ticket, now, key, actions);
        }
        if self.coming() <= self.waiting.len() {
            if self.overflow < self.config.max_overflow {
                self.overflow += 1;
                self.owed.push_back(None);
                actions.push(Action::Emit(EventKind::Overflow { overflow: self.overflow }));
            } else if !queues {
                return actions.push(Action::Refuse(ticket));
            } else if self.waiting.len() - self.coming() >= self.config.queue {
                actions.push(Action::Emit(EventKind::Full));
                return actions.push(Action::Refuse(ticket));
            }
        }
        self.waiting.insert(ticket, now);
    }

    fn grant(
        &mut self,
        now: Instant,
        ticket: Ticket,
        since: Instant,
        key: WorkerKey,
        actions: &mut Vec<Action>,
    ) {
        self.out.insert(key);
        let waited = now.saturating_duration_since(since);
        actions.push(Action::Emit(EventKind::CheckedOut { waited }));
        actions.push(Action::Grant(ticket, key));
    }

    /// A worker can be lent: to who waits longest, else it is dismissed if it is one too many.
    fn free(&mut self, now: Instant, key: WorkerKey, actions: &mut Vec<Action>) {
        if let Some((ticket, since)) = self.waiting.pop_first() {
            self.grant(now, ticket, since, key, actions);
        } else if self.overflow > 0 {
            self.overflow -= 1;
            self.stopping.insert(key);
            actions.push(Action::Stop(key));
        } else {
            self.idle.push_back(key);
        }
    }

    fn on_ended(&mut self, now: Instant, key: WorkerKey, exit: Exit, actions: &mut Vec<Action>) {
        if self.stopping.remove(&key) {
            return;
        }
        let at = self.idle.iter().position(|idle| *idle == key);
        if at.and_then(|at| self.idle.remove(at)).is_some() || self.starting.remove(&key).is_some()
        {
            self.owed.push_back(Some(exit));
        } else if self.out.remove(&key) {
            if self.overflow > 0 && self.waiting.len() <= self.coming() {
                self.overflow -= 1;
            } else {
                self.owed.push_back(Some(exit));
            }
        } else {
            return;
        }
        if self.deaths.as_mut().is_some_and(|deaths| !deaths.charge(now)) {
            actions.push(Action::Fail);
        }
    }

    /// Workers that are starting or will be.
    fn coming(&self) -> usize {
        self.starting.len() + self.owed.len()
    }

    /// Starts what is owed, as far as there is room. What is owed to callers who have gone
    /// meanwhile isn't started at all, rather than dismissed as soon as it is up.
    fn start_owed(&mut self, actions: &mut Vec<Action>) {
        let max = self.config.size + self.config.max_overflow;
        while let Some(replaces) = self.owed.pop_front() {
            if self.overflow > 0 && self.waiting.len() <= self.coming() {
                self.overflow -= 1;
                continue;
            }
            let there =
                self.idle.len() + self.out.len() + self.starting.len() + self.stopping.len();
            if there >= max {
                self.owed.push_front(replaces);
                return;
            }
            self.last_key += 1;
            let key = WorkerKey(self.last_key);
            self.starting.insert(key, replaces);
            actions.push(Action::Start(key));
        }
    }
}

#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
