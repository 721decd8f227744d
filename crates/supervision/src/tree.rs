//! A tree to look at: as text, JSON or a Mermaid diagram, from a spec or from what runs.

use crate::address::ChildRef;
use crate::core::{ChildInfo, ChildState};
use crate::policy::{ChildPolicy, SupervisorPolicy};
use crate::spec::{Body, SupervisorSpec};
use crate::supervisor::Supervisor;
use crate::{BoxFuture, later};
use serde::Serialize;
use std::fmt::{self, Write as _};
use std::future::{poll_fn, ready};
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// A node and what is below it, in start order. The fields are those of the JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TreeNode {
    /// Its name.
    pub id: String,
    /// For supervisors.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub supervisor: Option<SupervisorNode>,
    /// How its parent supervises it; the root has none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub child: Option<ChildNode>,
    /// What it does at this moment; a spec has none.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveNode>,
    /// What is below it, in start order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
}

/// What makes a node a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SupervisorNode {
    /// `one_for_one`, `one_for_all`, `rest_for_one` or `dynamic`.
    pub strategy: String,
    /// Restarts tolerated within the period.
    pub intensity: usize,
    /// The period, in milliseconds.
    pub period_ms: u64,
}

/// How a node is supervised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildNode {
    /// `permanent`, `transient` or `temporary`.
    pub restart: String,
    /// `kill`, `within N ms` or `wait`.
    pub stop: String,
    /// Whether its supervisor may end with it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub significant: bool,
    /// Cooldown of its firewall, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degrade_ms: Option<u64>,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveNode {
    /// `up`, `down`, `starting`, `stopping`, `restarting`, `degraded`; `unreachable` for a
    /// supervisor that didn't answer.
    pub state: String,
    /// Whether it says that it can do its work.
    pub ready: bool,
    /// Counts its incarnations from 1.
    pub incarnation: u64,
    /// Starts that followed an end, its own or a sibling's.
    pub restarts: u64,
    /// Why the last incarnation ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// Messages that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_waiting: Option<usize>,
    /// Messages that may wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox_bound: Option<usize>,
    /// How long it has been in this state, in milliseconds.
    pub since_ms: u64,
}

impl SupervisorSpec {
    /// The tree as it is written, under a root of this name.
    pub fn outline(&self, id: &str) -> TreeNode {
        let children = self.children.iter().map(|child| {
            let mut node = match &child.body {
                Body::Supervisor(spec, _) => spec.outline(child.id()),
                Body::Worker(_) | Body::Once(_) | Body::Spent => TreeNode::new(child.id(), None),
            };
            node.child = Some(ChildNode::new(&child.policy));
            node
        });
        TreeNode { children: children.collect(), ..TreeNode::new(id, Some(&self.policy)) }
    }
}

impl Supervisor {
    /// The tree as it is now, from this supervisor down. Every supervisor answers at once, even in
    /// the middle of a start or a stop; one that hasn't at this handle's deadline is `unreachable`.
    pub async fn tree(&self) -> TreeNode {
        look(self.clone(), None, later(Instant::now(), self.deadline())).await
    }
}

/// Boxed, because it calls itself.
fn look(supervisor: Supervisor, info: Option<ChildInfo>, deadline: Instant) -> BoxFuture<TreeNode> {
    Box::pin(async move {
        let child = supervisor.child();
        let live = LiveNode::new(&child, info.as_ref());
        let within = deadline.saturating_duration_since(Instant::now());
        let Ok(mut snapshot) = supervisor.within(within).inspect().await else {
            let mut node = TreeNode::new(child.id(), None);
            let state =
                if live.state == "up" { "unreachable".to_owned() } else { live.state.clone() };
            node.live = Some(LiveNode { state, ..live });
            return node;
        };
        let mut node = TreeNode::new(child.id(), Some(&snapshot.policy));
        node.live = Some(live);
        snapshot.children.reverse(); // oldest first
        let children = snapshot.children.into_iter().map(|(info, policy, child, below)| {
            let below: BoxFuture<TreeNode> = if let Some(below) = below {
                look(below, Some(info), deadline)
            } else {
                let mut leaf = TreeNode::new(&info.id, None);
                leaf.live = Some(LiveNode::new(&child, Some(&info)));
                Box::pin(ready(leaf))
            };
            (policy, below)
        });
        let (policies, below): (Vec<_>, Vec<_>) = children.unzip();
        node.children = all(below).await;
        for (below, policy) in node.children.iter_mut().zip(&policies) {
            below.child = Some(ChildNode::new(policy));
        }
        node
    })
}

/// Waits for all of them together, so that one that doesn't answer takes no time from its siblings.
async fn all(mut waiting: Vec<BoxFuture<TreeNode>>) -> Vec<TreeNode> {
    let mut nodes: Vec<_> = waiting.iter().map(|_| None).collect();
    poll_fn(|cx| {
        let mut done = Poll::Ready(());
        for (node, waiting) in nodes.iter_mut().zip(&mut waiting) {
            if node.is_none() {
                match waiting.as_mut().poll(cx) {
                    Poll::Ready(ready) => *node = Some(ready),
                    Poll::Pending => done = Poll::Pending,
                }
            }
        }
        done
    })
    .await;
    nodes.into_iter().flatten().collect()
}

impl TreeNode {
    fn new(id: &str, policy: Option<&SupervisorPolicy>) -> Self {
        let supervisor = policy.map(|policy| SupervisorNode {
            strategy: policy.structure.to_string(),
            intensity: policy.intensity,
            period_ms: millis(policy.period),
        });
        Self { id: id.to_owned(), supervisor, child: None, live: None, children: Vec::new() }
    }

    /// The tree as indented JSON.
    pub fn to_json(&self) -> String {
        // A tree of strings and numbers always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// The tree as a Mermaid flow chart.
    pub fn to_mermaid(&self) -> String {
        let mut chart = "graph TD\n".to_owned();
        let mut last = 0;
        self.draw(&mut chart, &mut last);
        chart
    }

    fn draw(&self, chart: &mut String, last: &mut usize) -> usize {
        let own = *last;
        // Mermaid reads these as entities only: the first begins one, the others end the label or
        // begin a tag.
        let label = self.label().replace('#', "#35;").replace('"', "#quot;");
        let label = label.replace('<', "#lt;").replace('>', "#gt;");
        let (open, close) =
            if self.supervisor.is_some() { ("[[\"", "\"]]") } else { ("[\"", "\"]") };
        // Writing into a String can't fail, here and below.
        let _infallible = writeln!(chart, "  n{own}{open}{label}{close}");
        for child in &self.children {
            *last += 1;
            let below = child.draw(chart, last);
            let _infallible = writeln!(chart, "  n{own} --> n{below}");
        }
        own
    }

    fn label(&self) -> String {
        let mut label = self.id.clone();
        if let Some(supervisor) = &self.supervisor {
            let SupervisorNode { strategy, intensity, period_ms } = supervisor;
            let _infallible = write!(label, "  {strategy} {intensity}/{}", seconds(*period_ms));
        }
        if let Some(child) = &self.child {
            let _infallible = write!(label, "  {} {}", child.restart, child.stop);
            if child.significant {
                label.push_str(" significant");
            }
            if let Some(cooldown) = child.degrade_ms {
                let _infallible = write!(label, " degrade {}", seconds(cooldown));
            }
        }
        if let Some(live) = &self.live {
            let _infallible = write!(label, "  {}", live.state);
            if live.state == "up" && !live.ready {
                label.push_str(", not ready");
            }
            if live.restarts > 0 {
                let s = if live.restarts == 1 { "" } else { "s" };
                let _infallible = write!(label, ", {} restart{s}", live.restarts);
            }
            if let Some(exit) = &live.last_exit {
                // A line for each node, whatever stands in an error.
                let _infallible = write!(label, ", last exit {}", exit.replace(['\n', '\r'], " "));
            }
            if let (Some(waiting), Some(bound)) = (live.mailbox_waiting, live.mailbox_bound) {
                let _infallible = write!(label, ", mailbox {waiting}/{bound}");
            }
            let _infallible = write!(label, ", {}", seconds(live.since_ms));
        }
        label
    }

    fn indent(&self, f: &mut fmt::Formatter<'_>, above: &str) -> fmt::Result {
        for (at, child) in self.children.iter().enumerate() {
            let is_last = at + 1 == self.children.len();
            let (branch, further) =
                if is_last { ("└── ", "    ") } else { ("├── ", "│   ") };
            writeln!(f, "{above}{branch}{}", child.label())?;
            child.indent(f, &format!("{above}{further}"))?;
        }
        Ok(())
    }
}

/// The tree as text, a line for each node.
impl fmt::Display for TreeNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.label())?;
        self.indent(f, "")
    }
}

impl ChildNode {
    fn new(policy: &ChildPolicy) -> Self {
        Self {
            restart: policy.restart.to_string(),
            stop: policy.stop.to_string(),
            significant: policy.significant,
            degrade_ms: policy.firewall.map(millis),
        }
    }
}

impl LiveNode {
    /// The state as the supervisor sees it where it told, else as everybody does.
    fn new(child: &ChildRef, info: Option<&ChildInfo>) -> Self {
        let vitals = child.vitals();
        let state = info.map_or(vitals.status.state(), |info| info.state);
        Self {
            state: match state {
                ChildState::Down => "down",
                ChildState::Starting => "starting",
                ChildState::Up => "up",
                ChildState::Stopping => "stopping",
                ChildState::Restarting => "restarting",
                ChildState::Degraded => "degraded",
            }
            .to_owned(),
            ready: vitals.status.is_ready(),
            incarnation: vitals.status.incarnation(),
            restarts: info.map_or(0, |info| info.restarts),
            last_exit: info.and_then(|info| info.last_exit.as_ref()).map(ToString::to_string),
            mailbox_waiting: vitals.mailbox.map(|(waiting, _)| waiting),
            mailbox_bound: vitals.mailbox.map(|(_, bound)| bound),
            since_ms: millis(Instant::now().duration_since(vitals.since)),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds as seconds, without more digits than there are.
fn seconds(millis: u64) -> String {
    if millis.is_multiple_of(1000) {
        format!("{} s", millis / 1000)
    } else {
        format!("{}.{:03} s", millis / 1000, millis % 1000)
    }
}
