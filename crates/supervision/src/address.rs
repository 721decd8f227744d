//! Handles that survive restarts.
//!
//! An [`Address`] names a child, not an incarnation of it: whoever holds one reaches whichever
//! incarnation is up. Nothing is ever delivered to an old one, and nobody waits without a deadline.
//! The state behind it is a [`Slot`], which the supervisor writes and everybody may read; a
//! [`ChildRef`] is the same thing for who only wants to look.

mod mailbox;
mod slot;

pub use mailbox::{CallError, Mailbox, Reply, SendError};
pub use slot::{ChildRef, Monitor, NotReady, Status, Vitals};
pub(crate) use slot::{Delegated, Pulse, Slot};

use crate::{incarnation, later};
use arc_swap::ArcSwapOption;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

/// The way to a service: cheap to clone, valid before its first start and across all restarts.
///
/// Made before the tree, so that the tree can be written as one expression and services can be
/// given each other's addresses.
pub struct Address<M> {
    slot: Arc<Slot>,
    line: Arc<Line<M>>,
}

/// Where the current incarnation's mailbox hangs.
struct Line<M> {
    capacity: usize,
    current: ArcSwapOption<(u64, mpsc::Sender<M>)>,
}

impl<M: Send + 'static> Address<M> {
    /// The address of a child of this name, whose mailbox holds at most `capacity` messages (at
    /// least 1). A full one makes callers wait, until their deadlines.
    pub fn new(id: impl Into<Arc<str>>, capacity: usize) -> Self {
        Self {
            slot: Slot::new(id.into()),
            line: Arc::new(Line {
                capacity: capacity.max(1),
                current: ArcSwapOption::const_empty(),
            }),
        }
    }

    /// The child's name.
    pub fn id(&self) -> &Arc<str> {
        self.slot.id()
    }

    /// The child, for who only wants to look.
    pub fn child(&self) -> ChildRef {
        ChildRef::new(Arc::clone(&self.slot))
    }

    /// Sends a request that carries its reply port, and waits for the reply.
    ///
    /// While the child is not up, this waits for its next incarnation. `within` bounds everything
    /// together. `request` is made only when there is room for it.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws a request that isn't delivered yet. A delivered one is
    /// worked on; its reply is discarded.
    pub async fn call<R>(
        &self,
        within: Duration,
        request: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, CallError> {
        let _waiting = incarnation::delegate();
        let deadline = later(Instant::now(), within);
        let (reply, answer) = oneshot::channel();
        self.deliver(deadline, || request(Reply(reply))).await?;
        answer_by(deadline, answer).await
    }

    /// Like [`call`](Self::call), but a child that isn't up, or whose mailbox is full, is reported
    /// at once; `within` bounds the wait for the reply.
    pub async fn call_now<R>(
        &self,
        within: Duration,
        request: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, CallError> {
        let _waiting = incarnation::delegate();
        let deadline = later(Instant::now(), within);
        let (reply, answer) = oneshot::channel();
        self.send_now(request(Reply(reply)))?;
        answer_by(deadline, answer).await
    }

    /// Sends a message that nobody answers, waiting for the child and for room until the deadline.
    ///
    /// # Cancel safety
    /// Dropping the future withdraws the message, unless it is delivered already.
    pub async fn send(&self, within: Duration, message: M) -> Result<(), SendError> {
        let _waiting = incarnation::delegate();
        self.deliver(later(Instant::now(), within), || message).await
    }

    /// Sends a message that nobody answers, or says why it can't be sent at this moment.
    pub fn send_now(&self, message: M) -> Result<(), SendError> {
        let status = self.slot.status();
        let line = self.line.current.load();
        match &*line {
            Some(current) if status.is_up() && status.incarnation() == current.0 => {
                current.1.try_send(message).map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => SendError::Overloaded,
                    mpsc::error::TrySendError::Closed(_) => SendError::Restarting,
                })
            }
            _ => Err(status.unavailable()),
        }
    }

    async fn deliver(
        &self,
        deadline: Instant,
        message: impl FnOnce() -> M,
    ) -> Result<(), SendError> {
        let mut watch = self.slot.watch();
        let mut tried = 0; // the last incarnation whose mailbox was found closed
        loop {
            let up = watch.wait_for(|status| {
                status.is_gone() || (status.is_up() && status.incarnation() > tried)
            });
            let incarnation = match timeout_at(deadline, up).await {
                Ok(Ok(status)) if !status.is_gone() => status.incarnation(),
                Ok(_) => return Err(SendError::Gone),
                Err(_) => return Err(self.slot.status().unavailable()),
            };
            let sender = match &*self.line.current.load() {
                Some(current) if current.0 == incarnation => current.1.clone(),
                _ => {
                    tried = incarnation;
                    continue;
                }
            };
            // One that was given up as unkillable may keep its mailbox, and never make room in it.
            let replaced =
                watch.wait_for(|status| status.is_gone() || status.incarnation() != incarnation);
            let room = async {
                tokio::select! {
                    biased;
                    _ = replaced => None,
                    permit = sender.reserve() => permit.ok(),
                }
            };
            match timeout_at(deadline, room).await {
                Ok(Some(permit)) => {
                    permit.send(message());
                    return Ok(());
                }
                Ok(None) => tried = incarnation,
                Err(_) => return Err(SendError::Overloaded),
            }
        }
    }

    /// Asks whichever incarnation has its mailbox open, also one that is still starting or stops
    /// already. One that hasn't is reported at once.
    pub(crate) async fn call_in_any_state<R>(
        &self,
        within: Duration,
        request: impl FnOnce(Reply<R>) -> M,
    ) -> Result<R, CallError> {
        let deadline = later(Instant::now(), within);
        let current = self.line.current.load_full();
        let Some(current) = current else { return Err(self.slot.status().unavailable().into()) };
        let (reply, answer) = oneshot::channel();
        match timeout_at(deadline, current.1.reserve()).await {
            Ok(Ok(permit)) => permit.send(request(Reply(reply))),
            Ok(Err(_)) => return Err(self.slot.status().unavailable().into()),
            Err(_) => return Err(CallError::Overloaded),
        }
        answer_by(deadline, answer).await
    }

    /// A second way to the same child, for what must not wait behind its messages.
    pub(crate) fn beside<R>(&self, capacity: usize) -> Address<R> {
        let line = Line { capacity, current: ArcSwapOption::const_empty() };
        Address { slot: Arc::clone(&self.slot), line: Arc::new(line) }
    }

    /// The receiving end of a new incarnation, in place of the one before.
    pub(crate) fn open_line(&self, incarnation: u64) -> mpsc::Receiver<M> {
        let (sender, receiver) = mpsc::channel(self.line.capacity);
        self.line.current.store(Some(Arc::new((incarnation, sender))));
        receiver
    }

    /// The mailbox of a new incarnation, in place of the one before.
    pub(crate) fn open(&self, ctx: &crate::Ctx) -> Mailbox<M> {
        let receiver = self.open_line(ctx.incarnation());
        let line = Arc::downgrade(&self.line);
        self.slot.set_gauge(Arc::new(move || {
            let line = line.upgrade()?;
            let current = line.current.load();
            let sender = &current.as_ref()?.1;
            Some((sender.max_capacity() - sender.capacity(), sender.max_capacity()))
        }));
        Mailbox::new(receiver, ctx)
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

/// Waits for the reply to a request that is delivered.
async fn answer_by<R>(deadline: Instant, answer: oneshot::Receiver<R>) -> Result<R, CallError> {
    match timeout_at(deadline, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(CallError::Died),
        Err(_) => Err(CallError::Timeout),
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), line: Arc::clone(&self.line) }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(self.slot.id()).finish()
    }
}
