//! `status`: the daemon, its memory, and each workspace in numbers.

use crate::daemon::Daemon;
use crate::gateway::Roll;
use crate::workspace::Workspace;
use crate::{memory, wire};
use astscope_memory_manager::Class;
use astscope_protocol::messages::{
    BreakerState, BreakerStatus, DriftCounts, DriftRecord, MemoryStatus, ParsersStatus,
    QuarantinedFile, RememberedStatus, ScrubCycle, ScrubStatus, SessionStatus, StatusParams,
    StatusResult, WatcherStatus, WorkspaceStatus,
};
use astscope_repository::SkipRecord;
use astscope_supervision as supervision;
use astscope_synchronization::service::{
    self as synchronization, Awareness, SyncHandle, WatchState,
};
use std::sync::Arc;
use std::time::Duration;

/// How long `status` waits for the list of sessions, which it can do without.
const ROLL_WITHIN: Duration = Duration::from_millis(500);

pub(crate) fn status(daemon: &Daemon, params: &StatusParams) -> StatusResult {
    let workspaces = daemon.workspaces.all();
    let caches = daemon.one_shot_results.stats().bytes as u64;
    let mut memory = MemoryStatus { caches, ..MemoryStatus::default() };
    for workspace in &workspaces {
        let snapshot = workspace.repository.snapshot();
        memory.text += snapshot.totals().source_bytes;
        memory.trees += snapshot.totals().tree_bytes;
        memory.indexes += snapshot.index_bytes()
            + workspace.repository.history_bytes()
            + workspace.sync.watching_bytes();
        memory.caches += workspace.memory.accounts().by_class().of(Class::Cache);
    }
    (memory.resident_anon, memory.resident_file) = memory::resident_bytes();
    // Asked before anything below is borrowed: whoever answers may need to change it first.
    let sessions = sessions(daemon);
    let settings = daemon.config.now();
    let clients = *daemon.clients.borrow();
    StatusResult {
        server: daemon.peer(),
        pid: std::process::id(),
        socket: daemon.settings.socket.to_string_lossy().into_owned(),
        uptime_seconds: daemon.started.elapsed().as_secs(),
        idle_exit_seconds: settings.idle_timeout.value.limit().map(|it| it.as_secs()),
        clients,
        sessions,
        memory,
        settings_error: settings.problem.map(|problem| problem.to_string()),
        parsers: parsers(daemon, params.skipped_files),
        workspaces: workspaces
            .iter()
            .map(|it| workspace(daemon, it, params.skipped_files))
            .collect(),
    }
}

/// The roll; empty while nobody calls it.
fn sessions(daemon: &Daemon) -> Vec<SessionStatus> {
    let present = daemon.runtime.block_on(daemon.gateway.sessions.call(ROLL_WITHIN, Roll::Call));
    let present = present.unwrap_or_default().into_iter();
    present.map(|(session, client)| SessionStatus { session, client }).collect()
}

/// One workspace in numbers.
pub(crate) fn workspace(
    daemon: &Daemon,
    workspace: &Workspace,
    with_skipped: bool,
) -> WorkspaceStatus {
    let snapshot = workspace.repository.snapshot();
    let totals = snapshot.totals();
    let (mut skipped_files, mut kept_files) = (Vec::new(), Vec::new());
    if with_skipped {
        let told = |it: &Arc<SkipRecord>| {
            wire::skipped(it.path.to_string_lossy().into_owned(), &it.reason)
        };
        skipped_files.extend(snapshot.skips().map(told));
        kept_files.extend(snapshot.all_kept().map(told));
        skipped_files.sort_by(|a, b| a.path.cmp(&b.path));
        kept_files.sort_by(|a, b| a.path.cmp(&b.path));
    }
    let skipped: u64 = totals.skipped.values().sum();
    let indexing = workspace.sync.is_indexing();
    let seen = workspace.sync.files_seen();
    let scrubbed = workspace.sync.scrub_status().borrow().clone();
    WorkspaceStatus {
        root: workspace.root.to_string_lossy().into_owned(),
        revision: wire::revision(snapshot.revision()),
        indexing,
        files_seen: if indexing { seen } else { totals.files + skipped },
        files_parsed: totals.files,
        skipped: totals.skipped.iter().map(|(code, n)| ((*code).to_owned(), *n)).collect(),
        skipped_files,
        files_kept: totals.kept,
        kept_files,
        languages: totals
            .languages
            .iter()
            .map(|(language, n)| (language.name().to_owned(), *n))
            .collect(),
        source_bytes: totals.source_bytes,
        nodes: totals.nodes,
        tree_bytes: totals.tree_bytes,
        indexed_in_ms: workspace.sync.indexed_in_ms(),
        remembered: remembered(workspace),
        breakers: breakers(workspace),
        watcher: watcher(&workspace.sync),
        scrub: scrub(&scrubbed, daemon.config.now().scrub.value),
        outcome: None,
    }
}

fn remembered(workspace: &Workspace) -> RememberedStatus {
    let stats = workspace.results.stats();
    RememberedStatus {
        queries: stats.queries as u64,
        results: stats.entries as u64,
        bytes: stats.bytes as u64,
        hits: stats.hits,
        misses: stats.misses,
    }
}

/// What a workspace stops doing for a while when it keeps failing, and whether it does.
pub(crate) fn breakers(workspace: &Workspace) -> Vec<BreakerStatus> {
    [("files", workspace.files.state()), ("parsing", workspace.parsing.breaker())]
        .map(|(name, status)| BreakerStatus {
            name: name.to_owned(),
            state: match status.state {
                supervision::BreakerState::Closed => BreakerState::Closed,
                // Nobody disables one here; to whoever calls it is the same.
                supervision::BreakerState::Open | supervision::BreakerState::Disabled => {
                    BreakerState::Open
                }
                supervision::BreakerState::HalfOpen => BreakerState::HalfOpen,
            },
            failures: status.failures as u64,
            retry_in_ms: status
                .half_open_in
                .map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        })
        .into()
}

/// The processes that parse, if there are any.
fn parsers(daemon: &Daemon, with_files: bool) -> Option<ParsersStatus> {
    let parsers = daemon.parsers.handle()?;
    let status = parsers.status();
    let processes = status.pool.map_or(0, |pool| pool.idle + pool.checked_out);
    let quarantined = if with_files { parsers.quarantined() } else { Vec::new() };
    Some(ParsersStatus {
        processes: u32::try_from(processes).unwrap_or(u32::MAX),
        lost: status.n_lost,
        restrictions: status.restrictions.map(|it| it.to_string()).unwrap_or_default(),
        quarantined: status.quarantine.n_files as u64,
        forgotten_because: status.quarantine.forgotten_because,
        quarantined_files: quarantined
            .into_iter()
            .map(|file| QuarantinedFile {
                content_id: file.content,
                language: file.language,
                detail: file.why,
                at_seconds: file.at,
            })
            .collect(),
    })
}

/// How its changes are noticed.
pub(crate) fn watcher(sync: &SyncHandle) -> WatcherStatus {
    let status = sync.watch_status().borrow().clone();
    let (state, reason) = match status.state {
        WatchState::Native => ("native", None),
        WatchState::Polling(reason) => ("polling", Some(reason.to_string())),
        WatchState::Unavailable(reason) => ("unavailable", Some(reason.to_string())),
        WatchState::Disabled(reason) => ("disabled", Some(reason.to_string())),
        WatchState::Paused => ("paused", None),
    };
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let Awareness { directories, waiting, unsteady, proven, looked, .. } = sync.awareness();
    WatcherStatus {
        state: state.to_owned(),
        pause_ms: ms(status.pause),
        settle_ms: ms(status.settle),
        reason,
        directories: directories as u64,
        waiting: waiting as u64,
        unsteady,
        proven,
        looked,
    }
}

fn scrub(status: &synchronization::ScrubStatus, enabled: bool) -> ScrubStatus {
    let millis = |ns: i64| u64::try_from(ns / 1_000_000).unwrap_or(0);
    let counts = |drift: synchronization::DriftCounts| {
        let synchronization::DriftCounts { content, tree, missing, ghost } = drift;
        DriftCounts { content, tree, missing, ghost }
    };
    ScrubStatus {
        enabled,
        checked: status.n_checked,
        files: status.n_files,
        cycles: status.n_cycles,
        last_cycle: status.last_cycle.map(|cycle| ScrubCycle {
            timestamp_ms: millis(cycle.ended_at_ns),
            took_ms: u64::try_from(cycle.took.as_millis()).unwrap_or(u64::MAX),
            files: cycle.n_files,
            left_out: cycle.n_left_out,
            drift: counts(cycle.drift),
        }),
        drift: counts(status.drift),
        last_drift: status.last_drift.as_ref().map(|drift| DriftRecord {
            path: drift.path.to_string_lossy().into_owned(),
            cause: drift.cause.name().to_owned(),
            timestamp_ms: millis(drift.at_ns),
        }),
    }
}
