//! A worker that does nothing: who has borrowed it may.

use crate::{Ctx, Exit, Init, Mailbox, Service};
use std::convert::Infallible;

/// A worker for a [`Pool`](super::Pool) that only admits: the work is done by whoever holds one.
///
/// ```
/// use astscope_supervision::{Order, Pool, PoolConfig, Seat, Strategy, SupervisorSpec};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config =
///     PoolConfig { size: 6, max_overflow: 3, queue: 1024, order: Order::Lifo, deaths: None };
/// let (seats, queries) = Pool::new::<Seat>("query_execution_pool", config, ())?;
/// let root = SupervisorSpec::new(Strategy::OneForOne).child(seats).start("root").await?;
/// // Nine at a time, and the others wait.
/// let answer = queries.run(Duration::from_secs(10), async |_| 6 * 7).await?;
/// assert_eq!(answer, 42);
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Seat;

impl Service for Seat {
    type Args = ();
    type Message = Infallible;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, mut mailbox: Mailbox<Infallible>, _: Ctx) -> Result<(), Exit> {
        match mailbox.recv().await {
            Some(never) => match never {},
            None => Ok(()),
        }
    }
}
