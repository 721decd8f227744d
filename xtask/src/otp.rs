//! `cargo xtask otp`: OTP's own supervisors say what ours have to do.
//!
//! Each file of `crates/supervision/tests/otp/traces` holds a script and what a real Erlang made of
//! it; the language is described in `harness.erl`, which runs the scripts. Recording needs Erlang,
//! replaying doesn't: the traces are committed, and a test of the crate compares ours with them.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use crate::flags::OtpFlags;
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use similar::TextDiff;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A script is recorded so often, at once, before its trace is believed: what depends on the load
/// of the machine shows up here, and not in somebody's check.
const RECORDINGS: usize = 5;

/// Scripts that are checked at once. They sleep most of the time.
const AT_ONCE: usize = 4;

/// The line between the parts of a file.
const SEPARATOR: &str = "---\n";

/// Of the OTP whose traces are committed.
const RELEASE: &str = "25";

/// Records every trace, or checks them if `flags` say so.
pub fn run(flags: &OtpFlags) -> Result<()> {
    let dir = data_dir();
    let otp = Otp::compile(flags.erl_bin.as_deref(), &dir.join("harness.erl"))?;
    let files = trace_files(&dir.join("traces"))?;
    let release = otp.release()?;
    if release != RELEASE {
        println!("the committed traces are of OTP {RELEASE}, this is OTP {release}");
    }
    if flags.check {
        check(&otp, &files)?;
    } else {
        record(&otp, &files)?;
    }
    println!("{} traces, OTP {release}", files.len());
    Ok(())
}

fn data_dir() -> PathBuf {
    workspace_root().join("crates/supervision/tests/otp")
}

/// Writes each file whose trace has changed.
fn record(otp: &Otp, files: &[TraceFile]) -> Result<()> {
    for file in files {
        let traces = otp.trace_at_once(&[file; RECORDINGS])?;
        let (first, others) = traces.split_first().context("nothing was recorded")?;
        if let Some(other) = others.iter().find(|other| *other != first) {
            print!("{}", difference(file, first, other));
            bail!("{}: {RECORDINGS} runs are not equal: the script is a race", file.name);
        }
        if *first != file.trace {
            fs::write(&file.path, format!("{}{first}", file.script))
                .with_context(|| format!("can't write {}", file.path.display()))?;
            println!("recorded {}", file.name);
        }
    }
    Ok(())
}

/// Prints what differs from the files; an error if anything does.
fn check(otp: &Otp, files: &[TraceFile]) -> Result<()> {
    let mut different = Vec::new();
    for batch in files.chunks(AT_ONCE) {
        let traces = otp.trace_at_once(&batch.iter().collect::<Vec<_>>())?;
        for (file, trace) in batch.iter().zip(traces) {
            if trace != file.trace {
                print!("{}", difference(file, &file.trace, &trace));
                different.push(file.name.as_str());
            }
        }
    }
    ensure!(
        different.is_empty(),
        "{} of {} traces differ from this OTP: {}",
        different.len(),
        files.len(),
        different.join(" ")
    );
    Ok(())
}

/// A file of a script and its trace.
#[derive(Debug)]
struct TraceFile {
    /// Without directory and extension, as reports give it.
    name: String,
    path: PathBuf,
    /// Comment, tree and script, with the separator that ends it.
    script: String,
    /// What was recorded; empty in a new file.
    trace: String,
}

impl TraceFile {
    fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        let (script, trace) = parse(&text).with_context(|| path.display().to_string())?;
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            path: path.to_owned(),
            script: script.to_owned(),
            trace: trace.to_owned(),
        })
    }
}

/// Everything up to the second separator, and what follows it.
fn parse(text: &str) -> Result<(&str, &str)> {
    ensure!(text.starts_with("# "), "the first line is no comment that says what the trace shows");
    let mut end = 0;
    let mut separators = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        separators += usize::from(line == SEPARATOR);
        if separators == 2 {
            return Ok(text.split_at(end));
        }
    }
    bail!("a tree, a script and a trace want two lines of `---`, here are {separators}")
}

/// All files of `dir`, by name.
fn trace_files(dir: &Path) -> Result<Vec<TraceFile>> {
    let entries = fs::read_dir(dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("can't read {}", dir.display()))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "trace"));
    paths.sort_unstable();
    ensure!(!paths.is_empty(), "no trace in {}", dir.display());
    paths.iter().map(|path| TraceFile::read(path)).collect()
}

fn difference(file: &TraceFile, expected: &str, actual: &str) -> String {
    let name = &file.name;
    let (before, after) = (format!("{name}.trace"), format!("{name}, run now"));
    TextDiff::from_lines(expected, actual).unified_diff().header(&before, &after).to_string()
}

/// An Erlang, and the harness compiled by it.
#[derive(Debug)]
struct Otp {
    erl: PathBuf,
    compiled: TempDir,
}

impl Otp {
    /// Compiles `harness` with the `erlc` in `bin`, or with the one on the path.
    fn compile(bin: Option<&Path>, harness: &Path) -> Result<Self> {
        let program = |name| bin.map_or_else(|| PathBuf::from(name), |bin| bin.join(name));
        let compiled = tempfile::tempdir().context("can't make a temporary directory")?;
        let mut erlc = Command::new(program("erlc"));
        erlc.arg("-Werror").arg("-o").arg(compiled.path()).arg(harness);
        let output = finish(&program("erlc"), start(&program("erlc"), &mut erlc)?)?;
        ensure!(
            output.status.success(),
            "erlc refuses {}:\n{}{}",
            harness.display(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(Self { erl: program("erl"), compiled })
    }

    /// The number that OTP calls itself by.
    fn release(&self) -> Result<String> {
        let mut erl = self.command();
        erl.args(["-eval", "io:put_chars(erlang:system_info(otp_release)), halt()."]);
        let output = finish(&self.erl, start(&self.erl, &mut erl)?)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs each file's script in an Erlang of its own, all at the same time.
    fn trace_at_once(&self, files: &[&TraceFile]) -> Result<Vec<String>> {
        let children = files.iter().map(|file| {
            let mut erl = self.command();
            erl.args(["-run", "harness", "main"]).arg(&file.path);
            start(&self.erl, &mut erl)
        });
        let children = children.collect::<Result<Vec<_>>>()?;
        let outputs = children.into_iter().map(|child| finish(&self.erl, child));
        let outputs = outputs.collect::<Result<Vec<_>>>()?;
        let traces = files.iter().zip(outputs).map(|(file, output)| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{} can't be run: {complaint}", file.name);
            String::from_utf8(output.stdout)
                .with_context(|| format!("the trace of {} is no text", file.name))
        });
        traces.collect()
    }

    /// An Erlang with one scheduler, on which the order of events depends, and without what a user
    /// has told Erlang to do at every start.
    fn command(&self) -> Command {
        let mut erl = Command::new(&self.erl);
        erl.args(["+S", "1:1", "-boot", "no_dot_erlang", "-noinput", "-pa"])
            .arg(self.compiled.path())
            .env_remove("ERL_FLAGS")
            .env_remove("ERL_AFLAGS")
            .env_remove("ERL_ZFLAGS")
            .env("ERL_CRASH_DUMP_SECONDS", "0");
        erl
    }
}

fn start(program: &Path, command: &mut Command) -> Result<Child> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    match child {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "no program {}: install Erlang/OTP {RELEASE} (on Debian `apt-get install erlang-base`), \
             or say with --erl-bin which directory holds erl and erlc",
            program.display()
        ),
        child => child.with_context(|| format!("can't run {}", program.display())),
    }
}

fn finish(program: &Path, child: Child) -> Result<Output> {
    child.wait_with_output().with_context(|| format!("can't read from {}", program.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_traces_are_whole() {
        for file in trace_files(&data_dir().join("traces")).unwrap() {
            assert!(file.trace.ends_with('\n'), "{} was never recorded", file.name);
            let is_kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(file.name.chars().all(is_kebab), "{} is not in kebab-case", file.name);
        }
    }

    #[test]
    fn the_trace_is_what_follows_the_second_separator() {
        let (script, trace) = parse("# it\nsup\n---\nstop\n---\nroot exit\n").unwrap();
        assert_eq!((script, trace), ("# it\nsup\n---\nstop\n---\n", "root exit\n"));
        assert_eq!(parse("# it\nsup\n---\n---\n").unwrap().1, "");
    }

    #[test]
    fn a_file_without_its_parts_is_refused() {
        let complaint = |text: &str| parse(text).unwrap_err().to_string();
        assert!(complaint("sup\n---\nstop\n---\n").starts_with("the first line is no comment"));
        assert!(complaint("# it\nsup\n---\nstop\n").ends_with("here are 1"));
        assert!(complaint("# it\nsup\n---\nstop\n---").ends_with("here are 1"));
    }

    #[test]
    fn a_machine_without_erlang_is_told_what_to_install() {
        let scratch = tempfile::tempdir().unwrap();
        let error = Otp::compile(Some(scratch.path()), &data_dir().join("harness.erl"));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("apt-get install erlang-base"), "{message}");
        assert!(message.contains("--erl-bin"), "{message}");
    }

    #[test]
    fn a_difference_names_its_file_and_shows_the_lines() {
        let file = TraceFile {
            name: "one-for-one".to_owned(),
            path: PathBuf::new(),
            script: String::new(),
            trace: "init a\nroot started\n".to_owned(),
        };
        assert_eq!(
            difference(&file, &file.trace, "init a\ninit b\nroot started\n"),
            "--- one-for-one.trace\n+++ one-for-one, run now\n@@ -1,2 +1,3 @@\n init a\n+init b\n root started\n"
        );
    }
}
