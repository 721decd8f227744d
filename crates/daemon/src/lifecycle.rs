//! From the lock to the last answer: how the daemon starts and leaves.
//!
//! There is one daemon per user: whoever holds the lock file. The lock goes with the process,
//! however it ends, so a socket that is found while the lock can be had is stale and is removed.
//! What runs between the two is the tree.

use crate::daemon::{Daemon, Parts, Settings};
use crate::foundation::config::{Config, SettingsSource};
use crate::gateway::{CLIENTS_MAX, Gateway};
use crate::memory::MemorySource;
use crate::parsers::Parsers;
use crate::{cpu, memory, tree};
use astscope_parsing::service::ParserConfig;
use astscope_protocol::messages::StopParams;
use astscope_protocol::{REQUESTS_IN_FLIGHT_MAX, RuntimeDir, RuntimeDirError};
use astscope_supervision::{PoolConfigError, Root, StartError, install_panic_hook};
use astscope_synchronization::{RootError, roots};
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// Threads that wait for a request's client or work on one. Every request of every client may wait,
/// and a query that works needs one for itself and one for its files: with fewer, clients that
/// read nothing could keep the others from being served. A thread that waits costs a few pages.
const BLOCKING_THREADS_MAX: usize = CLIENTS_MAX * REQUESTS_IN_FLIGHT_MAX as usize + 512;

/// How long the whole tree may take to stop, whatever its parts may: the seed's bound.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long a new daemon waits for one that is finishing its last requests.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(8);
/// How often it looks whether that one is gone, or yet another one has come first.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process has one, however many daemons a test runs in it.
static PANIC_HOOK: Once = Once::new();

/// How the daemon runs.
#[derive(Debug)]
pub struct DaemonConfig {
    /// Where the socket and the lock are.
    pub runtime_dir: RuntimeDir,
    /// Directories to open at once, resolved or not. Being named makes any directory acceptable.
    pub roots: Vec<PathBuf>,
    /// How processes that parse are run; `None` parses in this process, where a grammar that
    /// crashes takes the daemon along.
    pub parsers: Option<ParserConfig>,
    /// Where the settings come from that may change while it runs.
    pub settings: SettingsSource,
    /// Whether clients may end nodes of the tree.
    pub allow_debug: bool,
    /// How much memory there is, and how much of it is used.
    pub memory: MemorySource,
    /// Called once no more clients are taken.
    pub leaving: fn(),
    /// Version of the program, as clients compare it.
    pub version: String,
}

/// Why the daemon did not start, or did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Another daemon of this user is running.
    #[error("a daemon is already running for this user (it holds {})", lock.display())]
    AlreadyRunning {
        /// The lock file.
        lock: PathBuf,
    },
    /// The runtime directory can't be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// The lock file can't be made.
    #[error("cannot create the lock file {}", path.display())]
    Lock {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The settings file that was named can't be used.
    #[error("cannot use the settings file {}: {reason}", path.display())]
    Settings {
        /// Its path.
        path: PathBuf,
        /// Why, with the line.
        reason: String,
    },
    /// The socket can't be made.
    #[error("cannot listen on {}", path.display())]
    Listen {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory that was named can't be opened.
    #[error("cannot open the root {}: {reason}", path.display())]
    Root {
        /// As given.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Threads or the runtime can't be had.
    #[error("cannot start threads")]
    Threads(#[source] io::Error),
    /// A service didn't start.
    #[error("cannot start the daemon's services")]
    Start(#[from] StartError),
    /// Services failed more often than their supervisors bear, and the daemon gave up.
    #[error("the daemon's services kept failing: {reason}")]
    Failed {
        /// How the tree ended.
        reason: String,
    },
}

/// Runs the daemon until it is told to leave or has been idle for long enough.
///
/// `ready` is called once clients can connect. Blocks the calling thread.
///
/// # Errors
/// When it can't start; see [`ServeError`].
pub fn serve(config: DaemonConfig, ready: impl FnOnce()) -> Result<(), ServeError> {
    config.runtime_dir.prepare()?;
    let _lock = lock(&config.runtime_dir)?;
    memory::prefer_small_pages();
    PANIC_HOOK.call_once(install_panic_hook);
    let runtime = runtime().map_err(ServeError::Threads)?;
    let served = runtime.block_on(run(config, ready));
    // A thread that didn't end although it was told to ends with the process.
    runtime.shutdown_background();
    served
}

/// The runtime of services, sockets, timers and request threads.
fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_stack_size(cpu::STACK_BYTES)
        .thread_name("astscope-io")
        .enable_all()
        .build()
}

/// Takes the lock. One that is held by a daemon without a socket is about to be free: that daemon
/// is finishing its last requests.
fn lock(runtime_dir: &RuntimeDir) -> Result<File, ServeError> {
    let path = runtime_dir.lock();
    let opened =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = opened.map_err(|source| ServeError::Lock { path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) if runtime_dir.socket().exists() => {
            Err(ServeError::AlreadyRunning { lock: path })
        }
        Err(TryLockError::WouldBlock) => {
            let deadline = Instant::now() + PREDECESSOR_WAIT;
            while !runtime_dir.socket().exists() && Instant::now() < deadline {
                match file.try_lock() {
                    Ok(()) => return Ok(file),
                    // A wait for the lock itself would have no deadline.
                    Err(TryLockError::WouldBlock) => thread::park_timeout(LOOK_EVERY),
                    Err(TryLockError::Error(source)) => {
                        return Err(ServeError::Lock { path, source });
                    }
                }
            }
            Err(ServeError::AlreadyRunning { lock: path })
        }
        Err(TryLockError::Error(source)) => Err(ServeError::Lock { path, source }),
    }
}

async fn run(config: DaemonConfig, ready: impl FnOnce()) -> Result<(), ServeError> {
    let settings = Settings {
        socket: config.runtime_dir.socket(),
        version: config.version,
        memory: config.memory,
        allow_debug: config.allow_debug,
    };
    let path = config.settings.file.clone().unwrap_or_default();
    let read = Config::new(config.settings);
    let live = read.map_err(|reason| ServeError::Settings { path, reason })?;
    let mut roots = Vec::new();
    for path in config.roots {
        let refused =
            |error: RootError| ServeError::Root { path: path.clone(), reason: error.to_string() };
        roots.push(roots::explicit(&path).map_err(refused)?);
    }
    let pool = cpu::pool("match").map_err(|error| ServeError::Threads(io::Error::other(error)))?;
    let socket = settings.socket.clone();
    let listener =
        listen(&socket).map_err(|source| ServeError::Listen { path: socket.clone(), source })?;
    let refused = |error: PoolConfigError| ServeError::Threads(io::Error::other(error));
    let parsers = Parsers::new(config.parsers).map_err(refused)?;
    let pools = tree::Pools::new().map_err(refused)?;
    let gateway = Gateway::new(listener);
    let daemon =
        Arc::new(Daemon::new(Parts { settings, config: live, gateway, pool, parsers, pools }));
    let root = match tree::spec(&daemon).start("daemon").await {
        Ok(root) => root,
        Err(error) => {
            close(&daemon);
            return Err(error.into());
        }
    };
    // Set once, here.
    let _first = daemon.root.set(root.supervisor().clone());
    for path in roots {
        let opened = daemon.workspaces.open(&daemon, path.clone()).await;
        if let Err(error) = opened {
            close(&daemon);
            stop(&root).await;
            return Err(ServeError::Root { path, reason: error.message });
        }
    }
    ready();
    let failed = tokio::select! {
        biased;
        () = daemon.leaving() => None,
        outcome = root.wait() => Some(outcome.exit),
    };
    (config.leaving)();
    // From here on a new client finds no socket and starts a daemon of its own, which waits for
    // the lock while this one finishes.
    close(&daemon);
    if let Some(exit) = failed {
        return Err(ServeError::Failed { reason: exit.to_string() });
    }
    daemon.drained().await;
    daemon.stop(&StopParams { drain: false });
    stop(&root).await;
    Ok(())
}

/// Stops the tree: gateway first, each connection when its last answer is out.
pub(crate) async fn stop(root: &Root) {
    let outcome = if let Ok(outcome) = timeout(STOP_MAX, root.shutdown()).await {
        outcome
    } else {
        tracing::warn!("the services took too long to stop");
        root.kill().await
    };
    if outcome.unkillable > 0 {
        tracing::warn!(n = outcome.unkillable, "left what didn't end");
    }
}

/// Takes no more clients.
fn close(daemon: &Daemon) {
    daemon.gateway.close();
    if let Err(error) = std::fs::remove_file(&daemon.settings.socket) {
        tracing::warn!(%error, "cannot remove the socket");
    }
}

fn listen(socket: &PathBuf) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}
