//! Faults of the disk beneath the watcher: each is told, and ends by itself.

use super::*;
use crate::unprivileged::{Reopened, set_mode, unprivileged};
use std::fs;

/// Looks often, so that what has ended is noticed.
const ALERT: WatchConfig = WatchConfig { every_max: Duration::from_millis(2), ..RESTLESS };

fn kernels(cookies: &Path) -> Option<Events> {
    Events::of_kernel(cookies.join("watching/1"))
}

/// With permissions that apply to all threads of a runtime.
fn unprivileged_runtime(test: impl Future<Output = ()> + Send) {
    unprivileged(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        runtime.worker_threads(2).enable_all().build().unwrap().block_on(test);
    });
}

/// The runtime directory may be on a file system that has become read-only, or be full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_that_cannot_be_made_are_told_and_are_made_once_they_can() {
    // What makes a directory impossible for root, too.
    let blocked = |cookies: &Path| {
        fs::write(cookies.join("watching"), "").unwrap();
        kernels(cookies)
    };
    let bench = Bench::hearing("//- /a.json\n1\n", ALERT, |engine| engine, blocked).await;
    let status = bench.until_watch(|it| is_polling(it) && it.pause == ALERT.every_max).await;
    let WatchState::Polling(why) = status.state else { panic!("{status:?}") };
    assert!(why.contains("cannot keep a file in") && why.contains("watching/1"), "{why}");
    bench.fixture.write("b.json", "2\n");
    bench.until(|| bench.files() == 2).await;
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    fs::remove_file(bench.cookies.path().join("watching")).unwrap();
    bench.until_watch(|it| it.state == WatchState::Native).await;
    bench.until_steady().await;
    bench.fixture.write("c.json", "3\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n", "3\n"]);
    assert_eq!(bench.incarnations().await, [1, 1, 1], "nobody failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cookies_that_somebody_removes_are_made_again() {
    let bench = Bench::hearing("//- /a.json\n1\n", ALERT, |engine| engine, kernels).await;
    bench.until_steady().await;
    let watching = bench.cookies.path().join("watching");
    fs::remove_dir_all(&watching).unwrap();
    fs::write(&watching, "").unwrap();
    bench.fixture.write("b.json", "2\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"], "who asks looks");
    bench.until_watch(is_polling).await;
    bench.fixture.write("c.json", "3\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n", "3\n"]);
    fs::remove_file(&watching).unwrap();
    bench.until_watch(|it| it.state == WatchState::Native).await;
    bench.until_steady().await;
    bench.fixture.write("d.json", "4\n");
    assert_eq!(bench.see().await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_root_that_was_replaced_in_an_instant_is_listened_to_at_once() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.until_steady().await;
    let (root, aside) = (bench.fixture.root(), tempfile::TempDir::new().unwrap());
    let other = aside.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.json"), "2\n").unwrap();
    fs::rename(&root, aside.path().join("away")).unwrap();
    fs::rename(&other, &root).unwrap();
    assert_eq!(bench.see().await.unwrap(), ["2\n"]);
    bench.until_steady().await;
    bench.until_watch(|it| it.state == WatchState::Native).await;
    bench.until(|| bench.files() == 1).await;
    bench.fixture.write("c.json", "3\n");
    bench.until(|| bench.files() == 2).await;
}

#[test]
fn check_16_a_watched_root_that_may_not_be_read_is_not_watched_until_it_may() {
    unprivileged_runtime(async {
        let bench = Bench::hearing("//- /a.json\n1\n", ALERT, |engine| engine, kernels).await;
        let root = bench.fixture.root();
        let _reopened = Reopened(root.clone());
        bench.until_steady().await;
        set_mode(&root, 0);
        let status = bench.until_watch(|it| matches!(it.state, WatchState::Disabled(_))).await;
        assert_eq!(status.pause, ALERT.every_max);
        assert_eq!(bench.see().await.unwrap(), [""; 0], "nothing can be seen");
        assert_eq!(bench.files(), 1, "and nothing is given up");
        set_mode(&root, 0o755);
        bench.until_watch(|it| it.state == WatchState::Native).await;
        bench.until_steady().await;
        bench.fixture.write("b.json", "2\n");
        bench.until(|| bench.files() == 2).await;
        assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
        assert_eq!(bench.incarnations().await, [1, 1, 1], "nobody failed");
    });
}

#[test]
fn a_directory_that_may_be_read_again_is_heard_of() {
    unprivileged_runtime(async {
        let files = "//- /a.json\n1\n//- /closed/b.json\n2\n";
        let bench = Bench::native(files).await;
        let _reopened = Reopened(bench.fixture.root());
        bench.until(|| bench.files() == 2).await;
        bench.until_steady().await;
        set_mode(&bench.fixture.path("closed"), 0);
        assert_eq!(bench.see().await.unwrap(), ["1\n"]);
        bench.until_steady().await;
        assert_eq!(bench.sync.watch_status().borrow().state, WatchState::Native);
        bench.fixture.write("c.json", "3\n");
        bench.until(|| bench.files() == 3).await;
        set_mode(&bench.fixture.path("closed"), 0o755);
        assert_eq!(bench.see().await.unwrap(), ["1\n", "3\n", "2\n"]);
        bench.until_steady().await;
        bench.fixture.write("closed/b.json", "4\n");
        let has_it = |snapshot: &astscope_repository::Snapshot| {
            snapshot.records().any(|record| *record.file.text == *"4\n")
        };
        bench.until(|| has_it(&bench.repository.snapshot())).await;
    });
}

/// The updater tries again by itself, less and less often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_stored_is_stored_once_it_can() {
    #[derive(Debug)]
    struct Refusing(Arc<Repository>, Arc<AtomicBool>, Arc<AtomicU64>);

    impl crate::Committer for Refusing {
        fn commit(
            &self,
            batch: astscope_repository::Batch,
        ) -> Result<astscope_repository::Committed, String> {
            if self.1.load(Ordering::Relaxed) {
                self.2.fetch_add(1, Ordering::Relaxed);
                return Err("it is refused".to_owned());
            }
            Ok(crate::commit::apply(&self.0, batch))
        }
    }

    let (is_refusing, n_refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (refusing, refused) = (Arc::clone(&is_refusing), Arc::clone(&n_refused));
    let adjust = |engine: Synchronizer| {
        let repository = Arc::clone(&engine.repository);
        engine.with_committer(Arc::new(Refusing(repository, refusing, refused)))
    };
    let bench = Bench::hearing("//- /a.json\n1\n", ALERT, adjust, kernels).await;
    bench.until_steady().await;
    is_refusing.store(true, Ordering::Relaxed);
    bench.fixture.write("b.json", "2\n");
    bench.until(|| n_refused.load(Ordering::Relaxed) >= 3).await;
    assert_eq!(bench.files(), 1);
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"], "who asks looks");
    is_refusing.store(false, Ordering::Relaxed);
    bench.until(|| bench.files() == 2).await;
    bench.until_steady().await;
}
