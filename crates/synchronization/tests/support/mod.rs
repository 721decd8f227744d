//! A disk whose clock, failures and changes a test decides, and a root to watch through it.

use astscope_fixtures::Fixture;
use astscope_parsing::Limits;
use astscope_repository::{Repository, Scope};
use astscope_synchronization::read::{OpenFile, OpenStat};
use astscope_synchronization::{Disk, RealDisk, RefreshError, Synchronizer, WalkSpec};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// What befalls a file at its nth opening, counted from 0.
pub(crate) type Fault = Box<dyn Fn(&Path, usize) -> Option<Event> + Send + Sync>;

pub(crate) enum Event {
    /// It can't be opened.
    Fails(io::ErrorKind),
    /// Its metadata after the read differs from that before.
    ChangesWhileRead,
}

/// Counts openings; shared with the synchronizer.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) opened: Mutex<Vec<PathBuf>>,
    /// Nanoseconds that the clock is ahead of the real one.
    pub(crate) ahead_ns: AtomicI64,
    pub(crate) fault: Mutex<Option<Fault>>,
}

pub(crate) struct TestDisk(pub(crate) Arc<Control>);

struct Changing(Box<dyn OpenFile>, u64);

impl OpenFile for Changing {
    fn stat(&mut self) -> io::Result<OpenStat> {
        let mut stat = self.0.stat()?;
        stat.stat.size += self.1;
        self.1 += 1;
        Ok(stat)
    }

    fn read(&mut self, size_hint: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.0.read(size_hint, bytes_max)
    }
}

impl Disk for TestDisk {
    fn now_ns(&self) -> i64 {
        RealDisk.now_ns() + self.0.ahead_ns.load(Ordering::Relaxed)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let n_before = {
            let mut opened = self.0.opened.lock().unwrap();
            let n_before = opened.iter().filter(|known| *known == path).count();
            opened.push(path.to_path_buf());
            n_before
        };
        let fault = self.0.fault.lock().unwrap();
        match fault.as_ref().and_then(|fault| fault(path, n_before)) {
            Some(Event::Fails(kind)) => Err(kind.into()),
            Some(Event::ChangesWhileRead) => Ok(Box::new(Changing(RealDisk.open(path)?, 0))),
            None => RealDisk.open(path),
        }
    }
}

/// A root with a synchronizer on it.
pub(crate) struct Watched {
    pub(crate) fixture: Fixture,
    pub(crate) repository: Arc<Repository>,
    pub(crate) synchronizer: Synchronizer,
    pub(crate) control: Arc<Control>,
}

/// The root is the fixture's directory `top`; files elsewhere in the fixture are outside. The
/// clock is a second ahead, so that what was just written can be trusted.
pub(crate) fn watch(fixture: Fixture, n_threads: usize, limits: Limits) -> Watched {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
    let repository = Arc::new(Repository::new(1));
    let control = Arc::new(Control::default());
    control.ahead_ns.store(1_000_000_000, Ordering::Relaxed);
    let synchronizer =
        Synchronizer::new(Arc::clone(&repository), fixture.path("top"), Arc::new(pool))
            .with_disk(Box::new(TestDisk(Arc::clone(&control))))
            .with_limits(limits);
    Watched { fixture, repository, synchronizer, control }
}

impl Watched {
    pub(crate) fn spec(&self, paths: &[&str]) -> WalkSpec {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        WalkSpec { cwd: self.fixture.path("top"), paths, ..WalkSpec::default() }
    }

    pub(crate) fn refresh(&self, spec: &WalkSpec) -> Result<Scope, RefreshError> {
        self.synchronizer.refresh(spec, true, &|| false, &|_, _| {})
    }

    /// What a query of these paths sees: `path=text` and `path:reason`.
    #[track_caller]
    pub(crate) fn see(&self, paths: &[&str]) -> Vec<String> {
        let scope = self.refresh(&self.spec(paths)).unwrap();
        assert_eq!(scope.pending, 0);
        let seen = scope.files.iter().map(|file| {
            assert_eq!(file.abs, file.record.path);
            format!("{}={}", file.display, file.record.file.text.trim_end())
        });
        let skipped =
            scope.skipped.iter().map(|(path, reason)| format!("{path}:{}", reason.code()));
        seen.chain(skipped).collect()
    }

    /// What the repository holds, parsed and skipped, relative to the fixture.
    pub(crate) fn held(&self) -> Vec<String> {
        let root = self.fixture.root();
        let snapshot = self.repository.snapshot();
        let records = snapshot.records().map(|record| &record.path);
        let paths = records.chain(snapshot.skips().map(|skip| &skip.path));
        let mut held: Vec<String> =
            paths.map(|path| path.strip_prefix(&root).unwrap().display().to_string()).collect();
        held.sort();
        held
    }

    /// Files opened since the last call, relative to the fixture, sorted.
    pub(crate) fn opened(&self) -> Vec<String> {
        let root = self.fixture.root();
        let opened = std::mem::take(&mut *self.control.opened.lock().unwrap());
        let relative = |path: &PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
        let mut opened: Vec<String> = opened.iter().map(relative).collect();
        opened.sort();
        opened
    }

    pub(crate) fn inject(
        &self,
        fault: impl Fn(&Path, usize) -> Option<Event> + Send + Sync + 'static,
    ) {
        *self.control.fault.lock().unwrap() = Some(Box::new(fault));
    }
}
