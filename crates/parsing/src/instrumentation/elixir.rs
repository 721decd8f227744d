//! Elixir's profile: a definition, a choice and a module are calls there, told apart by the name
//! that is called.

use super::PointKind;
use super::profile::{Construct, Inside, Role};
use astscope_syntax::Node;

/// What a module is, as far as that changes what its functions are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Module {
    /// Nothing in particular.
    #[default]
    Plain,
    /// A web controller.
    Controller,
    /// A live view.
    LiveView,
}

const SERVER_CALLBACKS: [(&str, u32); 6] = [
    ("init", 1),
    ("handle_call", 3),
    ("handle_cast", 2),
    ("handle_info", 2),
    ("terminate", 2),
    ("code_change", 3),
];
const CONTROLLER_ACTIONS: [&str; 7] =
    ["index", "show", "new", "create", "edit", "update", "delete"];
const LIVE_VIEW_CALLBACKS: [(&str, u32); 5] =
    [("mount", 3), ("handle_params", 3), ("handle_event", 3), ("handle_info", 2), ("render", 1)];

impl Module {
    /// The module that this `defmodule` defines: by what it uses, else by its name.
    pub(super) fn of(node: Node<'_>, text: &str) -> Self {
        let body = node.children().find(|child| child.kind() == "do_block");
        let uses = body.into_iter().flat_map(Node::children).filter(|child| {
            child.kind() == "call" && target(*child, text).as_deref() == Some("use")
        });
        for used in uses.map(|used| used.text(text)) {
            if used.ends_with(":controller") {
                return Self::Controller;
            }
            if used.ends_with(":live_view") || used.contains("Phoenix.LiveView") {
                return Self::LiveView;
            }
        }
        let name = first_argument(node).map_or("", |name| name.text(text));
        if name.ends_with("Controller") { Self::Controller } else { Self::Plain }
    }

    fn entry(self, name: &str, arity: u32) -> PointKind {
        let known = |known: &[(&str, u32)]| known.contains(&(name, arity));
        match self {
            Self::Controller if arity == 2 && CONTROLLER_ACTIONS.contains(&name) => {
                PointKind::ControllerAction
            }
            Self::LiveView if known(&LIVE_VIEW_CALLBACKS) => PointKind::LiveViewCallback,
            Self::Plain if known(&SERVER_CALLBACKS) => PointKind::ServerCallback,
            _ => PointKind::FunctionEntry,
        }
    }
}

/// What a node is, in a module.
pub(super) fn construct(node: Node<'_>, text: &str, module: Module) -> Option<Construct> {
    match node.kind() {
        "call" => Some(call(node, text, module)),
        "anonymous_function" => Some(Construct::new(Role::Flow(PointKind::Closure))),
        "unary_operator" => {
            let defined = node.child_by_field("operand").filter(|it| it.kind() == "call")?;
            if !node.text(text).starts_with('@') {
                return None;
            }
            let name = target(defined, text);
            Some(Construct { name, inside: Inside::Nothing, ..Construct::new(Role::Attribute) })
        }
        "binary_operator" => match operator(node, text) {
            Some("=") => Some(Construct::new(Role::Assignment)),
            // The last of a pipeline is the pipeline.
            Some("|>") => {
                let is_inner = node.parent().is_some_and(|above| {
                    above.kind() == "binary_operator" && operator(above, text) == Some("|>")
                });
                (!is_inner).then(|| Construct::new(Role::Flow(PointKind::PipeOperation)))
            }
            _ => None,
        },
        _ => None,
    }
}

fn call(node: Node<'_>, text: &str, module: Module) -> Construct {
    let name = target(node, text);
    // What is called on a module is never a special form.
    let is_local =
        node.child_by_field("target").is_some_and(|target| target.kind() == "identifier");
    match name.as_deref().filter(|_| is_local) {
        Some("defmodule" | "defprotocol" | "defimpl") => {
            let name = first_argument(node).map(|name| name.text(text).to_owned());
            Construct { name, ..Construct::new(Role::Unit) }
        }
        Some(keyword @ ("def" | "defp" | "defmacro" | "defmacrop")) => {
            definition(node, text, keyword, module)
        }
        Some("case" | "cond" | "if" | "unless" | "with" | "receive") => {
            Construct { name, ..Construct::new(Role::Flow(PointKind::CaseBranch)) }
        }
        Some("try") => Construct { name, ..Construct::new(Role::Flow(PointKind::TryCatch)) },
        _ => Construct { name, ..Construct::new(Role::Call(PointKind::Call)) },
    }
}

fn definition(node: Node<'_>, text: &str, keyword: &str, module: Module) -> Construct {
    let mut head = first_argument(node);
    let mut has_guards = false;
    if let Some(guarded) = head.filter(|head| operator(*head, text) == Some("when")) {
        has_guards = true;
        head = guarded.child_by_field("left");
    }
    let name = head.and_then(|head| match head.kind() {
        "call" => target(head, text),
        _ => Some(head.text(text).to_owned()),
    });
    let parameters = head
        .and_then(|head| head.children().find(|child| child.kind() == "arguments"))
        .map(|arguments| arguments.children().filter(|it| it.is_named()).collect::<Vec<_>>())
        .unwrap_or_default();
    let arity = u32::try_from(parameters.len()).unwrap_or(u32::MAX);
    let kind = match keyword {
        "def" | "defp" => module.entry(name.as_deref().unwrap_or_default(), arity),
        _ => PointKind::MacroExpansion,
    };
    Construct {
        arity: Some(arity),
        is_public: !keyword.ends_with('p'),
        has_pattern_matching: parameters.iter().any(|it| it.kind() != "identifier"),
        has_guards,
        inside: head.map_or(Inside::All, |head| Inside::AllBut(head.id())),
        name,
        ..Construct::new(Role::Function(kind))
    }
}

/// The name that a call calls.
fn target(call: Node<'_>, text: &str) -> Option<String> {
    let target = call.child_by_field("target")?;
    let name = target.child_by_field("right").unwrap_or(target);
    Some(name.text(text).to_owned())
}

fn first_argument(call: Node<'_>) -> Option<Node<'_>> {
    let arguments = call.children().find(|child| child.kind() == "arguments")?;
    arguments.children().find(|child| child.is_named())
}

fn operator<'s>(node: Node<'_>, text: &'s str) -> Option<&'s str> {
    Some(node.child_by_field("operator")?.text(text))
}
