//! What a user waits for after an edit: one 50 KB file, from text to compact tree.
//!
//! Expectation: tree-sitter parses about 10 MB/s, so 5 ms, and the conversion adds a quarter.

use astscope_benches::source;
use astscope_parsing::{Limits, parse};
use astscope_syntax::Language;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;

fn parse_one_file(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse one 50 KB file");
    for language in [Language::Elixir, Language::Rust, Language::Python, Language::TypeScript] {
        let text = source(language, 50_000);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(language.name(), |bencher| {
            bencher.iter(|| parse(Arc::clone(&text), language, &Limits::DAEMON, &mut || false));
        });
    }
    group.finish();
}

criterion_group!(benches, parse_one_file);
criterion_main!(benches);
