//! `config`: the settings that may change while the daemon runs, and who said so.
//!
//! What is given at the start wins over the file, the file over the defaults. The file is read at
//! the start and at each SIGHUP; one that can't be used changes nothing. Settings belong to the
//! handle, and so does the signal: one that comes while the service is restarted is heard by the
//! next.

mod file;

pub(crate) use file::{Problem, in_words};

use crate::tree::STALLED_AFTER;
use astscope_supervision::{ChildSpec, Ctx, Exit};
use astscope_synchronization::service::{ScrubConfig, WatchConfig};
use file::FromFile;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, watch};

/// Far more than all settings take, with comments.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The idle exit of a daemon that nobody told another.
const IDLE_EXIT: IdleExit = IdleExit::After(Duration::from_hours(2));

/// When a daemon leaves that nobody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleExit {
    /// After so long without clients or work.
    After(Duration),
    /// It stays.
    Never,
}

impl IdleExit {
    /// The time, if there is one.
    pub(crate) fn limit(self) -> Option<Duration> {
        match self {
            Self::After(limit) => Some(limit),
            Self::Never => None,
        }
    }
}

impl fmt::Display for IdleExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.limit().map_or_else(|| "never".to_owned(), in_words))
    }
}

/// Where the settings come from that may change while the daemon runs.
#[derive(Debug)]
pub struct SettingsSource {
    /// The idle exit that was given at the start, which wins over the file's.
    pub idle_exit: Option<IdleExit>,
    /// The file; `None` where there is no place for one.
    pub file: Option<PathBuf>,
    /// Whether somebody named that file: then it has to be there and to be right at the start.
    pub is_named: bool,
    /// The log, which belongs to the program.
    pub log: LogFilter,
}

/// Makes a log filter hold.
pub type SetLogFilter = Box<dyn Fn(Option<&str>) + Send + Sync>;

/// How the program's log is filtered, in a syntax that is the program's.
pub struct LogFilter {
    /// The filter that was given at the start, which wins over the file's.
    pub given: Option<String>,
    /// What is logged if nobody says.
    pub default: String,
    /// Says what is wrong with a filter.
    pub check: fn(&str) -> Result<(), String>,
    /// Makes a filter that was checked hold; `None` for the default.
    pub set: SetLogFilter,
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogFilter").field("given", &self.given).finish_non_exhaustive()
    }
}

/// Who said what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Default,
    File,
    /// The command line, or the environment of the daemon.
    Start,
}

/// A setting, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) source: Source,
}

impl<T> Setting<T> {
    fn of(given: Option<T>, in_file: Option<T>, default: T) -> Self {
        match (given, in_file) {
            (Some(value), _) => Self { value, source: Source::Start },
            (None, Some(value)) => Self { value, source: Source::File },
            (None, None) => Self { value: default, source: Source::Default },
        }
    }
}

/// How a disk is watched: the shortest and the longest time for something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WatchBounds<T> {
    pub(crate) min: T,
    pub(crate) max: T,
}

/// What holds at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) log: Setting<String>,
    pub(crate) idle_timeout: Setting<IdleExit>,
    pub(crate) watch: WatchBounds<Setting<Duration>>,
    /// How long it has to be quiet before changes are applied, and how long they wait at most.
    pub(crate) settle: WatchBounds<Setting<Duration>>,
    /// Whether what is stored is checked in the background.
    pub(crate) scrub: Setting<bool>,
    /// Why the file as it was last read isn't used. What it said before holds.
    pub(crate) problem: Option<Problem>,
}

/// The settings, whichever incarnation of the service is up.
#[derive(Clone, Debug)]
pub(crate) struct Config(Arc<Shared>);

/// What outlives the service.
#[derive(Debug)]
struct Shared {
    source: SettingsSource,
    settings: watch::Sender<Settings>,
    watching: watch::Sender<WatchConfig>,
    scrubbing: watch::Sender<ScrubConfig>,
    /// Held by the incarnation that is up.
    hangups: Mutex<Signal>,
}

impl Config {
    /// Reads the file, in a runtime: from here on SIGHUP doesn't end the process. A file that
    /// nobody named may be bad: it is told, and isn't used.
    ///
    /// # Errors
    /// A file that was named and can't be used, or a system that has no signals.
    pub(crate) fn new(source: SettingsSource) -> Result<Self, String> {
        let (in_file, problem) = match read(&source) {
            Ok(in_file) => (in_file, None),
            Err(problem) if source.is_named => return Err(problem.to_string()),
            Err(problem) => (FromFile::default(), Some(problem)),
        };
        let hangups = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
        // As the log is before anybody has read a file.
        let settings = watch::Sender::new(merge(&source, FromFile::default()));
        let watching = watch::Sender::new(WatchConfig::default());
        let scrubbing = watch::Sender::new(ScrubConfig::default());
        let hangups = Mutex::new(hangups);
        let config = Self(Arc::new(Shared { source, settings, watching, scrubbing, hangups }));
        config.apply(in_file);
        if let Some(problem) = problem {
            config.keep(problem);
        }
        Ok(config)
    }

    /// What holds at this moment.
    pub(crate) fn now(&self) -> Settings {
        self.0.settings.borrow().clone()
    }

    /// What holds, and each change of it.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Settings> {
        self.0.settings.subscribe()
    }

    /// How often disks are looked at, and each change of it.
    pub(crate) fn watching(&self) -> watch::Receiver<WatchConfig> {
        self.0.watching.subscribe()
    }

    /// How what is stored is checked, and each change of it.
    pub(crate) fn scrubbing(&self) -> watch::Receiver<ScrubConfig> {
        self.0.scrubbing.subscribe()
    }

    /// Where the file is or would be.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.source.file.as_deref()
    }

    /// Reads the file again at each SIGHUP.
    pub(crate) fn service(&self) -> ChildSpec {
        let config = self.clone();
        ChildSpec::task("config", move |ctx| config.clone().reread_on_hangup(ctx))
            .stall_after(STALLED_AFTER)
    }

    async fn reread_on_hangup(self, ctx: Ctx) -> Result<(), Exit> {
        let mut hangups = self.0.hangups.lock().await;
        loop {
            ctx.idle();
            tokio::select! {
                () = ctx.stopping() => return Ok(()),
                _ = hangups.recv() => {}
            }
            ctx.progress();
            let config = self.clone();
            ctx.blocking(None, move |_| config.reread()).await?;
        }
    }

    fn reread(&self) {
        match read(&self.0.source) {
            Ok(in_file) => self.apply(in_file),
            Err(problem) => self.keep(problem),
        }
    }

    fn apply(&self, in_file: FromFile) {
        let Shared { source, settings, watching, scrubbing, .. } = &*self.0;
        let now = merge(source, in_file);
        let before = settings.send_replace(now.clone());
        let Settings { log, watch, settle, scrub, .. } = &now;
        // What is given at the start is set already, and doesn't change.
        if before.log != *log {
            (source.log.set)((log.source == Source::File).then_some(&log.value));
        }
        watching.send_if_modified(|watching| {
            let now = WatchConfig {
                every_min: watch.min.value,
                every_max: watch.max.value,
                settle: settle.min.value,
                settle_max: settle.max.value,
                ..*watching
            };
            std::mem::replace(watching, now) != now
        });
        scrubbing.send_if_modified(|scrubbing| {
            std::mem::replace(&mut scrubbing.is_on, scrub.value) != scrub.value
        });
        if before != now {
            tracing::info!(
                log = log.value,
                idle_timeout = %now.idle_timeout.value,
                watch.every_min = in_words(watch.min.value),
                watch.every_max = in_words(watch.max.value),
                watch.settle = in_words(settle.min.value),
                watch.settle_max = in_words(settle.max.value),
                scrub = scrub.value,
                "settings changed",
            );
        }
    }

    fn keep(&self, problem: Problem) {
        let file = self.file().unwrap_or(Path::new("")).display();
        tracing::error!(%file, %problem, "the settings file isn't used, the settings stay as they are");
        self.0.settings.send_modify(|settings| settings.problem = Some(problem));
    }
}

fn merge(source: &SettingsSource, in_file: FromFile) -> Settings {
    let FromFile { log, idle_timeout, watch, settle, scrub } = in_file;
    let default = WatchConfig::default();
    Settings {
        log: Setting::of(source.log.given.clone(), log, source.log.default.clone()),
        idle_timeout: Setting::of(source.idle_exit, idle_timeout, IDLE_EXIT),
        watch: WatchBounds {
            min: Setting::of(None, watch.min, default.every_min),
            max: Setting::of(None, watch.max, default.every_max),
        },
        settle: WatchBounds {
            min: Setting::of(None, settle.min, default.settle),
            max: Setting::of(None, settle.max, default.settle_max),
        },
        scrub: Setting::of(None, scrub, ScrubConfig::default().is_on),
        problem: None,
    }
}

/// What the file says; nothing if there is none and nobody named it.
fn read(source: &SettingsSource) -> Result<FromFile, Problem> {
    let Some(path) = &source.file else { return Ok(FromFile::default()) };
    let whole = |message: String| Problem { line: None, message };
    let mut text = String::new();
    let opened = File::open(path);
    match opened.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)) {
        Ok(n_bytes) if n_bytes as u64 > FILE_BYTES_MAX => {
            Err(whole(format!("more than {} KiB", FILE_BYTES_MAX >> 10)))
        }
        Ok(_) => file::parse(&text, source.log.check),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !source.is_named => {
            Ok(FromFile::default())
        }
        Err(error) => Err(whole(error.to_string())),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::PoisonError;
    use tempfile::TempDir;

    /// Nobody's file, and a log that is nobody's.
    pub(crate) fn source(file: Option<PathBuf>) -> SettingsSource {
        let log = LogFilter {
            given: None,
            default: "info".to_owned(),
            check: |_| Ok(()),
            set: Box::new(|_| ()),
        };
        SettingsSource { idle_exit: None, file, is_named: false, log }
    }

    fn file(text: &str) -> (TempDir, PathBuf) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    #[tokio::test]
    async fn what_is_given_wins_over_the_file_and_the_file_over_defaults() {
        let (_dir, path) = file("log = 'debug'\nidle_timeout = '1m'\nwatch.every_min = '1s'\n");
        let mut source = source(Some(path));
        source.log.given = Some("trace".to_owned());
        let settings = Config::new(source).unwrap().now();
        assert_eq!(settings.log, Setting { value: "trace".to_owned(), source: Source::Start });
        let minute = IdleExit::After(Duration::from_mins(1));
        assert_eq!(settings.idle_timeout, Setting { value: minute, source: Source::File });
        let WatchBounds { min, max } = settings.watch;
        assert_eq!(min, Setting { value: Duration::from_secs(1), source: Source::File });
        assert_eq!(max, Setting { value: Duration::from_mins(1), source: Source::Default });
    }

    #[tokio::test]
    async fn a_bad_file_keeps_what_held_and_a_good_one_is_told_to_whoever_it_is_about() {
        let (_dir, path) = file("");
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        let mut source = source(Some(path.clone()));
        source.log.set = Box::new(move |filter: Option<&str>| {
            let mut told = heard.lock().unwrap_or_else(PoisonError::into_inner);
            told.push(filter.map(str::to_owned));
        });
        let config = Config::new(source).unwrap();
        let (mut watching, mut scrubbing) = (config.watching(), config.scrubbing());
        assert!(told.lock().unwrap().is_empty(), "nothing was said");

        std::fs::write(&path, "log = 'debug'\nscrub = false\nwatch.every_max = '9s'\n").unwrap();
        config.reread();
        assert!(watching.has_changed().unwrap());
        assert_eq!(watching.borrow_and_update().every_max, Duration::from_secs(9));
        let settle = "watch = { every_max = '9s', settle = '9ms', settle_max = '90ms' }";
        std::fs::write(&path, format!("log = 'debug'\nscrub = false\n{settle}\n")).unwrap();
        config.reread();
        assert!(watching.has_changed().unwrap());
        let millis = Duration::from_millis;
        let WatchConfig { every_max, settle, settle_max, .. } = *watching.borrow_and_update();
        assert_eq!((every_max, settle, settle_max), (millis(9000), millis(9), millis(90)));
        assert!(scrubbing.has_changed().unwrap() && !scrubbing.borrow_and_update().is_on);
        let good = config.now();

        std::fs::write(&path, "log = 'info'\nidle_timout = '1m'\n").unwrap();
        config.reread();
        let Settings { problem, .. } = config.now();
        assert_eq!(problem.as_ref().and_then(|it| it.line), Some(2), "{problem:?}");
        assert_eq!(Settings { problem: None, ..config.now() }, good);

        // Without the file it is as if it had never been.
        std::fs::remove_file(&path).unwrap();
        config.reread();
        assert_eq!(config.now().problem, None);
        assert_eq!(*told.lock().unwrap(), [Some("debug".to_owned()), None]);
        assert_eq!(*watching.borrow_and_update(), WatchConfig::default());
        assert_eq!(*scrubbing.borrow_and_update(), ScrubConfig::default());
    }

    #[tokio::test]
    async fn only_a_file_that_was_named_keeps_the_daemon_from_starting() {
        let (dir, path) = file("nonsense");
        let settings = Config::new(source(Some(path.clone()))).unwrap().now();
        assert!(settings.problem.is_some(), "told, and defaults hold");
        assert_eq!(settings.log.source, Source::Default);
        for path in [path, dir.path().join("missing.toml")] {
            let named = SettingsSource { is_named: true, ..source(Some(path)) };
            assert!(Config::new(named).is_err());
        }
        let large = dir.path().join("large.toml");
        let n_bytes = usize::try_from(FILE_BYTES_MAX).unwrap() + 1;
        std::fs::write(&large, "#".repeat(n_bytes)).unwrap();
        let problem = Config::new(source(Some(large))).unwrap().now().problem.unwrap();
        assert_eq!(problem.to_string(), "more than 64 KiB");
    }
}
