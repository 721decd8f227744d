//! `changes`: which files of a workspace are not what they were at an earlier revision.

use super::{Answered, answer, workspace_of};
use crate::daemon::Daemon;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_protocol::frame::{Request, RpcError};
use astscope_protocol::messages::{ChangesParams, ChangesResult};
use astscope_repository::Changes;
use astscope_supervision::{Ctx, Exit};
use astscope_synchronization::WalkSpec;
use astscope_synchronization::service::Wait;
use std::path::Path;
use std::sync::Arc;

pub(crate) async fn changes(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
) -> Result<Answered, Exit> {
    let params: ChangesParams = match request.params() {
        Ok(params) => params,
        Err(error) => return Ok(Err(error)),
    };
    let ChangesParams { path, since, deadline_ms } = params;
    let (workspace, context) = match workspace_of(ctx, daemon, context, path, deadline_ms).await? {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    // As a query of the whole root: what was written before this was asked is committed then.
    let everything = WalkSpec::all_of(&workspace.root);
    let giving_up = context.clone();
    let stop = Arc::new(move || giving_up.interrupt().is_some());
    let progress = Arc::new(context.progress("indexing"));
    let refreshed = workspace.sync.refresh(everything, Wait::Done, stop, progress).await;
    if let Err(error) = refreshed {
        return Ok(Err(errors::sync(&error, &context)));
    }
    let newest = workspace.repository.snapshot().revision();
    let changes = workspace.repository.changes_since(since.map_or(newest, wire::revision_of));
    let changes: Result<_, RpcError> = changes.map_err(|gone| errors::history(&gone));
    Ok(changes.and_then(|changes| answer(&told(&workspace.root, &changes))))
}

fn told(root: &Path, changes: &Changes) -> ChangesResult {
    let relative = |paths: &[Arc<Path>]| {
        let relative = |path: &Arc<Path>| {
            path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
        };
        paths.iter().map(relative).collect()
    };
    ChangesResult {
        root: root.to_string_lossy().into_owned(),
        revision: wire::revision(changes.revision),
        added: relative(&changes.added),
        changed: relative(&changes.changed),
        removed: relative(&changes.removed),
    }
}
