//! The lines around a match, cut as ast-grep cuts them.

use astscope_syntax::TextRange;

/// The text before and behind a match on its own lines and on the lines of context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excerpt<'t> {
    /// From the start of the first line shown to the match.
    pub leading: &'t str,
    /// The match.
    pub matched: &'t str,
    /// From the match to the end of the last line shown, without its newline.
    pub trailing: &'t str,
}

/// The whole lines of `range`, with `before` and `after` lines of context.
pub fn excerpt(text: &str, range: TextRange, before: u16, after: u16) -> Excerpt<'_> {
    let range = range.to_usize();
    let head = &text.as_bytes()[..range.start];
    let start = memchr::memrchr_iter(b'\n', head).nth(before.into()).map_or(0, |at| at + 1);
    let tail = &text.as_bytes()[range.end..];
    let end =
        memchr::memchr_iter(b'\n', tail).nth(after.into()).map_or(text.len(), |at| range.end + at);
    Excerpt {
        leading: &text[start..range.start],
        matched: &text[range.clone()],
        trailing: &text[range.end..end],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: u16, after: u16) -> (&'static str, &'static str) {
        // The match is `X` and `Y` on two lines.
        let text = "1\n2\nab X\nY cd\n5\n6";
        let cut = excerpt(text, TextRange::new(7, 10), before, after);
        assert_eq!(cut.matched, "X\nY");
        (cut.leading, cut.trailing)
    }

    #[test]
    fn lines_are_whole_and_context_stops_at_the_text_ends() {
        assert_eq!(check(0, 0), ("ab ", " cd"));
        assert_eq!(check(1, 1), ("2\nab ", " cd\n5"));
        assert_eq!(check(9, 9), ("1\n2\nab ", " cd\n5\n6"));
    }
}
