//! The command line: commands, options and their help texts.
//!
//! Wherever ast-grep has an option, ours has its name, its short form and its conflicts, so that
//! a command written for ast-grep means the same here. Options of ast-grep that we lack are
//! refused by name, never ignored.

mod query;

pub(crate) use query::{
    ColorChoice, ContextArgs, FormatArg, HeadingArg, IgnoreArg, InputArgs, JsonStyle, MATCHER,
    MatcherArgs, OutputArgs, ReportStyle, RunArgs, ScanArgs, SeverityArg, WatchArgs, wanted,
};

use crate::{changes, exit};
use astscope_protocol::messages::{FaultKind, Revision};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const LONG_ABOUT: &str = "\
Astscope keeps your source trees parsed and answers ast-grep patterns and rules from memory.

It takes ast-grep's patterns, YAML rules and flags, and prints what ast-grep prints. The first \
command starts a daemon, which parses the tree once; later ones parse only what changed.";

const EXAMPLES: &str = "\
Examples:
  Find calls, in each file's own language:
    astscope run -p 'console.log($$$ARGS)'
  Only Elixir files below lib, as JSON, one match per line:
    astscope run -p 'GenServer.call($$$ARGS)' -l elixir --json=stream lib
  Show a rewrite as a diff, then apply it:
    astscope run -p 'foo($A)' -r 'bar($A)' -l py
    astscope run -p 'foo($A)' -r 'bar($A)' -l py -U
  Check the rules of sgconfig.yml:
    astscope scan";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "astscope",
    version,
    about = "Finds and rewrites code by its structure, from warm memory",
    long_about = LONG_ABOUT,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{}", exit::TABLE),
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// Refused: custom languages load native code into the program.
    #[arg(long, global = true, hide = true, num_args(0..=1), default_missing_value = "")]
    custom_languages: Option<String>,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GlobalArgs {
    /// Path of the project's configuration; without it the nearest sgconfig.yml above is used.
    #[arg(short, long, global = true, value_name = "CONFIG_FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Answer at once from what is parsed already, and say in what that is behind.
    #[arg(long, global = true, conflicts_with = "wait")]
    pub(crate) no_wait: bool,
    /// Wait at most this time, such as 200ms or 5s, for changed files to be parsed (at most 1h);
    /// then answer from what there is, and say in what that is behind. Without it a minute, and as
    /// long as it takes for a directory that is new.
    #[arg(long, global = true, value_name = "DURATION", value_parser = wait)]
    pub(crate) wait: Option<Duration>,
    /// Search every file anew and remember nothing: for measurements, the answer is the same.
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
    /// Give up after this time, such as 500ms, 10s or 2m (at most 1h).
    #[arg(long, global = true, value_name = "DURATION", value_parser = deadline)]
    pub(crate) deadline: Option<Duration>,
    /// Controls output color.
    ///
    /// `auto` colors only what goes to a terminal, and nothing if `NO_COLOR` is set or TERM is
    /// not set or is `dumb`.
    #[arg(long, global = true, default_value = "auto", value_name = "WHEN")]
    pub(crate) color: ColorChoice,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Find or rewrite one pattern (default command).
    Run(Box<RunArgs>),
    /// Scan and rewrite code by YAML rules.
    Scan(Box<ScanArgs>),
    /// Print a file's syntax tree.
    Parse(ParseArgs),
    /// Print where a file's code could be observed at run time.
    Points(PointsArgs),
    /// Print how a pattern is answered: requirements, candidates, times.
    Explain(Box<ExplainArgs>),
    /// Print a pattern's matches, and each that appears or disappears, as files change.
    Watch(Box<WatchArgs>),
    /// Print which files are not what they were at a revision.
    Changes(ChangesArgs),
    /// Pause or resume the watching of a directory, or bring it up to date.
    Sync(SyncArgs),
    /// Print what the daemon holds, and which files it skipped and why.
    Status(StatusArgs),
    /// Print the daemon's supervision tree: what it is made of, and how each part does.
    Tree(TreeArgs),
    /// Print how well the daemon can do its work; exits with 1 if it can't.
    Health(HealthArgs),
    /// Print what has happened in the daemon: roots, commits, restarts, failures.
    Events(EventsArgs),
    /// Print the settings that may change while the daemon runs, and who said so.
    Config(ConfigArgs),
    /// Do to the daemon what only a test of it should.
    Debug(DebugArgs),
    /// Stop the daemon.
    Stop(StopArgs),
    /// Run the daemon here. Other commands start one by themselves when none runs.
    Serve(ServeArgs),
    /// Parse for a daemon, which starts this and talks to it.
    #[command(hide = true)]
    ParserWorker,
    /// Generate a shell completion script.
    Completions(CompletionsArgs),
}

/// `astscope parse`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  astscope parse src/main.rs
  astscope parse --cst lib/app.ex
  echo 'f(x)' | astscope parse --stdin -l py")]
pub(crate) struct ParseArgs {
    /// The file.
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    pub(crate) file: Option<String>,
    /// Its language; by its name and first line without it.
    #[arg(short, long, value_name = "LANG")]
    pub(crate) lang: Option<String>,
    /// Print anonymous nodes too, such as keywords and punctuation.
    #[arg(long)]
    pub(crate) cst: bool,
    /// Print a JSON tree instead of an s-expression.
    #[arg(long)]
    pub(crate) json: bool,
    /// Parse standard input. Needs --lang.
    #[arg(long)]
    pub(crate) stdin: bool,
}

/// `astscope points`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A point is where a probe could stand: where a function begins and ends, at a call, a pipeline, a
branch. Nothing is inserted, and no code is run. Each line is

  FILE:LINE:COLUMN  PRIORITY  KIND  SYMBOL  [CALLED]

those that are worth the most first. JSON also has each point's identity, which edits elsewhere in
the file don't change, and the name by which an event of a running program refers to it.

Examples:
  astscope points lib/app.ex
  astscope points --level debug src/main.rs
  astscope points --json lib/app.ex | jq -r '.points[] | select(.public) | .correlation'")]
pub(crate) struct PointsArgs {
    /// The file. Elixir, Go, Java, JavaScript, Python, Rust, TypeScript and TSX have points.
    pub(crate) file: String,
    /// Its language; by its name without it.
    #[arg(short, long, value_name = "LANG")]
    pub(crate) lang: Option<String>,
    /// How much is to be observed. Each level has all points of those before it.
    #[arg(long, default_value = "balanced", value_name = "LEVEL")]
    pub(crate) level: LevelArg,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How much is to be observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// Functions
    Minimal,
    /// And calls that a service's life consists of, such as `start_link`
    Balanced,
    /// And all other calls, pipelines, branches, handlers of errors, and attributes
    Comprehensive,
    /// And what is assigned to variables
    Debug,
}

/// `astscope explain`.
#[derive(Args, Clone, Debug)]
#[command(group(wanted(&MATCHER)))]
#[command(after_help = "\
Example:
  astscope explain -p 'GenServer.call($$$ARGS)' -l elixir")]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) matcher: MatcherArgs,
    /// The language of the pattern.
    #[arg(short, long, value_name = "LANG")]
    pub(crate) lang: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope changes`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The directory is read first, so that everything written before is seen. Each line is a file, its path \
relative to the workspace's root (`--json` says which that is), as `git status --short` has them:

  A PATH   it wasn't there
  M PATH   its bytes have changed
  D PATH   it is no longer there
  # EPOCH.NUMBER

The last line is the revision that is read now, to be given to --since the next time; without --since \
it is the only line. A file that comes and goes between the two is not told. Files are those that a \
plain search of the root finds, whether or not they can be parsed.

The daemon remembers so many changes, and no others once it is restarted: then the exit status is 65, \
and everything has to be read again. It is 0 otherwise, whether or not anything has changed.

Examples:
  astscope changes
  astscope changes --since 1795271573392090.16
  since=$(astscope changes | tail -n 1 | cut -c 3-); make; astscope changes --since $since")]
pub(crate) struct ChangesArgs {
    /// The workspace, or anything in it.
    #[arg(default_value = ".")]
    pub(crate) path: String,
    /// The revision to compare with.
    #[arg(long, value_name = "EPOCH.NUMBER", value_parser = changes::revision)]
    pub(crate) since: Option<Revision>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope sync`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
No query needs this: each sees everything that was written before it was asked, watched or not. It is \
for whoever operates a daemon. `pause` takes the watches away, before a build that writes a million \
files, say; queries then look at their files themselves, and `resume` walks the whole root first.

Prints how the workspace does, as `astscope status` has it.

Examples:
  astscope sync pause
  astscope sync resume ~/src/project
  astscope sync rescan --json")]
pub(crate) struct SyncArgs {
    /// What is to be done.
    pub(crate) action: SyncVerb,
    /// The workspace, or anything in it.
    #[arg(default_value = ".")]
    pub(crate) path: String,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is to be done about following the disk.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum SyncVerb {
    /// Store what was written before, as before a query.
    Flush,
    /// Walk the whole root, whatever the kernel's events have told.
    Rescan,
    /// Stop watching; queries look at their files themselves.
    Pause,
    /// Watch again, after a walk of the whole root.
    Resume,
}

/// `astscope status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// List every skipped file with its reason, and every quarantined one.
    #[arg(long)]
    pub(crate) skipped: bool,
}

/// `astscope tree`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A line is a node: its name, how it supervises or is supervised, its state, restarts, last exit, \
the messages that wait against those that may, and for how long it has been in its state.

Examples:
  astscope tree
  astscope tree --json | jq '.. | objects | select(.restarts? > 0) | .id'
  astscope tree --mermaid > tree.mmd")]
pub(crate) struct TreeArgs {
    /// Print JSON.
    #[arg(long, conflicts_with = "mermaid")]
    pub(crate) json: bool,
    /// Print a Mermaid flow chart.
    #[arg(long)]
    pub(crate) mermaid: bool,
}

/// `astscope health`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Exits with 0 if the daemon is healthy, with 1 if it is degraded or failed, and with 69 if none runs.

Examples:
  astscope health
  astscope health --json | jq -r .status")]
pub(crate) struct HealthArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope events`.
#[derive(Args, Clone, Debug)]
#[command(long_about = "\
Print what has happened in the daemon: roots that were opened, files that were committed, parts \
that failed and were restarted. The last 1,000 events are kept.

Examples:
  astscope events
  astscope events --json | jq '.events[] | select(.kind == \"failed\")'")]
pub(crate) struct EventsArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope config`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A line is a setting: its key in the settings file, its value, and who said so: nobody (default), the \
file, or whoever started the daemon (start: an option or a variable of its environment). `astscope \
serve --help` says what the file may hold.

Examples:
  astscope config
  astscope config --json | jq -r .file")]
pub(crate) struct ConfigArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope debug`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DebugArgs {
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

/// What to do to the daemon.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// End one node of the supervision tree, to see that the others go on. Needs a daemon that was
    /// started with `astscope serve --allow-debug`.
    Kill(KillArgs),
    /// Make one worker of the supervision tree panic, fail, hang or dawdle, once. Needs a daemon
    /// that was started with `astscope serve --allow-debug`.
    Fault(FaultArgs),
}

/// `astscope debug kill`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The node's supervisor starts it again as the tree says. Requests that it was running are asked \
again by their clients, once; all others don't notice.

Example:
  astscope serve --allow-debug &
  astscope tree
  astscope debug kill gateway/listener")]
pub(crate) struct KillArgs {
    /// The node: the names from below the root down to it, joined by `/`, as in `astscope tree`.
    pub(crate) path: String,
}

/// `astscope debug fault`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
What fails is started again by its supervisor. One that hangs is found by that within two seconds \
and started again, unless it hangs at `stop`: then it is killed when its time to stop is over.

Examples:
  astscope debug fault gateway/sessions hang
  astscope debug fault foundation/telemetry slow=500
  astscope debug fault gateway/listener panic --at init")]
pub(crate) struct FaultArgs {
    /// The worker: the names from below the root down to it, joined by `/`, as in `astscope tree`.
    pub(crate) path: String,
    /// What happens to it: `panic`, `error`, `hang`, or `slow=MS`, which does nothing for so many
    /// milliseconds.
    #[arg(value_parser = fault)]
    pub(crate) fault: Fault,
    /// When: while it runs, when it is started, or when it is told to stop.
    #[arg(long, value_name = "POINT", default_value = "run")]
    pub(crate) at: At,
}

/// A fault, and how long it takes if that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) FaultKind, pub(crate) Option<u64>);

fn fault(text: &str) -> Result<Fault, String> {
    Ok(match text {
        "panic" => Fault(FaultKind::Panic, None),
        "error" => Fault(FaultKind::Error, None),
        "hang" => Fault(FaultKind::Hang, None),
        _ => {
            let ms = text.strip_prefix("slow=").and_then(|ms| ms.parse().ok());
            let ms = ms.ok_or("expected panic, error, hang or slow=MILLISECONDS")?;
            Fault(FaultKind::Slow, Some(ms))
        }
    })
}

/// When a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum At {
    /// While it runs: at once if it does.
    Run,
    /// When it is started.
    Init,
    /// When it is told to stop.
    Stop,
}

/// `astscope stop`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StopArgs {
    /// Let requests in flight finish first.
    #[arg(long)]
    pub(crate) drain: bool,
}

/// `astscope serve`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
The log is daemon.log in $ASTSCOPE_STATE_DIR, else $XDG_STATE_HOME/astscope, else \
~/.local/state/astscope: JSON lines, at most five files of 8 MiB. ASTSCOPE_LOG says what is \
logged, as `debug` or `astscope_daemon=trace,info` do; it is `info` without it, of which standard \
error gets warnings and errors.

Settings are read from config.toml in $XDG_CONFIG_HOME/astscope, else ~/.config/astscope, and again \
at each SIGHUP; options and ASTSCOPE_LOG win over it. All that it may hold, with the defaults:
  log = \"info\"          # as ASTSCOPE_LOG
  idle_timeout = \"2h\"   # as --idle-timeout
  scrub = true          # read files again in the background, and compare them with what is held
  [watch]               # pauses between two looks at a root, from 100ms to 1h
  every_min = \"2s\"
  every_max = \"1m\"
  settle = \"50ms\"       # changes that nobody asks about are applied after so long without another
  settle_max = \"500ms\"   # and after so long in any case
A file with a mistake changes nothing: the log, `astscope config` and `astscope status` say where it \
is.

Examples:
  astscope serve
  astscope serve --root ~/src/app --root ~/src/lib --idle-timeout never")]
pub(crate) struct ServeArgs {
    /// Parse this directory at once. Can be repeated.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Vec<PathBuf>,
    /// The daemon's settings, which have to be right at the start; without it those of the user's
    /// configuration directory, if there are any.
    // In place of everybody's --config, which is a project's.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Leave after this time without clients, or `never`; 2h unless the settings say otherwise.
    #[arg(
        long,
        value_name = "DURATION",
        env = "ASTSCOPE_IDLE_TIMEOUT",
        value_parser = idle_timeout
    )]
    pub(crate) idle_timeout: Option<IdleTimeout>,
    /// Let `astscope debug` end parts of this daemon, or make them fail. For tests of it: whoever can connect may then
    /// disturb every other client.
    #[arg(long)]
    pub(crate) allow_debug: bool,
    /// Started by another command, which waits on standard output for `ready` or `busy`.
    #[arg(long, hide = true)]
    pub(crate) spawned: bool,
}

/// A time without clients; none for never. A type of its own, because clap takes an `Option` for
/// an optional argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdleTimeout(pub(crate) Option<Duration>);

/// `astscope completions`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  astscope completions bash > ~/.local/share/bash-completion/completions/astscope
  astscope completions zsh > ~/.zfunc/_astscope
  astscope completions fish > ~/.config/fish/completions/astscope.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell; taken from $SHELL without it.
    pub(crate) shell: Option<clap_complete::Shell>,
}

impl Cli {
    /// Parses the arguments, program name first.
    pub(crate) fn parse_arguments(mut arguments: Vec<OsString>) -> Result<Self, clap::Error> {
        insert_default_command(&mut arguments);
        let cli = Self::try_parse_from(arguments)?;
        cli.refuse_unsupported()?;
        Ok(cli)
    }

    /// Flags that ast-grep has and we don't.
    fn refuse_unsupported(&self) -> Result<(), clap::Error> {
        let refuse = |message: &str| {
            Err(Self::command().error(ErrorKind::UnknownArgument, message.to_owned()))
        };
        if self.custom_languages.is_some() {
            return refuse(
                "'--custom-languages' is not supported: a custom language is native code, which would run inside the daemon",
            );
        }
        let (inspect, debug_query) = match &self.command {
            Command::Run(args) => (&args.output.inspect, args.debug_query.is_some()),
            Command::Scan(args) => (&args.output.inspect, false),
            _ => return Ok(()),
        };
        if inspect.is_some() {
            return refuse(
                "'--inspect' is not supported: use `astscope explain`, or `astscope status --skipped`",
            );
        }
        if debug_query {
            return refuse(
                "'--debug-query' is not supported: use `astscope explain -p …`, or `astscope parse --stdin` to see how code parses",
            );
        }
        Ok(())
    }
}

/// As ast-grep does: with a pattern or a kind but no command, the command is `run`.
fn insert_default_command(arguments: &mut Vec<OsString>) {
    let mut rest = arguments.iter().skip(1).map(|argument| argument.to_string_lossy()).peekable();
    // Options of all commands may stand before the command.
    while let Some(argument) = rest.peek() {
        let takes_value = match argument.as_ref() {
            "-c" | "--config" | "--deadline" | "--wait" | "--color" => true,
            "--no-wait" | "--no-cache" => false,
            other if is_global_with_value(other) => false,
            _ => break,
        };
        rest.next();
        if takes_value {
            rest.next();
        }
    }
    if !rest.peek().is_some_and(|argument| argument.starts_with('-')) {
        return;
    }
    if rest.take_while(|argument| argument != "--").any(|argument| is_matcher(&argument)) {
        arguments.insert(1, OsString::from("run"));
    }
}

fn is_global_with_value(argument: &str) -> bool {
    let long = ["--config=", "--deadline=", "--wait=", "--color="];
    long.iter().any(|option| argument.starts_with(option))
        || (argument.starts_with("-c") && argument.len() > 2)
}

fn is_matcher(argument: &str) -> bool {
    let name = argument.split('=').next().unwrap_or_default();
    let short =
        !argument.starts_with("--") && (argument.starts_with("-p") || argument.starts_with("-k"));
    short || name == "--pattern" || name == "--kind"
}

/// A deadline, such as `500ms`, `10s`, `2m` or `1h`.
fn deadline(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    let max = Duration::from_millis(astscope_protocol::limits::DEADLINE_MS_MAX);
    if duration.is_zero() || duration > max {
        return Err("a deadline is more than nothing and at most 1h".to_owned());
    }
    Ok(duration)
}

/// How long files are waited for.
fn wait(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration > Duration::from_millis(astscope_protocol::limits::DEADLINE_MS_MAX) {
        return Err("files are waited for at most 1h".to_owned());
    }
    Ok(duration)
}

/// A duration, or `never`.
fn idle_timeout(text: &str) -> Result<IdleTimeout, String> {
    if text == "never" { Ok(IdleTimeout(None)) } else { duration(text).map(Some).map(IdleTimeout) }
}

/// A number with a unit.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a duration is a number and a unit: 500ms, 10s, 2m, 1h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|error| format!("not a number: {error}"))?;
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| "the duration is too long".to_owned())
}

#[cfg(test)]
mod tests;
