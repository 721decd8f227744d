//! Lines from the daemon that are over the cap travel in pieces.
//!
//! One match can be a whole minified file, and its record holds the text several times. Instead
//! of refusing it the daemon cuts the line's JSON text into `$/chunk` notifications, which every
//! client can put together again without knowing what the line is about.

use super::{EncodeError, encode_notification};
use crate::limits::{CHUNK_PIECE_BYTES, CHUNKED_BYTES_MAX, LINE_BYTES_MAX};
use crate::messages::method;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Parameters of `$/chunk`: a piece of a line that was too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    /// Which line: pieces with the same number belong together.
    pub stream: u64,
    /// Whether this piece completes the line.
    pub last: bool,
    /// The next piece of the line's JSON text, cut between characters.
    pub text: Cow<'a, str>,
}

/// Yields `line` as it must be sent: itself if it fits, else `$/chunk` lines made on demand.
///
/// `line` is one that an `encode_…` function wrote, with its newline. `stream` must differ from
/// that of any other line whose pieces are being sent on the same connection.
pub fn split_line(line: &[u8], stream: u64) -> SplitLine<'_> {
    SplitLine::with_caps(line, stream, LINE_BYTES_MAX, CHUNK_PIECE_BYTES)
}

/// The lines that one line becomes, see [`split_line`].
#[derive(Debug)]
pub struct SplitLine<'a> {
    rest: &'a [u8],
    stream: u64,
    piece_bytes: usize,
    /// The line fits and goes out as it is.
    fits: bool,
}

impl<'a> SplitLine<'a> {
    /// Splits lines over `cap` bytes, newline apart, into pieces of at most `piece_bytes`.
    fn with_caps(line: &'a [u8], stream: u64, cap: usize, piece_bytes: usize) -> Self {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let fits = text.len() <= cap;
        Self { rest: if fits { line } else { text }, stream, piece_bytes, fits }
    }
}

impl<'a> Iterator for SplitLine<'a> {
    type Item = Result<Cow<'a, [u8]>, EncodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        if self.fits {
            return Some(Ok(Cow::Borrowed(std::mem::take(&mut self.rest))));
        }
        let (piece, rest) = self.rest.split_at(cut(self.rest, self.piece_bytes));
        self.rest = rest;
        let text = String::from_utf8_lossy(piece);
        let chunk = Chunk { stream: self.stream, last: rest.is_empty(), text };
        let mut line = Vec::with_capacity(piece.len() + piece.len() / 4);
        Some(encode_notification(&mut line, method::CHUNK, &chunk).map(|()| Cow::Owned(line)))
    }
}

/// Where to cut `text` so that the front is at most `max` bytes and ends between characters.
fn cut(text: &[u8], max: usize) -> usize {
    if text.len() <= max {
        return text.len();
    }
    let is_continuation = |at: usize| text[at] & 0b1100_0000 == 0b1000_0000;
    (1..=max).rev().find(|&at| !is_continuation(at)).unwrap_or(max)
}

/// The pieces of a line grew beyond what a client will hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunked lines are longer than {max} bytes")]
pub struct ChunksTooLarge {
    /// The cap, in bytes of all unfinished lines together.
    pub max: usize,
}

/// Puts lines together again that came in pieces.
#[derive(Debug)]
pub struct ChunkAssembler {
    streams: BTreeMap<u64, String>,
    bytes: usize,
    cap: usize,
}

impl Default for ChunkAssembler {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkAssembler {
    /// Holds up to [`CHUNKED_BYTES_MAX`].
    pub fn new() -> Self {
        Self::with_cap(CHUNKED_BYTES_MAX)
    }

    /// Holds up to `cap` bytes, all unfinished lines together.
    pub fn with_cap(cap: usize) -> Self {
        Self { streams: BTreeMap::new(), bytes: 0, cap }
    }

    /// Takes a piece, and returns the line (without a newline) if it was the last one.
    ///
    /// After an error the connection is of no more use: a piece is missing.
    pub fn push(&mut self, chunk: Chunk<'_>) -> Result<Option<String>, ChunksTooLarge> {
        let Chunk { stream, last, text } = chunk;
        if text.len() > self.cap - self.bytes {
            self.streams.clear();
            self.bytes = 0;
            return Err(ChunksTooLarge { max: self.cap });
        }
        self.bytes += text.len();
        let line = self.streams.entry(stream).or_default();
        if line.is_empty() {
            *line = text.into_owned();
        } else {
            line.push_str(&text);
        }
        if !last {
            return Ok(None);
        }
        let line = self.streams.remove(&stream).unwrap_or_default();
        self.bytes -= line.len();
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Incoming, parse};
    use proptest::prelude::*;

    /// Sends `text` as a line through splitting and assembly, and counts the pieces.
    fn through_pieces(text: &str, cap: usize, piece_bytes: usize) -> (String, usize) {
        let line = format!("{text}\n");
        let mut assembler = ChunkAssembler::new();
        let mut n_pieces = 0;
        for piece in SplitLine::with_caps(line.as_bytes(), 7, cap, piece_bytes) {
            let piece = piece.unwrap();
            let body = piece.strip_suffix(b"\n").unwrap();
            if body.len() == text.len() && body == text.as_bytes() {
                return (text.to_owned(), 0);
            }
            let Ok(Incoming::Notification(notification)) = parse(body) else {
                panic!("not a notification: {piece:?}");
            };
            assert_eq!(notification.method, method::CHUNK);
            n_pieces += 1;
            let chunk: Chunk<'_> = serde_json::from_str(notification.params.get()).unwrap();
            assert_eq!(chunk.stream, 7);
            assert!(chunk.text.len() <= piece_bytes.max(4));
            if let Some(line) = assembler.push(chunk).unwrap() {
                return (line, n_pieces);
            }
        }
        panic!("the last piece is missing");
    }

    #[test]
    fn a_line_within_the_cap_goes_out_untouched() {
        let line = b"{\"a\":1}\n";
        let lines: Vec<_> = split_line(line, 1).map(Result::unwrap).collect();
        assert_eq!(lines, [Cow::Borrowed(&line[..])]);
    }

    #[test]
    fn pieces_are_cut_between_characters() {
        assert_eq!(cut("aäb".as_bytes(), 2), 1);
        assert_eq!(cut("aäb".as_bytes(), 3), 3);
        assert_eq!(through_pieces("\"äöü€𝄞\"", 4, 4), ("\"äöü€𝄞\"".to_owned(), 5));
    }

    #[test]
    fn a_line_over_the_real_cap_arrives_in_lines_under_it() {
        let line = format!("{{\"s\":\"{}\"}}\n", "\\\"".repeat(LINE_BYTES_MAX / 2));
        let mut assembler = ChunkAssembler::new();
        let mut whole = None;
        for piece in split_line(line.as_bytes(), 1) {
            let piece = piece.unwrap();
            assert!(piece.len() <= LINE_BYTES_MAX);
            let Ok(Incoming::Notification(notification)) = parse(&piece[..piece.len() - 1]) else {
                panic!("not a notification");
            };
            let chunk: Chunk<'_> = serde_json::from_str(notification.params.get()).unwrap();
            whole = assembler.push(chunk).unwrap();
        }
        assert!(whole.as_deref() == line.strip_suffix('\n'), "the line changed on its way");
    }

    #[test]
    fn interleaved_lines_stay_apart() {
        let chunk = |stream, last, text| Chunk { stream, last, text: Cow::Borrowed(text) };
        let mut assembler = ChunkAssembler::new();
        assert_eq!(assembler.push(chunk(1, false, "a")), Ok(None));
        assert_eq!(assembler.push(chunk(2, false, "x")), Ok(None));
        assert_eq!(assembler.push(chunk(1, true, "b")), Ok(Some("ab".to_owned())));
        assert_eq!(assembler.push(chunk(2, true, "")), Ok(Some("x".to_owned())));
    }

    #[test]
    fn the_cap_holds_for_all_unfinished_lines_together() {
        let chunk = |stream, last, text| Chunk { stream, last, text: Cow::Borrowed(text) };
        let mut assembler = ChunkAssembler::with_cap(4);
        assert_eq!(assembler.push(chunk(1, true, "abcd")), Ok(Some("abcd".to_owned())));
        assert_eq!(assembler.push(chunk(1, false, "abc")), Ok(None));
        assert_eq!(assembler.push(chunk(2, false, "de")), Err(ChunksTooLarge { max: 4 }));
    }

    proptest! {
        #[test]
        fn any_text_survives_its_pieces(text in "\\PC{1,80}", piece_bytes in 4_usize..20) {
            prop_assert_eq!(through_pieces(&text, piece_bytes, piece_bytes).0, text);
        }
    }
}
