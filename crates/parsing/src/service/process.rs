//! The service that owns one parser process: passes texts down, reports what comes up.
//!
//! It judges time and form, and says how a process came to its end. What an answer holds is judged
//! by whoever asked, on a thread of its own.

use super::ParserConfig;
use super::dispatch::Shared;
use crate::wire::{self, FRAME_HEAD, GREETING, Request, Tag};
use crate::worker::{MEMORY_VARIABLE, Restrictions};
use crate::{Limits, Source};
use astscope_supervision::{Ctx, Exit, Init, Lost, Mailbox, OwnedProcess, ProcessEnd, Service};
use astscope_syntax::SkipReason;
use std::io;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// Bytes that a pipe holds: a batch's next texts, and answers that weren't read yet. What an
/// unprivileged process may ask for.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes of an answer for each byte of text, and those of any answer. A node takes six, and no
/// grammar makes ten nodes of a byte.
const ANSWER_BYTES_PER_BYTE: u64 = 64;
const ANSWER_BYTES: u64 = 1 << 20;
/// Bytes of text whose answers are reported together: to wake whoever waits for each small file would
/// cost as much as what there is to be done with it.
const REPORT_BYTES: usize = 64 << 10;

/// What each process is started with.
#[derive(Clone, Debug)]
pub(super) struct ProcessArgs {
    pub(super) config: Arc<ParserConfig>,
    pub(super) shared: Arc<Shared>,
}

/// What a process's service is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Have these parsed.
    Parse(Batch),
    /// The process has lied: it is to be replaced.
    Condemn,
}

/// Texts to be parsed.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) sources: Vec<Source>,
    pub(super) limits: Limits,
    /// Holds a report for each text, and two: it never has to be waited for. When its other end is
    /// dropped, nobody wants the rest, and the process is killed.
    pub(super) reports: mpsc::Sender<Report>,
}

/// What became of a batch.
#[derive(Debug)]
pub(super) enum Report {
    /// A process has it.
    Taken,
    /// The next texts are done: the trees of each, encoded, or why it has none.
    Done(Vec<Result<Vec<u8>, SkipReason>>),
    /// The process was lost. No report follows.
    Lost {
        /// Whether it was at the next text.
        is_begun: bool,
        /// Whose fault that is.
        fault: Fault,
        /// What happened.
        why: String,
    },
}

/// Whose fault the end of a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The parser's, at this text.
    Parser,
    /// SIGKILL, and not from here: the kernel, which wants memory back, or somebody's.
    Unclear,
    /// Somebody else's, who asked it to end.
    Outside,
}

/// A service that owns a process.
#[derive(Debug)]
pub(super) struct ProcessService {
    args: ProcessArgs,
    owned: OwnedProcess,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Service for ProcessService {
    type Args = ProcessArgs;
    type Message = Message;

    async fn init(args: ProcessArgs, _: &Ctx) -> Result<Init<Self>, Exit> {
        let config = &args.config;
        let mut command = Command::new(&config.program);
        command
            .args(&config.args)
            // This one may have been removed, and a parser has no use for any.
            .current_dir("/")
            .env_clear()
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            .env(MEMORY_VARIABLE, config.memory_bytes_max.to_string());
        let name = config.program.display();
        let (owned, stdin, stdout) = OwnedProcess::start(&mut command)
            .map_err(|error| Exit::failed(format!("parser `{name}` can't be run: {error}")))?;
        enlarge(&stdin, &stdout);
        let mut stdout = BufReader::new(stdout);
        match greeting(&mut stdout).await {
            Ok(restrictions) => args.shared.greeted(restrictions),
            Err(fault) => {
                let lost = owned.finish(ProcessEnd::Faulty(fault), (stdin, stdout)).await;
                let why = lost.err().map_or_else(String::new, |lost| lost.why);
                return Err(Exit::failed(format!("parser `{name}` {why}")));
            }
        }
        Ok(Init::Ready(Self { args, owned, stdin, stdout }))
    }

    async fn run(mut self, mut mailbox: Mailbox<Message>, ctx: Ctx) -> Result<(), Exit> {
        let mut at = None;
        let end = self.serve(&mut mailbox, &ctx, &mut at).await;
        let Self { args, owned, stdin, stdout } = self;
        let is_faulty = matches!(end, ProcessEnd::Faulty(_));
        let Err(lost) = owned.finish(end, (stdin, stdout)).await else { return Ok(()) };
        let Lost { status, why } = lost;
        if let Some(At { reports, done, is_begun }) = at {
            let _unheard = reports.try_send(Report::Done(done));
            let fault = if is_faulty { Fault::Parser } else { status.map_or(Fault::Parser, fault) };
            // Nobody waits, if that was the reason.
            let _unheard = reports.try_send(Report::Lost { is_begun, fault, why: why.clone() });
        }
        Err(Exit::failed(format!("parser `{}` {why}", args.config.program.display())))
    }
}

/// The batch that a process is at.
struct At {
    reports: mpsc::Sender<Report>,
    /// What is to be reported next.
    done: Vec<Result<Vec<u8>, SkipReason>>,
    is_begun: bool,
}

impl ProcessService {
    /// Passes batches on for as long as that works. The one that it was at is left in `at`.
    async fn serve(
        &mut self,
        mailbox: &mut Mailbox<Message>,
        ctx: &Ctx,
        at: &mut Option<At>,
    ) -> ProcessEnd {
        let Self { args, owned, stdin, stdout } = self;
        let kill_after = args.config.kill_after;
        loop {
            let Batch { sources, limits, reports } = tokio::select! {
                biased;
                status = owned.wait() => return ProcessEnd::Exited(status),
                unasked = stdout.fill_buf() => return match unasked {
                    Ok(bytes) if !bytes.is_empty() => {
                        ProcessEnd::Faulty("it wrote something without being asked".to_owned())
                    }
                    Ok(_) | Err(_) => ProcessEnd::Closed,
                },
                message = mailbox.recv() => match message {
                    Some(Message::Parse(batch)) => batch,
                    Some(Message::Condemn) => {
                        return ProcessEnd::Faulty("it returned trees that are none".to_owned());
                    }
                    None => return ProcessEnd::Stopped,
                },
            };
            if reports.try_send(Report::Taken).is_err() {
                continue; // whoever asked has left already
            }
            let at = at.insert(At { reports: reports.clone(), done: Vec::new(), is_begun: false });
            let answered = {
                // All texts are written as soon as there is room for them: the next is there when
                // the one before is done.
                let written = write_all(stdin, &sources, &limits);
                let answers = read_all(stdout, &sources, &limits, kill_after, at);
                // Ends with the first fault: one that hangs doesn't read either.
                let exchange = async { tokio::try_join!(written, answers) };
                tokio::select! {
                    biased;
                    answered = exchange => answered,
                    () = ctx.stopping() => return ProcessEnd::Stopped,
                    () = reports.closed() => {
                        return ProcessEnd::Faulty("nobody waits for what it is at".to_owned());
                    }
                    never = owned.listen() => match never {},
                }
            };
            if let Err(end) = answered {
                return end;
            }
        }
    }
}

async fn write_all(
    to: &mut ChildStdin,
    sources: &[Source],
    limits: &Limits,
) -> Result<(), ProcessEnd> {
    let write = async {
        for source in sources {
            let request = Request::new(&source.text, source.language, limits)
                .ok_or(io::ErrorKind::InvalidInput)?;
            to.write_all(&request.to_bytes()).await?;
            to.write_all(source.text.as_bytes()).await?;
        }
        to.flush().await
    };
    // A process that no longer reads has ended, or is at something: its answers say what, or that
    // there are none.
    let _told_by_the_answers: io::Result<()> = write.await;
    Ok(())
}

async fn read_all(
    from: &mut BufReader<ChildStdout>,
    sources: &[Source],
    limits: &Limits,
    kill_after: Duration,
    at: &mut At,
) -> Result<(), ProcessEnd> {
    let time_max = limits.time_max.saturating_add(kill_after);
    let in_time = |answer: Result<Result<Frame, ProcessEnd>, _>| {
        answer.unwrap_or_else(|_elapsed| {
            Err(ProcessEnd::Faulty(format!("it didn't answer within {time_max:?}")))
        })
    };
    let mut n_bytes = 0;
    for (n, source) in sources.iter().enumerate() {
        at.is_begun = false;
        let deadline = later(time_max);
        match in_time(timeout_at(deadline, frame(from, 0)).await)? {
            (Tag::Begun, _) => at.is_begun = true,
            other => return Err(unexpected(&other)),
        }
        let bytes_max = source.text.len() as u64 * ANSWER_BYTES_PER_BYTE + ANSWER_BYTES;
        let done = match in_time(timeout_at(later(time_max), frame(from, bytes_max)).await)? {
            (Tag::Trees, trees) => Ok(trees),
            (Tag::Skipped, byte) => match byte[..] {
                [byte] => Err(wire::reason_from_byte(byte, limits)
                    .ok_or_else(|| unexpected(&(Tag::Skipped, vec![byte])))?),
                _ => return Err(unexpected(&(Tag::Skipped, byte))),
            },
            other => return Err(unexpected(&other)),
        };
        at.is_begun = false;
        at.done.push(done);
        n_bytes += source.text.len();
        if n_bytes >= REPORT_BYTES || n + 1 == sources.len() {
            n_bytes = 0;
            // Nobody waits, if it fails: `reports.closed()` says the same.
            let _unheard = at.reports.try_send(Report::Done(std::mem::take(&mut at.done)));
        }
    }
    Ok(())
}

type Frame = (Tag, Vec<u8>);

/// Reads a frame of at most so many bytes. Memory is taken for what comes, not for what is announced.
async fn frame(from: &mut BufReader<ChildStdout>, bytes_max: u64) -> Result<Frame, ProcessEnd> {
    let mut head = [0; FRAME_HEAD];
    from.read_exact(&mut head).await.map_err(|_ended| ProcessEnd::Closed)?;
    let Some((tag, len)) = wire::read_frame_head(head) else {
        return Err(ProcessEnd::Faulty("it wrote what nobody understands".to_owned()));
    };
    if u64::from(len) > bytes_max {
        return Err(ProcessEnd::Faulty(format!("it announced {len} bytes, {bytes_max} at most")));
    }
    let mut bytes = Vec::with_capacity((len as usize).min(PIPE_BYTES));
    let n = from.take(len.into()).read_to_end(&mut bytes).await;
    match n {
        Ok(n) if n == len as usize => Ok((tag, bytes)),
        Ok(_) | Err(_) => Err(ProcessEnd::Closed),
    }
}

fn unexpected((tag, bytes): &Frame) -> ProcessEnd {
    ProcessEnd::Faulty(format!("it said {tag:?} in {} bytes out of turn", bytes.len()))
}

async fn greeting(from: &mut BufReader<ChildStdout>) -> Result<Restrictions, String> {
    match frame(from, GREETING as u64).await {
        Ok((Tag::Greeting, bytes)) => match bytes[..] {
            [a, b, c, d, restrictions] if u32::from_le_bytes([a, b, c, d]) == wire::VERSION => {
                Ok(Restrictions::from_bits(restrictions))
            }
            _ => Err("it is of another version".to_owned()),
        },
        Ok(other) => Err(match unexpected(&other) {
            ProcessEnd::Faulty(fault) => fault,
            _ => String::new(),
        }),
        Err(ProcessEnd::Faulty(fault)) => Err(fault),
        Err(_) => Err("it ended without a greeting".to_owned()),
    }
}

/// Whose fault it is that a process ended so by itself.
#[cfg(unix)]
fn fault(status: ExitStatus) -> Fault {
    use rustix::process::Signal;
    use std::os::unix::process::ExitStatusExt as _;
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if is(Signal::KILL) {
        Fault::Unclear
    } else if [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT].into_iter().any(is) {
        Fault::Outside
    } else {
        Fault::Parser
    }
}

#[cfg(not(unix))]
fn fault(_: ExitStatus) -> Fault {
    Fault::Parser
}

fn later(by: Duration) -> Instant {
    // A limit that the clock can't express is none: a day is longer than anybody waits.
    Instant::now() + by.min(Duration::from_hours(24))
}

/// Lets more be on the way. A pipe of the usual size works too, only slower.
#[cfg(target_os = "linux")]
fn enlarge(stdin: &ChildStdin, stdout: &ChildStdout) {
    let _usual_size = rustix::pipe::fcntl_setpipe_size(stdin, PIPE_BYTES);
    let _usual_size = rustix::pipe::fcntl_setpipe_size(stdout, PIPE_BYTES);
}

#[cfg(not(target_os = "linux"))]
fn enlarge(_: &ChildStdin, _: &ChildStdout) {}
