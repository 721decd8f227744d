//! A daemon for one test, and two ways to talk to it: the typed client and bare lines.
//!
//! Nothing here can wait for ever: bare lines have a socket timeout, and a daemon that lives too
//! long is told to leave, which ends the reads of every client.

use astscope_daemon::{
    DaemonConfig, IdleExit, LogFilter, MemorySource, ServeError, SettingsSource, serve,
};
use astscope_fixtures::Fixture;
use astscope_protocol::messages::{
    ErrorCode, HelloResult, Item, MatchRecord, MatcherSpec, OpenParams, PROTOCOL, Peer, RunParams,
    ScanParams, Selection, SkippedFile, StatusParams, StatusResult, StopParams, Summary,
    WorkspaceStatus, method,
};
use astscope_protocol::{
    CallError, Chunk, ChunkAssembler, Client, Event, RUNTIME_DIR_VARIABLE, RpcError, RuntimeDir,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

/// Longest wait for one line or for a daemon that leaves. Far more than any takes: it only turns
/// a hang into a failure, on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Longest life of a test's daemon.
const DAEMON_LIFE_MAX: Duration = Duration::from_secs(150);

/// The runtime directory in `dir`.
pub(crate) fn runtime_in(dir: &Path) -> RuntimeDir {
    let located = RuntimeDir::locate(&|name| {
        (name == RUNTIME_DIR_VARIABLE).then(|| dir.join("run").into_os_string())
    });
    located.unwrap()
}

/// What `serve` needs, for a daemon that stays until it is told to leave.
pub(crate) fn config(runtime_dir: &RuntimeDir) -> DaemonConfig {
    DaemonConfig {
        runtime_dir: runtime_dir.clone(),
        roots: Vec::new(),
        parsers: None,
        settings: SettingsSource {
            idle_exit: Some(IdleExit::Never),
            file: None,
            is_named: false,
            log: no_log(),
        },
        allow_debug: false,
        memory: MemorySource::of_kernel(),
        leaving: || (),
        version: "1.2.3".to_owned(),
    }
}

/// The same for one that leaves when it has been idle for so long.
pub(crate) fn leaving_after(idle: Duration, mut config: DaemonConfig) -> DaemonConfig {
    config.settings.idle_exit = Some(IdleExit::After(idle));
    config
}

/// A test's daemon has no log of its own.
fn no_log() -> LogFilter {
    LogFilter { given: None, default: "info".to_owned(), check: |_| Ok(()), set: Box::new(|_| ()) }
}

pub(crate) fn peer() -> Peer {
    Peer { name: "test".to_owned(), version: "0.0.0".to_owned() }
}

/// A running daemon. Dropping it makes it leave, and waits until it has.
pub(crate) struct Daemon {
    pub(crate) runtime: RuntimeDir,
    serving: Option<JoinHandle<Result<(), ServeError>>>,
    ended: Receiver<()>,
    /// Closed by the drop, which is what the watchdog waits for.
    _alive: SyncSender<()>,
    _dir: TempDir,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(crate) fn start_with(adjust: impl FnOnce(&mut DaemonConfig)) -> Self {
        let dir = TempDir::new().unwrap();
        Self::start_in(dir, adjust)
    }

    /// Starts with what is there in the directory already.
    pub(crate) fn start_in(dir: TempDir, adjust: impl FnOnce(&mut DaemonConfig)) -> Self {
        let runtime = runtime_in(dir.path());
        let mut config = config(&runtime);
        adjust(&mut config);
        let (ready, is_ready) = sync_channel(1);
        let (end, ended) = sync_channel(1);
        let work = move || {
            let served = serve(config, move || ready.send(()).unwrap());
            drop(end);
            served
        };
        let serving = Some(Builder::new().spawn(work).unwrap());
        is_ready.recv_timeout(PATIENCE).expect("the daemon starts");
        let (alive, is_over) = sync_channel::<()>(0);
        let socket = runtime.socket();
        let watch = move || {
            if is_over.recv_timeout(DAEMON_LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
                drop(Client::retire(&socket, &StopParams::default(), PATIENCE));
            }
        };
        drop(Builder::new().spawn(watch).unwrap());
        Self { runtime, serving, ended, _alive: alive, _dir: dir }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.runtime.socket()
    }

    /// A client that has said hello.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        let connected = Client::connect(&self.socket(), peer(), PATIENCE);
        connected.expect("the daemon takes a client").0
    }

    /// A connection for bare lines, before `hello`.
    pub(crate) fn silent(&self) -> Lines {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Lines { reader: BufReader::new(stream), chunks: ChunkAssembler::new(), items: Vec::new() }
    }

    /// A connection for bare lines that has said hello, as request 0.
    #[track_caller]
    pub(crate) fn lines(&self) -> Lines {
        let mut lines = self.silent();
        lines.ask(0, method::HELLO, &json!({"protocol": PROTOCOL, "client": peer()}));
        let hello = lines.answer(0).expect("hello is answered");
        assert!(serde_json::from_value::<HelloResult>(hello).is_ok());
        lines
    }

    /// Tells it to leave, and does not wait.
    #[track_caller]
    pub(crate) fn stop(&self, drain: bool) {
        Client::retire(&self.socket(), &StopParams { drain }, PATIENCE).expect("stop is answered");
    }

    /// Waits until it has left.
    #[track_caller]
    pub(crate) fn join(&mut self) -> Result<(), ServeError> {
        assert_eq!(
            self.ended.recv_timeout(PATIENCE),
            Err(RecvTimeoutError::Disconnected),
            "the daemon is still there"
        );
        self.serving.take().unwrap().join().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.serving.is_none() {
            return;
        }
        // It may be leaving already, and take no clients.
        drop(Client::retire(&self.socket(), &StopParams::default(), PATIENCE));
        if !std::thread::panicking() {
            self.join().expect("the daemon leaves without an error");
        }
    }
}

/// A connection that sends and receives bare lines.
pub(crate) struct Lines {
    reader: BufReader<UnixStream>,
    chunks: ChunkAssembler,
    /// Items that came before the answers so far.
    pub(crate) items: Vec<Item>,
}

impl Lines {
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).expect("the daemon reads");
    }

    /// Sends a request.
    #[track_caller]
    pub(crate) fn ask(&mut self, id: u64, method: &str, params: &impl Serialize) {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(format!("{line}\n"));
    }

    /// Gives up a request.
    pub(crate) fn cancel(&mut self, id: u64) {
        let line = json!({"jsonrpc": "2.0", "method": method::CANCEL, "params": {"id": id}});
        self.send(format!("{line}\n"));
    }

    /// The next line as it was sent; `None` at the end of the stream.
    #[track_caller]
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let n = self.reader.read_line(&mut line).expect("a line comes in time");
        (n > 0).then(|| line.strip_suffix('\n').expect("a whole line").to_owned())
    }

    /// The next message, put together again if it came in pieces.
    #[track_caller]
    pub(crate) fn message(&mut self) -> Option<Value> {
        loop {
            let message: Value = serde_json::from_str(&self.line()?).unwrap();
            if message["method"] != method::CHUNK {
                return Some(message);
            }
            let chunk: Chunk<'_> = serde_json::from_value(message["params"].clone()).unwrap();
            if let Some(whole) = self.chunks.push(chunk).unwrap() {
                return Some(serde_json::from_str(&whole).unwrap());
            }
        }
    }

    /// The next response, whosever it is; items are put aside.
    #[track_caller]
    pub(crate) fn response(&mut self) -> (Option<u64>, Result<Value, RpcError>) {
        loop {
            let mut message = self.message().expect("an answer, not the end");
            if message["method"] == method::ITEM {
                self.items.push(serde_json::from_value(message["params"].take()).unwrap());
            } else if message.get("method").is_none() {
                let outcome = match message.get("error") {
                    Some(error) => Err(serde_json::from_value(error.clone()).unwrap()),
                    None => Ok(message["result"].take()),
                };
                return (message["id"].as_u64(), outcome);
            }
        }
    }

    /// The response to the only unanswered request.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Result<Value, RpcError> {
        let (answered, outcome) = self.response();
        assert_eq!(answered, Some(id), "{outcome:?}");
        outcome
    }

    /// That the daemon has closed the connection and sent nothing more.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        assert_eq!(self.line(), None);
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }
}

/// Files of `fixture` that match a pattern in a language.
pub(crate) fn pattern(fixture: &Fixture, language: &str, pattern: &str) -> RunParams {
    RunParams {
        selection: everything(fixture),
        matcher: MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() },
        language: Some(language.to_owned()),
        ..RunParams::default()
    }
}

/// All of a tree.
pub(crate) fn everything(fixture: &Fixture) -> Selection {
    Selection { cwd: text(&fixture.root()), ..Selection::default() }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("a temporary directory with a plain name").to_owned()
}

/// What a query answered.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) items: Vec<Item>,
    pub(crate) summary: Summary,
}

impl Found {
    pub(crate) fn records(&self) -> Vec<MatchRecord> {
        let all = self.items.iter().flat_map(|item| item.matches.iter());
        all.map(|json| serde_json::from_str(json).unwrap()).collect()
    }

    /// Each match as `file:line:column text`, the first line and column being 1.
    pub(crate) fn shown(&self) -> Vec<String> {
        let show = |found: MatchRecord| {
            let at = found.range.start;
            format!("{}:{}:{} {}", found.file, at.line + 1, at.column + 1, found.text.unwrap())
        };
        self.records().into_iter().map(show).collect()
    }

    pub(crate) fn files(&self) -> Vec<&str> {
        self.items.iter().map(|item| &*item.file).collect()
    }

    pub(crate) fn skipped(&self) -> Vec<(&str, &str)> {
        let skipped = self.summary.skipped.iter();
        skipped.map(|SkippedFile { path, reason, .. }| (&**path, &**reason)).collect()
    }
}

#[track_caller]
pub(crate) fn run(client: &mut Client, params: &RunParams) -> Found {
    try_query(client, method::RUN, params).expect("run is answered")
}

#[track_caller]
pub(crate) fn scan(client: &mut Client, params: &ScanParams) -> Found {
    try_query(client, method::SCAN, params).expect("scan is answered")
}

pub(crate) fn try_query(
    client: &mut Client,
    method: &str,
    params: &impl Serialize,
) -> Result<Found, CallError> {
    let mut items = Vec::new();
    let summary = client.call_streaming(method, params, |event| {
        if let Event::Item(item) = event {
            items.push(item);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Found { items, summary })
}

/// The error that a request is answered with.
#[track_caller]
pub(crate) fn refused(client: &mut Client, method: &str, params: &impl Serialize) -> RpcError {
    match client.call::<_, Value>(method, params) {
        Err(CallError::Remote(error)) => error,
        other => panic!("expected an error of the daemon's: {other:?}"),
    }
}

pub(crate) fn code(outcome: Result<Value, RpcError>) -> Option<ErrorCode> {
    outcome.err().and_then(|error| error.error_code())
}

pub(crate) fn status(client: &mut Client) -> StatusResult {
    call(client, method::STATUS, &StatusParams { skipped_files: true })
}

/// Indexes a directory, and waits until that is done.
#[track_caller]
pub(crate) fn open(client: &mut Client, path: &Path) -> WorkspaceStatus {
    call(client, method::OPEN, &OpenParams { path: text(path) })
}

#[track_caller]
pub(crate) fn call<R: DeserializeOwned>(
    client: &mut Client,
    method: &str,
    params: &impl Serialize,
) -> R {
    client.call(method, params).expect("the request is answered")
}

/// A tree whose answer to `f($A)` is more than any buffer between daemon and client holds, and of
/// more files than a query matches at once: a client that doesn't read it stops the query.
pub(crate) fn long_answer() -> Fixture {
    long_lines(LONG_ANSWER_FILES)
}

/// Files with one match each, in a long line that comes with it.
pub(crate) fn long_lines(n_files: u64) -> Fixture {
    let fixture = Fixture::empty();
    let padding = "x".repeat(16 << 10);
    for i in 0..n_files {
        fixture.write(format!("{i:03}.js"), format!("f({i}) // {padding}\n"));
    }
    fixture
}

/// Files, and matches, of [`long_answer`].
pub(crate) const LONG_ANSWER_FILES: u64 = 150;
