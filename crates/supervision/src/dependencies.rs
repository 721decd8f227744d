//! Who needs whom, apart from who starts first.
//!
//! Start order says that a service *exists* before those after it; it doesn't say that it can do
//! its work, and a restart brings it back after services that need it. A service that needs others
//! waits for their readiness, all of them together until one deadline.

use crate::address::{ChildRef, NotReady};
use crate::later;
use rustc_hash::FxHashSet;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A map from services to those that they need. Checked when it is made: it names only services
/// that it knows, each of them once, and nobody waits for himself.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    services: BTreeMap<Arc<str>, ChildRef>,
    needs: BTreeMap<Arc<str>, Vec<Arc<str>>>,
}

/// Why a map can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DependencyError {
    /// A service needs one that isn't in the map.
    #[error("`{service}` needs `{missing}`, which nobody has declared")]
    Unknown {
        /// The service.
        service: String,
        /// What it needs.
        missing: String,
    },
    /// Two services have one id, so it doesn't say which of them is needed.
    #[error("two services are called `{0}`")]
    Twice(String),
    /// Services need each other.
    #[error("these need each other: {}", .0.join(" → "))]
    Cycle(Vec<String>),
}

impl Dependencies {
    /// A map of these services, each with the ids of those that it needs.
    pub fn new<'a>(
        services: impl IntoIterator<Item = (ChildRef, &'a [&'a str])>,
    ) -> Result<Self, DependencyError> {
        let mut map = Self::default();
        for (service, needs) in services {
            let id = Arc::clone(service.id());
            map.needs.insert(Arc::clone(&id), needs.iter().map(|need| Arc::from(*need)).collect());
            if let Some(other) = map.services.insert(id, service) {
                return Err(DependencyError::Twice(other.id().to_string()));
            }
        }
        for (service, needs) in &map.needs {
            if let Some(missing) = needs.iter().find(|need| !map.services.contains_key(*need)) {
                let (service, missing) = (service.to_string(), missing.to_string());
                return Err(DependencyError::Unknown { service, missing });
            }
        }
        let mut done = FxHashSet::default();
        for service in map.needs.keys() {
            map.walk(service, &mut Vec::new(), &mut done)?;
        }
        Ok(map)
    }

    /// Whether everything that `id` needs is ready now. A service that isn't in the map needs
    /// nothing.
    pub fn check(&self, id: &str) -> bool {
        self.lacking(id).next().is_none()
    }

    /// What `id` needs and isn't ready now, in the order in which it was declared.
    pub fn lacking(&self, id: &str) -> impl Iterator<Item = &ChildRef> {
        self.of(id).filter(|need| !need.status().is_ready())
    }

    /// Waits until everything that `id` needs is ready at the same time, at most for `within` in
    /// all. The error names the first that isn't.
    ///
    /// An init may wait only for what is started before it: as long as it does, nothing after it is.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn await_for(&self, id: &str, within: Duration) -> Result<(), NotReady> {
        await_together(self.of(id).collect(), within).await
    }

    /// The same for everything that anybody in the map needs.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn await_all(&self, within: Duration) -> Result<(), NotReady> {
        let is_needed = |id: &Arc<str>| self.needs.values().any(|needs| needs.contains(id));
        let needed = self.services.iter().filter(|(id, _)| is_needed(id));
        await_together(needed.map(|(_, service)| service).collect(), within).await
    }

    fn of<'a>(&'a self, id: &str) -> impl Iterator<Item = &'a ChildRef> + use<'a> {
        let needs = self.needs.get(id).map(Vec::as_slice).unwrap_or_default();
        needs.iter().filter_map(|need| self.services.get(need))
    }

    /// Walks down from a service; `above` is the way there.
    fn walk(
        &self,
        service: &Arc<str>,
        above: &mut Vec<Arc<str>>,
        done: &mut FxHashSet<Arc<str>>,
    ) -> Result<(), DependencyError> {
        if done.contains(service) {
            return Ok(());
        }
        if let Some(at) = above.iter().position(|other| other == service) {
            let cycle = above.iter().skip(at).chain([service]);
            return Err(DependencyError::Cycle(cycle.map(ToString::to_string).collect()));
        }
        above.push(Arc::clone(service));
        for need in self.needs.get(service).map(Vec::as_slice).unwrap_or_default() {
            self.walk(need, above, done)?;
        }
        above.pop();
        done.insert(Arc::clone(service));
        Ok(())
    }
}

/// Waits until all of them are ready at the same time.
async fn await_together(services: Vec<&ChildRef>, within: Duration) -> Result<(), NotReady> {
    let deadline = later(Instant::now(), within);
    loop {
        for service in &services {
            service.await_ready_by(deadline).await?;
        }
        // One may have gone while another was waited for.
        if services.iter().all(|service| service.status().is_ready()) {
            return Ok(());
        }
    }
}
