//! A query's turn: while it works it has a seat, and while it waits for its client it has none.

use astscope_supervision::{Pool, PoolError, Worker};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How many queries work at a time: a pool of [`Seat`](astscope_supervision::Seat)s.
pub type Seats = Pool<Infallible>;

/// What a running query holds. Cheap to clone: all clones are one turn.
#[derive(Clone)]
pub struct Turn(Arc<Inner>);

struct Inner {
    seats: Seats,
    seat: Mutex<Option<Worker<Infallible>>>,
    give_up: CancellationToken,
    runtime: Handle,
}

/// How long a query keeps its seat while it waits. A client that reads is a little behind many times
/// in an answer, and each time a seat that is given away and taken again costs more than the wait.
const KEEP_SEAT: Duration = Duration::from_millis(20);

/// How long a query that was interrupted by its client waits for a seat. As long as there are
/// others at work, one comes free.
const SEAT_AGAIN_WITHIN: Duration = Duration::from_mins(10);

impl Turn {
    pub(super) async fn wait_for(
        seats: Seats,
        within: Duration,
        give_up: CancellationToken,
    ) -> Result<Self, PoolError> {
        let seat = seats.checkout(within).await?;
        let seat = Mutex::new(Some(seat));
        Ok(Self(Arc::new(Inner { seats, seat, give_up, runtime: Handle::current() })))
    }

    /// Waits for something that isn't work, such as a slow client, and leaves the seat to others
    /// if that takes long. Blocks; to be called on the query's own thread.
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        let Inner { seats, seat, give_up, runtime } = &*self.0;
        let lock = || seat.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.block_on(async {
            tokio::pin!(what);
            if let Ok(result) = timeout(KEEP_SEAT, &mut what).await {
                return result;
            }
            drop(lock().take());
            let result = what.await;
            // One that is given up needs no seat to end. Without one the query goes on as well:
            // one too many at work is less of an evil than an answer that is never completed.
            let again = tokio::select! {
                biased;
                () = give_up.cancelled() => None,
                again = seats.checkout(SEAT_AGAIN_WITHIN) => again.ok(),
            };
            *lock() = again;
            result
        })
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").finish_non_exhaustive()
    }
}
