//! What is asked about the daemon itself: its tree, its health, and that one of its parts ends or
//! fails.

use super::status::breakers;
use crate::daemon::Daemon;
use crate::foundation::config::{Settings, Source, in_words};
use crate::foundation::event_bus::Published;
use crate::telemetry::Measured;
use crate::workspace::Workspace;
use astscope_memory_manager::Level;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    BreakerState, BreakerStatus, ConfigResult, ErrorCode, EventRecord, EventsParams, EventsResult,
    FaultKind, FaultParams, FaultPoint, HealthDetail, HealthResult, HealthStatus, HealthVerdict,
    KillParams, ServiceHealth, SettingRecord, SettingSource, SettingsError, TreeFormat, TreeParams,
    TreeResult, WorkspaceHealth,
};
use astscope_supervision::{ChildRef, Dependencies, Fault, Health, Point, Supervisor, Verdict};
use serde_json::value::to_raw_value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the parts of the tree may take to answer; one that doesn't is shown as such.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// A service that has been at work for so long without progress hangs. None works for longer than a
/// few milliseconds between two messages.
const HUNG_AFTER: Duration = Duration::from_secs(10);

fn root(daemon: &Daemon) -> Result<Supervisor, RpcError> {
    let root = daemon.root.get().map(|root| root.within(LOOK_WITHIN));
    root.ok_or_else(|| RpcError::new(ErrorCode::Restarting, "the daemon is still starting"))
}

pub(crate) async fn tree(daemon: &Daemon, params: TreeParams) -> Result<TreeResult, RpcError> {
    let tree = root(daemon)?.tree().await;
    Ok(match params.format {
        TreeFormat::Text => TreeResult { text: Some(tree.to_string()), tree: None },
        TreeFormat::Mermaid => TreeResult { text: Some(tree.to_mermaid()), tree: None },
        // Names and numbers always serialise.
        TreeFormat::Json => TreeResult { tree: to_raw_value(&tree).ok(), text: None },
    })
}

pub(crate) async fn kill(daemon: &Daemon, params: KillParams) -> Result<(), RpcError> {
    let child = node(daemon, &params.path).await?;
    tracing::warn!(path = params.path, "killed by request");
    child.kill();
    Ok(())
}

pub(crate) async fn fault(daemon: &Daemon, params: FaultParams) -> Result<(), RpcError> {
    let FaultParams { path, fault, slow_ms, at } = params;
    node(daemon, &path).await?;
    let root = root(daemon)?;
    if root.supervisor_at(&path).await.is_some() {
        let message = format!("{path:?} is a supervisor, which has no faults");
        return Err(RpcError::new(ErrorCode::InvalidParams, message));
    }
    tracing::warn!(path, ?fault, ?at, "armed by request");
    let fault = match fault {
        FaultKind::Panic => Fault::Panic,
        FaultKind::Error => Fault::Error,
        FaultKind::Hang => Fault::Hang,
        FaultKind::Slow => Fault::Slow(Duration::from_millis(slow_ms.unwrap_or(0))),
    };
    let at = match at {
        FaultPoint::Init => Point::Init,
        FaultPoint::Run => Point::Run,
        FaultPoint::Stop => Point::Stop,
    };
    daemon.probe.arm(format!("{}/{path}", root.id()), at, fault, 1);
    Ok(())
}

/// The node at a path, where nodes may be hurt.
async fn node(daemon: &Daemon, path: &str) -> Result<ChildRef, RpcError> {
    if !daemon.settings.allow_debug {
        let message = "the daemon was started without `--allow-debug`";
        return Err(RpcError::new(ErrorCode::NotAllowed, message));
    }
    let child = root(daemon)?.child_at(path).await;
    child.ok_or_else(|| {
        RpcError::new(ErrorCode::NodeNotFound, format!("the tree has no node {path:?}"))
    })
}

pub(crate) async fn health(daemon: &Daemon) -> HealthResult {
    let counts = daemon.telemetry.call(LOOK_WITHIN, Measured::Counts).await;
    let workspaces: Vec<_> =
        daemon.workspaces.all().iter().map(|workspace| workspace_health(workspace)).collect();
    let details = details(daemon);
    let is_well = workspaces.iter().all(|it| it.status == HealthStatus::Healthy)
        && details.iter().all(|it| it.verdict == HealthVerdict::Healthy);
    HealthResult {
        status: if is_well { HealthStatus::Healthy } else { HealthStatus::Degraded },
        timestamp_ms: millis_of(SystemTime::now()),
        workspaces,
        details,
        requests: counts.unwrap_or_default(),
    }
}

/// What may change while the daemon runs.
pub(crate) fn config(daemon: &Daemon) -> ConfigResult {
    let Settings { log, idle_timeout, watch, settle, scrub, problem } = daemon.config.now();
    let record = |name: &str, source, value| SettingRecord {
        name: name.to_owned(),
        value,
        source: match source {
            Source::Default => SettingSource::Default,
            Source::File => SettingSource::File,
            Source::Start => SettingSource::Start,
        },
    };
    ConfigResult {
        settings: vec![
            record("log", log.source, log.value),
            record("idle_timeout", idle_timeout.source, idle_timeout.value.to_string()),
            record("watch.every_min", watch.min.source, in_words(watch.min.value)),
            record("watch.every_max", watch.max.source, in_words(watch.max.value)),
            record("watch.settle", settle.min.source, in_words(settle.min.value)),
            record("watch.settle_max", settle.max.source, in_words(settle.max.value)),
            record("scrub", scrub.source, scrub.value.to_string()),
        ],
        file: daemon.config.file().map(|file| file.to_string_lossy().into_owned()),
        error: problem.map(|problem| SettingsError {
            line: problem.line.map(|line| line as u64),
            message: problem.message,
        }),
    }
}

pub(crate) fn events(daemon: &Daemon, params: EventsParams) -> EventsResult {
    let mut told = daemon.log.last();
    told.retain(|it| it.number > params.after);
    // Threads that publish at the same time may be told in another order.
    told.sort_by_key(|it| it.number);
    let events = told.into_iter().map(|Published { number, at, event }| EventRecord {
        number,
        timestamp_ms: millis_of(at),
        kind: event.name().to_owned(),
        about: event.about(),
        detail: Some(event.to_string()).filter(|detail| !detail.is_empty()),
    });
    EventsResult {
        events: events.collect(),
        missed: daemon.log.n_missed() + daemon.events.n_lost(),
    }
}

fn millis_of(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn workspace_health(workspace: &Workspace) -> WorkspaceHealth {
    // Without a map nobody waits; that there is one is tested.
    let needs = workspace.dependencies().unwrap_or_default();
    let services = workspace.vital().into_iter().map(|child| service(child, &needs));
    let services: Vec<_> = services.collect();
    let is_well = services.iter().all(|service| service.verdict == HealthVerdict::Healthy);
    WorkspaceHealth {
        root: workspace.root.to_string_lossy().into_owned(),
        status: if is_well { HealthStatus::Healthy } else { HealthStatus::Degraded },
        services,
    }
}

fn service(child: ChildRef, needs: &Dependencies) -> ServiceHealth {
    let name = child.id().to_string();
    let alive = child.status().is_up();
    let waits_for = needs.lacking(&name).map(|need| need.id().to_string()).collect();
    ServiceHealth { name, alive, verdict: verdict(child), waits_for }
}

pub(crate) fn verdict(child: ChildRef) -> HealthVerdict {
    let report = Health::new().watch(child, HUNG_AFTER).check();
    match report.services.first().map_or(Verdict::Down, |service| service.verdict) {
        Verdict::Healthy => HealthVerdict::Healthy,
        Verdict::NotReady => HealthVerdict::NotReady,
        Verdict::Restarting => HealthVerdict::Restarting,
        Verdict::Hung(_) => HealthVerdict::Hung,
        Verdict::Down => HealthVerdict::Down,
    }
}

fn details(daemon: &Daemon) -> Vec<HealthDetail> {
    let mut details = vec![
        HealthDetail {
            name: "telemetry".to_owned(),
            verdict: verdict(daemon.telemetry.child()),
            value: None,
        },
        HealthDetail {
            name: "sessions".to_owned(),
            verdict: verdict(daemon.gateway.sessions.child()),
            value: Some(format!("{} connected", *daemon.clients.borrow())),
        },
    ];
    let pools = &daemon.pools;
    for (name, seats) in [
        ("query_execution_pool", &pools.query_execution),
        ("pattern_analysis_pool", &pools.pattern_analysis),
        ("file_watching_pool", &pools.file_watching),
    ] {
        let seats = seats.status();
        details.push(HealthDetail {
            name: name.to_owned(),
            verdict: seats.map_or(HealthVerdict::Restarting, |_| HealthVerdict::Healthy),
            value: seats.map(|it| format!("{} at work, {} waiting", it.checked_out, it.waiting)),
        });
    }
    for workspace in daemon.workspaces.all() {
        for BreakerStatus { name, state, failures, .. } in breakers(&workspace) {
            let (verdict, words) = match state {
                BreakerState::Closed => (HealthVerdict::Healthy, "goes on"),
                BreakerState::Open => (HealthVerdict::NotReady, "is left alone"),
                BreakerState::HalfOpen => (HealthVerdict::NotReady, "is tried again"),
            };
            details.push(HealthDetail {
                name: format!("{name} {}", workspace.id),
                verdict,
                value: Some(format!("{words}, {failures} failures in a row")),
            });
        }
        let memory = &workspace.memory;
        let used = memory.percent_used().unwrap_or(0.0);
        let budget = memory.budget_bytes() >> 20;
        details.push(HealthDetail {
            name: format!("memory {}", workspace.id),
            verdict: match memory.level() {
                Level::Normal | Level::Low | Level::Medium => HealthVerdict::Healthy,
                Level::High | Level::Critical => HealthVerdict::NotReady,
            },
            value: Some(format!("{used:.0} % of {budget} MiB")),
        });
        let stats = workspace.results.stats();
        let (kib, asked) = (stats.bytes >> 10, stats.hits + stats.misses);
        let rate = (stats.hits * 100).checked_div(asked).unwrap_or(0);
        details.push(HealthDetail {
            name: format!("cache {}", workspace.id),
            verdict: verdict(workspace.results.child()),
            value: Some(format!("{} results, {kib} KiB, {rate} % hits", stats.entries)),
        });
    }
    if let Some(parsers) = daemon.parsers.handle() {
        let status = parsers.status();
        let pool = status.pool;
        details.push(HealthDetail {
            name: "parsers".to_owned(),
            verdict: pool.map_or(HealthVerdict::Restarting, |_| HealthVerdict::Healthy),
            value: pool.map(|pool| {
                let n = pool.idle + pool.checked_out;
                format!("{n} processes, {} lost with a file so far", status.n_lost)
            }),
        });
    }
    details
}
