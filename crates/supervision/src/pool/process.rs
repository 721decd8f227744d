//! A worker whose work is done by a process: what can't be stopped in a thread can be killed here.
//!
//! For code that may loop for ever, overflow its stack or take all memory, such as a grammar's
//! scanner. Nothing that happens in the process reaches this one; the price is that requests and
//! replies are bytes that go through pipes.

use super::Worker;
use super::frame::{self, FrameError};
use super::owned::{OwnedProcess, ProcessEnd};
use crate::{CallError, Ctx, Exit, Init, Mailbox, Reply, Service, later};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};

/// A process to be run as a worker.
///
/// It reads requests from its stdin and writes one reply to each to its stdout, in order. Both are
/// a length of four bytes, the lowest first, and so many bytes. It ends when its stdin does. What
/// it writes to stderr is told with its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// The program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables in addition to those of this process.
    pub env: Vec<(OsString, OsString)>,
    /// Bytes of address space that it may have (`RLIMIT_AS`): an allocation beyond it fails.
    /// Threads and mapped files count too, so this is several times what the program needs.
    pub memory_bytes: Option<u64>,
    /// Seconds of processor time that it may use in its life (`RLIMIT_CPU`); then it is killed by
    /// SIGXCPU, and the pool replaces it.
    pub cpu_seconds: Option<u64>,
    /// Bytes that a request or a reply may have.
    pub max_frame_bytes: u32,
}

/// A service that owns a process and passes requests on to it, one at a time.
///
/// It ends, with [`Exit::Failed`], when the process does, when that doesn't reply by a request's
/// deadline (and is killed), or when it doesn't keep to the protocol; a pool then replaces both.
/// On Unix it leads a group of its own, and what it has started is killed with it. Limits are set
/// between the start of the process and the first request. They exist on Linux
/// only; elsewhere a spec that has any doesn't start.
///
/// ```
/// use astscope_supervision::{Order, Pool, PoolConfig, Process, ProcessSpec, Strategy, SupervisorSpec};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let echo = ProcessSpec {
///     program: "cat".into(),
///     args: Vec::new(),
///     env: Vec::new(),
///     memory_bytes: None,
///     cpu_seconds: None,
///     max_frame_bytes: 1024,
/// };
/// let config =
///     PoolConfig { size: 1, max_overflow: 0, queue: 16, order: Order::Lifo, deaths: None };
/// let (processes, pool) = Pool::new::<Process>("echoes", config, echo)?;
/// let root = SupervisorSpec::new(Strategy::OneForOne).child(processes).start("root").await?;
///
/// let within = Duration::from_secs(10);
/// let reply =
///     pool.run(within, async |worker| worker.request(within, b"hello".to_vec()).await).await??;
/// assert_eq!(reply, b"hello");
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Process {
    spec: ProcessSpec,
    owned: OwnedProcess,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A request to a process.
#[derive(Debug)]
pub struct ProcessRequest {
    /// What is sent, without its length.
    pub bytes: Vec<u8>,
    /// When the process is killed if it hasn't replied.
    pub deadline: Instant,
    /// Where its reply goes.
    pub reply: Reply<Result<Vec<u8>, ProcessError>>,
}

/// Why a request to a process has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The request is larger than it may be. It wasn't sent.
    #[error("a request of {n} bytes is larger than the {max} that it may have")]
    TooLarge {
        /// Its bytes.
        n: usize,
        /// What it may have.
        max: u32,
    },
    /// There was no reply by the deadline. The process is killed, if it had the request.
    #[error("the process didn't reply in time")]
    Timeout,
    /// The process ended, or was stopped.
    #[error("the process ended without a reply: {0}")]
    Died(Exit),
    /// The worker wasn't reached, or ended.
    #[error("the process wasn't asked, or ended without a reply")]
    Call(#[source] CallError),
}

impl Worker<ProcessRequest> {
    /// Sends a request to the process and waits for its reply. A process that hasn't replied
    /// `within` this time is killed.
    ///
    /// # Cancel safety
    /// When the future is dropped the process goes on with the request until its deadline, and its
    /// reply is discarded.
    pub async fn request(&self, within: Duration, bytes: Vec<u8>) -> Result<Vec<u8>, ProcessError> {
        let deadline = later(Instant::now(), within);
        let request = |reply| ProcessRequest { bytes, deadline, reply };
        match self.call(within, request).await {
            Ok(reply) => reply,
            Err(CallError::Timeout) => Err(ProcessError::Timeout),
            Err(error) => Err(ProcessError::Call(error)),
        }
    }
}

impl Service for Process {
    type Args = ProcessSpec;
    type Message = ProcessRequest;

    async fn init(spec: ProcessSpec, _: &Ctx) -> Result<Init<Self>, Exit> {
        let mut command = Command::new(&spec.program);
        command.args(&spec.args).envs(spec.env.iter().map(|(name, value)| (name, value)));
        let name = spec.program.display();
        let (owned, stdin, stdout) = OwnedProcess::start(&mut command)
            .map_err(|error| Exit::failed(format!("`{name}` can't be run: {error}")))?;
        limit(owned.id(), &spec)
            .map_err(|error| Exit::failed(format!("`{name}` can't be limited: {error}")))?;
        Ok(Init::Ready(Self { spec, owned, stdin, stdout: BufReader::new(stdout) }))
    }

    async fn run(mut self, mut mailbox: Mailbox<ProcessRequest>, ctx: Ctx) -> Result<(), Exit> {
        let Self { spec, owned, stdin, stdout } = &mut self;
        let mut asked = None;
        let end = serve(spec, owned, (stdin, stdout), &mut mailbox, &ctx, &mut asked).await;
        let Self { spec, owned, stdin, stdout } = self;
        let result = owned
            .finish(end, (stdin, stdout))
            .await
            .map_err(|lost| Exit::failed(format!("`{}` {}", spec.program.display(), lost.why)));
        if let Some(reply) = asked {
            reply.send(Err(ProcessError::Died(match &result {
                Ok(()) => Exit::Shutdown,
                Err(exit) => exit.clone(),
            })));
        }
        result
    }
}

/// Passes requests on for as long as that works. The port of the one that it was at is left in
/// `asked`.
async fn serve(
    spec: &ProcessSpec,
    process: &mut OwnedProcess,
    (stdin, stdout): (&mut ChildStdin, &mut BufReader<ChildStdout>),
    mailbox: &mut Mailbox<ProcessRequest>,
    ctx: &Ctx,
    asked: &mut Option<Reply<Result<Vec<u8>, ProcessError>>>,
) -> ProcessEnd {
    let max = spec.max_frame_bytes;
    loop {
        let ProcessRequest { bytes, deadline, reply } = tokio::select! {
            biased;
            status = process.wait() => return ProcessEnd::Exited(status),
            unasked = stdout.fill_buf() => return match unasked {
                Ok(bytes) if !bytes.is_empty() => {
                    ProcessEnd::Faulty("it wrote something without being asked".to_owned())
                }
                Ok(_) | Err(_) => ProcessEnd::Closed,
            },
            request = mailbox.recv() => match request {
                Some(request) => request,
                None => return ProcessEnd::Stopped,
            },
        };
        if u32::try_from(bytes.len()).map_or(true, |n| n > max) {
            reply.send(Err(ProcessError::TooLarge { n: bytes.len(), max }));
            continue;
        }
        if reply.is_abandoned() || Instant::now() >= deadline {
            reply.send(Err(ProcessError::Timeout));
            continue;
        }
        *asked = Some(reply);
        // Both at once: a process that begins to reply while it reads must not wait for us.
        let exchange =
            async { tokio::try_join!(frame::write(stdin, &bytes), frame::read(stdout, max)) };
        let answer = tokio::select! {
            biased;
            answer = timeout_at(deadline, exchange) => answer,
            never = process.listen() => match never {},
            () = ctx.stopping() => return ProcessEnd::Stopped,
        };
        match answer {
            Ok(Ok(((), answer))) => {
                if let Some(reply) = asked.take() {
                    reply.send(Ok(answer));
                }
            }
            Ok(Err(FrameError::Io(_))) => return ProcessEnd::Closed,
            Ok(Err(error @ FrameError::TooLarge { .. })) => {
                return ProcessEnd::Faulty(error.to_string());
            }
            Err(_) => return ProcessEnd::Faulty("it didn't reply in time".to_owned()),
        }
    }
}

/// Sets the limits of a process that has only just begun.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn limit(id: Option<u32>, spec: &ProcessSpec) -> std::io::Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = id.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Err(std::io::ErrorKind::NotFound.into()) };
    if let Some(bytes) = spec.memory_bytes {
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        prlimit(Some(pid), Resource::As, limit)?;
    }
    if let Some(seconds) = spec.cpu_seconds {
        // The lower one is SIGXCPU, which says what happened; the upper one SIGKILL.
        let maximum = Some(seconds.saturating_add(1));
        prlimit(Some(pid), Resource::Cpu, Rlimit { current: Some(seconds), maximum })?;
    }
    Ok(())
}

/// Refuses limits, because there is no safe way to set them.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn limit(_: Option<u32>, spec: &ProcessSpec) -> std::io::Result<()> {
    if spec.memory_bytes.is_some() || spec.cpu_seconds.is_some() {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    Ok(())
}
