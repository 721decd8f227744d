//! `event_log`: the last events, for whoever asks what has happened. What it keeps and its
//! subscription belong to the handle, so a log that is restarted lacks nothing.

use crate::foundation::event_bus::{EventBus, Published, Subscription};
use crate::tree::STALLED_AFTER;
use astscope_supervision::{ChildSpec, Ctx, Exit};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Events that are kept: some hundred kilobytes, and more than anybody reads.
const EVENTS_MAX: usize = 1000;

/// The way to the log. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EventLog(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    last: Mutex<VecDeque<Published>>,
    missed: AtomicU64,
    /// Held by the incarnation that is up.
    subscription: tokio::sync::Mutex<Subscription>,
}

impl EventLog {
    pub(crate) fn new(bus: &EventBus) -> Self {
        Self(Arc::new(Shared {
            last: Mutex::default(),
            missed: AtomicU64::new(0),
            subscription: tokio::sync::Mutex::new(bus.subscribe()),
        }))
    }

    /// The last events, the oldest first. Waits for nobody.
    pub(crate) fn last(&self) -> Vec<Published> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Events that came while its queue was full.
    pub(crate) fn n_missed(&self) -> u64 {
        self.0.missed.load(Ordering::Relaxed)
    }

    pub(super) fn service(&self) -> ChildSpec {
        let shared = Arc::clone(&self.0);
        ChildSpec::task("event_log", move |ctx| keep(ctx, Arc::clone(&shared)))
            .stall_after(STALLED_AFTER)
    }
}

async fn keep(ctx: Ctx, shared: Arc<Shared>) -> Result<(), Exit> {
    let mut subscription = shared.subscription.lock().await;
    loop {
        ctx.idle();
        let (published, missed) = tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            received = subscription.recv() => match received {
                Some(received) => received,
                None => return Ok(()), // the daemon is gone
            },
        };
        ctx.progress();
        shared.missed.store(missed, Ordering::Relaxed);
        let mut last = shared.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() == EVENTS_MAX {
            last.pop_front();
        }
        last.push_back(published);
    }
}
