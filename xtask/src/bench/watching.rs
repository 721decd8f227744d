//! What it costs to be always consistent with the disk: each figure beside what nobody can do
//! without, measured in the same run: the kernel's event, the parse, the way over the socket.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use super::build;
use super::measure::{OWN_TICKS, cpu_seconds};
use super::report::{load, version, write_between};
use crate::chaos::house::{House, pause};
use crate::chaos::{Random, percentile};
use crate::workspace_root;
use anyhow::{Context as _, Result, ensure};
use astscope_protocol::Client;
use astscope_protocol::client::Event;
use astscope_protocol::messages::{
    HealthParams, MatcherSpec, RunParams, Selection, Summary, method,
};
use rustix::fs::inotify;
use std::fmt::Write as _;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BEGIN: &str = "<!-- written by cargo xtask bench --watching: begin -->";
const END: &str = "<!-- written by cargo xtask bench --watching: end -->";

/// How often what takes milliseconds is done.
const ROUNDS: usize = 300;

/// How often git changes its files.
const CHECKOUTS: usize = 8;

/// Files that git changes, of twice as many.
const CHANGED: usize = 1000;

/// Bytes of the file that is written.
const BIG_BYTES: usize = 50 << 10;

/// A small file that nobody changes, and a directory of such.
const FILE: &str = "d0/f0.js";
const DIRECTORY: &str = "d0";

/// Clients that ask about everything meanwhile, where there is load.
const CLIENTS: usize = 4;

/// Files that nobody touches, and for how long.
const IDLE_FILES: usize = 50_000;
const IDLE: Duration = Duration::from_mins(1);

/// Directories that are watched beside those of the others.
const DIRECTORIES: usize = 20_000;

/// Files of 2 to 60 KiB, and how often three of them are made anew at another length, so that blocks of
/// all sizes come and go.
const EDITED_FILES: usize = 500;
const EDITED_BYTES_MIN: usize = 2 << 10;
const EDITED_BYTES_MAX: usize = 60 << 10;
const EDITS: usize = 1000;

/// A row of the table. Times are in milliseconds.
struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    beside: &'static str,
    floor: f64,
}

/// Measures, and writes the table into docs/performance.md if asked to.
pub(super) fn run(write: bool) -> Result<()> {
    println!("building release binaries");
    build(&["-p", "astscope-cli", "--bin", "astscope"])?;
    build(&["-p", "astscope-benches", "--bin", "limit"])?;
    let release = workspace_root().join("target/release");
    let (ours, limit) = (release.join("astscope"), release.join("limit"));
    let before = load();
    let mut rows = edits(&ours, &limit)?;
    rows.push(checkout(&ours, &limit)?);
    rows.push(idle(&ours)?);
    rows.push(memory(&ours)?);
    rows.push(memory_after_edits(&ours)?);
    let mut table = format!(
        "{}, {} cores. Load average {before} before, {} after.\n\n| what | unit | ours | beside | floor | ratio |\n|---|---|---|---|---|---|\n",
        version(Path::new("rustc"), "--version")?,
        std::thread::available_parallelism()?,
        load()
    );
    for Row { what, unit, ours, beside, floor } in rows {
        let ratio = if floor > 0.0 { format!("{:.2}", ours / floor) } else { "–".to_owned() };
        writeln!(table, "| {what} | {unit} | {ours:.3} | {beside} | {floor:.3} | {ratio} |")?;
    }
    println!("\n{table}");
    if write {
        write_between(&workspace_root().join("docs"), BEGIN, END, &table)?;
    }
    Ok(())
}

/// One file that is written, and one that isn't.
fn edits(ours: &Path, limit: &Path) -> Result<Vec<Row>> {
    let tree = Tree::new(CHANGED * 2, 100)?;
    let big = tree.root.join("big.js");
    fs::write(&big, big_text(0))?;
    let house = House::start(ours)?;
    house.open(&tree.root)?;
    let mut client = house.client()?;

    let (mut answers, mut events) = (Vec::new(), Vec::new());
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, &tree.root, inotify::WatchFlags::CLOSE_WRITE)?;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let alone = tempfile::tempdir()?;
    fs::write(alone.path().join("big.js"), big_text(0))?;
    let mut parses = Vec::new();
    for n in 0..ROUNDS {
        if n.is_multiple_of(ROUNDS / 20) {
            parses.push(parse(limit, alone.path())?);
        }
        fs::write(&big, big_text(n))?;
        let written = Instant::now();
        let mut reader = inotify::Reader::new(&watch, &mut buffer);
        reader.next()?;
        events.push(written.elapsed());
        fs::write(&big, big_text(n + ROUNDS))?;
        let written = Instant::now();
        let answer = ask(&mut client, &tree.root, &["big.js"])?;
        answers.push(written.elapsed());
        ensure!(answer.contains(&marker(n + ROUNDS)), "the answer doesn't have the write");
        reader.next()?;
    }
    let parse = ms(percentile(&parses, 50));

    let quiet = barrier(&mut client, &tree.root, FILE)?;
    let many = barrier(&mut client, &tree.root, DIRECTORY)?;
    let loaded = under_load(&house, &tree.root, || barrier(&mut client, &tree.root, FILE))?;
    let at = |times: &[Duration], percent| ms(percentile(times, percent));
    let all = "event, parse and socket";
    let row = |what: &str, ours, beside, floor| Row {
        what: what.to_owned(),
        unit: "ms",
        ours,
        beside,
        floor,
    };
    Ok(vec![
        row(
            "write of 50 KB to an answer that has it, p50",
            at(&answers, 50),
            all,
            at(&events, 50) + parse + at(&quiet.1, 50),
        ),
        row("the same, p95", at(&answers, 95), all, at(&events, 95) + parse + at(&quiet.1, 95)),
        row(
            "question about one file, quiet tree, p50",
            at(&quiet.0, 50),
            "socket",
            at(&quiet.1, 50),
        ),
        row("the same, p95", at(&quiet.0, 95), "socket", at(&quiet.1, 95)),
        row(
            "question about a directory of 20, quiet tree, p50",
            at(&many.0, 50),
            "socket",
            at(&many.1, 50),
        ),
        row("the same, p95", at(&many.0, 95), "socket", at(&many.1, 95)),
        row(
            "question about one file, four clients' load, p50",
            at(&loaded.0, 50),
            "socket",
            at(&loaded.1, 50),
        ),
        row("the same, p95", at(&loaded.0, 95), "socket", at(&loaded.1, 95)),
    ])
}

/// What a question about a small file or directory takes, and what a request that looks at no file
/// does.
fn barrier(
    client: &mut Client,
    root: &Path,
    about: &str,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut asked, mut socket) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        ask(client, root, &[about])?;
        asked.push(began.elapsed());
        let began = Instant::now();
        let _health: serde_json::Value = client.call(method::HEALTH, &HealthParams::default())?;
        socket.push(began.elapsed());
    }
    Ok((asked, socket))
}

/// Does something while clients ask about the whole tree.
fn under_load<R>(house: &House, root: &Path, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut client = house.client()?;
                    while !over.load(Ordering::Relaxed) {
                        ask(&mut client, root, &[])?;
                    }
                    Ok(())
                })
            })
            .collect();
        let done = work();
        over.store(true, Ordering::Relaxed);
        for client in asking {
            client.join().ok().context("a client panicked")??;
        }
        done
    })
}

/// From the end of a checkout to an answer about the whole tree.
fn checkout(ours: &Path, limit: &Path) -> Result<Row> {
    let tree = Tree::new(CHANGED * 2, 100)?;
    let git = |arguments: &[&str]| -> Result<()> {
        let output = Command::new("git")
            .args(["-c", "user.name=bench", "-c", "user.email=bench@localhost"])
            .args(arguments)
            .current_dir(&tree.root)
            .env("HOME", tree.root.join(".git"))
            .output()?;
        ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    git(&["init", "--quiet", "--initial-branch=a"])?;
    git(&["add", "--all"])?;
    git(&["commit", "--quiet", "--message=a"])?;
    git(&["checkout", "--quiet", "-b", "b"])?;
    let changed = tempfile::tempdir()?;
    for n in 0..CHANGED {
        let (path, text) = (tree.path(n * 2), text(n + 1_000_000));
        fs::write(path, &text)?;
        fs::write(changed.path().join(format!("f{n}.js")), text)?;
    }
    git(&["commit", "--quiet", "--all", "--message=b"])?;
    let house = House::start(ours)?;
    house.open(&tree.root)?;
    let mut client = house.client()?;
    let (mut answers, mut parses) = (Vec::new(), Vec::new());
    for n in 0..CHECKOUTS {
        // What was parsed is known by its content: new commits, so that it has to be parsed again.
        let branch = if n % 2 == 0 { "a" } else { "b" };
        git(&["checkout", "--quiet", branch])?;
        for at in 0..CHANGED {
            fs::write(tree.path(at * 2), text(at + CHANGED * (n + 2)))?;
        }
        git(&["commit", "--quiet", "--all", "--message=next"])?;
        git(&["checkout", "--quiet", "HEAD~1"])?;
        ask(&mut client, &tree.root, &[])?;
        pause(Duration::from_secs(1));
        git(&["checkout", "--quiet", branch])?;
        let done = Instant::now();
        ask(&mut client, &tree.root, &[])?;
        answers.push(done.elapsed());
        parses.push(parse(limit, changed.path())?);
    }
    Ok(Row {
        what: format!("`git checkout` that changes {CHANGED} files to an answer about all, p50"),
        unit: "ms",
        ours: ms(percentile(&answers, 50)),
        beside: "parse of those alone",
        floor: ms(percentile(&parses, 50)),
    })
}

/// Processor time while nobody asks and nothing changes.
fn idle(ours: &Path) -> Result<Row> {
    let share = |n_files, n_directories| -> Result<f64> {
        let tree = Tree::new(n_files, n_directories)?;
        let house = House::start(ours)?;
        house.open(&tree.root)?;
        // What follows indexing is no rest yet.
        pause(Duration::from_secs(5));
        let cpu = || -> Result<f64> {
            Ok(cpu_seconds(&fs::read_to_string(format!("/proc/{}/stat", house.pid()))?, OWN_TICKS))
        };
        let before = cpu()?;
        pause(IDLE);
        Ok((cpu()? - before) / IDLE.as_secs_f64() * 100.0)
    };
    Ok(Row {
        what: format!(
            "idle for {} s, {IDLE_FILES} files in {} directories",
            IDLE.as_secs(),
            IDLE_FILES / 100
        ),
        unit: "% of a core",
        ours: share(IDLE_FILES, IDLE_FILES / 100)?,
        beside: "one file",
        floor: share(1, 1)?,
    })
}

/// Anonymous memory for the same files in more directories.
fn memory(ours: &Path) -> Result<Row> {
    let held = |n_directories| -> Result<f64> {
        let tree = Tree::new(DIRECTORIES, n_directories)?;
        let house = House::start(ours)?;
        house.open(&tree.root)?;
        let kib = house.rested(None)?.anon_kib;
        Ok(f64::from(u32::try_from(kib)?) * 1024.0)
    };
    let (few, many) = (held(20)?, held(DIRECTORIES)?);
    let directories = f64::from(u32::try_from(DIRECTORIES - 20)?);
    Ok(Row {
        what: format!("memory of a watched directory, one of {DIRECTORIES}"),
        unit: "B",
        ours: (many - few).max(0.0) / directories,
        beside: "a file and its tree",
        floor: few / f64::from(u32::try_from(DIRECTORIES)?),
    })
}

/// Anonymous memory after many edits, beside what is held.
fn memory_after_edits(ours: &Path) -> Result<Row> {
    let mut random = Random::new(1);
    let mut any_text =
        |n| text_of(n, EDITED_BYTES_MIN + random.below(EDITED_BYTES_MAX - EDITED_BYTES_MIN));
    let tree = Tree::new(0, 20)?;
    for n in 0..EDITED_FILES {
        fs::write(tree.path(n), any_text(n))?;
    }
    let house = House::start(ours)?;
    house.open(&tree.root)?;
    let mut client = house.client()?;
    for n in 0..EDITS {
        for which in 0..3 {
            // 7 and 500 have no common divisor: each file has its turn.
            fs::write(tree.path((n * 3 + which) * 7 % EDITED_FILES), any_text(n))?;
        }
        ask(&mut client, &tree.root, &["."])?;
    }
    let resources = house.rested(None)?;
    let mib = |kib: u64| Ok::<_, anyhow::Error>(f64::from(u32::try_from(kib)?) / 1024.0);
    Ok(Row {
        what: format!("memory after {} edits of {EDITED_FILES} files", EDITS * 3),
        unit: "MiB",
        ours: mib(resources.anon_kib)?,
        beside: "text, trees, indexes and caches",
        floor: mib(resources.held_kib)?,
    })
}

/// Made-up files, and a directory of version control that makes their directory a root.
struct Tree {
    root: PathBuf,
    n_directories: usize,
    _dir: TempDir,
}

impl Tree {
    fn new(n_files: usize, n_directories: usize) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let root = dir.path().canonicalize()?.join("root");
        let tree = Self { root, n_directories, _dir: dir };
        fs::create_dir_all(tree.root.join(".git"))?;
        for n in 0..n_directories {
            fs::create_dir(tree.root.join(format!("d{n}")))?;
        }
        for n in 0..n_files {
            fs::write(tree.path(n), text(n))?;
        }
        Ok(tree)
    }

    fn path(&self, n: usize) -> PathBuf {
        self.root.join(format!("d{}/f{n}.js", n % self.n_directories))
    }
}

fn marker(n: usize) -> String {
    format!("marker({n})")
}

fn text(n: usize) -> String {
    let lines: Vec<String> = (0..8).map(|line| format!("other({line}, \"{n}\");\n")).collect();
    format!("{}{};\n", lines.concat(), marker(n))
}

/// Another one for each number, and always as long.
fn big_text(n: usize) -> String {
    text_of(n, BIG_BYTES)
}

/// At least so many bytes, and hardly more.
fn text_of(n: usize, n_bytes: usize) -> String {
    let mut text = format!("{};\n", marker(n));
    while text.len() < n_bytes {
        let at = text.len();
        let line = format!("function f{at}(a, b) {{ return other(a + {n}, b * {at}); }}\n");
        text.push_str(&line);
    }
    text
}

/// The matches about these paths, as JSON.
fn ask(client: &mut Client, root: &Path, paths: &[&str]) -> Result<String> {
    let params = RunParams {
        selection: Selection {
            cwd: root.to_string_lossy().into_owned(),
            paths: paths.iter().map(|path| (*path).to_owned()).collect(),
            ..Selection::default()
        },
        matcher: MatcherSpec { pattern: Some("marker($A)".to_owned()), ..MatcherSpec::default() },
        language: Some("js".to_owned()),
        ..RunParams::default()
    };
    let mut matches = String::new();
    let _summary: Summary = client.call_streaming(method::RUN, &params, |event| {
        if let Event::Item(item) = event {
            item.matches.iter().for_each(|text| matches.push_str(text));
        }
        ControlFlow::Continue(())
    })?;
    Ok(matches)
}

/// What reading and parsing the files of a directory takes, and nothing else.
fn parse(limit: &Path, directory: &Path) -> Result<Duration> {
    let output = Command::new(limit).arg(directory).output()?;
    let line = String::from_utf8(output.stdout)?;
    let seconds = line.split_whitespace().nth(2).context("limit prints three fields")?;
    Ok(Duration::from_secs_f64(seconds.parse()?))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
