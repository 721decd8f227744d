//! The daemon's supervision tree, as one expression: indentation is the tree, order is the flow.

use crate::daemon::Daemon;
use crate::gateway::{CLIENTS_MAX, Sessions};
use crate::telemetry::Telemetry;
use crate::workspace::Workspace;
use crate::{foundation, gateway, observability};
use astscope_querying::service::{self as querying, Seats};
use astscope_supervision::Strategy::{OneForOne, RestForOne};
use astscope_supervision::{
    ChildSpec, Observer, Order, Pool, PoolConfig, PoolConfigError, Seat, Stop, SupervisorSpec,
    TracingObserver,
};
use std::sync::Arc;
use std::time::Duration;

/// Watched roots at the same time.
const ROOTS_MAX: usize = 256;

/// Tasks of one workspace at the same time: each is a request's, and those are bounded.
const TASKS_MAX: usize = 1024;

/// How long a workspace whose services keep failing is left alone before it is tried again.
const COOLDOWN: Duration = Duration::from_secs(10);

/// A service that has been at work of its own for so long without a message, a beat of progress or
/// an end is hung, and is started again. None needs more than some milliseconds at a time; what
/// takes long is done by threads and others, whom it waits for.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(1);

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The tree. Stopped in reverse: clients get their last answers while everything else is still up.
pub(crate) fn spec(daemon: &Arc<Daemon>) -> SupervisorSpec {
    let foundation = SupervisorSpec::new(OneForOne)
        .intensity(5, secs(10))
        // First, so that it is the last to stop: whatever hangs on the way down, a signal is heard.
        .child(foundation::signals(daemon))
        .child(daemon.config.service())
        .child(daemon.events.service())
        .child(ChildSpec::service::<Telemetry>(&daemon.telemetry, Arc::default()))
        .child(foundation::idle_exit(daemon))
        .children(daemon.pools.children.iter().cloned())
        .children(daemon.parsers.children());
    daemon.foundation.stands_on(foundation.child_specs());
    let told: Vec<Arc<dyn Observer>> =
        vec![Arc::new(TracingObserver), Arc::new(daemon.events.clone())];
    // Subsystems share what outlives them, not each other.
    SupervisorSpec::new(OneForOne)
        .intensity(3, secs(10))
        .probe(daemon.probe.clone())
        .stall_after(STALLED_AFTER)
        .observer(Arc::new(told))
        .child(ChildSpec::supervisor("foundation", foundation))
        .child(
            daemon.workspaces.trees.spec(SupervisorSpec::dynamic(ROOTS_MAX).intensity(3, secs(10))),
        )
        .child(ChildSpec::supervisor(
            "one_shot",
            SupervisorSpec::new(OneForOne)
                .intensity(5, secs(10))
                .child(querying::supervisor(&daemon.one_shot, &daemon.one_shot_results)),
        ))
        .child(observability::supervisor(daemon))
        .child(ChildSpec::supervisor(
            "gateway",
            // A listener without a roll can admit nobody; connections that the roll doesn't know
            // would be nobody's.
            SupervisorSpec::new(RestForOne)
                .intensity(10, secs(60))
                .child(ChildSpec::service::<Sessions>(&daemon.gateway.sessions, ()))
                .child(gateway::listener(daemon))
                .child(daemon.gateway.connections.spec(SupervisorSpec::dynamic(CLIENTS_MAX))),
        ))
}

/// The tree of one workspace, behind a firewall: when its services keep failing it is left alone
/// for a while and tried again, and the others go on.
pub(crate) fn workspace(workspace: &Workspace) -> ChildSpec {
    // Subsystems fail apart: each keeps what it knows outside of its services.
    let tree = SupervisorSpec::new(OneForOne)
        .intensity(3, secs(10))
        .child(
            ChildSpec::supervisor(
                "repository",
                // What is derived follows the core's generation by itself.
                SupervisorSpec::new(OneForOne)
                    .intensity(5, secs(10))
                    .children(workspace.repository.children())
                    .child(workspace.subtrees.memory_manager.clone()),
            )
            .stop(Stop::Within(secs(10))),
        )
        .child(workspace.subtrees.parsing.clone().stop(Stop::Within(secs(3))))
        .child(
            ChildSpec::supervisor(
                "analysis",
                SupervisorSpec::new(OneForOne)
                    .intensity(5, secs(10))
                    .child(ChildSpec::supervisor(
                        "pattern_matcher",
                        workspace.patterns.supervisor(),
                    ))
                    .child(workspace.subtrees.performance_optimizer.clone()),
            )
            .stop(Stop::Within(secs(5))),
        )
        .child(
            querying::supervisor(&workspace.executor, &workspace.results)
                .stop(Stop::Within(secs(3))),
        )
        .child(workspace.sync.supervisor().stop(Stop::Within(secs(5))))
        .child(workspace.tasks.spec(SupervisorSpec::dynamic(TASKS_MAX).intensity(10, secs(5))));
    ChildSpec::supervisor(workspace.id.clone(), tree).degrade(COOLDOWN)
}

/// How much of one kind of work is done at a time, in all workspaces together: so many, and some
/// more while others wait, as in the seed. Parsing is bounded by its processes.
#[derive(Debug)]
pub(crate) struct Pools {
    /// Queries at work.
    pub(crate) query_execution: Seats,
    /// Patterns matched for other reasons than a query.
    pub(crate) pattern_analysis: Seats,
    /// Looks at a disk.
    pub(crate) file_watching: Seats,
    /// What goes into the tree.
    children: Vec<ChildSpec>,
}

impl Pools {
    pub(crate) fn new() -> Result<Self, PoolConfigError> {
        let pool = |id, size, max_overflow| {
            // Only a full queue is overload: it is far longer than what clients have in flight,
            // short of all of them.
            let queue = 1024;
            let order = Order::Lifo;
            let config = PoolConfig { size, max_overflow, queue, order, deaths: None };
            Pool::new::<Seat>(id, config, ())
        };
        let (queries, query_execution) = pool("query_execution_pool", 6, 3)?;
        let (patterns, pattern_analysis) = pool("pattern_analysis_pool", 8, 4)?;
        let (looks, file_watching) = pool("file_watching_pool", 2, 1)?;
        let children = vec![patterns, queries, looks];
        Ok(Self { query_execution, pattern_analysis, file_watching, children })
    }
}

#[cfg(test)]
mod tests;
