//! One request in flight: how it is given up, and how its answer gets out.

use crate::records::Records;
use crate::subscriptions::{OnceAnswered, Subscriptions};
use astscope_pattern_matcher::service::{PatternError, PatternMatcherHandle};
use astscope_pattern_matcher::{CompileError, Matcher, MatcherSpec};
use astscope_protocol::LINE_BYTES_MAX;
use astscope_protocol::frame::{self, RpcError};
use astscope_protocol::messages::{ErrorCode, Item, Progress, method};
use astscope_querying::service::{QueryCache, Turn};
use astscope_querying::{Gone, Interrupt};
use astscope_syntax::Language;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

/// How long a query waits for a compiled pattern before it compiles its own.
const COMPILE_WITHIN: Duration = Duration::from_secs(1);

/// Progress notifications of one request at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(50);

/// The outgoing half of a connection: a bounded queue of complete lines.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    lines: mpsc::Sender<Vec<u8>>,
    /// Numbers the lines that are sent in chunks.
    chunk_streams: Arc<AtomicU64>,
}

impl Outgoing {
    pub(crate) fn new(lines: mpsc::Sender<Vec<u8>>) -> Self {
        Self { lines, chunk_streams: Arc::default() }
    }

    /// Queues a line, in chunks where it is too long; waits while the client is slow.
    ///
    /// # Cancel safety
    /// A line of several chunks that is given up half-way is never completed: whoever gives one up
    /// sends no more of its request.
    pub(crate) async fn send(&self, line: Vec<u8>) -> Result<(), Gone> {
        if line.len() <= LINE_BYTES_MAX {
            return self.lines.send(line).await.map_err(|_closed| Gone);
        }
        let stream = self.chunk_streams.fetch_add(1, Ordering::Relaxed);
        for piece in frame::split_line(&line, stream) {
            let piece = piece.map_err(|_too_large| Gone)?;
            self.lines.send(piece.into_owned()).await.map_err(|_closed| Gone)?;
        }
        Ok(())
    }

    /// Waits until there is room for a line.
    pub(crate) async fn room(&self) -> Result<(), Gone> {
        self.lines.reserve().await.map(drop).map_err(|_closed| Gone)
    }

    /// Queues a line if there is room for it; gives it back if not, or if it needs several.
    fn try_send(&self, line: Vec<u8>) -> Result<Option<Vec<u8>>, Gone> {
        if line.len() > LINE_BYTES_MAX {
            return Ok(Some(line));
        }
        match self.lines.try_send(line) {
            Ok(()) => Ok(None),
            Err(TrySendError::Full(line)) => Ok(Some(line)),
            Err(TrySendError::Closed(_)) => Err(Gone),
        }
    }
}

/// What a request's handler works with.
#[derive(Clone, Debug)]
pub(crate) struct RequestContext {
    /// The daemon's own name for the request: session and number.
    pub(crate) name: Arc<str>,
    pub(crate) id: u64,
    pub(crate) out: Outgoing,
    pub(crate) cancelled: CancellationToken,
    pub(crate) runtime: Handle,
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    /// Its turn, if it is one of those that take turns.
    pub(crate) turn: Option<Turn>,
    /// Who compiles its patterns, if a workspace serves it.
    pub(crate) patterns: Option<PatternMatcherHandle>,
    /// What was found before, if it is a query.
    pub(crate) results: Option<QueryCache<Records>>,
    /// The connection's.
    pub(crate) subscriptions: Subscriptions,
    pub(crate) once_answered: OnceAnswered,
    /// Whether nobody waits for it who could be told how far it is.
    pub(crate) is_quiet: bool,
}

impl RequestContext {
    /// Why the request should end now, if it should.
    pub(crate) fn interrupt(&self) -> Option<Interrupt> {
        if self.cancelled.is_cancelled() {
            return Some(Interrupt::Cancelled);
        }
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        passed.then_some(Interrupt::DeadlineExceeded)
    }

    /// A pattern, compiled: by whoever remembers the patterns of a workspace, or here. Blocks.
    pub(crate) fn compile(
        &self,
        language: Language,
        spec: &MatcherSpec,
        rewrite: Option<&str>,
    ) -> Result<Arc<Matcher>, CompileError> {
        if let Some(patterns) = &self.patterns {
            let compiled = patterns.compile(COMPILE_WITHIN, language, spec, rewrite);
            match self.runtime.block_on(compiled) {
                Ok(matcher) => return Ok(matcher),
                Err(PatternError::Compile(error)) => return Err(error),
                // Remembering saves time; no query fails because nobody remembers.
                Err(error) => tracing::debug!(%error, "compiled without the workspace's services"),
            }
        }
        Matcher::compile(language, spec, rewrite).map(Arc::new)
    }

    /// The request, now that it has its turn.
    pub(crate) fn on_turn(self, turn: &Turn) -> Self {
        Self { turn: Some(turn.clone()), ..self }
    }

    /// The same without its request, for what goes on when that is answered.
    pub(crate) fn for_later(&self, cancelled: CancellationToken) -> Self {
        let once_answered = OnceAnswered::default();
        Self { cancelled, once_answered, is_quiet: true, deadline: None, ..self.clone() }
    }

    /// Starts the clock of a request that brought a deadline.
    pub(crate) fn with_deadline_ms(mut self, deadline_ms: Option<u64>) -> Result<Self, RpcError> {
        if let Some(ms) = deadline_ms {
            if ms > astscope_protocol::DEADLINE_MS_MAX {
                let limit = astscope_protocol::DEADLINE_MS_MAX;
                let message = format!("a deadline of {ms} ms is over the limit of {limit} ms");
                return Err(RpcError::new(ErrorCode::InvalidParams, message));
            }
            self.deadline = Some(self.started + Duration::from_millis(ms));
        }
        Ok(self)
    }

    /// Sends an item from the request's thread, which waits while the client is slow and the
    /// request isn't given up.
    pub(crate) fn send_item(&self, item: Item) -> Result<(), Gone> {
        let mut line = Vec::new();
        frame::encode_item(&mut line, item).map_err(|_unencodable| Gone)?;
        let Some(line) = self.out.try_send(line)? else { return Ok(()) };
        let sent = async {
            tokio::select! {
                biased;
                () = self.cancelled.cancelled() => Err(Gone),
                sent = self.out.send(line) => sent,
            }
        };
        match &self.turn {
            Some(turn) => turn.wait(sent),
            None => self.runtime.block_on(sent),
        }
    }

    /// A callback that reports how far a phase is, not too often.
    pub(crate) fn progress(
        &self,
        phase: &'static str,
    ) -> impl Fn(usize, usize) + Send + Sync + use<> {
        let next = AtomicU64::new(0);
        let (id, out, started) = (self.id, self.out.clone(), self.started);
        let is_quiet = self.is_quiet;
        move |done, total| {
            if is_quiet {
                return;
            }
            let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let due = next.load(Ordering::Relaxed);
            let step = u64::try_from(PROGRESS_EVERY.as_millis()).unwrap_or(u64::MAX);
            // One thread of many wins the right to report.
            let won = now >= due
                && next
                    .compare_exchange(due, now + step, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if !won && done < total {
                return;
            }
            let progress =
                Progress { id, phase: phase.to_owned(), done: done as u64, total: total as u64 };
            let mut line = Vec::new();
            if frame::encode_notification(&mut line, method::PROGRESS, &progress).is_ok() {
                // Progress is news, not an answer: a client that is slow to read does without.
                let _unheard = out.try_send(line);
            }
        }
    }
}
