//! A daemon of the benchmark's own, in a runtime directory of its own.

use super::measure::{self, Sample};
use anyhow::{Context, Result};
use astscope_protocol::messages::{
    Delivery, MatcherSpec, OpenParams, Peer, RunParams, Selection, StatusParams, StatusResult,
    StopParams, Summary, WorkspaceStatus, method,
};
use astscope_protocol::{Client, RuntimeDir};
use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long connecting may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Daemon {
    dir: TempDir,
    process: RefCell<Child>,
    client: RefCell<Client>,
}

impl Daemon {
    /// Starts the program `ours` as a daemon and connects to it.
    pub(super) fn start(ours: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut process = Command::new(ours)
            .args(["serve", "--spawned"])
            .env("ASTSCOPE_RUNTIME_DIR", dir.path())
            .env("ASTSCOPE_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the daemon")?;
        let stdout = process.stdout.take().context("its output is a pipe")?;
        let mut said = String::new();
        BufReader::new(stdout).read_line(&mut said)?;
        anyhow::ensure!(said == "ready\n", "the daemon said {said:?}");
        let path = OsString::from(dir.path());
        let runtime = RuntimeDir::locate(&|_| Some(path.clone()))?;
        let peer = Peer { name: "xtask".to_owned(), version: "0.0.0".to_owned() };
        let (client, _) = Client::connect(&runtime.socket(), peer, PATIENCE)?;
        Ok(Self { dir, process: RefCell::new(process), client: RefCell::new(client) })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Opens a root and waits until it is indexed.
    pub(super) fn open(&self, root: &Path) -> Result<WorkspaceStatus> {
        let params = OpenParams { path: root.to_string_lossy().into_owned() };
        Ok(self.client.borrow_mut().call(method::OPEN, &params)?)
    }

    pub(super) fn status(&self) -> Result<StatusResult> {
        Ok(self.client.borrow_mut().call(method::STATUS, &StatusParams::default())?)
    }

    /// Runs a pattern over the open connection: what it took, the daemon's CPU only, and matches.
    /// Searches every file anew with `no_cache`.
    pub(super) fn run(
        &self,
        root: &Path,
        language: &str,
        pattern: &str,
        no_cache: bool,
    ) -> Result<(Sample, u64)> {
        let params = RunParams {
            selection: Selection {
                cwd: root.to_string_lossy().into_owned(),
                ..Selection::default()
            },
            matcher: MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() },
            language: Some(language.to_owned()),
            delivery: Delivery { no_cache, ..Delivery::default() },
            ..RunParams::default()
        };
        let before = self.cpu_seconds()?;
        let start = Instant::now();
        let mut client = self.client.borrow_mut();
        let summary: Summary =
            client.call_streaming(method::RUN, &params, |_| ControlFlow::Continue(()))?;
        let wall = start.elapsed().as_secs_f64();
        Ok((Sample { wall, cpu: self.cpu_seconds()? - before }, summary.matches))
    }

    /// CPU seconds that the daemon has taken so far, from the kernel's clock ticks.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let id = self.process.borrow().id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        Ok(measure::cpu_seconds(&stat, measure::OWN_TICKS))
    }

    pub(super) fn stop(&self) -> Result<()> {
        let _empty: serde_json::Value =
            self.client.borrow_mut().call(method::STOP, &StopParams { drain: false })?;
        self.process.borrow_mut().wait()?;
        Ok(())
    }
}
