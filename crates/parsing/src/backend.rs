//! Where texts are parsed: the seam between whoever has files and whatever parses them.
//!
//! In this process, or in others that may die of it. Callers are threads that may block, and bring
//! several texts at a time: one trip to another process costs as much as a small file.

use crate::{Limits, parse};
use astscope_syntax::{ContentId, Language, ParsedFile, SkipReason};
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// A text that was admitted, to be parsed.
#[derive(Clone, Debug)]
pub struct Source {
    /// The text.
    pub text: Arc<str>,
    /// What its bytes hash to; whoever has read a file knows.
    pub content: ContentId,
    /// What it is written in.
    pub language: Language,
}

impl Source {
    /// Of this text, which is hashed.
    pub fn new(text: Arc<str>, language: Language) -> Self {
        Self { content: ContentId::of(text.as_bytes()), text, language }
    }
}

/// Something that parses.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Parses each of `batch`: as many results, in the same order.
    ///
    /// Blocks, so it isn't to be called where an async runtime polls. `stop` is asked now and then;
    /// once it answers `true`, whatever isn't done counts as [`SkipReason::ParseTimeout`].
    fn parse_batch(
        &self,
        batch: &[Source],
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> Vec<Result<ParsedFile, SkipReason>>;
}

/// Parses on the thread that asks. A parser that hangs keeps it, one that overflows the stack or
/// takes all memory ends the process: for trusted sources, and for programs that prefer plain
/// functions.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Backend for InProcess {
    fn parse_batch(
        &self,
        batch: &[Source],
        limits: &Limits,
        stop: &dyn Fn() -> bool,
    ) -> Vec<Result<ParsedFile, SkipReason>> {
        let one = |source: &Source| {
            if stop() {
                return Err(SkipReason::ParseTimeout);
            }
            let begun = Instant::now();
            let mut stop = || stop() || begun.elapsed() >= limits.time_max;
            parse(Arc::clone(&source.text), source.language, limits, &mut stop)
        };
        batch.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::Duration;

    fn batch() -> Vec<Source> {
        [("[1]", Language::Json), ("f(1)", Language::Elixir), ("[2]", Language::Json)]
            .map(|(text, language)| Source::new(text.into(), language))
            .into()
    }

    fn texts(results: &[Result<ParsedFile, SkipReason>]) -> Vec<Result<&str, &SkipReason>> {
        results.iter().map(|result| result.as_ref().map(|file| &*file.text)).collect()
    }

    #[test]
    fn results_come_in_the_order_of_the_batch() {
        let results = InProcess.parse_batch(&batch(), &Limits::DAEMON, &|| false);
        assert_eq!(texts(&results), [Ok("[1]"), Ok("f(1)"), Ok("[2]")]);
    }

    #[test]
    fn a_stop_counts_for_what_is_not_done() {
        let asked = Cell::new(0);
        let stop = || asked.replace(asked.get() + 1) > 0;
        let results = InProcess.parse_batch(&batch(), &Limits::DAEMON, &stop);
        let stopped = SkipReason::ParseTimeout;
        assert_eq!(texts(&results)[1..], [Err(&stopped), Err(&stopped)]);
    }

    #[test]
    fn a_file_has_its_time_and_no_more() {
        let long = Source::new("f(1)\n".repeat(200_000).into(), Language::Elixir);
        let limits = Limits { time_max: Duration::ZERO, ..Limits::DAEMON };
        let results = InProcess.parse_batch(&[long], &limits, &|| false);
        assert_eq!(texts(&results), [Err(&SkipReason::ParseTimeout)]);
    }
}
