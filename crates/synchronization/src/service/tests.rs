//! The chain on a real directory: who is restarted with whom, and what each node is for.

use super::*;
use crate::{Disk, WalkSpec};
use astscope_fixtures::Fixture;
use astscope_repository::{Repository, Scope};
use astscope_supervision::{Recorder, Root};
use std::path::Path;

/// Far more than anything here takes: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_mins(1);

struct Bench {
    cookies: tempfile::TempDir,
    fixture: Fixture,
    repository: Arc<Repository>,
    sync: SyncHandle,
    root: Root,
    bounds: watch::Sender<WatchConfig>,
}

/// Looks all the time.
const RESTLESS: WatchConfig = WatchConfig {
    settle: Duration::from_millis(1),
    settle_max: Duration::from_millis(8),
    every_min: Duration::from_millis(1),
    every_max: Duration::from_millis(1),
    pause_factor: 1,
    flood: usize::MAX,
};
/// Never looks.
const BLIND: WatchConfig = WatchConfig {
    settle: Duration::from_millis(1),
    settle_max: Duration::from_millis(8),
    every_min: Duration::from_hours(1),
    every_max: Duration::from_hours(1),
    pause_factor: 1,
    flood: usize::MAX,
};

impl Bench {
    async fn new(files: &str, watch: WatchConfig) -> Self {
        Self::with(files, watch, |engine| engine).await
    }

    async fn with(
        files: &str,
        watch: WatchConfig,
        adjust: impl FnOnce(Synchronizer) -> Synchronizer,
    ) -> Self {
        Self::hearing(files, watch, adjust, |_| None).await
    }

    /// With the kernel's events.
    async fn native(files: &str) -> Self {
        let events = |cookies: &Path| Events::of_kernel(cookies.join("1"));
        Self::hearing(files, BLIND, |engine| engine, events).await
    }

    async fn hearing(
        files: &str,
        watch: WatchConfig,
        adjust: impl FnOnce(Synchronizer) -> Synchronizer,
        events: impl FnOnce(&Path) -> Option<Events>,
    ) -> Self {
        let cookies = tempfile::tempdir().unwrap();
        let fixture = Fixture::parse(files);
        let repository = Arc::new(Repository::new(1));
        let threads = || rayon::ThreadPoolBuilder::new().num_threads(2).build();
        let pool = Arc::new(threads().unwrap());
        let engine = Synchronizer::new(Arc::clone(&repository), fixture.root(), pool);
        let bounds = watch::Sender::new(watch);
        let config = SyncConfig {
            mailbox: 16,
            restart_within: PATIENCE,
            watch: bounds.subscribe(),
            events: events(cookies.path()),
            scrub: watch::Sender::new(ScrubConfig::default()).subscribe(),
            drifted: Arc::new(|_| {}),
            seats: None,
            repository: None,
            crawl_threads: Arc::new(move || threads().map_err(|error| error.to_string())),
        };
        let sync = SyncHandle::new(adjust(engine), config);
        let tree = SupervisorSpec::new(Strategy::OneForOne)
            .child(sync.supervisor())
            .observer(Recorder::new());
        let root = tree.start("workspace").await.unwrap();
        Self { cookies, fixture, repository, sync, root, bounds }
    }

    async fn until(&self, what: impl Fn() -> bool) {
        let waiting = async {
            while !what() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it comes to pass");
    }

    fn files(&self) -> u64 {
        self.repository.snapshot().totals().files
    }

    async fn see(&self) -> Result<Vec<String>, SyncError> {
        let spec = WalkSpec::all_of(&self.fixture.root());
        let scope = self.scope(spec, Wait::Done).await?;
        assert_eq!((scope.pending, &scope.lag), (0, &None), "it was waited for");
        Ok(scope.files.iter().map(|file| file.record.file.text.to_string()).collect())
    }

    async fn scope(&self, spec: WalkSpec, wait: Wait) -> Result<Scope, SyncError> {
        self.sync.refresh(spec, wait, Arc::new(|| false), Arc::new(|_, _| {})).await
    }

    async fn child(&self, id: &str) -> ChildRef {
        let path = format!("synchronization/{id}");
        self.root.supervisor().child_at(&path).await.unwrap()
    }

    /// Incarnations of watcher, synchronizer and updater, once all three are up.
    async fn incarnations(&self) -> [u64; 3] {
        let mut all = [0; 3];
        for (at, id) in ["file_watcher", "synchronizer", "incremental_updater"].iter().enumerate() {
            let child = self.child(id).await;
            child.await_ready(PATIENCE).await.unwrap();
            all[at] = child.status().incarnation();
        }
        all
    }

    async fn kill(&self, id: &str) {
        let child = self.child(id).await;
        let before = child.status().incarnation();
        child.kill();
        self.until(|| child.status().is_up() && child.status().incarnation() > before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_workspace_is_crawled_by_itself() {
    let bench = Bench::new("//- /a.json\n1\n//- /b/c.json\n2\n", BLIND).await;
    bench.until(|| !bench.sync.is_indexing()).await;
    assert_eq!(bench.files(), 2);
    assert!(bench.sync.indexed_in_ms().is_some());
    assert_eq!(bench.sync.files_seen(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_parsed_before_anybody_asks() {
    let bench = Bench::new("//- /a.json\n1\n", RESTLESS).await;
    bench.until(|| !bench.sync.is_indexing()).await;
    bench.fixture.write("b.json", "2\n");
    bench.until(|| bench.files() == 2).await;
    std::fs::remove_file(bench.fixture.root().join("a.json")).unwrap();
    bench.until(|| bench.files() == 1).await;
    assert_eq!(bench.see().await.unwrap(), ["2\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_and_a_crawl_see_what_is_there_now() {
    let bench = Bench::new("//- /a.json\n1\n", BLIND).await;
    assert_eq!(bench.see().await.unwrap(), ["1\n"]);
    bench.fixture.write("b.json", "2\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    bench.fixture.write("c.json", "3\n");
    bench.sync.crawl(Arc::new(|| false), Arc::new(|_, _| {})).await.unwrap();
    assert_eq!(bench.files(), 3);
    let given_up = bench.sync.crawl(Arc::new(|| true), Arc::new(|_, _| {})).await;
    assert!(matches!(given_up, Err(SyncError::Refresh(crate::RefreshError::Cancelled))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_04_a_watcher_takes_the_chain_along_and_an_updater_only_itself() {
    let bench = Bench::new("//- /a.json\n1\n", BLIND).await;
    assert_eq!(bench.incarnations().await, [1, 1, 1]);
    bench.kill("incremental_updater").await;
    assert_eq!(bench.incarnations().await, [1, 1, 2]);
    bench.kill("synchronizer").await;
    assert_eq!(bench.incarnations().await, [1, 2, 3]);
    bench.kill("file_watcher").await;
    assert_eq!(bench.incarnations().await, [2, 3, 4]);
    assert_eq!(bench.see().await.unwrap(), ["1\n"], "and it works");
}

/// Holds whoever opens a file, until it is let go.
struct Gate {
    opened: Arc<AtomicU64>,
    is_open: Arc<AtomicBool>,
}

impl Disk for Gate {
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn crate::read::OpenFile>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        while !self.is_open.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        crate::RealDisk.open(path)
    }

    fn now_ns(&self) -> i64 {
        crate::RealDisk.now_ns()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_synchronizer_that_is_killed_costs_its_refreshes_and_crawls_anew() {
    let (opened, is_open) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let gate = Gate { opened: Arc::clone(&opened), is_open: Arc::clone(&is_open) };
    let files = "//- /a.json\n1\n//- /b.json\n2\n//- /c.json\n3\n";
    let adjust = |engine: Synchronizer| engine.with_disk(Box::new(gate));
    let bench = Bench::with(files, BLIND, adjust).await;
    bench.until(|| opened.load(Ordering::Relaxed) > 0).await;
    let refresh = bench.see();
    tokio::pin!(refresh);
    assert!(futures_are_pending(&mut refresh).await);
    bench.child("synchronizer").await.kill();
    is_open.store(true, Ordering::Relaxed);
    assert!(matches!(refresh.await, Err(SyncError::Ended(_))));
    // Nobody has finished the crawl, so the next incarnation does.
    bench.until(|| !bench.sync.is_indexing()).await;
    assert_eq!(bench.files(), 3);
    assert_eq!(bench.see().await.unwrap().len(), 3);
}

/// Polls it once.
async fn futures_are_pending<F: Future>(future: &mut std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// A disk whose directories can't be listed as long as it is told so.
#[derive(Clone, Default)]
struct Flaky(Arc<std::sync::Mutex<Option<std::io::ErrorKind>>>);

impl Flaky {
    fn fail(&self, how: impl Into<Option<std::io::ErrorKind>>) {
        *self.0.lock().unwrap() = how.into();
    }
}

impl Disk for Flaky {
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn crate::read::OpenFile>> {
        crate::RealDisk.open(path)
    }

    fn now_ns(&self) -> i64 {
        crate::RealDisk.now_ns()
    }

    fn list(&self, dir: &Path) -> std::io::Result<()> {
        let failing = *self.0.lock().unwrap();
        failing.map_or_else(|| crate::RealDisk.list(dir), |kind| Err(kind.into()))
    }
}

fn is_polling(status: &WatchStatus) -> bool {
    matches!(status.state, WatchState::Polling(_))
}

impl Bench {
    async fn until_watch(&self, is: impl Fn(&WatchStatus) -> bool) -> WatchStatus {
        let mut status = self.sync.watch_status();
        let status = tokio::time::timeout(PATIENCE, status.wait_for(is)).await;
        status.expect("it comes to pass").unwrap().clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_a_file_system_that_fails_is_polled_and_changes_are_delivered_when_it_is_back() {
    let disk = Flaky::default();
    let own = disk.clone();
    let bench =
        Bench::with("//- /a.json\n1\n", RESTLESS, |engine| engine.with_disk(Box::new(own))).await;
    bench.until(|| bench.files() == 1).await;
    disk.fail(std::io::ErrorKind::NotConnected);
    let status = bench.until_watch(|it| !is_polling(it)).await;
    assert!(matches!(status.state, WatchState::Unavailable(_)), "{status:?}");
    assert_eq!(status.pause, RESTLESS.every_min, "it goes on looking");
    bench.fixture.write("b.json", "2\n");
    // The watcher says nothing, and whoever looks himself sees.
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    bench.fixture.write("c.json", "3\n");
    disk.fail(None);
    bench.until_watch(is_polling).await;
    bench.until(|| bench.files() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_a_root_that_vanishes_is_noticed_and_so_is_its_return() {
    let bench = Bench::new("//- /a.json\n1\n", RESTLESS).await;
    bench.until(|| bench.files() == 1).await;
    let (root, aside) = (bench.fixture.root(), tempfile::TempDir::new().unwrap());
    let away = aside.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    let status = bench.until_watch(|it| !is_polling(it)).await;
    assert!(matches!(status.state, WatchState::Unavailable(_)), "{status:?}");
    assert_eq!(bench.files(), 1, "nothing is given up");
    std::fs::write(away.join("b.json"), "2\n").unwrap();
    std::fs::rename(&away, &root).unwrap();
    bench.until(|| bench.files() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_a_root_that_may_not_be_read_is_not_watched_until_it_may() {
    let disk = Flaky::default();
    let own = disk.clone();
    let slower = WatchConfig { every_max: Duration::from_millis(2), ..RESTLESS };
    let bench =
        Bench::with("//- /a.json\n1\n", slower, |engine| engine.with_disk(Box::new(own))).await;
    bench.until(|| bench.files() == 1).await;
    disk.fail(std::io::ErrorKind::PermissionDenied);
    let status = bench.until_watch(|it| !is_polling(it)).await;
    assert!(matches!(status.state, WatchState::Disabled(_)), "{status:?}");
    assert_eq!(status.pause, slower.every_max);
    assert_eq!(bench.incarnations().await, [1, 1, 1], "nobody failed");
    assert_eq!(bench.see().await.unwrap(), ["1\n"], "the rest works");
    disk.fail(None);
    bench.fixture.write("b.json", "2\n");
    bench.until(|| bench.files() == 2).await;
    bench.until_watch(is_polling).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_a_flood_of_changes_makes_looks_rarer_until_it_is_over() {
    let every_max = Duration::from_millis(8);
    let bench =
        Bench::new("//- /a.json\n1\n", WatchConfig { every_max, flood: 4, ..RESTLESS }).await;
    bench.until(|| !bench.sync.is_indexing()).await;
    let status = bench.sync.watch_status();
    let n_rounds = std::cell::Cell::new(0);
    bench
        .until(|| {
            n_rounds.set(n_rounds.get() + 1);
            for n in 0..9 {
                bench.fixture.write(format!("{n}.json"), format!("{}\n", n_rounds.get()));
            }
            status.borrow().pause == every_max
        })
        .await;
    bench.until_watch(|it| it.pause < every_max).await;
    bench.until(|| bench.files() == 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_that_change_hold_at_once() {
    let bench = Bench::new("//- /a.json\n1\n", BLIND).await;
    bench.until(|| bench.files() == 1).await;
    bench.fixture.write("b.json", "2\n");
    bench.bounds.send_replace(RESTLESS);
    bench.until(|| bench.files() == 2).await;
    let status = bench.until_watch(|it| it.pause == RESTLESS.every_max).await;
    assert!(is_polling(&status));
}

impl Bench {
    /// Until everything is known without looking.
    async fn until_steady(&self) {
        self.until(|| self.sync.awareness().unsteady.is_none()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_is_heard_and_parsed_before_anybody_asks() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.until_steady().await;
    assert_eq!(bench.sync.watch_status().borrow().state, WatchState::Native);
    bench.fixture.write("b.json", "2\n");
    bench.until(|| bench.files() == 2).await;
    bench.fixture.write("new/c.json", "3\n");
    bench.until(|| bench.files() == 3).await;
    bench.until_steady().await;
    std::fs::remove_dir_all(bench.fixture.path("new")).unwrap();
    bench.until(|| bench.files() == 2).await;
    // That the directory is gone may be heard only now, and looked at once more.
    let deadline = std::time::Instant::now() + PATIENCE;
    while bench.sync.awareness().proven == 0 {
        assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
        assert!(std::time::Instant::now() < deadline, "{:?}", bench.sync.awareness());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_takes_to_watch_is_counted() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.until_steady().await;
    let few = bench.sync.watching_bytes();
    assert!(few > 0);
    for n in 0..100 {
        bench.fixture.write(format!("new/{n}/a.json"), "1\n");
    }
    bench.until(|| bench.files() == 101).await;
    bench.until_steady().await;
    let paths = 100 * bench.fixture.path("new/0").as_os_str().len() as u64;
    let many = bench.sync.watching_bytes();
    assert!(many > few + paths, "{few}, then {many}");
    std::fs::remove_dir_all(bench.fixture.path("new")).unwrap();
    // The maps keep their room.
    bench.until(|| bench.sync.watching_bytes() <= many - paths).await;
}

/// Of a burst nobody sees a part, unless he asks in the middle of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_change_together_are_one_commit() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.bounds.send_modify(|bounds| {
        (bounds.settle, bounds.settle_max) = (Duration::from_millis(500), PATIENCE);
    });
    bench.until_steady().await;
    bench.see().await.unwrap();
    let before = bench.repository.snapshot().revision();
    for n in 0..20 {
        bench.fixture.write(format!("{n}.json"), format!("{n}\n"));
    }
    bench.until(|| bench.files() == 21).await;
    assert_eq!(bench.repository.snapshot().revision().number, before.number + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_04_a_watcher_that_is_killed_is_followed_by_one_that_hears() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.until_steady().await;
    bench.kill("file_watcher").await;
    bench.fixture.write("b.json", "2\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    bench.until_steady().await;
    bench.fixture.write("c.json", "3\n");
    bench.until(|| bench.files() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_pauses_forgets_nothing() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.until_steady().await;
    bench.sync.set_paused(true).await;
    assert_eq!(bench.sync.watch_status().borrow().state, WatchState::Paused);
    assert_eq!(bench.sync.awareness().directories, 0);
    bench.fixture.write("b.json", "2\n");
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"], "who asks looks");
    bench.fixture.write("c.json", "3\n");
    bench.kill("file_watcher").await;
    bench.until_watch(|it| it.state == WatchState::Paused).await;
    bench.sync.set_paused(false).await;
    bench.until(|| bench.files() == 3).await;
    bench.until_watch(|it| it.state == WatchState::Native).await;
    bench.until_steady().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_a_watched_root_that_vanishes_is_noticed_and_so_is_its_return() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.bounds.send_modify(|bounds| bounds.every_min = Duration::from_millis(1));
    bench.until_steady().await;
    let (root, aside) = (bench.fixture.root(), tempfile::TempDir::new().unwrap());
    let away = aside.path().join("away");
    std::fs::rename(&root, &away).unwrap();
    let status = bench.until_watch(|it| it.state != WatchState::Native).await;
    assert!(matches!(status.state, WatchState::Unavailable(_)), "{status:?}");
    assert_eq!(bench.files(), 1, "nothing is given up");
    std::fs::write(away.join("b.json"), "2\n").unwrap();
    std::fs::rename(&away, &root).unwrap();
    bench.until_watch(|it| it.state == WatchState::Native).await;
    bench.until(|| bench.files() == 2).await;
    bench.until_steady().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_16_without_events_it_looks_and_says_why() {
    let mute = |cookies: &Path| {
        let open = || Err(std::io::Error::from(rustix::io::Errno::MFILE));
        Some(Events { open: Arc::new(open), cookies: cookies.join("1") })
    };
    let bench = Bench::hearing("//- /a.json\n1\n", RESTLESS, |engine| engine, mute).await;
    let status = bench.until_watch(|it| is_polling(it) && it.pause == RESTLESS.every_max).await;
    let WatchState::Polling(why) = status.state else { panic!("{status:?}") };
    assert!(why.contains("open files"), "{why}");
    bench.fixture.write("b.json", "2\n");
    bench.until(|| bench.files() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flush_stores_what_was_written_without_waiting_for_quiet() {
    let bench = Bench::native("//- /a.json\n1\n").await;
    bench.bounds.send_modify(|bounds| (bounds.settle, bounds.settle_max) = (PATIENCE, PATIENCE));
    bench.until_steady().await;
    bench.fixture.write("b.json", "2\n");
    bench.sync.flush(Arc::new(|| false), Arc::new(|_, _| {})).await.unwrap();
    assert_eq!(bench.files(), 2);
}

/// Holds whoever opens one of its files, until it is let go.
#[derive(Clone, Default)]
struct Hanging(Arc<std::sync::Mutex<Option<PathBuf>>>);

impl Hanging {
    fn hang(&self, path: impl Into<Option<PathBuf>>) {
        *self.0.lock().unwrap() = path.into();
    }
}

impl Disk for Hanging {
    fn open(&self, path: &Path) -> std::io::Result<Box<dyn crate::read::OpenFile>> {
        while self.0.lock().unwrap().as_deref() == Some(path) {
            std::thread::yield_now();
        }
        crate::RealDisk.open(path)
    }

    fn now_ns(&self) -> i64 {
        crate::RealDisk.now_ns()
    }
}

/// Lets its file go when it is dropped: a test that fails must end.
struct LetGo<'h>(&'h Hanging);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.hang(None);
    }
}

const SHORTLY: Wait = Wait::Within(Duration::from_millis(100));
const NOT: Wait = Wait::Within(Duration::ZERO);

fn texts(scope: &Scope) -> Vec<&str> {
    scope.files.iter().map(|file| &*file.record.file.text).collect()
}

fn older(scope: &Scope) -> Vec<&str> {
    scope.lag.iter().flat_map(|lag| &lag.files).map(|path| &**path).collect()
}

async fn hanging(is_native: bool) -> (Bench, Hanging, WalkSpec) {
    let disk = Hanging::default();
    let own = disk.clone();
    let events = |cookies: &Path| is_native.then(|| Events::of_kernel(cookies.join("1"))).flatten();
    let files = "//- /a.json\n1\n//- /b.json\n2\n";
    let adjust = |engine: Synchronizer| engine.with_disk(Box::new(own));
    let bench = Bench::hearing(files, BLIND, adjust, events).await;
    bench.until(|| !bench.sync.is_indexing()).await;
    let spec = WalkSpec::all_of(&bench.fixture.root());
    (bench, disk, spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_hangs_costs_a_query_its_wait_and_the_answer_says_what_is_old() {
    let (bench, disk, spec) = hanging(false).await;
    let let_go = LetGo(&disk);
    // Long enough ago that a look proves it unchanged.
    let long_ago = std::time::SystemTime::now() - Duration::from_hours(1);
    let b = std::fs::File::options().write(true).open(bench.fixture.path("b.json")).unwrap();
    b.set_modified(long_ago).unwrap();
    bench.until_old("b.json").await;
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    disk.hang(bench.fixture.path("a.json"));
    bench.fixture.write("a.json", "10\n");
    bench.fixture.write("c.json", "3\n");
    let scope = bench.scope(spec.clone(), SHORTLY).await.unwrap();
    assert_eq!(texts(&scope)[..2], ["1\n", "2\n"]);
    assert_eq!(older(&scope), ["a.json"]);
    // The second new file is there or not: it was read at the same time.
    assert_eq!(scope.files.len() + scope.pending, 3);
    let lag = scope.lag.unwrap();
    assert!(!lag.are_names_unknown && lag.behind > Duration::ZERO, "{lag:?}");
    // Others wait no longer, though somebody has the file.
    let scope = bench.scope(spec.clone(), SHORTLY).await.unwrap();
    assert_eq!((texts(&scope)[0], older(&scope)), ("1\n", vec!["a.json"]));
    let scope = bench.scope(spec.clone(), NOT).await.unwrap();
    assert_eq!((texts(&scope)[0], older(&scope)), ("1\n", vec!["a.json"]));
    drop(let_go);
    // Nobody asks, and what was left is finished.
    bench.until(|| bench.text_of("a.json") == "10\n").await;
    assert_eq!(bench.see().await.unwrap(), ["10\n", "2\n", "3\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_hangs_is_known_by_its_event_alone() {
    let (bench, disk, spec) = hanging(true).await;
    let let_go = LetGo(&disk);
    bench.until_steady().await;
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    disk.hang(bench.fixture.path("a.json"));
    bench.fixture.write("a.json", "10\n");
    for wait in [SHORTLY, NOT, SHORTLY] {
        let scope = bench.scope(spec.clone(), wait).await.unwrap();
        assert_eq!((texts(&scope), older(&scope)), (vec!["1\n", "2\n"], vec!["a.json"]));
        let lag = scope.lag.unwrap();
        assert!(lag.behind < PATIENCE, "since it was noticed, not since it was read: {lag:?}");
    }
    drop(let_go);
    bench.until(|| bench.text_of("a.json") == "10\n").await;
    bench.until_steady().await;
    assert_eq!(bench.see().await.unwrap(), ["10\n", "2\n"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_wait_is_answered_exactly_where_nothing_is_missing() {
    let (bench, _, spec) = hanging(true).await;
    bench.until_steady().await;
    assert_eq!(bench.see().await.unwrap(), ["1\n", "2\n"]);
    let scope = bench.scope(spec, NOT).await.unwrap();
    assert_eq!((texts(&scope), scope.pending, &scope.lag), (vec!["1\n", "2\n"], 0, &None));
}

impl Bench {
    fn text_of(&self, file: &str) -> String {
        let snapshot = self.repository.snapshot();
        let record = snapshot.record(&self.fixture.path(file), astscope_syntax::Language::Json);
        record.map(|record| record.file.text.to_string()).unwrap_or_default()
    }

    /// Until a file's metadata are older than what a look believes.
    async fn until_old(&self, file: &str) {
        let path = self.fixture.path(file);
        self.until(|| {
            let stat = crate::read::stat_of(&path.metadata().unwrap());
            let read_at_ns = crate::RealDisk.now_ns();
            astscope_repository::FileStamp { stat, read_at_ns }.proves_unchanged(&stat)
        })
        .await;
    }
}

mod faults;
