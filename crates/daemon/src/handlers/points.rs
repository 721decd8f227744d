//! `points`: where one file's code could be observed.

use super::parse::{Wanted, parsed};
use crate::daemon::Daemon;
use crate::errors;
use crate::request::RequestContext;
use astscope_parsing::instrumentation::{
    Level, MapConfig, Point, estimate_performance_impact, points_until,
};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{PointRecord, PointsLevel, PointsParams, PointsResult, Position};
use astscope_querying::QueryError;
use std::time::Duration;

/// How long a file waits for its points, and for whoever finds them to be restarted: as queries wait
/// for their services.
const MAP_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn points(
    daemon: &Daemon,
    context: &RequestContext,
    params: &PointsParams,
) -> Result<PointsResult, RpcError> {
    let wanted = Wanted {
        cwd: &params.cwd,
        path: params.path.as_deref(),
        text: params.text.as_deref(),
        language: params.language.as_deref(),
    };
    let (file, workspace) = parsed(daemon, context, &wanted)?;
    let language = file.language.name().to_owned();
    let config = MapConfig::of(match params.level {
        PointsLevel::Minimal => Level::Minimal,
        PointsLevel::Balanced => Level::Balanced,
        PointsLevel::Comprehensive => Level::Comprehensive,
        PointsLevel::Debug => Level::Debug,
    });
    let given_up = || errors::query(QueryError::Cancelled);
    let found = match workspace {
        Some(workspace) => context.runtime.block_on(async {
            tokio::select! {
                biased;
                () = context.cancelled.cancelled() => Err(given_up()),
                mapped = workspace.parsing.map(MAP_WITHIN, file, config) => {
                    mapped.map_err(|error| errors::map(&error))
                }
            }
        })?,
        None => points_until(&file, &config, &mut || context.interrupt().is_some())
            .ok_or_else(given_up)?,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
    let impact_percent = (estimate_performance_impact(&found) * 100.0).round() as u32;
    Ok(PointsResult { language, impact_percent, points: found.iter().map(record).collect() })
}

fn record(point: &Point) -> PointRecord {
    PointRecord {
        id: point.id.to_string(),
        correlation: point.correlation(),
        kind: point.kind.name().to_owned(),
        strategy: point.strategy.name().to_owned(),
        priority: point.priority,
        language: point.language.name().to_owned(),
        symbol: point.symbol.clone(),
        name: point.name.clone(),
        arity: point.arity,
        public: point.is_public,
        pattern_matching: point.has_pattern_matching,
        guards: point.has_guards,
        captures: point.kind.captures().iter().map(|&what| what.to_owned()).collect(),
        start: Position { line: point.position.line, column: point.position.column },
    }
}
