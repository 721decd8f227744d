//! Reads that are made a second time when a part of the daemon ends under them.
//!
//! The daemon is a supervision tree: a node that fails is started again within milliseconds, and
//! costs the requests that it was running. Nobody who only asked should have to know. It is done
//! here and not by each program, because that a second answer can go on where the first one ended
//! is the protocol's own promise: items come in the order of their files.
//!
//! A second request is the whole request again, with the same limit and what is left of the
//! deadline. Of its answer, [`HandedOver`] passes over the files up to the last one that the caller
//! has: also those that have changed since, for the caller may have changed them itself, as
//! somebody does who applies rewrites file by file. A query promises to see what was written before
//! it was made, and nothing about what is written meanwhile, so that both halves together are an
//! answer to the first request. Where nothing changed, they are the second answer to the letter.

use super::{CallError, Canceller, Client, Event};
use crate::frame::RpcError;
use crate::messages::{
    ChangesParams, ConfigParams, Delivery, ErrorCode, EventsParams, HealthParams, Item, OpenParams,
    ParseParams, PointsParams, RunParams, ScanParams, StatusParams, Summary, SyncParams,
    TreeParams, method,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A request that changes nothing and has one answer, so that it may be made twice.
#[derive(Clone, Copy, Debug)]
pub enum ReadRequest<'p> {
    /// Says how a pattern is answered.
    Explain(&'p RunParams),
    /// Renders a syntax tree.
    Parse(&'p ParseParams),
    /// Says where code could be observed.
    Points(&'p PointsParams),
    /// Opens a workspace; to open it twice is to open it.
    Open(&'p OpenParams),
    /// Says what has changed since a revision.
    Changes(&'p ChangesParams),
    /// Changes how a workspace follows its disk; to do it twice is to do it.
    Sync(&'p SyncParams),
    /// Says what the daemon holds.
    Status(&'p StatusParams),
    /// Shows the supervision tree.
    Tree(&'p TreeParams),
    /// Says how well the daemon can do its work.
    Health(&'p HealthParams),
    /// Says what has happened.
    Events(&'p EventsParams),
    /// Says what the settings are.
    Config(&'p ConfigParams),
}

/// Any request that may be made twice.
#[derive(Clone, Copy, Debug)]
enum Asked<'p> {
    Run(&'p RunParams),
    Scan(&'p ScanParams),
    Read(ReadRequest<'p>),
}

impl<'p> Asked<'p> {
    fn delivery(self) -> Option<&'p Delivery> {
        match self {
            Self::Run(params) | Self::Read(ReadRequest::Explain(params)) => Some(&params.delivery),
            Self::Scan(params) => Some(&params.delivery),
            Self::Read(
                ReadRequest::Parse(_)
                | ReadRequest::Points(_)
                | ReadRequest::Open(_)
                | ReadRequest::Changes(_)
                | ReadRequest::Sync(_)
                | ReadRequest::Status(_)
                | ReadRequest::Tree(_)
                | ReadRequest::Health(_)
                | ReadRequest::Events(_)
                | ReadRequest::Config(_),
            ) => None,
        }
    }

    fn deadline(self) -> Option<Duration> {
        let ms = match self {
            Self::Read(ReadRequest::Changes(params)) => params.deadline_ms,
            Self::Read(ReadRequest::Sync(params)) => params.deadline_ms,
            _ => self.delivery().and_then(|delivery| delivery.deadline_ms),
        };
        ms.map(Duration::from_millis)
    }

    /// Sends it, with this deadline in place of its own.
    fn send(self, client: &mut Client, limit: Option<Duration>) -> Result<u64, CallError> {
        let deadline_ms = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        let within = |delivery: &Delivery| Delivery { deadline_ms, ..delivery.clone() };
        let run = |it: &RunParams| RunParams { delivery: within(&it.delivery), ..it.clone() };
        let scan = |it: &ScanParams| ScanParams { delivery: within(&it.delivery), ..it.clone() };
        match self {
            Self::Run(params) => client.request(method::RUN, &run(params)),
            Self::Scan(params) => client.request(method::SCAN, &scan(params)),
            Self::Read(ReadRequest::Explain(params)) => {
                client.request(method::EXPLAIN, &run(params))
            }
            Self::Read(ReadRequest::Parse(params)) => client.request(method::PARSE, params),
            Self::Read(ReadRequest::Points(params)) => client.request(method::POINTS, params),
            Self::Read(ReadRequest::Open(params)) => client.request(method::OPEN, params),
            Self::Read(ReadRequest::Changes(params)) => {
                client.request(method::CHANGES, &ChangesParams { deadline_ms, ..params.clone() })
            }
            Self::Read(ReadRequest::Sync(params)) => {
                client.request(method::SYNC, &SyncParams { deadline_ms, ..params.clone() })
            }
            Self::Read(ReadRequest::Status(params)) => client.request(method::STATUS, params),
            Self::Read(ReadRequest::Tree(params)) => client.request(method::TREE, params),
            Self::Read(ReadRequest::Health(params)) => client.request(method::HEALTH, params),
            Self::Read(ReadRequest::Events(params)) => client.request(method::EVENTS, params),
            Self::Read(ReadRequest::Config(params)) => client.request(method::CONFIG, params),
        }
    }
}

/// How long new connections are tried for a request that none of them has taken: far more than what
/// serves connections takes to be started again.
const UNSENT_MAX: Duration = Duration::from_secs(2);

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// A request that nobody has seen yet.
    First,
    /// A request whose connection or daemon was lost a moment ago. It may be about to open its socket again.
    Second {
        /// When nobody waits for the answer any more.
        until: Option<Instant>,
    },
}

/// Makes reads, each a second time if the daemon loses it, on connections that `connect` makes
/// whenever there is none. `connect` may start a daemon or not: that is the program's affair.
#[derive(Debug)]
pub struct RetryingClient<F> {
    connect: F,
    client: Option<Client>,
    link: Link,
}

impl<F, E> RetryingClient<F>
where
    F: FnMut(Attempt) -> Result<Client, E>,
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

    /// Finds one pattern. No file's item is handed over twice, no more matches than the limit, and
    /// the summary counts what was handed over.
    pub fn run(
        &mut self,
        params: &RunParams,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Summary, E> {
        let counting = if params.delivery.files_only { Counting::Files } else { Counting::Matches };
        self.search(Asked::Run(params), counting, on_event)
    }

    /// Scans with rules; as [`Self::run`]. Only where file names alone were asked for, matches and
    /// errors are those of the last attempt, since nobody has seen the first one's.
    pub fn scan(
        &mut self,
        params: &ScanParams,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Summary, E> {
        let counting =
            if params.delivery.files_only { Counting::Nothing } else { Counting::Findings };
        self.search(Asked::Scan(params), counting, on_event)
    }

    /// Asks for anything else, and waits.
    pub fn call<R: DeserializeOwned>(&mut self, read: ReadRequest<'_>) -> Result<R, E> {
        self.call_streaming(read, |_| ControlFlow::Continue(()))
    }

    /// Asks for anything else, and waits, as [`Client::call_streaming`] does.
    pub fn call_streaming<R: DeserializeOwned>(
        &mut self,
        read: ReadRequest<'_>,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, E> {
        self.ask(Asked::Read(read), |_again, event| on_event(event)).map(|(result, _again)| result)
    }

    fn search(
        &mut self,
        asked: Asked<'_>,
        counting: Counting,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Summary, E> {
        let limit = asked.delivery().and_then(|delivery| delivery.limit);
        let mut handed_over = HandedOver::new(counting, limit);
        let (mut summary, again) = self.ask(asked, |again, event| {
            let Event::Item(item) = event else { return on_event(event) };
            match handed_over.take(item, again) {
                Some(item) => on_event(Event::Item(item)),
                None => ControlFlow::Continue(()),
            }
        })?;
        if again {
            handed_over.count_in(&mut summary);
        }
        Ok(summary)
    }

    /// Asks until a second answer is lost as well. Each event comes with whether it is one of the second attempt, and so
    /// does the answer.
    fn ask<R: DeserializeOwned>(
        &mut self,
        asked: Asked<'_>,
        mut on_event: impl FnMut(bool, Event) -> ControlFlow<()>,
    ) -> Result<(R, bool), E> {
        self.link.lock().given_up = false;
        self.connected(Attempt::First)?;
        let limit = asked.deadline();
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut broke_off = false;
        let id = self.send(asked, limit, until)?;
        let answer = self.wait(id, |event| {
            let flow = on_event(false, event);
            broke_off |= flow.is_break();
            flow
        });
        match answer {
            Err(error) if is_lost(&error) && !broke_off => {}
            answer => return Ok((answer?, false)),
        }

        loop {
            let was_connected = self.client.is_some();
            // Ends here, too, if the read was given up meanwhile.
            let left = self.reconnect(until)?;
            let id = self.send(asked, left, until)?;
            let mut has_begun = false;
            let answer = self.wait(id, |event| {
                has_begun = true;
                on_event(true, event)
            });
            match answer {
                // The part that ended was what served this connection, which told so before it
                // was gone itself: one loss, heard of twice.
                Err(error) if was_connected && !has_begun && is_closed(&error) => {}
                answer => return Ok((answer?, true)),
            }
        }
    }

    /// Makes sure of a connection after one was lost, and says what is left of the deadline.
    fn reconnect(&mut self, until: Option<Instant>) -> Result<Option<Duration>, E> {
        let connected = self.connected(Attempt::Second { until });
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // The protocol counts milliseconds. That there is no connection is then no news.
        let is_over = left.is_some_and(|left| left < Duration::from_millis(1));
        if is_over && !self.link.lock().given_up {
            let message = "the deadline passed while a part of the daemon was restarted";
            return Err(locally(ErrorCode::DeadlineExceeded, message).into());
        }
        connected?;
        Ok(left)
    }

    /// Makes sure that there is a connection, and that somebody still wants it.
    fn connected(&mut self, attempt: Attempt) -> Result<(), E> {
        let still_wanted = |link: &Link| {
            let cancelled = || locally(ErrorCode::Cancelled, "the request was cancelled");
            if link.lock().given_up { Err(cancelled()) } else { Ok(()) }
        };
        // Before it is made: that may mean to start a daemon.
        still_wanted(&self.link)?;
        if self.client.is_none() {
            let client = (self.connect)(attempt)?;
            self.link.lock().canceller = Some(client.canceller());
            self.client = Some(client);
        }
        Ok(still_wanted(&self.link)?)
    }

    /// Sends a request. A connection that is lost before the request is out costs no attempt: no
    /// daemon has read it.
    fn send(
        &mut self,
        asked: Asked<'_>,
        mut limit: Option<Duration>,
        until: Option<Instant>,
    ) -> Result<u64, E> {
        let give_up = Instant::now() + UNSENT_MAX;
        loop {
            let Some(client) = &mut self.client else { return Err(CallError::Disconnected.into()) };
            let sent = asked.send(client, limit);
            self.drop_if_lost(&sent);
            match sent {
                Err(error) if is_closed(&error) && Instant::now() < give_up => {
                    limit = self.reconnect(until)?;
                }
                sent => return Ok(sent?),
            }
        }
    }

    /// Waits for the answer.
    fn wait<R: DeserializeOwned>(
        &mut self,
        id: u64,
        on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, CallError> {
        let Some(client) = &mut self.client else { return Err(CallError::Disconnected) };
        // Whoever gave up before it was sent found nothing to cancel.
        let cancelled = self.link.cancel_if_given_up().map_err(CallError::Send);
        let answer = cancelled.and_then(|()| client.wait(id, on_event));
        self.drop_if_lost(&answer);
        answer
    }

    /// Drops a connection that is of no more use.
    fn drop_if_lost<R>(&mut self, answer: &Result<R, CallError>) {
        if answer.as_ref().is_err_and(CallError::is_fatal) {
            self.client = None;
            self.link.lock().canceller = None;
        }
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

/// What a search's summary counts, and an item shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counting {
    /// Each item is one match: `run` that wants file names alone.
    Files,
    /// The matches of `run`.
    Matches,
    /// The matches of `scan`, and which of them are errors.
    Findings,
    /// A `scan` that wants file names alone counts matches that it doesn't send.
    Nothing,
}

/// How much of a search the caller has. Not the items: there may be as many as the tree has files.
#[derive(Debug)]
struct HandedOver {
    counting: Counting,
    limit: Option<u64>,
    n_items: u64,
    n_matches: u64,
    n_errors: u64,
    /// The last file of the first attempt, and how many items it had: a path that was typed twice
    /// comes twice. Counted down by the second attempt.
    last: Option<(String, u64)>,
    /// Whether the limit kept something of the second attempt back.
    is_cut: bool,
}

impl HandedOver {
    fn new(counting: Counting, limit: Option<u64>) -> Self {
        let (n_items, n_matches, n_errors) = (0, 0, 0);
        Self { counting, limit, n_items, n_matches, n_errors, last: None, is_cut: false }
    }

    /// The item as the caller is to have it, if he is. `again` in the second attempt.
    fn take(&mut self, mut item: Item, again: bool) -> Option<Item> {
        if again {
            if self.has(&item.file) {
                return None;
            }
            // The daemon has counted the files that were passed over as they are now. With fewer
            // matches than they had, it sends more of others than there is room for.
            let left = self.limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.n_matches));
            if self.matches_of(&item) > left {
                self.is_cut = true;
                if left == 0 {
                    return None;
                }
                item.matches.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
        } else {
            match &mut self.last {
                Some((last, n_items)) if *last == item.file => *n_items += 1,
                last => *last = Some((item.file.clone(), 1)),
            }
        }
        self.n_items += 1;
        self.n_matches += self.matches_of(&item);
        if self.counting == Counting::Findings {
            self.n_errors += item.matches.iter().filter(|text| is_error(text)).count() as u64;
        }
        Some(item)
    }

    /// Whether the first attempt came as far as this file of the second one.
    fn has(&mut self, file: &str) -> bool {
        let Some((last, n_items)) = &mut self.last else { return false };
        match file.cmp(last) {
            Ordering::Less => true,
            Ordering::Equal if *n_items > 0 => {
                *n_items -= 1;
                true
            }
            Ordering::Equal | Ordering::Greater => false,
        }
    }

    fn matches_of(&self, item: &Item) -> u64 {
        match self.counting {
            Counting::Files => 1,
            Counting::Matches | Counting::Findings => item.matches.len() as u64,
            Counting::Nothing => 0,
        }
    }

    /// Corrects the summary of a second answer.
    fn count_in(&self, summary: &mut Summary) {
        summary.files_matched = self.n_items;
        summary.limit_reached |= self.is_cut;
        if self.counting != Counting::Nothing {
            summary.matches = self.n_matches;
        }
        if self.counting == Counting::Findings {
            summary.error_matches = self.n_errors;
        }
    }
}

/// Whether a match of a scan is one of severity error.
fn is_error(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Severity<'a> {
        #[serde(borrow)]
        severity: Option<Cow<'a, str>>,
    }
    // Few are, and to look for the word is far cheaper than to read JSON.
    memchr::memmem::find(text.as_bytes(), b"error").is_some()
        && serde_json::from_str::<Severity<'_>>(text)
            .is_ok_and(|it| it.severity.as_deref() == Some("error"))
}

/// Whether the read was lost, rather than answered or refused.
fn is_lost(error: &CallError) -> bool {
    is_closed(error) || error.code() == Some(ErrorCode::Restarting)
}

/// Whether the connection was lost.
fn is_closed(error: &CallError) -> bool {
    match error {
        CallError::Disconnected | CallError::HalfLine(_) => true,
        CallError::Send(error) | CallError::Receive(error) => {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        }
        CallError::Remote(_)
        | CallError::Encode(_)
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
