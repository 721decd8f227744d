//! Where files stand: the top level, the code map, and sources that nobody compiles.

use super::code::code_only;
use super::floors::ARCHITECTURE;
use super::{Tree, Violation};
use std::collections::BTreeSet;

/// What a stranger may see with `ls`. Everything else is hidden or has to justify itself.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "crates",
    "xtask",
    "benches",
    "docs",
    "rust-toolchain.toml",
    "CHANGELOG.md",
];

/// The root holds only what the house rules name.
pub(super) fn check_top_level(tree: &Tree) -> Vec<Violation> {
    let entries: BTreeSet<_> =
        tree.files.keys().filter_map(|path| path.split('/').next()).collect();
    let allowed = |name: &str| {
        name.starts_with('.') || name.starts_with("LICENSE") || TOP_LEVEL.contains(&name)
    };
    let strays = entries.into_iter().filter(|name| !allowed(name));
    let message =
        format!("the top level holds {}, LICENSE* and hidden files only", TOP_LEVEL.join(", "));
    strays.map(|name| Violation::new("top-level", name, &message)).collect()
}

/// Each member has a section in the code map, and each section a member.
pub(super) fn check_code_map(tree: &Tree) -> Vec<Violation> {
    let headings = tree
        .text(ARCHITECTURE)
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.split('`').next());
    let mapped: BTreeSet<_> = headings.collect();
    let dirs = tree.member_dirs();
    let on_disk: BTreeSet<_> = dirs.iter().map(String::as_str).collect();
    let missing =
        on_disk.difference(&mapped).map(|dir| format!("`{dir}` has no section in the code map"));
    let rotten = mapped
        .difference(&on_disk)
        .map(|dir| format!("the code map has a section `{dir}`, the disk has no such member"));
    missing.chain(rotten).map(|message| Violation::new("code-map", ARCHITECTURE, message)).collect()
}

/// Every source is reached from a target of its package: a forgotten file tests nothing.
pub(super) fn check_forgotten_files(tree: &Tree) -> Vec<Violation> {
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    for package in &tree.packages {
        for target in &package.targets {
            reach(tree, target, true, &mut reached);
        }
    }
    let candidates = tree.rust_files().filter(|(path, _)| is_source(path));
    let forgotten = candidates.filter(|(path, _)| !reached.contains(path));
    let message = "no target and no `mod` leads to this file, so it is never compiled";
    forgotten.map(|(path, _)| Violation::new("forgotten-file", path, message)).collect()
}

/// Whether cargo would look here. Deeper files under `tests/` may be data.
fn is_source(path: &str) -> bool {
    let inner = path.strip_prefix("crates/").unwrap_or(path);
    matches!(
        inner.split('/').collect::<Vec<_>>().as_slice(),
        [_, _] | [_, "src", ..] | [_, "tests" | "examples" | "benches", _]
    )
}

/// Follows the `mod name;` lines of a file. In a target's root file and in `mod.rs` they lead to
/// neighbours, elsewhere into the directory named after the file.
fn reach<'a>(tree: &'a Tree, path: &str, neighbours: bool, reached: &mut BTreeSet<&'a str>) {
    let Some((path, text)) = tree.files.get_key_value(path) else { return };
    if !reached.insert(path) {
        return;
    }
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = if neighbours {
        parent.to_owned()
    } else {
        format!("{parent}/{}", name.trim_end_matches(".rs"))
    };
    for module in modules(&code_only(text)) {
        reach(tree, &format!("{dir}/{module}.rs"), false, reached);
        reach(tree, &format!("{dir}/{module}/mod.rs"), true, reached);
    }
}

/// The names in `mod name;`.
fn modules(code: &str) -> impl Iterator<Item = &str> {
    code.split(';').filter_map(|statement| {
        let mut words = statement.split_whitespace().rev();
        let name = words.next()?;
        (words.next()? == "mod").then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(violations: Vec<Violation>) -> Vec<String> {
        violations
            .into_iter()
            .map(|violation| format!("{}: {}", violation.at, violation.message))
            .collect()
    }

    #[test]
    fn a_stray_file_at_the_top_is_found() {
        let files = [
            "Cargo.toml",
            "LICENSE-MIT",
            ".ci/run",
            "crates/a/Cargo.toml",
            "notes.txt",
            "scripts/x.sh",
        ];
        let found = check_top_level(&Tree::of(files.map(|path| (path, ""))));
        assert_eq!(
            found.iter().map(|violation| violation.at.as_str()).collect::<Vec<_>>(),
            ["notes.txt", "scripts"]
        );
    }

    #[test]
    fn code_map_and_disk_agree_in_both_directions() {
        let map = "## Code map\n### `crates/a`: the first\n### `crates/gone`\n### Elsewhere\n";
        let tree = Tree::of([
            (ARCHITECTURE, map),
            ("crates/a/Cargo.toml", ""),
            ("crates/b/Cargo.toml", ""),
        ]);
        assert_eq!(
            messages(check_code_map(&tree)),
            [
                "docs/ARCHITECTURE.md: `crates/b` has no section in the code map",
                "docs/ARCHITECTURE.md: the code map has a section `crates/gone`, the disk has no such member",
            ]
        );
        let tree = Tree::of([(ARCHITECTURE, "### `crates/a`\n"), ("crates/a/Cargo.toml", "")]);
        assert_eq!(check_code_map(&tree), []);
    }

    #[test]
    fn modules_are_followed_from_targets() {
        let tree = Tree::of([
            ("crates/a/src/lib.rs", "mod deep; // mod lost;\n#[cfg(test)]\nmod tests;"),
            ("crates/a/src/tests.rs", ""),
            ("crates/a/src/deep.rs", "pub(crate) mod er;"),
            ("crates/a/src/deep/er.rs", ""),
            ("crates/a/src/lost.rs", ""),
            ("crates/a/src/er.rs", ""),
        ])
        .with_crate("a", &[], &[]);
        let found = check_forgotten_files(&tree);
        assert_eq!(
            found.iter().map(|v| v.at.as_str()).collect::<Vec<_>>(),
            ["crates/a/src/er.rs", "crates/a/src/lost.rs"]
        );
    }

    #[test]
    fn a_test_file_that_is_no_target_is_forgotten_and_test_data_is_not() {
        let mut tree = Tree::of([
            ("crates/a/src/lib.rs", ""),
            ("crates/a/tests/laws.rs", "mod common;"),
            ("crates/a/tests/common/mod.rs", "mod more;"),
            ("crates/a/tests/common/more.rs", ""),
            ("crates/a/tests/forgotten.rs", ""),
            ("crates/a/tests/data/broken.rs", ""),
        ])
        .with_crate("a", &[], &[]);
        tree.packages[0].targets.push("crates/a/tests/laws.rs".to_owned());
        let found = check_forgotten_files(&tree);
        assert_eq!(
            found.iter().map(|v| v.at.as_str()).collect::<Vec<_>>(),
            ["crates/a/tests/forgotten.rs"]
        );
    }
}
