//! How services find each other, wait for each other and are watched: registry, readiness and
//! dependencies, monitors, health, paths.
#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may")]

mod stage;

use astscope_supervision::{
    Address, ChildSpec, ChildState, Ctx, Dependencies, DependencyError, DynamicSupervisor, Event,
    EventKind, Exit, Fault, Health, HealthStatus, Init, Mailbox, NameTaken, NotReady, Observer,
    Point, Probe, Recorder, Registry, Reply, Restart, Root, Service, Stop, Strategy,
    SupervisorSpec, Verdict,
};
use stage::settle;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, advance, sleep, timeout};

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn one_for_one() -> SupervisorSpec {
    SupervisorSpec::new(Strategy::OneForOne).intensity(100, secs(5))
}

async fn start(spec: SupervisorSpec) -> Root {
    spec.observer(Recorder::new()).start("root").await.unwrap()
}

/// Waits to be told to stop.
async fn idle(ctx: Ctx) -> Result<(), Exit> {
    ctx.idle();
    ctx.stopping().await;
    Ok(())
}

/// Time passes while a thread is blocked, which keeps a paused clock from going on by itself.
async fn pass(time: Duration) {
    advance(time).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

// ── a service that does what it is told ─────────────────────────────────────────────────────────

struct Worker(Registry<String, u64>);

type Deed = Box<dyn FnOnce(&Ctx, &Registry<String, u64>) + Send>;

enum Job {
    /// Runs this in the service.
    Do(Deed),
    /// Ends like this.
    End(Exit),
    /// Works for this long, and beats so many times meanwhile.
    Work(Duration, u32),
    Ping(Reply<u64>),
}

impl Service for Worker {
    type Args = Registry<String, u64>;
    type Message = Job;

    async fn init(names: Registry<String, u64>, _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self(names)))
    }

    async fn run(self, mut mailbox: Mailbox<Job>, ctx: Ctx) -> Result<(), Exit> {
        while let Some(job) = mailbox.recv().await {
            match job {
                Job::Do(f) => f(&ctx, &self.0),
                Job::End(exit) => return Err(exit),
                Job::Work(time, beats) => {
                    for _ in 0..=beats {
                        sleep(time / (beats + 1)).await;
                        ctx.progress();
                    }
                }
                Job::Ping(reply) => reply.send(ctx.incarnation()),
            }
        }
        Ok(())
    }
}

fn worker(id: &str, names: &Registry<String, u64>) -> (ChildSpec, Address<Job>) {
    let address = Address::new(id, 16);
    (ChildSpec::service::<Worker>(&address, names.clone()), address)
}

/// Runs `f` in the service and returns what it does.
async fn within<R: Send + 'static>(
    address: &Address<Job>,
    f: impl FnOnce(&Ctx, &Registry<String, u64>) -> R + Send + 'static,
) -> R {
    let (tell, told) = oneshot::channel();
    let job = Job::Do(Box::new(move |ctx, names| drop(tell.send(f(ctx, names)))));
    address.send(secs(5), job).await.unwrap();
    told.await.unwrap()
}

async fn register(address: &Address<Job>, name: &'static str) -> Result<(), NameTaken> {
    let register = move |ctx: &Ctx, names: &Registry<String, u64>| {
        names.register(ctx, name.to_owned(), ctx.incarnation())
    };
    within(address, register).await
}

// ── registry ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn a_name_has_one_owner_who_alone_can_change_it_or_take_it_back() {
    let names = Registry::new();
    let ((a, a_address), (b, b_address)) = (worker("a", &names), worker("b", &names));
    let _root = start(one_for_one().child(a).child(b)).await;
    assert_eq!(register(&a_address, "x").await, Ok(()));
    let taken = register(&b_address, "x").await.unwrap_err();
    assert_eq!(taken.to_string(), "the name is taken by root/a");
    let name = "x".to_owned();
    let unregister = |ctx: &Ctx, names: &Registry<_, _>| names.unregister(ctx, &"x".to_owned());
    assert!(!within(&b_address, unregister).await);
    assert_eq!(names.whereis(&name), Some(1));
    within(&a_address, |ctx, names| names.register(ctx, "x".to_owned(), 7)).await.unwrap();
    assert_eq!((names.whereis(&name), names.entries()), (Some(7), vec![("x".to_owned(), 7)]));
    assert!(within(&a_address, unregister).await);
    assert!(!within(&a_address, unregister).await);
    assert_eq!(names.whereis(&name), None);
    assert_eq!(register(&b_address, "x").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn the_same_name_in_two_scopes_is_two_names() {
    let (here, there) = (Registry::new(), Registry::new());
    let ((a, a_address), (b, b_address)) = (worker("a", &here), worker("b", &there));
    let _root = start(one_for_one().child(a).child(b)).await;
    register(&a_address, "x").await.unwrap();
    register(&b_address, "x").await.unwrap();
    b_address.send(secs(5), Job::End(Exit::Normal)).await.unwrap();
    settle().await;
    assert_eq!((here.entries().len(), there.entries().len()), (1, 0));
}

/// Writes down what the name stands for whenever anything is reported.
struct Witness {
    names: Registry<String, u64>,
    seen: Mutex<Vec<String>>,
}

impl Witness {
    fn note(&self, what: &str) {
        let value = self.names.whereis(&"x".to_owned());
        let value = value.map_or("-".to_owned(), |value| value.to_string());
        self.seen.lock().unwrap().push(format!("{what}: {value}"));
    }
}

impl Observer for Witness {
    fn observe(&self, event: &Event) {
        match &event.kind {
            EventKind::Exited { incarnation, .. } => self.note(&format!("{incarnation} exited")),
            EventKind::Stopped { incarnation, .. } => self.note(&format!("{incarnation} stopped")),
            EventKind::Started { incarnation } => self.note(&format!("{incarnation} started")),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_is_gone_before_its_owners_end_is_reported_to_anybody() {
    let names = Registry::new();
    let (a, address) = worker("a", &names);
    let seen = Mutex::default();
    let witness = Arc::new(Witness { names: names.clone(), seen });
    let observer = Arc::clone(&witness) as Arc<dyn Observer>;
    let root = one_for_one().child(a).observer(observer).start("root").await.unwrap();
    let mut expected = vec!["1 started: -".to_owned()];
    let panics = || Job::Do(Box::new(|_, _| panic!("boom")));
    for (at, end) in
        [Job::End(Exit::Normal), Job::End(Exit::failed("boom")), panics()].into_iter().enumerate()
    {
        let n = at + 1;
        register(&address, "x").await.unwrap();
        witness.note("registered");
        let (mut monitor, own) = (address.child().monitor(), Arc::clone(&witness));
        let told = tokio::spawn(async move {
            monitor.down().await;
            own.note("monitor");
        });
        address.send(secs(5), end).await.unwrap();
        told.await.unwrap();
        settle().await;
        expected.extend([format!("registered: {n}"), format!("{n} exited: -")]);
        expected.extend([format!("{} started: -", n + 1), "monitor: -".to_owned()]);
    }
    register(&address, "x").await.unwrap();
    root.shutdown().await;
    expected.push("4 stopped: -".to_owned());
    // Whether the observer or the monitor is told first is nobody's promise.
    let (mut seen, mut expected) = (std::mem::take(&mut *witness.seen.lock().unwrap()), expected);
    seen.sort_unstable();
    expected.sort_unstable();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn what_an_incarnation_has_registered_does_not_pile_up_while_it_lives() {
    let names: Registry<Arc<str>, Arc<str>> = Registry::new();
    let (key, value): (Arc<str>, Arc<str>) = ("x".into(), "y".into());
    let (own, key_in, value_in) = (names.clone(), Arc::clone(&key), Arc::clone(&value));
    let child = ChildSpec::task("a", move |ctx| {
        for n in 0..1000 {
            own.register(&ctx, Arc::clone(&key_in), Arc::clone(&value_in)).unwrap();
            assert!(n % 2 != 0 || own.unregister(&ctx, &key_in));
        }
        idle(ctx)
    });
    let root = start(one_for_one().child(child)).await;
    settle().await;
    // One here, one in the child's function; the key's entry, and that it is the owner's.
    assert_eq!((Arc::strong_count(&key), Arc::strong_count(&value)), (4, 3));
    root.shutdown().await;
    assert_eq!(names.entries(), []);
}

#[tokio::test(start_paused = true)]
async fn two_trees_that_look_alike_may_share_a_registry() {
    let names = Registry::new();
    let ((a, a_address), (b, b_address)) = (worker("a", &names), worker("a", &names));
    let (one, two) = (start(one_for_one().child(a)).await, start(one_for_one().child(b)).await);
    register(&a_address, "x").await.unwrap();
    assert!(register(&b_address, "x").await.is_err(), "the same path, and somebody else");
    register(&b_address, "y").await.unwrap();
    two.shutdown().await;
    assert_eq!(names.entries(), [("x".to_owned(), 1)]);
    one.shutdown().await;
    assert_eq!(names.entries(), []);
}

/// The first incarnation registers `x`, and then blocks a thread until it is let go, whatever it is
/// told; all others register it and wait.
struct Blocker {
    names: Registry<&'static str, u64>,
    begins: Mutex<Option<oneshot::Sender<()>>>,
    released: Mutex<Option<std::sync::mpsc::Receiver<()>>>,
    ended: Arc<Semaphore>,
}

struct Blocked {
    has_begun: oneshot::Receiver<()>,
    release: std::sync::mpsc::SyncSender<()>,
    ended: Arc<Semaphore>,
}

impl Blocker {
    fn new(names: &Registry<&'static str, u64>) -> (Arc<Self>, Blocked) {
        let (begins, has_begun) = oneshot::channel();
        let (release, released) = std::sync::mpsc::sync_channel(1);
        let ended = Arc::new(Semaphore::new(0));
        let blocked = Blocked { has_begun, release, ended: Arc::clone(&ended) };
        let (begins, released) = (Mutex::new(Some(begins)), Mutex::new(Some(released)));
        (Arc::new(Self { names: names.clone(), begins, released, ended }), blocked)
    }

    fn spec(self: Arc<Self>, value: u64) -> ChildSpec {
        let spec = ChildSpec::task("a", move |ctx| {
            let blocker = Arc::clone(&self);
            async move {
                blocker.names.register(&ctx, "x", value * 10 + ctx.incarnation())?;
                let (begins, released) = (
                    blocker.begins.lock().unwrap().take(),
                    blocker.released.lock().unwrap().take(),
                );
                if let (Some(begins), Some(released)) = (begins, released) {
                    let ended = Arc::clone(&blocker.ended);
                    let wait = move |_: &_| {
                        begins.send(()).unwrap();
                        released.recv().unwrap_or(());
                        ended.add_permits(1);
                    };
                    ctx.blocking(None, wait).await?;
                }
                idle(ctx).await
            }
        });
        spec.stop(Stop::Kill)
    }
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_cannot_be_killed_loses_its_name_when_it_is_given_up() {
    let names = Registry::new();
    let (blocker, blocked) = Blocker::new(&names);
    let spec = one_for_one().kill_grace(secs(1)).child(blocker.spec(0));
    let root = start(spec).await;
    blocked.has_begun.await.unwrap();
    let (a, supervisor) =
        (root.supervisor().child_at("a").await.unwrap(), root.supervisor().clone());
    let (mut monitor, own) = (a.monitor(), names.clone());
    let told = tokio::spawn(async move { (monitor.down().await, own.whereis(&"x")) });
    let killed = tokio::spawn(async move { supervisor.terminate_child("a").await });
    pass(Duration::ZERO).await;
    assert_eq!(names.whereis(&"x"), Some(1), "it still runs");
    pass(secs(1)).await;
    assert_eq!(killed.await.unwrap(), Ok(()));
    assert_eq!(told.await.unwrap(), (Exit::Unkillable, None));

    root.supervisor().restart_child("a").await.unwrap();
    pass(Duration::ZERO).await;
    assert_eq!(names.whereis(&"x"), Some(2));
    blocked.release.send(()).unwrap();
    drop(blocked.ended.acquire().await.unwrap());
    pass(Duration::ZERO).await;
    assert_eq!(names.whereis(&"x"), Some(2));
    let outcome = root.shutdown().await;
    assert_eq!((outcome.unkillable, names.whereis(&"x")), (1, None));
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_the_place_of_a_child_that_was_given_up_is_somebody_else() {
    let names = Registry::new();
    let (blocker, blocked) = Blocker::new(&names);
    let workers = DynamicSupervisor::new("workers", move |value| Arc::clone(&blocker).spec(value));
    let spec = SupervisorSpec::dynamic(10).kill_grace(secs(1));
    let root = start(one_for_one().child(workers.spec(spec))).await;
    workers.start_child(1).await.unwrap();
    blocked.has_begun.await.unwrap();
    let supervisor = workers.supervisor().clone();
    let killed = tokio::spawn(async move { supervisor.terminate_child("a").await });
    pass(Duration::ZERO).await;
    pass(secs(1)).await;
    killed.await.unwrap().unwrap();

    // The same path, and its first incarnation again.
    workers.start_child(2).await.unwrap();
    pass(Duration::ZERO).await;
    assert_eq!(names.whereis(&"x"), Some(21));
    blocked.release.send(()).unwrap();
    drop(blocked.ended.acquire().await.unwrap());
    pass(Duration::ZERO).await;
    assert_eq!(names.whereis(&"x"), Some(21));
    assert_eq!(root.shutdown().await.unkillable, 1);
}

/// A value whose end is somebody's code.
#[derive(Clone)]
struct Value(Arc<dyn Fn() + Send + Sync>);

impl Drop for Value {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[tokio::test(start_paused = true)]
async fn a_values_end_may_look_into_the_registry_and_panic_and_nothing_is_stuck() {
    let names: Registry<&str, Value> = Registry::new();
    let looks = Arc::new(Mutex::new(Vec::new()));
    let (own, log) = (names.clone(), Arc::clone(&looks));
    let look: Arc<dyn Fn() + Send + Sync> =
        Arc::new(move || log.lock().unwrap().push(own.whereis(&"y").is_some()));
    let panics: Arc<dyn Fn() + Send + Sync> = Arc::new(|| panic!("dropped"));
    let (other, entered): (Registry<&str, Value>, _) = (Registry::new(), names.clone());
    let own = other.clone();
    let child = ChildSpec::task("a", move |ctx| {
        entered.register(&ctx, "x", Value(Arc::clone(&look))).unwrap();
        entered.register(&ctx, "x", Value(Arc::clone(&look))).unwrap(); // one is replaced
        entered.unregister(&ctx, &"x"); // one is taken back
        entered.register(&ctx, "z", Value(Arc::clone(&panics))).unwrap();
        own.register(&ctx, "x", Value(Arc::clone(&look))).unwrap();
        async { Ok(()) }
    });
    let root = start(one_for_one().child(child.restart(Restart::Temporary))).await;
    let end = root.supervisor().child_at("a").await;
    settle().await;
    assert!(end.is_none_or(|a| a.monitor().exit() == Some(Exit::Panicked("dropped".into()))));
    assert_eq!(*looks.lock().unwrap(), [false, false, false]);
    assert!(names.whereis(&"z").is_none() && other.whereis(&"x").is_none());
    assert_eq!(root.shutdown().await.exit, Exit::Shutdown);
}

// ── readiness and dependencies ──────────────────────────────────────────────────────────────────

/// Starts at once and is ready after this long.
fn ready_after(id: &str, time: Duration) -> ChildSpec {
    let child = ChildSpec::task(id, move |ctx: Ctx| async move {
        sleep(time).await;
        ctx.set_ready(true);
        idle(ctx).await
    });
    child.ready_later()
}

#[tokio::test(start_paused = true)]
async fn a_service_is_ready_when_it_says_so_however_early_it_was_started() {
    let begun = Instant::now();
    let (slow, quick) = (ready_after("slow", secs(3)), ChildSpec::task("quick", idle));
    let (slow_ref, quick_ref) = (slow.child(), quick.child());
    let not_ready = |state| NotReady { id: "slow".into(), state };
    let error = slow_ref.await_ready(secs(1)).await.unwrap_err();
    assert_eq!(error, not_ready(Some(ChildState::Down)), "before the start");
    let root = start(one_for_one().child(slow).child(quick)).await;
    assert_eq!(begun.elapsed(), secs(1), "start order waits for no readiness");
    assert!(quick_ref.status().is_ready());
    assert!(slow_ref.status().is_up() && !slow_ref.status().is_ready());
    let error = slow_ref.await_ready(secs(1)).await.unwrap_err();
    assert_eq!(error, not_ready(Some(ChildState::Up)));
    slow_ref.await_ready(secs(60)).await.unwrap();
    assert_eq!(begun.elapsed(), secs(4));
    root.shutdown().await;
    let error = slow_ref.await_ready(secs(60)).await.unwrap_err();
    assert_eq!((error, begun.elapsed()), (not_ready(None), secs(4)), "gone is told at once");
}

#[tokio::test(start_paused = true)]
async fn readiness_is_an_incarnations_own_and_can_be_taken_back() {
    let names = Registry::new();
    let (child, address) = worker("a", &names);
    let _root = start(one_for_one().child(child.ready_later())).await;
    let a = address.child();
    let set = |ready| move |ctx: &Ctx, _: &Registry<_, _>| ctx.set_ready(ready);
    within(&address, set(true)).await;
    assert!(a.status().is_ready());
    within(&address, set(false)).await;
    assert!(!a.status().is_ready());
    within(&address, set(true)).await;
    let old = within(&address, |ctx, _| ctx.clone()).await;
    address.send(secs(5), Job::End(Exit::Normal)).await.unwrap();
    settle().await;
    assert_eq!((a.status().incarnation(), a.status().is_ready()), (2, false));
    old.set_ready(true);
    assert!(!a.status().is_ready(), "an old incarnation has no say");
}

#[test]
fn a_map_names_only_services_that_it_knows_each_once_and_nobody_waits_for_himself() {
    let spec = |id: &str| ChildSpec::task(id, idle).child();
    let error = |services: &[(&str, &'static [&'static str])]| {
        let services = services.iter().map(|(id, needs)| (spec(id), *needs));
        Dependencies::new(services).unwrap_err()
    };
    let unknown = error(&[("a", &["b", "c"]), ("b", &[])]);
    assert_eq!(unknown.to_string(), "`a` needs `c`, which nobody has declared");
    let cycle =
        |ids: &[&str]| DependencyError::Cycle(ids.iter().map(ToString::to_string).collect());
    assert_eq!(error(&[("a", &["a"])]), cycle(&["a", "a"]));
    let ring = error(&[("a", &["b"]), ("b", &["c"]), ("c", &["d", "b"]), ("d", &[])]);
    assert_eq!(ring, cycle(&["b", "c", "b"]), "without the way there");
    assert_eq!(ring.to_string(), "these need each other: b → c → b");
    let twice = error(&[("a", &[]), ("a", &["b"]), ("b", &[])]);
    assert_eq!(twice.to_string(), "two services are called `a`");
    // Two ways to one service are no cycle.
    let diamond = [("a", &["b", "c"][..]), ("b", &["d"]), ("c", &["d"]), ("d", &[])];
    assert!(Dependencies::new(diamond.map(|(id, needs)| (spec(id), needs))).is_ok());
}

#[tokio::test(start_paused = true)]
async fn several_waits_have_one_deadline() {
    let children = [("a", 2), ("b", 4), ("c", 100)].map(|(id, n)| ready_after(id, secs(n)));
    let [a, b, c] = [0, 1, 2].map(|at: usize| children[at].child());
    let user = |id| ChildSpec::task(id, idle).child();
    let map: Vec<(_, &[&str])> = vec![
        (a, &[]),
        (b, &[]),
        (c, &[]),
        (user("early"), &["b", "a"]),
        (user("late"), &["a", "b", "c"]),
    ];
    let map = Dependencies::new(map).unwrap();
    let root = start(one_for_one().children(children)).await;
    let begun = Instant::now();
    assert!(!map.check("early") && map.check("a") && map.check("unheard of"));
    assert_eq!(map.await_for("unheard of", Duration::ZERO).await, Ok(()));
    let late = map.await_for("late", secs(5));
    let early = async {
        let result = map.await_for("early", secs(5)).await;
        (result, begun.elapsed())
    };
    let (late, early) = tokio::join!(late, early);
    assert_eq!(early, (Ok(()), secs(4)));
    assert_eq!(late.unwrap_err().to_string(), "`c` is not ready");
    assert_eq!(begun.elapsed(), secs(5));
    assert!(map.check("early") && !map.check("late"));
    root.shutdown().await;
    let begun = Instant::now();
    let error = map.await_for("late", secs(5)).await.unwrap_err();
    assert_eq!((&*error.id, error.state), ("a", None));
    assert_eq!(begun.elapsed(), Duration::ZERO, "what is gone is told at once");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_while_another_is_waited_for_is_waited_for_again() {
    for (within, expected) in [(60, Ok(9)), (7, Err("a"))] {
        let probe = Probe::new();
        let children = [("a", 2), ("b", 5)].map(|(id, n)| ready_after(id, secs(n)));
        let [a, b] = [0, 1].map(|at: usize| children[at].child());
        let user = ChildSpec::task("user", idle).child();
        let map: Vec<(_, &[&str])> = vec![(a, &[]), (b, &[]), (user, &["a", "b"])];
        let map = Dependencies::new(map).unwrap();
        let _root = start(one_for_one().children(children).probe(probe.clone())).await;
        let begun = Instant::now();
        let crash = async {
            sleep(secs(3)).await;
            probe.arm("a", Point::Init, Fault::Slow(secs(4)), 1);
            probe.arm("a", Point::Run, Fault::Panic, 1);
        };
        let (result, ()) = tokio::join!(map.await_for("user", secs(within)), crash);
        match expected {
            Ok(at) => assert_eq!((result, begun.elapsed()), (Ok(()), secs(at))),
            Err(id) => {
                let error = result.unwrap_err();
                assert_eq!((&*error.id, error.state), (id, Some(ChildState::Starting)));
                assert_eq!(begun.elapsed(), secs(within));
            }
        }
    }
}

// ── monitors ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn a_monitor_tells_the_end_of_one_incarnation_to_everybody_who_watches_it() {
    let (child, address) = worker("a", &Registry::new());
    let a = address.child();
    let mut early = a.monitor();
    assert_eq!((early.incarnation(), early.down().await), (0, Exit::Normal), "nobody is there");
    let root = start(one_for_one().child(child)).await;
    let ends = [Exit::Normal, Exit::ShutdownWith("so".into()), Exit::failed("boom")];
    for (n, exit) in (1..).zip(ends) {
        let mut monitors = [a.monitor(), a.monitor(), a.monitor().clone()];
        assert_eq!((monitors[0].incarnation(), monitors[0].exit()), (n, None));
        assert!(timeout(secs(100), monitors[0].down()).await.is_err());
        address.send(secs(5), Job::End(exit.clone())).await.unwrap();
        for monitor in &mut monitors {
            assert_eq!(monitor.down().await, exit);
        }
        settle().await;
        assert_eq!(monitors[1].exit(), Some(exit.clone()), "the next one changes nothing");
        assert_eq!(monitors[2].down().await, exit, "as often as one likes");
    }
    let mut last = a.monitor();
    root.kill().await;
    assert_eq!(last.down().await, Exit::Killed);
    assert_eq!(a.monitor().down().await, Exit::Killed, "also afterwards");
}

#[tokio::test(start_paused = true)]
async fn supervisors_are_monitored_like_anybody_else() {
    let inner = one_for_one().intensity(0, secs(5)).child(ChildSpec::task("a", |_| async {
        sleep(secs(1)).await;
        Ok(())
    }));
    let inner = ChildSpec::supervisor("inner", inner);
    let watched = inner.child();
    let root = start(one_for_one().child(inner)).await;
    assert_eq!(watched.monitor().down().await, Exit::Meltdown);
    let mut whole = root.supervisor().child().monitor();
    root.shutdown().await;
    assert_eq!(whole.down().await, Exit::Shutdown);
}

// ── addresses ───────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_with_a_child_that_is_given_up_gets_to_its_successor() {
    let address = Address::new("a", 1);
    let child = ChildSpec::service::<Worker>(&address, Registry::new()).stop(Stop::Kill);
    let root = start(one_for_one().kill_grace(Duration::ZERO).child(child)).await;
    let (begun, has_begun) = oneshot::channel();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let block = move |_: &Ctx, _: &Registry<_, _>| {
        begun.send(()).unwrap();
        released.recv().unwrap_or(());
    };
    address.send_now(Job::Do(Box::new(block))).unwrap();
    has_begun.await.unwrap();
    address.send_now(Job::Do(Box::new(|_, _| {}))).unwrap(); // it is full now
    let mut call = Box::pin(address.call(Duration::from_mins(1), Job::Ping));
    assert!(timeout(Duration::ZERO, &mut call).await.is_err());
    root.supervisor().terminate_child("a").await.unwrap();
    root.supervisor().restart_child("a").await.unwrap();
    assert_eq!(call.await, Ok(2));
    release.send(()).unwrap();
    root.shutdown().await;
}

// ── observers ───────────────────────────────────────────────────────────────────────────────────

struct Panics;

impl Observer for Panics {
    fn observe(&self, event: &Event) {
        panic!("{}", event.kind);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_takes_nobody_with_it() {
    let (child, address) = worker("a", &Registry::new());
    let inner = ChildSpec::supervisor("inner", one_for_one().child(child));
    let root = one_for_one().child(inner).observer(Arc::new(Panics)).start("root").await.unwrap();
    let mut monitor = root.supervisor().child_at("inner").await.unwrap().monitor();
    address.send_now(Job::End(Exit::Normal)).unwrap();
    settle().await;
    assert_eq!(address.call(secs(5), Job::Ping).await, Ok(2));
    assert_eq!(monitor.exit(), None);
    assert_eq!(root.shutdown().await.exit, Exit::Shutdown);
    assert_eq!(monitor.down().await, Exit::Shutdown);
}

// ── health ──────────────────────────────────────────────────────────────────────────────────────

fn verdicts(health: &Health) -> (HealthStatus, Vec<Verdict>) {
    let report = health.check();
    (report.status, report.services.into_iter().map(|service| service.verdict).collect())
}

#[tokio::test(start_paused = true)]
async fn a_service_is_hung_by_its_lack_of_progress_and_not_by_having_nothing_to_do() {
    let (child, address) = worker("a", &Registry::new());
    let _root = start(one_for_one().child(child)).await;
    let health = Health::new().watch(address.child(), secs(5));
    let healthy = (HealthStatus::Healthy, vec![Verdict::Healthy]);
    sleep(secs(1000)).await;
    assert_eq!(verdicts(&health), healthy, "it waits for a message");

    address.send_now(Job::Work(secs(20), 0)).unwrap();
    sleep(secs(4)).await;
    assert_eq!(verdicts(&health), healthy);
    sleep(secs(1)).await;
    let hung = |n| (HealthStatus::Degraded, vec![Verdict::Hung(secs(n))]);
    assert_eq!(verdicts(&health), hung(5));
    address.send_now(Job::Do(Box::new(|_, _| {}))).unwrap();
    sleep(secs(14)).await;
    assert_eq!(verdicts(&health), hung(19), "messages that wait are no progress");
    sleep(secs(1)).await;
    settle().await;
    assert_eq!(verdicts(&health), healthy, "it got on with it");

    let beats = address.child().vitals().beats;
    address.send_now(Job::Work(secs(20), 4)).unwrap();
    for _ in 0..20 {
        sleep(secs(1)).await;
        assert_eq!(verdicts(&health), healthy, "it says that it gets on");
    }
    settle().await;
    let more = address.child().vitals().beats - beats;
    assert_eq!(more, 6, "one message, five times progress");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_in_another_branch_than_its_mailbox_is_hung() {
    struct Ticker;
    impl Service for Ticker {
        type Args = ();
        type Message = ();

        async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
            Ok(Init::Ready(Self))
        }

        async fn run(self, mut mailbox: Mailbox<()>, _: Ctx) -> Result<(), Exit> {
            for tick in 1.. {
                tokio::select! {
                    _ = mailbox.recv() => return Ok(()),
                    () = sleep(secs(3)) => {}
                }
                if tick == 10 {
                    pending::<()>().await; // it never gets back to its mailbox
                }
            }
            Ok(())
        }
    }
    let address = Address::new("ticker", 1);
    let _root = start(one_for_one().child(ChildSpec::service::<Ticker>(&address, ()))).await;
    let health = Health::new().watch(address.child(), secs(2));
    for _ in 0..30 {
        assert_eq!(verdicts(&health).0, HealthStatus::Healthy);
        sleep(secs(1)).await;
    }
    assert_eq!(address.child().vitals().beats, 1, "a wait that is given up is no progress");
    sleep(secs(2)).await;
    assert_eq!(verdicts(&health).1, [Verdict::Hung(secs(2))]);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_hangs_on_purpose_is_hung_and_with_a_limit_it_is_replaced() {
    let probe = Probe::new();
    let (child, address) = worker("a", &Registry::new());
    let (limited, limited_address) = worker("limited", &Registry::new());
    let limited = limited.stall_after(secs(8));
    let _root = start(one_for_one().child(child).child(limited).probe(probe.clone())).await;
    sleep(secs(100)).await;
    let health =
        Health::new().watch(address.child(), secs(5)).watch(limited_address.child(), secs(5));
    let mut monitor = limited_address.child().monitor();
    for id in ["a", "limited"] {
        probe.arm(id, Point::Run, Fault::Hang, 1);
    }
    sleep(secs(6)).await;
    let hung = Verdict::Hung(secs(6));
    assert_eq!(verdicts(&health), (HealthStatus::Degraded, vec![hung, hung]));
    assert_eq!(monitor.down().await, Exit::Stalled);
    assert_eq!(limited_address.call(secs(5), Job::Ping).await, Ok(2));
    assert!(matches!(verdicts(&health).1[..], [Verdict::Hung(_), Verdict::Healthy]));
}

#[tokio::test(start_paused = true)]
async fn a_child_without_a_mailbox_says_itself_whether_it_works_or_waits() {
    let child = ChildSpec::task("a", |ctx: Ctx| async move {
        for _ in 0..10 {
            sleep(secs(4)).await;
            ctx.progress();
        }
        ctx.idle();
        sleep(secs(100)).await;
        ctx.progress();
        pending().await
    });
    let a = child.child();
    let _root = start(one_for_one().child(child)).await;
    let health = Health::new().watch(a, secs(5));
    for _ in 0..140 {
        assert_eq!(verdicts(&health).0, HealthStatus::Healthy);
        sleep(secs(1)).await;
    }
    sleep(secs(5)).await;
    assert_eq!(verdicts(&health).0, HealthStatus::Degraded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_thread_never_yields_is_hung_without_being_asked() {
    let names = Registry::new();
    let (child, address) = worker("a", &names);
    let root = start(one_for_one().child(child)).await;
    let (begun, has_begun) = oneshot::channel();
    let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
    let block = move |_: &Ctx, _: &Registry<_, _>| {
        begun.send(()).unwrap();
        released.recv().unwrap_or(());
    };
    address.send(secs(60), Job::Do(Box::new(block))).await.unwrap();
    has_begun.await.unwrap();
    let health = Health::new().watch_critical(address.child(), Duration::ZERO);
    let (status, verdicts) = verdicts(&health);
    assert!(matches!(verdicts[..], [Verdict::Hung(_)]));
    assert_eq!(status, HealthStatus::Failed);
    release.send(()).unwrap();
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_whole_is_failed_with_a_critical_service_and_degraded_with_any_other() {
    let probe = Probe::new();
    let names = Registry::new();
    let ((db, db_address), (ui, ui_address)) = (worker("db", &names), worker("ui", &names));
    let waits = ready_after("waits", secs(3));
    let down = ChildSpec::task("down", |_| async { Ok(()) }).restart(Restart::Transient);
    let health = Health::new()
        .watch_critical(db_address.child(), secs(5))
        .watch(ui_address.child(), secs(5));
    let lesser = Health::new().watch(waits.child(), secs(5)).watch(down.child(), secs(5));
    assert_eq!(Health::new().check().status, HealthStatus::Healthy);
    assert_eq!(verdicts(&health), (HealthStatus::Failed, vec![Verdict::Down; 2]), "not started");
    let spec = one_for_one().children([db, ui, waits, down]).probe(probe.clone());
    let root = start(spec).await;
    assert_eq!(verdicts(&health), (HealthStatus::Healthy, vec![Verdict::Healthy; 2]));
    settle().await;
    assert_eq!(verdicts(&lesser).1, [Verdict::NotReady, Verdict::Down]);
    sleep(secs(3)).await;
    assert_eq!(verdicts(&lesser).1, [Verdict::Healthy, Verdict::Down]);

    for (id, address, status) in
        [("ui", &ui_address, HealthStatus::Degraded), ("db", &db_address, HealthStatus::Failed)]
    {
        probe.arm(id, Point::Init, Fault::Slow(secs(1)), 1);
        address.send_now(Job::End(Exit::failed("boom"))).unwrap();
        settle().await;
        let report = health.check();
        assert_eq!(report.status, status);
        let bad: Vec<_> =
            report.services.iter().filter(|it| it.verdict != Verdict::Healthy).collect();
        assert!(matches!(bad[..], [it] if &*it.id == id && it.critical == (id == "db")));
        assert_eq!(bad[0].verdict, Verdict::Restarting);
        sleep(secs(1)).await;
        assert_eq!(health.check().status, HealthStatus::Healthy);
    }
    root.supervisor().terminate_child("ui").await.unwrap();
    assert_eq!(verdicts(&health).1, [Verdict::Healthy, Verdict::Down]);
    root.shutdown().await;
    assert_eq!(verdicts(&health), (HealthStatus::Failed, vec![Verdict::Down; 2]));
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_behind_its_firewall_is_down() {
    let crash = ChildSpec::task("a", |_| async { Err(Exit::failed("boom")) });
    let inner = ChildSpec::supervisor("inner", one_for_one().child(crash)).degrade(secs(60));
    let health = Health::new().watch(inner.child(), secs(5));
    let _root = start(one_for_one().child(inner)).await;
    settle().await;
    assert_eq!(verdicts(&health), (HealthStatus::Degraded, vec![Verdict::Down]));
}

// ── paths ───────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(start_paused = true)]
async fn a_path_leads_to_a_child_or_a_supervisor_however_deep() {
    let workers = one_for_one().child(ChildSpec::task("w", idle));
    let gateway = one_for_one()
        .child(ChildSpec::supervisor("workers", workers))
        .child(ChildSpec::task("health", idle));
    let root = start(one_for_one().child(ChildSpec::supervisor("gateway", gateway))).await;
    let root = root.supervisor();
    let at = root.supervisor_at("gateway/workers").await.unwrap();
    assert_eq!(at.which_children().await.unwrap()[0].id.as_ref(), "w");
    for (path, is_child, is_supervisor) in [
        ("gateway", true, true),
        ("gateway/workers", true, true),
        ("gateway/workers/w", true, false),
        ("gateway/health", true, false),
        ("gateway/health/x", false, false),
        ("gateway/nobody", false, false),
        ("nobody/at/all", false, false),
        ("/gateway", false, false),
        ("gateway/", false, false),
        ("", false, false),
    ] {
        let child = root.child_at(path).await;
        assert_eq!(child.is_some(), is_child, "{path}");
        assert!(child.is_none_or(|child| path.ends_with(&**child.id())));
        assert_eq!(root.supervisor_at(path).await.is_some(), is_supervisor, "{path}");
    }
    // What is found survives restarts.
    let w = root.child_at("gateway/workers/w").await.unwrap();
    at.terminate_child("w").await.unwrap();
    assert!(!w.status().is_up());
    at.restart_child("w").await.unwrap();
    assert!(w.status().is_up());
}

#[tokio::test(start_paused = true)]
async fn a_path_through_a_supervisor_that_starts_is_known_and_one_that_restarts_is_waited_for() {
    let probe = Probe::new();
    let leaf = one_for_one().child(ChildSpec::task("a", idle)).child(ChildSpec::task("b", idle));
    let leaf = ChildSpec::supervisor("leaf", leaf);
    let middle = ChildSpec::supervisor("middle", one_for_one().child(leaf));
    let root = start(one_for_one().child(middle).probe(probe.clone())).await;
    let root = root.supervisor();
    probe.arm("b", Point::Init, Fault::Slow(secs(10)), 1);
    root.terminate_child("middle").await.unwrap();

    // Down, and nobody starts it: one deadline for the whole path.
    let begun = Instant::now();
    assert!(root.within(secs(3)).child_at("middle/leaf/a").await.is_none());
    assert_eq!(begun.elapsed(), secs(3));

    // It is waited for until it is up; once it runs, it is known before it is up.
    let waits = root.child_at("middle/leaf/b");
    let restarts = async {
        sleep(secs(1)).await;
        root.restart_child("middle").await
    };
    let knows = async {
        sleep(secs(2)).await;
        let asked = Instant::now();
        let a = root.within(secs(1)).child_at("middle/leaf/a").await.unwrap();
        assert!(a.status().is_up());
        let leaf = root.supervisor_at("middle/leaf").await.unwrap();
        assert_eq!(leaf.child().status().state(), ChildState::Starting);
        assert_eq!(asked.elapsed(), Duration::ZERO);
    };
    let (b, restarted, ()) = tokio::join!(waits, restarts, knows);
    assert!(b.unwrap().status().is_up());
    assert_eq!((restarted, begun.elapsed()), (Ok(true), secs(14)));
}
