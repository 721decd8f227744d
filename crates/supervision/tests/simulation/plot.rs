//! What is played: a supervisor, its children, how each start and stop of theirs goes, and what
//! happens to them. Plain data, so that a plot that fails can be cut down.

use super::random::Random;
use astscope_supervision::{
    AutoShutdown, ChildKind, ChildPolicy, Exit, Restart, Stop, Strategy, Structure,
    SupervisorPolicy,
};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Names for children, those of the first supervisor and those that are added.
const IDS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
/// How long an init may take, in a plot.
pub(crate) const START_TIMEOUT: u64 = 70;
/// How long a killed child may take to end, in a plot.
pub(crate) const KILL_GRACE: u64 = 40;

#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) policy: SupervisorPolicy,
    pub(crate) children: Vec<ChildPolicy>,
    pub(crate) script: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These come one after the other, faster than any start or stop is done.
    Arrive(Vec<Arrival>),
    /// So many milliseconds pass.
    Wait(u64),
    /// How the next inits of a child go.
    Inits(Arc<str>, Vec<Init>),
    /// How a child takes it to be told to stop, from now on.
    Stops(Arc<str>, Stopping),
}

#[derive(Clone, Debug)]
pub(crate) enum Arrival {
    Exit(Arc<str>, Exit),
    Ask(Ask),
    /// Only ever the first of its step: OTP would leave it in the mailbox, ours wouldn't.
    Shutdown,
}

#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Start(ChildPolicy),
    Terminate(Arc<str>),
    Restart(Arc<str>),
    Delete(Arc<str>),
    Which,
    Count,
}

/// How an init goes.
#[derive(Clone, Debug)]
pub(crate) enum Init {
    Ready,
    Fails(Exit),
    Ignores,
    /// It takes so many milliseconds.
    Slow(u64),
    Hangs,
    /// It hangs, and no kill reaches it.
    HangsForGood,
}

/// How a child takes it to be told to stop.
#[derive(Clone, Debug)]
pub(crate) enum Stopping {
    Prompt(Exit),
    Late(u64, Exit),
    Never,
    /// Not even when it is killed.
    Immortal,
}

/// How starts and stops go, for whoever plays the children.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    inits: BTreeMap<Arc<str>, VecDeque<Init>>,
    stops: BTreeMap<Arc<str>, Stopping>,
}

impl World {
    /// Takes a step that is for the children. `false` if it isn't.
    pub(crate) fn takes(&mut self, step: &Step) -> bool {
        match step {
            Step::Inits(id, inits) => {
                self.inits.insert(Arc::clone(id), inits.iter().cloned().collect());
            }
            Step::Stops(id, stop) => {
                self.stops.insert(Arc::clone(id), stop.clone());
            }
            Step::Arrive(_) | Step::Wait(_) => return false,
        }
        true
    }

    pub(crate) fn init(&mut self, id: &str) -> Init {
        self.inits.get_mut(id).and_then(VecDeque::pop_front).unwrap_or(Init::Ready)
    }

    pub(crate) fn stop(&self, id: &str) -> Stopping {
        self.stops.get(id).cloned().unwrap_or(Stopping::Prompt(Exit::Shutdown))
    }
}

/// What was seen of a plot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) lines: Vec<String>,
    /// The children that were forgotten, in that order. OTP doesn't tell when.
    pub(crate) removed: Vec<Arc<str>>,
}

impl Trace {
    pub(crate) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(crate) fn beside(&self, other: &Self) -> String {
        let mut text = String::new();
        for at in 0..self.lines.len().max(other.lines.len()) {
            let line = |trace: &Self| trace.lines.get(at).cloned().unwrap_or_default();
            let (left, right) = (line(self), line(other));
            let mark = if left == right { ' ' } else { '!' };
            writeln!(text, "{mark} {left:50} | {right}").unwrap();
        }
        writeln!(text, "removed {:?} | {:?}", self.removed, other.removed).unwrap();
        text
    }
}

pub(crate) fn exit(random: &mut Random) -> Exit {
    random.of(&[
        Exit::Normal,
        Exit::Shutdown,
        Exit::ShutdownWith("x".into()),
        Exit::failed("boom"),
        Exit::failed("boom"),
        Exit::Panicked("boom".into()),
        Exit::Killed,
        Exit::Meltdown,
    ])
}

fn id(random: &mut Random) -> Arc<str> {
    random.of(&IDS).into()
}

pub(crate) fn child(random: &mut Random, id: Arc<str>, auto: AutoShutdown) -> ChildPolicy {
    let restart = random.of(&[
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Transient,
        Restart::Temporary,
    ]);
    let may_be_significant = auto != AutoShutdown::Never && restart != Restart::Permanent;
    let within = |n| Stop::Within(Duration::from_millis(n));
    ChildPolicy {
        id,
        kind: ChildKind::Worker,
        restart,
        stop: random.of(&[within(50), within(50), within(20), Stop::Kill, within(80)]),
        significant: may_be_significant && random.percent(50),
        start_timeout: Some(Duration::from_millis(START_TIMEOUT)),
        backoff: None,
        firewall: None,
    }
}

pub(crate) fn policy(random: &mut Random) -> SupervisorPolicy {
    let structure = match random.below(4) {
        0 => Structure::Static(Strategy::OneForOne),
        1 => Structure::Static(Strategy::OneForAll),
        2 => Structure::Static(Strategy::RestForOne),
        _ => Structure::Dynamic { max_children: 1 + random.below(6) },
    };
    let is_dynamic = matches!(structure, Structure::Dynamic { .. });
    SupervisorPolicy {
        structure,
        intensity: random.of(&[0, 1, 2, 3, 5, 9, 30]),
        period: Duration::from_millis(random.of(&[50, 200, 1000])),
        auto_shutdown: if is_dynamic {
            AutoShutdown::Never
        } else {
            random.of(&[
                AutoShutdown::Never,
                AutoShutdown::Never,
                AutoShutdown::AnySignificant,
                AutoShutdown::AllSignificant,
            ])
        },
        kill_grace: Duration::from_millis(KILL_GRACE),
    }
}

/// As many children as this supervisor may have, and at most five.
pub(crate) fn children(random: &mut Random, policy: &SupervisorPolicy) -> Vec<ChildPolicy> {
    let most = match policy.structure {
        Structure::Dynamic { max_children } => max_children.min(5),
        Structure::Static(_) => 5,
    };
    let n = random.below(most + 1);
    IDS[..n].iter().map(|id| child(random, (*id).into(), policy.auto_shutdown)).collect()
}

impl Plot {
    pub(crate) fn random(random: &mut Random) -> Self {
        let policy = policy(random);
        let children = children(random, &policy);
        let mut script = Vec::new();
        for _ in 0..random.below(30) {
            script.push(Self::step(random, &policy));
        }
        // Some of it before the first start.
        let before = random.below(3).min(script.len());
        for step in &mut script[..before] {
            *step = Self::manner(random);
        }
        script.push(Step::Arrive(vec![Arrival::Shutdown]));
        Self { policy, children, script }
    }

    fn step(random: &mut Random, policy: &SupervisorPolicy) -> Step {
        match random.below(10) {
            0 => Step::Wait(random.of(&[1, 10, 50, 100, 201, 1000])),
            1 | 2 => Self::manner(random),
            3 if random.percent(5) => {
                let mut arrivals = vec![Arrival::Shutdown];
                arrivals.extend((0..random.below(3)).map(|_| Self::arrival(random, policy)));
                Step::Arrive(arrivals)
            }
            _ => {
                let n = random.of(&[1, 1, 1, 2, 3, 5]);
                Step::Arrive((0..n).map(|_| Self::arrival(random, policy)).collect())
            }
        }
    }

    fn arrival(random: &mut Random, policy: &SupervisorPolicy) -> Arrival {
        if random.percent(60) {
            return Arrival::Exit(id(random), exit(random));
        }
        Arrival::Ask(match random.below(8) {
            0 | 1 => {
                let id = id(random);
                Ask::Start(child(random, id, policy.auto_shutdown))
            }
            2 | 3 => Ask::Terminate(id(random)),
            4 | 5 => Ask::Restart(id(random)),
            6 => Ask::Delete(id(random)),
            _ => random.of(&[Ask::Which, Ask::Count]),
        })
    }

    /// How a child starts or stops. The times are never those of a deadline: what is done at the
    /// last moment is OTP's to decide.
    fn manner(random: &mut Random) -> Step {
        if random.percent(30) {
            let late = Stopping::Late(random.of(&[1, 33, 61]), exit(random));
            let prompt = Stopping::Prompt(exit(random));
            let stop = random.of(&[prompt.clone(), prompt, late, Stopping::Never]);
            let stop = if random.percent(10) { Stopping::Immortal } else { stop };
            return Step::Stops(id(random), stop);
        }
        let n = 1 + random.below(4);
        let inits = (0..n).map(|_| match random.below(12) {
            0..4 => Init::Fails(random.of(&[Exit::failed("boom"), Exit::Panicked("boom".into())])),
            4..6 => Init::Ignores,
            6 => Init::Slow(random.of(&[1, 33, 77])),
            7 => random.of(&[Init::Hangs, Init::Hangs, Init::Hangs, Init::HangsForGood]),
            _ => Init::Ready,
        });
        let inits = inits.collect();
        Step::Inits(id(random), inits)
    }

    /// The plot without whatever it needn't have to fail.
    pub(crate) fn smaller_while(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        loop {
            let mut smaller = Vec::new();
            for at in 0..self.script.len() {
                let mut less = self.clone();
                less.script.remove(at);
                smaller.push(less);
                if let Step::Arrive(arrivals) = &self.script[at] {
                    for one in 0..arrivals.len() {
                        let mut less = self.clone();
                        let Step::Arrive(arrivals) = &mut less.script[at] else { continue };
                        arrivals.remove(one);
                        smaller.push(less);
                    }
                }
            }
            for at in 0..self.children.len() {
                let mut less = self.clone();
                less.children.remove(at);
                smaller.push(less);
            }
            match smaller.into_iter().find(&fails) {
                Some(less) => self = less,
                None => return self,
            }
        }
    }
}
