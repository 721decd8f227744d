//! Where the daemon's log goes: JSON lines to a file in the user's state directory, for whoever
//! looks for a request by its name, and text to standard error, for whoever watches.
//!
//! The file is what is kept. Standard error has what is worth an interruption, unless more is asked
//! for or there is no file.

mod rotating;

use rotating::RotatingFile;
use std::ffi::OsString;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

/// What is logged, in `tracing`'s filter syntax.
const LOG_VARIABLE: &str = "ASTSCOPE_LOG";
/// Overrides the place of the state directory.
const STATE_DIR_VARIABLE: &str = "ASTSCOPE_STATE_DIR";

/// What is logged if nobody says.
pub(crate) const DEFAULT_FILTER: &str = "info";
/// What standard error gets of it where a file has all.
const WORTH_AN_INTERRUPTION: &str = "warn";

/// Bytes of one file. With [`N_FILES_MAX`] it bounds what the log takes.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files in all: the newest, and those that it was before.
const N_FILES_MAX: usize = 5;

/// Why there is no log file.
#[derive(Debug, thiserror::Error)]
enum LogFileError {
    /// Neither a variable nor a home directory says where.
    #[error("no state directory: set {STATE_DIR_VARIABLE} or HOME")]
    Nowhere,
    /// The variable holds a relative path, which would mean another place in each directory.
    #[error("{STATE_DIR_VARIABLE} must be an absolute path, it is `{}`", .0.display())]
    NotAbsolute(PathBuf),
    /// Another user would read what somebody works on.
    #[error("state directory `{}` belongs to user {owner}, not to user {uid}", .path.display())]
    OwnedByOther { path: PathBuf, owner: u32, uid: u32 },
    /// The system refuses it: a full or read-only file system, no permission.
    #[error("can't write to state directory `{}`", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Makes a filter hold in one of the places that the log goes to.
type SetFilter = Box<dyn Fn(&str) + Send + Sync>;

/// The log once it has started: its filter may change.
pub(crate) struct Log {
    /// What the environment asked for.
    asked: Option<String>,
    /// Nobody watches or shortens standard error.
    spawned: bool,
    file: Option<SetFilter>,
    stderr: SetFilter,
}

impl Log {
    /// What the environment asked for.
    pub(crate) fn asked(&self) -> Option<&str> {
        self.asked.as_deref()
    }

    /// Logs this from now on; `None` for what is logged if nobody says.
    pub(crate) fn set(&self, filter: Option<&str>) {
        if let Some(file) = &self.file {
            file(filter.unwrap_or(DEFAULT_FILTER));
        }
        (self.stderr)(stderr_filter(filter, self.file.is_some(), self.spawned));
    }
}

/// Says what is wrong with a filter.
pub(crate) fn check(text: &str) -> Result<(), String> {
    EnvFilter::try_new(text).map(drop).map_err(|error| error.to_string())
}

/// Starts to log. `spawned` if standard error is a file that nobody watches or shortens.
///
/// Returns the state directory, if it can be used.
pub(crate) fn start(spawned: bool) -> (Option<PathBuf>, Log) {
    let env = |name: &str| std::env::var_os(name);
    let asked = std::env::var(LOG_VARIABLE).ok();
    let opened = state_dir(&env)
        .and_then(|dir| open(&dir, FILE_BYTES_MAX, N_FILES_MAX).map(|file| (dir, file)));
    let (dir, file, missing) = match opened {
        Ok((dir, file)) => (Some(dir), Some(file), None),
        Err(error) => (None, None, Some(error)),
    };
    let (stderr_filter, set_stderr) =
        reloadable(stderr_filter(asked.as_deref(), file.is_some(), spawned));
    let to_stderr =
        fmt::layer().with_ansi(false).with_writer(io::stderr).with_filter(stderr_filter);
    let (to_file, set_file) =
        file.map(|file| to_file(file, asked.as_deref().unwrap_or(DEFAULT_FILTER))).unzip();
    let _already_set = tracing_subscriber::registry().with(to_file).with(to_stderr).try_init();
    if let Some(error) = missing {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(%error, cause, "logging to standard error only");
    }
    (dir, Log { asked, spawned, file: set_file, stderr: set_stderr })
}

/// An object for each event, with the spans around it, outermost first, as `spans`.
fn to_file<S>(file: RotatingFile, asked: &str) -> (impl Layer<S> + use<S>, SetFilter)
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let (filter, set) = reloadable(asked);
    let layer = fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        // A disk that is full must not become a flood on standard error.
        .log_internal_errors(false)
        .with_writer(Mutex::new(file))
        .with_filter(filter);
    (layer, set)
}

/// A filter, and what puts another in its place.
fn reloadable<S: Subscriber>(text: &str) -> (reload::Layer<EnvFilter, S>, SetFilter) {
    let (layer, handle) = reload::Layer::new(filter(text));
    let set = move |text: &str| {
        // Refused only once the log is gone.
        let _gone = handle.reload(filter(text));
    };
    (layer, Box::new(set))
}

fn filter(text: &str) -> EnvFilter {
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER))
}

/// What standard error gets. Of a daemon in the background it lies in the runtime directory, which
/// is memory as a rule, and is shortened only when a daemon starts.
fn stderr_filter(asked: Option<&str>, has_file: bool, spawned: bool) -> &str {
    match (has_file, spawned) {
        (false, _) => asked.unwrap_or(DEFAULT_FILTER),
        (true, true) => WORTH_AN_INTERRUPTION,
        (true, false) => asked.unwrap_or(WORTH_AN_INTERRUPTION),
    }
}

/// Where the state directory is, by the environment: `$ASTSCOPE_STATE_DIR`, else
/// `$XDG_STATE_HOME/astscope`, else `~/.local/state/astscope`. Empty variables count as absent, and
/// so do relative ones of others, as the XDG specification demands.
fn state_dir(env: &dyn Fn(&str) -> Option<OsString>) -> Result<PathBuf, LogFileError> {
    let variable = |name| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name| variable(name).filter(|path: &PathBuf| path.is_absolute());
    match variable(STATE_DIR_VARIABLE) {
        Some(path) if path.is_absolute() => return Ok(path),
        Some(path) => return Err(LogFileError::NotAbsolute(path)),
        None => {}
    }
    let above = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or(LogFileError::Nowhere)?;
    Ok(above.join("astscope"))
}

/// Opens the log, in a directory that is ours and closed to others.
fn open(dir: &Path, bytes_max: u64, n_files_max: usize) -> Result<RotatingFile, LogFileError> {
    let failed = |source| LogFileError::Io { path: dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
    let metadata = dir.metadata().map_err(failed)?;
    let uid = rustix::process::geteuid().as_raw();
    if metadata.uid() != uid {
        let (path, owner) = (dir.to_owned(), metadata.uid());
        return Err(LogFileError::OwnedByOther { path, owner, uid });
    }
    if metadata.mode() & 0o7777 != 0o700 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    RotatingFile::open(dir.join("daemon.log"), bytes_max, n_files_max).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn located(variables: &[(&str, &str)]) -> Result<String, String> {
        let of = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let path = state_dir(&of).map_err(|error| error.to_string())?;
        Ok(path.to_str().unwrap().to_owned())
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o7777
    }

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let [own, xdg, home] =
            [(STATE_DIR_VARIABLE, "/own"), ("XDG_STATE_HOME", "/xdg"), ("HOME", "/me")];
        assert_eq!(located(&[own, xdg, home]).unwrap(), "/own");
        assert_eq!(located(&[xdg, home]).unwrap(), "/xdg/astscope");
        assert_eq!(located(&[home]).unwrap(), "/me/.local/state/astscope");
        assert_eq!(located(&[(STATE_DIR_VARIABLE, ""), xdg]).unwrap(), "/xdg/astscope");
        let relative = ("XDG_STATE_HOME", "xdg");
        assert_eq!(located(&[relative, home]).unwrap(), "/me/.local/state/astscope");
    }

    #[test]
    fn without_a_place_it_is_said_what_to_set() {
        let error = located(&[(STATE_DIR_VARIABLE, "own")]).unwrap_err();
        assert_eq!(error, "ASTSCOPE_STATE_DIR must be an absolute path, it is `own`");
        let error = located(&[]).unwrap_err();
        assert_eq!(error, "no state directory: set ASTSCOPE_STATE_DIR or HOME");
    }

    #[test]
    fn the_directory_and_the_file_are_closed_to_others() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("state/astscope");
        open(&dir, 10, 2).unwrap().write_all(b"a\n").unwrap();
        assert_eq!((mode(&dir), mode(&dir.join("daemon.log"))), (0o700, 0o600));

        std::fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        drop(open(&dir, 10, 2).unwrap());
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_reported_with_its_cause() {
        let above = tempfile::tempdir().unwrap();
        std::fs::write(above.path().join("file"), "").unwrap();
        let error = open(&above.path().join("file/astscope"), 10, 2).unwrap_err();
        assert!(matches!(error, LogFileError::Io { .. }), "{error}");
    }

    #[test]
    fn an_event_is_found_by_the_request_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(dir.path(), FILE_BYTES_MAX, 1).unwrap();
        let subscriber = tracing_subscriber::registry().with(to_file(file, "info").0);
        tracing::subscriber::with_default(subscriber, || {
            let request = tracing::info_span!("request", request = "3-17", method = "run");
            request.in_scope(|| tracing::warn!(files = 3, "slow"));
            tracing::debug!("not asked for");
        });
        let text = std::fs::read_to_string(dir.path().join("daemon.log")).unwrap();
        let entry: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&entry["message"], &entry["files"]), (&"slow".into(), &3.into()));
        assert_eq!(entry["spans"][0]["request"], "3-17");
    }

    #[test]
    fn standard_error_has_what_the_file_lacks_or_what_was_asked_for() {
        for (asked, has_file, spawned, expected) in [
            (None, true, false, "warn"),
            (None, true, true, "warn"),
            (None, false, false, "info"),
            (None, false, true, "info"),
            (Some("debug"), true, false, "debug"),
            (Some("debug"), true, true, "warn"),
            (Some("debug"), false, true, "debug"),
        ] {
            let filter = stderr_filter(asked, has_file, spawned);
            assert_eq!(filter, expected, "{asked:?} {has_file} {spawned}");
        }
    }
}
