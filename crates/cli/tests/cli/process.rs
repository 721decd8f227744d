//! The real program: its socket, its streams, and how it ends without a daemon.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

pub(crate) fn runtime_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    dir
}

pub(crate) fn program(runtime_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_astscope"));
    command
        .env("ASTSCOPE_RUNTIME_DIR", runtime_dir)
        .env("ASTSCOPE_STATE_DIR", runtime_dir.join("state"))
        .env("XDG_CONFIG_HOME", runtime_dir.join("config"))
        .env_remove("ASTSCOPE_LOG")
        .env_remove("NOTIFY_SOCKET")
        .env("ASTSCOPE_NO_SPAWN", "1")
        .current_dir(runtime_dir)
        .stdin(Stdio::null());
    command
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Answers one client: `hello` with a version, and everything else with lines and then a result.
fn serve_one(listener: &UnixListener, version: &str, notifications: &[String], result: &str) {
    let (stream, _) = listener.accept().unwrap();
    let mut answers = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let request: serde_json::Value = serde_json::from_str(&line).unwrap();
        if request["method"] == "$/cancel" {
            continue;
        }
        let id = &request["id"];
        if request["method"] == "hello" {
            answer(
                &mut answers,
                id,
                &format!(
                    r#"{{"protocol":1,"server":{{"name":"astscope","version":"{version}"}},"pid":1,"lineBytesMax":16777216,"requestsInFlightMax":32}}"#
                ),
            );
            continue;
        }
        for notification in notifications {
            // The client may have seen enough, and be gone.
            if writeln!(answers, "{notification}").is_err() {
                return;
            }
        }
        answer(&mut answers, id, result);
    }
}

fn answer(stream: &mut UnixStream, id: &serde_json::Value, result: &str) {
    let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    // A client that is gone needs no answer.
    let _unheard = writeln!(stream, "{line}");
}

fn item(n: usize) -> String {
    let text = "x".repeat(1000);
    format!(
        r#"{{"jsonrpc":"2.0","method":"$/item","params":{{"id":1,"file":"f{n}","contentId":"","matches":[{{"text":"{text}"}}]}}}}"#
    )
}

#[test]
fn without_a_daemon_the_program_exits_with_69() {
    let dir = runtime_dir();
    let output = program(dir.path()).args(["run", "-p", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
    assert!(err(&output).contains("ASTSCOPE_NO_SPAWN"), "{}", err(&output));
}

#[test]
fn a_socket_that_nobody_listens_on_counts_as_no_daemon() {
    let dir = runtime_dir();
    drop(UnixListener::bind(dir.path().join("daemon.sock")).unwrap());
    let output = program(dir.path()).args(["run", "-p", "a"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
}

#[test]
fn a_socket_path_that_is_too_long_says_what_to_do() {
    let dir = runtime_dir();
    let output =
        program(&dir.path().join("x".repeat(100))).current_dir("/").args(["status"]).output();
    let output = output.unwrap();
    assert_eq!(output.status.code(), Some(69));
    assert!(err(&output).contains("ASTSCOPE_RUNTIME_DIR"), "{}", err(&output));
}

#[test]
fn matches_come_through_the_socket() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let item = r#"{"jsonrpc":"2.0","method":"$/item","params":{"id":2,"file":"a.js","contentId":"","matches":[{"text":"f()","b":1}]}}"#;
            serve_one(&listener, "999.0.0", &[item.to_owned()], r#"{"matches":1}"#);
        });
        program(dir.path()).args(["-p", "f()", "--json=stream"]).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"text\":\"f()\",\"b\":1}\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    // More than the pipe and the program's buffer hold.
    let items: Vec<String> = (0..1000).map(item).collect();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| serve_one(&listener, "999.0.0", &items, r#"{"matches":1000}"#));
        let mut child = program(dir.path())
            .args(["-p", "f()", "--json=stream"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    });
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
}

/// Greets a client, answers each of its next requests with lines, and closes the connection.
fn serve_once(listener: &UnixListener, answers: &[&[&str]]) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut requests = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    requests.read_line(&mut line).unwrap();
    answer(
        &mut stream,
        &1.into(),
        r#"{"protocol":1,"server":{"name":"astscope","version":"999.0.0"},"pid":1,"lineBytesMax":16777216,"requestsInFlightMax":32}"#,
    );
    for lines in answers {
        requests.read_line(&mut line).unwrap();
        for line in *lines {
            writeln!(stream, "{line}").unwrap();
        }
    }
}

const FIRST_ITEM: &str = r#"{"jsonrpc":"2.0","method":"$/item","params":{"id":2,"file":"a.js","contentId":"1","matches":[{"text":"f(1)"}]}}"#;
const SECOND_ITEM: &str = r#"{"jsonrpc":"2.0","method":"$/item","params":{"id":2,"file":"b.js","contentId":"2","matches":[{"text":"f(2)"}]}}"#;
const SUMMARY: &str = r#"{"jsonrpc":"2.0","id":2,"result":{"matches":2,"filesMatched":2}}"#;

#[test]
fn a_connection_that_is_lost_in_the_middle_does_not_show() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            serve_once(&listener, &[&[FIRST_ITEM]]);
            serve_once(&listener, &[&[FIRST_ITEM, SECOND_ITEM, SUMMARY]]);
        });
        program(dir.path()).args(["-p", "f($A)", "--json=stream"]).output().unwrap()
    });
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(0), ""));
    let printed = "{\"text\":\"f(1)\"}\n{\"text\":\"f(2)\"}\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), printed);
}

#[test]
fn a_socket_that_is_opened_again_is_waited_for() {
    const HEALTH: &str = r#"{"jsonrpc":"2.0","id":2,"result":{"status":"healthy"}}"#;
    for (line, first, second, code) in [
        (
            &["-p", "f($A)", "--json=stream"][..],
            FIRST_ITEM,
            &[FIRST_ITEM, SECOND_ITEM, SUMMARY][..],
            0,
        ),
        (&["health"], "", &[HEALTH], 0),
    ] {
        let dir = runtime_dir();
        let socket = dir.path().join("daemon.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // Not joined: if the program doesn't come back, nobody else will.
        let daemon = {
            let socket = socket.clone();
            move || {
                serve_once(&listener, &[&[first]]);
                drop(listener);
                std::fs::remove_file(&socket).unwrap();
                serve_once(&UnixListener::bind(&socket).unwrap(), &[second]);
            }
        };
        drop(std::thread::Builder::new().spawn(daemon).unwrap());
        let output = program(dir.path()).args(line).output().unwrap();
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(code), ""), "{line:?}");
    }
}

#[test]
fn a_daemon_that_vanishes_in_the_middle_is_reported() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            serve_once(&listener, &[&[]]);
            serve_once(&listener, &[&[]]);
        });
        program(dir.path()).args(["-p", "f()"]).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(69), "{}", err(&output));
    assert!(err(&output).contains("The daemon did not answer."), "{}", err(&output));
}

#[test]
fn a_part_that_is_restarted_again_and_again_is_reported_with_the_requests_name() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    let restarting = |id: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"requestId":"4-{id}","error":{{"code":-32804,"message":"the matcher ended","data":{{"code":"restarting","retryable":true}}}}}}"#
        )
    };
    let output = std::thread::scope(|scope| {
        scope.spawn(|| serve_once(&listener, &[&[&restarting(2)], &[&restarting(3)]]));
        program(dir.path()).args(["-p", "f()"]).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(75), "{}", err(&output));
    assert!(err(&output).contains("request 4-3; the daemon's log has more"), "{}", err(&output));
}

#[test]
fn a_daemon_of_another_protocol_version_exits_with_76() {
    let dir = runtime_dir();
    let listener = UnixListener::bind(dir.path().join("daemon.sock")).unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            answer(&mut stream.try_clone().unwrap(), &1.into(), r#"{"protocol":99,"server":{"name":"astscope","version":"999.0.0"},"pid":1,"lineBytesMax":16777216,"requestsInFlightMax":32}"#);
        });
        program(dir.path()).args(["-p", "f()"]).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(76), "{}", err(&output));
}
