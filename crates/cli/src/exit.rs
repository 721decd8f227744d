//! Exit codes: the one list of them, and what each error of the daemon becomes.
//!
//! Codes below 64 mean what they mean in ast-grep, so that scripts can change over. Those from 64
//! on are ours, with the meanings of `sysexits.h`; 130 is what a shell reports for Ctrl-C.

use astscope_protocol::messages::ErrorCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Matches were found, a scan has no findings of severity error, or the daemon is healthy.
    Success = 0,
    /// `run` found nothing, a scan has findings of severity error, or the daemon isn't healthy.
    Findings = 1,
    /// The command line is wrong.
    Usage = 2,
    /// A project, language or rule is needed and none is given.
    Unspecified = 3,
    /// A file can't be read or written, or changed since it was searched.
    File = 6,
    /// `--interactive` together with `--stdin`, or without a terminal.
    NotInteractive = 7,
    /// A pattern, selector, rule or configuration is not valid, or finds too much to be watched.
    InvalidQuery = 8,
    /// A glob is not valid.
    InvalidGlob = 9,
    /// `completions` can't tell the shell.
    UnknownShell = 10,
    /// The language is not known.
    UnknownLanguage = 33,
    /// What changed since the revision isn't known.
    HistoryGone = 65,
    /// The daemon can't be reached or started.
    Unreachable = 69,
    /// The daemon or this program has a bug.
    Internal = 70,
    /// The deadline passed, or the daemon is overloaded or restarts a part of itself: a retry may
    /// help.
    TryLater = 75,
    /// The running daemon speaks another protocol version.
    Incompatible = 76,
    /// The daemon wasn't started for what was asked.
    NotAllowed = 77,
    /// The configuration asks for custom languages, which would load foreign code.
    CustomLanguage = 79,
    /// The editor can't be run.
    Editor = 126,
    /// Interrupted by Ctrl-C.
    Interrupted = 130,
}

/// The table in `astscope --help`.
pub(crate) const TABLE: &str = "\
Exit codes (as ast-grep's below 64):
    0  matches found; a scan without findings of severity error; `health` finds nothing wrong
    1  `run` found nothing; a scan with findings of severity error; `health` finds something wrong
    2  wrong command line
    3  no project, language or rule where one is needed
    6  a file can't be read or written, or changed since it was searched (-U skips it)
    7  --interactive with --stdin, or without a terminal
    8  invalid pattern, selector, rule or configuration; too many matches for `watch`
    9  invalid glob
   10  `completions` can't tell the shell
   33  unknown language
   65  `changes` can't go back to that revision: everything is to be read again
   69  the daemon can't be reached or started
   70  internal error
   75  deadline passed, daemon overloaded or restarting; the same command may succeed later
   76  the running daemon is incompatible with this program
   77  the running daemon was not started for that (`serve --allow-debug`)
   79  the project asks for custom languages, which would load foreign code
  126  the editor can't be run
  130  interrupted";

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// What a request's error means for the process.
    pub fn of(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidPattern
            | ErrorCode::InvalidSelector
            | ErrorCode::InvalidRule
            | ErrorCode::TooManyMatches => Self::InvalidQuery,
            ErrorCode::UnknownLanguage => Self::UnknownLanguage,
            ErrorCode::InvalidGlob => Self::InvalidGlob,
            ErrorCode::PathNotFound | ErrorCode::RootRefused | ErrorCode::FileSkipped => Self::File,
            ErrorCode::HistoryGone => Self::HistoryGone,
            ErrorCode::Cancelled => Self::Interrupted,
            ErrorCode::DeadlineExceeded
            | ErrorCode::Overloaded
            | ErrorCode::ShuttingDown
            | ErrorCode::Restarting
            | ErrorCode::FoundationNotReady
            | ErrorCode::StartupFailed => Self::TryLater,
            // As a rule the method of a later version.
            ErrorCode::IncompatibleProtocol | ErrorCode::UnknownMethod => Self::Incompatible,
            ErrorCode::NotAllowed => Self::NotAllowed,
            ErrorCode::NodeNotFound => Self::Usage,
            ErrorCode::MalformedRequest | ErrorCode::InvalidParams | ErrorCode::Internal => {
                Self::Internal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_stands_in_the_table_of_the_help_text() {
        let documented: Vec<u8> = TABLE
            .lines()
            .skip(1)
            .map(|line| line.trim_start().split(' ').next().unwrap().parse().unwrap())
            .collect();
        let all = [
            Exit::Success,
            Exit::Findings,
            Exit::Usage,
            Exit::Unspecified,
            Exit::File,
            Exit::NotInteractive,
            Exit::InvalidQuery,
            Exit::InvalidGlob,
            Exit::UnknownShell,
            Exit::UnknownLanguage,
            Exit::HistoryGone,
            Exit::Unreachable,
            Exit::Internal,
            Exit::TryLater,
            Exit::Incompatible,
            Exit::NotAllowed,
            Exit::CustomLanguage,
            Exit::Editor,
            Exit::Interrupted,
        ];
        assert_eq!(documented, all.map(Exit::code));
    }

    #[test]
    fn errors_that_a_retry_may_cure_exit_with_75() {
        for code in [
            ErrorCode::DeadlineExceeded,
            ErrorCode::Overloaded,
            ErrorCode::ShuttingDown,
            ErrorCode::Restarting,
            ErrorCode::FoundationNotReady,
            ErrorCode::StartupFailed,
        ] {
            assert!(code.retryable());
            assert_eq!(Exit::of(code), Exit::TryLater);
        }
        assert_eq!(Exit::of(ErrorCode::InvalidPattern).code(), 8);
        assert_eq!(Exit::of(ErrorCode::UnknownLanguage).code(), 33);
    }
}
