//! The daemon's supervision tree, as one expression: indentation is the tree, order is the flow.

use crate::daemon::Daemon;
use crate::gateway::{CLIENTS_MAX, Sessions};
use crate::{foundation, gateway};
use astscope_supervision::Strategy::{OneForOne, RestForOne};
use astscope_supervision::{ChildSpec, SupervisorSpec};
use std::sync::Arc;
use std::time::Duration;

/// Watched roots at the same time.
const ROOTS_MAX: usize = 256;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// The tree. Stopped in reverse: clients get their last answers while everything else is still up.
pub(crate) fn spec(daemon: &Arc<Daemon>) -> SupervisorSpec {
    // Subsystems share what outlives them, not each other.
    SupervisorSpec::new(OneForOne)
        .intensity(3, secs(10))
        .child(ChildSpec::supervisor(
            "foundation",
            SupervisorSpec::new(OneForOne)
                .intensity(5, secs(10))
                .child(foundation::signals(daemon))
                .child(foundation::idle_exit(daemon)),
        ))
        .child(
            daemon
                .workspaces
                .crawls
                .spec(SupervisorSpec::dynamic(ROOTS_MAX).intensity(10, secs(5))),
        )
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
