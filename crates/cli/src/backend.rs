//! What the commands ask of a daemon. A trait, so that tests answer without a socket.

use crate::failure::Failure;
use astscope_protocol::client::{CallError, Event, News};
use astscope_protocol::messages::{
    ChangesParams, ChangesResult, ConfigParams, ConfigResult, EventsParams, EventsResult,
    Explanation, FaultParams, HealthParams, HealthResult, KillParams, ParseParams, ParseResult,
    PointsParams, PointsResult, Progress, RunParams, ScanParams, StatusParams, StatusResult,
    StopParams, SubscribeParams, SubscribeResult, Summary, SyncParams, TreeParams, TreeResult,
    WorkspaceStatus,
};
use std::ops::ControlFlow;

/// Receives what comes before an answer; breaking gives the request up.
pub type OnEvent<'a> = &'a mut dyn FnMut(Event) -> ControlFlow<()>;

/// What comes while something is watched.
#[derive(Clone, Debug)]
pub enum Told {
    /// How far the first answer is.
    Progress(Progress),
    /// The daemon watches from here on; told once more when it had to be asked again.
    Begun(SubscribeResult),
    /// What has changed.
    News(News),
}

/// Receives what comes while something is watched; breaking ends that.
pub type OnTold<'a> = &'a mut dyn FnMut(Told) -> ControlFlow<()>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no connection. Boxed: it is large, and the rare case.
    #[error("can't reach the daemon")]
    Connect(Box<Failure>),
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A daemon.
pub trait Backend {
    /// Finds one pattern.
    fn run(&mut self, params: &RunParams, on_event: OnEvent<'_>) -> Result<Summary, BackendError>;
    /// Scans with rules.
    fn scan(&mut self, params: &ScanParams, on_event: OnEvent<'_>)
    -> Result<Summary, BackendError>;
    /// Says how a pattern is answered.
    fn explain(
        &mut self,
        params: &RunParams,
        on_event: OnEvent<'_>,
    ) -> Result<Explanation, BackendError>;
    /// Tells what a pattern finds, and what becomes of it, until told to break.
    fn watch(&mut self, params: &SubscribeParams, on_told: OnTold<'_>) -> Result<(), BackendError>;
    /// Says what has changed since a revision.
    fn changes(
        &mut self,
        params: &ChangesParams,
        on_event: OnEvent<'_>,
    ) -> Result<ChangesResult, BackendError>;
    /// Changes how a workspace follows its disk.
    fn sync(
        &mut self,
        params: &SyncParams,
        on_event: OnEvent<'_>,
    ) -> Result<WorkspaceStatus, BackendError>;
    /// Renders a syntax tree.
    fn parse(&mut self, params: &ParseParams) -> Result<ParseResult, BackendError>;
    /// Says where code could be observed.
    fn points(&mut self, params: &PointsParams) -> Result<PointsResult, BackendError>;
    /// Says how the daemon does; `None` if none runs.
    fn status(&mut self, params: &StatusParams) -> Result<Option<StatusResult>, BackendError>;
    /// Shows the supervision tree; `None` if no daemon runs.
    fn tree(&mut self, params: &TreeParams) -> Result<Option<TreeResult>, BackendError>;
    /// Says how well the daemon can do its work; `None` if none runs.
    fn health(&mut self, params: &HealthParams) -> Result<Option<HealthResult>, BackendError>;
    /// Says what has happened in the daemon; `None` if none runs.
    fn events(&mut self, params: &EventsParams) -> Result<Option<EventsResult>, BackendError>;
    /// Says what the settings are; `None` if no daemon runs.
    fn config(&mut self, params: &ConfigParams) -> Result<Option<ConfigResult>, BackendError>;
    /// Ends one node of the supervision tree; says whether a daemon runs.
    fn kill(&mut self, params: &KillParams) -> Result<bool, BackendError>;
    /// Makes one worker of the supervision tree fail; says whether a daemon runs.
    fn fault(&mut self, params: &FaultParams) -> Result<bool, BackendError>;
    /// Makes the daemon leave; says whether one ran.
    fn stop(&mut self, params: &StopParams) -> Result<bool, BackendError>;
    /// Whether the user has interrupted the request with Ctrl-C.
    fn interrupted(&self) -> bool {
        false
    }
}
