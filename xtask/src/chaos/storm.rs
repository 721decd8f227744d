//! Faults at random below every limit, and then beyond the limits of a workspace and of the root.

use super::house::{House, MARKER, Node, PATIENCE, pause};
use super::load::{Asker, Load, POISON, oracle};
use super::{Askers, Ground, RECOVERY_MAX, Random, judge};
use anyhow::{Context, Result, bail, ensure};
use astscope_protocol::messages::FaultKind;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// A restart is charged when it happens, which is some time after a hang began.
const CHARGE_MARGIN: Duration = Duration::from_secs(3);

/// Of what a supervisor bears, so many stay in reserve: it is charged for what fails by itself, too.
const RESERVE: usize = 1;

/// How parsers can be hurt by a file.
const POISONS: [&str; 6] = ["abort", "overflow", "garbage", "flood", "kill", "eat"];

/// What is done to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Kill,
    Panic,
    Error,
    Hang,
    Slow,
    Poison,
    KillParser,
}

/// Hurts nodes, and minds that no supervisor has to bear more than it can.
struct Storm<'a> {
    ground: &'a Ground,
    house: &'a House,
    random: &'a mut Random,
    charged: BTreeMap<String, VecDeque<Instant>>,
    deeds: BTreeMap<Deed, u64>,
    /// Those of the last faults that have to be new, and their incarnations before.
    hurt: BTreeMap<String, u64>,
    poisons: Vec<PathBuf>,
}

/// The first phase: nobody may notice much.
pub(super) fn below_the_limits(ground: &Ground, time: Duration, random: &mut Random) -> Result<()> {
    let house = ground.house()?;
    // What is only made when it is needed is there from here on.
    let warmed = ground.under_load(&house, Askers::Retrying, |_| {
        pause(Duration::from_millis(500));
        Ok(())
    });
    judge(&warmed?.1)?;
    let before = house.rested(None)?;
    let mut storm = Storm {
        ground,
        house: &house,
        random,
        charged: BTreeMap::new(),
        deeds: BTreeMap::new(),
        hurt: BTreeMap::new(),
        poisons: Vec::new(),
    };
    let (recovered, tally) =
        ground.under_load(&house, Askers::Retrying, |load| storm.rage(load, time))?;
    println!("{:?}; all up {} ms after the last fault", storm.deeds, recovered.as_millis());
    judge(&tally)?;
    ensure!(recovered < RECOVERY_MAX, "it took too long until all was up");
    let after = house.rested(Some(&before))?;
    println!("before {before:?}\nafter  {after:?}");
    Ok(())
}

impl Storm<'_> {
    /// Does deeds until the time is over, then waits until all is well, and says how long that took.
    fn rage(&mut self, load: &Load, time: Duration) -> Result<Duration> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let n_answered = load.n_answered();
            self.strike()?;
            let rest = Duration::from_millis(100 + self.random.below(500) as u64);
            pause(rest);
            // A storm that lets nobody be answered would prove nothing.
            let began = Instant::now();
            while load.n_answered() == n_answered {
                ensure!(began.elapsed() < PATIENCE, "nobody is answered any more");
                pause(Duration::from_millis(1));
            }
        }
        let last = Instant::now();
        for poison in self.poisons.drain(..) {
            std::fs::remove_file(poison)?;
        }
        loop {
            let now = self.house.look()?;
            let is = now.walk();
            let waiting: Vec<_> = self
                .hurt
                .iter()
                .filter(|(path, was)| is.get(*path).is_none_or(|now| now.incarnation <= **was))
                .map(|(path, _)| path.as_str())
                .chain(
                    is.iter().filter(|(_, node)| !is_settled(node)).map(|(path, _)| path.as_str()),
                )
                .collect();
            if waiting.is_empty() {
                break;
            }
            ensure!(last.elapsed() < PATIENCE, "{waiting:?} don't come back");
            pause(Duration::from_millis(1));
        }
        let recovered = last.elapsed();
        ensure!(
            oracle(&self.house.socket(), &self.ground.tree)? == self.ground.oracle,
            "an answer is another when all is over"
        );
        Ok(recovered)
    }

    fn strike(&mut self) -> Result<()> {
        let deed = match self.random.below(10) {
            0..=2 => Deed::Kill,
            3 => Deed::Panic,
            4 => Deed::Error,
            5 | 6 => Deed::Hang,
            7 => Deed::Slow,
            8 => Deed::Poison,
            _ => Deed::KillParser,
        };
        let done = match deed {
            Deed::Poison => self.poison()?,
            Deed::KillParser => self.kill_parser()?,
            _ => self.hurt(deed)?,
        };
        *self.deeds.entry(deed).or_default() += u64::from(done);
        Ok(())
    }

    fn hurt(&mut self, deed: Deed) -> Result<bool> {
        let root = self.house.look()?;
        let nodes = root.walk();
        let only_workers = deed != Deed::Kill;
        let candidates: Vec<_> = nodes
            .iter()
            .filter(|(_, node)| node.state == "up" && node.degrade_ms.is_none())
            .filter(|(_, node)| node.is_worker() || !only_workers)
            .map(|(path, node)| (path.as_str(), node.incarnation))
            .collect();
        let Some((path, incarnation)) = candidates.get(self.random.below(candidates.len())) else {
            return Ok(false);
        };
        let above = path.rsplit_once('/').map_or("", |(above, _)| above);
        let Some(parent) = root.at(above) else { return Ok(false) };
        let bears = parent.intensity.unwrap_or(0).saturating_sub(RESERVE);
        let period = Duration::from_millis(parent.period_ms.unwrap_or(0)) + CHARGE_MARGIN;
        let charged = self.charged.entry(above.to_owned()).or_default();
        while charged.front().is_some_and(|at| at.elapsed() > period) {
            charged.pop_front();
        }
        if deed != Deed::Slow {
            if charged.len() >= bears {
                return Ok(false);
            }
            charged.push_back(Instant::now());
            // One that is hurt twice is new twice, or was hurt while it was down: once is enough.
            self.hurt.insert((*path).to_owned(), *incarnation);
        }
        match deed {
            Deed::Panic => self.house.fault(path, FaultKind::Panic, None)?,
            Deed::Error => self.house.fault(path, FaultKind::Error, None)?,
            Deed::Hang => self.house.fault(path, FaultKind::Hang, None)?,
            Deed::Slow => self.house.fault(path, FaultKind::Slow, Some(300))?,
            Deed::Kill | Deed::Poison | Deed::KillParser => self.house.kill(path)?,
        }
        Ok(true)
    }

    fn poison(&mut self) -> Result<bool> {
        let how = POISONS[self.random.below(POISONS.len())];
        let n = self.poisons.len();
        let path = self.ground.tree.join(format!("{POISON}-{n}.js"));
        std::fs::write(&path, format!("f('{MARKER}{how} {n}')\n"))?;
        self.poisons.push(path);
        Ok(true)
    }

    fn kill_parser(&mut self) -> Result<bool> {
        let parsers = self.house.parsers()?;
        let Some(pid) = parsers.get(self.random.below(parsers.len())) else { return Ok(false) };
        Ok(Command::new("kill").args(["-KILL", &pid.to_string()]).status()?.success())
    }
}

/// Up, or down because it chose to be, which only one does that is never started again.
fn is_settled(node: &Node) -> bool {
    matches!(node.state.as_str(), "up" | "down")
}

/// Services that fail more often than a workspace bears degrade it, alone, until its cooldown is
/// over; then it answers as before.
pub(super) fn a_workspace_beyond_its_limit(ground: &Ground) -> Result<()> {
    let house = ground.house()?;
    let other = super::generate()?;
    house.open(other.path())?;
    let workspaces = |root: &Node| -> Result<(String, Vec<String>)> {
        let all = root.at("workspaces").context("no workspaces")?;
        let first = all.children.first().context("no workspace")?;
        let below = first.walk().into_iter().filter(|(_, node)| node.is_worker());
        let workers = below.map(|(path, _)| format!("workspaces/{}/{path}", first.id)).collect();
        Ok((format!("workspaces/{}", first.id), workers))
    };
    let (path, workers) = workspaces(&house.look()?)?;
    let began = Instant::now();
    'beyond: loop {
        for worker in &workers {
            house.kill(worker)?;
            if house.look()?.at(&path).is_some_and(|node| node.state == "degraded") {
                break 'beyond;
            }
        }
        ensure!(began.elapsed() < PATIENCE, "{path} bears everything");
    }
    let degraded = Instant::now();
    let mut elsewhere = Asker::retrying(house.socket());
    let (pattern, expected) = ground.oracle.iter().next().context("no pattern")?;
    ensure!(!elsewhere.ask(other.path(), pattern)?.is_empty(), "another workspace is affected");
    ensure!(
        house.look()?.at(&path).is_some_and(|node| node.state == "degraded"),
        "{path} came back at once"
    );
    // A query waits for the cooldown's end, or is told to come again.
    let mut here = Asker::retrying(house.socket());
    let answer = loop {
        match here.ask(&ground.tree, pattern) {
            Ok(answer) => break answer,
            Err(error) if degraded.elapsed() > PATIENCE => bail!("it is never answered: {error}"),
            Err(_) => pause(Duration::from_millis(50)),
        }
    };
    ensure!(&answer == expected, "the answer is another after the cooldown");
    println!("{path} degraded after {} ms, others answered", (degraded - began).as_millis());
    println!("it answered again after {} ms", degraded.elapsed().as_millis());
    Ok(())
}

/// Subsystems that fail more often than the root bears end the daemon, with an exit status that says
/// so, and the next one answers as before.
pub(super) fn the_root_beyond_its_limit(ground: &Ground) -> Result<()> {
    let mut house = ground.house()?;
    let began = Instant::now();
    while house.try_look().is_ok() {
        // In vain once it is gone.
        if house.kill("one_shot").is_err() {
            break;
        }
        ensure!(began.elapsed() < PATIENCE, "the root bears everything");
    }
    let status = house.succeed(&ground.binary)?;
    ensure!(status.code() == Some(69), "a daemon that gave up ended with {status}");
    house.open(&ground.tree)?;
    ensure!(
        oracle(&house.socket(), &ground.tree)? == ground.oracle,
        "the next daemon answers otherwise"
    );
    println!("beyond the root's limit the daemon ended with {status}; the next one answered");
    Ok(())
}
