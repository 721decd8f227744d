//! The matcher as a subtree: `pattern_matcher`, with a core, a library, a cache and workers.
//!
//! ```text
//! "pattern_matcher"  one_for_one 5/10, since each can do its work while another is restarted
//! ├── "pattern_matcher_core"  compiles; waits for the library where a name is asked for
//! ├── "pattern_library"       patterns with names
//! ├── "cache"                 what was compiled; read without asking it
//! └── "worker_pool"           dynamic 10/5: a temporary worker for each analysis
//! ```
//!
//! What is compiled and what is on the library's shelf stand above the services: any of them can
//! be killed without anybody's loss but that of what it was just doing; and requests that can be
//! asked again are, until their caller's deadline.

mod cache;
mod core;
mod patience;
mod shelf;
mod workers;

pub use cache::{CacheConfig, CacheStats};
pub use shelf::{LibraryState, RegisterError};
pub use workers::{AnalysisError, Found, Searched, Seat, Seats, TakingSeat};

use self::cache::{Cache, CacheMessage, Key, Store};
use self::core::{Core, CoreArgs, CoreMessage, Named};
use self::patience::Patience;
use self::shelf::{Library, LibraryMessage, Shelf};
use self::workers::Workers;
use crate::library::{Compiled, LibraryError, LibraryPattern};
use crate::matcher::{CompileError, Matcher, MatcherSpec};
use astscope_supervision::{
    Address, CallError, Checkpoint, ChildRef, ChildSpec, Reply, Strategy, Supervisor,
    SupervisorSpec,
};
use astscope_syntax::{Language, ParsedFile};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

/// What bounds the services of the matcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternMatcherConfig {
    /// Requests that may wait for the core, for the library, and for the cache. Compiling takes
    /// about a millisecond: 256 are answered long before anybody's deadline.
    pub mailbox: usize,
    /// Requests that may wait for the library to be ready, which takes some milliseconds at a
    /// start: as many as the mailbox holds.
    pub waiting_max: usize,
    /// Patterns that are compiled at once. Few, since the threads are wanted for matching.
    pub compiles_max: usize,
    /// The cache of compiled matchers.
    pub cache: CacheConfig,
    /// How often the library's shelf is looked at: every 5 minutes, as often as the cache is
    /// swept.
    pub check_every: Duration,
    /// Patterns that may be registered: they are all compiled when the library is loaded, 1,024 in
    /// about a second.
    pub registered_max: usize,
    /// How long an analysis may take at first: 5 s, as `ElixirScope` says. A tenth of it is for
    /// each file.
    pub analysis_within: Duration,
    /// What that grows to, doubled at each timeout: a minute is longer than anybody waits.
    pub analysis_within_max: Duration,
    /// Workers that may run, whatever the seats allow: a bound on mistakes only.
    pub workers_max: usize,
    /// How long a worker may take to stop: 1 s, as `ElixirScope` says.
    pub worker_stop_within: Duration,
}

impl Default for PatternMatcherConfig {
    fn default() -> Self {
        Self {
            mailbox: 256,
            waiting_max: 256,
            compiles_max: 4,
            cache: CacheConfig::default(),
            check_every: Duration::from_mins(5),
            registered_max: 1_024,
            analysis_within: Duration::from_secs(5),
            analysis_within_max: Duration::from_mins(1),
            workers_max: 256,
            worker_stop_within: Duration::from_secs(1),
        }
    }
}

/// Why there is nothing to match with.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The pattern can't be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The named pattern can't be compiled.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// No pattern has this name.
    #[error("no pattern is called {0}")]
    Unknown(Arc<str>),
    /// The library isn't ready, and too many wait for it.
    #[error("the pattern library is loading")]
    Loading,
    /// Compiling panicked, which is a bug.
    #[error("compiling a pattern panicked: {0}")]
    Panicked(Arc<str>),
    /// The core can't be reached, or didn't answer in time.
    #[error("asking for a matcher")]
    Unavailable(#[from] CallError),
}

/// The matcher's services. Cheap to clone, valid before the first start and across all restarts.
#[derive(Clone, Debug)]
pub struct PatternMatcherHandle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: PatternMatcherConfig,
    store: Arc<Store>,
    shelf: Arc<Shelf>,
    patience: Patience,
    workers: Workers,
    core: Address<CoreMessage>,
    library: Address<LibraryMessage>,
    cache: Address<CacheMessage>,
}

impl PatternMatcherHandle {
    /// Services that aren't started yet. `seats` admits the workers.
    pub fn new(config: PatternMatcherConfig, seats: Arc<dyn Seats>) -> Self {
        Self(Arc::new(Shared {
            store: Arc::new(Store::new(config.cache.clone())),
            shelf: Arc::new(Shelf::new(config.check_every, config.registered_max)),
            patience: Patience::new(config.analysis_within, config.analysis_within_max),
            workers: Workers::new(seats, config.worker_stop_within),
            core: Address::new("pattern_matcher_core", config.mailbox),
            library: Address::new("pattern_library", config.mailbox),
            cache: Address::new("cache", config.mailbox),
            config,
        }))
    }

    /// The subtree, to be run as `pattern_matcher`.
    pub fn supervisor(&self) -> SupervisorSpec {
        let shared = &*self.0;
        let args = CoreArgs {
            cache: Arc::clone(&shared.store),
            shelf: Arc::clone(&shared.shelf),
            compiles_max: shared.config.compiles_max,
            waiting_max: shared.config.waiting_max,
        };
        SupervisorSpec::new(Strategy::OneForOne)
            .intensity(5, Duration::from_secs(10))
            .child(ChildSpec::service::<Core>(&shared.core, args).ready_later())
            .child(
                ChildSpec::service::<Library>(&shared.library, Arc::clone(&shared.shelf))
                    .ready_later(),
            )
            .child(ChildSpec::service::<Cache>(&shared.cache, Arc::clone(&shared.store)))
            .child(shared.workers.spec(shared.config.workers_max))
    }

    /// `pattern_matcher_core`, to be watched. Ready once patterns can be asked for by name.
    pub fn core(&self) -> ChildRef {
        self.0.core.child()
    }

    /// `pattern_library`, to be watched.
    pub fn library(&self) -> ChildRef {
        self.0.library.child()
    }

    /// `cache`, to be watched.
    pub fn cache(&self) -> ChildRef {
        self.0.cache.child()
    }

    /// `worker_pool`, to be asked who is at work.
    pub fn worker_pool(&self) -> &Supervisor {
        self.0.workers.supervisor()
    }

    /// A matcher for a pattern or kind, compiled now or before.
    pub async fn compile(
        &self,
        within: Duration,
        language: Language,
        spec: &MatcherSpec,
        rewrite: Option<&str>,
    ) -> Result<Arc<Matcher>, PatternError> {
        let rewrite = rewrite.map(str::to_owned);
        let key = Key::Matcher(language, spec.clone(), rewrite.clone());
        let compiled = match self.0.store.get(&key) {
            Some(compiled) => compiled,
            None => {
                self.ask(within, |reply| {
                    CoreMessage::Compile(language, spec.clone(), rewrite.clone(), reply)
                })
                .await?
            }
        };
        match compiled {
            Compiled::Matcher(matcher) => Ok(matcher),
            // A pattern compiles to a matcher.
            Compiled::Rules(_) => Err(CompileError::PatternOrKind.into()),
        }
    }

    /// A pattern of the library, ready for one of its languages. While the library is loading this
    /// waits for it.
    pub async fn named(
        &self,
        within: Duration,
        id: &str,
        language: Language,
    ) -> Result<Compiled, PatternError> {
        let id: Arc<str> = id.into();
        self.ask(within, |reply| CoreMessage::Named(Named { id: Arc::clone(&id), language, reply }))
            .await
    }

    /// Asks the core, and again if it died over it: asking changes nothing.
    async fn ask(
        &self,
        within: Duration,
        request: impl Fn(Reply<Result<Compiled, PatternError>>) -> CoreMessage,
    ) -> Result<Compiled, PatternError> {
        let start = Instant::now();
        loop {
            let left = within.saturating_sub(start.elapsed());
            match self.0.core.call(left, &request).await {
                Ok(answer) => return answer,
                Err(CallError::Died) if start.elapsed() < within => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The pattern of this name. Never waits.
    pub fn pattern(&self, id: &str) -> Option<Arc<LibraryPattern>> {
        self.0.shelf.patterns().get(id).map(Arc::clone)
    }

    /// All patterns, by id. Never waits.
    pub fn patterns(&self) -> Vec<Arc<LibraryPattern>> {
        self.0.shelf.patterns().values().map(Arc::clone).collect()
    }

    /// Patterns whose id, name or description has this text, by id. Never waits.
    pub fn find_patterns(&self, text: &str) -> Vec<Arc<LibraryPattern>> {
        let text = text.to_lowercase();
        let has = |of: &str| of.to_lowercase().contains(&text);
        let mut all = self.patterns();
        all.retain(|of| has(&of.id) || has(&of.name) || has(&of.description));
        all
    }

    /// Adds a pattern to the library, or a newer version of one.
    pub async fn register(
        &self,
        within: Duration,
        pattern: LibraryPattern,
    ) -> Result<(), RegisterError> {
        let request = |reply| LibraryMessage::Register(Arc::new(pattern), reply);
        self.0.library.call(within, request).await?
    }

    /// Takes a pattern away that was registered.
    pub async fn unregister(&self, within: Duration, id: &str) -> Result<(), RegisterError> {
        self.0.library.call(within, |reply| LibraryMessage::Unregister(id.into(), reply)).await?
    }

    /// Fills the library's shelf again. Returns whether it was as it should be.
    pub async fn reload_library(&self, within: Duration) -> Result<bool, CallError> {
        self.0.library.call(within, |reply| LibraryMessage::Check(true, reply)).await
    }

    /// Looks at the library's shelf now, and fills it again if it isn't as it should be. Returns
    /// whether it was.
    pub async fn check_library(&self, within: Duration) -> Result<bool, CallError> {
        self.0.library.call(within, |reply| LibraryMessage::Check(false, reply)).await
    }

    /// Tells when the library changes, and when it had to be filled again.
    pub fn watch_library(&self) -> watch::Receiver<LibraryState> {
        self.0.shelf.state.subscribe()
    }

    /// Drops what was compiled and not used in this long, and says how many entries those were and
    /// about how many bytes they took; a `dry_run` only counts them. Waits for no service.
    pub fn forget_compiled(&self, idle: Duration, dry_run: bool) -> (usize, usize) {
        if dry_run { self.0.store.idle(idle) } else { self.0.store.forget(idle) }
    }

    /// How the cache stands.
    pub async fn cache_stats(&self, within: Duration) -> Result<CacheStats, CallError> {
        self.0.cache.call(within, CacheMessage::Stats).await
    }

    /// Empties the cache, and its counts.
    pub async fn clear_cache(&self, within: Duration) -> Result<(), CallError> {
        self.0.cache.call(within, CacheMessage::Clear).await
    }

    /// How long an analysis may take at this time; changes are told.
    pub fn watch_analysis_limit(&self) -> watch::Receiver<Duration> {
        self.0.patience.watch()
    }

    /// Runs a job on a worker of its own, within the limit on analyses and the caller's `within`,
    /// the wait for a seat included. A job that looks at its checkpoint ends when nobody waits for
    /// it; one that doesn't keeps its seat.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the job.
    pub async fn analyse<R: Send + 'static>(
        &self,
        within: Duration,
        job: impl FnOnce(&Checkpoint) -> R + Send + 'static,
    ) -> Result<R, AnalysisError> {
        self.0.workers.run(within, &self.0.patience, job).await
    }

    /// Searches files on a worker, for at most `limit` matches.
    pub async fn search(
        &self,
        within: Duration,
        compiled: Compiled,
        files: Vec<Arc<ParsedFile>>,
        limit: usize,
    ) -> Result<Searched, AnalysisError> {
        // 500 ms of 5 s: one file must not use up what is for all.
        let file_limit = self.0.patience.limit() / 10;
        let job = move |checkpoint: &Checkpoint| {
            workers::search(&compiled, &files, limit, file_limit, checkpoint)
        };
        self.analyse(within, job).await
    }
}

#[cfg(test)]
mod tests;
