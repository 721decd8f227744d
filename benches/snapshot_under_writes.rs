//! What a query pays for its snapshot while files are being committed: readers must not wait.
//!
//! Expectation: a snapshot is one atomic load and a reference count, tens of nanoseconds, with or
//! without a writer.

use astscope_benches::source;
use astscope_parsing::{Limits, parse};
use astscope_repository::{FileStamp, NewFile, Repository};
use astscope_syntax::{ContentId, Language};
use criterion::{Criterion, criterion_group, criterion_main};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn snapshot_under_writes(criterion: &mut Criterion) {
    let text = source(Language::Rust, 1_000);
    let Ok(file) = parse(Arc::clone(&text), Language::Rust, &Limits::DAEMON, &mut || false) else {
        return;
    };
    let (content, file) = (ContentId::of(text.as_bytes()), Arc::new(file));
    let repository = Repository::new(1);
    let write = |n: usize| {
        let mut transaction = repository.begin();
        for at in 0..100 {
            let path: Arc<Path> = Path::new(&format!("/r/{}", (n * 100 + at) % 20_000)).into();
            let file = Arc::clone(&file);
            transaction.put(NewFile { path, stamp: FileStamp::default(), content, file });
        }
        transaction.commit();
    };
    (0..200).for_each(write);
    let mut group = criterion.benchmark_group("snapshot of 20,000 files");
    group.bench_function("while nobody writes", |bencher| bencher.iter(|| repository.snapshot()));
    group.bench_function("while batches of 100 files are committed", |bencher| {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n = 0;
                while !done.load(Ordering::Relaxed) {
                    write(n);
                    n += 1;
                }
            });
            bencher.iter(|| repository.snapshot());
            done.store(true, Ordering::Relaxed);
        });
    });
    group.bench_function("commit of 100 files", |bencher| {
        let mut n = 0;
        bencher.iter(|| {
            n += 1;
            write(n);
        });
    });
    group.finish();
}

criterion_group!(benches, snapshot_under_writes);
criterion_main!(benches);
