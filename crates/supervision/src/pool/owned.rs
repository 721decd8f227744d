//! A process that belongs to a service, and is gone when the service is: what [`Process`] and other
//! services that own one, with protocols of their own, have in common.
//!
//! [`Process`]: super::Process

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// How long a process may take to end when its stdin is closed, before it is killed. Less than the
/// 5 s that a worker may take to stop.
const EXIT_WITHIN: Duration = Duration::from_millis(500);
/// What is kept of stderr's beginning, and as much of its end, to be told with the end of the
/// process: what went wrong may come first and be followed by a long backtrace, or last.
const STDERR_BYTES: usize = 1024;
/// How long to wait for the rest of stderr when the process has ended. Somebody else may hold it
/// open.
const STDERR_WITHIN: Duration = Duration::from_millis(100);

/// A process, what it has started, and what it complains about.
///
/// On Unix it leads a group of its own, and what it has started is killed with it, also when this
/// is dropped. A `^C` at the terminal isn't for it.
#[derive(Debug)]
pub struct OwnedProcess {
    group: Group,
    stderr: Stderr,
}

/// Why a process is no longer served.
#[derive(Debug)]
pub enum ProcessEnd {
    /// Its service was told to stop.
    Stopped,
    /// It ended by itself.
    Exited(io::Result<ExitStatus>),
    /// It closed a pipe, and is about to end, as a rule.
    Closed,
    /// It has to be killed, because of this.
    Faulty(String),
}

/// The end of a process that wasn't told to stop.
#[derive(Debug)]
pub struct Lost {
    /// Of a process that ended by itself.
    pub status: Option<ExitStatus>,
    /// What happened, such as `ended: exit status: 3`, and its words on stderr: the first and the
    /// last.
    pub why: String,
}

impl OwnedProcess {
    /// Starts `command`, its streams being pipes, of which the caller gets two.
    ///
    /// # Errors
    /// Whatever running a program may fail with.
    pub fn start(command: &mut Command) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // A ^C at the terminal is for this process, which stops its workers in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut group = Group(command.spawn()?);
        let child = &mut group.0;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::ErrorKind::BrokenPipe.into()); // they were asked for
        };
        let stderr =
            Stderr { pipe: stderr, first: Vec::new(), last: VecDeque::new(), n_omitted: 0 };
        Ok((Self { group, stderr }, stdin, stdout))
    }

    /// Its number, until it was found to have ended.
    pub fn id(&self) -> Option<u32> {
        self.group.0.id()
    }

    /// Waits for it to end by itself, and meanwhile for its complaints.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        tokio::select! {
            biased;
            status = self.group.0.wait() => status,
            never = self.stderr.collect_for_ever() => match never {},
        }
    }

    /// Reads its complaints, for ever, so that it never has to wait: to be polled while something
    /// else is waited for.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn listen(&mut self) -> Infallible {
        self.stderr.collect_for_ever().await
    }

    /// Sees to it that it is gone. `pipes` are closed, which asks it to end, unless it has to be
    /// killed.
    ///
    /// # Errors
    /// How it was lost, unless it was stopped.
    pub async fn finish<P>(mut self, end: ProcessEnd, pipes: P) -> Result<(), Lost> {
        let fault = match end {
            ProcessEnd::Exited(status) => Ok(status),
            ProcessEnd::Closed => {
                drop(pipes);
                let ended = timeout(EXIT_WITHIN, self.group.0.wait()).await;
                ended.map_err(|_elapsed| "it closed its pipes".to_owned())
            }
            ProcessEnd::Stopped => {
                drop(pipes);
                if timeout(EXIT_WITHIN, self.group.0.wait()).await.is_err() {
                    self.group.kill().await.map_err(|error| unkillable(&error))?;
                }
                return Ok(());
            }
            ProcessEnd::Faulty(fault) => Err(fault),
        };
        let (status, what) = match fault {
            Ok(Ok(status)) => (Some(status), format!("ended: {status}")),
            Ok(Err(error)) => (None, format!("ended: {error}")),
            Err(fault) => {
                self.group.kill().await.map_err(|error| unkillable(&error))?;
                (None, format!("was killed: {fault}"))
            }
        };
        let last_words = self.stderr.last_words().await;
        Err(Lost { status, why: format!("{what}{last_words}") })
    }
}

fn unkillable(error: &io::Error) -> Lost {
    Lost { status: None, why: format!("can't be killed: {error}") }
}

/// The process, and on Unix what it has started: they are killed together, also when this is
/// dropped.
///
/// A process that ends by itself may leave others behind. They aren't looked for: once it has been
/// waited for, the number of its group may be somebody else's.
#[derive(Debug)]
struct Group(Child);

impl Group {
    async fn kill(&mut self) -> io::Result<()> {
        self.kill_others();
        self.0.kill().await
    }

    #[cfg(unix)]
    fn kill_others(&self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        let pid = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // In vain if all of them are gone already.
            let _gone = kill_process_group(pid, Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill_others(&self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill_others(); // and the process itself by `kill_on_drop`
    }
}

/// What the process complains about.
#[derive(Debug)]
struct Stderr {
    pipe: ChildStderr,
    first: Vec<u8>,
    last: VecDeque<u8>,
    /// Bytes between the two that were not kept.
    n_omitted: u64,
}

impl Stderr {
    /// Reads to the end, so that the process never has to wait.
    async fn collect(&mut self) {
        let mut buffer = [0; 512];
        while let Ok(n @ 1..) = self.pipe.read(&mut buffer).await {
            let (first, rest) = buffer[..n].split_at(n.min(STDERR_BYTES - self.first.len()));
            self.first.extend(first);
            self.last.extend(rest);
            let n_surplus = self.last.len().saturating_sub(STDERR_BYTES);
            self.last.drain(..n_surplus);
            self.n_omitted += n_surplus as u64;
        }
    }

    async fn collect_for_ever(&mut self) -> Infallible {
        self.collect().await;
        pending().await
    }

    /// The beginning and the end of what was read, for a message.
    async fn last_words(&mut self) -> String {
        // In vain if somebody else holds it open: then what there is will do.
        let _complete = timeout(STDERR_WITHIN, self.collect()).await;
        let mut text = std::mem::take(&mut self.first);
        if self.n_omitted > 0 {
            text.extend(format!("\n[{} bytes omitted]\n", self.n_omitted).bytes());
        }
        text.extend(&self.last);
        let text = String::from_utf8_lossy(&text);
        match text.trim() {
            "" => String::new(),
            text => format!("; it wrote: {text}"),
        }
    }
}
