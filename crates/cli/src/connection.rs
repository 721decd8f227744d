//! The real backend: a connection to the user's daemon, made when it is first needed.

use crate::backend::{Backend, BackendError, OnEvent};
use crate::daemon_start;
use crate::failure::Failure;
use astscope_protocol::client::{CallError, Client, Event};
use astscope_protocol::messages::{
    Explanation, ParseParams, ParseResult, RunParams, ScanParams, StatusParams, StatusResult,
    StopParams, Summary, method,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The daemon, connected or not.
#[derive(Debug, Default)]
pub(crate) struct Daemon {
    client: Option<Client>,
    interrupted: Arc<AtomicBool>,
}

impl Daemon {
    /// The connection; starts a daemon if none runs.
    fn client(&mut self) -> Result<&mut Client, BackendError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => self.connect()?,
        };
        Ok(self.client.insert(client))
    }

    fn connect(&self) -> Result<Client, BackendError> {
        let client = daemon_start::connect_or_start().map_err(unreachable)?;
        let (canceller, interrupted) = (client.canceller(), Arc::clone(&self.interrupted));
        // The first Ctrl-C gives the request up and lets the client end in order: no half-written
        // file, no terminal in raw mode. The second one doesn't wait for the daemon.
        let handled = ctrlc::set_handler(move || {
            if interrupted.swap(true, Ordering::SeqCst) || canceller.cancel().is_err() {
                std::process::exit(crate::exit::Exit::Interrupted.code().into());
            }
        });
        // Without a handler Ctrl-C ends the process, and the daemon sees that the client is gone.
        drop(handled);
        Ok(client)
    }

    fn call<P: Serialize, R: DeserializeOwned>(
        &mut self,
        method: &str,
        params: &P,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<R, BackendError> {
        let client = self.client()?;
        Ok(client.call_streaming(method, params, &mut on_event)?)
    }
}

fn unreachable(failure: Failure) -> BackendError {
    BackendError::Connect(Box::new(failure))
}

impl Backend for Daemon {
    fn run(&mut self, params: &RunParams, on_event: OnEvent<'_>) -> Result<Summary, BackendError> {
        self.call(method::RUN, params, on_event)
    }

    fn scan(
        &mut self,
        params: &ScanParams,
        on_event: OnEvent<'_>,
    ) -> Result<Summary, BackendError> {
        self.call(method::SCAN, params, on_event)
    }

    fn explain(
        &mut self,
        params: &RunParams,
        on_event: OnEvent<'_>,
    ) -> Result<Explanation, BackendError> {
        self.call(method::EXPLAIN, params, on_event)
    }

    fn parse(&mut self, params: &ParseParams) -> Result<ParseResult, BackendError> {
        self.call(method::PARSE, params, |_| ControlFlow::Continue(()))
    }

    fn status(&mut self, params: &StatusParams) -> Result<Option<StatusResult>, BackendError> {
        match daemon_start::connect_to_running().map_err(unreachable)? {
            Some(mut client) => Ok(Some(client.call(method::STATUS, params)?)),
            None => Ok(None),
        }
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
