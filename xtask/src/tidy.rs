//! The rules that no compiler knows, each a pure function from a tree of files to violations.
//!
//! The design: [`Tree::load`] reads everything once, the rules see only the value, so each is
//! tested on a tree of three lines in which it must fail. What the compiler, clippy or rustdoc can
//! check is theirs (the root manifest's lints, `.clippy.toml`) and is not repeated here.

pub mod floors;

mod code;
mod layout;
mod manifests;
mod sources;
mod tree;

pub use tree::{Dependency, DependencyKind, Package, Tree};

use crate::workspace_root;
use anyhow::{Result, bail};
use std::fmt;

/// One rule of the house.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name, as reports give it.
    pub name: &'static str,
    /// Finds what breaks it.
    pub check: fn(&Tree) -> Vec<Violation>,
}

/// All rules.
pub const RULES: &[Rule] = &[
    Rule { name: "floors", check: floors::check_floors },
    Rule { name: "floor-table", check: floors::check_table },
    Rule { name: "top-level", check: layout::check_top_level },
    Rule { name: "code-map", check: layout::check_code_map },
    Rule { name: "forgotten-file", check: layout::check_forgotten_files },
    Rule { name: "header", check: sources::check_headers },
    Rule { name: "banned", check: sources::check_banned },
    Rule { name: "length", check: sources::check_length },
    Rule { name: "spawn", check: sources::check_spawns },
    Rule { name: "clock", check: sources::check_clocks },
    Rule { name: "daemon-in-serve", check: sources::check_daemon_in_serve },
    Rule { name: "machine-path", check: sources::check_machine_paths },
    Rule { name: "grammar-symbols", check: manifests::check_grammar_symbols },
    Rule { name: "unused-dependency", check: manifests::check_unused_dependencies },
];

/// A place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// A path, with a line where there is one.
    pub at: String,
    /// What is wrong, and what the rule wants.
    pub message: String,
}

impl Violation {
    fn new(rule: &'static str, at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { rule, at: at.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} [{}]", self.at, self.message, self.rule)
    }
}

/// Checks this workspace and prints what it finds.
#[expect(clippy::print_stdout, reason = "its output is the report")]
pub fn run() -> Result<()> {
    let tree = Tree::load(workspace_root())?;
    let violations: Vec<_> = RULES.iter().flat_map(|rule| (rule.check)(&tree)).collect();
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => {
            println!("{} rules, {} files: tidy", RULES.len(), tree.files.len());
            Ok(())
        }
        n => bail!("{n} violations"),
    }
}
