//! What was done and told, counted, and shown while it runs and at its end.

use super::deed::Deed;
use super::journal::{Span, Verdict};
use super::question::Answer;
use crate::chaos::percentile;
use anyhow::{Error, Result, anyhow, ensure};
use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Deeds that are shown when something is wrong.
const LAST: usize = 20;

/// Of a hundred answers, so many at most may be marked as not exact.
const INEXACT_MAX: u64 = 2;

/// Of a hundred deeds, so many at most may be in vain.
const VAIN_MAX: u64 = 5;

/// Time between two lines, where lines can't be written over.
const LINE_EVERY: Duration = Duration::from_mins(1);

pub(super) struct Report {
    n_steps: u64,
    began: Instant,
    shown: Instant,
    at: u64,
    n_vain: u64,
    deeds: BTreeMap<String, u64>,
    last: VecDeque<String>,
    exact: Vec<Duration>,
    concurrent: Vec<Duration>,
    inexact: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    n_matches: u64,
    n_torn: u64,
    /// Answers that ast-grep gave as well.
    pub(super) n_peer: u64,
}

impl Report {
    pub(super) fn new(n_steps: u64) -> Self {
        Self {
            n_steps,
            began: Instant::now(),
            shown: Instant::now(),
            at: 0,
            n_vain: 0,
            deeds: BTreeMap::new(),
            last: VecDeque::new(),
            exact: Vec::new(),
            concurrent: Vec::new(),
            inexact: BTreeMap::new(),
            refused: BTreeMap::new(),
            n_matches: 0,
            n_torn: 0,
            n_peer: 0,
        }
    }

    /// A deed was done.
    pub(super) fn note(&mut self, step: u64, deed: Option<Deed>, what: &str) {
        self.at = step;
        let name = deed.map_or_else(|| "Burst".to_owned(), |deed| format!("{deed:?}"));
        self.n_vain += u64::from(what.contains("in vain") || what == "nothing");
        self.last.push_back(format!("{step:>6} {name}: {what}"));
        *self.deeds.entry(name).or_default() += 1;
        if self.last.len() > LAST {
            self.last.pop_front();
        }
        let line = || {
            let seconds = self.began.elapsed().as_secs();
            format!(
                "step {step} of {}, {seconds} s, {} other answers",
                self.n_steps,
                self.concurrent.len()
            )
        };
        if std::io::stdout().is_terminal() {
            print!("\r{}", line());
            // It is only to be seen.
            drop(std::io::stdout().flush());
        } else if self.shown.elapsed() > LINE_EVERY {
            println!("{}", line());
            self.shown = Instant::now();
        }
    }

    pub(super) fn asked(&mut self, span: Span) {
        self.exact.push(span.ended - span.began);
    }

    pub(super) fn exact(&mut self, answer: &Answer) {
        self.n_matches += answer.files.iter().map(|file| file.matches.len() as u64).sum::<u64>();
    }

    pub(super) fn concurrent(&mut self, span: Span, verdict: &Verdict) {
        self.concurrent.push(span.ended - span.began);
        self.n_torn += verdict.n_torn;
    }

    pub(super) fn inexact(&mut self, freshness: &str) {
        *self.inexact.entry(freshness.to_owned()).or_default() += 1;
    }

    pub(super) fn refused(&mut self, why: &str) {
        *self.refused.entry(why.to_owned()).or_default() += 1;
    }

    /// An error with all that somebody needs to see it again.
    pub(super) fn explain(&self, error: &Error, replay: &str) -> Error {
        let last: Vec<&str> = self.last.iter().map(String::as_str).collect();
        let (at, last) = (self.at, last.join("\n"));
        anyhow!("{error:#}\nat step {at}, replay with: {replay}\nthe last deeds:\n{last}")
    }

    /// Shows everything, and fails if too little of it was worth anything.
    pub(super) fn print(&self) -> Result<()> {
        println!("{:?}", self.deeds);
        let shown = |name: &str, times: &[Duration]| {
            let ms = |percent| percentile(times, percent).as_secs_f64() * 1000.0;
            let (p50, p95, max) = (ms(50), ms(95), ms(100));
            println!("{} {name}, ms: p50 {p50:.1}, p95 {p95:.1}, max {max:.1}", times.len());
        };
        shown("exact answers, each asked right after a deed", &self.exact);
        shown("answers while the tree changed", &self.concurrent);
        println!("{} matches; {} files seen half-written", self.n_matches, self.n_torn);
        println!("{} answers equal ast-grep's", self.n_peer);
        println!("not exact: {:?}; refused: {:?}", self.inexact, self.refused);
        let n_inexact: u64 = self.inexact.values().sum();
        let n_answers = (self.exact.len() + self.concurrent.len()) as u64;
        println!("{:.0} s, no difference", self.began.elapsed().as_secs_f64());
        ensure!(n_inexact * 100 <= n_answers * INEXACT_MAX, "too few answers were exact");
        let n_refused: u64 = self.refused.values().sum();
        ensure!(n_refused * 100 <= n_answers, "too many questions were refused");
        ensure!(self.n_vain * 100 <= self.n_steps * VAIN_MAX + 300, "too little was done");
        ensure!(self.n_matches > 0, "nothing was ever found");
        Ok(())
    }
}
