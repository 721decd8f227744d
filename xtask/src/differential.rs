//! The differential test: astscope answers what the real ast-grep answers, object for object.
//!
//! Both programs get the same arguments in the same directory; their JSON is compared as multisets
//! (`compare`). Ours is asked twice, since the second answer comes from memory. Questions are data (`cases`), source trees are made or found (`corpora`), and
//! `random` asks questions that nobody wrote down. A case without hits proves nothing, so it
//! doesn't count, and a run with too few that count fails.
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod cases;
mod compare;
mod corpora;
mod program;
mod random;

use crate::flags::DifferentialFlags;
use crate::workspace_root;
use anyhow::{Context, Result, bail, ensure};
use cases::Case;
use compare::Difference;
use corpora::Corpus;
use program::Program;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Fewer patterns, rules or languages with hits than these prove too little.
const MIN_PATTERNS: usize = 60;
const MIN_RULES: usize = 30;
const MIN_LANGUAGES: usize = 8;
/// Of 100 cases, so many need hits.
const MIN_PERCENT_WITH_HITS: usize = 80;
/// Differing objects that are shown for each case.
const SHOWN_DIFFERENCES: usize = 3;

/// Where the test's data lies.
pub(crate) fn data_dir() -> PathBuf {
    workspace_root().join("xtask/differential")
}

/// Runs what `flags` ask for; an error if there is any difference.
pub fn run(flags: &DifferentialFlags) -> Result<()> {
    let scratch = tempfile::tempdir().context("can't make a temporary directory")?;
    let bench = Bench::new(flags, scratch.path())?;
    let result = match flags.random {
        Some(count) => random::run(&bench, count, flags.seed),
        None => run_cases(&bench, flags),
    };
    // Stopped in either case: a daemon that outlives its runtime directory can't be reached again.
    bench.ours.stop()?;
    result
}

/// Both programs and what they search.
#[derive(Debug)]
struct Bench {
    oracle: Program,
    ours: Program,
    corpora: Vec<Corpus>,
}

impl Bench {
    fn new(flags: &DifferentialFlags, scratch: &Path) -> Result<Self> {
        let runtime_dir = scratch.join("runtime");
        let program = |path: &Path| -> Result<Program> {
            Ok(Program { path: absolute(path)?, runtime_dir: runtime_dir.clone() })
        };
        let ours = flags.astscope.clone().map_or_else(built_astscope, Ok)?;
        let mut corpora = vec![
            corpora::samples(&data_dir().join("corpus"), scratch)?,
            corpora::workspace(workspace_root(), scratch)?,
        ];
        match corpora::crates(flags.slice)? {
            Some(corpus) => corpora.push(corpus),
            None => println!("no crate sources in cargo's registry: corpus `crates` is left out"),
        }
        if !flags.slice {
            for given in &flags.corpus {
                let (name, dir) = given.split_once('=').context("--corpus wants NAME=DIR")?;
                corpora.push(Corpus::at(name, Path::new(dir))?);
            }
        }
        Ok(Self { oracle: program(&flags.ast_grep)?, ours: program(&ours)?, corpora })
    }

    /// Asks both in one corpus. `args` are everything but the paths.
    fn compare(&self, args: &[String], corpus: &Corpus, unordered_labels: bool) -> Result<Verdict> {
        let args: Vec<_> = args.iter().chain(&corpus.paths).cloned().collect();
        let expected = self.oracle.ask(&corpus.root, &args)?;
        let mut actual = self.ours.ask(&corpus.root, &args)?;
        // Answered from what the first left in memory.
        let again = self.ours.ask(&corpus.root, &args)?;
        let differs_again =
            (again.exit_code, &again.objects) != (actual.exit_code, &actual.objects);
        let forgot = actual.forget_added_languages();
        let mut verdict = Verdict {
            hits: expected.objects.len(),
            elapsed: (expected.elapsed, actual.elapsed),
            differs_again,
            ..Verdict::default()
        };
        // `run` ends with 1 when it finds nothing, and what we forgot was something.
        let codes_differ =
            expected.exit_code != actual.exit_code && !(forgot && expected.objects.is_empty());
        if codes_differ {
            verdict.exit_codes = Some(format!(
                "exit code: expected {:?} ({}), is {:?} ({})",
                expected.exit_code, expected.complaint, actual.exit_code, actual.complaint
            ));
        }
        verdict.differences =
            compare::differences(expected.objects, actual.objects, unordered_labels);
        Ok(verdict)
    }
}

/// What came of one question in one or more corpora.
#[derive(Debug, Default)]
struct Verdict {
    hits: usize,
    differences: Vec<Difference>,
    exit_codes: Option<String>,
    /// Whether ours answered otherwise when it was asked a second time.
    differs_again: bool,
    /// Of the oracle and of ours.
    elapsed: (Duration, Duration),
}

impl Verdict {
    fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.exit_codes.is_none() && !self.differs_again
    }

    fn add(&mut self, other: Self) {
        self.hits += other.hits;
        self.differences.extend(other.differences);
        self.exit_codes = self.exit_codes.take().or(other.exit_codes);
        self.differs_again |= other.differs_again;
        self.elapsed = (self.elapsed.0 + other.elapsed.0, self.elapsed.1 + other.elapsed.1);
    }

    fn print_details(&self) {
        if let Some(line) = &self.exit_codes {
            println!("    {line}");
        }
        if self.differs_again {
            println!("    the second answer, from memory, is another");
        }
        for difference in self.differences.iter().take(SHOWN_DIFFERENCES) {
            println!("    {difference}");
        }
        if self.differences.len() > SHOWN_DIFFERENCES {
            println!("    … {} differing objects in all", self.differences.len());
        }
    }
}

fn run_cases(bench: &Bench, flags: &DifferentialFlags) -> Result<()> {
    let mut totals = Totals::default();
    for case in cases::load(&data_dir())? {
        if flags.only.as_ref().is_some_and(|part| !case.name.contains(part)) {
            continue;
        }
        let corpora: Vec<_> =
            bench.corpora.iter().filter(|corpus| case.corpora.contains(&corpus.name)).collect();
        if corpora.is_empty() {
            println!("{:<40} skipped: none of its corpora is here", case.name);
            continue;
        }
        let mut verdict = Verdict::default();
        for corpus in corpora {
            let part = bench
                .compare(&case.args, corpus, case.unordered_labels)
                .with_context(|| format!("case {} in {}", case.name, corpus.name))?;
            verdict.add(part);
        }
        print_line(&case.name, &case.language, &verdict);
        totals.count(&case, &verdict);
    }
    totals.conclude(flags.only.is_none())
}

fn print_line(name: &str, language: &str, verdict: &Verdict) {
    let (oracle, ours) = (verdict.elapsed.0.as_millis(), verdict.elapsed.1.as_millis());
    let word = if verdict.is_equal() { "ok" } else { "DIFF" };
    println!(
        "{name:<40} {language:<11} {:>7} hits  {word:<4}  {oracle:>6} ms  {ours:>6} ms",
        verdict.hits
    );
    verdict.print_details();
}

/// The sums that decide whether a run proves anything.
#[derive(Debug, Default)]
struct Totals {
    cases: usize,
    patterns_with_hits: usize,
    rules_with_hits: usize,
    languages: BTreeSet<String>,
    hits: usize,
    different: Vec<String>,
    without_hits: Vec<String>,
    elapsed: (Duration, Duration),
}

impl Totals {
    fn count(&mut self, case: &Case, verdict: &Verdict) {
        self.cases += 1;
        self.hits += verdict.hits;
        self.elapsed = (self.elapsed.0 + verdict.elapsed.0, self.elapsed.1 + verdict.elapsed.1);
        if !verdict.is_equal() {
            self.different.push(case.name.clone());
        }
        if verdict.hits == 0 {
            self.without_hits.push(case.name.clone());
            return;
        }
        if case.is_rule {
            self.rules_with_hits += 1;
        } else {
            self.patterns_with_hits += 1;
        }
        if case.language != "-" {
            self.languages.insert(case.language.to_lowercase());
        }
    }

    /// Prints the sums; an error if anything differs or, with `minimum`, if too little was asked.
    fn conclude(&self, minimum: bool) -> Result<()> {
        let with_hits = self.patterns_with_hits + self.rules_with_hits;
        println!(
            "{} cases, {with_hits} with hits ({} patterns, {} rules, {} languages, {} hits), {} without, {} differ; \
             {} ms and {} ms",
            self.cases,
            self.patterns_with_hits,
            self.rules_with_hits,
            self.languages.len(),
            self.hits,
            self.without_hits.len(),
            self.different.len(),
            self.elapsed.0.as_millis(),
            self.elapsed.1.as_millis(),
        );
        println!("languages: {}", self.languages.iter().cloned().collect::<Vec<_>>().join(" "));
        if !self.without_hits.is_empty() {
            println!("without hits: {}", self.without_hits.join(" "));
        }
        if !self.different.is_empty() {
            bail!(
                "{} of {} cases differ: {}",
                self.different.len(),
                self.cases,
                self.different.join(" ")
            );
        }
        ensure!(self.cases > 0, "no case was run");
        if minimum {
            ensure!(
                self.patterns_with_hits >= MIN_PATTERNS
                    && self.rules_with_hits >= MIN_RULES
                    && self.languages.len() >= MIN_LANGUAGES,
                "too few cases with hits: {MIN_PATTERNS} patterns, {MIN_RULES} rules, {MIN_LANGUAGES} languages are needed"
            );
            ensure!(
                with_hits * 100 >= self.cases * MIN_PERCENT_WITH_HITS,
                "fewer than {MIN_PERCENT_WITH_HITS} % of the cases have hits"
            );
        }
        Ok(())
    }
}

/// A name is looked up on the PATH; a path is made absolute, because programs run elsewhere.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.components().count() == 1 {
        return Ok(path.to_owned());
    }
    path.canonicalize().with_context(|| format!("no program at {}", path.display()))
}

/// The binary that cargo put beside this one.
fn built_astscope() -> Result<PathBuf> {
    let this = std::env::current_exe().context("can't find my own executable")?;
    let path = this.with_file_name("astscope");
    ensure!(
        path.is_file(),
        "{} isn't built: `cargo build -p astscope-cli`, or give --astscope",
        path.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn case(name: &str, is_rule: bool, language: &str) -> Case {
        Case {
            name: name.to_owned(),
            language: language.to_owned(),
            corpora: Vec::new(),
            is_rule,
            args: Vec::new(),
            unordered_labels: false,
        }
    }

    fn enough() -> Totals {
        let mut totals = Totals::default();
        for n in 0..MIN_PATTERNS + MIN_RULES {
            let verdict = Verdict { hits: 1, ..Verdict::default() };
            totals.count(
                &case(&n.to_string(), n < MIN_RULES, &format!("l{}", n % MIN_LANGUAGES)),
                &verdict,
            );
        }
        totals
    }

    #[test]
    fn the_minimum_without_differences_passes() {
        assert!(enough().conclude(true).is_ok());
    }

    #[test]
    fn one_difference_fails_the_run_by_its_case() {
        let mut totals = enough();
        let verdict = Verdict {
            hits: 1,
            differences: vec![Difference::Extra(json!({}))],
            ..Verdict::default()
        };
        totals.count(&case("planted", false, "js"), &verdict);
        assert_eq!(totals.conclude(true).unwrap_err().to_string(), "1 of 91 cases differ: planted");
    }

    #[test]
    fn an_unequal_exit_code_is_a_difference() {
        let verdict = Verdict { exit_codes: Some("exit code".to_owned()), ..Verdict::default() };
        assert!(!verdict.is_equal());
    }

    #[test]
    fn cases_without_hits_do_not_count() {
        let mut totals = enough();
        totals.patterns_with_hits -= 1;
        assert!(totals.conclude(true).unwrap_err().to_string().starts_with("too few cases"));
        assert!(totals.conclude(false).is_ok());
    }

    #[test]
    fn too_many_cases_without_hits_fail_the_run() {
        let mut totals = enough();
        for _ in 0..30 {
            totals.count(&case("empty", false, "js"), &Verdict::default());
        }
        assert_eq!(
            totals.conclude(true).unwrap_err().to_string(),
            "fewer than 80 % of the cases have hits"
        );
    }

    #[test]
    fn a_run_without_any_case_fails() {
        assert!(Totals::default().conclude(false).is_err());
    }
}
