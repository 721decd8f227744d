//! The physical limit of indexing: walk, read and parse the files of a tree on all cores with a
//! dynamic queue, and keep nothing. What it prints stands beside our own figures in
//! `cargo xtask bench`: `files bytes seconds cpu_seconds`.
#![forbid(unsafe_code)]

use ast_grep_language::{LanguageExt as _, SupportLang};
use astscope_syntax::Language;
use ignore::WalkBuilder;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use tree_sitter::Parser;

/// The limit is parsing with the fastest allocator at hand; the daemon's parsers use the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

thread_local! {
    static PARSERS: RefCell<BTreeMap<Language, Parser>> = const { RefCell::new(BTreeMap::new()) };
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let Some(root) = std::env::args_os().nth(1) else {
        eprintln!("usage: limit DIR");
        return ExitCode::from(2);
    };
    let start = Instant::now();
    let mut files: Vec<(u64, PathBuf, Language)> = walk(Path::new(&root));
    // The largest first: a dynamic queue still ends with whatever was begun last.
    files.sort_unstable_by_key(|(bytes, ..)| std::cmp::Reverse(*bytes));
    let parsed = files.par_iter().filter_map(|(_, path, language)| {
        let text = std::fs::read_to_string(path).ok().filter(|text| !text.is_empty())?;
        parse(&text, *language)?;
        Some((1_u64, text.len() as u64))
    });
    let (n_files, bytes) = parsed.reduce(|| (0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    println!("{n_files} {bytes} {:.6}", start.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}

/// The files that the daemon would index: the same walk, the same languages.
fn walk(root: &Path) -> Vec<(u64, PathBuf, Language)> {
    let entries = WalkBuilder::new(root).build().flatten();
    entries
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .filter_map(|entry| {
            let language = Language::from_path(entry.path())?;
            let bytes = entry.metadata().ok()?.len();
            Some((bytes, entry.into_path(), language))
        })
        .collect()
}

fn parse(text: &str, language: Language) -> Option<()> {
    PARSERS.with_borrow_mut(|parsers| {
        let parser = parsers.entry(language).or_default();
        parser.set_language(&grammar(language)?).ok()?;
        parser.parse(text, None).map(drop)
    })
}

fn grammar(language: Language) -> Option<tree_sitter::Language> {
    Some(match language {
        Language::Erlang => tree_sitter_erlang::LANGUAGE.into(),
        Language::Heex => tree_sitter_heex::LANGUAGE.into(),
        Language::Toml => tree_sitter_toml_ng::LANGUAGE.into(),
        other => other.aliases().first()?.parse::<SupportLang>().ok()?.get_ts_language(),
    })
}
