//! `explain`: the plan of a `run`, carried out and counted, nothing sent.

use super::query;
use crate::daemon::Daemon;
use crate::request::RequestContext;
use crate::{errors, wire};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{Explanation, PlanStep, RunParams};
use astscope_querying::Bounds;
use astscope_querying::service::Recalled;
use astscope_repository::ScopedFile;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub(crate) fn explain(
    daemon: &Arc<Daemon>,
    context: &RequestContext,
    params: &RunParams,
) -> Result<Explanation, RpcError> {
    if params.selection.stdin.is_some() {
        return Err(errors::params(
            "text from standard input has no plan: it is searched as it is",
        ));
    }
    let language = query::language_of(params.language.as_deref())?;
    let mut micros = BTreeMap::new();
    let mut last = Instant::now();
    let mut lap = |stage: &str| {
        let now = Instant::now();
        let spent = u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX);
        last = now;
        micros.insert(stage.to_owned(), spent);
    };
    let wanted = language.map(|language| vec![language]);
    let scope = daemon.workspaces.scope(
        daemon,
        context,
        &params.selection,
        wanted,
        wire::wait(&params.delivery)?,
    )?;
    lap("refresh");
    let compiled = query::compile(params, language, &scope, context)?;
    lap("plan");
    let interrupt = || context.interrupt();
    let bounds = Bounds { limit: params.delivery.limit.unwrap_or(u64::MAX), interrupt: &interrupt };
    let recalled = query::recall_run(context, params);
    let search = |file: &ScopedFile, limit: usize| {
        query::search(&compiled, params, context, recalled.as_ref(), file, limit)
    };
    let plan = astscope_querying::explain(&compiled, &scope.files, &daemon.pool, &bounds, &search);
    let files_remembered = recalled.map_or(0, Recalled::finish);
    let plan = plan.map_err(errors::query)?;
    lap("match");
    Ok(Explanation {
        revision: scope.revision.map(wire::revision),
        freshness: scope.lag.as_ref().map(wire::freshness),
        requirements: plan.requirements,
        steps: plan
            .steps
            .into_iter()
            .map(|(step, files)| PlanStep { step: step.to_owned(), files })
            .collect(),
        files_verified: plan.totals.files_verified,
        files_remembered,
        files_matched: plan.totals.files_matched,
        matches: plan.totals.matches,
        micros,
        hints: compiled.hints().to_vec(),
    })
}
