//! Seeing what happens in a tree, and waiting for it.

use crate::LONG;
use astscope_supervision::{Event, EventKind, Observer};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio::time::timeout;

/// Keeps the events of a pool, its supervisors' own aside.
pub(crate) struct Watching {
    events: Mutex<Vec<EventKind>>,
    changed: watch::Sender<()>,
}

impl Watching {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { events: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What pools said since the last time.
    pub(crate) fn take(&self) -> Vec<EventKind> {
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        events.into_iter().filter(is_of_a_pool).collect()
    }

    pub(crate) fn take_log(&self) -> String {
        self.take().iter().map(|event| format!("{event}\n")).collect::<Vec<_>>().concat()
    }

    /// Waits until something has happened since the last [`take`](Self::take).
    pub(crate) async fn until(&self, is_it: impl Fn(&EventKind) -> bool) {
        let mut changed = self.changed.subscribe();
        let seen = changed.wait_for(|()| self.events.lock().unwrap().iter().any(&is_it));
        let _seen = timeout(LONG, seen).await.unwrap().unwrap();
    }
}

impl Observer for Watching {
    fn observe(&self, event: &Event) {
        self.events.lock().unwrap().push(event.kind.clone());
        self.changed.send_replace(());
    }
}

fn is_of_a_pool(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::CheckedOut { .. }
            | EventKind::Overflow { .. }
            | EventKind::Full
            | EventKind::CheckoutTimeout
            | EventKind::WorkerReplaced { .. }
            | EventKind::ThreadLost
            | EventKind::ThreadBack
    )
}
