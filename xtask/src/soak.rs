//! The race test: whether answers are right while the tree changes under the daemon.
//!
//! Deeds at random, of which the seed says all, over a repository of its own. After each, with the
//! tree held still, a question whose answer must be that of somebody who reads everything anew; all
//! the time other clients, whose answers may show what was there while they waited, and nothing
//! older. Then what is too much for the kernel's event queue, and what nobody should look at.
#![expect(clippy::print_stdout, reason = "its output is the report")]

mod clients;
mod deed;
mod faults;
mod ground;
mod journal;
mod peer;
mod question;
mod report;
mod truth;

use crate::chaos::house::House;
use crate::chaos::{Random, binary, seed_of_now};
use crate::flags::SoakFlags;
use anyhow::{Context as _, Result, bail, ensure};
use astscope_protocol::Client;
use astscope_syntax::Language;
use clients::{Asked, Refusal, ask};
use deed::{Deed, Done, Hand, Listing};
use ground::Ground;
use journal::{Journal, Span, Touched};
use peer::Peer;
use question::{Answer, Matcher, Question};
use report::Report;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};
use truth::Truth;

/// Answers that wait to be judged.
const UNJUDGED_MAX: usize = 32;

/// Of those so many are judged after each step.
const JUDGED_MAX: usize = 8;

/// What they ask for. Files that a plain walk doesn't find are found by nobody here: a language would
/// bring hidden ones.
const THEIRS: [Matcher; 1] = [Matcher::Pattern(None)];

/// What is asked when all is over.
const ALL: [Matcher; 5] = [
    Matcher::Pattern(None),
    Matcher::Pattern(Some(Language::JavaScript)),
    Matcher::Pattern(Some(Language::Python)),
    Matcher::Pattern(Some(Language::Elixir)),
    Matcher::Rule,
];

/// The short form's seed: each run of CI does the same.
const SHORT_SEED: u64 = 20_261_122;

/// How much is done.
struct Form {
    n_steps: u64,
    /// Made-up files.
    n_files: usize,
    /// Clients that ask while the tree changes.
    n_clients: usize,
    /// How long each of them rests between two questions.
    rest: Duration,
    n_bursts: u64,
    flood: Duration,
}

const LONG: Form = Form {
    n_steps: 10_000,
    n_files: 400,
    n_clients: 3,
    rest: Duration::from_millis(30),
    n_bursts: 4,
    flood: Duration::from_secs(5),
};

/// A debug build on two cores is done in half a minute.
const SHORT: Form = Form {
    n_steps: 300,
    n_files: 120,
    n_clients: 2,
    rest: Duration::from_millis(20),
    n_bursts: 1,
    flood: Duration::from_secs(1),
};

/// After so many steps the peer is asked, too: in the long form more than 500 times.
const PEER_EVERY: u64 = 19;

/// The race test in the form that `flags` ask for.
pub fn run(flags: &SoakFlags) -> Result<()> {
    let binary = binary(flags.binary.as_deref())?;
    let form = if flags.short { SHORT } else { LONG };
    let n_steps = flags.steps.unwrap_or(form.n_steps);
    let otherwise = || if flags.short { SHORT_SEED } else { seed_of_now() };
    let seed = flags.seed.unwrap_or_else(otherwise);
    let corpus = flags.corpus.as_ref().map(|dir| format!(" --corpus {}", dir.display()));
    let replay = format!(
        "--steps {n_steps} --seed {seed}{}{}",
        if flags.short { " --short" } else { "" },
        corpus.unwrap_or_default()
    );
    println!("replay with: {replay}");
    let mut random = Random::new(seed);
    let ground = Ground::new(flags.corpus.as_deref(), form.n_files, &mut random)?;
    let peer = Peer::find(flags.ast_grep.as_deref(), &ground.home())?;
    let house = House::start(&binary)?;
    let opened = house.open(&ground.root)?;
    println!("{} files, {} of them parsed", opened.files_seen, opened.files_parsed);
    // A link may lead there, and somebody may ask for what is behind it.
    house.open(&ground.outside)?;
    // What is only made when many ask is there from here on.
    std::thread::scope(|scope| {
        let warming: Vec<_> =
            (0..=form.n_clients).map(|_| scope.spawn(|| warm(&house, &ground))).collect();
        warming.into_iter().try_for_each(|it| it.join().ok().context("a client panicked")?)
    })?;
    let client = house.client()?;
    let before = house.rested(None)?;

    let top = Listing::of(&ground.root)?.directories;
    let spared: Vec<String> = top.into_iter().filter(|it| !it.contains('/')).take(2).collect();
    let mut truth = Truth::new(&binary, &ground.root)?;
    let journal = Journal::new(truth.tree()?);
    let (tell, answers) = sync_channel(UNJUDGED_MAX);
    let mut soak = Soak {
        ground: &ground,
        house: &house,
        client,
        hand: Hand::new(&ground, random, &spared)?,
        truth,
        journal,
        peer,
        is_peer_due: false,
        report: Report::new(n_steps),
        within: Vec::new(),
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..form.n_clients {
            let (tell, socket) = (tell.clone(), house.socket());
            let (over, root, spared) = (&over, &*ground.root, &*spared);
            let rest = form.rest;
            scope.spawn(move || {
                clients::live((socket, root), (&THEIRS, spared), rest, over, &tell);
            });
        }
        drop(tell);
        let done = soak.steps(n_steps, form.n_bursts, &answers);
        over.store(true, Ordering::Relaxed);
        // Those that are still being given are judged as well.
        let done = done.and_then(|()| answers.iter().try_for_each(|asked| soak.judge(asked)));
        // After a failure somebody may wait to be heard.
        drop(answers);
        done
    })
    .map_err(|error| soak.report.explain(&error, &replay))?;
    soak.end(form.flood).map_err(|error| soak.report.explain(&error, &replay))?;
    soak.report.print()?;
    let after = house.rested(Some(&before))?;
    println!("before {before:?}\nafter  {after:?}");
    Ok(())
}

/// Asks everything once for each matcher, several times.
fn warm(house: &House, ground: &Ground) -> Result<()> {
    let mut client = house.client()?;
    for matcher in ALL.iter().cycle().take(ALL.len() * 4) {
        Question::all(*matcher).ask(&mut client, &ground.root)?;
    }
    Ok(())
}

/// Everybody who takes part.
struct Soak<'a> {
    ground: &'a Ground,
    house: &'a House,
    client: Client,
    hand: Hand<'a>,
    truth: Truth,
    journal: Journal,
    peer: Option<Peer>,
    /// Whether the peer is to be asked as soon as the question is one for it.
    is_peer_due: bool,
    report: Report,
    /// What was asked in the middle of a deed, and isn't judged yet.
    within: Vec<Asked>,
}

impl Soak<'_> {
    fn steps(&mut self, n_steps: u64, n_bursts: u64, answers: &Receiver<Asked>) -> Result<()> {
        let mut n_done = 0;
        for n in 1..=n_steps {
            let n_due = (n * (n_bursts + 1) / n_steps).min(n_bursts);
            if n_done < n_due && !self.hand.is_root_away() {
                n_done += 1;
                let (span, done) = faults::burst(self.house, self.ground, &mut self.hand)?;
                self.judge_step(n, None, span, done)?;
            }
            let deed = self.hand.choose()?;
            let (span, done) = self.perform(deed);
            self.judge_step(n, Some(deed), span, done)?;
            // No more than that, or clients that ask faster than this judges would be all there is.
            for asked in answers.try_iter().take(JUDGED_MAX) {
                self.judge(asked)?;
            }
        }
        Ok(())
    }

    /// Does a deed, and judges what is asked in the middle of it once that is over.
    fn perform(&mut self, deed: Deed) -> (Span, Done) {
        let (client, root, within) = (&mut self.client, &self.ground.root, &mut self.within);
        let began = Instant::now();
        let done = self.hand.perform(deed, &mut || {
            let question = Question { with_source: true, ..Question::all(THEIRS[0]) };
            let (span, told) = ask(client, &question, root);
            let told = told.map_err(|error| Refusal::of(&error));
            within.push(Asked { span, matcher: THEIRS[0], below: None, told });
            Ok(())
        });
        let ended = Instant::now();
        // A link may have led to a directory that is gone: then little or nothing was done.
        let done = done.unwrap_or_else(|error| Done {
            what: format!("{deed:?} in vain: {error:#}"),
            touched: Touched { unknown: true, ..Touched::default() },
            about: None,
        });
        (Span { began, ended }, done)
    }

    /// Asks what must be answered exactly, as nothing changes meanwhile, and looks what is there.
    fn judge_step(&mut self, n: u64, deed: Option<Deed>, span: Span, done: Done) -> Result<()> {
        let question = self.question(n, done.about.as_deref());
        self.report.note(n, deed, &done.what);
        let (asked, told) = ask(&mut self.client, &question, &self.ground.root);
        self.report.asked(asked);
        self.truth.forget();
        let tree = self.truth.tree()?;
        self.journal.note(span, done.touched, tree);
        for asked in std::mem::take(&mut self.within) {
            self.judge(asked)?;
        }
        let told = told.with_context(|| format!("no answer to {question:?}"))?;
        self.is_peer_due |= n.is_multiple_of(PEER_EVERY);
        let peer = self.peer.as_ref().filter(|_| self.is_peer_due);
        if let Some(freshness) = &told.freshness {
            self.report.inexact(freshness);
            return Ok(());
        }
        let expected = self.truth.answer(&question)?;
        self.report.exact(&expected);
        if let Some(difference) = difference(&told.answer, &expected) {
            bail!("the answer to {question:?} is another than the tree's\n{difference}");
        }
        if let Some(peer) = peer
            && let Some(theirs) = peer.ask(&question, &self.ground.root)?
        {
            let ours = peer::places(&told.answer)?;
            self.is_peer_due = false;
            self.report.n_peer += 1;
            ensure!(
                ours == theirs,
                "ast-grep answers {question:?} otherwise: {}",
                peer::differ(&ours, &theirs)
            );
        }
        Ok(())
    }

    /// Judges what a client was told while the tree changed.
    fn judge(&mut self, asked: Asked) -> Result<()> {
        let Asked { span, matcher, below, told } = asked;
        let truth = &mut self.truth;
        match told {
            Ok(told) => {
                if let Some(freshness) = &told.freshness {
                    self.report.inexact(freshness);
                    return Ok(());
                }
                let mut finds = |matcher, text: &_| truth.finding(matcher, text);
                let verdict =
                    self.journal.judge(span, matcher, below.as_deref(), &told, &mut finds)?;
                self.report.concurrent(span, &verdict);
                ensure!(
                    verdict.wrong.is_empty(),
                    "a client was told what can't be, {} ms ago within {} ms{}:\n  {}",
                    span.ended.elapsed().as_millis(),
                    (span.ended - span.began).as_millis(),
                    below.map(|below| format!(", about {below}")).unwrap_or_default(),
                    verdict.wrong.join("\n  ")
                );
            }
            Err(refusal) => {
                let had_no_root = refusal.is_missing
                    && (self.journal.tree().is_empty() || self.journal.was_anything_possible(span));
                ensure!(
                    refusal.is_retryable || had_no_root,
                    "a question failed, and asking again may be in vain: {}",
                    refusal.text
                );
                self.report.refused(&refusal.text);
            }
        }
        Ok(())
    }

    /// What is asked after this step: each shape in turn, about what was just done where it can be.
    fn question(&mut self, n: u64, about: Option<&str>) -> Question {
        let own = Matcher::Pattern(None);
        let in_language = |language| Matcher::Pattern(Some(language));
        let (file, directory) = self.hand.pick();
        let about = about.map_or_else(|| file.clone(), str::to_owned);
        match n % 11 {
            0 => Question { follow: true, ..Question::all(own) },
            1 => Question::of(own, vec![directory]),
            2 | 3 => Question::of(own, vec![about]),
            4 => Question::of(own, vec![about, directory, file]),
            5 => Question::all(in_language(Language::JavaScript)),
            6 => Question {
                globs: vec!["*.{js,py,ex}".to_owned(), "!made*.py".to_owned()],
                ..Question::all(own)
            },
            7 => Question::all(Matcher::Rule),
            8 => Question {
                hidden: self.hand.below(2) == 0,
                no_vcs: self.hand.below(2) == 0,
                ..Question::all(own)
            },
            9 => Question::of(in_language(Language::Python), vec![directory, about]),
            _ => Question::all(own),
        }
    }

    /// When nobody changes the tree any more.
    fn end(&mut self, flood: Duration) -> Result<()> {
        while self.hand.is_root_away() {
            let (span, done) = self.perform(Deed::RootBack);
            self.judge_step(0, Some(Deed::RootBack), span, done)?;
        }
        let flood = faults::flood(self.house, self.ground, flood, || {
            let question = Question::all(THEIRS[0]);
            let told = question.ask(&mut self.client, &self.ground.root)?;
            self.truth.forget();
            let expected = self.truth.answer(&question)?;
            ensure!(told.freshness.is_some() || told.answer == expected, "it is wrong in a flood");
            Ok(())
        })?;
        println!("\n{flood}");
        self.truth.forget();
        for matcher in ALL {
            let question = Question::all(matcher);
            let told = question.ask(&mut self.client, &self.ground.root)?;
            let expected = self.truth.answer(&question)?;
            ensure!(told.freshness.is_none(), "it doesn't get exact: {:?}", told.freshness);
            if let Some(difference) = difference(&told.answer, &expected) {
                bail!("when all was over, {question:?} was answered otherwise\n{difference}");
            }
        }
        faults::no_drift(&mut self.client)
    }
}

/// How two answers differ, in a few lines, if they do.
fn difference(told: &Answer, expected: &Answer) -> Option<String> {
    if told == expected {
        return None;
    }
    let mut lines = Vec::new();
    for file in &expected.files {
        match told.files.iter().find(|it| it.file == file.file) {
            None => lines.push(format!("{} is missing", file.file)),
            Some(other) if other.content != file.content => {
                lines.push(format!("{} is another text: {other:?}", file.file));
            }
            Some(other) if other != file => {
                lines.push(format!("{}: {:?}, not {:?}", file.file, other.matches, file.matches));
            }
            Some(_) => {}
        }
    }
    let is_expected = |name: &str| expected.files.iter().any(|it| it.file == name);
    let surplus = told.files.iter().filter(|it| !is_expected(&it.file));
    lines.extend(surplus.map(|it| format!("{} doesn't belong", it.file)));
    let skips = told.skipped.symmetric_difference(&expected.skipped);
    lines.extend(skips.map(|skip| {
        let by = if told.skipped.contains(skip) { "it says" } else { "it should say" };
        format!("{} skipped: {by} {}", skip.0, skip.1)
    }));
    if lines.is_empty() {
        lines.push("the order, or how often a file comes".to_owned());
    }
    let n_more = lines.len().saturating_sub(10);
    lines.truncate(10);
    Some(format!("  {}\n  and {n_more} more", lines.join("\n  ")))
}

/// Sends a signal to the daemon.
fn signal(pid: u32, name: &str) -> Result<()> {
    let mut kill = std::process::Command::new("kill");
    let status = kill.args([name, &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot send {name}");
    Ok(())
}

#[cfg(test)]
mod tests;
