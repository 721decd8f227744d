//! Who needs whom: every workspace the foundation, and a workspace's services each other. Start
//! order says that a service is there before those after it; this says that it does its work.

use crate::workspace::Workspace;
use astscope_supervision::{ChildRef, ChildSpec, Restart};
use std::sync::OnceLock;
use std::time::Duration;
use tokio::time::Instant;

/// How long a start waits for what it needs, in all: the seed's bound.
pub(crate) const NEEDS_WITHIN: Duration = Duration::from_secs(5);

/// The foundation's permanent children: nothing is started while one of them isn't up.
#[derive(Debug, Default)]
pub(crate) struct Foundation(OnceLock<Vec<ChildRef>>);

impl Foundation {
    /// Remembers the children that the tree was given.
    pub(crate) fn stands_on(&self, children: &[ChildSpec]) {
        let permanent = children.iter().filter(|it| it.policy().restart == Restart::Permanent);
        // There is one tree.
        let _first = self.0.set(permanent.map(ChildSpec::child).collect());
    }

    /// Waits until all of them do their work, for [`NEEDS_WITHIN`] in all.
    ///
    /// # Errors
    /// The names of those that don't.
    pub(crate) async fn running(&self) -> Result<(), Vec<String>> {
        let children = self.0.get().map(Vec::as_slice).unwrap_or_default();
        let started = Instant::now();
        loop {
            for child in children {
                let left = NEEDS_WITHIN.saturating_sub(started.elapsed());
                // Who isn't ready is asked below, where the others are too.
                let _in_time = child.await_ready(left).await;
            }
            let lacking = children.iter().filter(|child| !child.status().is_ready());
            let lacking: Vec<_> = lacking.map(|child| child.id().to_string()).collect();
            if lacking.is_empty() {
                return Ok(());
            }
            if started.elapsed() >= NEEDS_WITHIN || children.iter().any(is_gone) {
                return Err(lacking);
            }
        }
    }
}

/// Whether waiting for it is in vain.
fn is_gone(child: &ChildRef) -> bool {
    child.status().is_gone()
}

/// Every service of a workspace that the seed's map names, each with those that it needs. Whoever
/// needs a cleaner needs one that can be started, not one that runs.
pub(crate) fn services(workspace: &Workspace) -> Vec<(ChildRef, &'static [&'static str])> {
    let Workspace { repository, memory, patterns, executor, sync, .. } = workspace;
    let mut services: Vec<(_, &'static [_])> = vec![
        (repository.core(), &[]),
        (repository.enhanced(), &["repository_core"]),
        (patterns.library(), &[]),
        (patterns.core(), &["repository_core", "pattern_library"]),
        (executor.child(), &["repository_core"]),
    ];
    services.extend(memory.needs());
    services.extend(sync.needs());
    services
}
