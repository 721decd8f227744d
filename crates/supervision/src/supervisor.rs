//! Handles to running supervisors, and the root of a tree.

use crate::address::{Address, CallError, ChildRef, Mailbox, Reply, Slot};
use crate::core::{AdminError, Answer, ChildInfo, Command, Count};
use crate::ctx::Inherited;
use crate::driver::{self, SupervisorEnd};
use crate::incarnation::Control;
use crate::policy::{ChildPolicy, SpecError, SupervisorPolicy, is_name};
use crate::spec::{ChildSpec, SupervisorSpec};
use crate::{Counters, Ctx, Emitter, Exit, TracingObserver, TreePath, later};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

/// How long a request to a supervisor may take, if nothing else is said: as long as an init may.
const REQUEST_WITHIN: Duration = Duration::from_mins(1);

/// Requests that wait in a supervisor's mailbox. Enough for a burst of starts; callers beyond it
/// wait until their deadlines.
const MAILBOX: usize = 128;
/// Those who want to look into a supervisor at the same time. They are answered at once.
const LOOKERS: usize = 16;

/// What a supervisor can be asked.
pub(crate) struct Request {
    pub(crate) command: Box<Command<ChildSpec>>,
    pub(crate) reply: Reply<Result<Answer, AdminError>>,
}

/// What a supervisor hears while it runs.
pub(crate) struct Inbox {
    pub(crate) requests: Mailbox<Request>,
    /// Answered at once, whatever the supervisor is in the middle of and whoever waits for it.
    pub(crate) lookers: mpsc::Receiver<Reply<Snapshot>>,
}

/// A supervisor's children at one moment, newest first.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) policy: SupervisorPolicy,
    pub(crate) children: Vec<(ChildInfo, ChildPolicy, ChildRef, Option<Supervisor>)>,
}

/// A supervisor, for who wants to ask it something. Cheap to clone, valid across its restarts.
///
/// Requests are answered in the order in which they come, and wait while a child is being started
/// or stopped: OTP's rules. All have a deadline, 60 s unless [`within`](Self::within) says
/// otherwise; after it, what was asked for may still happen.
#[derive(Clone)]
pub struct Supervisor {
    address: Address<Request>,
    looks: Address<Reply<Snapshot>>,
    within: Duration,
}

impl Supervisor {
    /// One of this name that isn't started yet.
    pub(crate) fn new(id: impl Into<Arc<str>>) -> Self {
        let address = Address::new(id, MAILBOX);
        let looks = address.beside(LOOKERS);
        Self { address, looks, within: REQUEST_WITHIN }
    }

    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        self.address.id()
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        self.address.slot()
    }

    /// What a new incarnation hears from now on.
    pub(crate) fn open(&self, ctx: &Ctx) -> Inbox {
        let lookers = self.looks.open_line(ctx.incarnation());
        Inbox { requests: self.address.open(ctx), lookers }
    }

    /// The same supervisor, with this deadline for each request.
    #[must_use]
    pub fn within(&self, within: Duration) -> Self {
        Self { within, ..self.clone() }
    }

    /// The supervisor as a child, for who only wants to watch it.
    pub fn child(&self) -> ChildRef {
        self.address.child()
    }

    /// Adds a child after all others, and starts it. If it doesn't start, its spec isn't kept.
    /// Returns its handle; `None` if its init chose not to run.
    pub async fn start_child(&self, spec: ChildSpec) -> Result<Option<ChildRef>, AdminError> {
        spec.check()?;
        let child = spec.child();
        let incarnation = spec.slot.status().incarnation();
        let command = Command::StartChild(spec.policy.clone(), spec, incarnation);
        match self.ask(command).await? {
            Answer::Started(..) => Ok(Some(child)),
            _ => Ok(None),
        }
    }

    /// Stops a child. Its spec stays, unless it is temporary or this supervisor dynamic. A child
    /// that is down already is fine, and one that is restarting stays down.
    pub async fn terminate_child(&self, id: &str) -> Result<(), AdminError> {
        self.ask(Command::TerminateChild(id.into())).await.map(drop)
    }

    /// Starts a child that is down; not counted as a restart. `false` if its init chose not to
    /// run.
    pub async fn restart_child(&self, id: &str) -> Result<bool, AdminError> {
        let answer = self.ask(Command::RestartChild(id.into())).await?;
        Ok(matches!(answer, Answer::Started(..)))
    }

    /// Forgets a child that is down.
    pub async fn delete_child(&self, id: &str) -> Result<(), AdminError> {
        self.ask(Command::DeleteChild(id.into())).await.map(drop)
    }

    /// The children, newest first.
    pub async fn which_children(&self) -> Result<Vec<ChildInfo>, AdminError> {
        match self.ask(Command::WhichChildren).await? {
            Answer::Children(children) => Ok(children),
            _ => Ok(Vec::new()),
        }
    }

    /// How many children there are.
    pub async fn count_children(&self) -> Result<Count, AdminError> {
        match self.ask(Command::CountChildren).await? {
            Answer::Count(count) => Ok(count),
            _ => Ok(Count::default()),
        }
    }

    /// The supervisor below this one that stands at this path of ids, such as `gateway/workers`.
    /// `None` if there is none, or if one on the way doesn't answer in time. One that doesn't run
    /// at this moment is waited for until it is up.
    pub async fn supervisor_at(&self, path: &str) -> Option<Self> {
        let deadline = later(Instant::now(), self.within);
        let mut at = self.clone();
        for id in path.split('/') {
            let mut children = at.snapshot_by(deadline).await.ok()?.children.into_iter();
            at = children.find_map(|(info, _, _, below)| below.filter(|_| *info.id == *id))?;
        }
        Some(at.within(self.within))
    }

    /// The child at this path of ids below this supervisor.
    pub async fn child_at(&self, path: &str) -> Option<ChildRef> {
        let deadline = later(Instant::now(), self.within);
        let (parent, id) = match path.rsplit_once('/') {
            Some((above, id)) => (self.supervisor_at(above).await?, id),
            None => (self.clone(), path),
        };
        let snapshot = parent.snapshot_by(deadline).await.ok()?;
        snapshot
            .children
            .into_iter()
            .find_map(|(info, _, child, _)| (*info.id == *id).then_some(child))
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.within
    }

    /// The children at this moment. An error at once if it doesn't run at this moment.
    pub(crate) async fn inspect(&self) -> Result<Snapshot, CallError> {
        self.looks.call_in_any_state(self.within, |reply| reply).await
    }

    /// The children at this moment if it runs, else as soon as it is up.
    async fn snapshot_by(&self, deadline: Instant) -> Result<Snapshot, CallError> {
        let within = deadline.saturating_duration_since(Instant::now());
        match self.within(within).inspect().await {
            Err(error) if error.is_undelivered() => self.looks.call(within, |reply| reply).await,
            answer => answer,
        }
    }

    async fn ask(&self, command: Command<ChildSpec>) -> Result<Answer, AdminError> {
        let command = Box::new(command);
        match self.address.call(self.within, |reply| Request { command, reply }).await {
            Ok(answer) => answer,
            Err(CallError::Timeout | CallError::Overloaded | CallError::Restarting) => {
                Err(AdminError::Timeout)
            }
            Err(CallError::Died | CallError::Down | CallError::Gone) => Err(AdminError::Gone),
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisor").field(self.address.id()).finish()
    }
}

/// Why a tree didn't start. Whatever had been started is stopped again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// It can't be supervised as written. Nothing was started.
    #[error("the tree can't be supervised as written")]
    Spec(#[from] SpecError),
    /// A child failed to start. For a supervisor, `exit` tells which of its children, and why.
    #[error("`{id}` didn't start: {exit}")]
    Child {
        /// The child.
        id: Arc<str>,
        /// Why.
        exit: Exit,
    },
    /// It ended before it was up.
    #[error("the tree ended before it was up: {0}")]
    Ended(Exit),
}

/// How a tree ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub exit: Exit,
    /// Incarnations and threads that outlived their kill and may still run. A process that has
    /// any should end itself, with an exit code that says so.
    pub unkillable: usize,
}

/// The root of a running tree. Dropping it kills the tree.
#[derive(Debug)]
pub struct Root {
    supervisor: Supervisor,
    control: Control,
    emitter: Emitter,
    outcome: watch::Receiver<Option<Outcome>>,
    _kill: DropGuard,
}

impl Root {
    #[expect(clippy::disallowed_methods, reason = "a root has no scope above it to run in")]
    pub(crate) async fn start(mut spec: SupervisorSpec, id: &str) -> Result<Self, StartError> {
        if !is_name(id) {
            return Err(SpecError::Id(id.to_owned()).into());
        }
        spec.check()?;
        let observer = spec.observer.take().unwrap_or_else(|| Arc::new(TracingObserver));
        let emitter = Emitter::new(TreePath::root(id), observer);
        let whole = ChildSpec::supervisor(id, spec.clone());
        let Some(supervisor) = whole.as_supervisor() else {
            return Err(StartError::Ended(Exit::Normal)); // it is one
        };
        let control = Control::default();
        let kill = control.kill.clone().drop_guard();
        let (acknowledge, acknowledged) = oneshot::channel();
        let pulse = crate::address::Pulse::new();
        let Some(tell_monitors) = whole.slot.begin(1, true, Arc::clone(&pulse)) else {
            return Err(StartError::Ended(Exit::Normal)); // its slot is new
        };
        let inherited = spec.hands_down(&Inherited::default());
        let slot = Arc::clone(&whole.slot);
        let ctx = Ctx::new(1, emitter.clone(), slot, pulse, acknowledge, inherited);
        let inbox = supervisor.open(&ctx);
        whole.slot.publish(crate::ChildState::Up);

        let (tell, outcome) = watch::channel(None);
        let (tell_end, mut end) = oneshot::channel();
        let own = (control.clone(), emitter.clone());
        drop(tokio::spawn(async move {
            let (control, emitter) = own;
            let end = driver::run(spec, &ctx, &control, inbox).await;
            // A supervisor's own scope is empty.
            drop(ctx.close().await);
            let exit = match &end {
                SupervisorEnd::StartFailed { exit, .. } | SupervisorEnd::Exited(exit) => {
                    exit.clone()
                }
            };
            tell_monitors.send_replace(Some(exit.clone()));
            whole.gone();
            tell.send_replace(Some(Outcome { exit, unkillable: emitter.unkillable() }));
            // Nobody listens once the start is acknowledged.
            drop(tell_end.send(end));
        }));
        tokio::select! {
            biased;
            Ok(()) = acknowledged => {
                Ok(Self { supervisor, control, emitter, outcome, _kill: kill })
            }
            end = &mut end => Err(match end {
                Ok(SupervisorEnd::StartFailed { id, exit }) => StartError::Child { id, exit },
                Ok(SupervisorEnd::Exited(exit)) => StartError::Ended(exit),
                Err(_) => StartError::Ended(Exit::Killed), // the runtime is going down
            }),
        }
    }

    /// The root supervisor, to be asked.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// For events of what runs beside the tree.
    pub fn emitter(&self) -> &Emitter {
        &self.emitter
    }

    /// What the tree has counted so far.
    pub fn counters(&self) -> &Counters {
        self.emitter.counters()
    }

    /// Stops the tree, the last started first, each child as its rule says, and returns when it is
    /// gone. Takes at most the sum of the children's stop times, which
    /// [`stop_bound`](SupervisorSpec::stop_bound) tells beforehand.
    ///
    /// # Cancel safety
    /// Dropping the future doesn't stop the stop.
    pub async fn shutdown(&self) -> Outcome {
        self.control.stop.cancel();
        self.wait().await
    }

    /// Begins to stop the tree without waiting for it.
    pub fn begin_shutdown(&self) {
        self.control.stop.cancel();
    }

    /// Kills every child, all at once, and returns when they are gone or given up.
    pub async fn kill(&self) -> Outcome {
        self.control.kill.cancel();
        self.wait().await
    }

    /// Waits until the tree has ended by itself: its root melted down or shut itself down.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait(&self) -> Outcome {
        let mut outcome = self.outcome.clone();
        let end = outcome.wait_for(Option::is_some).await;
        match end.ok().and_then(|outcome| outcome.clone()) {
            Some(outcome) => outcome,
            None => Outcome { exit: Exit::Killed, unkillable: self.emitter.unkillable() },
        }
    }
}
