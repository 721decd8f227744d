//! Where a file's code could be observed at run time: its points of instrumentation.
//!
//! Nothing here changes code. A point says what stands where, how it would be observed, and under
//! which identity, for whoever inserts probes or has events of a running program to place. What
//! counts is a *profile* of the language: a table of node kinds, and for Elixir, whose definitions
//! are calls, a function.
//!
//! ```
//! use astscope_parsing::instrumentation::{Level, MapConfig, PointKind, points};
//! use astscope_parsing::{Limits, parse};
//! use astscope_syntax::Language;
//!
//! let text = "defmodule M do\n  def f(a), do: a |> g()\nend\n";
//! let file = parse(text.into(), Language::Elixir, &Limits::DAEMON, &mut || false).expect("a tree");
//! let found = points(&file, &MapConfig::of(Level::Balanced));
//! assert_eq!(found[0].kind, PointKind::FunctionEntry);
//! assert_eq!(found[0].symbol, "M.f/1");
//! ```

mod elixir;
mod impact;
mod profile;

pub use impact::{DEFAULT_IMPACT_MAX, estimate_performance_impact, optimize_for_performance};

use astscope_syntax::{ContentId, Language, LineIndex, Node, NodeId, ParsedFile, Position};
use profile::{Construct, Inside, Role};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How much is to be observed. Each level has all points of those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Functions only.
    Minimal,
    /// And calls that a service's life consists of, such as `start_link` and `cast`.
    #[default]
    Balanced,
    /// And all other calls, pipelines, branches, handlers of errors, and attributes.
    Comprehensive,
    /// And what is assigned to variables.
    Debug,
}

impl Level {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Minimal, Self::Balanced, Self::Comprehensive, Self::Debug];

    /// Its name, as it is typed and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Balanced => "balanced",
            Self::Comprehensive => "comprehensive",
            Self::Debug => "debug",
        }
    }

    /// The level of this name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// How a point is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Strategy {
    /// At the entry and the exit of a function.
    FunctionBoundary,
    /// The value of an expression.
    ExpressionTrace,
    /// That a line runs. No level chooses it: it is for callers who turn a point into one.
    LineExecution,
    /// The values of variables.
    VariableCapture,
    /// Not at run time: it is a place that others refer to.
    None,
}

impl Strategy {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::FunctionBoundary => "function_boundary",
            Self::ExpressionTrace => "expression_trace",
            Self::LineExecution => "line_execution",
            Self::VariableCapture => "variable_capture",
            Self::None => "none",
        }
    }

    /// What the priority of a point begins with.
    fn priority(self) -> i32 {
        match self {
            Self::FunctionBoundary => 100,
            Self::ExpressionTrace => 50,
            Self::LineExecution => 30,
            Self::VariableCapture => 20,
            Self::None => 0,
        }
    }
}

/// What stands at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointKind {
    /// Where a function or method begins.
    FunctionEntry,
    /// Where it ends, in whichever way.
    FunctionExit,
    /// The entry of a callback of a stateful server.
    ServerCallback,
    /// The entry of an action of a web controller.
    ControllerAction,
    /// The entry of a callback of a live view.
    LiveViewCallback,
    /// A function without a name.
    Closure,
    /// A pipeline, or a chain of three calls or more.
    PipeOperation,
    /// A choice: by pattern or by condition.
    CaseBranch,
    /// Where errors are caught, or passed on.
    TryCatch,
    /// An attribute, annotation or decorator.
    ModuleAttribute,
    /// A macro: its definition, or where it is known to be expanded.
    MacroExpansion,
    /// A call.
    Call,
    /// An assignment.
    Assignment,
}

impl PointKind {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::FunctionEntry => "function_entry",
            Self::FunctionExit => "function_exit",
            Self::ServerCallback => "genserver_callback",
            Self::ControllerAction => "controller_action",
            Self::LiveViewCallback => "live_view_callback",
            Self::Closure => "closure",
            Self::PipeOperation => "pipe_operation",
            Self::CaseBranch => "case_branch",
            Self::TryCatch => "try_catch",
            Self::ModuleAttribute => "module_attribute",
            Self::MacroExpansion => "macro_expansion",
            Self::Call => "call",
            Self::Assignment => "assignment",
        }
    }

    /// What is captured there.
    pub fn captures(self) -> &'static [&'static str] {
        match self {
            Self::FunctionEntry
            | Self::ServerCallback
            | Self::ControllerAction
            | Self::LiveViewCallback
            | Self::Closure
            | Self::Call => &["args", "return"],
            Self::FunctionExit => &["return"],
            Self::PipeOperation => &["input", "output"],
            Self::CaseBranch => &["condition", "branches"],
            Self::TryCatch => &["error"],
            Self::Assignment => &["variables"],
            Self::ModuleAttribute | Self::MacroExpansion => &[],
        }
    }
}

/// Whose identity a point is: what it is, in which symbol, the how manieth of its kind there. Where
/// it stands isn't part of it, so an edit elsewhere changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointId([u8; 16]);

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PointId({self})")
    }
}

/// A place where code could be observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its identity, unique within the file.
    pub id: PointId,
    /// What stands there.
    pub kind: PointKind,
    /// How it is observed.
    pub strategy: Strategy,
    /// Of the tree that it stands in, which may be embedded in another language's.
    pub language: Language,
    /// The symbols that it stands in, the innermost last, such as `M.f/1`. For people: two
    /// definitions may have the same.
    pub symbol: String,
    /// What is defined or called, where that has a name.
    pub name: Option<String>,
    /// How many parameters are defined.
    pub arity: Option<u32>,
    /// Whether others may call it; for definitions.
    pub is_public: bool,
    /// Whether parameters are taken apart by patterns.
    pub has_pattern_matching: bool,
    /// Whether it has guards.
    pub has_guards: bool,
    /// Where it begins.
    pub position: Position,
    /// The greater, the more it is worth to be observed.
    pub priority: i32,
}

impl Point {
    /// What an event of a running program names it by. One for each identity.
    pub fn correlation(&self) -> String {
        format!("corr_{}_{}", self.kind.name(), self.id)
    }
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapConfig {
    /// How much.
    pub level: Level,
    /// Whether pipelines, branches and the like are: by default from [`Level::Comprehensive`] on.
    pub include_expressions: bool,
    /// Whether assignments are: by default at [`Level::Debug`].
    pub include_variables: bool,
}

impl MapConfig {
    /// What a level means by itself.
    pub fn of(level: Level) -> Self {
        Self {
            level,
            include_expressions: level >= Level::Comprehensive,
            include_variables: level >= Level::Debug,
        }
    }
}

/// Names that a service's life consists of: calls of these are observed before others.
const IMPORTANT: [&str; 19] = [
    "init",
    "handle_call",
    "handle_cast",
    "handle_info",
    "terminate",
    "index",
    "show",
    "create",
    "update",
    "delete",
    "start_link",
    "start",
    "stop",
    "call",
    "cast",
    "send",
    "receive",
    "spawn",
    "spawn_link",
];

/// Nodes between two looks at whether to stop: less than a millisecond.
const NODES_PER_CHECK: NodeId = 1024;

/// Whether points of this language are known.
pub fn has_profile(language: Language) -> bool {
    language == Language::Elixir || profile::of(language).is_some()
}

/// The points of a file, embedded languages included: those of the greatest priority first, and
/// among those in the order of the text. None for a language without a [profile](has_profile).
pub fn points(file: &ParsedFile, config: &MapConfig) -> Vec<Point> {
    points_until(file, config, &mut || false).unwrap_or_default()
}

/// Like [`points`], but gives up, with `None`, when `stop` says so, which is asked every millisecond
/// or so.
pub fn points_until(
    file: &ParsedFile,
    config: &MapConfig,
    stop: &mut dyn FnMut() -> bool,
) -> Option<Vec<Point>> {
    let lines = LineIndex::new(&*file.text);
    let mut found = Vec::new();
    for (nth, (language, tree)) in file.trees().enumerate() {
        let mut walk = Walk::new(&file.text, &lines, language, nth, config);
        walk.tree(tree.tree.root(), stop)?;
        found.append(&mut walk.points);
    }
    // Stable: equals stay in the order of the text.
    found.sort_by_key(|point| std::cmp::Reverse(point.priority));
    Some(found)
}

/// Which point each correlation names.
pub fn correlations(points: &[Point]) -> BTreeMap<String, PointId> {
    points.iter().map(|point| (point.correlation(), point.id)).collect()
}

/// A symbol that the walk is in.
struct Symbol {
    /// The first node behind it.
    end: NodeId,
    /// For people.
    shown: String,
    /// For identities: also tells symbols of the same name apart.
    path: String,
    /// Constructs so far, by node kind and kind of point, and symbols by name.
    ordinals: HashMap<(String, Option<PointKind>), u32>,
    /// What is known of an Elixir module.
    module: elixir::Module,
}

/// One tree's points.
struct Walk<'f> {
    text: &'f str,
    lines: &'f LineIndex<&'f str>,
    language: Language,
    config: &'f MapConfig,
    symbols: Vec<Symbol>,
    points: Vec<Point>,
}

impl<'f> Walk<'f> {
    fn new(
        text: &'f str,
        lines: &'f LineIndex<&'f str>,
        language: Language,
        nth: usize,
        config: &'f MapConfig,
    ) -> Self {
        let file = Symbol {
            end: NodeId::MAX,
            shown: String::new(),
            path: format!("{}\0{nth}", language.name()),
            ordinals: HashMap::new(),
            module: elixir::Module::default(),
        };
        Self { text, lines, language, config, symbols: vec![file], points: Vec::new() }
    }

    /// `None` when it was stopped.
    fn tree(&mut self, root: Node<'f>, stop: &mut dyn FnMut() -> bool) -> Option<()> {
        let table = profile::of(self.language);
        // Nodes that belong to a construct around them, in the order in which they come.
        let mut skipped_until = 0;
        let mut head = None;
        for node in root.subtree() {
            let id = node.id();
            if id % NODES_PER_CHECK == 0 && stop() {
                return None;
            }
            if id < skipped_until || head == Some(id) || !node.is_named() {
                continue;
            }
            while self.symbols.len() > 1 && self.symbols.last().is_some_and(|it| id >= it.end) {
                self.symbols.pop();
            }
            let construct = match (self.language, table) {
                (Language::Elixir, _) => {
                    let module = self.symbols.last().map(|it| it.module);
                    elixir::construct(node, self.text, module.unwrap_or_default())
                }
                (_, Some(profile)) => profile.construct(node, self.text),
                (_, None) => return Some(()),
            };
            let Some(construct) = construct else { continue };
            match construct.inside {
                Inside::All => {}
                Inside::AllBut(part) => head = Some(part),
                Inside::Nothing => skipped_until = end(node),
            }
            self.meet(node, &construct);
        }
        Some(())
    }

    fn meet(&mut self, node: Node<'f>, construct: &Construct) {
        let MapConfig { level, include_expressions, include_variables } = *self.config;
        let name = construct.name.as_deref();
        let is_important = name.is_some_and(|name| IMPORTANT.contains(&name));
        let by_level = match level {
            Level::Minimal => -10,
            Level::Balanced => 0,
            Level::Comprehensive => 5,
            Level::Debug => 10,
        };
        let by_rank =
            |strategy: Strategy| strategy.priority() + i32::from(is_important) * 20 + by_level;
        // Also what isn't wanted counts for the ordinals: an identity is the same at each level.
        let (kind, strategy, priority, is_wanted) = match construct.role {
            Role::Unit => return self.enter(node, construct),
            Role::Function(kind) => {
                self.enter(node, construct);
                let (strategy, priority) =
                    (Strategy::FunctionBoundary, if construct.is_public { 100 } else { 90 });
                self.add(node, kind, strategy, priority, construct);
                if kind == PointKind::MacroExpansion {
                    return;
                }
                (PointKind::FunctionExit, strategy, priority, true)
            }
            Role::Flow(PointKind::PipeOperation) => {
                let strategy = Strategy::ExpressionTrace;
                (PointKind::PipeOperation, strategy, by_rank(strategy), include_expressions)
            }
            Role::Flow(kind) => (kind, Strategy::ExpressionTrace, 50, include_expressions),
            Role::Assignment => {
                (PointKind::Assignment, Strategy::VariableCapture, 30, include_variables)
            }
            Role::Attribute => {
                let strategy = Strategy::None;
                (PointKind::ModuleAttribute, strategy, by_rank(strategy), include_expressions)
            }
            Role::Call(kind) => {
                let is_wanted = match level {
                    Level::Minimal => false,
                    Level::Balanced => is_important && kind == PointKind::Call,
                    Level::Comprehensive | Level::Debug => true,
                };
                let strategy = Strategy::ExpressionTrace;
                (kind, strategy, by_rank(strategy), is_wanted)
            }
        };
        if is_wanted {
            self.add(node, kind, strategy, priority, construct);
        } else {
            let _counted = self.ordinal(node, kind);
        }
    }

    /// The how manieth of its kind this is in its symbol.
    fn ordinal(&mut self, node: Node<'f>, kind: PointKind) -> u32 {
        let Some(symbol) = self.symbols.last_mut() else { return 0 };
        let next = symbol.ordinals.entry((node.kind().to_owned(), Some(kind))).or_default();
        *next += 1;
        *next
    }

    /// Goes into a symbol.
    fn enter(&mut self, node: Node<'f>, construct: &Construct) {
        let name = construct.name.as_deref().unwrap_or("_");
        let arity = construct.arity.map(|arity| format!("/{arity}")).unwrap_or_default();
        let own = format!("{name}{arity}");
        let Some(around) = self.symbols.last_mut() else { return };
        let ordinal = around.ordinals.entry((own.clone(), None)).or_default();
        let path = format!("{}\0{own}\0{ordinal}", around.path);
        *ordinal += 1;
        let shown = if around.shown.is_empty() { own } else { format!("{}.{own}", around.shown) };
        let module = match construct.role {
            Role::Unit if self.language == Language::Elixir => elixir::Module::of(node, self.text),
            _ => around.module,
        };
        let ordinals = HashMap::new();
        self.symbols.push(Symbol { end: end(node), shown, path, ordinals, module });
    }

    fn add(
        &mut self,
        node: Node<'f>,
        kind: PointKind,
        strategy: Strategy,
        priority: i32,
        construct: &Construct,
    ) {
        let ordinal = self.ordinal(node, kind);
        let Some(symbol) = self.symbols.last() else { return };
        let identity = format!("{}\0{}\0{}\0{ordinal}", symbol.path, node.kind(), kind.name());
        let mut id = [0; 16];
        id.copy_from_slice(&ContentId::of(identity.as_bytes()).as_bytes()[..16]);
        self.points.push(Point {
            id: PointId(id),
            kind,
            strategy,
            language: self.language,
            symbol: symbol.shown.clone(),
            name: construct.name.clone(),
            arity: construct.arity,
            is_public: construct.is_public,
            has_pattern_matching: construct.has_pattern_matching,
            has_guards: construct.has_guards,
            position: self.lines.position(node.range().start),
            priority,
        });
    }
}

/// The first node behind this one's subtree.
fn end(node: Node<'_>) -> NodeId {
    node.id() + NodeId::try_from(node.subtree().len()).unwrap_or(NodeId::MAX)
}

#[cfg(test)]
mod tests;
