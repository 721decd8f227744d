//! Performs what the core decides: the only thing that starts a child.
//!
//! A loop that waits for whatever can wake a supervisor, in a fixed order of precedence, hands it
//! to the core, and does what comes back. It never waits for a child: a start or a stop in
//! progress is the core's state, so a shutdown is heard at any time.

use crate::address::{Mailbox, Pulse};
use crate::core::{Action, ChildKey, Core, End, Input, Ticket};
use crate::ctx::Inherited;
use crate::incarnation::{self, Control, Limits};
use crate::policy::Restart;
use crate::spec::{Body, ChildSpec, SupervisorSpec};
use crate::supervisor::{Inbox, Request, Snapshot};
use crate::{AdminError, Answer, BoxFuture, Ctx, Exit, Reply};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

/// Requests that may wait in the core while it is in the middle of something; further ones wait in
/// the mailbox.
const WAITING_MAX: usize = 64;

/// Ends of children that are handled before timers and requests have a turn.
const ENDS_IN_A_ROW: usize = 16;

/// How a supervisor ended.
#[derive(Debug)]
pub(crate) enum SupervisorEnd {
    /// A child of its first start failed.
    StartFailed { id: Arc<str>, exit: Exit },
    /// It was up, or was stopped on the way.
    Exited(Exit),
}

impl From<SupervisorEnd> for End {
    fn from(end: SupervisorEnd) -> Self {
        match end {
            SupervisorEnd::StartFailed { id, exit } => {
                Self::StartFailed(Exit::failed(format!("`{id}` didn't start: {exit}")))
            }
            SupervisorEnd::Exited(exit) => Self::Exited(exit),
        }
    }
}

/// An incarnation that runs.
struct Running {
    incarnation: u64,
    control: Control,
    ctx: Ctx,
    task: task::Id,
    /// Tells its monitors.
    tell: watch::Sender<Option<Exit>>,
}

struct Driver<'a> {
    core: Core<ChildSpec>,
    ctx: &'a Ctx,
    inherited: Inherited,
    actions: VecDeque<Action<ChildSpec>>,
    tasks: JoinSet<(ChildKey, u64, End)>,
    running: FxHashMap<ChildKey, Running>,
    /// The start that is under way.
    starting: Option<(ChildKey, u64, oneshot::Receiver<()>)>,
    /// Children to be tried again once everybody who waits was served.
    retries: VecDeque<ChildKey>,
    tickets: FxHashMap<Ticket, Reply<Result<Answer, AdminError>>>,
    last_ticket: Ticket,
}

/// Runs a supervisor until it ends.
pub(crate) async fn run(
    spec: SupervisorSpec,
    ctx: &Ctx,
    control: &Control,
    Inbox { mut requests, mut lookers }: Inbox,
) -> SupervisorEnd {
    let inherited = spec.hands_down(ctx.inherited());
    let children = spec.children.into_iter().map(|child| {
        // The count goes on where the last incarnation of this supervisor left it.
        let incarnation = child.slot.status().incarnation();
        (child.policy.clone(), child, incarnation)
    });
    let mut driver = Driver {
        core: Core::new(spec.policy, children.collect(), Instant::now()),
        ctx,
        inherited,
        actions: VecDeque::new(),
        tasks: JoinSet::new(),
        running: FxHashMap::default(),
        starting: None,
        retries: VecDeque::new(),
        tickets: FxHashMap::default(),
        last_ticket: 0,
    };
    let (mut told_to_stop, mut told_to_die) = (false, false);
    let mut ends_in_a_row = 0;
    driver.step(Input::Start);
    loop {
        while let Some(action) = driver.actions.pop_front() {
            if let Some(end) = driver.perform(action) {
                driver.forget_added();
                return end;
            }
        }
        if let Some(key) = driver.retries.pop_front() {
            // OTP's supervisor sends itself a message here: whatever waits by now comes first.
            // Twice, because a wake that is under way already uses up the first.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            if control.stop.is_cancelled() && !told_to_stop {
                told_to_stop = true;
                driver.step(Input::Shutdown);
            }
            for _ in 0..driver.tasks.len() {
                match driver.tasks.try_join_next() {
                    Some(joined) => driver.on_joined(joined),
                    None => break,
                }
            }
            driver.serve_waiting(&mut requests, &mut lookers);
            driver.step(Input::TryAgain(key));
            continue;
        }
        if ends_in_a_row >= ENDS_IN_A_ROW {
            // Ends come first, but in a storm of them the others have their turn.
            ends_in_a_row = 0;
            driver.step(Input::Tick);
            driver.serve_waiting(&mut requests, &mut lookers);
            continue;
        }
        let deadline = driver.core.next_deadline();
        tokio::select! {
            biased;
            () = control.kill.cancelled(), if !told_to_die => {
                told_to_die = true;
                driver.step(Input::Kill);
            }
            () = control.crash.cancelled(), if !told_to_die => {
                told_to_die = true;
                driver.step(Input::Kill);
            }
            () = control.stop.cancelled(), if !told_to_stop => {
                told_to_stop = true;
                driver.step(Input::Shutdown);
            }
            Some((key, incarnation)) = ready(&mut driver.starting) => {
                driver.step(Input::Ready(key, incarnation));
            }
            Some(joined) = driver.tasks.join_next() => {
                driver.on_joined(joined);
                ends_in_a_row += 1;
                continue;
            }
            () = at(deadline) => driver.step(Input::Tick),
            Some(reply) = lookers.recv() => reply.send(driver.snapshot()),
            Some(request) = requests.recv(), if driver.core.commands_waiting() < WAITING_MAX => {
                driver.on_request(request);
            }
        }
        ends_in_a_row = 0;
    }
}

/// Waits for the child that is being started to acknowledge its start. `None` if it ended instead.
async fn ready(
    starting: &mut Option<(ChildKey, u64, oneshot::Receiver<()>)>,
) -> Option<(ChildKey, u64)> {
    let Some((key, incarnation, acknowledged)) = starting else { return pending().await };
    let answer = acknowledged.await.ok().map(|()| (*key, *incarnation));
    *starting = None;
    answer
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl Driver<'_> {
    fn step(&mut self, input: Input<ChildSpec>) {
        let mut out = Vec::new();
        self.core.step(Instant::now(), input, &mut out);
        self.actions.extend(out);
    }

    fn on_joined(&mut self, joined: Result<(ChildKey, u64, End), JoinError>) {
        let (key, incarnation, end) = match joined {
            Ok(ended) => ended,
            // Not its own code but what surrounds that: whoever watches it has to be told as well.
            Err(error) => {
                let mut running = self.running.iter();
                let Some((key, of)) = running.find(|(_, of)| of.task == error.id()) else { return };
                let (key, incarnation) = (*key, of.incarnation);
                let exit = match error.try_into_panic() {
                    Ok(payload) => Exit::panicked(&*payload),
                    Err(_) => Exit::Killed, // the runtime is going down
                };
                (key, incarnation, End::Exited(exit))
            }
        };
        if self.running.get(&key).is_some_and(|running| running.incarnation == incarnation)
            && let Some(running) = self.running.remove(&key)
        {
            let exit = match &end {
                End::Ignored => Exit::Normal,
                End::StartFailed(exit) | End::Exited(exit) => exit.clone(),
            };
            running.tell.send_replace(Some(exit));
        }
        let is_it = |starting: &mut (_, _, _)| (starting.0, starting.1) == (key, incarnation);
        if let Some((.., mut acknowledged)) = self.starting.take_if(is_it)
            && acknowledged.try_recv().is_ok()
        {
            self.step(Input::Ready(key, incarnation)); // who ended has been ready before
        }
        self.step(Input::Ended(key, incarnation, end));
    }

    fn on_request(&mut self, request: Request) {
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, request.reply);
        self.step(Input::Command(self.last_ticket, *request.command));
    }

    /// Takes the requests that wait, as far as there is room for them.
    fn serve_waiting(
        &mut self,
        requests: &mut Mailbox<Request>,
        lookers: &mut mpsc::Receiver<Reply<Snapshot>>,
    ) {
        for _ in 0..lookers.len() {
            if let Ok(reply) = lookers.try_recv() {
                reply.send(self.snapshot());
            }
        }
        let room = WAITING_MAX.saturating_sub(self.core.commands_waiting());
        for _ in 0..requests.len().min(room) {
            if let Some(request) = requests.try_recv() {
                self.on_request(request);
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut children = Vec::new();
        for info in self.core.inspect() {
            if let Some((policy, spec)) = self.core.payload(info.key) {
                children.push((info, policy.clone(), spec.child(), spec.as_supervisor()));
            }
        }
        Snapshot { policy: *self.core.policy(), children }
    }

    /// Does one thing. `Some` is the supervisor's end.
    fn perform(&mut self, action: Action<ChildSpec>) -> Option<SupervisorEnd> {
        match action {
            Action::Spawn(key, incarnation) => self.spawn(key, incarnation),
            Action::Stop(key) => {
                if let Some(running) = self.running.get(&key) {
                    running.control.stop.cancel();
                }
            }
            Action::Kill(key) => {
                if let Some(running) = self.running.get(&key) {
                    running.control.kill.cancel();
                }
            }
            Action::Abandon(key) => {
                if let Some(running) = self.running.remove(&key) {
                    running.ctx.abandon();
                    running.tell.send_replace(Some(Exit::Unkillable));
                }
            }
            Action::Publish(key, state) => {
                if let Some((_, spec)) = self.core.payload(key) {
                    spec.publish(state);
                }
            }
            Action::Removed(spec) => spec.gone(),
            Action::Reply(ticket, answer) => {
                if let Some(reply) = self.tickets.remove(&ticket) {
                    reply.send(answer);
                }
            }
            Action::Emit(None, event) => self.ctx.emitter().emit(event),
            Action::Emit(Some(id), event) => self.ctx.emitter().child(&id).emit(event),
            Action::TryAgain(key) => self.retries.push_back(key),
            Action::Up => self.ctx.acknowledge(),
            Action::StartFailed { id, exit } => {
                return Some(SupervisorEnd::StartFailed { id, exit });
            }
            Action::End(exit) => return Some(SupervisorEnd::Exited(exit)),
        }
        None
    }

    fn spawn(&mut self, key: ChildKey, incarnation: u64) {
        let grace = self.core.policy().kill_grace;
        let Some((policy, spec)) = self.core.payload(key) else { return };
        let pulse = Pulse::new();
        let begun = spec.slot.begin(incarnation, !spec.ready_later, Arc::clone(&pulse));
        let Some(tell) = begun else {
            let why = Exit::failed("its spec is running already, under another supervisor");
            drop(self.tasks.spawn(async move { (key, incarnation, End::StartFailed(why)) }));
            return;
        };
        let emitter = self.ctx.emitter().child(&policy.id);
        let span = tracing::debug_span!(
            target: "astscope::supervision", "child", path = %emitter.path(), incarnation
        );
        let (acknowledge, acknowledged) = oneshot::channel();
        let inherited = self.inherited.clone();
        let slot = Arc::clone(&spec.slot);
        let ctx = Ctx::new(incarnation, emitter, slot, pulse, acknowledge, inherited);
        let control = Control::default();
        let limits = Limits { stall_after: spec.stalled_after(&self.inherited), grace };
        spec.slot.set_crash(control.crash.clone());
        let future = body(spec, ctx.clone(), control.clone(), limits);
        if policy.restart == Restart::Temporary {
            spec.body.spend();
        }
        let task = async move { (key, incarnation, future.await) };
        let task = self.tasks.spawn(task.instrument(span)).id();
        self.running.insert(key, Running { incarnation, control, ctx, task, tell });
        self.starting = Some((key, incarnation, acknowledged));
    }

    /// Children that were added at run time are unknown to the next incarnation of this supervisor.
    fn forget_added(&mut self) {
        for spec in self.core.added() {
            spec.gone();
        }
    }
}

/// The future of an incarnation.
fn body(spec: &ChildSpec, ctx: Ctx, control: Control, limits: Limits) -> BoxFuture<End> {
    // Asked in the child's task: it is somebody's code.
    let when = spec.when.clone();
    let is_wanted = move || when.is_none_or(|when| when());
    match &spec.body {
        // The function that makes the future is the child's own code, so it runs, and may panic,
        // in the child's task.
        Body::Worker(make) => {
            let (make, own) = (Arc::clone(make), ctx.clone());
            let future = Box::pin(async move {
                if !is_wanted() {
                    return End::Ignored;
                }
                let future = make(own);
                drop(make); // a temporary child's arguments are not kept while it runs
                future.await
            });
            Box::pin(incarnation::run(future, ctx, control, limits))
        }
        Body::Once(once) => {
            let (make, own) = (Body::take_once(once), ctx.clone());
            let future = Box::pin(async move {
                match make {
                    Some(_) if !is_wanted() => End::Ignored,
                    Some(make) => make(own).await,
                    // Its supervisor came back, and it needn't.
                    None => End::Ignored,
                }
            });
            Box::pin(incarnation::run(future, ctx, control, limits))
        }
        Body::Supervisor(spec, handle) => {
            let (spec, handle) = (spec.as_ref().clone(), handle.clone());
            Box::pin(async move {
                if !is_wanted() {
                    return End::Ignored;
                }
                let inbox = handle.open(&ctx);
                let end = run(spec, &ctx, &control, inbox).await;
                // A supervisor's own scope is empty.
                drop(ctx.close().await);
                end.into()
            })
        }
        Body::Spent => {
            Box::pin(async { End::StartFailed(Exit::failed("it can run only once, and has")) })
        }
    }
}
