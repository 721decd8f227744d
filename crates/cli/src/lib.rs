//! The `astscope` command line: ast-grep's commands and output, answered by the daemon.
//!
//! A command turns its options into one request, and prints what the daemon streams back. The
//! client knows no grammar and reads no source file, with one exception: it is the client that
//! writes rewrites, after it has checked that each file still holds what was searched.
//!
//! ```text
//! argv ─▶ args ─▶ run, scan, … ─▶ request ─▶ backend (daemon_start, connection) ─▶ socket
//!                 sgconfig ─┘        └─▶ output, rewrite, interactive ─▶ stdout, files
//! ```
//!
//! - Output equals ast-grep's: `--json` byte for byte, text and colors as well.
//! - Standard output holds the answer, standard error everything else.
//! - Exit codes are listed in [`Exit`] and in `astscope --help`.
#![forbid(unsafe_code)]

mod args;
mod backend;
mod changes;
mod completions;
mod connection;
mod console;
mod daemon_start;
mod exit;
mod failure;
mod inspect;
mod interactive;
mod log;
mod notices;
mod operate;
mod output;
mod progress;
mod request;
mod rewrite;
mod run;
mod scan;
mod serve;
mod service_manager;
mod sgconfig;
mod watch;

pub use backend::{Backend, BackendError, OnEvent, OnTold, Told};
pub use console::{Console, Keys};
pub use exit::Exit;
pub use failure::Failure;

use args::{Cli, Command};
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

/// Holds a page of matches; larger than most answers.
const OUT_BUFFER_BYTES: usize = 64 << 10;

/// What the process can do about its allocator (decision 0015). Nothing, by default.
#[derive(Clone, Copy, Debug)]
pub struct Allocator {
    /// Makes it fit for a daemon, which runs for days, and in which one thread frees what another has
    /// allocated. Called before there are other threads.
    pub settle: fn(),
    /// Gives free pages back to the kernel. From any thread; takes milliseconds.
    pub release: fn(),
}

impl Default for Allocator {
    fn default() -> Self {
        Self { settle: || {}, release: || {} }
    }
}

/// Runs the program with the process's arguments, streams and daemon.
pub fn main(allocator: Allocator) -> ExitCode {
    // Clearing a huge page for each heap took longer than all else that a client does with 6 MB of
    // answer: it lives for milliseconds. Where this is refused, it is only slower.
    let _refused = rustix::thread::disable_transparent_huge_pages(true);
    let stdout = io::stdout();
    let out_is_terminal = stdout.is_terminal();
    let mut out = BufWriter::with_capacity(OUT_BUFFER_BYTES, stdout.lock());
    let mut err = io::stderr();
    let err_is_terminal = err.is_terminal();
    #[expect(clippy::disallowed_methods, reason = "the command line has a current directory")]
    let cwd = match std::env::current_dir() {
        Ok(cwd) => cwd,
        Err(error) => {
            let failure = Failure::new(Exit::File, "Cannot find the current directory.");
            let _unheard = write!(err, "{}", failure.source(&error).render(false));
            return ExitCode::from(Exit::File.code());
        }
    };
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        input: &mut io::stdin().lock(),
        keys: &mut console::TerminalKeys,
        out_is_terminal,
        err_is_terminal,
        colors_welcome: console::colors_welcome(&|name| std::env::var_os(name)),
        cwd,
    };
    let mut daemon = connection::Daemon::default();
    ExitCode::from(execute(std::env::args_os().collect(), allocator, &mut console, &mut daemon))
}

/// Runs a command line, program name first, and returns the exit code.
pub fn execute(
    arguments: Vec<OsString>,
    allocator: Allocator,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> u8 {
    let cli = match Cli::parse_arguments(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, console),
    };
    let outcome = command(&cli, allocator, console, backend);
    let outcome = outcome.and_then(|exit| match console.out.flush() {
        Ok(()) => Ok(exit),
        Err(error) => request::give_up(error.into()).map(|()| exit),
    });
    match outcome {
        Ok(exit) => exit.code(),
        Err(failure) if failure.exit == Exit::Interrupted && backend.interrupted() => {
            Exit::Interrupted.code()
        }
        Err(failure) => {
            let text = failure.render(console.color_err());
            // What was found before it went wrong comes first.
            if console.out.flush().is_ok() {
                console.note(&text);
            }
            failure.exit.code()
        }
    }
}

fn command(
    cli: &Cli,
    allocator: Allocator,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    match &cli.command {
        Command::Run(args) => run::run(args, &cli.global, console, backend),
        Command::Scan(args) => scan::scan(args, &cli.global, console, backend),
        Command::Parse(args) => inspect::parse(args, console, backend),
        Command::Points(args) => inspect::points(args, console, backend),
        Command::Explain(args) => inspect::explain(args, &cli.global, console, backend),
        Command::Watch(args) => watch::watch(args, &cli.global, console, backend),
        Command::Changes(args) => changes::changes(args, &cli.global, console, backend),
        Command::Sync(args) => inspect::sync(args, &cli.global, console, backend),
        Command::Status(args) => inspect::status(args, console, backend),
        Command::Tree(args) => operate::tree(args, console, backend),
        Command::Events(args) => operate::events(args, console, backend),
        Command::Config(args) => operate::config(args, console, backend),
        Command::Health(args) => operate::health(args, &cli.global, console, backend),
        Command::Debug(args) => operate::debug(args, console, backend),
        Command::Stop(args) => inspect::stop(args, console, backend),
        Command::Serve(args) => serve::serve(args, allocator, console),
        Command::ParserWorker => serve::parser_worker(allocator),
        Command::Completions(args) => completions::completions(args, console),
    }
}

/// Prints help, the version, or what is wrong with the command line.
fn refuse(error: &clap::Error, console: &mut Console<'_>) -> u8 {
    let text = error.render();
    if error.use_stderr() {
        let text = if console.color_err() { text.ansi().to_string() } else { text.to_string() };
        let _unheard = write!(console.err, "{text}");
        return Exit::Usage.code();
    }
    let color = console.out_is_terminal && console.colors_welcome;
    let text = if color { text.ansi().to_string() } else { text.to_string() };
    // Help that nobody reads is no failure.
    let _unheard = write!(console.out, "{text}").and_then(|()| console.out.flush());
    Exit::Success.code()
}
