//! One client: lines in, requests out to threads, answers back in a bounded queue.
//!
//! The reader never blocks on a request, so that `$/cancel` gets through; it does block when the
//! client does not read its answers, so that nothing piles up. When the client goes away, what it
//! asked for is cancelled.

use crate::handlers;
use crate::lifecycle::{Daemon, Phase};
use crate::request::{Outgoing, RequestContext};
use crate::spawn;
use astscope_protocol::frame::{self, Incoming, LineDecoder, Request, RpcError};
use astscope_protocol::messages::{Cancel, ErrorCode, HelloParams, HelloResult, PROTOCOL, method};
use astscope_protocol::{LINE_BYTES_MAX, REQUESTS_IN_FLIGHT_MAX};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Lines that wait for a slow client. A line is one file's matches or a 4 MiB piece of them.
const OUTGOING_LINES_MAX: usize = 32;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// Flags of the requests in flight, by id.
type InFlight = Arc<Mutex<BTreeMap<u64, Arc<AtomicBool>>>>;

struct Connection {
    daemon: Arc<Daemon>,
    out: Outgoing,
    in_flight: InFlight,
    has_greeted: bool,
}

/// Serves a client until it leaves or the daemon does.
pub(crate) async fn serve(daemon: Arc<Daemon>, stream: UnixStream) {
    let (reader, writer) = stream.into_split();
    let (lines, queue) = mpsc::channel(OUTGOING_LINES_MAX);
    let connection = Connection {
        daemon,
        out: Outgoing::new(lines),
        in_flight: InFlight::default(),
        has_greeted: false,
    };
    // The writer ends when the reader and all requests are done, so every answer gets out.
    tokio::join!(read_lines(connection, reader), write_lines(writer, queue));
}

async fn read_lines(mut connection: Connection, mut reader: OwnedReadHalf) {
    let daemon = Arc::clone(&connection.daemon);
    let mut decoder = LineDecoder::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut phase = daemon.phase.subscribe();
    'connected: loop {
        let n = tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(n) if n > 0 => n,
                _ => break,
            },
            // Draining ends when the last request has been answered, stopping at once.
            _ = phase.wait_for(|phase| *phase == Phase::Stopping) => break,
        };
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
            if !connection.take(line).await {
                break 'connected;
            }
        }
    }
    connection.cancel_all();
}

async fn write_lines(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    let mut lines = Vec::new();
    while queue.recv_many(&mut lines, OUTGOING_LINES_MAX).await > 0 {
        let written = write_all(&mut writer, &lines).await;
        lines.clear();
        if written.is_err() {
            // The client is gone: closing the queue tells the requests.
            return;
        }
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

impl Connection {
    /// Deals with one line; `false` once nobody listens any more.
    async fn take(&mut self, line: Result<Incoming, (Option<u64>, RpcError)>) -> bool {
        match line {
            Ok(Incoming::Request(request)) => match self.start(request).await {
                Ok(()) => true,
                Err((id, error)) => self.answer_error(Some(id), &error).await,
            },
            Ok(Incoming::Notification(notification)) => {
                if notification.method == method::CANCEL
                    && let Ok(Cancel { id }) = serde_json::from_str(notification.params.get())
                    && let Some(flag) = lock(&self.in_flight).get(&id)
                {
                    flag.store(true, Ordering::Relaxed);
                }
                true
            }
            // The daemon asks nothing, so it expects no answer.
            Ok(Incoming::Response(_)) => true,
            Err((id, error)) => self.answer_error(id, &error).await,
        }
    }

    async fn start(&mut self, request: Request) -> Result<(), (u64, RpcError)> {
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
        let cancelled = Arc::new(AtomicBool::new(false));
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
            in_flight.insert(id, Arc::clone(&cancelled));
        }
        let context = RequestContext {
            id,
            out: self.out.clone(),
            cancelled,
            started: Instant::now(),
            deadline: None,
        };
        let (daemon, in_flight) = (Arc::clone(&self.daemon), Arc::clone(&self.in_flight));
        let busy = daemon.begin();
        spawn::blocking(move || {
            run_request(&daemon, context, &request, &in_flight);
            drop(busy);
        });
        Ok(())
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

    fn cancel_all(&self) {
        for flag in lock(&self.in_flight).values() {
            flag.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs a request's handler and answers, whatever happens: a panic costs this request only.
fn run_request(
    daemon: &Arc<Daemon>,
    context: RequestContext,
    request: &Request,
    in_flight: &InFlight,
) {
    let (id, out) = (context.id, context.out.clone());
    let handled = catch_unwind(AssertUnwindSafe(|| handlers::handle(daemon, context, request)));
    let mut line = Vec::new();
    let encoded = match handled {
        Ok(Ok(result)) => frame::encode_response(&mut line, id, &result),
        Ok(Err(error)) => {
            let is_leaving = *daemon.phase.borrow() == Phase::Stopping;
            let error = match error.error_code() {
                // Nobody gave it up but the daemon itself.
                Some(ErrorCode::Cancelled) if is_leaving => shutting_down(),
                _ => error,
            };
            frame::encode_error(&mut line, Some(id), &error)
        }
        Err(_panic) => {
            tracing::error!(method = request.method, "a request's handler panicked");
            let message = "a bug of the daemon's: the request's handler panicked";
            frame::encode_error(&mut line, Some(id), &RpcError::new(ErrorCode::Internal, message))
        }
    };
    // Before the answer is out, so that a client that has it may use the id again.
    lock(in_flight).remove(&id);
    if encoded.is_err() || out.send_blocking(line).is_err() {
        tracing::debug!(id, "the client left before its answer");
    }
}

fn shutting_down() -> RpcError {
    RpcError::new(ErrorCode::ShuttingDown, "the daemon is leaving")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The maps behind these locks are whole whenever they are not held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
