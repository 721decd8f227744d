//! The scrubber at work: what it finds and tells, how often it rests, and what survives it.

use super::*;
use crate::read::OpenFile;
use crate::service::{CrawlThreads, SyncConfig, WatchConfig};
use crate::{Disk, RealDisk, Synchronizer};
use astscope_fixtures::Fixture;
use astscope_repository::{FileRecord, NewFile, Repository};
use astscope_supervision::{Recorder, Root, Strategy, SupervisorSpec};
use astscope_syntax::Language;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::time::{advance, sleep, timeout};

/// Far more than anything here takes: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_mins(1);

/// Never rests for long, and checks one file at a time.
const RESTLESS: ScrubConfig = ScrubConfig {
    is_on: true,
    step: Duration::ZERO,
    rest_factor: 0,
    rest_min: Duration::from_millis(1),
    between: Duration::from_millis(1),
};

/// Checks one file a second.
const ONE_A_SECOND: ScrubConfig =
    ScrubConfig { rest_min: Duration::from_secs(1), between: Duration::from_secs(1), ..RESTLESS };

/// Each file that it opens takes some time on a paused clock.
#[derive(Clone)]
struct Slow {
    runtime: Handle,
    each: Duration,
    n_opened: Arc<AtomicU64>,
    /// Nobody is answered before it is.
    is_open: Arc<AtomicBool>,
}

impl Slow {
    fn new(each: Duration) -> Self {
        let is_open = Arc::new(AtomicBool::new(true));
        Self { runtime: Handle::current(), each, n_opened: Arc::default(), is_open }
    }
}

impl Disk for Slow {
    fn now_ns(&self) -> i64 {
        // What was just written can be trusted.
        RealDisk.now_ns() + 1_000_000_000
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        while !self.is_open.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        self.n_opened.fetch_add(1, Ordering::Relaxed);
        if !self.each.is_zero() {
            self.runtime.block_on(advance(self.each));
        }
        RealDisk.open(path)
    }
}

struct Bench {
    fixture: Fixture,
    repository: Arc<Repository>,
    sync: SyncHandle,
    root: Root,
    settings: watch::Sender<ScrubConfig>,
    told: Arc<Mutex<Vec<Drift>>>,
}

impl Bench {
    /// `n` files of different contents.
    async fn new(n: usize, settings: ScrubConfig, disk: Slow) -> Self {
        let fixture = Fixture::empty();
        (0..n).for_each(|at| fixture.write(format!("{at}.json"), format!("[{at}]\n")));
        let repository = Arc::new(Repository::new(1));
        let threads: CrawlThreads = Arc::new(|| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build();
            threads.map_err(|error| error.to_string())
        });
        let pool = Arc::new(threads().unwrap());
        let engine = Synchronizer::new(Arc::clone(&repository), fixture.root(), pool)
            .with_disk(Box::new(disk));
        let settings = watch::Sender::new(settings);
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let hour = Duration::from_hours(1);
        let blind = WatchConfig { every_min: hour, every_max: hour, ..WatchConfig::default() };
        let config = SyncConfig {
            events: None,
            mailbox: 16,
            restart_within: PATIENCE,
            watch: watch::Sender::new(blind).subscribe(),
            scrub: settings.subscribe(),
            drifted: Arc::new(move |drift| heard.lock().unwrap().push(drift.clone())),
            seats: None,
            repository: None,
            crawl_threads: threads,
        };
        let sync = SyncHandle::new(engine, config);
        let tree = SupervisorSpec::new(Strategy::OneForOne)
            .child(sync.supervisor())
            .observer(Recorder::new());
        let root = tree.start("workspace").await.unwrap();
        Self { fixture, repository, sync, root, settings, told }
    }

    fn status(&self) -> ScrubStatus {
        self.sync.scrub_status().borrow().clone()
    }

    async fn until(&self, is: impl FnMut(&ScrubStatus) -> bool) -> ScrubStatus {
        let mut status = self.sync.scrub_status();
        let status = timeout(PATIENCE, status.wait_for(is)).await;
        status.expect("it comes to pass").unwrap().clone()
    }

    fn record(&self, name: &str) -> Arc<FileRecord> {
        let snapshot = self.repository.snapshot();
        let record = snapshot.record(&self.fixture.path(name), Language::Json);
        Arc::clone(record.unwrap())
    }

    /// Gives a file the tree of another.
    fn damage(&self, name: &str, other: &str) {
        let FileRecord { path, stamp, content, .. } = &*self.record(name);
        let file = Arc::clone(&self.record(other).file);
        let mut transaction = self.repository.begin();
        let new = NewFile { path: Arc::clone(path), stamp: *stamp, content: *content, file };
        transaction.put(new).unwrap();
        transaction.commit();
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_tree_is_found_within_a_cycle_told_counted_and_repaired() {
    let bench = Bench::new(3, ONE_A_SECOND, Slow::new(Duration::ZERO)).await;
    let sound = bench.until(|it| it.n_cycles == 1).await;
    assert_eq!((sound.drift, sound.last_drift), (DriftCounts::default(), None));
    let last = sound.last_cycle.unwrap();
    assert_eq!((last.n_files, last.n_left_out, last.drift), (3, 0, DriftCounts::default()));

    bench.damage("1.json", "2.json");
    let found = bench.until(|it| it.n_cycles == 2).await;
    let one = DriftCounts { tree: 1, ..DriftCounts::default() };
    assert_eq!((found.drift, found.last_cycle.unwrap().drift), (one, one));
    let drift = found.last_drift.unwrap();
    assert_eq!((&*drift.path, drift.cause), (&*bench.fixture.path("1.json"), DriftCause::Tree));
    assert!(drift.at_ns > 0);
    assert_eq!(&*bench.record("1.json").file.text, "[1]\n");
    assert_eq!(*bench.told.lock().unwrap(), [drift]);

    let repaired = bench.until(|it| it.n_cycles == 3).await;
    assert_eq!(repaired.drift, one);
    assert_eq!(repaired.last_cycle.unwrap().drift, DriftCounts::default());
}

#[tokio::test(start_paused = true)]
async fn a_slow_disk_makes_for_long_rests() {
    const FILES: u32 = 40;
    let each = Duration::from_millis(10);
    let disk = Slow::new(each);
    let bench = Bench::new(FILES as usize, ScrubConfig::default(), disk.clone()).await;
    while bench.status().n_cycles == 0 {
        sleep(Duration::from_secs(1)).await;
    }
    let cycle = bench.status().last_cycle.unwrap();
    // Half a percent of a core, after each file but the last; and it makes use of that.
    let rests = (each * 200) * (FILES - 1);
    assert!(cycle.took >= rests, "{cycle:?}");
    assert!(cycle.took <= rests + Duration::from_secs(5), "{cycle:?}");
    let n_opened = disk.n_opened.load(Ordering::Relaxed);
    sleep(Duration::from_mins(9)).await;
    assert_eq!(disk.n_opened.load(Ordering::Relaxed), n_opened, "then it rests longer");
    sleep(Duration::from_mins(2)).await;
    assert!(disk.n_opened.load(Ordering::Relaxed) > n_opened);
    assert_eq!(bench.status().drift, DriftCounts::default());
}

#[tokio::test(start_paused = true)]
async fn a_fast_disk_wakes_the_machine_once_a_second() {
    let files = 2 * FILES_A_STEP + 1;
    let bench = Bench::new(files, ScrubConfig::default(), Slow::new(Duration::ZERO)).await;
    while bench.status().n_cycles == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let cycle = bench.status().last_cycle.unwrap();
    let secs = Duration::from_secs;
    assert!(cycle.took >= secs(3) && cycle.took < secs(5), "{cycle:?}");
}

#[test]
fn a_rest_is_a_multiple_of_the_step_for_each_thread() {
    let config = ScrubConfig::default();
    let rows = [
        (0, 1, false, 1_000),
        (5, 1, false, 1_000),
        (10, 1, false, 2_000),
        (10, 4, false, 8_000),
        (10, 4, true, 600_000),
        (10_000, 1, true, 2_000_000),
    ];
    for (took, n_threads, has_ended, rest) in rows {
        let step = Step { took: Duration::from_millis(took), n_threads, has_ended };
        assert_eq!(config.rest_after(&step), Duration::from_millis(rest), "{took} {n_threads}");
    }
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_the_first_crawl_and_settings_hold_at_once() {
    let disk = Slow::new(Duration::ZERO);
    disk.is_open.store(false, Ordering::Relaxed);
    let off = ScrubConfig { is_on: false, ..RESTLESS };
    let bench = Bench::new(3, RESTLESS, disk.clone()).await;
    // While the crawl is under way the paused clock stands: this lets others have turns.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.status(), ScrubStatus::default());
    disk.is_open.store(true, Ordering::Relaxed);
    bench.until(|it| it.n_cycles > 0).await;
    bench.settings.send_replace(off);
    sleep(Duration::from_secs(1)).await;
    let before = bench.status();
    sleep(Duration::from_hours(1)).await;
    assert_eq!(bench.status(), before);
    bench.settings.send_replace(RESTLESS);
    bench.until(|it| it.n_cycles > before.n_cycles).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_restarted_goes_on_where_the_last_one_was() {
    let bench = Bench::new(20, ONE_A_SECOND, Slow::new(Duration::ZERO)).await;
    let before = bench.until(|it| it.n_checked == 10).await;
    let child = bench.root.supervisor().child_at("synchronization/scrubber").await.unwrap();
    for incarnation in [1, 2] {
        assert_eq!(child.status().incarnation(), incarnation);
        child.kill();
        sleep(Duration::from_millis(10)).await;
    }
    assert!(bench.status().n_checked >= before.n_checked);
    let after = bench.until(|it| it.n_cycles > 0).await;
    assert_eq!((after.n_cycles, after.n_checked, after.n_files), (1, 20, 20));
    bench.root.shutdown().await;
}
