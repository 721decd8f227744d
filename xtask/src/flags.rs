//! All flags of all subcommands, in one file: reading it is reading the help.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Tasks of the Astscope workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", arg_required_else_help = true)]
pub struct Flags {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One variant for each task.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs what has to be green before a change is merged.
    ///
    /// The steps run in the order of their cost, the first that fails ends the run, and each is
    /// named before it starts. `.ci/run` is this, after looking for the real ast-grep.
    Ci(CiFlags),

    /// Checks the rules that no compiler knows: floors, code map, headers, forgotten files.
    ///
    /// The same as `cargo test -p xtask --test tidy`. Each finding names the rule that it breaks;
    /// docs/STYLE.md lists them.
    Tidy,

    /// Measures ours beside ast-grep and beside the physical limit, in one run.
    ///
    /// Each row is a ratio of medians of alternating runs: cold indexing against raw parallel
    /// parsing, warm queries through the command line and over an open socket against
    /// `ast-grep run`. A file of the corpus is edited before each run, and put back. Unequal
    /// numbers of matches end the run.
    Bench(BenchFlags),

    /// Compares astscope with the real ast-grep, case by case.
    ///
    /// Wants ast-grep 0.51.1 (`pip install ast-grep-cli==0.51.1`) and a built astscope. The
    /// questions lie in xtask/differential. Ends with 1 on any difference.
    Differential(DifferentialFlags),

    /// Ends each node of a real daemon's tree in turn, while clients ask.
    ///
    /// Who is started again must be whom the strategies say, nobody may get a wrong answer, and all
    /// must be up within two seconds. What fails may only be what ran there, with a promise that it
    /// helps to ask again, and nothing for a client that does. Shows how long each took.
    Kills(KillsFlags),

    /// Hurts a real daemon at random, while clients ask: panics, hangs, kills, poisonous files.
    ///
    /// First below every limit, where nobody may notice much: 99 % of the queries succeed, no answer
    /// is wrong, all is up two seconds after the last fault, and nothing is left over. Then beyond
    /// them, to see the documented degradation and the way back (docs/semantics/degradation.md).
    Chaos(ChaosFlags),

    /// Changes a tree at random while clients ask a real daemon: whether any answer is ever stale.
    ///
    /// Edits, renames, moves, deletions, links, ignore rules, git. After each step, the tree held
    /// still, an answer must be that of somebody who reads everything anew, and each 20th step also
    /// ast-grep's; all the time other clients may be shown only what was there while they waited.
    /// Then more events than the kernel keeps, and a flood of writes to ignored files. Ends with 1
    /// on any difference, and says how to see it again.
    Soak(SoakFlags),

    /// Records what OTP's own supervisors do, for ours to be compared with.
    ///
    /// Wants Erlang/OTP 25 (on Debian `apt-get install erlang-base`). Each script in
    /// crates/supervision/tests/otp/traces is run several times, and its trace written into its
    /// file. The language is described in harness.erl beside that directory.
    Otp(OtpFlags),
}

/// Flags of `cargo xtask bench`.
#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct BenchFlags {
    /// A source tree: `elixir`, `rust` and `python` have patterns.
    #[arg(long, value_name = "NAME=DIR", required_unless_present_any = ["supervision", "watching"])]
    pub corpus: Vec<String>,

    /// Measures supervision beside bare tokio instead. Needs no corpus and no peer.
    #[arg(long, conflicts_with = "corpus")]
    pub supervision: bool,

    /// Measures parsing in worker processes beside parsing in one process instead. Needs no peer.
    #[arg(long, conflicts_with = "supervision", requires = "corpus")]
    pub parsers: bool,

    /// Measures what consistency with the disk costs instead, beside the kernel's event, the parse
    /// and the socket. Needs no corpus and no peer, and takes some minutes.
    #[arg(long, conflicts_with_all = ["corpus", "supervision"])]
    pub watching: bool,

    /// The peer.
    #[arg(long, value_name = "PATH", default_value = "ast-grep")]
    pub ast_grep: PathBuf,

    /// Runs of each side, alternating, after one that doesn't count.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub pairs: usize,

    /// Writes the table into docs/performance.md.
    #[arg(long)]
    pub write: bool,
}

/// Flags of `cargo xtask kills`.
#[derive(Args, Debug)]
pub struct KillsFlags {
    /// The program; by default the one that cargo built beside this command.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// A source tree with JavaScript; by default one is made up.
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,

    /// Kills each node this many times.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rounds: usize,
}

/// Flags of `cargo xtask chaos`.
#[derive(Args, Debug)]
pub struct ChaosFlags {
    /// The program; by default the one that cargo built beside this command.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// A source tree with JavaScript; by default one is made up.
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,

    /// Compares with this ast-grep too.
    #[arg(long, value_name = "PATH")]
    pub ast_grep: Option<PathBuf>,

    /// How long the first phase lasts.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub seconds: u64,

    /// Replays the faults of an earlier run; their times are the machine's.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// A few seconds instead, as in `cargo xtask ci`.
    #[arg(long, conflicts_with = "seconds")]
    pub short: bool,
}

/// Flags of `cargo xtask soak`.
#[derive(Args, Debug)]
pub struct SoakFlags {
    /// The program; by default the one that cargo built beside this command.
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,

    /// A source tree to copy; by default one is made up.
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,

    /// The peer; by default the one on the path, if it is of the right version.
    #[arg(long, value_name = "PATH")]
    pub ast_grep: Option<PathBuf>,

    /// How many steps; by default 10,000, and some hundred in the short form.
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,

    /// Replays the deeds of an earlier run; their times are the machine's.
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// The same few steps in a smaller tree each time, as in `cargo xtask ci`.
    #[arg(long)]
    pub short: bool,
}

/// Flags of `cargo xtask ci`.
#[derive(Args, Debug)]
pub struct CiFlags {
    /// Runs only these steps, separated by commas: `--only fmt,clippy`.
    #[arg(long, value_delimiter = ',', value_name = "STEP")]
    pub only: Vec<String>,

    /// Prints the names of the steps, in order, and does nothing.
    #[arg(long)]
    pub list: bool,
}

/// Flags of `cargo xtask differential`.
#[derive(Args, Debug)]
pub struct DifferentialFlags {
    /// The oracle.
    #[arg(long, value_name = "PATH", default_value = "ast-grep")]
    pub ast_grep: PathBuf,

    /// Ours; by default the one that cargo built beside this command.
    #[arg(long, value_name = "PATH")]
    pub astscope: Option<PathBuf>,

    /// A further source tree: `elixir` and `python` are the ones that cases ask for.
    #[arg(long, value_name = "NAME=DIR")]
    pub corpus: Vec<String>,

    /// Runs only cases with this in their name. The minimum counts don't apply then.
    #[arg(long, value_name = "SUBSTRING")]
    pub only: Option<String>,

    /// Only corpora that need no download.
    #[arg(long)]
    pub slice: bool,

    /// Asks this many random patterns instead of the written cases.
    #[arg(long, value_name = "N")]
    pub random: Option<u64>,

    /// Replays the random patterns of an earlier run.
    #[arg(long, value_name = "S", requires = "random")]
    pub seed: Option<u64>,
}

/// Flags of `cargo xtask otp`.
#[derive(Args, Debug)]
pub struct OtpFlags {
    /// The directory that holds erl and erlc; by default they are looked for on the path.
    #[arg(long, value_name = "DIR")]
    pub erl_bin: Option<PathBuf>,

    /// Writes nothing. Ends with 1 if a trace differs from its file, and shows how.
    #[arg(long)]
    pub check: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn every_subcommand_explains_itself() {
        for subcommand in Flags::command().get_subcommands() {
            assert!(subcommand.get_about().is_some(), "{} has no help", subcommand.get_name());
        }
    }
}
