//! Answers that a real past allows, and such as it doesn't: so the judge itself is judged.

use super::super::question::{Answer, FileAnswer};
use super::*;
use astscope_syntax::{ContentId, Language};

const MATCHER: Matcher = Matcher::Pattern(None);

/// Moments that follow each other, a millisecond apart.
struct Clock(Instant);

impl Clock {
    fn span(&self, began: u64, ended: u64) -> Span {
        let at = |n| self.0 + Duration::from_secs(1) + Duration::from_millis(n);
        Span { began: at(began), ended: at(ended) }
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let held = |text: &str| Held {
        text: Arc::new(Text::new(Language::JavaScript, text.trim_end_matches('?').into())),
        is_visible: !text.ends_with('?'),
    };
    files.iter().map(|(path, text)| ((*path).to_owned(), held(text))).collect()
}

fn told(files: &[(&str, &str)]) -> Told {
    let file = |(file, text): &(&str, &str)| FileAnswer {
        file: (*file).to_owned(),
        content: ContentId::of(text.as_bytes()).to_string(),
        matches: Finding::of(text).matches_in(file),
    };
    Told {
        answer: Answer { files: files.iter().map(file).collect(), ..Answer::default() },
        sources: files.iter().map(|(_, text)| (*text).to_owned()).collect(),
        freshness: None,
    }
}

/// What is wrong with an answer that was given in this span.
fn wrong(journal: &Journal, span: Span, told: &Told) -> Vec<String> {
    let mut finds =
        |_, text: &Arc<Text>| Ok(Arc::new(Finding::of(str::from_utf8(&text.bytes).unwrap())));
    journal.judge(span, MATCHER, None, told, &mut finds).unwrap().wrong
}

fn torn(path: &str, texts: &[&str]) -> Touched {
    let texts = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    Touched { torn: [(path.to_owned(), texts)].into(), ..Touched::default() }
}

/// `a` says `one`, then from a deed between 10 and 20 on `two`.
fn replaced(touched: Touched) -> (Clock, Journal) {
    let journal = Journal::new(tree(&[("a", "one"), ("b", "same")]));
    let clock = Clock(Instant::now());
    let mut journal = journal;
    journal.note(clock.span(10, 20), touched, tree(&[("a", "two"), ("b", "same")]));
    (clock, journal)
}

#[test]
fn an_overwritten_version_may_be_shown_only_to_whoever_asked_before() {
    let (clock, journal) = replaced(Touched::default());
    let (old, new) = (told(&[("a", "one"), ("b", "same")]), told(&[("a", "two"), ("b", "same")]));
    for (began, ended, is_old_right, is_new_right) in [
        (1, 9, true, false),
        (1, 11, true, true),
        (15, 30, true, true),
        (20, 30, true, true),
        (21, 30, false, true),
    ] {
        let span = clock.span(began, ended);
        let verdict = (wrong(&journal, span, &old), wrong(&journal, span, &new));
        assert_eq!(verdict.0.is_empty(), is_old_right, "{began} to {ended}: {verdict:?}");
        assert_eq!(verdict.1.is_empty(), is_new_right, "{began} to {ended}: {verdict:?}");
    }
    assert_eq!(wrong(&journal, clock.span(21, 30), &old), ["a is stale, or ignored"]);
}

#[test]
fn a_version_that_comes_back_is_right_again() {
    let (clock, mut journal) = replaced(Touched::default());
    journal.note(clock.span(30, 40), Touched::default(), tree(&[("a", "one"), ("b", "same")]));
    let old = told(&[("a", "one"), ("b", "same")]);
    assert_eq!(wrong(&journal, clock.span(22, 28), &old), ["a is stale, or ignored"]);
    assert!(wrong(&journal, clock.span(22, 31), &old).is_empty());
    assert!(wrong(&journal, clock.span(50, 60), &old).is_empty());
}

#[test]
fn a_text_that_never_was_is_wrong_but_for_the_beginning_of_one_that_is_being_written() {
    let half = told(&[("a", "tw"), ("b", "same")]);
    let (clock, at_once) = replaced(Touched::default());
    assert_eq!(wrong(&at_once, clock.span(15, 16), &half), ["a never said that"]);
    let (clock, in_place) = replaced(torn("a", &["two"]));
    assert!(wrong(&in_place, clock.span(15, 16), &half).is_empty());
    assert_eq!(wrong(&in_place, clock.span(21, 22), &half), ["a never said that"]);
    let other = told(&[("a", "tx"), ("b", "same")]);
    assert_eq!(wrong(&in_place, clock.span(15, 16), &other), ["a never said that"]);
    let (clock, meanwhile) = replaced(torn("a", &["txt", "two"]));
    assert!(wrong(&meanwhile, clock.span(15, 16), &other).is_empty());
}

#[test]
fn a_file_that_was_there_all_the_time_must_be_shown() {
    let without = told(&[("b", "same")]);
    let (clock, at_once) = replaced(Touched::default());
    assert_eq!(wrong(&at_once, clock.span(1, 30), &without), ["a is missing"]);
    let (clock, in_place) = replaced(torn("a", &["two"]));
    assert!(wrong(&in_place, clock.span(1, 30), &without).is_empty());
    assert_eq!(wrong(&in_place, clock.span(21, 30), &without), ["a is missing"]);
}

#[test]
fn a_file_that_came_or_went_meanwhile_may_be_shown_or_not() {
    let mut journal = Journal::new(tree(&[("a", "one")]));
    let clock = Clock(Instant::now());
    journal.note(clock.span(10, 20), Touched::default(), tree(&[("b", "one")]));
    for (files, began, ended, lines) in [
        (&[("a", "one")][..], 1, 15, &[][..]),
        (&[("b", "one")], 15, 30, &[]),
        (&[("a", "one"), ("b", "one")], 15, 30, &[]),
        (&[], 15, 30, &[]),
        (&[], 1, 9, &["a is missing"]),
        (&[], 21, 30, &["b is missing"]),
        (&[("a", "one"), ("b", "one")], 21, 30, &["a is stale, or ignored"]),
        (&[("a", "one"), ("b", "one")], 1, 9, &["b is stale, or ignored"]),
        (&[("b", "one"), ("c", "one")], 21, 30, &["c wasn't there"]),
        (&[("b", "one"), ("b", "one")], 21, 30, &["b came twice"]),
    ] {
        assert_eq!(wrong(&journal, clock.span(began, ended), &told(files)), lines, "{files:?}");
    }
}

#[test]
fn what_is_ignored_may_be_shown_only_while_rules_change() {
    let mut journal = Journal::new(tree(&[("a", "one?"), ("b", "same")]));
    let clock = Clock(Instant::now());
    let all = told(&[("a", "one"), ("b", "same")]);
    assert_eq!(wrong(&journal, clock.span(1, 9), &all), ["a is stale, or ignored"]);
    let rules = Touched { everything: true, ..Touched::default() };
    journal.note(clock.span(10, 20), rules, tree(&[("a", "one?"), ("b", "same")]));
    assert!(wrong(&journal, clock.span(15, 16), &all).is_empty());
    assert!(wrong(&journal, clock.span(15, 16), &told(&[])).is_empty());
    assert_eq!(wrong(&journal, clock.span(21, 30), &all), ["a is stale, or ignored"]);
    assert_eq!(wrong(&journal, clock.span(21, 30), &told(&[])), ["b is missing"]);
}

#[test]
fn matches_of_another_text_are_wrong() {
    let journal = Journal::new(tree(&[("a", "one")]));
    let clock = Clock(Instant::now());
    let mut answer = told(&[("a", "one")]);
    answer.answer.files[0].matches = Finding::of("two").matches_in("a");
    assert_eq!(wrong(&journal, clock.span(1, 2), &answer), ["a: 1 matches, not those of its text"]);
    let mut answer = told(&[("a", "one")]);
    answer.answer.files[0].content = ContentId::of(b"two").to_string();
    assert_eq!(wrong(&journal, clock.span(1, 2), &answer), ["a: the hash of another text"]);
}

#[test]
fn a_question_about_a_directory_is_about_nothing_else() {
    let journal = Journal::new(tree(&[("d/a", "one"), ("dd/a", "one")]));
    let clock = Clock(Instant::now());
    let mut finds =
        |_, text: &Arc<Text>| Ok(Arc::new(Finding::of(str::from_utf8(&text.bytes).unwrap())));
    let mut judge = |files: &[(&str, &str)]| {
        let span = clock.span(1, 2);
        journal.judge(span, MATCHER, Some("d"), &told(files), &mut finds).unwrap().wrong
    };
    assert!(judge(&[("d/a", "one")]).is_empty());
    assert_eq!(judge(&[]), ["d/a is missing"]);
    assert_eq!(judge(&[("d/a", "one"), ("d/b", "one")]), ["d/b wasn't there"]);
}

#[test]
fn an_ignored_directory_shows_what_it_has_to_whoever_names_it() {
    let mut journal = Journal::new(tree(&[("d/a", "one?"), ("e", "one")]));
    let clock = Clock(Instant::now());
    let mut finds =
        |_, text: &Arc<Text>| Ok(Arc::new(Finding::of(str::from_utf8(&text.bytes).unwrap())));
    let all = told(&[("d/a", "one")]);
    let mut judge = |journal: &Journal, span| {
        journal.judge(span, MATCHER, Some("d"), &all, &mut finds).unwrap().wrong
    };
    assert!(judge(&journal, clock.span(1, 2)).is_empty());
    let seen = tree(&[("d/a", "one?"), ("d/b", "one"), ("e", "one")]);
    journal.note(clock.span(10, 20), Touched::default(), seen);
    assert_eq!(judge(&journal, clock.span(21, 22)), ["d/a is stale, or ignored", "d/b is missing"]);
}

#[test]
fn what_is_long_past_is_forgotten() {
    let (clock, mut journal) = replaced(torn("a", &["two"]));
    journal.note(clock.span(200_000, 200_001), Touched::default(), tree(&[("a", "two")]));
    assert_eq!(journal.versions["a"].len(), 1);
    assert!(journal.touched.is_empty());
}
