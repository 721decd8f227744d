//! What manifests and the lock file may hold.

use super::{Tree, Violation};
use std::collections::{BTreeMap, BTreeSet};

/// What publishers append to a grammar's name when the plain one is taken. The C symbol that the
/// crate exports stays the plain one.
const SUFFIXES: &[&str] = &["-sg", "-ng", "-updated", "-orchard", "-fork", "-bundled", "-lezer"];

/// No two packages export the same C grammar symbol: which of them a binary then runs is the
/// linker's choice, and its kind ids are anybody's guess.
pub(super) fn check_grammar_symbols(tree: &Tree) -> Vec<Violation> {
    let mut by_symbol: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (name, version) in locked_packages(tree.text("Cargo.lock")) {
        if name == "tree-sitter" || name.starts_with("tree-sitter-") {
            let plain =
                SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            by_symbol.entry(plain).or_default().push(format!("{name} {version}"));
        }
    }
    let clashes = by_symbol.into_iter().filter(|(_, packages)| packages.len() > 1);
    let violations = clashes.map(|(plain, packages)| {
        let message = format!(
            "{} export the same C symbol (`{plain}`): link one of them",
            packages.join(" and ")
        );
        Violation::new("grammar-symbols", "Cargo.lock", message)
    });
    violations.collect()
}

/// Name and version of each `[[package]]`.
fn locked_packages(lock: &str) -> impl Iterator<Item = (&str, &str)> {
    lock.split("[[package]]").skip(1).filter_map(|package| {
        let value = |key: &str| {
            package.lines().find_map(|line| {
                line.strip_prefix(key)?.trim().strip_prefix('"')?.strip_suffix('"')
            })
        };
        Some((value("name =")?, value("version =")?))
    })
}

/// Every version in the root manifest is used by a member.
pub(super) fn check_unused_dependencies(tree: &Tree) -> Vec<Violation> {
    let used: BTreeSet<_> = tree
        .packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .map(|d| d.name.as_str())
        .collect();
    let section = tree
        .text("Cargo.toml")
        .lines()
        .skip_while(|line| line.trim() != "[workspace.dependencies]")
        .skip(1);
    let entries = section.take_while(|line| !line.starts_with('['));
    let names = entries.filter_map(|line| line.split_once('=')).map(|(name, _)| name.trim());
    let unused = names.filter(|name| {
        !name.starts_with(['#', ' ']) && !used.contains(name) && !name.starts_with("astscope-")
    });
    let message =
        |name: &str| format!("`{name}` stands in [workspace.dependencies], but no member uses it");
    unused.map(|name| Violation::new("unused-dependency", "Cargo.toml", message(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::{Dependency, DependencyKind};

    fn lock(packages: &[(&str, &str)]) -> Tree {
        let text = packages.iter().map(|(name, version)| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n\n")
        });
        Tree::of([("Cargo.lock", text.collect::<String>().as_str())])
    }

    #[test]
    fn two_publishers_of_one_grammar_clash() {
        let tree = lock(&[
            ("tree-sitter-kotlin-ng", "1.1.0"),
            ("tree-sitter-kotlin-sg", "0.4.1"),
            ("serde", "1.0.0"),
        ]);
        let found = check_grammar_symbols(&tree);
        assert_eq!(
            found[0].message,
            "tree-sitter-kotlin-ng 1.1.0 and tree-sitter-kotlin-sg 0.4.1 export the same C symbol \
             (`tree-sitter-kotlin`): link one of them"
        );
    }

    #[test]
    fn two_versions_of_one_grammar_or_of_the_runtime_clash() {
        let tree = lock(&[
            ("tree-sitter", "0.25.0"),
            ("tree-sitter", "0.27.1"),
            ("tree-sitter-c", "0.23.0"),
            ("tree-sitter-c", "0.24.0"),
        ]);
        assert_eq!(check_grammar_symbols(&tree).len(), 2);
    }

    #[test]
    fn different_grammars_stand_side_by_side() {
        let tree = lock(&[
            ("tree-sitter", "0.27.1"),
            ("tree-sitter-c", "0.24.2"),
            ("tree-sitter-c-sharp", "0.23.5"),
            ("syn", "1.0.0"),
            ("syn", "2.0.0"),
        ]);
        assert_eq!(check_grammar_symbols(&tree), []);
    }

    #[test]
    fn a_version_that_nobody_uses_is_found() {
        let manifest = "[workspace]\n[workspace.dependencies]\n# words = about\nserde = \"1\"\nregex = { version = \"1\" }\n\n[profile.dev]\ndebug = 1\n";
        let mut tree = Tree::of([("Cargo.toml", manifest)]).with_crate("a", &[], &[]);
        tree.packages[0].dependencies.push(Dependency {
            name: "serde".to_owned(),
            dir: None,
            kind: DependencyKind::Dev,
        });
        let found = check_unused_dependencies(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.starts_with("`regex` stands"));
    }
}
