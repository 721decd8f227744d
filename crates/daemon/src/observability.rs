//! What looks at the daemon and that nothing depends on: it stands behind a firewall, so whatever
//! becomes of it costs no request.

mod event_log;
mod watchdog;

pub(crate) use event_log::EventLog;

use crate::daemon::Daemon;
use astscope_supervision::{ChildSpec, Strategy, SupervisorSpec};
use std::sync::Arc;
use std::time::Duration;

/// How long it is left alone when it keeps failing.
const COOLDOWN: Duration = Duration::from_secs(10);

/// The subtree.
pub(crate) fn supervisor(daemon: &Arc<Daemon>) -> ChildSpec {
    // Each looks at something else.
    let tree = SupervisorSpec::new(Strategy::OneForOne)
        .intensity(3, Duration::from_mins(1))
        .child(daemon.log.service())
        .child(watchdog::service(daemon));
    ChildSpec::supervisor("observability", tree).degrade(COOLDOWN)
}
