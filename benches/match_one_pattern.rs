//! What a query does for each candidate file: one pattern over one compact tree of a 50 KB file.
//!
//! Expectation: 12,000 nodes, of which the kind column rules most out at a nanosecond each; the
//! rest costs about 100 ns a candidate. The law in front of it, a substring search, is measured
//! beside it on a text that lacks the literal: 50 KB at several GB/s.

use astscope_benches::source;
use astscope_parsing::{Limits, parse};
use astscope_pattern_matcher::{CompactDoc, Matcher, MatcherSpec};
use astscope_syntax::Language;
use criterion::{Criterion, criterion_group, criterion_main};
use std::sync::Arc;

fn match_one_pattern(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("match one pattern on one tree");
    for (language, pattern) in [
        (Language::Elixir, "$A |> $B"),
        (Language::Rust, "$A.$M($$$ARGS)"),
        (Language::Python, "$F($$$ARGS)"),
    ] {
        let parsed = parse(source(language, 50_000), language, &Limits::DAEMON, &mut || false);
        let Ok(file) = parsed.map(Arc::new) else { continue };
        let spec = MatcherSpec { pattern: Some(pattern.to_owned()), ..MatcherSpec::default() };
        let Ok(matcher) = Matcher::compile(language, &spec, None) else { continue };
        group.bench_function(format!("{language} {pattern}"), |bencher| {
            bencher.iter(|| matcher.find_all(CompactDoc::host(Arc::clone(&file)), usize::MAX));
        });
        let absent = MatcherSpec { pattern: Some("nowhere_to_be_found($A)".to_owned()), ..spec };
        let Ok(absent) = Matcher::compile(language, &absent, None) else { continue };
        group.bench_function(format!("{language} ruled out by its literal"), |bencher| {
            bencher.iter(|| absent.requirement().admits(&file.text, &file.tree));
        });
    }
    group.finish();
}

criterion_group!(benches, match_one_pattern);
criterion_main!(benches);
