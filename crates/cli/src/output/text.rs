//! Matches as text: with a heading and line numbers on a terminal, with the path before each line
//! in a pipe. Matches on the same or neighbouring lines are printed as one passage.
//!
//! ast-grep has the whole source to do this with. Here the text between two matches is put
//! together from what stands behind the one and before the other in their `lines`, so that the
//! daemon needn't send any file.

use super::record::at;
use super::style::{Style, Styles};
use super::{PrintError, Printer, Record, by_language, records};
use crate::console::Console;
use astscope_protocol::messages::{Context, Item};
use std::fmt::Write as _;
use std::io::{self, Write};

/// Prints matches.
#[derive(Debug)]
pub(crate) struct TextPrinter {
    pub(crate) styles: Styles,
    pub(crate) heading: bool,
    pub(crate) context: Context,
}

impl Printer for TextPrinter {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        for records in by_language(records(item)?) {
            print_matches(self, &item.file, &records, console.out)?;
        }
        Ok(())
    }
}

/// Lines that are printed together.
struct Passage<'r> {
    /// All but what stands behind the last match.
    text: String,
    trailing: &'r str,
    /// One-based number of the first line.
    first_line: usize,
    /// One-based line on which the passage's first match ends. Later matches don't move it, as in
    /// ast-grep; what is printed is the same, only separators depend on it.
    end_line: usize,
    /// Byte behind the last match.
    end: usize,
}

impl<'r> Passage<'r> {
    fn begin(record: &'r Record<'_>, styles: &Styles) -> Self {
        let (leading, matched, trailing) = record.split();
        let mut passage = Self {
            text: leading.to_owned(),
            trailing,
            first_line: first_line(record) + 1,
            end_line: at(record.range.end.line.into()) + 1,
            end: record.bytes().end,
        };
        passage.push_match(matched, styles);
        passage
    }

    /// Appends a match if it begins on the passage's lines or the next one.
    fn extend(&mut self, record: &'r Record<'_>, after: usize, styles: &Styles) -> bool {
        if first_line(record) > self.end_line + after {
            return false;
        }
        let (leading, matched, trailing) = record.split();
        let Some(gap) = gap(self.trailing, leading, self.end, record.bytes().start) else {
            return false;
        };
        self.text.push_str(&gap);
        self.push_match(matched, styles);
        self.trailing = trailing;
        self.end = record.bytes().end;
        true
    }

    /// Colors a match line by line: a style that spans lines confuses pagers.
    fn push_match(&mut self, matched: &str, styles: &Styles) {
        // Lines are what is printed in the end, whichever way they are put together.
        if styles.matched == Style::PLAIN && !matched.ends_with('\n') {
            self.text.push_str(matched);
            return;
        }
        for (index, line) in matched.lines().enumerate() {
            if index > 0 {
                self.text.push('\n');
            }
            let _infallible = write!(self.text, "{}", styles.matched.paint(line));
        }
    }

    fn finish(mut self) -> (String, usize) {
        self.text.push_str(self.trailing);
        (self.text, self.first_line)
    }
}

/// Zero-based line with which a match's `lines` begin.
fn first_line(record: &Record<'_>) -> usize {
    let before = record.split().0.matches('\n').count();
    at(record.range.start.line.into()).saturating_sub(before)
}

/// The text between two matches: what is known of it from both sides, and a line break where the
/// two sides just meet. `None` if they don't.
fn gap(trailing: &str, leading: &str, end: usize, start: usize) -> Option<String> {
    let length = start.checked_sub(end)?;
    if length <= trailing.len() {
        return trailing.get(..length).map(str::to_owned);
    }
    let missing = length - trailing.len();
    if missing <= leading.len() {
        return Some(format!("{trailing}{}", leading.get(leading.len() - missing..)?));
    }
    (missing == leading.len() + 1).then(|| format!("{trailing}\n{leading}"))
}

/// Prints the matches of one file and language.
pub(crate) fn print_matches(
    printer: &TextPrinter,
    path: &str,
    records: &[Record<'_>],
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some((first, rest)) = records.split_first() else {
        return Ok(());
    };
    let styles = &printer.styles;
    if printer.heading {
        writeln!(out, "{}", styles.path.paint(path))?;
    }
    let separated = printer.context.before + printer.context.after > 0;
    let mut passage = Passage::begin(first, styles);
    for record in rest {
        // A match within a match is printed already.
        if record.bytes().start < passage.end {
            continue;
        }
        if passage.extend(record, printer.context.after.into(), styles) {
            continue;
        }
        let next = Passage::begin(record, styles);
        let (text, first_line) = std::mem::replace(&mut passage, next).finish();
        let width = print_passage(printer, path, &text, first_line, out)?;
        match (separated, printer.heading) {
            (true, true) => writeln!(out, "{:╴>width$}┤", "")?,
            (true, false) => writeln!(out, "--")?,
            (false, _) => {}
        }
    }
    let (text, first_line) = passage.finish();
    print_passage(printer, path, &text, first_line, out)?;
    if printer.heading {
        writeln!(out)?;
    }
    Ok(())
}

/// Prints numbered lines, and returns how wide the column of numbers is, where they have one.
fn print_passage(
    printer: &TextPrinter,
    path: &str,
    text: &str,
    first_line: usize,
    out: &mut dyn Write,
) -> io::Result<usize> {
    let numbered = (first_line..).zip(text.lines());
    if printer.heading {
        let width = digits(text.lines().count() + first_line);
        for (number, line) in numbered {
            let number = format!("{number:<width$}");
            writeln!(out, "{}│{line}", printer.styles.line_number.paint(number))?;
        }
        return Ok(width);
    }
    for (number, line) in numbered {
        // Large answers have tens of thousands of lines: formatting is for the number only.
        out.write_all(path.as_bytes())?;
        write!(out, ":{number}:")?;
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    Ok(0)
}

/// Decimal digits of a number.
pub(crate) fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

#[cfg(test)]
mod tests {
    use super::gap;

    #[test]
    fn the_text_between_two_matches_is_known_from_both_sides() {
        // a(1); b(2): each line's rest is behind the first and before the second.
        assert_eq!(gap("; b(2)", "a(1); ", 4, 6).unwrap(), "; ");
        // On neighbouring lines only the line break is in neither.
        assert_eq!(gap(";", "  ", 4, 8).unwrap(), ";\n  ");
        // With context the two overlap.
        assert_eq!(gap("\nxy", "xy\n", 0, 4).unwrap(), "\nxy\n");
    }

    #[test]
    fn sides_that_do_not_meet_give_no_text() {
        assert_eq!(gap("a", "b", 0, 9), None);
        assert_eq!(gap("a", "b", 9, 0), None);
        // Never inside a character.
        assert_eq!(gap("é", "", 0, 1), None);
    }
}
