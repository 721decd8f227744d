//! The kill matrix: each permanent node is ended once while clients ask. Who is started again has to
//! be whom the strategies say, what fails only what ran there, and how long it takes is shown.

use super::house::{House, Node, pause};
use super::load::{Failure, Load, Tally};
use super::{Askers, Ground, RECOVERY_MAX, judge, percentile};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// What became of one kill.
struct Blow {
    path: String,
    is_worker: bool,
    renewed: usize,
    failed: usize,
    recovery: Duration,
    next_answer: Duration,
}

pub(super) fn run(ground: &Ground, rounds: usize) -> Result<()> {
    let (mut blows, mut told) = (Vec::new(), Tally::default());
    for _ in 0..rounds {
        for group in groups(&ground.house()?.look()?) {
            let house = ground.house()?;
            let (done, tally) = ground.under_load(&house, Askers::All, |load| {
                group.iter().map(|path| strike(&house, load, path)).collect::<Result<Vec<_>>>()
            })?;
            blows.extend(done);
            ensure!(tally.failed.is_empty(), "failed after all was over: {:?}", tally.failed);
            told.n_asked += tally.n_asked;
            told.wrong.extend(tally.wrong);
            told.slowest = told.slowest.max(tally.slowest);
        }
    }
    println!("{:<64} {:>7} {:>8} {:>8} {:>6}", "killed", "renewed", "up, ms", "answer", "failed");
    for Blow { path, renewed, recovery, next_answer, failed, .. } in &blows {
        let (up, answer) = (millis(*recovery), millis(*next_answer));
        println!("{path:<64} {renewed:>7} {up:>8} {answer:>8} {failed:>6}");
    }
    let workers: Vec<_> =
        blows.iter().filter(|blow| blow.is_worker).map(|blow| blow.recovery).collect();
    let all: Vec<_> = blows.iter().map(|blow| blow.recovery).collect();
    println!(
        "{} kills cost {} queries; workers up within {} ms in 95 of 100 cases, all within {} ms",
        blows.len(),
        blows.iter().map(|blow| blow.failed).sum::<usize>(),
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

/// Ends one node, and waits until all that was up is up again, and each client was answered a query
/// that it asked after that. So no query is hit by two kills.
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
    let all_up = Instant::now();
    while load.n_answered() == n_answered {
        ensure!(began.elapsed() < RECOVERY_MAX * 5, "nobody is answered any more");
        pause(Duration::from_micros(500));
    }
    let next_answer = began.elapsed();
    // The first of two answers may be to a query that was asked before.
    let enough: Vec<u64> = load.answered().into_iter().map(|n| n + 2).collect();
    while load.answered().iter().zip(&enough).any(|(n, enough)| n < enough) {
        ensure!(began.elapsed() < RECOVERY_MAX * 10, "a client is not answered any more");
        pause(Duration::from_micros(500));
    }
    let failures = load.take_failures();
    for failure in &failures {
        excuse(path, all_up, failure).with_context(|| format!("{path} was killed"))?;
    }
    let (is_worker, renewed, failed) = (node.is_worker(), must.len(), failures.len());
    Ok(Blow { path: path.to_owned(), is_worker, renewed, failed, recovery, next_answer })
}

/// Whether a failure is one that the kill of this node may cost: of a query that it may have run,
/// with a promise that it helps to ask again, or, where it carried the connection, without that
/// connection. When exactly it ended can't be seen from here; that it is up again can.
fn excuse(path: &str, all_up: Instant, failure: &Failure) -> Result<()> {
    let Failure { began, retries, is_disconnected, is_retryable, text } = failure;
    ensure!(!retries, "a client that asks again was told: {text}");
    ensure!(*began < all_up, "a query that was asked after all was up again failed: {text}");
    let carries_connections = path == "gateway" || path.starts_with("gateway/");
    ensure!(
        *is_retryable || (*is_disconnected && carries_connections),
        "a query ended without a promise that it helps to ask again: {text}"
    );
    Ok(())
}

/// Whether a node chose not to run.
fn was_down(before: &Node, path: &str) -> bool {
    before.at(path).is_some_and(|node| node.state != "up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_excused_by_what_was_killed_and_when_it_began() {
        let began = Instant::now();
        let later = began + Duration::from_millis(1);
        let lost = |is_disconnected, is_retryable| Failure {
            began,
            retries: false,
            is_disconnected,
            is_retryable,
            text: String::new(),
        };
        assert!(excuse("one_shot", later, &lost(false, true)).is_ok());
        assert!(excuse("one_shot", began, &lost(false, true)).is_err());
        assert!(excuse("one_shot", later, &lost(false, false)).is_err());
        assert!(excuse("one_shot", later, &lost(true, false)).is_err());
        assert!(excuse("gateway/listener", later, &lost(true, false)).is_ok());
        assert!(excuse("gateway", later, &lost(false, false)).is_err());
        let retrying = Failure { retries: true, ..lost(false, true) };
        assert!(excuse("one_shot", later, &retrying).is_err());
    }
}
