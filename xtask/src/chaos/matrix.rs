//! The kill matrix: each permanent node is ended once while clients ask. Who is started again has to
//! be whom the strategies say, and how long that takes is shown.

use super::house::{House, Node, pause};
use super::load::{Load, Tally};
use super::{Ground, RECOVERY_MAX, judge, percentile};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What became of one kill.
struct Blow {
    path: String,
    is_worker: bool,
    renewed: usize,
    recovery: Duration,
    next_answer: Duration,
}

pub(super) fn run(ground: &Ground, rounds: usize) -> Result<()> {
    let (mut blows, mut told) = (Vec::new(), Tally::default());
    for _ in 0..rounds {
        for group in groups(&ground.house()?.look()?) {
            let house = ground.house()?;
            let (done, tally) = ground.under_load(&house, |load| {
                group.iter().map(|path| strike(&house, load, path)).collect::<Result<Vec<_>>>()
            })?;
            blows.extend(done);
            told.n_asked += tally.n_asked;
            told.failed.extend(tally.failed);
            told.wrong.extend(tally.wrong);
            told.slowest = told.slowest.max(tally.slowest);
        }
    }
    println!("{:<64} {:>7} {:>8} {:>8}", "killed", "renewed", "up, ms", "answer");
    for Blow { path, renewed, recovery, next_answer, .. } in &blows {
        let (up, answer) = (millis(*recovery), millis(*next_answer));
        println!("{path:<64} {renewed:>7} {up:>8} {answer:>8}");
    }
    let workers: Vec<_> =
        blows.iter().filter(|blow| blow.is_worker).map(|blow| blow.recovery).collect();
    let all: Vec<_> = blows.iter().map(|blow| blow.recovery).collect();
    println!(
        "{} nodes: workers up within {} ms in 95 of 100 cases, all within {} ms",
        blows.len(),
        millis(percentile(&workers, 95)),
        millis(percentile(&all, 100))
    );
    judge(&told)?;
    ensure!(percentile(&all, 100) < RECOVERY_MAX, "a node took too long to come back");
    Ok(())
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1000.0)
}

/// All nodes, in as many groups as there have to be for no supervisor to bear more than it can.
fn groups(root: &Node) -> Vec<Vec<String>> {
    let mut groups: Vec<(Vec<String>, BTreeMap<String, usize>)> = Vec::new();
    for (path, node) in root.walk() {
        // A firewall lets its cooldown pass first: `chaos` has that.
        if node.degrade_ms.is_some() {
            continue;
        }
        let above = path.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
        let bears = root.at(&above).and_then(|parent| parent.intensity).unwrap_or(1);
        let is_free = |(_, n): &(_, BTreeMap<_, _>)| n.get(&above).is_none_or(|n| *n < bears);
        if !groups.iter().any(is_free) {
            groups.push(<_>::default());
        }
        let Some((group, n_of)) = groups.iter_mut().find(|group| is_free(group)) else { continue };
        group.push(path);
        *n_of.entry(above).or_default() += 1;
    }
    groups.into_iter().map(|(group, _)| group).collect()
}

/// Ends one node, and waits until all that was up is up again and somebody was answered.
fn strike(house: &House, load: &Load, path: &str) -> Result<Blow> {
    let before = house.look()?;
    let node = before.at(path).with_context(|| format!("{path} is no more"))?;
    let (must, may) = before.renewed_with(path);
    let was: BTreeMap<String, u64> =
        before.walk().into_iter().map(|(path, node)| (path, node.incarnation)).collect();
    let n_answered = load.n_answered();
    let began = Instant::now();
    house.kill(path)?;
    let recovery = loop {
        let now = house.look()?;
        let is = now.walk();
        let renewed: BTreeSet<String> = was
            .iter()
            .filter(|(path, was)| is.get(*path).is_some_and(|now| now.incarnation > **was))
            .map(|(path, _)| path.clone())
            .collect();
        let too_many: Vec<_> = renewed.difference(&(&must | &may)).cloned().collect();
        ensure!(too_many.is_empty(), "{path} was killed, and {too_many:?} renewed with it");
        let is_up = must.iter().all(|path| {
            is.get(path).is_some_and(|node| node.state == "up" || was_down(&before, path))
        });
        let missing: Vec<_> =
            must.difference(&renewed).filter(|path| !was_down(&before, path)).collect();
        if is_up && missing.is_empty() {
            break began.elapsed();
        }
        ensure!(
            began.elapsed() < RECOVERY_MAX * 5,
            "{path} was killed, and {missing:?} not renewed"
        );
        pause(Duration::from_micros(500));
    };
    while load.n_answered() == n_answered {
        ensure!(began.elapsed() < RECOVERY_MAX * 5, "nobody is answered any more");
        pause(Duration::from_micros(500));
    }
    let (is_worker, renewed) = (node.is_worker(), must.len());
    Ok(Blow { path: path.to_owned(), is_worker, renewed, recovery, next_answer: began.elapsed() })
}

/// Whether a node chose not to run.
fn was_down(before: &Node, path: &str) -> bool {
    before.at(path).is_some_and(|node| node.state != "up")
}
