//! This workspace keeps the rules that `xtask::tidy` checks: architecture as a test.

use xtask::tidy::{RULES, Tree, Violation};
use xtask::workspace_root;

#[test]
fn the_workspace_keeps_its_own_rules() {
    let tree = Tree::load(workspace_root()).unwrap();
    let violations: Vec<Violation> = RULES.iter().flat_map(|rule| (rule.check)(&tree)).collect();
    let report: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(report.is_empty(), "{} violations:\n{}", report.len(), report.join("\n"));
}

#[test]
fn the_tree_that_is_checked_is_the_real_one() {
    let tree = Tree::load(workspace_root()).unwrap();
    assert!(tree.files.contains_key("Cargo.toml"));
    assert!(tree.files.contains_key("xtask/tests/tidy.rs"));
    assert!(tree.files.contains_key(".cargo/config.toml"), "hidden files belong to it");
    assert!(
        !tree.files.keys().any(|path| path.starts_with("target/") || path.starts_with(".git/"))
    );
    assert!(tree.packages.iter().any(|package| package.dir == "xtask"));
}
