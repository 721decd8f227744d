//! Parsers in processes of their own, and what a parser may do to them: this test binary, run again.
//!
//! The harness writes to stdout before it runs the test that parses, so a shell moves the pipe out
//! of its way, to descriptor 3, and becomes the binary.
#![cfg(all(feature = "service", unix))]
#![expect(clippy::unwrap_used, reason = "test helpers that stop on failure")]

use astscope_fixtures::Fixture;
use astscope_fixtures::samples::SAMPLES;
use astscope_parsing::service::{ParserConfig, ParserHandle, supervisor};
use astscope_parsing::worker::Restrictions;
use astscope_parsing::{Backend, InProcess, Limits, Source};
use astscope_supervision::{Root, Strategy, SupervisorSpec};
use astscope_syntax::{Language, ParsedFile, SkipReason};
use expect_test::{Expect, expect};
use std::fs::File;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Says that this process is a parser.
const VARIABLE: &str = "ASTSCOPE_TEST_PARSER";

/// Not a test, unless it is run as a parser.
#[test]
fn parse_for_the_other_tests() {
    match std::env::var(VARIABLE).as_deref() {
        Ok("parser") => {
            let output = File::options().write(true).open("/dev/fd/3").unwrap();
            astscope_parsing::worker::serve(std::io::stdin().lock(), output, || {}).unwrap();
            std::process::exit(0);
        }
        Ok("another version") => {
            let output = File::options().write(true).open("/dev/fd/3").unwrap();
            std::io::Write::write_all(&mut &output, &[0, 5, 0, 0, 0, 255, 0, 0, 0, 0]).unwrap();
        }
        _ => {}
    }
}

fn config(mode: &str) -> ParserConfig {
    let script = "exec 3>&1 >/dev/null; exec \"$0\" --exact parse_for_the_other_tests --nocapture";
    let exe = std::env::current_exe().unwrap();
    let args = ["-c".into(), script.into(), exe.into_os_string()];
    ParserConfig {
        env: vec![
            (VARIABLE.into(), mode.into()),
            ("ASTSCOPE_PARSER_FAULTS".into(), "FAULT:".into()),
        ],
        n_workers: 1,
        n_overflow: 0,
        ..ParserConfig::new("/bin/sh", args)
    }
}

/// Parsers in a tree of their own, on a runtime of their own.
struct Bench {
    parsers: ParserHandle,
    root: Option<Root>,
    runtime: Runtime,
}

impl Bench {
    fn with(config: ParserConfig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (spec, parsers) = supervisor(config, runtime.handle().clone()).unwrap();
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec);
        let root = runtime.block_on(tree.start("root")).unwrap();
        Self { parsers, root: Some(root), runtime }
    }

    fn new() -> Self {
        Self::with(config("parser"))
    }

    fn in_dir(dir: &Path) -> Self {
        Self::with(ParserConfig { quarantine_dir: Some(dir.to_owned()), ..config("parser") })
    }

    fn parse(&self, texts: &[&str]) -> Vec<Result<ParsedFile, SkipReason>> {
        self.parsers.parse_batch(&sources(texts), &Limits::DAEMON, &|| false)
    }

    /// What becomes of each text: itself, or the reason.
    fn see(&self, texts: &[&str]) -> Vec<String> {
        shown(&self.parse(texts))
    }

    fn shut_down(&mut self) {
        let root = self.root.take().unwrap();
        let outcome = self.runtime.block_on(root.shutdown());
        assert_eq!(outcome.unkillable, 0);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.root.is_some() && !std::thread::panicking() {
            self.shut_down();
        }
    }
}

fn sources(texts: &[&str]) -> Vec<Source> {
    texts.iter().map(|text| Source::new((*text).into(), Language::Elixir)).collect()
}

fn shown(results: &[Result<ParsedFile, SkipReason>]) -> Vec<String> {
    let show = |result: &Result<ParsedFile, SkipReason>| match result {
        Ok(file) => file.text.to_string(),
        Err(reason) => format!("{}: {reason}", reason.code()),
    };
    results.iter().map(show).collect()
}

fn assert_same(ours: &ParsedFile, theirs: &ParsedFile) {
    assert_eq!((ours.language, &ours.text), (theirs.language, &theirs.text));
    assert_eq!(ours.injections.len(), theirs.injections.len());
    for ((a_language, a), (b_language, b)) in ours.trees().zip(theirs.trees()) {
        assert_eq!((a_language, &a.kinds), (b_language, &b.kinds));
        assert_eq!(format!("{:?}", a.tree), format!("{:?}", b.tree));
    }
}

#[test]
fn every_language_is_parsed_as_in_this_process() {
    let bench = Bench::new();
    let source = |(name, text): &(&str, &str)| {
        Source::new((*text).into(), name.to_lowercase().parse().unwrap())
    };
    let batch: Vec<Source> = SAMPLES.iter().map(source).collect();
    let theirs = InProcess.parse_batch(&batch, &Limits::DAEMON, &|| false);
    let ours = bench.parsers.parse_batch(&batch, &Limits::DAEMON, &|| false);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_same(ours.as_ref().unwrap(), theirs.as_ref().unwrap());
    }
    assert_eq!(bench.parsers.status().n_lost, 0);
}

#[test]
fn large_texts_and_large_batches_go_through_the_pipes() {
    let bench = Bench::new();
    let large = "f(1, [2, 3])\n".repeat(100_000);
    let small: Vec<String> = (0..2000).map(|n| format!("f({n})")).collect();
    let mut texts = vec![&*large];
    texts.extend(small.iter().map(|text| &**text));
    assert_eq!(bench.see(&texts), texts);
}

#[test]
fn what_a_parser_refuses_in_order_costs_no_process() {
    let bench = Bench::new();
    let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
    let limits = Limits { depth_max: 100, ..Limits::DAEMON };
    let results = bench.parsers.parse_batch(&sources(&["f(1)", &deep]), &limits, &|| false);
    assert_eq!(results[1].as_ref().err(), Some(&SkipReason::TooDeep { limit: 100 }));
    let limits = Limits { time_max: Duration::ZERO, ..Limits::DAEMON };
    let long = "f(1)\n".repeat(200_000);
    let results = bench.parsers.parse_batch(&sources(&[&long]), &limits, &|| false);
    assert_eq!(results[0].as_ref().err(), Some(&SkipReason::ParseTimeout));
    assert_eq!(bench.see(&["f(2)"]), ["f(2)"]);
    assert_eq!(bench.parsers.status().n_lost, 0);
    assert_eq!(bench.parsers.quarantined(), []);
}

/// One file is lost, with its reason; the others of its batch are there, before and behind it, and
/// it isn't tried again.
#[track_caller]
fn check(fault: &str, expected: &Expect) {
    let bench = Bench::new();
    let poison = format!("# FAULT:{fault}");
    let batch = ["a(1)", "b(2)", &poison, "c(3)", "d(4)"];
    let seen = bench.see(&batch);
    assert_eq!([&seen[..2], &seen[3..]].concat(), ["a(1)", "b(2)", "c(3)", "d(4)"]);
    expected.assert_eq(&seen[2]);
    assert_eq!(bench.parsers.status().n_lost, 1);
    assert_eq!(bench.see(&batch), seen);
    assert_eq!(bench.parsers.status().n_lost, 1, "it wasn't tried again");
    let quarantined = bench.parsers.quarantined();
    let whys: Vec<String> =
        quarantined.iter().map(|one| format!("parser_died: its parser {}", one.why)).collect();
    assert_eq!(whys, seen[2..3]);
}

#[test]
fn an_abort_costs_its_file() {
    check("abort", &expect!["parser_died: its parser ended: signal: 6 (SIGABRT)"]);
}

#[test]
fn an_exit_costs_its_file() {
    check("exit", &expect!["parser_died: its parser ended: exit status: 3"]);
}

#[test]
fn a_fatal_signal_costs_its_file() {
    check("fpe", &expect!["parser_died: its parser ended: signal: 8 (SIGFPE)"]);
}

#[test]
fn a_parser_that_is_killed_twice_costs_its_file() {
    check("kill", &expect!["parser_died: its parser ended: signal: 9 (SIGKILL)"]);
}

#[test]
fn the_words_of_a_parser_that_dies_are_told() {
    check(
        "complain",
        &expect![
            "parser_died: its parser ended: signal: 6 (SIGABRT); it wrote: the scanner is confused"
        ],
    );
}

#[test]
fn garbage_costs_its_file() {
    check(
        "garbage",
        &expect!["parser_died: its parser was killed: it wrote what nobody understands"],
    );
}

#[test]
fn an_answer_without_end_costs_its_file() {
    check(
        "flood",
        &expect![
            "parser_died: its parser was killed: it announced 4294967295 bytes, 1049408 at most"
        ],
    );
}

#[test]
fn a_tree_that_is_none_costs_its_file() {
    check(
        "lie",
        &expect![
            "parser_died: its parser returned trees that are none: more trees or nodes are announced than there can be"
        ],
    );
}

#[test]
fn a_stack_overflow_costs_its_file() {
    let bench = Bench::new();
    let seen = bench.see(&["a(1)", "# FAULT:overflow", "b(2)"]);
    assert_eq!([&*seen[0], &*seen[2]], ["a(1)", "b(2)"]);
    assert!(seen[1].starts_with("parser_died: its parser ended: signal: "), "{}", seen[1]);
}

#[test]
fn all_memory_costs_its_file() {
    let bench = Bench::new();
    let seen = bench.see(&["a(1)", "# FAULT:eat", "b(2)"]);
    assert_eq!([&*seen[0], &*seen[2]], ["a(1)", "b(2)"]);
    let words = "it wrote: memory allocation of 67108864 bytes failed";
    assert!(seen[1].contains("SIGABRT") && seen[1].contains(words), "{}", seen[1]);
}

#[test]
fn a_hang_costs_its_file_and_no_other_worker() {
    let bench = Bench::with(ParserConfig {
        n_workers: 2,
        kill_after: Duration::from_secs(2),
        ..config("parser")
    });
    let limits = Limits { time_max: Duration::from_secs(1), ..Limits::DAEMON };
    let hung = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let hang = scope.spawn(|| {
            let batch = sources(&["a(1)", "# FAULT:hang", "b(2)"]);
            let results = bench.parsers.parse_batch(&batch, &limits, &|| false);
            hung.store(false, Ordering::Release);
            shown(&results)
        });
        let mut n_meanwhile = 0;
        while hung.load(Ordering::Acquire) {
            assert_eq!(bench.see(&["c(3)", "d(4)"]), ["c(3)", "d(4)"]);
            n_meanwhile += 1;
        }
        assert!(n_meanwhile > 1, "the other worker went on");
        let why = "parser_died: its parser was killed: it didn't answer within 3s";
        assert_eq!(hang.join().unwrap(), ["a(1)", why, "b(2)"]);
    });
}

#[test]
fn several_poisonous_files_in_one_batch_cost_themselves() {
    let bench = Bench::new();
    let batch = ["# FAULT:abort", "a(1)", "# FAULT:exit", "# FAULT:lie", "b(2)", "# FAULT:kill"];
    let seen = bench.see(&batch);
    let died = seen.iter().map(|seen| seen.starts_with("parser_died")).collect::<Vec<_>>();
    assert_eq!(died, [true, false, true, true, false, true], "{seen:?}");
    assert_eq!(bench.parsers.status().n_lost, 4);
    assert_eq!(bench.see(&["c(3)"]), ["c(3)"]);
}

#[test]
fn whoever_asks_a_parser_to_end_blames_no_file() {
    let bench = Bench::new();
    let seen = bench.see(&["a(1)", "# FAULT:term"]);
    let why = "two in a row were lost: ended: signal: 15 (SIGTERM)";
    assert_eq!(seen, ["a(1)", &format!("parser_unavailable: no parser was to be had: {why}")]);
    assert_eq!((bench.parsers.status().n_lost, bench.parsers.quarantined()), (0, Vec::new()));
    assert_eq!(bench.see(&["b(2)"]), ["b(2)"]);
}

#[test]
fn a_caller_that_leaves_blames_no_file_and_its_parser_is_replaced() {
    let bench = Bench::new();
    let left = AtomicBool::new(false);
    let begun = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begun.wait();
            left.store(true, Ordering::Release);
        });
        let mut asked = 0;
        let stop = std::cell::RefCell::new(|| {
            asked += 1;
            if asked == 20 {
                begun.wait();
            }
            left.load(Ordering::Acquire)
        });
        let batch = sources(&["a(1)", "# FAULT:hang"]);
        let results = bench.parsers.parse_batch(&batch, &Limits::DAEMON, &|| (stop.borrow_mut())());
        assert_eq!(results[1].as_ref().err(), Some(&SkipReason::ParseTimeout));
    });
    assert_eq!(bench.see(&["b(2)"]), ["b(2)"]);
    assert_eq!((bench.parsers.status().n_lost, bench.parsers.quarantined()), (0, Vec::new()));
}

#[test]
fn what_is_quarantined_is_remembered_until_it_changes() {
    let dir = Fixture::empty();
    let poison = "# FAULT:abort";
    let why = {
        let bench = Bench::in_dir(&dir.root());
        bench.see(&[poison])
    };
    let bench = Bench::in_dir(&dir.root());
    assert_eq!(bench.see(&[poison]), why);
    assert_eq!(bench.parsers.status().n_lost, 0);
    assert_eq!(bench.parsers.status().quarantine.n_files, 1);
    assert_eq!(bench.see(&["# FAULT:nothing"]), ["# FAULT:nothing"]);
    // The same text in another language is another matter.
    let source = Source::new(poison.into(), Language::Python);
    let results = bench.parsers.parse_batch(&[source], &Limits::DAEMON, &|| false);
    assert!(matches!(results[..], [Err(SkipReason::ParserDied { .. })]));
    assert_eq!(bench.parsers.status().n_lost, 1);
}

#[test]
fn a_parser_can_do_nothing_but_parse() {
    let bench = Bench::new();
    let seen = bench.see(&["# FAULT:escape"]);
    let restrictions = bench.parsers.status().restrictions.unwrap();
    assert!(seen[0].ends_with("it wrote: escapes: []"), "{} with {restrictions}", seen[0]);
    let everywhere = Restrictions::MEMORY.with(Restrictions::NO_FILES);
    assert!(restrictions.contains(everywhere), "{restrictions}");
    #[cfg(target_os = "linux")]
    assert!(
        restrictions.contains(Restrictions::DEATH_SIGNAL.with(Restrictions::NO_NEW_PRIVS)),
        "{restrictions}"
    );
}

#[test]
fn faults_are_only_committed_on_demand() {
    let mut without = config("parser");
    without.env.pop();
    let bench = Bench::with(without);
    assert_eq!(bench.see(&["# FAULT:abort"]), ["# FAULT:abort"]);
}

#[test]
fn without_a_pool_files_are_tried_again_later() {
    let mut bench = Bench::new();
    assert_eq!(bench.see(&["a(1)"]), ["a(1)"]);
    bench.shut_down();
    let seen = bench.see(&["a(1)"]);
    assert_eq!(seen, ["parser_unavailable: no parser was to be had: the pool is gone"]);
    assert_eq!(bench.parsers.status().pool, None);
}

#[test]
fn a_program_that_is_no_parser_is_a_failed_start() {
    let no_parser = [
        (ParserConfig::new("/not/there", []), "can't be run"),
        (ParserConfig::new("/bin/sh", ["-c".into(), "exit 1".into()]), "ended without a greeting"),
        (ParserConfig::new("/bin/sh", ["-c".into(), "echo 123456".into()]), "nobody understands"),
        (config("another version"), "it is of another version"),
    ];
    for (config, why) in no_parser {
        let runtime = Runtime::new().unwrap();
        let (spec, _) = supervisor(config, runtime.handle().clone()).unwrap();
        let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec);
        let error = runtime.block_on(tree.start("root")).unwrap_err();
        assert!(format!("{error:?}").contains(why), "{error:?}");
    }
}
