//! Which root serves a path.
//!
//! The nearest watched ancestor, else the top of the version control that it is under, else the
//! directory itself. The whole disk and the home directory are roots only for who asks for them by
//! name: a query typed in the wrong place must not index everything that a person owns.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

/// What lies at the top of a checkout, as a directory or, in a linked worktree, as a file.
const VERSION_CONTROL: [&str; 3] = [".git", ".hg", ".jj"];

/// The root for a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootDecision {
    /// This one, which is watched already.
    Watched(PathBuf),
    /// This one, without symlinks, which is to be watched from now on.
    New(PathBuf),
    /// None: it would be `/` or the home directory. The query is answered without an index.
    OneShot,
}

/// Why no root can be found.
#[derive(Debug, Error)]
pub enum RootError {
    /// It can't be resolved.
    #[error("cannot resolve {}", path.display())]
    Unresolved {
        /// As given.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// A root is a directory, this is none.
    #[error("cannot watch {}: it is not a directory", path.display())]
    NotADirectory {
        /// As given.
        path: PathBuf,
    },
}

/// What makes a root the same under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootId {
    /// Device.
    pub dev: u64,
    /// Inode on it.
    pub ino: u64,
}

impl RootId {
    /// The identity of a directory, symlinks followed.
    pub fn of(path: &Path) -> Result<Self, RootError> {
        let metadata = std::fs::metadata(path).map_err(|source| unresolved(path, source))?;
        Ok(Self { dev: metadata.dev(), ino: metadata.ino() })
    }
}

/// The root for an absolute path, given the watched ones, which have no symlinks.
///
/// # Errors
/// When the path doesn't exist.
pub fn decide(path: &Path, watched: &[PathBuf]) -> Result<RootDecision, RootError> {
    decide_for(path, watched, std::env::home_dir().as_deref())
}

fn decide_for(
    path: &Path,
    watched: &[PathBuf],
    home: Option<&Path>,
) -> Result<RootDecision, RootError> {
    let resolved = path.canonicalize().map_err(|source| unresolved(path, source))?;
    let nearest = resolved.ancestors().find(|dir| watched.iter().any(|root| root == dir));
    if let Some(root) = nearest {
        return Ok(RootDecision::Watched(root.to_path_buf()));
    }
    let home = home.and_then(|home| home.canonicalize().ok());
    let is_refused = |dir: &Path| dir.parent().is_none() || home.as_deref() == Some(dir);
    let named = if resolved.is_dir() { Some(&*resolved) } else { resolved.parent() };
    let Some(named) = named else { return Ok(RootDecision::OneShot) };
    // A home directory under version control is no top for the projects in it.
    let below = named.ancestors().take_while(|dir| !is_refused(dir));
    let mut tops = below.filter(|dir| VERSION_CONTROL.iter().any(|name| dir.join(name).exists()));
    let root = tops.next().unwrap_or(named);
    if is_refused(root) {
        return Ok(RootDecision::OneShot);
    }
    Ok(RootDecision::New(root.to_path_buf()))
}

/// The root that was asked for by name: any directory.
///
/// # Errors
/// When it doesn't exist or is no directory.
pub fn explicit(path: &Path) -> Result<PathBuf, RootError> {
    let resolved = path.canonicalize().map_err(|source| unresolved(path, source))?;
    if !resolved.is_dir() {
        return Err(RootError::NotADirectory { path: path.to_path_buf() });
    }
    Ok(resolved)
}

fn unresolved(path: &Path, source: io::Error) -> RootError {
    RootError::Unresolved { path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use astscope_fixtures::Fixture;
    use std::os::unix::fs::symlink;

    fn tree() -> Fixture {
        Fixture::parse(
            "//- /users/project/.git/HEAD\n\n//- /users/project/lib/a.ex\n\n\
             //- /users/worktree/.git\ngitdir: x\n//- /users/worktree/b.ex\n\n\
             //- /users/plain/deep/c.ex\n\n//- /users/d.ex\n\n//- /users/.git/HEAD\n",
        )
    }

    #[track_caller]
    fn check(tree: &Fixture, path: &str, watched: &[&str], expected: &RootDecision) {
        let watched: Vec<_> = watched.iter().map(|dir| tree.path(dir)).collect();
        let home = tree.path("users");
        let decision = decide_for(&tree.path(path), &watched, Some(&home)).expect("exists");
        assert_eq!(&decision, expected, "{path}");
    }

    #[test]
    fn the_nearest_watched_ancestor_comes_first() {
        let tree = tree();
        let watched = ["users", "users/project/lib"];
        let lib = RootDecision::Watched(tree.path("users/project/lib"));
        check(&tree, "users/project/lib/a.ex", &watched, &lib);
        check(&tree, "users/d.ex", &watched, &RootDecision::Watched(tree.path("users")));
    }

    #[test]
    fn then_the_top_of_version_control_then_the_directory_itself() {
        let tree = tree();
        let new = |path: &str| RootDecision::New(tree.path(path));
        check(&tree, "users/project/lib/a.ex", &[], &new("users/project"));
        check(&tree, "users/project/lib", &[], &new("users/project"));
        check(&tree, "users/worktree/b.ex", &[], &new("users/worktree"));
        check(&tree, "users/plain/deep/c.ex", &[], &new("users/plain/deep"));
        check(&tree, "users/plain", &[], &new("users/plain"));
    }

    #[test]
    fn the_home_directory_and_the_disk_are_never_chosen_unasked() {
        let tree = tree();
        check(&tree, "users", &[], &RootDecision::OneShot);
        check(&tree, "users/d.ex", &[], &RootDecision::OneShot);
        let disk = decide_for(Path::new("/"), &[], None).expect("exists");
        assert_eq!(disk, RootDecision::OneShot);
        assert_eq!(explicit(&tree.path("users")).expect("a directory"), tree.path("users"));
        let error = explicit(&tree.path("users/d.ex")).expect_err("a file");
        assert!(error.to_string().ends_with("d.ex: it is not a directory"), "{error}");
    }

    #[test]
    fn symlinks_lead_to_the_same_root_with_the_same_identity() {
        let tree = tree();
        symlink(tree.path("users/project"), tree.path("link")).expect("a link");
        check(&tree, "link/lib", &[], &RootDecision::New(tree.path("users/project")));
        let watched = RootDecision::Watched(tree.path("users/project"));
        check(&tree, "link/lib", &["users/project"], &watched);
        let id = |path: &str| RootId::of(&tree.path(path)).expect("exists");
        assert_eq!(id("link"), id("users/project"));
        assert_ne!(id("users"), id("users/project"));
        assert!(decide(&tree.path("nothing"), &[]).is_err());
    }
}
