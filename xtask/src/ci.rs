//! What CI runs, so that everybody can run it before CI does.
//!
//! A list of steps as data; nothing here knows the machine that it runs on. Cheap steps come
//! first, the tests last, so that a run ends with the lines that a reader looks for.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use crate::flags::CiFlags;
use crate::tidy::{self, floors};
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What `ast-grep --version` says of the version whose answers ours must equal.
pub(crate) const ORACLE: &str = "ast-grep 0.51.1";

/// A named part of the run.
struct Step {
    name: &'static str,
    work: Work,
}

enum Work {
    /// `cargo` with these arguments and environment.
    Cargo(&'static [&'static str], &'static [(&'static str, &'static str)]),
    /// A function of this package.
    Call(fn() -> Result<()>),
}

/// Everything, in order.
fn steps() -> Vec<Step> {
    let cargo = |name, args| Step { name, work: Work::Cargo(args, &[]) };
    let tests: &[&str] = if has_nextest() {
        &["nextest", "run", "--workspace", "--all-targets", "--locked", "--no-fail-fast"]
    } else {
        &[
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
            "--locked",
            "--no-fail-fast",
        ]
    };
    vec![
        cargo("fmt", &["fmt", "--all", "--check"]),
        Step { name: "tidy", work: Work::Call(tidy::run) },
        Step { name: "runtime-free", work: Work::Call(runtime_free) },
        cargo(
            "clippy",
            &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
        ),
        cargo(
            "slim",
            &[
                "check",
                "-p",
                "astscope-cli",
                "--no-default-features",
                "--features",
                "lang-core",
                "--locked",
            ],
        ),
        Step {
            name: "doc",
            work: Work::Cargo(
                &["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"],
                &[("RUSTDOCFLAGS", "-Dwarnings")],
            ),
        },
        Step { name: "differential", work: Work::Call(differential) },
        Step { name: "chaos", work: Work::Call(chaos) },
        Step { name: "soak", work: Work::Call(soak) },
        cargo("test", tests),
        cargo("doctest", &["test", "--workspace", "--doc", "--locked"]),
    ]
}

/// Runs the steps that `flags` ask for, up to the first that fails.
pub fn run(flags: &CiFlags) -> Result<()> {
    let steps = steps();
    for name in &flags.only {
        ensure!(
            steps.iter().any(|step| step.name == name),
            "no step is called `{name}`: see --list"
        );
    }
    for step in steps
        .iter()
        .filter(|step| flags.only.is_empty() || flags.only.iter().any(|name| name == step.name))
    {
        if flags.list {
            println!("{}", step.name);
            continue;
        }
        println!("── {} {}", step.name, step.work.describe());
        let start = Instant::now();
        step.work.run().with_context(|| format!("step `{}` failed", step.name))?;
        println!("── {} ok, {:.1} s", step.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

impl Work {
    fn describe(&self) -> String {
        match self {
            Self::Cargo(args, _) => format!("(cargo {})", args.join(" ")),
            Self::Call(_) => String::new(),
        }
    }

    fn run(&self) -> Result<()> {
        match self {
            Self::Cargo(args, env) => {
                let mut command = cargo();
                let status = command
                    .args(*args)
                    .envs(env.iter().copied())
                    .status()
                    .context("can't run cargo")?;
                ensure!(status.success(), "cargo {} ended with {status}", args.join(" "));
                Ok(())
            }
            Self::Call(function) => function(),
        }
    }
}

/// The slice of the differential test that needs no download; passed over, loudly, where the real
/// ast-grep can't be had.
fn differential() -> Result<()> {
    let found = Command::new("ast-grep").arg("--version").stderr(Stdio::null()).output();
    let version = found.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    if version.as_deref().ok() != Some(ORACLE) {
        println!(
            "NOT RUN: {ORACLE} is not on the path (found {version:?}); the differential test needs it"
        );
        return Ok(());
    }
    build_astscope()?;
    let status = cargo().args(["xtask", "differential", "--slice"]).status()?;
    ensure!(status.success(), "astscope and ast-grep differ");
    Ok(())
}

/// A real daemon, hurt for a few seconds with faults that differ from run to run: what is shown
/// first replays them.
fn chaos() -> Result<()> {
    build_astscope()?;
    let status = cargo().args(["xtask", "chaos", "--short"]).status()?;
    ensure!(status.success(), "the daemon bears less than it promises");
    Ok(())
}

/// Whether answers stay right while the tree changes: the same few hundred deeds in each run.
fn soak() -> Result<()> {
    build_astscope()?;
    let status = cargo().args(["xtask", "soak", "--short"]).status()?;
    ensure!(status.success(), "an answer was another than the tree's");
    Ok(())
}

fn build_astscope() -> Result<()> {
    let status = cargo().args(["build", "--locked", "-p", "astscope-cli"]).status()?;
    ensure!(status.success(), "cannot build astscope");
    Ok(())
}

/// The cargo that runs us, in the workspace root.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    command
}

fn has_nextest() -> bool {
    let version =
        cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Without default features no crate below the daemon has an async runtime in its tree: whoever
/// embeds one gets plain functions.
fn runtime_free() -> Result<()> {
    let tree = tidy::Tree::load(workspace_root())?;
    let table = floors::Table::of(&tree).context("docs/ARCHITECTURE.md has no floor table")?;
    for dir in table.directories_below("daemon") {
        // The one crate whose business is the runtime.
        if dir == "supervision"
            || !tree.packages.iter().any(|package| package.dir == format!("crates/{dir}"))
        {
            continue;
        }
        let package = format!("astscope-{dir}");
        let args = [
            "tree",
            "-p",
            &package,
            "-e",
            "normal",
            "--prefix",
            "none",
            "--no-default-features",
            "--locked",
        ];
        let output =
            cargo().args(args).stderr(Stdio::inherit()).output().context("can't run cargo tree")?;
        let listing = String::from_utf8_lossy(&output.stdout);
        // Searched in the listing instead of asked with `-i`, which succeeds on a misspelt name too.
        ensure!(
            output.status.success() && listing.starts_with(&package),
            "cargo tree lists no {package}"
        );
        if let Some(line) = listing.lines().find(|line| is_runtime(line)) {
            bail!(
                "{package} without default features depends on {line}: crates below the daemon have no runtime"
            );
        }
    }
    Ok(())
}

fn is_runtime(line: &str) -> bool {
    let name = line.split_whitespace().next().unwrap_or_default();
    ["tokio", "tokio-util", "async-std", "smol"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn step_names_are_unique_and_the_tests_come_last() {
        let names: Vec<_> = steps().iter().map(|step| step.name).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert!(names.ends_with(&["test", "doctest"]));
    }

    #[test]
    fn a_step_that_does_not_exist_is_refused_by_its_name() {
        let error = run(&CiFlags { only: vec!["clipy".to_owned()], list: true }).unwrap_err();
        assert_eq!(error.to_string(), "no step is called `clipy`: see --list");
    }

    #[test]
    fn a_runtime_is_known_by_its_whole_name() {
        assert!(is_runtime("tokio v1.54.1"));
        assert!(!is_runtime("tokio-stream-like v1.0.0"));
        assert!(!is_runtime(""));
    }
}
