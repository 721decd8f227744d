//! What each request asks for: parameters in, the right crate called, an answer out.

mod explain;
mod parse;
mod query;
mod status;

use crate::daemon::Daemon;
use crate::errors;
use crate::request::RequestContext;
use astscope_protocol::frame::{Request, RpcError};
use astscope_protocol::messages::{ErrorCode, OpenParams, method};
use serde_json::value::RawValue;
use std::sync::Arc;

/// Answers a request, or says why not. Runs on a thread that may block.
pub(crate) fn handle(
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: &Request,
) -> Result<Box<RawValue>, RpcError> {
    match request.method.as_str() {
        method::RUN => query::run(daemon, context, &request.params()?).and_then(|it| answer(&it)),
        method::SCAN => query::scan(daemon, context, request.params()?).and_then(|it| answer(&it)),
        method::EXPLAIN => {
            explain::explain(daemon, context, &request.params()?).and_then(|it| answer(&it))
        }
        method::PARSE => parse::parse(&context, &request.params()?).and_then(|it| answer(&it)),
        method::OPEN => open(daemon, &context, &request.params()?).and_then(|it| answer(&it)),
        method::STATUS => answer(&status::status(daemon, &request.params()?)),
        other => {
            let message = format!("there is no method `{other}`");
            Err(RpcError::new(ErrorCode::UnknownMethod, message))
        }
    }
}

fn open(
    daemon: &Arc<Daemon>,
    context: &RequestContext,
    params: &OpenParams,
) -> Result<astscope_protocol::messages::WorkspaceStatus, RpcError> {
    let path = errors::absolute("path", &params.path)?;
    let workspace =
        daemon.workspaces.open_explicit(daemon, path).map_err(|error| errors::root(&error))?;
    let stop = || context.interrupt().is_some();
    let progress = context.progress("indexing");
    workspace
        .synchronizer
        .crawl(&stop, &progress)
        .map_err(|error| errors::refresh(&error, context))?;
    // The crawl in the background may have a little left to do, but nothing to find.
    workspace.indexed_since(context.started);
    Ok(status::workspace(&workspace, false))
}

fn answer(result: &impl serde::Serialize) -> Result<Box<RawValue>, RpcError> {
    serde_json::value::to_raw_value(result).map_err(|error| {
        RpcError::new(ErrorCode::Internal, format!("cannot encode the answer: {error}"))
    })
}
