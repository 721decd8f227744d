//! `file_watcher`: looks every few seconds whether the disk is still what the repository holds.

use super::synchronizer::Ask;
use super::{Shared, SyncHandle};
use crate::refresh::Look;
use astscope_supervision::{Address, Checkpoint, ChildSpec, Ctx, Exit};
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
}

impl Default for WatchConfig {
    /// Half a percent of a core at most.
    fn default() -> Self {
        Self {
            every_min: Duration::from_secs(2),
            every_max: Duration::from_mins(1),
            pause_factor: 200,
        }
    }
}

impl WatchConfig {
    fn pause_after(&self, look: Duration) -> Duration {
        look.saturating_mul(self.pause_factor).clamp(self.every_min, self.every_max)
    }
}

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    let (shared, synchronizer) = (Arc::clone(&handle.shared), handle.synchronizer.clone());
    let run = move |ctx| watch(ctx, Arc::clone(&shared), synchronizer.clone());
    ChildSpec::task("file_watcher", run).stall_after(STALLED_AFTER)
}

async fn watch(ctx: Ctx, shared: Arc<Shared>, synchronizer: Address<Ask>) -> Result<(), Exit> {
    let config = shared.config.watch;
    let mut pause = config.every_min;
    let mut told = None;
    let mut was_readable = true;
    loop {
        ctx.idle();
        tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
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
            own.engine.look(&|| checkpoint.check().is_err()).map_err(|error| error.to_string())
        };
        let look: Result<Look, String> = ctx.blocking(None, look).await?;
        drop(seat);
        pause = config.pause_after(began.elapsed());
        let root = shared.engine.root().display();
        match look {
            Ok(look) => {
                was_readable = true;
                // What the crawl after the last hint couldn't change is no news.
                if look.differs && told != Some(look) {
                    told = Some(look);
                    // In vain while the synchronizer is restarting: it will look itself.
                    let _unheard = synchronizer.send_now(Ask::Changed);
                }
            }
            Err(error) if was_readable && !ctx.is_stopping() => {
                was_readable = false;
                tracing::warn!(%root, error, "cannot look at the root; it will be tried again");
            }
            Err(_) => {}
        }
    }
}
