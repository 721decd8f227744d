//! Ours beside the bare thing, which does the same without what we add: supervision beside tokio,
//! parsing in worker processes beside parsing in one.
//!
//! The figures come from programs of the benches, which run both sides in turn; here they become
//! tables.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use super::report::{load, version, write_between};
use super::{Corpus, build};
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// A program of the benches, and its table in docs/performance.md.
struct Comparison {
    bin: &'static str,
    /// What the two sides are called.
    heads: [&'static str; 2],
    begin: &'static str,
    end: &'static str,
}

const SUPERVISION: Comparison = Comparison {
    bin: "supervision",
    heads: ["supervised", "bare"],
    begin: "<!-- written by cargo xtask bench --supervision: begin -->",
    end: "<!-- written by cargo xtask bench --supervision: end -->",
};

const PARSERS: Comparison = Comparison {
    bin: "parsers",
    heads: ["in workers", "in process"],
    begin: "<!-- written by cargo xtask bench --parsers: begin -->",
    end: "<!-- written by cargo xtask bench --parsers: end -->",
};

/// Supervision beside bare tokio.
pub(super) fn supervision(write: bool) -> Result<()> {
    run(&SUPERVISION, &[Vec::new()], write)
}

/// Parsing in workers beside parsing in one process.
pub(super) fn parsers(corpora: &[Corpus], pairs: usize, write: bool) -> Result<()> {
    let args = |corpus: &Corpus| {
        vec![corpus.name.clone(), corpus.dir.display().to_string(), pairs.to_string()]
    };
    run(&PARSERS, &corpora.iter().map(args).collect::<Vec<_>>(), write)
}

/// Runs the figures with each of these arguments, prints the table, and writes it into
/// docs/performance.md if asked to.
fn run(what: &Comparison, runs: &[Vec<String>], write: bool) -> Result<()> {
    println!("building the release binary");
    build(&["-p", "astscope-benches", "--bin", what.bin])?;
    let program = workspace_root().join("target/release").join(what.bin);
    let before = load();
    let mut figures = String::new();
    for args in runs {
        let output =
            Command::new(&program).args(args).output().context("cannot run the figures")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        figures += &String::from_utf8(output.stdout)?;
    }
    let [ours, bare] = what.heads;
    let mut table = format!(
        "{}, {} cores. Load average {before} before, {} after.\n\n| what | unit | {ours} | {bare} | ratio |\n|---|---|---|---|---|\n",
        version(Path::new("rustc"), "--version")?,
        std::thread::available_parallelism()?,
        load()
    );
    for line in figures.lines() {
        let fields: Vec<_> = line.split('\t').collect();
        let [what, unit, ours, bare] = fields[..] else { bail!("not a figure: {line}") };
        let ratio = ours.parse::<f64>()? / bare.parse::<f64>()?;
        writeln!(table, "| {what} | {unit} | {ours} | {bare} | {ratio:.2} |")?;
    }
    println!("\n{table}");
    if write {
        write_between(&workspace_root().join("docs"), what.begin, what.end, &table)?;
    }
    Ok(())
}
