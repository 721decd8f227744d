//! A daemon that answers from recorded matches, and a terminal that is a few byte vectors.

use astscope_cli::{Allocator, Backend, BackendError, Console, Keys, OnEvent, OnTold, Told};
use astscope_protocol::client::{CallError, Event};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{
    ChangesParams, ChangesResult, ConfigParams, ConfigResult, Delivery, EventsParams, EventsResult,
    Explanation, FaultParams, HealthParams, HealthResult, Item, KillParams, MatchRecord, Matches,
    ParseParams, ParseResult, PointsParams, PointsResult, RunParams, ScanParams, StatusParams,
    StatusResult, StopParams, SubscribeParams, Summary, SyncParams, TreeFormat, TreeParams,
    TreeResult, WorkspaceStatus,
};
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// What a fake daemon answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Fake {
    pub(crate) items: Vec<Item>,
    pub(crate) summary: Summary,
    pub(crate) error: Option<RpcError>,
    pub(crate) explanation: Explanation,
    pub(crate) told: Vec<Told>,
    pub(crate) subscribe: Option<SubscribeParams>,
    pub(crate) changes: ChangesResult,
    pub(crate) asked_changes: Option<ChangesParams>,
    pub(crate) asked_sync: Option<SyncParams>,
    pub(crate) tree: Option<ParseResult>,
    pub(crate) points: PointsResult,
    pub(crate) asked_points: Option<PointsParams>,
    pub(crate) status: Option<StatusResult>,
    pub(crate) run: Option<RunParams>,
    pub(crate) scan: Option<ScanParams>,
    pub(crate) parse: Option<ParseParams>,
    pub(crate) shown: Option<TreeResult>,
    pub(crate) tree_format: Option<TreeFormat>,
    pub(crate) health: Option<HealthResult>,
    pub(crate) events: Option<EventsResult>,
    pub(crate) config: Option<ConfigResult>,
    pub(crate) runs: bool,
    pub(crate) killed: Option<String>,
    pub(crate) fault: Option<FaultParams>,
}

impl Fake {
    /// Answers with matches that ast-grep printed as compact JSON, and the files' text.
    pub(crate) fn with_matches(json: &str, dir: &Path) -> Self {
        let raws: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap();
        let mut fake = Self::default();
        for raw in raws {
            let record: MatchRecord = serde_json::from_str(raw.get()).unwrap();
            fake.summary.matches += 1;
            fake.summary.error_matches += u64::from(record.severity.as_deref() == Some("error"));
            if fake.items.last().is_none_or(|item| item.file != record.file) {
                let text = std::fs::read_to_string(dir.join(&record.file)).unwrap();
                fake.items.push(Item {
                    id: 1,
                    content_id: blake3::hash(text.as_bytes()).to_hex().to_string(),
                    file: record.file,
                    source: Some(text),
                    matches: Matches::default(),
                });
            }
            fake.items.last_mut().unwrap().matches.push(&raw).unwrap();
        }
        fake
    }

    pub(crate) fn failing(error: RpcError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    fn stream(&self, on_event: OnEvent<'_>, wanted: &Delivery) -> Result<Summary, BackendError> {
        for item in &self.items {
            let mut item = item.clone();
            if !wanted.include_source {
                item.source = None;
            }
            if wanted.brief {
                item.matches = brief(&item.matches);
            }
            if on_event(Event::Item(item)) == ControlFlow::Break(()) {
                break;
            }
        }
        self.failure().map_or_else(|| Ok(self.summary.clone()), Err)
    }

    fn failure(&self) -> Option<BackendError> {
        self.error.clone().map(|error| CallError::Remote(error).into())
    }
}

/// Matches without what brief ones lack.
fn brief(matches: &Matches) -> Matches {
    let mut brief = Matches::default();
    for record in matches.iter() {
        let record: MatchRecord = serde_json::from_str(record).unwrap();
        brief.push(&MatchRecord { text: None, meta_variables: None, ..record }).unwrap();
    }
    brief
}

impl Backend for Fake {
    fn run(&mut self, params: &RunParams, on_event: OnEvent<'_>) -> Result<Summary, BackendError> {
        self.run = Some(params.clone());
        self.stream(on_event, &params.delivery)
    }

    fn scan(
        &mut self,
        params: &ScanParams,
        on_event: OnEvent<'_>,
    ) -> Result<Summary, BackendError> {
        self.scan = Some(params.clone());
        self.stream(on_event, &params.delivery)
    }

    fn explain(
        &mut self,
        params: &RunParams,
        _on_event: OnEvent<'_>,
    ) -> Result<Explanation, BackendError> {
        self.run = Some(params.clone());
        self.failure().map_or_else(|| Ok(self.explanation.clone()), Err)
    }

    fn watch(&mut self, params: &SubscribeParams, on_told: OnTold<'_>) -> Result<(), BackendError> {
        self.subscribe = Some(params.clone());
        for told in &self.told {
            if on_told(told.clone()).is_break() {
                return Ok(());
            }
        }
        self.failure().map_or(Ok(()), Err)
    }

    fn sync(
        &mut self,
        params: &SyncParams,
        _on_event: OnEvent<'_>,
    ) -> Result<WorkspaceStatus, BackendError> {
        self.asked_sync = Some(params.clone());
        let workspace = self.status.as_ref().and_then(|status| status.workspaces.first());
        self.failure().map_or_else(|| Ok(workspace.cloned().unwrap_or_default()), Err)
    }

    fn changes(
        &mut self,
        params: &ChangesParams,
        _on_event: OnEvent<'_>,
    ) -> Result<ChangesResult, BackendError> {
        self.asked_changes = Some(params.clone());
        self.failure().map_or_else(|| Ok(self.changes.clone()), Err)
    }

    fn parse(&mut self, params: &ParseParams) -> Result<ParseResult, BackendError> {
        self.parse = Some(params.clone());
        self.failure().map_or_else(|| Ok(self.tree.clone().unwrap()), Err)
    }

    fn points(&mut self, params: &PointsParams) -> Result<PointsResult, BackendError> {
        self.asked_points = Some(params.clone());
        self.failure().map_or_else(|| Ok(self.points.clone()), Err)
    }

    fn status(&mut self, _params: &StatusParams) -> Result<Option<StatusResult>, BackendError> {
        Ok(self.status.clone())
    }

    fn tree(&mut self, params: &TreeParams) -> Result<Option<TreeResult>, BackendError> {
        self.tree_format = Some(params.format);
        Ok(self.shown.clone())
    }

    fn health(&mut self, _params: &HealthParams) -> Result<Option<HealthResult>, BackendError> {
        Ok(self.health.clone())
    }

    fn events(&mut self, _params: &EventsParams) -> Result<Option<EventsResult>, BackendError> {
        Ok(self.events.clone())
    }

    fn config(&mut self, _params: &ConfigParams) -> Result<Option<ConfigResult>, BackendError> {
        Ok(self.config.clone())
    }

    fn kill(&mut self, params: &KillParams) -> Result<bool, BackendError> {
        self.killed = Some(params.path.clone());
        self.failure().map_or(Ok(self.runs), Err)
    }

    fn fault(&mut self, params: &FaultParams) -> Result<bool, BackendError> {
        self.fault = Some(params.clone());
        self.failure().map_or(Ok(self.runs), Err)
    }

    fn stop(&mut self, _params: &StopParams) -> Result<bool, BackendError> {
        Ok(self.status.take().is_some())
    }
}

/// Keys that a user is going to press.
#[derive(Debug, Default)]
pub(crate) struct Typed(pub(crate) VecDeque<char>);

impl Keys for Typed {
    fn key(&mut self) -> io::Result<char> {
        self.0.pop_front().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A place to run commands in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) cwd: PathBuf,
    pub(crate) input: String,
    pub(crate) keys: &'static str,
}

impl Session {
    pub(crate) fn new(cwd: &Path) -> Self {
        Self { cwd: cwd.to_owned(), input: String::new(), keys: "" }
    }

    /// Runs a command line without the program's name.
    pub(crate) fn run(&self, backend: &mut dyn Backend, arguments: &[&str]) -> Output {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut console = Console {
            out: &mut out,
            err: &mut err,
            input: &mut self.input.as_bytes(),
            keys: &mut Typed(self.keys.chars().collect()),
            out_is_terminal: false,
            err_is_terminal: false,
            colors_welcome: true,
            cwd: self.cwd.clone(),
        };
        let arguments = std::iter::once(&"astscope").chain(arguments).map(Into::into).collect();
        let code = astscope_cli::execute(arguments, Allocator::default(), &mut console, backend);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output { code, out: text(out), err: text(err) }
    }
}
