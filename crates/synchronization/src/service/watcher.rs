//! `file_watcher`: notices what changes on the disk.
//!
//! It listens to the kernel's events, and has what they say applied when it has been quiet for a
//! moment; a query that comes earlier doesn't wait for that. From time to time it looks at the whole
//! root all the same: what happens through other links or on other machines is no event. Where
//! there are no events it looks more often.
//!
//! What goes wrong with the disk is told and waited out: a root that is gone or fails is looked at
//! until it is back, one that may not be read is left alone until it may, and after a flood of
//! changes it waits longer, so that one batch takes in many of them.

use super::synchronizer::Ask;
use super::{InVain, Shared, SyncHandle};
use crate::tracker::Shake;
use crate::watches::{Uncovered, Watches};
use astscope_supervision::{
    Address, Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, Service, Stop,
};
use rustix::fd::OwnedFd;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Between its pauses, its looks and its waits for a turn it does next to nothing.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// Events are read no more often than this: a flood wakes nobody a thousand times, and the kernel
/// keeps 16,384 of them meanwhile. Whoever needs them now reads them himself.
const READ_EVERY: Duration = Duration::from_millis(5);

/// How long git may hold its lock before what it has done so far is taken in.
const GIT_WITHIN: Duration = Duration::from_secs(5);

/// How long it is before watching is tried again after a limit was reached: each try sets as many
/// watches as there are left, which others may want.
const RETRY_AFTER: Duration = Duration::from_mins(10);

/// How a workspace's disk is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchConfig {
    /// How long it must have been quiet before changes are applied that nobody waits for.
    pub settle: Duration,
    /// How long changes wait at most. After a flood the settling time is doubled, up to this.
    pub settle_max: Duration,
    /// The shortest pause between two looks at the disk where there are no events.
    pub every_min: Duration,
    /// The longest, and the pause where there are.
    pub every_max: Duration,
    /// A pause is this many times as long as the look before it took, within these bounds: the
    /// share of a core that looking may take is one over this.
    pub pause_factor: u32,
    /// More changed files than this at a time are a flood: waits double with each, and are halved
    /// by each time that there are fewer.
    pub flood: usize,
}

impl Default for WatchConfig {
    /// Half a percent of a core at most. A thousand files at once are another branch that was
    /// checked out, not somebody who types. Editors write a file in a few milliseconds;
    /// `ElixirScope`'s 500 ms are the bound.
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(50),
            settle_max: Duration::from_millis(500),
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

    /// How long it has to be quiet.
    fn settle_after(&self, n_floods: u32) -> Duration {
        self.settle.saturating_mul(2_u32.saturating_pow(n_floods)).min(self.settle_max)
    }
}

/// How a workspace is watched at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchStatus {
    /// What the watcher is up to.
    pub state: WatchState,
    /// How long it rests before it looks again.
    pub pause: Duration,
    /// How long it has to be quiet before changes are applied.
    pub settle: Duration,
}

/// What a watcher is up to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// It listens to the kernel's events.
    Native,
    /// It looks at the disk from time to time, and why it doesn't listen.
    Polling(Arc<str>),
    /// The root is gone, or its disk fails, with the reason. It goes on looking, and tells what
    /// has changed when the root is back.
    Unavailable(Arc<str>),
    /// The root may not be read, with the reason. It only looks whether that is still so.
    Disabled(Arc<str>),
    /// Somebody wanted it to rest. Queries look for themselves.
    Paused,
}

/// How long it may take to stop, as `ElixirScope` says.
const STOP: Stop = Stop::Within(Duration::from_secs(2));

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    let args = Args { shared: Arc::clone(&handle.shared), told: handle.synchronizer.clone() };
    ChildSpec::service::<Watcher>(&handle.watcher, args).stop(STOP).stall_after(STALLED_AFTER)
}

#[derive(Clone)]
struct Args {
    shared: Arc<Shared>,
    told: Address<Ask>,
}

/// A service only so that it has an address: nobody sends it anything.
struct Watcher {
    args: Args,
    ears: Result<Ears, Arc<str>>,
}

impl Service for Watcher {
    type Args = Args;
    type Message = Infallible;

    async fn init(args: Args, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        // Before the synchronizer's first crawl, which sets the watches.
        let ears = if *args.shared.paused.borrow() {
            Err("it is paused".into())
        } else {
            Ears::open(ctx, &args.shared).await?
        };
        Ok(Init::Ready(Self { args, ears }))
    }

    async fn run(self, _: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        let Self { args: Args { shared, told }, ears } = self;
        let config = *shared.config.watch.borrow();
        let now = Instant::now();
        let watching = Watching {
            why_deaf: ears.as_ref().err().cloned(),
            ears: ears.ok(),
            look_at: now + config.every_min,
            listen_at: now,
            read_at: now,
            settling: None,
            n_floods: 0,
            pause: config.every_min,
            seen: None,
            ctx,
            shared,
            told,
            config,
        };
        watching.tell(None);
        watching.run().await
    }
}

/// Events, for as long as this lives.
struct Ears {
    shared: Arc<Shared>,
    watches: Arc<Watches>,
    readable: AsyncFd<OwnedFd>,
}

impl Ears {
    /// Begins to listen, or says why that can't be. Nothing is proven before the root was walked.
    async fn open(ctx: &Ctx, shared: &Arc<Shared>) -> Result<Result<Self, Arc<str>>, Exit> {
        let Some(events) = shared.config.events.clone() else {
            return Ok(Err("there are no events".into()));
        };
        let root = shared.engine.root().to_path_buf();
        let open = move |_: &Checkpoint| Watches::open(&root, (events.open)()?, &events.cookies);
        let watches = ctx.blocking(None, open).await?;
        let listen = |watches: Watches| -> io::Result<Self> {
            let readable = watches.readable().try_clone_to_owned()?;
            #[expect(
                deprecated,
                reason = "for types that don't own their descriptor; this one does"
            )]
            let readable = AsyncFd::with_interest(readable, Interest::READABLE)?;
            let watches = Arc::new(watches);
            shared.engine.watch_through(Some(Arc::clone(&watches)));
            Ok(Self { shared: Arc::clone(shared), watches, readable })
        };
        Ok(watches.and_then(listen).map_err(|error| error.to_string().into()))
    }

    async fn readable(&self) -> io::Result<()> {
        self.readable.readable().await?.clear_ready();
        Ok(())
    }
}

impl Drop for Ears {
    fn drop(&mut self) {
        self.shared.engine.watch_through(None);
    }
}

/// Changes that wait until it is quiet.
struct Settling {
    since: Instant,
    until: Instant,
    /// They were told of, and are still waiting.
    n_told: u32,
}

/// One incarnation at work.
struct Watching {
    ctx: Ctx,
    shared: Arc<Shared>,
    told: Address<Ask>,
    config: WatchConfig,
    ears: Option<Ears>,
    /// Why there are none.
    why_deaf: Option<Arc<str>>,
    /// When the disk is looked at.
    look_at: Instant,
    /// When listening may be tried again: by the first look after that.
    listen_at: Instant,
    /// When events are read again.
    read_at: Instant,
    settling: Option<Settling>,
    n_floods: u32,
    pause: Duration,
    /// The last look that was told of.
    seen: Option<crate::refresh::Look>,
}

impl Watching {
    async fn run(mut self) -> Result<(), Exit> {
        let mut bounds = self.shared.config.watch.clone();
        let mut paused = self.shared.paused.subscribe();
        let mut uncovered = self.shared.uncovered.subscribe();
        let shared = Arc::clone(&self.shared);
        loop {
            self.ctx.idle();
            let (ears, read_at, settling) = (&self.ears, self.read_at, &self.settling);
            let readable = async move {
                let Some(ears) = ears else { return pending().await };
                sleep_until(read_at).await;
                ears.readable().await
            };
            let settled = async move {
                let Some(settling) = settling else { return pending().await };
                sleep_until(settling.until).await;
            };
            tokio::select! {
                biased;
                () = self.ctx.stopping() => return Ok(()),
                // None of these, once there is nobody who could change them.
                Ok(()) = bounds.changed() => self.set(*bounds.borrow_and_update()),
                Ok(()) = paused.changed() => {
                    let is_paused = *paused.borrow_and_update();
                    self.pause_or_resume(is_paused).await?;
                }
                Ok(()) = uncovered.changed() => {
                    let in_vain = uncovered.borrow_and_update().clone();
                    if let Some(in_vain) = in_vain {
                        self.stop_listening(&in_vain);
                    }
                }
                () = shared.nudge.notified() => self.wait_for_quiet(),
                heard = readable => self.read(heard),
                () = settled => self.apply(),
                () = sleep_until(self.look_at) => self.look().await?,
            }
            self.ctx.progress();
        }
    }

    fn set(&mut self, config: WatchConfig) {
        self.config = config;
        self.pause = self.pause.max(config.every_min).min(config.every_max);
        self.look_at = Instant::now() + self.pause;
        self.tell(None);
    }

    async fn pause_or_resume(&mut self, is_paused: bool) -> Result<(), Exit> {
        if is_paused {
            self.ears = None;
            self.settling = None;
            self.why_deaf = Some("it is paused".into());
            self.tell(None);
            return Ok(());
        }
        self.listen().await?;
        self.wait_for_quiet();
        self.look().await
    }

    /// Begins to listen. The next walk sets the watches.
    async fn listen(&mut self) -> Result<(), Exit> {
        match Ears::open(&self.ctx, &self.shared).await? {
            Ok(ears) => {
                self.ears = Some(ears);
                self.why_deaf = None;
                self.wait_for_quiet();
            }
            // The next look tries again: nothing was watched yet that others may want.
            Err(why) => self.why_deaf = Some(why),
        }
        self.tell(None);
        Ok(())
    }

    fn stop_listening(&mut self, InVain { watches, why }: &InVain) {
        let now = Instant::now();
        let of = |ears: &Ears| ptr::eq(watches.as_ptr(), Arc::as_ptr(&ears.watches));
        if !self.ears.as_ref().is_some_and(of) {
            return;
        }
        let (said, again) = match why {
            Uncovered::Limit { .. } | Uncovered::Untold { .. } => (why.to_string(), RETRY_AFTER),
            Uncovered::Failed { source, .. } => (format!("{why}: {source}"), self.config.every_max),
        };
        self.ears = None;
        self.why_deaf = Some(said.into());
        self.listen_at = now + again;
        self.look_at = now + self.config.every_min;
        self.tell(None);
    }

    /// Takes in what has happened.
    fn read(&mut self, heard: io::Result<()>) {
        self.read_at = Instant::now() + READ_EVERY;
        let Some(ears) = &self.ears else { return };
        let tracker = self.shared.engine.tracker();
        let read = heard.and_then(|()| ears.watches.drain(tracker));
        if let Err(error) = read {
            tracker.shake(Shake::Deaf(error.to_string().into()));
        }
        self.wait_for_quiet();
    }

    /// Has what has changed applied when it has been quiet for a while.
    fn wait_for_quiet(&mut self) {
        let tracker = self.shared.engine.tracker();
        match tracker.unsteady() {
            Some(Shake::RootGone) if self.ears.is_some() => {
                self.ears = None;
                self.why_deaf = Some("the root was moved or deleted".into());
                // Another one may be in its place already.
                self.listen_at = Instant::now();
                self.look_at = self.listen_at;
            }
            Some(Shake::Deaf(why)) if self.ears.is_some() => {
                self.ears = None;
                self.why_deaf = Some(why);
                self.listen_at = Instant::now() + self.config.every_min;
                self.look_at = self.listen_at;
                self.tell(None);
            }
            _ => {}
        }
        // What nobody listens to is found by looks.
        if self.ears.is_none() || !tracker.is_behind() {
            return;
        }
        let now = Instant::now();
        let quiet = now + self.config.settle_after(self.n_floods);
        let settling =
            self.settling.get_or_insert(Settling { since: now, until: quiet, n_told: 0 });
        if settling.n_told == 0 {
            settling.until = quiet.min(settling.since + self.config.settle_max);
        }
    }

    /// It has been quiet.
    fn apply(&mut self) {
        let Some(settling) = &mut self.settling else { return };
        let tracker = self.shared.engine.tracker();
        let now = Instant::now();
        if settling.n_told == 0 {
            let is_flood = tracker.n_waiting() > self.config.flood;
            self.n_floods =
                if is_flood { self.n_floods + 1 } else { self.n_floods.saturating_sub(1) };
            // What git is about to do is one change.
            let git = self.shared.engine.root().join(".git/index.lock");
            if git.exists() && now < settling.since + GIT_WITHIN {
                settling.until = now + self.config.settle;
                return;
            }
        }
        if !tracker.is_behind() || self.shared.is_indexing() {
            self.settling = None;
            return self.tell(None);
        }
        // In vain while the synchronizer is restarting, and then again.
        let _unheard = self.told.send_now(Ask::Changed);
        settling.n_told += 1;
        let again = self.config.settle_max.saturating_mul(2_u32.saturating_pow(settling.n_told));
        settling.until = now + again.min(self.config.every_max);
        self.tell(None);
    }

    /// Looks whether the disk is what the repository holds.
    async fn look(&mut self) -> Result<(), Exit> {
        let config = self.config;
        let shared = Arc::clone(&self.shared);
        if *shared.paused.borrow() {
            self.look_at = Instant::now() + config.every_max;
            return Ok(());
        }
        let seat = match &shared.config.seats {
            Some(seats) => {
                let Ok(seat) = seats.checkout(config.every_max).await else {
                    // So many others look that this one had no turn: it is tried again.
                    self.look_at = Instant::now() + self.pause;
                    return Ok(());
                };
                Some(seat)
            }
            None => None,
        };
        let began = Instant::now();
        let own = Arc::clone(&shared);
        let look = move |checkpoint: &Checkpoint| {
            own.engine.is_readable()?;
            let stop = || checkpoint.check().is_err();
            // What events have told is no news.
            let is_known = own.engine.prove(&stop).is_some();
            let look = own.engine.look(&stop).map_err(io::Error::other)?;
            Ok((look, is_known))
        };
        let look: io::Result<_> = self.ctx.blocking(None, look).await?;
        drop(seat);
        let state = match look {
            Ok((look, is_known)) => {
                // Before the first crawl is done everything is news.
                let is_flood = look.n_changed > config.flood && !shared.is_indexing();
                if self.ears.is_none() {
                    self.n_floods =
                        if is_flood { self.n_floods + 1 } else { self.n_floods.saturating_sub(1) };
                }
                self.pause = config.pause_after(began.elapsed(), self.n_floods);
                if self.ears.is_some() {
                    self.pause = self.pause.max(config.every_max);
                }
                // What the crawl after the last hint couldn't change is no news.
                if look.differs && self.seen != Some(look) && !shared.is_indexing() {
                    self.seen = Some(look);
                    if is_known {
                        shared.engine.tracker().shake(Shake::Untold);
                    }
                    // In vain while the synchronizer is restarting: it will look itself.
                    let _unheard = self.told.send_now(Ask::Changed);
                }
                if self.ears.is_none() && Instant::now() >= self.listen_at || self.root_is_back() {
                    self.listen().await?;
                }
                None
            }
            Err(_) if self.ctx.is_stopping() => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.pause = config.every_max;
                Some(WatchState::Disabled(error.to_string().into()))
            }
            Err(error) => {
                self.pause = config.every_min;
                Some(WatchState::Unavailable(error.to_string().into()))
            }
        };
        if state.is_some() {
            self.ears = None;
        }
        self.look_at = Instant::now() + self.pause;
        self.tell(state);
        Ok(())
    }

    /// Whether a root that could not be looked at can be again, and is to be listened to.
    fn root_is_back(&self) -> bool {
        let before = self.shared.watching.borrow().state.clone();
        let was_gone = matches!(before, WatchState::Unavailable(_) | WatchState::Disabled(_));
        self.ears.is_none() && was_gone
    }

    /// Makes known how it stands, and logs each change of the state once. `None` for what the ears
    /// say.
    fn tell(&self, state: Option<WatchState>) {
        let state = state.unwrap_or_else(|| match (&self.ears, &self.why_deaf) {
            (Some(_), _) => WatchState::Native,
            (None, _) if *self.shared.paused.borrow() => WatchState::Paused,
            (None, why) => {
                WatchState::Polling(why.clone().unwrap_or_else(|| "there are no events".into()))
            }
        });
        let settle = self.config.settle_after(self.n_floods);
        let now = WatchStatus { state, pause: self.pause, settle };
        let before = self.shared.watching.send_replace(now.clone());
        if before.state == now.state {
            return;
        }
        let root = self.shared.engine.root().display();
        match &now.state {
            WatchState::Native => tracing::info!(%root, "watched"),
            WatchState::Paused => tracing::info!(%root, "not watched: paused"),
            WatchState::Polling(reason) => {
                tracing::warn!(%root, %reason, "looked at from time to time instead of watched");
            }
            WatchState::Unavailable(reason) => {
                tracing::warn!(%root, %reason, "cannot look at the root; it will be tried again");
            }
            WatchState::Disabled(reason) => {
                tracing::error!(%root, %reason, "not watched until the root may be read again");
            }
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
