//! The scrub against a repository that was lied to, a disk that lies, and people who edit.

use super::*;
use crate::read::{OpenFile, OpenStat};
use crate::{Disk, RealDisk};
use DriftCause::{Content, Ghost, Missing, Tree};
use astscope_fixtures::Fixture;
use astscope_parsing::{Limits, parse};
use astscope_repository::{Depth, Repository, Transaction};
use proptest::prelude::*;
use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Gives other bytes for some files than they have, under the metadata that they have.
#[derive(Clone, Default)]
struct Liar {
    lies: Arc<Mutex<HashMap<PathBuf, Vec<u8>>>>,
    /// Its clock is a second ahead, so that what was just written can be trusted.
    is_ahead: Arc<AtomicBool>,
}

struct Lie(Box<dyn OpenFile>, Vec<u8>);

impl OpenFile for Lie {
    fn stat(&mut self) -> io::Result<OpenStat> {
        self.0.stat()
    }

    fn read(&mut self, _: u64, _: u64) -> io::Result<Vec<u8>> {
        Ok(self.1.clone())
    }
}

impl Disk for Liar {
    fn now_ns(&self) -> i64 {
        RealDisk.now_ns() + i64::from(self.is_ahead.load(Ordering::Relaxed)) * 1_000_000_000
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let file = RealDisk.open(path)?;
        let lie = self.lies.lock().unwrap().get(path).cloned();
        Ok(lie.map_or(file, |lie| Box::new(Lie(RealDisk.open(path).unwrap(), lie))))
    }
}

const FILES: &str = "
//- /a.rs
fn a() {}
//- /copy.rs
fn a() {}
//- /b/c.json
[1]
//- /empty.rs
//- /ignored.json
[2]
";

struct Bench {
    fixture: Fixture,
    repository: Arc<Repository>,
    engine: Synchronizer,
    liar: Liar,
}

/// What a cycle came to.
#[derive(Debug, Default, PartialEq)]
struct Found {
    n_sound: usize,
    n_open: usize,
    drifts: Vec<(String, DriftCause)>,
}

impl Bench {
    /// Indexed, on a clock that is ahead. `ignored.json` isn't in it.
    fn new() -> Self {
        let fixture = Fixture::parse(FILES);
        fixture.write(".ignore", "ignored.json\n");
        fixture.write("latin.json", [b'"', 0xe4, b'"']);
        let bench = Self::on(fixture);
        bench.liar.is_ahead.store(true, Ordering::Relaxed);
        assert_eq!(bench.settle(), Settled::Looked);
        bench
    }

    /// Nothing is stored yet.
    fn on(fixture: Fixture) -> Self {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let (repository, liar) = (Arc::new(Repository::new(1)), Liar::default());
        let engine = Synchronizer::new(Arc::clone(&repository), fixture.root(), Arc::new(pool))
            .with_disk(Box::new(liar.clone()));
        Self { fixture, repository, engine, liar }
    }

    fn settle(&self) -> Settled {
        self.engine.settle_by_looking(&|| false)
    }

    fn shown(&self, drifts: &[Drift]) -> Vec<(String, DriftCause)> {
        let root = self.fixture.root();
        let relative = |path: &Path| path.strip_prefix(&root).unwrap().display().to_string();
        let mut shown: Vec<_> =
            drifts.iter().map(|drift| (relative(&drift.path), drift.cause)).collect();
        shown.sort();
        shown
    }

    /// A whole cycle.
    fn cycle(&self) -> Found {
        let settle = || self.settle();
        let Survey { targets, mut drifts } = self.engine.survey(&settle, &|| false).unwrap();
        let (mut n_sound, mut n_open) = (0, 0);
        for target in targets {
            match self.engine.check(&target, &settle, &|| false) {
                Verdict::Sound => n_sound += 1,
                Verdict::Open => n_open += 1,
                Verdict::Drifted(found) => drifts.extend(found),
            }
        }
        Found { n_sound, n_open, drifts: self.shown(&drifts) }
    }

    fn target(&self, path: &str) -> Target {
        let path: Arc<Path> = self.fixture.path(path).into();
        let language = Language::from_path(&path).unwrap();
        Target { path, language }
    }

    /// One check.
    fn check(&self, path: &str, settle: Settle<'_>) -> Verdict {
        self.engine.check(&self.target(path), settle, &|| false)
    }

    fn record(&self, path: &str) -> Arc<FileRecord> {
        let path = self.fixture.path(path);
        let snapshot = self.repository.snapshot();
        Arc::clone(snapshot.record(&path, Language::from_path(&path).unwrap()).unwrap())
    }

    /// Changes what is stored, behind everybody's back.
    fn damage(&self, how: impl FnOnce(&mut Transaction<'_>)) {
        let mut transaction = self.repository.begin();
        how(&mut transaction);
        transaction.commit();
    }

    /// Gives a record another tree, as memory that was overwritten would.
    fn damage_tree(&self, path: &str) {
        let FileRecord { path, stamp, content, file, language, .. } = &*self.record(path);
        let other = parse("!".into(), *language, &Limits::DAEMON, &mut || false).unwrap();
        let file = Arc::new(ParsedFile { text: Arc::clone(&file.text), ..other });
        let (path, stamp, content) = (Arc::clone(path), *stamp, *content);
        self.damage(|to| drop(to.put(NewFile { path, stamp, content, file })));
    }

    fn lie(&self, path: &str, bytes: &str) {
        self.liar.lies.lock().unwrap().insert(self.fixture.path(path), bytes.into());
    }
}

fn nothing(n_sound: usize) -> Found {
    Found { n_sound, ..Found::default() }
}

fn found(n_sound: usize, drifts: &[(&str, DriftCause)]) -> Found {
    let drifts = drifts.iter().map(|(path, cause)| ((*path).to_owned(), *cause)).collect();
    Found { n_sound, n_open: 0, drifts }
}

#[test]
fn what_was_just_read_is_sound_with_and_without_a_tree() {
    let bench = Bench::new();
    let before = bench.repository.snapshot().revision();
    assert_eq!(bench.cycle(), nothing(5));
    assert_eq!(bench.repository.snapshot().revision(), before, "and nothing is written");
}

#[test]
fn a_file_that_is_kept_because_it_cannot_be_read_is_no_drift() {
    let bench = Bench::new();
    let settle = || bench.settle();
    bench.lie("a.rs", "fn z() {}");
    let path: Arc<Path> = bench.fixture.path("a.rs").into();
    bench.damage(|to| to.keep(&path, FileStamp::default(), SkipReason::Unstable));
    assert_eq!(bench.check("a.rs", &settle), Verdict::Open);
    bench.damage(|to| drop(to.touch(&bench.record("a.rs"), bench.record("a.rs").stamp)));
    assert!(matches!(bench.check("a.rs", &settle), Verdict::Drifted(_)), "but for the mark");
}

#[test]
fn a_damaged_tree_is_found_and_repaired_with_all_that_share_it() {
    let bench = Bench::new();
    let sound = bench.record("a.rs").file.tree.tree.n_nodes();
    bench.damage_tree("a.rs");
    // The copy is read later, and given the tree that is known.
    bench.fixture.write("later.rs", "fn a() {}\n");
    assert_eq!(bench.settle(), Settled::Looked);
    assert_ne!(bench.record("later.rs").file.tree.tree.n_nodes(), sound);

    assert_eq!(bench.cycle(), found(5, &[("a.rs", Tree), ("later.rs", Tree)]));
    let file = Arc::clone(&bench.record("a.rs").file);
    assert_eq!(file.tree.tree.n_nodes(), sound);
    for path in ["copy.rs", "later.rs"] {
        assert!(Arc::ptr_eq(&bench.record(path).file, &file), "{path}");
    }
    assert_eq!(bench.repository.verify(Depth::Whole, &mut || false).faults, []);
    assert_eq!(bench.cycle(), nothing(6));
    bench.fixture.write("last.rs", "fn a() {}\n");
    assert_eq!(bench.cycle(), nothing(7), "whoever comes later is given the sound one");
}

#[test]
fn a_damaged_tree_is_found_also_where_queries_would_read_the_file_again() {
    let bench = Bench::new();
    let FileRecord { path, content, file, .. } = &*bench.record("b/c.json");
    let (path, content, file) = (Arc::clone(path), *content, Arc::clone(file));
    let stamp = FileStamp::default();
    bench.damage(|to| drop(to.put(NewFile { path, stamp, content, file })));
    bench.damage_tree("b/c.json");
    assert!(matches!(bench.check("b/c.json", &|| Settled::Looked), Verdict::Drifted(_)));
    assert_eq!(bench.cycle(), nothing(5));
}

#[test]
fn a_damaged_text_is_a_damaged_tree() {
    let bench = Bench::new();
    let FileRecord { path, stamp, content, .. } = &*bench.record("b/c.json");
    let file = parse("[9]\n".into(), Language::Json, &Limits::DAEMON, &mut || false).unwrap();
    let (path, stamp, content, file) = (Arc::clone(path), *stamp, *content, Arc::new(file));
    bench.damage(|to| drop(to.put(NewFile { path, stamp, content, file })));
    assert_eq!(bench.cycle(), found(4, &[("b/c.json", Tree)]));
    assert_eq!(&*bench.record("b/c.json").file.text, "[1]\n");
}

#[test]
fn bytes_that_changed_without_a_sign_are_found() {
    let bench = Bench::new();
    for (path, bytes) in [("a.rs", "fn b() {}\n"), ("empty.rs", "fn b() {}\n"), ("latin.json", "")]
    {
        bench.lie(path, bytes);
    }
    let drifts = [("a.rs", Content), ("empty.rs", Content), ("latin.json", Content)];
    assert_eq!(bench.cycle(), found(2, &drifts));
    assert_eq!(&*bench.record("a.rs").file.text, "fn b() {}\n");
    assert_eq!(&*bench.record("copy.rs").file.text, "fn a() {}\n");
    let path = bench.fixture.path("latin.json");
    assert_eq!(bench.repository.snapshot().skip(&path).unwrap().reason, SkipReason::Empty);
    assert_eq!(bench.cycle(), nothing(5));
}

#[test]
fn a_file_that_was_not_stored_is_found() {
    let bench = Bench::new();
    // A crawl would store it: nobody looks, as if an event had been lost.
    bench.damage(|to| to.remove(&bench.fixture.path("b/c.json")));
    let survey = bench.engine.survey(&|| Settled::Applied, &|| false).unwrap();
    assert_eq!(bench.shown(&survey.drifts), [("b/c.json".to_owned(), Missing)]);
    assert_eq!(survey.targets.len(), 5);
    assert_eq!(bench.cycle(), nothing(5));
}

#[test]
fn a_file_that_is_gone_ignored_or_was_never_there_is_found() {
    let bench = Bench::new();
    let record = bench.record("b/c.json");
    for name in ["ghost.json", "ignored.json"] {
        let path = bench.fixture.path(name).into();
        let FileRecord { stamp, content, ref file, .. } = *record;
        let new = NewFile { path, stamp, content, file: Arc::clone(file) };
        bench.damage(|to| drop(to.put(new)));
    }
    std::fs::remove_file(bench.fixture.path("empty.rs")).unwrap();
    let survey = bench.engine.survey(&|| Settled::Applied, &|| false).unwrap();
    let ghosts = ["empty.rs", "ghost.json", "ignored.json"].map(|it| (it.to_owned(), Ghost));
    assert_eq!(bench.shown(&survey.drifts), ghosts);
    assert_eq!(bench.cycle(), nothing(4));
}

#[test]
fn below_a_directory_that_cannot_be_listed_nothing_is_a_ghost() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let dir = bench.fixture.path("b");
    let may = |mode| std::fs::set_permissions(&dir, PermissionsExt::from_mode(mode)).unwrap();
    may(0o000);
    // Root may read everything.
    let is_hidden = std::fs::read_dir(&dir).is_err();
    let survey = bench.engine.survey(&|| Settled::Applied, &|| false);
    may(0o755);
    assert_eq!(survey.unwrap().drifts, []);
    assert!(is_hidden || bench.cycle() == nothing(5));
}

#[test]
fn without_the_root_nothing_is_judged() {
    let bench = Bench::new();
    let (root, aside) = (bench.fixture.root(), tempfile::TempDir::new().unwrap());
    let away = aside.path().join("away");
    let target = bench.target("a.rs");
    std::fs::rename(&root, &away).unwrap();
    assert!(bench.engine.survey(&|| Settled::Applied, &|| false).is_none());
    let verdict = bench.engine.check(&target, &|| Settled::Applied, &|| false);
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(verdict, Verdict::Open);
    assert_eq!(bench.cycle(), nothing(5));
}

#[test]
fn news_is_no_drift() {
    let bench = Bench::new();
    bench.fixture.write("a.rs", "fn edited() {}\n");
    bench.fixture.write("new.rs", "fn new() {}\n");
    std::fs::remove_file(bench.fixture.path("b/c.json")).unwrap();
    assert_eq!(bench.cycle(), nothing(5));
    // Only queries know, for nobody has looked since.
    bench.fixture.write("a.rs", "fn again() {}\n");
    assert_eq!(bench.check("a.rs", &|| Settled::Looked), Verdict::Open);
    assert_eq!(&*bench.record("a.rs").file.text, "fn edited() {}\n");
    std::fs::remove_file(bench.fixture.path("new.rs")).unwrap();
    assert_eq!(bench.check("new.rs", &|| Settled::Looked), Verdict::Open);
}

#[test]
fn where_queries_believe_what_is_stored_an_edit_that_nobody_told_of_is_drift() {
    let bench = Bench::new();
    bench.fixture.write("a.rs", "fn edited() {}\n");
    assert_eq!(bench.check("a.rs", &|| Settled::Unknown), Verdict::Open, "nobody can tell");
    let Verdict::Drifted(drifts) = bench.check("a.rs", &|| Settled::Applied) else { panic!() };
    assert_eq!(bench.shown(&drifts), [("a.rs".to_owned(), Content)]);
    assert_eq!(&*bench.record("a.rs").file.text, "fn edited() {}\n");
}

#[test]
fn a_file_that_changes_while_it_is_waited_for_is_not_judged() {
    let bench = Bench::new();
    bench.fixture.write("a.rs", "fn edited() {}\n");
    let settle = || {
        bench.fixture.write("a.rs", "fn again() {}\n");
        Settled::Applied
    };
    assert_eq!(bench.check("a.rs", &settle), Verdict::Open);
    assert_eq!(&*bench.record("a.rs").file.text, "fn a() {}\n");
}

#[test]
fn a_file_that_somebody_is_reading_is_left_to_him() {
    let bench = Bench::new();
    bench.damage_tree("a.rs");
    let claim = bench.engine.claims.claim(&bench.record("a.rs").path, Language::Rust);
    assert_eq!(bench.check("a.rs", &|| Settled::Applied), Verdict::Open);
    drop(claim);
    assert!(matches!(bench.check("a.rs", &|| Settled::Applied), Verdict::Drifted(_)));
}

#[test]
fn what_cannot_be_stored_is_found_again_and_counted_once() {
    #[derive(Debug)]
    struct Stubborn(Arc<Repository>, AtomicBool);
    impl crate::Committer for Arc<Stubborn> {
        fn commit(
            &self,
            batch: astscope_repository::Batch,
        ) -> Result<astscope_repository::Committed, String> {
            if self.1.load(Ordering::Relaxed) {
                return Err("not now".to_owned());
            }
            Ok(crate::commit::apply(&self.0, batch))
        }
    }
    let bench = Bench::new();
    let stubborn = Arc::new(Stubborn(Arc::clone(&bench.repository), AtomicBool::new(true)));
    let engine = bench.engine.with_committer(Arc::new(Arc::clone(&stubborn)));
    let bench = Bench { engine, ..bench };
    bench.damage_tree("b/c.json");
    assert_eq!(bench.check("b/c.json", &|| Settled::Looked), Verdict::Open);
    stubborn.1.store(false, Ordering::Relaxed);
    assert_eq!(bench.cycle(), found(4, &[("b/c.json", Tree)]));
}

#[test]
fn a_stop_ends_a_check_without_a_verdict() {
    let bench = Bench::new();
    bench.damage_tree("a.rs");
    assert!(bench.engine.survey(&|| Settled::Applied, &|| true).is_none());
    let target = bench.target("a.rs");
    assert_eq!(bench.engine.check(&target, &|| Settled::Applied, &|| true), Verdict::Open);
}

/// Where a file is, and what somebody writes to it; `None` removes it.
type Edit = (u8, Option<u8>);

fn edits(n: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((0..12_u8, prop::option::weighted(0.8, any::<u8>())), n)
}

fn apply_edit(fixture: &Fixture, (at, text): Edit) {
    let extension = ["json", "rs", "toml", "md"][usize::from(at % 4)];
    let path = format!("{}/{at}.{extension}", at % 3);
    match text {
        // Often the same as another file's, and as before.
        Some(text) => fixture.write(path, "x = 1 # [\n".repeat(usize::from(text % 5))),
        None => drop(std::fs::remove_file(fixture.path(path))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// On the real clock, by which what was just written can't be trusted.
    #[test]
    fn without_faults_there_is_no_drift_also_while_files_are_edited(
        before in edits(0..30),
        meanwhile in edits(1..200),
    ) {
        let fixture = Fixture::empty();
        for edit in before {
            apply_edit(&fixture, edit);
        }
        let bench = Bench::on(fixture);
        bench.settle();
        let is_done = AtomicBool::new(false);
        let drifts = std::thread::scope(|scope| {
            scope.spawn(|| {
                for edit in &meanwhile {
                    apply_edit(&bench.fixture, *edit);
                }
                is_done.store(true, Ordering::Relaxed);
            });
            let mut drifts = bench.cycle().drifts;
            while !is_done.load(Ordering::Relaxed) {
                drifts.extend(bench.cycle().drifts);
            }
            drifts
        });
        prop_assert_eq!(drifts, Vec::new());
        // Now whatever is there can be judged.
        bench.liar.is_ahead.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let quiet = bench.cycle();
            prop_assert_eq!((quiet.n_open, quiet.drifts), (0, Vec::new()));
        }
    }
}
