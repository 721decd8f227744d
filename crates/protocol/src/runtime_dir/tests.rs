//! The real file system where it can show the case, a fake one where it can't.

use super::*;
use expect_test::expect;
use std::cell::RefCell;
use std::os::unix::fs::symlink;

fn locate(variables: &[(&str, &str)]) -> Result<RuntimeDir, RuntimeDirError> {
    RuntimeDir::locate(&|name| {
        let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
        Some(OsString::from(value))
    })
}

fn dir_in(parent: &tempfile::TempDir) -> RuntimeDir {
    RuntimeDir { path: parent.path().join("a/astscope") }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}

/// Answers as a test says, and writes down what it was asked.
struct Fake {
    found: RefCell<Vec<io::Result<Found>>>,
    create: fn() -> io::Result<()>,
    asked: RefCell<Vec<&'static str>>,
}

impl Fake {
    fn new(found: Vec<io::Result<Found>>) -> Self {
        Self { found: RefCell::new(found), create: || Ok(()), asked: RefCell::default() }
    }

    fn prepare(&self) -> Result<(), RuntimeDirError> {
        RuntimeDir { path: PathBuf::from("/run/x") }.prepare_with(self)
    }
}

impl DirectoryOps for Fake {
    fn inspect(&self, _: &Path) -> io::Result<Found> {
        self.asked.borrow_mut().push("inspect");
        self.found.borrow_mut().remove(0)
    }

    fn create(&self, _: &Path) -> io::Result<()> {
        self.asked.borrow_mut().push("create");
        (self.create)()
    }

    fn make_private(&self, _: &Path) -> io::Result<()> {
        self.asked.borrow_mut().push("make private");
        Ok(())
    }

    fn uid(&self) -> u32 {
        1000
    }
}

fn directory(owner: u32, mode: u32) -> Found {
    Found { not_a_directory: None, owner, mode }
}

#[test]
fn the_first_variable_that_is_set_decides() {
    let own = ("ASTSCOPE_RUNTIME_DIR", "/own");
    let xdg = ("XDG_RUNTIME_DIR", "/run/user/7");
    let fallback = PathBuf::from(format!("/tmp/astscope-{}", rustix::process::geteuid().as_raw()));
    assert_eq!(locate(&[own, xdg]).unwrap().path(), "/own");
    assert_eq!(locate(&[xdg]).unwrap().path(), "/run/user/7/astscope");
    assert_eq!(locate(&[]).unwrap().path(), fallback);
    assert_eq!(
        locate(&[("ASTSCOPE_RUNTIME_DIR", ""), xdg]).unwrap().path(),
        "/run/user/7/astscope"
    );
    assert_eq!(locate(&[("XDG_RUNTIME_DIR", "run")]).unwrap().path(), fallback);
}

#[test]
fn the_files_have_fixed_names() {
    let dir = locate(&[("ASTSCOPE_RUNTIME_DIR", "/own")]).unwrap();
    assert_eq!(dir.socket(), Path::new("/own/daemon.sock"));
    assert_eq!(dir.lock(), Path::new("/own/daemon.lock"));
    assert_eq!(dir.log(), Path::new("/own/daemon.log"));
}

#[test]
fn a_relative_directory_is_refused() {
    let error = locate(&[("ASTSCOPE_RUNTIME_DIR", "here")]).unwrap_err();
    assert!(matches!(error, RuntimeDirError::NotAbsolute { .. }));
    expect!["ASTSCOPE_RUNTIME_DIR must be an absolute path, it is `here`"]
        .assert_eq(&error.to_string());
}

#[test]
fn a_socket_path_may_have_107_bytes_and_no_more() {
    let fits = format!("/{}", "d".repeat(107 - "/".len() - "/daemon.sock".len()));
    assert_eq!(locate(&[("ASTSCOPE_RUNTIME_DIR", &fits)]).unwrap().path(), Path::new(&fits));

    let error = locate(&[("ASTSCOPE_RUNTIME_DIR", &format!("{fits}d"))]).unwrap_err();
    assert!(matches!(error, RuntimeDirError::SocketPathTooLong { bytes: 108, .. }));
    let message = error.to_string();
    assert!(message.contains("is 108 bytes long, at most 107 fit: set ASTSCOPE_RUNTIME_DIR"));
}

#[test]
fn a_missing_directory_is_made_for_us_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = dir_in(&parent);
    dir.prepare().unwrap();
    assert_eq!(mode(dir.path()), 0o700);
    dir.prepare().unwrap();
}

#[test]
fn permissions_of_others_are_taken_away() {
    let parent = tempfile::tempdir().unwrap();
    let dir = dir_in(&parent);
    dir.prepare().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir.prepare().unwrap();
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn a_symbolic_link_is_not_followed() {
    let parent = tempfile::tempdir().unwrap();
    std::fs::create_dir(parent.path().join("elsewhere")).unwrap();
    let dir = RuntimeDir { path: parent.path().join("link") };
    symlink(parent.path().join("elsewhere"), dir.path()).unwrap();
    let error = dir.prepare().unwrap_err();
    assert!(
        matches!(error, RuntimeDirError::NotADirectory { found: "a symbolic link", .. }),
        "{error}"
    );
}

#[test]
fn a_file_is_no_directory() {
    let parent = tempfile::tempdir().unwrap();
    let dir = RuntimeDir { path: parent.path().join("file") };
    std::fs::write(dir.path(), "").unwrap();
    let error = dir.prepare().unwrap_err();
    assert!(matches!(error, RuntimeDirError::NotADirectory { found: "a file", .. }), "{error}");
}

#[test]
fn the_directory_of_another_user_is_refused_and_left_alone() {
    let fake = Fake::new(vec![Ok(directory(0, 0o777))]);
    expect!["runtime directory `/run/x` belongs to user 0, not to user 1000: set ASTSCOPE_RUNTIME_DIR to a directory of your own"]
        .assert_eq(&fake.prepare().unwrap_err().to_string());
    assert_eq!(*fake.asked.borrow(), ["inspect"]);
}

#[test]
fn whoever_was_faster_is_found_out() {
    let fake = Fake::new(vec![Err(io::ErrorKind::NotFound.into()), Ok(directory(1001, 0o700))]);
    let error = fake.prepare().unwrap_err();
    assert!(matches!(error, RuntimeDirError::OwnedByOther { owner: 1001, uid: 1000, .. }));
    assert_eq!(*fake.asked.borrow(), ["inspect", "create", "inspect"]);
}

#[test]
fn a_full_disk_is_reported_with_its_cause() {
    let mut fake = Fake::new(vec![Err(io::ErrorKind::NotFound.into())]);
    fake.create = || Err(rustix::io::Errno::NOSPC.into());
    let error = fake.prepare().unwrap_err();
    expect!["can't create runtime directory `/run/x`"].assert_eq(&error.to_string());
    let RuntimeDirError::CannotCreate { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_file_system_that_ignores_the_mode_is_refused() {
    let fake = Fake::new(vec![Ok(directory(1000, 0o777)), Ok(directory(1000, 0o777))]);
    let error = fake.prepare().unwrap_err();
    expect!["runtime directory `/run/x` is open to other users (mode 777)"]
        .assert_eq(&error.to_string());
    assert_eq!(*fake.asked.borrow(), ["inspect", "make private", "inspect"]);
}

#[test]
fn a_directory_that_cannot_be_inspected_is_reported() {
    let fake = Fake::new(vec![Err(io::ErrorKind::PermissionDenied.into())]);
    let error = fake.prepare().unwrap_err();
    assert!(matches!(error, RuntimeDirError::CannotInspect { .. }), "{error}");
}
