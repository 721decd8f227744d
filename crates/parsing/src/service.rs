//! Parsing in processes that may be lost: a pool of them, and the [`Backend`](crate::Backend) that
//! files go through.
//!
//! ```text
//! thread of a caller ── parse_batch ──► Pool ──► ProcessService ──pipes──► worker::serve
//!   decodes, judges what came back       lends      one process; deadlines;  another process
//!   blames, quarantines, sends again                kills, says how it died
//! ```
//!
//! What a process may do to whoever owns it is: answer, or not. Its answers are checked as hostile
//! input, and each file has a time. Whatever else happens to it costs the file that it was at,
//! never the others of the batch (`docs/decisions/0012-parsing-in-worker-processes.md`).
//!
//! Each workspace has services of its own before that (`subtree`), whose handle is a `Backend` too.

mod desk;
mod dispatch;
mod handle;
mod mapper;
mod process;
mod quarantine;
mod subtree;

pub use desk::ParsingCounts;
pub use dispatch::ParserHandle;
pub use handle::{MapError, ParsingHandle};
pub use quarantine::{QuarantineStatus, Quarantined};
pub use subtree::{ParsingConfig, ParsingDeps, subtree};

use crate::worker::Restrictions;
use astscope_supervision::{ChildSpec, Order, Pool, PoolConfig, PoolConfigError, PoolStatus};
use dispatch::Shared;
use process::{ProcessArgs, ProcessService};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// How parser processes are run.
#[derive(Clone, Debug)]
pub struct ParserConfig {
    /// The program that calls [`worker::serve_stdio`](crate::worker::serve_stdio): this one, as a
    /// rule, so that both ends are of one build.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// All of its environment, but for what this crate adds: it needs none.
    pub env: Vec<(OsString, OsString)>,
    /// Processes that are always there; at least 1. One a core, and 4 at most: each holds some
    /// megabytes, and queries want cores too.
    pub n_workers: usize,
    /// Processes beyond those while callers wait. 2, where there are cores for them.
    pub n_overflow: usize,
    /// Batches that may wait for a process; one more is told that there is none. 1024: far more
    /// than there are threads that ask.
    pub queue_max: usize,
    /// How long a batch may wait for a process. A minute, in which each process gives up on a file
    /// once: longer means that none comes back.
    pub queue_time_max: Duration,
    /// Bytes of address space of one process: an allocation beyond is the end of it, and of one
    /// file. 6 GiB: the program, its stack, what an allocator reserves and doesn't use (mimalloc a
    /// gibibyte), and four for the 30 bytes that tree-sitter takes for each byte of a large file.
    pub memory_bytes_max: u64,
    /// Time beyond [`Limits::time_max`](crate::Limits::time_max) after which a process that doesn't
    /// answer is killed. It stops by itself at that limit, if it can: 5 s is enough for that on a
    /// busy machine.
    pub kill_after: Duration,
    /// How long a process may take from its start to its greeting. 10 s, on a busy machine.
    pub start_time_max: Duration,
    /// Where files that cost a parser are remembered; `None` for as long as this process lives only.
    pub quarantine_dir: Option<PathBuf>,
    /// Files that are remembered, some hundred bytes each; the oldest are forgotten first. 4096: who
    /// has more has another problem.
    pub quarantine_max: usize,
}

impl ParserConfig {
    /// The defaults, for this very program with other arguments: also when its file has been
    /// replaced since it was started, where the kernel knows it by another name.
    ///
    /// # Errors
    /// When nobody knows where it is.
    pub fn this_program(args: impl IntoIterator<Item = OsString>) -> io::Result<Self> {
        let running = Path::new("/proc/self/exe");
        let program = if running.exists() { running.to_owned() } else { std::env::current_exe()? };
        Ok(Self::new(program, args))
    }

    /// The defaults, for a program and its arguments.
    pub fn new(program: impl Into<PathBuf>, args: impl IntoIterator<Item = OsString>) -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let n_workers = n_cores.min(4);
        Self {
            program: program.into(),
            args: args.into_iter().collect(),
            env: Vec::new(),
            n_workers,
            n_overflow: (n_cores - n_workers).min(2),
            queue_max: 1024,
            queue_time_max: Duration::from_mins(1),
            memory_bytes_max: 6 << 30,
            kill_after: Duration::from_secs(5),
            start_time_max: Duration::from_secs(10),
            quarantine_dir: None,
            quarantine_max: 4096,
        }
    }
}

/// The parsers at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParserStatus {
    /// The pool of processes; `None` while it isn't up.
    pub pool: Option<PoolStatus>,
    /// What the process that was greeted last has taken from itself; `None` if none was.
    pub restrictions: Option<Restrictions>,
    /// Processes that were lost with a file, which was blamed for it.
    pub n_lost: u64,
    /// Files that aren't tried again.
    pub quarantine: QuarantineStatus,
}

/// What goes into the tree, and the handle that is valid before the first start and across all
/// restarts. `runtime` is the one that the tree runs on, by which threads wait for its answers.
///
/// # Errors
/// When the pool can't be built as configured.
pub fn supervisor(
    config: ParserConfig,
    runtime: Handle,
) -> Result<(ChildSpec, ParserHandle), PoolConfigError> {
    let pool = PoolConfig {
        size: config.n_workers,
        max_overflow: config.n_overflow,
        queue: config.queue_max,
        order: Order::Lifo,
        // The files are at fault, not the pool.
        deaths: None,
    };
    let shared = Arc::new(Shared::new(&config));
    let start_time_max = config.start_time_max;
    let args = ProcessArgs { config: Arc::new(config), shared: Arc::clone(&shared) };
    let (spec, pool) = Pool::from_template("parsers", pool, move |address| {
        ChildSpec::service::<ProcessService>(&address, args.clone()).start_timeout(start_time_max)
    })?;
    Ok((spec, ParserHandle::new(pool, shared, runtime)))
}
