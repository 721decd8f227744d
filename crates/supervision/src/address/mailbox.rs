//! What an incarnation reads its messages from, and what a caller is told when it can't reach one.

use super::slot::Pulse;
use crate::Ctx;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// The messages of one incarnation, at most as many as its [`Address`](super::Address) allows.
/// Ends with it: what wasn't received is dropped, and its callers are told.
#[derive(Debug)]
pub struct Mailbox<M> {
    receiver: mpsc::Receiver<M>,
    ctx: Ctx,
    pulse: Arc<Pulse>,
}

impl<M> Mailbox<M> {
    pub(super) fn new(receiver: mpsc::Receiver<M>, ctx: &Ctx) -> Self {
        Self { receiver, ctx: ctx.clone(), pulse: Arc::clone(ctx.pulse()) }
    }

    /// The next message. `None` when the child is told to stop: whatever still waits is then for
    /// [`try_recv`](Self::try_recv).
    ///
    /// Waiting here is being idle; from one message to the next call is work, which the child's
    /// [progress](Ctx::progress) is measured by. So is whatever is done instead, when the wait is
    /// given up for another branch of a `select!`.
    ///
    /// # Cancel safety
    /// No message is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<M> {
        let waiting = self.pulse.waiting();
        let message = tokio::select! {
            biased;
            () = self.ctx.stopping() => None,
            message = self.receiver.recv() => message,
        };
        drop(waiting);
        self.pulse.beat();
        message
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.receiver.len()
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// A message that is there already.
    pub fn try_recv(&mut self) -> Option<M> {
        self.receiver.try_recv().ok()
    }
}

/// Where the answer to a request goes.
#[derive(Debug)]
pub struct Reply<R>(pub(super) oneshot::Sender<R>);

impl<R> Reply<R> {
    /// Answers. A caller that no longer waits is no error.
    pub fn send(self, answer: R) {
        drop(self.0.send(answer));
    }

    /// Whether the caller no longer waits.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until the caller no longer waits, so that work which nobody wants can be given up.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn abandoned(&mut self) {
        self.0.closed().await;
    }
}

/// Why a message wasn't delivered. It had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The child is being started or restarted.
    #[error("the service is restarting")]
    Restarting,
    /// The child is down, and nothing is under way to start it.
    #[error("the service is down")]
    Down,
    /// The child is down for good.
    #[error("the service is gone")]
    Gone,
    /// The mailbox is full.
    #[error("the service is overloaded")]
    Overloaded,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It wasn't delivered: the child is being started or restarted.
    #[error("the service is restarting")]
    Restarting,
    /// It wasn't delivered: the child is down, and nothing is under way to start it.
    #[error("the service is down")]
    Down,
    /// It wasn't delivered: the child is down for good.
    #[error("the service is gone")]
    Gone,
    /// It wasn't delivered: the mailbox was full until the deadline.
    #[error("the service is overloaded")]
    Overloaded,
    /// It was delivered, and not answered by the deadline. It may still take effect.
    #[error("the service didn't answer in time")]
    Timeout,
    /// It was delivered, and the incarnation ended without an answer, or chose to give none. It
    /// may have taken effect.
    #[error("the service ended without an answer")]
    Died,
}

impl CallError {
    /// Whether the request certainly had no effect, so that it may be sent again.
    pub fn is_undelivered(&self) -> bool {
        match self {
            Self::Restarting | Self::Down | Self::Gone | Self::Overloaded => true,
            Self::Timeout | Self::Died => false,
        }
    }
}

impl From<SendError> for CallError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Restarting => Self::Restarting,
            SendError::Down => Self::Down,
            SendError::Gone => Self::Gone,
            SendError::Overloaded => Self::Overloaded,
        }
    }
}
