//! Finds a pattern without a daemon:
//! `cargo run -p astscope-pattern-matcher --example embedding 'PATTERN' FILE…`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line example")]

use astscope_parsing::{Limits, admit, parse};
use astscope_pattern_matcher::{CompactDoc, Matcher, MatcherSpec};
use astscope_syntax::Language;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(pattern) = arguments.next() else {
        eprintln!("usage: embedding PATTERN FILE…");
        return ExitCode::from(2);
    };
    let mut failed = false;
    for path in arguments {
        if let Err(reason) = search(&pattern, &path) {
            eprintln!("{path}: {reason}");
            failed = true;
        }
    }
    ExitCode::from(u8::from(failed))
}

fn search(pattern: &str, path: &str) -> Result<(), String> {
    let language = Language::from_path(Path::new(path)).ok_or("its name says no language")?;
    let spec = MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() };
    let matcher = Matcher::compile(language, &spec, None).map_err(|error| error.to_string())?;
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let text = admit(bytes, &Limits::DAEMON).map_err(|reason| reason.to_string())?;
    let file = parse(text, language, &Limits::DAEMON, &mut || false)
        .map_err(|reason| reason.to_string())?;
    // A cheap look at the text and the kinds of nodes rules most files out.
    if !matcher.requirement().admits(&file.text, &file.tree) {
        return Ok(());
    }
    let doc = CompactDoc::host(Arc::new(file));
    for found in matcher.find_all(doc.clone(), usize::MAX) {
        let at = doc.lines().position(found.range.start);
        let text = &doc.file().text[found.range.to_usize()];
        println!(
            "{path}:{}:{}: {}",
            at.line + 1,
            at.column + 1,
            text.lines().next().unwrap_or_default()
        );
    }
    Ok(())
}
