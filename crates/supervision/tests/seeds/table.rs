//! A tree as a text: its format, the spec that it stands for, and what OTP does to it.
//!
//! A line is a node: `id kind intensity/period restart stop`, then, if it exists only sometimes, in
//! which modes. Indentation is the tree, order is start order.
//!
//! | word | meaning |
//! |---|---|
//! | `worker` | a leaf |
//! | `o4o`, `o4a`, `r4o` | supervisors: one_for_one, one_for_all, rest_for_one |
//! | `dyn` | a dynamic supervisor |
//! | `part:2` | a partition supervisor; the line below it is each of its partitions |
//! | `P`, `T`, `X` | permanent, transient, temporary |
//! | `5000`, `inf`, `kill` | told to stop and killed after so many milliseconds, waited for, killed |
//! | `*` before an id | a template: started at run time, under a name of its own |
//! | `degrade:60000` | behind a firewall with this cooldown |
//! | `[a,b]` | only in the modes a and b |

use crate::stage::Stage;
use astscope_supervision::{
    ChildSpec, DynamicSupervisor, PartitionSupervisor, Probe, Restart, Stop, Strategy,
    SupervisorSpec,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Children of a dynamic supervisor: no seed comes near it, and one of them names it.
const CHILDREN_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Worker,
    Static(Strategy),
    Dynamic,
    Partitioned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    Down,
    /// Its supervisor has forgotten it.
    Gone,
}

/// A line of a table, with what is below it; and, in a model, what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) intensity: usize,
    pub(crate) period: Duration,
    pub(crate) restart: Restart,
    pub(crate) stop: Stop,
    pub(crate) degrade: Option<Duration>,
    pub(crate) children: Vec<Node>,
    /// What can be started below it at run time.
    pub(crate) templates: Vec<Node>,
    /// It was, so the next incarnation of its supervisor doesn't know it.
    pub(crate) added: bool,
    pub(crate) state: State,
}

impl Node {
    /// The tree of a table in some modes.
    pub(crate) fn parse(table: &str, modes: &[&str]) -> Self {
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .filter(|line| !line.trim().is_empty())
            .collect();
        Self::of(&lines, modes).unwrap()
    }

    /// The node of the first line, whose indentation is less than that of the others. `None` if it
    /// doesn't exist in these modes.
    fn of(lines: &[&str], modes: &[&str]) -> Option<Self> {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let (first, rest) = lines.split_first()?;
        let words: Vec<_> = first.split_whitespace().collect();
        let [id, kind, ..] = words[..] else { panic!("no kind: {first}") };
        let mut node = Self {
            id: id.trim_start_matches('*').to_owned(),
            kind: match kind {
                "worker" => Kind::Worker,
                "o4o" => Kind::Static(Strategy::OneForOne),
                "o4a" => Kind::Static(Strategy::OneForAll),
                "r4o" => Kind::Static(Strategy::RestForOne),
                "dyn" => Kind::Dynamic,
                _ if kind.starts_with("part:") => Kind::Partitioned,
                _ => panic!("no kind: {first}"),
            },
            intensity: 0,
            period: Duration::ZERO,
            restart: Restart::Permanent,
            stop: Stop::Wait,
            degrade: None,
            children: Vec::new(),
            templates: Vec::new(),
            added: false,
            state: State::Up,
        };
        for word in &words[2..] {
            match word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
                Some(only) if only.split(',').any(|mode| modes.contains(&mode)) => {}
                Some(_) => return None,
                None => node.set(word),
            }
        }
        let mut at = 0;
        while at < rest.len() {
            let n_below =
                rest[at + 1..].iter().take_while(|line| indent(line) > indent(rest[at])).count();
            if let Some(child) = Self::of(&rest[at..=at + n_below], modes) {
                let is_template = rest[at].trim_start().starts_with('*');
                if is_template { &mut node.templates } else { &mut node.children }.push(child);
            }
            at += 1 + n_below;
        }
        if let Some(count) = kind.strip_prefix("part:") {
            let partition = node.templates.pop().unwrap();
            let count: usize = count.parse().unwrap();
            let named = |at: usize| Self { id: at.to_string(), ..partition.clone() };
            node.children = (0..count).map(named).collect();
        }
        Some(node)
    }

    fn set(&mut self, word: &str) {
        let millis = |word: &str| Duration::from_millis(word.parse().unwrap());
        match word {
            "-" => {}
            "P" => self.restart = Restart::Permanent,
            "T" => self.restart = Restart::Transient,
            "X" => self.restart = Restart::Temporary,
            "inf" => self.stop = Stop::Wait,
            "kill" => self.stop = Stop::Kill,
            _ => {
                if let Some((restarts, seconds)) = word.split_once('/') {
                    self.intensity = restarts.parse().unwrap();
                    self.period = Duration::from_secs(seconds.parse().unwrap());
                } else if let Some(cooldown) = word.strip_prefix("degrade:") {
                    self.degrade = Some(millis(cooldown));
                } else {
                    self.stop = Stop::Within(millis(word));
                }
            }
        }
    }

    /// The same tree with some words of a line changed: a row for what two documents say of it.
    /// `name` is the end of a path, of a template too.
    pub(crate) fn with(mut self, name: &str, words: &str) -> Self {
        let Some(node) = self.line("", &format!("/{name}")) else { panic!("no {name}") };
        words.split_whitespace().for_each(|word| node.set(word));
        self
    }

    fn line(&mut self, above: &str, ending: &str) -> Option<&mut Self> {
        let path = format!("{above}/{}", self.id);
        if path.ends_with(ending) {
            return Some(self);
        }
        let mut below = self.children.iter_mut().chain(&mut self.templates);
        below.find_map(|node| node.line(&path, ending))
    }

    /// The same tree with so many of each template running; of one below a static supervisor, which
    /// is known by its own name, there is one.
    pub(crate) fn grown(mut self, count: usize) -> Self {
        self.children = self.children.into_iter().map(|child| child.grown(count)).collect();
        let names = |template: &Self| match self.kind {
            Kind::Dynamic => (1..=count).map(|n| format!("{}_{n}", template.id)).collect(),
            _ => vec![template.id.clone()],
        };
        let templates = self.templates.iter();
        let added: Vec<_> = templates
            .flat_map(|template| names(template).into_iter().map(|id| template.instance(&id)))
            .collect();
        self.children.extend(added);
        self
    }

    pub(crate) fn instance(&self, id: &str) -> Self {
        Self { id: id.to_owned(), added: true, ..self.clone() }
    }

    pub(crate) fn is_supervisor(&self) -> bool {
        self.kind != Kind::Worker
    }

    /// The node at this path below this one.
    pub(crate) fn at(&self, path: &str) -> &Self {
        let ids = path.split('/').filter(|id| !id.is_empty());
        ids.fold(self, |node, id| node.children.iter().find(|child| child.id == id).unwrap())
    }

    pub(crate) fn at_mut(&mut self, path: &str) -> &mut Self {
        let ids = path.split('/').filter(|id| !id.is_empty());
        ids.fold(self, |node, id| node.children.iter_mut().find(|child| child.id == id).unwrap())
    }

    /// The path of the only node whose path ends like this. The root's is empty.
    pub(crate) fn find(&self, name: &str) -> String {
        if self.id == name {
            return String::new();
        }
        let ending = format!("/{name}");
        let paths: Vec<_> = self.walk().into_iter().map(|(path, _)| path).collect();
        let mut hits = paths.into_iter().filter(|path| format!("/{path}").ends_with(&ending));
        match (hits.next(), hits.next()) {
            (Some(path), None) => path,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// The nodes that can be seen, each before those below it, with their paths.
    pub(crate) fn walk(&self) -> Vec<(String, &Self)> {
        let mut nodes = Vec::new();
        self.walk_from("", &mut nodes);
        nodes
    }

    fn walk_from<'a>(&'a self, path: &str, nodes: &mut Vec<(String, &'a Self)>) {
        if self.state == State::Gone {
            return;
        }
        nodes.push((path.to_owned(), self));
        if self.state == State::Up {
            self.children.iter().for_each(|child| child.walk_from(&join(path, &child.id), nodes));
        }
    }

    /// The paths of this node and those below it, each after those below it: the order in which
    /// starts are acknowledged. `path` is its own.
    pub(crate) fn started(&self, path: &str) -> Vec<String> {
        let below = self.children.iter();
        let mut paths: Vec<_> =
            below.flat_map(|child| child.started(&join(path, &child.id))).collect();
        paths.push(path.to_owned());
        paths
    }
}

// ── OTP's rules, on a table ─────────────────────────────────────────────────────────────────────

impl Node {
    /// A node ended. Returns who is started again, in the order of the acknowledgements.
    pub(crate) fn ended(&mut self, path: &str, is_abnormal: bool) -> Vec<String> {
        let (above, id) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.at_mut(above);
        let at = parent.children.iter().position(|child| child.id == id).unwrap();
        let is_dynamic = parent.kind == Kind::Dynamic;
        let child = &mut parent.children[at];
        let restarts = match child.restart {
            Restart::Permanent => true,
            Restart::Transient => is_abnormal,
            Restart::Temporary => false,
        };
        if !restarts {
            let is_forgotten = is_dynamic || child.restart == Restart::Temporary;
            child.state = if is_forgotten { State::Gone } else { State::Down };
            return Vec::new();
        }
        let group = match parent.kind {
            Kind::Static(Strategy::OneForAll) => 0..parent.children.len(),
            Kind::Static(Strategy::RestForOne) => at..parent.children.len(),
            Kind::Static(Strategy::OneForOne) | Kind::Dynamic | Kind::Partitioned => at..at + 1,
            Kind::Worker => panic!("a worker has no children"),
        };
        let mut started = Vec::new();
        for sibling in &mut parent.children[group] {
            if sibling.restart == Restart::Temporary {
                sibling.state = State::Gone;
            }
            if sibling.state != State::Gone {
                sibling.begin_again(&join(above, &sibling.id), &mut started);
            }
        }
        started
    }

    /// A new incarnation, with all that is written below it and nothing else.
    fn begin_again(&mut self, path: &str, started: &mut Vec<String>) {
        self.children.retain(|child| !child.added);
        for child in &mut self.children {
            child.begin_again(&join(path, &child.id), started);
        }
        self.state = State::Up;
        started.push(path.to_owned());
    }
}

/// A path below a path; the root's is empty.
pub(crate) fn join(above: &str, id: &str) -> String {
    if above.is_empty() { id.to_owned() } else { format!("{above}/{id}") }
}

// ── the spec ────────────────────────────────────────────────────────────────────────────────────

/// What a worker is, if it isn't a scripted one.
pub(crate) type Role = Arc<dyn Fn(&str) -> Option<ChildSpec> + Send + Sync>;

/// Who plays: scripted workers on a stage, except where there is a role. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cast {
    pub(crate) stage: Stage,
    pub(crate) role: Role,
    /// For faults of those who aren't scripted.
    pub(crate) probe: Probe,
    handles: Arc<Mutex<Handles>>,
}

/// The ways to supervisors whose children come and go, by their paths.
#[derive(Default)]
struct Handles {
    dynamics: BTreeMap<String, DynamicSupervisor<String>>,
    partitions: BTreeMap<String, PartitionSupervisor<String>>,
}

impl Cast {
    pub(crate) fn new(role: impl Fn(&str) -> Option<ChildSpec> + Send + Sync + 'static) -> Self {
        let (stage, probe) = (Stage::by_path(), Probe::new());
        Self { stage, role: Arc::new(role), probe, handles: Arc::default() }
    }

    pub(crate) fn scripted() -> Self {
        Self::new(|_| None)
    }

    /// The dynamic supervisor at this path. Its children are told their names.
    pub(crate) fn dynamic(&self, path: &str) -> DynamicSupervisor<String> {
        self.handles.lock().unwrap().dynamics[path].clone()
    }

    /// The partition supervisor at this path. Its handles are the partitions' paths.
    pub(crate) fn partitions(&self, path: &str) -> PartitionSupervisor<String> {
        self.handles.lock().unwrap().partitions[path].clone()
    }
}

impl Node {
    /// The spec of this supervisor, which is at this path.
    pub(crate) fn spec(&self, path: &str, cast: &Cast) -> SupervisorSpec {
        let spec = match self.kind {
            Kind::Static(strategy) => SupervisorSpec::new(strategy),
            Kind::Dynamic => SupervisorSpec::dynamic(CHILDREN_MAX),
            Kind::Partitioned => SupervisorSpec::new(Strategy::OneForOne),
            Kind::Worker => panic!("{} is a worker", self.id),
        };
        let spec = spec.intensity(self.intensity, self.period);
        if self.kind == Kind::Partitioned {
            return spec; // whose children are the partition supervisor's
        }
        spec.children(self.children.iter().map(|child| child.child(path, cast)))
    }

    /// The spec of this node as a child of the supervisor at this path.
    pub(crate) fn child(&self, above: &str, cast: &Cast) -> ChildSpec {
        let path = join(above, &self.id);
        let id = self.id.as_str();
        let child = match self.kind {
            Kind::Worker => (cast.role)(&path).unwrap_or_else(|| cast.stage.worker(id)),
            Kind::Static(_) => ChildSpec::supervisor(id, self.spec(&path, cast)),
            Kind::Dynamic => {
                let (template, own) = (self.templates[0].clone(), cast.clone());
                let below = path.clone();
                let dynamic = DynamicSupervisor::new(id, move |name: String| {
                    template.instance(&name).child(&below, &own)
                });
                let child = dynamic.spec(self.spec(&path, cast));
                cast.handles.lock().unwrap().dynamics.insert(path, dynamic);
                child
            }
            Kind::Partitioned => {
                let partition = |at: String| {
                    let node = &self.children[at.parse::<usize>().unwrap()];
                    (node.child(&path, cast), join(&path, &at))
                };
                let partitions =
                    PartitionSupervisor::new(id, self.children.len(), partition).unwrap();
                let child = partitions.spec(self.spec(&path, cast));
                cast.handles.lock().unwrap().partitions.insert(path, partitions);
                child
            }
        };
        let child = child.restart(self.restart).stop(self.stop);
        match self.degrade {
            Some(cooldown) => child.degrade(cooldown),
            None => child,
        }
    }
}
