//! What each request asks for: parameters in, the right crate called, an answer out.
//!
//! Queries take turns and run under the executor of their workspace; what looks at a disk runs on a
//! thread that may block; the rest is answered at once.

mod changes;
mod explain;
pub(crate) mod operations;
mod parse;
mod points;
mod query;
pub(crate) mod status;
pub(crate) mod subscribe;
mod sync;

use crate::daemon::Daemon;
use crate::errors;
use crate::request::RequestContext;
use crate::workspace::Workspace;
use astscope_performance_optimizer::service::Timing;
use astscope_protocol::frame::{Request, RpcError};
use astscope_protocol::messages::{
    Delivery, ErrorCode, OpenOutcome, OpenParams, Selection, WorkspaceStatus, method,
};
use astscope_querying::service::ExecuteError;
use astscope_supervision::{Ctx, Exit, SendError};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request's result as JSON text, or why there is none.
pub(crate) type Answered = Result<Box<RawValue>, RpcError>;

/// Answers a request, or says why not.
///
/// # Errors
/// When the handler itself ended without an answer.
pub(crate) async fn handle(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
) -> Result<Answered, Exit> {
    let answered = match request.method.as_str() {
        method::RUN | method::SCAN | method::EXPLAIN => {
            return query(ctx, daemon, context, request).await;
        }
        method::OPEN => return open(ctx, daemon, context, request).await,
        method::SYNC => return sync::sync(ctx, daemon, context, request).await,
        method::CHANGES => return changes::changes(ctx, daemon, context, request).await,
        method::SUBSCRIBE => subscribe::subscribe(ctx, daemon, context, &request).await,
        method::UNSUBSCRIBE => subscribe::unsubscribe(&context, &request).await,
        method::PARSE => {
            let daemon = Arc::clone(daemon);
            let work = move |_: &_| {
                parse::parse(&daemon, &context, &request.params()?).and_then(|it| answer(&it))
            };
            return ctx.blocking(None, work).await;
        }
        method::POINTS => {
            let daemon = Arc::clone(daemon);
            let work = move |_: &_| {
                points::points(&daemon, &context, &request.params()?).and_then(|it| answer(&it))
            };
            return ctx.blocking(None, work).await;
        }
        method::STATUS => {
            let daemon = Arc::clone(daemon);
            let work = move |_: &_| answer(&status::status(&daemon, &request.params()?));
            return ctx.blocking(None, work).await;
        }
        method::TREE => match request.params() {
            Ok(params) => operations::tree(daemon, params).await.and_then(|it| answer(&it)),
            Err(error) => Err(error),
        },
        method::EVENTS => {
            request.params().and_then(|params| answer(&operations::events(daemon, params)))
        }
        method::CONFIG => answer(&operations::config(daemon)),
        method::HEALTH => answer(&operations::health(daemon).await),
        method::KILL => match request.params() {
            Ok(params) => {
                operations::kill(daemon, params).await.and_then(|()| answer(&serde_json::json!({})))
            }
            Err(error) => Err(error),
        },
        method::FAULT => match request.params() {
            Ok(params) => operations::fault(daemon, params)
                .await
                .and_then(|()| answer(&serde_json::json!({}))),
            Err(error) => Err(error),
        },
        other => {
            let message = format!("there is no method `{other}`");
            Err(RpcError::new(ErrorCode::UnknownMethod, message))
        }
    };
    Ok(answered)
}

/// How often a query looks for its workspace's services when they go while it asks them.
const HOME_TRIES: u32 = 3;

/// What decides where and until when a query runs.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Terms {
    selection: Selection,
    delivery: Delivery,
}

/// Runs a query under the executor of the workspace that it is about.
async fn query(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
) -> Result<Answered, Exit> {
    let terms: Terms = match request.params() {
        Ok(terms) => terms,
        Err(error) => return Ok(Err(error)),
    };
    let context = match context.with_deadline_ms(terms.delivery.deadline_ms) {
        Ok(context) => context,
        Err(error) => return Ok(Err(error)),
    };
    let (own, selection) = (Arc::clone(daemon), Arc::new(terms.selection));
    let work = move |context: &RequestContext| match request.method.as_str() {
        method::RUN => query::run(&own, context, &request.params()?).and_then(|it| answer(&it)),
        method::SCAN => query::scan(&own, context, &request.params()?).and_then(|it| answer(&it)),
        _ => explain::explain(&own, context, &request.params()?).and_then(|it| answer(&it)),
    };
    at_home(ctx, daemon, context, selection, work).await
}

/// Runs work about a selection under the executor of the workspace that it is about.
///
/// # Errors
/// When whoever looked for that workspace ended.
async fn at_home<R: Send + 'static>(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    selection: Arc<Selection>,
    work: impl Fn(&RequestContext) -> Result<R, RpcError> + Clone + Send + 'static,
) -> Result<Result<R, RpcError>, Exit> {
    let mut n_tries = 0;
    loop {
        n_tries += 1;
        let (own, asked) = (Arc::clone(daemon), Arc::clone(&selection));
        let home = match ctx.blocking(None, move |_| own.workspaces.home(&own, &asked)).await? {
            Ok(home) => home,
            Err(error) => return Ok(Err(error)),
        };
        match run_at(daemon, home.as_deref(), context.clone(), work.clone()).await {
            // Its services went between the two: the next look at its home starts them again.
            Err(ExecuteError::Unavailable(SendError::Gone)) if n_tries < HOME_TRIES => {}
            answered => {
                return Ok(answered.unwrap_or_else(|error| Err(errors::execute(&error))));
            }
        }
    }
}

/// Runs work under the executor of this workspace, or of those without one.
async fn run_at<R: Send + 'static>(
    daemon: &Daemon,
    home: Option<&Workspace>,
    context: RequestContext,
    work: impl FnOnce(&RequestContext) -> R + Send + 'static,
) -> Result<R, ExecuteError> {
    let executor = home.map_or(&daemon.one_shot, |home| &home.executor);
    let results = home.map_or(&daemon.one_shot_results, |home| &home.results);
    let context = RequestContext {
        patterns: home.map(|home| home.patterns.clone()),
        results: Some(results.clone()),
        ..context
    };
    let (deadline, give_up) = (context.deadline.map(Into::into), context.cancelled.clone());
    let span = tracing::Span::current();
    let work = move |turn: &_| {
        let _entered = span.enter();
        work(&context.on_turn(turn))
    };
    let began = Instant::now();
    let answered = executor.execute(deadline, &give_up, work).await;
    if let Some(home) = home {
        home.optimizer.meter().time(Timing::Query, began.elapsed());
    }
    answered
}

/// Opens a root, and answers when it is indexed.
async fn open(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
) -> Result<Answered, Exit> {
    let resolve = move |_: &_| -> Result<PathBuf, RpcError> {
        let params: OpenParams = request.params()?;
        let path = errors::absolute("path", &params.path)?;
        astscope_synchronization::roots::explicit(path).map_err(|error| errors::root(&error))
    };
    let root = match ctx.blocking(None, resolve).await? {
        Ok(root) => root,
        Err(error) => return Ok(Err(error)),
    };
    let indexed = async {
        let workspace = daemon.workspaces.open_ready(daemon, root).await?;
        let giving_up = context.clone();
        let stop = Arc::new(move || giving_up.interrupt().is_some());
        let progress = Arc::new(context.progress("indexing"));
        let sync = workspace.sync.clone();
        let crawl = async move { sync.crawl(stop, progress).await };
        let task = workspace.tasks.spawn(crawl).await;
        let task = task.map_err(|error| errors::workspace(&workspace.root, &error))?;
        // The crawl has no deadline but its client's, which stops it.
        let crawled = task.join(Duration::MAX).await.map_err(|error| errors::task(&error))?;
        crawled.map_err(|error| errors::sync(&error, &context))?;
        let outcome = Some(OpenOutcome::AstLayerStarted);
        answer(&WorkspaceStatus { outcome, ..status::workspace(daemon, &workspace, false) })
    };
    Ok(indexed.await)
}

/// The workspace that serves a path, made one if there is none, for a request with this deadline.
async fn workspace_of(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    path: String,
    deadline_ms: Option<u64>,
) -> Result<Result<(Arc<Workspace>, RequestContext), RpcError>, Exit> {
    let daemon = Arc::clone(daemon);
    let find = move |_: &_| {
        let context = context.with_deadline_ms(deadline_ms)?;
        let path = errors::absolute("path", &path)?;
        Ok((daemon.workspaces.of(&daemon, path)?, context))
    };
    ctx.blocking(None, find).await
}

fn answer(result: &impl serde::Serialize) -> Answered {
    serde_json::value::to_raw_value(result).map_err(|error| {
        RpcError::new(ErrorCode::Internal, format!("cannot encode the answer: {error}"))
    })
}
