//! `watchdog`: looks every few seconds whether each node of the tree does its work, and at each
//! workspace's memory, and tells what has changed. A node that is back before the next look is a
//! restart, which the tree tells by itself.

use crate::daemon::Daemon;
use crate::foundation::event_bus::DaemonEvent;
use crate::handlers::operations;
use crate::tree::STALLED_AFTER;
use astscope_memory_manager::Level;
use astscope_protocol::messages::HealthVerdict;
use astscope_supervision::{ChildSpec, Ctx, Exit, TreeNode};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// How often it looks: a look asks some ten supervisors, which takes less than a millisecond.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the tree may take to answer; who doesn't is unreachable.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// What the last look has found, which outlives whoever looked.
#[derive(Debug, Default)]
struct Seen {
    /// Nodes that don't do their work, with what they do instead.
    unwell: BTreeMap<String, String>,
    levels: BTreeMap<PathBuf, Level>,
}

pub(super) fn service(daemon: &Arc<Daemon>) -> ChildSpec {
    let (daemon, seen) = (Arc::clone(daemon), Arc::<Mutex<Seen>>::default());
    ChildSpec::task("watchdog", move |ctx| watch(ctx, Arc::clone(&daemon), Arc::clone(&seen)))
        .stall_after(STALLED_AFTER)
}

async fn watch(ctx: Ctx, daemon: Arc<Daemon>, seen: Arc<Mutex<Seen>>) -> Result<(), Exit> {
    loop {
        ctx.idle();
        tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            () = sleep(LOOK_EVERY) => {}
        }
        ctx.progress();
        let unwell = look(&daemon).await;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&daemon, &mut seen, unwell);
    }
}

/// The nodes that don't do their work.
async fn look(daemon: &Daemon) -> BTreeMap<String, String> {
    let mut unwell = BTreeMap::new();
    let Some(root) = daemon.root.get() else { return unwell };
    let tree = root.within(LOOK_WITHIN).tree().await;
    tree.children.iter().for_each(|child| collect("", child, &mut unwell));
    for workspace in daemon.workspaces.all() {
        for child in workspace.vital() {
            // By its place in no tree, since only its name and its workspace's are known here.
            let name = format!("{} in {}", child.id(), workspace.id);
            if operations::verdict(child) == HealthVerdict::Hung {
                unwell.insert(name, "hung".to_owned());
            }
        }
    }
    unwell
}

/// Permanent nodes that aren't up or not ready, this one or below it.
fn collect(above: &str, node: &TreeNode, unwell: &mut BTreeMap<String, String>) {
    if node.child.as_ref().is_none_or(|child| child.restart != "permanent") {
        return;
    }
    let path = format!("{above}{}", node.id);
    let live = node.live.as_ref();
    let state = live.map_or("unreachable", |live| match live.state.as_str() {
        "up" if !live.ready => "not ready",
        state => state,
    });
    if state != "up" {
        unwell.insert(path.clone(), state.to_owned());
    }
    node.children.iter().for_each(|child| collect(&format!("{path}/"), child, unwell));
}

/// Publishes what is other than at the last look, and logs it once.
fn tell(daemon: &Daemon, seen: &mut Seen, unwell: BTreeMap<String, String>) {
    for (path, state) in &unwell {
        if !seen.unwell.contains_key(path) {
            tracing::warn!(path, state, "degraded");
            let (path, state) = (path.clone(), state.clone());
            daemon.events.publish(DaemonEvent::Degraded { path, state });
        }
    }
    for path in seen.unwell.keys().filter(|path| !unwell.contains_key(*path)) {
        tracing::info!(path, "recovered");
        daemon.events.publish(DaemonEvent::Recovered { path: path.clone() });
    }
    seen.unwell = unwell;
    let mut levels = BTreeMap::new();
    for workspace in daemon.workspaces.all() {
        let (root, level) = (workspace.root.clone(), workspace.memory.level());
        let before = seen.levels.get(&root).copied().unwrap_or_default();
        if level != before {
            let level = level.to_string();
            daemon.events.publish(DaemonEvent::MemoryLevel { root: root.clone(), level });
        }
        levels.insert(root, level);
    }
    seen.levels = levels;
}
