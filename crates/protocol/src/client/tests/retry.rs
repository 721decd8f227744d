//! Reads that a daemon loses: what is asked again, what is handed over, and what isn't.

use super::*;
use crate::client::{Attempt, ReadCanceller, ReadRequest, RetryingClient};
use crate::messages::{Delivery, MatcherSpec, ScanParams};
use std::time::Instant;

/// What a daemon does with one connection.
type Script<'s> = Box<dyn FnOnce(Daemon) + Send + 's>;

/// The end of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The part that ran it ended.
    Restarting,
    /// The connection ended.
    Closed,
    /// The connection ended within a line.
    HalfLine,
    /// It was too much.
    Overloaded,
    /// An answer, with these counts.
    Answer { matches: u64, files: u64, limit_reached: bool },
}

/// A file, its content, and how many matches it has.
type Sent = (&'static str, &'static str, usize);

/// What was handed over, and the answer.
#[derive(Debug)]
struct Got {
    items: Vec<(String, usize)>,
    answer: Result<Summary, CallError>,
    /// How many connections were made.
    n_connections: usize,
}

fn answer(matches: u64, files: u64) -> End {
    End::Answer { matches, files, limit_reached: false }
}

fn send(daemon: &mut Daemon, id: u64, (file, content_id, n_matches): Sent) {
    let mut matches = Matches::default();
    for n in 0..n_matches {
        matches.push(&serde_json::json!({ "n": n })).unwrap();
    }
    let (file, content_id) = (file.to_owned(), content_id.to_owned());
    let item = Item { id, file, content_id, source: None, matches };
    daemon.send(|out| crate::frame::encode_item(out, item));
}

/// Answers one request; `false` if the connection is to be closed.
fn attempt(daemon: &mut Daemon, items: &[Sent], end: End) -> bool {
    let request = daemon.request(method::RUN);
    for item in items {
        send(daemon, request.id, *item);
    }
    match end {
        End::Restarting => daemon.fail(request.id, ErrorCode::Restarting, "it ended"),
        End::Overloaded => daemon.fail(request.id, ErrorCode::Overloaded, "too much"),
        End::Closed => return false,
        End::HalfLine => {
            daemon.lines.get_mut().write_all(b"{\"jsonrpc\"").unwrap();
            return false;
        }
        End::Answer { matches, files, limit_reached } => {
            let summary =
                Summary { matches, files_matched: files, limit_reached, ..Summary::default() };
            daemon.answer(request.id, &summary);
        }
    }
    true
}

/// Runs the scripts, one for each connection, beside a test that gets the socket.
fn with_daemons<T>(scripts: Vec<Script<'_>>, test: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            for script in scripts {
                let (stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                let mut daemon = Daemon { lines: BufReader::new(stream) };
                daemon.greet();
                script(daemon);
            }
        });
        test(&socket)
    })
}

/// Makes one read of a daemon whose attempts go like this.
fn read(attempts: &[(&[Sent], End)]) -> Got {
    read_of(&RunParams::default(), attempts)
}

fn read_of(params: &RunParams, attempts: &[(&[Sent], End)]) -> Got {
    let mut scripts: Vec<Script<'_>> = Vec::new();
    let mut rest = attempts;
    while !rest.is_empty() {
        let closes = |(_, end): &(&[Sent], End)| matches!(end, End::Closed | End::HalfLine);
        let last = rest.iter().position(closes).unwrap_or(rest.len() - 1);
        let (connection, later) = rest.split_at(last + 1);
        rest = later;
        scripts.push(Box::new(move |mut daemon| {
            if connection.iter().all(|(items, end)| attempt(&mut daemon, items, *end)) {
                // What comes now is at most that the client has seen enough.
                while let Some(more) = daemon.receive() {
                    assert!(matches!(more, Incoming::Notification(_)), "asked again: {more:?}");
                }
            }
        }));
    }
    with_daemons(scripts, |socket| {
        let (mut items, mut n_connections) = (Vec::new(), 0);
        let mut client = RetryingClient::new(|_| {
            n_connections += 1;
            Ok::<_, CallError>(connect(socket))
        });
        let answer = client.run(params, |event| {
            if let Event::Item(item) = event {
                items.push((item.file, item.matches.len()));
            }
            ControlFlow::Continue(())
        });
        drop(client);
        Got { items, answer, n_connections }
    })
}

/// The read succeeds, with each of these items once and the counts of the last attempt.
#[track_caller]
fn check(attempts: &[(&[Sent], End)], expected: &[(&str, usize)], n_connections: usize) {
    let got = read(attempts);
    let summary = got.answer.unwrap();
    let expected: Vec<_> = expected.iter().map(|(file, n)| ((*file).to_owned(), *n)).collect();
    assert_eq!((got.items, got.n_connections), (expected.clone(), n_connections));
    let handed_over: usize = expected.iter().map(|(_, n)| n).sum();
    assert_eq!(summary.matches, handed_over as u64);
    assert_eq!(summary.files_matched, expected.len() as u64);
}

/// The read fails with what went wrong first, after these items.
#[track_caller]
fn check_lost(attempts: &[(&[Sent], End)], expected: &[&str]) {
    let got = read(attempts);
    let error = got.answer.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Restarting), "{error}");
    let files: Vec<_> = got.items.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, expected);
}

const A: Sent = ("a.rs", "c1", 1);
const B: Sent = ("b.rs", "c2", 2);
const C: Sent = ("c.rs", "c3", 3);

#[test]
fn a_read_that_is_lost_before_its_first_item_is_made_again() {
    let all: &[Sent] = &[A, B];
    let files = [("a.rs", 1), ("b.rs", 2)];
    check(&[(&[], End::Restarting), (all, answer(3, 2))], &files, 1);
    check(&[(&[], End::Closed), (all, answer(3, 2))], &files, 2);
    check(&[(&[], End::HalfLine), (all, answer(3, 2))], &files, 2);
}

#[test]
fn what_was_handed_over_is_not_handed_over_again() {
    let files = [("a.rs", 1), ("b.rs", 2), ("c.rs", 3)];
    let all: &[Sent] = &[A, B, C];
    for end in [End::Restarting, End::Closed, End::HalfLine] {
        for n_before in 1..=3 {
            let n_connections = if end == End::Restarting { 1 } else { 2 };
            check(&[(&all[..n_before], end), (all, answer(6, 3))], &files, n_connections);
        }
    }
}

#[test]
fn a_limit_counts_what_was_handed_over_before() {
    // A limit of 4: the daemon cuts the third file to one match, in each attempt.
    let cut: Sent = ("c.rs", "c3", 1);
    let whole = End::Answer { matches: 4, files: 3, limit_reached: true };
    for n_before in 0..=3 {
        let all: &[Sent] = &[A, B, cut];
        let got = read(&[(&all[..n_before], End::Restarting), (all, whole)]);
        let n_matches: usize = got.items.iter().map(|(_, n)| n).sum();
        assert_eq!((got.items.len(), n_matches), (3, 4));
        let summary = got.answer.unwrap();
        assert_eq!((summary.matches, summary.files_matched, summary.limit_reached), (4, 3, true));
    }
}

#[test]
fn a_file_that_was_named_twice_is_handed_over_twice() {
    check(
        &[(&[A, A], End::Restarting), (&[A, A, B, B], answer(6, 4))],
        &[("a.rs", 1), ("a.rs", 1), ("b.rs", 2), ("b.rs", 2)],
        1,
    );
    check(&[(&[A], End::Restarting), (&[A, A], answer(2, 2))], &[("a.rs", 1), ("a.rs", 1)], 1);
}

#[test]
fn what_changed_behind_the_part_that_was_handed_over_is_seen() {
    let changed: Sent = ("b.rs", "c9", 7);
    check(
        &[(&[A], End::Restarting), (&[A, changed], answer(8, 2))],
        &[("a.rs", 1), ("b.rs", 7)],
        1,
    );
}

#[test]
fn files_up_to_the_last_one_are_passed_over_however_they_have_changed() {
    // As they do where the caller rewrites each file that it is handed.
    let lost: (&[Sent], End) = (&[A, B], End::Restarting);
    let handed = [("a.rs", 1), ("b.rs", 2), ("c.rs", 3)];
    let repeats: [&[Sent]; 5] = [
        &[C],
        &[("a.rs", "c9", 7), B, C],
        &[("a", "c8", 1), A, ("b.rs", "c9", 5), C],
        &[B, C],
        &[A, C],
    ];
    for repeat in repeats {
        // The daemon counts all that it sends, and that is not what was handed over.
        check(&[lost, (repeat, answer(99, 99))], &handed, 1);
    }
    check(&[lost, (&[], answer(0, 0))], &[("a.rs", 1), ("b.rs", 2)], 1);
    check(&[lost, (&[A], answer(1, 1))], &[("a.rs", 1), ("b.rs", 2)], 1);
}

#[test]
fn no_more_than_the_limit_is_handed_over_where_files_have_changed() {
    let delivery = Delivery { limit: Some(4), ..Delivery::default() };
    let params = RunParams { delivery, ..RunParams::default() };
    // What was handed over is gone from the tree, so that all four matches are of others.
    for (before, repeat, expected) in [
        (&[A][..], &[("b.rs", "c2", 2), ("c.rs", "c3", 2)][..], vec![1, 2, 1]),
        (&[A, B], &[("c.rs", "c3", 4)], vec![1, 2, 1]),
        (&[A, C], &[("d.rs", "c4", 4)], vec![1, 3]),
        (&[A, B], &[("c.rs", "c3", 1), ("d.rs", "c4", 3)], vec![1, 2, 1]),
    ] {
        let got = read_of(&params, &[(before, End::Restarting), (repeat, answer(4, 9))]);
        let counts: Vec<_> = got.items.iter().map(|(_, n)| *n).collect();
        assert_eq!(counts, expected);
        let summary = got.answer.unwrap();
        assert_eq!((summary.matches, summary.files_matched), (4, expected.len() as u64));
        assert!(summary.limit_reached, "{before:?}");
    }
}

#[test]
fn file_names_alone_count_one_match_each() {
    let names: [Sent; 3] = [("a.rs", "c1", 0), ("b.rs", "c2", 0), ("c.rs", "c3", 0)];
    let delivery = Delivery { files_only: true, limit: Some(2), ..Delivery::default() };
    let params = RunParams { delivery, ..RunParams::default() };
    let got = read_of(&params, &[(&names[..1], End::Restarting), (&names[1..], answer(2, 2))]);
    let files: Vec<_> = got.items.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["a.rs", "b.rs"]);
    let summary = got.answer.unwrap();
    assert_eq!((summary.matches, summary.files_matched, summary.limit_reached), (2, 2, true));
}

/// An item of a scan whose matches have these severities.
fn findings(daemon: &mut Daemon, id: u64, file: &str, severities: &[&str]) {
    let mut item = item(id, file);
    for severity in severities {
        let trap = serde_json::json!({ "severity": "error" });
        let record = serde_json::json!({ "severity": severity, "metadata": trap });
        item.matches.push(&record).unwrap();
    }
    daemon.send(|out| crate::frame::encode_item(out, item));
}

#[test]
fn the_errors_of_a_scan_are_those_that_were_handed_over() {
    for (files_only, expected) in [(false, (4, 2)), (true, (9, 8))] {
        let script: Script<'_> = Box::new(|mut daemon| {
            let first = daemon.request(method::SCAN);
            findings(&mut daemon, first.id, "a.rs", &["error", "warning"]);
            daemon.fail(first.id, ErrorCode::Restarting, "it ended");
            let second = daemon.request(method::SCAN);
            findings(&mut daemon, second.id, "a.rs", &["error", "error", "error"]);
            findings(&mut daemon, second.id, "b.rs", &["hint", "error"]);
            let summary = Summary { matches: 9, error_matches: 8, ..Summary::default() };
            daemon.answer(second.id, &summary);
        });
        with_daemons(vec![script], |socket| {
            let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
            let delivery = Delivery { files_only, ..Delivery::default() };
            let params = ScanParams { delivery, ..ScanParams::default() };
            let summary = client.scan(&params, |_| ControlFlow::Continue(())).unwrap();
            assert_eq!((summary.matches, summary.error_matches), expected);
            assert_eq!(summary.files_matched, 2);
        });
    }
}

#[test]
fn a_summary_of_the_first_attempt_is_left_alone() {
    let got = read(&[(&[A], answer(7, 8))]);
    let summary = got.answer.unwrap();
    assert_eq!((summary.matches, summary.files_matched), (7, 8));
}

#[test]
fn a_read_is_made_twice_and_no_more() {
    check_lost(&[(&[A], End::Restarting), (&[A, B], End::Restarting)], &["a.rs", "b.rs"]);
    let got = read(&[(&[], End::Closed), (&[], End::Closed)]);
    assert!(matches!(got.answer, Err(CallError::Disconnected)), "{got:?}");
    assert_eq!(got.n_connections, 2);
}

#[test]
fn a_connection_that_is_lost_between_two_reads_costs_the_next_one_no_attempt() {
    let (close, closed) = std::sync::mpsc::sync_channel(1);
    let scripts: Vec<Script<'_>> = vec![
        Box::new(move |mut daemon| {
            assert!(attempt(&mut daemon, &[A], answer(1, 1)));
            drop(daemon);
            close.send(()).unwrap();
        }),
        Box::new(|mut daemon| assert!(!attempt(&mut daemon, &[A], End::Closed))),
        Box::new(|mut daemon| assert!(attempt(&mut daemon, &[A], answer(1, 1)))),
    ];
    with_daemons(scripts, |socket| {
        let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
        let params = RunParams::default();
        let mut read = || client.run(&params, |_| ControlFlow::Continue(()));
        assert_eq!(read().unwrap().matches, 1);
        closed.recv().unwrap();
        assert_eq!(read().unwrap().matches, 1);
    });
}

#[test]
fn a_part_that_ends_and_takes_the_connection_along_is_one_loss() {
    let attempts: &[(&[Sent], End)] =
        &[(&[A], End::Restarting), (&[], End::Closed), (&[A, B], answer(3, 2))];
    check(attempts, &[("a.rs", 1), ("b.rs", 2)], 2);
    // On a connection of its own it is another one.
    let got = read(&[(&[], End::Restarting), (&[], End::Closed), (&[], End::Closed)]);
    assert!(matches!(got.answer, Err(CallError::Disconnected)), "{got:?}");
    assert_eq!(got.n_connections, 2);
}

#[test]
fn an_answer_is_not_asked_for_again() {
    let got = read(&[(&[A], End::Overloaded)]);
    assert_eq!(got.answer.unwrap_err().code(), Some(ErrorCode::Overloaded));
}

#[test]
fn a_client_goes_on_after_a_read_that_failed() {
    let script: Script<'_> = Box::new(|mut daemon| {
        for end in [End::Restarting, End::Restarting, answer(1, 1)] {
            assert!(attempt(&mut daemon, &[A], end));
        }
    });
    with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
        let params = RunParams::default();
        let error = client.run(&params, |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Restarting));
        assert_eq!(client.run(&params, |_| ControlFlow::Continue(())).unwrap().matches, 1);
    });
}

/// A limit of so many milliseconds.
fn within(deadline_ms: u64) -> Delivery {
    Delivery { deadline_ms: Some(deadline_ms), ..Delivery::default() }
}

#[test]
fn a_second_attempt_has_what_is_left_of_the_deadline() {
    let sent = |request: &Request| -> RunParams { request.params().unwrap() };
    let script: Script<'_> = Box::new(move |mut daemon| {
        let first = daemon.request(method::RUN);
        assert_eq!(sent(&first).delivery.deadline_ms, Some(60_000));
        daemon.fail(first.id, ErrorCode::Restarting, "it ended");
        let second = daemon.request(method::RUN);
        assert!((1..60_000).contains(&sent(&second).delivery.deadline_ms.unwrap()));
        assert_eq!(sent(&second).matcher.pattern.as_deref(), Some("f($A)"));
        daemon.answer(second.id, &Summary::default());
    });
    with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|attempt| {
            assert_eq!(attempt, Attempt::First);
            Ok::<_, CallError>(connect(socket))
        });
        let matcher = MatcherSpec { pattern: Some("f($A)".to_owned()), ..MatcherSpec::default() };
        let params = RunParams { matcher, delivery: within(60_000), ..RunParams::default() };
        client.run(&params, |_| ControlFlow::Continue(())).unwrap();
    });
}

#[test]
fn a_deadline_that_has_passed_leaves_no_second_attempt() {
    // Of a millisecond, less than a millisecond is left when the first answer is there.
    let script: Script<'_> = Box::new(|mut daemon| {
        let scan = daemon.request(method::SCAN);
        daemon.fail(scan.id, ErrorCode::Restarting, "it ended");
        assert!(daemon.receive().is_none());
    });
    with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
        let params = ScanParams { delivery: within(1), ..ScanParams::default() };
        let error = client.scan(&params, |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::DeadlineExceeded));
    });
}

#[test]
fn a_connection_is_waited_for_until_the_deadline_and_no_longer() {
    let mut attempts = Vec::new();
    let script: Script<'_> = Box::new(|mut daemon| drop(daemon.request(method::EXPLAIN)));
    let error = with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|attempt| {
            attempts.push(attempt);
            if attempt == Attempt::First {
                Ok(connect(socket))
            } else {
                Err(CallError::Disconnected)
            }
        });
        let params = RunParams { delivery: within(60_000), ..RunParams::default() };
        let before = Instant::now();
        let error = client.call::<Summary>(ReadRequest::Explain(&params)).unwrap_err();
        drop(client);
        let [Attempt::First, Attempt::Second { until: Some(until) }] = attempts[..] else {
            panic!("{attempts:?}")
        };
        assert!(until >= before + Duration::from_mins(1) && until < Instant::now() + TIMEOUT * 4);
        error
    });
    assert!(matches!(error, CallError::Disconnected), "{error}");
}

#[test]
fn a_read_that_was_broken_off_is_not_made_again() {
    let script: Script<'_> = Box::new(|mut daemon| {
        let run = daemon.request(method::RUN);
        send(&mut daemon, run.id, A);
        assert_eq!(daemon.cancelled_id(), run.id);
        daemon.fail(run.id, ErrorCode::Restarting, "it ended");
        assert!(daemon.receive().is_none());
    });
    with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
        let params = RunParams::default();
        let answer = client.run(&params, |_| ControlFlow::Break(()));
        assert_eq!(answer.unwrap_err().code(), Some(ErrorCode::Restarting));
    });
}

#[test]
fn a_read_that_is_given_up_between_its_attempts_is_not_made_again() {
    let scripts: Vec<Script<'_>> = vec![
        Box::new(|mut daemon| drop(daemon.request(method::RUN))),
        Box::new(|mut daemon| assert!(daemon.receive().is_none())),
    ];
    with_daemons(scripts, |socket| {
        let canceller: Mutex<Option<ReadCanceller>> = Mutex::default();
        let mut n_connections = 0;
        let mut client = RetryingClient::new(|_| {
            n_connections += 1;
            if n_connections == 2 {
                let cancelled = canceller.lock().unwrap().as_ref().unwrap().cancel();
                assert_eq!(cancelled.unwrap_err().kind(), io::ErrorKind::NotConnected);
            }
            Ok::<_, CallError>(connect(socket))
        });
        *canceller.lock().unwrap() = Some(client.canceller());
        let params = RunParams::default();
        let error = client.run(&params, |_| ControlFlow::Continue(())).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Cancelled), "{error}");
    });
}

#[test]
fn a_read_is_given_up_on_whichever_connection_it_is() {
    let scripts: Vec<Script<'_>> = vec![
        Box::new(|mut daemon| drop(daemon.request(method::RUN))),
        Box::new(|mut daemon| {
            let run = daemon.request(method::RUN);
            send(&mut daemon, run.id, A);
            assert_eq!(daemon.cancelled_id(), run.id);
            daemon.fail(run.id, ErrorCode::Cancelled, "given up");
        }),
    ];
    with_daemons(scripts, |socket| {
        let mut client = RetryingClient::new(|_| Ok::<_, CallError>(connect(socket)));
        let canceller = client.canceller();
        let params = RunParams::default();
        let answer = client.run(&params, |_| {
            canceller.cancel().unwrap();
            ControlFlow::Continue(())
        });
        assert_eq!(answer.unwrap_err().code(), Some(ErrorCode::Cancelled));
    });
}
