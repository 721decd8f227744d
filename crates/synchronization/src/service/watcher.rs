//! `file_watcher`: looks every few seconds whether the disk is still what the repository holds.
//!
//! What goes wrong with the disk is told and waited out: a root that is gone or fails is looked at
//! until it is back, one that may not be read is left alone until it may, and after a flood of
//! changes looks become rarer, so that one crawl takes in many of them.

use super::synchronizer::Ask;
use super::{Shared, SyncHandle};
use astscope_supervision::{
    Address, Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, Service, Stop,
};
use std::convert::Infallible;
use std::io;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between its pauses, its looks and its waits for a turn it does next to nothing.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// How often a workspace's disk is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// The shortest pause between two looks.
    pub every_min: Duration,
    /// The longest.
    pub every_max: Duration,
    /// A pause is this many times as long as the look before it took, within these bounds: the
    /// share of a core that looking may take is one over this.
    pub pause_factor: u32,
    /// More changed files than this in one look are a flood: the pause doubles with each look
    /// that finds one, and is halved by each that doesn't.
    pub flood: usize,
}

impl Default for WatchConfig {
    /// Half a percent of a core at most. A thousand files at once are another branch that was
    /// checked out, not somebody who types.
    fn default() -> Self {
        Self {
            every_min: Duration::from_secs(2),
            every_max: Duration::from_mins(1),
            pause_factor: 200,
            flood: 1000,
        }
    }
}

impl WatchConfig {
    /// The pause after a look that took so long, when so many looks in a row found a flood.
    fn pause_after(&self, look: Duration, n_floods: u32) -> Duration {
        let calm = look.saturating_mul(self.pause_factor).max(self.every_min);
        calm.saturating_mul(2_u32.saturating_pow(n_floods)).min(self.every_max)
    }
}

/// How a workspace is watched at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchStatus {
    /// What the watcher is up to.
    pub state: WatchState,
    /// How long it rests before it looks again.
    pub pause: Duration,
}

/// What a watcher is up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// It looks at the disk.
    Polling,
    /// The root is gone, or its disk fails, with the reason. It goes on looking, and tells what
    /// has changed when the root is back.
    Unavailable(Arc<str>),
    /// The root may not be read, with the reason. It only looks whether that is still so.
    Disabled(Arc<str>),
}

/// How long it may take to stop, as `ElixirScope` says.
const STOP: Stop = Stop::Within(Duration::from_secs(2));

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    let args = Watcher { shared: Arc::clone(&handle.shared), told: handle.synchronizer.clone() };
    ChildSpec::service::<Watcher>(&handle.watcher, args).stop(STOP).stall_after(STALLED_AFTER)
}

/// A service only so that it has an address: nobody sends it anything.
#[derive(Clone)]
struct Watcher {
    shared: Arc<Shared>,
    told: Address<Ask>,
}

impl Service for Watcher {
    type Args = Self;
    type Message = Infallible;

    async fn init(args: Self, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(args))
    }

    async fn run(self, _: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        watch(ctx, self.shared, self.told).await
    }
}

async fn watch(ctx: Ctx, shared: Arc<Shared>, synchronizer: Address<Ask>) -> Result<(), Exit> {
    let mut bounds = shared.config.watch.clone();
    let mut config = *bounds.borrow_and_update();
    let mut pause = config.every_min;
    let mut n_floods: u32 = 0;
    let mut told = None;
    loop {
        ctx.idle();
        tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            // Never, once there is nobody who could change them.
            Ok(()) = bounds.changed() => {
                config = *bounds.borrow_and_update();
                pause = pause.max(config.every_min).min(config.every_max);
                shared.watching.send_modify(|status| status.pause = pause);
                continue;
            }
            () = sleep(pause) => {}
        }
        ctx.progress();
        let seat = match &shared.config.seats {
            Some(seats) => match seats.checkout(config.every_max).await {
                Ok(seat) => Some(seat),
                // So many others look that this one had no turn: it is tried again.
                Err(_) => continue,
            },
            None => None,
        };
        let began = Instant::now();
        let own = Arc::clone(&shared);
        let look = move |checkpoint: &Checkpoint| {
            own.engine.is_readable()?;
            let look = own.engine.look(&|| checkpoint.check().is_err());
            look.map_err(io::Error::other)
        };
        let look: io::Result<_> = ctx.blocking(None, look).await?;
        drop(seat);
        let state = match look {
            Ok(look) => {
                // Before the first crawl is done everything is news.
                let is_flood = look.n_changed > config.flood && !shared.is_indexing();
                n_floods = if is_flood { n_floods + 1 } else { n_floods.saturating_sub(1) };
                pause = config.pause_after(began.elapsed(), n_floods);
                // What the crawl after the last hint couldn't change is no news.
                if look.differs && told != Some(look) {
                    told = Some(look);
                    // In vain while the synchronizer is restarting: it will look itself.
                    let _unheard = synchronizer.send_now(Ask::Changed);
                }
                WatchState::Polling
            }
            Err(_) if ctx.is_stopping() => continue,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                pause = config.every_max;
                WatchState::Disabled(error.to_string().into())
            }
            Err(error) => {
                pause = config.every_min;
                WatchState::Unavailable(error.to_string().into())
            }
        };
        tell(&shared, &WatchStatus { state, pause });
    }
}

/// Makes the status known, and logs each change of the state once.
fn tell(shared: &Shared, now: &WatchStatus) {
    let before = shared.watching.send_replace(now.clone());
    if discriminant(&before.state) == discriminant(&now.state) {
        return;
    }
    let root = shared.engine.root().display();
    match &now.state {
        WatchState::Polling => tracing::info!(%root, "watched again"),
        WatchState::Unavailable(reason) => {
            tracing::warn!(%root, %reason, "cannot look at the root; it will be tried again");
        }
        WatchState::Disabled(reason) => {
            tracing::error!(%root, %reason, "not watched until the root may be read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_multiple_of_the_look_and_doubles_with_each_flood() {
        let config = WatchConfig::default();
        let secs = Duration::from_secs;
        let rows = [
            (Duration::ZERO, 0, secs(2)),
            (Duration::from_millis(50), 0, secs(10)),
            (secs(9), 0, secs(60)),
            (Duration::ZERO, 1, secs(4)),
            (Duration::ZERO, 4, secs(32)),
            (Duration::ZERO, 5, secs(60)),
            (Duration::MAX, u32::MAX, secs(60)),
        ];
        for (look, n_floods, pause) in rows {
            assert_eq!(config.pause_after(look, n_floods), pause, "{look:?}, {n_floods}");
        }
    }
}
