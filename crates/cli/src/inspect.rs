//! The commands that look at things: `parse`, `points`, `explain`, `status`, and also `stop`.

use crate::args::{
    ExplainArgs, GlobalArgs, LevelArg, ParseArgs, PointsArgs, StatusArgs, StopArgs, SyncArgs,
    SyncVerb,
};
use crate::backend::{Backend, BackendError};
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::PrintError;
use crate::progress::IndexingBar;
use crate::request::{check_stdin, delivery, give_up, read_stdin, run_params, selection, utf8};
use crate::sgconfig::Project;
use astscope_protocol::client::Event;
use astscope_protocol::messages::{
    BreakerState, BreakerStatus, DriftCounts, DriftRecord, Explanation, ParseParams, ParsersStatus,
    PointsLevel, PointsParams, PointsResult, QuarantinedFile, RememberedStatus, ScrubCycle,
    ScrubStatus, SkippedFile, StatusParams, StatusResult, StopParams, SyncAction, SyncParams,
    WorkspaceStatus,
};
use serde::Serialize;
use std::fmt::Write as _;
use std::ops::ControlFlow;

/// `astscope parse`.
pub(crate) fn parse(
    args: &ParseArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    if args.stdin && args.lang.is_none() {
        return Err(Failure::new(
            Exit::Unspecified,
            "Language must be specified for code from StdIn.",
        )
        .help("Please use `--lang` to specify the code language."));
    }
    let params = ParseParams {
        cwd: utf8(&console.cwd)?,
        path: args.file.clone(),
        text: if args.stdin { Some(read_stdin(console)?) } else { None },
        language: args.lang.clone(),
        cst: args.cst,
        json: args.json,
    };
    let result = backend.parse(&params).map_err(|error| Failure::of_request(error, None))?;
    print(result.tree.trim_end(), console)?;
    if let Some(first) = result.errors.first() {
        let start = first.range.start;
        let what = first
            .missing
            .as_ref()
            .map_or_else(|| "an error".to_owned(), |missing| format!("a missing {missing}"));
        console.note(&format!(
            "Note: the parser recovered in {} place(s), first from {what} in line {}, column {}",
            result.errors.len(),
            start.line + 1,
            start.column + 1
        ));
    }
    Ok(Exit::Success)
}

/// `astscope points`.
pub(crate) fn points(
    args: &PointsArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let params = PointsParams {
        cwd: utf8(&console.cwd)?,
        path: Some(args.file.clone()),
        text: None,
        language: args.lang.clone(),
        level: match args.level {
            LevelArg::Minimal => PointsLevel::Minimal,
            LevelArg::Balanced => PointsLevel::Balanced,
            LevelArg::Comprehensive => PointsLevel::Comprehensive,
            LevelArg::Debug => PointsLevel::Debug,
        },
    };
    let result = backend.points(&params).map_err(|error| Failure::of_request(error, None))?;
    if args.json {
        print_json(&result, console)?;
        return Ok(Exit::Success);
    }
    let n = result.points.len();
    if n == 0 {
        console.note("Note: no points; `astscope points --help` says which languages have them");
        return Ok(Exit::Success);
    }
    print(&listed(&args.file, &result), console)?;
    console.note(&format!("Note: {n} point(s), estimated impact {} %", result.impact_percent));
    Ok(Exit::Success)
}

/// A line for each point, that tools which know `file:line:column` can follow.
fn listed(file: &str, result: &PointsResult) -> String {
    let places = result.points.iter().map(|point| {
        let start = point.start;
        format!("{file}:{}:{}", start.line + 1, start.column + 1)
    });
    let places: Vec<_> = places.collect();
    let width = places.iter().map(|place| place.chars().count()).max().unwrap_or_default();
    let lines = places.iter().zip(&result.points).map(|(place, point)| {
        let (kind, priority) = (&point.kind, point.priority);
        let symbol = if point.symbol.is_empty() { "-" } else { &point.symbol };
        // A function's name is the end of its symbol.
        let called = point.name.as_deref().filter(|_| point.strategy != "function_boundary");
        let called = called.map(|name| format!("  {name}")).unwrap_or_default();
        format!("{place:<width$}  {priority:>3}  {kind:<18}  {symbol}{called}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `astscope explain`.
pub(crate) fn explain(
    args: &ExplainArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let project = Project::discover(global.config.as_deref(), &console.cwd)?;
    check_stdin(&args.input, false, args.lang.is_some())?;
    let selection = selection(&args.input, project.as_ref(), console)?;
    let params = run_params(&args.matcher, args.lang.as_ref(), selection, delivery(global));
    let mut bar = IndexingBar::new(console.err_is_terminal);
    let explanation = backend.explain(&params, &mut |event| {
        if let Event::Progress(progress) = event {
            bar.update(&progress);
        }
        ControlFlow::Continue(())
    });
    bar.clear();
    let pattern = args.matcher.pattern.as_deref();
    let explanation = explanation.map_err(|error| Failure::of_request(error, pattern))?;
    if args.json {
        print_json(&explanation, console)?;
    } else {
        print(explained(&explanation).trim_end(), console)?;
    }
    Ok(Exit::Success)
}

fn explained(explanation: &Explanation) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    if !explanation.requirements.is_empty() {
        line("A file can match only if it contains".to_owned());
        for (language, requirements) in &explanation.requirements {
            for requirement in requirements {
                line(format!("  {language:<12} {requirement}"));
            }
        }
    }
    if !explanation.steps.is_empty() {
        line("Files left after each step".to_owned());
        for step in &explanation.steps {
            line(format!("  {:>8}  {}", step.files, step.step));
        }
    }
    line("Result".to_owned());
    line(format!("  {:>8}  files verified by the matcher", explanation.files_verified));
    line(format!("  {:>8}  of them remembered from before", explanation.files_remembered));
    line(format!("  {:>8}  files with matches", explanation.files_matched));
    line(format!("  {:>8}  matches", explanation.matches));
    if !explanation.micros.is_empty() {
        line("Time".to_owned());
        // In the order in which they happen.
        let mut stages: Vec<_> = explanation.micros.iter().collect();
        let order = ["refresh", "plan", "match"];
        stages.sort_by_key(|(stage, _)| order.iter().position(|known| known == stage));
        for (stage, micros) in stages {
            line(format!("  {:>8.2}  ms {stage}", millis(*micros)));
        }
    }
    if let Some(revision) = explanation.revision {
        line(format!("Revision {}.{}", revision.epoch, revision.number));
    }
    for hint in &explanation.hints {
        line(format!("Hint: {hint}"));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

/// `astscope status`. It starts no daemon: that none runs is an answer.
pub(crate) fn status(
    args: &StatusArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let params = StatusParams { skipped_files: args.skipped };
    let status = backend.status(&params).map_err(|error| Failure::of_request(error, None))?;
    let Some(status) = status else {
        return Err(crate::operate::not_running());
    };
    if args.json {
        print_json(&status, console)?;
    } else {
        print(described(&status).trim_end(), console)?;
    }
    Ok(Exit::Success)
}

/// Runs `astscope sync`.
pub(crate) fn sync(
    args: &SyncArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let action = match args.action {
        SyncVerb::Flush => SyncAction::Flush,
        SyncVerb::Rescan => SyncAction::Rescan,
        SyncVerb::Pause => SyncAction::Pause,
        SyncVerb::Resume => SyncAction::Resume,
    };
    let path = utf8(&console.cwd.join(&args.path))?;
    let params = SyncParams { path, action, deadline_ms: delivery(global).deadline_ms };
    let mut bar = IndexingBar::new(console.err_is_terminal);
    let workspace = backend.sync(&params, &mut |event| {
        if let Event::Progress(progress) = event {
            bar.update(&progress);
        }
        ControlFlow::Continue(())
    });
    bar.clear();
    let workspace = workspace.map_err(|error| Failure::of_request(error, None))?;
    if args.json {
        print_json(&workspace, console)?;
    } else {
        let mut text = String::new();
        describe_workspace(&workspace, &mut text);
        print(text.trim_end(), console)?;
    }
    Ok(Exit::Success)
}

fn described(status: &StatusResult) -> String {
    let memory = &status.memory;
    let idle = status.idle_exit_seconds.map_or_else(
        || "never leaves".to_owned(),
        |seconds| format!("leaves after {} idle", span(seconds)),
    );
    let mut text = format!(
        "{} {}, pid {}, up {}, {} client(s), {idle}\nsocket   {}\n",
        status.server.name,
        status.server.version,
        status.pid,
        span(status.uptime_seconds),
        status.clients,
        status.socket,
    );
    let _infallible = writeln!(
        text,
        "memory   {} resident: {} text, {} trees, {} indexes, {} caches",
        bytes(memory.resident_anon + memory.resident_file),
        bytes(memory.text),
        bytes(memory.trees),
        bytes(memory.indexes),
        bytes(memory.caches),
    );
    if let Some(error) = &status.settings_error {
        let _infallible = writeln!(text, "settings as before the file went bad: {error}");
    }
    if let Some(parsers) = &status.parsers {
        describe_parsers(parsers, &mut text);
    }
    for workspace in &status.workspaces {
        text.push('\n');
        describe_workspace(workspace, &mut text);
    }
    text
}

fn describe_parsers(parsers: &ParsersStatus, text: &mut String) {
    let ParsersStatus { processes, lost, restrictions, quarantined, .. } = parsers;
    let _infallible = writeln!(
        text,
        "parsers  {processes} up, {lost} lost so far, {quarantined} file(s) quarantined",
    );
    if !restrictions.is_empty() {
        let _infallible = writeln!(text, "  restricted: {restrictions}");
    }
    if let Some(why) = &parsers.forgotten_because {
        let _infallible = writeln!(text, "  the quarantine ends with the daemon: {why}");
    }
    for QuarantinedFile { content_id, language, detail, .. } in &parsers.quarantined_files {
        let _infallible = writeln!(text, "    {language} {content_id}: its parser {detail}");
    }
}

fn describe_workspace(workspace: &WorkspaceStatus, text: &mut String) {
    let n_skipped: u64 = workspace.skipped.values().sum();
    let state = match (workspace.indexing, workspace.indexed_in_ms) {
        (true, _) => ", indexing".to_owned(),
        (false, Some(ms)) => format!(", indexed in {ms} ms"),
        (false, None) => String::new(),
    };
    let _infallible = writeln!(
        text,
        "{}\n  revision {}.{}{state}\n  {} files seen, {} parsed, {n_skipped} skipped\n  {} of source, {} nodes, {} of trees and indexes",
        workspace.root,
        workspace.revision.epoch,
        workspace.revision.number,
        workspace.files_seen,
        workspace.files_parsed,
        bytes(workspace.source_bytes),
        workspace.nodes,
        bytes(workspace.tree_bytes),
    );
    describe_remembered(&workspace.remembered, text);
    let languages: Vec<String> =
        workspace.languages.iter().map(|(language, n)| format!("{language} {n}")).collect();
    if !languages.is_empty() {
        let _infallible = writeln!(text, "  {}", languages.join(", "));
    }
    for breaker in &workspace.breakers {
        let state = match breaker.state {
            BreakerState::Closed => continue,
            BreakerState::Open => "left alone",
            BreakerState::HalfOpen => "tried again",
        };
        let BreakerStatus { name, failures, .. } = breaker;
        let again = breaker.retry_in_ms.map(|ms| format!(", {} left", span(ms.div_ceil(1000))));
        let again = again.unwrap_or_default();
        let _infallible = writeln!(text, "  {name}: {state} after {failures} failures{again}");
    }
    let watcher = &workspace.watcher;
    let _infallible = match (&*watcher.state, &watcher.reason) {
        // A daemon that doesn't tell.
        ("", _) => Ok(()),
        ("native", _) => writeln!(text, "  watching {} directories", watcher.directories),
        ("paused", _) => writeln!(text, "  not watched: paused"),
        (state, Some(reason)) => writeln!(text, "  not watched, {state}: {reason}"),
        (state, None) => writeln!(text, "  not watched, {state}"),
    };
    describe_scrub(&workspace.scrub, text);
    for (reason, n) in &workspace.skipped {
        let _infallible = writeln!(text, "  skipped {n} {reason}");
    }
    if workspace.files_kept > 0 {
        let n = workspace.files_kept;
        let _infallible = writeln!(text, "  kept {n} that can't be read any more");
    }
    for SkippedFile { path, reason, detail } in
        workspace.skipped_files.iter().chain(&workspace.kept_files)
    {
        let _infallible = writeln!(text, "    {path}: {reason}: {detail}");
    }
}

fn describe_remembered(remembered: &RememberedStatus, text: &mut String) {
    let RememberedStatus { queries, results, bytes: n_bytes, hits, misses } = *remembered;
    // Nobody has asked: nothing is worth a line.
    let Some(percent) = (hits * 100).checked_div(hits + misses) else { return };
    let _infallible = writeln!(
        text,
        "  {results} results of {queries} queries remembered in {}, {percent} % of those asked for",
        bytes(n_bytes),
    );
}

/// A line for how far the scrub is, and a loud one if it has ever found anything.
fn describe_scrub(scrub: &ScrubStatus, text: &mut String) {
    let ScrubStatus { enabled, checked, files, last_cycle, drift, last_drift, .. } = scrub;
    if let Some(DriftRecord { path, cause, .. }) = last_drift {
        let DriftCounts { content, tree, missing, ghost } = drift;
        let n = drift.total();
        let _infallible = writeln!(
            text,
            "  DRIFT: {n} file(s) were held other than the disk has them, and are repaired: content {content}, tree {tree}, missing {missing}, ghost {ghost}\n    the last is {path}: {cause}",
        );
    }
    if *files == 0 {
        return;
    }
    if !enabled {
        text.push_str("  no longer checked against the disk: the settings say so\n");
    } else if let Some(cycle) = last_cycle {
        let ScrubCycle { took_ms, files: n_files, left_out, drift, .. } = cycle;
        let took = span(took_ms.div_ceil(1000));
        let left_out = if *left_out > 0 { format!(", {left_out} left out") } else { String::new() };
        let _infallible = writeln!(
            text,
            "  checked against the disk: {n_files} files in {took}{left_out}, drift {}; now {checked} of {files}",
            drift.total(),
        );
    } else {
        let _infallible = writeln!(text, "  checked against the disk: {checked} of {files} files");
    }
}

/// `astscope stop`.
pub(crate) fn stop(
    args: &StopArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let stopped = backend
        .stop(&StopParams { drain: args.drain })
        .map_err(|error: BackendError| Failure::of_request(error, None))?;
    console.note(if stopped { "The daemon is stopping." } else { "No daemon is running." });
    Ok(Exit::Success)
}

pub(crate) fn print(text: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let printed = writeln!(console.out, "{text}").and_then(|()| console.out.flush());
    printed.map_err(PrintError::Write).or_else(give_up)
}

pub(crate) fn print_json<T: Serialize>(
    value: &T,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match serde_json::to_string_pretty(value) {
        Ok(json) => print(&json, console),
        Err(error) => give_up(PrintError::Record(error)),
    }
}

/// Bytes with a binary unit.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Seconds, as hours and minutes where there are many.
pub(crate) fn span(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds:02}s"),
        (hours, minutes, _) => format!("{hours}h{minutes:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(6 << 30), "6.0 GiB");
        assert_eq!(
            (span(59), span(61), span(7260)),
            ("59s".into(), "1m01s".into(), "2h01m".into())
        );
    }
}
