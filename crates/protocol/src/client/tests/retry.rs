//! Reads that a daemon loses: what is asked again, what is handed over, and what isn't.

use super::*;
use crate::client::{ReadCanceller, ReadRequest, RetryingClient};
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
        let params = RunParams::default();
        let answer = client.call_streaming(ReadRequest::Run(&params), |event| {
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
fn an_answer_that_begins_otherwise_is_not_put_behind_the_first_one() {
    let other_content: Sent = ("a.rs", "c9", 1);
    let other_count: Sent = ("a.rs", "c1", 2);
    let new_before: Sent = ("a", "c9", 1);
    let lost: (&[Sent], End) = (&[A, B], End::Restarting);
    let repeats: [&[Sent]; 6] = [
        &[other_content, B, C],
        &[other_count, B, C],
        &[new_before, A, B, C],
        &[B, A, C],
        &[A],
        &[],
    ];
    for repeat in repeats {
        check_lost(&[lost, (repeat, answer(9, 9))], &["a.rs", "b.rs"]);
    }
}

#[test]
fn a_read_is_made_twice_and_no_more() {
    check_lost(&[(&[A], End::Restarting), (&[A, B], End::Restarting)], &["a.rs", "b.rs"]);
    let got = read(&[(&[], End::Closed), (&[], End::Closed)]);
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
        let error = client.call::<Summary>(ReadRequest::Run(&params)).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Restarting));
        assert_eq!(client.call::<Summary>(ReadRequest::Run(&params)).unwrap().matches, 1);
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
        let mut client = RetryingClient::new(|until: Option<Instant>| {
            assert_eq!(until, None, "the first connection has as long as it takes");
            Ok::<_, CallError>(connect(socket))
        });
        let matcher = MatcherSpec { pattern: Some("f($A)".to_owned()), ..MatcherSpec::default() };
        let params = RunParams { matcher, delivery: within(60_000), ..RunParams::default() };
        client.call::<Summary>(ReadRequest::Run(&params)).unwrap();
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
        let error = client.call::<Summary>(ReadRequest::Scan(&params)).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::DeadlineExceeded));
    });
}

#[test]
fn a_connection_is_waited_for_until_the_deadline_and_no_longer() {
    let mut waited_until = Vec::new();
    let script: Script<'_> = Box::new(|mut daemon| drop(daemon.request(method::EXPLAIN)));
    let error = with_daemons(vec![script], |socket| {
        let mut client = RetryingClient::new(|until| {
            waited_until.push(until);
            if until.is_none() { Ok(connect(socket)) } else { Err(CallError::Disconnected) }
        });
        let params = RunParams { delivery: within(60_000), ..RunParams::default() };
        let before = Instant::now();
        let error = client.call::<Summary>(ReadRequest::Explain(&params)).unwrap_err();
        drop(client);
        let [None, Some(until)] = waited_until[..] else { panic!("{waited_until:?}") };
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
        let answer =
            client.call_streaming::<Summary>(ReadRequest::Run(&params), |_| ControlFlow::Break(()));
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
        let error = client.call::<Summary>(ReadRequest::Run(&params)).unwrap_err();
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
        let answer = client.call_streaming::<Summary>(ReadRequest::Run(&params), |_| {
            canceller.cancel().unwrap();
            ControlFlow::Continue(())
        });
        assert_eq!(answer.unwrap_err().code(), Some(ErrorCode::Cancelled));
    });
}
