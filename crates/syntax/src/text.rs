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

/// Bytes between two marks: at most this much text is counted for a position.
const STRIDE: usize = 256;

/// Turns byte offsets of one text into lines and columns.
///
/// Built on demand for the files that have matches (one pass at memory speed), never stored. A
/// position costs the counting of at most `STRIDE` bytes, on a minified one-line file too, where
/// counting from the line's start would be quadratic over all matches.
#[derive(Debug)]
pub struct LineIndex<T> {
    text: T,
    /// What precedes byte `i * STRIDE`.
    marks: Vec<Mark>,
    is_ascii: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    lines: u32,
    chars: u32,
    /// First byte of the line that the mark is on.
    line_start: u32,
}

impl<T: Deref<Target = str>> LineIndex<T> {
    /// Indexes `text` (a `&str`, an `Arc<str>`), which must be shorter than 4 GiB.
    pub fn new(text: T) -> Self {
        let bytes = text.as_bytes();
        let is_ascii = bytes.is_ascii();
        let mut marks = Vec::with_capacity(bytes.len() / STRIDE + 2);
        let mut mark = Mark::default();
        marks.push(mark);
        for (at, chunk) in bytes.chunks(STRIDE).enumerate() {
            mark.lines += to_u32(count_newlines(chunk));
            mark.chars += to_u32(if is_ascii { chunk.len() } else { count_chars(chunk) });
            if let Some(newline) = memchr::memrchr(b'\n', chunk) {
                mark.line_start = to_u32(at * STRIDE + newline + 1);
            }
            marks.push(mark);
        }
        Self { text, marks, is_ascii }
    }

    /// Line and character column of the byte `offset`, which may be the text's end.
    pub fn position(&self, offset: u32) -> Position {
        let (line, byte_column) = self.byte_point(offset);
        let column = if self.is_ascii {
            byte_column
        } else {
            self.chars_until(offset) - self.chars_until(offset - byte_column)
        };
        Position { line, column }
    }

    /// Line and byte column of the byte `offset`, as tree-sitter's points count.
    pub fn byte_point(&self, offset: u32) -> (u32, u32) {
        let (mark, from, text) = self.stretch(offset);
        let line_start =
            memchr::memrchr(b'\n', text).map_or(mark.line_start, |at| to_u32(from + at + 1));
        (mark.lines + to_u32(count_newlines(text)), offset - line_start)
    }

    fn chars_until(&self, offset: u32) -> u32 {
        let (mark, _, text) = self.stretch(offset);
        mark.chars + to_u32(count_chars(text))
    }

    /// The last mark up to `offset`, its place, and the text from there to `offset`.
    fn stretch(&self, offset: u32) -> (Mark, usize, &[u8]) {
        let offset = (offset as usize).min(self.text.len());
        let at = offset / STRIDE;
        (self.marks[at], at * STRIDE, &self.text.as_bytes()[at * STRIDE..offset])
    }
}

fn count_newlines(bytes: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', bytes).count()
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
