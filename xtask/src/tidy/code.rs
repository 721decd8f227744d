//! A Rust source without its comments and literals, so that a rule about code isn't broken by
//! prose or by a test's data. Not a lexer: it knows just enough to find where those end.

/// `text` with every comment and every string or character literal blanked. Lines stay where they are.
pub(super) fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(c) = rest.chars().next() {
        // A prefix of a literal (`r"`, `b'`) is one only where no longer word ends in it.
        let starts_word = !(previous.is_alphanumeric() || previous == '_');
        let skip = comment(rest)
            .or_else(|| quoted(rest))
            .or_else(|| starts_word.then(|| prefixed(rest)).flatten());
        let len = skip.unwrap_or(c.len_utf8());
        let (piece, tail) = rest.split_at(len);
        if skip.is_some() {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            previous = ' ';
        } else {
            out.push(c);
            previous = c;
        }
        rest = tail;
    }
    out
}

fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut at = rest.strip_prefix("/*").map(|_| 2)?;
    let mut depth = 1;
    while depth > 0 && at < rest.len() {
        let tail = &rest[at..];
        let (change, len) = if tail.starts_with("/*") {
            (1, 2)
        } else if tail.starts_with("*/") {
            (-1, 2)
        } else {
            (0, tail.chars().next().map_or(1, char::len_utf8))
        };
        depth += change;
        at += len;
    }
    Some(at)
}

/// A plain string, or a character literal (a lifetime isn't one).
fn quoted(rest: &str) -> Option<usize> {
    if rest.starts_with('"') {
        return Some(until_unescaped(rest, '"'));
    }
    let inner = rest.strip_prefix('\'')?;
    let first = inner.chars().next()?;
    (first == '\\' || inner[first.len_utf8()..].starts_with('\''))
        .then(|| until_unescaped(rest, '\''))
}

/// A literal with a prefix: `b"…"`, `c"…"`, `b'…'`, `r"…"`, `r#"…"#`, `br#"…"#`.
fn prefixed(rest: &str) -> Option<usize> {
    let prefix =
        rest.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|len| (1..=2).contains(len))?;
    let (letters, tail) = rest.split_at(prefix);
    if !letters.ends_with('r') {
        return quoted(tail).map(|len| prefix + len);
    }
    let n_hashes = tail.find(|c| c != '#')?;
    let body = tail[n_hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(n_hashes));
    let len = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix + n_hashes + 1 + len)
}

/// Bytes up to and with the closing `quote`, the opening one being the first character.
fn until_unescaped(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let code = code_only(text);
        assert_eq!(words(&code), words(expected));
        assert_eq!(code.lines().count(), text.lines().count());
    }

    #[test]
    fn comments_vanish_to_the_end_of_the_line() {
        check("a // b\nc /// d\n//! e", "a c");
    }

    #[test]
    fn block_comments_nest() {
        check("a /* b /* c */ d\n */ e", "a e");
    }

    #[test]
    fn strings_vanish_with_their_escapes() {
        check(r#"f("a \" // b", x) // "c"#, "f( , x)");
    }

    #[test]
    fn raw_strings_end_at_their_own_hashes() {
        check("f(r#\"a \" b\"#, br\"c\\\", d)", "f( ,  , d)");
    }

    #[test]
    fn character_literals_vanish_and_lifetimes_stay() {
        check(r"f('a', '\'', '\u{1F600}', b'x', &'a str)", "f( ,  ,  ,  , &'a str)");
    }

    #[test]
    fn a_word_that_ends_in_a_prefix_letter_is_no_prefix() {
        check("attr\"x\" for r in b", "attr for r in b");
    }

    #[test]
    fn what_never_ends_ends_with_the_file() {
        check("a \"b\nc", "a");
        check("a /* b", "a");
    }
}
