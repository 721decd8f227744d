//! Long answers: cut by a limit or a deadline, given up, not read, and larger than a line may be.

use crate::support::{Daemon, LONG_ANSWER_FILES, code, long_answer, open, pattern, run, status};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{ErrorCode, Explanation, Item, RunParams, Summary, method};
use astscope_protocol::{CallError, Event, LINE_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use serde_json::json;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// That the items of a long answer are complete up to some file, in order.
#[track_caller]
fn expect_prefix(items: &[Item]) {
    for (i, item) in items.iter().enumerate() {
        assert_eq!(item.file, format!("{i:03}.js"));
        assert_eq!(item.matches.len(), 1);
    }
}

#[test]
fn a_limit_cuts_the_answer_and_says_so() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1); f(2)\n//- /b.js\nf(3); f(4)\n//- /c.js\ng(5)\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    let all = ["a.js:1:1 f(1)", "a.js:1:7 f(2)", "b.js:1:1 f(3)", "b.js:1:7 f(4)"];
    for limit in 0..=5 {
        params.delivery.limit = Some(limit);
        let found = run(&mut client, &params);
        let n = usize::try_from(limit).unwrap().min(4);
        assert_eq!(found.shown(), all[..n]);
        assert_eq!(found.summary.matches, n as u64);
        assert_eq!(found.summary.limit_reached, limit < 4, "{limit}");
    }
    params.delivery.limit = Some(u64::MAX);
    assert!(!run(&mut client, &params).summary.limit_reached);
}

#[test]
fn explain_counts_what_run_finds() {
    let daemon = Daemon::start();
    let tree =
        Fixture::parse("//- /a.js\nf(1); f(2)\n//- /b.js\nf(3)\n//- /c.js\ng(5)\n//- /d.js\nx\n");
    let mut client = daemon.client();
    let params = pattern(&tree, "js", "f($A)");
    let found = run(&mut client, &params).summary;
    let plan: Explanation = client.call(method::EXPLAIN, &params).unwrap();
    assert_eq!(
        (plan.matches, plan.files_matched, plan.files_verified),
        (found.matches, found.files_matched, found.files_verified)
    );
    let left: Vec<u64> = plan.steps.iter().map(|step| step.files).collect();
    assert_eq!(left.first(), Some(&4));
    assert_eq!(left.last(), Some(&plan.files_verified));
    assert!(left.is_sorted_by(|a, b| a >= b), "{left:?}");
    assert_eq!(plan.micros.keys().collect::<Vec<_>>(), ["match", "plan", "refresh"]);
    assert!(plan.requirements.contains_key("JavaScript"));
}

#[test]
fn files_only_gives_names_and_include_source_the_text() {
    let daemon = Daemon::start();
    let tree = Fixture::parse("//- /a.js\nf(1); f(2)\n//- /b.js\ng()\n//- /c.js\nf(3) // é\n");
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.delivery.files_only = true;
    let found = run(&mut client, &params);
    assert_eq!(found.files(), ["a.js", "c.js"]);
    assert!(found.items.iter().all(|item| item.matches.is_empty() && item.source.is_none()));
    params.delivery.files_only = false;
    params.delivery.include_source = true;
    let found = run(&mut client, &params);
    assert_eq!(found.records().len(), 3);
    for item in &found.items {
        assert_eq!(item.source.as_deref(), Some(&*tree.read(&item.file)));
    }
}

#[test]
fn without_waiting_the_answer_says_how_many_files_are_missing() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f($A)");
    params.delivery.no_wait = true;
    params.delivery.files_only = true;
    let first = run(&mut client, &params).summary;
    assert_eq!(first.files_selected, LONG_ANSWER_FILES);
    assert_eq!(first.matches + first.files_pending, LONG_ANSWER_FILES);
    params.delivery.no_wait = false;
    let all = run(&mut client, &params).summary;
    assert_eq!((all.matches, all.files_pending), (LONG_ANSWER_FILES, 0));
}

#[test]
fn a_match_longer_than_a_line_may_be_arrives_in_pieces() {
    let daemon = Daemon::start();
    let tree = Fixture::empty();
    let source = format!("/*{}*/ f()\n", "é\"\\\u{1}".repeat(LINE_BYTES_MAX / 20));
    tree.write("a.js", &source);
    let mut client = daemon.client();
    let mut params = pattern(&tree, "js", "f()");
    params.delivery.include_source = true;
    for _ in 0..2 {
        let found = run(&mut client, &params);
        let raw = found.items[0].matches.iter().next().unwrap();
        assert_eq!(found.items[0].source.as_ref(), Some(&source));
        assert!(raw.len() + serde_json::to_string(&source).unwrap().len() > LINE_BYTES_MAX);
        assert_eq!(found.records()[0].lines, source.trim_end());
        assert_eq!(status(&mut client).clients, 1, "the connection goes on");
    }
}

#[test]
fn a_query_that_is_cancelled_in_the_middle_ends_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut client = daemon.client();
    let mut items = Vec::new();
    let params = pattern(&tree, "js", "f($A)");
    let cancelled = client.call_streaming::<_, Summary>(method::RUN, &params, |event| {
        if let Event::Item(item) = event {
            items.push(item);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    let error = cancelled.expect_err("cancelled");
    assert_eq!(error.code(), Some(ErrorCode::Cancelled), "{error}");
    assert_eq!(items.len(), 1);
    assert_eq!(run(&mut client, &params).summary.matches, LONG_ANSWER_FILES);
}

#[test]
fn items_before_a_cancellation_are_a_prefix_and_none_comes_after_it() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut connection = daemon.lines();
    connection.ask(4, method::RUN, &pattern(&tree, "js", "f($A)"));
    while connection.message().unwrap()["method"] != method::ITEM {}
    connection.cancel(4);
    let error = connection.answer(4).expect_err("cancelled");
    assert_eq!((error.code, error.error_code()), (-32800, Some(ErrorCode::Cancelled)));
    let n_before = connection.items.len();
    assert!((n_before as u64) < LONG_ANSWER_FILES - 1, "{n_before} items");
    connection.cancel(4);
    connection.cancel(5);
    connection.ask(5, method::STATUS, &json!({}));
    assert!(connection.answer(5).is_ok());
    assert_eq!(connection.items.len(), n_before);
}

#[test]
fn a_deadline_in_the_middle_ends_the_query_and_what_came_is_valid() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut other = daemon.client();
    open(&mut other, &tree.root());
    let mut params = pattern(&tree, "js", "f($A)");
    let deadline = Duration::from_secs(1);
    params.delivery.deadline_ms = Some(1000);
    let mut connection = daemon.lines();
    let started = Instant::now();
    connection.ask(4, method::RUN, &params);
    // Unread, the answer can't be finished before the deadline. Others are served meanwhile.
    while started.elapsed() < deadline {
        assert!(status(&mut other).clients >= 1);
        assert_eq!(run(&mut other, &limited(&params)).summary.matches, 1);
    }
    assert_eq!(code(connection.answer(4)), Some(ErrorCode::DeadlineExceeded));
    let items = std::mem::take(&mut connection.items);
    expect_prefix(&items);
    assert!((items.len() as u64) < LONG_ANSWER_FILES);
    connection.ask(5, method::RUN, &limited(&params));
    assert_eq!(connection.answer(5).unwrap()["matches"], 1);
}

fn limited(params: &RunParams) -> RunParams {
    let mut params = params.clone();
    params.delivery.limit = Some(1);
    params.delivery.deadline_ms = None;
    params
}

#[test]
fn one_request_too_many_is_refused_as_overload_and_the_others_are_answered() {
    let daemon = Daemon::start();
    let tree = long_answer();
    open(&mut daemon.client(), &tree.root());
    let mut connection = daemon.lines();
    let n_max = u64::from(REQUESTS_IN_FLIGHT_MAX);
    // None of them can end before its items are read.
    for id in 1..=n_max + 1 {
        connection.ask(id, method::RUN, &pattern(&tree, "js", "f($A)"));
    }
    for id in 2..=n_max {
        connection.cancel(id);
    }
    let mut outcomes: Vec<_> = (0..=n_max).map(|_| connection.response()).collect();
    outcomes.sort_by_key(|(id, _)| *id);
    for (id, outcome) in outcomes {
        let id = id.unwrap();
        if id == 1 {
            assert_eq!(outcome.unwrap()["matches"], LONG_ANSWER_FILES);
        } else if id <= n_max {
            assert_eq!(code(outcome), Some(ErrorCode::Cancelled), "{id}");
        } else {
            let error = outcome.expect_err("one too many");
            assert_eq!(error.error_code(), Some(ErrorCode::Overloaded));
            assert!(error.data.is_some_and(|data| data.retryable));
        }
    }
    connection.items.retain(|item| item.id == 1);
    assert_eq!(connection.items.len() as u64, LONG_ANSWER_FILES);
    expect_prefix(&connection.items);
    connection.ask(50, method::STATUS, &json!({}));
    assert!(connection.answer(50).is_ok());
}

#[test]
fn several_requests_of_one_connection_are_worked_on_together() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut client = daemon.client();
    let ask = |i| client.request(method::RUN, &pattern(&tree, "js", &format!("f({i})"))).unwrap();
    let ids: Vec<u64> = (0..4).map(ask).collect();
    let mut items = Vec::new();
    // Answers that came early are kept.
    for id in ids.iter().rev() {
        let answer = client.wait::<Summary>(*id, |event| {
            if let Event::Item(item) = event {
                items.push((item.id, item.file));
            }
            ControlFlow::Continue(())
        });
        assert_eq!(answer.unwrap().matches, 1);
    }
    items.sort();
    let file = |i: usize| format!("{i:03}.js");
    let expected: Vec<_> = ids.into_iter().enumerate().map(|(i, id)| (id, file(i))).collect();
    assert_eq!(items, expected);
}

#[test]
fn a_canceller_gives_up_from_another_thread() {
    let daemon = Daemon::start();
    let tree = long_answer();
    let mut client = daemon.client();
    let canceller = client.canceller();
    assert!(!canceller.cancel().unwrap(), "nothing is asked yet");
    let mut has_cancelled = false;
    let params = pattern(&tree, "js", "f($A)");
    let outcome = client.call_streaming::<_, Summary>(method::RUN, &params, |_| {
        if !has_cancelled {
            has_cancelled = true;
            std::thread::scope(|scope| {
                let cancelled = scope.spawn(|| canceller.cancel().unwrap());
                assert!(cancelled.join().unwrap());
            });
        }
        ControlFlow::Continue(())
    });
    assert!(
        matches!(&outcome, Err(CallError::Remote(error)) if error.error_code() == Some(ErrorCode::Cancelled)),
        "{outcome:?}"
    );
}
