//! `--interactive`: each rewrite is shown and confirmed, each finding without a fix is shown.
//!
//! All matches are collected first: somebody who thinks about an edit for a minute must not hold
//! up the daemon, which drops clients that don't read.

use crate::console::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::style::Styles;
use crate::output::{
    PrintError, Printer, Record, Report, TextPrinter, by_language, print_diff, print_matches,
    records, source_of,
};
use crate::rewrite::{Edit, Rewrites, apply};
use astscope_protocol::messages::Item;
use std::io;
use std::path::Path;
use std::process::Command;

const EDIT_PROMPT: &str = "Accept? [y]es/[↵], [n]o, [a]ll, [q]uit, [e]dit";
const VIEW_PROMPT: &str = "Next[enter], Quit[q], Edit[e]";
const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const CLEAR_SCREEN: &str = "\x1b[2J\x1b[1;1H";

/// How matches are shown.
#[derive(Debug)]
pub(crate) enum Show {
    /// `run` without a rewrite.
    Matches(TextPrinter),
    /// `run` with a rewrite, with lines of context.
    Diffs(Styles, usize),
    /// `scan`.
    Findings(Report),
}

/// Asks about each match.
#[derive(Debug)]
pub(crate) struct Interactive {
    show: Show,
    items: Vec<Item>,
    accept_all: bool,
    pub(crate) rewrites: Rewrites,
    /// Findings of severity error without a fix.
    pub(crate) n_errors: u64,
}

/// What the user wants done with an edit.
enum Answer {
    Accept(Edit),
    AcceptAll(Edit),
    Reject,
    Quit,
}

impl Interactive {
    pub(crate) fn new(show: Show) -> Self {
        Self {
            show,
            items: Vec::new(),
            accept_all: false,
            rewrites: Rewrites::default(),
            n_errors: 0,
        }
    }

    /// One file: first its edits, then what has none.
    fn review(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        let mut records = records(item)?;
        records.sort_by_key(|record| record.range.byte_offset.start);
        let (fixable, others): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.replacement.is_some());
        let mut confirmed: Vec<Edit> = Vec::new();
        let mut quit = false;
        for record in &fixable {
            let end = confirmed.last().map_or(0, |edit| edit.range.end);
            let mut choices: Vec<Edit> = record.all_fixes().into_iter().map(Edit::from).collect();
            choices.retain(|edit| edit.range.start >= end);
            if choices.is_empty() {
                continue;
            }
            match self.ask(item, record, choices, console)? {
                Answer::Accept(edit) => confirmed.push(edit),
                Answer::AcceptAll(edit) => {
                    self.accept_all = true;
                    confirmed.push(edit);
                }
                Answer::Reject => {}
                Answer::Quit => {
                    quit = true;
                    break;
                }
            }
        }
        self.rewrites.apply(item, &confirmed, None, console)?;
        if quit {
            return Err(exited().into());
        }
        for group in by_language(others) {
            self.n_errors +=
                group.iter().filter(|record| record.severity == "error").count() as u64;
            self.view(item, &group, console)?;
        }
        Ok(())
    }

    /// Shows an edit, and asks. Tab switches between a rule's fixes.
    fn ask(
        &self,
        item: &Item,
        record: &Record<'_>,
        mut choices: Vec<Edit>,
        console: &mut Console<'_>,
    ) -> Result<Answer, PrintError> {
        if self.accept_all {
            return Ok(Answer::Accept(choices.swap_remove(0)));
        }
        let mut selected = 0;
        on_screen(console, |console| {
            loop {
                self.show_edit(item, record, &choices, selected, console)?;
                let answer = match prompt(console, EDIT_PROMPT, "ynaqe\t", 'y')? {
                    '\t' => {
                        selected = (selected + 1) % choices.len();
                        write!(console.out, "{CLEAR_SCREEN}")?;
                        continue;
                    }
                    'y' => Answer::Accept(choices.swap_remove(selected)),
                    'a' => Answer::AcceptAll(choices.swap_remove(selected)),
                    'e' => {
                        open_in_editor(&console.cwd.join(&item.file), record.range.start.line)?;
                        Answer::Reject
                    }
                    'q' => Answer::Quit,
                    _ => Answer::Reject,
                };
                return Ok(answer);
            }
        })
    }

    fn show_edit(
        &self,
        item: &Item,
        record: &Record<'_>,
        choices: &[Edit],
        selected: usize,
        console: &mut Console<'_>,
    ) -> Result<(), PrintError> {
        let source = source_of(item)?;
        let edit = &choices[selected];
        match &self.show {
            Show::Findings(report) => {
                report.fix(record, edit, &item.file, source, console.out)?;
                let titles: Vec<_> = choices.iter().map(|edit| edit.title.as_deref()).collect();
                report.fix_titles(&titles, selected, console.out)?;
            }
            Show::Diffs(styles, context) => {
                let new = apply(source, std::slice::from_ref(edit))?;
                writeln!(console.out, "{}", styles.path.paint(&item.file))?;
                print_diff(styles, source, &new, *context, console.out)?;
            }
            Show::Matches(_) => {}
        }
        Ok(())
    }

    /// Shows matches that there is nothing to decide about.
    fn view(
        &self,
        item: &Item,
        group: &[Record<'_>],
        console: &mut Console<'_>,
    ) -> Result<(), PrintError> {
        let (Some(first), false) = (group.first(), self.accept_all) else {
            return self.show_matches(item, group, console);
        };
        on_screen(console, |console| {
            self.show_matches(item, group, console)?;
            match prompt(console, VIEW_PROMPT, "qe", '\n')? {
                'q' => Err(exited().into()),
                'e' => open_in_editor(&console.cwd.join(&item.file), first.range.start.line),
                _ => Ok(()),
            }
        })
    }

    fn show_matches(
        &self,
        item: &Item,
        group: &[Record<'_>],
        console: &mut Console<'_>,
    ) -> Result<(), PrintError> {
        match &self.show {
            Show::Matches(printer) => print_matches(printer, &item.file, group, console.out)?,
            Show::Findings(report) => {
                let source = source_of(item)?;
                for record in group {
                    report.finding(record, &item.file, source, console.out)?;
                }
            }
            Show::Diffs(..) => {}
        }
        Ok(())
    }
}

impl Printer for Interactive {
    fn item(&mut self, item: &Item, _console: &mut Console<'_>) -> Result<(), PrintError> {
        self.items.push(item.clone());
        Ok(())
    }

    fn end(&mut self, console: &mut Console<'_>) -> Result<(), PrintError> {
        for item in std::mem::take(&mut self.items) {
            self.review(&item, console)?;
        }
        self.rewrites.report(console);
        Ok(console.out.flush()?)
    }
}

/// The user has quit: a warning, as in ast-grep, and no error.
fn exited() -> Failure {
    Failure::new(Exit::Success, "Interactive editing exited.")
        .help("Your accepted edit has been saved.")
}

/// Runs a dialogue on the terminal's second screen, and comes back to the first in any case.
fn on_screen<T>(
    console: &mut Console<'_>,
    dialogue: impl FnOnce(&mut Console<'_>) -> Result<T, PrintError>,
) -> Result<T, PrintError> {
    write!(console.out, "{ENTER_SCREEN}{CLEAR_SCREEN}")?;
    let result = dialogue(console);
    write!(console.out, "{LEAVE_SCREEN}")?;
    console.out.flush()?;
    result
}

/// Asks until one of the letters, or Enter for the default, is pressed.
fn prompt(
    console: &mut Console<'_>,
    question: &str,
    letters: &str,
    default: char,
) -> Result<char, PrintError> {
    loop {
        write!(console.out, "{question}")?;
        console.out.flush()?;
        let key = console.keys.key().map_err(|error| {
            Failure::new(Exit::NotInteractive, "Interactive mode needs a terminal.")
                .help("Use -U to apply all rewrites without confirmation.")
                .source(&error)
        })?;
        match key {
            '\n' => return Ok(default),
            key if letters.contains(key) => return Ok(key),
            _ => console.note("Unrecognized command, try again?"),
        }
    }
}

/// Opens a file in `$EDITOR` at a line, counted from zero.
fn open_in_editor(path: &Path, line: u32) -> Result<(), PrintError> {
    let editor = std::env::var("EDITOR").unwrap_or_else(|_| "vim".to_owned());
    let failure = || {
        Failure::new(Exit::Editor, "Cannot open file in editor.").help(
            "Please check if the editor is installed and the EDITOR environment variable is correctly set.",
        )
    };
    let mut words = editor.split_whitespace();
    let program = words.next().ok_or_else(failure)?;
    let status = Command::new(program)
        .args(words)
        .arg(path)
        .arg(format!("+{}", u64::from(line) + 1))
        .status()
        .map_err(|error: io::Error| failure().source(&error))?;
    if status.success() { Ok(()) } else { Err(failure().cause(status.to_string()).into()) }
}
