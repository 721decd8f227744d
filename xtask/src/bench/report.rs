//! The table that a run prints, and docs/performance.md that it keeps.

use super::measure::{Series, to_f64};
use anyhow::{Context, Result};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Between these lines docs/performance.md is written by the run.
const BEGIN: &str = "<!-- written by cargo xtask bench: begin -->";
const END: &str = "<!-- written by cargo xtask bench: end -->";

/// One comparison.
pub(super) struct Row {
    what: String,
    beside: String,
    ours: [f64; 3],
    theirs: [f64; 3],
    our_cpu: f64,
    their_cpu: f64,
    ratio: f64,
    count: u64,
}

impl Row {
    pub(super) fn pair(
        what: &str,
        beside: &str,
        ours: &Series,
        theirs: &Series,
        ratio: f64,
        count: u64,
    ) -> Self {
        let spread = |series: &Series| [series.min(), series.median(), series.max()];
        let row = Self {
            what: what.to_owned(),
            beside: beside.to_owned(),
            ours: spread(ours),
            theirs: spread(theirs),
            our_cpu: ours.median_cpu(),
            their_cpu: theirs.median_cpu(),
            ratio,
            count,
        };
        row.print();
        row
    }

    #[expect(clippy::print_stdout, reason = "its output is the report")]
    fn print(&self) {
        println!(
            "  {}: {:.1} ms, {}: {:.1} ms, {:.2}×",
            self.what,
            self.ours[1] * 1e3,
            self.beside,
            self.theirs[1] * 1e3,
            self.ratio
        );
    }
}

/// All of a run.
pub(super) struct Report {
    head: String,
    rows: Vec<Row>,
    corpora: String,
    memory: String,
    load_before: String,
    load_after: String,
}

impl Report {
    pub(super) fn new(ast_grep: &Path) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let head = format!(
            "astscope {}, {}, {}, {cores} cores.",
            env!("CARGO_PKG_VERSION"),
            version(ast_grep, "--version")?,
            version(Path::new("rustc"), "--version")?
        );
        Ok(Self {
            head,
            rows: Vec::new(),
            corpora: String::new(),
            memory: String::new(),
            load_before: load(),
            load_after: String::new(),
        })
    }

    pub(super) fn row(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn corpus(&mut self, name: &str, files: u64, bytes: u64, nodes: u64) {
        let mib = to_f64(bytes) / f64::from(1 << 20);
        line(&mut self.corpora, format_args!("| {name} | {files} | {mib:.1} | {nodes} |"));
    }

    pub(super) fn memory(&mut self, name: &str, held: u64, anon: u64, source: u64, nodes: u64) {
        let per = |bytes: u64| to_f64(bytes) / to_f64(source);
        let per_node = to_f64(held.saturating_sub(source)) / to_f64(nodes);
        let mib = |bytes: u64| to_f64(bytes) / f64::from(1 << 20);
        line(
            &mut self.memory,
            format_args!(
                "| {name} | {:.1} | {:.1} | {:.2} | {:.1} | {:.2} | {per_node:.1} |",
                mib(source),
                mib(held),
                per(held),
                mib(anon),
                per(anon)
            ),
        );
    }

    pub(super) fn finish(&mut self) {
        self.load_after = load();
    }

    pub(super) fn markdown(&self) -> String {
        let mut out = format!(
            "{}\nLoad average {} before, {} after.\n\n",
            self.head, self.load_before, self.load_after
        );
        out.push_str("| corpus | files | MiB | nodes |\n|---|---|---|---|\n");
        out.push_str(&self.corpora);
        out.push_str("\n| what | beside | ours, ms: min / median / max | theirs, ms | CPU s, ours / theirs | ratio | files or matches |\n|---|---|---|---|---|---|---|\n");
        let ms = |[min, median, max]: [f64; 3]| {
            format!("{:.1} / {:.1} / {:.1}", min * 1e3, median * 1e3, max * 1e3)
        };
        for row in &self.rows {
            line(
                &mut out,
                format_args!(
                    "| {} | {} | {} | {} | {:.2} / {:.2} | {:.2} | {} |",
                    // A pipe ends a cell, in code too.
                    row.what.replace('|', r"\|"),
                    row.beside,
                    ms(row.ours),
                    ms(row.theirs),
                    row.our_cpu,
                    row.their_cpu,
                    row.ratio,
                    row.count
                ),
            );
        }
        out.push_str("\n| corpus | source, MiB | text, trees and indexes, MiB | bytes per source byte | anonymous memory of the process, MiB | bytes per source byte | bytes a node, text apart |\n|---|---|---|---|---|---|---|\n");
        out.push_str(&self.memory);
        out
    }

    /// Writes the table into performance.md and the ratios as a picture beside it.
    pub(super) fn write(&self, docs: &Path) -> Result<()> {
        write_between(docs, BEGIN, END, &self.markdown())?;
        fs::write(docs.join("performance.svg"), self.svg())?;
        Ok(())
    }

    /// A bar for each row, its length the logarithm of the ratio.
    fn svg(&self) -> String {
        let height = self.rows.len() * 22 + 30;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"960\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n<text x=\"8\" y=\"16\">times as fast (logarithmic)</text>\n"
        );
        for (at, row) in self.rows.iter().enumerate() {
            let y = at * 22 + 26;
            let width = (row.ratio.max(0.1).log10() + 1.0) * 110.0;
            let what = row.what.replace('&', "&amp;").replace('<', "&lt;").replace('`', "");
            line(&mut out, format_args!("<text x=\"8\" y=\"{}\">{what}</text>", y + 14));
            line(
                &mut out,
                format_args!(
                    "<rect x=\"520\" y=\"{y}\" width=\"{width:.0}\" height=\"16\" fill=\"#4a7\"/>"
                ),
            );
            line(
                &mut out,
                format_args!(
                    "<text x=\"{:.0}\" y=\"{}\">{:.2}</text>",
                    526.0 + width,
                    y + 14,
                    row.ratio
                ),
            );
        }
        out + "</svg>\n"
    }
}

fn line(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // A String takes everything.
    if out.write_fmt(arguments).is_ok() {
        out.push('\n');
    }
}

/// The first line that a program says of itself.
pub(super) fn version(program: &Path, argument: &str) -> Result<String> {
    let output = Command::new(program).arg(argument).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Puts a table between its markers in performance.md.
pub(super) fn write_between(docs: &Path, begin: &str, end: &str, table: &str) -> Result<()> {
    let path = docs.join("performance.md");
    let page =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let (head, rest) =
        page.split_once(begin).with_context(|| format!("performance.md lacks {begin}"))?;
    let (_, tail) = rest.split_once(end).with_context(|| format!("performance.md lacks {end}"))?;
    fs::write(&path, format!("{head}{begin}\n{table}{end}{tail}"))?;
    Ok(())
}

pub(super) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
