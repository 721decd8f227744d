//! What to search for, where, and how to print it: the options of `run` and `scan`.

use clap::{ArgGroup, Args, ValueEnum};
use regex::Regex;

const SELECTION: &str = "What to search";
const PRINTING: &str = "Output";

/// What says what to find, one of which is required.
pub(crate) const MATCHER: [&str; 2] = ["pattern", "kind"];
const MATCHER_OR_RULES: [&str; 4] = ["pattern", "kind", "rule", "inline_rules"];

/// That one of these is required.
pub(crate) fn wanted(arguments: &'static [&'static str]) -> ArgGroup {
    ArgGroup::new("wanted").required(true).args(arguments)
}

/// A pattern or a kind.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct MatcherArgs {
    /// Code to find, with $A for one node and $$$A for any number of nodes.
    #[arg(short, long, value_name = "PATTERN")]
    pub(crate) pattern: Option<String>,
    /// Kind of the node within the pattern that is the real matcher.
    ///
    /// The pattern around it only gives it context, as in
    /// -p 'class A { $FIELD = 1 }' --selector `field_definition`.
    #[arg(long, value_name = "KIND", requires = "pattern", conflicts_with = "kind")]
    pub(crate) selector: Option<String>,
    /// How exactly the pattern's nodes must be present.
    #[arg(long, value_name = "STRICTNESS", requires = "pattern", conflicts_with = "kind")]
    pub(crate) strictness: Option<Strictness>,
    /// Kind of node to find, or an ESQuery-style selector such as `call > identifier`.
    #[arg(short, long, value_name = "KIND", conflicts_with = "pattern")]
    pub(crate) kind: Option<String>,
}

/// The strictness of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Strictness {
    /// Match all nodes exactly
    Cst,
    /// Match all nodes except source trivial nodes
    Smart,
    /// Match only ast nodes
    Ast,
    /// Match ast nodes except comments
    Relaxed,
    /// Match ast nodes except comments, without text
    Signature,
    /// Similar to smart but match text only, node kinds are ignored
    Template,
}

impl Strictness {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cst => "cst",
            Self::Smart => "smart",
            Self::Ast => "ast",
            Self::Relaxed => "relaxed",
            Self::Signature => "signature",
            Self::Template => "template",
        }
    }
}

/// Which files.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = SELECTION)]
pub(crate) struct InputArgs {
    /// Files and directories to search.
    #[arg(default_value = ".")]
    pub(crate) paths: Vec<String>,
    /// Follow symbolic links.
    #[arg(long)]
    pub(crate) follow: bool,
    /// Search files that are hidden or ignored (.gitignore, .ignore, …). Can be repeated.
    #[arg(long, action = clap::ArgAction::Append, value_name = "FILE_TYPE")]
    pub(crate) no_ignore: Vec<IgnoreArg>,
    /// Search standard input. Needs --lang, or a rule.
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Include or exclude paths, in gitignore's syntax; ! excludes. Can be repeated, later ones win.
    #[arg(long, action = clap::ArgAction::Append, value_name = "GLOB")]
    pub(crate) globs: Vec<String>,
    /// Accepted for ast-grep's sake: the daemon decides how many threads work.
    #[arg(short = 'j', long, default_value = "0", value_name = "NUM")]
    pub(crate) threads: usize,
}

/// A source of ignore rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IgnoreArg {
    /// Search hidden files and directories
    Hidden,
    /// Don't respect .ignore files
    Dot,
    /// Don't respect the repository's .git/info/exclude
    Exclude,
    /// Don't respect git's `core.excludesFile`
    Global,
    /// Don't respect ignore files in parent directories
    Parent,
    /// Don't respect version control ignore files (.gitignore, etc.)
    Vcs,
}

/// How to print.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = PRINTING)]
pub(crate) struct OutputArgs {
    /// Confirm each rewrite: y (yes), n (no), a (all), q (quit), e (edit).
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Apply all rewrites without confirmation.
    ///
    /// A file that changed since it was searched is left alone and reported.
    #[arg(short = 'U', long)]
    pub(crate) update_all: bool,
    /// Print only the paths of files with matches.
    #[arg(long, conflicts_with_all = ["interactive", "json", "update_all"])]
    pub(crate) files_with_matches: bool,
    /// Print matches as JSON: pretty (the default), stream or compact.
    ///
    /// The style must be given with `=`, as in --json=stream.
    #[arg(
        long,
        conflicts_with = "interactive",
        value_name = "STYLE",
        num_args(0..=1),
        require_equals = true,
        default_missing_value = "pretty"
    )]
    pub(crate) json: Option<JsonStyle>,
    /// Stop after NUM matches.
    #[arg(long, conflicts_with = "interactive", value_name = "NUM")]
    pub(crate) max_results: Option<u64>,
    /// Refused: `explain` and `status` say the same.
    #[arg(long, hide = true, num_args(0..=1), default_missing_value = "")]
    pub(super) inspect: Option<String>,
}

impl OutputArgs {
    /// Whether fixes are to be applied.
    pub(crate) fn applies(&self) -> bool {
        self.interactive || self.update_all
    }
}

/// How JSON is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum JsonStyle {
    /// An indented array
    Pretty,
    /// One object per line
    Stream,
    /// An array on one line
    Compact,
}

/// When to color.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Always, as escape sequences
    Ansi,
    /// Never
    Never,
}

/// Lines around a match.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = PRINTING)]
pub(crate) struct ContextArgs {
    /// Show NUM lines after each match.
    #[arg(short = 'A', long, default_value = "0", conflicts_with = "context", value_name = "NUM")]
    pub(crate) after: u16,
    /// Show NUM lines before each match.
    #[arg(short = 'B', long, default_value = "0", conflicts_with = "context", value_name = "NUM")]
    pub(crate) before: u16,
    /// Show NUM lines around each match.
    #[arg(short = 'C', long, default_value = "0", value_name = "NUM")]
    pub(crate) context: u16,
}

impl ContextArgs {
    pub(crate) fn lines(self) -> astscope_protocol::messages::Context {
        let (before, after) =
            if self.context > 0 { (self.context, self.context) } else { (self.before, self.after) };
        astscope_protocol::messages::Context { before, after }
    }
}

/// When to print the path as a heading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeadingArg {
    /// On a terminal
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// `astscope run`.
#[derive(Args, Clone, Debug)]
#[command(group(wanted(&MATCHER)))]
#[command(after_help = "\
Examples:
  astscope run -p 'Enum.map($LIST, $FUN)' -l elixir lib
  astscope run -k function_item -l rust --json=stream
  astscope run -p 'print($$$A)' -r 'log($$$A)' -l py -U")]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) matcher: MatcherArgs,
    /// Replacement for the match; metavariables are filled in.
    #[arg(short, long, value_name = "FIX", required_if_eq("update_all", "true"))]
    pub(crate) rewrite: Option<String>,
    /// The language of the pattern; without it each file's own.
    #[arg(short, long, value_name = "LANG")]
    pub(crate) lang: Option<String>,
    /// Refused: `explain` and `parse` say the same.
    #[arg(long, hide = true, num_args(0..=1), require_equals = true, default_missing_value = "")]
    pub(super) debug_query: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
    /// Print the path as a heading above its matches instead of before each line.
    #[arg(long, default_value = "auto", value_name = "WHEN", help_heading = PRINTING)]
    pub(crate) heading: HeadingArg,
}

/// `astscope watch`.
#[derive(Args, Clone, Debug)]
#[command(group(wanted(&MATCHER_OR_RULES)))]
#[command(after_help = "\
Prints the matches that are there, and then whatever changes, until it is interrupted:

  + PATH:LINE: TEXT   it appeared; TEXT is its first line
  - PATH:LINE: TEXT   it disappeared

With rules, [RULE] stands before the text.

A match that moved to another line disappears and appears. What is printed adds up to what `astscope \
run` or `scan` prints, also after the daemon was restarted; one that is stopped meanwhile is started \
again.

With --json each line is an object, whose `kind` is `appeared`, `disappeared` (both with the `match`), \
or `settled`: what was printed is then the answer at that `revision`. All paths must lie in one \
directory that can be watched.

Examples:
  astscope watch -p 'todo!($$$)' -l rust
  astscope watch -p 'console.log($$$)' --no-initial --json src | jq -r .match.file
  astscope watch -r rules/no-eval.yml src")]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    pub(crate) matcher: MatcherArgs,
    /// The language of the pattern; without it each file's own.
    #[arg(short, long, value_name = "LANG")]
    pub(crate) lang: Option<String>,
    /// Watch the matches of the rules in one file.
    #[arg(short, long, value_name = "RULE_FILE", conflicts_with_all = ["pattern", "kind", "lang"])]
    pub(crate) rule: Option<String>,
    /// Watch the matches of the rules in `RULE_TEXT`, several separated by `---`.
    #[arg(long, value_name = "RULE_TEXT", conflicts_with_all = ["rule", "pattern", "kind", "lang"])]
    pub(crate) inline_rules: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Don't print the matches that are there already.
    #[arg(long)]
    pub(crate) no_initial: bool,
    /// Print JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `astscope scan`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  astscope scan
  astscope scan -r rules/no-eval.yml src
  astscope scan --inline-rules '{id: x, language: py, rule: {pattern: eval($A)}}'
  astscope scan --format github --error=no-eval")]
pub(crate) struct ScanArgs {
    /// Scan with the rules of one file.
    #[arg(short, long, value_name = "RULE_FILE")]
    pub(crate) rule: Option<String>,
    /// Scan with the rules in `RULE_TEXT`, several separated by `---`.
    #[arg(long, conflicts_with = "rule", value_name = "RULE_TEXT")]
    pub(crate) inline_rules: Option<String>,
    /// Print findings for GitHub Actions, or as SARIF.
    #[arg(long, conflicts_with_all = ["json", "interactive"])]
    pub(crate) format: Option<FormatArg>,
    /// How much to print of each finding.
    #[arg(long, default_value = "rich", conflicts_with = "json")]
    pub(crate) report_style: ReportStyle,
    /// Put the rules' metadata into the JSON. Needs --json.
    #[arg(long, requires = "json")]
    pub(crate) include_metadata: bool,
    #[command(flatten)]
    pub(crate) overwrite: OverwriteArgs,
    #[command(flatten)]
    pub(crate) input: InputArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) context: ContextArgs,
}

/// A format for other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum FormatArg {
    /// Workflow commands, which GitHub shows as annotations
    GitHub,
    /// Static Analysis Results Interchange Format
    Sarif,
}

/// How much to print of a finding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportStyle {
    /// The code, with labels and notes
    #[default]
    Rich,
    /// One line with place, severity and message, and the notes
    Medium,
    /// One line with place, severity and message
    Short,
}

/// Which rules take part, and how severe they are.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Rules")]
pub(crate) struct OverwriteArgs {
    /// Only rules whose id matches REGEX.
    #[arg(long, conflicts_with = "rule", value_name = "REGEX")]
    pub(crate) filter: Option<Regex>,
    /// Only rules at least this severe.
    #[arg(long, value_name = "SEVERITY", default_value = "off")]
    pub(crate) min_severity: SeverityArg,
    /// Set rules to error: --error=ID, or --error for all.
    #[arg(long, action = clap::ArgAction::Append, value_name = "RULE_ID", num_args(0..), require_equals = true)]
    pub(crate) error: Option<Vec<String>>,
    /// Set rules to warning.
    #[arg(long, action = clap::ArgAction::Append, value_name = "RULE_ID", num_args(0..), require_equals = true)]
    pub(crate) warning: Option<Vec<String>>,
    /// Set rules to info.
    #[arg(long, action = clap::ArgAction::Append, value_name = "RULE_ID", num_args(0..), require_equals = true)]
    pub(crate) info: Option<Vec<String>>,
    /// Set rules to hint.
    #[arg(long, action = clap::ArgAction::Append, value_name = "RULE_ID", num_args(0..), require_equals = true)]
    pub(crate) hint: Option<Vec<String>>,
    /// Turn rules off.
    #[arg(long, action = clap::ArgAction::Append, value_name = "RULE_ID", num_args(0..), require_equals = true)]
    pub(crate) off: Option<Vec<String>>,
}

/// A severity, least severe first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeverityArg {
    /// All rules
    #[default]
    Off,
    /// Hints and above
    Hint,
    /// Infos and above
    Info,
    /// Warnings and errors
    Warning,
    /// Errors only
    Error,
}

impl SeverityArg {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Hint => "hint",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}
