//! From the lock to the last answer: how the daemon starts, idles and leaves.
//!
//! There is one daemon per user: whoever holds the lock file. The lock goes with the process,
//! however it ends, so a socket that is found while the lock can be had is stale and is removed.

use crate::spawn;
use crate::workspaces::Workspaces;
use crate::{connection, handlers, memory};
use astscope_protocol::messages::{Peer, StopParams};
use astscope_protocol::{RuntimeDir, RuntimeDirError};
use rayon::ThreadPool;
use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Clients at the same time. Editors, CI jobs and agents of one user come nowhere near.
const CLIENTS_MAX: u32 = 256;

/// How long a daemon that leaves waits for clients to read their last answers.
const LAST_ANSWERS_WAIT: Duration = Duration::from_secs(2);

/// How long a new daemon waits for one that is finishing its last requests.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(8);
/// How often it looks whether yet another one has come first.
const SOCKET_LOOK_EVERY: Duration = Duration::from_millis(20);

/// How the daemon runs.
#[derive(Debug)]
pub struct DaemonConfig {
    /// Where the socket and the lock are.
    pub runtime_dir: RuntimeDir,
    /// Directories to open at once, resolved or not. Being named makes any directory acceptable.
    pub roots: Vec<PathBuf>,
    /// Leave after this long without clients or work; `None` for never.
    pub idle_exit: Option<Duration>,
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
}

/// What the daemon is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Takes requests.
    Running,
    /// Finishes the requests in flight, takes no more.
    Draining,
    /// Leaves.
    Stopping,
}

/// Everything that connections share.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) workspaces: Workspaces,
    /// Prunes, matches, and parses what a query waits for. Crawls have a pool of their own, so that
    /// no query waits behind one.
    pub(crate) pool: Arc<ThreadPool>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) socket: PathBuf,
    pub(crate) idle_exit: Option<Duration>,
    pub(crate) started: Instant,
    /// Open connections.
    pub(crate) clients: watch::Sender<u32>,
    version: String,
    /// Requests and crawls under way.
    busy: watch::Sender<u32>,
    /// Milliseconds after `started` of the last sign of life.
    last_activity_ms: AtomicU64,
}

/// A request or crawl under way, while it lives.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Daemon>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.busy.send_modify(|busy| *busy -= 1);
    }
}

impl Daemon {
    /// Who answers.
    pub(crate) fn peer(&self) -> Peer {
        Peer { name: "astscope".to_owned(), version: self.version.clone() }
    }

    /// Notes a sign of life, for the idle exit.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_activity_ms.fetch_max(now, Ordering::Relaxed);
    }

    /// Counts a piece of work until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.touch();
        self.busy.send_modify(|busy| *busy += 1);
        Busy(Arc::clone(self))
    }

    /// Begins to leave.
    pub(crate) fn stop(&self, params: &StopParams) {
        let phase = if params.drain { Phase::Draining } else { Phase::Stopping };
        self.phase.send_if_modified(|now| {
            let later = *now < phase;
            *now = phase.max(*now);
            later
        });
    }

    fn idle_for(&self) -> Duration {
        let last = Duration::from_millis(self.last_activity_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }

    fn is_idle(&self) -> bool {
        *self.clients.borrow() == 0 && *self.busy.borrow() == 0
    }
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
    let runtime = spawn::runtime().map_err(ServeError::Threads)?;
    let served = runtime.block_on(run(config, ready));
    // Requests in flight see that they are cancelled; none is waited for.
    runtime.shutdown_background();
    served
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
            let locked = spawn::locked(file);
            while !runtime_dir.socket().exists() && Instant::now() < deadline {
                if let Ok(locked) = locked.recv_timeout(SOCKET_LOOK_EVERY) {
                    return locked.map_err(|source| ServeError::Lock { path, source });
                }
            }
            Err(ServeError::AlreadyRunning { lock: path })
        }
        Err(TryLockError::Error(source)) => Err(ServeError::Lock { path, source }),
    }
}

async fn run(config: DaemonConfig, ready: impl FnOnce()) -> Result<(), ServeError> {
    let pool =
        spawn::pool("match").map_err(|error| ServeError::Threads(io::Error::other(error)))?;
    let socket = config.runtime_dir.socket();
    let daemon = Arc::new(Daemon {
        workspaces: Workspaces::default(),
        pool: Arc::new(pool),
        phase: watch::Sender::new(Phase::Running),
        socket: socket.clone(),
        idle_exit: config.idle_exit,
        started: Instant::now(),
        clients: watch::Sender::new(0),
        version: config.version,
        busy: watch::Sender::new(0),
        last_activity_ms: AtomicU64::new(0),
    });
    for path in config.roots {
        handlers::open_explicit(&daemon, &path)
            .map_err(|reason| ServeError::Root { path: path.clone(), reason })?;
    }
    let listener =
        listen(&socket).map_err(|source| ServeError::Listen { path: socket.clone(), source })?;
    spawn::task(leave_on_signal(Arc::clone(&daemon)));
    if let Some(idle) = config.idle_exit {
        spawn::task(leave_when_idle(Arc::clone(&daemon), idle));
    }
    ready();
    accept_while_running(&daemon, &listener).await;
    // From here on a new client finds no socket and starts a daemon of its own, which waits for
    // the lock while this one finishes.
    drop(listener);
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::warn!(%error, "cannot remove the socket");
    }
    drain(&daemon).await;
    Ok(())
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

async fn accept_while_running(daemon: &Arc<Daemon>, listener: &UnixListener) {
    let mut phase = daemon.phase.subscribe();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(daemon, stream),
                Err(error) => {
                    // Out of file descriptors, as a rule: the next client may find some.
                    tracing::warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
        }
    }
}

/// Waits for what is in flight, unless it is to stop at once, and for the last answers to be read.
async fn drain(daemon: &Daemon) {
    let mut phase = daemon.phase.subscribe();
    let mut busy = daemon.busy.subscribe();
    tokio::select! {
        _ = busy.wait_for(|busy| *busy == 0) => {}
        _ = phase.wait_for(|phase| *phase == Phase::Stopping) => {}
    }
    daemon.stop(&StopParams { drain: false });
    // Connections close themselves now, each when its last answer is written.
    let mut clients = daemon.clients.subscribe();
    let closed = clients.wait_for(|clients| *clients == 0);
    if tokio::time::timeout(LAST_ANSWERS_WAIT, closed).await.is_err() {
        tracing::warn!("left clients that do not read their answers");
    }
}

fn admit(daemon: &Arc<Daemon>, stream: UnixStream) {
    let own = rustix::process::geteuid().as_raw();
    let peer = stream.peer_cred().map(|credentials| credentials.uid());
    if !peer.is_ok_and(|uid| uid == own || uid == 0) {
        tracing::warn!("refused a connection of another user");
        return;
    }
    let daemon = Arc::clone(daemon);
    if *daemon.clients.borrow() >= CLIENTS_MAX {
        tracing::warn!(limit = CLIENTS_MAX, "refused a connection: too many clients");
        return;
    }
    daemon.clients.send_modify(|clients| *clients += 1);
    daemon.touch();
    spawn::task(async move {
        connection::serve(Arc::clone(&daemon), stream).await;
        daemon.clients.send_modify(|clients| *clients -= 1);
        daemon.touch();
    });
}

/// First signal: finish what is in flight. Second: leave at once.
async fn leave_on_signal(daemon: Arc<Daemon>) {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("cannot listen for signals");
        return;
    };
    for drain in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        daemon.stop(&StopParams { drain });
    }
}

async fn leave_when_idle(daemon: Arc<Daemon>, limit: Duration) {
    loop {
        let left = limit.saturating_sub(daemon.idle_for());
        if left.is_zero() && daemon.is_idle() {
            tracing::info!("leaving after {limit:?} without a client");
            return daemon.stop(&StopParams { drain: true });
        }
        // While somebody is connected the clock starts again with each sign of life.
        // A limit of nothing must not become a loop without rest.
        tokio::time::sleep(left.max(limit / 10).max(Duration::from_millis(10))).await;
    }
}
