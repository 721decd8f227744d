//! Random supervisors and what is done to them, from a seed.

use astscope_supervision::{
    AutoShutdown, ChildKind, ChildPolicy, Exit, Restart, Stop, Strategy, Structure,
    SupervisorPolicy,
};
use std::time::Duration;

/// A generator of random numbers that is the same everywhere: Steele, Lea and Flood's `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }
}

/// What an init does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Init {
    Ready,
    Fail,
    Ignore,
}

/// What a child does when it is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnStop {
    Obey,
    EndNormally,
    Crash,
    /// Only a kill ends it.
    Refuse,
}

/// One thing that is done to a supervisor.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// These children end, one after the other, before their supervisor looks.
    Exit(Vec<(String, Exit)>),
    /// What the next inits of a child do.
    Plan(String, Vec<Init>),
    OnStop(String, OnStop),
    StartChild(ChildPolicy),
    TerminateChild(String),
    RestartChild(String),
    DeleteChild(String),
    WhichChildren,
    CountChildren,
    Advance(Duration),
    Shutdown,
}

pub(crate) fn supervisor(random: &mut Random) -> SupervisorPolicy {
    let structure = random.of(&[
        Structure::Static(Strategy::OneForOne),
        Structure::Static(Strategy::OneForAll),
        Structure::Static(Strategy::RestForOne),
        Structure::Static(Strategy::RestForOne),
        Structure::Dynamic { max_children: 4 },
    ]);
    let auto_shutdown = match structure {
        Structure::Dynamic { .. } => AutoShutdown::Never,
        Structure::Static(_) => random.of(&[
            AutoShutdown::Never,
            AutoShutdown::Never,
            AutoShutdown::AnySignificant,
            AutoShutdown::AllSignificant,
        ]),
    };
    SupervisorPolicy {
        structure,
        intensity: random.below(5),
        period: Duration::from_secs(5),
        auto_shutdown,
        kill_grace: Duration::from_secs(5),
    }
}

pub(crate) fn child(random: &mut Random, policy: &SupervisorPolicy, id: &str) -> ChildPolicy {
    let restart = random.of(&[
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Temporary,
    ]);
    ChildPolicy {
        id: id.into(),
        kind: random.of(&[ChildKind::Worker, ChildKind::Worker, ChildKind::Supervisor]),
        restart,
        stop: random.of(&[
            Stop::Kill,
            Stop::Within(Duration::from_millis(500)),
            Stop::Within(Duration::from_secs(2)),
            Stop::Wait,
        ]),
        significant: policy.auto_shutdown != AutoShutdown::Never
            && restart != Restart::Permanent
            && random.chance(50),
        start_timeout: None,
        backoff: None,
        firewall: None,
    }
}

/// `n` steps. Names are those of the first children and of some that don't exist.
pub(crate) fn steps(random: &mut Random, policy: &SupervisorPolicy, n: usize) -> Vec<Step> {
    let ids = ["a", "b", "c", "d", "e", "x", "y"];
    let id = |random: &mut Random| random.of(&ids).to_owned();
    let exits = [
        Exit::Normal,
        Exit::Shutdown,
        Exit::ShutdownWith("done".into()),
        Exit::failed("crash"),
        Exit::failed("crash"),
        Exit::failed("crash"),
        Exit::Killed,
    ];
    let mut steps = Vec::new();
    for _ in 0..n {
        steps.push(match random.below(20) {
            0..7 => Step::Exit(vec![(id(random), random.of(&exits))]),
            7..9 => {
                let n = 2 + random.below(2);
                Step::Exit((0..n).map(|_| (id(random), random.of(&exits))).collect())
            }
            9..11 => {
                let n = 1 + random.below(4);
                let inits = [Init::Ready, Init::Fail, Init::Fail, Init::Ignore];
                Step::Plan(id(random), (0..n).map(|_| random.of(&inits)).collect())
            }
            11 => {
                let how = [OnStop::Obey, OnStop::EndNormally, OnStop::Crash, OnStop::Refuse];
                Step::OnStop(id(random), random.of(&how))
            }
            12 => {
                let id = id(random);
                Step::StartChild(child(random, policy, &id))
            }
            13 => Step::TerminateChild(id(random)),
            14 => Step::RestartChild(id(random)),
            15 => Step::DeleteChild(id(random)),
            16 => Step::WhichChildren,
            17 => Step::CountChildren,
            18 => Step::Advance(Duration::from_millis(random.next() % 6000)),
            _ if random.chance(15) => Step::Shutdown,
            _ => Step::Advance(Duration::from_secs(6)),
        });
    }
    steps
}
