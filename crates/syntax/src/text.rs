//! Text positions: byte ranges inside, lines and character columns at the edge.

use std::ops::{Deref, Range};

/// A half-open range of bytes in a file's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TextRange {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl TextRange {
    /// The range `start..end`.
    ///
    /// # Panics
    /// When `end` lies before `start`.
    pub fn new(start: u32, end: u32) -> Self {
        assert!(start <= end, "a text range ends where it starts or later, not {start}..{end}");
        Self { start, end }
    }

    /// Its length in bytes.
    pub fn len(self) -> u32 {
        self.end - self.start
    }

    /// Whether it holds no byte.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same range for slicing.
    pub fn to_usize(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A place in a text as people and ast-grep count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Zero-based line. Only `\n` ends a line, as in tree-sitter.
    pub line: u32,
    /// Zero-based column in characters (Unicode scalar values), not in bytes.
    pub column: u32,
}

/// Bytes between two stored character counts: at most this much text is counted for a column.
const STRIDE: usize = 512;

/// Turns byte offsets of one text into lines and columns.
///
/// Built on demand for the files that have matches (one pass at memory speed), never stored.
/// A column costs O(log lines) plus at most `STRIDE` bytes of counting, on a minified
/// one-line file too, where counting from the line's start would be quadratic over all matches.
#[derive(Debug)]
pub struct LineIndex<T> {
    text: T,
    /// Offset of the first byte of each line.
    line_starts: Vec<u32>,
    /// Characters before byte `i * STRIDE`; empty when the text is ASCII.
    chars_before: Vec<u32>,
}

impl<T: Deref<Target = str>> LineIndex<T> {
    /// Indexes `text` (a `&str`, an `Arc<str>`), which must be shorter than 4 GiB.
    pub fn new(text: T) -> Self {
        let bytes = text.as_bytes();
        let mut line_starts = vec![0];
        line_starts.extend(memchr::memchr_iter(b'\n', bytes).map(|at| to_u32(at + 1)));
        let mut chars_before = Vec::new();
        if !text.is_ascii() {
            let mut chars = 0;
            for chunk in bytes.chunks(STRIDE) {
                chars_before.push(to_u32(chars));
                chars += count_chars(chunk);
            }
            chars_before.push(to_u32(chars));
        }
        Self { text, line_starts, chars_before }
    }

    /// Number of lines; a text that ends in `\n` has an empty last line.
    pub fn n_lines(&self) -> usize {
        self.line_starts.len()
    }

    /// The zero-based line that holds the byte `offset`.
    pub fn line(&self, offset: u32) -> u32 {
        to_u32(self.line_starts.partition_point(|&start| start <= offset) - 1)
    }

    /// Offset of the first byte of `line`, or of the text's end past the last line.
    pub fn line_start(&self, line: u32) -> u32 {
        self.line_starts.get(line as usize).copied().unwrap_or_else(|| to_u32(self.text.len()))
    }

    /// Line and character column of the byte `offset`, which may be the text's end.
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line(offset);
        let start = self.line_start(line);
        let column = if self.chars_before.is_empty() {
            offset - start
        } else {
            self.chars_until(offset) - self.chars_until(start)
        };
        Position { line, column }
    }

    /// Line and byte column of the byte `offset`, as tree-sitter's points count.
    pub fn byte_point(&self, offset: u32) -> (u32, u32) {
        let line = self.line(offset);
        (line, offset - self.line_start(line))
    }

    fn chars_until(&self, offset: u32) -> u32 {
        let offset = (offset as usize).min(self.text.len());
        let block = offset / STRIDE;
        self.chars_before[block]
            + to_u32(count_chars(&self.text.as_bytes()[block * STRIDE..offset]))
    }
}

/// Bytes that start a character: all but UTF-8 continuation bytes.
fn count_chars(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0b1100_0000 != 0b1000_0000).count()
}

#[expect(clippy::cast_possible_truncation, reason = "texts are capped below 4 GiB at ingest")]
fn to_u32(n: usize) -> u32 {
    n as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_count_characters_and_lines_end_at_newline_only() {
        let text = "aé\r\nß𐀀b\n";
        let index = LineIndex::new(text);
        let at = |offset| {
            let p = index.position(offset);
            (p.line, p.column)
        };
        assert_eq!(at(0), (0, 0));
        assert_eq!(at(3), (0, 2));
        assert_eq!(at(4), (0, 3), "the carriage return is a character of its line");
        assert_eq!(at(5), (1, 0));
        assert_eq!(at(11), (1, 2));
        assert_eq!(at(13), (2, 0), "the end of a text that ends in a newline");
        assert_eq!(index.byte_point(11), (1, 6));
    }

    proptest! {
        #[test]
        fn columns_equal_a_count_from_the_lines_start(text in "[a-z\nßñ€𐀀]{0,3000}", at in 0usize..3000) {
            let index = LineIndex::new(&*text);
            let at = text.char_indices().map(|(i, _)| i).nth(at).unwrap_or(text.len());
            let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
            let expected = Position {
                line: to_u32(text[..at].matches('\n').count()),
                column: to_u32(text[line_start..at].chars().count()),
            };
            prop_assert_eq!(index.position(to_u32(at)), expected);
        }
    }
}
