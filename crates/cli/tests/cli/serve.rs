//! The real daemon process: what it tells whoever started it, and where its log is.

use crate::process::{program, runtime_dir};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A running `astscope serve`. It doesn't outlive its test.
pub(crate) struct Serving {
    pub(crate) dir: TempDir,
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    /// What stood on standard error before it listened, that line included.
    said: String,
}

impl Serving {
    /// Starts one, and waits until it listens.
    fn start(adjust: impl FnOnce(&Path) -> Vec<(&'static str, std::path::PathBuf)>) -> Self {
        Self::start_with(&[], adjust)
    }

    /// The same with more arguments.
    pub(crate) fn start_with(
        arguments: &[&str],
        adjust: impl FnOnce(&Path) -> Vec<(&'static str, std::path::PathBuf)>,
    ) -> Self {
        let dir = runtime_dir();
        let environment = adjust(dir.path());
        let mut child = program(dir.path())
            .arg("serve")
            .args(arguments)
            .envs(environment)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut serving = Self { dir, child, stderr, said: String::new() };
        while !serving.said.contains("astscope: listening on ") {
            let n_bytes = serving.stderr.read_line(&mut serving.said).unwrap();
            assert!(n_bytes > 0, "it ended: {}", serving.said);
        }
        serving
    }

    /// Makes it leave, and returns all that stood on standard error.
    pub(crate) fn stop(mut self) -> (String, TempDir) {
        let stopped = program(self.dir.path()).arg("stop").output().unwrap();
        assert!(stopped.status.success(), "{stopped:?}");
        self.stderr.read_to_string(&mut self.said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{}", self.said);
        let dir = std::mem::replace(&mut self.dir, TempDir::new().unwrap());
        (std::mem::take(&mut self.said), dir)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended already, unless the test has failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The messages in the log, with their levels.
fn logged(state: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(state.join("daemon.log")).unwrap();
    let entry = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(entry["timestamp"].is_string() && entry["target"].is_string(), "{line}");
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        (text("level"), text("message"))
    };
    text.lines().map(entry).collect()
}

#[test]
fn a_daemon_logs_json_to_its_state_directory() {
    let serving = Serving::start(|_| Vec::new());
    let (said, dir) = serving.stop();
    let entries = logged(&dir.path().join("state"));
    let info = |message: &str| ("INFO".to_owned(), message.to_owned());
    assert_eq!(entries.first(), Some(&info("listening")));
    assert_eq!(entries.last(), Some(&info("left")));
    let text = std::fs::read_to_string(dir.path().join("state/daemon.log")).unwrap();
    let listening: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(listening["socket"], dir.path().join("daemon.sock").to_str().unwrap());
    assert!(said.starts_with("astscope: listening on ") && said.lines().count() == 1, "{said}");
}

#[test]
fn the_log_has_what_is_asked_for() {
    let serving = Serving::start(|_| vec![("ASTSCOPE_LOG", "error".into())]);
    let (_, dir) = serving.stop();
    assert_eq!(logged(&dir.path().join("state")), []);

    let serving = Serving::start(|_| vec![("ASTSCOPE_LOG", "info".into())]);
    let (said, dir) = serving.stop();
    assert!(!logged(&dir.path().join("state")).is_empty());
    assert!(said.contains(" INFO ") && said.contains("left"), "also for who watches: {said}");
}

#[test]
fn without_a_state_directory_standard_error_has_the_log_and_a_warning() {
    let serving = Serving::start(|dir| {
        // Nobody can make a directory below a file.
        std::fs::write(dir.join("file"), "").unwrap();
        vec![("ASTSCOPE_STATE_DIR", dir.join("file/state"))]
    });
    let (said, _dir) = serving.stop();
    assert_eq!(said.matches(" WARN ").count(), 1, "{said}");
    assert_eq!(said.matches("logging to standard error only").count(), 1, "{said}");
    assert!(said.contains("Not a directory") && said.contains("left"), "{said}");
}

#[test]
fn the_service_manager_is_told_when_clients_can_come_and_when_no_longer() {
    let manager = tempfile::tempdir().unwrap();
    let path = manager.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    // It only ends a test that hangs.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let received = || {
        let mut bytes = [0; 64];
        let n_bytes = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..n_bytes]).into_owned()
    };
    let serving = Serving::start(|_| vec![("NOTIFY_SOCKET", path.clone())]);
    assert_eq!(received(), "READY=1");
    let status = program(serving.dir.path()).arg("status").output().unwrap();
    assert!(status.status.success(), "{status:?}");
    serving.stop();
    assert_eq!(received(), "STOPPING=1");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "each is told once");
}

#[test]
fn settings_that_were_named_must_be_right_and_options_win_over_them() {
    let dir = runtime_dir();
    std::fs::write(dir.path().join("bad.toml"), "\nlog = 'astscope=loud'\n").unwrap();
    for (file, word) in [("bad.toml", "line 2: `log`"), ("missing.toml", "No such file")] {
        let refused = program(dir.path()).args(["serve", "--config", file]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(69), "{said}");
        assert!(said.contains(word), "{said}");
    }
    std::fs::write(dir.path().join("good.toml"), "log = 'debug'\nidle_timeout = '5s'\n").unwrap();
    let file = dir.path().join("good.toml");
    let arguments = ["--config", file.to_str().unwrap(), "--idle-timeout", "1h"];
    let serving = Serving::start_with(&arguments, |_| vec![("ASTSCOPE_LOG", "warn".into())]);
    let output = program(serving.dir.path()).arg("config").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [["log", "warn", "start"], ["idle_timeout", "1h", "start"]] {
        let is_there = said.lines().any(|line| line.split_whitespace().eq(expected));
        assert!(is_there, "{said}");
    }
    serving.stop();
}
