//! Law: a query that is answered from memory, wholly or in part, is answered as one that isn't,
//! whatever was edited in between and however the query was bounded.
#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]

use astscope_parsing::{Limits, parse};
use astscope_pattern_matcher::MatcherSpec;
use astscope_querying::service::{CacheConfig, QueryCache, Recalled};
use astscope_querying::{Bounds, PatternQuery, QueryKey, Totals, execute};
use astscope_repository::{FileStamp, NewFile, Repository, ScopedFile};
use astscope_syntax::{ContentId, Language, TextRange};
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const PATHS: &[&str] = &["a.js", "b.js", "c.py", "d.html"];
const TEXTS: &[&str] = &["f(1)", "f(1); f(2); g(f(3))", "g(1)", "<script>f(4)</script>", "x = f"];
const PATTERNS: &[&str] = &["f($A)", "g($A)", "$A"];

/// What happens between two looks at the files.
#[derive(Clone, Debug)]
enum Step {
    /// A file gets another text, or its language's files another spelling.
    Edit { file: usize, text: usize },
    /// A pattern is asked for, with at most so many matches.
    Ask { pattern: usize, limit: u64, from: usize },
    /// What is remembered is given back.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let limit = prop_oneof![3 => Just(u64::MAX), 1 => 0..6_u64];
    prop_oneof![
        3 => (0..PATHS.len(), 0..TEXTS.len()).prop_map(|(file, text)| Step::Edit { file, text }),
        6 => (0..PATTERNS.len(), limit, 0..PATHS.len())
            .prop_map(|(pattern, limit, from)| Step::Ask { pattern, limit, from }),
        1 => Just(Step::Forget),
    ]
}

fn file(path: &str, text: &str) -> ScopedFile {
    let language = Language::from_path(Path::new(path)).unwrap();
    let parsed = parse(text.into(), language, &Limits::DAEMON, &mut || false).unwrap();
    let abs: Arc<Path> = Path::new("/r").join(path).into();
    let (content, stamp) = (ContentId::of(text.as_bytes()), FileStamp::default());
    let new = NewFile { path: Arc::clone(&abs), stamp, content, file: Arc::new(parsed) };
    let record = Repository::new(1).begin().put(new).unwrap();
    ScopedFile { display: path.into(), abs, record }
}

/// What a query answers: which ranges of which files, and the sums.
type Answer = (Vec<(String, Vec<TextRange>)>, Totals);

fn ask(
    files: &[ScopedFile],
    pattern: &str,
    limit: u64,
    pool: &ThreadPool,
    recalled: Option<&Recalled<Vec<TextRange>>>,
) -> Answer {
    let hosts: BTreeSet<Language> = files.iter().map(|file| file.record.language).collect();
    let spec = MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() };
    let query = PatternQuery::compile(&spec, None, None, &hosts).unwrap();
    let search = |file: &ScopedFile, limit: usize| {
        let search = || {
            let found = query.search(file, limit, &|| false)?;
            Some(found.iter().flat_map(|tree| &tree.matches).map(|it| it.range).collect())
        };
        match recalled {
            Some(recalled) => recalled.search(file, limit, &|| None, search),
            None => search(),
        }
    };
    let mut found = Vec::new();
    let mut deliver = |file: &ScopedFile, ranges| {
        found.push((file.display.to_string(), ranges));
        Ok(())
    };
    let bounds = Bounds { limit, interrupt: &|| None };
    let totals = execute(files, pool, &bounds, &search, &mut deliver).unwrap();
    (found, totals)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_remembered_changes_no_answer(
        steps in prop::collection::vec(step(), 1..40),
        bytes_max in prop_oneof![Just(64 << 20), 0..4_000_usize],
    ) {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let config =
            CacheConfig { bytes_max, query_bytes_max: bytes_max / 2, ..CacheConfig::default() };
        let cache = QueryCache::new(config);
        let mut files: Vec<ScopedFile> = PATHS.iter().map(|path| file(path, TEXTS[0])).collect();
        for step in steps {
            match step {
                Step::Edit { file: at, text } => files[at] = file(PATHS[at], TEXTS[text]),
                Step::Forget => drop(cache.forget(std::time::Duration::ZERO)),
                Step::Ask { pattern, limit, from } => {
                    let (files, pattern) = (&files[from..], PATTERNS[pattern]);
                    let recalled = cache.recall(QueryKey::of(pattern.as_bytes()));
                    let remembered = ask(files, pattern, limit, &pool, Some(&recalled));
                    recalled.finish();
                    prop_assert_eq!(remembered, ask(files, pattern, limit, &pool, None));
                    prop_assert!(cache.stats().bytes <= bytes_max);
                }
            }
        }
    }
}
