//! The client against a scripted daemon on a real socket.

mod retry;

use super::*;
use crate::frame::{Incoming, Request, encode_error, encode_response, parse, split_line};
use crate::limits::LINE_BYTES_MAX;
use crate::messages::{
    HelloResult, Item, Matches, Peer, RunParams, StatusParams, StopParams, Summary, VersionRange,
};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Generous: it only ends a test that hangs.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The daemon's end of a connection.
struct Daemon {
    lines: BufReader<UnixStream>,
}

impl Daemon {
    fn receive(&mut self) -> Option<Incoming> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line).unwrap();
        let line = line.strip_suffix(b"\n")?;
        Some(parse(line).unwrap())
    }

    fn request(&mut self, method: &str) -> Request {
        match self.receive() {
            Some(Incoming::Request(request)) if request.method == method => request,
            other => panic!("expected `{method}`, got {other:?}"),
        }
    }

    fn cancelled_id(&mut self) -> u64 {
        match self.receive() {
            Some(Incoming::Notification(it)) if it.method == method::CANCEL => {
                serde_json::from_str::<Cancel>(it.params.get()).unwrap().id
            }
            other => panic!("expected a cancellation, got {other:?}"),
        }
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) {
        let mut line = Vec::new();
        encode(&mut line).unwrap();
        for piece in split_line(&line, 1) {
            self.lines.get_mut().write_all(&piece.unwrap()).unwrap();
        }
    }

    fn answer(&mut self, id: u64, result: &impl Serialize) {
        self.send(|out| encode_response(out, id, result));
    }

    fn fail(&mut self, id: u64, code: ErrorCode, message: &str) {
        self.send(|out| encode_error(out, Some(id), &RpcError::new(code, message)));
    }

    fn item(&mut self, id: u64, file: &str) {
        self.send(|out| encode_notification(out, method::ITEM, &item(id, file)));
    }

    fn greet(&mut self) {
        let hello = self.request(method::HELLO);
        self.answer(hello.id, &hello_result(1));
    }
}

fn peer(name: &str) -> Peer {
    Peer { name: name.to_owned(), version: "1.2.3".to_owned() }
}

fn hello_result(protocol: u32) -> HelloResult {
    HelloResult {
        protocol,
        server: peer("server"),
        pid: 7,
        line_bytes_max: 1000,
        requests_in_flight_max: 32,
    }
}

fn item(id: u64, file: &str) -> Item {
    let (content_id, matches) = ("c0".to_owned(), Matches::default());
    Item { id, file: file.to_owned(), content_id, matches, source: None }
}

/// Runs both sides; the daemon's end is closed when its script is done.
fn with_daemon<T>(script: impl FnOnce(Daemon) + Send, test: impl FnOnce(&Path) -> T) -> T {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            script(Daemon { lines: BufReader::new(stream) });
        });
        test(&socket)
    })
}

fn connect(socket: &Path) -> Client {
    Client::connect(socket, peer("client"), TIMEOUT).unwrap().0
}

fn connect_error(script: impl FnOnce(Daemon) + Send, timeout: Duration) -> ConnectError {
    with_daemon(script, |socket| Client::connect(socket, peer("client"), timeout).unwrap_err())
}

/// Calls `run` and returns the files that were streamed.
fn run(client: &mut Client) -> (Result<Summary, CallError>, Vec<String>) {
    let mut files = Vec::new();
    let result = client.call_streaming(method::RUN, &RunParams::default(), |event| {
        if let Event::Item(item) = event {
            files.push(item.file);
        }
        ControlFlow::Continue(())
    });
    (result, files)
}

#[test]
fn the_greeting_says_who_speaks_which_version() {
    let script = |mut daemon: Daemon| {
        let hello = daemon.request(method::HELLO);
        let params: crate::messages::HelloParams = hello.params().unwrap();
        assert_eq!(params.protocol, VersionRange { min: 1, max: 1 });
        assert_eq!(params.client, peer("client"));
        daemon.answer(hello.id, &hello_result(1));
    };
    let hello =
        with_daemon(script, |socket| Client::connect(socket, peer("client"), TIMEOUT).unwrap().1);
    assert_eq!((hello.protocol, hello.server, hello.pid), (1, peer("server"), 7));
}

#[test]
fn a_socket_that_is_missing_or_stale_means_not_running() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let error = Client::connect(&socket, peer("client"), TIMEOUT).unwrap_err();
    assert!(matches!(error, ConnectError::NotRunning { .. }), "{error}");

    drop(UnixListener::bind(&socket).unwrap());
    let error = Client::connect(&socket, peer("client"), TIMEOUT).unwrap_err();
    assert!(matches!(error, ConnectError::NotRunning { .. }), "{error}");
}

#[test]
fn versions_that_do_not_meet_are_incompatible() {
    let refuse = |mut daemon: Daemon| {
        let hello = daemon.request(method::HELLO);
        daemon.fail(hello.id, ErrorCode::IncompatibleProtocol, "it speaks 2 to 3");
    };
    let ConnectError::Incompatible { server: None, reason, .. } = connect_error(refuse, TIMEOUT)
    else {
        panic!("wrong error");
    };
    assert_eq!(reason, "it speaks 2 to 3");

    let choose_nine = |mut daemon: Daemon| {
        let hello = daemon.request(method::HELLO);
        daemon.answer(hello.id, &hello_result(9));
    };
    let error = connect_error(choose_nine, TIMEOUT);
    assert!(
        matches!(&error, ConnectError::Incompatible { server: Some(it), .. } if *it == peer("server")),
        "{error}"
    );
}

#[test]
fn a_daemon_that_refuses_or_leaves_is_told_apart() {
    let refuse = |mut daemon: Daemon| {
        let hello = daemon.request(method::HELLO);
        daemon.fail(hello.id, ErrorCode::ShuttingDown, "the daemon is leaving");
    };
    let error = connect_error(refuse, TIMEOUT);
    assert!(
        matches!(&error, ConnectError::Refused { error, .. } if error.error_code() == Some(ErrorCode::ShuttingDown)),
        "{error}"
    );
    let error = connect_error(|mut daemon| drop(daemon.request(method::HELLO)), TIMEOUT);
    assert!(matches!(error, ConnectError::Closed { .. }), "{error}");

    let babble = |mut daemon: Daemon| {
        daemon.request(method::HELLO);
        daemon.lines.get_mut().write_all(b"220 mail.example.org ESMTP\n").unwrap();
    };
    let error = connect_error(babble, TIMEOUT);
    assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
}

#[test]
fn a_daemon_that_does_not_answer_times_out() {
    // The script ends when the client gives up and closes the connection.
    let wait = |mut daemon: Daemon| {
        daemon.request(method::HELLO);
        assert!(daemon.receive().is_none());
    };
    let error = connect_error(wait, Duration::from_millis(20));
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
}

#[test]
fn a_listener_that_never_accepts_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let error = Client::connect(&socket, peer("client"), Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_listener_whose_queue_is_full_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("daemon.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&socket).unwrap();
    let error = Client::connect(&socket, peer("client"), Duration::from_millis(20)).unwrap_err();
    assert!(matches!(error, ConnectError::TimedOut { .. }), "{error}");
}

#[test]
fn a_daemon_of_any_version_can_be_retired() {
    let script = |mut daemon: Daemon| {
        let stop = daemon.request(method::STOP);
        assert!(stop.params::<StopParams>().unwrap().drain);
        daemon.answer(stop.id, &serde_json::json!({}));
    };
    with_daemon(script, |socket| {
        Client::retire(socket, &StopParams { drain: true }, TIMEOUT).unwrap();
    });
}

#[test]
fn items_stream_before_the_result() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let run = daemon.request(method::RUN);
        daemon.item(run.id, "a.rs");
        daemon.item(run.id, "b.rs");
        daemon.answer(run.id, &Summary { matches: 2, ..Summary::default() });
    };
    with_daemon(script, |socket| {
        let (result, files) = run(&mut connect(socket));
        assert_eq!(result.unwrap().matches, 2);
        assert_eq!(files, ["a.rs", "b.rs"]);
    });
}

#[test]
fn an_item_over_the_line_limit_arrives_whole() {
    let long = "é".repeat(LINE_BYTES_MAX / 2);
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let run = daemon.request(method::RUN);
        daemon.item(run.id, &long);
        daemon.answer(run.id, &Summary::default());
    };
    with_daemon(script, |socket| {
        let (result, files) = run(&mut connect(socket));
        result.unwrap();
        assert!(files == [long.as_str()], "the item changed on its way");
    });
}

#[test]
fn an_error_of_the_daemon_leaves_the_connection_usable() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let run = daemon.request(method::RUN);
        daemon.fail(run.id, ErrorCode::InvalidPattern, "no pattern");
        let run = daemon.request(method::RUN);
        daemon.answer(run.id, &7);
        let run = daemon.request(method::RUN);
        daemon.answer(run.id, &Summary::default());
    };
    with_daemon(script, |socket| {
        let mut client = connect(socket);
        let error = run(&mut client).0.unwrap_err();
        assert_eq!((error.code(), error.is_fatal()), (Some(ErrorCode::InvalidPattern), false));
        let error = run(&mut client).0.unwrap_err();
        assert!(matches!(error, CallError::UnexpectedResult(_)), "{error}");
        run(&mut client).0.unwrap();
    });
}

#[test]
fn breaking_off_cancels_and_waits_for_the_answer() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let run = daemon.request(method::RUN);
        daemon.item(run.id, "a.rs");
        daemon.item(run.id, "b.rs");
        assert_eq!(daemon.cancelled_id(), run.id);
        daemon.item(run.id, "c.rs");
        daemon.fail(run.id, ErrorCode::Cancelled, "the client gave the request up");
        let run = daemon.request(method::RUN);
        daemon.answer(run.id, &Summary::default());
    };
    with_daemon(script, |socket| {
        let mut client = connect(socket);
        let mut n_events = 0;
        let result: Result<Summary, _> =
            client.call_streaming(method::RUN, &RunParams::default(), |_| {
                n_events += 1;
                ControlFlow::Break(())
            });
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::Cancelled));
        assert_eq!(n_events, 1);
        run(&mut client).0.unwrap();
    });
}

#[test]
fn another_thread_can_cancel() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let run = daemon.request(method::RUN);
        daemon.item(run.id, "a.rs");
        assert_eq!(daemon.cancelled_id(), run.id);
        daemon.fail(run.id, ErrorCode::Cancelled, "the client gave the request up");
    };
    with_daemon(script, |socket| {
        let mut client = connect(socket);
        let canceller = client.canceller();
        assert!(!canceller.cancel().unwrap(), "nothing is in flight yet");
        let result: Result<Summary, _> =
            client.call_streaming(method::RUN, &RunParams::default(), |_| {
                thread::scope(|scope| {
                    assert!(scope.spawn(|| canceller.cancel().unwrap()).join().unwrap());
                });
                ControlFlow::Continue(())
            });
        assert_eq!(result.unwrap_err().code(), Some(ErrorCode::Cancelled));
        assert!(!canceller.cancel().unwrap(), "the request was answered");
    });
}

#[test]
fn answers_may_come_in_another_order() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        let first = daemon.request(method::STATUS);
        let second = daemon.request(method::STATUS);
        daemon.answer(second.id, &"second");
        daemon.answer(first.id, &"first");
    };
    with_daemon(script, |socket| {
        let mut client = connect(socket);
        let first = client.request(method::STATUS, &StatusParams::default()).unwrap();
        let second = client.request(method::STATUS, &StatusParams::default()).unwrap();
        let go_on = |_| ControlFlow::Continue(());
        assert_eq!(client.wait::<String>(first, go_on).unwrap(), "first");
        assert_eq!(client.wait::<String>(second, go_on).unwrap(), "second");
    });
}

#[test]
fn a_request_over_the_daemons_limit_is_not_sent() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        assert!(daemon.receive().is_none());
    };
    with_daemon(script, |socket| {
        let params = serde_json::json!({ "text": "x".repeat(1000) });
        let error = connect(socket).call::<_, Summary>(method::PARSE, &params).unwrap_err();
        assert!(matches!(error, CallError::RequestTooLong { max: 1000, .. }), "{error}");
    });
}

#[test]
fn a_daemon_that_dies_is_noticed() {
    let die = |half: &'static [u8]| {
        move |mut daemon: Daemon| {
            daemon.greet();
            daemon.request(method::RUN);
            daemon.lines.get_mut().write_all(half).unwrap();
        }
    };
    with_daemon(die(b""), |socket| {
        let error = run(&mut connect(socket)).0.unwrap_err();
        assert!(matches!(error, CallError::Disconnected) && error.is_fatal(), "{error}");
    });
    with_daemon(die(b"{\"jsonrpc\""), |socket| {
        let error = run(&mut connect(socket)).0.unwrap_err();
        assert!(matches!(error, CallError::HalfLine(HalfLine { bytes: 10 })), "{error}");
    });
}

#[test]
fn the_answer_to_an_unreadable_request_ends_the_call() {
    let script = |mut daemon: Daemon| {
        daemon.greet();
        daemon.request(method::RUN);
        let error = RpcError::new(ErrorCode::MalformedRequest, "not JSON");
        daemon.send(|out| encode_error(out, None, &error));
        // Kept open: the client must not need the end of the stream.
        assert!(daemon.receive().is_none());
    };
    with_daemon(script, |socket| {
        let error = run(&mut connect(socket)).0.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::MalformedRequest));
    });
}
