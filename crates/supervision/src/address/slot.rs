//! What everybody may know of a child: written by its supervisor, read without asking it.

use super::SendError;
use crate::{ChildState, Exit, incarnation, later};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// Messages that wait, and the bound on them.
type Gauge = Arc<dyn Fn() -> Option<(usize, usize)> + Send + Sync>;

/// A child's state, for as long as anybody holds an address of it.
pub(crate) struct Slot {
    id: Arc<str>,
    status: watch::Sender<Status>,
    gauge: Mutex<Option<Gauge>>,
    /// Kills the newest incarnation.
    crash: Mutex<CancellationToken>,
}

/// A child at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    state: ChildState,
    gone: bool,
    incarnation: u64,
    ready: bool,
    since: Instant,
    /// Tells this incarnation's end.
    down: watch::Receiver<Option<Exit>>,
    pulse: Option<Arc<Pulse>>,
}

impl Status {
    /// What the child is doing.
    pub fn state(&self) -> ChildState {
        self.state
    }

    /// Whether it acknowledged its start and is not being stopped.
    pub fn is_up(&self) -> bool {
        self.state == ChildState::Up && !self.gone
    }

    /// Whether it is up and says that it can do its work.
    pub fn is_ready(&self) -> bool {
        self.is_up() && self.ready
    }

    /// Whether it is down for good.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Counts its incarnations from 1; 0 before the first.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether its incarnation hasn't ended, nor been given up.
    fn is_alive(&self) -> bool {
        self.down.borrow().is_none() && self.down.has_changed().is_ok()
    }

    /// Why a message can't be delivered to a child in this state.
    pub(super) fn unavailable(&self) -> SendError {
        match self.state {
            _ if self.gone => SendError::Gone,
            ChildState::Down | ChildState::Degraded => SendError::Down,
            // An incarnation that is up but doesn't take messages is about to be found dead.
            ChildState::Up
            | ChildState::Starting
            | ChildState::Stopping
            | ChildState::Restarting => SendError::Restarting,
        }
    }
}

impl Slot {
    pub(super) fn new(id: Arc<str>) -> Arc<Self> {
        let status = Status {
            state: ChildState::Down,
            gone: false,
            incarnation: 0,
            ready: false,
            since: Instant::now(),
            down: watch::channel(Some(Exit::Normal)).1,
            pulse: None,
        };
        let status = watch::Sender::new(status);
        Arc::new(Self { id, status, gauge: Mutex::default(), crash: Mutex::default() })
    }

    /// A slot for a child without an address.
    pub(crate) fn anonymous(id: Arc<str>) -> Arc<Self> {
        Self::new(id)
    }

    pub(crate) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub(super) fn set_gauge(&self, gauge: Gauge) {
        *self.gauge.lock().unwrap_or_else(PoisonError::into_inner) = Some(gauge);
    }

    pub(crate) fn set_crash(&self, crash: CancellationToken) {
        *self.crash.lock().unwrap_or_else(PoisonError::into_inner) = crash;
    }

    /// A new incarnation begins. Whoever ends it uses the sender to tell the monitors. `None` if
    /// another incarnation hasn't ended yet: the same spec runs twice.
    pub(crate) fn begin(
        &self,
        incarnation: u64,
        ready: bool,
        pulse: Arc<Pulse>,
    ) -> Option<watch::Sender<Option<Exit>>> {
        let (tell, down) = watch::channel(None);
        let begun = self.status.send_if_modified(|status| {
            if status.is_alive() {
                return false;
            }
            status.incarnation = incarnation;
            status.ready = ready;
            status.down = down;
            status.pulse = Some(pulse);
            status.gone = false;
            status.state = ChildState::Starting;
            status.since = Instant::now();
            true
        });
        begun.then_some(tell)
    }

    /// What the child is doing now. An incarnation that is alive is neither down nor waited for:
    /// who says so is another supervisor, which was refused this spec because it runs already.
    pub(crate) fn publish(&self, state: ChildState) {
        self.status.send_if_modified(|status| {
            let is_there = matches!(state, ChildState::Up | ChildState::Stopping);
            if !is_there && status.is_alive() {
                return false;
            }
            status.state = state;
            status.since = Instant::now();
            true
        });
    }

    /// This incarnation says that it can, or can't, do its work.
    pub(crate) fn set_ready(&self, incarnation: u64, ready: bool) {
        self.status.send_if_modified(|status| {
            let changes = status.incarnation == incarnation && status.ready != ready;
            if changes {
                status.ready = ready;
            }
            changes
        });
    }

    /// The child is gone for good, unless it runs under another supervisor.
    pub(crate) fn gone(&self) {
        self.status.send_if_modified(|status| {
            if status.is_alive() {
                return false;
            }
            if status.state != ChildState::Down {
                status.state = ChildState::Down;
                status.since = Instant::now();
            }
            status.gone = true;
            true
        });
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A child, for who wants to watch it rather than talk to it. Cheap to clone, valid across
/// restarts.
#[derive(Clone, Debug)]
pub struct ChildRef(Arc<Slot>);

impl ChildRef {
    pub(crate) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// The child's name.
    pub fn id(&self) -> &Arc<str> {
        self.0.id()
    }

    /// The child at this moment.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// Waits until the child is up and says that it can do its work.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn await_ready(&self, within: Duration) -> Result<(), NotReady> {
        self.await_ready_by(later(Instant::now(), within)).await
    }

    pub(crate) async fn await_ready_by(&self, deadline: Instant) -> Result<(), NotReady> {
        let mut watch = self.0.watch();
        let ready = watch.wait_for(|status| status.is_gone() || status.is_ready());
        match timeout_at(deadline, ready).await {
            Ok(Ok(status)) if status.is_ready() => Ok(()),
            Ok(_) => Err(NotReady { id: Arc::clone(self.id()), state: None }),
            Err(_) => {
                let state = Some(self.status().state());
                Err(NotReady { id: Arc::clone(self.id()), state })
            }
        }
    }

    /// Watches the current incarnation: resolves once, with its end. One that has ended already
    /// resolves at once.
    pub fn monitor(&self) -> Monitor {
        let status = self.status();
        Monitor { incarnation: status.incarnation, down: status.down }
    }

    /// Kills the current incarnation, as `exit(Pid, kill)` does in OTP: its supervisor sees an end
    /// that it hasn't asked for, and does what its strategy says. For debugging and tests; whoever
    /// wants a child to stay down asks its supervisor. Returns at once, and does nothing to a child
    /// that isn't there.
    pub fn kill(&self) {
        self.0.crash.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// How the current incarnation is doing.
    pub fn vitals(&self) -> Vitals {
        let status = self.status();
        let gauge = self.0.gauge.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let pulse = status.pulse.as_ref();
        Vitals {
            mailbox: gauge.and_then(|gauge| gauge()),
            beats: pulse.map_or(0, |pulse| pulse.beats.load(Ordering::Relaxed)),
            working_for: pulse.and_then(|pulse| pulse.working_for()),
            since: status.since,
            status,
        }
    }
}

/// A child that wasn't ready in time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is not ready")]
pub struct NotReady {
    /// The child.
    pub id: Arc<str>,
    /// What it was doing at the deadline. `None`: it is down for good.
    pub state: Option<ChildState>,
}

/// Waits for the end of one incarnation: OTP's monitor.
#[derive(Clone, Debug)]
pub struct Monitor {
    incarnation: u64,
    down: watch::Receiver<Option<Exit>>,
}

impl Monitor {
    /// Which incarnation this watches.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Why it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        self.down.borrow().clone()
    }

    /// Waits for its end. Has no deadline of its own.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn down(&mut self) -> Exit {
        let _waiting = incarnation::delegate();
        // An error: the runtime went down, and the incarnation with it.
        let exit = self.down.wait_for(Option::is_some).await.ok().and_then(|exit| exit.clone());
        exit.unwrap_or(Exit::Killed)
    }
}

/// How an incarnation is doing.
#[derive(Clone, Debug)]
pub struct Vitals {
    /// The child at this moment.
    pub status: Status,
    /// When its state last changed.
    pub since: Instant,
    /// Messages that wait, and the bound on them, if it has a mailbox.
    pub mailbox: Option<(usize, usize)>,
    /// Times that it made progress.
    pub beats: u64,
    /// How long it has been at work without progress. `None`: it waits for a message.
    pub working_for: Option<Duration>,
}

/// An incarnation's progress: beats, and since when it has been at work without one.
pub(crate) struct Pulse {
    base: Instant,
    beats: AtomicU64,
    /// Milliseconds after `base`, plus 1; 0 while it waits for a message.
    working_since: AtomicU64,
    /// Waits under way for what somebody else does.
    delegated: AtomicUsize,
}

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        let pulse = Self {
            base: Instant::now(),
            beats: AtomicU64::new(0),
            working_since: AtomicU64::new(1),
            delegated: AtomicUsize::new(0),
        };
        Arc::new(pulse)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// It made progress, and goes on.
    pub(crate) fn busy(&self) {
        self.beat();
        self.working_since.store(self.now(), Ordering::Relaxed);
    }

    pub(super) fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// It waits for something to do.
    pub(crate) fn idle(&self) {
        self.working_since.store(0, Ordering::Relaxed);
    }

    /// It waits for something to do, until this is dropped.
    pub(super) fn waiting(&self) -> Waiting<'_> {
        self.idle();
        Waiting(self)
    }

    /// It waits for what somebody else does, until this is dropped.
    pub(crate) fn delegated(self: &Arc<Self>) -> Delegated {
        self.delegated.fetch_add(1, Ordering::Relaxed);
        Delegated(Arc::clone(self))
    }

    /// Whether it waits for what somebody else does.
    pub(crate) fn is_delegating(&self) -> bool {
        self.delegated.load(Ordering::Relaxed) > 0
    }

    /// How long it has been at work without progress.
    pub(crate) fn working_for(&self) -> Option<Duration> {
        let since = self.working_since.load(Ordering::Relaxed);
        (since != 0).then(|| Duration::from_millis(self.now().saturating_sub(since)))
    }
}

/// Who holds it has nothing to do. A wait that is given up for something else, as `select!` does,
/// is over too: what follows is work.
pub(super) struct Waiting<'a>(&'a Pulse);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.working_since.store(self.0.now(), Ordering::Relaxed);
    }
}

/// Who holds it waits for somebody else. That the wait is over is progress.
pub(crate) struct Delegated(Arc<Pulse>);

impl Drop for Delegated {
    fn drop(&mut self) {
        let Pulse { working_since, delegated, .. } = &*self.0;
        // A task of the child may end its wait while the child itself is idle, and stays so.
        let since = working_since.load(Ordering::Relaxed);
        if since != 0 {
            let now = self.0.now();
            let _idle =
                working_since.compare_exchange(since, now, Ordering::Relaxed, Ordering::Relaxed);
        }
        delegated.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("beats", &self.beats).finish_non_exhaustive()
    }
}
