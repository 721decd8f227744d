//! What is too much: more events than the kernel keeps, and a flood of writes that concern nobody.

use super::deed::{Deed, Done, Hand, Listing};
use super::ground::Ground;
use super::journal::{Span, Touched};
use super::signal;
use crate::bench::measure::{OWN_TICKS, cpu_seconds};
use crate::chaos::house::House;
use anyhow::{Context as _, Result, ensure};
use astscope_protocol::Client;
use astscope_protocol::messages::{StatusParams, method};
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the kernel says how many events it keeps for a reader.
const QUEUE: &str = "/proc/sys/fs/inotify/max_queued_events";

/// Without that, what Linux has by itself.
const QUEUE_DEFAULT: u64 = 16_384;

/// Deeds whose events are lost.
const DEEDS: usize = 30;

/// Writes in a flood between two looks at the clock.
const WAVE: usize = 50;

/// Questions that are asked in a flood.
const QUESTIONS: usize = 10;

/// Of the time that a flood lasts, the daemon may work so much at most: it is to look at nothing.
const SHARE_MAX: f64 = 0.2;

/// A daemon that is stopped for as long as this lives.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Result<Self> {
        signal(pid, "-STOP")?;
        Ok(Self(pid))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // If it can't be sent, the daemon is gone, and whoever asks it next says so.
        drop(signal(self.0, "-CONT"));
    }
}

/// Makes more events in the tree's directories than the kernel keeps, and then does deeds, while
/// nobody reads: of those nobody is told.
pub(super) fn burst(house: &House, ground: &Ground, hand: &mut Hand<'_>) -> Result<(Span, Done)> {
    let began = Instant::now();
    let stopped = Stopped::new(house.pid())?;
    let kept = fs::read_to_string(QUEUE).ok().and_then(|it| it.trim().parse().ok());
    // Two for each renaming, and no two that follow each other are the same.
    let n_renamed = kept.unwrap_or(QUEUE_DEFAULT) * 5 / 4;
    let directories = Listing::of(&ground.root)?.directories;
    let at = |n: u64| -> Result<_> {
        let at = usize::try_from(n)? % directories.len().max(1);
        let above = directories.get(at).map_or("", String::as_str);
        Ok(ground.root.join(above).join(format!("burst{n}")))
    };
    File::create(at(0)?)?;
    for n in 0..n_renamed {
        fs::rename(at(n)?, at(n + 1)?)?;
    }
    fs::remove_file(at(n_renamed)?)?;
    for _ in 0..DEEDS {
        let deed = match hand.choose()? {
            // Nobody would answer, and who asks after a root that is gone learns little.
            Deed::EditUnseen | Deed::RootAway | Deed::RootBack => Deed::Replace,
            deed => deed,
        };
        // One that is in vain changes nothing.
        drop(hand.perform(deed, &mut || Ok(())));
    }
    drop(stopped);
    let touched = Touched { unknown: true, ..Touched::default() };
    let what = format!("{n_renamed} renamings, then {DEEDS} deeds");
    Ok((Span { began, ended: Instant::now() }, Done { what, touched, about: None }))
}

/// Writes what ignore rules leave out, below a directory that they leave out and in one that they
/// don't, and looks what that costs. Then `check`s answers while it is written on.
pub(super) fn flood(
    house: &House,
    ground: &Ground,
    time: Duration,
    mut check: impl FnMut() -> Result<()>,
) -> Result<String> {
    let directory = ground.root.join("flooded");
    fs::create_dir_all(directory.join("above"))?;
    fs::write(directory.join(".gitignore"), "/above/\n*.flood.js\n")?;
    check()?;
    let mut said = Vec::new();
    for (what, directory) in
        [("below an ignored directory", directory.join("above")), ("of ignored names", directory)]
    {
        let n_written = AtomicU64::new(0);
        let before = cpu(house.pid())?;
        let began = Instant::now();
        pour(&directory, &n_written, || began.elapsed() < time)?;
        let seconds = began.elapsed().as_secs_f64();
        let share = (cpu(house.pid())? - before) / seconds;
        said.push(format!("{n_written:?} writes {what} cost {:.1} % of a core", share * 100.0));
        ensure!(
            share <= SHARE_MAX,
            "a flood of writes {what} costs too much: {share:.2} of a core"
        );
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let poured =
                scope.spawn(|| pour(&directory, &n_written, || !over.load(Ordering::Relaxed)));
            let checked = (0..QUESTIONS).try_for_each(|_| check());
            over.store(true, Ordering::Relaxed);
            let poured = poured.join().ok().context("the flood panicked")?;
            checked.and(poured)
        })?;
    }
    Ok(said.join("; "))
}

fn pour(directory: &Path, n_written: &AtomicU64, goes_on: impl Fn() -> bool) -> Result<()> {
    while goes_on() {
        for n in 0..WAVE {
            fs::write(directory.join(format!("{n}.flood.js")), "marker(3)\n")?;
        }
        n_written.fetch_add(WAVE as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn cpu(pid: u32) -> Result<f64> {
    Ok(cpu_seconds(&fs::read_to_string(format!("/proc/{pid}/stat"))?, OWN_TICKS))
}

/// Whether the daemon itself has found that it held something else than the disk.
pub(super) fn no_drift(client: &mut Client) -> Result<()> {
    let status: Value = client.call(method::STATUS, &StatusParams::default())?;
    let workspaces = status["workspaces"].as_array().context("a status names the workspaces")?;
    for workspace in workspaces {
        // Absent in daemons that don't look.
        let drift = sum(&workspace["scrub"]["drift"]);
        ensure!(drift == 0, "the daemon found {drift} files to be other than on the disk");
    }
    Ok(())
}

/// All numbers in it, whatever their names.
fn sum(value: &Value) -> u64 {
    match value {
        Value::Object(fields) => fields.values().map(sum).sum(),
        Value::Array(all) => all.iter().map(sum).sum(),
        value => value.as_u64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn drift_is_the_sum_of_its_causes() {
        assert_eq!(sum(&json!(3)), 3);
        assert_eq!(sum(&json!({"content": 1, "tree": 2, "last": null})), 3);
        assert_eq!(sum(&json!(null)), 0);
    }
}
