//! `docs/protocol.md` is the only thing that a client in another language has. Whatever
//! `messages.rs`, the files below it and `limits.rs` define must stand there, so they are read as
//! text: a list kept by hand would be forgotten together with the documentation.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use astscope_protocol::messages::ErrorCode;
use std::fmt::Write;

const DOCUMENT: &str = include_str!("../../../docs/protocol.md");
const MESSAGES: &str = concat!(
    include_str!("../src/messages.rs"),
    include_str!("../src/messages/changes.rs"),
    include_str!("../src/messages/freshness.rs"),
    include_str!("../src/messages/operations.rs"),
    include_str!("../src/messages/points.rs"),
    include_str!("../src/messages/record.rs"),
    include_str!("../src/messages/standing.rs"),
    include_str!("../src/messages/sync.rs"),
    include_str!("../src/messages/scrub.rs")
);
const LIMITS: &str = include_str!("../src/limits.rs");

/// What stands between `start` and `end` in each line that has both.
fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| Some(line.split_once(start)?.1.split_once(end)?.0))
}

/// `files_seen` as it stands on the wire.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let mut camel = words.next().unwrap().to_owned();
    for word in words {
        let (first, rest) = word.split_at(1);
        write!(camel, "{}{rest}", first.to_uppercase()).unwrap();
    }
    camel
}

/// `FilesSeen` as an error code stands on the wire.
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[track_caller]
fn assert_none_missing(missing: &[String]) {
    assert!(missing.is_empty(), "docs/protocol.md lacks: {missing:#?}");
}

#[test]
fn every_method_has_a_heading() {
    let methods: Vec<_> = between(MESSAGES, "&str = \"", "\"").collect();
    assert!(methods.len() >= 15, "{methods:?}");
    let has_heading = |method: &str| DOCUMENT.lines().any(|line| line == format!("### `{method}`"));
    let missing: Vec<_> =
        methods.into_iter().filter(|it| !has_heading(it)).map(str::to_owned).collect();
    assert_none_missing(&missing);
}

#[test]
fn every_error_code_has_a_row_with_its_number_and_whether_a_retry_helps() {
    let (_, codes) = MESSAGES.split_once("pub enum ErrorCode {").unwrap();
    let (codes, _) = codes.split_once("\n}").unwrap();
    let codes: Vec<_> = codes
        .lines()
        .filter_map(|line| line.trim().strip_suffix(','))
        .filter(|line| line.chars().all(char::is_alphanumeric))
        .map(snake_case)
        .collect();
    assert!(codes.len() >= 20, "{codes:?}");
    let missing: Vec<_> = codes
        .into_iter()
        .filter_map(|name| {
            let code: ErrorCode = serde_json::from_str(&format!("\"{name}\"")).unwrap();
            let retry = if code.retryable() { "yes" } else { "no" };
            let row = format!("| `{name}` | {} | {retry} |", code.number());
            (!DOCUMENT.contains(&row)).then_some(row)
        })
        .collect();
    assert_none_missing(&missing);
}

/// The first cells of the first table below a message's heading.
fn documented_fields(message: &str) -> Vec<&'static str> {
    let Some((_, section)) = DOCUMENT.split_once(&format!("\n#### {message}\n")) else {
        return Vec::new();
    };
    section
        .lines()
        .take_while(|line| !line.starts_with('#'))
        .skip_while(|line| !line.starts_with("| field |"))
        .take_while(|line| line.starts_with('|'))
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0))
        .collect()
}

#[test]
fn every_message_has_a_table_of_exactly_its_fields() {
    let mut wrong = Vec::new();
    let mut n_fields = 0;
    for body in MESSAGES.split("pub struct ").skip(1) {
        let (name, body) = body.split_once(" {").unwrap();
        let (body, _) =
            if body.starts_with('}') { ("", "") } else { body.split_once("\n}").unwrap() };
        let defined: Vec<_> = between(body, "    pub ", ":").map(camel_case).collect();
        let documented = documented_fields(name);
        n_fields += defined.len();
        if documented != defined {
            wrong.push(format!("{name}: defined {defined:?}, documented {documented:?}"));
        }
    }
    assert!(n_fields > 100, "{n_fields}");
    assert!(wrong.is_empty(), "docs/protocol.md is wrong: {wrong:#?}");
}

#[test]
fn every_limit_has_its_row() {
    let limits: Vec<_> = between(LIMITS, "pub const ", ":").collect();
    assert!(limits.len() >= 6, "{limits:?}");
    let missing: Vec<_> = limits
        .into_iter()
        .filter(|limit| !DOCUMENT.contains(&format!("`{limit}`")))
        .map(str::to_owned)
        .collect();
    assert_none_missing(&missing);
}

#[test]
fn every_line_of_the_transcript_is_a_message() {
    let (_, transcript) = DOCUMENT.split_once("\n## A worked transcript").unwrap();
    let transcript = transcript.replace('␉', "\t");
    let lines: Vec<_> = transcript
        .lines()
        .filter_map(|line| line.strip_prefix("--> ").or_else(|| line.strip_prefix("<-- ")))
        .collect();
    assert!(lines.len() >= 8, "{lines:?}");
    let wrong: Vec<_> = lines
        .iter()
        .filter_map(|line| {
            Some(format!("{line}: {}", astscope_protocol::parse(line.as_bytes()).err()?))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
