//! Shapes of trees that are allowed and seldom meant.
//!
//! A [`SpecError`](crate::SpecError) refuses what can't work; a finding is advice. Whoever means it
//! lists the finding's rule and path among those that are accepted, so that the choice is visible.

use crate::policy::{ChildKind, Restart, Stop, Strategy, Structure};
use crate::spec::{Body, ChildSpec, SupervisorSpec};
use std::fmt;

/// A place in a tree that breaks a rule of thumb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which rule.
    pub rule: LintRule,
    /// Where: the ids from the root down.
    pub path: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.rule)
    }
}

/// The rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LintRule {
    /// A supervisor that melts down ends in order, so it isn't restarted unless it is permanent.
    NonPermanentSupervisor,
    /// A supervisor that may be killed while its children are still stopping.
    ImpatientWithSupervisor,
    /// A worker that is waited for without limit can hold a shutdown for ever.
    EndlessStop,
    /// A temporary child that a group restart takes away for good.
    TemporaryInGroup,
    /// Many children share one restart budget: single failures of a few add up to a meltdown of
    /// all.
    CrowdedBudget,
    /// A restart budget without limit in practice: more than 100 restarts a second.
    EndlessRestarts,
}

/// Children under one budget, above which unrelated failures become likely to add up.
const CROWD: usize = 20;

impl fmt::Display for LintRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NonPermanentSupervisor => {
                "not permanent, so it stays down when it melts down: put it behind a firewall?"
            }
            Self::ImpatientWithSupervisor => {
                "a supervisor with a time limit: its children may be killed while they stop"
            }
            Self::EndlessStop => "a worker without a time limit can hold a shutdown for ever",
            Self::TemporaryInGroup => "temporary: a sibling's restart takes it away for good",
            Self::CrowdedBudget => {
                "many children share one restart budget: group them under supervisors"
            }
            Self::EndlessRestarts => "so many restarts are allowed that it never melts down",
        })
    }
}

impl SupervisorSpec {
    /// What in this tree is allowed and seldom meant, in the order of the tree. `id` is the root's.
    pub fn lint(&self, id: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        look(self, id, &mut findings);
        findings
    }
}

fn look(spec: &SupervisorSpec, path: &str, findings: &mut Vec<Finding>) {
    let policy = &spec.policy;
    let mut find = |rule, path: &str| findings.push(Finding { rule, path: path.to_owned() });
    if spec.children.len() > CROWD {
        find(LintRule::CrowdedBudget, path);
    }
    if policy.intensity as u128 * 10 > policy.period.as_millis().max(1) {
        find(LintRule::EndlessRestarts, path);
    }
    for child in &spec.children {
        let path = format!("{path}/{}", child.id());
        look_at_child(spec, child, &path, findings);
        if let Body::Supervisor(below, _) = &child.body {
            look(below, &path, findings);
        }
    }
}

fn look_at_child(
    spec: &SupervisorSpec,
    child: &ChildSpec,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    let mut find = |rule| findings.push(Finding { rule, path: path.to_owned() });
    let policy = &child.policy;
    match (policy.kind, policy.stop) {
        (ChildKind::Supervisor, Stop::Within(_) | Stop::Kill) => {
            find(LintRule::ImpatientWithSupervisor);
        }
        (ChildKind::Worker, Stop::Wait) => find(LintRule::EndlessStop),
        (ChildKind::Supervisor, Stop::Wait) | (ChildKind::Worker, Stop::Within(_) | Stop::Kill) => {
        }
    }
    if policy.kind == ChildKind::Supervisor
        && policy.restart != Restart::Permanent
        && policy.firewall.is_none()
    {
        find(LintRule::NonPermanentSupervisor);
    }
    let in_group = matches!(
        spec.policy.structure,
        Structure::Static(Strategy::OneForAll | Strategy::RestForOne)
    );
    if in_group && policy.restart == Restart::Temporary {
        find(LintRule::TemporaryInGroup);
    }
}
