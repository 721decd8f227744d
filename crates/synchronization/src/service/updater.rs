//! `incremental_updater`: catches up in the background with what has changed, so that the next
//! query finds it parsed. One crawl at a time; hints that come meanwhile are one more.

use super::{Shared, SyncHandle};
use astscope_supervision::{Checkpoint, ChildSpec, Ctx, Exit, Init, Mailbox, Service};
use std::sync::Arc;

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
        while let Some(Update) = mailbox.recv().await {
            let shared = Arc::clone(&self.0);
            let crawl = move |checkpoint: &Checkpoint| {
                let stop = || checkpoint.check().is_err();
                shared.engine.crawl(&stop, &|_, _| {}).map_err(|error| error.to_string())
            };
            let root = self.0.engine.root().display();
            match ctx.blocking(None, crawl).await? {
                Ok(summary) => tracing::debug!(%root, files = summary.files, "caught up"),
                Err(error) => tracing::debug!(%root, error, "not caught up"),
            }
        }
        Ok(())
    }
}
