//! Which bytes are parsed at all: ast-grep's own rules first, then limits of ours far above them.

use astscope_syntax::SkipReason;
use std::sync::Arc;
use std::time::Duration;

/// Above this many bytes *and* [`AST_GREP_LINES_MAX`] lines ast-grep 0.51.1 skips a file.
const AST_GREP_BYTES_MAX: usize = 3_000_000;
/// See [`AST_GREP_BYTES_MAX`]: a large file of few lines is read.
const AST_GREP_LINES_MAX: usize = 200_000;

/// What one file may cost. ast-grep has no such limits: they lie where it would not answer either.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of text. Offsets are 32 bits wide, so never more than 4 GiB.
    pub bytes_max: u64,
    /// Levels of the tree. Matching needs a stack in proportion to the depth where a pattern
    /// compares whole subtrees. ast-grep 0.51.1 dies there between 4,000 and 8,000 nested
    /// parentheses (`f($A, $A)`), but answers simple patterns at any depth: so the limit is where
    /// the stack of one match would take a gigabyte of address space.
    pub depth_max: u32,
    /// Time that a [`Backend`](crate::Backend) gives one file. ast-grep would wait; half a minute is
    /// ten times what the slowest grammar takes for the largest file that a person wrote.
    /// [`parse`](crate::parse) knows no clock: its caller's `stop` does.
    pub time_max: Duration,
}

impl Limits {
    /// The daemon's limits.
    pub const DAEMON: Self =
        Self { bytes_max: 512 << 20, depth_max: 500_000, time_max: Duration::from_secs(30) };
}

/// Turns a file's bytes into text, or says why the file is skipped.
///
/// ast-grep's rules, exactly: the whole file must be UTF-8, hold at least one byte, and not be
/// both larger than 3,000,000 bytes and longer than 200,000 lines. A byte order mark, NUL bytes,
/// and lines of any length are text.
///
/// # Errors
/// The first rule that the file breaks.
pub fn admit(bytes: Vec<u8>, limits: &Limits) -> Result<Arc<str>, SkipReason> {
    let size = bytes.len();
    if size as u64 > limits.bytes_max {
        return Err(SkipReason::OverSizeLimit { bytes: size as u64, limit: limits.bytes_max });
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| SkipReason::NotUtf8 { valid_up_to: error.utf8_error().valid_up_to() })?;
    if size > AST_GREP_BYTES_MAX && text.lines().count() > AST_GREP_LINES_MAX {
        return Err(SkipReason::TooLarge { bytes: size as u64 });
    }
    if text.is_empty() {
        return Err(SkipReason::Empty);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: impl Into<Vec<u8>>) -> Result<usize, &'static str> {
        admit(bytes.into(), &Limits::DAEMON).map(|text| text.len()).map_err(|reason| reason.code())
    }

    #[test]
    fn ast_greps_rules_hold_exactly() {
        assert_eq!(check(""), Err("empty"));
        assert_eq!(check("\n"), Ok(1));
        assert_eq!(check("\u{feff}a\0b\r\n"), Ok(8), "BOM, NUL and CR are text");
        assert_eq!(check(b"ok \xff".as_slice()), Err("not_utf8"));
        assert_eq!(check("x".repeat(30 << 20)), Ok(30 << 20), "one long line is read");
        assert_eq!(check("\n".repeat(3_000_000)), Ok(3_000_000), "not above the size");
        assert_eq!(check("\n".repeat(3_000_001)), Err("too_large"));
        let few_lines = "x\n".repeat(199_999) + &"y".repeat(3_000_000);
        assert_eq!(check(few_lines.clone()), Ok(few_lines.len()), "200,000 lines are read");
    }

    #[test]
    fn our_own_limit_lies_above() {
        let limits = Limits { bytes_max: 4, ..Limits::DAEMON };
        assert_eq!(
            admit(b"12345".to_vec(), &limits),
            Err(SkipReason::OverSizeLimit { bytes: 5, limit: 4 })
        );
    }
}
