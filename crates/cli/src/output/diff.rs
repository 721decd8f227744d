//! Rewrites as diffs, with the changed words of a line emphasized.

use super::style::{Style, Styles};
use super::text::digits;
use super::{PrintError, Printer, Record, by_language, records, source_of};
use crate::console::Console;
use crate::rewrite::{Edit, apply, without_overlaps};
use astscope_protocol::messages::Item;
use similar::{ChangeTag, DiffOp, TextDiff};
use std::io::{self, Write};

/// Lines of context, unless the user asks for another number.
const CONTEXT_LINES: usize = 3;

/// Prints what a rewrite would change.
#[derive(Debug)]
pub(crate) struct DiffPrinter {
    styles: Styles,
    context: usize,
}

impl DiffPrinter {
    /// `before` is the number of context lines that the user asked for, 0 for none.
    pub(crate) fn new(color: bool, before: u16) -> Self {
        Self { styles: Styles::new(color), context: context_lines(before) }
    }
}

/// As in ast-grep, a diff has `-B` lines of context on both sides, and three by default.
pub(crate) fn context_lines(before: u16) -> usize {
    if before == 0 { CONTEXT_LINES } else { before.into() }
}

impl Printer for DiffPrinter {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        let source = source_of(item)?;
        for records in by_language(records(item)?) {
            let edits = records.iter().filter_map(Record::fix).map(Edit::from);
            let new = apply(source, &without_overlaps(edits.collect()))?;
            writeln!(console.out, "{}", self.styles.path.paint(&item.file))?;
            print_diff(&self.styles, source, &new, self.context, console.out)?;
        }
        Ok(())
    }
}

/// Prints the hunks of a diff.
pub(crate) fn print_diff(
    styles: &Styles,
    old: &str,
    new: &str,
    context: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let diff = TextDiff::from_lines(old, new);
    for group in diff.grouped_ops(context) {
        let Some(last) = group.last() else { continue };
        let widths = (digits(last.old_range().end), digits(last.new_range().end));
        writeln!(out, "{}", styles.hunk.paint(header(&group)))?;
        for op in &group {
            for change in diff.iter_inline_changes(op) {
                print_change(styles, &change, widths, out)?;
            }
        }
    }
    Ok(())
}

/// `@@ -a,b +c,d @@`, with lines counted from zero as ast-grep does.
fn header(group: &[DiffOp]) -> String {
    let (old, new) =
        group.first().map_or((0, 0), |op| (op.old_range().start, op.new_range().start));
    let old_len: usize = group.iter().map(|op| op.old_range().len()).sum();
    let new_len: usize = group.iter().map(|op| op.new_range().len()).sum();
    format!("@@ -{old},{old_len} +{new},{new_len} @@")
}

fn print_change(
    styles: &Styles,
    change: &similar::InlineChange<'_, str>,
    (old_width, new_width): (usize, usize),
    out: &mut dyn Write,
) -> io::Result<()> {
    let (sign, style, emphasis, number) = match change.tag() {
        ChangeTag::Delete => ("-", styles.delete, styles.delete_emphasis, styles.delete),
        ChangeTag::Insert => ("+", styles.insert, styles.insert_emphasis, styles.insert),
        ChangeTag::Equal => (" ", Style::PLAIN, Style::PLAIN, styles.line_number),
    };
    let old = line_number(change.old_index(), old_width);
    let new = line_number(change.new_index(), new_width);
    write!(out, "{} {}│{}", number.paint(old), number.paint(new), style.paint(sign))?;
    for (emphasized, text) in change.iter_strings_lossy() {
        let style = if emphasized { emphasis } else { style };
        write!(out, "{}", style.paint(text))?;
    }
    if change.missing_newline() {
        writeln!(out)?;
    }
    Ok(())
}

fn line_number(index: Option<usize>, width: usize) -> String {
    index.map_or_else(|| " ".repeat(width), |index| format!("{:<width$}", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_diff_without_color_is_readable_text() {
        let mut out = Vec::new();
        print_diff(&Styles::new(false), "a\nb\nc\n", "a\nB\nc", 1, &mut out).unwrap();
        expect![[r"
            @@ -0,3 +0,3 @@
            1 1│ a
            2  │-b
            3  │-c
              2│+B
              3│+c
        "]]
        .assert_eq(&String::from_utf8(out).unwrap());
    }
}
