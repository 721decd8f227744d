//! The subtree under kills: what is asked for arrives, whoever is killed over it, and each service
//! is restarted as its kind says.

use super::*;
use crate::InProcess;
use crate::instrumentation::{Level, points};
use crate::service::{ParsingDeps, subtree};
use astscope_supervision::{
    BreakerState, ChildState, Emitter, Exit, Fault, Point as At, Probe, Recorder, Root, Strategy,
    SupervisorSpec, TreePath,
};
use astscope_syntax::Language;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};
use tokio::sync::watch;
use tokio::time::{advance, timeout};

/// Far more than anything here takes: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a text of this backend's does to it.
const HANG: &str = "hang";
const PANIC: &str = "panic";
const NONE: &str = "none";

/// Parses in this process, after what the texts of a batch say. A batch with one that hangs is at
/// work until it is stopped, for so many times.
#[derive(Debug, Default)]
struct Stage {
    hangs: AtomicUsize,
    /// Batches that have begun to hang, and that have ended it.
    hung: watch::Sender<(usize, usize)>,
    /// Sizes of the batches so far.
    batches: Mutex<Vec<usize>>,
}

impl Backend for Stage {
    fn parse_batch(&self, batch: &[Source], limits: &Limits, stop: &dyn Fn() -> bool) -> Results {
        self.batches.lock().unwrap().push(batch.len());
        let says = |what: &str| batch.iter().any(|source| source.text.contains(what));
        assert!(!says(PANIC), "confused");
        let has_hangs = |n: usize| n.checked_sub(1);
        let (set, fetch) = (Ordering::AcqRel, Ordering::Acquire);
        if says(HANG) && self.hangs.fetch_update(set, fetch, has_hangs).is_ok() {
            self.hung.send_modify(|(begun, _)| *begun += 1);
            while !stop() {
                std::thread::yield_now();
            }
            self.hung.send_modify(|(_, ended)| *ended += 1);
        }
        if says(NONE) {
            return all_unavailable(batch, "there is no process");
        }
        InProcess.parse_batch(batch, limits, stop)
    }
}

struct Bench {
    stage: Arc<Stage>,
    parsing: ParsingHandle,
    root: Root,
}

impl Bench {
    async fn new() -> Self {
        Self::with(ParsingConfig::default()).await
    }

    async fn with(config: ParsingConfig) -> Self {
        Self::with_probe(config, &Probe::new()).await
    }

    async fn with_probe(config: ParsingConfig, probe: &Probe) -> Self {
        let stage = Arc::new(Stage::default());
        let backend: Arc<dyn Backend> = Arc::<Stage>::clone(&stage);
        let emitter = Emitter::new(TreePath::root("parsing"), Recorder::new());
        let deps = ParsingDeps { backend, runtime: Handle::current(), emitter };
        let (spec, parsing) = subtree(config, deps).unwrap();
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec).observer(Recorder::new());
        let tree = tree.probe(probe.clone());
        Self { stage, parsing, root: tree.start("workspace").await.unwrap() }
    }

    fn hang(&self, times: usize) {
        self.stage.hangs.store(times, Ordering::Release);
    }

    async fn see(&self, texts: &[&str]) -> Vec<String> {
        timeout(PATIENCE, see(&self.parsing, texts)).await.expect("an answer")
    }

    /// Until so many batches have begun to hang, and so many ended it.
    async fn until_hung(&self, begun: usize, ended: usize) {
        let mut hung = self.stage.hung.subscribe();
        let hung = hung.wait_for(|now| now.0 >= begun && now.1 >= ended);
        timeout(PATIENCE, hung).await.expect("it comes to pass").unwrap();
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("it comes to pass");
    }
}

/// Asks as the synchronizer does: on a thread that blocks.
fn asking(ask: impl FnOnce() -> Results + Send + 'static) -> JoinHandle<Results> {
    Builder::new().spawn(ask).unwrap()
}

async fn see(parsing: &ParsingHandle, texts: &[&str]) -> Vec<String> {
    let source = |text: &&str| Source::new((*text).into(), Language::Elixir);
    let results = parsing.parse(texts.iter().map(source).collect(), Limits::DAEMON).await;
    let shown = |result: Result<ParsedFile, SkipReason>| match result {
        Ok(file) => file.text.to_string(),
        Err(reason) => reason.to_string(),
    };
    results.into_iter().map(shown).collect()
}

#[tokio::test]
async fn one_text_is_the_parsers_and_several_are_the_batch_processors() {
    let bench = Bench::new().await;
    let cases = [
        (&["hang(1)"][..], bench.parsing.parser()),
        (&["hang(1)", "f(2)"], bench.parsing.batch_processor()),
    ];
    for (n_hung, (texts, at)) in (1..).zip(cases) {
        bench.hang(1);
        let before = at.status().incarnation();
        let (seen, ()) = tokio::join!(bench.see(texts), async {
            bench.until_hung(n_hung, 0).await;
            at.kill();
        });
        assert_eq!(seen, texts, "nothing is lost");
        assert_eq!(at.status().incarnation(), before + 1, "{}", at.id());
    }
    assert_eq!(bench.see(&[]).await, [""; 0]);
    assert_eq!(*bench.stage.batches.lock().unwrap(), [1, 1, 2, 2]);
    assert_eq!(bench.parsing.counts(), ParsingCounts { n_done: 3, ..ParsingCounts::default() });
    assert_eq!(bench.root.shutdown().await.unkillable, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_again_and_again_loses_no_text() {
    let bench = Bench::new().await;
    let mut n_hung = 0;
    // As often as their supervisor bears.
    for kill in [bench.parsing.batch_processor(), bench.parsing.parser()] {
        let n = if kill.id().as_ref() == "parser" { 1 } else { 40 };
        bench.hang(2);
        let texts: Vec<String> = (0..n).map(|n| format!("hang({n})")).collect();
        let asked = {
            let (parsing, texts) = (bench.parsing.clone(), texts.clone());
            asking(move || {
                let batch: Vec<_> = texts
                    .iter()
                    .map(|it| Source::new(it.as_str().into(), Language::Elixir))
                    .collect();
                parsing.parse_batch(&batch, &Limits::DAEMON, &|| false)
            })
        };
        for _ in 0..2 {
            n_hung += 1;
            bench.until_hung(n_hung, n_hung - 1).await;
            kill.kill();
        }
        bench.until(|| asked.is_finished()).await;
        let results = asked.join().unwrap();
        let seen: Vec<String> =
            results.iter().map(|it| it.as_ref().unwrap().text.to_string()).collect();
        assert_eq!(seen, texts);
    }
}

#[tokio::test(start_paused = true)]
async fn acceptance_check_7() {
    let idle = ParsingConfig::default().idle;
    let bench = Bench::new().await;
    let processor = bench.parsing.batch_processor();
    assert_eq!(bench.see(&["f(1)", "f(2)"]).await, ["f(1)", "f(2)"]);
    assert_eq!(processor.status().incarnation(), 1);
    sleep(idle / 2).await;
    assert!(processor.status().is_up(), "a batch may still come");
    assert_eq!(bench.see(&["f(3)", "f(4)"]).await, ["f(3)", "f(4)"]);
    assert_eq!(processor.status().incarnation(), 1);
    // It leaves in order, and stays away.
    sleep(idle * 2).await;
    assert_eq!(processor.monitor().exit(), Some(Exit::Normal));
    sleep(idle * 10).await;
    assert_eq!(processor.status().state(), ChildState::Down);
    assert!(bench.parsing.parser().status().is_up(), "the parser stays");
    // The next batch starts it.
    assert_eq!(bench.see(&["f(5)", "f(6)"]).await, ["f(5)", "f(6)"]);
    assert_eq!(processor.status().incarnation(), 2);
    // After a crash its supervisor does, without a batch.
    processor.kill();
    bench.until(|| processor.status().incarnation() == 3 && processor.status().is_up()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_processor_does_not_leave_over_a_long_batch() {
    let idle = Duration::from_millis(1);
    let bench = Bench::with(ParsingConfig { idle, ..ParsingConfig::default() }).await;
    bench.hang(1);
    let (_seen, ()) = tokio::join!(bench.see(&["hang(1)", "f(2)"]), async {
        bench.until_hung(1, 0).await;
        let begun = std::time::Instant::now();
        bench.until(|| begun.elapsed() > idle * 20).await;
        assert!(bench.parsing.batch_processor().status().is_up());
        drop(bench.root.kill().await);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_ends_the_work() {
    let bench = Bench::new().await;
    bench.hang(1);
    let left = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = {
        let (parsing, left) = (bench.parsing.clone(), Arc::clone(&left));
        asking(move || {
            let batch = ["hang(1)", "f(2)"].map(|it| Source::new(it.into(), Language::Elixir));
            parsing.parse_batch(&batch, &Limits::DAEMON, &|| left.load(Ordering::Acquire))
        })
    };
    bench.until_hung(1, 0).await;
    left.store(true, Ordering::Release);
    bench.until_hung(1, 1).await;
    bench.until(|| asked.is_finished()).await;
    for result in asked.join().unwrap() {
        assert_eq!(result.err(), Some(SkipReason::ParseTimeout));
    }
    bench.until(|| bench.parsing.counts().n_given_up == 1).await;
    assert_eq!(bench.see(&["f(3)", "f(4)"]).await, ["f(3)", "f(4)"]);
}

#[tokio::test]
async fn a_text_that_a_backend_panics_over_costs_itself() {
    let bench = Bench::new().await;
    let seen = bench.see(&["f(1)", "panic(2)", "f(3)"]).await;
    assert_eq!(seen, ["f(1)", "its parser panicked: confused", "f(3)"]);
    assert_eq!(bench.parsing.parser().status().incarnation(), 1, "its service goes on");
}

#[tokio::test]
async fn without_services_there_is_a_reason_and_no_wait() {
    let bench = Bench::new().await;
    drop(bench.root.shutdown().await);
    for texts in [&["f(1)"][..], &["f(1)", "f(2)"]] {
        for seen in bench.see(texts).await {
            assert_eq!(seen, "no parser was to be had: the service is gone");
        }
    }
}

/// Acceptance check 13, on a workspace's parsing.
#[tokio::test(start_paused = true)]
async fn acceptance_check_13_of_parsing() {
    let bench = Bench::new().await;
    let state = || bench.parsing.breaker().state;
    let unavailable = "no parser was to be had: there is no process";
    // What a text does never counts: broken code has a tree, and who kills its parser is lost.
    for _ in 0..10 {
        assert_eq!(bench.see(&["def f( do"]).await, ["def f( do"]);
        assert_eq!(bench.see(&["panic(1)"]).await, ["its parser panicked: confused"]);
    }
    for _ in 0..4 {
        assert_eq!(bench.see(&["none(1)"]).await, [unavailable]);
    }
    assert_eq!(bench.see(&["f(1)", "f(2)"]).await, ["f(1)", "f(2)"], "the row is over");
    for n in 1..=5 {
        assert_eq!(state(), BreakerState::Closed, "{n}");
        assert_eq!(bench.see(&["none(1)", "f(2)"]).await, [unavailable; 2]);
    }
    assert_eq!(state(), BreakerState::Open);
    let n_batches = bench.stage.batches.lock().unwrap().len();
    advance(Duration::from_secs(1)).await;
    let refused = "no parser was to be had: it kept failing, and is tried again in 29 s";
    assert_eq!(bench.see(&["f(1)"]).await, [refused]);
    assert_eq!(bench.stage.batches.lock().unwrap().len(), n_batches, "nobody was asked");
    advance(Duration::from_secs(29)).await;
    assert_eq!(state(), BreakerState::HalfOpen);
    assert_eq!(bench.see(&["none(1)"]).await, [unavailable]);
    assert_eq!(state(), BreakerState::Open, "the probe failed");
    advance(Duration::from_secs(30)).await;
    // A probe whose caller leaves gives its place back.
    let probe = bench
        .parsing
        .parse(Arc::new([Source::new("f(1)".into(), Language::Elixir)]), Limits::DAEMON);
    drop(timeout(Duration::ZERO, probe).await);
    assert_eq!(state(), BreakerState::HalfOpen);
    assert_eq!(bench.see(&["f(1)"]).await, ["f(1)"]);
    assert_eq!(state(), BreakerState::Closed);
}

#[tokio::test]
async fn a_mapper_that_is_killed_costs_the_request_that_it_had_and_no_other() {
    let probe = Probe::new();
    let bench = Bench::with_probe(ParsingConfig::default(), &probe).await;
    let text = Source::new("def f(a), do: g(a)".into(), Language::Elixir);
    let parsed = bench.parsing.parse([text].into(), Limits::DAEMON).await.remove(0).unwrap();
    let (file, config) = (Arc::new(parsed), MapConfig::of(Level::Debug));
    let expected = Ok(points(&file, &config));
    let map = || bench.parsing.map(PATIENCE, Arc::clone(&file), config);
    assert_eq!(map().await, expected);

    let mapper = bench.parsing.instrumentation_mapper();
    bench.hang(1);
    let killing = async {
        bench.until_hung(1, 0).await;
        for n in 1..=3 {
            // Has the request lie in the mailbox of one who never takes it.
            bench.until(|| mapper.vitals().working_for.is_none()).await;
            probe.arm("instrumentation_mapper", At::Run, Fault::Hang, 1);
            bench.until(|| mapper.vitals().working_for.is_some()).await;
            let kill = async {
                bench.until(|| mapper.vitals().mailbox.is_some_and(|waiting| waiting.0 == 1)).await;
                mapper.kill();
            };
            let (mapped, ()) = tokio::join!(map(), kill);
            assert_eq!(mapped, Err(MapError::Unavailable(CallError::Died)));
            assert_eq!(map().await, expected, "its next life knows as much");
            assert_eq!(mapper.status().incarnation(), n + 1);
        }
        assert_eq!(bench.parsing.parser().status().incarnation(), 1);
        assert_eq!(bench.stage.hung.borrow().1, 0, "who is parsed for wasn't disturbed");
        bench.parsing.parser().kill();
    };
    let (others, ()) = tokio::join!(bench.see(&["hang()"]), killing);
    assert_eq!(others, ["hang()"]);
}
