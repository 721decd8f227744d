//! What the real daemon bears: `kills` ends each node of its tree in turn, `chaos` does so at random,
//! with panics, hangs, lost processes and poisonous files, while clients ask all the time.
//!
//! Nodes are taken from the tree that the daemon shows, so that none is forgotten here.
#![expect(clippy::print_stdout, reason = "its output is the report")]

pub(crate) mod house;
mod load;
mod matrix;
mod storm;

use crate::flags::{ChaosFlags, KillsFlags};
use anyhow::{Context, Result, ensure};
use load::{Asker, Failure, Load, Oracle, Tally};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// Within which everything that was hurt has to be up again.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

/// Clients that ask at the same time, and ask again what is lost, as the command line does.
const CLIENTS: usize = 4;

/// Clients beside them that ask once, where each kill is looked at.
const PLAIN_CLIENTS: usize = 2;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Askers {
    /// Clients that ask again.
    Retrying,
    /// Beside them some that don't.
    All,
}

/// Ends each node of the tree in turn.
pub fn kills(flags: &KillsFlags) -> Result<()> {
    let binary = binary(flags.binary.as_deref())?;
    let ground = Ground::new(&binary, flags.corpus.as_deref(), None)?;
    matrix::run(&ground, flags.rounds)
}

/// Both phases of the chaos test.
pub fn run(flags: &ChaosFlags) -> Result<()> {
    let binary = binary(flags.binary.as_deref())?;
    let seed = flags.seed.unwrap_or_else(seed_of_now);
    let seconds = if flags.short { 6 } else { flags.seconds };
    println!("replay with: --seconds {seconds} --seed {seed}");
    let ground = Ground::new(&binary, flags.corpus.as_deref(), flags.ast_grep.as_deref())?;
    storm::below_the_limits(&ground, Duration::from_secs(seconds), &mut Random::new(seed))?;
    storm::a_workspace_beyond_its_limit(&ground)?;
    storm::the_root_beyond_its_limit(&ground)
}

/// The program to test; by default the one that cargo built beside this command.
pub(crate) fn binary(given: Option<&Path>) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let binary = given.map_or_else(|| own.with_file_name("astscope"), Path::to_owned);
    ensure!(binary.exists(), "{} isn't built", binary.display());
    Ok(binary)
}

/// Another one for each run.
pub(crate) fn seed_of_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos() % u128::from(u32::MAX)).unwrap_or_default()
}

/// What the test stands on: a program, a tree, and the right answers about it.
struct Ground {
    binary: PathBuf,
    tree: PathBuf,
    oracle: Oracle,
    _generated: Option<TempDir>,
}

impl Ground {
    fn new(binary: &Path, corpus: Option<&Path>, ast_grep: Option<&Path>) -> Result<Self> {
        let generated = match corpus {
            Some(_) => None,
            None => Some(generate()?),
        };
        let tree = corpus.or(generated.as_ref().map(TempDir::path)).unwrap_or(Path::new("."));
        let tree = tree.canonicalize()?;
        let fresh = house::House::start(binary)?;
        let oracle = load::oracle(&fresh.socket(), &tree)?;
        let n_matches: usize = oracle.values().map(Vec::len).sum();
        ensure!(n_matches > 0, "no pattern has a match in {}", tree.display());
        if let Some(ast_grep) = ast_grep {
            load::equals_ast_grep(&oracle, ast_grep, &tree)?;
            println!("ast-grep answers the same");
        }
        println!("{n_matches} matches of {} patterns", oracle.len());
        Ok(Self { binary: binary.to_owned(), tree, oracle, _generated: generated })
    }

    /// A new daemon that has indexed the tree.
    fn house(&self) -> Result<house::House> {
        let house = house::House::start(&self.binary)?;
        house.open(&self.tree)?;
        Ok(house)
    }

    /// Does something while clients ask, and says what they were told.
    fn under_load<R>(
        &self,
        house: &house::House,
        askers: Askers,
        work: impl FnOnce(&Load) -> Result<R>,
    ) -> Result<(R, Tally)> {
        let n_plain = if askers == Askers::All { PLAIN_CLIENTS } else { 0 };
        let (load, socket) = (Load::new(CLIENTS + n_plain), house.socket());
        let worked = std::thread::scope(|scope| {
            for client in 0..CLIENTS + n_plain {
                let (load, socket) = (&load, socket.clone());
                let is_plain = client >= CLIENTS;
                let asker = if is_plain { Asker::plain(socket) } else { Asker::retrying(socket) };
                scope.spawn(move || load.ask_on(asker, &self.tree, &self.oracle, client));
            }
            let worked = work(&load);
            load.end();
            worked
        });
        Ok((worked?, load.into_tally()))
    }
}

/// A tree of a few dozen small files: many queries, so that few of them are hit twice.
fn generate() -> Result<TempDir> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join(".git"))?;
    for n in 0..60 {
        let mut text = String::new();
        for line in 0..4 {
            // Writing to a String can't fail.
            let _infallible =
                writeln!(text, "const c{line} = {n};\nf({line});\ng(f({n}), {line});");
        }
        let below = dir.path().join(format!("dir{}", n % 10));
        std::fs::create_dir_all(&below)?;
        std::fs::write(below.join(format!("file{n}.js")), text)?;
    }
    Ok(dir)
}

/// `SplitMix64`: a few lines, and the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % n.max(1) as u64).unwrap_or_default()
    }
}

/// The time within which so many of 100 were.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Shows what clients were told, and fails if it wasn't right.
fn judge(tally: &Tally) -> Result<()> {
    let Tally { n_asked, failed, wrong, slowest } = tally;
    println!(
        "{n_asked} queries, {} failed, {} wrong, the slowest {} ms",
        failed.len(),
        wrong.len(),
        slowest.as_millis()
    );
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for end in failed.iter().map(|failure| &failure.text).chain(wrong) {
        *kinds.entry(end).or_default() += 1;
    }
    for (end, n) in kinds {
        println!("  {n} × {end}");
    }
    ensure!(wrong.is_empty(), "an answer was wrong");
    let is_typed = |failure: &Failure| failure.is_retryable || failure.is_disconnected;
    ensure!(failed.iter().all(is_typed), "a failure wasn't a typed retry");
    ensure!(failed.len() as u64 * 100 <= *n_asked, "less than 99 % of the queries succeeded");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| random.below(10)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert!((0..10).all(|n| draw(7).contains(&n)));
    }

    fn failure(is_retryable: bool) -> Failure {
        let (began, text) = (Instant::now(), "it failed".to_owned());
        Failure { began, retries: true, is_disconnected: false, is_retryable, text }
    }

    #[test]
    fn a_tally_is_judged_by_its_worst() {
        let tally = |n_asked, retryable: &[bool], wrong: &[&str]| Tally {
            n_asked,
            failed: retryable.iter().map(|is_retryable| failure(*is_retryable)).collect(),
            wrong: wrong.iter().map(|it| (*it).to_owned()).collect(),
            slowest: Duration::ZERO,
        };
        assert!(judge(&tally(100, &[true], &[])).is_ok());
        assert!(judge(&tally(99, &[true], &[])).is_err());
        assert!(judge(&tally(1000, &[false], &[])).is_err());
        assert!(judge(&tally(1000, &[], &["\"f\": 1 of 2 matches"])).is_err());
    }
}
