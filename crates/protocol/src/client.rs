//! A blocking client: one connection, calls one after the other, answers streamed to a closure.
//!
//! The command line spends its time here when a query has many matches, so an item's matches stay
//! raw text that can be printed as it is, and are not even looked into to find their ends.

mod connect;
mod receive;
mod retry;

pub use connect::ConnectError;
pub use retry::{Attempt, ReadCanceller, ReadRequest, RetryingClient};

use crate::frame::{
    ChunksTooLarge, EncodeError, HalfLine, LineTooLong, Rejected, RpcError, encode_notification,
    encode_request,
};
use crate::messages::{
    Cancel, Difference, Ended, ErrorCode, Item, Progress, Resync, Settled, method,
};
use receive::{Received, Receiver};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A connection to the daemon on which `hello` has succeeded.
///
/// After [`CallError::is_fatal`] errors it is of no more use.
#[derive(Debug)]
pub struct Client {
    receiver: Receiver,
    outbox: Outbox,
    next_id: u64,
    line_bytes_max: usize,
    /// Answers that came while another request's was awaited.
    early: BTreeMap<u64, Outcome>,
}

/// What comes before a request's answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// A file's matches.
    Item(Item),
    /// How far the request is.
    Progress(Progress),
    /// What is told to a subscription, which may come before any answer.
    News(News),
}

/// What is told to a subscription.
#[derive(Clone, Debug)]
pub enum News {
    /// What was told before is void.
    Resync(Resync),
    /// What is other in one file.
    Difference(Difference),
    /// What was told is whole.
    Settled(Settled),
    /// Nothing more is told.
    Ended(Ended),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon says so.
    #[error("{0}")]
    Remote(RpcError),
    /// The parameters can't be written as JSON.
    #[error("can't encode a request")]
    Encode(#[source] EncodeError),
    /// The daemon would refuse a line of this length; nothing was sent.
    #[error("request is {bytes} bytes long, the daemon accepts {max}")]
    RequestTooLong {
        /// Length of the request's line.
        bytes: usize,
        /// Longest line that the daemon accepts.
        max: usize,
    },
    /// The request could not be sent.
    #[error("can't send to the daemon")]
    Send(#[source] io::Error),
    /// The answer could not be received.
    #[error("can't receive from the daemon")]
    Receive(#[source] io::Error),
    /// The daemon closed the connection before it answered.
    #[error("the daemon closed the connection before it answered")]
    Disconnected,
    /// The daemon closed the connection, or died, within a line.
    #[error("the daemon closed the connection within a line")]
    HalfLine(#[source] HalfLine),
    /// The daemon sent a line over the limit.
    #[error("the daemon broke the protocol")]
    LineTooLong(#[source] LineTooLong),
    /// The daemon sent more pieces of lines than anybody could want.
    #[error("the daemon broke the protocol")]
    ChunksTooLarge(#[source] ChunksTooLarge),
    /// The daemon sent something that isn't JSON-RPC.
    #[error("the daemon broke the protocol")]
    Malformed(#[source] Rejected),
    /// The daemon sent a notification of a known method with parameters of another shape.
    #[error("can't read a `{method}` notification of the daemon")]
    UnexpectedParams {
        /// The notification's method.
        method: String,
        /// What is wrong with them.
        source: serde_json::Error,
    },
    /// The result has another shape than the caller expects; the connection is fine.
    #[error("can't read the daemon's answer")]
    UnexpectedResult(#[source] serde_json::Error),
}

impl CallError {
    /// The daemon's error code, if the daemon answered with an error.
    pub fn code(&self) -> Option<ErrorCode> {
        if let Self::Remote(error) = self { error.error_code() } else { None }
    }

    /// The daemon's own name for the request that failed, if the daemon answered with an error and
    /// gave it one: its log has more under this name.
    pub fn request_id(&self) -> Option<&str> {
        if let Self::Remote(error) = self { error.request_id.as_deref() } else { None }
    }

    /// Whether the connection can't be used any more.
    pub fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::Remote(_)
                | Self::Encode(_)
                | Self::RequestTooLong { .. }
                | Self::UnexpectedResult(_)
        )
    }
}

/// The answer to a request, before it is typed.
type Outcome = Result<Box<RawValue>, RpcError>;

impl Client {
    /// A client on a fresh connection, before `hello`.
    fn new(stream: UnixStream) -> io::Result<Self> {
        let outbox = Outbox(Arc::new(Mutex::new(Sending {
            stream: stream.try_clone()?,
            in_flight: BTreeSet::new(),
        })));
        Ok(Self {
            receiver: Receiver::new(stream),
            outbox,
            next_id: 1,
            line_bytes_max: crate::limits::LINE_BYTES_MAX,
            early: BTreeMap::new(),
        })
    }

    /// Sends a request without waiting for its answer, and returns its id for [`Client::wait`].
    pub fn request<P: Serialize + ?Sized>(
        &mut self,
        method: &str,
        params: &P,
    ) -> Result<u64, CallError> {
        let id = self.next_id;
        let mut line = Vec::new();
        encode_request(&mut line, id, method, params).map_err(CallError::Encode)?;
        let (bytes, max) = (line.len() - 1, self.line_bytes_max);
        if bytes > max {
            return Err(CallError::RequestTooLong { bytes, max });
        }
        self.next_id += 1;
        let mut sending = self.outbox.lock();
        sending.stream.write_all(&line).map_err(CallError::Send)?;
        sending.in_flight.insert(id);
        Ok(id)
    }

    /// Waits for the answer to a request, and hands over what comes before it.
    ///
    /// Events of other unanswered requests are handed over too; their `id` tells. When `on_event`
    /// breaks, the request is cancelled, later events are dropped, and the answer is whatever the
    /// daemon says then: the error `cancelled`, or a result that was already on its way.
    pub fn wait<R: DeserializeOwned>(
        &mut self,
        id: u64,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, CallError> {
        let mut listening = true;
        let outcome = loop {
            if let Some(outcome) = self.early.remove(&id) {
                break outcome;
            }
            let event = match self.receiver.next()? {
                Received::Event(event) => event,
                Received::Response { id: Some(answered), outcome } => {
                    self.outbox.lock().in_flight.remove(&answered);
                    self.early.insert(answered, outcome);
                    continue;
                }
                // A line of ours was unreadable to the daemon, which can't say whose it was.
                // Waiting on could be forever.
                Received::Response { id: None, outcome } => break outcome,
            };
            if listening && on_event(event).is_break() {
                listening = false;
                self.outbox.lock().cancel(id).map_err(CallError::Send)?;
            }
        };
        let result = outcome.map_err(CallError::Remote)?;
        serde_json::from_str(result.get()).map_err(CallError::UnexpectedResult)
    }

    /// Asks and waits, see [`Client::wait`].
    pub fn call_streaming<P: Serialize + ?Sized, R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &P,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, CallError> {
        let id = self.request(method, params)?;
        self.wait(id, on_event)
    }

    /// Asks and waits, for requests that stream nothing of interest.
    pub fn call<P: Serialize + ?Sized, R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &P,
    ) -> Result<R, CallError> {
        self.call_streaming(method, params, |_| ControlFlow::Continue(()))
    }

    /// Waits for what is told to a subscription, with no request unanswered.
    ///
    /// What is left of earlier requests is passed over.
    pub fn news(&mut self) -> Result<News, CallError> {
        loop {
            if let Received::Event(Event::News(news)) = self.receiver.next()? {
                return Ok(news);
            }
        }
    }

    /// A handle that cancels this client's requests from another thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.outbox.clone())
    }
}

/// Cancels a client's requests from another thread, such as the one that sees Ctrl-C.
#[derive(Clone, Debug)]
pub struct Canceller(Outbox);

impl Canceller {
    /// Asks the daemon to give up every unanswered request; says whether there was any.
    ///
    /// The client's call returns as soon as the daemon has answered.
    pub fn cancel(&self) -> io::Result<bool> {
        let mut sending = self.0.lock();
        let ids: Vec<u64> = sending.in_flight.iter().copied().collect();
        for &id in &ids {
            sending.cancel(id)?;
        }
        Ok(!ids.is_empty())
    }
}

/// The sending side, shared by a client and its cancellers so that lines never interleave.
#[derive(Clone, Debug)]
struct Outbox(Arc<Mutex<Sending>>);

#[derive(Debug)]
struct Sending {
    stream: UnixStream,
    /// Unanswered requests. Changed under the same lock as the stream is written, so that a
    /// cancellation can't overtake its request.
    in_flight: BTreeSet<u64>,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, Sending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sending {
    fn cancel(&mut self, id: u64) -> io::Result<()> {
        let mut line = Vec::new();
        encode_notification(&mut line, method::CANCEL, &Cancel { id })
            .map_err(|error| io::Error::other(error.source))?;
        self.stream.write_all(&line)
    }
}

#[cfg(test)]
mod tests;
