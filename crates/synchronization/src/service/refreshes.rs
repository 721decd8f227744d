//! One refresh, and whoever waits for it no longer than he wants to.
//!
//! A read of a file system that hangs can't be given up, so the one who waits isn't the thread that
//! looks. When his time is over he has what is stored, and that thread goes on: what it finishes is
//! there for the next query.

use super::Shared;
use super::synchronizer::{Answer, Progress, StopRequest, SyncError, answer};
use crate::lag::Seen;
use crate::{RefreshError, WalkSpec};
use astscope_repository::Scope;
use astscope_supervision::{Checkpoint, Ctx, Exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

/// Refreshes of a workspace that run at a time, those that hang included: each has a thread. More
/// than there are seats for queries, so that only a disk that hangs has any of them wait.
pub(super) const RUNNING_MAX: usize = 64;

/// Who wants no waiting waits as long for names and metadata, as far as the last walk is remembered:
/// those of 100,000 files take a third of it.
const GLANCE_WITHIN: Duration = Duration::from_millis(500);

/// How long a refresh may take at least to find out which files there are when nobody remembers: there
/// is no answer without.
const NAMES_WITHIN: Duration = Duration::from_secs(10);

/// How long a refresh is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until it is done.
    Done,
    /// For so long since it was asked for. Then files are there as they are stored, and the scope
    /// says in what it is behind. With zero nothing is read from the beginning.
    Within(Duration),
}

/// A refresh that was asked for.
pub(super) struct Refresh {
    pub(super) spec: WalkSpec,
    pub(super) wait: Wait,
    pub(super) asked: Instant,
    pub(super) stop: StopRequest,
    pub(super) progress: Progress,
    pub(super) reply: Answer<Scope>,
}

/// How a refresh ended.
type Refreshed = Result<Result<Scope, RefreshError>, Exit>;

/// A refresh that goes on whether or not anybody waits for it.
struct Going {
    done: oneshot::Receiver<Refreshed>,
    /// What it has found out so far.
    seen: watch::Receiver<Seen>,
    /// Whether nobody waits any more.
    is_left: Arc<AtomicBool>,
}

/// Runs a refresh, and answers when it is done or its time is over.
pub(super) async fn refresh(ctx: Ctx, shared: Arc<Shared>, refresh: Refresh) {
    let Refresh { spec, wait, asked, stop, progress, reply } = refresh;
    let spec = Arc::new(spec);
    let mut going = begin(&ctx, &shared, &spec, wait, stop, progress);
    let Wait::Within(within) = wait else {
        return answer(reply, going.done.await.unwrap_or(Err(Exit::Shutdown)));
    };
    let stored = |seen: &watch::Receiver<Seen>| {
        let (shared, spec, seen) = (Arc::clone(&shared), Arc::clone(&spec), seen.borrow().clone());
        ctx.blocking(None, move |_: &Checkpoint| shared.engine.as_stored(&spec, &seen))
    };
    let patience = if within.is_zero() { GLANCE_WITHIN } else { within };
    if let Ok(refreshed) = timeout_at(asked + patience, &mut going.done).await {
        return answer(reply, refreshed.unwrap_or(Err(Exit::Shutdown)));
    }
    let mut scope = stored(&going.seen).await;
    if matches!(scope, Ok(None)) {
        // Nobody knows which files there are.
        let mut seen = going.seen.clone();
        tokio::select! {
            biased;
            done = &mut going.done => return answer(reply, done.unwrap_or(Err(Exit::Shutdown))),
            _walked = seen.wait_for(|seen| seen.walked.is_some()) => {}
            () = sleep_until(asked + NAMES_WITHIN.max(patience)) => {}
        }
        scope = stored(&going.seen).await;
    }
    going.is_left.store(true, Ordering::Relaxed);
    let scope = scope.map_err(SyncError::Ended);
    drop(reply.send(scope.and_then(|scope| scope.ok_or(SyncError::Late))));
}

fn begin(
    ctx: &Ctx,
    shared: &Arc<Shared>,
    spec: &Arc<WalkSpec>,
    wait: Wait,
    stop: StopRequest,
    progress: Progress,
) -> Going {
    let (tell, seen) = watch::channel(Seen::default());
    let (finish, done) = oneshot::channel();
    let is_left = Arc::new(AtomicBool::new(false));
    let going = Going { done, seen, is_left: Arc::clone(&is_left) };
    let (own, shared, spec) = (ctx.clone(), Arc::clone(shared), Arc::clone(spec));
    ctx.spawn(async move {
        // Never closed.
        let Ok(permit) = Arc::clone(&shared.refreshing).acquire_owned().await else { return };
        let refresh = move |checkpoint: &Checkpoint| {
            let _until_it_returns = permit;
            // What was left is nobody's to give up. What isn't kept, nobody needs.
            let is_given_up = || {
                if is_left.load(Ordering::Relaxed) { !tell.borrow().is_kept } else { stop() }
            };
            let stop = || checkpoint.check().is_err() || is_given_up();
            let tell = |seen: &Seen| drop(tell.send_replace(seen.clone()));
            let engine = &shared.engine;
            let waits = wait != Wait::Within(Duration::ZERO);
            let scope = engine.refresh_telling(&spec, waits, &tell, &stop, &*progress);
            if engine.tracker().unsteady().is_some() {
                shared.nudge.notify_one();
            }
            scope
        };
        drop(finish.send(own.blocking(None, refresh).await));
    });
    going
}
