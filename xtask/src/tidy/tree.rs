//! What the rules look at: every file's text and every package's edges, as one value.

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use ignore::WalkBuilder;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A workspace, read into memory.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Text by path from the root, with `/` between names. What isn't UTF-8 has no text.
    pub files: BTreeMap<String, String>,
    /// The workspace's members.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name in the manifest.
    pub name: String,
    /// Its directory from the root.
    pub dir: String,
    /// What its manifest names, optional ones included.
    pub dependencies: Vec<Dependency>,
    /// The root source file of each target, from the workspace root.
    pub targets: Vec<String>,
}

/// One line of a manifest's dependency tables.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package that it names.
    pub name: String,
    /// Where that is, if it is a member of this workspace.
    pub dir: Option<String>,
    /// Which table it stands in.
    pub kind: DependencyKind,
}

/// A dependency table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DependencyKind {
    /// `[dependencies]` or `[build-dependencies]`: users build it too.
    Normal,
    /// `[dev-dependencies]`.
    Dev,
}

impl Tree {
    /// Reads the workspace at `root`: what git would track, tracked or not yet, and cargo's view.
    pub fn load(root: &Path) -> Result<Self> {
        let mut files = BTreeMap::new();
        let mut walk = WalkBuilder::new(root);
        // Everybody has to see the same files, whatever their global excludes say.
        walk.hidden(false)
            .require_git(false)
            .git_global(false)
            .git_exclude(false)
            .ignore(false)
            .parents(false);
        walk.filter_entry(|entry| entry.file_name() != ".git");
        for entry in walk.build() {
            let entry = entry.context("can't walk the workspace")?;
            if entry.file_type().is_some_and(|file_type| file_type.is_file()) {
                let bytes = fs::read(entry.path())
                    .with_context(|| format!("can't read {}", entry.path().display()))?;
                files.insert(
                    relative(root, entry.path()),
                    String::from_utf8(bytes).unwrap_or_default(),
                );
            }
        }
        Ok(Self { files, packages: packages(root)? })
    }

    /// The Rust sources of the workspace with their paths.
    pub fn rust_files(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_rust =
            |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "rs");
        let is_ours =
            |path: &str| ["crates/", "xtask/", "benches/"].iter().any(|dir| path.starts_with(dir));
        let files = self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()));
        files.filter(move |(path, _)| is_rust(path) && is_ours(path))
    }

    /// The text of a file, empty if there is none.
    pub fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// Directories that hold a file: the crates, and the two packages beside them.
    pub fn member_dirs(&self) -> Vec<String> {
        let dirs = self.files.keys().filter_map(|path| {
            match path.split('/').collect::<Vec<_>>().as_slice() {
                ["crates", dir, _, ..] => Some(format!("crates/{dir}")),
                [dir @ ("xtask" | "benches"), _, ..] => Some((*dir).to_owned()),
                _ => None,
            }
        });
        let mut dirs: Vec<_> = dirs.collect();
        dirs.dedup();
        dirs
    }
}

fn packages(root: &Path) -> Result<Vec<Package>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .no_deps()
        .exec()
        .context("can't read the workspace's manifests")?;
    let in_root = |path: &Path| relative(metadata.workspace_root.as_std_path(), path);
    let packages = metadata.packages.iter().map(|package| {
        let dependencies = package.dependencies.iter().map(|dependency| Dependency {
            name: dependency.name.clone(),
            dir: dependency.path.as_ref().map(|path| in_root(path.as_std_path())),
            kind: match dependency.kind {
                cargo_metadata::DependencyKind::Development => DependencyKind::Dev,
                _ => DependencyKind::Normal,
            },
        });
        Package {
            name: package.name.to_string(),
            dir: package
                .manifest_path
                .parent()
                .map(|dir| in_root(dir.as_std_path()))
                .unwrap_or_default(),
            dependencies: dependencies.collect(),
            targets: package
                .targets
                .iter()
                .map(|target| in_root(target.src_path.as_std_path()))
                .collect(),
        }
    });
    Ok(packages.collect())
}

/// `path` from `root`, with `/` between names on every platform.
fn relative(root: &Path, path: &Path) -> String {
    let path = path.strip_prefix(root).unwrap_or(path);
    path.components().map(|name| name.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

/// Trees for tests of rules.
#[cfg(test)]
impl Tree {
    pub(super) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned()));
        Self { files: files.collect(), packages: Vec::new() }
    }

    /// Adds `crates/<dir>` with normal and dev edges to other crates, and a target.
    pub(super) fn with_crate(mut self, dir: &str, normal: &[&str], dev: &[&str]) -> Self {
        let edge = |kind| {
            move |dir: &&str| Dependency {
                name: format!("astscope-{dir}"),
                dir: Some(format!("crates/{dir}")),
                kind,
            }
        };
        let edges = normal
            .iter()
            .map(edge(DependencyKind::Normal))
            .chain(dev.iter().map(edge(DependencyKind::Dev)));
        self.packages.push(Package {
            name: format!("astscope-{dir}"),
            dir: format!("crates/{dir}"),
            dependencies: edges.collect(),
            targets: vec![format!("crates/{dir}/src/lib.rs")],
        });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_root() {
        assert_eq!(relative(Path::new("/a"), Path::new("/a/b/c.rs")), "b/c.rs");
    }

    #[test]
    fn member_directories_are_the_crates_and_the_two_beside_them() {
        let tree = Tree::of([
            ("crates/a/Cargo.toml", ""),
            ("crates/a/src/lib.rs", ""),
            ("docs/x.md", ""),
            ("xtask/Cargo.toml", ""),
        ]);
        assert_eq!(tree.member_dirs(), ["crates/a", "xtask"]);
    }

    #[test]
    fn only_sources_of_members_count_as_rust_files() {
        let tree = Tree::of([
            ("crates/a/src/lib.rs", "x"),
            ("crates/a/README.md", ""),
            ("docs/example.rs", ""),
        ]);
        assert_eq!(tree.rust_files().collect::<Vec<_>>(), [("crates/a/src/lib.rs", "x")]);
    }
}
