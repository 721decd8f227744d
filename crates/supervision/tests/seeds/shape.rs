//! What follows from any table, checked for every node of its tree.
//!
//! Each check starts the tree anew for each thing that it does to it, on a paused clock: a day of
//! failures takes as long as its messages do.

use super::table::{Cast, Kind, Node, State, join};
use crate::stage::Stage;
use astscope_supervision::{
    Event, EventKind, Exit, Fault, LintRule, Outcome, Point, Recorder, Restart, Root, Stop,
    Supervisor, TreeNode,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a killed child may take to end: the default of every spec here.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// The tests that every tree has. `$findings` is what its lint is known to find; a tree that only
/// differs in some numbers from another has no lint and no picture of its own.
macro_rules! shape {
    ($name:ident, $tree:expr $(, $findings:expr)?) => {
        mod $name {
            use super::*;
            use crate::seeds::shape;

            #[tokio::test(start_paused = true)]
            async fn it_starts_in_the_order_of_the_table_and_stops_in_reverse() {
                shape::check_order(&$tree).await;
            }

            #[tokio::test(start_paused = true)]
            async fn every_supervisor_counts_what_the_table_has() {
                shape::check_counts(&$tree).await;
            }

            #[tokio::test(start_paused = true)]
            async fn whoever_ends_takes_along_whom_the_strategy_says_and_nobody_else() {
                shape::check_kills(&$tree).await;
            }

            #[tokio::test(start_paused = true)]
            async fn failures_one_after_the_other_leave_what_the_rules_say() {
                shape::check_series(&$tree).await;
            }

            #[tokio::test(start_paused = true)]
            async fn every_supervisor_bears_its_intensity_and_no_more() {
                shape::check_intensity(&$tree).await;
            }

            #[tokio::test(start_paused = true)]
            async fn every_child_is_stopped_by_its_own_rule() {
                shape::check_stops(&$tree).await;
            }

            $(
                #[test]
                fn its_outline_is_the_one_that_we_know() {
                    shape::check_outline(&$tree, stringify!($name));
                }

                #[test]
                fn its_lint_finds_what_is_declared_and_nothing_else() {
                    shape::check_findings(&$tree, $findings);
                }
            )?
        }
    };
}

/// A running tree, and what it should look like.
pub(crate) struct Play {
    pub(crate) cast: Cast,
    pub(crate) stage: Stage,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) root: Root,
    pub(crate) tree: Node,
}

impl Play {
    /// Starts a tree of scripted workers, with so many of each template.
    pub(crate) async fn start(tree: &Node, grown: usize) -> Self {
        let mut play = Self::of(tree, Cast::scripted()).await;
        play.grow(grown).await;
        play.recorder.take();
        play
    }

    /// Starts the tree as it is written.
    pub(crate) async fn of(tree: &Node, cast: Cast) -> Self {
        let recorder = Recorder::new();
        let spec = tree
            .spec("", &cast)
            .observer(Arc::<Recorder>::clone(&recorder))
            .probe(cast.probe.clone());
        let root = spec.start(&tree.id).await.unwrap();
        let stage = cast.stage.clone();
        Self { cast, stage, recorder, root, tree: tree.clone() }
    }

    /// Starts so many of each template.
    pub(crate) async fn grow(&mut self, count: usize) {
        self.tree = self.tree.clone().grown(count);
        let nodes = self.tree.walk();
        let added: Vec<_> = nodes.into_iter().filter(|(_, node)| node.added).collect();
        for (path, node) in added {
            let (above, id) = path.rsplit_once('/').unwrap();
            let started = if self.tree.at(above).kind == Kind::Dynamic {
                self.cast.dynamic(above).start_child(id.to_owned()).await
            } else {
                let spec = node.child(above, &self.cast);
                self.supervisor(above).await.start_child(spec).await
            };
            started.unwrap().unwrap();
        }
    }

    pub(crate) async fn supervisor(&self, path: &str) -> Supervisor {
        match path {
            "" => self.root.supervisor().clone(),
            path => self.root.supervisor().supervisor_at(path).await.unwrap(),
        }
    }

    /// Ends a worker, and returns who was started then, in this order.
    pub(crate) async fn exit(&self, path: &str, exit: Exit) -> Vec<String> {
        self.recorder.take();
        self.stage.exit_now(path, exit);
        quiet().await;
        self.started()
    }

    pub(crate) async fn crash(&self, path: &str) -> Vec<String> {
        self.exit(path, Exit::failed("boom")).await
    }

    /// A child of this supervisor that nobody depends on: how a supervisor is ended.
    pub(crate) async fn sabotage(&self, path: &str) -> String {
        let saboteur = self.stage.worker("saboteur");
        self.supervisor(path).await.start_child(saboteur).await.unwrap().unwrap();
        join(path, "saboteur")
    }

    /// Ends a supervisor by one failure too many of a child that is added for it, and returns who
    /// was started after that one.
    pub(crate) async fn melt(&self, path: &str) -> Vec<String> {
        let saboteur = self.sabotage(path).await;
        for _ in 0..self.tree.at(path).intensity {
            self.crash(&saboteur).await;
        }
        self.crash(&saboteur).await
    }

    /// Makes a worker panic that isn't scripted, if it is there.
    pub(crate) async fn strike(&self, path: &str) {
        let whole = format!("{}/{path}", self.tree.id);
        self.cast.probe.arm(whole, Point::Run, Fault::Panic, 1);
        quiet().await;
        self.cast.probe.clear();
    }

    /// Ends whatever is there, abnormally if it is a worker.
    pub(crate) async fn kill(&self, path: &str) -> Vec<String> {
        if self.tree.at(path).is_supervisor() {
            self.melt(path).await
        } else {
            self.crash(path).await
        }
    }

    /// Who has been started since the last event that was taken.
    pub(crate) fn started(&self) -> Vec<String> {
        let started = |event: Event| {
            matches!(event.kind, EventKind::Started { .. }).then(|| below_root(&event))
        };
        self.recorder.events().into_iter().filter_map(started).collect()
    }

    /// Who has melted down since the last event that was taken.
    pub(crate) fn melted(&self) -> Vec<String> {
        let melted = |event: Event| {
            matches!(event.kind, EventKind::Meltdown { .. }).then(|| below_root(&event))
        };
        self.recorder.events().into_iter().filter_map(melted).collect()
    }

    /// Who had to be killed since the last event that was taken.
    fn not_stopped(&self) -> Vec<String> {
        let killed = |event: Event| {
            let killed = EventKind::StopFailed { exit: Exit::Killed };
            (event.kind == killed).then(|| below_root(&event))
        };
        self.recorder.events().into_iter().filter_map(killed).collect()
    }

    /// What can be seen of the running tree: a line for each node.
    pub(crate) async fn visible(&self) -> Vec<String> {
        let asked = Instant::now();
        let tree = self.root.supervisor().tree().await;
        assert_eq!(asked.elapsed(), Duration::ZERO, "looking at a tree waits for nobody");
        let mut lines = Vec::new();
        see(&tree, "", &mut lines);
        lines
    }

    /// Compares the running tree with the one that it should be.
    pub(crate) async fn check_visible(&self, after: &str) {
        let line = |(path, node): (String, &Node)| {
            format!("{path} {}", if node.state == State::Up { "up" } else { "down" })
        };
        let expected: Vec<_> = self.tree.walk().into_iter().map(line).collect();
        assert_eq!(self.visible().await, expected, "after the end of {after}");
    }

    /// Processes of the running tree, the root included: OTP's way to count.
    pub(crate) async fn n_processes(&self) -> usize {
        let mut n = 1;
        for (path, node) in self.tree.walk() {
            if node.is_supervisor() {
                n += self.supervisor(&path).await.count_children().await.unwrap().active;
            }
        }
        n
    }
}

fn forget_life(node: &mut TreeNode) {
    node.live = None;
    node.children.iter_mut().for_each(forget_life);
}

fn see(node: &TreeNode, path: &str, lines: &mut Vec<String>) {
    lines.push(format!("{path} {}", node.live.as_ref().unwrap().state));
    node.children.iter().for_each(|child| see(child, &join(path, &child.id), lines));
}

/// The path of whom an event happened to, below the root, whose own is empty.
pub(crate) fn below_root(event: &Event) -> String {
    event.path.as_str().split_once('/').map_or(String::new(), |(_, path)| path.to_owned())
}

/// Lets everything that can run, run. A millisecond is enough, since the clock is paused.
pub(crate) async fn quiet() {
    sleep(Duration::from_millis(1)).await;
}

/// Rows of `who -> whom`: if the one on the left ends, who is started again, each with all that is
/// written below. Names are the ends of paths.
pub(crate) async fn check_rows(tree: &Node, rows: &str) {
    for row in rows.lines().map(str::trim).filter(|row| !row.is_empty()) {
        let (who, whom) = row.split_once("->").unwrap();
        let play = Play::start(tree, 2).await;
        let path = play.tree.find(who.trim());
        let expected: Vec<_> = whom
            .split_whitespace()
            .filter(|name| *name != "nobody")
            .flat_map(|name| {
                let path = play.tree.find(name);
                tree.clone().grown(2).written(&path)
            })
            .collect();
        assert_eq!(play.kill(&path).await, expected, "{row}");
    }
}

impl Node {
    /// The paths of a node and of what is written below it, as they are acknowledged.
    fn written(&self, path: &str) -> Vec<String> {
        let mut node = self.at(path).clone();
        node.forget_added();
        node.started(path)
    }

    fn forget_added(&mut self) {
        self.children.retain(|child| !child.added);
        self.children.iter_mut().for_each(Self::forget_added);
    }
}

// ── order, counts ───────────────────────────────────────────────────────────────────────────────

pub(crate) async fn check_order(tree: &Node) {
    let mut play = Play::of(tree, Cast::scripted()).await;
    let mut expected = tree.started("");
    expected.pop(); // the root is nobody's child
    assert_eq!(play.started(), expected);
    let walk = tree.walk();
    let leaves: Vec<_> = walk.iter().filter(|(_, node)| !node.is_supervisor()).collect();
    let inits: Vec<_> = leaves.iter().map(|(path, _)| format!("init {path}")).collect();
    assert_eq!(play.stage.take_log(), inits, "one init after the other, depth first");
    let mut live = play.root.supervisor().tree().await;
    forget_life(&mut live);
    assert_eq!(live, tree.spec("", &Cast::scripted()).outline(&tree.id));

    // One of each template, because several are stopped at the same time.
    play.grow(1).await;
    play.check_visible("nobody").await;
    play.recorder.take();
    let outcome = play.root.shutdown().await;
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    let (mut told, mut stopped) = (Vec::new(), Vec::new());
    for event in play.recorder.events() {
        match event.kind {
            EventKind::Stopping { .. } => told.push(below_root(&event)),
            EventKind::Stopped { .. } => stopped.push(below_root(&event)),
            _ => {}
        }
    }
    let mut started = play.tree.started("");
    started.pop();
    started.reverse();
    assert_eq!(told, started, "who was up first is told last, and before its children");
    let mut walk: Vec<_> = play.tree.walk().into_iter().map(|(path, _)| path).skip(1).collect();
    walk.reverse();
    assert_eq!(stopped, walk, "and is gone last, and after its children");
}

pub(crate) async fn check_counts(tree: &Node) {
    let play = Play::start(tree, 2).await;
    for (path, node) in play.tree.walk() {
        if !node.is_supervisor() {
            continue;
        }
        let n_children = node.children.len();
        let n_supervisors = node.children.iter().filter(|child| child.is_supervisor()).count();
        let count = play.supervisor(&path).await.count_children().await.unwrap();
        assert_eq!(
            (count.specs, count.active, count.supervisors, count.workers),
            (
                if node.kind == Kind::Dynamic { 1 } else { n_children },
                n_children,
                n_supervisors,
                n_children - n_supervisors
            ),
            "below `{path}`"
        );
    }
    assert_eq!(play.n_processes().await, play.tree.walk().len());
}

// ── who is restarted with whom ──────────────────────────────────────────────────────────────────

pub(crate) async fn check_kills(tree: &Node) {
    for (path, node) in tree.clone().grown(2).walk().into_iter().skip(1) {
        if path.split('/').any(|id| id.ends_with("_2")) {
            continue; // there for the others' sake: what is true of the first is true of the second
        }
        let exits: &[Exit] = match node.restart {
            _ if node.is_supervisor() => &[Exit::Meltdown],
            // How it ends makes no difference, which the series shows too.
            Restart::Permanent => &[Exit::failed("boom")],
            Restart::Transient | Restart::Temporary => &[Exit::failed("boom"), Exit::Normal],
        };
        for exit in exits {
            let mut play = Play::start(tree, 2).await;
            let started = match exit {
                Exit::Meltdown => play.melt(&path).await,
                exit => play.exit(&path, exit.clone()).await,
            };
            let expected = play.tree.ended(&path, exit.is_abnormal());
            assert_eq!(started, expected, "after the end of {path} ({exit})");
            play.check_visible(&path).await;
        }
    }
}

/// All workers of one tree end after each other, each in its own way, with so much time in between
/// that nothing melts down.
pub(crate) async fn check_series(tree: &Node) {
    let longest = tree.walk().into_iter().map(|(_, node)| node.period).max().unwrap();
    let mut play = Play::start(tree, 2).await;
    let workers: Vec<_> = play
        .tree
        .walk()
        .into_iter()
        .filter_map(|(path, node)| (!node.is_supervisor()).then_some(path))
        .collect();
    for (n, path) in workers.iter().enumerate() {
        let is_up = |(at, node): (String, &Node)| at == *path && node.state == State::Up;
        if !play.tree.walk().into_iter().any(is_up) {
            continue; // it was lost with its supervisor, or its group
        }
        sleep(longest + Duration::from_secs(1)).await;
        let exit = if n % 2 == 0 { Exit::Normal } else { Exit::failed("boom") };
        let started = play.exit(path, exit.clone()).await;
        assert_eq!(started, play.tree.ended(path, exit.is_abnormal()), "{path} ({exit})");
        play.check_visible(path).await;
    }
}

// ── how much is too much ────────────────────────────────────────────────────────────────────────

pub(crate) async fn check_intensity(tree: &Node) {
    for (path, node) in tree.clone().grown(1).walk() {
        if node.is_supervisor() {
            check_budget(tree, &path).await;
        }
    }
}

/// As many failures as the intensity says are borne, and again when those are forgotten; one more
/// within the period is too much. Then the parent has had one failure.
async fn check_budget(tree: &Node, path: &str) {
    let play = Play::start(tree, 1).await;
    let node = play.tree.at(path);
    let saboteur = play.sabotage(path).await;
    let hardly_within = node.period.saturating_sub(Duration::from_millis(50));
    for pause in [node.period, hardly_within] {
        for n in 1..=node.intensity {
            play.crash(&saboteur).await;
            assert_eq!(play.melted(), [""; 0], "{n} restarts below `{path}`");
        }
        sleep(pause).await;
    }
    play.crash(&saboteur).await;
    assert_eq!(play.melted(), [path]);
    if path.is_empty() {
        assert_eq!(play.root.wait().await.exit, Exit::Meltdown);
        return;
    }

    // A meltdown is an orderly end: who isn't permanent isn't restarted, and costs nothing.
    let charged = usize::from(node.restart == Restart::Permanent);
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    let saboteur = play.sabotage(above).await;
    for n in charged + 1..=play.tree.at(above).intensity {
        play.crash(&saboteur).await;
        assert_eq!(play.melted(), [""; 0], "failure {n} above, after the end of {path}");
    }
    play.crash(&saboteur).await;
    assert_eq!(play.melted()[0], above, "one more after the end of {path}");
}

// ── how long a stop takes ───────────────────────────────────────────────────────────────────────

pub(crate) async fn check_stops(tree: &Node) {
    let grown = tree.clone().grown(1);
    let limits = limits(&grown);
    for (path, node) in grown.walk() {
        if node.is_supervisor() {
            continue;
        }
        let play = Play::start(tree, 1).await;
        play.stage.stubborn(&path);
        let asked = Instant::now();
        let outcome = play.root.shutdown().await;
        let limit = limits[&path];
        let about = limit..limit + Duration::from_millis(2);
        assert!(about.contains(&asked.elapsed()), "{path}: {:?} of {limit:?}", asked.elapsed());
        assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        if limit < limits[above] {
            assert_eq!(play.not_stopped(), [path.as_str()], "nobody else was killed");
        }
    }
    let bound = stop_bound(tree);
    assert_eq!(tree.spec("", &Cast::scripted()).stop_bound(), Some(bound));
    assert!(all_stubborn(tree, 0).await <= bound);
    all_stubborn(tree, 2).await;
}

/// Nobody stops when he is told to. Returns how long it takes.
async fn all_stubborn(tree: &Node, grown: usize) -> Duration {
    let play = Play::start(tree, grown).await;
    for (path, _) in play.tree.walk() {
        play.stage.stubborn(&path);
    }
    let asked = Instant::now();
    let outcome = play.root.shutdown().await;
    let (elapsed, expected) = (asked.elapsed(), stop_time(&play.tree));
    // A timer may be a millisecond late, one after the other.
    let late = Duration::from_millis(1) * u32::try_from(play.tree.walk().len()).unwrap();
    assert!((expected..expected + late).contains(&elapsed), "{elapsed:?} of {expected:?}");
    assert_eq!(outcome, Outcome { exit: Exit::Shutdown, unkillable: 0 });
    elapsed
}

/// The shortest limit of each node and those above it.
fn limits(tree: &Node) -> BTreeMap<String, Duration> {
    let mut limits = BTreeMap::new();
    for (path, node) in tree.walk() {
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let inherited = limits.get(above).copied().unwrap_or(Duration::MAX);
        let own = match node.stop {
            Stop::Kill => Duration::ZERO,
            Stop::Within(time) => time,
            Stop::Wait => Duration::MAX,
        };
        limits.insert(path, inherited.min(own));
    }
    limits
}

/// How long a node takes to stop whose workers don't.
pub(crate) fn stop_time(node: &Node) -> Duration {
    let below = node.children.iter().map(stop_time);
    let below = match node.kind {
        Kind::Dynamic => below.max().unwrap_or_default(), // all at once
        _ => below.sum(),
    };
    match node.stop {
        Stop::Kill => Duration::ZERO,
        Stop::Within(time) if node.is_supervisor() => time.min(below),
        Stop::Within(time) => time,
        Stop::Wait => below,
    }
}

/// The same if a kill takes as long as it may.
fn stop_bound(supervisor: &Node) -> Duration {
    let bound = |child: &Node| match child.stop {
        Stop::Kill => KILL_GRACE,
        Stop::Within(time) => time + KILL_GRACE,
        Stop::Wait => stop_bound(child),
    };
    supervisor.children.iter().map(bound).sum()
}

// ── what it looks like ──────────────────────────────────────────────────────────────────────────

pub(crate) fn check_outline(tree: &Node, name: &str) {
    // One of each template, so that it is in the picture.
    let outline = tree.clone().grown(1).spec("", &Cast::scripted()).outline(&tree.id);
    let text = expect_test::expect_file![format!("golden/{name}.txt")];
    text.assert_eq(&outline.to_string());
    let json = expect_test::expect_file![format!("golden/{name}.json")];
    json.assert_eq(&format!("{}\n", outline.to_json()));
}

pub(crate) fn check_findings(tree: &Node, declared: &[(LintRule, &str)]) {
    let spec = tree.clone().grown(1).spec("", &Cast::scripted());
    let found = spec.lint(&tree.id);
    let found: Vec<_> = found.iter().map(|finding| (finding.rule, finding.path.as_str())).collect();
    assert_eq!(found, declared);
}
