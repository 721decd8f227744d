//! The two services as their owner meets them, killed and lied to.

use super::*;
use crate::{
    Analytics, Batch, Change, Fault, FileStamp, FileStat, NewFile, Ranked, Repository, Snapshot,
    SyntaxErrors,
};
use astscope_supervision::Strategy::OneForOne;
use astscope_supervision::{CallError, ChildRef, Root, SupervisorSpec};
use astscope_syntax::{
    ContentId, KindTable, Language, NodeFlags, ParsedFile, ParsedTree, SkipReason, TextRange,
    TreeBuilder,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use tokio::task::{JoinSet, yield_now};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// A file of `depth` levels, the last of which is as the flags say.
fn file(text: &str, language: Language, depth: u32, flags: NodeFlags) -> Arc<ParsedFile> {
    let mut builder = TreeBuilder::new(Arc::new(KindTable::new([("end", false), ("x", true)], [])));
    let range = TextRange::new(0, u32::try_from(text.len()).unwrap());
    for level in 1..=depth {
        let own = if level == depth { flags } else { NodeFlags::NONE };
        builder.open(1, 0, NodeFlags::NAMED.with(own), range);
    }
    (0..depth).for_each(|_| builder.close());
    let tree = ParsedTree::new(builder.finish());
    Arc::new(ParsedFile { language, text: text.into(), tree, injections: Vec::new() })
}

fn stamp(at: i64) -> FileStamp {
    FileStamp { stat: FileStat { mtime_ns: at, ..FileStat::default() }, read_at_ns: at }
}

fn put(path: &str, text: &str) -> Change {
    put_file(path, file(text, Language::Rust, 1, NodeFlags::NONE))
}

fn put_file(path: &str, file: Arc<ParsedFile>) -> Change {
    let content = ContentId::of(file.text.as_bytes());
    Change::Put(NewFile { path: Path::new(path).into(), stamp: stamp(1), content, file })
}

fn batch(changes: impl IntoIterator<Item = Change>) -> Batch {
    changes.into_iter().collect()
}

/// A record whose text isn't what its content id says.
fn lie(path: &str) -> Change {
    let file = file("the truth", Language::Rust, 1, NodeFlags::NONE);
    let content = ContentId::of(b"something else");
    Change::Put(NewFile { path: Path::new(path).into(), stamp: stamp(1), content, file })
}

async fn start(handle: &RepositoryHandle) -> Root {
    let spec = SupervisorSpec::new(OneForOne).intensity(1_000, SECOND);
    let root = spec.children(handle.children()).start("repository").await.unwrap();
    handle.core().await_ready(MINUTE).await.unwrap();
    root
}

fn handle() -> RepositoryHandle {
    RepositoryHandle::new(Arc::new(Repository::new(1)), RepositoryConfig::default())
}

fn contents(snapshot: &Snapshot) -> BTreeMap<Arc<Path>, ContentId> {
    snapshot.records().map(|record| (Arc::clone(&record.path), record.content)).collect()
}

async fn restarted(child: &ChildRef) {
    let mut monitor = child.monitor();
    child.kill();
    monitor.down().await;
    child.await_ready(MINUTE).await.unwrap();
}

/// Polls a future once, so that its message is sent and nothing else has happened.
async fn sent<F: Future + Unpin>(future: &mut F) {
    poll_fn(|cx| {
        let polled = std::pin::Pin::new(&mut *future).poll(cx);
        assert!(polled.is_pending());
        Poll::Ready(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_core_commits_what_it_is_sent_in_order_and_says_what_came_of_it() {
    let handle = handle();
    let root = start(&handle).await;
    let first = handle.commit(SECOND, batch([put("/r/a", "a"), put("/r/b", "b")])).await.unwrap();
    let a = first.records[0].clone().unwrap();
    assert_eq!((&*a.path, first.revision.number), (Path::new("/r/a"), 1));
    let path: Arc<Path> = Path::new("/r/b").into();
    let changes = [
        Change::Touch(Arc::clone(&a), stamp(9)),
        Change::Remove(Arc::clone(&path)),
        Change::Skip(path, stamp(9), SkipReason::Empty),
    ];
    let second = handle.commit(SECOND, batch(changes)).await.unwrap();
    let touched = second.records[0].clone().unwrap();
    assert_eq!((touched.id, touched.stamp), (a.id, stamp(9)));
    assert!(second.records[1..].iter().all(Option::is_none));

    let status = handle.status();
    assert_eq!(status.revision, second.revision);
    assert_eq!((status.totals.files, status.totals.skipped["empty"]), (1, 1));
    assert_eq!((status.core.generation, status.core.commits, status.is_ready), (1, 2, true));
    assert_eq!(status.core.verification.unwrap().n_faults, 0);
    assert!(handle.by_content(a.content, Language::Rust).is_some());
    root.shutdown().await;
    assert!(!handle.status().is_ready);
    assert_eq!(contents(&handle.snapshot()).len(), 1, "reads go on");
}

#[tokio::test(start_paused = true)]
async fn a_core_that_is_killed_under_load_loses_nothing_and_commits_nothing_twice() {
    const TASKS: usize = 8;
    const BATCHES: usize = 30;
    let handle = handle();
    let root = start(&handle).await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let handle = handle.clone();
        tasks.spawn(async move {
            for n in 0..BATCHES {
                let path = format!("/r/{task}/{n}");
                let committed = handle.commit(MINUTE, batch([put(&path, &path)])).await.unwrap();
                let record = handle.snapshot().record(Path::new(&path), Language::Rust).cloned();
                assert!(Arc::ptr_eq(&record.unwrap(), committed.records[0].as_ref().unwrap()));
                assert!(handle.snapshot().revision() >= committed.revision);
            }
        });
    }
    let mut state = handle.watch();
    while !tasks.is_empty() {
        let commits = handle.status().core.commits;
        tokio::select! {
            joined = tasks.join_next() => joined.unwrap().unwrap(),
            more = state.wait_for(|state| state.commits >= commits + 5) => {
                drop(more);
                handle.core().kill();
                assert!(handle.snapshot().records().count() >= 5, "reads wait for no core");
            }
        }
    }
    let snapshot = handle.snapshot();
    assert_eq!(snapshot.records().count(), TASKS * BATCHES);
    assert_eq!(snapshot.revision().number, (TASKS * BATCHES) as u64, "a revision for each batch");
    handle.core().await_ready(MINUTE).await.unwrap();
    assert_eq!(handle.status().core.corruptions, 0);
    assert!(handle.status().core.generation > 1);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_dies_with_its_core_is_committed_by_the_next() {
    let handle = handle();
    let root = start(&handle).await;
    let mut committing = Box::pin(handle.commit(MINUTE, batch([put("/r/a", "a")])));
    sent(&mut committing).await;
    handle.core().kill();
    assert_eq!(committing.await.unwrap().revision.number, 1);
    assert_eq!(handle.status().core.generation, 2);
    root.shutdown().await;
}

#[test]
fn a_batch_that_is_sent_again_has_the_receipt_of_the_first_time() {
    let repository = Arc::new(Repository::new(1));
    let ledger = Arc::new(ledger::Ledger::default());
    let ticket = ledger.enter();
    let one = batch([put("/r/a", "one")]);
    let old = Repository::take_over(&repository);
    let first = ledger.commit(ticket.id(), &one, &old).unwrap().unwrap();
    // Its core dies before it can answer, and somebody else writes.
    let new = Repository::take_over(&repository);
    new.commit(&batch([put("/r/a", "two")])).unwrap();
    let again = ledger.commit(ticket.id(), &one, &new).unwrap().unwrap();
    assert_eq!(again.revision, first.revision);
    let snapshot = repository.snapshot();
    let record = snapshot.record(Path::new("/r/a"), Language::Rust).unwrap();
    assert_eq!(&*record.file.text, "two", "nothing of the second write is lost");
    assert_eq!(ticket.settle().unwrap().revision, first.revision);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_is_never_committed() {
    let handle = handle();
    let refused = handle.commit(SECOND, batch([put("/r/a", "a")])).await.unwrap_err();
    assert_eq!(refused, CommitError::Unavailable(CallError::Down));
    let root = start(&handle).await;
    let mut dropped = Box::pin(handle.commit(MINUTE, batch([put("/r/b", "b")])));
    sent(&mut dropped).await;
    drop(dropped);
    handle.commit(SECOND, batch([put("/r/c", "c")])).await.unwrap();
    let paths: Vec<_> = contents(&handle.snapshot()).into_keys().collect();
    assert_eq!(paths, [Path::new("/r/c").into()]);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_when_the_core_is_told_to_stop_is_committed_before_it_goes() {
    let handle = handle();
    let root = start(&handle).await;
    let mut commits = Vec::new();
    for n in 0..10 {
        let path = format!("/r/{n}");
        let mut commit = Box::pin(handle.commit(MINUTE, batch([put(&path, "x")])));
        sent(&mut commit).await;
        commits.push(commit);
    }
    root.shutdown().await;
    for commit in commits {
        assert!(commit.await.is_ok());
    }
    assert_eq!(handle.snapshot().records().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn too_large_a_batch_is_refused() {
    let config = RepositoryConfig { changes_max: 1, ..RepositoryConfig::default() };
    let handle = RepositoryHandle::new(Arc::new(Repository::new(1)), config);
    let two = batch([put("/r/a", "a"), put("/r/b", "b")]);
    let refused = handle.commit(SECOND, two).await.unwrap_err();
    assert_eq!(refused, CommitError::TooLarge { n: 2, max: 1 });
}

#[test]
fn a_thread_of_an_old_core_can_neither_write_nor_hold_up_the_new_one() {
    let repository = Arc::new(Repository::new(1));
    let zombie = Repository::take_over(&repository);
    let hangs = batch([put("/r/a", "old")]);
    let staged = zombie.stage(&hangs);
    let core = Repository::take_over(&repository);
    let revision = core.commit(&batch([put("/r/a", "new")])).unwrap().revision;
    // Even where nobody has written since.
    let fenced = staged.publish();
    assert!(!matches!(fenced, Ok(Ok(_))), "{fenced:?}");
    assert_eq!(zombie.commit(&hangs).unwrap_err(), crate::Fenced { held: 1, current: 2 });
    assert!(zombie.recreate().is_err());
    let snapshot = repository.snapshot();
    assert_eq!(snapshot.revision(), revision);
    let record = snapshot.record(Path::new("/r/a"), Language::Rust).unwrap();
    assert_eq!(&*record.file.text, "new");
}

#[test]
fn a_thread_that_computes_commits_too() {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_time().build().unwrap();
    let handle = handle();
    let root = runtime.block_on(start(&handle));
    let changes = batch([put("/r/a", "a")]);
    let committed = handle.commit_blocking(runtime.handle(), MINUTE, changes).unwrap();
    assert_eq!(committed.revision, handle.snapshot().revision());
    runtime.block_on(root.shutdown());
}

#[tokio::test(start_paused = true)]
async fn what_is_corrupted_is_given_up_told_and_as_before_once_it_is_read_again() {
    let handle = handle();
    let root = start(&handle).await;
    let good = || batch((0..50).map(|n| put(&format!("/r/{n}"), &format!("text {n}"))));
    let before = handle.commit(SECOND, good()).await.unwrap().revision;
    let expected = contents(&handle.snapshot());
    assert_eq!(handle.verify(MINUTE, true).await.unwrap().n_faults, 0);
    handle.commit(SECOND, batch([lie("/r/7")])).await.unwrap();

    let mut told = handle.watch();
    let found = handle.verify(MINUTE, true).await.unwrap();
    assert_eq!(found.faults, [Fault::Content(Path::new("/r/7").into())]);
    let state = told.wait_for(|state| state.corruptions == 1).await.unwrap().clone();
    assert_eq!(state.corruption.as_ref().unwrap().faults, found.faults);
    assert_eq!(state.revision, handle.snapshot().revision());
    assert!(state.revision > before, "{state:?}");
    assert_eq!((state.revision.epoch, handle.snapshot().records().count()), (2, 0));

    handle.commit(SECOND, good()).await.unwrap();
    assert_eq!(contents(&handle.snapshot()), expected);
    assert_eq!(handle.verify(MINUTE, true).await.unwrap().n_faults, 0);
    assert_eq!(handle.status().core.generation, 1, "nobody had to be restarted for that");
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_core_finds_what_the_old_one_left_behind() {
    let handle = handle();
    let root = start(&handle).await;
    handle.commit(SECOND, batch([put("/r/a", "a"), lie("/r/b")])).await.unwrap();
    restarted(&handle.core()).await;
    let state = handle.status().core;
    assert_eq!((state.generation, state.corruptions), (2, 1));
    assert_eq!(handle.snapshot().records().count(), 0);
    root.shutdown().await;
}

#[test]
fn each_fault_is_found() {
    let check = |break_it: fn(&mut crate::snapshot::State), expected: Fault| {
        let repository = Repository::new(1);
        let mut transaction = repository.begin();
        for n in 0..300 {
            let Change::Put(new) = put(&format!("/r/{n}"), &format!("text {n}")) else { continue };
            transaction.put(new).unwrap();
        }
        transaction.commit();
        assert_eq!(repository.verify(crate::Depth::Whole, &mut || false).n_faults, 0);
        let mut state = repository.snapshot().state();
        break_it(&mut state);
        repository.publish(state, Vec::new());
        let found = repository.verify(crate::Depth::Whole, &mut || false);
        assert!(found.faults.contains(&expected), "{expected:?}: {found:?}");
    };
    let path = || Path::new("/r/7").into();
    check(|state| state.totals.nodes += 1, Fault::Totals);
    check(
        |state| {
            let from = crate::snapshot::shard_of(Path::new("/r/7"));
            let entry = Arc::make_mut(&mut state.shards[from]).remove(Path::new("/r/7")).unwrap();
            let to = (from + 1) % state.shards.len();
            Arc::make_mut(&mut state.shards[to]).insert(Path::new("/r/7").into(), entry);
        },
        Fault::Misplaced(path()),
    );
    check(
        |state| {
            let at = crate::snapshot::shard_of(Path::new("/r/7"));
            let entry = Arc::make_mut(&mut state.shards[at]).get_mut(Path::new("/r/7")).unwrap();
            let other = file("text 7", Language::Rust, 1, NodeFlags::NONE);
            let old = &entry.records[0];
            entry.records[0] =
                Arc::new(crate::FileRecord { file: other, path: Arc::clone(&old.path), ..**old });
        },
        Fault::Unindexed(path()),
    );
}

#[test]
fn a_content_that_is_put_with_another_tree_is_shared_as_that_and_the_old_one_is_no_fault() {
    let repository = Arc::new(Repository::new(1));
    let writer = Repository::take_over(&repository);
    let with_depth = |depth| file("a", Language::Rust, depth, NodeFlags::NONE);
    let (damaged, sound) = (with_depth(2), with_depth(1));
    let damage = [put_file("/r/a", Arc::clone(&damaged)), put_file("/r/b", damaged)];
    writer.commit(&batch(damage)).unwrap();
    let before = repository.snapshot();
    let repair = [put_file("/r/a", Arc::clone(&sound)), put_file("/r/b", with_depth(1))];
    writer.commit(&batch(repair)).unwrap();
    let now = repository.snapshot();
    assert!(now.records().all(|record| Arc::ptr_eq(&record.file, &sound)));
    // Whoever began to look at what was there before has nothing to tell.
    let whole = crate::Depth::Whole;
    for snapshot in [before, now] {
        let found = crate::verify::verify(&repository, &snapshot, whole, &mut || false);
        assert_eq!((found.n_records, found.faults), (2, Vec::new()));
    }
}

#[test]
fn samples_cover_everything_in_the_end() {
    let repository = Repository::new(1);
    let mut transaction = repository.begin();
    for n in 0..300 {
        let Change::Put(new) = put(&format!("/r/{n}"), &format!("text {n}")) else { continue };
        transaction.put(new).unwrap();
    }
    let Change::Put(lie) = lie("/r/x") else { return };
    transaction.put(lie).unwrap();
    transaction.commit();
    let sample = |turn| repository.verify(crate::Depth::Sample { bytes: 10, turn }, &mut || false);
    assert!(sample(0).n_texts < 5);
    assert!((0..2_048).any(|turn| sample(turn).n_faults > 0));
    assert!(!repository.verify(crate::Depth::Whole, &mut || true).is_complete);
}

/// Counted anew from the records, by other means than the tables.
fn recount(snapshot: &Snapshot, top: usize) -> AnalyticsTables {
    let mut all: Vec<_> = snapshot.records().collect();
    all.sort_by(|a, b| a.path.cmp(&b.path).then(a.language.cmp(&b.language)));
    let mut errors: BTreeMap<Language, SyntaxErrors> = BTreeMap::new();
    for record in &all {
        let nodes = || record.file.tree.tree.root().subtree();
        let bad = nodes().filter(|node| node.is_error()).count() as u64;
        let missing = nodes().filter(|node| node.is_missing()).count() as u64;
        if bad + missing > 0 {
            let of = errors.entry(record.language).or_default();
            *of = SyntaxErrors {
                files: of.files + 1,
                errors: of.errors + bad,
                missing: of.missing + missing,
            };
        }
    }
    let ranked = |value: fn(&ParsedFile) -> u64| {
        let mut all: Vec<_> = all
            .iter()
            .map(|record| Ranked {
                path: Arc::clone(&record.path),
                language: record.language,
                value: value(&record.file),
            })
            .collect();
        all.sort_by_key(|ranked| std::cmp::Reverse(ranked.value));
        all.truncate(top);
        all
    };
    (ranked(|file| file.text.len() as u64), ranked(|file| u64::from(file.depth())), errors)
}

type AnalyticsTables = (Vec<Ranked>, Vec<Ranked>, BTreeMap<Language, SyntaxErrors>);

fn tables(report: &crate::AnalyticsReport) -> AnalyticsTables {
    (report.largest.clone(), report.deepest.clone(), report.syntax_errors.clone())
}

fn change() -> impl Strategy<Value = Change> {
    let flags =
        prop_oneof![Just(NodeFlags::NONE), Just(NodeFlags::ERROR), Just(NodeFlags::MISSING)];
    let language = prop_oneof![Just(Language::Rust), Just(Language::Elixir)];
    prop_oneof![
        4 => (0u8..12, 1usize..9, 1u32..6, flags, language).prop_map(
            |(path, len, depth, flags, language)| {
                // The text says what tree it has: equal contents have equal trees.
                let text = format!("{depth}{flags:?}{}", "x".repeat(len));
                put_file(&format!("/r/{path}"), file(&text, language, depth, flags))
            }
        ),
        1 => (0u8..12).prop_map(|path| Change::Remove(Path::new(&format!("/r/{path}")).into())),
        1 => (0u8..12).prop_map(|path| {
            Change::Skip(Path::new(&format!("/r/{path}")).into(), stamp(1), SkipReason::Empty)
        }),
    ]
}

proptest! {
    #[test]
    fn the_tables_equal_a_recount(
        batches in prop::collection::vec((prop::collection::vec(change(), 0..10), any::<bool>()), 0..12)
    ) {
        let repository = Arc::new(Repository::new(1));
        let writer = Repository::take_over(&repository);
        let mut kept = Analytics::default();
        for (changes, is_seen) in batches {
            writer.commit(&batch(changes)).unwrap();
            let snapshot = repository.snapshot();
            prop_assert_eq!(repository.verify(crate::Depth::Whole, &mut || false).faults, []);
            // Some revisions are passed over.
            if is_seen {
                kept = kept.advance(snapshot.clone(), &mut || false).unwrap();
                prop_assert_eq!(tables(&kept.report(3)), recount(&snapshot, 3));
                prop_assert_eq!(kept.report(3).n_files, snapshot.totals().files);
                prop_assert_eq!(kept.revision(), Some(snapshot.revision()));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn enhanced_answers_as_of_the_revision_that_it_is_asked_for() {
    let handle = handle();
    let early = handle.analytics(SECOND, None).await.unwrap_err();
    assert_eq!(early, CallError::Down);
    let root = start(&handle).await;
    let mut revision = None;
    for n in 1..20 {
        let bad = file(&"x".repeat(n), Language::Elixir, 3, NodeFlags::ERROR);
        let committed = handle.commit(SECOND, batch([put_file(&format!("/r/{n}"), bad)])).await;
        revision = Some(committed.unwrap().revision);
        let report = handle.analytics(MINUTE, revision).await.unwrap();
        let snapshot = handle.snapshot();
        assert_eq!(tables(&report.analytics), recount(&snapshot, 20));
        assert_eq!(report.analytics.syntax_errors[&Language::Elixir].errors, n as u64);
    }
    assert!(handle.enhanced().status().is_ready());
    let report = handle.analytics(SECOND, revision).await.unwrap();
    assert_eq!((report.is_degraded, report.rebuilds, report.drifts), (false, 1, 0));
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn enhanced_is_not_ready_until_its_tables_are_built_for_the_new_core() {
    let handle = handle();
    let root = start(&handle).await;
    let revision = handle.commit(SECOND, batch([put("/r/a", "a")])).await.unwrap().revision;
    let enhanced = handle.enhanced();
    handle.analytics(MINUTE, Some(revision)).await.unwrap();
    enhanced.await_ready(MINUTE).await.unwrap();
    // A core that has started and not yet looked at what it has.
    handle.0.state.send_modify(|state| {
        state.generation += 1;
        state.is_verified = false;
    });
    // The answer comes after the news, which was there first.
    let report = handle.analytics(SECOND, None).await.unwrap();
    assert!(report.is_degraded);
    assert!(!enhanced.status().is_ready());
    assert_eq!(report.analytics.n_files, 1, "it answers with what it has");
    handle.0.state.send_modify(|state| state.is_verified = true);
    enhanced.await_ready(MINUTE).await.unwrap();
    let report = handle.analytics(SECOND, None).await.unwrap();
    assert_eq!((report.generation, report.rebuilds, report.drifts), (2, 2, 0));
    assert!(!report.is_degraded);
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_core_that_is_killed_has_the_tables_built_anew() {
    let handle = handle();
    let root = start(&handle).await;
    let revision = handle.commit(SECOND, batch([put("/r/a", "a")])).await.unwrap().revision;
    handle.analytics(MINUTE, Some(revision)).await.unwrap();
    restarted(&handle.core()).await;
    loop {
        let report = handle.analytics(MINUTE, None).await.unwrap();
        if report.rebuilds == 2 {
            assert_eq!((report.generation, report.is_degraded), (2, false));
            break;
        }
        yield_now().await;
    }
    root.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_is_restarted_alone() {
    let handle = handle();
    let root = start(&handle).await;
    let revision = handle.commit(SECOND, batch([put("/r/a", "a")])).await.unwrap().revision;
    let all = [handle.core(), handle.enhanced()];
    for killed in &all {
        let before: Vec<_> = all.iter().map(|child| child.status().incarnation()).collect();
        restarted(killed).await;
        for (child, before) in all.iter().zip(before) {
            let grown = u64::from(child.id() == killed.id());
            assert_eq!(child.status().incarnation(), before + grown, "{child:?}");
        }
        let report = handle.analytics(MINUTE, Some(revision)).await.unwrap();
        assert_eq!(report.analytics.n_files, 1);
    }
    let ids: BTreeSet<_> = all.iter().map(|child| child.id().to_string()).collect();
    assert_eq!(ids, ["repository_core", "repository_enhanced"].map(String::from).into());
    root.shutdown().await;
}
