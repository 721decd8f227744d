//! `event_bus`: what happens in the daemon, told to whoever wants to know.
//!
//! Whoever publishes never waits: what finds no room in the bus's mailbox is counted as lost. Each
//! subscriber has a bounded queue of its own and is told how many events it missed, so a slow one
//! costs nobody else anything. Subscriptions and numbers belong to the handle: a bus that is
//! restarted goes on where the last one was.

use astscope_supervision::{
    Address, ChildSpec, Ctx, Event, EventKind, Exit, Init, Mailbox, Observer, Service,
};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc::{self, error::TrySendError};

/// Events that may wait for the bus, and for each subscriber: those of the busiest second that a
/// restart of everything makes.
const QUEUE: usize = 1024;

/// Something that happened in the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DaemonEvent {
    /// A root became a workspace.
    Opened { root: PathBuf },
    /// A root is served by one around it from now on.
    Closed { root: PathBuf },
    /// Files of a root were committed.
    Committed { root: PathBuf, revision: u64, n_files: usize },
    /// Files of a root could not be committed; nothing of that batch is stored.
    RolledBack { root: PathBuf, n_changes: usize, why: String },
    /// The memory of a root's workspace came to this level.
    MemoryLevel { root: PathBuf, level: String },
    /// A node of the tree was started again.
    Restarted { path: String, incarnation: u64 },
    /// A node of the tree failed, in the supervisor's words.
    Failed { path: String, what: String },
    /// A node didn't do its work when the watchdog looked.
    Degraded { path: String, state: String },
    /// It does its work again.
    Recovered { path: String },
    /// What was stored of a file of a root was not what the disk holds, and is repaired.
    Drift { root: PathBuf, path: PathBuf, cause: &'static str },
}

impl DaemonEvent {
    /// Its name on the wire.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Closed { .. } => "closed",
            Self::Committed { .. } => "committed",
            Self::RolledBack { .. } => "rolled_back",
            Self::MemoryLevel { .. } => "memory_level",
            Self::Restarted { .. } => "restarted",
            Self::Failed { .. } => "failed",
            Self::Degraded { .. } => "degraded",
            Self::Recovered { .. } => "recovered",
            Self::Drift { .. } => "drift",
        }
    }

    /// The root, or the path in the tree, that it is about.
    pub(crate) fn about(&self) -> String {
        match self {
            Self::Opened { root }
            | Self::Closed { root }
            | Self::Committed { root, .. }
            | Self::RolledBack { root, .. }
            | Self::MemoryLevel { root, .. }
            | Self::Drift { root, .. } => root.to_string_lossy().into_owned(),
            Self::Restarted { path, .. }
            | Self::Failed { path, .. }
            | Self::Degraded { path, .. }
            | Self::Recovered { path } => path.clone(),
        }
    }
}

/// The particulars, in a few words for a person; empty where the name says all.
impl fmt::Display for DaemonEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { .. } | Self::Closed { .. } | Self::Recovered { .. } => Ok(()),
            Self::Committed { revision, n_files, .. } => {
                write!(f, "{n_files} files, revision {revision}")
            }
            Self::RolledBack { n_changes, why, .. } => write!(f, "{n_changes} changes: {why}"),
            Self::MemoryLevel { level, .. } => f.write_str(level),
            Self::Restarted { incarnation, .. } => write!(f, "incarnation {incarnation}"),
            Self::Failed { what, .. } => f.write_str(what),
            Self::Degraded { state, .. } => f.write_str(state),
            Self::Drift { path, cause, .. } => write!(f, "{cause} of {}", path.display()),
        }
    }
}

/// An event with its number and time.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    /// Counts the events of the daemon's life from 1, those that were lost too.
    pub(crate) number: u64,
    pub(crate) at: SystemTime,
    pub(crate) event: DaemonEvent,
}

/// The way to the bus. Cheap to clone, valid before its start and across all restarts.
#[derive(Clone, Debug)]
pub(crate) struct EventBus(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bus: Address<Published>,
    last_number: AtomicU64,
    lost: AtomicU64,
    subscribers: Mutex<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    queue: mpsc::Sender<Published>,
    missed: Arc<AtomicU64>,
}

/// A subscriber's end of its queue. Dropping it ends the subscription.
#[derive(Debug)]
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Published>,
    missed: Arc<AtomicU64>,
}

impl Subscription {
    /// The next event, and how many were missed so far.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn recv(&mut self) -> Option<(Published, u64)> {
        let published = self.queue.recv().await?;
        Some((published, self.missed.load(Ordering::Relaxed)))
    }
}

impl EventBus {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            bus: Address::new("event_bus", QUEUE),
            last_number: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            subscribers: Mutex::default(),
        }))
    }

    /// Tells an event, without waiting for anybody.
    pub(crate) fn publish(&self, event: DaemonEvent) {
        let number = self.0.last_number.fetch_add(1, Ordering::Relaxed) + 1;
        let published = Published { number, at: SystemTime::now(), event };
        if self.0.bus.send_now(published).is_err() {
            self.0.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that nobody was told, because there was no room or no bus.
    pub(crate) fn n_lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// What is told from now on.
    pub(crate) fn subscribe(&self) -> Subscription {
        let (queue, receiver) = mpsc::channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let subscriber = Subscriber { queue, missed: Arc::clone(&missed) };
        self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(subscriber);
        Subscription { queue: receiver, missed }
    }

    pub(crate) fn service(&self) -> ChildSpec {
        ChildSpec::service::<Bus>(&self.0.bus, Arc::clone(&self.0))
    }
}

struct Bus(Arc<Shared>);

impl Service for Bus {
    type Args = Arc<Shared>;
    type Message = Published;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Published>, _: Ctx) -> Result<(), Exit> {
        while let Some(published) = mailbox.recv().await {
            let mut subscribers = self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| match subscriber.queue.try_send(published.clone()) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    subscriber.missed.fetch_add(1, Ordering::Relaxed);
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            });
        }
        Ok(())
    }
}

/// Restarts and failures, as events.
impl Observer for EventBus {
    fn observe(&self, event: &Event) {
        let path = || event.path.as_str().to_owned();
        match &event.kind {
            EventKind::Started { incarnation } if *incarnation > 1 => {
                self.publish(DaemonEvent::Restarted { path: path(), incarnation: *incarnation });
            }
            kind if kind.is_report() => {
                self.publish(DaemonEvent::Failed { path: path(), what: kind.to_string() });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_supervision::{Root, Strategy, SupervisorSpec};
    use std::time::Duration;

    async fn start(bus: &EventBus) -> Root {
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(bus.service());
        tree.start("root").await.unwrap()
    }

    fn opened(n: usize) -> DaemonEvent {
        DaemonEvent::Opened { root: n.to_string().into() }
    }

    async fn settle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn each_subscriber_is_told_everything_in_order_across_a_restart_of_the_bus() {
        let bus = EventBus::new();
        let root = start(&bus).await;
        let (mut one, mut two) = (bus.subscribe(), bus.subscribe());
        bus.publish(opened(1));
        settle().await;
        root.supervisor().child_at("event_bus").await.unwrap().kill();
        settle().await;
        bus.publish(opened(2));
        for subscription in [&mut one, &mut two] {
            for n in 1..=2 {
                let (published, missed) = subscription.recv().await.unwrap();
                assert_eq!((published.number, missed), (n, 0));
                assert_eq!(published.event, opened(usize::try_from(n).unwrap()));
            }
        }
        assert_eq!(bus.n_lost(), 0);
        root.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_subscriber_is_told_what_it_missed_and_holds_up_nobody() {
        let bus = EventBus::new();
        let root = start(&bus).await;
        let (mut slow, mut quick) = (bus.subscribe(), bus.subscribe());
        for n in 0..QUEUE + 3 {
            bus.publish(opened(n));
            let (published, missed) = quick.recv().await.unwrap();
            assert_eq!((published.event, missed), (opened(n), 0));
        }
        let (published, missed) = slow.recv().await.unwrap();
        assert_eq!((published.event, missed), (opened(0), 3));
        drop(slow);
        bus.publish(opened(0));
        settle().await;
        assert_eq!(bus.0.subscribers.lock().unwrap().len(), 1, "who left is forgotten");
        root.shutdown().await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_finds_no_bus_or_no_room_is_counted_and_nobody_waits() {
        let bus = EventBus::new();
        bus.publish(opened(0));
        assert_eq!(bus.n_lost(), 1);
        let root = start(&bus).await;
        // The bus has no turn before this yields.
        (0..QUEUE + 2).for_each(|n| bus.publish(opened(n)));
        assert_eq!(bus.n_lost(), 3);
        root.shutdown().await;
    }
}
