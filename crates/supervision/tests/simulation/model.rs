//! OTP's supervisor as OTP has it: one process that blocks, with a mailbox.
//!
//! Written from the specification without a look at the core's shape: where the core has
//! operations and actions, this calls its children and waits. What it logs is what must happen.

use crate::script::{Init, OnStop, Step};
use astscope_supervision::{
    AutoShutdown, ChildKind, ChildPolicy, Exit, Restart, Stop, Strategy, Structure,
    SupervisorPolicy,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pid {
    Undefined,
    Restarting,
    /// With the number of the incarnation.
    Alive(u64),
}

struct Child {
    policy: ChildPolicy,
    pid: Pid,
}

enum Mail {
    Exit(String, u64, Exit),
    TryAgain(String),
}

pub(crate) struct Model {
    policy: SupervisorPolicy,
    children: Vec<Child>,
    plans: BTreeMap<String, VecDeque<Init>>,
    on_stop: BTreeMap<String, OnStop>,
    /// Incarnations that are dead although the supervisor doesn't know it yet.
    dead: BTreeMap<(String, u64), Exit>,
    mailbox: VecDeque<Mail>,
    restarts: Vec<Duration>,
    now: Duration,
    last_pid: u64,
    pub(crate) ended: bool,
    pub(crate) log: Vec<String>,
}

/// The supervisor is to end.
struct End(&'static str);

type Outcome = Result<(), End>;

impl Model {
    pub(crate) fn start(policy: SupervisorPolicy, children: &[ChildPolicy]) -> Self {
        let child = |policy: &ChildPolicy| Child { policy: policy.clone(), pid: Pid::Undefined };
        let mut model = Self {
            policy,
            children: children.iter().map(child).collect(),
            plans: BTreeMap::new(),
            on_stop: BTreeMap::new(),
            dead: BTreeMap::new(),
            mailbox: VecDeque::new(),
            restarts: Vec::new(),
            now: Duration::ZERO,
            last_pid: 0,
            ended: false,
            log: Vec::new(),
        };
        model.start_children(0);
        model.log("up");
        model
    }

    pub(crate) fn step(&mut self, step: &Step) {
        if self.ended {
            return;
        }
        let outcome = match step {
            Step::Exit(exits) => {
                for (id, exit) in exits {
                    if let Some(pid) = self.alive(id)
                        && !self.dead.contains_key(&(id.clone(), pid))
                    {
                        self.dead.insert((id.clone(), pid), exit.clone());
                        self.mailbox.push_back(Mail::Exit(id.clone(), pid, exit.clone()));
                    }
                }
                Ok(())
            }
            Step::Plan(id, plan) => {
                self.plans.insert(id.clone(), plan.iter().copied().collect());
                Ok(())
            }
            Step::OnStop(id, how) => {
                self.on_stop.insert(id.clone(), *how);
                Ok(())
            }
            Step::Advance(time) => {
                self.now += *time;
                Ok(())
            }
            Step::Shutdown => Err(End("shutdown")),
            Step::StartChild(policy) => {
                self.start_child(policy);
                Ok(())
            }
            Step::TerminateChild(id) => {
                self.terminate_child(id);
                Ok(())
            }
            Step::RestartChild(id) => {
                self.restart_child(id);
                Ok(())
            }
            Step::DeleteChild(id) => {
                self.delete_child(id);
                Ok(())
            }
            Step::WhichChildren => {
                let states = self.children.iter().rev().map(|child| {
                    let state = match child.pid {
                        Pid::Undefined => "down",
                        Pid::Restarting => "restarting",
                        Pid::Alive(_) => "up",
                    };
                    format!("{}:{state}", child.policy.id)
                });
                let states = states.collect::<Vec<_>>().join(" ");
                self.log(format!("answer which {states}"));
                Ok(())
            }
            Step::CountChildren => {
                self.count();
                Ok(())
            }
        };
        let outcome = outcome.and_then(|()| self.read_mail());
        if let Err(End(why)) = outcome {
            self.terminate();
            self.log(format!("end {why}"));
            self.ended = true;
        }
    }

    fn read_mail(&mut self) -> Outcome {
        while let Some(mail) = self.mailbox.pop_front() {
            match mail {
                Mail::Exit(id, pid, exit) => {
                    if self.alive(&id) == Some(pid) {
                        self.on_exit(&id, &exit)?;
                    }
                }
                Mail::TryAgain(id) => {
                    if self.find(&id).is_some_and(|at| self.children[at].pid == Pid::Restarting) {
                        self.restart(&id)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn on_exit(&mut self, id: &str, exit: &Exit) -> Outcome {
        let at = self.find(id).unwrap();
        let policy = self.children[at].policy.clone();
        let is_orderly = matches!(exit, Exit::Normal | Exit::Shutdown | Exit::ShutdownWith(_));
        let restarts = match policy.restart {
            Restart::Permanent => true,
            Restart::Transient => !is_orderly,
            Restart::Temporary => false,
        };
        if restarts || !is_orderly {
            self.log(format!("child_terminated {id} {exit}"));
        }
        if restarts {
            return self.restart(id);
        }
        self.del_child(id);
        let significant_left = || {
            self.children
                .iter()
                .any(|child| child.policy.significant && child.pid != Pid::Undefined)
        };
        match self.policy.auto_shutdown {
            AutoShutdown::AnySignificant if policy.significant => Err(End("shutdown")),
            AutoShutdown::AllSignificant if policy.significant && !significant_left() => {
                Err(End("shutdown"))
            }
            _ => Ok(()),
        }
    }

    fn restart(&mut self, id: &str) -> Outcome {
        let (now, period) = (self.now, self.policy.period);
        self.restarts.push(now);
        self.restarts.retain(|at| now.checked_sub(*at).unwrap() <= period);
        if self.restarts.len() > self.policy.intensity {
            self.log(format!("meltdown {id}"));
            self.del_child(id);
            return Err(End("meltdown"));
        }
        let at = self.find(id).unwrap();
        let failed = match self.policy.structure {
            Structure::Static(Strategy::OneForOne) | Structure::Dynamic { .. } => {
                match self.do_start(at) {
                    Started::Failed => Some(id.to_owned()),
                    Started::Up | Started::Ignored => None,
                }
            }
            Structure::Static(Strategy::OneForAll) => {
                self.children[at].pid = Pid::Undefined;
                self.terminate_from(0);
                self.start_children(0)
            }
            Structure::Static(Strategy::RestForOne) => {
                self.children[at].pid = Pid::Undefined;
                self.terminate_from(at + 1);
                self.start_children(at)
            }
        };
        if let Some(failed) = failed {
            let at = self.find(&failed).unwrap();
            self.children[at].pid = Pid::Restarting;
            self.log(format!("start_error {failed}"));
            self.mailbox.push_back(Mail::TryAgain(failed));
        }
        Ok(())
    }

    /// Starts the children from this position on. Returns the one that failed.
    fn start_children(&mut self, from: usize) -> Option<String> {
        let ids: Vec<_> =
            self.children[from..].iter().map(|child| child.policy.id.to_string()).collect();
        for id in ids {
            let Some(at) = self.find(&id) else { continue };
            if let Started::Failed = self.do_start(at) {
                return Some(id);
            }
        }
        None
    }

    fn do_start(&mut self, at: usize) -> Started {
        let id = self.children[at].policy.id.to_string();
        self.log(format!("init {id}"));
        let plan = self.plans.get_mut(&id).and_then(VecDeque::pop_front);
        match plan.unwrap_or(Init::Ready) {
            Init::Ready => {
                self.last_pid += 1;
                self.children[at].pid = Pid::Alive(self.last_pid);
                self.log(format!("progress {id}"));
                Started::Up
            }
            Init::Fail => Started::Failed,
            Init::Ignore => {
                self.del_child(&id);
                Started::Ignored
            }
        }
    }

    /// Stops the children from this position on, the last first, and forgets the temporary ones.
    fn terminate_from(&mut self, from: usize) {
        for at in (from..self.children.len()).rev() {
            self.do_terminate(at);
            if self.children[at].policy.restart == Restart::Temporary {
                self.children.remove(at);
            } else {
                self.children[at].pid = Pid::Undefined;
            }
        }
    }

    /// Everything, at the end.
    fn terminate(&mut self) {
        if let Structure::Dynamic { .. } = self.policy.structure {
            self.terminate_all_at_once();
        } else {
            for at in (0..self.children.len()).rev() {
                self.do_terminate(at);
            }
        }
    }

    /// Everybody is told, the newest first; then they end, whoever obeys at once and whoever
    /// doesn't when his time is over.
    fn terminate_all_at_once(&mut self) {
        let start = self.now;
        let mut refusing = Vec::new();
        let mut ends = Vec::new();
        for at in (0..self.children.len()).rev() {
            let Child { policy, pid } = &self.children[at];
            let Pid::Alive(pid) = *pid else { continue };
            let (id, stop) = (policy.id.to_string(), policy.stop);
            if let Some(exit) = self.dead.get(&(id.clone(), pid)).cloned() {
                self.report_stop(at, &exit);
                continue;
            }
            match stop {
                Stop::Kill => ends.push((at, Exit::Killed)),
                Stop::Within(_) | Stop::Wait => {
                    self.log(format!("stop {id}"));
                    match (self.how(&id), stop) {
                        (OnStop::Refuse, Stop::Within(time)) => refusing.push((time, at)),
                        (how, _) => ends.push((at, exit_of(how))),
                    }
                }
            }
        }
        for (at, exit) in ends {
            self.report_stop(at, &exit);
        }
        // In the order of their deadlines; of equal ones the oldest child first.
        refusing.sort_by_key(|(time, at)| (*time, *at));
        for (time, at) in refusing {
            self.now = start + time;
            self.report_stop(at, &Exit::Killed);
        }
    }

    /// Stops one child and waits for it.
    fn do_terminate(&mut self, at: usize) {
        let Child { policy, pid } = &self.children[at];
        let Pid::Alive(pid) = *pid else { return };
        let (id, stop) = (policy.id.to_string(), policy.stop);
        let exit = if let Some(exit) = self.dead.get(&(id.clone(), pid)).cloned() {
            exit
        } else if stop == Stop::Kill {
            Exit::Killed
        } else {
            self.log(format!("stop {id}"));
            match (self.how(&id), stop) {
                (OnStop::Refuse, Stop::Within(time)) => {
                    self.now += time;
                    Exit::Killed
                }
                (how, _) => exit_of(how),
            }
        };
        self.report_stop(at, &exit);
    }

    fn how(&self, id: &str) -> OnStop {
        self.on_stop.get(id).copied().unwrap_or(OnStop::Obey)
    }

    fn report_stop(&mut self, at: usize, exit: &Exit) {
        let ChildPolicy { id, stop, restart, .. } = &self.children[at].policy;
        let fine = match exit {
            Exit::Shutdown => true,
            Exit::Killed => *stop == Stop::Kill,
            Exit::Normal | Exit::ShutdownWith(_) => *restart != Restart::Permanent,
            _ => false,
        };
        if !fine {
            let line = format!("shutdown_error {id} {exit}");
            self.log(line);
        }
    }

    fn start_child(&mut self, policy: &ChildPolicy) {
        if let Some(at) = self.find(&policy.id) {
            let answer = match self.children[at].pid {
                Pid::Alive(_) => "already_started",
                Pid::Undefined | Pid::Restarting => "already_present",
            };
            return self.log(format!("answer {answer}"));
        }
        if let Structure::Dynamic { max_children } = self.policy.structure
            && self.children.len() >= max_children
        {
            return self.log("answer max_children");
        }
        self.children.push(Child { policy: policy.clone(), pid: Pid::Undefined });
        let answer = match self.do_start(self.children.len() - 1) {
            Started::Up => "started",
            Started::Ignored => "ignored",
            Started::Failed => {
                self.children.pop();
                "start_failed"
            }
        };
        self.log(format!("answer {answer}"));
    }

    fn terminate_child(&mut self, id: &str) {
        let Some(at) = self.find(id) else { return self.log("answer not_found") };
        self.do_terminate(at);
        self.del_child(id);
        self.log("answer ok");
    }

    fn restart_child(&mut self, id: &str) {
        if let Structure::Dynamic { .. } = self.policy.structure {
            return self.log("answer dynamic");
        }
        let answer = match self.find(id).map(|at| (at, self.children[at].pid)) {
            None => "not_found",
            Some((_, Pid::Alive(_))) => "running",
            Some((_, Pid::Restarting)) => "restarting",
            Some((at, Pid::Undefined)) => match self.do_start(at) {
                Started::Up => "started",
                Started::Ignored => "ignored",
                Started::Failed => "start_failed",
            },
        };
        self.log(format!("answer {answer}"));
    }

    fn delete_child(&mut self, id: &str) {
        if let Structure::Dynamic { .. } = self.policy.structure {
            return self.log("answer dynamic");
        }
        let answer = match self.find(id).map(|at| (at, self.children[at].pid)) {
            None => "not_found",
            Some((_, Pid::Alive(_))) => "running",
            Some((_, Pid::Restarting)) => "restarting",
            Some((at, Pid::Undefined)) => {
                self.children.remove(at);
                "ok"
            }
        };
        self.log(format!("answer {answer}"));
    }

    fn count(&mut self) {
        let is = |kind| self.children.iter().filter(|it| it.policy.kind == kind).count();
        let active =
            self.children.iter().filter(|child| matches!(child.pid, Pid::Alive(_))).count();
        let specs = match self.policy.structure {
            Structure::Dynamic { .. } => 1,
            Structure::Static(_) => self.children.len(),
        };
        let (supervisors, workers) = (is(ChildKind::Supervisor), is(ChildKind::Worker));
        self.log(format!("answer count {specs} {active} {supervisors} {workers}"));
    }

    /// Without a process; a temporary or dynamic child is forgotten.
    fn del_child(&mut self, id: &str) {
        let at = self.find(id).unwrap();
        let is_dynamic = matches!(self.policy.structure, Structure::Dynamic { .. });
        if is_dynamic || self.children[at].policy.restart == Restart::Temporary {
            self.children.remove(at);
        } else {
            self.children[at].pid = Pid::Undefined;
        }
    }

    fn find(&self, id: &str) -> Option<usize> {
        self.children.iter().position(|child| *child.policy.id == *id)
    }

    fn alive(&self, id: &str) -> Option<u64> {
        match self.children[self.find(id)?].pid {
            Pid::Alive(pid) => Some(pid),
            Pid::Undefined | Pid::Restarting => None,
        }
    }

    fn log(&mut self, line: impl Into<String>) {
        self.log.push(line.into());
    }
}

enum Started {
    Up,
    Ignored,
    Failed,
}

fn exit_of(how: OnStop) -> Exit {
    match how {
        // Nobody waits without limit for a child that refuses: it obeys there.
        OnStop::Obey | OnStop::Refuse => Exit::Shutdown,
        OnStop::EndNormally => Exit::Normal,
        OnStop::Crash => Exit::failed("crash"),
    }
}
