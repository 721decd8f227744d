//! `sync`: a workspace is paused, resumed, or brought up to date.

use super::{Answered, answer, status, workspace_of};
use crate::daemon::Daemon;
use crate::errors;
use crate::request::RequestContext;
use astscope_protocol::frame::Request;
use astscope_protocol::messages::{SyncAction, SyncParams};
use astscope_supervision::{Ctx, Exit};
use std::sync::Arc;

pub(crate) async fn sync(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
) -> Result<Answered, Exit> {
    let params: SyncParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Ok(Err(error)),
    };
    let SyncParams { path, action, deadline_ms } = params;
    let (workspace, context) = match workspace_of(ctx, daemon, context, path, deadline_ms).await? {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let giving_up = context.clone();
    let stop = Arc::new(move || giving_up.interrupt().is_some());
    let progress = Arc::new(context.progress("indexing"));
    let sync = &workspace.sync;
    let done = match action {
        SyncAction::Flush => sync.flush(stop, progress).await,
        SyncAction::Rescan => sync.crawl(stop, progress).await,
        SyncAction::Pause => {
            sync.set_paused(true).await;
            Ok(())
        }
        SyncAction::Resume => {
            sync.set_paused(false).await;
            sync.crawl(stop, progress).await
        }
    };
    if let Err(error) = done {
        return Ok(Err(errors::sync(&error, &context)));
    }
    let own = Arc::clone(daemon);
    let status = move |_: &_| answer(&status::workspace(&own, &workspace, false));
    ctx.blocking(None, status).await
}
