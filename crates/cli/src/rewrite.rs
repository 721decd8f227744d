//! Applying edits to files, so that nothing is ever lost: a file is written only if it still holds
//! the bytes that were searched, and is replaced whole or not at all.

use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{PrintError, Printer, Record, Report, records};
use astscope_protocol::messages::{Fix, Item};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A replacement of bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) replacement: String,
    pub(crate) title: Option<String>,
}

impl From<Fix> for Edit {
    fn from(fix: Fix) -> Self {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        Self {
            range: at(fix.range.start)..at(fix.range.end),
            replacement: fix.replacement,
            title: fix.title,
        }
    }
}

/// Edits that can be applied together: of two that overlap, the one that begins first.
pub(crate) fn without_overlaps(mut edits: Vec<Edit>) -> Vec<Edit> {
    edits.sort_by_key(|edit| edit.range.start);
    let mut end = 0;
    edits.retain(|edit| {
        let free = edit.range.start >= end;
        if free {
            end = edit.range.end;
        }
        free
    });
    edits
}

/// The text with edits applied that are in order and don't overlap.
pub(crate) fn apply(source: &str, edits: &[Edit]) -> Result<String, Failure> {
    let mut new = String::with_capacity(source.len());
    let mut position = 0;
    let outside = || Failure::new(Exit::Internal, "An edit lies outside the text that it is for.");
    for edit in edits {
        new.push_str(source.get(position..edit.range.start).ok_or_else(outside)?);
        new.push_str(&edit.replacement);
        position = edit.range.end;
    }
    new.push_str(source.get(position..).ok_or_else(outside)?);
    Ok(new)
}

/// Why a file was not rewritten.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RewriteError {
    /// It is not the file that was searched any more.
    #[error("changed since it was searched: skipped, run the command again")]
    Changed,
    /// Its bytes can't be read.
    #[error("can't read it")]
    Read(#[source] io::Error),
    /// It isn't text.
    #[error("is not UTF-8")]
    NotUtf8(#[source] std::str::Utf8Error),
    /// An edit does not fit.
    #[error("the edits don't fit its text")]
    Edit,
    /// It can't be written. The old contents are untouched.
    #[error("can't write it, its contents are untouched")]
    Write(#[source] io::Error),
}

/// Rewrites a file, if its bytes have the given content id (blake3, hex).
pub(crate) fn rewrite(path: &Path, content_id: &str, edits: &[Edit]) -> Result<(), RewriteError> {
    let bytes = fs::read(path).map_err(RewriteError::Read)?;
    if blake3::hash(&bytes).to_hex().as_str() != content_id {
        return Err(RewriteError::Changed);
    }
    let source = str::from_utf8(&bytes).map_err(RewriteError::NotUtf8)?;
    let new = apply(source, edits).map_err(|_misfit| RewriteError::Edit)?;
    replace(path, new.as_bytes()).map_err(RewriteError::Write)
}

/// Replaces a file's contents at once: readers see the old or the new file, never a part. A
/// symbolic link stays one; its target is replaced. Permissions are kept.
fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let path = path.canonicalize()?;
    // A rename needs no permission on the file itself; opening it makes a read-only file safe.
    let permissions = File::options().write(true).open(&path)?.metadata()?.permissions();
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut temporary = tempfile::Builder::new().prefix(".astscope-").tempfile_in(directory)?;
    temporary.write_all(contents)?;
    temporary.as_file().set_permissions(permissions)?;
    temporary.persist(&path)?;
    Ok(())
}

/// What rewriting has come to, over all files of a request.
#[derive(Debug, Default)]
pub(crate) struct Rewrites {
    /// Edits that were applied.
    pub(crate) n_edits: usize,
    /// Files that were left alone although they had edits.
    pub(crate) n_failed: usize,
    /// Files that were rewritten, with what they held before: a file that is reached by two of
    /// the paths on the command line comes twice.
    done: BTreeSet<(PathBuf, String)>,
}

impl Rewrites {
    /// Applies edits to the item's file, or prints the result if it came from standard input.
    pub(crate) fn apply(
        &mut self,
        item: &Item,
        edits: &[Edit],
        stdin: Option<&str>,
        console: &mut Console<'_>,
    ) -> Result<(), PrintError> {
        if edits.is_empty() {
            return Ok(());
        }
        if let Some(source) = stdin {
            writeln!(console.out, "{}", apply(source, edits)?)?;
            self.n_edits += edits.len();
            return Ok(());
        }
        let path = console.cwd.join(&item.file);
        let key = (path.canonicalize().unwrap_or_else(|_| path.clone()), item.content_id.clone());
        if self.done.contains(&key) {
            return Ok(());
        }
        match rewrite(&path, &item.content_id, edits) {
            Ok(()) => {
                self.n_edits += edits.len();
                self.done.insert(key);
            }
            Err(error) => {
                self.n_failed += 1;
                let failure =
                    Failure::new(Exit::File, format!("Cannot rewrite file {}", item.file))
                        .source(&error);
                console.note(failure.render(console.color_err()).trim_end());
            }
        }
        Ok(())
    }

    /// Says how much was done, as ast-grep does.
    pub(crate) fn report(&self, console: &mut Console<'_>) {
        if self.n_edits > 0 {
            console.note(&format!("Applied {} changes", self.n_edits));
        }
    }
}

/// `-U`: applies every fix, and prints the findings that have none.
#[derive(Debug)]
pub(crate) struct UpdateAll {
    pub(crate) rewrites: Rewrites,
    /// For findings without a fix; `None` in `run`, where every match has one.
    pub(crate) report: Option<Report>,
    /// The source that is rewritten instead of files.
    pub(crate) stdin: Option<String>,
    /// Findings of severity error that were not fixed.
    pub(crate) n_errors: u64,
}

impl Printer for UpdateAll {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        let records = records(item)?;
        let edits = records.iter().filter_map(Record::fix).map(Edit::from).collect();
        self.rewrites.apply(item, &without_overlaps(edits), self.stdin.as_deref(), console)?;
        for record in records.iter().filter(|record| record.replacement.is_none()) {
            self.n_errors += u64::from(record.severity == "error");
            if let Some(report) = &self.report {
                let source = crate::output::source_of(item)?;
                report.finding(record, &item.file, source, console.out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        self.rewrites.report(console);
        Ok(console.out.flush()?)
    }
}

#[cfg(test)]
mod tests;
