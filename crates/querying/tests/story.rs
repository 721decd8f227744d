//! Queries over a handful of files: which are searched, in which order, and where the bounds cut.
#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]

use astscope_parsing::{Limits, parse};
use astscope_pattern_matcher::{MatcherSpec, RuleSet, RuleSource, SeverityOverrides};
use astscope_querying::{
    Bounds, Gone, Interrupt, PatternQuery, QueryError, RuleQuery, Totals, execute, explain,
};
use astscope_repository::{FileStamp, NewFile, Repository, ScopedFile};
use astscope_syntax::{ContentId, Language};
use expect_test::{Expect, expect};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A scope of files in the order of their paths.
fn scope(files: &[(&str, &str)]) -> Vec<ScopedFile> {
    let repository = Repository::new(1);
    let mut transaction = repository.begin();
    let mut scoped: Vec<ScopedFile> = files
        .iter()
        .map(|(path, text)| {
            let language = Language::from_path(Path::new(path)).unwrap();
            let file =
                Arc::new(parse((*text).into(), language, &Limits::DAEMON, &mut || false).unwrap());
            let abs: Arc<Path> = Path::new("/r").join(path).into();
            let content = ContentId::of(text.as_bytes());
            let new =
                NewFile { path: Arc::clone(&abs), stamp: FileStamp::default(), content, file };
            ScopedFile { display: (*path).into(), abs, record: transaction.put(new).unwrap() }
        })
        .collect();
    transaction.commit();
    scoped.sort_by(|a, b| a.display.cmp(&b.display));
    scoped
}

fn pool() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn spec(pattern: &str) -> MatcherSpec {
    MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() }
}

fn compile(files: &[ScopedFile], pattern: &str, language: Option<Language>) -> PatternQuery {
    let hosts: BTreeSet<Language> = files.iter().map(|file| file.record.language).collect();
    PatternQuery::compile(&spec(pattern), language, None, &hosts).unwrap()
}

/// Runs a pattern and shows what comes, in the order in which it comes.
fn run(files: &[ScopedFile], query: &PatternQuery, limit: u64) -> (String, Totals) {
    let mut shown = String::new();
    let bounds = Bounds { limit, interrupt: &|| None };
    let search = |file: &ScopedFile, limit: usize| {
        let found = query.search(file, limit, &|| false)?;
        let texts = found.iter().flat_map(|tree| {
            let language = tree.doc.language();
            tree.matches.iter().map(move |found| {
                format!("{language} {}", &file.record.file.text[found.range.to_usize()])
            })
        });
        Some(texts.collect())
    };
    let mut deliver = |file: &ScopedFile, found: Vec<String>| -> Result<(), Gone> {
        for text in found {
            writeln!(shown, "{}: {text}", file.display).unwrap();
        }
        Ok(())
    };
    let totals = execute(files, &pool(), &bounds, &search, &mut deliver).unwrap();
    (shown, totals)
}

fn check(files: &[(&str, &str)], pattern: &str, language: Option<Language>, expected: &Expect) {
    let files = scope(files);
    let query = compile(&files, pattern, language);
    let (shown, _) = run(&files, &query, u64::MAX);
    expected.assert_eq(&shown);
}

const MIXED: &[(&str, &str)] = &[
    ("b.js", "f(1); g(f(2));"),
    ("a.rs", "fn main() { f(3); }"),
    ("c.html", "<script>f(4)</script><p>f(5)</p><style>a { b: c }</style>"),
    ("d.py", "f(6)\n"),
    ("e.heex", "<p class={f(7)}>f(8)</p>"),
    ("f.ex", "f(9)\n"),
];

#[test]
fn without_a_language_each_file_is_searched_as_what_it_is_embedded_code_too() {
    check(
        MIXED,
        "f($A)",
        None,
        &expect![[r#"
        a.rs: Rust f(3)
        b.js: JavaScript f(1)
        b.js: JavaScript f(2)
        c.html: JavaScript f(4)
        d.py: Python f(6)
        e.heex: Elixir f(7)
        f.ex: Elixir f(9)
    "#]],
    );
}

#[test]
fn with_a_language_its_files_are_searched_and_the_parts_in_it_inside_others() {
    check(
        MIXED,
        "f($A)",
        Some(Language::JavaScript),
        &expect![[r#"
        b.js: JavaScript f(1)
        b.js: JavaScript f(2)
        c.html: JavaScript f(4)
    "#]],
    );
    check(
        MIXED,
        "f($A)",
        Some(Language::Elixir),
        &expect![[r#"
        e.heex: Elixir f(7)
        f.ex: Elixir f(9)
    "#]],
    );
}

#[test]
fn a_language_that_refuses_the_pattern_is_passed_over_and_all_of_them_give_hints() {
    // One node in Python, two in JavaScript.
    let files = scope(&[("a.js", "a; b"), ("b.py", "class C: pass\n")]);
    let query = compile(&files, "class $C: pass", None);
    let (shown, _) = run(&files, &query, u64::MAX);
    assert_eq!(shown, "b.py: Python class C: pass\n");
    assert!(query.hints().is_empty());
    let query = compile(&files[..1], "$A $B", None);
    assert_eq!(run(&files[..1], &query, u64::MAX).0, "");
    assert!(query.hints()[0].starts_with("the pattern is not valid as JavaScript: "));
}

#[test]
fn a_limit_cuts_in_order_and_says_so_only_when_something_is_cut() {
    let files = scope(&[("a.js", "f(1); f(2)"), ("b.js", "f(3); f(4)"), ("c.js", "f(5)")]);
    let query = compile(&files, "f($A)", None);
    for (limit, shown, cut) in [
        (0, "", true),
        (2, "a.js: JavaScript f(1)\na.js: JavaScript f(2)\n", true),
        (3, "a.js: JavaScript f(1)\na.js: JavaScript f(2)\nb.js: JavaScript f(3)\n", true),
    ] {
        let (found, totals) = run(&files, &query, limit);
        assert_eq!((found.as_str(), totals.limit_reached), (shown, cut), "limit {limit}");
        assert_eq!(totals.matches, limit);
    }
    let (_, totals) = run(&files, &query, 5);
    assert!(!totals.limit_reached, "five are all there are");
    assert_eq!((totals.matches, totals.files_matched), (5, 3));
}

#[test]
fn answers_come_in_the_order_of_the_scope_whatever_the_threads_do() {
    let texts: Vec<(String, String)> = (0..300)
        .map(|n| (format!("{n:04}.js"), format!("{};f({n})", "g(1);".repeat(300 - n))))
        .collect();
    let files: Vec<(&str, &str)> = texts.iter().map(|(path, text)| (&**path, &**text)).collect();
    let files = scope(&files);
    let (shown, _) = run(&files, &compile(&files, "f($A)", None), u64::MAX);
    let expected: Vec<String> =
        (0..300).map(|n| format!("{n:04}.js: JavaScript f({n})\n")).collect();
    assert_eq!(shown, expected.concat());
}

#[test]
fn what_waits_for_the_receiver_is_bounded_by_files_and_by_text() {
    // Chunks are cut after 64 files or 256 KiB; eight for each of two threads may be ahead.
    for (n_files, bytes, files_a_chunk) in [(3_000, 8, 64), (60, 200 << 10, 2)] {
        let text = format!("f(1)//{}", "x".repeat(bytes));
        let paths: Vec<String> = (0..n_files).map(|n| format!("{n:04}.js")).collect();
        let files: Vec<(&str, &str)> = paths.iter().map(|path| (&**path, &*text)).collect();
        let files = scope(&files);
        let searched = AtomicUsize::new(0);
        let search = |_: &ScopedFile, _: usize| {
            searched.fetch_add(1, Ordering::Relaxed);
            Some(vec![()])
        };
        let mut n_delivered = 0;
        let mut deliver = |_: &ScopedFile, _: Vec<()>| {
            n_delivered += 1;
            let ahead = searched.load(Ordering::Relaxed) - n_delivered;
            assert!(ahead < (16 + 1) * files_a_chunk, "{ahead} files are ahead");
            Ok(())
        };
        let bounds = Bounds { limit: u64::MAX, interrupt: &|| None };
        let totals = execute(&files, &pool(), &bounds, &search, &mut deliver).unwrap();
        assert_eq!(totals.matches, n_files);
    }
}

#[test]
fn a_limit_spares_the_files_behind_it() {
    let texts: Vec<String> = (0..2_000).map(|n| format!("{n:04}.js")).collect();
    let files = scope(&texts.iter().map(|path| (&**path, "f(1)")).collect::<Vec<_>>());
    let searched = AtomicUsize::new(0);
    let search = |_: &ScopedFile, wanted: usize| {
        searched.fetch_add(1, Ordering::Relaxed);
        Some(vec![(); wanted.min(1)])
    };
    let bounds = Bounds { limit: 3, interrupt: &|| None };
    let totals = execute(&files, &pool(), &bounds, &search, &mut |_, _| Ok(())).unwrap();
    assert_eq!((totals.matches, totals.files_matched, totals.limit_reached), (3, 3, true));
    // Four of each chunk that was on its way.
    assert!(searched.load(Ordering::Relaxed) <= 16 * 4, "{searched:?}");
}

#[test]
fn a_search_that_panics_takes_its_caller_along_and_nobody_hangs() {
    let files = scope(&[("a.js", "f(1)"), ("b.js", "f(2)")]);
    let search = |_: &ScopedFile, _: usize| -> Option<Vec<()>> { panic!("on purpose") };
    let bounds = Bounds { limit: 9, interrupt: &|| None };
    let run = || execute(&files, &pool(), &bounds, &search, &mut |_, _| Ok(()));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
}

#[test]
fn an_interrupt_ends_a_query_and_so_does_a_receiver_that_left() {
    let files = scope(&[("a.js", "f(1)"), ("b.js", "f(2)")]);
    let search = |_: &ScopedFile, _: usize| Some(vec![()]);
    for (interrupt, error) in [
        (Interrupt::Cancelled, QueryError::Cancelled),
        (Interrupt::DeadlineExceeded, QueryError::DeadlineExceeded),
    ] {
        let asked = AtomicUsize::new(0);
        let after_one = || (asked.fetch_add(1, Ordering::Relaxed) > 0).then_some(interrupt);
        let bounds = Bounds { limit: 9, interrupt: &after_one };
        let ended = execute(&files, &pool(), &bounds, &search, &mut |_, _| Ok(()));
        assert_eq!(ended, Err(error));
    }
    let bounds = Bounds { limit: 9, interrupt: &|| None };
    let gone = execute(&files, &pool(), &bounds, &search, &mut |_, _| Err(Gone));
    assert_eq!(gone, Err(QueryError::Cancelled));
}

#[test]
fn explain_shows_what_each_step_left() {
    let files = scope(&[
        ("a.js", "render(x)"),
        ("b.js", "other(x)"),
        ("c.js", "let render = 1"),
        ("d.py", "render(x)"),
        ("e.js", "f(x); render"),
    ]);
    let query = compile(&files, "render($A)", Some(Language::JavaScript));
    let bounds = Bounds { limit: u64::MAX, interrupt: &|| None };
    let search = |file: &ScopedFile, limit: usize| {
        let found = query.search(file, limit, &|| false)?;
        Some(found.into_iter().flat_map(|tree| tree.matches).collect::<Vec<_>>())
    };
    let plan = explain(&query, &files, &pool(), &bounds, &search).unwrap();
    let mut shown = String::new();
    for (language, lines) in &plan.requirements {
        writeln!(shown, "{language}: {}", lines.join("; ")).unwrap();
    }
    for (step, files) in &plan.steps {
        writeln!(shown, "{files} {step}").unwrap();
    }
    writeln!(shown, "{:?}", plan.totals).unwrap();
    expect![[r#"
        JavaScript: kind call_expression; text "render"; kind identifier; kind arguments
        5 files selected
        4 in a language of the pattern
        3 with the node kinds required
        2 with the text required
        Totals { matches: 1, files_matched: 1, files_verified: 2, limit_reached: false }
    "#]]
    .assert_eq(&shown);
}

#[test]
fn rules_apply_by_language_and_by_their_globs_within_the_project() {
    let files = scope(&[("src/a.js", "f(1)"), ("src/b.py", "f(2)\n"), ("test/c.js", "f(3)")]);
    let yaml = "
{id: js, language: js, rule: {pattern: f($A)}, files: ['src/**']}
---
{id: all, language: js, rule: {pattern: f($A)}, ignores: ['src/**'], severity: error}
---
{id: py, language: py, rule: {pattern: f($A)}}
";
    let source = RuleSource { source: "r.yml".into(), yaml: yaml.into(), default_id: None };
    let rules = RuleSet::compile(&[source], &[], &SeverityOverrides::default()).unwrap();
    let query = RuleQuery { rules, project_dir: PathBuf::from("/r"), all_fixes: false };
    let shown: Vec<String> = files
        .iter()
        .flat_map(|file| query.search(file, usize::MAX).unwrap_or_default())
        .flat_map(|(_, matches)| matches)
        .map(|found| format!("{} {}", found.rule.id, found.found.range.start))
        .collect();
    assert_eq!(shown, ["js 0", "py 0", "all 0"]);
}
