//! Imports go down only: the floor table of `docs/ARCHITECTURE.md` against cargo's own view.
//!
//! The table is the rule, so a new edge between crates is always a visible change of that page.

use super::{DependencyKind, Package, Tree, Violation};
use std::collections::BTreeSet;

/// Where the table stands.
pub const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// The crate that test code of all floors may name, and no other code.
const FIXTURES: &str = "fixtures";

/// The floor table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    /// `None`, written as a dash, for what stands beside the house.
    floor: Option<u8>,
    dir: String,
    /// It comes with a later capability and may be absent.
    later: bool,
    imports: Imports,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Imports {
    /// These directories.
    Only(BTreeSet<String>),
    /// Everything on lower floors, except these.
    AllBut(BTreeSet<String>),
    /// Everything: it is a tool for the workspace, not a part of the product.
    Anything,
}

impl Table {
    /// Reads the table; `None` if there is none with the four columns.
    pub fn of(tree: &Tree) -> Option<Self> {
        let mut lines = tree.text(ARCHITECTURE).lines();
        lines.find(|line| cells(line) == ["floor", "directory", "what it is", "may import"])?;
        let rows = lines.take_while(|line| line.starts_with('|')).filter_map(Row::parse).collect();
        Some(Self { rows })
    }

    /// Directories on floors below that of `dir`.
    pub fn directories_below(&self, dir: &str) -> impl Iterator<Item = &str> {
        let ceiling = self.row(dir).and_then(|row| row.floor);
        self.rows
            .iter()
            .filter(move |row| row.floor.is_some() && row.floor < ceiling)
            .map(|row| row.dir.as_str())
    }

    fn row(&self, dir: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.dir == dir)
    }

    /// Why `from` may not depend on `to`, if it may not.
    fn objection(&self, from: &Row, to: &str, kind: DependencyKind) -> Option<String> {
        let target = self.row(to);
        let floor = target.and_then(|row| row.floor);
        let (allowed, rule) = match (kind, &from.imports) {
            (_, Imports::Anything) => (true, String::new()),
            (DependencyKind::Dev, _) => (
                to == FIXTURES || (from.floor.is_some() && floor.is_some() && floor <= from.floor),
                "tests may import `fixtures` and what stands on the same or a lower floor"
                    .to_owned(),
            ),
            (DependencyKind::Normal, _) if to == FIXTURES => {
                (false, "`fixtures` is for [dev-dependencies] only".to_owned())
            }
            (DependencyKind::Normal, Imports::Only(dirs)) => {
                (dirs.contains(to), format!("it may import {}", list(dirs)))
            }
            (DependencyKind::Normal, Imports::AllBut(dirs)) => (
                floor.is_some() && floor < from.floor && !dirs.contains(to),
                format!("it may import all lower floors but {}", list(dirs)),
            ),
        };
        (!allowed).then_some(rule)
    }
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let cells = cells(line);
        let [floor, dir, what, imports] = cells.as_slice() else { return None };
        if floor.chars().all(|c| c == '-' || c == ':') {
            return None;
        }
        Some(Self {
            floor: floor.parse().ok(),
            dir: plain(dir).trim().to_owned(),
            later: [dir, what].iter().any(|cell| cell.contains("(later)")),
            imports: Imports::parse(imports),
        })
    }

    fn path(&self) -> String {
        if matches!(self.dir.as_str(), "xtask" | "benches") {
            self.dir.clone()
        } else {
            format!("crates/{}", self.dir)
        }
    }
}

impl Imports {
    fn parse(cell: &str) -> Self {
        let cell = plain(cell);
        let names = |text: &str| {
            let names =
                text.split(',').map(str::trim).filter(|name| !matches!(*name, "" | "-" | "–"));
            names.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        match cell.trim() {
            "anything" => Self::Anything,
            "dev-dependency only" => Self::Only(BTreeSet::new()),
            text => text
                .strip_prefix("all but ")
                .map_or_else(|| Self::Only(names(text)), |rest| Self::AllBut(names(rest))),
        }
    }
}

/// The cells of a Markdown table row.
fn cells(line: &str) -> Vec<&str> {
    line.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// A cell without what is in parentheses, and without marks.
fn plain(cell: &str) -> String {
    let mut depth = 0_u32;
    let keep = cell.chars().filter(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => return depth == 0 && !matches!(c, '`' | '*'),
        }
        false
    });
    keep.collect()
}

fn list(dirs: &BTreeSet<String>) -> String {
    match dirs.len() {
        0 => "nothing of this workspace".to_owned(),
        _ => dirs.iter().map(|dir| format!("`{dir}`")).collect::<Vec<_>>().join(", "),
    }
}

/// Every member is listed, named after its directory, and imports only what its row allows.
pub(super) fn check_floors(tree: &Tree) -> Vec<Violation> {
    let Some(table) = Table::of(tree) else {
        return vec![Violation::new(
            "floors",
            ARCHITECTURE,
            "no table with floor | directory | what it is | may import",
        )];
    };
    let mut violations = Vec::new();
    for package in &tree.packages {
        let manifest = format!("{}/Cargo.toml", package.dir);
        let Some(row) = table.rows.iter().find(|row| row.path() == package.dir) else {
            let message =
                format!("`{}` has no row in the floor table of {ARCHITECTURE}", package.dir);
            violations.push(Violation::new("floors", manifest, message));
            continue;
        };
        let expected =
            if row.dir == "xtask" { row.dir.clone() } else { format!("astscope-{}", row.dir) };
        if package.name != expected {
            let message = format!(
                "the package is called `{}`, its directory wants `{expected}`",
                package.name
            );
            violations.push(Violation::new("floors", &manifest, message));
        }
        violations.extend(forbidden_edges(&table, row, package, &manifest));
    }
    violations
}

fn forbidden_edges(table: &Table, row: &Row, package: &Package, manifest: &str) -> Vec<Violation> {
    let edges = package.dependencies.iter().filter_map(|dependency| {
        let dir = dependency.dir.as_deref()?;
        let to = dir.strip_prefix("crates/").unwrap_or(dir);
        let rule = table.objection(row, to, dependency.kind)?;
        let table_name = match dependency.kind {
            DependencyKind::Normal => "dependencies",
            DependencyKind::Dev => "dev-dependencies",
        };
        let message = format!("forbidden edge `{}` → `{to}` in [{table_name}]: {rule}", row.dir);
        Some(Violation::new("floors", manifest, message))
    });
    edges.collect()
}

/// The table itself: rows exist on disk, are listed once, and name only lower floors.
pub(super) fn check_table(tree: &Tree) -> Vec<Violation> {
    let table = Table::of(tree).unwrap_or_default();
    let mut violations = Vec::new();
    let mut complain =
        |message: String| violations.push(Violation::new("floor-table", ARCHITECTURE, message));
    let mut seen = BTreeSet::new();
    for row in &table.rows {
        if !seen.insert(&row.dir) {
            complain(format!("`{}` is listed twice", row.dir));
        }
        let exists = tree.packages.iter().any(|package| package.dir == row.path());
        if !exists && !row.later {
            complain(format!(
                "`{}` is listed, but no member of the workspace stands in {}",
                row.dir,
                row.path()
            ));
        }
        if exists && row.later {
            complain(format!("`{}` is marked as later, but it is here", row.dir));
        }
        let (Imports::Only(dirs) | Imports::AllBut(dirs)) = &row.imports else { continue };
        for dir in dirs {
            match table.row(dir) {
                None => complain(format!("`{}` names `{dir}`, which has no row", row.dir)),
                Some(target)
                    if matches!(row.imports, Imports::Only(_)) && target.floor >= row.floor =>
                {
                    complain(format!(
                        "`{}` may import `{dir}`, which isn't on a lower floor: imports go down only",
                        row.dir
                    ));
                }
                Some(_) => {}
            }
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Floors
| floor | directory | what it is | may import |
|---|---|---|---|
| 0 | `runtime` | comes *(later)* | – |
| 0 | `words` | | – |
| 0 | `wire` | | – |
| 1 | `reader` | | words |
| 4 | `server` | | all but tool |
| 5 | `tool` | | wire, server (named only by `serve`) |
| – | `fixtures` | | dev-dependency only |
| – | `xtask` | | anything |
";

    fn house() -> Tree {
        let mut tree = Tree::of([(ARCHITECTURE, TABLE)])
            .with_crate("words", &[], &["fixtures"])
            .with_crate("wire", &[], &["words"])
            .with_crate("reader", &["words"], &["fixtures", "wire"])
            .with_crate("server", &["words", "wire", "reader"], &[])
            .with_crate("tool", &["wire", "server"], &["reader"])
            .with_crate("fixtures", &[], &[])
            .with_crate("xtask", &["tool"], &[]);
        if let Some(xtask) = tree.packages.last_mut() {
            "xtask".clone_into(&mut xtask.name);
            "xtask".clone_into(&mut xtask.dir);
        }
        tree
    }

    #[track_caller]
    fn check(tree: &Tree, expected: &[&str]) {
        let found: Vec<_> =
            check_floors(tree).into_iter().chain(check_table(tree)).map(|v| v.message).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_house_in_order_has_no_violation() {
        check(&house(), &[]);
    }

    #[test]
    fn an_edge_that_goes_up_is_named() {
        let mut tree = house();
        tree.packages.retain(|package| package.dir != "crates/words");
        let tree = tree.with_crate("words", &["reader"], &["server"]);
        check(
            &tree,
            &[
                "forbidden edge `words` → `reader` in [dependencies]: it may import nothing of this workspace",
                "forbidden edge `words` → `server` in [dev-dependencies]: tests may import `fixtures` and what \
                 stands on the same or a lower floor",
            ],
        );
    }

    #[test]
    fn an_edge_that_goes_down_needs_its_row_too() {
        let mut tree = house();
        tree.packages.retain(|package| package.dir != "crates/tool");
        let tree = tree.with_crate("tool", &["words", "fixtures"], &[]);
        check(
            &tree,
            &[
                "forbidden edge `tool` → `words` in [dependencies]: it may import `server`, `wire`",
                "forbidden edge `tool` → `fixtures` in [dependencies]: `fixtures` is for [dev-dependencies] only",
            ],
        );
    }

    #[test]
    fn all_but_one_excludes_that_one() {
        let mut tree = house();
        tree.packages.retain(|package| package.dir != "crates/server");
        let tree = tree.with_crate("server", &["tool"], &[]);
        check(
            &tree,
            &[
                "forbidden edge `server` → `tool` in [dependencies]: it may import all lower floors but `tool`",
            ],
        );
    }

    #[test]
    fn a_crate_without_a_row_is_found() {
        let tree = house().with_crate("utils", &[], &[]);
        check(&tree, &["`crates/utils` has no row in the floor table of docs/ARCHITECTURE.md"]);
    }

    #[test]
    fn a_row_without_a_crate_is_found_unless_it_is_for_later() {
        let mut tree = house();
        tree.packages.retain(|package| package.dir != "crates/wire");
        check(&tree, &["`wire` is listed, but no member of the workspace stands in crates/wire"]);
        let tree = house().with_crate("runtime", &[], &[]);
        check(&tree, &["`runtime` is marked as later, but it is here"]);
    }

    #[test]
    fn a_package_is_called_after_its_directory() {
        let mut tree = house();
        "words".clone_into(&mut tree.packages[0].name);
        check(&tree, &["the package is called `words`, its directory wants `astscope-words`"]);
    }

    #[test]
    fn a_table_that_points_up_or_nowhere_is_refused() {
        let mut tree = house();
        let table = TABLE
            .replace("| 1 | `reader` | | words |", "| 1 | `reader` | | words, server, nobody |");
        tree.files.insert(ARCHITECTURE.to_owned(), table);
        check(
            &tree,
            &[
                "`reader` names `nobody`, which has no row",
                "`reader` may import `server`, which isn't on a lower floor: imports go down only",
            ],
        );
    }

    #[test]
    fn without_a_table_nothing_passes() {
        check(
            &Tree::of([(ARCHITECTURE, "# Nothing")]),
            &["no table with floor | directory | what it is | may import"],
        );
    }

    #[test]
    fn the_floors_below_the_server_are_known() {
        let table = Table::of(&house()).unwrap();
        assert_eq!(
            table.directories_below("server").collect::<Vec<_>>(),
            ["runtime", "words", "wire", "reader"]
        );
    }
}
