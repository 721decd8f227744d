//! Lines that are no requests: each costs only itself.

use crate::support::{Daemon, Lines, code, peer, status};
use astscope_protocol::messages::{ErrorCode, PROTOCOL, method};
use astscope_protocol::{LINE_BYTES_MAX, RpcError};
use serde_json::{Value, json};
use std::net::Shutdown;

/// That a good request on the same connection is answered.
#[track_caller]
fn expect_alive(connection: &mut Lines) {
    connection.ask(77, method::STATUS, &json!({}));
    assert_eq!(connection.answer(77).unwrap()["server"]["name"], "astscope");
}

#[track_caller]
fn refusal(connection: &mut Lines) -> (Option<u64>, i32, RpcError) {
    let (id, outcome) = connection.response();
    let error = outcome.expect_err("a refusal");
    (id, error.code, error)
}

#[test]
fn a_line_that_is_not_json_is_refused_and_the_connection_goes_on() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    for line in ["hello?\n", "{\"jsonrpc\":\n", "\u{0}\n", "{\"jsonrpc\":\"2.0\",\"id\":1}}\n"] {
        connection.send(line);
        let (id, number, error) = refusal(&mut connection);
        assert_eq!((id, number), (None, -32700), "{line:?}: {error:?}");
        assert_eq!(error.error_code(), Some(ErrorCode::MalformedRequest));
        expect_alive(&mut connection);
    }
    connection.send(b"\"\xff\xfe\"\n");
    assert_eq!(refusal(&mut connection).1, -32700);
    connection.send("\n\n\n");
    expect_alive(&mut connection);
}

#[test]
fn json_that_is_no_request_is_refused_under_its_id() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    for (line, expected) in [
        (r#"{"jsonrpc":"2.0","id":4}"#, (Some(4), -32600)),
        (r#"{"jsonrpc":"1.0","id":4,"method":"status"}"#, (Some(4), -32600)),
        (r#"{"jsonrpc":"2.0","id":-1,"method":"status"}"#, (None, -32600)),
        (r#"{"jsonrpc":"2.0","id":"a","method":"status"}"#, (None, -32600)),
        (r#"[{"jsonrpc":"2.0","id":4,"method":"status"}]"#, (None, -32600)),
        (r#"{"jsonrpc":"2.0","id":4,"method":"status","params":[]}"#, (Some(4), -32602)),
        (r#"{"jsonrpc":"2.0","id":4,"method":"run","params":{"matcher":7}}"#, (Some(4), -32602)),
        (r#"{"jsonrpc":"2.0","id":4,"method":"Run"}"#, (Some(4), -32601)),
        (r#"{"jsonrpc":"2.0","id":4,"method":"$/item"}"#, (Some(4), -32601)),
    ] {
        connection.send(format!("{line}\n"));
        let (id, number, error) = refusal(&mut connection);
        assert_eq!((id, number), expected, "{line}: {error:?}");
    }
    for id in [0, u64::MAX] {
        connection.ask(id, method::STATUS, &json!({}));
        assert!(connection.answer(id).is_ok(), "{id} is an id like any other");
    }
    // Answers and unknown notifications want no answer.
    connection.send("{\"jsonrpc\":\"2.0\",\"id\":5,\"result\":{}}\n");
    connection.send("{\"jsonrpc\":\"2.0\",\"method\":\"$/later\",\"params\":{}}\n");
    connection.send("{\"jsonrpc\":\"2.0\",\"method\":\"$/cancel\",\"params\":{\"id\":\"x\"}}\n");
    expect_alive(&mut connection);
}

#[test]
fn deeply_nested_parameters_are_refused() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    let depth = 100_000;
    let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let line = format!(r#"{{"jsonrpc":"2.0","id":4,"method":"run","params":{{"x":{nested}}}}}"#);
    connection.send(line + "\n");
    let (id, outcome) = connection.response();
    assert_eq!(id, Some(4));
    assert_eq!(code(outcome), Some(ErrorCode::InvalidParams));
    expect_alive(&mut connection);
}

#[test]
fn an_oversized_line_is_refused_once_and_the_next_is_answered() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    let text = "x".repeat(LINE_BYTES_MAX);
    let params = json!({"text": text, "language": "json"});
    connection.ask(4, method::PARSE, &params);
    let (id, number, error) = refusal(&mut connection);
    assert_eq!((id, number), (None, -32600), "{error:?}");
    assert!(error.message.contains("16777216"), "{error:?}");
    expect_alive(&mut connection);
    // The longest line that there may be.
    let mut line = r#"{"jsonrpc":"2.0","id":5,"method":"status","params":{"x":""#.to_owned();
    line.push_str(&text[..LINE_BYTES_MAX - line.len() - 3]);
    line.push_str("\"}}");
    assert_eq!(line.len(), LINE_BYTES_MAX);
    connection.send(line + "\n");
    assert!(connection.answer(5).is_ok());
}

#[test]
fn a_half_sent_line_is_dropped_with_its_connection() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    connection.send(r#"{"jsonrpc":"2.0","id":4,"method":"stop"#);
    connection.stream().shutdown(Shutdown::Write).unwrap();
    connection.expect_end();
    let mut connection = daemon.silent();
    connection.send("{");
    drop(connection);
    assert!(status(&mut daemon.client()).clients >= 1, "others are served");
}

#[test]
fn a_line_may_come_in_many_pieces_and_many_lines_in_one() {
    let daemon = Daemon::start();
    let mut connection = daemon.lines();
    for byte in b"{\"jsonrpc\":\"2.0\",\"id\":4,\"method\":\"status\"}\n" {
        connection.send([*byte]);
    }
    assert!(connection.answer(4).is_ok());
    connection.send("nonsense\n{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"status\"}\n\n{}\n");
    let mut answered: Vec<_> = (0..3).map(|_| connection.response().0).collect();
    answered.sort_unstable();
    assert_eq!(answered, [None, None, Some(5)]);
}

#[test]
fn hello_comes_first_and_only_stop_does_without() {
    let mut daemon = Daemon::start();
    let mut connection = daemon.silent();
    for method in [method::STATUS, method::RUN, method::OPEN, "nonsense"] {
        connection.ask(1, method, &json!({}));
        assert_eq!(code(connection.answer(1)), Some(ErrorCode::IncompatibleProtocol));
    }
    connection.ask(2, method::STOP, &json!({"drain": true}));
    assert_eq!(connection.answer(2).unwrap(), json!({}));
    connection.expect_end();
    assert!(daemon.join().is_ok());
}

#[test]
fn an_incompatible_hello_may_be_followed_by_a_better_one() {
    let daemon = Daemon::start();
    let mut connection = daemon.silent();
    let hello =
        |min: u32, max: u32| json!({"protocol": {"min": min, "max": max}, "client": peer()});
    for (min, max) in [(0, 0), (PROTOCOL.max + 1, PROTOCOL.max + 2), (3, 1)] {
        connection.ask(1, method::HELLO, &hello(min, max));
        let error = connection.answer(1).expect_err("no common version");
        assert_eq!(error.error_code(), Some(ErrorCode::IncompatibleProtocol));
        assert!(error.message.contains("1 to 1"), "{error}");
        connection.ask(2, method::STATUS, &json!({}));
        assert_eq!(code(connection.answer(2)), Some(ErrorCode::IncompatibleProtocol));
    }
    connection.ask(3, method::HELLO, &json!({"protocol": 1}));
    assert_eq!(code(connection.answer(3)), Some(ErrorCode::InvalidParams));
    connection.ask(4, method::HELLO, &hello(0, 9));
    assert_eq!(connection.answer(4).unwrap()["protocol"], Value::from(1));
    expect_alive(&mut connection);
}
