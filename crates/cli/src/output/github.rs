//! `--format github`: workflow commands, which GitHub shows as annotations of the changed lines.

use super::{PrintError, Printer, records};
use crate::console::Console;
use astscope_protocol::messages::Item;
use std::fmt::Write as _;

/// Prints a command per finding.
#[derive(Debug)]
pub(crate) struct GithubPrinter;

impl Printer for GithubPrinter {
    fn item(&mut self, item: &Item, console: &mut Console<'_>) -> Result<(), PrintError> {
        for record in records(item)? {
            let level = match record.severity.as_str() {
                "error" => "error",
                "warning" => "warning",
                "info" => "notice",
                // GitHub has no level below notice.
                _ => continue,
            };
            let (line, end_line) = (record.range.start.line + 1, record.range.end.line + 1);
            let file = escape(&item.file, "%\r\n:,");
            let title = escape(&record.rule_id, "%\r\n:,");
            let message = escape(&record.message, "%\r\n");
            writeln!(
                console.out,
                "::{level} file={file},line={line},endLine={end_line},title={title}::{message}"
            )?;
        }
        Ok(())
    }
}

/// Percent-encodes the characters that would end a value.
fn escape(text: &str, special: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, char| {
        if special.contains(char) {
            let _infallible = write!(escaped, "%{:02X}", u32::from(char));
        } else {
            escaped.push(char);
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn what_would_end_a_value_is_encoded() {
        assert_eq!(escape("a:b,c%\r\n", "%\r\n:,"), "a%3Ab%2Cc%25%0D%0A");
        assert_eq!(escape("a: b\n", "%\r\n"), "a: b%0A");
    }
}
