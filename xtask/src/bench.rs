//! Ours beside the peer and beside the limit, on the same files, in one run.
//!
//! The machines are shared and noisy: a figure alone says nothing, the ratio of medians of
//! alternating runs does. What is compared and why stands in docs/performance.md, which the run
//! writes anew between its markers.
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod beside;
mod daemon;
pub(crate) mod measure;
mod report;
mod watching;

use crate::flags::BenchFlags;
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use daemon::Daemon;
use measure::{Sample, Series, cpu_seconds_of_children};
use report::{Report, Row};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A source tree and the patterns that are run over it.
struct Corpus {
    name: String,
    dir: PathBuf,
}

/// Corpus, language and pattern: selective ones, common ones, and some without any literal.
const PATTERNS: &[(&str, &str, &str)] = &[
    ("elixir", "elixir", "GenServer.call($$$A)"),
    ("elixir", "elixir", "$A |> $B"),
    ("elixir", "elixir", "def $F($$$ARGS) do $$$BODY end"),
    ("rust", "rust", "$A.unwrap()"),
    ("rust", "rust", "std::mem::replace($A, $B)"),
    ("rust", "rust", "if let Some($X) = $Y { $$$ }"),
    ("python", "python", "self.assertEqual($A, $B)"),
    ("python", "python", "raise $E($$$ARGS)"),
];

/// Runs the benchmark that `flags` ask for.
pub fn run(flags: &BenchFlags) -> Result<()> {
    if flags.supervision {
        return beside::supervision(flags.write);
    }
    if flags.watching {
        return watching::run(flags.write);
    }
    let corpora = corpora(flags)?;
    if flags.parsers {
        return beside::parsers(&corpora, flags.pairs, flags.write);
    }
    println!("building release binaries");
    build(&["-p", "astscope-cli", "--bin", "astscope"])?;
    build(&["-p", "astscope-benches", "--bin", "limit"])?;
    let release = workspace_root().join("target/release");
    let (ours, limit) = (release.join("astscope"), release.join("limit"));
    let mut report = Report::new(&flags.ast_grep)?;
    for corpus in &corpora {
        println!("\n{} ({})", corpus.name, corpus.dir.display());
        cold(&mut report, corpus, &ours, &limit, flags.pairs)?;
        warm(&mut report, corpus, &ours, flags)?;
    }
    report.finish();
    println!("\n{}", report.markdown());
    if flags.write {
        report.write(&workspace_root().join("docs"))?;
    }
    Ok(())
}

fn corpora(flags: &BenchFlags) -> Result<Vec<Corpus>> {
    ensure!(!flags.corpus.is_empty(), "name a source tree: --corpus elixir=DIR");
    let parse = |given: &String| {
        let (name, dir) =
            given.split_once('=').with_context(|| format!("{given}: not NAME=DIR"))?;
        let dir = Path::new(dir).canonicalize().with_context(|| format!("cannot open {dir}"))?;
        Ok(Corpus { name: name.to_owned(), dir })
    };
    flags.corpus.iter().map(parse).collect()
}

fn build(args: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(workspace_root()).args(["build", "--release", "--quiet"]).args(args);
    ensure!(command.status()?.success(), "cargo build failed");
    Ok(())
}

/// Cold index against raw parallel parsing of the same files, then memory.
fn cold(
    report: &mut Report,
    corpus: &Corpus,
    ours: &Path,
    limit: &Path,
    pairs: usize,
) -> Result<()> {
    let (mut index, mut raw) = (Series::default(), Series::default());
    let mut status = None;
    let (mut raw_files, mut raw_bytes) = (0, 0);
    // The first pass only warms the page cache.
    for pass in 0..=pairs {
        let daemon = Daemon::start(ours)?;
        let start = Instant::now();
        let indexed = daemon.open(&corpus.dir)?;
        let sample = Sample { wall: start.elapsed().as_secs_f64(), cpu: daemon.cpu_seconds()? };
        let memory = daemon.status()?.memory;
        daemon.stop()?;
        let before = cpu_seconds_of_children();
        let output = Command::new(limit).arg(&corpus.dir).output()?;
        let line = String::from_utf8(output.stdout)?;
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [files, bytes, seconds] = fields[..] else { bail!("limit printed {line:?}") };
        (raw_files, raw_bytes) = (files.parse::<u64>()?, bytes.parse::<u64>()?);
        let raw_sample = Sample { wall: seconds.parse()?, cpu: cpu_seconds_of_children() - before };
        if pass > 0 {
            index.push(sample);
            raw.push(raw_sample);
        }
        status = Some((indexed, memory));
    }
    let Some((indexed, memory)) = status else { bail!("no pass was made") };
    report.corpus(&corpus.name, indexed.files_parsed, indexed.source_bytes, indexed.nodes);
    println!("  raw parse: {raw_files} files, {raw_bytes} bytes");
    let what = format!("{}: cold index against raw parallel parse", corpus.name);
    // Throughput: bytes over time, for the two parse slightly different sets of files.
    let speed = |bytes: u64, series: &Series| measure::to_f64(bytes) / series.median();
    let ratio = speed(indexed.source_bytes, &index) / speed(raw_bytes, &raw);
    report.row(Row::pair(&what, "raw parse", &index, &raw, ratio, indexed.files_parsed));
    let held = memory.text + memory.trees + memory.indexes;
    report.memory(&corpus.name, held, memory.resident_anon, indexed.source_bytes, indexed.nodes);
    Ok(())
}

/// Queries on a warm daemon against `ast-grep run`, a file edited before each.
fn warm(report: &mut Report, corpus: &Corpus, ours: &Path, flags: &BenchFlags) -> Result<()> {
    let daemon = Daemon::start(ours)?;
    daemon.open(&corpus.dir)?;
    let patterns = PATTERNS.iter().filter(|(name, ..)| *name == corpus.name);
    for (_, language, pattern) in patterns {
        let edited = Edited::first(&corpus.dir, language)?;
        let (mut cli, mut socket, mut again, mut peer) =
            (Series::default(), Series::default(), Series::default(), Series::default());
        let mut n_matches = 0;
        for pass in 0..=flags.pairs {
            edited.touch(pass)?;
            let before = daemon.cpu_seconds()?;
            let (mut our_sample, our_matches) = command(
                Command::new(ours).env("ASTSCOPE_RUNTIME_DIR", daemon.dir()),
                corpus,
                language,
                pattern,
                &["--no-cache"],
            )?;
            our_sample.cpu += daemon.cpu_seconds()? - before;
            edited.touch(pass + 1000)?;
            let (socket_sample, socket_matches) =
                daemon.run(&corpus.dir, language, pattern, true)?;
            edited.touch(pass + 2000)?;
            let (again_sample, again_matches) =
                daemon.run(&corpus.dir, language, pattern, false)?;
            let (peer_sample, peer_matches) =
                command(&mut Command::new(&flags.ast_grep), corpus, language, pattern, &[])?;
            ensure!(
                [our_matches, socket_matches, again_matches] == [peer_matches; 3],
                "{pattern}: {our_matches}, {socket_matches} and {again_matches} matches, \
                 ast-grep has {peer_matches}"
            );
            n_matches = peer_matches;
            if pass > 0 {
                cli.push(our_sample);
                socket.push(socket_sample);
                again.push(again_sample);
                peer.push(peer_sample);
            }
        }
        let name = |how: &str| format!("{}: `{pattern}` {how}", corpus.name);
        let ratio = |series: &Series| peer.median() / series.median();
        let row = |how, series: &Series| {
            Row::pair(&name(how), "ast-grep run", series, &peer, ratio(series), n_matches)
        };
        report.row(row("through the command line", &cli));
        report.row(row("over an open socket", &socket));
        report.row(row("over an open socket, asked again after one edited file", &again));
    }
    daemon.stop()
}

/// Runs one of the two programs, its output into a file; both have the same flags. Matches are
/// counted afterwards: a pipe's reader would take time of its own.
fn command(
    program: &mut Command,
    corpus: &Corpus,
    language: &str,
    pattern: &str,
    more: &[&str],
) -> Result<(Sample, u64)> {
    let mut file = tempfile::tempfile()?;
    let before = cpu_seconds_of_children();
    let start = Instant::now();
    let status = program
        .current_dir(&corpus.dir)
        .args(["run", "-p", pattern, "-l", language, "--json=stream"])
        .args(more)
        .stdout(file.try_clone()?)
        .stderr(Stdio::inherit())
        .status()
        .context("cannot run the program")?;
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{pattern}: the program ended with {status}");
    let sample = Sample { wall, cpu: cpu_seconds_of_children() - before };
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut text)?;
    let n_lines = text.split(|&byte| byte == b'\n').count() - 1;
    Ok((sample, n_lines as u64))
}

/// A file of the corpus that is edited between runs, and put back in the end.
struct Edited {
    path: PathBuf,
    original: Vec<u8>,
    comment: &'static str,
}

impl Edited {
    fn first(dir: &Path, language: &str) -> Result<Self> {
        let (extension, comment) = match language {
            "elixir" => ("ex", "#"),
            "rust" => ("rs", "//"),
            "python" => ("py", "#"),
            other => bail!("no comment is known for {other}"),
        };
        let mut files: Vec<PathBuf> = ignore::WalkBuilder::new(dir)
            .build()
            .flatten()
            .map(ignore::DirEntry::into_path)
            .filter(|path| path.extension().is_some_and(|found| found == extension))
            .collect();
        files.sort();
        let path = files.into_iter().next().context("the corpus has no file of the language")?;
        Ok(Self { original: fs::read(&path)?, path, comment })
    }

    /// Appends a comment that no run has seen.
    fn touch(&self, n: usize) -> Result<()> {
        let mut text = self.original.clone();
        text.extend(format!("\n{} {n}\n", self.comment).bytes());
        fs::write(&self.path, text).context("cannot edit the corpus")
    }
}

impl Drop for Edited {
    fn drop(&mut self) {
        if fs::write(&self.path, &self.original).is_err() {
            println!("could not put {} back", self.path.display());
        }
    }
}
