//! Findings of a scan, as a compiler reports them; a rule with a fix shows it as a diff.

use super::diff::context_lines;
use super::record::at;
use super::style::Styles;
use super::{PrintError, Printer, Record, by_language, print_diff, records, source_of};
use crate::args::ReportStyle;
use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::rewrite::{Edit, apply};
use astscope_protocol::messages::{Context, Item};
use codespan_reporting::diagnostic::{Diagnostic, Label, Severity};
use codespan_reporting::files::SimpleFile;
use codespan_reporting::term::termcolor::Buffer;
use codespan_reporting::term::{self, DisplayStyle};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// How findings are printed.
#[derive(Debug)]
pub(crate) struct Report {
    color: bool,
    styles: Styles,
    config: term::Config,
    diff_context: usize,
}

impl Report {
    pub(crate) fn new(color: bool, style: ReportStyle, context: Context) -> Self {
        let display_style = match style {
            ReportStyle::Rich => DisplayStyle::Rich,
            ReportStyle::Medium => DisplayStyle::Medium,
            ReportStyle::Short => DisplayStyle::Short,
        };
        Self {
            color,
            styles: Styles::new(color),
            config: term::Config {
                display_style,
                start_context_lines: context.before.into(),
                end_context_lines: context.after.into(),
                ..term::Config::default()
            },
            diff_context: context_lines(context.before),
        }
    }

    /// Prints a finding without a fix.
    pub(crate) fn finding(
        &self,
        record: &Record<'_>,
        path: &str,
        source: &str,
        out: &mut dyn Write,
    ) -> Result<(), PrintError> {
        let severity = match record.severity.as_str() {
            "error" => Severity::Error,
            "warning" => Severity::Warning,
            "info" => Severity::Note,
            _ => Severity::Help,
        };
        let labels = record.labels.iter().map(|label| {
            let range = label.range.byte_offset;
            let range = at(range.start)..at(range.end);
            let new = if label.style == "primary" {
                Label::primary((), range)
            } else {
                Label::secondary((), range)
            };
            match &label.message {
                Some(message) => new.with_message(message),
                None => new,
            }
        });
        let diagnostic = Diagnostic::new(severity)
            .with_code(&record.rule_id)
            .with_message(&record.message)
            .with_notes(note(record).into_iter().collect())
            .with_labels(labels.collect());
        let mut buffer = if self.color { Buffer::ansi() } else { Buffer::no_color() };
        let file = SimpleFile::new(path, source);
        term::emit_to_write_style(&mut buffer, &self.config, &file, &diagnostic).map_err(
            |error| {
                Failure::new(Exit::Internal, format!("Cannot show a finding in {path}."))
                    .source(&error)
            },
        )?;
        Ok(out.write_all(buffer.as_slice())?)
    }

    /// Prints a finding with the diff of its fix.
    pub(crate) fn fix(
        &self,
        record: &Record<'_>,
        edit: &Edit,
        path: &str,
        source: &str,
        out: &mut dyn Write,
    ) -> Result<(), PrintError> {
        let rich = matches!(self.config.display_style, DisplayStyle::Rich);
        if rich {
            writeln!(out, "{}", self.styles.path.paint(path))?;
        } else {
            let start = record.range.start;
            write!(out, "{path}:{}:{}: ", start.line + 1, start.column + 1)?;
        }
        self.title(record, out)?;
        if rich {
            let new = apply(source, std::slice::from_ref(edit))?;
            print_diff(&self.styles, source, &new, self.diff_context, out)?;
        }
        if !matches!(self.config.display_style, DisplayStyle::Short)
            && let Some(note) = note(record)
        {
            writeln!(out, "{}", self.styles.note.paint("Note:"))?;
            writeln!(out, "{note}")?;
        }
        Ok(())
    }

    fn title(&self, record: &Record<'_>, out: &mut dyn Write) -> io::Result<()> {
        let (level, style) = match record.severity.as_str() {
            "error" => ("error", self.styles.error),
            "warning" => ("warning", self.styles.warning),
            "info" => ("note", self.styles.info),
            _ => ("help", self.styles.hint),
        };
        let header = format!("{level}[{}]:", record.rule_id);
        writeln!(out, "{} {}", style.paint(header), self.styles.message.paint(&record.message))
    }

    /// The titles of a rule's fixes, where it has several to choose from.
    pub(crate) fn fix_titles(
        &self,
        titles: &[Option<&str>],
        selected: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        if titles.len() < 2 {
            return Ok(());
        }
        writeln!(out, "{}", self.styles.note.paint("Switch fix by [tab]:"))?;
        for (index, title) in titles.iter().enumerate() {
            let title = title.unwrap_or("No title");
            if index == selected {
                let title = self.styles.selected_fix.paint(title);
                writeln!(out, "{} {title}", self.styles.hunk.paint("⇥"))?;
            } else {
                writeln!(out, "  {title}")?;
            }
        }
        writeln!(out)
    }
}

/// The rule's note as it was written. ast-grep renders Markdown here; the source of a note reads
/// well enough, and nothing in it is lost.
fn note(record: &Record<'_>) -> Option<String> {
    record.note.as_ref().map(|note| format!("{}\n", note.trim_end()))
}

/// Prints a scan's findings.
#[derive(Debug)]
pub(crate) struct DiagnosticPrinter(pub(crate) Report);

impl Printer for DiagnosticPrinter {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        let source = source_of(item)?;
        for records in by_language(records(item)?) {
            // A rule's fixes that overlap can't both be applied; the first one is shown.
            let mut fixed_to = BTreeMap::<String, usize>::new();
            for record in &records {
                let Some(edit) = record.fix().map(Edit::from) else {
                    self.0.finding(record, &item.file, source, console.out)?;
                    continue;
                };
                let end = fixed_to.entry(record.rule_id.clone()).or_default();
                if edit.range.start >= *end {
                    *end = edit.range.end;
                    self.0.fix(record, &edit, &item.file, source, console.out)?;
                }
            }
        }
        Ok(())
    }
}
