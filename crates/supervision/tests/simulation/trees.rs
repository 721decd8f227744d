//! Random trees on tokio, with random faults, requests and calls, on a paused clock.
//!
//! What must hold is asserted of the recorded events, and of a book that the workers keep
//! themselves: who is born, and who is gone.

use super::plot;
use super::random::Random;
use crate::stage::Stage;
use astscope_supervision::{
    Address, AutoShutdown, Backoff, ChildSpec, Ctx, Event, EventKind, Exit, Fault, Init, Mailbox,
    Observer, Point, Probe, Recorder, Reply, Restart, Root, Service, Stop, Strategy, Supervisor,
    SupervisorSpec,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Longer than any tree may take, in virtual time.
const A_DAY: Duration = Duration::from_hours(24);

pub(crate) fn play(random: &mut Random) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut forest = Forest { seed: random.next(), ..Forest::default() };
        let spec = forest.supervisor(random, 0).probe(forest.probe.clone());
        let recorder = Recorder::new();
        let observers: Vec<Arc<dyn Observer>> =
            vec![Arc::<Recorder>::clone(&recorder), Arc::new(forest.stage.clone())];
        let bound = spec.stop_bound().expect("no worker is waited for without limit");
        if random.percent(30) {
            forest.arm(random);
        }
        let started = timeout(A_DAY, spec.observer(Arc::new(observers)).start("root")).await;
        if let Ok(root) = started.expect("the start hangs") {
            live(random, &forest, &root).await;
            // Workers that were added aren't in the bound.
            let bound = if forest.n_added.load(Ordering::Relaxed) == 0 { bound } else { A_DAY };
            end(random, root, bound).await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await; // whoever was abandoned is dropped now
        }
        check_events(&recorder.events());
        forest.book.expect_empty();
    });
}

// ── the tree ────────────────────────────────────────────────────────────────────────────────────

#[derive(Default)]
struct Forest {
    seed: u64,
    stage: Stage,
    probe: Probe,
    book: Book,
    /// The workers, and whether they play on the stage.
    workers: Vec<(Arc<str>, bool)>,
    addresses: Vec<Address<Ask>>,
    supervisors: Vec<(Supervisor, Vec<Arc<str>>)>,
    n_added: AtomicUsize,
}

impl Forest {
    fn supervisor(&mut self, random: &mut Random, depth: usize) -> SupervisorSpec {
        let auto = random.of(&[
            AutoShutdown::Never,
            AutoShutdown::Never,
            AutoShutdown::AnySignificant,
            AutoShutdown::AllSignificant,
        ]);
        let is_dynamic = random.percent(20);
        let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
        let spec = if is_dynamic {
            SupervisorSpec::dynamic(6)
        } else {
            SupervisorSpec::new(random.of(&strategies)).auto_shutdown(auto)
        };
        let auto = if is_dynamic { AutoShutdown::Never } else { auto };
        let mut spec = spec
            .intensity(random.of(&[0, 1, 2, 3, 5, 9, 30]), ms(50 + random.below(1000)))
            .kill_grace(ms(10 + random.below(100)));
        for _ in 0..random.below(if depth == 0 { 6 } else { 5 }) {
            let child = if depth < 3 && random.percent(35) {
                self.subtree(random, depth)
            } else {
                self.worker(random)
            };
            let mut child = child.restart(restart(random));
            let is_significant = auto != AutoShutdown::Never && random.percent(30);
            if is_significant && child.policy().restart != Restart::Permanent {
                child = child.significant();
            }
            if child.as_supervisor().is_some()
                && child.policy().restart != Restart::Temporary
                && random.percent(20)
            {
                child = child.degrade(ms(10 + random.below(300)));
            }
            if random.percent(20) {
                let with_backoff = child.clone().backoff(Backoff { first: ms(5), max: ms(20) });
                if spec.clone().child(with_backoff.clone()).check().is_ok() {
                    child = with_backoff;
                }
            }
            spec = spec.child(child);
        }
        spec
    }

    fn subtree(&mut self, random: &mut Random, depth: usize) -> ChildSpec {
        let below = self.supervisor(random, depth + 1);
        let ids = below.child_specs().iter().map(|child| Arc::clone(child.id())).collect();
        let id = format!("s{}", self.supervisors.len());
        let child = ChildSpec::supervisor(id, below);
        self.supervisors.push((child.as_supervisor().unwrap(), ids));
        match random.below(10) {
            0 => child.stop(Stop::Kill),
            1 => child.stop(Stop::Within(ms(random.below(100)))),
            2 => child.start_timeout(ms(random.below(200))),
            _ => child,
        }
    }

    fn worker(&mut self, random: &mut Random) -> ChildSpec {
        let id: Arc<str> = format!("w{}", self.workers.len()).into();
        let on_stage = random.percent(30);
        let child = if on_stage {
            self.stage.worker(&id)
        } else {
            let address = Address::new(Arc::clone(&id), 2);
            self.addresses.push(address.clone());
            ChildSpec::service::<Worker>(&address, (self.book.clone(), self.seed))
        };
        self.workers.push((id, on_stage));
        let child = child.start_timeout(ms(10 + random.below(100)));
        let stop = random.of(&[Stop::Kill, Stop::Within(ms(30)), Stop::Within(ms(100))]);
        let child = child.stop(stop);
        if random.percent(20) { child.stall_after(ms(50)) } else { child }
    }

    /// A worker to be added at run time.
    fn addition(&self, random: &mut Random) -> ChildSpec {
        let n = self.n_added.fetch_add(1, Ordering::Relaxed);
        let address = Address::new(format!("added{n}"), 2);
        ChildSpec::service::<Worker>(&address, (self.book.clone(), self.seed))
            .restart(restart(random))
            .start_timeout(ms(50))
            .stop(random.of(&[Stop::Kill, Stop::Within(ms(30))]))
    }

    fn arm(&self, random: &mut Random) {
        if self.workers.is_empty() {
            return;
        }
        let id = random.of(&self.workers).0;
        let point = random.of(&[Point::Init, Point::Run, Point::Run, Point::Stop, Point::Drop]);
        let slow = Fault::Slow(random.ms(150));
        let fault = random.of(&[Fault::Panic, Fault::Error, Fault::Hang, slow]);
        self.probe.arm(&*id, point, fault, 1 + random.below(3));
    }
}

fn ms(n: usize) -> Duration {
    Duration::from_millis(n as u64)
}

fn restart(random: &mut Random) -> Restart {
    random.of(&[
        Restart::Permanent,
        Restart::Permanent,
        Restart::Permanent,
        Restart::Transient,
        Restart::Temporary,
    ])
}

/// Who is alive, as the workers themselves know it.
#[derive(Clone, Debug, Default)]
struct Book(Arc<Mutex<BTreeMap<Arc<str>, i32>>>);

impl Book {
    fn expect_empty(&self) {
        let alive = self.0.lock().unwrap();
        assert!(alive.values().all(|alive| *alive == 0), "somebody outlives the tree: {alive:?}");
    }
}

/// One incarnation's entry in the book.
struct Alive(Book, Arc<str>);

impl Alive {
    fn new(book: Book, ctx: &Ctx) -> Self {
        Self::enter(book, Arc::clone(ctx.id()))
    }

    /// A task of an incarnation, with an entry of its own.
    fn helper(of: &Self) -> Self {
        Self::enter(of.0.clone(), format!("{}'s helper", of.1).into())
    }

    fn enter(book: Book, id: Arc<str>) -> Self {
        let alive = {
            let mut entries = book.0.lock().unwrap();
            let alive = entries.entry(Arc::clone(&id)).or_default();
            *alive += 1;
            *alive
        };
        assert_eq!(alive, 1, "two incarnations of {id} at once");
        Self(book, id)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

/// What a worker can be asked: its incarnation.
type Ask = Reply<u64>;

/// A worker whose fate is told by the seed, its name and its incarnation.
struct Worker {
    alive: Alive,
    random: Random,
}

impl Service for Worker {
    type Args = (Book, u64);
    type Message = Ask;

    async fn init((book, seed): Self::Args, ctx: &Ctx) -> Result<Init<Self>, Exit> {
        let alive = Alive::new(book.clone(), ctx);
        let name: u64 = ctx.id().bytes().map(u64::from).sum();
        let mut random = Random::new(seed ^ (name << 32) ^ ctx.incarnation());
        if random.percent(50) {
            sleep(random.ms(20)).await;
        }
        match random.below(if ctx.incarnation() == 1 { 100 } else { 12 }) {
            0 => Err(Exit::failed("not today")),
            1 => Ok(Init::Ignore),
            _ => Ok(Init::Ready(Self { alive, random })),
        }
    }

    async fn run(mut self, mut mailbox: Mailbox<Ask>, ctx: Ctx) -> Result<(), Exit> {
        if self.random.percent(20) {
            // A task of its own, which must be gone when the worker is.
            let helper = Alive::helper(&self.alive);
            ctx.spawn(async move {
                std::future::pending::<()>().await;
                drop(helper);
            });
        }
        let lives = match self.random.below(10) {
            0..4 => self.random.ms(400),
            _ => A_DAY * 2,
        };
        let end = tokio::time::Instant::now() + lives;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(end) => return Err(plot::exit(&mut self.random)),
                ask = mailbox.recv() => match ask {
                    Some(reply) => reply.send(ctx.incarnation()),
                    None => break,
                },
            }
        }
        match self.random.below(5) {
            0 => Err(plot::exit(&mut self.random)),
            1 => {
                sleep(self.random.ms(100)).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

// ── its life ────────────────────────────────────────────────────────────────────────────────────

async fn live(random: &mut Random, forest: &Forest, root: &Root) {
    let mut asked = JoinSet::new();
    for _ in 0..random.below(80) {
        match random.below(11) {
            0..4 => forest.arm(random),
            4 | 5 if !forest.workers.is_empty() => {
                let (id, on_stage) = random.of(&forest.workers);
                if on_stage {
                    match random.below(3) {
                        0 => forest.stage.fail(&id, 1),
                        1 => forest.stage.hold(&id),
                        _ => {}
                    }
                    forest.stage.exit_now(&id, plot::exit(random));
                }
            }
            6 | 7 if !forest.addresses.is_empty() => {
                let address = random.of(&forest.addresses);
                let within = random.ms(60);
                asked.spawn(async move {
                    let before = address.child().status().incarnation();
                    if let Ok(after) = address.call(within, |reply| reply).await {
                        assert!(after >= before, "{address:?} #{before} answered as #{after}");
                    }
                });
            }
            8 | 9 if !forest.supervisors.is_empty() => {
                let (supervisor, ids) = random.of(&forest.supervisors);
                let supervisor = supervisor.within(random.ms(60));
                let id = if ids.is_empty() { "nobody".into() } else { random.of(&ids) };
                let what = random.below(5);
                let added = random.percent(10).then(|| forest.addition(random));
                asked.spawn(async move {
                    if let Some(spec) = added {
                        drop(supervisor.start_child(spec).await);
                    }
                    match what {
                        0 => drop(supervisor.terminate_child(&id).await),
                        1 => drop(supervisor.restart_child(&id).await),
                        2 => drop(supervisor.delete_child(&id).await),
                        3 => drop(supervisor.count_children().await),
                        _ => drop(supervisor.which_children().await),
                    }
                });
            }
            _ => sleep(random.ms(100)).await,
        }
        if root.supervisor().child().status().is_gone() {
            break;
        }
    }
    // None of them may wait for longer than its own deadline.
    let all = async { while asked.join_next().await.is_some_and(|done| done.is_ok()) {} };
    timeout(Duration::from_secs(1), all).await.expect("somebody waits beyond a deadline");
    assert!(asked.is_empty(), "a caller panicked");
}

async fn end(random: &mut Random, root: Root, bound: Duration) {
    let mut whole = root.supervisor().child().monitor();
    let begin = Instant::now();
    match random.below(10) {
        0 => {
            drop(root);
            timeout(A_DAY, whole.down()).await.expect("a dropped tree hangs");
        }
        1 => {
            let ended = timeout(A_DAY, root.kill()).await.expect("the kill hangs");
            let took = begin.elapsed();
            assert!(took <= ms(120), "a kill took {took:?}");
            drop(ended);
        }
        _ => {
            timeout(A_DAY, root.shutdown()).await.expect("the shutdown hangs");
            let took = begin.elapsed();
            assert!(took <= bound, "a stop took {took:?}, and not at most {bound:?}");
        }
    }
}

// ── what must hold ──────────────────────────────────────────────────────────────────────────────

fn check_events(events: &[Event]) {
    let log = || {
        let line = |event: &Event| format!("{} {:?}", event.path, event.kind);
        events.iter().map(line).collect::<Vec<_>>().join("\n")
    };
    // The last incarnation of each path, and whether it is up.
    let mut known: BTreeMap<&str, (u64, bool)> = BTreeMap::new();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(event.number, at as u64 + 1, "a gap in the numbers\n{}", log());
        let path = event.path.as_str();
        match &event.kind {
            EventKind::Started { incarnation } => {
                let (last, is_up) = known.get(path).copied().unwrap_or_default();
                assert!(!is_up, "{path} started twice\n{}", log());
                assert!(*incarnation > last, "{path} counts backwards\n{}", log());
                known.insert(path, (*incarnation, true));
            }
            EventKind::Exited { incarnation, .. } | EventKind::Stopped { incarnation, .. } => {
                let (last, is_up) = known.get(path).copied().unwrap_or_default();
                let is_it = if is_up { *incarnation == last } else { *incarnation > last };
                assert!(is_it, "{path} #{incarnation} ended after #{last}\n{}", log());
                known.insert(path, (*incarnation, false));
                expect_empty(path, &known, &log);
            }
            EventKind::StartFailed { .. } | EventKind::SupervisorDown { .. } => {
                expect_empty(path, &known, &log);
            }
            EventKind::Degraded { .. } => {
                known.entry(path).or_default().1 = false;
                expect_empty(path, &known, &log);
            }
            _ => {}
        }
    }
    assert!(known.values().all(|(_, is_up)| !is_up), "somebody is left: {known:?}\n{}", log());
    if let Some(down) = events.iter().position(|event| {
        event.path.as_str() == "root" && matches!(event.kind, EventKind::SupervisorDown { .. })
    }) {
        assert_eq!(down + 1, events.len(), "something after the end\n{}", log());
    }
}

/// Nobody is up below what isn't.
fn expect_empty(path: &str, known: &BTreeMap<&str, (u64, bool)>, log: &impl Fn() -> String) {
    let is_below = |other: &str| other.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let left: Vec<_> =
        known.iter().filter(|(other, (_, is_up))| *is_up && is_below(other)).collect();
    assert!(left.is_empty(), "{path} is gone, and {left:?} isn't\n{}", log());
}
