//! Supervision beside bare tokio, which does the same without anybody watching.
//!
//! The figures come from the bin `supervision` of the benches, which runs both sides in turn; here
//! they become a table.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use super::build;
use super::report::{load, version, write_between};
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

const BEGIN: &str = "<!-- written by cargo xtask bench --supervision: begin -->";
const END: &str = "<!-- written by cargo xtask bench --supervision: end -->";

/// Runs the figures, prints the table, and writes it into docs/performance.md if asked to.
pub(super) fn run(write: bool) -> Result<()> {
    println!("building the release binary");
    build(&["-p", "astscope-benches", "--bin", "supervision"])?;
    let before = load();
    let output = Command::new(workspace_root().join("target/release/supervision"))
        .output()
        .context("cannot run the figures")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures = String::from_utf8(output.stdout)?;
    let mut table = format!(
        "{}, {} cores. Load average {before} before, {} after.\n\n| what | unit | supervised | bare | ratio |\n|---|---|---|---|---|\n",
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
        write_between(&workspace_root().join("docs"), BEGIN, END, &table)?;
    }
    Ok(())
}
