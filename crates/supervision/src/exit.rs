//! Why an incarnation ended: the word that every restart decision turns on.
//!
//! One type for all ends, also for those of a failed start, so that a reason can travel from a
//! leaf to the root and into an event without being translated.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Why an incarnation of a child ended.
///
/// OTP knows any term as a reason and gives three of them a meaning: `normal`, `shutdown` and
/// `{shutdown, Term}`. Those are [`Normal`](Self::Normal), [`Shutdown`](Self::Shutdown) and
/// [`ShutdownWith`](Self::ShutdownWith); whatever else there is counts as
/// [abnormal](Self::is_abnormal).
///
/// A service ends with a reason of its choice by returning it as its error. Any other error
/// becomes [`Failed`](Self::Failed) through `?`:
///
/// ```
/// use astscope_supervision::Exit;
///
/// fn parse(text: &str) -> Result<u32, Exit> {
///     if text.is_empty() {
///         return Err(Exit::Shutdown); // nothing to do is no failure
///     }
///     Ok(text.parse::<u32>()?)
/// }
/// assert_eq!(parse(""), Err(Exit::Shutdown));
/// assert_eq!(parse("x").unwrap_err().to_string(), "failed: invalid digit found in string");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// It finished what it had to do.
    Normal,
    /// It was told to stop, and did.
    Shutdown,
    /// It stopped in order, and says why: OTP's `{shutdown, Term}`.
    ShutdownWith(Arc<str>),
    /// It returned an error: the error and its sources, joined with `: `.
    Failed(Arc<str>),
    /// It panicked: the payload, if that was text.
    Panicked(Arc<str>),
    /// It was killed: it didn't stop within its time, or its rule is to be killed.
    Killed,
    /// Its init wasn't done within the start timeout.
    StartTimeout,
    /// It made no progress for longer than it promised to.
    Stalled,
    /// It didn't end although it was killed: a task that never yields, a thread that never
    /// returns. Its supervisor no longer waits for it; it may still run.
    Unkillable,
    /// A supervisor whose children failed more often than its intensity allows. To its parent
    /// this is a [`Shutdown`](Self::Shutdown), as in OTP: only a permanent child is restarted.
    Meltdown,
}

impl Exit {
    /// A failure with this text.
    pub fn failed(text: impl Into<Arc<str>>) -> Self {
        Self::Failed(text.into())
    }

    /// Whether a transient child that ends like this is restarted.
    pub fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Normal | Self::Shutdown | Self::ShutdownWith(_) | Self::Meltdown)
    }

    /// The end of whatever panicked with this payload.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("a payload that is no text");
        Self::Panicked(text.into())
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Normal => f.write_str("normal"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::ShutdownWith(why) => write!(f, "shutdown: {why}"),
            Self::Failed(error) => write!(f, "failed: {error}"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Killed => f.write_str("killed"),
            Self::StartTimeout => f.write_str("not started in time"),
            Self::Stalled => f.write_str("stalled"),
            Self::Unkillable => f.write_str("unkillable"),
            Self::Meltdown => f.write_str("meltdown: too many restarts"),
        }
    }
}

/// `Exit` is no `Error` itself, or this conversion would overlap with `From<T> for T`.
impl<E: Error + Send + Sync + 'static> From<E> for Exit {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Writing into a String can't fail.
            let _infallible = write!(text, ": {cause}");
            source = cause.source();
        }
        Self::Failed(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_sources() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading the index")]
        struct Outer(#[source] std::num::ParseIntError);

        let inner = "x".parse::<u8>().unwrap_err();
        assert_eq!(
            Exit::from(Outer(inner)),
            Exit::failed("reading the index: invalid digit found in string")
        );
    }

    #[test]
    fn only_the_three_words_of_otp_and_a_meltdown_are_not_abnormal() {
        let orderly =
            [Exit::Normal, Exit::Shutdown, Exit::ShutdownWith("x".into()), Exit::Meltdown];
        assert!(orderly.iter().all(|exit| !exit.is_abnormal()));
        let abnormal = [
            Exit::failed("x"),
            Exit::Panicked("x".into()),
            Exit::Killed,
            Exit::StartTimeout,
            Exit::Stalled,
            Exit::Unkillable,
        ];
        assert!(abnormal.iter().all(Exit::is_abnormal));
    }
}
