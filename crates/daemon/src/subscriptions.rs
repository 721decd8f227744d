//! The standing queries of one connection: a child for each, which looks again whenever something
//! was committed, and tells the client what is other.
//!
//! It compares what it told last with what is there now, and keeps no list of what happened. So a
//! client that is slow to read holds up nobody and piles nothing up: one that doesn't read what it
//! is told within a second is told no more of that, but everything anew once it reads again.
//!
//! A child that is killed is started again, and tells everything anew. What it must know for that
//! stands above it.

use crate::daemon::Daemon;
use crate::handlers::subscribe::{Look, Query, look};
use crate::request::{Outgoing, RequestContext};
use crate::{connection, errors};
use astscope_protocol::frame::{self, RpcError};
use astscope_protocol::messages::{
    Difference, Ended, ErrorCode, Matches, Resync, ResyncReason, Settled, method,
};
use astscope_protocol::{LINE_BYTES_MAX, SUBSCRIPTIONS_MAX};
use astscope_querying::{FileDifference, Gone};
use astscope_repository::Revision;
use astscope_repository::service::CoreState;
use astscope_supervision::{
    AdminError, ChildSpec, Ctx, DynamicSupervisor, Exit, Restart, Stop, SupervisorSpec,
};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long one may take to notice that it is to end.
const STOP: Duration = Duration::from_secs(2);

/// How long its client may take to read a line before the rest of what is being told is given up.
const SLOW_AFTER: Duration = Duration::from_secs(1);

/// A rest after a look is this many times as long as the look took, within these bounds: so many
/// commits in a row are one look, which takes a fifth of a core at most.
const REST_FACTOR: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_secs(1);

/// Looks that fail in a row before a subscription ends, and the waits between them: 40 s in all,
/// which is longer than any part of the daemon is left alone.
const TRIES: u32 = 13;
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long the last word to a client may wait for room.
const LAST_WORD_WAIT: Duration = Duration::from_secs(1);

/// The standing queries of one connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Subscriptions {
    children: DynamicSupervisor<Begun>,
    session: u64,
    last: Arc<AtomicU64>,
}

/// A standing query and its number.
type Begun = (u64, Arc<Subscription>);

impl Subscriptions {
    pub(crate) fn new(session: u64) -> Self {
        let child = move |(number, subscription): Begun| {
            let run = move |ctx| Arc::clone(&subscription).run(ctx, number);
            ChildSpec::task(name(session, number), run)
                .restart(Restart::Transient)
                .stop(Stop::Within(STOP))
        };
        let children = DynamicSupervisor::new("subscriptions", child);
        Self { children, session, last: Arc::default() }
    }

    /// Their place in the connection's tree.
    pub(crate) fn spec(&self) -> ChildSpec {
        let spec = SupervisorSpec::dynamic(SUBSCRIPTIONS_MAX as usize);
        self.children.spec(spec.intensity(5, Duration::from_secs(10)))
    }

    /// Starts one, which tells nothing before its request is answered, and gives its number.
    pub(crate) async fn start(
        &self,
        subscription: Subscription,
        request: &RequestContext,
    ) -> Result<u64, RpcError> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        request.once_answered.set(&subscription);
        match self.children.start_child((number, Arc::new(subscription))).await {
            Ok(_) => Ok(number),
            Err(AdminError::MaxChildren) => {
                let message = format!("a connection has {SUBSCRIPTIONS_MAX} subscriptions at most");
                Err(RpcError::new(ErrorCode::Overloaded, message))
            }
            Err(error) => Err(errors::restarting(&error)),
        }
    }

    /// Ends one, and waits until it has. One that has ended is fine.
    pub(crate) async fn end(&self, number: u64) -> Result<(), RpcError> {
        let name = name(self.session, number);
        match self.children.supervisor().terminate_child(&name).await {
            Ok(()) | Err(AdminError::NotFound) => Ok(()),
            Err(error) => Err(errors::restarting(&error)),
        }
    }
}

fn name(session: u64, number: u64) -> String {
    format!("subscription_{session}-{number}")
}

/// What has to happen when a request is answered, or is known never to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct OnceAnswered(Arc<Mutex<Option<Unanswered>>>);

impl OnceAnswered {
    fn set(&self, subscription: &Subscription) {
        let Subscription { answered, given_up, .. } = subscription;
        let unanswered =
            Unanswered { answered: answered.clone(), given_up: given_up.clone().drop_guard() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(unanswered);
    }

    /// The client has the answer.
    pub(crate) fn answered(&self) {
        let unanswered = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Unanswered { answered, given_up }) = unanswered {
            drop(given_up.disarm());
            answered.cancel();
        }
    }

    /// It never will, if it hasn't by now: nobody knows of what was begun.
    pub(crate) fn is_over(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[derive(Debug)]
struct Unanswered {
    answered: CancellationToken,
    given_up: DropGuard,
}

/// What outlives the incarnations of one of them.
#[derive(Debug)]
pub(crate) struct Subscription {
    daemon: Arc<Daemon>,
    query: Arc<Query>,
    /// For its looks.
    context: RequestContext,
    /// Whether the client knows its number.
    answered: CancellationToken,
    /// The client never will.
    given_up: CancellationToken,
    /// What the request has seen, until that is told.
    first: Mutex<Option<Look>>,
    no_initial: bool,
}

/// Why nothing more is told.
enum Over {
    /// Nobody listens.
    Gone,
    Failed(RpcError),
}

impl From<Gone> for Over {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

impl From<RpcError> for Over {
    fn from(error: RpcError) -> Self {
        Self::Failed(error)
    }
}

/// The client didn't read in time.
struct Slow;

impl Subscription {
    pub(crate) fn new(
        daemon: &Arc<Daemon>,
        request: &RequestContext,
        query: Arc<Query>,
        first: Look,
        no_initial: bool,
    ) -> Self {
        let given_up = CancellationToken::new();
        Self {
            daemon: Arc::clone(daemon),
            query,
            context: request.for_later(given_up.clone()),
            answered: CancellationToken::new(),
            given_up,
            first: Mutex::new(Some(first)),
            no_initial,
        }
    }

    async fn run(self: Arc<Self>, ctx: Ctx, number: u64) -> Result<(), Exit> {
        let out = &self.context.out;
        let over = tokio::select! {
            biased;
            () = self.given_up.cancelled() => return Ok(()),
            () = ctx.stopping() => {
                if !self.daemon.is_leaving() {
                    return Ok(()); // its client wants it so, or is gone
                }
                Over::Failed(connection::shutting_down())
            }
            over = self.follow(&ctx, number) => over,
        };
        if let Over::Failed(error) = over {
            tracing::info!(subscription = %ctx.id(), error = error.message, "ended");
            let ended = Ended { subscription: number, error };
            // In vain if the client reads nothing any more.
            let _unheard = timeout(LAST_WORD_WAIT, out.send(line(method::ENDED, &ended))).await;
        }
        Ok(())
    }

    async fn follow(&self, ctx: &Ctx, number: u64) -> Over {
        self.answered.cancelled().await;
        let Err(over) = self.tell(ctx, &Teller { out: &self.context.out, number }).await;
        over
    }

    /// Tells what is found, and then each time what is other.
    async fn tell(&self, ctx: &Ctx, teller: &Teller<'_>) -> Result<Infallible, Over> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut look, mut everything) = match first {
            Some(first) => (first, (!self.no_initial).then_some(ResyncReason::Initial)),
            None => (self.look(ctx, None).await?, Some(ResyncReason::Restarted)),
        };
        // What is there already was seen by the request.
        look.differences.clear();
        loop {
            if let Some(reason) = everything.take() {
                teller.everything(&look, reason).await?;
            } else if let Err(Slow) = teller.differences(&look).await? {
                // It is looked only once the client reads again: that is the newest then.
                self.context.out.room().await?;
                look = self.look(ctx, Some(&look)).await?;
                everything = Some(ResyncReason::Slow);
                continue;
            }
            look.differences = Vec::new();
            self.changed(&look).await;
            look = self.look(ctx, Some(&look)).await?;
        }
    }

    /// Looks, and once more after a while if what it needs is being started again.
    async fn look(&self, ctx: &Ctx, last: Option<&Look>) -> Result<Look, RpcError> {
        let mut wait = RETRY_MIN;
        let mut n_tries = 0;
        loop {
            n_tries += 1;
            // A part that ends while it runs a look gives that look up, and no other.
            let context = self.context.for_later(self.given_up.child_token());
            match look(ctx, &self.daemon, context, &self.query, last).await {
                Err(error) if n_tries < TRIES && may_pass(&error) => sleep(wait).await,
                looked => return looked,
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    /// Waits until a look may show something else.
    ///
    /// Not all that can be selected is watched, and a hint may be lost: now and then it looks unasked,
    /// as rarely as the watcher would.
    async fn changed(&self, look: &Look) {
        let Look { workspace, took, .. } = look;
        sleep(took.saturating_mul(REST_FACTOR).clamp(REST_MIN, REST_MAX)).await;
        let bounds = *self.daemon.config.watching().borrow();
        let pause = took.saturating_mul(bounds.pause_factor);
        let pause = pause.min(bounds.every_max).max(bounds.every_min);
        let mut services = workspace.executor.child().monitor();
        tokio::select! {
            () = committed(look, workspace.repository.watch()) => {}
            // Perhaps all of them are gone: a look starts them again.
            _ = services.down() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Waits until something was committed that the look may not have seen.
async fn committed(look: &Look, mut commits: watch::Receiver<CoreState>) {
    let mut seen: Revision = look.began_at;
    // Files that were read while it looked may have been read before or after.
    let is_exact = look.revision == look.began_at;
    while commits.wait_for(|state| state.revision > seen).await.map(drop).is_ok() {
        match look.workspace.repository.changes_since(seen) {
            // Files were looked at once more, and found to be the same: such as one whose time
            // stamp never proves that, which this look would be the next to look at.
            Ok(changes) if changes.n_commits == 0 || (is_exact && changes.is_empty()) => {
                seen = changes.revision;
            }
            _ => return,
        }
    }
}

/// Whether another look may succeed.
fn may_pass(error: &RpcError) -> bool {
    let code = error.error_code();
    code.is_some_and(|code| code.retryable() || code == ErrorCode::Cancelled)
}

/// Where a subscription is told.
struct Teller<'t> {
    out: &'t Outgoing,
    number: u64,
}

impl Teller<'_> {
    /// Everything, however long that takes: whoever gave up here would never come to an end.
    async fn everything(&self, look: &Look, reason: ResyncReason) -> Result<(), Gone> {
        let subscription = self.number;
        self.out.send(line(method::RESYNC, &Resync { subscription, reason })).await?;
        for file in look.standing.everything() {
            self.out.send(self.difference(file)).await?;
        }
        self.out.send(self.settled(look)).await
    }

    /// What is other, if anything is.
    async fn differences(&self, look: &Look) -> Result<Result<(), Slow>, Gone> {
        if look.differences.is_empty() {
            return Ok(Ok(()));
        }
        for file in look.differences.iter().cloned() {
            if let Err(Slow) = self.send_in_time(self.difference(file)).await? {
                return Ok(Err(Slow));
            }
        }
        self.send_in_time(self.settled(look)).await
    }

    async fn send_in_time(&self, line: Vec<u8>) -> Result<Result<(), Slow>, Gone> {
        // One that goes out in pieces has to be completed.
        if line.len() > LINE_BYTES_MAX {
            return self.out.send(line).await.map(Ok);
        }
        match timeout(SLOW_AFTER, self.out.send(line)).await {
            Ok(sent) => sent.map(Ok),
            Err(_elapsed) => Ok(Err(Slow)),
        }
    }

    fn difference(&self, file: FileDifference<Matches>) -> Vec<u8> {
        let FileDifference { file, content, before, after } = file;
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let difference = Difference {
            subscription: self.number,
            file: file.to_string(),
            content_id: content.map(|content| content.to_string()),
            disappeared: before.without(&after),
            appeared: after.without(&before),
        };
        line(method::DIFFERENCE, &difference)
    }

    fn settled(&self, look: &Look) -> Vec<u8> {
        let revision = crate::wire::revision(look.revision);
        line(method::SETTLED, &Settled { subscription: self.number, revision })
    }
}

fn line(method: &str, params: &impl Serialize) -> Vec<u8> {
    let mut line = Vec::new();
    // Structs of texts and numbers always serialise.
    let _infallible = frame::encode_notification(&mut line, method, params);
    line
}
