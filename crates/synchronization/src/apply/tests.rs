//! The law: whatever happens to a tree, an answer from what is stored is that of a look at it.

use super::*;
use crate::aged::aged;
use crate::events::{EventSource, Inotify, RawEvent, RawKind, WatchId};
use crate::read::{Disk, OpenFile, RealDisk};
use crate::unprivileged::{Reopened, reopen, unprivileged};
use astscope_repository::Repository;
use rustix::fd::BorrowedFd;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Steele, Lea and Flood's `SplitMix64` (2014): a seed is a sequence.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % n as u64).unwrap()
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// What things happen to.
const FILES: [&str; 14] = [
    "a.json",
    "b.json",
    "src/b.json",
    "src/c.json",
    "src/deep/c.json",
    "src/deep/e.rs",
    "lib/d.json",
    "lib/.hidden.json",
    "lib/script",
    "out/o.json",
    "new/n.json",
    "new/deep/m.json",
    ".dot/x.json",
    "README",
];

/// What goes wrong with events.
#[derive(Debug, Default)]
struct Faults {
    full: AtomicBool,
    overflowing: AtomicBool,
    mute: AtomicBool,
    broken: AtomicBool,
}

/// The kernel's events, with faults.
#[derive(Debug)]
struct Faulty {
    source: Inotify,
    faults: Arc<Faults>,
}

impl EventSource for Faulty {
    fn watch(&self, directory: &Path) -> io::Result<WatchId> {
        if self.faults.full.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        self.source.watch(directory)
    }

    fn unwatch(&self, watch: WatchId) {
        self.source.unwatch(watch);
    }

    fn read(&self, events: &mut Vec<RawEvent>) -> io::Result<()> {
        if self.faults.broken.load(Ordering::Relaxed) {
            return Err(rustix::io::Errno::IO.into());
        }
        let n_before = events.len();
        self.source.read(events)?;
        if self.faults.mute.load(Ordering::Relaxed) {
            events.truncate(n_before);
        }
        if self.faults.overflowing.swap(false, Ordering::Relaxed) {
            // The kernel drops what is newest, and puts the notice in its place. What was read
            // after that is whole again.
            let of_cookie = events.iter().rposition(|event| event.kind == RawKind::Appeared);
            let cookie = of_cookie.map(|at| events[at].clone());
            events.truncate(n_before);
            let (watch, kind) = (WatchId(-1), RawKind::Overflow);
            events.push(RawEvent { watch, kind, name: None, is_dir: false });
            events.extend(cookie);
        }
        Ok(())
    }

    fn readable(&self) -> BorrowedFd<'_> {
        self.source.readable()
    }
}

/// The real disk, with a clock that can be set back.
#[derive(Clone, Debug, Default)]
struct Clocked {
    back_secs: Arc<AtomicI64>,
    n_opens: Arc<AtomicU64>,
}

impl Disk for Clocked {
    fn now_ns(&self) -> i64 {
        RealDisk.now_ns() - self.back_secs.load(Ordering::Relaxed) * 1_000_000_000
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        self.n_opens.fetch_add(1, Ordering::Relaxed);
        RealDisk.open(path)
    }
}

/// A root under watch, its parent for what is moved out, and the answers beside it.
struct World {
    engine: Synchronizer,
    beside: Synchronizer,
    faults: Arc<Faults>,
    disk: Clocked,
    pool: Arc<ThreadPool>,
    root: PathBuf,
    // Before what it lies in is removed.
    _reopened: Reopened,
    above: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(|engine| engine)
    }

    fn with(adjust: impl FnOnce(Synchronizer) -> Synchronizer) -> Self {
        let above = tempfile::tempdir().unwrap();
        let root = above.path().canonicalize().unwrap().join("root");
        for dir in ["src/deep", "lib", "out", ".git/info", "aside"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["a.json", "src/b.json", "src/deep/c.json", "lib/d.json"] {
            fs::write(root.join(file), "1\n").unwrap();
        }
        fs::create_dir(root.parent().unwrap().join("elsewhere")).unwrap();
        aged(&root);
        let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
        let repository = Arc::new(Repository::new(1));
        let disk = Clocked::default();
        let engine = Synchronizer::new(repository, root.clone(), Arc::clone(&pool))
            .with_disk(Box::new(disk.clone()));
        let engine = adjust(engine);
        let beside = Synchronizer::one_shot(Arc::clone(&pool));
        let world = Self {
            engine,
            beside,
            faults: Arc::default(),
            disk,
            pool,
            root,
            _reopened: Reopened(above.path().to_path_buf()),
            above,
        };
        world.listen();
        world.reconcile();
        world
    }

    fn listen(&self) {
        let source = Faulty { source: Inotify::open().unwrap(), faults: Arc::clone(&self.faults) };
        let cookies = self.above.path().join("cookies");
        self.engine.listen(Box::new(source), &cookies).unwrap();
    }

    fn reconcile(&self) -> Reconciled {
        self.engine.reconcile(&self.pool, &|| false, &|_, _| {}).unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root.join(file), text).unwrap();
    }

    fn spec(&self, paths: &[&str], languages: Option<Vec<Language>>) -> WalkSpec {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        WalkSpec { cwd: self.root.clone(), paths, languages, ..WalkSpec::default() }
    }

    /// What both say, which must be the same.
    #[track_caller]
    fn check(&self, spec: &WalkSpec, when: &str) {
        let see = |engine: &Synchronizer| {
            let scope = engine.refresh(spec, true, &|| false, &|_, _| {}).unwrap();
            assert_eq!(scope.pending, 0);
            let files = scope.files.iter();
            let files = files.map(|it| format!("{}={}", it.display, it.record.file.text));
            let skipped = scope.skipped.iter().map(|(path, why)| format!("{path}:{}", why.code()));
            files.chain(skipped).collect::<Vec<String>>()
        };
        assert_eq!(see(&self.engine), see(&self.beside), "{when}: {:?}", spec.paths);
    }

    #[track_caller]
    fn check_all(&self, when: &str) {
        self.check(&self.spec(&[], None), when);
        self.check(&self.spec(&["src", "lib"], None), when);
        self.check(&self.spec(&["."], Some(vec![Language::Json])), when);
    }

    /// How many refreshes were answered from what is stored, and how many by looking.
    fn answers(&self) -> (u64, u64) {
        let answers = self.engine.answers();
        (answers.proven.load(Ordering::Relaxed), answers.looked.load(Ordering::Relaxed))
    }

    /// One thing that happens to the tree; what, for a message. Most may find nothing to happen to.
    fn happen(&self, random: &mut Random, step: usize) -> String {
        let directories = ["src", "src/deep", "lib", "out", "new", "new/deep", ".dot", "moved"];
        let rules = [".gitignore", "src/.gitignore", "lib/.ignore", ".git/info/exclude"];
        let at = |name: &str| self.root.join(name);
        let (file, other) = (random.of(&FILES), random.of(&FILES));
        let (directory, target) = (random.of(&directories), random.of(&directories));
        let text = format!("{step}\n");
        // Whatever isn't possible now doesn't happen, like `mv` of what isn't there.
        let did = |what: String, done: io::Result<()>| {
            format!("{step}. {what}{}", if done.is_ok() { "" } else { " (in vain)" })
        };
        match random.below(28) {
            5 => {
                let temporary = at(file).with_file_name("4913.json");
                let done =
                    fs::write(&temporary, text).and_then(|()| fs::rename(temporary, at(file)));
                did(format!("save {file}"), done)
            }
            6 => did(format!("mv {file} {other}"), fs::rename(at(file), at(other))),
            7 | 8 => did(format!("rm {file}"), fs::remove_file(at(file))),
            9 => did(format!("mkdir {directory}"), fs::create_dir_all(at(directory))),
            10 => did(format!("mv {directory} {target}"), fs::rename(at(directory), at(target))),
            11 => did(format!("rm -r {directory}"), fs::remove_dir_all(at(directory))),
            12 => {
                let away = self.root.parent().unwrap().join("elsewhere/d");
                let done = if away.exists() {
                    fs::write(away.join("late.json"), text)
                        .and_then(|()| fs::rename(&away, at(directory)))
                } else {
                    fs::rename(at(directory), &away)
                };
                did(format!("mv {directory} across the boundary"), done)
            }
            13 => {
                let rule = random.of(&rules);
                let lines =
                    ["", "*.json\n", "deep/\n", "!b.json\n", "b.json\n", "/lib\n", "!.dot/\n"];
                let line = random.of(&lines);
                did(format!("{rule}: {line:?}"), fs::write(at(rule), line))
            }
            15 => did(format!("rm {}", rules[0]), fs::remove_file(at(rules[0]))),
            16 => {
                let link = at(file);
                let done = fs::remove_file(&link).and_then(|()| symlink(at(other), link));
                did(format!("ln -s {other} {file}"), done)
            }
            17 => {
                let script = at("lib/script");
                let line = random.of(&["#!/usr/bin/env escript\nmain(_) -> ok.\n", "#!/bin/sh\n"]);
                let mode = random.of(&[0o644, 0o755]);
                let done = fs::write(&script, line)
                    .and_then(|()| fs::set_permissions(script, Permissions::from_mode(mode)));
                did(format!("script {mode:o}"), done)
            }
            14 => {
                let done = fs::File::options().write(true).open(at(file)).and_then(|it| {
                    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
                    it.set_len(1).and_then(|()| it.set_modified(long_ago))
                });
                did(format!("truncate {file}, of long ago"), done)
            }
            18 => did(format!("ln {file} {other}"), fs::hard_link(at(file), at(other))),
            24 => {
                let back_secs = random.of(&[0, 0, 0, 3600]);
                self.disk.back_secs.store(back_secs, Ordering::Relaxed);
                did(format!("the clock is {back_secs} s back"), Ok(()))
            }
            25 => {
                let mode = random.of(&[0o000, 0o311, 0o444]);
                let done = fs::set_permissions(at(directory), Permissions::from_mode(mode));
                did(format!("chmod {mode:o} {directory}"), done)
            }
            26 | 27 => {
                reopen(&self.root);
                did("chmod -R 755".to_owned(), Ok(()))
            }
            _ => did(format!("write {file}"), fs::write(at(file), text)),
        }
    }
}

fn race(seed: u64, n_steps: usize) {
    let world = World::new();
    let mut random = Random(seed);
    let mut last = Vec::new();
    for step in 0..n_steps {
        for _ in 0..=random.below(3) {
            last.push(world.happen(&mut random, step));
        }
        match random.below(4) {
            0 => world.engine.catch_up(usize::MAX, &|| false),
            1 => {
                let watches = world.engine.tracker().watches().unwrap();
                watches.drain(world.engine.tracker()).unwrap();
            }
            _ => {}
        }
        let spec = match random.below(9) {
            0 => world.spec(&["src"], None),
            1 => world.spec(&["src", "lib"], Some(vec![Language::Json])),
            2 => world.spec(&["lib"], Some(vec![Language::Erlang])),
            3 => world.spec(&[random.of(&FILES)], None),
            5 => {
                let both = [random.of(&FILES), random.of(&FILES)];
                world.spec(&both, Some(vec![Language::Json]))
            }
            4 => WalkSpec { globs: vec!["*.json".to_owned()], ..world.spec(&[], None) },
            _ => world.spec(&[], None),
        };
        let recent = &last[last.len().saturating_sub(12)..];
        let when = format!("seed {seed}, step {step}, after {recent:#?}");
        world.check(&spec, &when);
        // As the updater does, some time.
        if random.below(3) > 0 && world.engine.tracker().unsteady().is_some() {
            world.reconcile();
        }
        world.check(&spec, &when);
    }
    let (proven, looked) = world.answers();
    assert!(proven * 10 > looked, "{proven} proven, {looked} looked: what is tested isn't used");
}

#[test]
fn whatever_happens_to_a_tree_answers_are_those_of_a_look_at_it() {
    unprivileged(|| {
        for seed in 1..=4 {
            race(seed, 250);
        }
    });
}

#[test]
fn a_tree_that_rests_is_answered_from_memory_and_one_changed_file_is_read() {
    let world = World::new();
    world.check_all("at first");
    let (proven, looked) = world.answers();
    world.check_all("again");
    assert_eq!(world.answers(), (proven + 3, looked));
    world.write("a.json", "2\n");
    world.check_all("after an edit");
    fs::write(world.root.join("x.json"), "3\n").unwrap();
    fs::rename(world.root.join("x.json"), world.root.join("a.json")).unwrap();
    world.check_all("after a save as editors do it");
    assert_eq!(world.answers(), (proven + 9, looked));
    world.write("n.json", "4\n");
    world.check_all("after a file came");
    assert_eq!(world.answers(), (proven + 9, looked + 3), "names have changed");
    world.check_all("after it is known");
    assert_eq!(world.answers(), (proven + 12, looked + 3));
}

#[test]
fn a_single_file_is_answered_from_memory_if_a_walk_of_the_root_finds_it() {
    let world = World::new();
    world.write(".gitignore", "b.json\n");
    world.check_all("after the rules have changed");
    world.reconcile();
    let both = world.spec(&["a.json", "./src/deep/c.json"], Some(vec![Language::Json]));
    let (proven, looked) = world.answers();
    world.check(&both, "at rest");
    world.write("src/deep/c.json", "2\n");
    world.check(&both, "after an edit");
    assert_eq!(world.answers(), (proven + 2, looked));
    world.check(&world.spec(&["src/b.json"], None), "though it is ignored");
    world.check(&world.spec(&["a.json", "gone.json"], None), "one of them isn't there");
    symlink("a.json", world.root.join("link.py")).unwrap();
    world.check(&world.spec(&["link.py"], None), "another language by its name");
    assert_eq!(world.answers(), (proven + 2, looked + 3));
}

#[test]
fn events_that_were_lost_are_made_up_for_by_looking() {
    let world = World::new();
    world.faults.overflowing.store(true, Ordering::Relaxed);
    world.write("a.json", "2\n");
    world.write("n.json", "2\n");
    world.check_all("after the queue was full");
    assert_eq!(world.engine.tracker().unsteady(), Some(Shake::Overflow));
    let looked = world.answers().1;
    assert!(world.reconcile().uncovered.is_none());
    assert_eq!(world.engine.tracker().unsteady(), None);
    world.check_all("after all was looked at");
    world.check_all("and again");
    assert_eq!(world.answers().1, looked + 3);
}

#[test]
fn events_that_never_come_are_noticed_by_the_one_that_must() {
    let world = World::new();
    world.faults.mute.store(true, Ordering::Relaxed);
    world.write("a.json", "2\n");
    world.check_all("while nothing is heard");
    assert!(matches!(world.engine.tracker().unsteady(), Some(Shake::Deaf(_))));
    world.faults.mute.store(false, Ordering::Relaxed);
    world.faults.broken.store(true, Ordering::Relaxed);
    world.write("a.json", "3\n");
    world.check_all("while nothing can be read");
}

#[test]
fn a_limit_on_watches_is_told_and_answers_are_looked_for() {
    let world = World::new();
    world.faults.full.store(true, Ordering::Relaxed);
    fs::create_dir(world.root.join("more")).unwrap();
    world.write("more/n.json", "1\n");
    world.check_all("with a directory that isn't watched");
    let why = world.reconcile().uncovered.unwrap().to_string();
    assert!(why.contains("max_user_watches"), "{why}");
    world.write("more/n.json", "2\n");
    world.check_all("still");
    world.faults.full.store(false, Ordering::Relaxed);
    assert!(world.reconcile().uncovered.is_none());
    world.write("more/n.json", "3\n");
    world.check_all("after it may be watched");
    assert_eq!(world.engine.tracker().unsteady(), None);
}

#[test]
fn a_root_in_another_ones_place_is_another_root() {
    let world = World::new();
    let (root, aside) = (world.root.clone(), world.above.path().join("old"));
    fs::rename(&root, &aside).unwrap();
    fs::create_dir(&root).unwrap();
    world.write("z.json", "9\n");
    world.check_all("in its place");
    assert!(world.engine.tracker().unsteady().is_some());
    fs::remove_dir_all(&root).unwrap();
    fs::rename(&aside, &root).unwrap();
    world.listen();
    world.reconcile();
    world.check_all("after its return");
}

/// Everything between two barriers counts, also for those who share one.
#[test]
fn many_who_ask_at_once_all_see_what_they_have_written() {
    let world = World::new();
    let written = Mutex::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (world, written) = (&world, &written);
            scope.spawn(move || {
                for n in 0..50 {
                    let text = format!("{}\n", thread * 1000 + n);
                    world.write(&format!("lib/t{thread}.json"), &text);
                    let spec = world.spec(&["lib"], None);
                    let scope = world.engine.refresh(&spec, true, &|| false, &|_, _| {}).unwrap();
                    let own = format!("lib/t{thread}.json");
                    let own = scope.files.iter().find(|file| *file.display == *own).unwrap();
                    assert_eq!(*own.record.file.text, *text);
                    *written.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(*written.lock().unwrap(), 200);
}

mod faults;
