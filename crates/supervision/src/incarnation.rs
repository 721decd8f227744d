//! One incarnation of a worker, from its first poll to the end of everything that it started.
//!
//! The only place that catches a child's panics. Its future is never aborted from outside: a kill
//! is a token that this loop obeys, so that the future is dropped, its scope ended and waited for,
//! and only then its end reported. An incarnation that is reported as ended is gone.

use crate::address::Delegated;
use crate::core::End;
use crate::probe::{Fault, Point, keep_busy};
use crate::{BoxFuture, Ctx, Exit};
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    /// Whose code runs, for the panic hook.
    pub(crate) static CURRENT: Ctx;
}

/// Waits for what somebody else does: an answer, a turn, a thread. That this takes long is no
/// [stall](crate::ChildSpec::stall_after) of the child that waits, and ending the child would not
/// make it shorter. [`Address::call`](crate::Address::call), pools, monitors and
/// [`Ctx::blocking`] do this by themselves; it is for a wait at anything else. `wait` has to end by
/// itself, by a deadline for example: nobody else will end it.
///
/// # Cancel safety
/// That of `wait`.
pub async fn delegated<T>(wait: impl Future<Output = T>) -> T {
    let _waiting = delegate();
    wait.await
}

/// Notes that the child whose code runs waits for somebody else, until this is dropped.
pub(crate) fn delegate() -> Option<Delegated> {
    CURRENT.try_with(|ctx| ctx.pulse().delegated()).ok()
}

/// How a supervisor reaches an incarnation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Control {
    pub(crate) stop: CancellationToken,
    pub(crate) kill: CancellationToken,
    /// Killed by somebody else, whom nobody expects to see to it that it ends.
    pub(crate) crash: CancellationToken,
}

/// What bounds an incarnation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// It ends after this time at work without progress.
    pub(crate) stall_after: Option<Duration>,
    /// What it started may take this long to end.
    pub(crate) grace: Duration,
}

/// Runs a worker's future to its end, whatever that is.
pub(crate) async fn run(body: BoxFuture<End>, ctx: Ctx, control: Control, limits: Limits) -> End {
    CURRENT.scope(ctx.clone(), live(body, ctx, control, limits)).await
}

async fn live(mut body: BoxFuture<End>, ctx: Ctx, control: Control, limits: Limits) -> End {
    let mut end = match at_init(&ctx, &control).await {
        Some(exit) => End::Exited(exit),
        None => attend(&mut body, &ctx, &control, limits.stall_after).await,
    };
    // A panic while its values are dropped is its end, whatever it was before.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(body))) {
        end = End::Exited(Exit::panicked(&*payload));
    }
    tokio::select! {
        biased;
        exit = leave(&ctx) => exit.map_or(end, End::Exited),
        () = overstayed(&control, limits.grace) => End::Exited(Exit::Unkillable),
    }
}

/// Ends whatever belongs to the incarnation, and waits for it. `Some` if that decides on its end.
async fn leave(ctx: &Ctx) -> Option<Exit> {
    let panicked = ctx.close().await;
    match take(ctx, Point::Drop) {
        None => panicked,
        Some(Fault::Panic) => Some(Exit::Panicked("probe".into())),
        Some(Fault::Error) => Some(Exit::failed("probe")),
        Some(Fault::Hang) => pending().await,
        Some(Fault::Slow(time)) => {
            sleep(time).await;
            panicked
        }
        Some(Fault::Busy(time)) => {
            keep_busy(time);
            panicked
        }
    }
}

/// Waits until an incarnation that has ended by itself has been here for too long. One that was
/// told to end has its supervisor to watch over that.
async fn overstayed(control: &Control, grace: Duration) {
    tokio::select! {
        biased;
        () = control.kill.cancelled() => pending().await,
        () = control.stop.cancelled() => pending().await,
        () = sleep(grace) => {}
    }
}

/// The fault that is armed at the start, if there is one. `Some` if it is the end already.
async fn at_init(ctx: &Ctx, control: &Control) -> Option<Exit> {
    let wait = match take(ctx, Point::Init)? {
        Fault::Panic => return Some(Exit::Panicked("probe".into())),
        Fault::Error => return Some(Exit::failed("probe")),
        Fault::Hang => None,
        Fault::Slow(time) => Some(time),
        Fault::Busy(time) => {
            keep_busy(time);
            return None;
        }
    };
    let slow = async {
        match wait {
            Some(time) => sleep(time).await,
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        () = control.kill.cancelled() => Some(Exit::Killed),
        () = control.crash.cancelled() => Some(Exit::Killed),
        () = control.stop.cancelled() => Some(Exit::Shutdown),
        () = slow => None,
    }
}

/// Polls the future and everything that may end it, or keep it from going on.
async fn attend(
    body: &mut BoxFuture<End>,
    ctx: &Ctx,
    control: &Control,
    stall_after: Option<Duration>,
) -> End {
    let mut told_to_stop = false;
    // A stop that a fault holds back, and until when the future isn't polled.
    let mut stop_at: Option<Instant> = None;
    let mut asleep_until: Option<Instant> = None;
    let mut hangs_since: Option<Instant> = None;
    loop {
        let awake = asleep_until.is_none() && hangs_since.is_none();
        tokio::select! {
            biased;
            () = control.kill.cancelled() => return End::Exited(Exit::Killed),
            () = control.crash.cancelled() => return End::Exited(Exit::Killed),
            () = control.stop.cancelled(), if !told_to_stop => {
                told_to_stop = true;
                if !ctx.acknowledged().is_cancelled() {
                    return End::Exited(Exit::Shutdown);
                }
                match take(ctx, Point::Stop) {
                    Some(Fault::Panic) => return End::Exited(Exit::Panicked("probe".into())),
                    Some(Fault::Error) => return End::Exited(Exit::failed("probe")),
                    Some(Fault::Hang) => {}
                    Some(Fault::Slow(time)) => stop_at = Some(Instant::now() + time),
                    Some(Fault::Busy(time)) => {
                        keep_busy(time);
                        ctx.tell_to_stop();
                    }
                    None => ctx.tell_to_stop(),
                }
            }
            () = until(stop_at), if stop_at.is_some() => {
                stop_at = None;
                ctx.tell_to_stop();
            }
            () = until(asleep_until), if asleep_until.is_some() => asleep_until = None,
            exit = ctx.failed() => return End::Exited(exit),
            fault = strike(ctx), if awake => match fault {
                Fault::Panic => return End::Exited(Exit::Panicked("probe".into())),
                Fault::Error => return End::Exited(Exit::failed("probe")),
                Fault::Hang => {
                    hangs_since = Some(Instant::now());
                    ctx.pulse().busy(); // it hangs at work, not while it waits for some
                }
                Fault::Slow(time) => asleep_until = Some(Instant::now() + time),
                Fault::Busy(time) => keep_busy(time),
            },
            end = caught(body), if awake => return match end {
                Ok(end) => end,
                Err(exit) => End::Exited(exit),
            },
            // After the child itself, which may just have begun to work. How long a stop may take is
            // its stop rule's to say.
            () = stalled(ctx, stall_after, hangs_since), if !told_to_stop => {
                return End::Exited(Exit::Stalled);
            }
        }
    }
}

/// Polls a future and turns a panic into its exit. The future must not be polled again after one.
pub(crate) async fn caught<T>(future: &mut BoxFuture<T>) -> Result<T, Exit> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(payload) => Poll::Ready(Err(Exit::panicked(&*payload))),
    })
    .await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}

/// Waits until the incarnation has been at work for `limit` without progress. Polled after whatever
/// may begin that work, so that an idle child needs no timer.
async fn stalled(ctx: &Ctx, limit: Option<Duration>, hangs_since: Option<Instant>) {
    let Some(limit) = limit else { return pending().await };
    if let Some(since) = hangs_since {
        return sleep_until(since + limit).await;
    }
    ctx.acknowledged().cancelled().await;
    let mut timer = pin!(sleep(limit));
    poll_fn(|cx| {
        loop {
            let Some(time) = ctx.pulse().working_for() else { return Poll::Pending };
            // A wait for somebody else may be a task's, whose end nobody here hears of.
            let left = if ctx.pulse().is_delegating() { limit } else { limit.saturating_sub(time) };
            if left.is_zero() {
                return Poll::Ready(());
            }
            if timer.is_elapsed() {
                timer.as_mut().reset(Instant::now() + left);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

/// Waits for a fault to be armed for this child while it runs.
async fn strike(ctx: &Ctx) -> Fault {
    ctx.acknowledged().cancelled().await;
    ctx.probe().strike(ctx.id(), ctx.path().as_str()).await
}

fn take(ctx: &Ctx, point: Point) -> Option<Fault> {
    ctx.probe().take(ctx.id(), ctx.path().as_str(), point)
}

/// Makes panics inside a tree appear once, as an event of `tracing` with the child's path, instead
/// of as raw text on stderr; panics elsewhere go to the hook that was there before.
///
/// Replaces the process's panic hook, so it is for binaries to call, once.
pub fn install_panic_hook() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let path = CURRENT.try_with(|ctx| ctx.path().clone());
        match path {
            Ok(path) => tracing::error!(target: "astscope::supervision", %path, "{info}"),
            Err(_) => previous(info),
        }
    }));
}
