//! Cuts a byte stream into lines, without IO.
//!
//! The caller reads; the decoder takes the bytes as they come and hands out whole lines. It keeps
//! only the unfinished tail of what it saw, which never contains a newline: so every byte is
//! scanned once, whatever the pieces, and at most one line's cap is ever held.

use crate::limits::LINE_BYTES_MAX;

/// Capacity that is kept for the next unfinished line; more is given back.
const KEPT_BYTES: usize = 1 << 20;

/// A line was longer than the cap. It was dropped; the next one is unharmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line is longer than {max} bytes")]
pub struct LineTooLong {
    /// The cap, in bytes without the newline.
    pub max: usize,
}

/// The stream ended within a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stream ended {bytes} bytes into a line")]
pub struct HalfLine {
    /// Bytes of the line that had come.
    pub bytes: usize,
}

/// Cuts a byte stream into lines, incrementally.
///
/// ```
/// # use astscope_protocol::LineDecoder;
/// let mut decoder = LineDecoder::new();
/// let mut input: &[u8] = b"{\"a\":1}\n{\"b\"";
/// assert_eq!(decoder.next_line(&mut input), Some(Ok(&b"{\"a\":1}"[..])));
/// assert_eq!(decoder.next_line(&mut input), None);
/// let mut input: &[u8] = b":2}\n";
/// assert_eq!(decoder.next_line(&mut input), Some(Ok(&b"{\"b\":2}"[..])));
/// assert_eq!(decoder.finish(), Ok(()));
/// ```
#[derive(Debug)]
pub struct LineDecoder {
    /// The line so far, or the line handed out last (`delivered`). Without a newline.
    partial: Vec<u8>,
    /// `partial` was handed out whole and starts anew with the next call.
    delivered: bool,
    /// The rest of a line that was reported as too long is still coming.
    discarding: bool,
    cap: usize,
}

impl Default for LineDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl LineDecoder {
    /// Accepts lines of up to [`LINE_BYTES_MAX`].
    pub fn new() -> Self {
        Self::with_cap(LINE_BYTES_MAX)
    }

    /// Accepts lines of up to `cap` bytes.
    pub fn with_cap(cap: usize) -> Self {
        Self { partial: Vec::new(), delivered: false, discarding: false, cap }
    }

    /// Takes bytes off the front of `input` up to the end of a line, and returns that line without
    /// its newline; `None` once all of `input` is taken and more is needed.
    ///
    /// Empty lines are skipped. A line over the cap is one error, as soon as it is known, and the
    /// lines behind it come out as usual.
    pub fn next_line<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Option<Result<&'a [u8], LineTooLong>> {
        if self.delivered {
            self.delivered = false;
            self.partial.clear();
            self.partial.shrink_to(KEPT_BYTES);
        }
        while !input.is_empty() {
            let (part, ended) = take_part(input);
            if self.discarding {
                self.discarding = !ended;
            } else if part.len() > self.cap - self.partial.len() {
                self.partial = Vec::new();
                self.discarding = !ended;
                return Some(Err(LineTooLong { max: self.cap }));
            } else if ended && self.partial.is_empty() {
                if !part.is_empty() {
                    return Some(Ok(part));
                }
            } else {
                self.keep(part);
                if ended {
                    self.delivered = true;
                    return Some(Ok(&self.partial));
                }
            }
        }
        None
    }

    /// Says whether the stream may end here: not in the middle of a line.
    ///
    /// A line that was reported as too long isn't reported a second time.
    pub fn finish(&mut self) -> Result<(), HalfLine> {
        let bytes = if self.delivered { 0 } else { self.partial.len() };
        *self = Self::with_cap(self.cap);
        if bytes == 0 { Ok(()) } else { Err(HalfLine { bytes }) }
    }

    /// Bytes of an unfinished line that are held.
    pub fn buffered(&self) -> usize {
        if self.delivered { 0 } else { self.partial.len() }
    }

    /// Appends to the unfinished line; its memory doubles as usual, but never beyond the cap.
    fn keep(&mut self, part: &[u8]) {
        let needed = self.partial.len() + part.len();
        if needed > self.partial.capacity() {
            let capacity = needed.max(self.partial.capacity() * 2).min(self.cap);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(part);
    }
}

/// Takes everything before the first newline, or all; also says whether there was one.
fn take_part<'i>(input: &mut &'i [u8]) -> (&'i [u8], bool) {
    if let Some(at) = memchr::memchr(b'\n', input) {
        let part = &input[..at];
        *input = &input[at + 1..];
        (part, true)
    } else {
        (std::mem::take(input), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out of a stream that arrives in the given pieces.
    fn decode(cap: usize, pieces: &[&str]) -> (Vec<Result<String, LineTooLong>>, usize) {
        let mut decoder = LineDecoder::with_cap(cap);
        let mut lines = Vec::new();
        for piece in pieces {
            let mut input = piece.as_bytes();
            while let Some(line) = decoder.next_line(&mut input) {
                lines.push(line.map(|line| String::from_utf8(line.to_vec()).unwrap()));
            }
            assert!(decoder.buffered() <= cap);
        }
        (lines, decoder.finish().err().map_or(0, |half| half.bytes))
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let expected = (vec![Ok("one".to_owned()), Ok("two".to_owned())], 0);
        assert_eq!(decode(9, &["one\ntwo\n"]), expected);
        assert_eq!(decode(9, &["o", "ne", "\n", "t", "wo\n"]), expected);
        assert_eq!(decode(9, &["", "one\nt", "wo\n"]), expected);
    }

    #[test]
    fn empty_lines_are_skipped() {
        assert_eq!(
            decode(9, &["\n\na\n\n", "\n", "b\n"]),
            (vec![Ok("a".to_owned()), Ok("b".to_owned())], 0)
        );
    }

    #[test]
    fn a_half_sent_line_is_reported_at_the_end() {
        assert_eq!(decode(9, &["one\ntw"]), (vec![Ok("one".to_owned())], 2));
    }

    #[test]
    fn a_line_of_exactly_the_cap_passes_and_one_byte_more_does_not() {
        assert_eq!(
            decode(3, &["abc\nabcd\nabc\n"]).0,
            [Ok("abc".to_owned()), Err(LineTooLong { max: 3 }), Ok("abc".to_owned())]
        );
    }

    #[test]
    fn an_oversized_line_is_one_error_and_the_next_line_survives() {
        let (lines, half) = decode(4, &["abc", "def", "ghi", "jkl", "mno\nok\n"]);
        assert_eq!((lines, half), (vec![Err(LineTooLong { max: 4 }), Ok("ok".to_owned())], 0));
    }

    #[test]
    fn an_oversized_line_that_never_ends_is_not_reported_twice() {
        assert_eq!(decode(4, &["abcdefg", "hij"]), (vec![Err(LineTooLong { max: 4 })], 0));
    }

    #[test]
    fn memory_for_an_unfinished_line_stays_within_the_cap() {
        let mut decoder = LineDecoder::with_cap(1000);
        for _ in 0..999 {
            assert_eq!(decoder.next_line(&mut &b"x"[..]), None);
        }
        assert!(decoder.partial.capacity() <= 1000, "{}", decoder.partial.capacity());
    }
}
