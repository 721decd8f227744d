//! Plays a plot with the real core and a driver that answers at once.

use super::plot::{Arrival, Ask, Init, Plot, Step, Stopping, Trace, World};
use astscope_supervision::core::{Action, Answer, Command, Core, End, Input};
use astscope_supervision::{ChildKey, EventKind, Exit};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Plays a plot and tells what happened.
pub(crate) fn play(plot: &Plot) -> Trace {
    let now = Instant::now();
    let children =
        plot.children.iter().map(|child| (child.clone(), Arc::clone(&child.id), 0)).collect();
    let mut replay = Replay {
        core: Core::new(plot.policy, children, now),
        now,
        world: World::default(),
        running: BTreeMap::new(),
        answers: VecDeque::new(),
        later: BTreeMap::new(),
        retries: VecDeque::new(),
        last_ticket: 0,
        last_event: 0,
        trace: Trace::default(),
        ended: false,
    };
    let mut script = plot.script.iter().peekable();
    while script.next_if(|step| replay.world.takes(step)).is_some() {}
    replay.feed(Input::Start);
    replay.settle();
    for step in script {
        if replay.ended {
            break;
        }
        if replay.world.takes(step) {
            continue;
        }
        match step {
            Step::Wait(time) => {
                replay.now += Duration::from_millis(*time);
                replay.feed(Input::Tick);
            }
            Step::Arrive(arrivals) => {
                for arrival in arrivals {
                    replay.arrive(arrival);
                }
            }
            Step::Inits(..) | Step::Stops(..) => {}
        }
        replay.settle();
    }
    replay.trace
}

/// An incarnation that was spawned and hasn't ended.
#[expect(clippy::struct_excessive_bools, reason = "four things that a process may have done")]
struct Process {
    id: Arc<str>,
    incarnation: u64,
    ready: bool,
    /// To stop.
    told: bool,
    /// It ended while it was waited for.
    died: bool,
    immortal: bool,
}

/// What an incarnation says.
enum Says {
    Ready,
    Ended(End),
}

struct Replay {
    core: Core<Arc<str>>,
    now: Instant,
    world: World,
    running: BTreeMap<ChildKey, Process>,
    /// What is answered at once, when all that arrives meanwhile has arrived.
    answers: VecDeque<(ChildKey, u64, Says)>,
    /// What is answered after some time.
    later: BTreeMap<(Instant, u64), (ChildKey, u64, Says)>,
    retries: VecDeque<ChildKey>,
    last_ticket: u64,
    last_event: u64,
    trace: Trace,
    ended: bool,
}

impl Replay {
    fn arrive(&mut self, arrival: &Arrival) {
        match arrival {
            Arrival::Exit(id, exit) => {
                let found = self.running.iter_mut().find(|(_, process)| process.id == *id);
                let Some((key, process)) = found else { return };
                let (key, incarnation) = (*key, process.incarnation);
                if process.told {
                    if std::mem::replace(&mut process.died, true) {
                        return;
                    }
                    // It ends while it is waited for, and nobody looks before all has arrived.
                    self.later.retain(|_, (other, ..)| *other != key);
                    match self.answers.iter_mut().find(|(other, ..)| *other == key) {
                        Some((.., says)) => *says = ended(exit.clone()),
                        None => self.answer(key, incarnation, 0, ended(exit.clone())),
                    }
                } else if process.ready {
                    self.running.remove(&key);
                    self.feed(Input::Ended(key, incarnation, End::Exited(exit.clone())));
                }
            }
            Arrival::Ask(ask) => {
                let command = match ask {
                    Ask::Start(policy) => {
                        Command::StartChild(policy.clone(), Arc::clone(&policy.id), 0)
                    }
                    Ask::Terminate(id) => Command::TerminateChild(Arc::clone(id)),
                    Ask::Restart(id) => Command::RestartChild(Arc::clone(id)),
                    Ask::Delete(id) => Command::DeleteChild(Arc::clone(id)),
                    Ask::Which => Command::WhichChildren,
                    Ask::Count => Command::CountChildren,
                };
                self.last_ticket += 1;
                self.feed(Input::Command(self.last_ticket, command));
            }
            Arrival::Shutdown => self.feed(Input::Shutdown),
        }
    }

    /// Answers all that is to be answered, and lets the time pass that this takes.
    fn settle(&mut self) {
        while !self.ended {
            if let Some(key) = self.retries.pop_front() {
                self.feed(Input::TryAgain(key));
            } else if let Some(answer) = self.answers.pop_front() {
                self.say(answer);
            } else {
                let (later, deadline) =
                    (self.later.first_key_value().map(|(at, _)| at.0), self.core.next_deadline());
                match (later, deadline) {
                    (Some(later), deadline) if deadline.is_none_or(|at| later < at) => {
                        let (at, answer) = self.later.pop_first().unwrap();
                        self.now = self.now.max(at.0);
                        self.say(answer);
                    }
                    (_, Some(deadline)) => {
                        self.now = self.now.max(deadline);
                        self.feed(Input::Tick);
                    }
                    (_, None) => return,
                }
            }
        }
    }

    fn say(&mut self, (key, incarnation, says): (ChildKey, u64, Says)) {
        let Some(process) = self.running.get_mut(&key) else { return };
        if process.incarnation != incarnation {
            return;
        }
        match says {
            Says::Ready => {
                process.ready = true;
                self.feed(Input::Ready(key, incarnation));
            }
            Says::Ended(end) => {
                self.running.remove(&key);
                self.feed(Input::Ended(key, incarnation, end));
            }
        }
    }

    fn feed(&mut self, input: Input<Arc<str>>) {
        let mut actions = Vec::new();
        self.core.step(self.now, input, &mut actions);
        for action in actions {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action<Arc<str>>) {
        assert!(!self.ended, "{action:?} after the end");
        match action {
            Action::Spawn(key, incarnation) => self.spawn(key, incarnation),
            Action::Stop(key) => {
                let process = self.running.get_mut(&key).unwrap();
                process.told = true;
                let incarnation = process.incarnation;
                match self.world.stop(&process.id) {
                    Stopping::Prompt(exit) => self.answer(key, incarnation, 0, ended(exit)),
                    Stopping::Late(time, exit) => self.answer(key, incarnation, time, ended(exit)),
                    Stopping::Never | Stopping::Immortal => {}
                }
            }
            Action::Kill(key) => {
                let process = self.running.get_mut(&key).unwrap();
                process.told = true;
                let incarnation = process.incarnation;
                let immortal = process.immortal
                    || process.ready && matches!(self.world.stop(&process.id), Stopping::Immortal);
                if !immortal {
                    self.later.retain(|_, (other, ..)| *other != key);
                    self.answer(key, incarnation, 0, ended(Exit::Killed));
                }
            }
            Action::Abandon(key) => {
                self.running.remove(&key);
            }
            Action::TryAgain(key) => self.retries.push_back(key),
            Action::Removed(id) => self.trace.removed.push(id),
            Action::Reply(ticket, answer) => {
                let answer = match answer {
                    Ok(answer) => said(answer),
                    Err(astscope_supervision::AdminError::Start(exit)) => {
                        format!("not started: {exit}")
                    }
                    Err(error) => format!("{error:?}"),
                };
                self.trace.line(format!("reply {ticket}: {answer}"));
            }
            Action::Emit(id, event) => {
                if let Some(line) = line(id, event) {
                    self.trace.line(line);
                }
            }
            Action::Publish(..) | Action::Up => {}
            Action::StartFailed { id, exit } => {
                self.trace.line(format!("not started: {id} {exit}"));
                self.ended = true;
            }
            Action::End(exit) => {
                self.trace.line(format!("end {exit}"));
                self.ended = true;
            }
        }
    }

    fn spawn(&mut self, key: ChildKey, incarnation: u64) {
        let id = Arc::clone(self.core.payload(key).unwrap().1);
        self.trace.line(format!("init {id} #{incarnation}"));
        let init = self.world.init(&id);
        let immortal = matches!(init, Init::HangsForGood);
        self.running.insert(
            key,
            Process { id, incarnation, ready: false, told: false, died: false, immortal },
        );
        match init {
            Init::Ready => self.answer(key, incarnation, 0, Says::Ready),
            Init::Fails(exit) => {
                self.answer(key, incarnation, 0, Says::Ended(End::StartFailed(exit)));
            }
            Init::Ignores => self.answer(key, incarnation, 0, Says::Ended(End::Ignored)),
            Init::Slow(time) => self.answer(key, incarnation, time, Says::Ready),
            Init::Hangs | Init::HangsForGood => {}
        }
    }

    fn answer(&mut self, key: ChildKey, incarnation: u64, after: u64, says: Says) {
        if after == 0 {
            self.answers.push_back((key, incarnation, says));
        } else {
            self.last_event += 1;
            let at = self.now + Duration::from_millis(after);
            self.later.insert((at, self.last_event), (key, incarnation, says));
        }
    }
}

fn ended(exit: Exit) -> Says {
    Says::Ended(End::Exited(exit))
}

fn said(answer: Answer) -> String {
    match answer {
        Answer::Started(_, incarnation) => format!("started #{incarnation}"),
        Answer::Ignored => "ignored".into(),
        Answer::Done => "done".into(),
        Answer::Children(children) => {
            let words =
                children.iter().map(|c| format!("{} {:?} #{}", c.id, c.state, c.incarnation));
            words.collect::<Vec<_>>().join(", ")
        }
        Answer::Count(count) => {
            format!("{} {} {} {}", count.specs, count.active, count.supervisors, count.workers)
        }
    }
}

/// An event, if a supervisor that blocks knows it too: when it tells a child to stop isn't seen.
fn line(id: Option<Arc<str>>, event: EventKind) -> Option<String> {
    let id = id.unwrap_or_default();
    Some(match event {
        EventKind::Started { incarnation } => format!("{id} started #{incarnation}"),
        EventKind::Ignored => format!("{id} ignored"),
        EventKind::StartFailed { exit } => format!("{id} start failed ({exit})"),
        EventKind::Exited { incarnation, exit, restarts } => {
            let then = if restarts { ", restarts" } else { "" };
            format!("{id} exited #{incarnation} ({exit}){then}")
        }
        EventKind::Stopping { .. } => return None,
        EventKind::Stopped { incarnation, exit } => {
            format!("{id} stopped #{incarnation} ({exit})")
        }
        EventKind::StopFailed { exit } => format!("{id} stop failed ({exit})"),
        EventKind::Unkillable { incarnation } => format!("{id} unkillable #{incarnation}"),
        EventKind::Meltdown { child } => format!("meltdown at {child}"),
        EventKind::SupervisorUp => "up".into(),
        EventKind::SupervisorDown { exit } => format!("down {exit}"),
        other => panic!("no event of a core: {other}"),
    })
}
