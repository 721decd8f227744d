//! Which directories a plain walk of the root gets to: only what lies in them is indexed.
//!
//! A path that the user named may be ignored, hidden or outside the root; what is found there is
//! parsed for the one query. Ignore rules go down the tree, so that a plain walk of a reached
//! directory finds just what a walk of the root finds there, and its directories are reached too.

use crate::walk::{WalkSpec, Walked};
use ignore::WalkBuilder;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What is known of a root's reach. It only grows: a directory that comes to be ignored is
/// indexed on, if anybody names it, until the root is walked again.
#[derive(Debug)]
pub(crate) struct Reach {
    root: PathBuf,
    reached: Mutex<HashSet<PathBuf>>,
}

impl Reach {
    pub(crate) fn new(root: PathBuf) -> Self {
        let reached = Mutex::new(HashSet::from([root.clone()]));
        Self { root, reached }
    }

    /// The root itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// For each typed path of a walk whether what it led to may be indexed; of a path that
    /// `is_listed` nobody has to look. The directories of those that may are reached from now on.
    pub(crate) fn admit(
        &self,
        spec: &WalkSpec,
        walked: &Walked,
        is_listed: &dyn Fn(&Path) -> bool,
    ) -> Vec<bool> {
        let contains = |path: &PathBuf| is_listed(path) || self.contains(path);
        let resolved = walked.resolved.iter();
        let admitted: Vec<bool> = resolved
            .map(|resolved| spec.is_plain() && resolved.as_ref().is_some_and(contains))
            .collect();
        let covers_root = walked
            .resolved
            .iter()
            .zip(&admitted)
            .any(|(resolved, admitted)| *admitted && resolved.as_ref() == Some(&self.root));
        let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if covers_root {
            reached.clear();
            reached.insert(self.root.clone());
        }
        let new = walked.directories.iter().filter(|(_, typed)| admitted[*typed]);
        reached.extend(new.map(|(directory, _)| directory.clone()));
        admitted
    }

    /// Whether a plain walk of the root finds a file or directory, by listing the directories on
    /// the way that aren't known yet.
    fn contains(&self, path: &Path) -> bool {
        if !path.starts_with(&self.root) {
            return false;
        }
        if self.is_known(path) {
            return true;
        }
        let Some(parent) = path.parent() else { return false };
        if !self.contains(parent) || !lists(parent, path) {
            return false;
        }
        if path.is_dir() {
            let mut reached = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
            reached.insert(path.to_path_buf());
        }
        true
    }

    fn is_known(&self, path: &Path) -> bool {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner).contains(path)
    }
}

/// Whether a plain walk of `parent` finds `path` in it.
fn lists(parent: &Path, path: &Path) -> bool {
    let mut builder = WalkBuilder::new(parent);
    builder.current_dir(parent).max_depth(Some(1));
    builder.build().flatten().any(|entry| entry.path() == path)
}
