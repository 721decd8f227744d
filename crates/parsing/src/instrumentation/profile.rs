//! What the node kinds of a language are to instrumentation, as tables, and how a construct of a
//! table is read: its name, its parameters, and who may call it.

use super::PointKind;
use astscope_syntax::{Language, Node, NodeId};

/// What a construct is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// A module, class or the like: a symbol without a point.
    Unit,
    /// A definition that can be called, with the kind of its entry.
    Function(PointKind),
    /// An expression that decides or passes values on.
    Flow(PointKind),
    /// A call, or the expansion of a macro.
    Call(PointKind),
    /// An assignment.
    Assignment,
    /// An attribute.
    Attribute,
}

/// A construct as it stands in a text.
#[derive(Debug)]
pub(super) struct Construct {
    pub(super) role: Role,
    pub(super) name: Option<String>,
    pub(super) arity: Option<u32>,
    pub(super) is_public: bool,
    pub(super) has_pattern_matching: bool,
    pub(super) has_guards: bool,
    pub(super) inside: Inside,
}

/// Which of the nodes below a construct may be constructs of their own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Inside {
    All,
    /// All but this one, which is a part of it.
    AllBut(NodeId),
    Nothing,
}

impl Construct {
    pub(super) fn new(role: Role) -> Self {
        Self {
            role,
            name: None,
            arity: None,
            is_public: false,
            has_pattern_matching: false,
            has_guards: false,
            inside: Inside::All,
        }
    }
}

/// What a language's node kinds are, and how it says that a definition isn't for everybody.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) kinds: &'static [(&'static str, Role)],
    /// Kinds of calls, whose chains are pipelines.
    calls: &'static [&'static str],
    visibility: Visibility,
}

#[derive(Debug)]
enum Visibility {
    /// A definition is public where it has a child of this kind.
    PublicWith(&'static str),
    /// It is private where it has a child of one of these kinds with this word.
    PrivateWith(&'static [&'static str], &'static str),
    /// It is private where its name begins like this.
    PrivateName(&'static [char]),
    /// It is public where its name begins with a capital.
    Capital,
}

/// Calls in a row from which on they are a pipeline.
const CHAIN_MIN: usize = 3;

const FUNCTION: Role = Role::Function(PointKind::FunctionEntry);
const CLOSURE: Role = Role::Flow(PointKind::Closure);
const BRANCH: Role = Role::Flow(PointKind::CaseBranch);
const TRY: Role = Role::Flow(PointKind::TryCatch);
const CALL: Role = Role::Call(PointKind::Call);
const MACRO: Role = Role::Call(PointKind::MacroExpansion);

const RUST: Profile = Profile {
    kinds: &[
        ("mod_item", Role::Unit),
        ("impl_item", Role::Unit),
        ("trait_item", Role::Unit),
        ("function_item", FUNCTION),
        ("macro_definition", Role::Function(PointKind::MacroExpansion)),
        ("closure_expression", CLOSURE),
        ("match_expression", BRANCH),
        ("if_expression", BRANCH),
        ("try_expression", TRY),
        ("try_block", TRY),
        ("attribute_item", Role::Attribute),
        ("inner_attribute_item", Role::Attribute),
        ("macro_invocation", MACRO),
        ("call_expression", CALL),
        ("let_declaration", Role::Assignment),
        ("assignment_expression", Role::Assignment),
        ("compound_assignment_expr", Role::Assignment),
    ],
    calls: &["call_expression"],
    visibility: Visibility::PublicWith("visibility_modifier"),
};

const PYTHON: Profile = Profile {
    kinds: &[
        ("class_definition", Role::Unit),
        ("function_definition", FUNCTION),
        ("lambda", CLOSURE),
        ("if_statement", BRANCH),
        ("match_statement", BRANCH),
        ("conditional_expression", BRANCH),
        ("try_statement", TRY),
        ("decorator", Role::Attribute),
        ("call", CALL),
        ("assignment", Role::Assignment),
        ("augmented_assignment", Role::Assignment),
    ],
    calls: &["call"],
    visibility: Visibility::PrivateName(&['_']),
};

const JAVASCRIPT: &[(&str, Role)] = &[
    ("class_declaration", Role::Unit),
    ("function_declaration", FUNCTION),
    ("generator_function_declaration", FUNCTION),
    ("method_definition", FUNCTION),
    ("arrow_function", CLOSURE),
    ("function_expression", CLOSURE),
    ("if_statement", BRANCH),
    ("switch_statement", BRANCH),
    ("ternary_expression", BRANCH),
    ("try_statement", TRY),
    ("decorator", Role::Attribute),
    ("call_expression", CALL),
    ("variable_declarator", Role::Assignment),
    ("assignment_expression", Role::Assignment),
    ("augmented_assignment_expression", Role::Assignment),
];

const ECMASCRIPT: Profile = Profile {
    kinds: JAVASCRIPT,
    calls: &["call_expression"],
    visibility: Visibility::PrivateName(&['#', '_']),
};

const TYPESCRIPT: Profile = Profile {
    kinds: JAVASCRIPT,
    calls: &["call_expression"],
    visibility: Visibility::PrivateWith(&["accessibility_modifier"], "private"),
};

const GO: Profile = Profile {
    kinds: &[
        ("function_declaration", FUNCTION),
        ("method_declaration", FUNCTION),
        ("func_literal", CLOSURE),
        ("if_statement", BRANCH),
        ("expression_switch_statement", BRANCH),
        ("type_switch_statement", BRANCH),
        ("select_statement", BRANCH),
        // What recovers from a panic runs in one.
        ("defer_statement", TRY),
        ("call_expression", CALL),
        ("short_var_declaration", Role::Assignment),
        ("assignment_statement", Role::Assignment),
    ],
    calls: &["call_expression"],
    visibility: Visibility::Capital,
};

const JAVA: Profile = Profile {
    kinds: &[
        ("class_declaration", Role::Unit),
        ("interface_declaration", Role::Unit),
        ("enum_declaration", Role::Unit),
        ("record_declaration", Role::Unit),
        ("method_declaration", FUNCTION),
        ("constructor_declaration", FUNCTION),
        ("lambda_expression", CLOSURE),
        ("if_statement", BRANCH),
        ("switch_expression", BRANCH),
        ("ternary_expression", BRANCH),
        ("try_statement", TRY),
        ("try_with_resources_statement", TRY),
        ("annotation", Role::Attribute),
        ("marker_annotation", Role::Attribute),
        ("method_invocation", CALL),
        ("variable_declarator", Role::Assignment),
        ("assignment_expression", Role::Assignment),
    ],
    calls: &["method_invocation"],
    visibility: Visibility::PrivateWith(&["modifiers"], "private"),
};

/// The table of a language, if it has one.
pub(super) fn of(language: Language) -> Option<&'static Profile> {
    match language {
        Language::Rust => Some(&RUST),
        Language::Python => Some(&PYTHON),
        Language::JavaScript => Some(&ECMASCRIPT),
        Language::TypeScript | Language::Tsx => Some(&TYPESCRIPT),
        Language::Go => Some(&GO),
        Language::Java => Some(&JAVA),
        _ => None,
    }
}

impl Profile {
    /// What a node is.
    pub(super) fn construct(&self, node: Node<'_>, text: &str) -> Option<Construct> {
        let kind = node.kind();
        let role = self.kinds.iter().find_map(|(of, role)| (*of == kind).then_some(*role))?;
        let mut construct = Construct::new(role);
        match role {
            Role::Unit => construct.name = named(node, &["name", "type"], text),
            Role::Function(_) => {
                construct.name = named(node, &["name"], text);
                construct.is_public = self.is_public(node, construct.name.as_deref(), text);
                if let Some(parameters) = node.child_by_field("parameters") {
                    let own = || parameters.children().filter(|it| it.is_named() && !it.is_extra());
                    construct.arity = u32::try_from(own().count()).ok();
                    construct.has_pattern_matching = own().any(|parameter| {
                        let pattern = parameter.child_by_field("pattern").unwrap_or(parameter);
                        pattern.kind().ends_with("_pattern")
                    });
                }
            }
            Role::Call(PointKind::Call) => {
                construct.name = callee(node, text);
                if self.is_chain(node) {
                    construct.role = Role::Flow(PointKind::PipeOperation);
                }
            }
            Role::Call(_) => construct.name = named(node, &["macro"], text),
            Role::Attribute => construct.inside = Inside::Nothing,
            Role::Flow(_) | Role::Assignment => {}
        }
        Some(construct)
    }

    fn is_public(&self, node: Node<'_>, name: Option<&str>, text: &str) -> bool {
        let name = name.unwrap_or_default();
        match self.visibility {
            Visibility::PublicWith(kind) => node.children().any(|child| child.kind() == kind),
            Visibility::PrivateWith(kinds, word) => !node.children().any(|child| {
                kinds.contains(&child.kind())
                    && child.text(text).split_whitespace().any(|it| it == word)
            }),
            Visibility::PrivateName(begins) => !name.starts_with(begins),
            Visibility::Capital => name.starts_with(char::is_uppercase),
        }
    }

    /// Whether this is the last call of a pipeline: `a.b().c().d()`.
    fn is_chain(&self, node: Node<'_>) -> bool {
        let is_call = |node: Node<'_>| self.calls.contains(&node.kind());
        let mut at = node;
        // Between two calls there is a member access, and in Rust maybe a `?`.
        while let Some(above) = at.parent().filter(|above| first(*above) == Some(at)) {
            if is_call(above) {
                return false;
            }
            at = above;
        }
        let spine = std::iter::successors(Some(node), |node| first(*node));
        spine.filter(|node| is_call(*node)).take(CHAIN_MIN).count() == CHAIN_MIN
    }
}

/// The first named child.
fn first(node: Node<'_>) -> Option<Node<'_>> {
    node.children().find(|child| child.is_named())
}

/// The text of the first of these fields that is there.
fn named(node: Node<'_>, fields: &[&str], text: &str) -> Option<String> {
    let field = fields.iter().find_map(|field| node.child_by_field(field))?;
    Some(field.text(text).to_owned())
}

/// What a call calls: the last name of what stands before its arguments.
fn callee(node: Node<'_>, text: &str) -> Option<String> {
    let callee = ["name", "function"].iter().find_map(|field| node.child_by_field(field))?;
    let last = callee.subtree().rfind(|node| node.is_leaf() && node.is_named())?;
    Some(last.text(text).to_owned())
}
