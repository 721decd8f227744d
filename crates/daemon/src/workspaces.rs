//! The watched roots: which serves a path, and the files that a selection means.

use crate::daemon::{Busy, Daemon, Phase};
use crate::request::RequestContext;
use crate::{cpu, errors, wire};
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::Selection;
use astscope_repository::{Repository, Revision, Scope};
use astscope_supervision::{ChildSpec, DynamicSupervisor};
use astscope_synchronization::{
    LanguageGlobs, RootDecision, RootError, Synchronizer, WalkSpec, roots,
};
use astscope_syntax::Language;
use rayon::ThreadPool;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A watched root.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) repository: Arc<Repository>,
    pub(crate) synchronizer: Synchronizer,
    pub(crate) indexing: AtomicBool,
    pub(crate) files_seen: AtomicU64,
    /// Set once the first crawl is done.
    pub(crate) indexed_in_ms: OnceLock<u64>,
}

/// All watched roots; none lies inside another.
#[derive(Debug)]
pub(crate) struct Workspaces {
    pub(crate) crawls: DynamicSupervisor<Crawl>,
    open: Mutex<Vec<Arc<Workspace>>>,
    /// Held while a root is opened, so that none is opened twice.
    opening: tokio::sync::Mutex<()>,
}

impl Default for Workspaces {
    fn default() -> Self {
        let crawls = DynamicSupervisor::new("workspaces", crawl);
        Self { crawls, open: Mutex::default(), opening: tokio::sync::Mutex::default() }
    }
}

impl Workspaces {
    /// The roots, in the order of their paths.
    pub(crate) fn all(&self) -> Vec<Arc<Workspace>> {
        self.lock().clone()
    }

    /// Opens the directory `path`, which somebody named as a root. Blocks.
    pub(crate) fn open_explicit(
        &self,
        daemon: &Arc<Daemon>,
        path: &Path,
    ) -> Result<Arc<Workspace>, RootError> {
        let root = roots::explicit(path)?;
        Ok(daemon.runtime.block_on(self.open(daemon, root)))
    }

    /// Opens `root`, or finds it open, and begins to index it.
    pub(crate) async fn open(&self, daemon: &Arc<Daemon>, root: PathBuf) -> Arc<Workspace> {
        let _opening = self.opening.lock().await;
        if let Some(known) = self.lock().iter().find(|known| root.starts_with(&known.root)) {
            return Arc::clone(known);
        }
        let workspace = Arc::new(Workspace::new(root, Arc::clone(&daemon.pool)));
        {
            let mut open = self.lock();
            // A root inside the new one is served by the new one from now on: nothing is held
            // twice.
            open.retain(|inner| !inner.root.starts_with(&workspace.root));
            open.push(Arc::clone(&workspace));
            open.sort_by(|a, b| a.root.cmp(&b.root));
        }
        tracing::info!(root = %workspace.root.display(), "opened");
        index(daemon, &workspace).await;
        workspace
    }

    /// The files that `selection` means, brought up to date.
    pub(crate) fn scope(
        &self,
        daemon: &Arc<Daemon>,
        context: &RequestContext,
        selection: &Selection,
        languages: Option<Vec<Language>>,
        no_wait: bool,
    ) -> Result<Scope, RpcError> {
        let spec = walk_spec(selection, languages)?;
        let stop = || context.interrupt().is_some();
        let progress = context.progress("indexing");
        let mut parts = Vec::new();
        for (workspace, paths) in self.group(daemon, &spec) {
            let spec = WalkSpec { paths, ..spec.clone() };
            let part = if let Some(workspace) = workspace {
                workspace.synchronizer.refresh(&spec, !no_wait, &stop, &progress)
            } else {
                let once = Synchronizer::one_shot(Arc::clone(&daemon.pool));
                once.refresh(&spec, true, &stop, &progress)
            };
            parts.push(part.map_err(|error| errors::refresh(&error, context))?);
        }
        Ok(merge(parts))
    }

    /// The typed paths by the workspace that serves them; `None` for those without one.
    fn group(
        &self,
        daemon: &Arc<Daemon>,
        spec: &WalkSpec,
    ) -> Vec<(Option<Arc<Workspace>>, Vec<String>)> {
        let typed = if spec.paths.is_empty() { vec![".".to_owned()] } else { spec.paths.clone() };
        let mut groups: Vec<(Option<Arc<Workspace>>, Vec<String>)> = Vec::new();
        for path in typed {
            let workspace = self.serving(daemon, &spec.cwd.join(&path));
            let same =
                |(known, _): &&mut (Option<Arc<Workspace>>, Vec<String>)| match (known, &workspace)
                {
                    (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                    (None, None) => true,
                    _ => false,
                };
            match groups.iter_mut().find(same) {
                Some((_, paths)) => paths.push(path),
                None => groups.push((workspace, vec![path])),
            }
        }
        groups
    }

    fn serving(&self, daemon: &Arc<Daemon>, path: &Path) -> Option<Arc<Workspace>> {
        let watched: Vec<PathBuf> = self.lock().iter().map(|known| known.root.clone()).collect();
        // A path that can't be looked at is reported by the walk, like any other.
        match roots::decide(path, &watched).ok()? {
            RootDecision::OneShot => None,
            RootDecision::Watched(root) | RootDecision::New(root) => {
                Some(daemon.runtime.block_on(self.open(daemon, root)))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Workspace>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Workspace {
    fn new(root: PathBuf, pool: Arc<ThreadPool>) -> Self {
        // Each life of a workspace has an epoch of its own, across restarts of the daemon too.
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let repository = Arc::new(Repository::new(u64::try_from(epoch).unwrap_or(u64::MAX)));
        let synchronizer = Synchronizer::new(Arc::clone(&repository), root.clone(), pool);
        Self {
            synchronizer,
            root,
            repository,
            indexing: AtomicBool::new(true),
            files_seen: AtomicU64::new(0),
            indexed_in_ms: OnceLock::new(),
        }
    }

    /// Notes that a crawl which began at `started` is done; the first tells how long it took.
    pub(crate) fn indexed_since(&self, started: Instant) -> u64 {
        let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.indexed_in_ms.get_or_init(|| ms);
        self.indexing.store(false, Ordering::Relaxed);
        ms
    }
}

/// A first crawl of a workspace.
pub(crate) struct Crawl {
    workspace: Arc<Workspace>,
    daemon: Arc<Daemon>,
    busy: Busy,
}

/// Indexes a new workspace in the background; queries are served meanwhile.
async fn index(daemon: &Arc<Daemon>, workspace: &Arc<Workspace>) {
    let crawl = Crawl {
        workspace: Arc::clone(workspace),
        daemon: Arc::clone(daemon),
        busy: daemon.begin(),
    };
    if let Err(error) = daemon.workspaces.crawls.start_child(crawl).await {
        workspace.indexing.store(false, Ordering::Relaxed);
        tracing::warn!(root = %workspace.root.display(), %error, "not indexed");
    }
}

fn crawl(crawl: Crawl) -> ChildSpec {
    let id = format!("crawl_{}", crawl.workspace.repository.snapshot().revision().epoch);
    ChildSpec::once(id, |ctx| async move {
        let Crawl { workspace, daemon, busy } = crawl;
        ctx.blocking(None, move |checkpoint| {
            let started = Instant::now();
            let stop = || checkpoint.check().is_err() || *daemon.phase.borrow() != Phase::Running;
            let seen = |_, total| workspace.files_seen.store(total as u64, Ordering::Relaxed);
            // Of its own, and gone afterwards: what its threads' allocators and parsers held on to
            // goes back to the system, which is a third of the memory of a small workspace.
            let crawled = cpu::pool("index").map_err(|error| error.to_string()).and_then(|pool| {
                let crawled = workspace.synchronizer.crawl_on(&pool, &stop, &seen);
                crawled.map_err(|error| error.to_string())
            });
            workspace.indexing.store(false, Ordering::Relaxed);
            let root = workspace.root.display();
            match crawled {
                Ok(_) => tracing::info!(%root, ms = workspace.indexed_since(started), "indexed"),
                Err(error) => tracing::warn!(%root, error, "not indexed"),
            }
            drop(busy);
        })
        .await
    })
}

/// One scope of several: files in the order of display, the revision of the only repository.
fn merge(parts: Vec<Scope>) -> Scope {
    let mut merged = Scope::default();
    let revisions: Vec<Revision> = parts.iter().filter_map(|part| part.revision).collect();
    if let [revision] = revisions[..] {
        merged.revision = Some(revision);
    }
    let several = parts.len() > 1;
    for part in parts {
        merged.files.extend(part.files);
        merged.pending += part.pending;
        merged.skipped.extend(part.skipped);
    }
    if several {
        merged.files.sort_by(|a, b| a.display.cmp(&b.display));
        merged.skipped.sort();
    }
    merged
}

fn walk_spec(
    selection: &Selection,
    languages: Option<Vec<Language>>,
) -> Result<WalkSpec, RpcError> {
    let cwd = errors::absolute("cwd", &selection.cwd)?.to_path_buf();
    let globs = selection.language_globs.iter().map(|(name, globs)| {
        let language: Language = name.parse().map_err(|error| errors::language(&error))?;
        Ok((language, globs.clone()))
    });
    let globs = LanguageGlobs::compile(globs.collect::<Result<Vec<_>, RpcError>>()?);
    Ok(WalkSpec {
        // Resolved, so that one directory is one directory however it was reached.
        cwd: cwd.canonicalize().unwrap_or(cwd),
        paths: selection.paths.clone(),
        globs: selection.globs.clone(),
        no_ignore: selection.no_ignore.iter().copied().map(wire::ignore_source).collect(),
        follow: selection.follow,
        language_globs: globs.map_err(|error| errors::glob(&error))?,
        languages,
    })
}
