//! Reads that are made a second time when a part of the daemon ends under them.
//!
//! The daemon is a supervision tree: a node that fails is started again within milliseconds, and
//! costs the requests that it was running. Nobody who only asked should have to know. It is done
//! here and not by each program, because what makes a second answer the same as the first one is
//! the protocol's own promise: items come in a fixed order, and each names its content.
//!
//! A second request is the whole request again, with the same limit. The items that the caller has
//! already are left out of its answer, as long as each is the one that was handed over: same file,
//! same content, same number of matches. So what the caller has got in the end is exactly the
//! second answer, and its summary is true of it: the limit, every count, the revision. Where the
//! tree changed in between, so that the second answer begins otherwise, there is no way to mend
//! what was handed over, and the call fails as it would have without a second attempt.

use super::{CallError, Canceller, Client, Event};
use crate::frame::RpcError;
use crate::messages::{
    Delivery, ErrorCode, HealthParams, Item, OpenParams, ParseParams, RunParams, ScanParams,
    StatusParams, TreeParams, method,
};
use serde::de::DeserializeOwned;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that changes nothing, so that it may be made twice.
#[derive(Clone, Copy, Debug)]
pub enum ReadRequest<'p> {
    /// Finds one pattern.
    Run(&'p RunParams),
    /// Scans with rules.
    Scan(&'p ScanParams),
    /// Says how a pattern is answered.
    Explain(&'p RunParams),
    /// Renders a syntax tree.
    Parse(&'p ParseParams),
    /// Opens a workspace; to open it twice is to open it.
    Open(&'p OpenParams),
    /// Says what the daemon holds.
    Status(&'p StatusParams),
    /// Shows the supervision tree.
    Tree(&'p TreeParams),
    /// Says how well the daemon can do its work.
    Health(&'p HealthParams),
}

impl ReadRequest<'_> {
    /// The time that it may take.
    fn limit(self) -> Option<Duration> {
        let delivery = match self {
            Self::Run(params) | Self::Explain(params) => &params.delivery,
            Self::Scan(params) => &params.delivery,
            Self::Parse(_) | Self::Open(_) | Self::Status(_) | Self::Tree(_) | Self::Health(_) => {
                return None;
            }
        };
        delivery.deadline_ms.map(Duration::from_millis)
    }

    /// Sends it, with this limit in place of its own.
    fn send(self, client: &mut Client, limit: Option<Duration>) -> Result<u64, CallError> {
        let deadline_ms = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let within = |delivery: &Delivery| Delivery { deadline_ms, ..delivery.clone() };
        let run = |it: &RunParams| RunParams { delivery: within(&it.delivery), ..it.clone() };
        let scan = |it: &ScanParams| ScanParams { delivery: within(&it.delivery), ..it.clone() };
        match self {
            Self::Run(params) => client.request(method::RUN, &run(params)),
            Self::Scan(params) => client.request(method::SCAN, &scan(params)),
            Self::Explain(params) => client.request(method::EXPLAIN, &run(params)),
            Self::Parse(params) => client.request(method::PARSE, params),
            Self::Open(params) => client.request(method::OPEN, params),
            Self::Status(params) => client.request(method::STATUS, params),
            Self::Tree(params) => client.request(method::TREE, params),
            Self::Health(params) => client.request(method::HEALTH, params),
        }
    }
}

/// Makes reads, each a second time if the daemon loses it, on connections that `connect` makes.
///
/// `connect` is called when there is no connection. For a second attempt it is told when nobody
/// waits for it any more. It may start a daemon or not: that is the program's affair.
#[derive(Debug)]
pub struct RetryingClient<F> {
    connect: F,
    client: Option<Client>,
    link: Link,
}

impl<F, E> RetryingClient<F>
where
    F: FnMut(Option<Instant>) -> Result<Client, E>,
    E: From<CallError>,
{
    /// Without a connection; the first read makes one.
    pub fn new(connect: F) -> Self {
        Self { connect, client: None, link: Link::default() }
    }

    /// A handle that gives up the read that is under way, from another thread, in whichever
    /// attempt it is and also between them.
    pub fn canceller(&self) -> ReadCanceller {
        ReadCanceller(self.link.clone())
    }

    /// Asks and waits, for reads that stream nothing of interest.
    pub fn call<R: DeserializeOwned>(&mut self, read: ReadRequest<'_>) -> Result<R, E> {
        self.call_streaming(read, |_| ControlFlow::Continue(()))
    }

    /// Asks and waits, as [`Client::call_streaming`] does.
    ///
    /// If the connection or the part of the daemon that ran the read ends before the answer, it is
    /// asked a second time, within what is left of its deadline. Each item is handed over once.
    pub fn call_streaming<R: DeserializeOwned>(
        &mut self,
        read: ReadRequest<'_>,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, E> {
        self.link.lock().given_up = false;
        let mut delivered = Delivered::default();
        let mut broke_off = false;
        let limit = read.limit();
        self.connected(None)?;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let answer = self.attempt(read, limit, |event| {
            if let Event::Item(item) = &event {
                delivered.add(item);
            }
            let flow = on_event(event);
            broke_off = flow.is_break();
            flow
        });
        let lost = match answer {
            Err(error) if is_lost(&error) && !broke_off => error,
            answer => return answer.map_err(E::from),
        };

        // Ends here, too, if the read was given up meanwhile.
        let connected = self.connected(deadline);
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // The protocol counts milliseconds. That there is no connection is then no news.
        let is_over = left.is_some_and(|left| left < Duration::from_millis(1));
        if is_over && !self.link.lock().given_up {
            let message = "the deadline passed while a part of the daemon was restarted";
            return Err(locally(ErrorCode::DeadlineExceeded, message).into());
        }
        connected?;
        let mut repeated = Delivered::default();
        let mut differs = false;
        let answer = self.attempt(read, left, |event| {
            let Event::Item(item) = &event else { return on_event(event) };
            if repeated.n_items == delivered.n_items {
                return on_event(event);
            }
            repeated.add(item);
            differs = repeated.n_items == delivered.n_items && !repeated.equals(&delivered);
            if differs { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match answer {
            Ok(_) if differs || repeated.n_items < delivered.n_items => Err(lost.into()),
            Err(_) if differs => Err(lost.into()),
            answer => answer.map_err(E::from),
        }
    }

    /// Makes sure that there is a connection, and that somebody still wants it.
    fn connected(&mut self, until: Option<Instant>) -> Result<(), E> {
        let still_wanted = |link: &Link| {
            let cancelled = || locally(ErrorCode::Cancelled, "the request was cancelled");
            if link.lock().given_up { Err(cancelled()) } else { Ok(()) }
        };
        // Before it is made: that may mean to start a daemon.
        still_wanted(&self.link)?;
        if self.client.is_none() {
            let client = (self.connect)(until)?;
            self.link.lock().canceller = Some(client.canceller());
            self.client = Some(client);
        }
        Ok(still_wanted(&self.link)?)
    }

    /// Asks once, and drops a connection that is of no more use.
    fn attempt<R: DeserializeOwned>(
        &mut self,
        read: ReadRequest<'_>,
        limit: Option<Duration>,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, CallError> {
        let Some(client) = &mut self.client else { return Err(CallError::Disconnected) };
        let link = self.link.clone();
        let answer = read.send(client, limit).and_then(|id| {
            // Whoever gave up before it was sent found nothing to cancel.
            link.cancel_if_given_up().map_err(CallError::Send)?;
            client.wait(id, on_event)
        });
        if answer.as_ref().is_err_and(CallError::is_fatal) {
            self.client = None;
            self.link.lock().canceller = None;
        }
        answer
    }
}

/// Gives up the read that a [`RetryingClient`] makes, such as on Ctrl-C.
#[derive(Clone, Debug)]
pub struct ReadCanceller(Link);

impl ReadCanceller {
    /// Asks the daemon to give the read up, and sees to it that it is not made again.
    ///
    /// Fails with `NotConnected` while a connection is being made: then nothing is asked, and the
    /// call ends once the connection is there, however long that takes.
    pub fn cancel(&self) -> io::Result<()> {
        self.0.lock().given_up = true;
        self.0.cancel_if_given_up()
    }
}

/// What a client shares with its cancellers: they outlive any one connection.
#[derive(Clone, Debug, Default)]
struct Link(Arc<Mutex<LinkState>>);

#[derive(Debug, Default)]
struct LinkState {
    /// Of the connection, while there is one.
    canceller: Option<Canceller>,
    /// Nobody waits for the read under way any more.
    given_up: bool,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel_if_given_up(&self) -> io::Result<()> {
        let canceller = {
            let state = self.lock();
            if !state.given_up {
                return Ok(());
            }
            state.canceller.clone().ok_or(io::ErrorKind::NotConnected)?
        };
        canceller.cancel().map(|_was_any| ())
    }
}

/// The items that were handed over, as far as a second answer has to begin with the same ones.
/// Not the items themselves: there may be as many as the tree has files.
#[derive(Debug, Default)]
struct Delivered {
    n_items: u64,
    hasher: DefaultHasher,
}

impl Delivered {
    /// The matches follow from the content; only the limit may cut them.
    fn add(&mut self, item: &Item) {
        self.n_items += 1;
        (&item.file, &item.content_id, item.matches.len()).hash(&mut self.hasher);
    }

    fn equals(&self, other: &Self) -> bool {
        self.n_items == other.n_items && self.hasher.finish() == other.hasher.finish()
    }
}

/// Whether the read was lost, rather than answered or refused.
fn is_lost(error: &CallError) -> bool {
    match error {
        CallError::Remote(error) => error.error_code() == Some(ErrorCode::Restarting),
        CallError::Disconnected | CallError::HalfLine(_) => true,
        CallError::Send(error) | CallError::Receive(error) => {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        }
        CallError::Encode(_)
        | CallError::RequestTooLong { .. }
        | CallError::LineTooLong(_)
        | CallError::ChunksTooLarge(_)
        | CallError::Malformed(_)
        | CallError::UnexpectedParams { .. }
        | CallError::UnexpectedResult(_) => false,
    }
}

/// An error that the daemon would have answered with, had it been asked.
fn locally(code: ErrorCode, message: &str) -> CallError {
    CallError::Remote(RpcError::new(code, message))
}
