//! The subtree as its callers meet it, killed node by node.

use super::*;
use crate::library::PatternBody;
use astscope_parsing::{Limits, parse};
use astscope_supervision::{
    Ctx, EventKind, Exit, Init, Mailbox, Order, Pool, PoolConfig, PoolError, Recorder, Root,
    Service,
};
use std::convert::Infallible;
use tokio::sync::oneshot;
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A place in a bulkhead, and nothing else.
struct Place;

impl Service for Place {
    type Args = ();
    type Message = Infallible;

    async fn init((): (), _: &Ctx) -> Result<Init<Self>, Exit> {
        Ok(Init::Ready(Self))
    }

    async fn run(self, _: Mailbox<Infallible>, ctx: Ctx) -> Result<(), Exit> {
        ctx.stopping().await;
        Ok(())
    }
}

struct House {
    handle: PatternMatcherHandle,
    root: Root,
    recorder: Arc<Recorder>,
}

impl House {
    /// The subtree, and `pattern_analysis_pool` with a line of this length.
    async fn start(queue: usize) -> Self {
        let config =
            PoolConfig { size: 8, max_overflow: 4, queue, order: Order::Lifo, deaths: None };
        let (pool, seats) = Pool::new::<Place>("pattern_analysis_pool", config, ()).unwrap();
        let handle = PatternMatcherHandle::new(PatternMatcherConfig::default(), Arc::new(seats));
        let recorder = Recorder::new();
        let root = SupervisorSpec::new(Strategy::OneForOne)
            .child(pool)
            .child(ChildSpec::supervisor("pattern_matcher", handle.supervisor()))
            .observer(Arc::clone(&recorder) as _)
            .start("root")
            .await
            .unwrap();
        handle.core().await_ready(MINUTE).await.unwrap();
        Self { handle, root, recorder }
    }
}

fn spec(pattern: &str) -> MatcherSpec {
    MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() }
}

fn rust(text: &str) -> Arc<ParsedFile> {
    Arc::new(parse(text.into(), Language::Rust, &Limits::DAEMON, &mut || false).unwrap())
}

fn named(id: &str, version: u32, pattern: &str) -> LibraryPattern {
    LibraryPattern {
        id: id.into(),
        name: "a name".to_owned(),
        description: "of the house".to_owned(),
        languages: vec![Language::Rust],
        body: PatternBody::Pattern(spec(pattern)),
        version,
        samples: Vec::new(),
    }
}

/// A job that says that it has begun, and ends when it is told to or interrupted.
type Held = (oneshot::Receiver<()>, oneshot::Sender<()>);

fn held_job(answer: u32) -> (Held, impl FnOnce(&Checkpoint) -> u32 + Send + 'static) {
    let (begun, has_begun) = oneshot::channel();
    let (release, mut released) = oneshot::channel();
    let job = move |checkpoint: &Checkpoint| {
        begun.send(()).unwrap();
        while released.try_recv().is_err() && checkpoint.check().is_ok() {
            std::thread::yield_now();
        }
        answer
    };
    ((has_begun, release), job)
}

#[tokio::test(start_paused = true)]
async fn the_tree_is_the_seeds() {
    let house = House::start(0).await;
    let spec = house.handle.supervisor();
    let ids: Vec<_> = spec.child_specs().iter().map(|child| child.id().to_string()).collect();
    assert_eq!(ids, ["pattern_matcher_core", "pattern_library", "cache", "worker_pool"]);
    let policy = spec.policy();
    assert_eq!((policy.intensity, policy.period), (5, Duration::from_secs(10)));
    house.root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_core_compiles_each_pattern_once() {
    let House { handle, root, .. } = House::start(0).await;
    let ask = async |text: &str| handle.compile(SECOND, Language::Rust, &spec(text), None).await;
    let first = ask("$A.unwrap()").await.unwrap();
    let second = ask("$A.unwrap()").await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let stats = handle.cache_stats(SECOND).await.unwrap();
    assert_eq!((stats.entries, stats.hits, stats.misses), (1, 1, 1));
    let refused = ask("").await.unwrap_err();
    assert!(matches!(refused, PatternError::Compile(_)), "{refused:?}");
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_cache_sweeps_what_has_expired_and_clears_when_it_is_told_to() {
    let House { handle, root, .. } = House::start(0).await;
    let ask = async || handle.compile(SECOND, Language::Rust, &spec("a"), None).await.unwrap();
    let old = ask().await;
    sleep(Duration::from_mins(29)).await;
    assert!(Arc::ptr_eq(&old, &ask().await));
    sleep(Duration::from_mins(2)).await;
    assert!(!Arc::ptr_eq(&old, &ask().await), "a hit after its time is none");
    sleep(Duration::from_mins(36)).await;
    let stats = handle.0.store.stats();
    assert_eq!((stats.entries, stats.expired), (0, 2), "swept though nobody asked");
    ask().await;
    handle.clear_cache(SECOND).await.unwrap();
    assert_eq!(handle.cache_stats(SECOND).await.unwrap(), CacheStats::default());
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_forgets_what_was_not_used_for_longest() {
    let config = CacheConfig { entries_max: 20, source_bytes_max: 8, ..CacheConfig::default() };
    let store = Store::new(config);
    let matcher = Matcher::compile(Language::Rust, &spec("a"), None).unwrap();
    let compiled = Compiled::Matcher(Arc::new(matcher));
    let key = |n: usize| Key::Matcher(Language::Rust, spec(&n.to_string()), None);
    (0..20).for_each(|n| store.put(key(n), compiled.clone()));
    assert!(store.get(&key(0)).is_some());
    store.put(key(20), compiled.clone());
    assert!(store.get(&key(0)).is_some() && store.get(&key(20)).is_some());
    assert!(store.get(&key(1)).is_none());
    let before = store.stats();
    assert!(before.entries <= 20 && before.evicted > 0, "{before:?}");
    store.put(key(123_456_789), compiled);
    assert_eq!(store.stats().entries, before.entries, "too large a source");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_used_for_long_can_be_given_back_and_counted_before() {
    let store = Store::new(CacheConfig::default());
    let matcher = Matcher::compile(Language::Rust, &spec("a"), None).unwrap();
    let compiled = Compiled::Matcher(Arc::new(matcher));
    let key = |n: usize| Key::Matcher(Language::Rust, spec(&n.to_string()), None);
    (0..3).for_each(|n| store.put(key(n), compiled.clone()));
    let minute = Duration::from_mins(1);
    tokio::time::advance(minute).await;
    assert!(store.get(&key(1)).is_some());
    let all = store.stats().bytes;
    assert_eq!(store.idle(minute), (2, all / 3 * 2));
    assert_eq!(store.stats().entries, 3, "they were only counted");
    assert_eq!(store.forget(minute), (2, all / 3 * 2));
    assert!(store.get(&key(1)).is_some() && store.get(&key(0)).is_none());
    assert_eq!((store.forget(Duration::ZERO), store.stats().bytes), ((1, all / 3), 0));
}

#[tokio::test(start_paused = true)]
async fn before_the_library_is_ready_only_names_wait_and_only_so_many() {
    let (_, seats) = {
        let config =
            PoolConfig { size: 1, max_overflow: 0, queue: 0, order: Order::Lifo, deaths: None };
        Pool::new::<Place>("seats", config, ()).unwrap()
    };
    let config = PatternMatcherConfig { waiting_max: 1, ..PatternMatcherConfig::default() };
    let handle = PatternMatcherHandle::new(config, Arc::new(seats));
    let mut children = handle.supervisor().child_specs().to_vec();
    let library = children.remove(1);
    let root = SupervisorSpec::new(Strategy::OneForOne).children(children);
    let root = root.start("root").await.unwrap();
    handle.compile(SECOND, Language::Rust, &spec("a"), None).await.unwrap();
    assert!(!handle.core().status().is_ready());

    let first = handle.named(MINUTE, "rust/unwrap", Language::Rust);
    let rest = async {
        let second = handle.named(MINUTE, "rust/unwrap", Language::Rust).await.unwrap_err();
        assert!(matches!(second, PatternError::Loading), "{second:?}");
        root.supervisor().start_child(library).await.unwrap();
    };
    let (first, ()) = tokio::join!(biased; first, rest);
    assert!(first.unwrap().occurs_in(&rust("fn f() { g().unwrap(); }")));
    handle.core().await_ready(MINUTE).await.unwrap();
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_library_has_what_is_built_in_and_what_was_registered() {
    let House { handle, root, .. } = House::start(0).await;
    assert!(handle.patterns().len() >= 8);
    let found = handle.find_patterns("SUPERVISOR");
    assert_eq!(found.iter().map(|of| &*of.id).collect::<Vec<_>>(), ["elixir/unsupervised-process"]);
    let rule = handle.named(SECOND, "rust/clone-in-loop", Language::Rust).await.unwrap();
    assert!(rule.occurs_in(&rust("fn f() { for x in y { z.clone(); } }")));
    let unknown = handle.named(SECOND, "house/expect", Language::Rust).await.unwrap_err();
    assert!(matches!(unknown, PatternError::Unknown(_)));

    handle.register(SECOND, named("house/expect", 1, "$A.expect($B)")).await.unwrap();
    let expect = handle.named(SECOND, "house/expect", Language::Rust).await.unwrap();
    assert!(expect.occurs_in(&rust("fn f() { g().expect(h); }")));
    let foreign = handle.named(SECOND, "house/expect", Language::Elixir).await.unwrap_err();
    assert!(matches!(foreign, PatternError::Library(LibraryError::Language { .. })));

    let same = handle.register(SECOND, named("house/expect", 1, "a")).await.unwrap_err();
    assert!(matches!(same, RegisterError::NotNewer { has: 1, .. }));
    handle.register(SECOND, named("house/expect", 2, "$A.expect_err($B)")).await.unwrap();
    let newer = handle.named(SECOND, "house/expect", Language::Rust).await.unwrap();
    assert!(!newer.occurs_in(&rust("fn f() { g().expect(h); }")));
    let invalid = handle.register(SECOND, named("house/nothing", 1, "")).await.unwrap_err();
    assert!(matches!(invalid, RegisterError::Invalid(_)));
    let builtin = handle.register(SECOND, named("rust/unwrap", 9, "a")).await.unwrap_err();
    assert!(matches!(builtin, RegisterError::Builtin(_)));
    let builtin = handle.unregister(SECOND, "rust/unwrap").await.unwrap_err();
    assert!(matches!(builtin, RegisterError::Builtin(_)));
    handle.unregister(SECOND, "house/expect").await.unwrap();
    assert!(handle.pattern("house/expect").is_none());
    let unknown = handle.unregister(SECOND, "house/expect").await.unwrap_err();
    assert!(matches!(unknown, RegisterError::Unknown(_)));
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn check_17_a_corrupted_library_is_filled_again_from_its_sources() {
    let House { handle, root, .. } = House::start(0).await;
    handle.register(SECOND, named("house/expect", 1, "$A.expect($B)")).await.unwrap();
    let before = handle.patterns();
    let mut told = handle.watch_library();
    handle.0.shelf.corrupt();
    assert!(handle.patterns().is_empty());
    told.wait_for(|state| state.reloads == 1).await.unwrap();
    assert_eq!(handle.patterns(), before, "found by itself");

    handle.0.shelf.corrupt();
    assert!(!handle.check_library(SECOND).await.unwrap());
    assert!(handle.check_library(SECOND).await.unwrap());
    assert_eq!(handle.patterns(), before);
    handle.0.shelf.corrupt();
    handle.register(SECOND, named("house/todo", 1, "todo($A)")).await.unwrap();
    assert_eq!(handle.patterns().len(), before.len() + 1, "what was wrong isn't built upon");
    assert!(handle.reload_library(SECOND).await.unwrap());
    assert_eq!(told.borrow().reloads, 4);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn check_17_an_analysis_that_takes_too_long_gives_the_next_one_more_time() {
    let House { handle, root, .. } = House::start(0).await;
    let limit = || *handle.watch_analysis_limit().borrow();
    assert_eq!(limit(), Duration::from_secs(5));
    let ((begun, release), job) = held_job(1);
    let (result, ()) = tokio::join!(handle.analyse(MINUTE, job), async {
        begun.await.unwrap();
        advance(Duration::from_secs(6)).await;
    });
    assert!(matches!(result, Err(AnalysisError::TimedOut(_))), "{result:?}");
    assert!(release.is_closed() || release.send(()).is_ok());
    assert_eq!(limit(), Duration::from_secs(10));
    // The caller's own deadline says nothing about the analysis.
    let ((begun, _release), job) = held_job(1);
    let (result, ()) = tokio::join!(handle.analyse(SECOND, job), async {
        begun.await.unwrap();
        advance(Duration::from_secs(2)).await;
    });
    assert!(matches!(result, Err(AnalysisError::Late)), "{result:?}");
    assert_eq!(limit(), Duration::from_secs(10));
    assert_eq!(handle.analyse(MINUTE, |_| 7).await.unwrap(), 7);
    assert_eq!(limit(), Duration::from_secs(5));
    root.shutdown().await;
}

#[test]
fn patience_grows_to_its_most_and_once_for_each_limit() {
    let patience = Patience::new(SECOND, 5 * SECOND);
    patience.grow(SECOND);
    patience.grow(SECOND);
    assert_eq!(patience.limit(), 2 * SECOND);
    patience.grow(2 * SECOND);
    patience.grow(4 * SECOND);
    patience.grow(5 * SECOND);
    assert_eq!(patience.limit(), 5 * SECOND);
    (0..9).for_each(|_| patience.shrink());
    assert_eq!(patience.limit(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn check_17_as_many_workers_run_as_there_are_seats_and_one_more_is_refused() {
    let House { handle, root, recorder } = House::start(0).await;
    let mut running = tokio::task::JoinSet::new();
    let mut releases = Vec::new();
    for n in 0..12 {
        let ((begun, release), job) = held_job(n);
        let handle = handle.clone();
        running.spawn(async move { handle.analyse(MINUTE, job).await });
        begun.await.unwrap();
        releases.push(release);
    }
    assert_eq!(handle.worker_pool().count_children().await.unwrap().active, 12);
    let refused = handle.analyse(MINUTE, |_| ()).await.unwrap_err();
    assert!(matches!(refused, AnalysisError::Seat(PoolError::Full)), "{refused:?}");
    let grown = recorder.events().into_iter().filter_map(|event| match event.kind {
        EventKind::Overflow { overflow } => Some(overflow),
        _ => None,
    });
    assert_eq!(grown.collect::<Vec<_>>(), [1, 2, 3, 4], "it grew, and said so");
    for release in releases {
        release.send(()).unwrap();
    }
    let mut answers = running.join_all().await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
    answers.sort_unstable();
    assert_eq!(answers, (0..12).collect::<Vec<_>>());
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn check_06_a_worker_that_is_killed_or_panics_costs_its_own_request() {
    let House { handle, root, .. } = House::start(0).await;
    let ((first_begun, _first), first) = held_job(1);
    let ((second_begun, second_release), second) = held_job(2);
    let (first, second, ()) =
        tokio::join!(handle.analyse(MINUTE, first), handle.analyse(MINUTE, second), async {
            first_begun.await.unwrap();
            second_begun.await.unwrap();
            let killed = handle.worker_pool().child_at("worker_1").await.unwrap();
            let mut end = killed.monitor();
            killed.kill();
            end.down().await;
            let panicked = handle.analyse(MINUTE, |_| -> () { panic!("on purpose") }).await;
            let Err(AnalysisError::Panicked(text)) = panicked else { panic!("{panicked:?}") };
            assert_eq!(&*text, "on purpose");
            second_release.send(()).unwrap();
        });
    assert!(matches!(first, Err(AnalysisError::Died)), "{first:?}");
    assert_eq!(second.unwrap(), 2);
    assert_eq!(handle.worker_pool().child().status().incarnation(), 1);
    // Its end is told before its supervisor forgets it.
    while let Some(worker) = handle.worker_pool().child_at("worker_1").await {
        assert!(!worker.status().is_up(), "nobody is restarted");
        tokio::task::yield_now().await;
    }
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_search_finds_what_is_there_up_to_its_limit() {
    let House { handle, root, .. } = House::start(0).await;
    let compiled = handle.named(SECOND, "rust/unwrap", Language::Rust).await.unwrap();
    let texts = ["fn f() { a.unwrap(); b.unwrap(); }", "fn g() {}", "fn h() { c.unwrap(); }"];
    let files: Vec<_> = texts.iter().map(|text| rust(text)).collect();
    let all = handle.search(MINUTE, compiled.clone(), files.clone(), 100).await.unwrap();
    let counts: Vec<_> = all.found.iter().map(|found| (found.file, found.matches.len())).collect();
    assert_eq!((counts, all.unfinished), (vec![(0, 2), (2, 1)], Vec::new()));
    let one = handle.search(MINUTE, compiled, files, 1).await.unwrap();
    assert_eq!(one.found.len(), 1);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_killed_is_restarted_alone_and_nobody_asks_in_vain() {
    let House { handle, root, .. } = House::start(0).await;
    let first = handle.compile(SECOND, Language::Rust, &spec("a"), None).await.unwrap();
    let all = [handle.core(), handle.library(), handle.cache(), handle.worker_pool().child()];
    for killed in &all {
        let before: Vec<_> = all.iter().map(|child| child.status().incarnation()).collect();
        let mut monitor = killed.monitor();
        killed.kill();
        // Asked before it is up again.
        let again = handle.compile(MINUTE, Language::Rust, &spec("a"), None).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again), "what was compiled stays");
        handle.compile(MINUTE, Language::Rust, &spec("b"), Some("c")).await.unwrap();
        handle.named(MINUTE, "rust/unwrap", Language::Rust).await.unwrap();
        handle.cache_stats(MINUTE).await.unwrap();
        monitor.down().await;
        killed.await_ready(MINUTE).await.unwrap();
        assert_eq!(handle.analyse(MINUTE, |_| 1).await.unwrap(), 1);
        for (child, before) in all.iter().zip(before) {
            let grown = u64::from(child.id() == killed.id());
            assert_eq!(child.status().incarnation(), before + grown, "{child:?}");
        }
    }
    root.shutdown().await;
}
