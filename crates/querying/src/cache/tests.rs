//! The bounds and the clock of the cache of results, at times that the tests choose.

use super::*;
use astscope_parsing::{Limits, parse};
use astscope_repository::{FileStamp, NewFile, Repository};
use std::slice::from_ref;

/// A JavaScript file of this path and text.
pub(crate) fn file(path: &str, text: &str) -> ScopedFile {
    let language = Language::JavaScript;
    let parsed = parse(text.into(), language, &Limits::DAEMON, &mut || false).unwrap();
    let abs: Arc<Path> = Path::new("/r").join(path).into();
    let (content, stamp) = (ContentId::of(text.as_bytes()), FileStamp::default());
    let repository = Repository::new(1);
    let new = NewFile { path: Arc::clone(&abs), stamp, content, file: Arc::new(parsed) };
    let record = repository.begin().put(new).unwrap();
    ScopedFile { display: path.into(), abs, record }
}

fn key(n: usize) -> QueryKey {
    QueryKey::of(&n.to_le_bytes())
}

fn s(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What was learned of files without a match.
fn learned(files: &[ScopedFile]) -> Known<Vec<u8>> {
    let mut known = Known::default();
    for file in files {
        known.learn(file, Some(&Vec::new()), usize::MAX);
    }
    known
}

fn results(adjust: impl FnOnce(&mut CacheConfig)) -> Results<Vec<u8>> {
    let mut config = CacheConfig::default();
    adjust(&mut config);
    Results::new(config)
}

/// Whether a file's result is known.
fn knows(results: &mut Results<Vec<u8>>, now: Duration, query: usize, file: &ScopedFile) -> bool {
    results.get(now, key(query)).get(file).is_some()
}

#[test]
fn an_entry_answers_for_its_content_its_path_and_its_spelling_only() {
    let (a, found) = (file("a.js", "f(1)"), vec![1, 2, 3]);
    let mut known = Known::default();
    known.learn(&a, Some(&found), usize::MAX);
    assert_eq!(known.get(&a).unwrap().found(), Some(found));
    let edited = file("a.js", "f(2)");
    let elsewhere = ScopedFile { abs: Path::new("/s/a.js").into(), ..a.clone() };
    let otherwise = ScopedFile { display: "./a.js".into(), ..a.clone() };
    for other in [&edited, &elsewhere, &otherwise] {
        assert!(known.get(other).is_none(), "{other:?}");
    }
    known.learn(&edited, None, usize::MAX);
    assert_eq!(known.get(&edited).unwrap().found(), None, "pruned");
    assert!(known.get(&a).is_none(), "one content of a file is known at a time");
    known.learn(&elsewhere, Some(&Vec::new()), usize::MAX);
    assert_eq!(known.get(&elsewhere).unwrap().found(), Some(Vec::new()), "verified");
    assert_eq!(known.files.len(), 2);
}

#[test]
fn bytes_are_those_of_the_entries_that_are_there() {
    let of = |known: &Known<Vec<u8>>| -> usize {
        known.files.iter().map(|(key, entry)| bytes_of(key, entry)).sum()
    };
    let mut known = learned(&[file("a.js", "f(1)"), file("b.js", "f(1)")]);
    assert_eq!(known.bytes(), of(&known));
    known.learn(&file("a.js", "f(2)"), Some(&vec![7; 1000]), usize::MAX);
    assert_eq!(known.bytes(), of(&known));
    assert!(known.bytes() > 1000 && known.files.len() == 2);
    known.learn(&file("a.js", "f(3)"), None, usize::MAX);
    assert!(known.bytes() == of(&known) && known.bytes() < 1000);
}

#[test]
fn what_is_over_a_query_s_bound_is_not_learned() {
    let small = learned(&[file("a.js", "f(1)")]).bytes();
    let mut known = Known::default();
    for path in ["a.js", "b.js", "c.js"] {
        known.learn(&file(path, "f(1)"), Some(&Vec::<u8>::new()), 2 * small);
    }
    assert_eq!((known.files.len(), known.bytes()), (2, 2 * small));
}

#[test]
fn check_32_the_query_beyond_the_bound_evicts_the_oldest() {
    let file = file("a.js", "f(1)");
    let mut results = results(|config| config.queries_max = 3);
    for n in 0..3 {
        drop(results.put(s(n as u64), key(n), learned(from_ref(&file))));
    }
    // That it was asked again makes it no younger.
    assert!(knows(&mut results, s(3), 0, &file));
    let evicted = results.put(s(4), key(3), learned(from_ref(&file)));
    assert_eq!(evicted.len(), 1);
    let known: Vec<bool> = (0..4).map(|n| knows(&mut results, s(4), n, &file)).collect();
    assert_eq!(known, [false, true, true, true]);
    let stats = results.stats();
    assert_eq!((stats.queries, stats.entries, stats.evicted, stats.expired), (3, 3, 1, 0));
}

#[test]
fn check_32_bytes_beyond_the_bound_evict_the_oldest_until_they_fit() {
    let files: Vec<ScopedFile> = ["a.js", "b.js", "c.js"].map(|path| file(path, "f(1)")).into();
    let one = learned(&files[..1]).bytes();
    let mut results = results(|config| config.bytes_max = 4 * one);
    for n in 0..4 {
        drop(results.put(s(n as u64), key(n), learned(&files[..1])));
    }
    assert_eq!(results.stats().bytes, 4 * one);
    // What is added to a query counts as well.
    drop(results.put(s(4), key(3), learned(&files)));
    let known: Vec<bool> = (0..4).map(|n| knows(&mut results, s(4), n, &files[0])).collect();
    assert_eq!(known, [false, false, true, true]);
    let stats = results.stats();
    assert_eq!((stats.entries, stats.bytes, stats.evicted), (4, 4 * one, 2));
    // One that is too large for all of them isn't kept.
    let long: Vec<ScopedFile> = (0..5).map(|n| file(&format!("{n}.js"), "f(1)")).collect();
    drop(results.put(s(5), key(9), learned(&long)));
    assert_eq!((results.stats().entries, results.stats().bytes), (0, 0));
}

#[test]
fn check_32_what_has_expired_is_missed_however_often_it_was_asked() {
    let file = file("a.js", "f(1)");
    let mut results = results(|config| config.ttl = s(300));
    drop(results.put(s(0), key(1), learned(from_ref(&file))));
    drop(results.put(s(200), key(2), learned(from_ref(&file))));
    for now in [100, 200, 299] {
        assert!(knows(&mut results, s(now), 1, &file), "{now}");
    }
    assert!(!knows(&mut results, s(300), 1, &file));
    assert_eq!(results.stats().entries, 2, "it is there until it is swept");
    assert_eq!(results.sweep(s(300)).len(), 1);
    assert_eq!((results.stats().entries, results.stats().expired), (1, 1));
    assert!(knows(&mut results, s(499), 2, &file));
}

#[test]
fn what_nobody_asked_for_in_a_while_can_be_forgotten_and_counted_before() {
    let file = file("a.js", "f(1)");
    let mut results = results(|_| ());
    let one = learned(from_ref(&file)).bytes();
    for n in 0..3 {
        drop(results.put(s(0), key(n), learned(from_ref(&file))));
    }
    assert!(knows(&mut results, s(60), 1, &file));
    assert_eq!(results.idle(s(90), s(60)), Forgotten { entries: 2, bytes: 2 * one });
    assert_eq!(results.stats().entries, 3, "it was only counted");
    assert_eq!(results.forget(s(90), s(60)).len(), 2);
    assert!(knows(&mut results, s(90), 1, &file));
    results.count(5, 7);
    assert_eq!(results.forget(s(90), s(0)).len(), 1);
    let stats = results.stats();
    assert_eq!((stats.bytes, stats.entries, stats.hits, stats.misses), (0, 0, 5, 7));
    drop(results.clear());
    assert_eq!(results.stats(), CacheStats::default());
}

#[test]
fn who_has_recalled_a_query_keeps_what_was_known_then() {
    let (a, b) = (file("a.js", "f(1)"), file("b.js", "f(1)"));
    let mut results = results(|_| ());
    drop(results.put(s(0), key(1), learned(from_ref(&a))));
    let before = results.get(s(1), key(1));
    drop(results.put(s(1), key(1), learned(from_ref(&b))));
    assert!(before.get(&b).is_none());
    assert!(knows(&mut results, s(1), 1, &a) && knows(&mut results, s(1), 1, &b));
    assert_eq!(results.stats().entries, 2);
}
