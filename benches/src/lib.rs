//! What the benches share.
//!
//! The benches are a package of their own, so that nothing that a user builds depends on the
//! benchmark harness. Ratios against `ast-grep` are not measured here but by `cargo xtask bench`,
//! side by side in one run.
#![forbid(unsafe_code)]

use astscope_fixtures::samples::SAMPLES;
use astscope_syntax::Language;
use std::sync::Arc;

/// A source text of about `bytes` bytes: the language's sample, repeated.
///
/// # Panics
/// When the language has no sample.
pub fn source(language: Language, bytes: usize) -> Arc<str> {
    let sample = SAMPLES.iter().find(|(name, _)| *name == language.name());
    #[expect(
        clippy::expect_used,
        reason = "every language has one, a test of `parsing` sees to it"
    )]
    let (_, sample) = sample.expect("each language has a sample");
    sample.repeat(bytes / sample.len() + 1).into()
}
