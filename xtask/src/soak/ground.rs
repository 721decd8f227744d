//! The repository that is changed: copied from somebody's or made up, with branches that differ, and
//! a directory beside it that is no part of it.

use crate::chaos::Random;
use anyhow::{Context as _, Result, ensure};
use astscope_syntax::Language;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Branches that are made, of which one is checked out.
pub(super) const BRANCHES: usize = 4;

/// Where made-up files are, one directory within the other.
const DIRECTORIES: [&str; 12] = [
    "api",
    "api/v1",
    "api/v1/inner",
    "core",
    "core/queue",
    "docs",
    "lib",
    "lib/inner",
    "scripts",
    "tests",
    "web",
    "web/pages",
];

/// What made-up files are called at the end, more often what is asked for.
const EXTENSIONS: [&str; 14] =
    ["js", "js", "js", "py", "py", "ex", "ts", "tsx", "rs", "rb", "html", "json", "md", "txt"];

/// Larger files in no language stay behind: 2 MB of tables that get a language's name take ten seconds
/// to parse, each time that they come.
const DATA_BYTES_MAX: u64 = 64 << 10;

/// Where everything lies.
#[derive(Debug)]
pub(super) struct Ground {
    dir: TempDir,
    pub(super) root: PathBuf,
    /// On the same disk and outside the root: what is moved across its boundary comes from here.
    pub(super) outside: PathBuf,
}

impl Ground {
    /// A repository like `corpus`, or of so many made-up files.
    pub(super) fn new(corpus: Option<&Path>, n_files: usize, random: &mut Random) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let base = dir.path().canonicalize()?;
        let ground = Self { root: base.join("root"), outside: base.join("outside"), dir };
        for made in [&ground.root, &ground.outside, &ground.home()] {
            fs::create_dir(made)?;
        }
        match corpus {
            Some(corpus) => copy(corpus, &ground.root)?,
            None => make_up(&ground.root, n_files, random)?,
        }
        ground.must(&["init", "--quiet", "--initial-branch=branch0"])?;
        ground.must(&["config", "user.name", "soak"])?;
        ground.must(&["config", "user.email", "soak@localhost"])?;
        ground.must(&["config", "gc.auto", "0"])?;
        ground.must(&["add", "--all"])?;
        ground.must(&["commit", "--quiet", "--message=all"])?;
        let tracked = ground.tracked()?;
        ensure!(!tracked.is_empty(), "there is no file to change");
        for branch in 1..BRANCHES {
            ground.must(&["checkout", "--quiet", "-b", &format!("branch{branch}"), "branch0"])?;
            for n in 0..tracked.len().div_ceil(8) {
                let path = ground.root.join(&tracked[random.below(tracked.len())]);
                match random.below(5) {
                    // It may have been deleted a moment ago.
                    0 => drop(fs::remove_file(&path)),
                    1 => fs::write(path.with_extension(EXTENSIONS[n % EXTENSIONS.len()]), "1\n")?,
                    _ => fs::write(&path, text(&path, version(random), 1 + random.below(30)))?,
                }
            }
            fs::write(
                ground.root.join(".gitignore"),
                format!("target/\n*.log\n*.gen{branch}.js\n"),
            )?;
            ground.must(&["add", "--all"])?;
            ground.must(&["commit", "--quiet", "--message=others"])?;
        }
        Ok(ground)
    }

    /// Runs git in the root, and says whether it did what it should.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<bool> {
        Ok(self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }

    fn must(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command(arguments).output().context("can't run git")?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "git {arguments:?}: {}", complaint.trim());
        Ok(())
    }

    fn tracked(&self) -> Result<Vec<String>> {
        let output = self.command(&["ls-files", "-z"]).output()?;
        let names = String::from_utf8(output.stdout).context("names are UTF-8")?;
        let names = names.split('\0').filter(|name| Path::new(name).extension().is_some());
        Ok(names.filter(|name| !name.starts_with('.')).map(str::to_owned).collect())
    }

    /// A home without settings.
    pub(super) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("HOME", self.home())
            .env("XDG_CONFIG_HOME", self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null());
        command
    }
}

/// Copies files and directories; what is neither stays behind, and so do git's own and large data.
fn copy(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let (entry, kind) = entry.and_then(|it| it.file_type().map(|kind| (it, kind)))?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if kind.is_dir() && name != ".git" {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else if kind.is_file() && name.to_str().is_some() && !is_large_data(&entry)? {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn is_large_data(entry: &DirEntry) -> Result<bool> {
    let is_code = Language::from_path(&entry.path()).is_some();
    Ok(!is_code && entry.metadata()?.len() > DATA_BYTES_MAX)
}

fn make_up(root: &Path, n_files: usize, random: &mut Random) -> Result<()> {
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    for n in 0..n_files {
        let directory = root.join(DIRECTORIES[random.below(DIRECTORIES.len())]);
        let path = directory.join(format!("file{n}.{}", EXTENSIONS[n % EXTENSIONS.len()]));
        fs::write(&path, text(&path, version(random), 1 + random.below(30)))?;
    }
    fs::write(root.join(".gitignore"), "target/\n*.log\n")?;
    fs::write(root.join("lib/.gitignore"), "*.tmp\n/inner/file1*.py\n")?;
    fs::write(root.join("docs/.ignore"), "*.html\n!*.md\n")?;
    fs::create_dir(root.join("target"))?;
    fs::write(root.join("target/built.js"), "marker(1)\n")?;
    Ok(())
}

/// Of seven digits, as all that mark a version: one can be written over another in place.
pub(super) fn version(random: &mut Random) -> u64 {
    1_000_000 + random.below(9_000_000) as u64
}

/// What a new file says: something to be found with the version's number, in its language.
pub(super) fn text(path: &Path, number: u64, n_lines: usize) -> String {
    let mut lines: Vec<String> =
        (0..n_lines).map(|line| format!("other({line}, {})", number % 97)).collect();
    lines.insert(n_lines / 2, format!("marker({number})"));
    let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
    match extension {
        "rs" => format!("fn f() {{\n    {};\n}}\n", lines.join(";\n    ")),
        "html" => format!("<p>{n_lines}</p>\n<script>\n{}\n</script>\n", lines.join("\n")),
        "json" => format!("{{\"marker\": {number}, \"lines\": {n_lines}}}\n"),
        "md" => format!("# {number}\n\n{}\n", lines.join("\n")),
        _ => format!("{}\n", lines.join("\n")),
    }
}
