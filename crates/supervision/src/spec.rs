//! A tree as data: what is to be started, before anything is.
//!
//! A spec is cloned for each start of what it describes, so it carries arguments and addresses, no
//! running thing. The whole tree can be written as one literal expression.

use crate::address::{Address, Slot};
use crate::core::End;
use crate::ctx::Inherited;
use crate::policy::{
    AutoShutdown, Backoff, ChildKind, ChildPolicy, Restart, SpecError, Stop, Strategy, Structure,
    SupervisorPolicy,
};
use crate::probe::Probe;
use crate::service::{Init, Service};
use crate::supervisor::{Root, StartError, Supervisor};
use crate::{BoxFuture, ChildRef, ChildState, Ctx, Exit, Observer};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Restarts within the default period that are tolerated, as in Elixir. (OTP itself says 1.)
const INTENSITY: usize = 3;
/// The default period, as in OTP and Elixir.
const PERIOD: Duration = Duration::from_secs(5);
/// How long a worker may take to stop, as in OTP.
const WORKER_STOP: Duration = Duration::from_secs(5);
/// How long a worker's init may take. OTP waits for ever; a minute is longer than any init should
/// be, and short enough to be noticed.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// How long a killed child may take to end. It ends at its next await, so this is only ever used
/// up by code that doesn't yield.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// How a child is to be run.
#[derive(Clone)]
pub struct ChildSpec {
    pub(crate) policy: ChildPolicy,
    pub(crate) body: Body,
    pub(crate) slot: Arc<Slot>,
    pub(crate) ready_later: bool,
    stall_after: Option<Duration>,
    /// Whether its mailbox tells when it has nothing to do.
    has_mailbox: bool,
    pub(crate) when: Option<Condition>,
}

/// Asked at each start.
type Condition = Arc<dyn Fn() -> bool + Send + Sync>;

/// What an incarnation executes.
#[derive(Clone)]
pub(crate) enum Body {
    /// Makes a worker's future.
    Worker(Arc<dyn Fn(Ctx) -> BoxFuture<End> + Send + Sync>),
    /// A worker's future that can be made only once.
    Once(OnceBody),
    /// Children.
    Supervisor(Box<SupervisorSpec>, Supervisor),
    /// A temporary child was started: it never will be again, so its arguments aren't kept.
    Spent,
}

pub(crate) type OnceFn = Box<dyn FnOnce(Ctx) -> BoxFuture<End> + Send>;
type OnceBody = Arc<Mutex<Option<OnceFn>>>;

impl ChildSpec {
    fn new(kind: ChildKind, body: Body, slot: Arc<Slot>) -> Self {
        let (stop, start_timeout) = match kind {
            ChildKind::Worker => (Stop::Within(WORKER_STOP), Some(START_TIMEOUT)),
            ChildKind::Supervisor => (Stop::Wait, None),
        };
        let policy = ChildPolicy {
            id: Arc::clone(slot.id()),
            kind,
            restart: Restart::Permanent,
            stop,
            significant: false,
            start_timeout,
            backoff: None,
            firewall: None,
        };
        Self {
            policy,
            body,
            slot,
            ready_later: false,
            stall_after: None,
            has_mailbox: false,
            when: None,
        }
    }

    /// A service, known by this address. Permanent, stopped within 5 s, started within 60 s.
    pub fn service<S: Service>(address: &Address<S::Message>, args: S::Args) -> Self {
        let slot = Arc::clone(address.slot());
        let address = address.clone();
        let body = move |ctx: Ctx| -> BoxFuture<End> {
            let (address, args) = (address.clone(), args.clone());
            Box::pin(async move {
                let mailbox = address.open(&ctx);
                match S::init(args, &ctx).await {
                    Err(exit) => End::StartFailed(exit),
                    Ok(Init::Ignore) => End::Ignored,
                    Ok(Init::Ready(service)) => {
                        ctx.acknowledge();
                        let result = service.run(mailbox, ctx.clone()).await;
                        End::Exited(exit_of(result, &ctx))
                    }
                }
            })
        };
        let worker = Self::new(ChildKind::Worker, Body::Worker(Arc::new(body)), slot);
        Self { has_mailbox: true, ..worker }
    }

    /// A worker without a mailbox: a function that is started when its future is made, and called
    /// again for each restart. Permanent, stopped within 5 s.
    pub fn task<F>(id: impl Into<Arc<str>>, run: impl Fn(Ctx) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Exit>> + Send + 'static,
    {
        let body = move |ctx: Ctx| -> BoxFuture<End> {
            let future = run(ctx.clone());
            Box::pin(async move {
                ctx.acknowledge();
                End::Exited(exit_of(future.await, &ctx))
            })
        };
        Self::new(ChildKind::Worker, Body::Worker(Arc::new(body)), Slot::anonymous(id.into()))
    }

    /// A worker that runs once: temporary, stopped within 5 s.
    pub fn once<F>(id: impl Into<Arc<str>>, run: impl FnOnce(Ctx) -> F + Send + 'static) -> Self
    where
        F: Future<Output = Result<(), Exit>> + Send + 'static,
    {
        let body = move |ctx: Ctx| -> BoxFuture<End> {
            let future = run(ctx.clone());
            Box::pin(async move {
                ctx.acknowledge();
                End::Exited(exit_of(future.await, &ctx))
            })
        };
        let body = Body::Once(Arc::new(Mutex::new(Some(Box::new(body)))));
        Self::new(ChildKind::Worker, body, Slot::anonymous(id.into())).restart(Restart::Temporary)
    }

    /// A supervisor and its children. Permanent, waited for when it is stopped, started as long as
    /// its children take.
    pub fn supervisor(id: impl Into<Arc<str>>, spec: SupervisorSpec) -> Self {
        Self::supervisor_at(&Supervisor::new(id), spec)
    }

    /// A supervisor whose handle was made before.
    pub(crate) fn supervisor_at(handle: &Supervisor, spec: SupervisorSpec) -> Self {
        let slot = Arc::clone(handle.slot());
        let body = Body::Supervisor(Box::new(spec), handle.clone());
        Self::new(ChildKind::Supervisor, body, slot)
    }

    /// Whether it is restarted.
    #[must_use]
    pub fn restart(mut self, restart: Restart) -> Self {
        self.policy.restart = restart;
        self
    }

    /// How it is stopped.
    #[must_use]
    pub fn stop(mut self, stop: Stop) -> Self {
        self.policy.stop = stop;
        self
    }

    /// Makes its end count for its supervisor's [`AutoShutdown`].
    #[must_use]
    pub fn significant(mut self) -> Self {
        self.policy.significant = true;
        self
    }

    /// How long its init may take. A supervisor has no limit of its own by default.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.policy.start_timeout = Some(timeout);
        self
    }

    /// Lets time pass between its restarts. OTP has none, and neither have we by default.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.policy.backoff = Some(backoff);
        self
    }

    /// Puts a supervisor behind a firewall: when it melts down, crashes or can't be started, it is
    /// degraded for this time instead of restarted and charged, and its siblings and its parent
    /// notice nothing. For subsystems that must never take the rest down.
    #[must_use]
    pub fn degrade(mut self, cooldown: Duration) -> Self {
        self.policy.firewall = Some(cooldown);
        self
    }

    /// Makes it not [ready](ChildRef::await_ready) until it says so with [`Ctx::set_ready`].
    #[must_use]
    pub fn ready_later(mut self) -> Self {
        self.ready_later = true;
        self
    }

    /// Runs it only if this is true at its start. Else it stays down, as if its init had
    /// [ignored](Init::Ignore) the start: what depends on a configuration, and what no key leads
    /// to. Works for supervisors too.
    #[must_use]
    pub fn when(mut self, condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.when = Some(match self.when.take() {
            Some(before) => Arc::new(move || before() && condition()),
            None => Arc::new(condition),
        });
        self
    }

    /// Ends an incarnation that was at work for this long without [progress](Ctx::progress), with
    /// [`Exit::Stalled`]. A wait for somebody else's work is none of its own
    /// ([`delegated`](crate::delegated)). It must still await now and then: a thread that never
    /// yields can only be reported, by [`Health`](crate::Health).
    #[must_use]
    pub fn stall_after(mut self, limit: Duration) -> Self {
        self.stall_after = Some(limit);
        self
    }

    /// When it is stalled. Whoever has no mailbox is idle only if he says so, which is his to
    /// promise; whoever is temporary wouldn't come back.
    pub(crate) fn stalled_after(&self, inherited: &Inherited) -> Option<Duration> {
        let is_watched = self.has_mailbox && self.policy.restart != Restart::Temporary;
        self.stall_after.or(inherited.stall_after.filter(|_| is_watched))
    }

    /// The child's name.
    pub fn id(&self) -> &Arc<str> {
        &self.policy.id
    }

    /// The child, for who wants to watch it.
    pub fn child(&self) -> ChildRef {
        ChildRef::new(Arc::clone(&self.slot))
    }

    /// The supervisor that this describes, if it does.
    pub fn as_supervisor(&self) -> Option<Supervisor> {
        match &self.body {
            Body::Supervisor(_, handle) => Some(handle.clone()),
            Body::Worker(_) | Body::Once(_) | Body::Spent => None,
        }
    }

    /// What its supervisor knows of it.
    pub fn policy(&self) -> &ChildPolicy {
        &self.policy
    }

    pub(crate) fn check(&self) -> Result<(), SpecError> {
        match &self.body {
            Body::Supervisor(spec, _) => spec.check(),
            Body::Worker(_) | Body::Once(_) | Body::Spent => Ok(()),
        }
    }

    /// Makes its state known. Those below a supervisor that isn't there share its fate; a start is
    /// published by the incarnation itself.
    pub(crate) fn publish(&self, state: ChildState) {
        match (state, &self.body) {
            (ChildState::Starting, _) => {}
            (
                ChildState::Down | ChildState::Restarting | ChildState::Degraded,
                Body::Supervisor(spec, _),
            ) => {
                self.slot.publish(state);
                spec.children.iter().for_each(|child| child.publish(state));
            }
            _ => self.slot.publish(state),
        }
    }

    /// Tells whoever holds an address of it, or of anything below it, not to wait any longer.
    pub(crate) fn gone(&self) {
        self.slot.gone();
        if let Body::Supervisor(spec, _) = &self.body {
            spec.children.iter().for_each(ChildSpec::gone);
        }
    }
}

impl fmt::Debug for ChildSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildSpec").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl Body {
    /// Drops the arguments of a temporary worker. A supervisor keeps its spec, for the addresses
    /// below it.
    pub(crate) fn spend(&mut self) {
        if !matches!(self, Self::Supervisor(..)) {
            *self = Self::Spent;
        }
    }

    /// What can be run only once, if it hasn't been.
    pub(crate) fn take_once(once: &OnceBody) -> Option<OnceFn> {
        once.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn exit_of(result: Result<(), Exit>, ctx: &Ctx) -> Exit {
    match result {
        Ok(()) if ctx.is_stopping() => Exit::Shutdown,
        Ok(()) => Exit::Normal,
        Err(exit) => exit,
    }
}

/// A supervisor: its strategy, its limits, and its children in start order.
///
/// ```
/// # use astscope_supervision::{ChildSpec, Restart, Stop, Strategy, SupervisorSpec};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), astscope_supervision::StartError> {
/// let watching = SupervisorSpec::new(Strategy::RestForOne)
///     .intensity(5, Duration::from_secs(10))
///     .child(ChildSpec::task("watcher", |ctx| async move {
///         ctx.stopping().await;
///         Ok(())
///     }))
///     .child(
///         ChildSpec::task("batch", |_| async { Ok(()) })
///             .restart(Restart::Transient)
///             .stop(Stop::Within(Duration::from_secs(2))),
///     );
/// let root = SupervisorSpec::new(Strategy::OneForOne)
///     .child(ChildSpec::supervisor("watching", watching))
///     .start("daemon")
///     .await?;
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SupervisorSpec {
    pub(crate) policy: SupervisorPolicy,
    pub(crate) children: Vec<ChildSpec>,
    probe: Option<Probe>,
    stall_after: Option<Duration>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
}

impl SupervisorSpec {
    /// A supervisor without children that tolerates 3 restarts in 5 s.
    pub fn new(strategy: Strategy) -> Self {
        Self::of(Structure::Static(strategy))
    }

    /// A supervisor whose children are started at run time, at most `max_children` of them, and
    /// are independent of each other. Tolerates 3 restarts in 5 s.
    pub fn dynamic(max_children: usize) -> Self {
        Self::of(Structure::Dynamic { max_children })
    }

    fn of(structure: Structure) -> Self {
        let policy = SupervisorPolicy {
            structure,
            intensity: INTENSITY,
            period: PERIOD,
            auto_shutdown: AutoShutdown::Never,
            kill_grace: KILL_GRACE,
        };
        Self { policy, children: Vec::new(), probe: None, stall_after: None, observer: None }
    }

    /// Tolerates `restarts` within any `period`. One more ends it, and its parent decides.
    #[must_use]
    pub fn intensity(mut self, restarts: usize, period: Duration) -> Self {
        self.policy.intensity = restarts;
        self.policy.period = period;
        self
    }

    /// Whether it ends with its significant children.
    #[must_use]
    pub fn auto_shutdown(mut self, auto_shutdown: AutoShutdown) -> Self {
        self.policy.auto_shutdown = auto_shutdown;
        self
    }

    /// How long a killed child may take to end before it is given up as unkillable. 5 s by
    /// default.
    #[must_use]
    pub fn kill_grace(mut self, grace: Duration) -> Self {
        self.policy.kill_grace = grace;
        self
    }

    /// Adds a child after those that are there.
    #[must_use]
    pub fn child(mut self, child: ChildSpec) -> Self {
        self.children.push(child);
        self
    }

    /// Adds children after those that are there.
    #[must_use]
    pub fn children(mut self, children: impl IntoIterator<Item = ChildSpec>) -> Self {
        self.children.extend(children);
        self
    }

    /// Lets faults be armed for the workers below, except below supervisors with their own probe.
    #[must_use]
    pub fn probe(mut self, probe: Probe) -> Self {
        self.probe = Some(probe);
        self
    }

    /// When a service below is [stalled](ChildSpec::stall_after) that says nothing itself, except
    /// below supervisors with a limit of their own: nobody else would find one that hangs. It is for
    /// services with a mailbox, which tells when they are idle, and that are restarted; not for
    /// tasks and temporary ones.
    #[must_use]
    pub fn stall_after(mut self, limit: Duration) -> Self {
        self.stall_after = Some(limit);
        self
    }

    /// What those below get, of which its parent has handed `above` down to it.
    pub(crate) fn hands_down(&self, above: &Inherited) -> Inherited {
        Inherited {
            probe: self.probe.clone().unwrap_or_else(|| above.probe.clone()),
            stall_after: self.stall_after.or(above.stall_after),
        }
    }

    /// Who sees the events of the tree whose root this is. By default they go to `tracing`.
    /// They are [counted](Root::counters) in any case.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// What the supervisor knows of itself.
    pub fn policy(&self) -> &SupervisorPolicy {
        &self.policy
    }

    /// The children, in start order.
    pub fn child_specs(&self) -> &[ChildSpec] {
        &self.children
    }

    /// Refuses a tree that can't be supervised as written, down to its leaves.
    pub fn check(&self) -> Result<(), SpecError> {
        self.policy.check(self.children.iter().map(|child| &child.policy))?;
        self.children.iter().try_for_each(ChildSpec::check)
    }

    /// The longest that stopping the whole tree may take: one child after the other, each for its
    /// own time and the grace after a kill; the children of a dynamic supervisor all at once.
    /// `None` if a worker is waited for without limit. Children that are added at run time count
    /// only where they are stopped all at once, and not at all if their times are longer.
    pub fn stop_bound(&self) -> Option<Duration> {
        let bounds = self.children.iter().map(|child| {
            let own = match (child.policy.stop, &child.body) {
                (Stop::Kill, _) => Duration::ZERO,
                (Stop::Within(time), _) => time,
                (Stop::Wait, Body::Supervisor(spec, _)) => return spec.stop_bound(),
                (Stop::Wait, Body::Worker(_) | Body::Once(_) | Body::Spent) => return None,
            };
            let grace = match &child.body {
                Body::Supervisor(spec, _) => spec.kill_bound(),
                Body::Worker(_) | Body::Once(_) | Body::Spent => self.policy.kill_grace,
            };
            Some(own.saturating_add(grace))
        });
        bounds.into_iter().try_fold(Duration::ZERO, |sum, bound| {
            let bound = bound?;
            Some(if self.policy.is_dynamic() { sum.max(bound) } else { sum.saturating_add(bound) })
        })
    }

    /// The longest that killing the whole tree may take: all at once, each for the grace that its
    /// own supervisor gives it.
    fn kill_bound(&self) -> Duration {
        let below = self.children.iter().filter_map(|child| match &child.body {
            Body::Supervisor(spec, _) => Some(spec.kill_bound()),
            Body::Worker(_) | Body::Once(_) | Body::Spent => None,
        });
        below.fold(self.policy.kill_grace, Duration::max)
    }

    /// Starts the tree and returns when all children are up. If one fails to start, those before
    /// it are stopped again, in reverse, before this returns.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started so far.
    pub async fn start(self, id: &str) -> Result<Root, StartError> {
        Root::start(self, id).await
    }
}

impl fmt::Debug for SupervisorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSpec")
            .field("policy", &self.policy)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}
