//! Deeds that change which files count.

use super::{Done, Hand, everything};
use anyhow::Result;
use std::fs;

impl Hand<'_> {
    /// Writes an ignore file anew, at once or in place, or removes it.
    pub(super) fn ignore(&mut self, path: &str) -> Result<Done> {
        let path = path.trim_start_matches('/');
        let target = self.path(path);
        let mut rules = String::new();
        for _ in 0..=self.below(3) {
            rules.push_str(&self.rule());
            rules.push('\n');
        }
        let how = self.below(5);
        let what = match how {
            0 if target.is_file() => {
                fs::remove_file(&target)?;
                format!("remove {path}")
            }
            1 | 2 => {
                fs::write(&target, &rules)?;
                format!("write {path}: {rules:?}")
            }
            _ => {
                let temporary = self.ground.outside.with_file_name("rules");
                fs::write(&temporary, &rules)?;
                fs::rename(temporary, &target)?;
                format!("replace {path}: {rules:?}")
            }
        };
        Ok(Done { what, touched: everything(), about: None })
    }

    /// A rule that leaves most of the tree alone.
    fn rule(&mut self) -> String {
        let name_of = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
        match self.below(6) {
            0 => "*.py".to_owned(),
            1 => "made*.js".to_owned(),
            // Of files, not of directories that have a version in their names.
            2 => format!("*[a-z]{}.*", self.below(10)),
            3 => {
                let file = self.file().unwrap_or_default();
                format!("!{}", name_of(&file))
            }
            4 => {
                let directory = self.directory().filter(|it| !self.spared.contains(&name_of(it)));
                directory.map_or_else(|| "*.log".to_owned(), |it| format!("{}/", name_of(&it)))
            }
            _ => name_of(&self.file().unwrap_or_default()),
        }
    }
}
