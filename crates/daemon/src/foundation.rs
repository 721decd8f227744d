//! What everything else stands on: who tells what happens, and who tells the daemon to leave.

pub(crate) mod config;
pub(crate) mod event_bus;

use crate::daemon::Daemon;
use crate::tree::STALLED_AFTER;
use astscope_protocol::messages::StopParams;
use astscope_supervision::{ChildSpec, Ctx, Exit};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// The shortest time between two looks whether the daemon is idle: a limit of nothing must not
/// become a loop without rest.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(10);

/// Exit status of a daemon that was told for the third time to leave: as if the signal had killed
/// it.
const FORCED_EXIT: i32 = 130;

/// Leaves on a signal. First: finish what is in flight. Second: leave at once. Third: don't even
/// stop the services.
pub(crate) fn signals(daemon: &Arc<Daemon>) -> ChildSpec {
    let daemon = Arc::clone(daemon);
    ChildSpec::task("signals", move |ctx| leave_on_signal(ctx, Arc::clone(&daemon)))
        .stall_after(STALLED_AFTER)
}

async fn leave_on_signal(ctx: Ctx, daemon: Arc<Daemon>) -> Result<(), Exit> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        ctx.idle();
        tokio::select! {
            () = ctx.stopping() => return Ok(()),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let n = daemon.signals.fetch_add(1, Ordering::Relaxed) + 1;
        match n {
            1 | 2 => daemon.stop(&StopParams { drain: n == 1 }),
            // Nobody below can be asked for more: the process's exit is all that is left.
            _ => std::process::exit(FORCED_EXIT),
        }
    }
}

/// Leaves when there has been no client and no work for long enough.
pub(crate) fn idle_exit(daemon: &Arc<Daemon>) -> ChildSpec {
    let daemon = Arc::clone(daemon);
    let run = move |ctx| leave_when_idle(ctx, Arc::clone(&daemon));
    ChildSpec::task("idle_exit", run).stall_after(STALLED_AFTER)
}

async fn leave_when_idle(ctx: Ctx, daemon: Arc<Daemon>) -> Result<(), Exit> {
    let mut settings = daemon.config.subscribe();
    loop {
        ctx.idle();
        let limit = settings.borrow_and_update().idle_timeout.value.limit();
        let limit = limit.unwrap_or(Duration::MAX);
        let left = limit.saturating_sub(daemon.idle_for());
        if left.is_zero() && daemon.is_idle() {
            tracing::info!("leaving after {limit:?} without a client");
            daemon.stop(&StopParams { drain: true });
            ctx.stopping().await;
            return Ok(());
        }
        // While somebody is connected the clock starts again with each sign of life.
        tokio::select! {
            () = ctx.stopping() => return Ok(()),
            Ok(()) = settings.changed() => {}
            () = sleep(left.max(limit / 10).max(LOOK_EVERY_MIN)) => {}
        }
    }
}
