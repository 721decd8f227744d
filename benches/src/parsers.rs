//! What it costs to parse in processes that may be lost: throughput beside that of this process, on
//! the same texts, by as many threads.
//!
//! Expectation, on the back of an envelope: a node is parsed and converted in half a microsecond.
//! In a worker it is also encoded and decoded, some ten nanoseconds each, and its text and its six
//! bytes go through a pipe at a gigabyte a second, which is ten nanoseconds more: 5 to 7 %.
//!
//! Prints a line for each figure, tab-separated: what, unit, ours, bare. `cargo xtask bench --parsers
//! --corpus NAME=DIR` runs this and writes the table.
#![expect(clippy::print_stdout, reason = "its output is the report")]

use astscope_parsing::service::{ParserConfig, supervisor};
use astscope_parsing::{Backend, InProcess, Limits, Source, admit, worker};
use astscope_repository::Repository;
use astscope_supervision::{Strategy, SupervisorSpec};
use astscope_synchronization::Synchronizer;
use astscope_syntax::Language;
use rayon::ThreadPool;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// Asks for the other end of the pipes.
const WORKER: &str = "--worker";
/// As `synchronization` takes them from its queue.
const BATCH_BYTES: usize = 256 << 10;

fn main() -> Result<(), Failure> {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    if args.first().is_some_and(|arg| arg == WORKER) {
        return Ok(worker::serve_stdio(|| {})?);
    }
    let [name, dir, rounds] = &args[..] else {
        return Err("usage: parsers NAME DIR ROUNDS".into());
    };
    let (name, dir) = (name.to_string_lossy(), Path::new(dir).canonicalize()?);
    let rounds: usize = rounds.to_string_lossy().parse()?;

    let threads = Arc::new(rayon::ThreadPoolBuilder::new().build()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let config = ParserConfig::this_program([WORKER.into()])?;
    let (spec, parsers) = supervisor(config, runtime.handle().clone())?;
    let tree = SupervisorSpec::new(Strategy::OneForOne).child(spec);
    let root = runtime.block_on(tree.start("bench"))?;
    let backends: [Arc<dyn Backend>; 2] = [Arc::new(parsers.clone()), Arc::new(InProcess)];

    let batches = batches(&dir);
    let bytes: usize = batches.iter().flatten().map(|source| source.text.len()).sum();
    let texts = |backend: &Arc<dyn Backend>| parse_all(&threads, &**backend, &batches);
    figure(&format!("{name}: texts that were read before"), bytes, rounds, &backends, texts)?;
    let crawl = |backend: &Arc<dyn Backend>| crawl(&threads, backend, &dir);
    figure(&format!("{name}: a crawl"), bytes, rounds, &backends, crawl)?;
    if parsers.status().n_lost > 0 {
        return Err(format!("parsers were lost: {:?}", parsers.quarantined()).into());
    }
    runtime.block_on(root.shutdown());
    Ok(())
}

/// The files of a tree, the largest first, small ones together.
fn batches(dir: &Path) -> Vec<Vec<Source>> {
    let files = ignore::WalkBuilder::new(dir).build().flatten();
    let mut sources: Vec<Source> = files
        .filter_map(|entry| {
            let language = Language::from_path(entry.path())?;
            let text = admit(std::fs::read(entry.path()).ok()?, &Limits::DAEMON).ok()?;
            Some(Source::new(text, language))
        })
        .collect();
    sources.sort_by_key(|source| std::cmp::Reverse(source.text.len()));
    let mut batches: Vec<Vec<Source>> = Vec::new();
    let mut bytes = BATCH_BYTES;
    for source in sources {
        if bytes + source.text.len() > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += source.text.len();
        if let Some(batch) = batches.last_mut() {
            batch.push(source);
        }
    }
    batches
}

/// Returns how many files have a tree.
fn parse_all(threads: &ThreadPool, backend: &dyn Backend, batches: &[Vec<Source>]) -> usize {
    let (next, n_parsed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
            let results = backend.parse_batch(batch, &Limits::DAEMON, &|| false);
            let n = results.iter().filter(|result| result.is_ok()).count();
            n_parsed.fetch_add(n, Ordering::Relaxed);
        }
    };
    threads.scope(|scope| {
        (0..threads.current_num_threads()).for_each(|_| scope.spawn(|_| work()));
    });
    n_parsed.into_inner()
}

/// The same, from the disk into a repository.
fn crawl(threads: &Arc<ThreadPool>, backend: &Arc<dyn Backend>, dir: &Path) -> usize {
    let repository = Arc::new(Repository::new(1));
    let synchronizer = Synchronizer::new(repository, dir.to_owned(), Arc::clone(threads))
        .with_backend(Arc::clone(backend));
    let summary = synchronizer.crawl(&|| false, &|_, _| {}).unwrap_or_default();
    summary.files - summary.skipped
}

/// What one run took.
struct Took {
    seconds: f64,
    /// Of processor time, of this process and those that it has started.
    cpu_seconds: f64,
}

/// Megabytes a second of each, on the clock and of processor time, in turn; the medians count. On a
/// machine that is shared, the second says more.
fn figure(
    what: &str,
    bytes: usize,
    rounds: usize,
    backends: &[Arc<dyn Backend>; 2],
    run: impl Fn(&Arc<dyn Backend>) -> usize,
) -> Result<(), Failure> {
    let mut took = [Vec::new(), Vec::new()];
    let mut n_files = Vec::new();
    // The first round only warms up.
    for round in 0..=rounds {
        for (side, backend) in backends.iter().enumerate() {
            let (start, cpu_before) = (Instant::now(), cpu_seconds()?);
            n_files.push(run(backend));
            let seconds = start.elapsed().as_secs_f64();
            if round > 0 {
                took[side].push(Took { seconds, cpu_seconds: cpu_seconds()? - cpu_before });
            }
        }
    }
    if n_files.iter().any(|n| *n != n_files[0]) {
        return Err(format!("{what}: unequal numbers of files: {n_files:?}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let megabytes = bytes as f64 / 1e6;
    let print = |unit: &str, of: fn(&Took) -> f64| {
        let [ours, bare] = [0, 1].map(|side| megabytes / median(took[side].iter().map(of)));
        println!("{what}, {} files\t{unit}\t{ours:.2}\t{bare:.2}", n_files[0]);
    };
    print("MB/s", |took| took.seconds);
    print("MB per CPU s", |took| took.cpu_seconds);
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Processor time of this process and of those that it has started and not lost.
fn cpu_seconds() -> Result<f64, Failure> {
    let mut stats = vec![std::fs::read_to_string("/proc/self/stat")?];
    for thread in std::fs::read_dir("/proc/self/task")? {
        let children = std::fs::read_to_string(thread?.path().join("children"))?;
        for child in children.split_whitespace() {
            stats.push(std::fs::read_to_string(format!("/proc/{child}/stat"))?);
        }
    }
    // The user's and the kernel's ticks, a hundredth of a second each, behind the name.
    let ticks = |stat: &String| -> f64 {
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let fields = behind.split_whitespace().skip(11).take(2);
        fields.filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    Ok(stats.iter().map(ticks).sum::<f64>() / 100.0)
}
