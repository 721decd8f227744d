//! One client: lines in, requests out to children of their own, answers back in a bounded queue.
//!
//! A small tree: `writer`, `requests`, `subscriptions`, `reader`, started in this order and stopped in reverse, so
//! that whatever was answered still gets out. Whichever of reader and writer ends takes the whole
//! connection along; none is restarted, because a stream that lost its place is of no use. When the
//! client goes away, what it asked for is cancelled.
//!
//! The reader never waits for a request, so that `$/cancel` gets through; it does wait when the
//! client does not read its answers, so that nothing piles up.

use crate::daemon::{Busy, Daemon, Phase};
use crate::gateway::{Entry, NewConnection};
use crate::request::{Outgoing, RequestContext};
use crate::subscriptions::{OnceAnswered, Subscriptions};
use crate::telemetry::Measured;
use crate::{errors, handlers};
use astscope_protocol::frame::{self, Incoming, LineDecoder, Request, RpcError};
use astscope_protocol::messages::{Cancel, ErrorCode, HelloParams, HelloResult, PROTOCOL, method};
use astscope_protocol::{LINE_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use astscope_supervision::{
    AutoShutdown, ChildSpec, Ctx, DynamicSupervisor, Exit, Restart, Stop, Strategy, SupervisorSpec,
};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Lines that wait for a slow client. A line is one file's matches or a 4 MiB piece of them.
const OUTGOING_LINES_MAX: usize = 32;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// How long a request that is given up may take to notice, and its last answer to be queued.
const REQUEST_STOP: Duration = Duration::from_secs(2);

/// How long a connection that ends waits for the client to read its last answers.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(2);

/// What gives up each request in flight, by id.
type InFlight = Arc<Mutex<BTreeMap<u64, CancellationToken>>>;

/// The subtree of a client.
pub(crate) fn spec(new: NewConnection) -> ChildSpec {
    let NewConnection { entry, arrival, daemon, connected } = new;
    let session = entry.session();
    let (give_half, half) = oneshot::channel();
    let (lines, queue) = mpsc::channel(OUTGOING_LINES_MAX);
    let requests = DynamicSupervisor::new("requests", request);
    let subscriptions = Subscriptions::new(session);
    let connection = Connection {
        entry,
        daemon,
        out: Outgoing::new(lines),
        in_flight: InFlight::default(),
        requests: requests.clone(),
        subscriptions: subscriptions.clone(),
        n_requests: 0,
        has_greeted: false,
    };
    let write = ChildSpec::once("writer", |ctx| write_lines(ctx, half, queue));
    let read = ChildSpec::once("reader", move |ctx| async move {
        let Some(stream) = arrival.take() else { return Ok(()) };
        let (reader, writer) = stream.into_split();
        // Without a writer the whole connection is about to end.
        let ended = match give_half.send(writer) {
            Ok(()) => read_lines(ctx, connection, reader).await,
            Err(_unsent) => Ok(()),
        };
        drop(connected);
        ended
    });
    let most = REQUESTS_IN_FLIGHT_MAX as usize;
    // Nothing here is restarted: any failure ends the connection.
    let tree = SupervisorSpec::new(Strategy::RestForOne)
        .intensity(0, Duration::from_secs(1))
        .auto_shutdown(AutoShutdown::AnySignificant)
        .child(write.significant().stop(Stop::Within(LAST_ANSWERS_WAIT)))
        .child(requests.spec(SupervisorSpec::dynamic(most)))
        .child(subscriptions.spec())
        .child(read.significant());
    ChildSpec::supervisor(format!("client_{session}"), tree).restart(Restart::Temporary)
}

async fn read_lines(
    ctx: Ctx,
    mut connection: Connection,
    mut reader: OwnedReadHalf,
) -> Result<(), Exit> {
    let daemon = Arc::clone(&connection.daemon);
    let mut decoder = LineDecoder::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        ctx.idle();
        let n = tokio::select! {
            biased;
            () = ctx.stopping() => return Ok(()),
            read = reader.read(&mut buffer) => match read {
                Ok(n) if n > 0 => n,
                _ => return Ok(()), // it has left
            },
        };
        ctx.progress();
        daemon.touch();
        let mut input = &buffer[..n];
        loop {
            let line = match decoder.next_line(&mut input) {
                None => break,
                Some(Ok(line)) => {
                    frame::parse(line).map_err(|rejected| (rejected.id, rejected.error))
                }
                Some(Err(too_long)) => {
                    Err((None, RpcError::new(ErrorCode::MalformedRequest, too_long.to_string())))
                }
            };
            if !connection.take(&ctx, line).await {
                return Ok(());
            }
        }
    }
}

async fn write_lines(
    ctx: Ctx,
    half: oneshot::Receiver<OwnedWriteHalf>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) -> Result<(), Exit> {
    ctx.idle();
    // It has nothing to write before the reader has taken the stream.
    let half = tokio::select! {
        biased;
        half = half => half,
        () = ctx.stopping() => return Ok(()),
    };
    let Ok(mut writer) = half else { return Ok(()) };
    let mut lines = Vec::new();
    loop {
        ctx.idle();
        let n = tokio::select! {
            biased;
            n = queue.recv_many(&mut lines, OUTGOING_LINES_MAX) => n,
            // Whoever could have queued something is gone by now.
            () = ctx.stopping() => 0,
        };
        if n == 0 {
            return Ok(());
        }
        ctx.progress();
        if write_all(&mut writer, &lines).await.is_err() {
            return Ok(()); // the client is gone
        }
        lines.clear();
    }
}

/// Writes several lines at once: a system call for each would cost more than small lines do.
async fn write_all(writer: &mut OwnedWriteHalf, lines: &[Vec<u8>]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = lines.iter().map(|line| IoSlice::new(line)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        match writer.write_vectored(rest).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n_bytes => IoSlice::advance_slices(&mut rest, n_bytes),
        }
    }
    Ok(())
}

struct Connection {
    daemon: Arc<Daemon>,
    out: Outgoing,
    in_flight: InFlight,
    requests: DynamicSupervisor<Started>,
    subscriptions: Subscriptions,
    entry: Entry,
    /// Requests so far. Numbers them, since a client may use an id again.
    n_requests: u64,
    has_greeted: bool,
}

impl Connection {
    /// Deals with one line; `false` once nobody listens any more.
    async fn take(&mut self, ctx: &Ctx, line: Result<Incoming, (Option<u64>, RpcError)>) -> bool {
        match line {
            Ok(Incoming::Request(request)) => match self.start(ctx, request).await {
                Ok(()) => true,
                Err((id, error)) => self.answer_error(Some(id), &error).await,
            },
            Ok(Incoming::Notification(notification)) => {
                if notification.method == method::CANCEL
                    && let Ok(Cancel { id }) = serde_json::from_str(notification.params.get())
                    && let Some(cancelled) = lock(&self.in_flight).get(&id)
                {
                    cancelled.cancel();
                }
                true
            }
            // The daemon asks nothing, so it expects no answer.
            Ok(Incoming::Response(_)) => true,
            Err((id, error)) => self.answer_error(id, &error).await,
        }
    }

    async fn start(&mut self, ctx: &Ctx, request: Request) -> Result<(), (u64, RpcError)> {
        let id = request.id;
        let refuse = |code, message: &str| Err((id, RpcError::new(code, message)));
        match request.method.as_str() {
            method::HELLO => {
                let hello = self.greet(&request).map_err(|error| (id, error))?;
                self.has_greeted = true;
                self.answer(id, &hello).await;
                return Ok(());
            }
            method::STOP => {
                let params = request.params().map_err(|error| (id, error))?;
                // Answer first: stopping closes this connection too.
                self.answer(id, &serde_json::json!({})).await;
                self.daemon.stop(&params);
                return Ok(());
            }
            _ => {}
        }
        if !self.has_greeted {
            return refuse(ErrorCode::IncompatibleProtocol, "say `hello` first");
        }
        if *self.daemon.phase.borrow() != Phase::Running {
            return Err((id, shutting_down()));
        }
        // The client's own. Whatever else ends a request ends what hangs on it only.
        let asked_to_end = CancellationToken::new();
        {
            let mut in_flight = lock(&self.in_flight);
            if in_flight.len() >= REQUESTS_IN_FLIGHT_MAX as usize {
                return refuse(
                    ErrorCode::Overloaded,
                    "too many requests are in flight on this connection",
                );
            }
            if in_flight.contains_key(&id) {
                return refuse(ErrorCode::MalformedRequest, "a request with this id is in flight");
            }
            in_flight.insert(id, asked_to_end.clone());
        }
        let in_flight = OnTheList { id, list: Arc::clone(&self.in_flight) };
        let is_answered = Arc::new(AtomicBool::new(false));
        self.n_requests += 1;
        let name: Arc<str> = format!("{}-{}", self.entry.session(), self.n_requests).into();
        let started = Started {
            daemon: Arc::clone(&self.daemon),
            busy: self.daemon.begin(),
            context: RequestContext {
                name: Arc::clone(&name),
                id,
                out: self.out.clone(),
                cancelled: asked_to_end.child_token(),
                runtime: self.daemon.runtime.clone(),
                started: Instant::now(),
                deadline: None,
                turn: None,
                patterns: None,
                results: None,
                subscriptions: self.subscriptions.clone(),
                once_answered: OnceAnswered::default(),
                is_quiet: false,
            },
            request: Arc::new(request),
            asked_to_end,
            in_flight,
            is_answered: Arc::clone(&is_answered),
        };
        match self.requests.start_child(started).await {
            Ok(Some(child)) => {
                let (mut monitor, out) = (child.monitor(), self.out.clone());
                let daemon = Arc::clone(&self.daemon);
                ctx.spawn(async move {
                    let exit = monitor.down().await;
                    if !is_answered.load(Ordering::Acquire) {
                        let error = ended(&exit, daemon.is_leaving());
                        // In vain if the client is gone, which may be why.
                        let _gone = out.send(error_line(id, &name, &error)).await;
                    }
                });
                Ok(())
            }
            Ok(None) => Ok(()), // a request has no init that could refuse
            Err(error) => {
                let message = format!("the request can't be started: {error}");
                Err((id, RpcError::new(ErrorCode::Overloaded, message)))
            }
        }
    }

    fn greet(&self, request: &Request) -> Result<HelloResult, RpcError> {
        let hello: HelloParams = request.params()?;
        let Some(protocol) = PROTOCOL.common(hello.protocol) else {
            let message = format!(
                "this daemon speaks protocol {} to {}, the client {} to {}",
                PROTOCOL.min, PROTOCOL.max, hello.protocol.min, hello.protocol.max
            );
            return Err(RpcError::new(ErrorCode::IncompatibleProtocol, message));
        };
        self.entry.greeted(format!("{} {}", hello.client.name, hello.client.version));
        Ok(HelloResult {
            protocol,
            server: self.daemon.peer(),
            pid: std::process::id(),
            line_bytes_max: LINE_BYTES_MAX as u64,
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
        })
    }

    async fn answer(&self, id: u64, result: &impl serde::Serialize) -> bool {
        let mut line = Vec::new();
        frame::encode_response(&mut line, id, result).is_ok() && self.out.send(line).await.is_ok()
    }

    async fn answer_error(&self, id: Option<u64>, error: &RpcError) -> bool {
        let mut line = Vec::new();
        frame::encode_error(&mut line, id, error).is_ok() && self.out.send(line).await.is_ok()
    }
}

/// A request that is about to run.
struct Started {
    daemon: Arc<Daemon>,
    context: RequestContext,
    request: Arc<Request>,
    asked_to_end: CancellationToken,
    busy: Busy,
    in_flight: OnTheList,
    is_answered: Arc<AtomicBool>,
}

/// A request on its connection's list, until it is dropped.
struct OnTheList {
    id: u64,
    list: InFlight,
}

impl Drop for OnTheList {
    fn drop(&mut self) {
        lock(&self.list).remove(&self.id);
    }
}

fn request(started: Started) -> ChildSpec {
    let id = format!("request_{}", started.context.name);
    ChildSpec::once(id, |ctx| run_request(ctx, started)).stop(Stop::Within(REQUEST_STOP))
}

/// Runs a request's handler and answers, whatever happens: a panic costs this request only.
async fn run_request(ctx: Ctx, started: Started) -> Result<(), Exit> {
    let Started { daemon, context, request, asked_to_end, busy, in_flight, is_answered } = started;
    let (id, name, begun) = (context.id, Arc::clone(&context.name), context.started);
    let (out, cancelled) = (context.out.clone(), context.cancelled.clone());
    let once_answered = context.once_answered.clone();
    // Also when this future is dropped, which is how a kill comes.
    let _given_up_with_it = cancelled.clone().drop_guard();
    let span = tracing::info_span!("request", request = %name, method = request.method);
    let handled = handlers::handle(&ctx, &daemon, context, request).instrument(span);
    tokio::pin!(handled);
    let handled = tokio::select! {
        biased;
        handled = &mut handled => handled,
        () = ctx.stopping() => {
            cancelled.cancel();
            handled.await
        }
    };
    let is_leaving = daemon.is_leaving();
    let (answered, exit) = match handled {
        // Nobody gave it up but the daemon itself.
        Ok(Err(error)) if is_leaving && is_given_up(&error) => (Err(shutting_down()), Ok(())),
        // Its client didn't either: a part that it ran in has ended.
        Ok(Err(error)) if is_cancelled(&error) && !asked_to_end.is_cancelled() => {
            (Err(ended(&Exit::Killed, is_leaving)), Ok(()))
        }
        Ok(answered) => (answered, Ok(())),
        Err(exit) => (Err(ended(&exit, is_leaving)), Err(exit)),
    };
    let failed = answered.as_ref().is_err_and(is_own_fault);
    if let Err(error) = &answered
        && failed
    {
        tracing::warn!(request = %name, error = error.message, "a request failed");
    }
    let has_succeeded = answered.is_ok();
    let measured = Measured::Request { took: begun.elapsed(), failed };
    let line = match answered {
        Ok(result) => {
            let mut line = Vec::new();
            // An answer is JSON text already, which can be written into a vector.
            let _infallible = frame::encode_tagged_response(&mut line, id, &name, &result);
            line
        }
        Err(error) => error_line(id, &name, &error),
    };
    // Before the answer is out, so that a client that has it may use the id again.
    drop(in_flight);
    is_answered.store(true, Ordering::Release);
    // News: telemetry that is full or restarting does without.
    let _unheard = daemon.telemetry.send_now(measured);
    if out.send(line).await.is_ok() {
        if has_succeeded {
            once_answered.answered();
        }
    } else {
        tracing::debug!(request = %name, "the client left before its answer");
    }
    once_answered.is_over();
    drop(busy);
    exit
}

fn error_line(id: u64, name: &str, error: &RpcError) -> Vec<u8> {
    let mut line = Vec::new();
    // Errors are structs of texts and numbers, which always serialise.
    let _infallible = frame::encode_tagged_error(&mut line, Some(id), name, error);
    line
}

/// What a request is answered with whose handler has not come to an answer.
pub(crate) fn ended(exit: &Exit, is_leaving: bool) -> RpcError {
    match exit {
        Exit::Panicked(_) => errors::panicked(),
        // Parts are also stopped to be started again, and then it helps to ask again.
        Exit::Shutdown | Exit::ShutdownWith(_) if is_leaving => shutting_down(),
        other => {
            let message = format!("the part that ran the request ended: {other}");
            RpcError::new(ErrorCode::Restarting, message)
        }
    }
}

fn is_cancelled(error: &RpcError) -> bool {
    error.error_code() == Some(ErrorCode::Cancelled)
}

fn is_given_up(error: &RpcError) -> bool {
    matches!(error.error_code(), Some(ErrorCode::Cancelled | ErrorCode::Restarting))
}

/// Whether the daemon is to blame, and not what was asked.
fn is_own_fault(error: &RpcError) -> bool {
    matches!(
        error.error_code(),
        Some(ErrorCode::Internal | ErrorCode::Restarting | ErrorCode::Overloaded)
    )
}

pub(crate) fn shutting_down() -> RpcError {
    RpcError::new(ErrorCode::ShuttingDown, "the daemon is leaving")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps behind these locks are whole whenever they are not held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_stopped_is_told_whether_the_daemon_leaves_or_only_a_part_of_it() {
        let code = |exit, is_leaving| ended(&exit, is_leaving).error_code();
        assert_eq!(code(Exit::Shutdown, true), Some(ErrorCode::ShuttingDown));
        assert_eq!(code(Exit::Shutdown, false), Some(ErrorCode::Restarting));
        assert_eq!(code(Exit::Killed, true), Some(ErrorCode::Restarting));
    }
}
