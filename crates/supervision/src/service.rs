//! What a worker is: a value that is made by an acknowledged init and lives in its run.

use crate::{Ctx, Exit, Mailbox};
use std::future::Future;

/// A worker. One value is one incarnation: whatever must survive a restart is in its arguments, or
/// in a [`Table`](crate::Table).
///
/// ```
/// use astscope_supervision::{Ctx, Exit, Init, Mailbox, Reply, Service};
///
/// struct Counter(u64);
///
/// enum Message {
///     Add(u64),
///     Total(Reply<u64>),
/// }
///
/// impl Service for Counter {
///     type Args = u64;
///     type Message = Message;
///
///     async fn init(start: u64, _: &Ctx) -> Result<Init<Self>, Exit> {
///         Ok(Init::Ready(Counter(start)))
///     }
///
///     async fn run(mut self, mut mailbox: Mailbox<Message>, _: Ctx) -> Result<(), Exit> {
///         while let Some(message) = mailbox.recv().await {
///             match message {
///                 Message::Add(n) => self.0 += n,
///                 Message::Total(reply) => reply.send(self.0),
///             }
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Service: Sized + Send + 'static {
    /// What every incarnation is made from.
    type Args: Clone + Send + Sync + 'static;
    /// What it can be told or asked. A service that takes no messages has `()` or `Infallible`.
    type Message: Send + 'static;

    /// Makes an incarnation. Its next sibling starts when this returns; until then its supervisor
    /// does nothing else, so it should be quick. An error, a panic, or more time than the start
    /// timeout is a failed start.
    ///
    /// The future is dropped where it stands if the supervisor is told to stop meanwhile.
    fn init(args: Self::Args, ctx: &Ctx) -> impl Future<Output = Result<Init<Self>, Exit>> + Send;

    /// Runs until it has finished, fails, or is told to stop, which
    /// [`Mailbox::recv`] and [`Ctx::stopping`] say.
    ///
    /// `Ok(())` is [`Exit::Shutdown`] if it was told to stop, else [`Exit::Normal`].
    fn run(
        self,
        mailbox: Mailbox<Self::Message>,
        ctx: Ctx,
    ) -> impl Future<Output = Result<(), Exit>> + Send;
}

/// What an init decides.
#[derive(Debug)]
pub enum Init<S> {
    /// To run.
    Ready(S),
    /// Not to run, which is no failure: a feature that isn't configured, for example. A permanent
    /// or transient child stays listed as down.
    Ignore,
}
