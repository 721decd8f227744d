//! What every test of the list does: start a tree of scripted workers, and read one log of all
//! that they, their supervisors and the clock did.

use crate::stage::{Stage, settle};
use astscope_supervision::{
    ChildSpec, ChildState, Event, EventKind, Observer, Root, StartError, Strategy, Supervisor,
    SupervisorSpec,
};
use expect_test::Expect;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Starts a tree called `root` and waits until it is quiet.
pub(crate) async fn perform(stage: &Stage, spec: SupervisorSpec) -> Root {
    try_perform(stage, spec).await.unwrap()
}

/// The same, for a tree that may not start.
pub(crate) async fn try_perform(stage: &Stage, spec: SupervisorSpec) -> Result<Root, StartError> {
    let root = spec.observer(Arc::new(Log(stage.clone()))).start("root").await;
    settle().await;
    root
}

/// Compares the log since the last time.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "an expectation is made where it is checked")]
pub(crate) fn check(stage: &Stage, expected: Expect) {
    expected.assert_eq(&take(stage));
}

/// The log since the last time, for a test that plays several times.
pub(crate) fn take(stage: &Stage) -> String {
    stage.take_log().into_iter().flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// Forgets the log.
pub(crate) fn skip(stage: &Stage) {
    stage.take_log();
}

/// A supervisor that tolerates as many restarts as a test may need.
pub(crate) fn supervisor(strategy: Strategy) -> SupervisorSpec {
    SupervisorSpec::new(strategy).intensity(100, secs(5))
}

pub(crate) fn one_for_one() -> SupervisorSpec {
    supervisor(Strategy::OneForOne)
}

pub(crate) fn one_for_all() -> SupervisorSpec {
    supervisor(Strategy::OneForAll)
}

pub(crate) fn rest_for_one() -> SupervisorSpec {
    supervisor(Strategy::RestForOne)
}

pub(crate) fn dynamic() -> SupervisorSpec {
    SupervisorSpec::dynamic(100).intensity(100, secs(5))
}

/// Workers with these names.
pub(crate) fn workers(stage: &Stage, ids: &str) -> Vec<ChildSpec> {
    ids.split_whitespace().map(|id| stage.worker(id)).collect()
}

pub(crate) fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Writes what a call answered into the log.
pub(crate) fn answer<T: std::fmt::Debug, E: std::fmt::Debug>(
    stage: &Stage,
    what: &str,
    answer: Result<T, E>,
) {
    match answer {
        Ok(value) => stage.line(format!("> {what}: {value:?}")),
        Err(error) => stage.line(format!("> {what}: error {error:?}")),
    }
}

/// Writes the children as the supervisor lists them into the log, newest first.
pub(crate) async fn children(stage: &Stage, supervisor: &Supervisor) {
    let children = supervisor.which_children().await.unwrap();
    let words: Vec<_> = children
        .iter()
        .map(|child| format!("{} {} #{}", child.id, state(child.state), child.incarnation))
        .collect();
    stage.line(format!("> children: {}", words.join(", ")));
}

/// Writes the numbers of children into the log.
pub(crate) async fn count(stage: &Stage, supervisor: &Supervisor) {
    let count = supervisor.count_children().await.unwrap();
    stage.line(format!(
        "> count: {} specs, {} active, {} supervisors, {} workers",
        count.specs, count.active, count.supervisors, count.workers
    ));
}

fn state(state: ChildState) -> &'static str {
    match state {
        ChildState::Down => "down",
        ChildState::Starting => "starting",
        ChildState::Up => "up",
        ChildState::Stopping => "stopping",
        ChildState::Restarting => "restarting",
        ChildState::Degraded => "degraded",
    }
}

/// Longer than any test, in virtual time: what isn't done by then hangs.
const A_DAY: Duration = Duration::from_hours(24);

/// Stops the tree and writes how it ended and how long that took into the log.
pub(crate) async fn stop(stage: &Stage, root: &Root) {
    let start = Instant::now();
    let Ok(outcome) = tokio::time::timeout(A_DAY, root.shutdown()).await else {
        return stage.line("> never stops");
    };
    let unkillable = match outcome.unkillable {
        0 => String::new(),
        n => format!(", {n} unkillable"),
    };
    stage.line(format!("> {} after {:?}{unkillable}", outcome.exit, start.elapsed()));
}

/// Writes why the tree ended into the log. It must have.
pub(crate) async fn ended(stage: &Stage, root: &Root) {
    let outcome = tokio::time::timeout(ms(1), root.wait()).await;
    match outcome {
        Ok(outcome) => stage.line(format!("> ended: {}", outcome.exit)),
        Err(_) => stage.line("> still there"),
    }
}

/// Every event, in the words of its `Display`: `!` marks those that OTP would report as an error,
/// `#` the incarnation.
pub(crate) struct Log(pub(crate) Stage);

impl Observer for Log {
    fn observe(&self, event: &Event) {
        let path = event.path.as_str();
        let path = path.strip_prefix("root/").unwrap_or(path);
        let mark = if event.kind.is_report() { "! " } else { "" };
        let line = match &event.kind {
            EventKind::Started { incarnation } => format!("{path} started #{incarnation}"),
            kind => format!("{mark}{path} {kind}"),
        };
        self.0.line(line);
    }
}
