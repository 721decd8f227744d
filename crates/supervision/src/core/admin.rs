//! What a supervisor can be asked at run time: OTP's dynamic API, cell by cell.

use super::{Action, Cause, ChildKey, Core, Then, Ticket};
use crate::Exit;
use crate::policy::{ChildKind, ChildPolicy, Restart, SpecError, Stop, Structure};
use std::sync::Arc;
use tokio::time::Instant;

/// A request.
#[derive(Debug)]
pub enum Command<P> {
    /// Add a child after all others, and start it. It has had this many incarnations.
    StartChild(ChildPolicy, P, u64),
    /// Stop a child. Its spec stays, unless it is temporary or its supervisor dynamic.
    TerminateChild(Arc<str>),
    /// Start a child that is down.
    RestartChild(Arc<str>),
    /// Forget a child that is down.
    DeleteChild(Arc<str>),
    /// List the children, newest first.
    WhichChildren,
    /// Count them.
    CountChildren,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The child is up, with this incarnation.
    Started(ChildKey, u64),
    /// The child's init chose not to run.
    Ignored,
    /// It is done.
    Done,
    /// The children, newest first.
    Children(Vec<ChildInfo>),
    /// How many there are.
    Count(Count),
}

/// Why a request was refused. Nothing has changed, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No child has this id.
    #[error("no such child")]
    NotFound,
    /// The child is up.
    #[error("the child is running")]
    Running,
    /// The child is being restarted.
    #[error("the child is restarting")]
    Restarting,
    /// A child with this id is up.
    #[error("a child with this id is running")]
    AlreadyStarted,
    /// A child with this id is down or restarting.
    #[error("a child with this id is present")]
    AlreadyPresent,
    /// There are as many children as there may be.
    #[error("the supervisor has as many children as it may have")]
    MaxChildren,
    /// The child's start failed.
    #[error("the child didn't start: {0}")]
    Start(Exit),
    /// The child can't be supervised as it was described.
    #[error("the child can't be supervised as described")]
    Spec(#[from] SpecError),
    /// Children of a dynamic supervisor are started and terminated, nothing else.
    #[error("a dynamic supervisor's child can't be restarted or deleted by hand")]
    Dynamic,
    /// The supervisor is stopping, or gone.
    #[error("the supervisor is gone")]
    Gone,
    /// The supervisor didn't answer in time. What was asked for may still happen.
    #[error("the supervisor didn't answer in time")]
    Timeout,
}

/// What a child is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChildState {
    /// Nothing: it ended, was stopped, or chose not to run.
    Down,
    /// Its init runs.
    Starting,
    /// It acknowledged its start.
    Up,
    /// It was told to stop.
    Stopping,
    /// It ended and is to be started again.
    Restarting,
    /// It stands behind a firewall and is to be started again after a cooldown.
    Degraded,
}

/// A child as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    /// Its name.
    pub id: Arc<str>,
    /// Names it within its supervisor, also when its id is given to another later.
    pub key: ChildKey,
    /// Worker or supervisor.
    pub kind: ChildKind,
    /// Whether it is restarted.
    pub restart: Restart,
    /// How it is stopped.
    pub stop: Stop,
    /// What it is doing.
    pub state: ChildState,
    /// Counts its incarnations from 1; 0 if it never ran.
    pub incarnation: u64,
    /// Starts that followed an end, its own or a sibling's.
    pub restarts: u64,
    /// Why its last incarnation ended.
    pub last_exit: Option<Exit>,
    /// When its state last changed.
    pub since: Instant,
}

/// How many children there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Specs: all children, running or not; 1 for a dynamic supervisor, as in OTP.
    pub specs: usize,
    /// Children that are up.
    pub active: usize,
    /// Children that are supervisors, running or not.
    pub supervisors: usize,
    /// Children that are workers, running or not.
    pub workers: usize,
}

impl<P> Core<P> {
    pub(super) fn on_command(
        &mut self,
        now: Instant,
        ticket: Ticket,
        command: Command<P>,
        out: &mut Vec<Action<P>>,
    ) {
        let answer = match command {
            Command::StartChild(policy, payload, incarnation) => {
                if let Some(error) = self.refuse_start(&policy) {
                    Err(error)
                } else {
                    let key = self.insert(policy, payload, incarnation, now);
                    return self.start_all(now, [key].into(), Cause::StartChild(ticket), out);
                }
            }
            Command::TerminateChild(id) => match self.keys.get(&id).copied() {
                None => Err(AdminError::NotFound),
                Some(key) => return self.stop_all(now, vec![key], Then::Reply(ticket), out),
            },
            Command::RestartChild(id) => match self.down(&id) {
                // A degraded subsystem may be started before its cooldown is over.
                Ok(key) | Err((Some(key), ChildState::Degraded)) => {
                    return self.start_all(now, [key].into(), Cause::RestartChild(ticket), out);
                }
                Err(why) => Err(self.refusal(why)),
            },
            Command::DeleteChild(id) => match self.down(&id) {
                Ok(key) => {
                    self.remove(key, out);
                    Ok(Answer::Done)
                }
                Err(why) => Err(self.refusal(why)),
            },
            Command::WhichChildren => Ok(Answer::Children(self.inspect())),
            Command::CountChildren => Ok(Answer::Count(self.count())),
        };
        out.push(Action::Reply(ticket, answer));
    }

    fn refuse_start(&self, policy: &ChildPolicy) -> Option<AdminError> {
        if let Err(error) = self.policy.check_child(policy) {
            return Some(AdminError::Spec(error));
        }
        if let Some(key) = self.keys.get(&policy.id) {
            return Some(match self.state(*key) {
                Some(ChildState::Up | ChildState::Starting | ChildState::Stopping) => {
                    AdminError::AlreadyStarted
                }
                Some(ChildState::Down | ChildState::Restarting | ChildState::Degraded) | None => {
                    AdminError::AlreadyPresent
                }
            });
        }
        match self.policy.structure {
            Structure::Dynamic { max_children } if self.children.len() >= max_children => {
                Some(AdminError::MaxChildren)
            }
            Structure::Dynamic { .. } | Structure::Static(_) => None,
        }
    }

    /// The child with this id, if it is down; else the key, if there is one, and its state.
    fn down(&self, id: &str) -> Result<ChildKey, (Option<ChildKey>, ChildState)> {
        let Some(key) = self.keys.get(id).copied() else { return Err((None, ChildState::Down)) };
        match self.state(key) {
            Some(ChildState::Down) if !self.policy.is_dynamic() => Ok(key),
            state => Err((Some(key), state.unwrap_or(ChildState::Down))),
        }
    }

    fn refusal(&self, (key, state): (Option<ChildKey>, ChildState)) -> AdminError {
        match state {
            _ if self.policy.is_dynamic() => AdminError::Dynamic,
            _ if key.is_none() => AdminError::NotFound,
            ChildState::Restarting | ChildState::Degraded => AdminError::Restarting,
            ChildState::Up | ChildState::Starting | ChildState::Stopping | ChildState::Down => {
                AdminError::Running
            }
        }
    }

    /// The children as they are at this moment, newest first, whatever the supervisor is in the
    /// middle of.
    pub fn inspect(&self) -> Vec<ChildInfo> {
        let info = |(key, child): (&ChildKey, &super::Child<P>)| ChildInfo {
            id: Arc::clone(&child.policy.id),
            key: *key,
            kind: child.policy.kind,
            restart: child.policy.restart,
            stop: child.policy.stop,
            state: child.state,
            incarnation: child.incarnation,
            restarts: child.restarts,
            last_exit: child.last_exit.clone(),
            since: child.since,
        };
        self.children.iter().rev().map(info).collect()
    }

    fn count(&self) -> Count {
        let children = self.children.values();
        let n_supervisors =
            children.clone().filter(|child| child.policy.kind == ChildKind::Supervisor).count();
        Count {
            specs: if self.policy.is_dynamic() { 1 } else { self.children.len() },
            active: children
                .filter(|child| child.state == ChildState::Up && child.gone.is_none())
                .count(),
            supervisors: n_supervisors,
            workers: self.children.len() - n_supervisors,
        }
    }
}
