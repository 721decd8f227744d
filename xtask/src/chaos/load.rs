//! Clients that ask all the time, and what they were told.

use super::house::{PATIENCE, connect, pause};
use anyhow::{Context as _, Result, ensure};
use astscope_protocol::client::{Attempt, CallError, Client, Event, RetryingClient};
use astscope_protocol::messages::{MatcherSpec, RunParams, Selection, Summary, method};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Files of this prefix come and go, and are in no comparison.
pub(super) const POISON: &str = "poison";

/// What is asked.
pub(super) const PATTERNS: [&str; 4] = ["f($A)", "g($$$)", "const $A = $B", "missing($A)"];

/// A file's name and a match's JSON text, in order.
pub(super) type Answer = Vec<(String, String)>;

/// The right answer to each pattern.
pub(super) type Oracle = BTreeMap<&'static str, Answer>;

/// A query without an answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) began: Instant,
    pub(super) retries: bool,
    /// Whether the connection went, rather than an error came.
    pub(super) is_disconnected: bool,
    /// Whether it was said that it helps to ask again.
    pub(super) is_retryable: bool,
    pub(super) text: String,
}

/// What a load was told in all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) n_asked: u64,
    pub(super) failed: Vec<Failure>,
    /// Answers that weren't the oracle's.
    pub(super) wrong: Vec<String>,
    pub(super) slowest: Duration,
}

/// A client that asks for matches, and connects again when it has to.
pub(super) enum Asker {
    /// Asks a second time when a part of the daemon ends under it, as the command line does.
    Retrying(RetryingClient<Connect>),
    /// Asks once: it sees what a failure costs.
    Plain(PathBuf, Option<Client>),
}

type Connect = Box<dyn FnMut(Attempt) -> Result<Client, AskError> + Send>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("cannot connect: {0}")]
    Connect(String),
}

impl AskError {
    /// Whether the daemon promised that it helps to ask again.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Call(CallError::Remote(error)) => {
                error.data.as_ref().is_some_and(|data| data.retryable)
            }
            Self::Call(_) | Self::Connect(_) => false,
        }
    }

    fn is_disconnected(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_fatal())
    }
}

/// A connection, as soon as somebody makes one.
fn connect_patiently(socket: &Path) -> Result<Client, AskError> {
    let started = Instant::now();
    loop {
        match connect(socket) {
            Ok(client) => return Ok(client),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(AskError::Connect(format!("{error:#}")));
            }
            Err(_) => pause(Duration::from_millis(5)),
        }
    }
}

impl Asker {
    pub(super) fn retrying(socket: PathBuf) -> Self {
        Self::Retrying(RetryingClient::new(Box::new(move |_| connect_patiently(&socket))))
    }

    pub(super) fn plain(socket: PathBuf) -> Self {
        Self::Plain(socket, None)
    }

    /// The matches in files that don't come and go.
    pub(super) fn ask(&mut self, tree: &Path, pattern: &str) -> Result<Answer, AskError> {
        let cwd = tree.to_string_lossy().into_owned();
        let params = RunParams {
            selection: Selection { cwd, ..Selection::default() },
            matcher: MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() },
            language: Some("js".to_owned()),
            ..RunParams::default()
        };
        let mut answer = Answer::new();
        self.run(&params, |event| {
            if let Event::Item(item) = event
                && !item.file.starts_with(POISON)
            {
                answer.extend(item.matches.iter().map(|one| (item.file.clone(), one.to_owned())));
            }
            ControlFlow::Continue(())
        })?;
        Ok(answer)
    }

    fn run(
        &mut self,
        params: &RunParams,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Summary, AskError> {
        match self {
            Self::Retrying(client) => client.run(params, on_event),
            Self::Plain(socket, connected) => {
                let client = match connected {
                    Some(client) => client,
                    None => connected.insert(connect_patiently(socket)?),
                };
                let answer = client.call_streaming(method::RUN, params, on_event);
                if answer.as_ref().is_err_and(CallError::is_fatal) {
                    *connected = None;
                }
                Ok(answer?)
            }
        }
    }
}

/// The answers of a daemon that nothing has happened to.
pub(super) fn oracle(socket: &Path, tree: &Path) -> Result<Oracle> {
    let mut asker = Asker::retrying(socket.to_owned());
    PATTERNS.iter().map(|pattern| Ok((*pattern, asker.ask(tree, pattern)?))).collect()
}

/// Compares with the real ast-grep, match by match: file and range.
pub(super) fn equals_ast_grep(oracle: &Oracle, ast_grep: &Path, tree: &Path) -> Result<()> {
    for (pattern, answer) in oracle {
        let run = ["run", "--lang=js", "--json=stream", "--pattern", pattern];
        let output = Command::new(ast_grep).args(run).current_dir(tree).output()?;
        let theirs = String::from_utf8(output.stdout)?;
        let mut theirs = theirs.lines().map(place).collect::<Result<Vec<_>>>()?;
        let mut ours = answer.iter().map(|(_, text)| place(text)).collect::<Result<Vec<_>>>()?;
        theirs.sort();
        ours.sort();
        ensure!(theirs == ours, "ast-grep answers {pattern:?} otherwise");
    }
    Ok(())
}

fn place(text: &str) -> Result<String> {
    let found: serde_json::Value = serde_json::from_str(text).context("no match")?;
    Ok(format!("{} {}", found["file"], found["range"]))
}

/// Asks from so many threads until it is told to end.
pub(super) struct Load {
    ended: AtomicBool,
    /// Right answers, by client.
    n_answered: Vec<AtomicU64>,
    tally: Mutex<Tally>,
}

impl Load {
    pub(super) fn new(n_clients: usize) -> Self {
        let n_answered = (0..n_clients).map(|_| AtomicU64::new(0)).collect();
        Self { ended: AtomicBool::new(false), n_answered, tally: Mutex::default() }
    }

    /// One client's part, until the load ends.
    pub(super) fn ask_on(&self, mut asker: Asker, tree: &Path, oracle: &Oracle, client: usize) {
        let retries = matches!(asker, Asker::Retrying(_));
        let patterns = PATTERNS.iter().cycle().skip(client);
        for pattern in patterns {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            let began = Instant::now();
            let answer = asker.ask(tree, pattern);
            let mut tally = self.tally();
            tally.n_asked += 1;
            tally.slowest = tally.slowest.max(began.elapsed());
            match answer {
                Ok(answer) if oracle.get(pattern) == Some(&answer) => {
                    if let Some(n_answered) = self.n_answered.get(client) {
                        n_answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(answer) => {
                    let expected = oracle.get(pattern).map_or(0, Vec::len);
                    tally
                        .wrong
                        .push(format!("{pattern:?}: {} of {expected} matches", answer.len()));
                }
                Err(error) => tally.failed.push(Failure {
                    began,
                    retries,
                    is_disconnected: error.is_disconnected(),
                    is_retryable: error.is_retryable(),
                    text: format!("{:#}", anyhow::Error::from(error)),
                }),
            }
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What failed since this was asked last. It is no part of the tally then.
    pub(super) fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut self.tally().failed)
    }

    /// Right answers so far, by client.
    pub(super) fn answered(&self) -> Vec<u64> {
        self.n_answered.iter().map(|n| n.load(Ordering::Relaxed)).collect()
    }

    /// Right answers so far.
    pub(super) fn n_answered(&self) -> u64 {
        self.answered().iter().sum()
    }

    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(super) fn into_tally(self) -> Tally {
        self.tally.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
