//! Finding the user's daemon, starting one, and replacing one that is older than this program.
//!
//! Many clients may do this at once. Only the daemon's own lock decides who serves; the others
//! read `busy` and connect to the winner.

use crate::backend::BackendError;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::service_manager;
use astscope_protocol::client::{Attempt, Client, ConnectError};
use astscope_protocol::messages::{ErrorCode, HelloResult, Peer, StopParams};
use astscope_protocol::runtime_dir::{RuntimeDir, RuntimeDirError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use semver::Version;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set to keep this program from starting a daemon.
const NO_SPAWN_VARIABLE: &str = "ASTSCOPE_NO_SPAWN";
/// A daemon greets within microseconds; one that takes this long hangs.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a daemon to get ready. It opens its socket before it reads any file.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for everything: an older daemon may have to finish a long request first.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a daemon that has closed a connection to take the next one. What serves connections is
/// started again within milliseconds, where it was that which failed.
const REOPEN_TIMEOUT: Duration = Duration::from_secs(2);
/// Another process's socket raises no event that could be waited for, so it is looked at again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// A log larger than this is begun anew.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// How much of the log is shown when a daemon doesn't start.
const LOG_LINES_SHOWN: usize = 5;

/// What to do next about a failed attempt to connect.
#[derive(Debug)]
enum Next {
    /// Start a daemon.
    Start,
    /// Try again in a moment.
    Wait,
    /// Ask the daemon to leave, and try again.
    Replace,
    /// Say so, unless a daemon was asked to leave and is doing that.
    TimedOut(Failure),
    /// Say so.
    Fail(Failure),
}

fn this_program() -> Peer {
    Peer { name: "astscope".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

fn runtime_dir() -> Result<RuntimeDir, Failure> {
    RuntimeDir::locate(&|name| std::env::var_os(name)).map_err(|error| bad_runtime_dir(&error))
}

pub(crate) fn bad_runtime_dir(error: &RuntimeDirError) -> Failure {
    Failure::new(Exit::Unreachable, "There is no place for the daemon's socket.").source(error)
}

/// A connection to a daemon of this program's version or a later one.
pub(crate) fn connect_or_start(attempt: Attempt) -> Result<Client, Failure> {
    let dir = runtime_dir()?;
    let socket = dir.socket();
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let deadline = match attempt {
        Attempt::Second { until: Some(until) } => until.min(deadline),
        Attempt::First | Attempt::Second { until: None } => deadline,
    };
    let reopens_until = reopens_until(attempt);
    let mut asked_to_leave = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut next = match Client::connect(&socket, this_program(), left.min(GREETING_TIMEOUT)) {
            Ok((_, hello)) if is_older(&hello) && may_start() => Next::Replace,
            Ok((client, _)) => return Ok(client),
            Err(error) => after(error, Instant::now() < reopens_until),
        };
        if asked_to_leave && matches!(next, Next::TimedOut(_)) {
            // A daemon that drains takes no more clients.
            next = Next::Wait;
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(Exit::Unreachable, "The daemon can't be reached.").help(
                "Another daemon may be busy or leaving: try again, or see `astscope status`.",
            ));
        }
        match next {
            Next::Start => {
                if start(&dir, left.min(READY_TIMEOUT))? == Started::Busy {
                    pause()?;
                }
            }
            Next::Wait => pause()?,
            Next::Replace => {
                if !asked_to_leave {
                    asked_to_leave = true;
                    let params = StopParams { drain: true };
                    if let Err(error) = Client::retire(&socket, &params, GREETING_TIMEOUT)
                        && let Next::Fail(failure) = after(error, false)
                    {
                        return Err(failure);
                    }
                }
                pause()?;
            }
            Next::TimedOut(failure) | Next::Fail(failure) => return Err(failure),
        }
    }
}

/// A connection to the daemon that runs, whatever its version; `None` if none does.
pub(crate) fn connect_to_running(attempt: Attempt) -> Result<Option<Client>, Failure> {
    let socket = runtime_dir()?.socket();
    let reopens_until = reopens_until(attempt);
    let greets_until = Instant::now() + REOPEN_TIMEOUT;
    loop {
        let until = match Client::connect(&socket, this_program(), GREETING_TIMEOUT) {
            Ok((client, _)) => return Ok(Some(client)),
            Err(ConnectError::NotRunning { .. }) => reopens_until,
            // It runs, and nothing was asked yet.
            Err(ConnectError::Closed { .. }) => greets_until,
            Err(error) => return Err(unreachable(&error)),
        };
        if Instant::now() >= until {
            return Ok(None);
        }
        pause()?;
    }
}

/// Until when a daemon without a socket is not yet gone.
fn reopens_until(attempt: Attempt) -> Instant {
    match attempt {
        Attempt::First => Instant::now(),
        Attempt::Second { .. } => Instant::now() + REOPEN_TIMEOUT,
    }
}

/// Asks the daemon that runs to leave; says whether there was one.
pub(crate) fn retire_running(params: &StopParams) -> Result<bool, BackendError> {
    let connect = |failure| BackendError::Connect(Box::new(failure));
    let socket = runtime_dir().map_err(connect)?.socket();
    match Client::retire(&socket, params, GREETING_TIMEOUT) {
        Ok(()) | Err(ConnectError::Closed { .. }) => Ok(true),
        Err(ConnectError::NotRunning { .. }) => Ok(false),
        Err(error) => Err(connect(unreachable(&error))),
    }
}

fn may_start() -> bool {
    std::env::var_os(NO_SPAWN_VARIABLE).is_none_or(|value| value.is_empty() || value == "0")
}

fn is_older(hello: &HelloResult) -> bool {
    older(&hello.server.version, env!("CARGO_PKG_VERSION"))
}

/// Whether a version is older than ours; what can't be compared is left alone.
fn older(theirs: &str, ours: &str) -> bool {
    match (Version::parse(theirs), Version::parse(ours)) {
        (Ok(theirs), Ok(ours)) => theirs < ours,
        _ => false,
    }
}

/// `reopens` while a daemon may be about to open its socket again.
fn after(error: ConnectError, reopens: bool) -> Next {
    match error {
        ConnectError::NotRunning { .. } if reopens => Next::Wait,
        ConnectError::NotRunning { .. } if may_start() => Next::Start,
        ConnectError::Closed { .. } => Next::Wait,
        ConnectError::Refused { error: ref refusal, .. }
            if refusal.error_code() == Some(ErrorCode::ShuttingDown) =>
        {
            Next::Wait
        }
        ConnectError::Incompatible { server: Some(ref server), .. }
            if older(&server.version, env!("CARGO_PKG_VERSION")) && may_start() =>
        {
            Next::Replace
        }
        error @ ConnectError::TimedOut { .. } => Next::TimedOut(unreachable(&error)),
        error => Next::Fail(unreachable(&error)),
    }
}

fn unreachable(error: &ConnectError) -> Failure {
    let of = |exit, title: &str| Failure::new(exit, title).source(error);
    match error {
        ConnectError::NotRunning { .. } => of(Exit::Unreachable, "No daemon is running.").help(
            format!("{NO_SPAWN_VARIABLE} is set, so none is started: `astscope serve` starts one."),
        ),
        ConnectError::Incompatible { .. } => {
            of(Exit::Incompatible, "The running daemon is incompatible with this program.")
                .help("Use the astscope that started it, or end it with `astscope stop`.")
        }
        ConnectError::Refused { error: refusal, .. } => {
            let exit = refusal.error_code().map_or(Exit::Internal, Exit::of);
            of(exit, "The daemon refused the connection.").help("Try again.")
        }
        ConnectError::TimedOut { .. } => of(Exit::Unreachable, "The daemon does not answer.")
            .help("It may hang: end it with `astscope stop`, or by its process id."),
        ConnectError::OwnedByOther { .. }
        | ConnectError::Closed { .. }
        | ConnectError::Io { .. }
        | ConnectError::Protocol { .. } => of(Exit::Unreachable, "The daemon can't be reached."),
    }
}

/// Lets a moment pass.
pub(crate) fn pause() -> Result<(), Failure> {
    let interval = Timespec { tv_sec: 0, tv_nsec: i64::from(RETRY_INTERVAL.subsec_nanos()) };
    match poll(&mut [], Some(&interval)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(cannot_start(&error.into())),
    }
}

/// What became of a daemon that was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Started {
    /// It listens.
    Ready,
    /// Another one holds the lock.
    Busy,
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(Exit::Unreachable, "Cannot start the daemon.").source(error)
}

/// Starts this program's daemon, apart from our terminal, and waits until it listens.
fn start(dir: &RuntimeDir, timeout: Duration) -> Result<Started, Failure> {
    dir.prepare().map_err(|error| bad_runtime_dir(&error))?;
    let mut child = spawn(dir).map_err(|error| cannot_start(&error))?;
    let said = first_line(&mut child, timeout).map_err(|error| cannot_start(&error))?;
    match said.as_deref() {
        Some("ready") => Ok(Started::Ready),
        Some("busy") => Ok(Started::Busy),
        Some(other) => Err(cannot_start(&io::Error::other(format!("it says `{other}`")))),
        None => Err(died(&mut child, dir)),
    }
}

fn spawn(dir: &RuntimeDir) -> io::Result<Child> {
    let log_path = dir.log();
    let too_large = log_path.metadata().is_ok_and(|log| log.len() > LOG_BYTES_MAX);
    let log = File::options()
        .create(true)
        .append(!too_large)
        .write(true)
        .truncate(too_large)
        .mode(0o600)
        .open(log_path)?;
    service_manager::hide_from(&mut Command::new(std::env::current_exe()?))
        .args(["serve", "--spawned"])
        // A Ctrl-C in our terminal is not meant for it.
        .process_group(0)
        // It must not keep a file system busy that the user wants to unmount.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
}

/// The first line that a child prints, or `None` if it closes its output without one.
fn first_line(child: &mut Child, timeout: Duration) -> io::Result<Option<String>> {
    let Some(mut stdout) = child.stdout.take() else {
        return Ok(None);
    };
    let deadline = Instant::now() + timeout;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut waiting = [PollFd::new(&stdout, PollFlags::IN)];
        match poll(&mut waiting, Some(&left)) {
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("it is not ready after {} s", timeout.as_secs()),
                ));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        let n_bytes = stdout.read(&mut bytes)?;
        line.extend_from_slice(&bytes[..n_bytes]);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        if n_bytes == 0 || line.len() > 1024 {
            return Ok(None);
        }
    }
}

/// A daemon that ended before it was ready, with the end of its log.
fn died(child: &mut Child, dir: &RuntimeDir) -> Failure {
    let log = dir.log();
    let mut failure = Failure::new(Exit::Unreachable, "The daemon ended before it was ready.")
        .help(format!("Its log is {}.", log.display()));
    if let Ok(status) = child.wait() {
        failure = failure.cause(status.to_string());
    }
    if let Ok(text) = std::fs::read_to_string(&log) {
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            failure = failure.cause(*line);
        }
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn shell(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn incompatible(version: &str) -> ConnectError {
        ConnectError::Incompatible {
            path: PathBuf::from("/s"),
            server: Some(Peer { name: "astscope".to_owned(), version: version.to_owned() }),
            reason: "test".to_owned(),
        }
    }

    #[test]
    fn a_child_says_that_it_is_ready() {
        let mut child = shell("echo ready; exec cat </dev/null");
        assert_eq!(first_line(&mut child, READY_TIMEOUT).unwrap().as_deref(), Some("ready"));
        child.wait().unwrap();
    }

    #[test]
    fn a_child_that_ends_without_a_word_is_noticed() {
        let mut child = shell("exit 3");
        assert_eq!(first_line(&mut child, READY_TIMEOUT).unwrap(), None);
        child.wait().unwrap();
    }

    #[test]
    fn a_child_that_hangs_is_killed_at_the_deadline() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let error = first_line(&mut child, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(older("0.9.0", "0.10.0"));
        assert!(!older("0.10.0", "0.10.0"));
        assert!(!older("1.0.0", "0.10.0"));
        assert!(!older("nightly", "0.10.0"));
    }

    #[test]
    fn a_newer_incompatible_daemon_is_left_alone() {
        let Next::Fail(failure) = after(incompatible("999.0.0"), true) else {
            panic!("a newer daemon is replaced");
        };
        assert_eq!(failure.exit, Exit::Incompatible);
    }

    #[test]
    fn a_daemon_that_is_leaving_is_waited_for() {
        let closed = || ConnectError::Closed { path: PathBuf::from("/s") };
        assert!(matches!(after(closed(), false), Next::Wait));
    }

    #[test]
    fn a_daemon_that_was_there_a_moment_ago_is_waited_for() {
        let nobody = || ConnectError::NotRunning {
            path: PathBuf::from("/s"),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        assert!(matches!(after(nobody(), true), Next::Wait));
        assert!(!matches!(after(nobody(), false), Next::Wait));
    }

    #[test]
    fn a_retry_may_help_with_a_daemon_that_is_overloaded() {
        let error = ConnectError::Refused {
            path: PathBuf::from("/s"),
            error: astscope_protocol::frame::RpcError::new(ErrorCode::Overloaded, "full"),
        };
        let Next::Fail(failure) = after(error, false) else {
            panic!("an overloaded daemon is waited for");
        };
        assert_eq!(failure.exit, Exit::TryLater);
    }
}
