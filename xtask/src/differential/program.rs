//! One of the two programs: started with the same arguments in the same directory, read to the end.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program that understands ast-grep's command line.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// Its executable.
    pub(super) path: PathBuf,
    /// Where a daemon that it starts lives, so that nobody else's daemon answers.
    pub(super) runtime_dir: PathBuf,
}

/// What came of one run.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The objects on standard output.
    pub(super) objects: Vec<Value>,
    /// `None` when a signal ended it.
    pub(super) exit_code: Option<i32>,
    /// The end of standard error, for reports only: the words are each program's own.
    pub(super) complaint: String,
    /// How long it took, start to exit.
    pub(super) elapsed: Duration,
}

impl Program {
    /// Runs it with `args` in `cwd`.
    pub(super) fn ask(&self, cwd: &Path, args: &[String]) -> Result<Outcome> {
        let start = Instant::now();
        let output = self
            .command()
            .args(args)
            .current_dir(cwd)
            .output()
            .with_context(|| format!("can't run {}", self.path.display()))?;
        let elapsed = start.elapsed();
        let objects = serde_json::Deserializer::from_slice(&output.stdout)
            .into_iter()
            .collect::<Result<Vec<Value>, _>>()
            .with_context(|| format!("{} {args:?} printed what isn't JSON", self.path.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let complaint = stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .take(3)
            .collect::<Vec<_>>()
            .join(" | ");
        Ok(Outcome { objects, exit_code: output.status.code(), complaint, elapsed })
    }

    /// Asks its daemon to end. A program without one refuses the word, which does no harm.
    pub(super) fn stop(&self) -> Result<()> {
        let mut command = self.command();
        command.arg("stop").stdout(Stdio::null()).stderr(Stdio::null());
        command
            .status()
            .with_context(|| format!("can't run {} stop", self.path.display()))
            .map(drop)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("ASTSCOPE_RUNTIME_DIR", &self.runtime_dir).stdin(Stdio::null());
        command
    }
}

impl Outcome {
    /// Leaves out what ast-grep can't find: files of the languages that astscope adds. True if
    /// there was any.
    pub(super) fn forget_added_languages(&mut self) -> bool {
        let before = self.objects.len();
        self.objects.retain(|object| !is_of_added_language(object));
        before != self.objects.len()
    }
}

fn is_of_added_language(object: &Value) -> bool {
    let language = object["language"].as_str().unwrap_or_default();
    let file = Path::new(object["file"].as_str().unwrap_or_default());
    let extension = file.extension().unwrap_or_default();
    ["Erlang", "Heex", "HEEx", "Toml", "TOML"].contains(&language)
        || ["erl", "hrl", "escript", "heex", "toml"].iter().any(|added| extension == *added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn languages_that_ast_grep_lacks_are_left_out() {
        let objects = vec![
            json!({"file": "a.ex", "language": "Elixir"}),
            json!({"file": "a.heex", "language": "Elixir"}),
            json!({"file": "rebar.lock", "language": "Erlang"}),
        ];
        let mut outcome = Outcome {
            objects,
            exit_code: Some(0),
            complaint: String::new(),
            elapsed: Duration::ZERO,
        };
        assert!(outcome.forget_added_languages());
        assert_eq!(outcome.objects, [json!({"file": "a.ex", "language": "Elixir"})]);
        assert!(!outcome.forget_added_languages());
    }
}
