//! `incremental_updater`: catches up in the background with what has changed, so that the next
//! query finds it parsed. What events told of is one transaction; where they don't say enough the
//! root is walked. One at a time; hints that come meanwhile are one more. When the repository gives
//! up what it held, this reads everything again.

use super::{Shared, SyncHandle};
use crate::RefreshError;
use astscope_repository::service::CoreState;
use astscope_supervision::{Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, Service};
use std::future::pending;
use std::sync::Arc;
use tokio::sync::watch;

/// Something has changed.
pub(super) struct Update;

pub(super) fn service(handle: &SyncHandle) -> ChildSpec {
    ChildSpec::service::<Updater>(&handle.updater, Arc::clone(&handle.shared))
}

struct Updater(Arc<Shared>);

impl Service for Updater {
    type Args = Arc<Shared>;
    type Message = Update;

    async fn init(shared: Arc<Shared>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(shared)))
    }

    async fn run(self, mut mailbox: Mailbox<Update>, ctx: Ctx) -> Result<(), Exit> {
        let mut repository = self.0.config.repository.clone();
        let mut corruptions = repository.as_ref().map_or(0, |state| state.borrow().corruptions);
        loop {
            let is_lost = tokio::select! {
                update = mailbox.recv() => match update {
                    Some(Update) => false,
                    None => return Ok(()),
                },
                now = corrupted(&mut repository, corruptions) => {
                    corruptions = now;
                    let root = self.0.engine.root().display();
                    tracing::warn!(%root, "what was stored was damaged; the files are read again");
                    true
                }
            };
            let shared = Arc::clone(&self.0);
            let catch_up = move |checkpoint: &Checkpoint| {
                let (engine, stop) = (&shared.engine, || checkpoint.check().is_err());
                if is_lost || engine.tracker().unsteady().is_some() {
                    shared.reconcile(engine.pool(), &stop, &|_, _| {})?;
                }
                engine.catch_up(usize::MAX, &stop);
                Ok::<_, RefreshError>(())
            };
            let root = self.0.engine.root().display();
            match ctx.blocking(None, catch_up).await? {
                Ok(()) => tracing::debug!(%root, "caught up"),
                Err(error) => tracing::debug!(%root, %error, "not caught up"),
            }
        }
    }
}

/// Waits until the repository was given up once more, and tells how often it was so far.
async fn corrupted(repository: &mut Option<watch::Receiver<CoreState>>, before: u64) -> u64 {
    if let Some(state) = repository
        && let Ok(state) = state.wait_for(|state| state.corruptions > before).await
    {
        return state.corruptions;
    }
    pending().await // nobody can tell any more
}
