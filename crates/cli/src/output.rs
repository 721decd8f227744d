//! Printers: what becomes of the matches that a request streams.

mod diagnostic;
mod diff;
mod files;
mod github;
mod json;
mod record;
mod sarif;
pub(crate) mod style;
mod text;

pub(crate) use diagnostic::{DiagnosticPrinter, Report};
pub(crate) use diff::{DiffPrinter, context_lines, print_diff};
pub(crate) use files::FileNamePrinter;
pub(crate) use github::GithubPrinter;
pub(crate) use json::JsonPrinter;
pub(crate) use record::{Record, by_language, records};
pub(crate) use sarif::SarifPrinter;
pub(crate) use text::{TextPrinter, print_matches};

use crate::console::Console;
use crate::failure::Failure;
use astscope_protocol::messages::Item;
use std::io;

/// Why printing ends early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrintError {
    /// Standard output does not take it.
    #[error("can't write to standard output")]
    Write(#[from] io::Error),
    /// The daemon sent a match of another shape.
    #[error("can't read a match")]
    Record(#[from] serde_json::Error),
    /// What the matches are for can't be done.
    #[error("can't act on a match")]
    Failed(Box<Failure>),
}

impl From<Failure> for PrintError {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

/// Prints the matches of one request.
pub(crate) trait Printer {
    /// Before the first file.
    fn begin(&mut self, _console: &mut Console<'_>) -> Result<(), PrintError> {
        Ok(())
    }
    /// One file's matches.
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError>;
    /// After the last file.
    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        Ok(console.out.flush()?)
    }
}

/// The source text that the daemon was asked to send along.
pub(crate) fn source_of(item: &Item) -> Result<&str, PrintError> {
    item.source.as_deref().ok_or_else(|| {
        Failure::new(
            crate::exit::Exit::Internal,
            format!("The daemon sent the matches of {} without its text.", item.file),
        )
        .into()
    })
}
