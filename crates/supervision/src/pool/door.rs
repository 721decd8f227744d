//! What a pool's handle is: the way to whichever incarnation's desk is open.
//!
//! The desk is remembered, so that a checkout needs no message to the pool's service. Only a desk
//! that is found closed sends the caller to the service, through its address, which knows what a
//! restart means to who waits.

use super::PoolError;
use super::desk::{Desk, Lease};
use crate::{Address, CallError, Reply};
use arc_swap::ArcSwapOption;
use std::sync::Arc;
use tokio::time::Instant;

/// The way to whichever desk is open: what a handle of a pool holds across restarts.
pub(super) struct Door<T> {
    /// Of the pool's service.
    address: Address<AskDesk<T>>,
    current: ArcSwapOption<Desk<T>>,
}

/// What a pool's service can be asked: for its desk.
pub(super) struct AskDesk<T>(pub(super) Reply<Arc<Desk<T>>>);

/// Callers that ask at the same moment, after a restart; further ones wait for room.
const DOOR_MAILBOX: usize = 64;

impl<T: Send + Sync + 'static> Door<T> {
    pub(super) fn new(id: impl Into<Arc<str>>) -> Arc<Self> {
        let address = Address::new(id, DOOR_MAILBOX);
        Arc::new(Self { address, current: ArcSwapOption::const_empty() })
    }

    /// The address of the pool's service.
    pub(super) fn address(&self) -> &Address<AskDesk<T>> {
        &self.address
    }

    /// From now on this desk is the one to go to.
    pub(super) fn lead_to(&self, desk: &Arc<Desk<T>>) {
        self.current.store(Some(Arc::clone(desk)));
    }

    pub(super) fn desk(&self) -> Option<Arc<Desk<T>>> {
        self.current.load_full()
    }

    /// Takes a worker. Who queues also waits for a pool that is being restarted, and joins the
    /// queue of its next incarnation when the one it waits in ends.
    pub(super) async fn checkout(
        &self,
        deadline: Instant,
        queues: bool,
    ) -> Result<Lease<T>, PoolError> {
        let mut desk = self.desk();
        loop {
            if let Some(desk) = desk.take()
                && let Some(answer) = desk.checkout(deadline, queues).await
            {
                return answer;
            }
            let within = deadline.saturating_duration_since(Instant::now());
            let asked = if queues {
                self.address.call(within, AskDesk).await
            } else {
                self.address.call_now(within, AskDesk).await
            };
            match asked {
                Ok(open) => desk = Some(open),
                Err(CallError::Died) => {} // and its successor is asked next
                Err(CallError::Down) => return Err(PoolError::Down),
                Err(CallError::Gone) => return Err(PoolError::Gone),
                Err(CallError::Restarting | CallError::Overloaded | CallError::Timeout) => {
                    return Err(PoolError::Restarting);
                }
            }
        }
    }
}
