//! The real backend: a connection to the user's daemon, made when it is first needed.

use crate::backend::{Backend, BackendError, OnEvent, OnTold, Told};
use crate::daemon_start;
use crate::failure::Failure;
use astscope_protocol::client::{
    Attempt, CallError, Client, Event, News, ReadRequest, RetryingClient,
};
use astscope_protocol::messages::{
    ChangesParams, ChangesResult, ConfigParams, ConfigResult, EventsParams, EventsResult,
    Explanation, FaultParams, HealthParams, HealthResult, KillParams, ParseParams, ParseResult,
    PointsParams, PointsResult, RunParams, ScanParams, StatusParams, StatusResult, StopParams,
    SubscribeParams, SubscribeResult, Summary, SyncParams, TreeParams, TreeResult, WorkspaceStatus,
    method,
};
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a daemon that was lost is tried to be asked again: longer than it leaves a part of it
/// alone that keeps failing.
const LOST_MAX: Duration = Duration::from_secs(30);

/// Makes a connection.
type Connect<E> = fn(Attempt) -> Result<Client, E>;

/// The daemon, connected or not.
#[derive(Debug)]
pub(crate) struct Daemon {
    client: RetryingClient<Connect<BackendError>>,
    interrupted: Arc<AtomicBool>,
    handles_interrupts: bool,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            client: RetryingClient::new(|attempt| {
                daemon_start::connect_or_start(attempt).map_err(unreachable)
            }),
            interrupted: Arc::default(),
            handles_interrupts: false,
        }
    }
}

impl Daemon {
    /// The daemon to ask; its first request starts one if none runs.
    fn client(&mut self) -> &mut RetryingClient<Connect<BackendError>> {
        self.handle_interrupts();
        &mut self.client
    }

    /// The first Ctrl-C gives the request up and lets the client end in order: no half-written
    /// file, no terminal in raw mode. The second one doesn't wait for the daemon, and neither does
    /// one that comes before there is a connection.
    fn handle_interrupts(&mut self) {
        if std::mem::replace(&mut self.handles_interrupts, true) {
            return;
        }
        let (canceller, interrupted) = (self.client.canceller(), Arc::clone(&self.interrupted));
        let handled = ctrlc::set_handler(move || {
            if interrupted.swap(true, Ordering::SeqCst) || canceller.cancel().is_err() {
                std::process::exit(crate::exit::Exit::Interrupted.code().into());
            }
        });
        // Without a handler Ctrl-C ends the process, and the daemon sees that the client is gone.
        drop(handled);
    }
}

/// Asks the daemon that runs; `None` if none does. It starts none: these requests are about the
/// daemon, and that there is none is an answer.
fn read_of_running<R: DeserializeOwned>(read: ReadRequest<'_>) -> Result<Option<R>, BackendError> {
    /// Why there is no answer.
    enum Unanswered {
        NotRunning,
        Failed(BackendError),
    }
    impl From<CallError> for Unanswered {
        fn from(error: CallError) -> Self {
            Self::Failed(error.into())
        }
    }
    let connect: Connect<Unanswered> = |attempt| match daemon_start::connect_to_running(attempt) {
        Ok(Some(client)) => Ok(client),
        Ok(None) => Err(Unanswered::NotRunning),
        Err(failure) => Err(Unanswered::Failed(unreachable(failure))),
    };
    match RetryingClient::new(connect).call(read) {
        Ok(result) => Ok(Some(result)),
        Err(Unanswered::NotRunning) => Ok(None),
        Err(Unanswered::Failed(error)) => Err(error),
    }
}

fn unreachable(failure: Failure) -> BackendError {
    BackendError::Connect(Box::new(failure))
}

impl Backend for Daemon {
    fn run(&mut self, params: &RunParams, on_event: OnEvent<'_>) -> Result<Summary, BackendError> {
        self.client().run(params, on_event)
    }

    fn scan(
        &mut self,
        params: &ScanParams,
        on_event: OnEvent<'_>,
    ) -> Result<Summary, BackendError> {
        self.client().scan(params, on_event)
    }

    fn explain(
        &mut self,
        params: &RunParams,
        on_event: OnEvent<'_>,
    ) -> Result<Explanation, BackendError> {
        self.client().call_streaming(ReadRequest::Explain(params), on_event)
    }

    fn watch(&mut self, params: &SubscribeParams, on_told: OnTold<'_>) -> Result<(), BackendError> {
        // Ctrl-C is not handled: it ends the process, and the daemon sees that the client is gone.
        let mut lost_at: Option<Instant> = None;
        loop {
            let attempt = lost_at.map_or(Attempt::First, |_| Attempt::Second { until: None });
            let mut client = daemon_start::connect_or_start(attempt).map_err(unreachable)?;
            let mut has_begun = false;
            let ended = follow(&mut client, params, &mut |told| {
                has_begun |= matches!(told, Told::Begun(_));
                on_told(told)
            });
            let Err(error) = ended else { return Ok(()) };
            // Whoever was never answered is told why.
            if has_begun {
                lost_at = Some(Instant::now());
            }
            let is_in_time = lost_at.is_some_and(|lost_at| lost_at.elapsed() < LOST_MAX);
            if !is_in_time || !may_begin_again(&error) {
                return Err(error.into());
            }
            if !has_begun {
                daemon_start::pause().map_err(unreachable)?;
            }
        }
    }

    fn changes(
        &mut self,
        params: &ChangesParams,
        on_event: OnEvent<'_>,
    ) -> Result<ChangesResult, BackendError> {
        self.client().call_streaming(ReadRequest::Changes(params), on_event)
    }

    fn sync(
        &mut self,
        params: &SyncParams,
        on_event: OnEvent<'_>,
    ) -> Result<WorkspaceStatus, BackendError> {
        self.client().call_streaming(ReadRequest::Sync(params), on_event)
    }

    fn parse(&mut self, params: &ParseParams) -> Result<ParseResult, BackendError> {
        self.client().call(ReadRequest::Parse(params))
    }

    fn points(&mut self, params: &PointsParams) -> Result<PointsResult, BackendError> {
        self.client().call(ReadRequest::Points(params))
    }

    fn status(&mut self, params: &StatusParams) -> Result<Option<StatusResult>, BackendError> {
        read_of_running(ReadRequest::Status(params))
    }

    fn tree(&mut self, params: &TreeParams) -> Result<Option<TreeResult>, BackendError> {
        read_of_running(ReadRequest::Tree(params))
    }

    fn health(&mut self, params: &HealthParams) -> Result<Option<HealthResult>, BackendError> {
        read_of_running(ReadRequest::Health(params))
    }

    fn events(&mut self, params: &EventsParams) -> Result<Option<EventsResult>, BackendError> {
        read_of_running(ReadRequest::Events(params))
    }

    fn config(&mut self, params: &ConfigParams) -> Result<Option<ConfigResult>, BackendError> {
        read_of_running(ReadRequest::Config(params))
    }

    fn kill(&mut self, params: &KillParams) -> Result<bool, BackendError> {
        hurt(method::KILL, params)
    }

    fn fault(&mut self, params: &FaultParams) -> Result<bool, BackendError> {
        hurt(method::FAULT, params)
    }

    fn stop(&mut self, params: &StopParams) -> Result<bool, BackendError> {
        match daemon_start::retire_running(params) {
            // A daemon that is gone before it has answered has done what was asked.
            Err(BackendError::Call(CallError::Disconnected)) => Ok(true),
            other => other,
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }
}

/// Watches on one connection, until that, the subscription or the listener ends.
fn follow(
    client: &mut Client,
    params: &SubscribeParams,
    on_told: OnTold<'_>,
) -> Result<(), CallError> {
    let mut broke_off = false;
    let begun: SubscribeResult = client.call_streaming(method::SUBSCRIBE, params, |event| {
        let flow = match event {
            Event::Progress(progress) => on_told(Told::Progress(progress)),
            Event::Item(_) | Event::News(_) => ControlFlow::Continue(()),
        };
        broke_off |= flow.is_break();
        flow
    })?;
    if broke_off || on_told(Told::Begun(begun)).is_break() {
        return Ok(());
    }
    loop {
        match client.news()? {
            News::Ended(ended) => return Err(CallError::Remote(ended.error)),
            news => {
                if on_told(Told::News(news)).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether what was watched may be watched again.
fn may_begin_again(error: &CallError) -> bool {
    match error {
        CallError::Remote(error) => error.data.as_ref().is_some_and(|data| data.retryable),
        CallError::Disconnected
        | CallError::HalfLine(_)
        | CallError::Send(_)
        | CallError::Receive(_) => true,
        _ => false,
    }
}

/// Does something to a part of the daemon, if one runs. Asked once: it may have had its effect.
fn hurt(method: &str, params: &impl serde::Serialize) -> Result<bool, BackendError> {
    let connected = daemon_start::connect_to_running(Attempt::First).map_err(unreachable)?;
    let Some(mut client) = connected else { return Ok(false) };
    match client.call::<_, serde::de::IgnoredAny>(method, params) {
        // What was hurt may have been what answers.
        Ok(_) | Err(CallError::Disconnected | CallError::HalfLine(_) | CallError::Receive(_)) => {
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}
