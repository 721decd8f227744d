//! YAML rules over files: which rules apply where, and what they find.

use astscope_pattern_matcher::{CompactDoc, RuleMatch, RuleSet};
use astscope_repository::ScopedFile;
use std::path::{Path, PathBuf};

/// Compiled rules and the project that their globs refer to.
#[derive(Debug)]
pub struct RuleQuery {
    /// The rules.
    pub rules: RuleSet,
    /// Resolved directory that `files` and `ignores` are relative to.
    pub project_dir: PathBuf,
    /// Give every fix of a rule, not just the first.
    pub all_fixes: bool,
}

impl RuleQuery {
    /// Whether the file may contain a match.
    pub fn admits(&self, file: &ScopedFile) -> bool {
        self.rules.admits(&file.record.file, self.path_of(file))
    }

    /// All matches in the file, tree by tree, at most `limit`; `None` if it can't have any.
    pub fn search(
        &self,
        file: &ScopedFile,
        limit: usize,
    ) -> Option<Vec<(CompactDoc, Vec<RuleMatch<'_>>)>> {
        if !self.admits(file) {
            return None;
        }
        let mut left = limit;
        let mut found = Vec::new();
        for doc in CompactDoc::all(&file.record.file) {
            let mut matches = self.rules.scan(doc.clone(), self.path_of(file), self.all_fixes);
            matches.truncate(left);
            left -= matches.len();
            if !matches.is_empty() {
                found.push((doc, matches));
            }
        }
        Some(found)
    }

    /// Relative to the project where it is inside, else as typed.
    fn path_of<'f>(&self, file: &'f ScopedFile) -> &'f Path {
        file.abs.strip_prefix(&self.project_dir).unwrap_or(Path::new(&*file.display))
    }
}
