//! The watched roots: which serves a path, and the files that a selection means.

use crate::daemon::Daemon;
use crate::foundation::event_bus::DaemonEvent;
use crate::readiness::NEEDS_WITHIN;
use crate::request::RequestContext;
use crate::workspace::Workspace;
use crate::{errors, tree, wire};
use astscope_protocol::WAIT_MS_DEFAULT;
use astscope_protocol::frame::RpcError;
use astscope_protocol::messages::Selection;
use astscope_repository::{Revision, Scope};
use astscope_supervision::DynamicSupervisor;
use astscope_synchronization::service::{SyncError, Wait};
use astscope_synchronization::{
    LanguageGlobs, RefreshError, RootDecision, RootError, Synchronizer, WalkSpec, roots,
};
use astscope_syntax::Language;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// All watched roots; none lies inside another.
#[derive(Debug)]
pub(crate) struct Workspaces {
    pub(crate) trees: DynamicSupervisor<Arc<Workspace>>,
    last: AtomicU64,
    open: Mutex<Vec<Arc<Workspace>>>,
    /// Held while a root is opened, so that none is opened twice.
    opening: tokio::sync::Mutex<()>,
}

impl Default for Workspaces {
    fn default() -> Self {
        Self {
            trees: DynamicSupervisor::new("workspaces", |workspace: Arc<Workspace>| {
                tree::workspace(&workspace)
            }),
            last: AtomicU64::new(0),
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }
    }
}

impl Workspaces {
    /// The roots, in the order of their paths.
    pub(crate) fn all(&self) -> Vec<Arc<Workspace>> {
        self.lock().clone()
    }

    /// The workspace that a file lies in, if that is open and runs.
    pub(crate) fn running_around(&self, file: &Path) -> Option<Arc<Workspace>> {
        self.around(&file.canonicalize().ok()?).filter(|known| !known.has_gone())
    }

    /// Opens `root`, or finds it open, and begins to index it.
    pub(crate) async fn open(
        &self,
        daemon: &Arc<Daemon>,
        root: PathBuf,
    ) -> Result<Arc<Workspace>, RpcError> {
        let known = self.around(&root);
        if known.is_none_or(|known| known.has_gone()) {
            // Before the lock: whoever waits for the foundation is no reason for others to wait.
            let foundation = daemon.foundation.running().await;
            foundation.map_err(|lacking| errors::foundation(&root, lacking))?;
        }
        let _opening = self.opening.lock().await;
        if let Some(known) = self.around(&root) {
            // Its services go with their supervisor; what they work on stays.
            if known.has_gone() {
                self.start(&known).await?;
            }
            return Ok(known);
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let workspace = Workspace::new(daemon, number, root);
        let workspace = Arc::new(workspace.map_err(|error| errors::bug(&error))?);
        self.start(&workspace).await?;
        let inner: Vec<Arc<Workspace>> = {
            let mut open = self.lock();
            // A root inside the new one is served by the new one from now on: nothing is held
            // twice.
            let (inner, mut rest): (Vec<_>, Vec<_>) = std::mem::take(&mut *open)
                .into_iter()
                .partition(|inner| inner.root.starts_with(&workspace.root));
            rest.push(Arc::clone(&workspace));
            rest.sort_by(|a, b| a.root.cmp(&b.root));
            *open = rest;
            inner
        };
        for inner in inner {
            // Queries that still run there are told that it is gone, and asked again here.
            if let Err(error) = self.trees.supervisor().terminate_child(&inner.id).await {
                tracing::warn!(root = %inner.root.display(), %error, "cannot close");
            }
            daemon.events.publish(DaemonEvent::Closed { root: inner.root.clone() });
        }
        tracing::info!(root = %workspace.root.display(), "opened");
        daemon.events.publish(DaemonEvent::Opened { root: workspace.root.clone() });
        Ok(workspace)
    }

    /// The same, and waits until its services have what they need, for [`NEEDS_WITHIN`] in all.
    pub(crate) async fn open_ready(
        &self,
        daemon: &Arc<Daemon>,
        root: PathBuf,
    ) -> Result<Arc<Workspace>, RpcError> {
        let workspace = self.open(daemon, root).await?;
        let needs = workspace.dependencies().map_err(|error| errors::bug(&error.to_string()))?;
        let ready = needs.await_all(NEEDS_WITHIN).await;
        ready.map_err(|error| errors::lacking(&workspace.root, &error))?;
        Ok(workspace)
    }

    /// The workspace that a path lies in, opened if need be. Blocks.
    pub(crate) fn of(&self, daemon: &Arc<Daemon>, path: &Path) -> Result<Arc<Workspace>, RpcError> {
        match self.decide(path).map_err(|error| errors::root(&error))? {
            RootDecision::Watched(root) | RootDecision::New(root) => {
                daemon.runtime.block_on(self.open(daemon, root))
            }
            RootDecision::OneShot => Err(errors::root_refused(path)),
        }
    }

    /// The workspace that all paths of a selection lie in. Blocks.
    pub(crate) fn sole(
        &self,
        daemon: &Arc<Daemon>,
        selection: &Selection,
    ) -> Result<Arc<Workspace>, RpcError> {
        match &self.group(daemon, &walk_spec(selection, None)?)?[..] {
            [(Some(workspace), _)] => Ok(Arc::clone(workspace)),
            _ => Err(errors::params("not all paths lie in one directory that can be watched")),
        }
    }

    /// The open root that `root` is, or lies in.
    fn around(&self, root: &Path) -> Option<Arc<Workspace>> {
        self.lock().iter().find(|known| root.starts_with(&known.root)).cloned()
    }

    async fn start(&self, workspace: &Arc<Workspace>) -> Result<(), RpcError> {
        let started = self.trees.start_child(Arc::clone(workspace)).await;
        started.map(drop).map_err(|error| errors::workspace(&workspace.root, &error))
    }

    /// The workspace whose services run a query, if any of its paths has one. Blocks.
    pub(crate) fn home(
        &self,
        daemon: &Arc<Daemon>,
        selection: &Selection,
    ) -> Result<Option<Arc<Workspace>>, RpcError> {
        if selection.stdin.is_some() {
            return Ok(None);
        }
        let spec = walk_spec(selection, None)?;
        for typed in typed(&spec) {
            if let Some(home) = self.serving(daemon, &spec.cwd.join(typed))? {
                return Ok(Some(home));
            }
        }
        Ok(None)
    }

    /// The files that `selection` means, brought up to date, as far as that is waited for. What lies
    /// outside every root is always waited for: nothing of it is stored.
    pub(crate) fn scope(
        &self,
        daemon: &Arc<Daemon>,
        context: &RequestContext,
        selection: &Selection,
        languages: Option<Vec<Language>>,
        wait: Option<Wait>,
    ) -> Result<Scope, RpcError> {
        let spec = walk_spec(selection, languages)?;
        let mut parts = Vec::new();
        for (workspace, paths) in self.group(daemon, &spec)? {
            let spec = WalkSpec { paths, ..spec.clone() };
            let giving_up = context.clone();
            let stop = move || giving_up.interrupt().is_some();
            let progress = context.progress("indexing");
            let part = if let Some(workspace) = workspace {
                let (stop, progress) = (Arc::new(stop), Arc::new(progress));
                // A new root is waited for however long that takes.
                let wait = match wait {
                    None if workspace.sync.is_indexing() => Wait::Done,
                    None => Wait::Within(Duration::from_millis(WAIT_MS_DEFAULT)),
                    Some(wait) => wait,
                };
                let refresh = workspace.sync.refresh(spec, wait, stop, progress);
                let part = daemon.runtime.block_on(in_time(context, refresh));
                part.map_err(|error| errors::sync(&error, context))?
            } else {
                let once = Synchronizer::one_shot(Arc::clone(&daemon.pool))
                    .with_backend(daemon.parsers.backend());
                let part = once.refresh(&spec, true, &stop, &progress);
                part.map_err(|error| errors::refresh(&error, context))?
            };
            parts.push(part);
        }
        Ok(merge(parts))
    }

    /// The typed paths by the workspace that serves them; `None` for those without one.
    fn group(&self, daemon: &Arc<Daemon>, spec: &WalkSpec) -> Result<Vec<Served>, RpcError> {
        let mut groups: Vec<Served> = Vec::new();
        for path in typed(spec) {
            let workspace = self.serving(daemon, &spec.cwd.join(&path))?;
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
        Ok(groups)
    }

    fn serving(
        &self,
        daemon: &Arc<Daemon>,
        path: &Path,
    ) -> Result<Option<Arc<Workspace>>, RpcError> {
        match self.decide(path) {
            Ok(RootDecision::Watched(root) | RootDecision::New(root)) => {
                daemon.runtime.block_on(self.open(daemon, root)).map(Some)
            }
            // A path that can't be looked at is reported by the walk, like any other.
            Ok(RootDecision::OneShot) | Err(_) => Ok(None),
        }
    }

    fn decide(&self, path: &Path) -> Result<RootDecision, RootError> {
        let watched: Vec<PathBuf> = self.lock().iter().map(|known| known.root.clone()).collect();
        roots::decide(path, &watched)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Workspace>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Typed paths, and the workspace that serves them.
type Served = (Option<Arc<Workspace>>, Vec<String>);

/// The paths as typed, and what none means.
fn typed(spec: &WalkSpec) -> Vec<String> {
    if spec.paths.is_empty() { vec![".".to_owned()] } else { spec.paths.clone() }
}

/// What comes of a refresh before its request's deadline: the disk may be what doesn't answer.
async fn in_time(
    context: &RequestContext,
    refresh: impl Future<Output = Result<Scope, SyncError>>,
) -> Result<Scope, SyncError> {
    let Some(deadline) = context.deadline else { return refresh.await };
    let refreshed = tokio::time::timeout_at(deadline.into(), refresh).await;
    refreshed.unwrap_or(Err(SyncError::Refresh(RefreshError::Cancelled)))
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
        merged.kept.extend(part.kept);
        if let Some(lag) = part.lag {
            let all = merged.lag.get_or_insert_default();
            all.files.extend(lag.files);
            all.behind = all.behind.max(lag.behind);
            all.are_names_unknown |= lag.are_names_unknown;
        }
    }
    if several {
        merged.files.sort_by(|a, b| a.display.cmp(&b.display));
        merged.skipped.sort();
        merged.kept.sort();
        if let Some(lag) = &mut merged.lag {
            lag.files.sort();
        }
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
