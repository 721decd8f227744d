//! Scripted workers: each does what its stage tells it, and whatever happens stands in one log.
#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "support of several tests, each of which uses a part of it"
)]

use astscope_supervision::{
    Address, ChildSpec, Ctx, Event, EventKind, Exit, Init, Mailbox, Observer, Root, Service,
    SupervisorSpec,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Where scripted workers play. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Stage(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Workers are known by their paths below the root, since their ids aren't unique.
    by_path: bool,
    log: Mutex<Vec<String>>,
    actors: Mutex<BTreeMap<String, Actor>>,
}

/// What one worker is told, across its incarnations.
#[derive(Default)]
struct Actor {
    fail: u32,
    raise: u32,
    ignore: u32,
    hold: bool,
    stubborn: bool,
    on_stop: Option<Exit>,
    /// The current incarnation's end, when somebody decides on it.
    exit: watch::Sender<Option<Exit>>,
    released: watch::Sender<bool>,
    incarnation: u64,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// One for trees in which several workers have the same id: whoever is told something, or
    /// stands in the log, is named by his path below the root.
    pub(crate) fn by_path() -> Self {
        Self(Arc::new(Inner { by_path: true, ..Inner::default() }))
    }

    fn name(&self, ctx: &Ctx) -> String {
        match ctx.path().as_str().split_once('/') {
            Some((_, path)) if self.0.by_path => path.to_owned(),
            _ => ctx.id().to_string(),
        }
    }

    /// A worker that plays here.
    pub(crate) fn worker(&self, id: &str) -> ChildSpec {
        ChildSpec::service::<Player>(&Address::new(id, 1), self.clone())
    }

    /// Starts a tree whose events go into the log, and waits until it is quiet.
    pub(crate) async fn start(&self, spec: SupervisorSpec) -> Root {
        let root = self.try_start(spec).await.unwrap();
        settle().await;
        root
    }

    pub(crate) async fn try_start(
        &self,
        spec: SupervisorSpec,
    ) -> Result<Root, astscope_supervision::StartError> {
        spec.observer(Arc::new(self.clone())).start("root").await
    }

    fn actor<R>(&self, id: &str, f: impl FnOnce(&mut Actor) -> R) -> R {
        let mut actors = self.0.actors.lock().unwrap();
        f(actors.entry(id.to_owned()).or_default())
    }

    /// Ends the current incarnation of a worker, without waiting for what follows.
    pub(crate) fn exit_now(&self, id: &str, exit: Exit) {
        self.actor(id, |actor| actor.exit.send_replace(Some(exit)));
    }

    /// Ends the current incarnation of a worker, and waits until all is quiet.
    pub(crate) async fn exit(&self, id: &str, exit: Exit) {
        self.exit_now(id, exit);
        settle().await;
    }

    pub(crate) async fn crash(&self, id: &str) {
        self.exit(id, Exit::failed("boom")).await;
    }

    /// The next `times` inits fail.
    pub(crate) fn fail(&self, id: &str, times: u32) {
        self.actor(id, |actor| actor.fail = times);
    }

    /// The next `times` inits panic.
    pub(crate) fn raise(&self, id: &str, times: u32) {
        self.actor(id, |actor| actor.raise = times);
    }

    /// The next `times` inits choose not to run.
    pub(crate) fn ignore(&self, id: &str, times: u32) {
        self.actor(id, |actor| actor.ignore = times);
    }

    /// The next init waits.
    pub(crate) fn hold(&self, id: &str) {
        self.actor(id, |actor| {
            actor.hold = true;
            actor.released.send_replace(false);
        });
    }

    pub(crate) fn release(&self, id: &str) {
        self.actor(id, |actor| actor.released.send_replace(true));
    }

    /// It doesn't stop when it is told to.
    pub(crate) fn stubborn(&self, id: &str) {
        self.actor(id, |actor| actor.stubborn = true);
    }

    /// It ends like this when it is told to stop.
    pub(crate) fn on_stop(&self, id: &str, exit: Exit) {
        self.actor(id, |actor| actor.on_stop = Some(exit));
    }

    /// The last incarnation that played this worker; 0 if none did.
    pub(crate) fn incarnation(&self, id: &str) -> u64 {
        self.actor(id, |actor| actor.incarnation)
    }

    pub(crate) fn line(&self, line: impl Into<String>) {
        self.0.log.lock().unwrap().push(line.into());
    }

    /// The log since the last time.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.log.lock().unwrap())
    }

    /// Those lines of the log that begin like this, without what they begin with, in one line.
    pub(crate) fn take(&self, prefix: &str) -> String {
        let log = self.take_log();
        let lines = log.iter().filter_map(|line| line.strip_prefix(prefix));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    }
}

/// Lets everything that can run, run. The clock must be paused.
pub(crate) async fn settle() {
    sleep(Duration::from_millis(30)).await;
}

/// A worker on a stage.
struct Player(Stage);

impl Service for Player {
    type Args = Stage;
    type Message = ();

    async fn init(stage: Stage, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let id = &stage.name(ctx);
        stage.line(format!("init {id}"));
        let held = stage.actor(id, |actor| {
            actor.exit.send_replace(None);
            actor.incarnation = ctx.incarnation();
            std::mem::take(&mut actor.hold).then(|| actor.released.subscribe())
        });
        if let Some(mut released) = held {
            released.wait_for(|released| *released).await?;
        }
        let take = |n: &mut u32| std::mem::replace(n, n.saturating_sub(1)) > 0;
        assert!(!stage.actor(id, |actor| take(&mut actor.raise)), "raised");
        if stage.actor(id, |actor| take(&mut actor.fail)) {
            return Err(Exit::failed("boom"));
        }
        if stage.actor(id, |actor| take(&mut actor.ignore)) {
            return Ok(Init::Ignore);
        }
        Ok(Init::Ready(Self(stage)))
    }

    async fn run(self, _: Mailbox<()>, ctx: Ctx) -> Result<(), Exit> {
        let Self(stage) = self;
        let id = stage.name(&ctx);
        let mut exit = stage.actor(&id, |actor| actor.exit.subscribe());
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                Ok(exit) = exit.wait_for(Option::is_some) => {
                    return Err(exit.clone().unwrap());
                }
                () = ctx.stopping(), if !told => {
                    told = true;
                    stage.line(format!("stop {id}"));
                    let (stubborn, how) =
                        stage.actor(&id, |actor| (actor.stubborn, actor.on_stop.clone()));
                    if !stubborn {
                        return how.map_or(Ok(()), Err);
                    }
                }
            }
        }
    }
}

/// Writes what OTP would report into the log, in the words of the recorded traces.
impl Observer for Stage {
    fn observe(&self, event: &Event) {
        let path = event.path.as_str();
        let (above, id) = path.rsplit_once('/').unwrap_or(("", path));
        let above = above.rsplit('/').next().unwrap();
        let line = match &event.kind {
            EventKind::Started { .. } => format!("report {above} progress {id}"),
            EventKind::StartFailed { .. } => format!("report {above} start_error {id}"),
            EventKind::Exited { exit, .. } if event.kind.is_report() => {
                format!("report {above} child_terminated {id} {}", reason(exit))
            }
            EventKind::StopFailed { exit } => {
                format!("report {above} shutdown_error {id} {}", reason(exit))
            }
            EventKind::Meltdown { child } => {
                format!("report {id} shutdown {child} reached_max_restart_intensity")
            }
            _ => return,
        };
        self.line(line);
    }
}

/// An exit in the words of the recorded traces.
pub(crate) fn reason(exit: &Exit) -> &'static str {
    match exit {
        Exit::Normal => "normal",
        Exit::Shutdown | Exit::Meltdown => "shutdown",
        Exit::ShutdownWith(_) => "shutdown_with",
        Exit::Killed => "killed",
        _ => "crash",
    }
}
