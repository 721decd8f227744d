//! How a daemon starts and leaves: one per runtime directory, private, without a trace.

use crate::support::{
    Daemon, LONG_ANSWER_FILES, PATIENCE, code, config, leaving_after, long_answer, open, pattern,
    peer, run, runtime_in, status,
};
use astscope_daemon::{IdleExit, ServeError, serve};
use astscope_protocol::messages::{ErrorCode, method};
use astscope_protocol::{Client, ConnectError, RUNTIME_DIR_VARIABLE, RuntimeDir, RuntimeDirError};
use serde_json::json;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Why a daemon does not start.
#[track_caller]
fn refusal(runtime: &RuntimeDir) -> ServeError {
    let mut was_ready = false;
    // Should it start after all, it does not stay.
    let config = leaving_after(Duration::ZERO, config(runtime));
    let served = serve(config, || was_ready = true);
    assert!(!was_ready);
    served.expect_err("a daemon that can't start")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let daemon = Daemon::start();
    let error = refusal(&daemon.runtime);
    assert!(
        matches!(&error, ServeError::AlreadyRunning { lock } if *lock == daemon.runtime.lock()),
        "{error}"
    );
    assert_eq!(status(&mut daemon.client()).clients, 1);
}

#[test]
fn the_socket_and_its_directory_are_closed_to_others() {
    let daemon = Daemon::start();
    assert_eq!(mode(&daemon.socket()), 0o600);
    assert_eq!(mode(daemon.runtime.path()), 0o700);
    assert_eq!(mode(&daemon.runtime.lock()), 0o600);
}

#[test]
fn a_directory_that_was_open_to_others_is_closed() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    fs::create_dir(runtime.path()).unwrap();
    fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let daemon = Daemon::start_in(dir, |_| ());
    assert_eq!(mode(daemon.runtime.path()), 0o700);
}

#[test]
fn a_stale_socket_is_replaced() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    runtime.prepare().unwrap();
    drop(UnixListener::bind(runtime.socket()).unwrap());
    fs::write(runtime.lock(), "").unwrap();
    assert!(runtime.socket().exists(), "nobody listens, but the file is there");
    let daemon = Daemon::start_in(dir, |_| ());
    assert_eq!(status(&mut daemon.client()).clients, 1);
}

#[test]
fn a_daemon_that_left_leaves_no_socket_and_another_can_start() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    for _ in 0..3 {
        let config = leaving_after(Duration::ZERO, config(&runtime));
        let served = serve(config, || assert!(runtime.socket().exists()));
        assert!(served.is_ok(), "{served:?}");
        assert!(!runtime.socket().exists());
    }
}

#[test]
fn the_runtime_directory_of_another_user_is_refused() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    runtime.prepare().unwrap();
    let other = fs::metadata(runtime.path()).unwrap().uid() + 1;
    let error = if chown(runtime.path(), Some(other), None).is_ok() {
        refusal(&runtime)
    } else {
        // Only the superuser may give a directory away; the root of the disk is his.
        let root = |name: &str| (name == RUNTIME_DIR_VARIABLE).then(|| "/".into());
        refusal(&RuntimeDir::locate(&root).unwrap())
    };
    assert!(
        matches!(&error, ServeError::RuntimeDir(RuntimeDirError::OwnedByOther { .. })),
        "{error}"
    );
}

#[test]
fn a_runtime_directory_that_is_a_link_or_a_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    for kind in ["link", "file"] {
        if kind == "link" {
            std::os::unix::fs::symlink("/tmp", runtime.path()).unwrap();
        } else {
            fs::write(runtime.path(), "").unwrap();
        }
        let error = refusal(&runtime);
        assert!(
            matches!(&error, ServeError::RuntimeDir(RuntimeDirError::NotADirectory { .. })),
            "{kind}: {error}"
        );
        fs::remove_file(runtime.path()).unwrap();
    }
}

#[test]
fn a_lock_file_or_socket_that_cannot_be_made_is_told() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    runtime.prepare().unwrap();
    fs::create_dir(runtime.lock()).unwrap();
    let error = refusal(&runtime);
    assert!(matches!(&error, ServeError::Lock { path, .. } if *path == runtime.lock()), "{error}");
    fs::remove_dir(runtime.lock()).unwrap();
    fs::create_dir(runtime.socket()).unwrap();
    let error = refusal(&runtime);
    assert!(
        matches!(&error, ServeError::Listen { path, .. } if *path == runtime.socket()),
        "{error}"
    );
}

#[test]
fn a_socket_path_that_is_too_long_is_told_before_anything_is_made() {
    let long = format!("/tmp/{}", "x".repeat(100));
    let located =
        RuntimeDir::locate(&|name| (name == RUNTIME_DIR_VARIABLE).then(|| long.clone().into()));
    let error = located.expect_err("too long");
    assert!(matches!(&error, RuntimeDirError::SocketPathTooLong { bytes: 117, .. }), "{error}");
    assert!(!Path::new(&long).exists());
}

#[test]
fn a_root_that_cannot_be_opened_is_told_and_leaves_no_socket() {
    let dir = TempDir::new().unwrap();
    let runtime = runtime_in(dir.path());
    let mut config = config(&runtime);
    let gone = dir.path().join("gone");
    config.roots = vec![gone.clone()];
    let error = serve(config, || ()).expect_err("no such root");
    assert!(matches!(&error, ServeError::Root { path, .. } if *path == gone), "{error}");
    assert!(!runtime.socket().exists());
}

#[test]
fn stop_is_answered_before_the_daemon_leaves() {
    for drain in [false, true] {
        let mut daemon = Daemon::start();
        let mut connection = daemon.lines();
        connection.ask(1, method::STOP, &json!({"drain": drain}));
        assert_eq!(connection.answer(1).unwrap(), json!({}));
        connection.expect_end();
        assert!(daemon.join().is_ok());
        assert!(!daemon.socket().exists());
        let gone = Client::connect(&daemon.socket(), peer(), PATIENCE).expect_err("it left");
        assert!(matches!(gone, ConnectError::NotRunning { .. }), "{gone}");
    }
}

#[test]
fn draining_finishes_what_is_in_flight_and_takes_nothing_new() {
    let mut daemon = Daemon::start();
    let tree = long_answer();
    let mut other = daemon.lines();
    let mut connection = daemon.lines();
    connection.ask(1, method::RUN, &pattern(&tree, "js", "f($A)"));
    let first = connection.message().unwrap();
    assert!(first["method"].is_string(), "in flight: {first}");
    daemon.stop(true);
    other.ask(2, method::STATUS, &json!({}));
    assert_eq!(code(other.answer(2)), Some(ErrorCode::ShuttingDown));
    let summary = connection.answer(1).unwrap();
    assert_eq!(summary["matches"], LONG_ANSWER_FILES);
    let first_was_item = u64::from(first["method"] == method::ITEM);
    assert_eq!(connection.items.len() as u64 + first_was_item, LONG_ANSWER_FILES);
    connection.expect_end();
    other.expect_end();
    assert!(daemon.join().is_ok());
}

#[test]
fn a_daemon_that_starts_while_another_finishes_waits_and_takes_over() {
    let mut daemon = Daemon::start();
    let tree = long_answer();
    let (mut other, mut connection) = (daemon.lines(), daemon.lines());
    connection.ask(1, method::RUN, &pattern(&tree, "js", "f($A)"));
    while connection.message().unwrap()["method"] != method::ITEM {}
    daemon.stop(true);
    let started = Instant::now();
    while daemon.socket().exists() {
        assert!(started.elapsed() < PATIENCE, "the socket closes before the requests end");
        other.ask(2, method::STATUS, &json!({}));
        assert!(matches!(code(other.answer(2)), Some(ErrorCode::ShuttingDown) | None));
    }
    let successor = leaving_after(Duration::ZERO, config(&daemon.runtime));
    std::thread::scope(|scope| {
        let socket = daemon.socket();
        let served = scope.spawn(move || serve(successor, || assert!(socket.exists())));
        assert_eq!(connection.answer(1).unwrap()["matches"], LONG_ANSWER_FILES);
        assert!(daemon.join().is_ok());
        let served = served.join().unwrap();
        assert!(served.is_ok(), "{served:?}");
    });
}

#[test]
fn stopping_at_once_ends_what_is_in_flight_as_shutting_down() {
    let mut daemon = Daemon::start();
    let tree = long_answer();
    let mut connection = daemon.lines();
    connection.ask(1, method::RUN, &pattern(&tree, "js", "f($A)"));
    while connection.message().unwrap()["method"] != method::ITEM {}
    daemon.stop(false);
    assert_eq!(code(connection.answer(1)), Some(ErrorCode::ShuttingDown));
    connection.expect_end();
    assert!(daemon.join().is_ok());
}

#[test]
fn a_client_that_does_not_read_cannot_keep_the_daemon() {
    let mut daemon = Daemon::start();
    let tree = long_answer();
    open(&mut daemon.client(), &tree.root());
    let (mut stuck, mut other) = (daemon.lines(), daemon.lines());
    stuck.ask(1, method::RUN, &pattern(&tree, "js", "f($A)"));
    assert!(stuck.message().is_some());
    // Draining waits for it, and stopping does not.
    for (id, drain) in [(2, true), (3, false)] {
        other.ask(id, method::STOP, &json!({"drain": drain}));
        assert!(other.answer(id).is_ok());
    }
    assert!(daemon.join().is_ok());
}

#[test]
fn an_idle_daemon_leaves_and_one_with_a_client_stays() {
    let idle = Duration::from_millis(200);
    let mut daemon =
        Daemon::start_with(|config| config.settings.idle_exit = Some(IdleExit::After(idle)));
    let connection = daemon.silent();
    let mut stream = connection.stream();
    stream.set_read_timeout(Some(idle * 4)).unwrap();
    let waited = stream.read(&mut [0]).expect_err("no end of the stream while connected");
    assert_eq!(waited.kind(), ErrorKind::WouldBlock);
    drop(connection);
    assert!(daemon.join().is_ok());
    assert!(!daemon.socket().exists());
}

#[test]
fn a_daemon_that_nobody_ever_calls_leaves_too() {
    let mut daemon = Daemon::start_with(|config| {
        config.settings.idle_exit = Some(IdleExit::After(Duration::from_millis(200)));
    });
    assert!(daemon.join().is_ok());
}

#[test]
fn whoever_listens_instead_of_a_daemon_is_not_trusted_for_ever() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let timeout = Duration::from_millis(100);
    let silent = Client::connect(&path, peer(), timeout).expect_err("nobody answers");
    assert!(matches!(silent, ConnectError::TimedOut { .. }), "{silent}");
    drop(listener);
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn two_daemons_in_two_directories_do_not_meet() {
    let (one, two) = (Daemon::start(), Daemon::start());
    let tree = astscope_fixtures::Fixture::parse("//- /a.js\nf(1)\n");
    assert_eq!(run(&mut one.client(), &pattern(&tree, "js", "f($A)")).summary.matches, 1);
    assert_eq!(status(&mut two.client()).workspaces.len(), 0);
}
