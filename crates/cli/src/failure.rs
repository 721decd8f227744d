//! What is said when a command can't do what was asked: a title, what to do about it, and the
//! causes, in ast-grep's layout.

use crate::backend::BackendError;
use crate::exit::Exit;
use crate::output::style::Style;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::{ErrorCode, ErrorData};
use std::error::Error;
use std::fmt::Write as _;

const DOCS: &str = "https://ast-grep.github.io";

/// Why a command ends early, and with which exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    title: String,
    help: Option<String>,
    /// A page of ast-grep's documentation, whose patterns and rules these are.
    page: Option<&'static str>,
    causes: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, title: impl Into<String>) -> Self {
        Self { exit, title: title.into(), help: None, page: None, causes: Vec::new() }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn page(mut self, page: &'static str) -> Self {
        self.page = Some(page);
        self
    }

    pub(crate) fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Appends an error and all its sources.
    pub(crate) fn source(mut self, error: &dyn Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.causes.push(error.to_string());
            next = error.source();
        }
        self
    }

    /// A request's error. `pattern` is what was searched for, to point into it.
    pub(crate) fn of_request(error: BackendError, pattern: Option<&str>) -> Self {
        match error {
            BackendError::Connect(failure) => *failure,
            BackendError::Call(error) => match error {
                astscope_protocol::client::CallError::Remote(error) => {
                    Self::remote(&error, pattern)
                }
                error => Self::new(Exit::Unreachable, "The daemon did not answer.")
                    .help("It may have been stopped or replaced: try again.")
                    .source(&error),
            },
        }
    }

    fn remote(error: &RpcError, pattern: Option<&str>) -> Self {
        let Some(data) = &error.data else {
            return Self::new(Exit::Internal, "The daemon answered with an unknown error.")
                .help("A newer daemon may be running: `astscope stop`, then try again.")
                .cause(&error.message)
                .logged(error);
        };
        let mut failure = Self::of_code(data.code);
        if let Some(help) = &data.help {
            failure.help = Some(help.clone());
        }
        let message = sentence(&error.message);
        // Which rule, path or directory it is makes the better title.
        if matches!(
            data.code,
            ErrorCode::InvalidRule | ErrorCode::PathNotFound | ErrorCode::RootRefused
        ) {
            failure.title.clone_from(&message);
        }
        if failure.title.trim_end_matches('.') != message.trim_end_matches('.') {
            failure.causes.push(error.message.clone());
        }
        failure.causes.extend(data.causes.iter().cloned());
        if let Some(place) = place_in(pattern, data) {
            failure.causes.push(place);
        }
        // Whatever isn't the request's own fault has left more in the log than the answer says.
        if matches!(failure.exit, Exit::Internal) || data.code == ErrorCode::Restarting {
            failure = failure.logged(error);
        }
        failure
    }

    /// Says under which name the daemon's log has the request, where the daemon gave it one.
    fn logged(mut self, error: &RpcError) -> Self {
        let id = error.request_id.as_ref();
        self.causes.extend(id.map(|id| format!("request {id}; the daemon's log has more")));
        self
    }

    fn of_code(code: ErrorCode) -> Self {
        let exit = Exit::of(code);
        let of = |title: &str| Self::new(exit, title);
        match code {
            ErrorCode::InvalidPattern => of("Cannot parse query as a valid pattern.")
                .help("The pattern either fails to parse or contains an error. Please refer to the pattern syntax guide.")
                .page("/guide/pattern-syntax.html"),
            ErrorCode::InvalidSelector => of("Cannot parse kind as a valid selector.")
                .help("Please refer to the ESQuery selector guide.")
                .page("/reference/rule/esquery.html"),
            ErrorCode::InvalidRule => of("Cannot use the rules.")
                .help("A rule is not valid. Please refer to the documentation and fix it.")
                .page("/guide/rule-config.html"),
            ErrorCode::UnknownLanguage => of("The language is not known.")
                .help("Please choose a built-in language.")
                .page("/reference/languages.html"),
            ErrorCode::InvalidGlob => of("Cannot build a glob.")
                .help("A glob of --globs, or in a rule's files or ignores, is not valid."),
            ErrorCode::PathNotFound => of("A path can't be read.")
                .help("Check its spelling and permissions."),
            ErrorCode::RootRefused => of("This directory is not searched.")
                .help("Name a directory below it, or open it with `astscope serve --root`."),
            ErrorCode::FileSkipped => of("The file can't be parsed."),
            ErrorCode::HistoryGone => of("What has changed since that revision is not known.")
                .help("Read all files again."),
            ErrorCode::TooManyMatches => of("The query has too many matches to be watched."),
            ErrorCode::Cancelled => of("Cancelled."),
            ErrorCode::DeadlineExceeded => of("The deadline passed before the answer was complete.")
                .help("Give it more time with --deadline or --wait, or ask for what is parsed already with --no-wait."),
            ErrorCode::Overloaded => of("The daemon has too many requests.").help("Try again."),
            ErrorCode::ShuttingDown => of("The daemon is leaving.").help("Try again."),
            ErrorCode::Restarting => {
                of("The part of the daemon that ran the request had to be restarted.")
                    .help("Try again.")
            }
            ErrorCode::FoundationNotReady => of("The daemon is not ready to open a directory.")
                .help("`astscope health` says what is down. Try again."),
            ErrorCode::StartupFailed => of("The services for this directory did not start.")
                .help("`astscope health` says what is down. Try again."),
            ErrorCode::NodeNotFound => of("The supervision tree has no such node.")
                .help("`astscope tree` shows it; a path is the names from below the root, joined by `/`."),
            ErrorCode::NotAllowed => of("The daemon was not started for that.")
                .help("End it with `astscope stop`, and start it with `astscope serve --allow-debug`."),
            ErrorCode::IncompatibleProtocol => of("The daemon is incompatible with this program.")
                .help("Stop it with the program that started it: `astscope stop`."),
            ErrorCode::UnknownMethod => of("The running daemon can't do that.")
                .help("It is older than this program: end it with `astscope stop`, the next command starts a new one."),
            ErrorCode::MalformedRequest
            | ErrorCode::InvalidParams
            | ErrorCode::Internal => of("The daemon could not carry out the request.")
                .help("This is a bug. Its log may say more: `astscope serve --help` says where it is."),
        }
    }

    /// The text for stderr, as ast-grep lays it out.
    pub(crate) fn render(&self, color: bool) -> String {
        let style = |code| if color { Style(code) } else { Style::PLAIN };
        let soft = self.exit == Exit::Success;
        let (notice, label, sign) =
            if soft { (style("33"), "Warning:", "⚠") } else { (style("31"), "Error:", "✖") };
        let mut text = format!("{} {}\n", notice.paint(label), style("1").paint(&self.title));
        if let Some(help) = &self.help {
            let _infallible = writeln!(text, "{} {help}", style("34").paint("Help:"));
        }
        if let Some(page) = self.page {
            let see = style("1;2").paint("See also:").to_string();
            let _infallible = writeln!(text, "{see} {DOCS}{page}");
        }
        if !self.causes.is_empty() {
            let _infallible = writeln!(text, "\n{} Caused by", notice.paint(sign));
            for cause in &self.causes {
                let _infallible = writeln!(text, "{} {cause}", notice.paint("╰▻"));
            }
        }
        text
    }
}

/// The same sentence with a capital first letter, as titles have.
fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// The line of the pattern that holds the fault, with a mark under it.
fn place_in(pattern: Option<&str>, data: &ErrorData) -> Option<String> {
    let (pattern, offset) = (pattern?, usize::try_from(data.offset?).ok()?);
    let before = pattern.get(..offset)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = pattern[line_start..].lines().next().unwrap_or_default();
    let column = pattern[line_start..offset].chars().count();
    let number = before.matches('\n').count() + 1;
    Some(format!("line {number}, column {}:\n     {line}\n     {:column$}^", column + 1, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[expect(clippy::needless_pass_by_value, reason = "an expectation is written at the call")]
    #[track_caller]
    fn check(failure: &Failure, expected: Expect) {
        expected.assert_eq(&failure.render(false));
    }

    #[test]
    fn a_failure_reads_as_in_ast_grep() {
        let failure = Failure::new(Exit::File, "Cannot read rule nope.yml")
            .help("The rule file either does not exist or cannot be opened.")
            .page("/guide/rule-config.html")
            .cause("No such file or directory (os error 2)");
        check(
            &failure,
            expect![[r"
                Error: Cannot read rule nope.yml
                Help: The rule file either does not exist or cannot be opened.
                See also: https://ast-grep.github.io/guide/rule-config.html

                ✖ Caused by
                ╰▻ No such file or directory (os error 2)
            "]],
        );
    }

    #[test]
    fn an_invalid_pattern_is_shown_with_the_place_of_the_fault() {
        let mut error =
            RpcError::new(ErrorCode::InvalidPattern, "cannot parse query as a valid pattern");
        let data = error.data.as_mut().unwrap();
        data.causes.push("Multiple AST nodes are detected.".to_owned());
        data.help = Some("Write one expression.".to_owned());
        data.offset = Some(8);
        let failure = Failure::remote(&error, Some("one()\n  two"));
        assert_eq!(failure.exit, Exit::InvalidQuery);
        check(
            &failure,
            expect![[r"
                Error: Cannot parse query as a valid pattern.
                Help: Write one expression.
                See also: https://ast-grep.github.io/guide/pattern-syntax.html

                ✖ Caused by
                ╰▻ Multiple AST nodes are detected.
                ╰▻ line 2, column 3:
                       two
                       ^
            "]],
        );
    }

    #[test]
    fn an_offset_outside_the_pattern_points_nowhere() {
        let mut error = RpcError::new(ErrorCode::InvalidPattern, "bad");
        error.data.as_mut().unwrap().offset = Some(99);
        assert_eq!(Failure::remote(&error, Some("é")).causes, ["bad"]);
    }

    #[test]
    fn what_is_not_the_requests_own_fault_names_it_for_the_log() {
        let of = |code| {
            let mut error = RpcError::new(code, "it ended");
            error.request_id = Some("3-17".to_owned());
            Failure::remote(&error, None)
        };
        check(
            &of(ErrorCode::Restarting),
            expect![[r"
                Error: The part of the daemon that ran the request had to be restarted.
                Help: Try again.

                ✖ Caused by
                ╰▻ it ended
                ╰▻ request 3-17; the daemon's log has more
            "]],
        );
        assert_eq!(of(ErrorCode::Internal).causes.len(), 2);
        assert_eq!(of(ErrorCode::UnknownLanguage).causes, ["it ended"]);
    }

    #[test]
    fn an_error_of_a_later_version_keeps_its_message() {
        let error = RpcError {
            code: -32999,
            message: "frobnicated".to_owned(),
            data: None,
            request_id: None,
        };
        let failure = Failure::remote(&error, None);
        assert_eq!(
            (failure.exit, failure.causes.as_slice()),
            (Exit::Internal, &["frobnicated".to_owned()][..])
        );
    }
}
