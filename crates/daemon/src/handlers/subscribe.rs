//! `subscribe`: what a query has found, as often as that may have changed.

use super::query::{Scan, compile, language_of, recall_run, recall_scan, search};
use super::{Answered, answer, at_home};
use crate::daemon::Daemon;
use crate::records::Records;
use crate::request::RequestContext;
use crate::subscriptions::Subscription;
use crate::workspace::Workspace;
use crate::{connection, errors, wire};
use astscope_protocol::frame::{Request, RpcError};
use astscope_protocol::messages::{
    Delivery, Matches, RunParams, ScanParams, Selection, SubscribeParams, SubscribeResult,
    UnsubscribeParams,
};
use astscope_protocol::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_MATCHES_MAX};
use astscope_querying::{Bounds, FileDifference, Gone, PatternQuery, Standing, execute};
use astscope_repository::{Revision, Scope, ScopedFile};
use astscope_supervision::Ctx;
use astscope_synchronization::service::Wait;
use astscope_syntax::Language;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is asked again and again.
#[derive(Debug)]
pub(crate) enum Query {
    /// A pattern, which each look compiles for the languages of the files that there are.
    Run { params: Box<RunParams>, language: Option<Language> },
    /// Rules.
    Scan { params: Box<ScanParams>, scan: Box<Scan> },
}

/// What a look at the files has shown.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Whose files they are.
    pub(crate) workspace: Arc<Workspace>,
    /// What is found.
    pub(crate) standing: Arc<Standing<Matches>>,
    /// How that differs from the look before.
    pub(crate) differences: Vec<FileDifference<Matches>>,
    /// The revision that has all of it.
    pub(crate) revision: Revision,
    /// The newest revision before it looked. What was committed while it looked may have been seen
    /// or not.
    pub(crate) began_at: Revision,
    /// How long it took, its turn included.
    pub(crate) took: Duration,
    pattern_has_error: bool,
    hints: Vec<String>,
}

/// Begins a subscription. What it is told comes after the answer.
pub(crate) async fn subscribe(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: &Request,
) -> Answered {
    let SubscribeParams { run, scan, no_initial } = request.params()?;
    let query = Arc::new(Query::compile(run, scan)?);
    let context = context.with_deadline_ms(query.delivery().deadline_ms)?;
    let first = look(ctx, daemon, context.clone(), &query, None).await?;
    let (revision, matches) = (wire::revision(first.revision), n_matches(&first.standing));
    let (pattern_has_error, hints) = (first.pattern_has_error, first.hints.clone());
    let begun = Subscription::new(daemon, &context, query, first, no_initial);
    let subscription = context.subscriptions.start(begun, &context).await?;
    answer(&SubscribeResult { subscription, revision, matches, pattern_has_error, hints })
}

/// Ends a subscription, unless it has ended.
pub(crate) async fn unsubscribe(context: &RequestContext, request: &Request) -> Answered {
    let UnsubscribeParams { subscription } = request.params()?;
    context.subscriptions.end(subscription).await?;
    answer(&serde_json::json!({}))
}

/// What makes no sense for a query that stands.
fn refuse(delivery: &Delivery, selection: &Selection) -> Result<(), RpcError> {
    let Delivery { limit, no_wait, wait_ms, files_only, include_source, .. } = *delivery;
    for (name, is_there) in [
        ("limit", limit.is_some()),
        ("noWait", no_wait),
        ("waitMs", wait_ms.is_some()),
        ("filesOnly", files_only),
        ("includeSource", include_source),
        ("stdin", selection.stdin.is_some()),
    ] {
        if is_there {
            return Err(errors::params(format!("a subscription can't have `{name}`")));
        }
    }
    Ok(())
}

/// Looks at the files that are selected now, and searches those that are other than in the look
/// before.
pub(crate) async fn look(
    ctx: &Ctx,
    daemon: &Arc<Daemon>,
    context: RequestContext,
    query: &Arc<Query>,
    last: Option<&Look>,
) -> Result<Look, RpcError> {
    let started = Instant::now();
    let last = last.map(|last| (Arc::clone(&last.workspace), Arc::clone(&last.standing)));
    let (own, query) = (Arc::clone(daemon), Arc::clone(query));
    let selection = Arc::new(query.selection().clone());
    let work = move |context: &RequestContext| {
        let home = own.workspaces.sole(&own, query.selection());
        let (workspace, before) = match &last {
            // What was there may be gone for a while: then nothing is found there.
            Some((known, before)) => (home.unwrap_or_else(|_| Arc::clone(known)), before),
            None => (home?, &Arc::default()),
        };
        query.look(&own, context, workspace, before)
    };
    let looked = at_home(ctx, daemon, context, selection, work).await;
    let looked = looked.unwrap_or_else(|exit| Err(connection::ended(&exit, daemon.is_leaving())));
    looked.map(|looked| Look { took: started.elapsed(), ..looked })
}

impl Query {
    fn compile(run: RunParams, scan: Option<ScanParams>) -> Result<Self, RpcError> {
        if let Some(params) = scan {
            refuse(&params.delivery, &params.selection)?;
            let scan = Box::new(Scan::compile(&params)?);
            return Ok(Self::Scan { params: Box::new(params), scan });
        }
        refuse(&run.delivery, &run.selection)?;
        let language = language_of(run.language.as_deref())?;
        Ok(Self::Run { params: Box::new(run), language })
    }

    fn selection(&self) -> &Selection {
        match self {
            Self::Run { params, .. } => &params.selection,
            Self::Scan { params, .. } => &params.selection,
        }
    }

    fn delivery(&self) -> &Delivery {
        match self {
            Self::Run { params, .. } => &params.delivery,
            Self::Scan { params, .. } => &params.delivery,
        }
    }

    fn look(
        &self,
        daemon: &Arc<Daemon>,
        context: &RequestContext,
        workspace: Arc<Workspace>,
        before: &Standing<Matches>,
    ) -> Result<Look, RpcError> {
        let began_at = workspace.repository.snapshot().revision();
        let wanted = match self {
            Self::Run { language, .. } => language.map(|language| vec![language]),
            Self::Scan { scan, .. } => Some(scan.languages()),
        };
        let wait = Some(Wait::Done);
        let scope = daemon.workspaces.scope(daemon, context, self.selection(), wanted, wait)?;
        let (compiled, recalled) = match self {
            Self::Run { params, language } => {
                (Some(compile(params, *language, &scope, context)?), recall_run(context, params))
            }
            Self::Scan { params, scan } => (None, recall_scan(context, params, scan)),
        };
        let Scope { files, revision, .. } = scope;
        let mut found = BTreeMap::new();
        let mut take = |file: &ScopedFile, records: Records| -> Result<(), Gone> {
            found.insert(Arc::clone(&file.display), records.into_matches());
            Ok(())
        };
        let interrupt = || context.interrupt();
        // One more than allowed is enough to know.
        let bounds = Bounds { limit: SUBSCRIPTION_MATCHES_MAX + 1, interrupt: &interrupt };
        let search = |file: &ScopedFile, limit: usize| match self {
            Self::Run { params, .. } => {
                search(compiled.as_ref()?, params, context, recalled.as_ref(), file, limit)
            }
            Self::Scan { scan, .. } => scan.search(context, recalled.as_ref(), file, limit),
        };
        let unsearched = before.unsearched(&files);
        let totals = execute(&unsearched, &daemon.pool, &bounds, &search, &mut take);
        if let Some(recalled) = recalled {
            recalled.finish();
        }
        totals.map_err(|error| errors::query(context.interrupt().map_or(error, Into::into)))?;
        let (standing, differences) = before.advance(&files, &found);
        let n_bytes: usize = standing.found().map(Matches::heap_bytes).sum();
        if n_matches(&standing) > SUBSCRIPTION_MATCHES_MAX
            || n_bytes as u64 > SUBSCRIPTION_BYTES_MAX
        {
            return Err(errors::too_many_matches());
        }
        Ok(Look {
            workspace,
            standing: Arc::new(standing),
            differences,
            // Without one, nothing that is selected is indexed.
            revision: revision.unwrap_or(began_at),
            began_at,
            took: Duration::ZERO,
            pattern_has_error: compiled.as_ref().is_some_and(PatternQuery::pattern_has_error),
            hints: compiled.map_or_else(Vec::new, |compiled| compiled.hints().to_vec()),
        })
    }
}

fn n_matches(standing: &Standing<Matches>) -> u64 {
    standing.found().map(|matches| matches.len() as u64).sum()
}
