//! Clients that ask all the time while the tree changes. What they are told is judged by whoever
//! knows what was changed when.

use super::journal::Span;
use super::question::{Matcher, Question, Told};
use crate::chaos::house::{PATIENCE, connect, pause};
use astscope_protocol::Client;
use astscope_protocol::client::CallError;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// One question's end.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) span: Span,
    pub(super) matcher: Matcher,
    /// The directory that it was about, if it wasn't the root.
    pub(super) below: Option<String>,
    pub(super) told: Result<Told, Refusal>,
}

/// Why there was no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) text: String,
    /// Whether the daemon said what is wrong, and that it helps to ask again.
    pub(super) is_retryable: bool,
    /// Whether the daemon said that there is no such directory.
    pub(super) is_missing: bool,
}

impl Refusal {
    pub(super) fn of(error: &CallError) -> Self {
        let code = error.code();
        Self {
            text: error.to_string(),
            is_retryable: code.is_some_and(astscope_protocol::messages::ErrorCode::retryable),
            is_missing: code == Some(astscope_protocol::messages::ErrorCode::PathNotFound),
        }
    }
}

/// Asks, and says when.
pub(super) fn ask(
    client: &mut Client,
    question: &Question,
    root: &Path,
) -> (Span, Result<Told, CallError>) {
    let began = Instant::now();
    let told = question.ask(client, root);
    (Span { began, ended: Instant::now() }, told)
}

/// One client's life: asks until `over`, about the root and in turn about `directories` in it, with a
/// `rest` between.
pub(super) fn live(
    (socket, root): (PathBuf, &Path),
    (matchers, directories): (&[Matcher], &[String]),
    rest: Duration,
    over: &AtomicBool,
    tell: &SyncSender<Asked>,
) {
    let mut client = None;
    for n in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let Some(&matcher) = matchers.get(n % matchers.len().max(1)) else { return };
        let below = (n % 3 == 2).then(|| directories.get(n / 3 % directories.len().max(1)));
        let below = below.flatten().cloned();
        let paths = below.iter().cloned().collect();
        let question = Question { with_source: true, ..Question::of(matcher, paths) };
        let began = Instant::now();
        let connected = match &mut client {
            Some(client) => client,
            None => match reconnect(&socket) {
                Ok(new) => client.insert(new),
                Err(text) => {
                    let span = Span { began, ended: Instant::now() };
                    let told = Err(Refusal { text, is_retryable: false, is_missing: false });
                    drop(tell.send(Asked { span, matcher, below, told }));
                    return;
                }
            },
        };
        let (span, told) = ask(connected, &question, root);
        if told.as_ref().is_err_and(CallError::is_fatal) {
            client = None;
        }
        let told = told.map_err(|error| Refusal::of(&error));
        pause(rest);
        // Nobody listens: it is over.
        if tell.send(Asked { span, matcher, below, told }).is_err() {
            return;
        }
    }
}

fn reconnect(socket: &Path) -> Result<Client, String> {
    let began = Instant::now();
    loop {
        match connect(socket) {
            Ok(client) => return Ok(client),
            Err(error) if began.elapsed() > PATIENCE => return Err(format!("{error:#}")),
            Err(_) => pause(Duration::from_millis(5)),
        }
    }
}
