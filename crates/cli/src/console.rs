//! Where a command reads from and prints to, and what it may assume about it.

use crate::args::ColorChoice;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

/// Standard input, output and error, and the directory that paths refer to.
pub struct Console<'a> {
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
    /// Standard input, as source code.
    pub input: &'a mut dyn Read,
    /// Keys for `--interactive`.
    pub keys: &'a mut dyn Keys,
    /// Whether `out` is a terminal.
    pub out_is_terminal: bool,
    /// Whether `err` is a terminal.
    pub err_is_terminal: bool,
    /// Whether `TERM` and `NO_COLOR` let a terminal be colored.
    pub colors_welcome: bool,
    /// The current directory.
    pub cwd: PathBuf,
}

/// Single key presses.
pub trait Keys {
    /// Waits for a key: a character, `\n` for Enter, `q` for Ctrl-C.
    fn key(&mut self) -> io::Result<char>;
}

impl std::fmt::Debug for Console<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Console").field("cwd", &self.cwd).finish_non_exhaustive()
    }
}

impl Console<'_> {
    /// Whether standard output is colored.
    pub(crate) fn color_out(&self, choice: ColorChoice) -> bool {
        match choice {
            ColorChoice::Always | ColorChoice::Ansi => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => self.out_is_terminal && self.colors_welcome,
        }
    }

    /// Whether standard error is colored; `--color` is about standard output.
    pub(crate) fn color_err(&self) -> bool {
        self.err_is_terminal && self.colors_welcome
    }

    /// One line on standard error. Nothing can be done where that fails.
    pub(crate) fn note(&mut self, line: &str) {
        let _unheard = writeln!(self.err, "{line}");
    }
}

/// ast-grep's rule: no color without `TERM`, with `TERM=dumb`, or with `NO_COLOR`.
pub(crate) fn colors_welcome(env: &dyn Fn(&str) -> Option<OsString>) -> bool {
    env("TERM").is_some_and(|term| term != "dumb") && env("NO_COLOR").is_none()
}

/// Keys of the terminal that is standard input.
#[derive(Debug)]
pub(crate) struct TerminalKeys;

impl Keys for TerminalKeys {
    fn key(&mut self) -> io::Result<char> {
        use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "standard input is not a terminal",
            ));
        }
        let cooked = tcgetattr(&stdin)?;
        let mut raw = cooked.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        let key = read_key();
        tcsetattr(&stdin, OptionalActions::Now, &cooked)?;
        key
    }
}

/// Reads one key of a terminal in raw mode. Escape sequences, such as arrows, are read whole.
fn read_key() -> io::Result<char> {
    let mut bytes = [0; 16];
    loop {
        let n_bytes = rustix::io::read(rustix::stdio::stdin(), &mut bytes)?;
        match bytes[..n_bytes] {
            [] => return Err(io::ErrorKind::UnexpectedEof.into()),
            [b'\r' | b'\n', ..] => return Ok('\n'),
            // Ctrl-C and Ctrl-D arrive as bytes in raw mode.
            [3 | 4] => return Ok('q'),
            [b'\t'] => return Ok('\t'),
            [byte, ..] if (b' '..0x7f).contains(&byte) => return Ok(char::from(byte)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(term: Option<&str>, no_color: Option<&str>) -> bool {
        colors_welcome(&|name| match name {
            "TERM" => term.map(OsString::from),
            "NO_COLOR" => no_color.map(OsString::from),
            _ => None,
        })
    }

    #[test]
    fn colors_need_a_capable_terminal_and_no_objection() {
        assert!(welcome(Some("xterm"), None));
        assert!(!welcome(None, None));
        assert!(!welcome(Some("dumb"), None));
        assert!(!welcome(Some("xterm"), Some("")));
    }
}
