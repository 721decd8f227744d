//! Where workers are lent and returned: the core behind a lock, for one incarnation of a pool.
//!
//! A lock, and not a mailbox, because returning a worker happens in a `drop`, which can neither
//! wait for room in a bounded mailbox nor fail; and because who returns a worker and asks for one
//! next must find it there. Under the lock is only the core's own code, which never waits.
//! What takes time, starting and stopping workers, is left as errands for the pool's service.

use super::core::{Action, Core, Input, Ticket, WorkerKey};
use super::{PoolConfig, PoolError, PoolStatus};
use crate::{Emitter, EventKind, Exit};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

/// One incarnation's desk. `T` is what a borrower needs of a worker.
pub(super) struct Desk<T> {
    state: Mutex<State<T>>,
    /// Says that there are errands.
    sent: Notify,
    emitter: Emitter,
}

struct State<T> {
    core: Core,
    workers: FxHashMap<WorkerKey, Arc<T>>,
    callers: FxHashMap<Ticket, oneshot::Sender<Answer<T>>>,
    errands: Vec<Errand>,
    last_ticket: Ticket,
    closed: bool,
}

/// What a caller gets. `None`: the pool is full.
type Answer<T> = Option<Lease<T>>;

/// What the pool's service is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    /// Start a worker, and tell when it is [there](Desk::started) and when it is
    /// [gone](Desk::ended).
    Start(WorkerKey),
    /// Stop a worker.
    Stop(WorkerKey),
    /// End with a failure.
    Fail,
}

impl<T> Desk<T> {
    /// A desk without workers, whose first errands are to start them.
    pub(super) fn open(config: PoolConfig, emitter: Emitter) -> Arc<Self> {
        let state = State {
            core: Core::new(config),
            workers: FxHashMap::default(),
            callers: FxHashMap::default(),
            errands: Vec::new(),
            last_ticket: 0,
            closed: false,
        };
        let desk = Arc::new(Self { state: Mutex::new(state), sent: Notify::new(), emitter });
        desk.step(Input::Open);
        desk
    }

    /// A worker is up.
    pub(super) fn started(self: &Arc<Self>, key: WorkerKey, worker: T) {
        let mut before = None;
        self.step_with(|state| {
            before = state.workers.insert(key, Arc::new(worker));
            Input::Started(key)
        });
        drop(before);
    }

    /// A worker is gone.
    pub(super) fn ended(self: &Arc<Self>, key: WorkerKey, exit: Exit) {
        let mut worker = None;
        self.step_with(|state| {
            worker = state.workers.remove(&key);
            Input::Ended(key, exit)
        });
        drop(worker);
    }

    /// What is to be done by now.
    pub(super) fn take_errands(&self) -> Vec<Errand> {
        std::mem::take(&mut self.lock().errands)
    }

    /// Waits until something is to be done. Has no deadline.
    ///
    /// # Cancel safety
    /// No errand is lost when the future is dropped.
    pub(super) async fn errands(&self) -> Vec<Errand> {
        loop {
            let errands = self.take_errands();
            if !errands.is_empty() {
                return errands;
            }
            self.sent.notified().await;
        }
    }

    /// Takes a worker. `None` if this desk is closed.
    ///
    /// # Cancel safety
    /// A caller that is gone is in no queue, and a worker that was just granted to it goes back.
    pub(super) async fn checkout(
        self: &Arc<Self>,
        deadline: Instant,
        queues: bool,
    ) -> Option<Result<Lease<T>, PoolError>> {
        let mut place = self.queue_up(queues)?;
        if let Ok(answer) = timeout_at(deadline, &mut place.answer).await {
            return Some(answer.ok()?.ok_or(PoolError::Full));
        }
        // A worker that is granted at this very moment goes back with the place.
        self.leave(place.ticket, Input::Expire(place.ticket));
        Some(Err(PoolError::Timeout))
    }

    fn queue_up(self: &Arc<Self>, queues: bool) -> Option<Place<T>> {
        let (sender, answer) = oneshot::channel();
        let mut ticket = None;
        self.step_with(|state| {
            state.last_ticket += 1;
            let number = state.last_ticket;
            state.callers.insert(number, sender);
            ticket = Some(number);
            Input::Checkout { ticket: number, queues }
        });
        Some(Place { desk: Arc::clone(self), ticket: ticket?, answer })
    }

    /// A caller that is gone, or out of time.
    fn leave(self: &Arc<Self>, ticket: Ticket, input: Input) {
        let mut caller = None;
        self.step_with(|state| {
            caller = state.callers.remove(&ticket);
            input
        });
        drop(caller);
    }

    /// The pool's status. `None` if this desk is closed.
    pub(super) fn status(&self) -> Option<PoolStatus> {
        let state = self.lock();
        (!state.closed).then(|| state.core.status())
    }

    /// One of the workers that are up, whichever.
    pub(super) fn any_worker(&self) -> Option<Arc<T>> {
        self.lock().workers.values().next().cloned()
    }

    /// Ends it: who waits is told, and what comes back isn't lent again.
    pub(super) fn close(&self) {
        let (callers, workers) = {
            let mut state = self.lock();
            state.closed = true;
            state.errands.clear();
            (std::mem::take(&mut state.callers), std::mem::take(&mut state.workers))
        };
        drop((callers, workers)); // which runs code of others
    }

    fn step(self: &Arc<Self>, input: Input) {
        self.step_with(|_| input);
    }

    /// Tells the core something, together with what has to change at the same moment. Of no effect
    /// when the desk is closed.
    fn step_with(self: &Arc<Self>, change: impl FnOnce(&mut State<T>) -> Input) {
        let mut effects = self.take_effects(change);
        loop {
            for event in effects.events.drain(..) {
                self.emitter.emit(event);
            }
            if effects.sends {
                self.sent.notify_one();
            }
            let Some((caller, answer)) = effects.answers.pop_front() else { return };
            // A caller that left at this moment: its worker goes back. Not by being dropped,
            // because many of them would be as many nested calls.
            if let Err(Some(mut lease)) = caller.send(answer) {
                lease.desk = None;
                let more = self.take_effects(|_| Input::CheckIn(lease.key));
                effects.events.extend(more.events);
                effects.answers.extend(more.answers);
                effects.sends = more.sends;
            }
        }
    }

    fn take_effects(self: &Arc<Self>, change: impl FnOnce(&mut State<T>) -> Input) -> Effects<T> {
        let mut effects = Effects { events: Vec::new(), answers: VecDeque::new(), sends: false };
        let mut state = self.lock();
        if state.closed {
            return effects;
        }
        let input = change(&mut state);
        let mut actions = Vec::new();
        state.core.step(Instant::now(), input, &mut actions);
        for action in actions {
            match action {
                Action::Start(key) => state.errands.push(Errand::Start(key)),
                Action::Stop(key) => state.errands.push(Errand::Stop(key)),
                Action::Fail => state.errands.push(Errand::Fail),
                Action::Emit(event) => effects.events.push(event),
                Action::Refuse(ticket) => {
                    effects.answers.extend(state.callers.remove(&ticket).map(|to| (to, None)));
                }
                Action::Grant(ticket, key) => {
                    let Some(worker) = state.workers.get(&key).cloned() else { continue };
                    let Some(caller) = state.callers.remove(&ticket) else { continue };
                    let lease = Lease { desk: Some(Arc::clone(self)), key, worker };
                    effects.answers.push_back((caller, Some(lease)));
                }
            }
        }
        effects.sends = !state.errands.is_empty();
        effects
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is done when the lock is released.
struct Effects<T> {
    events: Vec<EventKind>,
    answers: VecDeque<(oneshot::Sender<Answer<T>>, Answer<T>)>,
    sends: bool,
}

/// A caller's place in the queue, given up when it is dropped.
struct Place<T> {
    desk: Arc<Desk<T>>,
    ticket: Ticket,
    answer: oneshot::Receiver<Answer<T>>,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.desk.leave(self.ticket, Input::Cancel(self.ticket));
    }
}

/// A worker that is out. Dropping it returns the worker.
pub(super) struct Lease<T> {
    /// Taken by whoever returns the worker otherwise.
    desk: Option<Arc<Desk<T>>>,
    key: WorkerKey,
    worker: Arc<T>,
}

impl<T> Lease<T> {
    pub(super) fn worker(&self) -> &Arc<T> {
        &self.worker
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.step(Input::CheckIn(self.key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Recorder, TreePath};

    fn desk_of(n_workers: usize) -> Arc<Desk<u64>> {
        let config = PoolConfig {
            size: n_workers,
            max_overflow: 0,
            queue: 1000,
            order: crate::Order::Lifo,
            deaths: None,
        };
        let desk = Desk::open(config, Emitter::new(TreePath::root("desk"), Recorder::new()));
        for errand in desk.take_errands() {
            if let Errand::Start(key) = errand {
                desk.started(key, key.0);
            }
        }
        desk
    }

    /// Callers that are gone before they could say so: on another thread, at this very moment.
    #[test]
    fn a_worker_that_nobody_takes_goes_round_the_queue_and_back() {
        let desk = desk_of(1);
        let mut holder = desk.queue_up(true).unwrap();
        let mut queue: Vec<_> = (0..1000).map(|_| desk.queue_up(true).unwrap()).collect();
        for place in &mut queue {
            place.answer.close();
        }
        drop(holder.answer.try_recv().unwrap());
        let status = desk.status().unwrap();
        assert_eq!((status.idle, status.checked_out, status.waiting), (1, 0, 0));
    }

    #[test]
    fn a_closed_desk_tells_who_waits_and_takes_nothing_back() {
        let desk = desk_of(1);
        let mut holder = desk.queue_up(true).unwrap();
        let mut waits = desk.queue_up(true).unwrap();
        let lease = holder.answer.try_recv().unwrap().unwrap();
        desk.close();
        assert!(waits.answer.try_recv().is_err());
        assert!(desk.queue_up(true).is_none());
        drop((lease, holder, waits));
        assert!(desk.status().is_none());
    }
}
