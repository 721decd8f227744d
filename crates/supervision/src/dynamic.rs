//! Children that come and go: a template, and arguments for each start.

use crate::spec::{ChildSpec, SupervisorSpec};
use crate::supervisor::Supervisor;
use crate::{AdminError, ChildRef};
use std::fmt;
use std::sync::Arc;

/// A dynamic supervisor and the template of its children: OTP's `simple_one_for_one`, Elixir's
/// `DynamicSupervisor`. Cheap to clone, valid across restarts.
///
/// Children are independent of each other and are stopped all at once. The template decides on
/// each child's name, which must be free, and on its policy. A restarted supervisor begins without
/// children.
///
/// ```
/// # use astscope_supervision::{ChildSpec, DynamicSupervisor, Restart, Strategy, SupervisorSpec};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connections = DynamicSupervisor::new("connections", |peer: &str| {
///     ChildSpec::task(peer, |ctx| async move {
///         ctx.stopping().await;
///         Ok(())
///     })
///     .restart(Restart::Temporary)
/// });
/// let root = SupervisorSpec::new(Strategy::OneForOne)
///     .child(connections.spec(SupervisorSpec::dynamic(100)))
///     .start("daemon")
///     .await?;
/// connections.start_child("alice").await?;
/// assert_eq!(connections.supervisor().count_children().await?.active, 1);
/// connections.supervisor().terminate_child("alice").await?;
/// root.shutdown().await;
/// # Ok(())
/// # }
/// ```
pub struct DynamicSupervisor<A> {
    supervisor: Supervisor,
    template: Arc<dyn Fn(A) -> ChildSpec + Send + Sync>,
}

impl<A> DynamicSupervisor<A> {
    /// A dynamic supervisor of this name, not started yet.
    pub fn new(
        id: impl Into<Arc<str>>,
        template: impl Fn(A) -> ChildSpec + Send + Sync + 'static,
    ) -> Self {
        Self { supervisor: Supervisor::new(id), template: Arc::new(template) }
    }

    /// The place in the tree where it runs: a child of whoever is to supervise it. `spec` should be
    /// a [`SupervisorSpec::dynamic`].
    pub fn spec(&self, spec: SupervisorSpec) -> ChildSpec {
        ChildSpec::supervisor_at(&self.supervisor, spec)
    }

    /// Starts a child. `None` if its init chose not to run.
    pub async fn start_child(&self, args: A) -> Result<Option<ChildRef>, AdminError> {
        self.supervisor.start_child((self.template)(args)).await
    }

    /// The supervisor, to be asked.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }
}

impl<A> Clone for DynamicSupervisor<A> {
    fn clone(&self) -> Self {
        Self { supervisor: self.supervisor.clone(), template: Arc::clone(&self.template) }
    }
}

impl<A> fmt::Debug for DynamicSupervisor<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DynamicSupervisor").field(self.supervisor.id()).finish()
    }
}
