//! Every error as the protocol says it, in one place.

use crate::request::RequestContext;
use astscope_parsing::service::MapError;
use astscope_pattern_matcher::{CompileError, RuleError};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::ErrorCode;
use astscope_protocol::{SUBSCRIPTION_BYTES_MAX, SUBSCRIPTION_MATCHES_MAX};
use astscope_querying::service::ExecuteError;
use astscope_querying::{Interrupt, QueryError};
use astscope_repository::{HistoryGone, Revision};
use astscope_supervision::{AdminError, CallError, Exit, NotReady, TaskError};
use astscope_synchronization::service::SyncError;
use astscope_synchronization::{GlobError, RefreshError, RootError};
use astscope_syntax::{SkipReason, UnknownLanguage};
use std::error::Error as StdError;
use std::path::Path;

/// A pattern, selector or rewrite that can't be compiled.
pub(crate) fn compile(error: &CompileError) -> RpcError {
    let (code, help, offset) = match error {
        CompileError::Pattern { help, offset, .. } => {
            (ErrorCode::InvalidPattern, help.clone(), offset.map(|offset| offset as u64))
        }
        CompileError::Selector { help, .. } => (ErrorCode::InvalidSelector, help.clone(), None),
        CompileError::PatternOrKind | CompileError::Strictness(_) => {
            (ErrorCode::InvalidParams, None, None)
        }
        CompileError::GrammarNotBuilt(_) => (ErrorCode::UnknownLanguage, None, None),
        CompileError::PatternTooLong { .. }
        | CompileError::PatternTooDeep
        | CompileError::Rewrite(_) => (ErrorCode::InvalidPattern, None, None),
    };
    with(code, error.to_string(), help, causes(error), offset)
}

/// Rules that can't be compiled.
pub(crate) fn rules(error: &RuleError) -> RpcError {
    let causes = match error {
        RuleError::Rule { causes, .. } | RuleError::Utils { causes } => causes.clone(),
        RuleError::DuplicateId(_)
        | RuleError::Glob(_)
        | RuleError::Filter(_)
        | RuleError::NoRuleMatches(_)
        | RuleError::Severity(_) => Vec::new(),
    };
    with(ErrorCode::InvalidRule, error.to_string(), None, causes, None)
}

/// A language name that nobody knows.
pub(crate) fn language(error: &UnknownLanguage) -> RpcError {
    let known: Vec<&str> = astscope_syntax::Language::ALL
        .iter()
        .filter_map(|language| language.aliases().first().copied())
        .collect();
    let help = Some(format!("Known languages: {}.", known.join(", ")));
    let message = format!("language `{}` is not supported", error.name);
    with(ErrorCode::UnknownLanguage, message, help, Vec::new(), None)
}

/// A query that did not come to its end.
pub(crate) fn query(error: QueryError) -> RpcError {
    let code = match error {
        QueryError::Cancelled => ErrorCode::Cancelled,
        QueryError::DeadlineExceeded => ErrorCode::DeadlineExceeded,
    };
    RpcError::new(code, error.to_string())
}

/// Files that can't be selected or brought up to date.
pub(crate) fn refresh(error: &RefreshError, context: &RequestContext) -> RpcError {
    match error {
        RefreshError::Cancelled => query(match context.interrupt() {
            Some(Interrupt::DeadlineExceeded) => QueryError::DeadlineExceeded,
            Some(Interrupt::Cancelled) | None => QueryError::Cancelled,
        }),
        RefreshError::Glob(error) => glob(error),
    }
}

/// Files that the workspace's services didn't bring up to date.
pub(crate) fn sync(error: &SyncError, context: &RequestContext) -> RpcError {
    match error {
        SyncError::Refresh(error) => refresh(error, context),
        SyncError::Ended(Exit::Panicked(_)) => panicked(),
        SyncError::Late => {
            let help = "Wait longer for the files: `waitMs`, `--wait`.".to_owned();
            with(ErrorCode::DeadlineExceeded, error.to_string(), Some(help), Vec::new(), None)
        }
        // Nobody gave the part up but whoever gave up the request.
        SyncError::Ended(_) if context.interrupt().is_some() => {
            refresh(&RefreshError::Cancelled, context)
        }
        other => RpcError::new(ErrorCode::Restarting, other.to_string()),
    }
}

/// A query that its workspace's services didn't run to its end.
pub(crate) fn execute(error: &ExecuteError) -> RpcError {
    match error {
        ExecuteError::Overloaded => RpcError::new(ErrorCode::Overloaded, error.to_string()),
        ExecuteError::NoTurn => query(QueryError::DeadlineExceeded),
        ExecuteError::GivenUp => query(QueryError::Cancelled),
        ExecuteError::Ended(Exit::Panicked(_)) => panicked(),
        other => RpcError::new(ErrorCode::Restarting, other.to_string()),
    }
}

/// What can't be.
pub(crate) fn bug(error: &str) -> RpcError {
    RpcError::new(ErrorCode::Internal, format!("a bug of the daemon's: {error}"))
}

/// A request whose handler did what it must never do.
pub(crate) fn panicked() -> RpcError {
    let message = "a bug of the daemon's: the request's handler panicked";
    RpcError::new(ErrorCode::Internal, message)
}

/// Work of a workspace's that didn't come to its end.
pub(crate) fn task(error: &TaskError) -> RpcError {
    match error {
        TaskError::Exited(Exit::Panicked(_)) => panicked(),
        other => RpcError::new(ErrorCode::Restarting, other.to_string()),
    }
}

/// A root whose services can't be started.
pub(crate) fn workspace(root: &Path, error: &AdminError) -> RpcError {
    let code = match error {
        AdminError::MaxChildren => ErrorCode::Overloaded,
        AdminError::Start(_) | AdminError::Spec(_) => ErrorCode::StartupFailed,
        _ => ErrorCode::Restarting,
    };
    with(code, format!("cannot serve {}", root.display()), None, vec![error.to_string()], None)
}

/// A root whose services are up and lack one that they need.
pub(crate) fn lacking(root: &Path, error: &NotReady) -> RpcError {
    let message = format!("cannot serve {}", root.display());
    with(ErrorCode::StartupFailed, message, None, vec![error.to_string()], None)
}

/// A root for which nothing was started, because these parts of the foundation aren't up.
pub(crate) fn foundation(root: &Path, lacking: Vec<String>) -> RpcError {
    let message = format!("cannot serve {}", root.display());
    let causes = lacking.into_iter().map(|id| format!("`foundation/{id}` is not ready")).collect();
    with(ErrorCode::FoundationNotReady, message, None, causes, None)
}

/// A glob that can't be compiled.
pub(crate) fn glob(error: &GlobError) -> RpcError {
    with(ErrorCode::InvalidGlob, error.to_string(), None, causes(error), None)
}

/// A directory that can't be opened.
pub(crate) fn root(error: &RootError) -> RpcError {
    with(ErrorCode::PathNotFound, error.to_string(), None, causes(error), None)
}

/// A path in no directory that is, or may become, a root unasked.
pub(crate) fn root_refused(path: &Path) -> RpcError {
    RpcError::new(ErrorCode::RootRefused, format!("{} is in no watched directory", path.display()))
}

/// A revision since which nobody knows what has changed.
pub(crate) fn history(gone: &HistoryGone) -> RpcError {
    let Revision { epoch, number } = gone.oldest;
    let help = format!(
        "Read all files again, and ask about the revision of that answer. The oldest that can be asked about is {epoch}.{number}."
    );
    with(ErrorCode::HistoryGone, gone.to_string(), Some(help), Vec::new(), None)
}

/// A standing query that finds more than may be held.
pub(crate) fn too_many_matches() -> RpcError {
    let message = format!(
        "a subscription can have {SUBSCRIPTION_MATCHES_MAX} matches of {} MiB in all",
        SUBSCRIPTION_BYTES_MAX >> 20
    );
    let help = "Ask for fewer files, or a narrower pattern.".to_owned();
    with(ErrorCode::TooManyMatches, message, Some(help), Vec::new(), None)
}

/// A part that can't be asked at this moment.
pub(crate) fn restarting(error: &AdminError) -> RpcError {
    RpcError::new(ErrorCode::Restarting, error.to_string())
}

/// A file that has no tree.
pub(crate) fn skipped(file: &str, reason: &SkipReason) -> RpcError {
    let code = match reason {
        SkipReason::Vanished | SkipReason::Unreadable { .. } => ErrorCode::PathNotFound,
        SkipReason::Empty
        | SkipReason::NotUtf8 { .. }
        | SkipReason::TooLarge { .. }
        | SkipReason::OverSizeLimit { .. }
        | SkipReason::TooDeep { .. }
        | SkipReason::ParseTimeout
        | SkipReason::Unstable
        | SkipReason::GrammarNotBuilt
        | SkipReason::ParserDied { .. }
        | SkipReason::ParserUnavailable { .. } => ErrorCode::FileSkipped,
    };
    RpcError::new(code, format!("cannot parse {file}: {reason}"))
}

/// Points that can't be had.
pub(crate) fn map(error: &MapError) -> RpcError {
    let code = match error {
        MapError::Unavailable(CallError::Overloaded | CallError::Timeout) => ErrorCode::Overloaded,
        MapError::Unavailable(_) => ErrorCode::Restarting,
        _ => return bug(&error.to_string()),
    };
    RpcError::new(code, error.to_string())
}

/// Parameters that make no sense together.
pub(crate) fn params(message: impl Into<String>) -> RpcError {
    RpcError::new(ErrorCode::InvalidParams, message)
}

/// A path that means the same wherever the daemon was started.
pub(crate) fn absolute<'p>(name: &str, path: &'p str) -> Result<&'p Path, RpcError> {
    let absolute = Path::new(path);
    if absolute.is_absolute() {
        return Ok(absolute);
    }
    Err(params(format!("`{name}` must be an absolute path, not {path:?}")))
}

fn causes(error: &dyn StdError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(error) = source {
        causes.push(error.to_string());
        source = error.source();
    }
    causes
}

fn with(
    code: ErrorCode,
    message: String,
    help: Option<String>,
    causes: Vec<String>,
    offset: Option<u64>,
) -> RpcError {
    let mut error = RpcError::new(code, message);
    if let Some(data) = &mut error.data {
        data.help = help;
        data.causes = causes;
        data.offset = offset;
    }
    error
}
