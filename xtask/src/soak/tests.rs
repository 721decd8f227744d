//! Whether the comparison of two answers sees what is different.

use super::*;
use question::FileAnswer;

fn answer(files: &[(&str, &str)], skipped: &[(&str, &str)]) -> Answer {
    let file = |(file, content): &(&str, &str)| FileAnswer {
        file: (*file).to_owned(),
        content: (*content).to_owned(),
        matches: vec![format!("a match in {content}")],
    };
    let skip = |(path, why): &(&str, &str)| ((*path).to_owned(), (*why).to_owned());
    Answer { files: files.iter().map(file).collect(), skipped: skipped.iter().map(skip).collect() }
}

#[test]
fn every_difference_between_two_answers_is_one() {
    let right = answer(&[("a", "1"), ("b", "1")], &[("c", "empty")]);
    assert_eq!(difference(&right.clone(), &right), None);
    let check = |told: &Answer, line: &str| {
        let found = difference(told, &right).unwrap();
        assert!(found.contains(line), "{found}");
    };
    check(&answer(&[("a", "1")], &[("c", "empty")]), "b is missing");
    check(&answer(&[("a", "1"), ("b", "0")], &[("c", "empty")]), "b is another text");
    check(&answer(&[("a", "1"), ("b", "1"), ("d", "1")], &[("c", "empty")]), "d doesn't belong");
    check(&answer(&[("a", "1"), ("b", "1")], &[]), "c skipped: it should say empty");
    check(&answer(&[("b", "1"), ("a", "1")], &[("c", "empty")]), "the order");
    let mut fewer = right.clone();
    fewer.files[1].matches.clear();
    check(&fewer, "b: []");
}
