//! The commands about the daemon itself: `tree`, `health`, `events`, `config`, `debug`. Like
//! `status` they start no daemon, since that none runs is an answer.

use crate::args::{
    At, ConfigArgs, DebugArgs, DebugCommand, EventsArgs, Fault, FaultArgs, GlobalArgs, HealthArgs,
    KillArgs, TreeArgs,
};
use crate::backend::Backend;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::inspect::{print, print_json, span};
use crate::output::style::Style;
use astscope_protocol::messages::{
    ConfigParams, ConfigResult, EventRecord, EventsParams, FaultParams, FaultPoint, HealthParams,
    HealthResult, HealthStatus, HealthVerdict, KillParams, RequestCounts, SettingRecord,
    SettingSource, TreeFormat, TreeParams,
};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Widest name of a part that others are lined up with.
const NAME_WIDTH: usize = 22;

/// `astscope tree`.
pub(crate) fn tree(
    args: &TreeArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let format = match (args.json, args.mermaid) {
        (true, _) => TreeFormat::Json,
        (false, true) => TreeFormat::Mermaid,
        (false, false) => TreeFormat::Text,
    };
    let tree = backend
        .tree(&TreeParams { format })
        .map_err(|error| Failure::of_request(error, None))?
        .ok_or_else(not_running)?;
    match (tree.tree, tree.text) {
        (Some(tree), _) => print(&indented(tree.get()), console)?,
        (None, Some(text)) => print(text.trim_end(), console)?,
        (None, None) => {
            return Err(Failure::new(Exit::Internal, "The daemon sent a tree of no known form."));
        }
    }
    Ok(Exit::Success)
}

/// `astscope health`.
pub(crate) fn health(
    args: &HealthArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let health = backend
        .health(&HealthParams {})
        .map_err(|error| Failure::of_request(error, None))?
        .ok_or_else(not_running)?;
    if args.json {
        print_json(&health, console)?;
    } else {
        let text = described(&health, console.color_out(global.color));
        print(text.trim_end(), console)?;
    }
    Ok(if health.status == HealthStatus::Healthy { Exit::Success } else { Exit::Findings })
}

/// `astscope events`.
pub(crate) fn events(
    args: &EventsArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let told = backend
        .events(&EventsParams::default())
        .map_err(|error| Failure::of_request(error, None))?
        .ok_or_else(not_running)?;
    if args.json {
        print_json(&told, console)?;
        return Ok(Exit::Success);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let width = told.events.iter().map(|event| event.kind.len()).max().unwrap_or(0);
    let mut text = String::new();
    for event in &told.events {
        let age = span(now.saturating_sub(Duration::from_millis(event.timestamp_ms)).as_secs());
        let EventRecord { number, kind, about, .. } = event;
        let _infallible = write!(text, "{number}  {age} ago  {kind:<width$}  {about}");
        if let Some(detail) = &event.detail {
            let _infallible = write!(text, "  {detail}");
        }
        text.push('\n');
    }
    if told.missed > 0 {
        let _infallible = writeln!(text, "{} more came too fast to be kept", told.missed);
    }
    print(text.trim_end(), console)?;
    Ok(Exit::Success)
}

/// `astscope config`.
pub(crate) fn config(
    args: &ConfigArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let config = backend
        .config(&ConfigParams {})
        .map_err(|error| Failure::of_request(error, None))?
        .ok_or_else(not_running)?;
    if args.json {
        print_json(&config, console)?;
        return Ok(Exit::Success);
    }
    let ConfigResult { settings, file, error } = config;
    let width = settings.iter().map(|setting| setting.value.len()).max().unwrap_or(0);
    let mut text = String::new();
    for SettingRecord { name, value, source } in &settings {
        let source = match source {
            SettingSource::Default => "default",
            SettingSource::File => "file",
            SettingSource::Start => "start",
        };
        let _infallible = writeln!(text, "{name:<NAME_WIDTH$}{value:<width$}  {source}");
    }
    if let Some(file) = file {
        let _infallible = writeln!(text, "\nfile   {file}");
    }
    if let Some(error) = error {
        let line = error.line.map(|line| format!("line {line}: ")).unwrap_or_default();
        let _infallible = writeln!(text, "error  {line}{}", error.message);
    }
    print(text.trim_end(), console)?;
    Ok(Exit::Success)
}

/// `astscope debug`.
pub(crate) fn debug(
    args: &DebugArgs,
    console: &mut Console<'_>,
    backend: &mut dyn Backend,
) -> Result<Exit, Failure> {
    let (told, path, what) = match &args.command {
        DebugCommand::Kill(KillArgs { path }) => {
            (backend.kill(&KillParams { path: path.clone() }), path, "was told to end")
        }
        DebugCommand::Fault(FaultArgs { path, fault: Fault(fault, slow_ms), at }) => {
            let at = match at {
                At::Run => FaultPoint::Run,
                At::Init => FaultPoint::Init,
                At::Stop => FaultPoint::Stop,
            };
            let (fault, slow_ms) = (*fault, *slow_ms);
            let params = FaultParams { path: path.clone(), fault, slow_ms, at };
            (backend.fault(&params), path, "has a fault armed")
        }
    };
    if !told.map_err(|error| Failure::of_request(error, None))? {
        return Err(not_running());
    }
    console.note(&format!("{path} {what}; `astscope tree` shows what follows."));
    Ok(Exit::Success)
}

pub(crate) fn not_running() -> Failure {
    Failure::new(Exit::Unreachable, "No daemon is running.")
        .help("The next `astscope run` or `scan` starts one.")
}

fn described(health: &HealthResult, color: bool) -> String {
    let of_status = |status| {
        let (word, code) = match status {
            HealthStatus::Healthy => ("healthy", "32"),
            HealthStatus::Degraded => ("degraded", "33"),
            HealthStatus::Failed => ("failed", "31"),
        };
        painted(word, code, color)
    };
    let of_verdict = |verdict| {
        let (word, code) = match verdict {
            HealthVerdict::Healthy => ("healthy", "32"),
            HealthVerdict::NotReady => ("not ready", "33"),
            HealthVerdict::Restarting => ("restarting", "33"),
            HealthVerdict::Hung => ("hung", "31"),
            HealthVerdict::Down => ("down", "31"),
        };
        painted(word, code, color)
    };
    let mut text = format!("{}, {}\n", of_status(health.status), counted(&health.requests));
    // Writing to a String can't fail, here and below.
    for workspace in &health.workspaces {
        let _infallible = writeln!(text, "\n{}  {}", workspace.root, of_status(workspace.status));
        for service in &workspace.services {
            let verdict = of_verdict(service.verdict);
            let _infallible = write!(text, "  {:<NAME_WIDTH$}{verdict}", service.name);
            if !service.waits_for.is_empty() {
                let _infallible = write!(text, ", waits for {}", service.waits_for.join(", "));
            }
            text.push('\n');
        }
    }
    if !health.details.is_empty() {
        text.push_str("\ndaemon\n");
    }
    for detail in &health.details {
        let verdict = of_verdict(detail.verdict);
        let _infallible = write!(text, "  {:<NAME_WIDTH$}{verdict}", detail.name);
        if let Some(value) = &detail.value {
            let _infallible = write!(text, ", {value}");
        }
        text.push('\n');
    }
    text
}

fn painted(word: &str, code: &'static str, color: bool) -> String {
    if color { Style(code) } else { Style::PLAIN }.paint(word).to_string()
}

fn counted(requests: &RequestCounts) -> String {
    let RequestCounts { total, failed, p50_us, p95_us, p99_us } = *requests;
    if total == 0 {
        return "no requests so far".to_owned();
    }
    format!(
        "{total} requests, {failed} failed, half within {} ms, 95 % within {} ms, 99 % within {} ms",
        millis(p50_us),
        millis(p95_us),
        millis(p99_us)
    )
}

fn millis(micros: u64) -> String {
    format!("{}.{:02}", micros / 1000, micros % 1000 / 10)
}

/// JSON with a line for each value. As text, so that nothing of it is changed: not the order of
/// the members, no number's digits.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    let mut chars = json.chars().filter(|c| !matches!(c, '\n' | '\r' | '\t')).peekable();
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if in_string {
            text.push(c);
            in_string = is_escaped || c != '"';
            is_escaped = c == '\\' && !is_escaped;
            continue;
        }
        match c {
            ' ' => {}
            '{' | '[' => {
                text.push(c);
                while chars.next_if_eq(&' ').is_some() {}
                // What is empty stays on its line.
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    text.push(end);
                } else {
                    depth += 1;
                    line(&mut text, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut text, depth);
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                in_string = c == '"';
                text.push(c);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json, to_string, to_string_pretty};

    #[test]
    fn json_is_indented_as_serde_does() {
        for value in [
            json!({}),
            json!([[], {}, [[1, -2.5e3, null, true]]]),
            json!({"a": "x, {\"y\": [1]}\\", "b\"\\": ["\\\\", "é "], "c": {"d": {}}}),
        ] {
            let pretty = to_string_pretty(&value).unwrap();
            assert_eq!(indented(&to_string(&value).unwrap()), pretty);
            assert_eq!(indented(&pretty), pretty, "formatted already");
            let again: Value = serde_json::from_str(&indented(&pretty)).unwrap();
            assert_eq!(again, value);
        }
    }

    #[test]
    fn members_keep_their_order() {
        assert_eq!(indented(r#"{"z":1,"a":2}"#), "{\n  \"z\": 1,\n  \"a\": 2\n}");
    }

    #[test]
    fn microseconds_are_shown_as_milliseconds() {
        assert_eq!(
            (millis(0), millis(999), millis(1_205_060)),
            ("0.00".into(), "0.99".into(), "1205.06".into())
        );
    }
}
