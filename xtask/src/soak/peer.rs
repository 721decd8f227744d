//! ast-grep itself, asked the same in the same tree.

use super::question::{Answer, Question};
use crate::ci::ORACLE;
use anyhow::{Context as _, Result, bail, ensure};
use astscope_syntax::Language;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A file, a byte range and the text there, sorted.
pub(super) type Places = Vec<String>;

#[derive(Debug)]
pub(super) struct Peer {
    program: PathBuf,
    home: PathBuf,
}

impl Peer {
    /// The one that was named, else the one on the path, if that is the right one.
    pub(super) fn find(named: Option<&Path>, home: &Path) -> Result<Option<Self>> {
        let program = named.unwrap_or(Path::new("ast-grep")).to_owned();
        let found = Command::new(&program).arg("--version").stderr(Stdio::null()).output();
        let version = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        if version.as_deref().ok() == Some(ORACLE) {
            return Ok(Some(Self { program, home: home.to_owned() }));
        }
        if named.is_some() {
            bail!("{} isn't {ORACLE}: {version:?}", program.display());
        }
        println!("NOT COMPARED with {ORACLE}: it is not on the path (found {version:?})");
        Ok(None)
    }

    /// What it finds; `None` where a path isn't there, which it takes for a mistake.
    pub(super) fn ask(&self, question: &Question, root: &Path) -> Result<Option<Places>> {
        if !root.is_dir() || question.paths.iter().any(|path| !root.join(path).exists()) {
            return Ok(None);
        }
        let output = Command::new(&self.program)
            .args(question.arguments())
            .current_dir(root)
            .env("HOME", &self.home)
            .env("XDG_CONFIG_HOME", &self.home)
            .stdin(Stdio::null())
            .output()?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        // 1 says that nothing was found.
        let is_answer = output.status.success() || output.status.code() == Some(1);
        ensure!(is_answer, "ast-grep ended with {}: {complaint}", output.status);
        let text = String::from_utf8(output.stdout)?;
        text.lines().map(place).collect::<Result<Vec<_>>>().map(|all| Some(sorted(all)))
    }
}

/// Where an answer of ours has matches, but for languages that ast-grep lacks.
pub(super) fn places(answer: &Answer) -> Result<Places> {
    let is_shared = |file: &str| {
        let language = Language::from_path(Path::new(file));
        language.is_some_and(|language| !Language::ADDED.contains(&language))
    };
    let shared = answer.files.iter().filter(|file| is_shared(&file.file));
    let all = shared.flat_map(|file| &file.matches).map(|text| place(text));
    all.collect::<Result<Vec<_>>>().map(sorted)
}

/// A few places that only one of the two has.
pub(super) fn differ(ours: &Places, theirs: &Places) -> String {
    let only = |a: &Places, b: &Places| {
        let only: Vec<_> = a.iter().filter(|it| !b.contains(it)).take(3).cloned().collect();
        format!("{only:?}")
    };
    format!("ours {}, theirs {}", only(ours, theirs), only(theirs, ours))
}

fn sorted(mut places: Places) -> Places {
    places.sort();
    places
}

fn place(text: &str) -> Result<String> {
    let found: Value = serde_json::from_str(text).context("no match")?;
    Ok(format!("{} {} {}", found["file"], found["range"]["byteOffset"], found["text"]))
}
